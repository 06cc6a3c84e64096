//! What can be set: one typed struct a concern, each with documented defaults, TOML in and out. Also where things lie on this machine.
//!
//! What was typed and what it means are two types: the command line fills these structs in, and nothing below sees its flags.

pub mod envs;
pub mod folders;
mod ppo;
mod reward_model;
mod run;
mod task;
mod text;
mod text_run;

pub use ppo::PpoSettings;
pub use reward_model::{
    ExploreSettings, LabelSettings, MonitorSettings, PairChoice, RewardModelKind, RewardModelSettings,
};
pub use run::{Habits, RewardSource, RunSettings, TeacherKind};
pub use task::{
    BenchmarkSpec, FlipSpec, HealthSpec, Map, Noise, Origin, PlaceSpec, ResetSpec, RewardKind, RewardSpec, SignalSpec,
    Source, SpecError, TaskSpec,
};
pub use text::{KlEstimator, KlSettings, OptimiserSettings, SupervisedSettings, TextPpoSettings, TextRewardSettings};
pub use text_run::{LoraSettings, TextPrecision, TextRun, TextShape, TextStage};
