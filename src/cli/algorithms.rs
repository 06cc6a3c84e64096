//! The comparison of the methods that learn from judged completions, on the command line.

use super::output::outln;
use super::run::report;
use crate::lab::bench::processor;
use crate::lab::{
    LabError, MeanAndDeviation, TextAlgorithm, TextAlgorithmJob, TextAlgorithmRow, TextAlgorithmsPlan,
    run_text_algorithm, teach_reward_model, text_algorithms,
};
use anyhow::{Context, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use flipside_view::chart;
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The methods by their names.
fn methods() -> impl TypedValueParser<Value = TextAlgorithm> {
    PossibleValuesParser::new(TextAlgorithm::ALL.map(TextAlgorithm::name)).try_map(|name| name.parse::<TextAlgorithm>())
}

#[derive(Args, Debug)]
pub struct BenchTextAlgorithms {
    /// Methods to compare. Default: all.
    #[arg(long, value_name = "METHODS", value_delimiter = ',', value_parser = methods())]
    pub methods: Vec<TextAlgorithm>,
    /// Number of seeds, with one run each per method.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 0)]
    pub first_seed: u64,
    /// Answers of the simulated teacher. It flips one in twenty and is unsure where two gold scores are close.
    #[arg(long, default_value_t = 500, value_parser = at_least_16)]
    pub answers: usize,
    /// Prompts that a policy is measured on, drawn from the grammar's 288.
    #[arg(long, default_value_t = 1000, value_parser = at_least_16)]
    pub prompts: usize,
    /// Setting that replaces each method's own. May be given several times. TOML, with several settings separated by
    /// `;`. Other settings have runs of their own.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Folder for results and the picture. Runs whose results are there are not repeated.
    #[arg(long, value_name = "DIR", default_value = "text-algorithms")]
    pub output: PathBuf,
    /// What this process does for the one that started it.
    #[arg(long, hide = true)]
    pub job: Option<String>,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

fn at_least_16(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n >= 16).ok_or_else(|| "expected a whole number of at least 16".to_owned())
}

/// The name of a job on the command line.
const REWARD_MODEL: &str = "reward-model";

impl BenchTextAlgorithms {
    fn plan(&self) -> TextAlgorithmsPlan {
        let all = TextAlgorithm::ALL.to_vec();
        TextAlgorithmsPlan {
            algorithms: if self.methods.is_empty() { all } else { self.methods.clone() },
            seeds: [self.first_seed, self.seeds],
            answers: self.answers,
            prompts: self.prompts,
            set: self.set.join("; "),
            output: self.output.clone(),
        }
    }
}

/// Prints a line to stderr for every finished run, then the table, and draws gold score against KL. With `--job`, does
/// only this and prints its result.
pub fn algorithms(arguments: &BenchTextAlgorithms) -> anyhow::Result<()> {
    let plan = arguments.plan();
    if let Some(job) = &arguments.job {
        end_with_the_other_process()?;
        let found = match job.as_str() {
            REWARD_MODEL => json!(teach_reward_model(&plan, arguments.first_seed)?),
            name => {
                let algorithm = name.parse().map_err(anyhow::Error::msg)?;
                json!(run_text_algorithm(&plan, algorithm, arguments.first_seed)?)
            }
        };
        outln!("{found}");
        return Ok(());
    }
    let rows = text_algorithms(&plan, &|job, seed| start(arguments, job, seed), &|run| {
        let kl = if run.kl_is_bound { "at most " } else { "" };
        eprintln!(
            "{}, seed {}: gold score {:.2} (supervised {:.2}), win rate {:.1} %, KL {kl}{:.2}, {:.0} s",
            run.algorithm.name(),
            run.seed,
            run.gold,
            run.supervised_gold,
            100.0 * run.win_rate,
            run.kl,
            run.seconds
        );
    })?;
    let picture = arguments.output.join("gold-against-kl.png");
    draw(&picture, &rows)?;
    let device = processor();
    report(
        arguments.json,
        json!({ "text_algorithms": rows, "answers": plan.answers, "picture": picture, "device": device }),
        || {
            print(&rows);
            outln!("\n{device}");
        },
    );
    Ok(())
}

/// Runs a job in a process of its own, and returns the last line that it prints.
fn start(arguments: &BenchTextAlgorithms, job: TextAlgorithmJob, seed: u64) -> Result<String, LabError> {
    let name = match job {
        TextAlgorithmJob::RewardModel => REWARD_MODEL,
        TextAlgorithmJob::Run(algorithm) => algorithm.name(),
    };
    let failed = |why: String| {
        LabError::Text(format!("The run of {name} with seed {seed} failed{why}; the same command goes on with it."))
    };
    let program = std::env::current_exe().map_err(|error| failed(format!(": {error}")))?;
    let mut command = Command::new(program);
    command.args(["bench", "text-algorithms", "--job", name, "--first-seed", &seed.to_string()]);
    command.args(["--answers", &arguments.answers.to_string(), "--prompts", &arguments.prompts.to_string()]);
    command.arg("--output").arg(&arguments.output);
    command.args(arguments.set.iter().flat_map(|set| ["--set", set]));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| failed(format!(": {error}")))?;
    // Open for as long as this process lives: the other one ends when it is closed.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().map_err(|error| failed(format!(": {error}")))?;
    drop(stdin);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()),
        false => Err(failed(", for the reason above".to_owned())),
    }
}

/// Ends this process when the one that started it has ended, however that ended, so that nobody else writes into the
/// folder when it is started again.
fn end_with_the_other_process() -> anyhow::Result<()> {
    let wait = || {
        let _ = std::io::stdin().read(&mut [0]);
        // SAFETY: it ends the process and may be called at any time. Nothing of libtorch is torn down while another
        // thread still computes, and all that was written is whole or unread.
        unsafe { libc::_exit(1) };
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(wait).context("there is no thread left")?;
    Ok(())
}

fn print(rows: &[TextAlgorithmRow]) {
    outln!("| method | gold score | win rate | KL, nats | wall time | peak memory |");
    outln!("|---|--:|--:|--:|--:|--:|");
    let digits = |x: MeanAndDeviation, scale: f64, digits: usize| {
        format!("{:.digits$} ± {:.digits$}", scale * x.mean, scale * x.deviation).replace('-', "−")
    };
    if let Some(first) = rows.first() {
        outln!("| supervised model | {} | 50 % | 0 | – | – |", digits(first.supervised_gold, 1.0, 2));
    }
    for row in rows {
        let kl = if row.kl_is_bound { format!("≤ {:.2}", row.kl.mean) } else { digits(row.kl, 1.0, 2) };
        outln!(
            "| {} | {} | {} % | {kl} | {} s | {} |",
            row.algorithm.name(),
            digits(row.gold, 1.0, 2),
            digits(row.win_rate, 100.0, 1),
            digits(row.seconds, 1.0, 0),
            row.peak_mib.map_or("–".to_owned(), |mib| format!("{mib:.0} MiB")),
        );
    }
}

/// Gold score against KL: a point for each method and seed, and the curve of best of n.
fn draw(picture: &Path, rows: &[TextAlgorithmRow]) -> anyhow::Result<()> {
    let points: Vec<chart::Series> =
        rows.iter().map(|row| chart::Series { name: row.algorithm.name(), points: &row.points }).collect();
    let curve = rows.iter().find(|row| !row.best_of.is_empty());
    let curve: Vec<[f64; 2]> =
        curve.into_iter().flat_map(|row| &row.best_of).map(|point| [point.kl_bound, point.gold]).collect();
    let line = chart::Series { name: "best of 1 to 16", points: &curve };
    let title = "Gold score against KL";
    match chart::scatter_png(picture, title, "KL to the supervised model, nats", "gold score", &points, line) {
        Err(chart::ChartError::NoPoints) => bail!("no run has a gold score and a KL that are finite"),
        drawn => drawn.with_context(|| format!("could not draw {}", picture.display())),
    }
}
