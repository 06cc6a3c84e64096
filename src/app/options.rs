//! What a desk is opened with.

use super::probe::ProbePlan;
use crate::lab::Link;
use crate::settings::RunSettings;
use std::sync::Arc;

/// Wakes the window up. A lab calls it when it has something new to show.
pub type Repaint = Arc<dyn Fn() + Send + Sync>;

/// Opens a lab for a run. It is called on its own thread, because it may take seconds.
pub type LabFactory = Arc<dyn Fn(RunSettings, Repaint) -> anyhow::Result<Box<dyn Link>> + Send + Sync>;

/// A robot that the picker offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskChoice {
    /// What [`RunSettings::task`] takes, e.g. `hopper`.
    pub name: String,
    /// What a person reads, e.g. `Hopper`.
    pub title: String,
    /// Env steps of a run with it.
    pub env_steps: u64,
}

/// Everything that a desk needs.
pub struct DeskOptions {
    /// The run to start or continue.
    pub settings: RunSettings,
    /// Opens its lab, and those of later runs.
    pub make_lab: LabFactory,
    /// The robots to choose from.
    pub tasks: Vec<TaskChoice>,
    /// If set, the desk answers and measures by itself, then closes.
    pub probe: Option<ProbePlan>,
}
