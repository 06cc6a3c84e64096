//! The running session: the only room that wires the others. The desk and the command line speak to it in [`Command`]s and hear from it in
//! [`Event`]s and [`Snapshot`]s; no tensor, GPU buffer or physics handle crosses that line.

mod vocabulary;

pub use vocabulary::*;
