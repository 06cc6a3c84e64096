//! A task that has met its robot: observation, reward and the end of an episode as functions of the physics state.

use super::compile;
use super::flips::FlipRule;
use super::signal::{Element, State};
use super::space::Space;
use crate::physics::{Model, ModelError, Quantity};
use crate::tasks::{EnvsError, Folders};
use crate::tasks::{Noise, RewardKind, SpecError, TaskSpec};
use flipside_core::Stream;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::sync::Arc;

/// Why there is no task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task's files were not found or not understood.
    #[error(transparent)]
    Envs(#[from] EnvsError),
    /// The robot's file is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The task's file asks for something that the robot does not have.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// A task bound to its model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Task {
    pub(super) spec: Arc<TaskSpec>,
    pub(super) model: Arc<Model>,
    pub(super) parts: Arc<Parts>,
    pub(super) terminates: bool,
    horizon: u32,
}

/// A task's file with every name resolved.
#[derive(Debug)]
pub(super) struct Parts {
    pub observation: Vec<Element>,
    pub terms: Vec<Term>,
    /// What simulated teachers judge by; none where it is the reward.
    pub teacher_reward: Vec<Term>,
    pub health: Vec<Bound>,
    pub flips: Option<Flips>,
    pub qpos_noise: Option<Noise>,
    pub qvel_noise: Option<Noise>,
    pub places: Vec<Place>,
    /// Where quaternions begin in qpos.
    pub quaternions: Vec<usize>,
    /// What the backend must compute, each once.
    pub needs: Vec<Quantity>,
}

/// One term of the reward.
#[derive(Debug)]
pub(super) struct Term {
    pub name: String,
    pub kind: RewardKind,
    pub signal: Vec<Element>,
    /// Of `dot`, as long as `signal`.
    pub with: Vec<Element>,
    pub factors: Vec<Element>,
    pub when: Vec<Bound>,
    pub weight: f64,
    pub target: f64,
    pub low: f64,
    pub high: f64,
}

/// What every number of a signal must keep for the robot to be healthy. Absent bounds are infinite.
#[derive(Debug)]
pub(super) struct Bound {
    pub signal: Vec<Element>,
    pub above: f64,
    pub below: f64,
    pub at_least: f64,
    pub at_most: f64,
}

impl Term {
    /// What it adds to the reward of the env step of `dt` seconds that led to `state`; `before` is what was remembered of its signal.
    fn pay(&self, before: f64, state: &State, healthy: bool, dt: f64) -> f64 {
        if !self.when.iter().all(|bound| bound.hold(state)) {
            return 0.0;
        }
        let numbers = self.signal.iter().map(|element| element.read(state) - self.target);
        let made = match self.kind {
            RewardKind::Alive => f64::from(u8::from(healthy)),
            RewardKind::Velocity => (self.signal[0].read(state) - before) / dt - self.target,
            RewardKind::Value => numbers.sum(),
            RewardKind::SumSquares => numbers.map(|x| x * x).sum(),
            RewardKind::Norm => numbers.map(|x| x * x).sum::<f64>().sqrt(),
            RewardKind::Dot => numbers.zip(&self.with).map(|(x, with)| x * with.read(state)).sum(),
        };
        let factor: f64 = self.factors.iter().map(|element| element.read(state)).product();
        (self.weight * made * factor).clamp(self.low, self.high)
    }

    /// Everything that it reads of a state.
    pub fn reads(&self) -> impl Iterator<Item = &Element> {
        let bounds = self.when.iter().flat_map(|bound| &bound.signal);
        self.signal.iter().chain(&self.with).chain(&self.factors).chain(bounds)
    }
}

/// Where the flips of this robot show.
#[derive(Debug)]
pub(super) struct Flips {
    /// Places in qpos.
    pub pitch: usize,
    pub height: usize,
    pub rule: FlipRule,
}

/// Joints drawn from a box, at rest.
#[derive(Debug)]
pub(super) struct Place {
    pub qpos: Vec<usize>,
    pub qvel: Vec<usize>,
    pub low: Vec<f64>,
    pub high: Vec<f64>,
    pub center: Vec<f64>,
    pub nearer_than: f64,
    pub farther_than: f64,
}

impl Task {
    /// Reads a task and its robot: a bundled one by its file's name (`hopper`) or Gymnasium's id (`Hopper-v5`), or any by its file's path.
    ///
    /// # Errors
    /// An unknown name, which lists what exists; a wrong file, with its line and what was expected.
    pub fn load(name: &str) -> Result<Task, TaskError> {
        Task::load_from(&Folders::default(), name)
    }

    /// As [`Task::load`], with folders that are searched before the bundled tasks.
    ///
    /// # Errors
    /// As [`Task::load`]'s.
    pub fn load_from(folders: &Folders, name: &str) -> Result<Task, TaskError> {
        let files = folders.load(name)?;
        let model = Model::from_mjcf_with(&files.mjcf, &files.mjcf_file, &|path| files.assets.read(path))?;
        Task::new(files.spec, Arc::new(model))
    }

    /// Binds a task to its robot.
    ///
    /// # Errors
    /// A joint or body that the robot does not have (the error lists those it has), a choice of numbers that leaves none.
    pub fn new(spec: TaskSpec, model: Arc<Model>) -> Result<Task, TaskError> {
        let parts = Arc::new(compile::parts(&spec, &model)?);
        Ok(Task {
            terminates: spec.terminate_when_unhealthy,
            horizon: *spec.horizon.get_ref(),
            spec: Arc::new(spec),
            model,
            parts,
        })
    }

    /// The same task with episodes that only ever end at the horizon, for learning from preferences: an episode's length would otherwise
    /// tell the policy what the true reward is. The `alive` reward is then paid step by step, whenever the robot is healthy.
    pub fn fixed_horizon(&self) -> Task {
        Task { terminates: false, ..self.clone() }
    }

    /// The same task with episodes cut after `steps` env steps (at least 1), or after its own horizon if that is sooner.
    pub fn with_horizon(&self, steps: u32) -> Task {
        Task { horizon: self.horizon.min(steps.max(1)), ..self.clone() }
    }

    /// The file's name, e.g. `hopper`.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The task as its file gives it.
    pub fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    /// The robot.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Numbers in an observation, O.
    pub fn obs_dim(&self) -> usize {
        self.parts.observation.len()
    }

    /// Numbers in an action, A: one an actuator.
    pub fn act_dim(&self) -> usize {
        self.model.nu()
    }

    /// Physics timesteps in an env step.
    pub fn frame_skip(&self) -> usize {
        *self.spec.frame_skip.get_ref()
    }

    /// Simulated seconds in an env step.
    pub fn dt(&self) -> f64 {
        self.model.timestep() * self.frame_skip() as f64
    }

    /// Env steps after which an episode is cut.
    pub fn horizon(&self) -> u32 {
        self.horizon
    }

    /// Whether an unhealthy robot ends the episode.
    pub fn terminates(&self) -> bool {
        self.terminates
    }

    /// The actuators' ranges.
    pub fn action_space(&self) -> Space {
        let (low, high): (Vec<f32>, Vec<f32>) =
            self.model.ctrl_range().iter().map(|&[low, high]| (low as f32, high as f32)).unzip();
        Space::Box { shape: vec![low.len()], low, high }
    }

    /// Infinite but where the task clips or maps.
    pub fn observation_space(&self) -> Space {
        let bounds = self.parts.observation.iter().map(|e| e.bounds().map(|x| x as f32));
        let (low, high): (Vec<f32>, Vec<f32>) = bounds.map(|[low, high]| (low, high)).unzip();
        Space::Box { shape: vec![low.len()], low, high }
    }

    /// What counts as a landed flip of this robot; `None` where its file does not say.
    pub fn flip_rule(&self) -> Option<FlipRule> {
        self.parts.flips.as_ref().map(|flips| flips.rule)
    }

    /// Pitch (unwrapped, radians) and height (metres) of the torso that flips, in a state `qpos`, `[nq]`; `None` where the task's file has
    /// no `[flips]`.
    pub fn pitch_and_height(&self, qpos: &[f64]) -> Option<[f64; 2]> {
        self.parts.flips.as_ref().map(|flips| [qpos[flips.pitch], qpos[flips.height]])
    }

    /// The names of the reward's terms, K of them, in the order of [`super::Step::terms`].
    pub fn term_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parts.terms.iter().map(|term| term.name.as_str())
    }

    /// What the task reads of a [`State`] beside joints and action: what [`crate::physics::Backend::need`] must be told.
    pub fn needs(&self) -> &[Quantity] {
        &self.parts.needs
    }

    /// Writes the observation of a state into `out`, `[O]`.
    pub fn observe(&self, state: &State, out: &mut [f64]) {
        for (x, element) in out.iter_mut().zip(&self.parts.observation) {
            *x = element.read(state);
        }
    }

    /// Whether every bound of the task holds.
    pub fn healthy(&self, state: &State) -> bool {
        self.parts.health.iter().all(|bound| bound.hold(state))
    }

    /// Numbers that [`Task::remember`] writes, K for the reward's terms and those of the teachers' teacher reward.
    pub fn memory(&self) -> usize {
        self.parts.terms.len() + self.parts.teacher_reward.len()
    }

    /// Writes what the next step's reward needs to know of this state into `out`: the signals whose velocity is paid, `[K]` of the reward's terms
    /// and, as far as there is room, those of the teachers' teacher reward.
    pub fn remember(&self, state: &State, out: &mut [f64]) {
        for (x, term) in out.iter_mut().zip(self.parts.terms.iter().chain(&self.parts.teacher_reward)) {
            *x = match term.kind {
                RewardKind::Velocity => term.signal[0].read(state),
                _ => 0.0,
            };
        }
    }

    /// The reward of the env step that led to `state`, and its terms, weights included, into `terms`, `[K]`.
    /// `before` is what [`Task::remember`] wrote of the state that the step began in, and `healthy` what [`Task::healthy`] says of `state`.
    pub fn reward(&self, before: &[f64], state: &State, healthy: bool, terms: &mut [f64]) -> f64 {
        let dt = self.dt();
        for ((out, term), &before) in terms.iter_mut().zip(&self.parts.terms).zip(before) {
            *out = term.pay(before, state, healthy, dt);
        }
        terms.iter().sum()
    }

    /// What simulated teachers judge the env step by, if it is not the reward; the arguments are those of [`Task::reward`], with the whole of what
    /// was remembered.
    pub fn teacher_reward(&self, before: &[f64], state: &State, healthy: bool) -> Option<f64> {
        let Parts { terms, teacher_reward, .. } = &*self.parts;
        let paid =
            teacher_reward.iter().zip(&before[terms.len()..]).map(|(term, &x)| term.pay(x, state, healthy, self.dt()));
        (!teacher_reward.is_empty()).then(|| paid.sum())
    }

    /// Draws the state that an episode begins in: `qpos` `[nq]`, `qvel` `[nv]`.
    pub fn draw(&self, stream: &mut Stream, qpos: &mut [f64], qvel: &mut [f64]) {
        qpos.copy_from_slice(self.model.qpos0());
        qvel.fill(0.0);
        for (values, noise) in [(&mut *qpos, self.parts.qpos_noise), (&mut *qvel, self.parts.qvel_noise)] {
            match noise {
                None => {}
                Some(Noise::Uniform(size)) => {
                    values.iter_mut().for_each(|x| *x += size * (2.0 * stream.random::<f64>() - 1.0));
                }
                Some(Noise::Normal(sigma)) => {
                    values.iter_mut().for_each(|x| *x += sigma * Distribution::<f64>::sample(&StandardNormal, stream));
                }
            }
        }
        for &start in &self.parts.quaternions {
            let quaternion = &mut qpos[start..start + 4];
            let length = quaternion.iter().map(|x| x * x).sum::<f64>().sqrt();
            quaternion.iter_mut().for_each(|x| *x /= length);
        }
        for place in &self.parts.places {
            place.draw(stream, qpos);
            place.qvel.iter().for_each(|&i| qvel[i] = 0.0);
        }
    }
}

impl Bound {
    /// Whether every number of its signal keeps it.
    fn hold(&self, state: &State) -> bool {
        self.signal.iter().all(|element| self.holds(element.read(state)))
    }

    fn holds(&self, x: f64) -> bool {
        x.is_finite() && x > self.above && x < self.below && x >= self.at_least && x <= self.at_most
    }
}

impl Place {
    /// How often a draw is tried. A task whose box misses its distances this often is refused when it is compiled.
    pub const TRIES: usize = 1000;

    /// Draws until the distance is right; says whether it came right.
    pub fn draw(&self, stream: &mut Stream, qpos: &mut [f64]) -> bool {
        for _ in 0..Place::TRIES {
            let mut squared = 0.0;
            for (k, &i) in self.qpos.iter().enumerate() {
                qpos[i] = self.low[k] + (self.high[k] - self.low[k]) * stream.random::<f64>();
                squared += (qpos[i] - self.center[k]).powi(2);
            }
            let distance = squared.sqrt();
            if distance < self.nearer_than && distance > self.farther_than {
                return true;
            }
        }
        false
    }
}
