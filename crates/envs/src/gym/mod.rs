//! Robots as Gymnasium environments. [`Task`] computes observation, reward and the end of an episode from a physics
//! state. [`VectorEnv`] steps a batch of worlds under a task, [`Env`] is a batch of one, and [`rollout_from`] replays
//! given controls.
//!
//! This module does not know how the physics is computed or who learns from it.

mod compile;
mod env;
mod flips;
#[cfg(feature = "gpu")]
mod on_device;
mod parts;
mod rollout;
mod signal;
mod space;
mod task;
mod vector;

pub use env::{Env, EnvStep};
pub use flips::{FlipCounter, FlipRule, Stance};
#[cfg(feature = "gpu")]
pub use on_device::{DeviceEnv, DeviceRollout};
pub use rollout::{RolloutOut, rollout_from};
pub use signal::State;
pub use space::Space;
pub use task::{Task, TaskError};
pub use vector::{Autoreset, EnvError, Episode, Step, VectorEnv};
