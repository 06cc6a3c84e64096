//! A batch of worlds under a task that stays on the graphics device: physics, observation, reward, ends of episodes and
//! resets. The host receives whole rollouts.
//!
//! The semantics are those of [`super::VectorEnv`] with [`super::Autoreset::SameStep`], in single precision. Resets
//! draw random numbers that depend only on seed, world and episode. They differ from the host's numbers and are the
//! same on every device.

mod table;

use super::task::Task;
use super::vector::EnvError;
use crate::physics::{BuildOptions, DeviceWorlds, SHADER_MODULES, Stages, ThreadsPerWorld, WORKGROUP};
use flipside_gpu::{
    ActsOnDevice, Bindings, Buffer, Checks, Commands, Device, DeviceError, Kernel, RANDOM, RolloutLayout,
    RolloutPlaces, Source, SubmissionSizer, UniformCache, Use, compose,
};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Batch, Table};

/// The most kernel runs that are timed.
const MOST_TIMED: u32 = 1024;

const REWARD: Source = ("shaders/gym/reward.wgsl", include_str!("../../../../shaders/gym/reward.wgsl"));

/// What a dispatch of the reward kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    BeginRollout,
    ResetAll,
    Reward,
    Observe,
}

/// A batch of worlds under one task on a graphics device.
pub struct DeviceEnv {
    task: Arc<Task>,
    worlds: DeviceWorlds,
    layout: RolloutLayout,
    places: RolloutPlaces,
    kernel: Kernel,
    bindings: Bindings,
    rollout: Buffer,
    readback: Buffer,
    uniforms: UniformCache,
    sizer: SubmissionSizer,
    seed: u64,
}

/// The data of a rollout as it came from the device: the parts that `places` lists, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceRollout {
    /// All numbers.
    pub numbers: Vec<f32>,
}

impl DeviceEnv {
    /// A batch of `worlds` worlds whose rollouts have `steps` env steps; states of the first `trailed` worlds are
    /// recorded.
    ///
    /// # Errors
    /// [`EnvError::Physics`] if the shaders do not support the robot; [`EnvError::Device`].
    pub fn new(
        device: &Device,
        task: Arc<Task>,
        worlds: usize,
        steps: usize,
        trailed: usize,
        options: impl Into<BuildOptions>,
    ) -> Result<DeviceEnv, EnvError> {
        let options = options.into();
        let model = task.model().clone();
        let layout = RolloutLayout {
            steps,
            worlds,
            obs_dim: task.obs_dim(),
            act_dim: task.act_dim(),
            state_dim: model.nq() + model.nv(),
            trailed: trailed.min(worlds),
            // One at each horizon, one for the episode that is already running, and one for physics that diverges.
            ends: steps / task.horizon() as usize + 2,
        };
        let places = layout.places();
        let worlds = DeviceWorlds::new(device, model, worlds, task.needs(), options).map_err(EnvError::physics)?;
        let table = Table::new(&task, &worlds);
        let shader = compose(&[SHADER_MODULES, &[RANDOM]].concat(), REWARD, &table.definitions);
        let made = || {
            let kernel = device.kernel("reward", shader, "main", options.checks)?;
            let buffer = device.buffer("task", table.bytes.len() as u64, Use::Storage)?;
            device.upload(&buffer, 0, &table.bytes);
            let books = device.buffer("books", 4 * (table.books * layout.worlds) as u64, Use::Storage)?;
            let rollout = device.buffer("rollout", 4 * places.len as u64, Use::Storage)?;
            let readback = device.buffer("results", 4 * places.len as u64, Use::Readback)?;
            let all = [
                (0, &buffer),
                (1, &worlds.buffers.state),
                (2, &worlds.buffers.ctrl),
                (3, &worlds.buffers.derived),
                (4, &worlds.buffers.frozen),
                (5, &books),
                (6, &rollout),
            ];
            let bindings = device.bind(&kernel, 0, &all)?;
            Ok((kernel, bindings, rollout, readback))
        };
        let (kernel, bindings, rollout, readback) = made().map_err(EnvError::Device)?;
        let sizer = worlds.sizer();
        Ok(DeviceEnv {
            task,
            worlds,
            layout,
            places,
            kernel,
            bindings,
            rollout,
            readback,
            uniforms: UniformCache::default(),
            sizer,
            seed: 0,
        })
    }

    /// The task.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The sizes of a rollout.
    pub fn layout(&self) -> RolloutLayout {
        self.layout
    }

    /// The buffer that a rollout is written into; [`RolloutLayout::places`] says where each part lies.
    pub fn rollout(&self) -> &Buffer {
        &self.rollout
    }

    /// The buffer of the actions as the actuators receive them, `[worlds, A]`.
    pub fn controls(&self) -> &Buffer {
        &self.worlds.buffers.ctrl
    }

    /// Begins an episode in every world; world i draws from seed + i. With `stagger` the ends of the episodes are
    /// spread over the horizon.
    ///
    /// # Errors
    /// [`EnvError::Device`].
    pub fn reset(&mut self, seed: u64, stagger: bool) -> Result<(), EnvError> {
        self.seed = seed;
        self.submit(|env, commands, worlds| {
            env.dispatch(commands, worlds.clone(), What::ResetAll, stagger)?;
            env.dispatch(commands, worlds.clone(), What::BeginRollout, false)?;
            env.observe(commands, worlds)
        })
    }

    /// Steps every world through one rollout and copies the rollout to the host. Each submission takes a fraction of a
    /// second, however many worlds and steps there are. `cancelled` is checked between submissions; the result is false
    /// if it ended the rollout.
    ///
    /// # Errors
    /// [`EnvError::Device`].
    pub fn collect(
        &mut self,
        actor: &mut dyn ActsOnDevice,
        out: &mut DeviceRollout,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<bool, EnvError> {
        self.submit(|env, commands, worlds| {
            actor.rewind(commands, worlds.clone())?;
            env.dispatch(commands, worlds, What::BeginRollout, false)
        })?;
        let (mut done, mut together) = (0, 1);
        while done < self.layout.steps {
            if cancelled() {
                return Ok(false);
            }
            let now = together.min(self.layout.steps - done);
            let whole = self.sizer.at_once() >= self.layout.worlds;
            let (steps, started) = (if whole { now } else { 1 }, Instant::now());
            self.submit(|env, commands, worlds| {
                for _ in 0..steps {
                    env.advance(actor, commands, worlds.clone())?;
                }
                Ok(())
            })?;
            done += steps;
            // As with the worlds of a submission: more steps while the device is fast, fewer after a slow submission.
            together = match started.elapsed() {
                time if 3 * time < SubmissionSizer::SUBMISSION => 2 * together,
                time if time > SubmissionSizer::SUBMISSION => (together / 2).max(1),
                _ => together,
            };
        }
        self.bring(out).map_err(EnvError::Device)?;
        Ok(true)
    }

    /// How many worlds are submitted together, given how fast the device has been so far.
    pub fn at_once(&self) -> usize {
        self.sizer.at_once().min(self.layout.worlds)
    }

    /// How long each kernel takes in one env step of [`DeviceEnv::at_once`] worlds, in seconds; `None` if the adapter
    /// has no timers.
    ///
    /// # Errors
    /// [`EnvError::Device`].
    pub fn times(&mut self, actor: &mut dyn ActsOnDevice) -> Result<Option<Vec<(String, f64)>>, EnvError> {
        let (device, worlds) = (self.worlds.device.clone(), 0..self.at_once());
        let made = device.time(MOST_TIMED, |commands| {
            actor.rewind(commands, worlds.clone())?;
            self.dispatch(commands, worlds.clone(), What::BeginRollout, false)?;
            self.advance(actor, commands, worlds)
        });
        Ok(made.map_err(EnvError::Device)?.map(seconds))
    }

    /// How long each stage of the physics takes as a kernel of its own in such an env step, in seconds. `None` if the
    /// adapter has no timers, or if teams of threads step the worlds.
    ///
    /// # Errors
    /// [`EnvError::Device`].
    pub fn stage_times(&mut self, actor: &mut dyn ActsOnDevice) -> Result<Option<Vec<(String, f64)>>, EnvError> {
        if self.threads_per_world() == ThreadsPerWorld::Team {
            return Ok(None);
        }
        let (device, worlds) = (self.worlds.device.clone(), 0..self.at_once());
        let mut run = || {
            let mut stages = Stages::new(&self.worlds, Checks::Off)?;
            let mut times = None;
            // Runs twice, because a software driver compiles during the first run.
            for _ in 0..2 {
                let mut commands = device.commands();
                actor.rewind(&mut commands, worlds.clone())?;
                self.dispatch(&mut commands, worlds.clone(), What::BeginRollout, false)?;
                actor.act(&mut commands, worlds.clone())?;
                device.submit(commands);
                device.wait()?;
                times = device.time(MOST_TIMED, |commands| {
                    stages.step(&self.worlds, commands, worlds.clone(), self.task.frame_skip())
                })?;
                let mut commands = device.commands();
                self.dispatch(&mut commands, worlds.clone(), What::Reward, false)?;
                self.observe(&mut commands, worlds.clone())?;
                device.submit(commands);
            }
            Ok(times)
        };
        Ok(run().map_err(EnvError::Device)?.map(seconds))
    }

    /// How many threads step one world.
    pub fn threads_per_world(&self) -> ThreadsPerWorld {
        self.worlds.threads_per_world()
    }

    /// Bytes of a world's workspace, which lies in device memory or, for a team, in workgroup memory.
    pub fn workspace(&self) -> u64 {
        self.worlds.workspace()
    }

    /// A rough count of the work in one env step of one world: operations, and bytes of device memory read or written.
    pub fn work(&self) -> [f64; 2] {
        self.worlds.work(self.task.frame_skip())
    }

    /// Records an env step: actions, physics, rewards and resets, and the first observation of worlds that begin an
    /// episode.
    fn advance(
        &mut self,
        actor: &mut dyn ActsOnDevice,
        commands: &mut Commands,
        worlds: Range<usize>,
    ) -> Result<(), DeviceError> {
        actor.act(commands, worlds.clone())?;
        self.worlds.step(commands, worlds.clone(), self.task.frame_skip())?;
        self.dispatch(commands, worlds.clone(), What::Reward, false)?;
        self.observe(commands, worlds)
    }

    fn bring(&mut self, out: &mut DeviceRollout) -> Result<(), DeviceError> {
        let (device, bytes) = (&self.worlds.device, 4 * self.places.len as u64);
        let mut commands = device.commands();
        commands.copy(&self.rollout, &self.readback, 0, bytes);
        device.submit(commands);
        out.numbers.resize(self.places.len, 0.0);
        device.read(&self.readback, bytes, |bytes| {
            bytemuck::cast_slice_mut(&mut out.numbers).copy_from_slice(bytes);
        })
    }

    /// Evaluates worlds that begin an episode: first their derived quantities, if the task reads any, then their
    /// observation.
    fn observe(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError> {
        if !self.task.needs().is_empty() {
            self.worlds.derive_initial(commands, worlds.clone())?;
        }
        self.dispatch(commands, worlds, What::Observe, false)
    }

    /// Submits what `list` records. It takes so few worlds at a time that no submission takes long, and waits for each.
    fn submit(
        &mut self,
        mut list: impl FnMut(&mut DeviceEnv, &mut Commands, Range<usize>) -> Result<(), DeviceError>,
    ) -> Result<(), EnvError> {
        let mut first = 0;
        while first < self.layout.worlds {
            let end = (first + self.sizer.at_once()).min(self.layout.worlds);
            let mut commands = self.worlds.device.commands();
            let started = Instant::now();
            let device = self.worlds.device.clone();
            let done = list(self, &mut commands, first..end).and_then(|()| {
                device.submit(commands);
                device.wait()
            });
            done.map_err(EnvError::Device)?;
            self.sizer.took(end - first, started);
            first = end;
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        commands: &mut Commands,
        worlds: Range<usize>,
        what: What,
        stagger: bool,
    ) -> Result<(), DeviceError> {
        let batch = Batch::new(&self.layout, worlds.clone(), what as u32, self.seed, stagger);
        let device = &self.worlds.device;
        let told = self.uniforms.bind(device, &self.kernel, bytemuck::bytes_of(&batch))?;
        commands.run(&self.kernel, &[&self.bindings, &told], worlds.len().div_ceil(WORKGROUP));
        Ok(())
    }
}

fn seconds(times: Vec<(String, Duration)>) -> Vec<(String, f64)> {
    times.into_iter().map(|(name, time)| (name, time.as_secs_f64())).collect()
}

impl DeviceRollout {
    /// One part of the rollout: `numbers` values from index `at` on.
    pub fn part(&self, at: usize, numbers: usize) -> &[f32] {
        &self.numbers[at..at + numbers]
    }
}
