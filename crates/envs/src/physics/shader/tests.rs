//! The shaders, with index checks, on whatever adapter is available. They are compared with the lanes on the golden
//! states, with themselves in another batch, and with a device's limits.
//!
//! A software driver compiles a robot's shader in some seconds.
//! `cargo test --release -p flipside-envs --features gpu --lib agrees_with_the_lanes -- --nocapture` prints the
//! figures.

use super::compose::{STEP, Specialised};
use super::sharing::ThreadsPerWorld::{One, Team};
use super::*;
use crate::physics::dynamics::plan::Plan;
use crate::physics::{Precision, backend};
use flipside_gpu::{Checks, shared};
use std::path::Path;

/// A robot and its task's frame skip.
fn robot(name: &str) -> (Arc<Model>, usize) {
    let files = crate::tasks::load(name).unwrap();
    (Arc::new(Model::from_mjcf(&files.mjcf, &files.mjcf_file).unwrap()), *files.spec.frame_skip.get_ref())
}

/// The composed files are valid for robots of every kind; composing panics if one is not.
#[test]
fn every_robot_has_a_shader() {
    for (name, directions) in
        [("inverted_pendulum", 1), ("pusher", 1), ("swimmer", 1), ("walker2d", 2), ("ant", 3), ("humanoid_standup", 3)]
    {
        let (model, _) = robot(name);
        let plan = Plan::<f32>::new(&model, NAME).unwrap();
        assert_eq!(plan.directions, directions, "{name}");
        for threads in [One, Team] {
            let shader = Specialised::new(&model, &plan, threads).unwrap().shader(STEP);
            assert_eq!(shader.entry_points.len(), 1, "{name}");
            // The workgroup memory of most GPUs.
            assert!(shared(&shader) <= 32 << 10, "{name}");
            assert_eq!(threads == Team, shared(&shader) > 0, "{name}");
        }
        // Robots that move in three dimensions are teams on a GPU.
        assert_eq!(ThreadsPerWorld::suited(plan.nv, false) == Team, directions == 3, "{name}");
        assert_eq!(ThreadsPerWorld::suited(plan.nv, true), One, "{name}");
    }
}

/// More worlds than a dispatch may have workgroups are stepped in several dispatches.
#[test]
fn a_team_stays_within_the_workgroups_of_a_dispatch() {
    let (model, _) = robot("inverted_pendulum");
    let options = BuildOptions { checks: Checks::On, threads_per_world: Some(Team) };
    let worlds = DeviceWorlds::new(&Device::open().unwrap(), model, 100_000, &[], options).unwrap();
    assert!(worlds.groups(worlds.most) <= 65_535 && worlds.threads_per_world() == Team, "{}", worlds.most);
}

/// States and controls, one after another: `[states, nq]`, `[states, nv]`, `[states, nu]`.
struct States {
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    ctrl: Vec<f64>,
}

impl States {
    /// The states of `tests/data/golden`. Limits or contacts are active in most of them.
    fn golden(name: &str, model: &Model) -> States {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden").join(format!("{name}.npz"));
        let mut arrays = npyz::npz::NpzArchive::open(path).unwrap();
        let mut read = |name: &str, width: usize| {
            let array = arrays.by_name(name).unwrap().unwrap();
            assert_eq!(array.shape()[1], width as u64, "{name}");
            array.into_vec::<f64>().unwrap()
        };
        States { qpos: read("qpos", model.nq()), qvel: read("qvel", model.nv()), ctrl: read("ctrl", model.nu()) }
    }

    fn set(&self, backend: &mut dyn Backend, order: &[usize]) -> Vec<f64> {
        let (nq, nv, nu) = (backend.model().nq(), backend.model().nv(), backend.model().nu());
        for (world, &i) in order.iter().enumerate() {
            backend.set_state(world, &self.qpos[i * nq..][..nq], &self.qvel[i * nv..][..nv]);
        }
        order.iter().flat_map(|&i| self.ctrl[i * nu..][..nu].to_vec()).collect()
    }
}

/// One env step from the golden states agrees with the lanes within 1e-3, scaled by 1 + magnitude, in 99 of 100
/// numbers. It also checks that two runs give the same bits, and that a world's bits do not depend on which others run
/// beside it.
fn agrees(name: &str, threads: ThreadsPerWorld) {
    let (model, frame_skip) = robot(name);
    let (nq, nv) = (model.nq(), model.nv());
    let states = States::golden(name, &model);
    let worlds = states.qpos.len() / nq;
    let options = BuildOptions { checks: Checks::On, threads_per_world: Some(threads) };
    let mut shader = Shader::new(model.clone(), worlds, options).unwrap();
    let mut lanes = backend("lanes", Precision::F32, model.clone(), worlds, Some(1)).unwrap();
    shader.need(&Quantity::ALL).unwrap();
    lanes.need(&Quantity::ALL).unwrap();
    let order: Vec<usize> = (0..worlds).collect();
    let ctrl = states.set(&mut shader, &order);
    states.set(&mut *lanes, &order);
    shader.step(&ctrl, frame_skip).unwrap();
    lanes.step(&ctrl, frame_skip).unwrap();

    let scaled = |a: &[f64], b: &[f64]| {
        let errors = a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs()));
        errors.fold(0.0, |most, x| if x <= most { most } else { x })
    };
    let read = |backend: &dyn Backend, world: usize, quantity: Quantity| {
        let mut out = vec![0.0; quantity.len(&model)];
        backend.derived(world, quantity, &mut out);
        out
    };
    let mut errors = vec![];
    let mut pushed = 0;
    for world in 0..worlds {
        let mut error = scaled(&shader.qpos()[world * nq..][..nq], &lanes.qpos()[world * nq..][..nq])
            .max(scaled(&shader.qvel()[world * nv..][..nv], &lanes.qvel()[world * nv..][..nv]));
        for quantity in [Quantity::Frames, Quantity::Cinert, Quantity::Cvel, Quantity::QfrcActuator] {
            error = error.max(scaled(&read(&shader, world, quantity), &read(&*lanes, world, quantity)));
        }
        pushed += usize::from(read(&*lanes, world, Quantity::QfrcConstraint).iter().any(|force| force.abs() > 1e-6));
        errors.push(error);
    }
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors[worlds / 2], errors[worlds - 1]);
    let beyond = errors.iter().filter(|error| error.is_nan() || **error > 1e-3).count();
    println!(
        "{name}, threads per world: {threads}: {beyond} of {worlds} beyond, median {median:.0e}, worst {worst:.0e}; {pushed} pushed"
    );
    assert!(beyond * 100 <= worlds, "{name}: {beyond} of {worlds} states are beyond 1e-3");
    assert!(pushed > worlds / 10, "{name}: limits or contacts push in {pushed} states only");
    assert_eq!((shader.diverged(), lanes.diverged()), (0, 0), "{name}");

    let bits = [shader.qpos().to_vec(), shader.qvel().to_vec()];
    states.set(&mut shader, &order);
    shader.step(&ctrl, frame_skip).unwrap();
    assert_eq!([shader.qpos(), shader.qvel()], [&bits[0][..], &bits[1][..]], "{name}: a second run");
    // In another order, and a few at a time.
    shader.sizer = SubmissionSizer::new(37, [37; 2]);
    let turned: Vec<usize> = order.iter().map(|i| worlds - 1 - i).collect();
    let ctrl = states.set(&mut shader, &turned);
    shader.step(&ctrl, frame_skip).unwrap();
    for world in 0..worlds {
        let other = worlds - 1 - world;
        assert_eq!(shader.qpos()[world * nq..][..nq], bits[0][other * nq..][..nq], "{name}, world {world}");
        assert_eq!(shader.qvel()[world * nv..][..nv], bits[1][other * nv..][..nv], "{name}, world {world}");
    }
    a_broken_world_is_frozen_alone(&mut shader);
}

/// Running the stages as separate kernels in order equals the whole step.
fn is_its_stages(name: &str) {
    let (model, frame_skip) = robot(name);
    let states = States::golden(name, &model);
    let worlds = states.qpos.len() / model.nq();
    let mut shader = Shader::new(model, worlds, Checks::On).unwrap();
    shader.need(&Quantity::ALL).unwrap();
    let order: Vec<usize> = (0..worlds).collect();
    let mut results = vec![];
    for staged in [false, true] {
        let ctrl: Vec<f32> = states.set(&mut shader, &order).iter().map(|u| *u as f32).collect();
        shader.upload_states();
        let on_device = &mut shader.on_device;
        on_device.device.upload(&on_device.buffers.ctrl, 0, bytemuck::cast_slice(&ctrl));
        let mut commands = on_device.device.commands();
        if staged {
            let mut stages = Stages::new(on_device, Checks::On).unwrap();
            stages.step(on_device, &mut commands, 0..worlds, frame_skip).unwrap();
        } else {
            on_device.step(&mut commands, 0..worlds, frame_skip).unwrap();
        }
        let Buffers { state, derived, .. } = &on_device.buffers;
        let [states, all] =
            [on_device.width(), on_device.width() + on_device.layout.len].map(|n| 4 * (worlds * n) as u64);
        commands.copy(state, &shader.readback, 0, states);
        commands.copy(derived, &shader.readback, states, all - states);
        on_device.device.submit(commands);
        let mut numbers = vec![0.0_f32; all as usize / 4];
        on_device
            .device
            .read(&shader.readback, all, |bytes| bytemuck::cast_slice_mut(&mut numbers).copy_from_slice(bytes))
            .unwrap();
        results.push(numbers);
    }
    let errors = results[0].iter().zip(&results[1]).map(|(a, b)| (a - b).abs() / (1.0 + b.abs()));
    let worst = errors.fold(0.0, |most, x| if x <= most { most } else { x });
    println!("{name}: the stages differ from the step by {worst:.0e}");
    assert!(worst < 1e-3 && results[0].iter().any(|x| x.abs() > 0.1), "{name}: {worst}");
}

/// With contacts and Runge–Kutta, and with neither.
#[test]
fn a_step_is_its_stages() {
    ["hopper", "reacher"].into_iter().for_each(is_its_stages);
}

/// A world with a non-finite input keeps its state until it is set, and the other worlds continue.
fn a_broken_world_is_frozen_alone(shader: &mut Shader) {
    let (nq, nv, nu) = (shader.model().nq(), shader.model().nv(), shader.model().nu());
    let start = shader.model().qpos0().to_vec();
    (0..shader.worlds()).for_each(|world| shader.set_state(world, &start, &vec![0.1; nv]));
    let before = shader.qpos().to_vec();
    let row = |world: usize| world * nq..(world + 1) * nq;
    let mut ctrl = vec![0.5; shader.worlds() * nu];
    ctrl[nu] = f64::NAN;
    shader.step(&ctrl, 1).unwrap();
    assert!(shader.frozen(1) && !shader.frozen(0) && !shader.frozen(2) && shader.diverged() == 1);
    assert_eq!(shader.qpos()[row(1)], before[row(1)]);
    assert_ne!(shader.qpos()[row(2)], before[row(2)]);
    ctrl[nu] = 0.5;
    shader.step(&ctrl, 1).unwrap();
    assert_eq!(shader.qpos()[row(1)], before[row(1)]);
    shader.set_state(1, &start, &vec![0.1; nv]);
    shader.step(&ctrl, 1).unwrap();
    assert!(!shader.frozen(1) && shader.diverged() == 1 && shader.qpos()[row(1)] != start[..]);
}

macro_rules! agree {
    ($module:ident, $threads:ident: $($name:ident),* $(,)?) => {
        mod $module {
            $(#[test] fn $name() { super::agrees(stringify!($name), super::$threads); })*
        }
    };
}

agree!(
    agrees_with_the_lanes,
    One:
    inverted_pendulum,
    inverted_double_pendulum,
    reacher,
    pusher,
    swimmer,
    hopper,
    half_cheetah,
    walker2d,
    ant,
    humanoid,
    humanoid_standup,
);

agree!(
    a_team_agrees_with_the_lanes,
    Team:
    hopper,
    ant,
    humanoid,
);
