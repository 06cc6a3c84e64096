//! From clips to a reward: cutting clips, choosing which pairs to ask and when, simulated teachers, and the
//! Bradley–Terry reward model that is fitted to judgements.
//!
//! Data flow: [`Recorder`] → [`ClipPool`] → [`choose_pairs`], paced by [`LabelSchedule`] → a judgement by a person or
//! by a [`SimulatedTeacher`] → [`Comparison`] → [`RewardModel::fit`] → [`RewardModel::rewards`], the policy's reward.
//! The likelihood ([`preference_loss`](flipside_learn::preference_loss)) is the same for robots and for text.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod choose;
mod consistency;
mod disputed;
mod ensemble;
mod error;
mod fit;
mod gaussian_process;
mod monitor;
mod novelty;
#[cfg(feature = "gpu")]
mod on_device;
mod pool;
mod rank;
mod recorder;
mod reward_model;
mod schedule;
mod similarity;
mod teacher;

pub use choose::{AskedPairs, ChosenPair, ClipRank, Rank, choose_pairs, choose_past_pairs};
pub use consistency::consistency;
pub use disputed::{Disputed, by_surprise, disputed};
pub use error::PreferenceError;
pub use fit::{Comparison, FitReport, Unjudged};
pub use gaussian_process::{LinearComparison, LinearFit, LinearReward};
pub use monitor::{Alarm, Monitor};
pub use novelty::{Novelty, state_entropy};
#[cfg(feature = "gpu")]
pub use on_device::{DeviceScorer, Scores};
pub use pool::{ClipPool, Origin, Pool, PoolEntry};
pub use rank::{RatePairs, rank_pairs};
pub use recorder::{Cut, Recorder, StepRecord};
pub use reward_model::RewardModel;
pub use schedule::LabelSchedule;
pub use teacher::{RunningReturnStats, SimulatedTeacher};

#[cfg(test)]
mod tests;

/// The page of this crate, whose program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
