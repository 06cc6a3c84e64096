//! Settings of a run: task, teacher, length, and the folder of its session on this machine.
//!
//! The settings of learning are in [`flipside_core::settings`], those of a task file in [`flipside_envs::tasks`]. Both
//! are re-exported here, so that all settings of a run are found in one place.

mod asked;
pub mod folders;
pub mod names;
mod run;

pub use asked::{Asked, find};
pub use flipside_core::settings::*;
pub use flipside_envs::tasks::{self, TaskSpec, overlay};
pub use run::{ControlRun, Mode, RewardSource, RunSettings};
