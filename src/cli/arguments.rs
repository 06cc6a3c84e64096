//! What can be typed. What it means is in `settings`; each verb's struct turns itself into those.

use crate::lab::Precision;
use crate::settings::{RewardSource, RunSettings, TeacherKind, TextPrecision};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Teach a robot by choosing between two clips. Without a command, opens the desk.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    pub desk: DeskArguments,
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Say more on stderr.
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// What the desk opens with.
#[derive(Args, Debug, Default)]
pub struct DeskArguments {
    /// Task to teach, by its file's name or Gymnasium's.
    #[arg(long)]
    pub task: Option<String>,
    /// Session folder to go on with, or to make.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    /// Seed of every random stream.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train a policy without a window.
    Train(Train),
    /// Measure a session's policy on the task's own reward.
    Eval(Eval),
    /// Step given states under given controls and write what happens.
    Rollout(Rollout),
    /// Film what a session's policy does.
    Film(Film),
    /// Write labels or the policy in open formats.
    Export(Export),
    /// Measure speed on this machine.
    #[command(subcommand)]
    Bench(Bench),
    /// The whole loop without a window, with a simulated teacher: session, films and curve.
    Demo(Demo),
    /// Text mode: language models taught by comparing what they write.
    #[command(subcommand)]
    Text(super::text::Text),
    /// List the tasks.
    Tasks {
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// List the devices that can compute and draw here.
    Devices {
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
}

/// Where the reward comes from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Reward {
    /// The task's own reward.
    True,
    /// A reward model learnt from judgements.
    Preferences,
}

/// Who answers, without a window.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Teacher {
    /// Judges by the task's true return, never errs.
    Oracle,
    /// As the oracle, but an answer is flipped at the mistake rate.
    Mistaken,
}

#[derive(Args, Debug)]
pub struct Train {
    /// Task, by its file's name or Gymnasium's.
    pub task: String,
    /// What the policy is trained on.
    #[arg(long, value_enum, default_value = "preferences")]
    pub reward: Reward,
    /// Who answers the pairs.
    #[arg(long, value_enum, default_value = "oracle")]
    pub teacher: Teacher,
    /// How often the mistaken teacher errs, 0 to 1.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    pub mistake_rate: f64,
    /// Judgements to ask for.
    #[arg(long, default_value_t = 200)]
    pub labels: usize,
    /// Env steps to train for, over all worlds.
    #[arg(long, default_value_t = 1_000_000, value_parser = count)]
    pub steps: u64,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Seed of every random stream.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Session folder; one that exists is gone on with.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

impl Train {
    /// The run that these words ask for.
    pub fn settings(&self) -> RunSettings {
        RunSettings {
            task: self.task.clone(),
            reward: match self.reward {
                Reward::True => RewardSource::True,
                Reward::Preferences => RewardSource::Preferences,
            },
            teacher: match self.teacher {
                Teacher::Oracle => TeacherKind::Oracle,
                Teacher::Mistaken => TeacherKind::Mistaken { rate: self.mistake_rate },
            },
            labels: self.labels,
            env_steps: self.steps,
            seed: self.seed,
            backend: self.backend.clone(),
            text: None,
            folder: self.session.clone(),
        }
    }
}

#[derive(Args, Debug)]
pub struct Eval {
    /// Session folder.
    pub session: PathBuf,
    /// Episodes to run.
    #[arg(long, default_value_t = 20)]
    pub episodes: usize,
    /// Seed of the episodes' starts.
    #[arg(long, default_value_t = 1000)]
    pub seed: u64,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Rollout {
    /// Task, by its file's name or Gymnasium's.
    pub task: String,
    /// Arrays qpos [N,nq], qvel [N,nv], ctrl [N,T,nu].
    #[arg(long, value_name = "IN.npz")]
    pub input: PathBuf,
    /// Arrays qpos, qvel, obs, reward, terminated, each [N,T,…].
    #[arg(long, value_name = "OUT.npz")]
    pub output: PathBuf,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Number type of the lanes backend: f32, or f64 for reference.
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
}

#[derive(Args, Debug)]
pub struct Film {
    /// Session folder.
    pub session: PathBuf,
    /// The film to write.
    #[arg(long, value_name = "CLIP.gif")]
    pub output: PathBuf,
    /// Simulated seconds.
    #[arg(long, default_value_t = 6.0)]
    pub seconds: f32,
    /// Seed of the start.
    #[arg(long, default_value_t = 1000)]
    pub seed: u64,
}

/// What to write.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ExportWhat {
    /// JSON lines, one standing judgement each, with its clips.
    Labels,
    /// Safetensors: actor.N.weight, actor.N.bias, log_std, obs_mean, obs_var.
    Policy,
}

#[derive(Args, Debug)]
pub struct Export {
    /// What to write.
    #[arg(value_enum)]
    pub what: ExportWhat,
    /// Session folder.
    pub session: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Env steps a second of the physics alone, under random actions or a policy's.
    Physics(BenchPhysics),
    /// Env steps a second of PPO, learning included.
    Ppo(BenchTask),
    /// How soon PPO reaches each task's target return, over several seeds: a table.
    Learning(BenchLearning),
    /// Frames a second and the time from a click to the next pair, in a real window with training on.
    Desk(BenchDesk),
    /// Tokens a second of text mode: writing completions, and a gradient step of PPO on them.
    Text(BenchText),
}

#[derive(Args, Debug)]
pub struct BenchText {
    /// Model folder; a GPT-2 of 124 M random weights if not given.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// What weights and activations are made of: f32, or bf16.
    #[arg(long, default_value = "f32")]
    pub precision: TextPrecision,
    /// Texts side by side.
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 64)]
    pub prompt: usize,
    /// Tokens of a completion.
    #[arg(long, default_value_t = 24)]
    pub new: usize,
    /// Measurements, of which the median counts.
    #[arg(long, default_value_t = 3)]
    pub repeats: usize,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchTask {
    /// Task, by its file's name or Gymnasium's.
    #[arg(long, default_value = "hopper")]
    pub task: String,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Physics threads; all cores if not given.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Worlds in the batch.
    #[arg(long)]
    pub worlds: Option<usize>,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchPhysics {
    #[command(flatten)]
    pub task: BenchTask,
    /// Number type of the lanes backend: f32, or f64 for reference.
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Session whose policy acts, on its own task, in place of chance.
    #[arg(long, value_name = "DIR", conflicts_with = "task")]
    pub session: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchLearning {
    /// Task, by its file's name or Gymnasium's; every task with a [benchmark] if not given.
    #[arg(long)]
    pub task: Option<String>,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Runs a task.
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// Env steps a run; what the task's file plans if not given.
    #[arg(long)]
    pub steps: Option<u64>,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchDesk {
    /// Task, by its file's name or Gymnasium's.
    #[arg(long, default_value = "hopper")]
    pub task: String,
    /// Seconds to measure.
    #[arg(long, default_value_t = 30.0)]
    pub seconds: f64,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Demo {
    /// Task, by its file's name or Gymnasium's.
    #[arg(long, default_value = "half_cheetah")]
    pub task: String,
    /// Seed of every random stream.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Session folder to make.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if (0.0..=1.0).contains(&x) => Ok(x),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// A whole number that may be written 1_000_000 or 1e6.
fn count(text: &str) -> Result<u64, String> {
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
