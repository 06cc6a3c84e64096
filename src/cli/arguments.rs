//! The arguments of the command line. Each verb's struct turns itself into settings.

mod bench;
mod language_model;
mod robots;

pub use bench::{
    Bench, BenchDesk, BenchLearning, BenchMode, BenchPpo, BenchPreferences, BenchTask, BenchText, BenchTextPreferences,
    BenchTextSteps,
};
pub use language_model::{AdaptingArguments, ModelArguments, ReadingArguments, TuningArguments, presets};
pub use robots::{Demo, Eval, Export, ExportWhat, Film, Rollout, Train};

use crate::settings::folders::task_folders;
use crate::settings::{Asked, Mode, RunSettings, TaskSpec, TextRun, TextStage};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use std::path::PathBuf;

/// Teach a robot by choosing between two clips, or a language model by choosing between two completions. Without a
/// command, the desk opens.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    pub desk: DeskArguments,
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Print more messages to stderr.
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// The arguments of the desk.
#[derive(Args, Debug, Default)]
pub struct DeskArguments {
    /// Task to teach, by the name of its file or by its Gymnasium id.
    #[arg(long)]
    pub task: Option<String>,
    /// Session folder to continue or to create.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    /// Seed of all random streams. Default: 0.
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub more: SettingsArguments,
}

impl DeskArguments {
    /// The run that a person teaches at the desk.
    pub fn settings(&self) -> Result<RunSettings, String> {
        let typed =
            [("--task", "task", self.task.clone().map(Value::from)), ("--seed", "seed", self.seed.map(Value::from))];
        let asked = self.more.asked(typed)?;
        let folder = self.session.clone();
        if asked.is_of_text() {
            let mut settings = RunSettings::of_text(TextRun::default()).with(&asked)?;
            if let Mode::Text(run) = &mut settings.mode
                && asked.get("text.from").is_none()
            {
                run.from = if run.model.is_some() { TextStage::Supervised } else { run.first_stage() };
                settings.env_steps = run.steps();
            }
            return Ok(RunSettings { folder, ..settings });
        }
        let settings = RunSettings::default().with(&asked)?;
        let planned = |spec: Option<TaskSpec>| spec.map_or(TaskSpec::UNHURRIED, |spec| spec.desk_steps());
        Ok(RunSettings { folder, ..planned_by(settings, planned) })
    }
}

/// Any setting of a run, by its name.
#[derive(Args, Debug, Default)]
pub struct SettingsArguments {
    /// Setting of the run by its name, as listed by `flipside settings`. May be given several times, or with several
    /// settings separated by `;`; the last value of a setting counts.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// TOML file of settings, with the same names. Settings on the command line win over the file.
    #[arg(long, value_name = "RUN.toml")]
    pub config: Option<PathBuf>,
}

impl SettingsArguments {
    /// The settings that were asked for: those of the file, then `--set`, then the options `typed`; the later one wins.
    /// Each option comes with the setting that it is short for. An option that contradicts a `--set` is refused.
    pub fn asked<'a>(
        &self,
        typed: impl IntoIterator<Item = (&'a str, &'a str, Option<Value>)>,
    ) -> Result<Asked, String> {
        let file = self.config.as_deref().map(Asked::read).transpose()?.unwrap_or_default();
        let set = self
            .set
            .iter()
            .try_fold(Asked::default(), |set, text| Ok::<_, String>(set.and(Asked::assignments(text)?)))?;
        let mut options = Asked::default();
        for (option, name, value) in typed.into_iter().filter_map(|(option, name, value)| Some((option, name, value?)))
        {
            let mut this = Asked::default();
            this.set(name, value)?;
            if let Some((name, one, other)) = this.contradicts(&set) {
                return Err(format!("{option} sets `{name}` to {one}, and --set to {other}; leave one of them out"));
            }
            options = options.and(this);
        }
        Ok(file.and(set).and(options))
    }
}

/// The settings with the number of env steps that the task's file plans, unless another number was asked for. Errors in
/// the task's file are reported later, when the run opens it.
pub(super) fn planned_by(settings: RunSettings, planned: impl Fn(Option<TaskSpec>) -> u64) -> RunSettings {
    let Some(run) = settings.control().filter(|_| settings.asked.get("env_steps").is_none()) else { return settings };
    let spec = task_folders().load(&run.task).ok().and_then(|files| files.spec.overridden(&run.overrides).ok());
    RunSettings { env_steps: planned(spec), ..settings }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train a policy without a window.
    Train(Train),
    /// Evaluate a session's policy on the task's own reward.
    Eval(Eval),
    /// Step given states with given controls and write the results.
    Rollout(Rollout),
    /// Film a session's policy.
    Film(Film),
    /// Write labels or the policy in open formats.
    Export(Export),
    /// Measure speed and learning on this machine.
    #[command(subcommand)]
    Bench(Bench),
    /// Run the whole loop with a simulated teacher and without a window. Leaves a session, a film and a learning curve.
    Demo(Demo),
    /// Train language models by comparing what they write (text mode).
    #[command(subcommand)]
    Text(super::text::Text),
    /// List settings with their meaning and default.
    Settings(ListSettings),
    /// List the tasks.
    Tasks {
        /// Print one JSON object to stdout.
        #[arg(long)]
        json: bool,
    },
    /// List the devices for computing and drawing on this machine.
    Devices {
        /// Print one JSON object to stdout.
        #[arg(long)]
        json: bool,
    },
    /// Write this help as Markdown.
    #[command(hide = true)]
    MarkdownHelp,
}

#[derive(Args, Debug)]
pub struct ListSettings {
    /// Setting or table to list, such as `text.ppo`. Default: all settings.
    pub path: Option<String>,
    /// Print one JSON object to stdout.
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print the page docs/reference/settings.md.
    #[arg(long, conflicts_with = "path")]
    pub markdown: bool,
}

/// Parses a share, 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if (0.0..=1.0).contains(&x) => Ok(x),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// A temperature that may be 0, where the likeliest token is taken, or another number that must not be negative.
pub(super) fn at_least_0(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if f64::is_finite(x) && x >= 0.0 => Ok(x),
        _ => Err("expected a number of at least 0".to_owned()),
    }
}

/// A temperature at which the completions of a prompt differ.
pub(super) fn above_0(text: &str) -> Result<f64, String> {
    match at_least_0(text) {
        Ok(x) if x > 0.0 => Ok(x),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// Parses a duration in seconds, up to an hour.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if (0.0..=3600.0).contains(&x) => Ok(x),
        _ => Err("expected seconds, from 0 to 3600".to_owned()),
    }
}

/// Parses a whole number, which may be written 1_000_000 or 1e6.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let plain = text.replace('_', "");
    plain
        .parse()
        .ok()
        .or_else(|| plain.parse::<f64>().ok().filter(|x| *x >= 0.0 && x.fract() == 0.0 && *x < 1e15).map(|x| x as u64))
        .ok_or_else(|| "expected a whole number such as 2000000, 2_000_000 or 2e6".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn counts_may_be_written_short() {
        assert_eq!(count("2e6"), Ok(2_000_000));
        assert_eq!(count("2_000_000"), Ok(2_000_000));
        assert!(count("1.5").is_err() && count("-3").is_err() && count("lots").is_err());
    }
}
