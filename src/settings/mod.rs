//! A run: which task, whose judgement, how long, and where its session lies on this machine.
//!
//! What learning can be told is in [`flipside_core::settings`], what a task file says in [`flipside_envs::tasks`]; both are named here
//! again, so that whoever speaks of a run finds its settings in one place.

mod asked;
pub mod folders;
pub mod names;
mod run;

pub use asked::{Asked, find};
pub use flipside_core::settings::*;
pub use flipside_envs::tasks::{self, TaskSpec, overlay};
pub use run::{ControlRun, Mode, RewardSource, RunSettings};
