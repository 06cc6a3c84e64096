//! Best of n and rejection sampling on the command line.

use super::arguments::{AdaptingArguments, ReadingArguments, SettingsArguments, share};
use super::output::outln;
use super::run::report;
use crate::lab::{BestOfPlan, RejectionPlan, RejectionRound, TextModel, best_of_text, rejection_sampling};
use crate::settings::{RunSettings, TextPrecision, TextRun};
use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::path::PathBuf;

/// How completions are written and scored.
#[derive(Args, Debug)]
pub struct CandidatesArguments {
    /// Model folder in Hugging Face's format, or a GGUF file. Default: the built-in supervised model.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Adapter folder in PEFT's format.
    #[arg(long, value_name = "DIR", requires = "model")]
    pub adapter: Option<PathBuf>,
    /// Number type of weights and activations: f32 or bf16.
    #[arg(long, default_value = "f32")]
    pub precision: TextPrecision,
    /// Completions of each prompt.
    #[arg(long, default_value_t = 16)]
    pub n: usize,
    /// Folder of a reward model: short for --reward-function model:DIR.
    #[arg(long, value_name = "DIR")]
    pub reward: Option<String>,
    /// What scores completions: model:DIR, mean:DIR,DIR, minimum:DIR,DIR, mean-LAMBDA*variance:DIR,DIR, regex:PATTERN,
    /// number, number:MARK, length:LOW..HIGH or program:COMMAND, each with `WEIGHT*` before it if it is not to count
    /// once. May be given several times; the scores are added up.
    #[arg(long, value_name = "FUNCTION", allow_hyphen_values = true)]
    pub reward_function: Vec<String>,
    /// Prompt to complete. May be given several times.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// JSON lines with prompts. Default: without --model, the prompts of the built-in grammar.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// Maximum number of tokens in a completion.
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Temperature, above 0: the logits are divided by it. At 0 all completions of a prompt would be the same.
    #[arg(long, default_value_t = 1.0, value_parser = super::arguments::above_0)]
    pub temperature: f64,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BestOfArguments {
    #[command(flatten)]
    pub candidates: CandidatesArguments,
    /// File of JSON lines to write: each prompt with its best completion and the score.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args, Debug)]
pub struct RejectionArguments {
    #[command(flatten)]
    pub candidates: CandidatesArguments,
    /// Number of rounds.
    #[arg(long, default_value_t = 4)]
    pub rounds: usize,
    /// Quantile of a prompt's scores that a completion must reach in the first round, 0 to 1.
    #[arg(long, value_name = "Q", default_value_t = 0.7, value_parser = share)]
    pub first_quantile: f64,
    /// The same in the last round. It changes evenly between them.
    #[arg(long, value_name = "Q", default_value_t = 0.95, value_parser = share)]
    pub last_quantile: f64,
    /// Gradient steps of each round. Default: as in the built-in plan of a supervised model.
    #[arg(long)]
    pub steps: Option<u64>,
    /// Examples in one gradient step.
    #[arg(long)]
    pub batch: Option<usize>,
    /// Adam's step size.
    #[arg(long)]
    pub learning_rate: Option<f64>,
    #[command(flatten)]
    pub adapting: AdaptingArguments,
    #[command(flatten)]
    pub more: SettingsArguments,
    /// Folder to write: round-1, round-2, … each with the accepted completions and the model. Rounds that are there are
    /// not repeated.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

impl CandidatesArguments {
    fn plan(&self, output: &std::path::Path) -> anyhow::Result<BestOfPlan> {
        let of_models = self.reward.iter().map(|folder| format!("model:{folder}"));
        let reward_functions: Vec<String> = of_models.chain(self.reward_function.iter().cloned()).collect();
        if reward_functions.is_empty() {
            bail!("say what scores the completions: --reward DIR for a reward model, or --reward-function");
        }
        if self.n == 0 || self.max_new_tokens == 0 {
            bail!("--n and --max-new-tokens must be at least 1");
        }
        let model = self.model.as_ref().map(|folder| TextModel {
            folder: folder.clone(),
            adapter: self.adapter.clone(),
            precision: self.precision,
        });
        Ok(BestOfPlan {
            model,
            precision: self.precision,
            prompts: self.prompt.clone(),
            data: self.data.clone(),
            reading: self.reading.reading(),
            n: self.n,
            reward_functions,
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            seed: self.seed,
            output: output.to_owned(),
        })
    }
}

/// Writes the best of n completions of each prompt.
pub fn best_of(arguments: &BestOfArguments) -> anyhow::Result<()> {
    let plan = arguments.candidates.plan(&arguments.output)?;
    let bar = ProgressBar::new(0);
    let made = best_of_text(&plan, &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    report(arguments.candidates.json, json!(made), || {
        outln!(
            "{}: best of {} for {} prompts, score {:.3} where the mean of all is {:.3}; KL to the model at most {:.3} nats",
            made.file.display(),
            made.n,
            made.prompts,
            made.best_score,
            made.mean_score,
            made.kl_bound
        );
        if made.without_score > 0 {
            outln!("{} prompts are left out, because none of their completions has a score", made.without_score);
        }
    });
    Ok(())
}

/// The beginnings of the names of settings that a round of rejection sampling uses.
const USED: [&str; 5] =
    ["text.supervised.", "text.supervised_steps", "text.lora", "text.frozen_layers", "text.gradient_checkpointing"];

/// Rejection sampling into supervised training, in rounds.
pub fn rejection(arguments: &RejectionArguments) -> anyhow::Result<()> {
    let sampling = arguments.candidates.plan(&arguments.output)?;
    if arguments.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    let typed = [
        ("--steps", "text.supervised_steps", arguments.steps.map(Value::from)),
        ("--batch", "text.supervised.batch_size", arguments.batch.map(Value::from)),
        ("--learning-rate", "text.supervised.optimiser.learning_rate", arguments.learning_rate.map(Value::from)),
    ];
    let asked =
        arguments.more.asked(typed.into_iter().chain(arguments.adapting.typed())).map_err(anyhow::Error::msg)?;
    if let Some((name, _)) = asked.all().iter().find(|(name, _)| !USED.iter().any(|used| name.starts_with(used))) {
        bail!("`text rejection-sampling` does not use `{name}`; leave it out");
    }
    let settings = RunSettings::of_text(TextRun::default()).with(&asked).map_err(anyhow::Error::msg)?;
    let Some(run) = settings.text().cloned() else { bail!("rejection sampling trains a language model") };
    let quantiles = [arguments.first_quantile, arguments.last_quantile];
    let plan = RejectionPlan { sampling, rounds: arguments.rounds, quantiles, run };
    let bar = ProgressBar::new(0);
    let on_progress = &mut |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let json = arguments.candidates.json;
    let on_round = &mut |round: &RejectionRound| {
        if !json {
            bar.suspend(|| {
                outln!(
                    "round {}: {} of {} completions reach the quantile {:.2}; mean score {:.3}, of the accepted {:.3}",
                    round.round,
                    round.accepted,
                    round.completions,
                    round.quantile,
                    round.mean_score,
                    round.accepted_score
                );
            });
        }
    };
    let rounds = rejection_sampling(&plan, on_progress, on_round)?;
    bar.finish_and_clear();
    let model = arguments.output.join(format!("round-{}", arguments.rounds)).join("model");
    report(json, json!({ "rounds": rounds, "model": model }), || outln!("model  {}", model.display()));
    Ok(())
}
