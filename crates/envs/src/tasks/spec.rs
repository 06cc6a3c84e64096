//! The contents of a task file: `envs/NAME.toml` is parsed and checked into a [`TaskSpec`].
//!
//! A task is data. A person can copy `envs/hopper.toml`, change a line and have a new task without recompiling. The
//! vocabulary is small. A [`SignalSpec`] names numbers that the simulation offers. The observation is a list of
//! signals. A reward term is a weight times a simple function of a signal. The robot is *healthy* while every listed
//! signal stays inside its bounds. This covers Gymnasium's MuJoCo tasks.
//!
//! This file checks everything that can be checked without the robot. Joint and body names are checked when the task is
//! bound to its model ([`crate::gym::Task::new`]). Both report file, line and what was expected.

use flipside_core::one_line;
use flipside_core::settings::{
    ExploreSettings, LabelSettings, MonitorSettings, PpoSettings, RewardModelSettings, earlier_names,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::sync::Arc;
use toml::Spanned;

/// A mistake in a task file, reported to its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct SpecError {
    /// The file, by the name it was read under.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What was found and what was expected.
    pub message: String,
}

/// The source of a task's text. It turns positions in the text into file and line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The file, as messages name it.
    pub file: String,
    text: Arc<str>,
}

impl Origin {
    /// An error at a position in the text (a byte range, as [`Spanned::span`] gives it).
    pub fn error(&self, place: Range<usize>, message: impl Into<String>) -> SpecError {
        let line = 1 + self.text.bytes().take(place.start).filter(|&b| b == b'\n').count();
        SpecError { file: self.file.clone(), line, message: one_line(&message.into()) }
    }

    /// Parses the text as TOML.
    fn read<T: DeserializeOwned>(&self) -> Result<T, SpecError> {
        toml::from_str(&self.text)
            .map_err(|e| self.error(e.span().unwrap_or_default(), e.message().trim().replace('\n', "; ")))
    }
}

/// A task: what the robot observes, what it is rewarded for, when an episode ends and how it begins.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// The file's name without `.toml`. The command line uses this name for the task.
    #[serde(skip)]
    pub name: String,
    /// The source of the text.
    #[serde(skip)]
    pub origin: Origin,
    /// The name in the robot picker, e.g. `Hopper`.
    pub title: String,
    /// One sentence for the robot picker.
    pub description: String,
    /// Gymnasium's id, e.g. `Hopper-v5`, for tasks that mirror one.
    pub gymnasium: Option<String>,
    /// The MJCF file of the robot, beside the task's file.
    pub model: Spanned<String>,
    /// Physics timesteps for which one action is held.
    pub frame_skip: Spanned<usize>,
    /// Env steps after which an episode is truncated.
    pub horizon: Spanned<u32>,
    /// Whether an unhealthy robot ends the episode (named as in Gymnasium). The `alive` reward stops either way.
    #[serde(default = "yes")]
    pub terminate_when_unhealthy: bool,
    /// How an episode begins.
    #[serde(default)]
    pub reset: ResetSpec,
    /// The observation's signals, in order.
    pub observation: Vec<SignalSpec>,
    /// The terms of the reward, which is their sum.
    pub reward: Vec<RewardSpec>,
    /// The terms that simulated teachers judge by, if they do not judge by the reward. They have the form of `reward`.
    /// Neither policy nor reward model sees them.
    #[serde(default)]
    pub teacher: Vec<RewardSpec>,
    /// The bounds within which the robot is healthy. Without bounds it always is.
    #[serde(default)]
    pub healthy: Vec<HealthSpec>,
    /// What counts as a landed flip, for `flipside eval`.
    pub flips: Option<FlipSpec>,
    /// The run length and target of `flipside bench learning`.
    pub benchmark: Option<BenchmarkSpec>,
    /// Env steps of a run, unless the run says otherwise.
    pub env_steps: Option<Spanned<u64>>,
    /// PPO's settings for this task: what differs from [`PpoSettings::default`].
    pub ppo: Option<Spanned<PpoSettings>>,
    /// How labels are collected: what differs from [`LabelSettings::default`].
    #[serde(default)]
    pub labels: LabelSettings,
    /// How an untrained policy explores: what differs from [`ExploreSettings::default`].
    #[serde(default)]
    pub explore: ExploreSettings,
    /// How the reward model is fitted: what differs from [`RewardModelSettings::default`].
    pub reward_model: Option<Spanned<RewardModelSettings>>,
    /// When the learned reward is not trusted: what differs from [`MonitorSettings::default`].
    #[serde(default)]
    pub monitor: MonitorSettings,
}

/// A learning benchmark: the task's own reward, the file's `[ppo]` and this many env steps.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkSpec {
    /// Env steps of a run, over which the learning rate is annealed.
    pub env_steps: u64,
    /// The mean return to reach.
    pub target_return: f64,
    /// The training time on two cores within which it should be reached, seconds.
    pub within_s: f64,
}

/// Where `flipside eval` finds what it needs to count landed flips, independently of any reward. `gym::FlipCounter`
/// defines a flip.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlipSpec {
    /// The hinge that measures the torso's pitch, unwrapped, radians; a flip lowers it by a full turn.
    pub pitch: Spanned<String>,
    /// The slide that measures the torso's height, metres.
    pub height: Spanned<String>,
    /// The robot is upright if its pitch is less than this away from whole turns, radians …
    pub upright_within: Spanned<f64>,
    /// … and its torso is higher than this, metres.
    pub upright_above: Spanned<f64>,
    /// Seconds for which it must stay upright after the turn.
    pub for_seconds: Spanned<f64>,
}

/// Numbers that the simulation offers, with a selection and a transformation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalSpec {
    /// Which numbers.
    pub source: Spanned<Source>,
    /// For `qpos`, `qvel` and the `qfrc` sources: only these joints' entries, in this order. If omitted, all joints'.
    pub joints: Option<Vec<Spanned<String>>>,
    /// For `body`: the body.
    pub body: Option<Spanned<String>>,
    /// For `body`: a point in the body's own frame instead of its origin, metres.
    pub offset: Option<Spanned<[f64; 3]>>,
    /// For `body`: the position relative to this body's.
    pub relative_to: Option<Spanned<String>>,
    /// Drops this many numbers from the start.
    pub skip: Option<Spanned<usize>>,
    /// Then keeps only this many.
    pub take: Option<Spanned<usize>>,
    /// A function applied to each number.
    pub map: Option<Map>,
    /// Then each number is clipped to `[low, high]`.
    pub clip: Option<Spanned<[f64; 2]>>,
}

/// The numbers that a signal can start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Joint positions, metres and radians; a free joint's seven are x y z and a quaternion w x y z.
    Qpos,
    /// Joint velocities.
    Qvel,
    /// `qpos`, then `qvel`.
    State,
    /// The action as the actuators received it; zero after a reset.
    Action,
    /// The position of a body or of a point on it: x, y, z in metres, world frame.
    Body,
    /// Contact torque and force on each body except the world, six numbers per body, as MuJoCo's `cfrc_ext`; zero after
    /// a reset.
    CfrcExt,
    /// The position of the centre of mass of all bodies: x, y, z in metres, world frame.
    CenterOfMass,
    /// Inertias about the centre of mass, ten numbers per body except the world, as MuJoCo's `cinert`.
    Cinert,
    /// Velocities about the centre of mass, six numbers per body except the world, as MuJoCo's `cvel`.
    Cvel,
    /// Actuator forces on every degree of freedom, as MuJoCo's `qfrc_actuator`; zero after a reset.
    QfrcActuator,
    /// Forces of limits and contacts on every degree of freedom, as MuJoCo's `qfrc_constraint`.
    QfrcConstraint,
}

/// A function applied to each number of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Map {
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
}

/// One term of the reward: `weight` × the number that `kind` computes from the signal.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSpec {
    /// Its name in the step's info; Gymnasium's name if it has one.
    pub name: Spanned<String>,
    /// How the term is computed from the signal.
    pub kind: Spanned<RewardKind>,
    /// The signal. Every kind except `alive` needs one.
    pub of: Option<SignalSpec>,
    /// For `dot`: the signal that `of` is multiplied with, element by element.
    pub with: Option<SignalSpec>,
    /// Signals of one number each that the term is multiplied with.
    #[serde(default)]
    pub times: Vec<SignalSpec>,
    /// Bounds that must all hold after the step for the term to be paid.
    #[serde(default)]
    pub when: Vec<HealthSpec>,
    /// The factor; negative for a cost.
    pub weight: Spanned<f64>,
    /// Subtracted from each number of the signal first.
    pub target: Option<Spanned<f64>>,
    /// The term, weight included, is clipped to `[low, high]`.
    pub clip: Option<Spanned<[f64; 2]>>,
}

/// How a reward term is computed from its signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// 1 if the robot is healthy after the step, else 0. The step that ends the episode therefore earns 0.
    Alive,
    /// The change of the signal (one number) over the env step, per second.
    Velocity,
    /// The signal (one number) itself.
    Value,
    /// The sum of the squares of its numbers.
    SumSquares,
    /// The Euclidean length of its numbers.
    Norm,
    /// The sum of its numbers, each times the number of `with` at the same index.
    Dot,
}

/// A bound on a signal. A healthy robot keeps it, or a reward term requires it. It applies to every number of the
/// signal after the step. A number that is not finite violates every bound.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// The signal.
    pub of: SignalSpec,
    /// Greater than this.
    pub above: Option<Spanned<f64>>,
    /// Less than this.
    pub below: Option<Spanned<f64>>,
    /// Greater than or equal to this.
    pub at_least: Option<Spanned<f64>>,
    /// Less than or equal to this.
    pub at_most: Option<Spanned<f64>>,
    /// `true`: the numbers must be finite, and no other bound is needed.
    #[serde(default)]
    pub finite: bool,
}

/// How an episode begins: the model's initial state, plus noise, plus joints placed at random.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetSpec {
    /// Noise added to each joint position.
    pub qpos: Option<Spanned<Noise>>,
    /// Noise added to each joint velocity.
    pub qvel: Option<Spanned<Noise>>,
    /// Joints that are placed at random instead, e.g. a target.
    #[serde(default)]
    pub place: Vec<PlaceSpec>,
}

/// Noise around an initial value.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// Uniform within ± this.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// Joints that start at a random point of a box, at rest. The point is drawn again until its distance from `center` is
/// right.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceSpec {
    /// Joints with one number each.
    pub joints: Spanned<Vec<Spanned<String>>>,
    /// The box's lower corner, one number per joint.
    pub low: Spanned<Vec<f64>>,
    /// The box's upper corner.
    pub high: Spanned<Vec<f64>>,
    /// The point that distances are measured from; zeros if omitted.
    pub center: Option<Spanned<Vec<f64>>>,
    /// The distance is less than this.
    pub nearer_than: Option<Spanned<f64>>,
    /// The distance is more than this.
    pub farther_than: Option<Spanned<f64>>,
}

fn yes() -> bool {
    true
}

/// Merges `changes` into `table`, key by key; `changes` win.
pub fn overlay(table: &mut toml::Table, changes: toml::Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(toml::Value::Table(part)), toml::Value::Table(changes)) => overlay(part, changes),
            (_, change) => drop(table.insert(key, change)),
        }
    }
}

/// Renames settings of a task's file that have an earlier name to their current name, so that no setting occurs twice.
pub fn use_names_of_today(table: &mut toml::Table) {
    let tables = [
        ("ppo", earlier_names::<PpoSettings>()),
        ("labels", earlier_names::<LabelSettings>()),
        ("explore", earlier_names::<ExploreSettings>()),
        ("reward_model", earlier_names::<RewardModelSettings>()),
        ("monitor", earlier_names::<MonitorSettings>()),
    ];
    for (name, renamed) in tables {
        let Some(toml::Value::Table(settings)) = table.get_mut(name) else { continue };
        for (earlier, today) in renamed {
            if let Some(value) = settings.remove(&earlier) {
                settings.insert(today, value);
            }
        }
    }
}

impl TaskSpec {
    /// Reads a task. `name` is the task's name, and `file` is what messages call the text.
    ///
    /// # Errors
    /// Broken TOML, an unknown or missing key, a value of the wrong type or out of its range. The error gives file,
    /// line and what was expected.
    pub fn parse(text: &str, name: &str, file: &str) -> Result<TaskSpec, SpecError> {
        let origin = Origin { file: file.to_owned(), text: text.into() };
        let mut spec: TaskSpec = origin.read()?;
        spec.name = name.to_owned();
        spec.origin = origin;
        spec.check()?;
        Ok(spec)
    }

    /// The same task with other settings. `assignments` are lines of TOML, separated by `;` or line ends, and replace
    /// the values of the file. Example: `labels.choice = "entropy"; labels.random_share = 0`.
    ///
    /// # Errors
    /// As [`TaskSpec::parse`]'s.
    pub fn with(&self, assignments: &str) -> Result<TaskSpec, SpecError> {
        let asked =
            Origin { file: format!("`{}`", one_line(assignments)), text: assignments.replace(';', "\n").into() };
        self.changed(asked.read()?, assignments)
    }

    /// As [`TaskSpec::with`], for assignments that are already parsed.
    ///
    /// # Errors
    /// As [`TaskSpec::parse`]'s.
    pub fn overridden(&self, changes: &toml::Table) -> Result<TaskSpec, SpecError> {
        self.changed(changes.clone(), changes.to_string().trim_end().replace('\n', "; ").as_str())
    }

    /// `said` is what messages call the changes.
    fn changed(&self, changes: toml::Table, said: &str) -> Result<TaskSpec, SpecError> {
        let (mut whole, mut changes): (toml::Table, _) = (self.origin.read()?, changes);
        use_names_of_today(&mut whole);
        use_names_of_today(&mut changes);
        overlay(&mut whole, changes);
        // An error's line would refer to the merged text, which nobody has seen.
        let parsed = TaskSpec::parse(&whole.to_string(), &self.name, &self.origin.file);
        parsed.map_err(|error| SpecError { file: format!("{} with `{}`", error.file, one_line(said)), ..error })
    }

    /// The file as a table.
    ///
    /// # Errors
    /// A task that was not read from text.
    pub fn table(&self) -> Result<toml::Table, SpecError> {
        let mut table = self.origin.read()?;
        use_names_of_today(&mut table);
        Ok(table)
    }

    /// PPO's settings for this task: the file's `[ppo]` over the defaults.
    pub fn ppo(&self) -> PpoSettings {
        self.ppo.as_ref().map(|ppo| ppo.get_ref().clone()).unwrap_or_default()
    }

    /// How the reward model is fitted: the file's `[reward_model]` over the defaults.
    pub fn reward_model(&self) -> RewardModelSettings {
        self.reward_model.as_ref().map(|model| model.get_ref().clone()).unwrap_or_default()
    }

    /// Env steps of a run, unless the run says otherwise.
    pub fn env_steps(&self) -> u64 {
        self.env_steps.as_ref().map_or(TaskSpec::ENV_STEPS, |steps| *steps.get_ref())
    }

    /// Env steps of a run that a person teaches at the desk. If training waits for answers, this is the file's number;
    /// otherwise it is so large that nobody is hurried.
    pub fn desk_steps(&self) -> u64 {
        if self.labels.max_lead < 1.0 { self.env_steps() } else { TaskSpec::UNHURRIED }
    }

    /// [`TaskSpec::desk_steps`] if training does not wait for answers.
    pub const UNHURRIED: u64 = 20_000_000;

    /// [`TaskSpec::env_steps`] if the file does not say.
    pub const ENV_STEPS: u64 = 1_000_000;

    /// Checks everything that can be checked without the robot.
    fn check(&self) -> Result<(), SpecError> {
        let refuse = |place: Range<usize>, message: String| Err(self.origin.error(place, message));
        if *self.frame_skip.get_ref() == 0 {
            return refuse(self.frame_skip.span(), "expected `frame_skip` of 1 or more".into());
        }
        if *self.horizon.get_ref() == 0 {
            return refuse(self.horizon.span(), "expected a `horizon` of 1 step or more".into());
        }
        if self.observation.is_empty() {
            return refuse(0..0, "expected at least one [[observation]]".into());
        }
        if let Some(ppo) = &self.ppo {
            ppo.get_ref().check().or_else(|message| refuse(ppo.span(), message))?;
        }
        self.labels.check().or_else(|message| refuse(0..0, message))?;
        for signal in &self.observation {
            self.check_signal(signal)?;
        }
        for terms in [&self.reward, &self.teacher] {
            for (i, term) in terms.iter().enumerate() {
                self.check_term(term)?;
                let name = term.name.get_ref();
                if terms[..i].iter().any(|earlier| earlier.name.get_ref() == name) {
                    return refuse(term.name.span(), format!("expected a new name: `{name}` is already a reward term"));
                }
            }
        }
        self.healthy.iter().try_for_each(|bound| self.check_health(bound))?;
        if let Some(flips) = &self.flips {
            for number in [&flips.upright_within, &flips.upright_above, &flips.for_seconds] {
                self.check_finite(number, &[*number.get_ref()])?;
            }
        }
        for noise in [&self.reset.qpos, &self.reset.qvel].into_iter().flatten() {
            let (Noise::Uniform(size) | Noise::Normal(size)) = *noise.get_ref();
            if !(size.is_finite() && size >= 0.0) {
                return refuse(noise.span(), format!("expected noise of a finite size, zero or more, not {size}"));
            }
        }
        self.reset.place.iter().try_for_each(|place| self.check_place(place))
    }

    fn check_signal(&self, signal: &SignalSpec) -> Result<(), SpecError> {
        let source = *signal.source.get_ref();
        // Checks which keys go with which source. Otherwise a key in the wrong place would silently have no effect.
        let of_joints = [Source::Qpos, Source::Qvel, Source::QfrcActuator, Source::QfrcConstraint];
        let jointed = of_joints.contains(&source);
        let joints = signal.joints.as_ref().and_then(|j| j.first()).map(Spanned::span);
        let body_keys = [
            ("body", signal.body.as_ref().map(Spanned::span)),
            ("offset", signal.offset.as_ref().map(Spanned::span)),
            ("relative_to", signal.relative_to.as_ref().map(Spanned::span)),
        ];
        if let (false, Some(place)) = (jointed, joints) {
            return Err(self.origin.error(
                place,
                "`joints` goes with the sources `qpos`, `qvel`, `qfrc_actuator` and `qfrc_constraint` only",
            ));
        }
        for (key, place) in body_keys {
            if let (false, Some(place)) = (source == Source::Body, place) {
                return Err(self.origin.error(place, format!("`{key}` goes with the source `body` only")));
            }
        }
        if source == Source::Body && signal.body.is_none() {
            return Err(self.origin.error(signal.source.span(), "expected `body = \"NAME\"` beside the source `body`"));
        }
        if let Some(offset) = &signal.offset {
            self.check_finite(offset, offset.get_ref())?;
        }
        signal.clip.as_ref().map_or(Ok(()), |clip| self.check_interval(clip))
    }

    fn check_term(&self, term: &RewardSpec) -> Result<(), SpecError> {
        self.check_finite(&term.weight, &[*term.weight.get_ref()])?;
        if let Some(target) = &term.target {
            self.check_finite(target, &[*target.get_ref()])?;
        }
        if let Some(clip) = &term.clip {
            self.check_interval(clip)?;
        }
        term.times.iter().try_for_each(|factor| self.check_signal(factor))?;
        term.when.iter().try_for_each(|bound| self.check_health(bound))?;
        match (term.kind.get_ref(), &term.with) {
            (RewardKind::Dot, Some(with)) => self.check_signal(with)?,
            (RewardKind::Dot, None) => {
                let message = "expected `with = { source = \"…\" }` beside the kind `dot`: the signal to multiply with";
                return Err(self.origin.error(term.kind.span(), message));
            }
            (_, Some(with)) => {
                return Err(self.origin.error(with.source.span(), "`with` goes with the kind `dot` only"));
            }
            (_, None) => {}
        }
        match (term.kind.get_ref(), &term.of) {
            (RewardKind::Alive, Some(of)) => {
                Err(self.origin.error(of.source.span(), "a term of kind `alive` takes no signal: leave `of` out"))
            }
            (RewardKind::Alive, None) => Ok(()),
            (_, None) => {
                let message = "expected `of = { source = \"…\" }`: the signal that this term is made of";
                Err(self.origin.error(term.kind.span(), message))
            }
            (_, Some(of)) => self.check_signal(of),
        }
    }

    fn check_health(&self, bound: &HealthSpec) -> Result<(), SpecError> {
        self.check_signal(&bound.of)?;
        let bounds = [&bound.above, &bound.below, &bound.at_least, &bound.at_most];
        for value in bounds.into_iter().flatten() {
            self.check_finite(value, &[*value.get_ref()])?;
        }
        if !bound.finite && bounds.iter().all(|b| b.is_none()) {
            let message = "expected a bound: `above`, `below`, `at_least`, `at_most` or `finite = true`";
            return Err(self.origin.error(bound.of.source.span(), message));
        }
        Ok(())
    }

    fn check_place(&self, place: &PlaceSpec) -> Result<(), SpecError> {
        let joints = place.joints.get_ref().len();
        if joints == 0 {
            return Err(self.origin.error(place.joints.span(), "expected at least one joint"));
        }
        for corner in [Some(&place.low), Some(&place.high), place.center.as_ref()].into_iter().flatten() {
            if corner.get_ref().len() != joints {
                let message = format!("expected {joints} numbers, one a joint, not {}", corner.get_ref().len());
                return Err(self.origin.error(corner.span(), message));
            }
            self.check_finite(corner, corner.get_ref())?;
        }
        if place.low.get_ref().iter().zip(place.high.get_ref()).any(|(low, high)| low > high) {
            return Err(self.origin.error(place.high.span(), "expected `high` to be no less than `low`"));
        }
        for distance in [&place.nearer_than, &place.farther_than].into_iter().flatten() {
            self.check_finite(distance, &[*distance.get_ref()])?;
        }
        Ok(())
    }

    fn check_finite<T>(&self, place: &Spanned<T>, numbers: &[f64]) -> Result<(), SpecError> {
        match numbers.iter().find(|x| !x.is_finite()) {
            Some(x) => Err(self.origin.error(place.span(), format!("expected a finite number, not {x}"))),
            None => Ok(()),
        }
    }

    /// A clip may be open on one side (`inf`), but must contain a number.
    fn check_interval(&self, clip: &Spanned<[f64; 2]>) -> Result<(), SpecError> {
        let [low, high] = *clip.get_ref();
        if low <= high {
            return Ok(());
        }
        Err(self.origin.error(clip.span(), format!("expected [low, high] with low ≤ high, not [{low}, {high}]")))
    }
}
