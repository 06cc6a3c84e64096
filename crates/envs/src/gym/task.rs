//! A task compiled for its robot: observation, reward and the end of an episode as functions of the physics state.

use super::compile;
use super::flips::FlipRule;
use super::parts::Parts;
use super::signal::State;
use super::space::Space;
use crate::physics::{Model, ModelError, Quantity};
use crate::tasks::{EnvsError, Folders, Noise, RewardKind, SpecError, TaskSpec};
use flipside_core::Stream;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::sync::Arc;

/// Why a task could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task's files were not found or could not be parsed.
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

impl Task {
    /// Reads a task and its robot. A bundled task is named by its file (`hopper`) or by Gymnasium's id (`Hopper-v5`),
    /// any other by its file's path.
    ///
    /// # Errors
    /// An unknown name (the error lists the known ones); a wrong file (the error gives the line and what was expected).
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
    /// A joint or body that the robot does not have (the error lists those it has); a choice of numbers that leaves
    /// none.
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

    /// The same task with episodes that only end at the horizon, for learning from preferences. Otherwise the length of
    /// an episode would tell the policy about the true reward. The `alive` reward is then paid step by step, whenever
    /// the robot is healthy.
    pub fn fixed_horizon(&self) -> Task {
        Task { terminates: false, ..self.clone() }
    }

    /// The same task with episodes truncated after `steps` env steps (at least 1), or after its own horizon if that is
    /// shorter.
    pub fn with_horizon(&self, steps: u32) -> Task {
        Task { horizon: self.horizon.min(steps.max(1)), ..self.clone() }
    }

    /// The file's name, e.g. `hopper`.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The contents of the task's file.
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

    /// Numbers in an action, A: one per actuator.
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

    /// Env steps after which an episode is truncated.
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

    /// The bounds are infinite except where the task clips or maps.
    pub fn observation_space(&self) -> Space {
        let bounds = self.parts.observation.iter().map(|e| e.bounds().map(|x| x as f32));
        let (low, high): (Vec<f32>, Vec<f32>) = bounds.map(|[low, high]| (low, high)).unzip();
        Space::Box { shape: vec![low.len()], low, high }
    }

    /// What counts as a landed flip of this robot; `None` if the task's file does not say.
    pub fn flip_rule(&self) -> Option<FlipRule> {
        self.parts.flips.as_ref().map(|flips| flips.rule)
    }

    /// Pitch (unwrapped, radians) and height (metres) of the torso in a state `qpos`, `[nq]`; `None` if the task's file
    /// has no `[flips]`.
    pub fn pitch_and_height(&self, qpos: &[f64]) -> Option<[f64; 2]> {
        self.parts.flips.as_ref().map(|flips| [qpos[flips.pitch], qpos[flips.height]])
    }

    /// The names of the reward's terms, K of them, in the order of [`super::Step::terms`].
    pub fn term_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parts.terms.iter().map(|term| term.name.as_str())
    }

    /// The quantities of a [`State`] that the task reads besides joints and action. [`crate::physics::Backend::need`]
    /// must be told them.
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

    /// How many numbers [`Task::remember`] writes: K for the reward's terms, plus one for each term of the teacher
    /// reward.
    pub fn memory(&self) -> usize {
        self.parts.terms.len() + self.parts.teacher_reward.len()
    }

    /// Writes into `out` what the next step's reward needs to know of this state: the signals whose velocity is
    /// rewarded. `[K]` values belong to the reward's terms; the teacher reward's terms follow as far as `out` is long
    /// enough.
    pub fn remember(&self, state: &State, out: &mut [f64]) {
        for (x, term) in out.iter_mut().zip(self.parts.terms.iter().chain(&self.parts.teacher_reward)) {
            *x = match term.kind {
                RewardKind::Velocity => term.signal[0].read(state),
                _ => 0.0,
            };
        }
    }

    /// The reward of the env step that led to `state`. Its terms, weights included, are written into `terms`, `[K]`.
    /// `before` is what [`Task::remember`] wrote for the state before the step, and `healthy` is the result of
    /// [`Task::healthy`] for `state`.
    pub fn reward(&self, before: &[f64], state: &State, healthy: bool, terms: &mut [f64]) -> f64 {
        let dt = self.dt();
        for ((out, term), &before) in terms.iter_mut().zip(&self.parts.terms).zip(before) {
            *out = term.pay(before, state, healthy, dt);
        }
        terms.iter().sum()
    }

    /// The teacher reward of the env step, if simulated teachers do not judge by the reward. The arguments are those of
    /// [`Task::reward`], but `before` holds all that was remembered.
    pub fn teacher_reward(&self, before: &[f64], state: &State, healthy: bool) -> Option<f64> {
        let Parts { terms, teacher_reward, .. } = &*self.parts;
        let paid =
            teacher_reward.iter().zip(&before[terms.len()..]).map(|(term, &x)| term.pay(x, state, healthy, self.dt()));
        (!teacher_reward.is_empty()).then(|| paid.sum())
    }

    /// Draws the initial state of an episode: `qpos` `[nq]`, `qvel` `[nv]`.
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
