//! The summarisation recipe on the command line.

use super::arguments::{AdaptingArguments, ReadingArguments, SettingsArguments, TuningArguments, share};
use super::output::outln;
use super::run::{open, report, watch};
use crate::lab::{
    EvaluationPlan, GptSize, MemoryPlan, MemoryReport, Noise, Recipe, TldrEvaluation, TldrExamplesPlan, TldrPlan,
    Versus, evaluate_tldr, measure_memory, prepare_tldr, write_tldr_examples,
};
use crate::settings::{RunSettings, TextStage};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The verbs of the summarisation recipe.
#[derive(Debug, Subcommand)]
pub enum Tldr {
    /// Write posts and comparisons of the built-in grammar in the published layout. Needs no download.
    Examples(ExamplesArguments),
    /// Prepare the data, then train a supervised model, a reward model, a policy and a judge, or continue where that
    /// was interrupted.
    Run(RunArguments),
    /// Evaluate a finished recipe on held-out posts and comparisons.
    Evaluate(EvaluateArguments),
    /// Measure the memory that a stage takes with GPT-2 of a true size and random weights.
    Memory(MemoryArguments),
}

#[derive(Args, Debug)]
pub struct ExamplesArguments {
    /// Posts with a summary to train on. A tenth as many are held out for validation and for a test.
    #[arg(long, default_value_t = 4000)]
    pub posts: usize,
    /// Comparisons to train on. A tenth as many are held out as `valid1` and as `valid2`.
    #[arg(long, default_value_t = 8000)]
    pub comparisons: usize,
    /// Difference of two gold scores at which the better summary wins with probability 0.73. With 0 it always wins.
    #[arg(long, default_value_t = 0.1, value_parser = super::arguments::at_least_0)]
    pub doubt: f64,
    /// Probability that an answer is then flipped, 0 to 1.
    #[arg(long, default_value_t = Noise::default().mistakes, value_parser = share)]
    pub mistake_rate: f64,
    /// Seed of all random streams.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct RunArguments {
    /// Folder with the data: `tldr_3_filtered/train.jsonl` and `valid.jsonl`, `comparisons/*.json`, and, if there is
    /// one, `tldr_3_filtered_queries/train.jsonl`. May be left out to continue.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the recipe to create, or to continue if it exists, even after the program was killed.
    #[arg(long, value_name = "DIR")]
    pub session: PathBuf,
    /// Folder of the base model to start from. Default: the built-in model, with settings that suit its size.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Share of the posts with comparisons that only the judge learns from, 0 to 1. 0 trains no judge. Default: 0.5.
    #[arg(long, value_name = "P", value_parser = share)]
    pub judge_share: Option<f64>,
    /// Number of PPO updates. Default: as many as make 8.6 episodes a post, as published; for the built-in model, 1.
    #[arg(long)]
    pub updates: Option<u64>,
    #[command(flatten)]
    pub tuning: TuningArguments,
    #[command(flatten)]
    pub reading: ReadingArguments,
    /// Seed of all random streams. Default: 0.
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub more: SettingsArguments,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct EvaluateArguments {
    /// Folder of a finished recipe.
    #[arg(long, value_name = "DIR")]
    pub session: PathBuf,
    /// Number of held-out posts to summarise.
    #[arg(long, default_value_t = 200)]
    pub posts: usize,
    /// Temperature of the summaries that are compared with the references; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.01, value_parser = super::arguments::at_least_0)]
    pub temperature: f64,
    /// Numbers of samples for best of n, separated by commas.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    pub best_of: Vec<usize>,
    /// Seed of the samples.
    #[arg(long, default_value_t = 1000)]
    pub seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

/// The stages whose memory is measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MeasuredStage {
    /// Two gradient steps of the supervised model.
    Supervised,
    /// Two gradient steps of the reward model.
    Reward,
    /// Reward model, policy and reference together: two steps of the reward model, writing, scoring, two steps of PPO.
    Ppo,
}

#[derive(Args, Debug)]
pub struct MemoryArguments {
    /// Size of the model: gpt2, gpt2-medium, gpt2-large or gpt2-xl.
    #[arg(long, value_parser = sizes())]
    pub size: GptSize,
    /// Stage to measure. Each needs a process of its own, because the peak is that of the process.
    #[arg(long, value_enum, default_value = "ppo")]
    pub stage: MeasuredStage,
    #[command(flatten)]
    pub tuning: TuningArguments,
    /// Texts that are learned from at a time.
    #[arg(long, default_value_t = 8)]
    pub rows: usize,
    /// Tokens of a query.
    #[arg(long, default_value_t = 512)]
    pub query: usize,
    /// Tokens of a summary.
    #[arg(long, default_value_t = 53)]
    pub summary: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

/// The sizes by their names.
fn sizes() -> impl TypedValueParser<Value = GptSize> {
    let of = |name: String| {
        let size = GptSize::ALL.into_iter().find(|size| size.name() == name);
        size.ok_or_else(|| format!("`{name}` is no size of GPT-2"))
    };
    PossibleValuesParser::new(GptSize::ALL.map(GptSize::name)).try_map(of)
}

/// Runs the verb.
pub fn tldr(what: &Tldr) -> anyhow::Result<()> {
    match what {
        Tldr::Examples(arguments) => examples(arguments),
        Tldr::Run(arguments) => run(arguments),
        Tldr::Evaluate(arguments) => evaluate(arguments),
        Tldr::Memory(arguments) => memory(arguments),
    }
}

fn examples(arguments: &ExamplesArguments) -> anyhow::Result<()> {
    let made = write_tldr_examples(&TldrExamplesPlan {
        posts: arguments.posts,
        comparisons: arguments.comparisons,
        noise: Noise { doubt: arguments.doubt, mistakes: arguments.mistake_rate },
        seed: arguments.seed,
        output: arguments.output.clone(),
    })?;
    report(arguments.json, json!(made), || {
        for (file, lines) in &made.files {
            outln!("{lines:>7}  {}", made.folder.join(file).display());
        }
        outln!(
            "the teacher agrees with the gold score on {:.1} % of the comparisons; {:.1} % are to be expected",
            100.0 * made.agreement,
            100.0 * made.ceiling
        );
    });
    Ok(())
}

fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let recipe = prepare_tldr(&TldrPlan {
        session: arguments.session.clone(),
        data: arguments.data.clone(),
        model: arguments.model.clone(),
        judge_share: arguments.judge_share,
        seed: arguments.seed,
        reading: arguments.reading.reading(),
    })?;
    if !arguments.json {
        print_counts(&recipe);
    }
    let updates = [("--updates", "text.updates", arguments.updates.map(Value::from))];
    let asked = arguments.more.asked(updates.into_iter().chain(arguments.tuning.typed()));
    let asked = asked.map_err(anyhow::Error::msg)?;
    let mut sessions = Vec::new();
    let mut train = |settings: RunSettings, what: &str| -> anyhow::Result<()> {
        let lab = open(settings, Arc::new(|| {}))?;
        let done = watch(&lab, what)?;
        drop(lab);
        let last = |name: &str| done.curves.iter().find(|c| c.name == name).and_then(|c| c.points.last()).map(|p| p[1]);
        let figures: serde_json::Map<String, Value> =
            ["supervised_loss", "reward_loss", "reward", "reference_kl", "length", "ended", "gold"]
                .iter()
                .filter_map(|&name| Some((name.to_owned(), json!(last(name)?))))
                .collect();
        sessions.push(json!({ "what": what, "session": done.folder, "steps": done.env_steps, "figures": figures }));
        Ok(())
    };
    train(recipe.policy_settings(&arguments.session, &asked)?, "policy")?;
    if recipe.has_judge() {
        train(recipe.judge_settings(&arguments.session, &asked)?, "judge")?;
    }
    let seconds = started.elapsed().as_secs_f64();
    report(
        arguments.json,
        json!({ "recipe": arguments.session, "counts": recipe.counts, "sessions": sessions, "seconds": seconds }),
        || {
            for session in &sessions {
                outln!("{:>6}: {} steps", session["what"].as_str().unwrap_or_default(), session["steps"]);
                for (name, value) in session["figures"].as_object().into_iter().flatten() {
                    outln!("{name:>16}  {:.4}", value.as_f64().unwrap_or(f64::NAN));
                }
            }
            outln!("done in {seconds:.0} s; evaluate it with");
            outln!("flipside text tldr evaluate --session {}", arguments.session.display());
        },
    );
    Ok(())
}

fn print_counts(recipe: &Recipe) {
    let counts = &recipe.counts;
    outln!("{:>7}  posts with summaries", counts.posts);
    outln!("{:>7}  posts for PPO", counts.prompts);
    outln!("{:>7}  held-out posts", counts.held_out_posts);
    outln!("{:>7}  comparisons for the reward model", counts.reward_comparisons);
    outln!("{:>7}  comparisons for the judge", counts.judge_comparisons);
    for (split, count) in &counts.held_out_comparisons {
        outln!("{count:>7}  held-out comparisons, {split}");
    }
    for (reason, count) in &counts.left_out {
        outln!("{count:>7}  left out: {}", json!(reason).as_str().unwrap_or_default());
    }
}

fn evaluate(arguments: &EvaluateArguments) -> anyhow::Result<()> {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let plan = EvaluationPlan {
        session: arguments.session.clone(),
        posts: arguments.posts,
        temperature: arguments.temperature,
        best_of: arguments.best_of.clone(),
        seed: arguments.seed,
    };
    let found = evaluate_tldr(&plan, &mut |what| bar.set_message(what.to_owned()))?;
    bar.finish_and_clear();
    report(arguments.json, json!(found), || print_evaluation(&found));
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn print_evaluation(found: &TldrEvaluation) {
    let none = || "–".to_owned();
    outln!("| held-out comparisons | pairs | reward model | judge | gold score |");
    outln!("|---|--:|--:|--:|--:|");
    for row in &found.comparisons {
        let share = |share: Option<f64>| share.map_or_else(none, percent);
        let (reward, judge) = (percent(row.reward_accuracy), share(row.judge_accuracy));
        outln!("| {} | {} | {reward} | {judge} | {} |", row.split, row.pairs, share(row.gold_accuracy));
    }
    outln!("\n{} held-out posts, temperature {}:\n", found.posts, found.temperature);
    outln!(
        "| summaries | tokens | ended | ROUGE-1 | ROUGE-2 | ROUGE-L | reward | wins by judge | at equal length | wins by gold score | \
         at equal length | gold score |"
    );
    outln!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for row in &found.summaries {
        let wins = |by: &Option<Versus>| {
            let Some(by) = by else { return [none(), none()] };
            let rate = match by.length_controlled {
                Some(_) => format!("{:.1} ± {:.1} %", 100.0 * by.win_rate, 100.0 * by.std_error),
                None => none(),
            };
            [rate, by.length_controlled.map_or_else(none, |rate| rate.to_string())]
        };
        let ([judge, judge_controlled], [gold, gold_controlled]) = (wins(&row.judge), wins(&row.gold));
        outln!(
            "| {} | {:.1} | {} | {:.3} | {:.3} | {:.3} | {:.2} | {judge} | {judge_controlled} | {gold} | {gold_controlled} | {} |",
            row.policy,
            row.tokens,
            percent(row.ended),
            row.rouge.rouge1,
            row.rouge.rouge2,
            row.rouge.rouge_l,
            row.reward,
            row.gold.as_ref().map_or_else(none, |gold| format!("{:.3}", gold.score)),
        );
    }
    let slopes = [("judge", found.judge_length_slope), ("gold score", found.gold_length_slope)];
    for (who, slope) in slopes.into_iter().filter_map(|(who, slope)| Some((who, slope?))) {
        outln!("\nBy {who}, the log-odds of a win rise by {slope:.2} if a summary becomes e times as long.");
    }
    outln!("\nBy KL to the supervised model, temperature {}:\n", found.sampling_temperature);
    outln!("| policy | KL, nats | reward | judge's score | wins by judge | gold score | wins by gold score |");
    outln!("|---|--:|--:|--:|--:|--:|--:|");
    for row in &found.kl {
        let kl = match row.kl_std_error {
            Some(error) => format!("{:.2} ± {error:.2}", row.kl),
            None => format!("≤ {:.2}", row.kl),
        };
        let by = |by: Option<[f64; 2]>| match by {
            Some([score, rate]) => [format!("{score:.3}"), percent(rate)],
            None => [none(), none()],
        };
        let ([judge, judge_rate], [gold, gold_rate]) = (by(row.judge), by(row.gold));
        outln!("| {} | {kl} | {:.2} | {judge} | {judge_rate} | {gold} | {gold_rate} |", row.policy, row.reward);
    }
    outln!("\n{}", found.file.display());
}

fn memory(arguments: &MemoryArguments) -> anyhow::Result<()> {
    let TuningArguments { adapting: AdaptingArguments { lora, freeze, gradient_checkpointing }, precision } =
        &arguments.tuning;
    let found = measure_memory(&MemoryPlan {
        size: arguments.size,
        stage: match arguments.stage {
            MeasuredStage::Supervised => TextStage::Supervised,
            MeasuredStage::Reward => TextStage::Reward,
            MeasuredStage::Ppo => TextStage::Ppo,
        },
        precision: precision.unwrap_or_default(),
        lora: lora.clone(),
        frozen_layers: freeze.unwrap_or(0),
        gradient_checkpointing: *gradient_checkpointing,
        rows: arguments.rows,
        tokens: [arguments.query, arguments.summary],
    })?;
    report(arguments.json, json!(found), || print_memory(&found));
    Ok(())
}

fn print_memory(found: &MemoryReport) {
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64);
    let or_unknown = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), gib);
    outln!(
        "{}, stage {}: {:.0} M parameters, of which {:.1} M are trained; one copy of the weights {}",
        found.model,
        found.stage.name(),
        found.parameters as f64 / 1e6,
        found.trained as f64 / 1e6,
        gib(found.weight_bytes)
    );
    outln!(
        "peak memory {}, of which {} before the first step",
        or_unknown(found.peak_bytes),
        or_unknown(found.peak_before_bytes)
    );
    for (step, seconds) in &found.seconds {
        outln!("{step:>18}  {seconds:.1} s");
    }
    outln!("{}", found.machine);
}
