//! The arguments of the verbs that teach a robot.

use super::{SettingsArguments, count, planned_by, seconds, share};
use crate::lab::{self, Precision};
use crate::settings::{ControlRun, RunSettings, TaskSpec, TeacherKind, TeacherNoise};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What the policy is trained on.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Reward {
    /// The task's own reward.
    True,
    /// A reward model that is learned from judgements.
    Preferences,
}

/// Who answers without a window: the oracle, or a teacher with one of the kinds of noise of BPref (Lee et al. 2021).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Teacher {
    /// Judges by the task's true return and never errs.
    Oracle,
    /// Prefers the better clip with probability σ(β · difference of returns).
    Noisy,
    /// Flips its answer at the mistake rate.
    Mistaken,
    /// Cannot tell two clips apart that are both hopeless.
    Skipping,
    /// Judges a clip by its end.
    Myopic,
    /// Answers with a tie if the returns are nearly equal.
    Equal,
    /// Never errs, and says when one clip is much better.
    Graded,
    /// Errs and skips at random, like a person who clicks fast.
    Hasty,
}

#[derive(Args, Debug)]
pub struct Train {
    /// Task, by the name of its file or by its Gymnasium id. May be left out to continue a session.
    pub task: Option<String>,
    /// What the policy is trained on. Default: preferences.
    #[arg(long, value_enum)]
    pub reward: Option<Reward>,
    /// Who answers the queries. Default: oracle.
    #[arg(long, value_enum)]
    pub teacher: Option<Teacher>,
    /// Probability that the teacher flips an answer, 0 to 1. Default: 0.1 for `mistaken` and `hasty`, otherwise 0.
    #[arg(long, value_name = "P", value_parser = share)]
    pub mistake_rate: Option<f64>,
    /// Probability that the teacher cannot tell, 0 to 1. Default: 0.1 for `hasty`, otherwise 0.
    #[arg(long, value_name = "P", value_parser = share)]
    pub skip_rate: Option<f64>,
    /// β of the noisy teacher. Default: 1.
    #[arg(long)]
    pub beta: Option<f64>,
    /// Seconds that the teacher takes for an answer while training goes on. Default: 0, which answers at once.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub answer_seconds: Option<f64>,
    /// Number of judgements to ask for. Default: 200.
    #[arg(long)]
    pub labels: Option<usize>,
    /// Env steps to train for, over all worlds. Default: as in the task's file, or 1,000,000.
    #[arg(long, value_parser = count)]
    pub steps: Option<u64>,
    /// Physics backend. Default: lanes.
    #[arg(long)]
    pub backend: Option<String>,
    /// Seed of all random streams. Default: 0.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Session folder to create, or to continue if it exists.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    #[command(flatten)]
    pub more: SettingsArguments,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

impl Train {
    /// The run that these arguments ask for.
    pub fn settings(&self) -> Result<RunSettings, String> {
        let reward = self.reward.map(|reward| match reward {
            Reward::True => "true",
            Reward::Preferences => "preferences",
        });
        let habits = [self.mistake_rate, self.skip_rate, self.beta];
        let teacher = (self.teacher.is_some() || habits.iter().any(Option::is_some)).then(|| {
            let teacher = self.teacher.unwrap_or(Teacher::Oracle).kind(self.mistake_rate, self.skip_rate, self.beta);
            json!(teacher)
        });
        let asked = self.more.asked([
            ("TASK", "task", self.task.clone().map(Value::from)),
            ("--reward", "reward", reward.map(Value::from)),
            ("--teacher", "teacher", teacher),
            ("--answer-seconds", "answer_seconds", self.answer_seconds.map(Value::from)),
            ("--labels", "num_labels", self.labels.map(Value::from)),
            ("--steps", "env_steps", self.steps.map(Value::from)),
            ("--backend", "backend", self.backend.clone().map(Value::from)),
            ("--seed", "seed", self.seed.map(Value::from)),
        ])?;
        if asked.get("task").is_none() && !self.session.as_deref().is_some_and(lab::is_session) {
            return Err("name a task, as in `flipside train hopper`; `flipside tasks` lists them".to_owned());
        }
        let settings = RunSettings { teacher: TeacherKind::Oracle, ..RunSettings::default() }.with(&asked)?;
        let planned = |spec: Option<TaskSpec>| spec.map_or(TaskSpec::ENV_STEPS, |spec| spec.env_steps());
        Ok(RunSettings { folder: self.session.clone(), ..planned_by(settings, planned) })
    }
}

impl Teacher {
    /// The teacher of this name. Values that are given replace the usual ones of that teacher.
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
    /// Number of episodes.
    #[arg(long, default_value_t = 20)]
    pub episodes: usize,
    /// Seed of the episodes' initial states.
    #[arg(long, default_value_t = 1000)]
    pub seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Rollout {
    /// Task, by the name of its file or by its Gymnasium id.
    pub task: String,
    /// File of arrays to read: qpos [N,nq], qvel [N,nv], ctrl [N,T,nu].
    #[arg(long, value_name = "IN.npz")]
    pub input: PathBuf,
    /// File of arrays to write: qpos, qvel, obs, reward, terminated, each [N,T,…].
    #[arg(long, value_name = "OUT.npz")]
    pub output: PathBuf,
    /// Physics backend.
    #[arg(long, default_value = "lanes")]
    pub backend: String,
    /// Number type of the backend `lanes`: f32, or f64 for reference.
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
}

#[derive(Args, Debug)]
pub struct Film {
    /// Session folder.
    pub session: PathBuf,
    /// Film to write. A name that ends in .mp4 makes an MP4, any other a GIF.
    #[arg(long, value_name = "CLIP.gif")]
    pub output: PathBuf,
    /// Length in simulated seconds.
    #[arg(long, default_value_t = 6.0)]
    pub seconds: f32,
    /// Seed of the initial state.
    #[arg(long, default_value_t = 1000)]
    pub seed: u64,
}

/// What to export.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ExportWhat {
    /// Every valid judgement with its clips, as JSON lines.
    Labels,
    /// The policy, as safetensors: actor.N.weight, actor.N.bias, log_std, obs_mean, obs_var.
    Policy,
}

#[derive(Args, Debug)]
pub struct Export {
    /// What to export.
    #[arg(value_enum)]
    pub what: ExportWhat,
    /// Session folder.
    pub session: PathBuf,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args, Debug)]
pub struct Demo {
    /// Task, by the name of its file or by its Gymnasium id. Default: half_cheetah.
    #[arg(long)]
    pub task: Option<String>,
    /// Seed of all random streams. Default: 0.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Session folder to create.
    #[arg(long, value_name = "DIR")]
    pub session: Option<PathBuf>,
    #[command(flatten)]
    pub more: SettingsArguments,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

impl Demo {
    /// Number of judgements of the simulated teacher.
    const LABELS: usize = 120;
    /// Number of env steps. Two cores need well under five minutes for them.
    const ENV_STEPS: u64 = 1_000_000;

    /// The run that these arguments ask for.
    pub fn settings(&self) -> Result<RunSettings, String> {
        let asked = self.more.asked([
            ("--task", "task", self.task.clone().map(Value::from)),
            ("--seed", "seed", self.seed.map(Value::from)),
        ])?;
        let usual = RunSettings {
            teacher: TeacherKind::Oracle,
            labels: Demo::LABELS,
            env_steps: Demo::ENV_STEPS,
            folder: self.session.clone(),
            ..RunSettings::of_control(ControlRun::of("half_cheetah"))
        };
        usual.with(&asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_teacher_takes_the_habits_that_were_named() {
        let rate = |rate| TeacherKind::Mistaken { rate };
        assert_eq!(Teacher::Oracle.kind(None, None, None), TeacherKind::Oracle);
        assert_eq!(Teacher::Mistaken.kind(None, None, None), rate(0.1));
        assert_eq!(Teacher::Oracle.kind(Some(0.3), None, None), rate(0.3));
        let noisy = TeacherNoise { beta: Some(2.0), skips: 0.2, ..TeacherNoise::NONE };
        assert_eq!(Teacher::Noisy.kind(None, Some(0.2), Some(2.0)), TeacherKind::Fallible(noisy));
    }
}
