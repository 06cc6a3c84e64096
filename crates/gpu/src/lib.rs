//! A graphics device for computation: finds and opens it, reads its limits, and submits work to it. Nothing here
//! depends on what is computed.
//!
//! The modules that compute on a device (physics: steps; gym: rewards; learn: actions; preference: scores) own their
//! kernels and buffers, and share buffers with each other. For computation, no other module uses wgpu directly.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod compose;
mod device;
mod rollout;
mod submission_sizer;

pub use compose::{Definitions, Source, bound, compose, reflected, shared};
pub use device::{Bindings, Buffer, Checks, Commands, Device, DeviceError, Kernel, UniformCache, Use};
pub use rollout::{ActsOnDevice, RolloutLayout, RolloutPlaces};
pub use submission_sizer::SubmissionSizer;

/// Loop iterations that a thread may make in one dispatch. The software driver llvmpipe leaves every loop after 65,535.
pub const MOST_TURNS: usize = 60_000;

/// Random numbers for shaders; other files import it as `random`.
pub const RANDOM: Source = ("shaders/compute/random.wgsl", include_str!("../../../shaders/compute/random.wgsl"));

/// A shader, composed and validated.
pub use wgpu::naga::Module;

/// The page of this crate, whose program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
