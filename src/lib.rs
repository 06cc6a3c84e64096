//! Flipside teaches by choosing: two clips of a simulated robot, a person's pick, a reward model, PPO, and the next pair.
//!
//! The rooms, in the order that data flows. `ARCHITECTURE.md` says what may import what; `tests/house.rs` holds it.

pub mod basics;
pub mod settings;

pub mod compute;

pub mod physics;

pub mod gym;

pub mod learn;
pub mod preference;
pub mod text;

pub mod store;

pub mod lab;

pub mod view;

pub mod app;
pub mod cli;
