//! From poses to pixels, on screen and off.
//!
//! [`Renderer`] draws a [`Scene`](flipside_core::Scene) into any wgpu texture. [`Offscreen`] has a device of its own
//! and returns the pixels. A clip holds poses, not pixels: [`interpolate`] gives the poses at any moment of it, and
//! [`Track`] the camera's target. Both depend on the moment alone. [`film`] writes GIFs, MP4s and PNGs, [`chart`] draws
//! learning curves, and [`heat_map`] tables of numbers. Nothing here depends on windows or on learning.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod adapters;
mod bounds;
mod camera;
pub mod chart;
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "films are files")]
pub mod film;
pub mod heat_map;
#[cfg(test)]
mod icon;
mod layout;
mod look;
mod motion;
mod mp4;
mod offscreen;
mod quantise;
mod renderer;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod text;

pub use adapters::{AdapterLine, adapters};
pub use camera::{Bounds, Camera};
pub use look::Look;
pub use motion::{Track, interpolate};
pub use offscreen::{Offscreen, OffscreenError, Picture};
pub use renderer::{Renderer, View};

/// The page of this crate, whose program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
