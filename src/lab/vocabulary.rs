//! The words that cross between the lab and whoever drives it: the window, the terminal, a test.

pub use crate::settings::{TeacherKind, TextStage};
use flipside_core::{
    Choice, Clip, Completion, Item, JudgementId, PairId, PairReason, Scene, both_clips, both_completions,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What one can ask of a running lab.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Begin (or go on) training.
    Start,
    /// Stop stepping until [`Command::Start`]; a checkpoint is written. Judging goes on.
    Pause,
    /// The answer to the pair on show. Ignored, with an [`Event::Refused`], if `pair` is not the one on show.
    Judge {
        /// Which question is answered.
        pair: PairId,
        /// The answer.
        choice: Choice,
        /// From showing to answer.
        thinking_ms: u32,
    },
    /// Take the latest standing judgement of the person back; its pair is shown again.
    Undo,
    /// Take this judgement of [`Snapshot::disputed`] back for good; its pair is not shown again.
    Retract(JudgementId),
    /// Let this judgement stand, whatever the reward model says of it; it is not listed again.
    Keep(JudgementId),
    /// Who answers from now on.
    SetTeacher(TeacherKind),
    /// Write a checkpoint now.
    Save,
    /// Show what the current policy does, as soon as the worker can: a robot's into [`Snapshot::policy_clip`], a language model's into
    /// [`TextView::samples`].
    ShowPolicy,
    /// Text mode: answer this prompt with the model before and after teaching, into [`TextView::asked`].
    Ask(String),
    /// Text mode: ask about these prompts from now on, one or more, none empty.
    SetPrompts(Vec<String>),
    /// Save, close the session and end the worker.
    Quit,
}

/// Things that happened, in order. None may be lost, so they are few.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The answer is on disk.
    Judged {
        /// Which question.
        pair: PairId,
        /// Labels that stand now.
        labels: usize,
    },
    /// The latest judgement was taken back, and that is on disk.
    Retracted {
        /// Which question it answered; after [`Command::Undo`] it is open again.
        pair: PairId,
    },
    /// The command could not be carried out; the sentence says why.
    Refused(String),
    /// The run goes on, but otherwise than was asked; the sentence says how and why.
    Warned(String),
    /// A checkpoint is on disk.
    Saved {
        /// Env steps of training in it.
        env_steps: u64,
    },
    /// The run paused itself, and why, in one sentence with what to do next. The last good checkpoint stays.
    Faulted(String),
    /// All planned steps are done.
    Finished,
    /// The worker ended; no more events follow.
    Closed,
}

/// What the lab is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Making the first clips.
    #[default]
    Starting,
    /// Stepping and learning.
    Training,
    /// Resting until the person answers: training may not outrun the judgement that it lives on.
    Waiting,
    /// Waiting for [`Command::Start`].
    Paused,
    /// Paused by a fault; see [`Event::Faulted`].
    Faulted,
    /// All planned steps are done; judging and replay still work.
    Finished,
}

/// A pair ready to be shown.
#[derive(Clone, Debug)]
pub struct PairView {
    /// The question.
    pub id: PairId,
    /// `[left, right]`, as they must be shown: two clips, or in text mode two completions of one prompt.
    pub items: [Item; 2],
    /// Why it is asked.
    pub reason: PairReason,
}

impl PairView {
    /// Both clips, where a robot is taught.
    pub fn clips(&self) -> Option<[&Arc<Clip>; 2]> {
        both_clips(&self.items)
    }

    /// Both completions, in text mode.
    pub fn completions(&self) -> Option<[&Arc<Completion>; 2]> {
        both_completions(&self.items)
    }
}

/// A standing judgement that the reward model contradicts: a slip, a change of mind, or what the model has not understood.
#[derive(Clone, Debug)]
pub struct DisputedView {
    /// The answer.
    pub judgement: JudgementId,
    /// What was asked.
    pub pair: PairView,
    /// What was answered.
    pub choice: Choice,
    /// The probability that the members which never learnt from it give to the left clip.
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
    /// Every curve there is: name, label on the desk, and what it is.
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
            "foreseen",
            "Foreseen",
            "Share of the latest judgements that the reward model foresaw before it learnt from them",
        ),
        (
            "spread",
            "Spread on new movements",
            "How far the reward models differ about what the robot does, over the same of what was judged",
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
            "Mean score of the reward model over an update's completions; 0 is the supervised model, 1 its spread",
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
    ];
}

/// What text mode shows beside pairs and curves.
#[derive(Clone, Debug, Default)]
pub struct TextView {
    /// The model in a few words, e.g. `GPT-2, 0.9 M parameters, f32, LoRA r = 16`.
    pub model: String,
    /// The stage that is being trained.
    pub stage: TextStage,
    /// Steps done in it.
    pub done: u64,
    /// Steps that it takes in all.
    pub of: u64,
    /// What is being done right now, e.g. `Writing completions`; empty while nothing is.
    pub doing: String,
    /// Whether a gold score is known, so that a simulated teacher can answer.
    pub has_gold: bool,
    /// The prompts that are asked about. Their number may be large; shared, so a clone is cheap.
    pub prompts: Arc<Vec<String>>,
    /// The same few prompts, answered then and now.
    pub samples: Arc<Vec<TextSample>>,
    /// The latest free prompt and its answers.
    pub asked: Option<Arc<TextSample>>,
    /// The KL that β is steered to, nats; `None` where β is fixed.
    pub kl_target: Option<f64>,
}

/// A prompt, answered before and after teaching. While a text streams in it grows from snapshot to snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextSample {
    /// The prompt as a person reads it.
    pub prompt: String,
    /// What the supervised model writes.
    pub before: Completion,
    /// What the policy writes now; its log-ratios say how far each token moved.
    pub now: Completion,
    /// Whether both are written to their end.
    pub complete: bool,
}

/// The whole picture at one moment: latest value wins, so a slow window never queues stale frames. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The task's name.
    pub task: String,
    /// Whether preferences (true) or the task's own reward (false) drive learning.
    pub from_preferences: bool,
    /// What the robot looks like.
    pub scene: Arc<Scene>,
    /// What the lab is doing.
    pub phase: Phase,
    /// The fault's sentence, while [`Phase::Faulted`].
    pub fault: Option<String>,
    /// Who answers.
    pub teacher: TeacherKind,
    /// The pair on show; `None` only until the first clips exist or while a simulated teacher answers.
    pub pair: Option<PairView>,
    /// The latest pair that a simulated teacher answered, and its answer, so that a person can watch what it prefers; `None` while
    /// a person answers.
    pub taught: Option<(PairView, Choice)>,
    /// Pairs ready behind it.
    pub pairs_ready: usize,
    /// Judgements that stand.
    pub labels: usize,
    /// Judgements planned, if there is a plan.
    pub labels_planned: Option<usize>,
    /// How many labels the schedule would like to have by now; the desk shows it as a pace.
    pub labels_wanted: usize,
    /// Judgements a minute over the last few minutes of judging.
    pub labels_per_minute: f64,
    /// Share of held-out judgements that the reward model gets right; `None` before there are any.
    pub agreement: Option<f64>,
    /// Of the pairs that were asked again with their sides changed, the share that got the same answer, and how many; `None` before there are any.
    pub consistency: Option<(f64, usize)>,
    /// Why the learned reward should not be trusted, in a sentence with what to do; `None` while it can be.
    pub alarm: Option<String>,
    /// Judgements that the reward model contradicts most, the worst first.
    pub disputed: Arc<Vec<DisputedView>>,
    /// Env steps done; in text mode steps of all stages together.
    pub env_steps: u64,
    /// Env steps planned.
    pub env_steps_planned: u64,
    /// Env steps a second, learning included, over the last seconds.
    pub env_steps_per_s: f64,
    /// Seconds left at that pace; `None` while unknown or paused.
    pub seconds_left: Option<f64>,
    /// Learning curves, in the order of [`Curve::NAMES`]; shared, so a clone is cheap.
    pub curves: Arc<Vec<Curve>>,
    /// The current policy running, deterministically; `None` until first asked for or made.
    pub policy_clip: Option<Arc<Clip>>,
    /// What only text mode has; `None` where a robot is taught.
    pub text: Option<Arc<TextView>>,
    /// The session's folder.
    pub folder: PathBuf,
    /// When this snapshot was made.
    pub at: Instant,
}

/// The line to a running lab, as its user sees it. The worker implements it; a test's scripted lab can too.
pub trait Link: Send {
    /// Queues a command. Returns false when the lab has closed or its (bounded) queue is full; the command is then not taken.
    fn send(&self, command: Command) -> bool;

    /// Every event since the last call, oldest first. Never blocks.
    fn events(&self) -> Vec<Event>;

    /// The latest picture. Never blocks for long.
    fn snapshot(&self) -> Arc<Snapshot>;
}
