//! The program Flipside: the desk, the command line, and the lab behind both, over the crates of this workspace.
//!
//! `ARCHITECTURE.md` is the map. What others can use alone lies in `crates/`.

pub mod settings;

pub mod store;

pub mod lab;

pub mod app;
pub mod cli;
