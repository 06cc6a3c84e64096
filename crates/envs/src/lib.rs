//! Gymnasium's MuJoCo environments in Rust: robots from MJCF, stepped 8 or 16 at a time on SIMD lanes.
//!
//! [`make`] and [`make_vec`] are Gymnasium's functions of these names. They take a bundled task (`hopper`, `Hopper-v5`)
//! or the path of a task file.
//!
//! ```
//! # fn main() -> Result<(), flipside_envs::MakeError> {
//! let mut env = flipside_envs::make("Hopper-v5")?;
//! let obs = env.reset(Some(0)).to_vec();
//! assert_eq!(obs.len(), 11);
//! let step = env.step(&[0.1, -0.2, 0.3])?;
//! println!("reward {}, terminated {}", step.reward, step.terminated);
//!
//! let mut envs = flipside_envs::make_vec("Ant-v5", 64)?;
//! envs.reset(0);
//! let step = envs.step(&vec![0.0; 64 * 8])?;
//! assert_eq!(step.reward.len(), 64);
//! # Ok(()) }
//! ```
//!
//! - [`tasks`]: task files, and where they are found.
//! - [`physics`]: a robot's [`Model`](physics::Model), and the backends that step a batch of worlds of it.
//! - [`gym`]: observation, reward, termination and resets over a backend.
//!
//! Features: `gpu` adds the backend `shader` (WGSL on wgpu), and `rapier` adds the backend `rapier` (rapier3d), which
//! supports meshes and height fields. Without these features neither library is linked.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod gym;
mod make;
pub mod physics;
#[expect(clippy::disallowed_methods, reason = "task files and robots are read from a person's folders")]
pub mod tasks;

pub use gym::{Autoreset, Env, EnvError, EnvStep, Step, Task, TaskError, VectorEnv};
pub use make::{MakeError, MakeOptions, make, make_vec, make_vec_with};

/// The README of this crate, whose example is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
