//! Learning from rewards: proximal policy optimisation for continuous actions, and the parts of it that other learners
//! share.
//!
//! [`Ppo`] is the algorithm and reads top to bottom in `ppo.rs`. It uses no tensors, because libtorch's cost per call
//! exceeds the arithmetic of so small a network. Acting ([`Policy`], [`Dense`]) and gradients (`gradient.rs`,
//! `loss.rs`) share a matrix product (`kernels.rs`) over vector registers ([`flipside_core::simd`]). Tensors are for
//! larger networks and other losses, and for the tests that compare our gradients with automatic differentiation:
//! [`clipped_objective`], [`clipped_value_loss`], [`log_prob`], [`Adam`]. These, [`gae`] and [`orthogonal`] know
//! nothing of control.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod adam;
mod arrays;
mod decode_batch;
mod dense;
#[cfg(feature = "gpu")]
mod device_network;
mod devices;
mod error;
mod gae;
mod gaussian;
mod gradient;
mod kernels;
mod kl;
mod likelihood;
mod loss;
mod nearest;
mod network;
mod norm;
mod objective;
#[cfg(feature = "gpu")]
mod on_device;
mod policy;
mod ppo;
#[cfg(test)]
mod reference;
mod rollout;
mod threads;

pub use adam::{Adam, clip_by_global_norm, global_norm, numbers};
pub use arrays::Reader;
pub use decode_batch::{DecodeBatch, Past, attend, exponentials};
pub use dense::{Dense, Layer};
#[cfg(feature = "gpu")]
pub use device_network::{DeviceLayer, DeviceLayers, NETWORK, columns};
pub use devices::{CudaLibrary, cuda_devices, cuda_library};
pub use error::LearnError;
pub use gae::{Gae, Trajectories, gae};
pub use gaussian::{entropy, kl, log_prob};
pub use kl::{KlController, approx_kl, kl_estimate, kl_loss};
pub use likelihood::{preference_loss, preference_probability, signed_margin, surprise};
pub use nearest::neighbour_distances;
pub use network::{Network, orthogonal};
pub use norm::{RewardScale, RunningNorm, whiten};
pub use objective::{clipped_objective, clipped_objective_between, clipped_value_loss, explained_variance};
#[cfg(feature = "gpu")]
pub use on_device::{Acting, DeviceActor};
pub use policy::Policy;
pub use ppo::{Ppo, UpdateStats};
pub use rollout::{Actions, Rollout, Transition};
pub use threads::{OneThread, all_threads, wait_asleep};

/// The README of this crate, whose example is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
