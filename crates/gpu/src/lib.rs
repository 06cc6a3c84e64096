//! A graphics device that computes: found, opened, asked what it can do, and given work. Nothing here knows what is computed.
//!
//! The rooms that compute on a device (physics its steps, gym its rewards, learn its actions, preference its scores) hold their own kernels and buffers,
//! and hand each other the buffers; no other room names wgpu for this.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod compose;
mod device;
mod rollout;
mod submission_sizer;

pub use compose::{Definitions, Source, bound, compose, reflected, shared};
pub use device::{Bindings, Buffer, Checks, Commands, Device, DeviceError, Kernel, UniformCache, Use};
pub use rollout::{ActsOnDevice, RolloutLayout, RolloutPlaces};
pub use submission_sizer::SubmissionSizer;

/// Turns of its loops that a thread may take in one dispatch: the software driver llvmpipe leaves every loop after 65,535.
pub const MOST_TURNS: usize = 60_000;

/// Random numbers for shaders, which other files import as `random`.
pub const RANDOM: Source = ("shaders/compute/random.wgsl", include_str!("../../../shaders/compute/random.wgsl"));

/// A shader, composed and validated.
pub use wgpu::naga::Module;

/// The page of this crate, whose program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
