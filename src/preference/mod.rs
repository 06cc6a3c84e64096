//! From clips to a reward: which stretches are cut, which pairs are asked and when, simulated teachers, and the Bradley–Terry reward
//! model that judgements are turned into.
//!
//! The way of the data: [`Recorder`] → [`ClipPool`] → [`choose_pairs`], paced by [`LabelSchedule`] → a judgement, by a person or by a
//! [`SimulatedTeacher`].

mod choose;
mod pool;
mod recorder;
mod schedule;
mod teacher;

pub use choose::{AskedPairs, ChosenPair, Disagreement, choose_pairs};
pub use pool::{ClipPool, Origin, PoolEntry};
pub use recorder::{Cut, Recorder, StepRecord};
pub use schedule::LabelSchedule;
pub use teacher::SimulatedTeacher;
