//! What can be typed. What it means is in `settings`; each verb's struct turns itself into those.

use crate::lab::{Precision, ThreadsPerWorld};
use crate::settings::folders::task_folders;
use crate::settings::{RewardSource, RunSettings, TaskSpec, TeacherKind, TeacherNoise, TextPrecision};
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

/// Who answers, without a window: the perfect teacher, or one with a habit of those of BPref (Lee et al. 2021).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Teacher {
    /// Judges by the task's true return, never errs.
    Oracle,
    /// Prefers the better clip with probability σ(β · difference of returns).
    Noisy,
    /// An answer is turned round at the mistake rate.
    Mistaken,
    /// Cannot tell two clips apart that are both hopeless.
    Skipping,
    /// Judges a clip by its end.
    Myopic,
    /// Calls it a tie where the returns are nearly equal.
    Equal,
    /// Never errs, and says where one clip is much better.
    Graded,
    /// Errs and skips at random, like a person who clicks fast.
    Hasty,
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
    /// How often the teacher errs, 0 to 1; .1 for `mistaken` and `hasty` if not given.
    #[arg(long, value_name = "P", value_parser = share)]
    pub mistake_rate: Option<f64>,
    /// How often the teacher cannot tell, 0 to 1; .1 for `hasty` if not given.
    #[arg(long, value_name = "P", value_parser = share)]
    pub skip_rate: Option<f64>,
    /// The noisy teacher's β; 1 if not given.
    #[arg(long)]
    pub beta: Option<f64>,
    /// Seconds that the teacher takes for an answer, while training goes on; 0 answers at once.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = seconds)]
    pub answer_seconds: f64,
    /// Judgements to ask for.
    #[arg(long, default_value_t = 200)]
    pub labels: usize,
    /// Env steps to train for, over all worlds; what the task's file says, or 1_000_000, if not given.
    #[arg(long, value_parser = count)]
    pub steps: Option<u64>,
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
        // What is wrong with the task's file is said when the run opens it.
        let planned = || task_folders().load(&self.task).map_or(TaskSpec::ENV_STEPS, |files| files.spec.env_steps());
        RunSettings {
            task: self.task.clone(),
            reward: match self.reward {
                Reward::True => RewardSource::True,
                Reward::Preferences => RewardSource::Preferences,
            },
            teacher: self.teacher.kind(self.mistake_rate, self.skip_rate, self.beta),
            answer_seconds: self.answer_seconds,
            labels: self.labels,
            env_steps: self.steps.unwrap_or_else(planned),
            seed: self.seed,
            backend: self.backend.clone(),
            text: None,
            folder: self.session.clone(),
        }
    }
}

impl Teacher {
    /// The teacher of this name, with what was said of its habits in place of the usual.
    pub fn kind(self, mistake_rate: Option<f64>, skip_rate: Option<f64>, beta: Option<f64>) -> TeacherKind {
        let usual = match self {
            Teacher::Oracle => TeacherNoise::NONE,
            Teacher::Noisy => TeacherNoise::NOISY,
            Teacher::Mistaken => TeacherNoise::MISTAKEN,
            Teacher::Skipping => TeacherNoise::SKIPPING,
            Teacher::Myopic => TeacherNoise::MYOPIC,
            Teacher::Equal => TeacherNoise::EQUAL,
            Teacher::Graded => TeacherNoise::GRADED,
            Teacher::Hasty => TeacherNoise::HASTY,
        };
        let noise = TeacherNoise {
            mistakes: mistake_rate.unwrap_or(usual.mistakes),
            skips: skip_rate.unwrap_or(usual.skips),
            beta: beta.or(usual.beta),
            ..usual
        };
        match noise {
            TeacherNoise::NONE => TeacherKind::Oracle,
            TeacherNoise { mistakes: rate, .. } if noise == (TeacherNoise { mistakes: rate, ..TeacherNoise::NONE }) => {
                TeacherKind::Mistaken { rate }
            }
            _ => TeacherKind::Fallible(noise),
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
    /// The film to write: a name that ends in .mp4 makes an MP4, any other a GIF.
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
    /// How well judgements of simulated teachers teach: a table over tasks, teachers, numbers of labels and seeds. One that is cut off goes on.
    Preferences(BenchPreferences),
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
    /// Threads that step one world on the graphics device, 1 or 32; several are measured one after another. What suits robot and adapter if not given.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub threads_per_world: Vec<ThreadsPerWorld>,
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
pub struct BenchPreferences {
    /// Tasks, by their files' names or Gymnasium's.
    #[arg(long, value_delimiter = ',', default_value = "hopper_backflip")]
    pub tasks: Vec<String>,
    /// Teachers; `true` is PPO on the task's own reward, to compare with.
    #[arg(long, value_delimiter = ',', default_value = "oracle")]
    pub teachers: Vec<String>,
    /// How often the teachers `mistaken` and `hasty` err, 0 to 1; .1 if not given.
    #[arg(long, value_name = "P", value_parser = share)]
    pub mistake_rate: Option<f64>,
    /// Seconds that a teacher takes for an answer; 0 answers at once.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = seconds)]
    pub answer_seconds: f64,
    /// Share of the env steps by which all labels are given, 0 to 1; the rest shows what a reward that learns no more leads to. Not with
    /// `--answer-seconds`, where the clock says when they are given.
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "answer_seconds")]
    pub labels_by: Option<f64>,
    /// Numbers of labels.
    #[arg(long, value_delimiter = ',', default_value = "50,200")]
    pub labels: Vec<usize>,
    /// Settings to try beside those of the task's file, each in runs of its own: TOML, with `;` between several, such as
    /// 'labels.random_share = 1; reward_model.kind = "networks"'.
    #[arg(long, value_name = "TOML")]
    pub set: Vec<String>,
    /// Runs of each.
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// Env steps a run; what the task's file says if not given.
    #[arg(long, value_parser = count)]
    pub steps: Option<u64>,
    /// Runs side by side; as many as there are cores if not given.
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Folder for results and curves; what lies there is not run again.
    #[arg(long, value_name = "DIR", default_value = "preferences")]
    pub output: PathBuf,
    /// One JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

impl BenchPreferences {
    /// The teachers by name, `None` for the task's own reward.
    ///
    /// # Errors
    /// A name that is none.
    pub fn teachers(&self) -> Result<Vec<(String, Option<TeacherKind>)>, String> {
        let teacher = |name: &String| match name.as_str() {
            "true" => Ok((name.clone(), None)),
            _ => {
                let teacher = Teacher::from_str(name, true)?;
                // The perfect teacher stays so, whatever rate the others have.
                let rate = self.mistake_rate.filter(|_| matches!(teacher, Teacher::Mistaken | Teacher::Hasty));
                let name = rate.map_or(name.clone(), |rate| format!("{name} {rate}"));
                Ok((name, Some(teacher.kind(rate, None, None))))
            }
        };
        self.teachers.iter().map(teacher).collect()
    }
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

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if (0.0..=3600.0).contains(&x) => Ok(x),
        _ => Err("expected seconds, from 0 to 3600".to_owned()),
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
    fn a_teacher_takes_the_habits_that_were_named() {
        let rate = |rate| TeacherKind::Mistaken { rate };
        assert_eq!(Teacher::Oracle.kind(None, None, None), TeacherKind::Oracle);
        assert_eq!(Teacher::Mistaken.kind(None, None, None), rate(0.1));
        assert_eq!(Teacher::Oracle.kind(Some(0.3), None, None), rate(0.3));
        let noisy = TeacherNoise { beta: Some(2.0), skips: 0.2, ..TeacherNoise::NONE };
        assert_eq!(Teacher::Noisy.kind(None, Some(0.2), Some(2.0)), TeacherKind::Fallible(noisy));
    }

    #[test]
    fn counts_may_be_written_short() {
        assert_eq!(count("2e6"), Ok(2_000_000));
        assert_eq!(count("2_000_000"), Ok(2_000_000));
        assert!(count("1.5").is_err() && count("-3").is_err() && count("lots").is_err());
    }
}
