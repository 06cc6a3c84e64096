//! A batch of worlds under one task, as Gymnasium's vector environments behave.
//!
//! [`VectorEnv::step`] first refuses invalid actions and clips the others. It then holds the actions for a frame skip
//! of physics. This is the only costly part, and the backend spreads it over threads. At the end it evaluates each
//! world once. Nothing is allocated after the first step.

use super::flips::Stance;
use super::signal::Senses;
use super::task::Task;
use crate::physics::{Backend, Contact, PhysicsError};
use flipside_core::{Array, Arrays, Pose, Seed, Stream};
#[cfg(feature = "gpu")]
use flipside_gpu::DeviceError;
use std::sync::Arc;

/// What happens to a world whose episode ended: Gymnasium's three modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Autoreset {
    /// The world is reset within the step that ended its episode: `obs` begins the new episode and `final_obs` ends the
    /// old one.
    #[default]
    SameStep,
    /// The next step ignores the world's action and resets it, with reward 0. Such rows are not transitions: leave out
    /// the rows of [`Step::was_reset`] when learning.
    NextStep,
    /// The caller resets it with [`VectorEnv::reset_worlds`]; stepping before that is refused.
    Disabled,
}

/// What a batch refuses. After a refusal no world has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The environment was stepped before the first reset.
    #[error("reset the environment before the first step")]
    NotReset,
    /// With [`Autoreset::Disabled`]: an episode has ended and its world was not reset.
    #[error("the episode of world {world} has ended: reset it before the next step")]
    EpisodeOver {
        /// The first such world.
        world: usize,
    },
    /// An array is too short or too long.
    #[error("expected {expected} {what}, not {got}")]
    Length {
        /// The name of the array.
        what: &'static str,
        /// The expected length.
        expected: usize,
        /// The actual length.
        got: usize,
    },
    /// An action contains a NaN.
    #[error("the action of world {world} has a NaN")]
    NotANumber {
        /// The first such world.
        world: usize,
    },
    /// A reset mask chooses no world.
    #[error("expected a mask that chooses at least one world")]
    EmptyMask,
    /// The backend holds another robot than the task.
    #[error("the physics holds another robot than the task `{task}`")]
    OtherRobot {
        /// The task's name.
        task: String,
    },
    /// The graphics device of the backend failed.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Device(DeviceError),
    /// The backend does not compute what the task reads.
    #[error("{0}")]
    Physics(String),
    /// A saved batch does not fit this one.
    #[error("the saved worlds do not fit: {0}")]
    Saved(&'static str),
}

impl EnvError {
    pub(super) fn physics(error: PhysicsError) -> EnvError {
        match error {
            #[cfg(feature = "gpu")]
            PhysicsError::Device(error) => EnvError::Device(error),
            other => EnvError::Physics(other.to_string()),
        }
    }
}

/// A finished episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// The index of the world.
    pub world: usize,
    /// The sum of its rewards.
    pub total_reward: f64,
    /// Its length in env steps.
    pub length: u32,
}

/// The result of one step of a batch. Rows are worlds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// `[worlds, O]`: what to act on next.
    pub obs: Vec<f32>,
    /// `[worlds]`.
    pub reward: Vec<f32>,
    /// `[worlds]`: what a simulated teacher judges the step by: the task's teacher reward if its file has one, else the
    /// reward.
    pub teacher_reward: Vec<f32>,
    /// `[worlds]`: the episode ended by itself, so the value after it is zero.
    pub terminated: Vec<bool>,
    /// `[worlds]`: the episode was truncated at the horizon, so the value is bootstrapped. Never together with
    /// `terminated`.
    pub truncated: Vec<bool>,
    /// `[worlds, O]`: the last observation of an episode, in rows that are terminated or truncated, whatever the
    /// autoreset mode.
    pub final_obs: Vec<f32>,
    /// `[worlds, A]`: the actions as the actuators received them.
    pub actions: Vec<f32>,
    /// `[worlds, K]`: the reward's terms, see [`Task::term_names`].
    pub terms: Vec<f32>,
    /// `[worlds]`: this row is the reset of an episode that ended the step before ([`Autoreset::NextStep`] only).
    pub was_reset: Vec<bool>,
    /// Episodes that ended in this step, in order of the worlds.
    pub episodes: Vec<Episode>,
}

/// A batch of worlds under one task.
pub struct VectorEnv {
    task: Arc<Task>,
    backend: Box<dyn Backend>,
    mode: Autoreset,
    worlds: usize,
    started: bool,
    /// Each world's random stream for resets.
    streams: Vec<Stream>,
    /// `[worlds, nu]`.
    ctrl: Vec<f64>,
    action_range: Vec<[f64; 2]>,
    /// `[worlds]`: steps and return of the running episode.
    length: Vec<u32>,
    total_reward: Vec<f64>,
    /// `[worlds]`: the episode has ended and the world waits for its reset.
    over: Vec<bool>,
    /// `[worlds, memory]`: see [`Task::remember`].
    before: Vec<f64>,
    step: Step,
    diverged: u64,
    scratch: Scratch,
}

/// Scratch memory for one world's numbers.
struct Scratch {
    senses: Senses,
    obs: Vec<f64>,
    terms: Vec<f64>,
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    no_action: Vec<f64>,
}

impl VectorEnv {
    /// A batch over all worlds of `backend`, which must hold the task's robot.
    ///
    /// # Errors
    /// [`EnvError::OtherRobot`]; [`EnvError::Physics`] if the backend does not compute what the task reads.
    pub fn new(task: Arc<Task>, mut backend: Box<dyn Backend>, mode: Autoreset) -> Result<VectorEnv, EnvError> {
        let (ours, theirs) = (task.model(), backend.model());
        if !std::ptr::eq(&**ours, theirs) && **ours != *theirs {
            return Err(EnvError::OtherRobot { task: task.name().to_owned() });
        }
        backend.need(task.needs()).map_err(EnvError::physics)?;
        let (worlds, o, a, k) = (backend.worlds(), task.obs_dim(), task.act_dim(), task.term_names().len());
        Ok(VectorEnv {
            mode,
            worlds,
            started: false,
            streams: vec![Seed(0).stream("reset"); worlds],
            ctrl: vec![0.0; worlds * a],
            action_range: ours.ctrl_range().to_vec(),
            length: vec![0; worlds],
            total_reward: vec![0.0; worlds],
            over: vec![false; worlds],
            before: vec![0.0; worlds * task.memory()],
            step: Step {
                obs: vec![0.0; worlds * o],
                reward: vec![0.0; worlds],
                teacher_reward: vec![0.0; worlds],
                terminated: vec![false; worlds],
                truncated: vec![false; worlds],
                final_obs: vec![0.0; worlds * o],
                actions: vec![0.0; worlds * a],
                terms: vec![0.0; worlds * k],
                was_reset: vec![false; worlds],
                episodes: Vec::with_capacity(worlds),
            },
            diverged: 0,
            scratch: Scratch {
                senses: Senses::new(task.needs(), ours),
                obs: vec![0.0; o],
                terms: vec![0.0; k],
                qpos: vec![0.0; ours.nq()],
                qvel: vec![0.0; ours.nv()],
                no_action: vec![0.0; a],
            },
            task,
            backend,
        })
    }

    /// The task.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The number of worlds.
    pub fn worlds(&self) -> usize {
        self.worlds
    }

    /// What happens to a world whose episode ended.
    pub fn mode(&self) -> Autoreset {
        self.mode
    }

    /// `[worlds]`: whether the episode is over and not yet reset. With [`Autoreset::NextStep`] the next step resets
    /// these worlds.
    pub fn waiting(&self) -> &[bool] {
        &self.over
    }

    /// The physics backend.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// How many episodes were ended because the physics of their world became non-finite.
    pub fn diverged(&self) -> u64 {
        self.diverged
    }

    /// Begins an episode in every world and returns the observations, `[worlds, O]`. World i draws from the stream of
    /// seed + i, and its later episodes continue that stream. A world's random numbers therefore depend neither on the
    /// batch's size nor on the other worlds.
    pub fn reset(&mut self, seed: u64) -> &[f32] {
        self.streams = (0..self.worlds).map(|world| Seed(seed).world(world).stream("reset")).collect();
        self.started = true;
        (0..self.worlds).for_each(|world| self.begin(world));
        &self.step.obs
    }

    /// Begins an episode in the chosen worlds only and returns all observations, `[worlds, O]`. With a seed their
    /// streams restart from seed + index; without one they continue.
    ///
    /// # Errors
    /// A mask of the wrong length or one that chooses no world; without a seed, a world that was never reset.
    pub fn reset_worlds(&mut self, mask: &[bool], seed: Option<u64>) -> Result<&[f32], EnvError> {
        if mask.len() != self.worlds {
            return Err(EnvError::Length { what: "worlds in the mask", expected: self.worlds, got: mask.len() });
        }
        if !mask.contains(&true) {
            return Err(EnvError::EmptyMask);
        }
        if !self.started && (seed.is_none() || mask.contains(&false)) {
            return Err(EnvError::NotReset);
        }
        self.started = true;
        for world in (0..self.worlds).filter(|&world| mask[world]) {
            if let Some(seed) = seed {
                self.streams[world] = Seed(seed).world(world).stream("reset");
            }
            self.begin(world);
        }
        Ok(&self.step.obs)
    }

    /// One env step of every world. `actions` is `[worlds, A]`; each is clipped to the action space.
    ///
    /// # Errors
    /// No reset yet, a wrong number of actions, a NaN, or an episode that is over and not reset. No world has changed
    /// then.
    pub fn step(&mut self, actions: &[f32]) -> Result<&Step, EnvError> {
        self.admit(actions)?;
        self.backend.step(&self.ctrl, self.task.frame_skip()).map_err(EnvError::physics)?;
        self.step.episodes.clear();
        for world in 0..self.worlds {
            let resets = std::mem::take(&mut self.over[world]);
            self.step.was_reset[world] = resets;
            if resets {
                self.begin(world);
            } else {
                self.compute_reward(world);
            }
        }
        Ok(&self.step)
    }

    /// Spreads the ends of the running episodes evenly over the horizon: world i is treated as if i/N of its episode
    /// had passed. Otherwise worlds that never terminate would stay at the same moment of their episodes forever, and a
    /// short rollout would contain only that moment.
    pub fn stagger(&mut self) {
        let (horizon, worlds) = (u64::from(self.task.horizon()), self.worlds as u64);
        for (world, length) in self.length.iter_mut().enumerate() {
            // The value is below the horizon, which fits in u32.
            *length = (world as u64 * horizon / worlds) as u32;
        }
    }

    /// The result of the last step. After a reset its `obs` is up to date, too.
    pub fn last(&self) -> &Step {
        &self.step
    }

    /// Writes the pose of each body of a world into `out`, `[nbody]`.
    pub fn poses(&self, world: usize, out: &mut [Pose]) {
        self.backend.body_poses(world, out);
    }

    /// What a [`FlipCounter`](super::FlipCounter) reads of a world; `None` if the task has no `[flips]`. `contacts` is
    /// scratch memory.
    pub fn stance(&self, world: usize, contacts: &mut Vec<Contact>) -> Option<Stance> {
        let [pitch, height] = self.task.pitch_and_height(self.qpos(world))?;
        self.backend.contacts(world, contacts);
        let airborne = contacts.iter().all(|contact| !contact.bodies.contains(&0));
        Some(Stance { pitch, height, airborne })
    }

    /// Joint positions of a world, `[nq]`.
    pub fn qpos(&self, world: usize) -> &[f64] {
        row(self.backend.qpos(), world, self.task.model().nq())
    }

    /// Joint velocities of a world, `[nv]`.
    pub fn qvel(&self, world: usize) -> &[f64] {
        row(self.backend.qvel(), world, self.task.model().nv())
    }

    /// Begins an episode of one world in a given state and updates its observation in [`VectorEnv::last`]. All worlds
    /// must have been reset.
    ///
    /// # Errors
    /// No reset yet, or a state of the wrong size.
    pub fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) -> Result<(), EnvError> {
        let model = self.task.model();
        let sizes = [("joint positions", model.nq(), qpos.len()), ("joint velocities", model.nv(), qvel.len())];
        if let Some(&(what, expected, got)) = sizes.iter().find(|(_, expected, got)| expected != got) {
            return Err(EnvError::Length { what, expected, got });
        }
        if !self.started {
            return Err(EnvError::NotReset);
        }
        self.begin_at(world, qpos, qvel);
        Ok(())
    }

    /// Refuses invalid actions and writes the others, clipped, into `ctrl`.
    fn admit(&mut self, actions: &[f32]) -> Result<(), EnvError> {
        let a = self.task.act_dim();
        if !self.started {
            return Err(EnvError::NotReset);
        }
        if actions.len() != self.worlds * a {
            return Err(EnvError::Length {
                what: "numbers in the actions",
                expected: self.worlds * a,
                got: actions.len(),
            });
        }
        if let Some(i) = actions.iter().position(|x| x.is_nan()) {
            return Err(EnvError::NotANumber { world: i / a });
        }
        if self.mode == Autoreset::Disabled
            && let Some(world) = self.over.iter().position(|&over| over)
        {
            return Err(EnvError::EpisodeOver { world });
        }
        let range = self.action_range.iter().cycle();
        for (((&action, &[low, high]), ctrl), kept) in
            actions.iter().zip(range).zip(&mut self.ctrl).zip(&mut self.step.actions)
        {
            *ctrl = f64::from(action).clamp(low, high);
            *kept = *ctrl as f32;
        }
        Ok(())
    }

    /// Evaluates a world after its step: reward, observation, and whether the episode ended.
    fn compute_reward(&mut self, world: usize) {
        let (o, k, a) = (self.task.obs_dim(), self.scratch.terms.len(), self.task.act_dim());
        let memory = self.task.memory();
        let action = row(&self.ctrl, world, a);
        let state = self.scratch.senses.look(&*self.backend, world, action);
        let healthy = self.task.healthy(&state);
        let before = row_mut(&mut self.before, world, memory);
        let mut reward = self.task.reward(before, &state, healthy, &mut self.scratch.terms);
        let mut teacher_reward = self.task.teacher_reward(before, &state, healthy).unwrap_or(reward);
        self.task.observe(&state, &mut self.scratch.obs);
        self.task.remember(&state, before);

        // If the physics became non-finite, the last good observation is kept, the reward is zero, and the episode is
        // truncated.
        let finite = !self.backend.frozen(world)
            && (reward + teacher_reward).is_finite()
            && self.scratch.obs.iter().all(|x| x.is_finite());
        if finite {
            narrow(&self.scratch.obs, row_mut(&mut self.step.obs, world, o));
        } else {
            self.diverged += 1;
            (reward, teacher_reward) = (0.0, 0.0);
            self.scratch.terms.fill(0.0);
        }
        narrow(&self.scratch.terms, row_mut(&mut self.step.terms, world, k));

        self.length[world] += 1;
        self.total_reward[world] += reward;
        let terminated = self.task.terminates() && !healthy;
        let truncated = !terminated && (self.length[world] >= self.task.horizon() || !finite);
        self.step.reward[world] = reward as f32;
        self.step.teacher_reward[world] = teacher_reward as f32;
        self.step.terminated[world] = terminated;
        self.step.truncated[world] = truncated;
        if terminated || truncated {
            let (length, total_reward) = (self.length[world], self.total_reward[world]);
            self.step.episodes.push(Episode { world, total_reward, length });
            row_mut(&mut self.step.final_obs, world, o).copy_from_slice(row(&self.step.obs, world, o));
            match self.mode {
                Autoreset::SameStep => self.enter(world),
                Autoreset::NextStep | Autoreset::Disabled => self.over[world] = true,
            }
        }
    }

    /// Begins an episode. What the last step said of the world no longer holds.
    fn begin(&mut self, world: usize) {
        self.void(world);
        self.enter(world);
    }

    fn begin_at(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        self.void(world);
        self.backend.set_state(world, qpos, qvel);
        self.observe_start(world);
    }

    fn void(&mut self, world: usize) {
        let k = self.scratch.terms.len();
        self.step.reward[world] = 0.0;
        self.step.teacher_reward[world] = 0.0;
        self.step.terminated[world] = false;
        self.step.truncated[world] = false;
        row_mut(&mut self.step.terms, world, k).fill(0.0);
    }

    /// Draws an initial state from the world's stream.
    fn enter(&mut self, world: usize) {
        let Scratch { qpos, qvel, .. } = &mut self.scratch;
        self.task.draw(&mut self.streams[world], qpos, qvel);
        self.backend.set_state(world, qpos, qvel);
        self.observe_start(world);
    }

    fn observe_start(&mut self, world: usize) {
        let (o, memory) = (self.task.obs_dim(), self.task.memory());
        self.over[world] = false;
        self.length[world] = 0;
        self.total_reward[world] = 0.0;
        let Scratch { senses, obs, no_action, .. } = &mut self.scratch;
        let state = senses.look(&*self.backend, world, no_action);
        self.task.observe(&state, obs);
        self.task.remember(&state, row_mut(&mut self.before, world, memory));
        narrow(obs, row_mut(&mut self.step.obs, world, o));
    }

    /// The state that a checkpoint needs to resume: the worlds' states, random streams and the running episodes'
    /// records. Contact caches are not saved. A resumed run therefore starts from the same states but is not identical
    /// to the last bit.
    pub fn to_arrays(&self) -> Arrays {
        let words = |numbers: &[u32]| numbers.iter().map(|&n| u64::from(n)).collect();
        let over = self.over.iter().map(|&over| u64::from(over)).collect();
        let (nq, nv) = (self.task.model().nq(), self.task.model().nv());
        Arrays::from([
            ("qpos".to_owned(), Array::f64(&[self.worlds, nq], self.backend.qpos().to_vec())),
            ("qvel".to_owned(), Array::f64(&[self.worlds, nv], self.backend.qvel().to_vec())),
            ("total_reward".to_owned(), Array::f64(&[self.worlds], self.total_reward.clone())),
            ("length".to_owned(), Array::u64(words(&self.length))),
            ("over".to_owned(), Array::u64(over)),
            ("streams".to_owned(), Array::u64(self.streams.iter().flat_map(Stream::state).collect())),
        ])
    }

    /// Resumes from what [`VectorEnv::to_arrays`] saved and returns the observations, `[worlds, O]`.
    ///
    /// # Errors
    /// [`EnvError::Saved`] if an array is missing or has the wrong size. Nothing has changed then.
    pub fn load_arrays(&mut self, saved: &Arrays) -> Result<&[f32], EnvError> {
        let (w, nq, nv) = (self.worlds, self.task.model().nq(), self.task.model().nv());
        let floats = |name: &str, len: usize| saved.get(name).and_then(Array::as_f64).filter(|v| v.len() == len);
        let words = |name: &str, len: usize| saved.get(name).and_then(Array::as_u64).filter(|v| v.len() == len);
        let qpos = floats("qpos", w * nq).ok_or(EnvError::Saved("qpos is missing or of another size"))?;
        let qvel = floats("qvel", w * nv).ok_or(EnvError::Saved("qvel is missing or of another size"))?;
        let totals = floats("total_reward", w).ok_or(EnvError::Saved("total_reward is missing or of another size"))?;
        let lengths = words("length", w).ok_or(EnvError::Saved("length is missing or of another size"))?;
        let over = words("over", w).ok_or(EnvError::Saved("over is missing or of another size"))?;
        let streams = words("streams", 4 * w).ok_or(EnvError::Saved("streams is missing or of another size"))?;
        self.started = true;
        for world in 0..w {
            self.begin_at(world, row(qpos, world, nq), row(qvel, world, nv));
            self.total_reward[world] = totals[world];
            self.length[world] = u32::try_from(lengths[world]).unwrap_or(u32::MAX);
            self.over[world] = over[world] != 0;
            let words = row(streams, world, 4);
            self.streams[world] = Stream::from_state([words[0], words[1], words[2], words[3]]);
        }
        Ok(&self.step.obs)
    }
}

pub(super) fn row<T>(rows: &[T], index: usize, width: usize) -> &[T] {
    &rows[index * width..(index + 1) * width]
}

pub(super) fn row_mut<T>(rows: &mut [T], index: usize, width: usize) -> &mut [T] {
    &mut rows[index * width..(index + 1) * width]
}

fn narrow(from: &[f64], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as f32);
}
