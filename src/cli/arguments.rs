//! The arguments of the command line. Each verb's struct turns itself into settings.

use super::algorithms::BenchTextAlgorithms;
use crate::lab::{self, Precision, ThreadsPerWorld};
use crate::settings::folders::task_folders;
use crate::settings::{
    Asked, ControlRun, Mode, PreferenceLoss, RunSettings, TaskSpec, TeacherKind, TeacherNoise, TextPrecision,
    TextPreset, TextRun, TextStage,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
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
    #[arg(long, value_parser = super::text::presets(), required_unless_present = "loss", conflicts_with = "loss")]
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

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if (0.0..=3600.0).contains(&x) => Ok(x),
        _ => Err("expected seconds, from 0 to 3600".to_owned()),
    }
}

/// Parses a whole number, which may be written 1_000_000 or 1e6.
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
