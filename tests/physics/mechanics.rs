//! Small models whose motion is known in closed form.

use super::{lowest, made};
use flipside_envs::physics::{Backend, Quantity};
use std::f64::consts::TAU;

/// Steps until `q` has crossed its mean upwards twice. Returns the seconds between, interpolated.
fn period(backend: &mut Box<dyn Backend>, mean: f64) -> f64 {
    let dt = backend.model().timestep();
    let ctrl = vec![0.0; backend.model().nu()];
    let mut crossings = vec![];
    let mut before = backend.qpos()[0] - mean;
    for step in 0..1_000_000 {
        backend.step(&ctrl, 1).unwrap();
        let after = backend.qpos()[0] - mean;
        if before < 0.0 && after >= 0.0 {
            crossings.push((f64::from(step) + before / (before - after)) * dt);
            if let [first, second] = crossings[..] {
                return second - first;
            }
        }
        before = after;
    }
    panic!("it does not swing");
}

#[test]
fn a_pendulum_swings_in_the_time_that_its_inertia_says() {
    // A rod-like capsule hanging on a hinge: T = 2π √(I / m g l) at small amplitude, with I about the pivot.
    let mut backend = made(
        r#"<mujoco><option timestep="0.001"/><worldbody><body name="bob">
             <joint axis="0 1 0" armature="0.05"/><geom type="capsule" fromto="0 0 -0.2 0 0 -0.8" size="0.03"/>
           </body></worldbody></mujoco>"#,
    );
    let bob = &backend.model().bodies[1];
    let arm = bob.ipos.length();
    let inertia = bob.inertia_matrix().y_axis.y + bob.mass * arm * arm + 0.05;
    let expected = TAU * (inertia / (bob.mass * 9.81 * arm)).sqrt();
    backend.set_state(0, &[0.05], &[0.0]);
    let period = period(&mut backend, 0.0);
    assert!((period / expected - 1.0).abs() < 2e-3, "{period} s; {expected} s is right");
}

#[test]
fn a_sprung_slider_swings_about_its_sag_in_the_time_of_root_m_over_k() {
    let mut backend = made(
        r#"<mujoco><option timestep="0.001"/><worldbody><body name="load">
             <joint type="slide" axis="0 0 1" stiffness="200" springref="0.3"/><geom size="0.1" mass="2"/>
           </body></worldbody></mujoco>"#,
    );
    let sag = 0.3 - 2.0 * 9.81 / 200.0;
    backend.set_state(0, &[sag + 0.1], &[0.0]);
    let period = period(&mut backend, sag);
    let expected = TAU * (2.0_f64 / 200.0).sqrt();
    assert!((period / expected - 1.0).abs() < 2e-3, "{period} s; {expected} s is right");
}

#[test]
fn damping_slows_a_slider_exponentially() {
    let mut backend = made(
        r#"<mujoco><option timestep="0.001" gravity="0 0 0"/><worldbody><body>
             <joint type="slide" axis="1 0 0" damping="3"/><geom size="0.1" mass="2"/>
           </body></worldbody></mujoco>"#,
    );
    backend.set_state(0, &[0.0], &[1.0]);
    backend.step(&[], 500).unwrap();
    let expected = (-3.0_f64 / 2.0 * 0.5).exp();
    assert!((backend.qvel()[0] / expected - 1.0).abs() < 2e-3, "{} m/s; {expected} m/s is right", backend.qvel()[0]);
}

#[test]
fn a_motor_pushes_with_gear_times_clipped_control() {
    let xml = r#"<mujoco><option timestep="0.001" gravity="0 0 0"/><worldbody>
         <body><joint name="s" type="slide" axis="0 1 0" stiffness="STIFF"/><geom size="0.1" mass="2"/></body>
       </worldbody><actuator><motor joint="s" gear="50" ctrlrange="-0.4 0.8"/></actuator></mujoco>"#;
    // With a spring and without: the force reaches rapier in two different ways.
    for stiffness in ["0", "1e-3"] {
        let mut backend = made(&xml.replace("STIFF", stiffness));
        for (ctrl, force) in [(0.5, 25.0), (3.0, 40.0), (-3.0, -20.0), (0.0, 0.0)] {
            backend.set_state(0, &[0.0], &[0.0]);
            backend.step(&[ctrl], 100).unwrap();
            let expected = force / 2.0 * 0.1;
            assert!((backend.qvel()[0] - expected).abs() < 2e-3, "{ctrl}: {} m/s, not {expected}", backend.qvel()[0]);
        }
    }
}

/// A box on a plane, with gravity tilted by `slope` (the tangent of the angle). Returns the distance slid in one
/// second, metres.
fn slide(slope: f64, box_geom: &str, plane_geom: &str) -> f64 {
    let (x, z) = (9.81 * slope.atan().sin(), 9.81 * slope.atan().cos());
    let mut backend = made(&format!(
        r#"<mujoco><option timestep="0.002" gravity="{x} 0 -{z}"/><worldbody>
             <geom type="plane" size="1 1 1" {plane_geom}/>
             <body pos="0 0 0.1"><freejoint/><geom type="box" size="0.4 0.4 0.1" {box_geom}/></body>
           </worldbody></mujoco>"#
    ));
    backend.step(&[], 500).unwrap();
    backend.qpos()[0]
}

#[test]
fn friction_holds_below_its_cone_and_brakes_above_it() {
    let slid = |slope: f64, friction: f64| {
        let angle = slope.atan();
        0.5 * 9.81 * (angle.sin() - friction * angle.cos())
    };
    // The larger of the two coefficients counts, whichever geom it belongs to.
    for (on_box, on_plane) in [("0.5", "0.1"), ("0.1", "0.5")] {
        let (on_box, on_plane) = (format!("friction=\"{on_box}\""), format!("friction=\"{on_plane}\""));
        let held = slide(0.4, &on_box, &on_plane);
        assert!(held.abs() < 0.01, "crept {held} m below its cone");
        let braked = slide(0.8, &on_box, &on_plane);
        let expected = slid(0.8, 0.5);
        assert!((braked / expected - 1.0).abs() < 0.05, "slid {braked} m; {expected} m is right");
    }
    // The contact is frictionless only where both geoms are.
    let smooth = "friction=\"0.5\" condim=\"1\"";
    assert!(slide(0.4, smooth, "condim=\"3\"").abs() < 0.01);
    let (free, expected) = (slide(0.4, smooth, smooth), slid(0.4, 0.0));
    assert!((free / expected - 1.0).abs() < 0.02, "slid {free} m without friction; {expected} m is right");
}

#[test]
fn geoms_collide_by_their_masks_and_not_with_their_parents() {
    let height = |masks: &str| {
        let mut backend = made(&format!(
            r#"<mujoco><option timestep="0.002"/><worldbody>
                 <geom type="plane" size="1 1 1" contype="0" conaffinity="2"/>
                 <body pos="0 0 0.5"><joint type="slide" axis="0 0 1"/><geom size="0.2" {masks}/>
                   <body><joint type="hinge"/><geom size="0.19" {masks}/></body>
                 </body>
               </worldbody></mujoco>"#
        ));
        backend.step(&[], 500).unwrap();
        lowest(backend.model(), backend.qpos())
    };
    // A ball inside its parent, also a ball. If they collided, they would fly apart.
    assert!(height("contype=\"2\" conaffinity=\"0\"").abs() < 1e-3);
    assert!(height("contype=\"3\" conaffinity=\"1\"").abs() < 1e-3);
    assert!(height("contype=\"1\" conaffinity=\"2\"") < -1.0);
}

#[test]
fn a_joint_stops_at_its_limit_and_leans_on_it_without_trembling() {
    let mut backend = made(
        r#"<mujoco><option timestep="0.002"/><compiler angle="radian"/><worldbody><body>
             <joint name="h" axis="0 -1 0" range="-0.4 0.9" ref="0.1" armature="0.1"/>
             <geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.05"/>
           </body></worldbody><actuator><motor joint="h" gear="40" ctrlrange="-1 1"/></actuator></mujoco>"#,
    );
    for (ctrl, end) in [(0.0, -0.4), (1.0, 0.9), (-1.0, -0.4)] {
        backend.step(&[ctrl], 2000).unwrap();
        for _ in 0..50 {
            backend.step(&[ctrl], 1).unwrap();
            let (q, v) = (backend.qpos()[0], backend.qvel()[0]);
            assert!((q - end).abs() < 2e-3 && v.abs() < 0.02, "at {q} rad, {v} rad/s; {end} rad is the limit");
        }
    }
}

#[test]
fn impacts_and_rests_show_in_contacts_and_forces() {
    let mut backend = made(
        r#"<mujoco><option timestep="0.002"/><worldbody>
             <geom type="plane" size="1 1 1"/>
             <body pos="0.3 0 0.25"><freejoint/><geom size="0.2" mass="3"/></body>
           </worldbody></mujoco>"#,
    );
    let (mut contacts, mut forces) = (vec![], vec![1.0; 12]);
    backend.contacts(0, &mut contacts);
    backend.derived(0, Quantity::CfrcExt, &mut forces);
    assert!(contacts.is_empty() && forces.iter().all(|f| *f == 0.0));
    // The force integrated over time is the momentum of the fall plus the weight times the whole time.
    let (steps, dt) = (1000, 0.002);
    let mut impulse = 0.0;
    for _ in 0..steps {
        backend.step(&[], 1).unwrap();
        backend.derived(0, Quantity::CfrcExt, &mut forces);
        impulse += forces[6 + 5] * dt;
    }
    let expected = 3.0 * 9.81 * f64::from(steps) * dt;
    assert!((impulse / expected - 1.0).abs() < 1e-3, "{impulse} N s; {expected} N s is right");
    assert!((forces[6 + 5] - 3.0 * 9.81).abs() < 0.01, "{forces:?}");
    assert!(forces[..11].iter().all(|f| f.abs() < 0.01), "{forces:?}");
    backend.contacts(0, &mut contacts);
    let [contact] = contacts[..] else { panic!("{contacts:?}") };
    assert!(contact.bodies.iter().sum::<usize>() == 1 && contact.distance.abs() < 1e-3, "{contact:?}");
    let up = if contact.bodies == [0, 1] { 1.0 } else { -1.0 };
    assert!((contact.normal[2] * up - 1.0).abs() < 1e-5, "{contact:?}");
    assert!((contact.position[0] - 0.3).abs() < 1e-3 && contact.position[2].abs() < 1e-3, "{contact:?}");
}
