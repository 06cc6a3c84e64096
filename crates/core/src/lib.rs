//! Plain data shared by every crate: no behaviour beyond what the data itself implies, no files, no tensors.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod arrays;
mod checksum;
mod clip;
mod completion;
mod item;
mod judgement;
mod one_line;
mod scene;
mod seed;
pub mod settings;
pub mod simd;
mod threads;

pub use arrays::{Array, ArrayData, Arrays};
pub use checksum::{fnv1a, fnv1a_on};
pub use clip::{Clip, Frames};
pub use completion::Completion;
pub use item::{Item, both_clips, both_completions};
pub use judgement::{Choice, ItemId, Judgement, JudgementId, LogEntry, Pair, PairId, PairReason, standing};
pub use one_line::{first_line, one_line, panic_reason};
pub use scene::{Geom, Pose, Scene, Shape, TriangleMesh};
pub use seed::{Seed, Stream};
pub use threads::{Threads, cores};

/// The page of this crate, whose program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
