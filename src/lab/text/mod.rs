//! Text mode in the lab: the training loop of a session, tools that need no session, and reading and writing of model
//! folders.

mod algorithms;
mod asking;
mod best_of;
mod built_in;
mod corpus;
mod folders;
mod inside;
mod label_efficiency;
mod look;
mod measure;
mod new_run;
mod program;
mod reward_functions;
mod speed;
mod steps;
mod teaching;
mod tldr;
mod tools;
mod trainer;
mod verbs;

pub use algorithms::{
    BestOfPoint, MeanAndDeviation, StartJob, TaughtRewardModel, TextAlgorithm, TextAlgorithmJob, TextAlgorithmRow,
    TextAlgorithmRun, TextAlgorithmsPlan, run_text_algorithm, teach_reward_model, text_algorithms,
};
pub use best_of::{BestOfPlan, BestOfReport, RejectionPlan, RejectionRound, best_of_text, rejection_sampling};
pub use built_in::{BuiltInReport, write_built_in};
pub use label_efficiency::{LabelEfficiencyPlan, LabelEfficiencyRow, LabelEfficiencyRun, label_efficiency};
pub use look::{AblateWith, LookModels, LookPlan, LookReport, LookWhat, ProbeLabels, SteerPlan, TunedLensPlan, look};
pub use measure::{TextMeasure, measure_text};
pub use new_run::check_text_run;
pub use speed::{TextSpeed, TextSpeedPlan, text_speed};
pub use steps::{TextSteps, TextStepsMethod, TextStepsPlan, text_steps};
pub use tldr::{
    ComparisonRow, EvaluationPlan, GptSize, KlRow, MemoryPlan, MemoryReport, Recipe, SummaryRow, TldrCounts,
    TldrEvaluation, TldrExamplesPlan, TldrExamplesReport, TldrPlan, Versus, evaluate_tldr, measure_memory,
    prepare_tldr, write_tldr_examples,
};
pub use tools::{
    ExampleKind, ExamplesPlan, ExamplesReport, TokenizerPlan, TokenizerReport, train_tokenizer, write_examples,
};
pub(super) use trainer::{TextTrainer, reached};
pub use verbs::{
    GeneratePlan, Generated, Scored, TextModel, copy_stage, evaluate_text, export_text, generate_text, merge_text,
};
