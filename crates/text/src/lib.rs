//! The same training loop with completions for clips: language models that are taught by comparing what they wrote.
//!
//! [`Supervised`] teaches a model to continue texts, [`TextReward`] turns judgements of pairs into a reward, and [`TextPpo`] follows the reward
//! without leaving the reference far behind. Each is stepwise: whoever calls owns the loop, is told the [`Progress`] within a call and may
//! stop it, and can save the whole state between calls as named arrays. The likelihood, GAE, the clipped losses, Adam and the KL control
//! are those of `preference` and `learn`, which robots use too.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod bundle;
mod causal;
pub mod chat;
pub mod config;
mod cursor;
pub mod data;
mod error;
pub mod generate;
pub mod grammar;
mod heads;
mod hidden;
pub mod lora;
pub mod model;
mod optimiser;
pub mod peft;
mod ppo;
mod reward;
mod supervised;
pub mod teacher;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tiny;
pub mod tokenizer;
pub mod weights;

pub use bundle::{Bundle, BundleError, Parts, device, log_probs, tokenizer_of};
pub use causal::{Draw, Drawn, Example, LanguageModel, Progress, Watch};
pub use error::ModelError;
pub use heads::ScalarHead;
pub use hidden::Hidden;
pub use ppo::{Episode, Reference, ScoreFn, TextPpo, TextPpoStats};
pub use reward::{TextComparison, TextReward, TextRewardStats};
pub use supervised::{Supervised, SupervisedStats};

/// The page of this crate, whose program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
