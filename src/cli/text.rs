//! The verbs of text mode.

use super::arguments::{ModelArguments, ReadingArguments, SettingsArguments, TuningArguments, presets, share};
use super::best_of::{BestOfArguments, RejectionArguments, best_of, rejection};
use super::look::{Look, look};
use super::output::{flush, out, outln};
use super::run::{open, report, watch};
use super::tldr::{Tldr, tldr};
use crate::lab::{
    ExampleKind, ExamplesPlan, GeneratePlan, Noise, Scored, TextModel, TokenizerPlan, copy_stage, evaluate_text,
    export_text, generate_text, measure_text, merge_text, train_tokenizer, write_built_in, write_examples,
};
use crate::settings::{
    Asked, Mode, PreferenceLoss, RunSettings, TeacherKind, TextPrecision, TextPreset, TextRun, TextStage,
};
use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// The verbs of text mode.
#[derive(Debug, Subcommand)]
pub enum Text {
    /// Train a byte-level BPE tokenizer on a data file or on the built-in grammar.
    Tokenizer(TokenizerArguments),
    /// Write the built-in grammar's data as JSON lines. Needs no download.
    Examples(ExamplesArguments),
    /// Train a small base model from scratch on documents.
    Base(StageArguments),
    /// Fine-tune a supervised model (SFT) on prompts with completions.
    Sft(StageArguments),
    /// Train a reward model on judged pairs from a file or on a simulated teacher's answers.
    Reward(StageArguments),
    /// Train a policy with PPO, RLOO, GRPO or a method like them against a reward model or other reward functions. With
    /// a new session and no model, it starts from the built-in supervised model and trains the reward model first.
    Ppo(StageArguments),
    /// Train a policy on judged pairs directly, without a reward model: DPO and its relatives.
    Preference(PreferenceArguments),
    /// Train a policy by ILQL on judged completions, without a reward model.
    Ilql(StageArguments),
    /// Train a policy on judgements of its own completions: online DPO. A reward model, other reward functions or the
    /// simulated teacher judge; at the desk, a person does.
    OnlineDpo(PreferenceArguments),
    /// Write completions for prompts.
    Generate(GenerateArguments),
    /// Write the best of n completions of each prompt, by a reward model or other reward functions.
    BestOf(BestOfArguments),
    /// Fine-tune a model on the best of its own completions, in rounds (rejection sampling).
    RejectionSampling(RejectionArguments),
    /// Teach summarisation from comparisons on the data of TL;DR: the published chain, with its evaluation.
    #[command(subcommand)]
    Tldr(Tldr),
    /// Score a data file, or evaluate a session's models by the gold score. A data file is scored by likelihood, or by
    /// a reward model's accuracy on its pairs.
    Eval(EvalArguments),
    /// Look inside a model: what it computes on the way, and what training changed in it.
    #[command(subcommand)]
    Look(Box<Look>),
    /// Merge an adapter into a model's weights.
    Merge(FolderArguments),
    /// Write a model in another precision or in shards.
    Export(FolderArguments),
    /// Train the built-in base and supervised models again and write them as they are shipped, for `cargo xtask
    /// weights`.
    #[command(hide = true)]
    Weights(WeightsArguments),
}

#[derive(Args, Debug)]
pub struct StageArguments {
    /// Folder of the model to start from. Default: the session's model, or the built-in model.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// JSON lines to learn from (for ppo and online-dpo: prompts; for preference and ilql: judged pairs or
    /// completions). Default: those of the built-in grammar.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Folder of a finished reward model, for ppo and online-dpo.
    #[arg(long, value_name = "DIR")]
    pub reward: Option<PathBuf>,
    /// What scores completions instead of a reward model, for ppo and online-dpo, as in `text best-of`. May be given
    /// several times; the scores are added up.
    #[arg(long, value_name = "FUNCTION", allow_hyphen_values = true)]
    pub reward_function: Vec<String>,
    /// Method by its name, for ppo: settings of `text.ppo`, over which every `--set` and `--config` wins.
    #[arg(long, value_parser = presets())]
    pub preset: Option<TextPreset>,
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// Gradient steps (for ppo: updates). Default: as in the built-in plan.
    #[arg(long)]
    pub steps: Option<u64>,
    /// Examples in one gradient step (for ppo: episodes in one update; for online-dpo: prompts, each with one pair).
    #[arg(long)]
    pub batch: Option<usize>,
    /// Adam's step size.
    #[arg(long)]
    pub learning_rate: Option<f64>,
    #[command(flatten)]
    pub tuning: TuningArguments,
    /// Number of judgements of the simulated teacher. Default: 500.
    #[arg(long)]
    pub labels: Option<usize>,
    /// Share of the teacher's answers that is flipped, 0 to 1. Default: 0.05. The teacher is also unsure where two gold
    /// scores are close. With 0 it never errs.
    #[arg(long, value_name = "P", value_parser = share)]
    pub mistake_rate: Option<f64>,
    /// Maximum number of tokens in a completion.
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    /// Seed of all random streams. Default: 0.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Session folder to create, or to continue if it exists, even after the program was killed.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    #[command(flatten)]
    pub more: SettingsArguments,
    /// Folder to copy the finished model to (with --lora: the adapter).
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct PreferenceArguments {
    /// Loss: sigmoid (DPO), hinge, ipo, robust, cdpo, length-normalised, reference-free, simpo, orpo or, except for
    /// online-dpo, kto. Default: sigmoid.
    #[arg(long)]
    pub loss: Option<PreferenceLoss>,
    #[command(flatten)]
    pub stage: StageArguments,
}

#[derive(Args, Debug)]
pub struct GenerateArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    /// Prompt to complete. May be given several times.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// JSON lines with prompts.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// Maximum number of tokens in a completion.
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Temperature: the logits are divided by it. 0 always takes the likeliest token.
    #[arg(long, default_value_t = 1.0, value_parser = super::arguments::at_least_0)]
    pub temperature: f64,
    /// Sample from this many of the likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Sample from the likeliest tokens that together have this probability, 0 to 1.
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub top_p: f64,
    /// Write by log π + β (Q − V) with the heads of a model that `text ilql` trained. Default: by π alone.
    #[arg(long, value_name = "β")]
    pub beta: Option<f64>,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct EvalArguments {
    /// Model folder, or a GGUF file.
    #[arg(long, value_name = "DIR", required_unless_present = "session", requires = "data")]
    pub model: Option<PathBuf>,
    /// Adapter folder in PEFT's format.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// JSON lines to score.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Session to evaluate instead, by the gold score: the model that it came to, beside the one that it started from,
    /// and its reward model if it has one.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["model", "adapter", "data", "precision", "skip_bad_lines", "ignore_fields", "logprobs"]
    )]
    pub session: Option<PathBuf>,
    /// Number of prompts to answer, for a session.
    #[arg(long, default_value_t = 300, requires = "session")]
    pub prompts: usize,
    /// Number type of weights and activations: f32 or bf16.
    #[arg(long, default_value = "f32")]
    pub precision: TextPrecision,
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// File of arrays to write: the log-probability of every token, or the two rewards of every pair.
    #[arg(long, value_name = "OUT.npz")]
    pub logprobs: Option<PathBuf>,
    /// Seed of a session's prompts and samples.
    #[arg(long, default_value_t = 1000, requires = "session")]
    pub seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct FolderArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Maximum size of a file of weights in bytes, for export.
    #[arg(long)]
    pub shard: Option<usize>,
}

#[derive(Args, Debug)]
pub struct WeightsArguments {
    /// Folder to write the folders `base` and `supervised` to. Those that are there are replaced.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Session folder to train in, or to continue if it exists. Default: a new one.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct TokenizerArguments {
    /// JSON lines to train on. Default: the built-in grammar.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// Tokens in the vocabulary, at least 258.
    #[arg(long, default_value_t = 1024)]
    pub vocabulary: usize,
    /// Seed of the built-in grammar.
    #[arg(long, default_value_t = 0, conflicts_with = "data")]
    pub seed: u64,
    /// Folder to write tokenizer.json and tokenizer_config.json to.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

/// The data sets of the built-in grammar.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// Documents for a base model: {"text"}.
    Documents,
    /// Demonstrations for a supervised model: {"prompt", "completion"}.
    Reviews,
    /// Prompts to answer: {"prompt"}.
    Prompts,
    /// Pairs that a simulated teacher has judged: {"prompt", "chosen", "rejected"}.
    Pairs,
}

#[derive(Args, Debug)]
pub struct ExamplesArguments {
    /// Data set to write.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Number of lines.
    #[arg(long, default_value_t = 1000)]
    pub count: usize,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// For pairs: difference of two gold scores at which the better one wins with probability 0.73. With 0 it always
    /// wins. Default: 0.25.
    #[arg(long, value_parser = super::arguments::at_least_0)]
    pub doubt: Option<f64>,
    /// For pairs: probability that the teacher's answer is then flipped, 0 to 1. Default: 0.05.
    #[arg(long, value_parser = share)]
    pub mistake_rate: Option<f64>,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub fn text(what: &Text) -> anyhow::Result<()> {
    match what {
        Text::Tokenizer(arguments) => tokenizer(arguments),
        Text::Examples(arguments) => examples(arguments),
        Text::Base(arguments) => stage(arguments, TextStage::Base, None),
        Text::Sft(arguments) => stage(arguments, TextStage::Supervised, None),
        Text::Reward(arguments) => stage(arguments, TextStage::Reward, None),
        Text::Ppo(arguments) => stage(arguments, TextStage::Ppo, None),
        Text::Preference(arguments) => stage(&arguments.stage, TextStage::Preference, arguments.loss),
        Text::Ilql(arguments) => stage(arguments, TextStage::Ilql, None),
        Text::OnlineDpo(arguments) => stage(&arguments.stage, TextStage::OnlineDpo, arguments.loss),
        Text::Generate(arguments) => generate(arguments),
        Text::BestOf(arguments) => best_of(arguments),
        Text::RejectionSampling(arguments) => rejection(arguments),
        Text::Tldr(what) => tldr(what),
        Text::Eval(arguments) => eval(arguments),
        Text::Look(what) => look(what),
        Text::Merge(arguments) => {
            if arguments.model.adapter.is_none() {
                bail!("there is nothing to merge: name the adapter's folder with --adapter");
            }
            if arguments.shard.is_some() {
                bail!("--shard is for `flipside text export`; leave it out here");
            }
            merge_text(&arguments.model.model(), &arguments.output)?;
            outln!("{}", arguments.output.display());
            Ok(())
        }
        Text::Export(arguments) => {
            export_text(&arguments.model.model(), &arguments.output, arguments.shard)?;
            outln!("{}", arguments.output.display());
            Ok(())
        }
        Text::Weights(arguments) => weights(arguments),
    }
}

impl StageArguments {
    /// The run that these arguments ask for, up to the end of this stage.
    fn settings(&self, until: TextStage, loss: Option<PreferenceLoss>) -> Result<RunSettings, String> {
        let (table, data, steps) = match until {
            TextStage::Base => ("base", "documents", "base_steps"),
            TextStage::Supervised => ("supervised", "demonstrations", "supervised_steps"),
            TextStage::Reward => ("reward", "comparisons", "reward_steps"),
            TextStage::Ppo => ("ppo", "prompts", "updates"),
            TextStage::Preference => ("preference", "comparisons", "preference_steps"),
            TextStage::Ilql => ("ilql", "comparisons", "ilql_steps"),
            TextStage::OnlineDpo => ("preference", "prompts", "online_dpo_steps"),
        };
        let (data, steps) = (format!("text.{data}"), format!("text.{steps}"));
        let longest = if until == TextStage::OnlineDpo { "online_dpo" } else { "ppo" };
        let longest = format!("text.{longest}.max_new_tokens");
        let (batch, rate) = (format!("text.{table}.batch_size"), format!("text.{table}.optimiser.learning_rate"));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| json!(path));
        let teacher = |rate: f64| if rate == 0.0 { TeacherKind::Oracle } else { TeacherKind::Mistaken { rate } };
        let functions = (!self.reward_function.is_empty()).then(|| json!(self.reward_function));
        let preset = self.preset.map_or(Ok(Asked::default()), |preset| Asked::assignments(preset.assignments()))?;
        let typed = [
            ("The verb", "text.until", Some(json!(until))),
            ("--model", "text.model", path(&self.model)),
            ("--data", &data, path(&self.data)),
            ("--reward", "text.reward_model", path(&self.reward)),
            ("--reward-function", "text.reward_functions", functions),
            ("--skip-bad-lines", "text.skip_bad_lines", self.reading.skip_bad_lines.then_some(json!(true))),
            ("--ignore-fields", "text.ignore_fields", self.reading.ignore_fields.then_some(json!(true))),
            ("--steps", &steps, self.steps.map(Value::from)),
            ("--loss", "text.preference.loss", loss.map(|loss| json!(loss))),
            ("--batch", &batch, self.batch.map(Value::from)),
            ("--learning-rate", &rate, self.learning_rate.map(Value::from)),
            ("--labels", "num_labels", self.labels.map(Value::from)),
            ("--mistake-rate", "teacher", self.mistake_rate.map(|rate| json!(teacher(rate)))),
            ("--max-new-tokens", &longest, self.max_new_tokens.map(Value::from)),
            ("--seed", "seed", self.seed.map(Value::from)),
        ];
        let asked = self.more.asked(typed.into_iter().chain(self.tuning.typed()))?;
        let usual = RunSettings {
            teacher: teacher(Noise::default().mistakes),
            folder: self.session.clone(),
            ..RunSettings::of_text(TextRun::default())
        };
        let asked = preset.and(asked);
        let mut settings = usual.with(&asked)?;
        if let Some(run) = settings.text() {
            self.check_used(until, run)?;
        }
        if let Mode::Text(run) = &mut settings.mode
            && asked.get("text.from").is_none()
        {
            // A model that is given has already been through all stages before this one. But PPO has to train a reward
            // model first, unless that is given, too.
            run.from = match &run.model {
                None => run.first_stage(),
                Some(_) if until == TextStage::Ppo && !run.has_given_reward() => TextStage::Reward,
                Some(_) => until,
            };
            settings.env_steps = run.steps();
        }
        Ok(settings)
    }

    /// Refuses options that this stage has no use for.
    fn check_used(&self, until: TextStage, run: &TextRun) -> Result<(), String> {
        let learns_words = until <= TextStage::Supervised;
        let is_scored = matches!(until, TextStage::Ppo | TextStage::OnlineDpo);
        let asks_nobody = match () {
            () if learns_words => Some("nobody judges what it learns from"),
            () if run.comparisons.is_some() => Some("the data is judged already"),
            () if is_scored && run.has_given_reward() => Some("the reward is given, so nobody is asked"),
            () => None,
        };
        let no_reward = (!is_scored).then_some("it learns without a given reward");
        let not_ppo = (until != TextStage::Ppo).then_some("it is for `flipside text ppo`");
        let writes_nothing = learns_words.then_some("nothing is written");
        let from_nothing = (until == TextStage::Base && run.model.is_none())
            .then_some("a model that begins with random weights is trained whole");
        let options = [
            ("--preset", self.preset.is_some(), not_ppo),
            ("--reward", self.reward.is_some(), no_reward),
            ("--reward-function", !self.reward_function.is_empty(), no_reward),
            ("--labels", self.labels.is_some(), asks_nobody),
            ("--mistake-rate", self.mistake_rate.is_some(), asks_nobody),
            ("--max-new-tokens", self.max_new_tokens.is_some(), writes_nothing),
            ("--lora", self.tuning.adapting.lora.is_some(), from_nothing),
            ("--freeze", self.tuning.adapting.freeze.is_some(), from_nothing),
        ];
        let verb = if until == TextStage::Supervised { "sft" } else { until.name() };
        match options.into_iter().find_map(|(option, typed, why)| Some((option, why.filter(|_| typed)?))) {
            Some((option, why)) => Err(format!("`text {verb}` does not use {option}: {why}; leave it out")),
            None => Ok(()),
        }
    }
}

/// Trains to the end of a stage, from wherever the session is.
fn stage(arguments: &StageArguments, until: TextStage, loss: Option<PreferenceLoss>) -> anyhow::Result<()> {
    let started = Instant::now();
    let lab = open(arguments.settings(until, loss).map_err(anyhow::Error::msg)?, Arc::new(|| {}))?;
    let done = watch(&lab, until.name())?;
    drop(lab);
    if let Some(output) = &arguments.output {
        copy_stage(&done.folder, until, output)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let last = |name: &str| done.curves.iter().find(|c| c.name == name).and_then(|c| c.points.last()).map(|p| p[1]);
    let names: &[&str] = match until {
        TextStage::Preference => &[
            "preference_loss",
            "preference_accuracy",
            "preference_margin",
            "chosen_log_prob",
            "rejected_log_prob",
            "log_ratio",
            "grad_norm",
            "agreement",
            "gold",
        ],
        TextStage::Ilql => &["ilql_loss", "q_loss", "v_loss", "q", "v", "nll", "grad_norm", "gold"],
        TextStage::OnlineDpo => &[
            "reward",
            "gold",
            "reference_kl",
            "equal_groups",
            "preference_loss",
            "preference_accuracy",
            "preference_margin",
            "chosen_log_prob",
            "rejected_log_prob",
            "log_ratio",
            "length",
            "ended",
            "grad_norm",
        ],
        _ => &[
            "base_loss",
            "supervised_loss",
            "reward_loss",
            "reward",
            "gold",
            "reference_kl",
            "beta",
            "length",
            "grad_norm",
            "equal_groups",
        ],
    };
    let figures: serde_json::Map<String, serde_json::Value> =
        names.iter().filter_map(|&name| Some((name.to_owned(), json!(last(name)?)))).collect();
    report(
        arguments.json,
        json!({
            "stage": until, "session": done.folder, "steps": done.env_steps, "labels": done.labels, "seconds": seconds,
            "output": arguments.output, "figures": figures,
        }),
        || {
            outln!("{} done after {} steps and {} labels in {seconds:.0} s", until.name(), done.env_steps, done.labels);
            for (name, value) in &figures {
                outln!("{name:>16}  {value:.4}");
            }
            outln!("session  {}", done.folder.display());
        },
    );
    Ok(())
}

/// Trains the built-in models from nothing with the default settings, in a session of their own.
fn weights(arguments: &WeightsArguments) -> anyhow::Result<()> {
    let run = TextRun { from: TextStage::Base, until: TextStage::Supervised, ..TextRun::default() };
    let settings = RunSettings {
        teacher: TeacherKind::Oracle,
        seed: arguments.seed,
        folder: arguments.session.clone(),
        ..RunSettings::of_text(run)
    };
    let lab = open(settings, Arc::new(|| {}))?;
    let done = watch(&lab, TextStage::Supervised.name())?;
    drop(lab);
    let written = write_built_in(&done.folder, &arguments.output)?;
    report(arguments.json, json!({ "session": done.folder, "folders": written.folders }), || {
        written.folders.iter().for_each(|folder| outln!("{}", folder.display()));
        outln!("session  {}", done.folder.display());
    });
    Ok(())
}

fn generate(arguments: &GenerateArguments) -> anyhow::Result<()> {
    let plan = GeneratePlan {
        prompts: arguments.prompt.clone(),
        data: arguments.data.clone(),
        reading: arguments.reading.reading(),
        max_new_tokens: arguments.max_new_tokens,
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        beta: arguments.beta,
        seed: arguments.seed,
    };
    // A single completion is printed as it is written. Several would be mixed up.
    let streams = !arguments.json && plan.data.is_none() && plan.prompts.len() == 1;
    let written = generate_text(&arguments.model.model(), &plan, &mut |_, piece| {
        if streams {
            out!("{piece}");
            flush();
        }
    })?;
    report(arguments.json, json!({ "completions": written }), || match streams {
        true => outln!(),
        false => written.iter().for_each(|one| outln!("{}{}\n", one.prompt, one.text)),
    });
    Ok(())
}

fn eval(arguments: &EvalArguments) -> anyhow::Result<()> {
    if let Some(session) = &arguments.session {
        let found = measure_text(session, arguments.prompts, arguments.seed)?;
        report(arguments.json, json!(found), || {
            outln!(
                "{}: gold score {:.2} → {:.2}, it wins {:.1} % of {} prompts against {}",
                found.stage.name(),
                found.start_gold,
                found.gold,
                100.0 * found.win_rate,
                found.prompts,
                found.start.display()
            );
            if let (Some(accuracy), Some(ceiling)) = (found.reward_accuracy, found.reward_ceiling) {
                outln!(
                    "reward model: accuracy {:.1} % of {:.1} % that the teacher's noise allows",
                    100.0 * accuracy,
                    100.0 * ceiling
                );
            }
        });
        return Ok(());
    }
    let (Some(folder), Some(data)) = (&arguments.model, &arguments.data) else {
        bail!("name a model with --model and a data file with --data, or a session with --session");
    };
    let model =
        TextModel { folder: folder.clone(), adapter: arguments.adapter.clone(), precision: arguments.precision };
    let found = evaluate_text(&model, data, arguments.reading.reading(), arguments.logprobs.as_deref())?;
    report(arguments.json, json!(found), || match found {
        Scored::Likelihood { tokens, nll, perplexity } => {
            outln!("{tokens} tokens, {nll:.4} nats a token, perplexity {perplexity:.3}");
        }
        Scored::Preference { pairs, accuracy, loss } => {
            outln!("{pairs} pairs, accuracy {:.1} %, loss {loss:.4} nats", 100.0 * accuracy);
        }
    });
    Ok(())
}

fn tokenizer(arguments: &TokenizerArguments) -> anyhow::Result<()> {
    let made = train_tokenizer(&TokenizerPlan {
        data: arguments.data.clone(),
        reading: arguments.reading.reading(),
        vocabulary: arguments.vocabulary,
        seed: arguments.seed,
        output: arguments.output.clone(),
    })?;
    for line in &made.bad_lines {
        eprintln!("left out: {line}");
    }
    report(arguments.json, json!(made), || {
        outln!(
            "{}: {} tokens, {:.2} bytes a token over {} texts",
            made.folder.display(),
            made.vocabulary,
            made.bytes_per_token,
            made.examples
        );
    });
    Ok(())
}

fn examples(arguments: &ExamplesArguments) -> anyhow::Result<()> {
    let noise = [("--doubt", arguments.doubt), ("--mistake-rate", arguments.mistake_rate)];
    if let Some((option, _)) = noise.iter().find(|(_, value)| value.is_some())
        && !matches!(arguments.kind, Kind::Pairs)
    {
        bail!("{option} is for pairs, which a teacher judges; leave it out here");
    }
    let usual = Noise::default();
    let made = write_examples(&ExamplesPlan {
        kind: match arguments.kind {
            Kind::Documents => ExampleKind::Documents,
            Kind::Reviews => ExampleKind::Reviews,
            Kind::Prompts => ExampleKind::Prompts,
            Kind::Pairs => ExampleKind::Pairs,
        },
        count: arguments.count,
        seed: arguments.seed,
        noise: Noise {
            doubt: arguments.doubt.unwrap_or(usual.doubt),
            mistakes: arguments.mistake_rate.unwrap_or(usual.mistakes),
        },
        output: arguments.output.clone(),
    })?;
    report(arguments.json, json!(made), || {
        outln!("{}: {} lines", made.file.display(), made.lines);
        if let (Some(agreement), Some(ceiling)) = (made.agreement, made.ceiling) {
            outln!(
                "the teacher agrees with the gold score on {:.1} % of them; {:.1} % are to be expected",
                100.0 * agreement,
                100.0 * ceiling
            );
        }
    });
    Ok(())
}
