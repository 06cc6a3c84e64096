//! Text mode in the lab: the training loop of a session, tools that need no session, and reading and writing of model
//! folders.

mod corpus;
mod folders;
mod measure;
mod model_cache;
mod speed;
mod teaching;
mod tools;
mod trainer;
mod verbs;

pub use measure::{TextMeasure, measure_text};
pub use speed::{TextSpeed, TextSpeedPlan, text_speed};
pub use tools::{
    ExampleKind, ExamplesPlan, ExamplesReport, TokenizerPlan, TokenizerReport, train_tokenizer, write_examples,
};
pub(super) use trainer::{TextTrainer, reached};
pub use verbs::{
    GeneratePlan, Generated, Scored, TextModel, copy_stage, evaluate_text, export_text, generate_text, merge_text,
};
