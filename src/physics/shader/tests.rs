//! The shaders, their indices checked, on whatever adapter there is: held against the lanes, and against themselves in another batch.
//!
//! A software driver compiles a robot's shader for a quarter of a minute to several minutes. The everyday test runs the pendulum's; the others
//! run by hand: `cargo test --release --lib all_robots_agree -- --ignored --nocapture`.

use super::*;
use crate::basics::Seed;
use crate::physics::{Precision, backend};
use rand::RngExt;

fn robot(name: &str) -> Arc<Model> {
    let files = crate::settings::envs::load(name).unwrap();
    Arc::new(Model::from_mjcf(&files.mjcf, &files.mjcf_file).unwrap())
}

/// Files that are composed for every robot that comes with the program are valid; composing panics where one is not.
#[test]
fn every_robot_has_a_shader() {
    for (name, directions) in
        [("inverted_pendulum", 1), ("pusher", 1), ("swimmer", 1), ("walker2d", 2), ("ant", 3), ("humanoid_standup", 3)]
    {
        let model = robot(name);
        let plan = Plan::<f32>::new(&model, NAME).unwrap();
        assert_eq!(plan.directions, directions, "{name}");
        for unrolled in [false, true] {
            let shader = Specialised::new(&model, &plan, unrolled).unwrap().shader(STEP);
            assert_eq!(shader.entry_points.len(), 1, "{name}");
        }
    }
}

/// One env step from states that a robot reaches under random controls: within 1e-3 of the lanes, scaled by 1 + magnitude, in 99 of 100.
/// On the way, that two runs give the same bits, and that a world's do not depend on which others run beside it.
fn agrees(name: &str) {
    let model = robot(name);
    let (nq, nv, nu) = (model.nq(), model.nv(), model.nu());
    let frame_skip = 4;
    let worlds = 96;
    let mut shader = Shader::with(model.clone(), worlds, Checks::On).unwrap();
    let mut lanes = backend("lanes", Precision::F32, model.clone(), worlds, Some(1)).unwrap();
    let quantities = Quantity::ALL;
    shader.need(&quantities).unwrap();
    lanes.need(&quantities).unwrap();
    let mut stream = Seed(3).stream("controls");
    let mut errors = vec![];
    let scaled = |a: &[f64], b: &[f64]| {
        let errors = a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs()));
        errors.fold(0.0, |most, x| if x <= most { most } else { x })
    };
    let mut pushed = 0;
    for _ in 0..40 {
        let ctrl: Vec<f64> = (0..worlds * nu).map(|_| stream.random_range(-1.0..1.0)).collect();
        let states: Vec<(Vec<f64>, Vec<f64>)> = (0..worlds)
            .map(|world| (lanes.qpos()[world * nq..][..nq].to_vec(), lanes.qvel()[world * nv..][..nv].to_vec()))
            .collect();
        for (world, (qpos, qvel)) in states.iter().enumerate() {
            shader.set_state(world, qpos, qvel);
            lanes.set_state(world, qpos, qvel);
        }
        shader.step(&ctrl, frame_skip).unwrap();
        lanes.step(&ctrl, frame_skip).unwrap();
        for world in 0..worlds {
            let mut error = scaled(&shader.qpos()[world * nq..][..nq], &lanes.qpos()[world * nq..][..nq])
                .max(scaled(&shader.qvel()[world * nv..][..nv], &lanes.qvel()[world * nv..][..nv]));
            for quantity in [Quantity::Frames, Quantity::Cinert, Quantity::Cvel, Quantity::QfrcActuator] {
                let read = |backend: &dyn Backend| {
                    let mut out = vec![0.0; quantity.len(&model)];
                    backend.derived(world, quantity, &mut out);
                    out
                };
                error = error.max(scaled(&read(&shader), &read(&*lanes)));
            }
            let mut forces = vec![0.0; nv];
            lanes.derived(world, Quantity::QfrcConstraint, &mut forces);
            pushed += usize::from(forces.iter().any(|force| force.abs() > 1e-6));
            errors.push(error);
        }
        // The same states in the other order, and fewer: the same bits, wherever a world lies.
        let (qpos, qvel) = (shader.qpos().to_vec(), shader.qvel().to_vec());
        let mut turned = vec![0.0; worlds * nu];
        for (world, (qpos, qvel)) in states.iter().rev().enumerate() {
            shader.set_state(world, qpos, qvel);
            turned[world * nu..][..nu].copy_from_slice(&ctrl[(worlds - 1 - world) * nu..][..nu]);
        }
        shader.step(&turned, frame_skip).unwrap();
        for world in 0..worlds {
            let other = worlds - 1 - world;
            assert_eq!(shader.qpos()[world * nq..][..nq], qpos[other * nq..][..nq], "{name}, world {world}");
            assert_eq!(shader.qvel()[world * nv..][..nv], qvel[other * nv..][..nv], "{name}, world {world}");
        }
    }
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    let beyond = errors.iter().filter(|error| error.is_nan() || **error > 1e-3).count();
    println!("{name}: {beyond} of {} beyond, median {median:.0e}, worst {worst:.0e}; {pushed} pushed", errors.len());
    assert!(beyond * 100 <= errors.len(), "{name}: {beyond} of {} states are beyond 1e-3", errors.len());
    assert_eq!((shader.diverged(), lanes.diverged()), (0, 0), "{name}");
    a_broken_world_is_frozen_alone(&mut shader);
}

/// A world that is given something that is no number stays where it was until it is set, and the others go on.
fn a_broken_world_is_frozen_alone(shader: &mut Shader) {
    let (nq, nv, nu) = (shader.model.nq(), shader.model.nv(), shader.model.nu());
    let before = shader.qpos().to_vec();
    let row = |world: usize| world * nq..(world + 1) * nq;
    let mut ctrl = vec![0.5; shader.worlds * nu];
    ctrl[nu] = f64::NAN;
    shader.step(&ctrl, 2).unwrap();
    assert!(shader.frozen(1) && !shader.frozen(0) && !shader.frozen(2) && shader.diverged() == 1);
    assert_eq!(shader.qpos()[row(1)], before[row(1)]);
    assert_ne!(shader.qpos()[row(2)], before[row(2)]);
    ctrl[nu] = 0.5;
    shader.step(&ctrl, 2).unwrap();
    assert_eq!(shader.qpos()[row(1)], before[row(1)]);
    let start = shader.model.qpos0().to_vec();
    shader.set_state(1, &start, &vec![0.1; nv]);
    shader.step(&ctrl, 2).unwrap();
    assert!(!shader.frozen(1) && shader.diverged() == 1 && shader.qpos()[row(1)] != start[..]);
}

#[test]
fn a_pendulum_agrees_with_the_lanes() {
    agrees("inverted_pendulum");
}

#[test]
#[ignore = "minutes of compiling on a software driver"]
fn all_robots_agree_with_the_lanes() {
    for name in [
        "inverted_double_pendulum",
        "reacher",
        "swimmer",
        "hopper",
        "half_cheetah",
        "walker2d",
        "pusher",
        "ant",
        "humanoid",
        "humanoid_standup",
    ] {
        agrees(name);
    }
}

/// What an adapter cannot hold is refused before anything is asked of it.
#[test]
fn a_batch_beyond_the_adapters_limits_is_refused() {
    let device = Device::open().unwrap();
    let most = device.device.limits().max_buffer_size;
    let refused = device.buffer("states", most.saturating_add(4), wgpu::BufferUsages::STORAGE);
    assert!(matches!(refused, Err(DeviceError::Limit { has, .. }) if has <= most), "{refused:?}");
    // What a driver has against something comes back as an error, and the device goes on.
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
    assert!(matches!(device.buffer("states", 64, usage), Err(DeviceError::Refused { .. })));
    device.buffer("states", 64, wgpu::BufferUsages::STORAGE).unwrap();
    assert_eq!(device.wait(), Ok(()));
    device.device.destroy();
    assert!(matches!(device.wait(), Err(DeviceError::Lost { .. })));
}
