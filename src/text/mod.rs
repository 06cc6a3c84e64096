//! Text mode: the same circle with completions for clips.

pub mod chat;
pub mod config;
pub mod data;
mod error;
pub mod generate;
pub mod grammar;
pub mod lora;
pub mod model;
pub mod teacher;
pub mod tokenizer;
pub mod weights;

pub use error::ModelError;
