//! Text mode: the same circle with completions for clips.

pub mod chat;
pub mod data;
pub mod grammar;
pub mod teacher;
pub mod tokenizer;
