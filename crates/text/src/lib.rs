//! RLHF for language models: the same loop as for robots, with completions instead of clips.
//!
//! [`Supervised`] fine-tunes a model on texts, [`TextReward`] fits a reward model to judgements of pairs, and
//! [`TextPpo`] optimises a policy for that reward under a KL penalty to the reference. [`TextPreference`] (DPO and its
//! relatives) and [`Ilql`] learn from a fixed set of judgements without a reward model, and [`TextOnlineDpo`] from
//! judgements of what the policy writes. Each trainer works step by
//! step: the caller owns the loop, receives the [`Progress`] within a call, may cancel it, and can save the whole state
//! between calls as named arrays. The preference likelihood, GAE, the clipped losses, Adam and the KL controller come
//! from [`flipside_learn`], which robots use too.
//!
//! Modules build on one another in one direction: `hidden`, then the [`model`] and, without knowing it, the trait
//! [`LanguageModel`] with the batches (`rows`), then the trainers. `causal` is where the model meets the trait.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod advantage;
mod bpe_files;
mod bundle;
mod causal;
pub mod chat;
pub mod config;
mod cursor;
pub mod data;
mod error;
pub mod generate;
pub mod gguf;
pub mod grammar;
mod heads;
mod hidden;
mod ilql;
pub mod interp;
mod kl;
mod language_model;
mod length_control;
pub mod lora;
mod minibatch;
pub mod model;
mod optimiser;
pub mod peft;
mod ppo;
mod preference;
mod progress;
mod reward;
pub mod reward_functions;
mod rollout;
pub mod rope;
mod rouge;
mod rows;
mod score_encoder;
mod supervised;
pub mod teacher;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tiny;
pub mod tldr;
pub mod tokenizer;
mod transaction;
pub mod weights;

pub use bundle::{Bundle, BundleError, Parts, device, last_hidden_states, log_probs, tokenizer_of};
pub use error::ModelError;
pub use heads::ScalarHead;
pub use hidden::Hidden;
pub use ilql::{Ilql, IlqlHeads, IlqlStats, ScoredCompletion, generate_by_values, standardise};
pub use kl::completion_kls;
pub use language_model::{AncestralSampling, LanguageModel, SampledCompletion};
pub use length_control::{ControlledRate, LengthControl, Outcome};
pub use ppo::{ScoreFn, TextPpo, TextPpoStats};
pub use preference::{LabelledCompletion, TextOnlineDpo, TextOnlineDpoStats, TextPreference, TextPreferenceStats};
pub use progress::{Progress, ProgressFn};
pub use reward::{TextComparison, TextReward, TextRewardStats};
pub use rollout::{Episode, Reference};
pub use rouge::Rouge;
pub use rows::Example;
pub use score_encoder::ScoreEncoder;
pub use supervised::{Supervised, SupervisedStats};

/// The page of this crate, whose program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
