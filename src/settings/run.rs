//! One run: which task, whose judgement, how long.

use flipside_core::settings::{TeacherKind, TextRun};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the policy is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardSource {
    /// The task's own reward: a plain RL run.
    True,
    /// A reward model learnt from judgements. Episodes then have a fixed length and no termination, and the task's own reward is
    /// seen by simulated teachers and by evaluation alone.
    #[default]
    Preferences,
}

/// Everything that decides how a run goes; stored with the session, so that reopening it goes on with the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// The task's file name (`hopper`) or Gymnasium's id (`Hopper-v5`).
    pub task: String,
    /// What the policy is trained on.
    pub reward: RewardSource,
    /// Who answers; only used with [`RewardSource::Preferences`].
    pub teacher: TeacherKind,
    /// Seconds that a simulated teacher takes for an answer, while the robot trains on; 0 answers at once, and training waits for it. With time in
    /// play the same seed no longer gives the same run.
    pub answer_seconds: f64,
    /// Judgements planned. The schedule asks for more of them early on; afterwards a person may go on judging.
    pub labels: usize,
    /// Env steps planned, over all worlds.
    pub env_steps: u64,
    /// The seed of every random stream of the run.
    pub seed: u64,
    /// The physics backend's name.
    pub backend: String,
    /// Text mode's settings; `None` for a run that teaches a robot. `env_steps` then counts the steps of all stages, and the task is
    /// called `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextRun>,
    /// The session's folder; `None` makes a new one under the sessions folder.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
}

impl RunSettings {
    /// What a run in text mode calls its task.
    pub const TEXT: &str = "text";

    /// A run in text mode.
    pub fn of_text(text: TextRun) -> RunSettings {
        let env_steps = text.steps();
        RunSettings {
            task: RunSettings::TEXT.to_owned(),
            labels: 500,
            env_steps,
            text: Some(text),
            ..RunSettings::default()
        }
    }
}

impl Default for RunSettings {
    fn default() -> Self {
        RunSettings {
            task: "hopper".to_owned(),
            reward: RewardSource::Preferences,
            teacher: TeacherKind::Person,
            answer_seconds: 0.0,
            labels: 200,
            env_steps: 2_000_000,
            seed: 0,
            backend: "lanes".to_owned(),
            text: None,
            folder: None,
        }
    }
}
