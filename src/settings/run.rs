//! The settings of one run: task, teacher and length.

use super::Asked;
use flipside_core::settings::{TeacherKind, TextRun};
use flipside_envs::tasks::{Folders, use_names_of_today};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use std::time::Duration;

/// What the policy is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RewardSource {
    /// The task's own reward: plain reinforcement learning.
    True,
    /// A reward model that is learned from judgements. Episodes then have a fixed length and never terminate. Only
    /// simulated teachers and evaluation see the task's own reward.
    #[default]
    Preferences,
}

/// All settings of a run. They are stored with the session, so that a reopened session continues with the same ones.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct RunSettings {
    /// Who answers the queries. Without judgements it has no effect.
    pub teacher: TeacherKind,
    /// Seconds that a simulated teacher takes for an answer while the robot trains on; 0 or more. With 0 it answers at
    /// once, and training waits for the answer. With more, the same seed no longer gives the same run.
    pub answer_seconds: f64,
    /// Planned number of judgements: 200 by default, or 500 in text mode. The label schedule asks for more of them
    /// early on. After the planned number a person may go on judging.
    #[schemars(rename = "num_labels")]
    pub labels: usize,
    /// Planned env steps, over all worlds. Text mode counts the steps of its pipeline stages.
    pub env_steps: u64,
    /// Seed of all random streams of the run.
    pub seed: u64,
    /// What is taught, with the settings of that mode.
    #[schemars(skip)]
    pub mode: Mode,
    /// The session's folder; `None` makes a new one in the sessions folder. Not stored.
    #[schemars(skip)]
    pub folder: Option<PathBuf>,
    /// The settings that a person asked for. An existing session must agree with them and keeps its own values of all
    /// others. Not stored.
    #[schemars(skip)]
    pub asked: Asked,
    /// The folders of a person's own tasks, which are searched before the bundled ones. Not stored.
    #[schemars(skip)]
    pub task_folders: Folders,
}

/// What is taught, with the settings that only this mode has.
#[expect(clippy::large_enum_variant, reason = "a run has one of it")]
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// A robot, by comparing clips.
    Control(ControlRun),
    /// A language model, by comparing completions.
    Text(TextRun),
}

/// The settings of a run that teaches a robot.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct ControlRun {
    /// The task, by the name of its file (`hopper`) or by its Gymnasium id (`Hopper-v5`).
    pub task: String,
    /// What the policy is trained on.
    pub reward: RewardSource,
    /// The name of the physics backend.
    pub backend: String,
    /// Values that replace those of the task's file: in its tables `ppo`, `labels`, `explore`, `reward_model` and
    /// `monitor`, and in the rest of it.
    #[schemars(skip)]
    pub overrides: toml::Table,
}

impl Default for ControlRun {
    fn default() -> Self {
        ControlRun {
            task: "hopper".to_owned(),
            reward: RewardSource::Preferences,
            backend: "lanes".to_owned(),
            overrides: toml::Table::new(),
        }
    }
}

impl ControlRun {
    /// A run of this task.
    pub fn of(task: impl Into<String>) -> ControlRun {
        ControlRun { task: task.into(), ..ControlRun::default() }
    }
}

impl RunSettings {
    /// The task name of a run in text mode.
    pub const TEXT: &str = "text";

    /// A run that teaches a robot.
    pub fn of_control(run: ControlRun) -> RunSettings {
        RunSettings {
            teacher: TeacherKind::Person,
            answer_seconds: 0.0,
            labels: 200,
            env_steps: 2_000_000,
            seed: 0,
            mode: Mode::Control(run),
            folder: None,
            asked: Asked::default(),
            task_folders: Folders::default(),
        }
    }

    /// A run in text mode.
    pub fn of_text(run: TextRun) -> RunSettings {
        let env_steps = run.steps();
        RunSettings { labels: 500, env_steps, mode: Mode::Text(run), ..RunSettings::default() }
    }

    /// The settings of the robot's run; `None` in text mode.
    pub fn control(&self) -> Option<&ControlRun> {
        match &self.mode {
            Mode::Control(run) => Some(run),
            Mode::Text(_) => None,
        }
    }

    /// The same run with changed settings of the robot's run. In text mode nothing changes.
    pub fn map_control(mut self, change: impl FnOnce(ControlRun) -> ControlRun) -> RunSettings {
        if let Mode::Control(run) = self.mode {
            self.mode = Mode::Control(change(run));
        }
        self
    }

    /// The settings of the language model's run; `None` if a robot is taught.
    pub fn text(&self) -> Option<&TextRun> {
        match &self.mode {
            Mode::Control(_) => None,
            Mode::Text(run) => Some(run),
        }
    }

    /// The task's name; [`RunSettings::TEXT`] in text mode.
    pub fn task(&self) -> &str {
        match &self.mode {
            Mode::Control(run) => &run.task,
            Mode::Text(_) => RunSettings::TEXT,
        }
    }

    /// What the policy is trained on; in text mode always judgements.
    pub fn reward(&self) -> RewardSource {
        self.control().map_or(RewardSource::Preferences, |run| run.reward)
    }

    /// The physics backend's name; empty in text mode, which has no physics.
    pub fn backend(&self) -> &str {
        self.control().map_or("", |run| &run.backend)
    }

    /// The time that a simulated teacher takes for an answer. It is zero in text mode, where a pipeline stage waits for
    /// all answers to its queries.
    pub fn thinking(&self) -> Duration {
        match &self.mode {
            Mode::Control(_) => Duration::from_secs_f64(self.answer_seconds.max(0.0)),
            Mode::Text(_) => Duration::ZERO,
        }
    }
}

impl Default for RunSettings {
    fn default() -> Self {
        RunSettings::of_control(ControlRun::default())
    }
}

/// The settings as they are stored: in one flat table for both modes, the same since the first sessions. A session
/// whose run has neither `text` nor `overrides` can also be opened by earlier versions of the program that know
/// neither.
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Stored {
    task: String,
    reward: RewardSource,
    teacher: TeacherKind,
    answer_seconds: f64,
    labels: usize,
    env_steps: u64,
    seed: u64,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextRun>,
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    overrides: toml::Table,
}

impl Default for Stored {
    fn default() -> Self {
        Stored::from(&RunSettings::default())
    }
}

impl From<&RunSettings> for Stored {
    fn from(settings: &RunSettings) -> Stored {
        let RunSettings { teacher, answer_seconds, labels, env_steps, seed, mode, .. } = settings.clone();
        let (control, text) = match mode {
            Mode::Control(run) => (run, None),
            Mode::Text(run) => (ControlRun::of(RunSettings::TEXT), Some(run)),
        };
        let ControlRun { task, reward, backend, overrides } = control;
        Stored { task, reward, teacher, answer_seconds, labels, env_steps, seed, backend, text, overrides }
    }
}

impl From<Stored> for RunSettings {
    fn from(stored: Stored) -> RunSettings {
        let Stored { task, reward, teacher, answer_seconds, labels, env_steps, seed, backend, text, mut overrides } =
            stored;
        use_names_of_today(&mut overrides);
        let mode = match text {
            None => Mode::Control(ControlRun { task, reward, backend, overrides }),
            Some(run) => Mode::Text(run),
        };
        let task_folders = Folders::default();
        RunSettings {
            teacher,
            answer_seconds,
            labels,
            env_steps,
            seed,
            mode,
            folder: None,
            asked: Asked::default(),
            task_folders,
        }
    }
}

impl Serialize for RunSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RunSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RunSettings, D::Error> {
        Stored::deserialize(deserializer).map(RunSettings::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::settings::TeacherNoise;

    /// Settings exactly as sessions of November 2026 have them.
    #[test]
    fn settings_of_earlier_sessions_are_read_and_written_as_they_were() {
        let control = r#"{"task":"hopper_backflip","reward":"preferences","teacher":{"kind":"fallible","beta":null,"mistakes":0.1,"skips":0.1,"skip_below":0.0,"gamma":1.0,"equal_within":0.0,"much_above":0.0},"answer_seconds":2.5,"labels":120,"env_steps":14000000,"seed":18446744073709551615,"backend":"shader"}"#;
        let run = ControlRun { backend: "shader".to_owned(), ..ControlRun::of("hopper_backflip") };
        let expected = RunSettings {
            teacher: TeacherKind::Fallible(TeacherNoise::HASTY),
            answer_seconds: 2.5,
            labels: 120,
            env_steps: 14_000_000,
            seed: u64::MAX,
            ..RunSettings::of_control(run)
        };
        assert_eq!(serde_json::from_str::<RunSettings>(control).unwrap(), expected);
        assert_eq!(serde_json::to_string(&expected).unwrap(), control);

        let text = r#"{"task":"text","reward":"preferences","teacher":{"kind":"mistaken","rate":0.05},"answer_seconds":0.0,"labels":500,"env_steps":3360,"seed":3,"backend":"lanes","text":{"until":"ppo","lora":{"rank":8,"alpha":16.0},"ppo":{"kl":{"target":4.0}}}}"#;
        let read: RunSettings = serde_json::from_str(text).unwrap();
        let run = read.text().unwrap();
        assert_eq!((run.ppo.kl.target, run.lora.as_ref().unwrap().rank, run.base_steps), (4.0, 8, 2400));
        assert_eq!((read.task(), read.seed, read.labels, read.env_steps), ("text", 3, 500, 3360));
        assert_eq!((read.backend(), read.teacher), ("", TeacherKind::Mistaken { rate: 0.05 }));
        let written = serde_json::to_string(&read).unwrap();
        assert!(written.starts_with(&text[..text.find("{\"until").unwrap()]), "{written}");
        assert_eq!(serde_json::from_str::<RunSettings>(&written).unwrap(), read);

        assert_eq!(serde_json::from_str::<RunSettings>("{}").unwrap(), RunSettings::default());
        assert!(serde_json::from_str::<RunSettings>(r#"{"tusk":"hopper"}"#).is_err());
    }

    #[test]
    fn overrides_of_the_tasks_file_are_stored() {
        let overrides: toml::Table = "ppo.num_steps = 128\nppo.gamma = 1.0\nlabels.choice = 'entropy'".parse().unwrap();
        let settings = RunSettings::of_control(ControlRun { overrides, ..ControlRun::default() });
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<RunSettings>(&json).unwrap(), settings);
    }
}
