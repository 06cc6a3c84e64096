//! The types that pass between the lab and its users: the window, the command line, tests.

pub use super::inside::*;
use crate::settings::RunSettings;
pub use crate::settings::{TeacherKind, TextStage};
use flipside_core::{
    Choice, Clip, Completion, Item, JudgementId, PairId, PairReason, Scene, both_clips, both_completions,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Commands to a running lab.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Begin or continue training.
    Start,
    /// Stop stepping until [`Command::Start`]; a checkpoint is written. Judgements are still accepted.
    Pause,
    /// The answer to the pair on show. If `pair` is not on show, it is refused with an [`Event::Refused`].
    Judge {
        /// Which question is answered.
        pair: PairId,
        /// The answer.
        choice: Choice,
        /// Milliseconds between showing the pair and the answer.
        thinking_ms: u32,
    },
    /// Take back the person's latest standing judgement; its pair is shown again.
    Undo,
    /// Take back this judgement of [`Snapshot::disputed`] for good; its pair is not shown again.
    Retract(JudgementId),
    /// Confirm this judgement, whatever the reward model says of it; it is not listed again.
    Confirm(JudgementId),
    /// Who answers from now on.
    SetTeacher(TeacherKind),
    /// Write a checkpoint now.
    Save,
    /// Show what the current policy does as soon as the worker can. For a robot the result is
    /// [`ControlView::policy_clip`], for a language model [`TextView::samples`].
    ShowPolicy,
    /// Text mode: answer this prompt with the model before and after preference learning; the result is
    /// [`TextView::asked`].
    Ask(String),
    /// Text mode: look inside the models, in place of what is being looked at; the result is [`TextView::inside`]. A
    /// view that is not there yet is added to those of the same prompt and answers. Any other request begins anew.
    Look(InsideRequest),
    /// Text mode: stop looking. What was found so far stays.
    StopLooking,
    /// Text mode: ask about these prompts from now on. There must be at least one, and none may be empty.
    SetPrompts(Vec<String>),
    /// Save, close the session and end the worker.
    Quit,
}

/// Things that happened, in order. No event may be lost, so there are few.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The answer is on disk.
    Judged {
        /// Which question.
        pair: PairId,
        /// Number of standing labels now.
        labels: usize,
    },
    /// A judgement was taken back, and this is on disk.
    Retracted {
        /// The pair that it was about. After [`Command::Undo`] that pair is on show again.
        pair: PairId,
    },
    /// The command could not be carried out; the sentence says why.
    Refused(String),
    /// The run continues differently from what was asked; the sentence says how and why.
    Warned(String),
    /// A checkpoint is on disk.
    Saved {
        /// Env steps of training that it contains.
        env_steps: u64,
    },
    /// The run paused itself. One sentence says why and what to do next. The last intact checkpoint is still there.
    Faulted(String),
    /// All planned steps are done.
    Finished,
    /// The worker ended; no more events follow.
    Closed,
}

/// What the lab is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Collecting the first clips.
    #[default]
    Starting,
    /// Stepping and learning.
    Training,
    /// Waiting for the teacher's answer: training may not run too far ahead of the judgements that its reward is
    /// learned from.
    Waiting,
    /// Waiting for [`Command::Start`].
    Paused,
    /// Paused by a fault; see [`Event::Faulted`].
    Faulted,
    /// All planned steps are done; judgements are still accepted, and replay still works.
    Finished,
}

/// A pair that is ready to be shown.
#[derive(Clone, Debug)]
pub struct PairView {
    /// The question's ID.
    pub id: PairId,
    /// `[left, right]`, as they must be shown: two clips, or in text mode two completions of the same prompt.
    pub items: [Item; 2],
    /// Why this pair is asked.
    pub reason: PairReason,
}

impl PairView {
    /// Both clips, if the run is a robot's.
    pub fn clips(&self) -> Option<[&Arc<Clip>; 2]> {
        both_clips(&self.items)
    }

    /// Both completions, in text mode.
    pub fn completions(&self) -> Option<[&Arc<Completion>; 2]> {
        both_completions(&self.items)
    }
}

/// A standing judgement that the reward model contradicts. It may be a slip or a change of mind, or the model may be
/// wrong.
#[derive(Clone, Debug)]
pub struct DisputedView {
    /// The answer.
    pub judgement: JudgementId,
    /// What was asked.
    pub pair: PairView,
    /// What was answered.
    pub choice: Choice,
    /// The probability that left is preferred, according to the ensemble members that never learned from this
    /// judgement.
    pub left: f64,
}

/// One named learning curve; the points are `[env steps, value]`, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Stable name, e.g. `true_return`; see [`Curve::NAMES`].
    pub name: &'static str,
    /// Points.
    pub points: Vec<[f64; 2]>,
}

impl Curve {
    /// All curves: name, label on the desk, and description.
    pub const NAMES: &'static [(&'static str, &'static str, &'static str)] = &[
        (
            "true_return",
            "True return",
            "Mean of the task's own return over recent episodes; the policy never sees it in preference mode",
        ),
        ("learned_return", "Learned return", "Mean return of recent episodes under the reward model"),
        ("agreement", "Held-out agreement", "Share of held-out judgements that the reward model gets right"),
        (
            "random_answers",
            "Random answers",
            "Share of the judgements that the reward model takes for random, as it has learnt from them",
        ),
        (
            // Sessions on disk know this curve by its older name.
            "foreseen",
            "Recent agreement",
            "Share of the latest judgements that the reward model predicted before it learnt from them",
        ),
        (
            "spread",
            "Spread on new behaviour",
            "How far the reward models differ about what the policy does, over the same of what was judged",
        ),
        ("alarm", "Alarm", "1 while the learned reward should not be trusted"),
        ("reward_loss", "Reward loss", "Held-out cross-entropy of the reward model, nats"),
        ("entropy", "Policy entropy", "Nats"),
        (
            "state_entropy",
            "State entropy",
            "Of the states seen lately while the policy explores before the first answers, nats in units of their spread",
        ),
        ("kl", "Update KL", "Approximate KL of the last policy update, nats"),
        ("value_loss", "Value loss", "Mean squared error of the critic on normalised returns"),
        ("labels", "Labels", "Standing judgements"),
        (
            "base_loss",
            "Base loss",
            "Negative log-likelihood of documents while the base model learns the language, nats a token",
        ),
        ("supervised_loss", "Supervised loss", "Negative log-likelihood of demonstrations, nats a token"),
        (
            "reward",
            "Reward",
            "Mean score of an update's completions; of a reward model, 0 is the supervised model and 1 its spread",
        ),
        (
            "gold",
            "Gold score",
            "Mean true score of an update's completions, where it is known; the policy never sees it",
        ),
        ("reference_kl", "KL to reference", "Mean of log π − log π_ref over whole completions, nats"),
        (
            "beta",
            "β, price of a nat",
            "What a nat of KL costs in units of the reward; steered so that the KL comes to its target",
        ),
        ("length", "Length", "Mean length of a completion, tokens"),
        ("ended", "Ended", "Share of the completions that come to an end rather than being cut"),
        ("preference_loss", "Preference loss", "Loss of DPO or a relative of it on the pairs of a step"),
        (
            "preference_accuracy",
            "Preference accuracy",
            "Share of a step's pairs whose better completion the policy has moved towards more than the other one",
        ),
        (
            "preference_margin",
            "Preference margin",
            "How far the better completion is ahead of the other one: β times the difference of their log-ratios",
        ),
        ("chosen_log_prob", "Log π of the better", "Mean over the better completions of a step, nats"),
        ("rejected_log_prob", "Log π of the worse", "Mean over the worse completions of a step, nats"),
        ("log_ratio", "Log-ratio", "Mean of log π − log π_ref over the completions of a step, nats"),
        ("grad_norm", "Gradient norm", "Length of a step's gradient before it is clipped"),
        ("ilql_loss", "ILQL loss", "Weighted sum of the losses of Q, V and the language model"),
        ("q_loss", "Q loss", "Squared error of both Q heads, mean over tokens"),
        ("v_loss", "V loss", "Expectile loss of V, mean over tokens"),
        ("q", "Q", "Mean Q of the tokens of the data, in standard deviations of the score"),
        ("v", "V", "Mean V, in standard deviations of the score"),
        ("nll", "Token loss", "Negative log-likelihood of the data, nats a token"),
        (
            "equal_groups",
            "Equal groups",
            "Share of the prompts whose completions all have the same score, or of the answers without a winner",
        ),
    ];
}

/// What a snapshot has of its mode only, as [`Mode`](crate::settings::Mode) has the settings of one mode.
#[derive(Clone, Debug)]
pub enum ModeView {
    /// A robot is taught.
    Control(ControlView),
    /// A language model is taught. The view is shared, so a clone is cheap.
    Text(Arc<TextView>),
}

/// What only a robot's run has.
#[derive(Clone, Debug)]
pub struct ControlView {
    /// The task's name.
    pub task: String,
    /// Whether the reward is learned from preferences (true) or is the task's own (false).
    pub from_preferences: bool,
    /// The scene that shows the robot.
    pub scene: Arc<Scene>,
    /// A clip of the current policy without exploration; `None` until one was first asked for or made.
    pub policy_clip: Option<Arc<Clip>>,
}

/// What only text mode has.
#[derive(Clone, Debug, Default)]
pub struct TextView {
    /// The model in a few words, e.g. `GPT-2, 0.9 M parameters, f32, LoRA r = 16`.
    pub model: String,
    /// The pipeline stage that is being trained.
    pub stage: TextStage,
    /// Steps done in this stage.
    pub done: u64,
    /// Planned steps of this stage.
    pub of: u64,
    /// What is being done right now, e.g. `Writing completions`; empty if nothing is.
    pub doing: String,
    /// Whether gold scores are known, so that a simulated teacher can answer.
    pub has_gold: bool,
    /// The prompts that are asked about. There may be many; they are shared, so a clone is cheap.
    pub prompts: Arc<Vec<String>>,
    /// A few fixed prompts, answered by the supervised model and by the current policy.
    pub samples: Arc<Vec<TextSample>>,
    /// The latest free prompt and its answers.
    pub asked: Option<Arc<TextSample>>,
    /// What was found inside the models; `None` before anybody looked.
    pub inside: Option<Arc<Inside>>,
    /// The KL that β is adapted to, nats; `None` if β is fixed.
    pub kl_target: Option<f64>,
}

/// A prompt, answered before and after preference learning. While the texts are being written, they grow from snapshot
/// to snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextSample {
    /// The prompt as text.
    pub prompt: String,
    /// What the supervised model writes.
    pub before: Completion,
    /// What the policy writes now; its log-ratios say how far each token moved.
    pub now: Completion,
    /// Whether both texts are complete.
    pub complete: bool,
}

/// The complete state at one moment. Only the latest value is stored, so a slow window never queues stale frames. Cheap
/// to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What is taught, with what only this mode has.
    pub mode: ModeView,
    /// What the lab is doing.
    pub phase: Phase,
    /// The sentence that describes the fault, while the phase is [`Phase::Faulted`].
    pub fault: Option<String>,
    /// Who answers.
    pub teacher: TeacherKind,
    /// The pair on show; `None` until the first clips exist, and while a simulated teacher answers at once.
    pub pair: Option<PairView>,
    /// The latest pair that a simulated teacher answered, and its answer, so that a person can watch what it prefers;
    /// `None` while a person answers.
    pub taught: Option<(PairView, Choice)>,
    /// Pairs that wait behind the one on show.
    pub pairs_ready: usize,
    /// Number of standing judgements.
    pub labels: usize,
    /// Judgements planned, if there is a plan.
    pub labels_planned: Option<usize>,
    /// How many labels the schedule wants by now; the desk shows this as a pace.
    pub labels_wanted: usize,
    /// Judgements per minute over the last few minutes of answering.
    pub labels_per_minute: f64,
    /// Held-out agreement: the share of held-out judgements that the reward model predicts; `None` before there are
    /// any.
    pub agreement: Option<f64>,
    /// Of the pairs that were asked again with their sides swapped, the share that got the same answer, and their
    /// number; `None` before there are any.
    pub consistency: Option<(f64, usize)>,
    /// Why the learned reward should not be trusted, and what to do about it, in a sentence; `None` while it can be
    /// trusted.
    pub alarm: Option<String>,
    /// The judgements that the reward model contradicts most, the worst first.
    pub disputed: Arc<Vec<DisputedView>>,
    /// Env steps done; in text mode, the steps of all pipeline stages together.
    pub env_steps: u64,
    /// Env steps planned.
    pub env_steps_planned: u64,
    /// Env steps per second over the last few seconds, including learning.
    pub env_steps_per_s: f64,
    /// Seconds left at that speed; `None` if unknown or paused.
    pub seconds_left: Option<f64>,
    /// Learning curves, in the order of [`Curve::NAMES`]; shared, so a clone is cheap.
    pub curves: Arc<Vec<Curve>>,
    /// The session's folder.
    pub folder: PathBuf,
    /// When this snapshot was made.
    pub at: Instant,
}

impl Snapshot {
    /// The robot's part; `None` in text mode.
    pub fn control(&self) -> Option<&ControlView> {
        match &self.mode {
            ModeView::Control(view) => Some(view),
            ModeView::Text(_) => None,
        }
    }

    /// The language model's part; `None` if a robot is taught.
    pub fn text(&self) -> Option<&TextView> {
        match &self.mode {
            ModeView::Control(_) => None,
            ModeView::Text(view) => Some(view),
        }
    }

    /// The task's name; [`RunSettings::TEXT`] in text mode.
    pub fn task(&self) -> &str {
        self.control().map_or(RunSettings::TEXT, |view| &view.task)
    }

    /// Whether the reward is learned from preferences; in text mode always.
    pub fn from_preferences(&self) -> bool {
        self.control().is_none_or(|view| view.from_preferences)
    }
}

/// The connection to a running lab, as its user sees it. [`Lab`](super::Lab) implements it; a scripted lab in a test
/// can too.
pub trait Link: Send {
    /// Queues a command. Returns false if the lab has closed or its bounded queue is full; the command is then dropped.
    fn send(&self, command: Command) -> bool;

    /// Every event since the last call, oldest first. Never blocks.
    fn events(&self) -> Vec<Event>;

    /// The latest snapshot. Never blocks for long.
    fn snapshot(&self) -> Arc<Snapshot>;
}
