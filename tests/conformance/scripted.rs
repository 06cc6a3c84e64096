//! The vector environment over physics whose every number is known in closed form: a cart that moves at the speed it is told, and a pole
//! on it that turns at the rate it is told.

use flipside_core::{Pose, Seed};
use flipside_envs::gym::{Autoreset, Task, VectorEnv};
use flipside_envs::physics::{Backend, Contact, Model, PhysicsError, Quantity};
use flipside_envs::tasks::TaskSpec;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

const ROBOT: &str = r#"
<mujoco model="cart">
  <option timestep="0.01"/>
  <worldbody>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0"/>
      <geom type="sphere" size="0.1"/>
      <body name="pole">
        <joint name="turn" type="hinge" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0 0 1" size="0.05"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="slide" ctrllimited="true" ctrlrange="-2 2"/>
    <motor joint="turn" ctrllimited="true" ctrlrange="-2 2"/>
  </actuator>
</mujoco>"#;

/// Every word that the five robots' own tasks leave out.
const TASK: &str = r#"
title = "Cart"
description = "A cart and a pole that do as they are told."
model = "cart.xml"
frame_skip = 5
horizon = 12
observation = [
    { source = "qpos", joints = ["turn"], map = "sin" },
    { source = "qpos", joints = ["turn"], map = "cos", clip = [-0.5, 0.5] },
    { source = "body", body = "pole", offset = [0, 0, 1], relative_to = "cart" },
    { source = "body", body = "pole", offset = [0, 0, 1], take = 1 },
    { source = "qvel", joints = ["turn", "slide"] },
    { source = "action", skip = 1 },
]
reward = [
    { name = "reach", kind = "norm", of = { source = "body", body = "pole", offset = [0, 0, 1], relative_to = "cart" }, weight = 3 },
    { name = "height", kind = "value", of = { source = "body", body = "pole", offset = [0, 0, 1], skip = 2 }, target = 2, weight = 10 },
    { name = "miss", kind = "sum_squares", of = { source = "qpos" }, target = 0.5, weight = -1, clip = [-0.3, inf] },
    { name = "speed", kind = "velocity", of = { source = "qpos", joints = ["slide"] }, target = 0.25, weight = 2 },
    { name = "alive", kind = "alive", weight = 0.5 },
]
healthy = [{ of = { source = "qpos", joints = ["slide"] }, at_most = 0.35, below = 5 }]
"#;

/// How the script breaks when the pole is told to turn at more than 1.9 rad/s.
#[derive(Clone, Copy, PartialEq)]
enum Breaks {
    /// The state becomes NaN.
    Loudly,
    /// The world is frozen.
    Quietly,
}

struct Script {
    model: Arc<Model>,
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    frozen: Vec<bool>,
    breaks: Breaks,
}

impl Script {
    fn task() -> Task {
        let model = Model::from_mjcf(ROBOT, "cart.xml").unwrap_or_else(|e| panic!("{e}"));
        let spec = TaskSpec::parse(TASK, "cart", "cart.toml").unwrap_or_else(|e| panic!("{e}"));
        Task::new(spec, Arc::new(model)).unwrap_or_else(|e| panic!("{e}"))
    }

    fn batch(worlds: usize, mode: Autoreset, breaks: Breaks) -> VectorEnv {
        let task = Script::task();
        let script = Script {
            model: task.model().clone(),
            qpos: vec![0.0; 2 * worlds],
            qvel: vec![0.0; 2 * worlds],
            frozen: vec![false; worlds],
            breaks,
        };
        VectorEnv::new(Arc::new(task), Box::new(script), mode).unwrap()
    }
}

impl Backend for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn worlds(&self) -> usize {
        self.frozen.len()
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        self.qpos[2 * world..][..2].copy_from_slice(qpos);
        self.qvel[2 * world..][..2].copy_from_slice(qvel);
        self.frozen[world] = false;
    }

    fn qpos(&self) -> &[f64] {
        &self.qpos
    }

    fn qvel(&self) -> &[f64] {
        &self.qvel
    }

    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError> {
        for (i, &speed) in ctrl.iter().enumerate() {
            if i % 2 == 1 && speed > 1.9 {
                match self.breaks {
                    Breaks::Loudly => self.qpos[i] = f64::NAN,
                    Breaks::Quietly => self.frozen[i / 2] = true,
                }
                continue;
            }
            self.qpos[i] += speed * 0.01 * frame_skip as f64;
            self.qvel[i] = speed;
        }
        Ok(())
    }

    fn body_poses(&self, _: usize, out: &mut [Pose]) {
        out.fill(Pose::IDENTITY);
    }

    fn contacts(&self, _: usize, out: &mut Vec<Contact>) {
        out.clear();
    }

    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError> {
        assert_eq!(quantities, [Quantity::Frames], "the task reads bodies and nothing else");
        Ok(())
    }

    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]) {
        assert_eq!(quantity, Quantity::Frames);
        let [x, angle] = [self.qpos[2 * world], self.qpos[2 * world + 1]];
        let (sin, cos) = (angle / 2.0).sin_cos();
        out[..7].copy_from_slice(&[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        out[7..14].copy_from_slice(&[x, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        out[14..].copy_from_slice(&[x, 0.0, 0.0, cos, 0.0, sin, 0.0]);
    }

    fn frozen(&self, world: usize) -> bool {
        self.frozen[world]
    }

    fn diverged(&self) -> u64 {
        0
    }
}

fn close(got: &[f32], expected: &[f64], what: &str) {
    let far = got.iter().zip(expected).any(|(&g, &e)| (f64::from(g) - e).abs() > 2e-6);
    assert!(got.len() == expected.len() && !far, "{what}: {got:?}, expected {expected:?}");
}

/// Signals, rewards, health and books against the closed form.
#[test]
fn a_script_is_observed_and_paid_in_closed_form() {
    let mut env = Script::batch(1, Autoreset::SameStep, Breaks::Loudly);
    // At rest at the origin, the pole upright: its tip is one metre above the cart.
    close(env.reset(0), &[0.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], "reset");
    let (mut total, mut length) = (0.0, 0);
    for n in 1..=4 {
        // 5 timesteps of 0.01 s at 2 m/s (5 is beyond the actuator) and 1 rad/s.
        let (x, angle) = (0.1 * f64::from(n), 0.05 * f64::from(n));
        let healthy = x <= 0.35;
        let step = env.step(&[5.0, 1.0]).unwrap();
        let tip = [angle.sin(), 0.0, angle.cos()];
        let miss = ((x - 0.5).powi(2) + (angle - 0.5).powi(2)).min(0.3);
        let alive = if healthy { 0.5 } else { 0.0 };
        let terms = [3.0, 10.0 * (tip[2] - 2.0), -miss, 2.0 * (2.0 - 0.25), alive];
        close(&step.terms, &terms, "terms");
        close(&step.reward, &[terms.iter().sum()], "reward");
        let obs = if healthy { &step.obs } else { &step.final_obs };
        let clipped = angle.cos().clamp(-0.5, 0.5);
        close(obs, &[angle.sin(), clipped, tip[0], tip[1], tip[2], x + tip[0], 1.0, 2.0, 1.0], "obs");
        assert_eq!((step.terminated[0], step.truncated[0]), (!healthy, false), "x = {x}");
        total += terms.iter().sum::<f64>();
        length += 1;
        if !healthy {
            let episode = step.episodes[0];
            assert!(episode.length == length && (episode.total_reward - total).abs() < 1e-5, "{episode:?}");
            close(&step.obs, &[0.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], "the next episode's first");
        } else {
            assert!(step.episodes.is_empty());
        }
    }
}

/// A world whose physics breaks ends its episode: nothing is paid, nothing but finite numbers is seen, and its neighbour is untouched.
#[test]
fn broken_physics_cuts_the_episode() {
    for breaks in [Breaks::Loudly, Breaks::Quietly] {
        let mut env = Script::batch(2, Autoreset::SameStep, breaks);
        env.reset(0);
        let before = env.step(&[0.1, 0.1, 0.1, 0.1]).unwrap().obs.clone();
        let step = env.step(&[0.1, 2.0, 0.1, 0.1]).unwrap();
        assert_eq!((&step.truncated[..], &step.terminated[..]), (&[true, false][..], &[false, false][..]));
        assert_eq!(step.reward[0], 0.0);
        assert_eq!(step.final_obs[..9], before[..9]);
        assert!(step.obs.iter().chain(&step.terms).all(|x| x.is_finite()));
        assert_eq!((step.episodes.len(), step.episodes[0].length), (1, 2));
        assert_eq!(env.diverged(), 1);
        let step = env.step(&[0.1, 0.1, 0.1, 0.1]).unwrap();
        close(&step.obs[..1], &[0.005_f64.sin()], "the broken world begins anew");
        close(&step.obs[9..10], &[0.015_f64.sin()], "its neighbour goes on");
    }
}

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
struct Counting;

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A step allocates nothing, whatever happens in it: ends of episodes, resets, all three modes.
#[test]
fn a_step_allocates_nothing() {
    for mode in [Autoreset::SameStep, Autoreset::NextStep, Autoreset::Disabled] {
        let mut env = Script::batch(8, mode, Breaks::Loudly);
        let mut stream = Seed(0).stream("actions");
        let space = env.task().action_space();
        let actions: Vec<Vec<f32>> =
            (0..100).map(|_| (0..8).flat_map(|_| space.sample(&mut stream)).collect()).collect();
        env.reset(0);
        let mut ended = 0;
        let start = ALLOCATIONS.with(Cell::get);
        for actions in &actions {
            let mut mask = [false; 8];
            mask.copy_from_slice(env.waiting());
            if mode == Autoreset::Disabled && mask.contains(&true) {
                env.reset_worlds(&mask, None).unwrap();
            }
            ended += env.step(actions).unwrap().episodes.len();
        }
        assert_eq!(ALLOCATIONS.with(Cell::get) - start, 0, "{mode:?}");
        assert!(ended > 20, "{ended}");
    }
}
