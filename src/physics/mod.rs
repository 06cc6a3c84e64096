//! Robots that move: [`Model`], read from MJCF, and the [`Backend`]s that step a batch of worlds of it.
//!
//! Nothing here knows of rewards, episodes or learning.

mod backend;
mod model;

pub use backend::{Backend, Contact};
pub use model::Model;
