//! One world, as Gymnasium's `Env`: reset it, step it until the episode ends, and reset it again.

use super::task::Task;
use super::vector::{Autoreset, EnvError, VectorEnv};
use crate::physics::Backend;
use flipside_core::Pose;
use std::sync::Arc;

/// A single environment. It has no autoreset.
pub struct Env {
    batch: VectorEnv,
    seeded: bool,
}

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnvStep<'a> {
    /// `[O]`.
    pub obs: &'a [f32],
    /// The sum of `terms`.
    pub reward: f32,
    /// The episode ended by itself.
    pub terminated: bool,
    /// The episode was truncated at the horizon.
    pub truncated: bool,
    /// `[K]`: the reward's terms, see [`Task::term_names`].
    pub terms: &'a [f32],
}

impl Env {
    /// An environment over a backend of one world.
    ///
    /// # Errors
    /// The backend has more than one world, or another robot than the task.
    pub fn new(task: Arc<Task>, backend: Box<dyn Backend>) -> Result<Env, EnvError> {
        if backend.worlds() != 1 {
            return Err(EnvError::Length { what: "world", expected: 1, got: backend.worlds() });
        }
        Ok(Env { batch: VectorEnv::new(task, backend, Autoreset::Disabled)?, seeded: false })
    }

    /// The task.
    pub fn task(&self) -> &Arc<Task> {
        self.batch.task()
    }

    /// Begins an episode and returns its first observation, `[O]`. Without a seed the random stream continues from the
    /// last episode; if there was none, it starts with seed 0.
    pub fn reset(&mut self, seed: Option<u64>) -> &[f32] {
        let seed = if self.seeded { seed } else { Some(seed.unwrap_or(0)) };
        self.seeded = true;
        match seed {
            Some(seed) => self.batch.reset(seed),
            // The mask has one entry for the one world, and the world has been reset before.
            None => self.batch.reset_worlds(&[true], None).unwrap_or_default(),
        }
    }

    /// One env step; `action` is `[A]` and is clipped to the action space.
    ///
    /// # Errors
    /// As [`VectorEnv::step`].
    pub fn step(&mut self, action: &[f32]) -> Result<EnvStep<'_>, EnvError> {
        let step = self.batch.step(action)?;
        Ok(EnvStep {
            obs: &step.obs,
            reward: step.reward[0],
            terminated: step.terminated[0],
            truncated: step.truncated[0],
            terms: &step.terms,
        })
    }

    /// Writes the pose of each body into `out`, `[nbody]`.
    pub fn poses(&self, out: &mut [Pose]) {
        self.batch.poses(0, out);
    }

    /// Joint positions, `[nq]`.
    pub fn qpos(&self) -> &[f64] {
        self.batch.qpos(0)
    }

    /// Joint velocities, `[nv]`.
    pub fn qvel(&self) -> &[f64] {
        self.batch.qvel(0)
    }
}
