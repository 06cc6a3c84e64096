//! The arguments of `flipside bench`.

use super::robots::Teacher;
use super::{SettingsArguments, count, presets, seconds, share};
use crate::cli::algorithms::BenchTextAlgorithms;
use crate::lab::{Precision, ThreadsPerWorld};
use crate::settings::{PreferenceLoss, TeacherKind, TextPrecision, TextPreset};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Env steps per second of physics alone, with actions that are random or from a session's policy.
    Physics(BenchPhysics),
    /// Env steps per second of PPO, including learning.
    Ppo(BenchPpo),
    /// How soon PPO reaches each task's target return, as a table over several seeds.
    Learning(BenchLearning),
    /// How well a policy learns from judgements of simulated teachers, as a table over tasks, teachers, numbers of
    /// labels and seeds. A benchmark that was interrupted continues.
    Preferences(BenchPreferences),
    /// Frames per second, and the time from a click to the next pair, in a real window while training runs.
    Desk(BenchDesk),
    /// Tokens per second in text mode, for writing completions and for a gradient step of PPO on them.
    Text(BenchText),
    /// How well a reward model of text agrees with a simulated teacher after so many answers, as a table over settings
    /// and seeds. A benchmark that was interrupted continues.
    TextPreferences(BenchTextPreferences),
    /// PPO, DPO and the other methods of text mode beside each other on the built-in reviews, as a table of gold score,
    /// win rate against the supervised model, KL, time and memory over seeds, with a picture of gold score against KL.
    /// A benchmark that was interrupted continues.
    TextAlgorithms(BenchTextAlgorithms),
    /// Losses and times of gradient steps on completions that are given, for benches/peers/text_preference_speed.py.
    #[command(hide = true)]
    TextSteps(BenchTextSteps),
}

#[derive(Args, Debug)]
pub struct BenchTextSteps {
    /// Model folder.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// With --preset, a line of JSON for each completion: `prompt` and `completion` as lists of token ids, and `score`.
    /// With --loss, one for each pair: `prompt`, `chosen`, `rejected`.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Method of PPO's trainer by its name.
    #[arg(long, value_parser = presets(), required_unless_present = "loss", conflicts_with = "loss")]
    pub preset: Option<TextPreset>,
    /// Loss of `text preference`.
    #[arg(long)]
    pub loss: Option<PreferenceLoss>,
    /// Settings that win over the method's.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Gradient steps, each on all completions.
    #[arg(long, default_value_t = 4)]
    pub steps: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchTextPreferences {
    /// Folder of the supervised model. Default: the built-in one.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Probability that the teacher flips an answer, 0 to 1. The teacher is also unsure where two gold scores are
    /// close. With 0 it never errs.
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = share)]
    pub mistake_rate: f64,
    /// Numbers of labels.
    #[arg(long, value_delimiter = ',', default_value = "50,100,200,500")]
    pub labels: Vec<usize>,
    /// Settings to compare with the defaults. Each `--set` gets its own runs. TOML, with several settings separated by
    /// `;`.
    #[arg(long, value_name = "TOML", default_value = "text.labels.random_share = 1")]
    pub set: Vec<String>,
    /// Number of seeds, with one run each per combination.
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// New pairs that a reward model is compared with the teacher on.
    #[arg(long, default_value_t = 1000)]
    pub held_out: usize,
    /// Folder for results. Runs whose results are there are not repeated.
    #[arg(long, value_name = "DIR", default_value = "text-preferences")]
    pub output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchText {
    /// Model folder. Default: a GPT-2 with 124 M random weights.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Number type of weights and activations: f32 or bf16.
    #[arg(long, default_value = "f32")]
    pub precision: TextPrecision,
    /// Texts in a batch.
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Tokens in a prompt.
    #[arg(long, default_value_t = 64)]
    pub prompt: usize,
    /// Tokens in a completion.
    #[arg(long, default_value_t = 24)]
    pub new: usize,
    /// Number of measurements. The median is reported.
    #[arg(long, default_value_t = 3)]
    pub repeats: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchTask {
    /// Task, by the name of its file or by its Gymnasium id.
    #[arg(long, default_value = "hopper")]
    pub task: String,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Number of physics threads. Default: one per core.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Number of worlds in the batch.
    #[arg(long)]
    pub worlds: Option<usize>,
    /// Duration of the measurement in seconds.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchPpo {
    #[command(flatten)]
    pub task: BenchTask,
    #[command(flatten)]
    pub more: SettingsArguments,
}

#[derive(Args, Debug)]
pub struct BenchPhysics {
    #[command(flatten)]
    pub task: BenchTask,
    /// Number type of the backend `lanes`: f32, or f64 for reference.
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// GPU threads that step one world, 1 or 32. Several values are measured one after another. Default: what suits the
    /// robot and the GPU.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub threads_per_world: Vec<ThreadsPerWorld>,
    /// Session whose policy acts, on the session's task, instead of random actions.
    #[arg(long, value_name = "DIR", conflicts_with = "task")]
    pub session: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchLearning {
    /// Task, by the name of its file or by its Gymnasium id. Default: every task with a [benchmark] table.
    #[arg(long)]
    pub task: Option<String>,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Number of seeds, with one run each per task.
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// Env steps of a run. Default: as in the task's file.
    #[arg(long)]
    pub steps: Option<u64>,
    #[command(flatten)]
    pub more: SettingsArguments,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchPreferences {
    /// Tasks, by the names of their files or by their Gymnasium ids.
    #[arg(long, value_delimiter = ',', default_value = "hopper_backflip")]
    pub tasks: Vec<String>,
    /// Teachers. `true` is PPO on the task's own reward, for comparison.
    #[arg(long, value_delimiter = ',', default_value = "oracle")]
    pub teachers: Vec<String>,
    /// Probability that the teachers `mistaken` and `hasty` flip an answer, 0 to 1. Default: 0.1.
    #[arg(long, value_name = "P", value_parser = share)]
    pub mistake_rate: Option<f64>,
    /// Seconds that a teacher takes for an answer; 0 answers at once.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = seconds)]
    pub answer_seconds: f64,
    /// Share of the env steps by which all labels are given, 0 to 1. The remaining steps show what a reward model leads
    /// to that learns no more. Not with `--answer-seconds`, where the clock decides when labels are given.
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "answer_seconds")]
    pub labels_by: Option<f64>,
    /// Numbers of labels.
    #[arg(long, value_delimiter = ',', default_value = "50,200")]
    pub labels: Vec<usize>,
    /// Settings to compare with those of the task's file. Each `--set` gets its own runs. TOML, with several settings
    /// separated by `;`, such as 'labels.random_share = 1; reward_model.kind = "networks"'.
    #[arg(long, value_name = "TOML")]
    pub set: Vec<String>,
    /// TOML file of settings for every run, with the names of the task's file.
    #[arg(long, value_name = "RUN.toml")]
    pub config: Option<PathBuf>,
    /// Number of seeds, with one run each per combination.
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// Env steps of a run. Default: as in the task's file.
    #[arg(long, value_parser = count)]
    pub steps: Option<u64>,
    /// Number of runs at the same time. Default: one per core.
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Folder for results and learning curves. Runs whose results are there are not repeated.
    #[arg(long, value_name = "DIR", default_value = "preferences")]
    pub output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

impl BenchPreferences {
    /// The teachers by name; `None` for the task's own reward.
    ///
    /// # Errors
    /// A name that no teacher has.
    pub fn teachers(&self) -> Result<Vec<(String, Option<TeacherKind>)>, String> {
        let teacher = |name: &String| match name.as_str() {
            "true" => Ok((name.clone(), None)),
            _ => {
                let teacher = Teacher::from_str(name, true)?;
                // The mistake rate changes only the teachers that make mistakes; the oracle stays perfect.
                let rate = self.mistake_rate.filter(|_| matches!(teacher, Teacher::Mistaken | Teacher::Hasty));
                let name = rate.map_or(name.clone(), |rate| format!("{name} {rate}"));
                Ok((name, Some(teacher.kind(rate, None, None))))
            }
        };
        self.teachers.iter().map(teacher).collect()
    }
}

/// What is taught at the desk.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum BenchMode {
    /// A robot.
    #[default]
    Control,
    /// A language model.
    Text,
}

#[derive(Args, Debug)]
pub struct BenchDesk {
    /// What is taught while the desk is measured. For text, the desk opens with the task, and Text is chosen when its
    /// first pair is on show.
    #[arg(long, value_enum, default_value_t)]
    pub mode: BenchMode,
    /// Task, by the name of its file or by its Gymnasium id.
    #[arg(long, default_value = "hopper")]
    pub task: String,
    /// Duration of the measurement in seconds.
    #[arg(long, default_value_t = 30.0)]
    pub seconds: f64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}
