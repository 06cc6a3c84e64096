//! The program Flipside: the desk, the command line, and the lab behind both, built on the crates of this workspace.
//!
//! `ARCHITECTURE.md` is the map. The parts that others can use alone are in `crates/`.

pub mod settings;

pub mod store;

pub mod lab;

pub mod app;
pub mod cli;
