//! The backend `lanes` against laws that need no reference: order of convergence, energy, momentum, optimality. Worlds
//! that share a register must not influence each other.

use super::{ROBOTS, controls, load};
use flipside_envs::physics::{self, Backend, Integrator, Model, Precision, Quantity};
use glam::{DMat3, DVec3};
use std::sync::Arc;

fn lanes(model: &Arc<Model>, precision: Precision, worlds: usize, threads: usize) -> Box<dyn Backend> {
    physics::backend("lanes", precision, model.clone(), worlds, Some(threads)).unwrap()
}

fn made(mjcf: &str) -> Model {
    Model::from_mjcf(mjcf, "test.xml").unwrap_or_else(|error| panic!("{error}"))
}

/// A free body with two arms on crossed hinges and a slide, in empty space without gravity. Nothing dissipates and
/// everything is coupled.
const CHAIN: &str = r#"<mujoco><option timestep="0.01" gravity="0 0 0" integrator="RK4"/><worldbody>
  <body name="hub" pos="0 0 1"><freejoint/><geom type="box" size="0.2 0.15 0.1" mass="2" contype="0"/>
    <body name="arm" pos="0.2 0 0"><joint axis="0 0.6 0.8" pos="0 0 0.02"/>
      <geom type="capsule" fromto="0 0 0 0.5 0 0.1" size="0.05" mass="0.7" contype="0"/>
      <body name="slider" pos="0.5 0 0.1"><joint type="slide" axis="0 1 0"/><geom size="0.08" mass="0.4" contype="0"/></body>
    </body>
    <body name="tail" pos="-0.2 0 0"><joint axis="1 0 0"/>
      <geom type="capsule" fromto="0 0 0 -0.1 0.4 0" size="0.04" mass="0.5" contype="0"/></body>
  </body></worldbody></mujoco>"#;

const CHAIN_QPOS: [f64; 10] = [0.1, -0.2, 1.0, 0.8, 0.4, -0.2, 0.4, 0.3, 0.05, -0.7];
const CHAIN_QVEL: [f64; 9] = [0.5, -0.3, 0.2, 1.5, -2.0, 1.0, 2.5, -0.4, 3.0];

/// The state after one second at the given timestep, in double precision.
fn after_a_second(mut model: Model, timestep: f64) -> (Vec<f64>, Vec<f64>) {
    model.option.timestep = timestep;
    let mut backend = lanes(&Arc::new(model), Precision::F64, 1, 1);
    backend.set_state(0, &CHAIN_QPOS, &CHAIN_QVEL);
    backend.step(&[], (1.0 / timestep).round() as usize).unwrap();
    (backend.qpos().to_vec(), backend.qvel().to_vec())
}

fn distance(a: &(Vec<f64>, Vec<f64>), b: &(Vec<f64>, Vec<f64>)) -> f64 {
    let all = |x: &(Vec<f64>, Vec<f64>)| [&x.0[..], &x.1].concat();
    all(a).iter().zip(all(b)).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

#[test]
fn runge_kutta_converges_at_fourth_order_and_euler_at_first() {
    let exact = after_a_second(made(CHAIN), 0.000_625);
    let order = |model: &Model, coarse: f64| {
        let error = |h| distance(&after_a_second(model.clone(), h), &exact);
        (error(coarse) / error(coarse / 2.0)).log2()
    };
    let fourth = order(&made(CHAIN), 0.02);
    assert!((3.7..4.5).contains(&fourth), "{fourth}");
    let mut euler = made(CHAIN);
    euler.option.integrator = Integrator::Euler;
    let first = order(&euler, 0.005);
    assert!((0.8..1.2).contains(&first), "{first}");
}

/// Kinetic energy, linear momentum, and angular momentum about the world's origin, from the bodies' velocities.
fn invariants(backend: &dyn Backend) -> (f64, DVec3, DVec3) {
    let model = backend.model();
    let mut frames = vec![0.0; Quantity::Frames.len(model)];
    let mut velocities = vec![0.0; Quantity::Cvel.len(model)];
    backend.derived(0, Quantity::Frames, &mut frames);
    backend.derived(0, Quantity::Cvel, &mut velocities);
    let placed: Vec<(DVec3, DMat3)> = frames
        .chunks_exact(7)
        .map(|f| (DVec3::from_slice(f), DMat3::from_quat(glam::DQuat::from_xyzw(f[4], f[5], f[6], f[3]))))
        .collect();
    let total = model.total_mass();
    let centres: Vec<DVec3> = placed.iter().zip(&model.bodies).map(|((p, r), body)| *p + *r * body.ipos).collect();
    let com = centres.iter().zip(&model.bodies).map(|(c, body)| *c * body.mass).sum::<DVec3>() / total;
    let (mut energy, mut linear, mut angular) = (0.0, DVec3::ZERO, DVec3::ZERO);
    for (body, info) in model.bodies.iter().enumerate().skip(1) {
        let v = &velocities[6 * body..6 * body + 6];
        let omega = DVec3::from_slice(v);
        // cvel is the velocity of the body's point at the tree's centre of mass.
        let velocity = DVec3::from_slice(&v[3..]) + omega.cross(centres[body] - com);
        let spin = placed[body].1 * info.inertia_matrix() * placed[body].1.transpose() * omega;
        energy += 0.5 * info.mass * velocity.length_squared() + 0.5 * omega.dot(spin);
        linear += info.mass * velocity;
        angular += spin + info.mass * centres[body].cross(velocity);
    }
    (energy, linear, angular)
}

#[test]
fn a_chain_in_free_flight_keeps_its_energy_and_both_momenta() {
    let model = Arc::new(made(CHAIN));
    let mut backend = lanes(&model, Precision::F64, 1, 1);
    backend.need(&[Quantity::Frames, Quantity::Cvel]).unwrap();
    backend.set_state(0, &CHAIN_QPOS, &CHAIN_QVEL);
    let (energy, linear, angular) = invariants(&*backend);
    for _ in 0..5 {
        backend.step(&[], 60).unwrap();
        // Derived quantities are those of the state that the last step ended in only after that state is set.
        let (qpos, qvel) = (backend.qpos().to_vec(), backend.qvel().to_vec());
        backend.set_state(0, &qpos, &qvel);
        let now = invariants(&*backend);
        assert!((now.0 / energy - 1.0).abs() < 1e-6, "{} J of {energy}", now.0);
        assert!((now.1 - linear).length() < 1e-6, "{} of {linear}", now.1);
        assert!((now.2 - angular).length() < 1e-6, "{} of {angular}", now.2);
    }
}

#[test]
fn constraint_forces_are_optimal_on_the_ground() {
    for (name, skip) in ROBOTS {
        let model = Arc::new(load(name));
        let nu = model.nu();
        let mut backend = lanes(&model, Precision::F32, 16, 1);
        let (mut touching, mut worst) = (0, 0.0_f64);
        for ctrl in controls(5, 60, 16 * nu) {
            backend.step(&ctrl, skip).unwrap();
        }
        for world in 0..16 {
            let ctrl = vec![0.3; nu];
            let state = physics::forward(
                &model,
                &backend.qpos()[world * model.nq()..][..model.nq()],
                &backend.qvel()[world * model.nv()..][..model.nv()],
                &ctrl,
            )
            .unwrap();
            touching += usize::from(state.contacts > 0);
            worst = worst.max(state.residual);
        }
        assert!(worst < 1e-10, "{name}: {worst:e}");
        let airy = ["inverted_pendulum", "inverted_double_pendulum", "reacher", "swimmer", "pusher"].contains(&name);
        assert!(airy || touching > 0, "{name} touches nothing");
        let single = backend.solver_residual().unwrap();
        assert!(single < 5e-3, "{name}: {single:e} in single precision");
    }
}

/// A world's trajectory, bit for bit. The world runs its own controls from its own start at the given places of a
/// batch. The batch's other worlds do other things, and one of them breaks.
fn path(model: &Arc<Model>, skip: usize, worlds: usize, threads: usize, places: &[usize]) -> Vec<Vec<u64>> {
    let (nq, nv, nu) = (model.nq(), model.nv(), model.nu());
    let mut backend = lanes(model, Precision::F32, worlds, threads);
    for ctrl in controls(100 + worlds as u64, 7, worlds * nu) {
        backend.step(&ctrl, skip).unwrap();
    }
    for world in 0..worlds {
        backend.set_state(world, model.qpos0(), &vec![0.1; nv]);
    }
    let broken = (0..worlds).find(|world| !places.contains(world));
    for (step, own) in controls(4, 40, nu).iter().enumerate() {
        let mut ctrl = controls(1000 + step as u64, 1, worlds * nu).remove(0);
        for place in places {
            ctrl[place * nu..][..nu].copy_from_slice(own);
        }
        if let (Some(world), 12) = (broken, step) {
            ctrl[world * nu] = f64::NAN;
        }
        backend.step(&ctrl, skip).unwrap();
        if let (Some(world), 20) = (broken, step) {
            assert!(backend.frozen(world));
            backend.set_state(world, model.qpos0(), &vec![1e20; nv]);
        }
    }
    let frozen: Vec<usize> = (0..worlds).filter(|world| backend.frozen(*world)).collect();
    assert_eq!(backend.diverged(), if broken.is_some() { 2 } else { 0 }, "{}: {frozen:?}", model.name);
    let bits = |place: &usize| {
        let state = backend.qpos()[place * nq..][..nq].iter().chain(&backend.qvel()[place * nv..][..nv]);
        state.map(|x| x.to_bits()).collect()
    };
    places.iter().map(bits).collect()
}

#[test]
fn a_world_goes_its_way_bit_for_bit_whatever_shares_its_register_and_breaks() {
    for (name, skip) in ROBOTS {
        let model = Arc::new(load(name));
        let alone = path(&model, skip, 1, 1, &[0]).remove(0);
        for (worlds, threads, places) in [(3, 1, vec![0, 2]), (37, 2, vec![0, 7, 15, 16, 36]), (64, 5, vec![1, 33])] {
            for (found, place) in path(&model, skip, worlds, threads, &places).into_iter().zip(places) {
                assert_eq!(found, alone, "{name}: world {place} of {worlds} on {threads} threads");
            }
        }
    }
}

#[test]
fn a_robot_far_from_the_origin_moves_as_it_does_there() {
    for (name, skip, far) in [("half_cheetah", 5, 1000.0), ("ant", 5, 1000.0), ("hopper", 4, 3000.0)] {
        let model = Arc::new(load(name));
        let mut backend = lanes(&model, Precision::F32, 2, 1);
        backend.need(&[Quantity::Frames]).unwrap();
        let mut qpos = model.qpos0().to_vec();
        backend.set_state(0, &qpos, &vec![0.2; model.nv()]);
        qpos[0] += far;
        backend.set_state(1, &qpos, &vec![0.2; model.nv()]);
        for own in controls(6, 50, model.nu()) {
            backend.step(&[&own[..], &own].concat(), skip).unwrap();
        }
        let (near, there) = backend.qpos().split_at(model.nq());
        assert_eq!(near[1..], there[1..], "{name}");
        assert!((there[0] - far - near[0]).abs() < 1e-6, "{name}: {} and {}", near[0], there[0]);
        let mut frames = [vec![0.0; Quantity::Frames.len(&model)], vec![0.0; Quantity::Frames.len(&model)]];
        for (world, out) in frames.iter_mut().enumerate() {
            backend.derived(world, Quantity::Frames, out);
        }
        for (body, (near, there)) in frames[0].chunks_exact(7).zip(frames[1].chunks_exact(7)).enumerate().skip(1) {
            assert!((there[0] - far - near[0]).abs() < 1e-6, "{name}: body {body}");
            assert_eq!(near[1..], there[1..], "{name}: body {body}");
        }
    }
}

#[test]
fn what_the_equations_do_not_cover_is_refused_by_name() {
    let body = |inside: &str| {
        format!(r#"<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>{inside}</worldbody></mujoco>"#)
    };
    for (inside, expected) in [
        (r#"<body name="crate"><freejoint/><geom name="crate" type="box" size="1 1 1"/></body>"#, "the box \"crate\""),
        (
            r#"<body><joint name="knee" frictionloss="1"/><geom size="1"/></body>"#,
            "the joint \"knee\" has dry friction",
        ),
        (r#"<body><freejoint/><geom name="ball" size="1" condim="4"/></body>"#, "the geom \"ball\" has condim 4"),
    ] {
        let model = Arc::new(made(&body(inside)));
        let error = physics::backend("lanes", Precision::F32, model, 1, None).err().unwrap().to_string();
        assert!(error.contains(expected) && error.starts_with("the lanes backend cannot"), "{error}");
    }
}
