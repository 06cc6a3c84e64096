//! The bundled robots: they stand, fall, move, keep momentum, and do the same bit for bit however they are batched.

use super::{controls, load, lowest, on_rapier, on_the_ground, one, run, still, weightless_of_contacts};
use flipside_core::Pose;
use flipside_envs::physics::{self, Backend, Joint, JointKind, Model, PhysicsError, Quantity};
use glam::DVec3;
use std::sync::Arc;

/// The index of the height in qpos.
fn height(model: &Model) -> usize {
    let root = &model.joints[0];
    if root.kind == JointKind::Free { 2 } else { 1 }
}

fn grounded(name: &str) -> bool {
    on_the_ground().any(|(other, _)| other == name)
}

#[test]
fn every_robot_stands_on_the_ground() {
    for (name, skip) in on_the_ground() {
        let model = load(name);
        let mut qpos = model.qpos0().to_vec();
        // It is dropped from two centimetres.
        qpos[height(&model)] -= lowest(&model, &qpos) - 0.02;
        let mut backend = one(model);
        backend.set_state(0, &qpos, &vec![0.0; backend.model().nv()]);
        for _ in 0..60 {
            backend.step(&vec![0.0; backend.model().nu()], skip).unwrap();
            let low = lowest(backend.model(), backend.qpos());
            assert!(low > -0.02, "{name} is {low} m in the ground");
        }
        let mut contacts = vec![];
        backend.contacts(0, &mut contacts);
        assert!(contacts.len() >= 2, "{name} stands on {} points", contacts.len());
        assert!(lowest(backend.model(), backend.qpos()).abs() < 2e-3, "{name} does not touch the ground");
        // Its weight is on the ground.
        let mut forces = vec![0.0; backend.model().nbody() * 6];
        let mut up = 0.0;
        for _ in 0..25 {
            backend.step(&vec![0.0; backend.model().nu()], 1).unwrap();
            backend.derived(0, Quantity::CfrcExt, &mut forces);
            up += forces.chunks(6).map(|force| force[5]).sum::<f64>() / 25.0;
        }
        let weight = backend.model().total_mass() * 9.81;
        assert!((up / weight - 1.0).abs() < 0.25, "{name} weighs {weight} N and is held up by {up} N");
    }
}

#[test]
fn robots_without_control_fall_over() {
    // A push that topples each of them: a pitch rate for the two robots with legs, a tilt for the pole.
    for (name, skip, dof, push, coordinate, below) in
        [("hopper", 4, 2, 0.5, 1, 0.6), ("walker2d", 4, 2, 0.5, 1, 0.6), ("inverted_pendulum", 2, 1, -0.1, 1, -1.0)]
    {
        let mut backend = one(load(name));
        let model = backend.model();
        let mut qvel = vec![0.0; model.nv()];
        qvel[dof] = push;
        let (qpos, controls) = (model.qpos0().to_vec(), still(&*backend, 400));
        backend.set_state(0, &qpos, &qvel);
        run(&mut backend, &controls, skip);
        let q = backend.qpos()[coordinate];
        assert!(q < below, "{name} still stands: {:?}", backend.qpos());
    }
    // The cheetah and the ant do not fall over. When they are lifted, they fall down.
    for (name, skip) in [("half_cheetah", 5), ("ant", 5)] {
        let model = load(name);
        let z = height(&model);
        let mut qpos = model.qpos0().to_vec();
        qpos[z] += 1.0;
        let mut backend = one(model);
        backend.set_state(0, &qpos, &vec![0.0; backend.model().nv()]);
        let controls = still(&*backend, 60);
        run(&mut backend, &controls, skip);
        assert!(qpos[z] - backend.qpos()[z] > 1.0, "{name} hangs in the air: {:?}", backend.qpos());
    }
}

#[test]
fn every_motor_turns_its_joint_its_way_and_moves_the_robot() {
    for (name, skip) in on_rapier() {
        let model = load(name);
        let place: Vec<_> = model.actuators.iter().map(|motor| model.joints[motor.joint].qposadr).collect();
        let mut backend = one(model);
        let (qpos, qvel) = (backend.qpos().to_vec(), backend.qvel().to_vec());
        for (motor, place) in place.iter().enumerate() {
            let ends = [1.0, -1.0].map(|sign| {
                let mut ctrl = vec![0.0; backend.model().nu()];
                ctrl[motor] = sign;
                backend.set_state(0, &qpos, &qvel);
                backend.step(&ctrl, 2).unwrap();
                backend.qpos()[*place]
            });
            assert!(ends[0] > ends[1] + 1e-6, "{name}: motor {motor} moves its joint to {ends:?} with +1 and −1");
        }
        backend.set_state(0, &qpos, &qvel);
        let controls = controls(0, 50, backend.model().nu());
        run(&mut backend, &controls, skip);
        // Objects stay where they are until they are touched.
        let lies = |joint: &Joint| ["target", "puck", "goal"].iter().any(|thing| joint.name.starts_with(thing));
        for joint in backend.model().joints.iter().filter(|joint| !lies(joint)) {
            let own = joint.qposadr..joint.qposadr + joint.sizes().0;
            let moved =
                backend.qpos()[own.clone()].iter().zip(&qpos[own]).map(|(after, before)| (after - before).abs());
            assert!(moved.clone().all(|by| by > 1e-5), "{name}: {}: {:?}", joint.name, moved.collect::<Vec<_>>());
        }
    }
}

#[test]
fn flailing_robots_stay_above_the_ground_and_within_their_limits() {
    for (name, skip) in on_rapier() {
        let mut backend = one(load(name));
        for (step, ctrl) in controls(1, 400, backend.model().nu()).iter().enumerate() {
            backend.step(ctrl, skip).unwrap();
            let (model, qpos) = (backend.model(), backend.qpos());
            // This robot is drawn with its elbows in the ground, and is pushed out of it.
            let settles = name == "humanoid_standup" && step < 20;
            let low = if grounded(name) && !settles { lowest(model, qpos) } else { 0.0 };
            assert!(low > -0.02, "{name} is {low} m in the ground at step {step}");
            for joint in &model.joints {
                let Some([low, high]) = joint.range else { continue };
                // MuJoCo's own limits give way as much under these motors.
                let (q, give) = (qpos[joint.qposadr], 0.25);
                assert!(q > low - give && q < high + give, "{name}: {} is at {q} at step {step}", joint.name);
            }
        }
        assert_eq!(backend.diverged(), 0, "{name}");
    }
}

#[test]
fn robots_fall_freely_before_they_touch() {
    for (name, _) in on_the_ground() {
        let mut model = load(name);
        let z = height(&model);
        model.option.timestep = 0.001;
        let mut qpos = model.qpos0().to_vec();
        qpos[z] += 5.0;
        // The robot's own springs would swing it about its centre of mass.
        for joint in &mut model.joints {
            joint.stiffness = 0.0;
        }
        for joint in &mut model.joints {
            joint.range = None;
        }
        let mut backend = one(model);
        backend.set_state(0, &qpos, &vec![0.0; backend.model().nv()]);
        backend.step(&vec![0.0; backend.model().nu()], 500).unwrap();
        let (fallen, expected) = (qpos[z] - backend.qpos()[z], 0.5 * 9.81 * 0.5 * 0.5);
        assert!((fallen / expected - 1.0).abs() < 5e-3, "{name} fell {fallen} m; {expected} m is right");
    }
}

/// Momentum and angular momentum about the origin, from the poses at two moments.
fn momenta(model: &Model, before: &[f64], after: &[f64], dt: f64) -> (DVec3, DVec3) {
    let (mut linear, mut angular) = (DVec3::ZERO, DVec3::ZERO);
    let frames = model.kinematics(before).into_iter().zip(model.kinematics(after));
    for (body, ((p0, q0), (p1, q1))) in model.bodies.iter().zip(frames) {
        let (c0, c1) = (p0 + q0 * body.ipos, p1 + q1 * body.ipos);
        let momentum = (c1 - c0) / dt * body.mass;
        let spin = (q1 * q0.inverse()).to_scaled_axis() / dt;
        let inertia = body.inertia_matrix();
        linear += momentum;
        angular += ((c0 + c1) / 2.0).cross(momentum) + q0 * (inertia * (q0.inverse() * spin));
    }
    (linear, angular)
}

#[test]
fn motors_cannot_push_a_floating_robot_anywhere() {
    for (name, dt, steps) in [("ant", 1e-3, 200), ("hopper", 1e-3, 200)] {
        let mut model = weightless_of_contacts(load(name));
        model.option.gravity = DVec3::ZERO;
        model.option.timestep = dt;
        // The rotors' inertia belongs to no body. With it, the bodies alone do not conserve angular momentum.
        for joint in &mut model.joints {
            joint.armature = 0.0;
        }
        for actuator in &mut model.actuators {
            actuator.gear *= if name == "ant" { 0.02 } else { 0.05 };
        }
        let mut backend = one(model);
        let mut moved = 0.0_f64;
        let (mut linear, mut angular) = (DVec3::ZERO, DVec3::ZERO);
        for ctrl in controls(2, steps, backend.model().nu()) {
            let before = backend.qpos().to_vec();
            backend.step(&ctrl, 1).unwrap();
            (linear, angular) = momenta(backend.model(), &before, backend.qpos(), dt);
            moved = backend.qvel().iter().fold(moved, |most, v| most.max(v.abs()));
        }
        let mass = backend.model().total_mass();
        assert!(moved > 1.0, "{name} hardly moved: {moved}");
        assert!(linear.length() < 5e-3 * mass * moved, "{name} drifts with {linear} kg m/s, joints at {moved} rad/s");
        assert!(angular.length() < 1e-2 * mass * moved, "{name} turns with {angular} kg m²/s, joints at {moved} rad/s");
    }
}

/// Kinetic, gravitational, elastic and rotor energy, joules, halfway between the poses at two moments.
fn energy(model: &Model, before: &[f64], after: &[f64], dt: f64) -> f64 {
    let mut total = 0.0;
    let frames = model.kinematics(before).into_iter().zip(model.kinematics(after));
    for (body, ((p0, q0), (p1, q1))) in model.bodies.iter().zip(frames) {
        let (c0, c1) = (p0 + q0 * body.ipos, p1 + q1 * body.ipos);
        let spin = q0.inverse() * ((q1 * q0.inverse()).to_scaled_axis() / dt);
        total += 0.5 * body.mass * ((c1 - c0) / dt).length_squared() + 0.5 * spin.dot(body.inertia_matrix() * spin);
        total -= body.mass * model.option.gravity.dot((c0 + c1) / 2.0);
    }
    for joint in model.joints.iter().filter(|joint| joint.kind != JointKind::Free) {
        let (q0, q1) = (before[joint.qposadr], after[joint.qposadr]);
        let stretch = (q0 + q1) / 2.0 - joint.springref;
        total += 0.5 * joint.armature * ((q1 - q0) / dt).powi(2) + 0.5 * joint.stiffness * stretch * stretch;
    }
    total
}

#[test]
fn robots_without_control_gain_no_energy() {
    for (name, _) in on_rapier() {
        let mut backend = one(load(name));
        let (nu, nv, dt) = (backend.model().nu(), backend.model().nv(), backend.model().timestep());
        // Above the ground, every joint within its limits, thrown in six ways.
        let mut qpos = backend.model().qpos0().to_vec();
        qpos[height(backend.model())] += if grounded(name) { 0.3 } else { 0.0 };
        for joint in &backend.model().joints {
            if let Some([low, high]) = joint.range {
                qpos[joint.qposadr] = qpos[joint.qposadr].clamp(low, high);
            }
        }
        for (start, qvel) in controls(5, 6, nv).into_iter().enumerate() {
            backend.set_state(0, &qpos, &qvel.iter().map(|v| v * 3.0).collect::<Vec<_>>());
            let mut energies = vec![];
            for _ in 0..1000 {
                let before = backend.qpos().to_vec();
                backend.step(&vec![0.0; nu], 1).unwrap();
                energies.push(energy(backend.model(), &before, backend.qpos(), dt));
            }
            let mut least = f64::INFINITY;
            let gained = energies.iter().fold(0.0_f64, |gained, now| {
                least = least.min(*now);
                gained.max(now - least)
            });
            let lost = energies[0] - least;
            // One or two hundredths is what a first-order integrator with such a timestep gains.
            assert!(gained < 0.025 * lost, "{name}, throw {start}: gained {gained} J on the way to losing {lost} J");
        }
    }
}

#[test]
fn a_state_that_is_set_is_the_state_that_is_read() {
    for (name, skip) in on_rapier() {
        let mut backend = one(load(name));
        for ctrl in controls(3, 40, backend.model().nu()) {
            backend.step(&ctrl, skip).unwrap();
        }
        // Numbers that single precision cannot represent.
        let qpos: Vec<f64> = backend.qpos().iter().map(|q| q + 1e-9 / 3.0).collect();
        let qvel: Vec<f64> = backend.qvel().iter().map(|v| v - 1e-9 / 7.0).collect();
        backend.set_state(0, &qpos, &qvel);
        assert_eq!((backend.qpos(), backend.qvel()), (&qpos[..], &qvel[..]), "{name}");
        // Rapier holds the state too: a step of no time changes nothing beyond single precision.
        backend.step(&vec![0.0; backend.model().nu()], 0).unwrap();
        for (read, set) in backend.qpos().iter().zip(&qpos).chain(backend.qvel().iter().zip(&qvel)) {
            assert!((read - set).abs() < 2e-6 * (1.0 + set.abs()), "{name}: {set} was set, {read} is held");
        }
        let mut poses = vec![Pose::IDENTITY; backend.model().nbody()];
        backend.set_state(0, &qpos, &qvel);
        backend.body_poses(0, &mut poses);
        for (pose, (pos, _)) in poses.iter().zip(backend.model().kinematics(&qpos)) {
            assert_eq!(pose.position, pos.as_vec3().to_array(), "{name}");
        }
    }
}

/// A world's trajectory, bit for bit. The world runs its own controls from its own start in the given `lanes` of a
/// batch that did something else before.
fn path(model: &Arc<Model>, skip: usize, worlds: usize, threads: usize, lanes: &[usize]) -> Vec<Vec<u64>> {
    let (nq, nv, nu) = (model.nq(), model.nv(), model.nu());
    let mut backend =
        physics::backend("rapier", physics::Precision::F32, model.clone(), worlds, Some(threads)).unwrap();
    for ctrl in controls(100 + worlds as u64, 7, worlds * nu) {
        backend.step(&ctrl, skip).unwrap();
    }
    for world in 0..worlds {
        backend.set_state(world, model.qpos0(), &vec![0.1; nv]);
    }
    // Whatever its lane, the world under test gets the same controls. Its neighbours get others.
    let subject = controls(4, 40, nu);
    for (step, own) in subject.iter().enumerate() {
        let mut ctrl = controls(1000 + step as u64, 1, worlds * nu).remove(0);
        for lane in lanes {
            ctrl[lane * nu..][..nu].copy_from_slice(own);
        }
        backend.step(&ctrl, skip).unwrap();
    }
    let bits = |lane: &usize| {
        let state = backend.qpos()[lane * nq..][..nq].iter().chain(&backend.qvel()[lane * nv..][..nv]);
        state.map(|x| x.to_bits()).collect()
    };
    lanes.iter().map(bits).collect()
}

#[test]
fn a_world_goes_its_way_bit_for_bit_whatever_runs_beside_it() {
    for (name, skip) in on_rapier() {
        let model = Arc::new(load(name));
        let alone = path(&model, skip, 1, 1, &[0]).remove(0);
        for (worlds, threads, lanes) in [(3, 1, vec![0, 2]), (7, 2, vec![0, 3, 6]), (7, 5, vec![1, 6])] {
            for (found, lane) in path(&model, skip, worlds, threads, &lanes).into_iter().zip(lanes) {
                assert_eq!(found, alone, "{name}: lane {lane} of {worlds} on {threads} threads");
            }
        }
    }
}

#[test]
fn a_world_that_diverges_is_frozen_alone_until_it_is_set_again() {
    let model = Arc::new(load("hopper"));
    let mut backend = physics::backend("rapier", physics::Precision::F32, model.clone(), 2, Some(1)).unwrap();
    backend.step(&[0.5; 6], 4).unwrap();
    let good = backend.qpos().to_vec();
    backend.step(&[f64::NAN, 0.0, 0.0, 0.5, 0.5, 0.5], 4).unwrap();
    assert_eq!(backend.diverged(), 1);
    assert_eq!(backend.qpos()[..6], good[..6]);
    assert_ne!(backend.qpos()[6..], good[6..]);
    backend.step(&[0.5; 6], 4).unwrap();
    assert_eq!((backend.diverged(), &backend.qpos()[..6]), (1, &good[..6]));
    // A velocity that overflows single precision during the step.
    backend.set_state(1, model.qpos0(), &[0.0, 0.0, 1e30, 0.0, 0.0, 0.0]);
    backend.step(&[0.0; 6], 4).unwrap();
    assert_eq!(backend.diverged(), 2);
    backend.set_state(0, model.qpos0(), &[0.0; 6]);
    backend.step(&[0.9; 6], 4).unwrap();
    assert_ne!(backend.qpos()[..6], good[..6]);
    assert!(backend.qpos().iter().all(|q| q.is_finite()));
}

#[test]
fn an_unknown_backend_lists_the_known_ones() {
    let error = physics::backend("mujoco", physics::Precision::F32, Arc::new(load("hopper")), 1, None)
        .err()
        .unwrap()
        .to_string();
    assert_eq!(error, "no physics backend is called \"mujoco\"; there are: lanes, rapier, shader");
}

#[test]
fn rapier_computes_frames_contacts_and_actuator_forces_and_refuses_the_rest() {
    let mut backend = one(load("walker2d"));
    let supplied = [Quantity::Frames, Quantity::CfrcExt, Quantity::QfrcActuator];
    backend.need(&supplied).unwrap();
    for quantity in [Quantity::Cinert, Quantity::Cvel, Quantity::QfrcConstraint] {
        let error = backend.need(&[Quantity::Frames, quantity]).unwrap_err();
        assert!(matches!(error, PhysicsError::NotSupplied { .. }));
        let expected = format!("the rapier backend does not compute {}: use the backend lanes", quantity.name());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    let model = load("walker2d");
    let mut read = supplied.map(|quantity| vec![f64::NAN; quantity.len(&model)]);
    let mut look = |backend: &dyn Backend| {
        supplied.iter().zip(&mut read).for_each(|(quantity, out)| backend.derived(0, *quantity, out));
        read.clone()
    };
    let [_, contacts, actuators] = look(&*backend);
    assert!(contacts.iter().chain(&actuators).all(|x| *x == 0.0), "nothing pushes before the first step");
    // The gear is 100, and a control beyond ±1 counts as ±1.
    backend.step(&[0.5, -0.25, 3.0, 0.0, -7.0, 0.125], 4).unwrap();
    let [frames, _, actuators] = look(&*backend);
    assert_eq!(actuators, [0.0, 0.0, 0.0, 50.0, -25.0, 100.0, 0.0, -100.0, 12.5]);
    for (row, (pos, quat)) in frames.chunks(7).zip(model.kinematics(backend.qpos())) {
        assert_eq!(row, [pos.x, pos.y, pos.z, quat.w, quat.x, quat.y, quat.z]);
    }
}
