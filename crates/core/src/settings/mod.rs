//! What can be set of learning: one struct a concern, each with documented defaults, read from TOML and JSON and written to them.
//!
//! The command line fills these structs in, and nothing below it sees a flag.

mod ppo;
mod reward_model;
mod teacher;
mod text;
mod text_run;

pub use ppo::PpoSettings;
pub use reward_model::{
    ExploreSettings, LabelSettings, MonitorSettings, PairChoice, RewardModelKind, RewardModelSettings,
};
pub use teacher::{TeacherKind, TeacherNoise};
pub use text::{KlEstimator, KlSettings, OptimiserSettings, SupervisedSettings, TextPpoSettings, TextRewardSettings};
pub use text_run::{LoraSettings, TextPrecision, TextRun, TextShape, TextStage};
