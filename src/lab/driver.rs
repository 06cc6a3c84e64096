//! The loop of a run, written once: collect experience, ask about it, take the answers, fit the reward, improve the
//! policy.
//!
//! There are no threads, no files and no clock here. Time and answers are handed in, and each step says whether
//! training goes on, waits or has finished. The loop has two halves:
//!
//! - [`Training`] owns whatever learns. It knows how many pairs are due, when waiting pairs are stale, and when
//!   training should wait for answers.
//! - [`Questions`] owns the pairs that wait, the answers that stand, and the time of a simulated teacher's next answer.
//!
//! Between them lies a [`Desk`]. In a session the halves are on two threads, so that a person's pick never waits for
//! training: the worker drives the first, the ledger the second. A [`Driver`] has both in one place, for benchmarks and
//! tests: what they measure is the loop of a session.

use super::LabError;
use super::questions::{Answers, Offered, PAIRS_READY, Questions, Unrecorded};
use super::training_loop::{TrainingLoop, Values};
use crate::settings::RunSettings;
use flipside_core::PairId;
use std::time::Duration;

/// Where pairs are brought and answers are found.
pub(super) trait Desk {
    /// The time by the clock that simulated teachers keep.
    fn now(&self) -> Duration;

    /// How the answers stand now.
    fn answers(&mut self) -> Result<Answers, LabError>;

    /// Brings pairs worth asking, best first. A teacher that answers at once has answered them when this returns.
    fn offer(&mut self, pairs: Vec<Offered>, env_steps: u64) -> Result<(), LabError>;
}

/// What training should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    Train,
    /// Rest until there is another answer: training may not outrun the judgement that it lives on.
    Wait,
    /// Nothing: the plan is done.
    Finish,
}

/// The half of the loop that learns.
pub(super) struct Training<C: ?Sized> {
    /// Whatever learns.
    pub learner: Box<C>,
    /// When pairs were last offered.
    offered: Option<Duration>,
    /// The version of the labels, and the steps done when they came to it.
    answered: Option<(u64, u64)>,
}

impl<C: TrainingLoop + ?Sized> Training<C> {
    pub fn new(learner: Box<C>) -> Training<C> {
        Training { learner, offered: None, answered: None }
    }

    /// What to do next, as the answers stand.
    pub fn next(&mut self, answers: &Answers) -> Next {
        let steps = self.learner.steps();
        let since = match self.answered {
            Some((version, since)) if version == answers.labels_version => since,
            _ => steps,
        };
        self.answered = Some((answers.labels_version, since));
        if self.learner.finished() {
            return Next::Finish;
        }
        let waits = answers.asks_in_time
            && !answers.run_short()
            && self.learner.has_choice()
            && !self.learner.explores()
            && self.learner.waits(answers.labels.len(), steps - since);
        if waits { Next::Wait } else { Next::Train }
    }

    /// One round: collects experience, asks about it where that is due, and learns from both. Returns points of
    /// learning curves.
    pub fn train(&mut self, desk: &mut dyn Desk, cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        self.learner.collect(cancelled)?;
        self.ask(desk, cancelled)?;
        let labels = desk.answers()?.labels;
        self.learner.learn(&labels, cancelled)
    }

    /// Offers pairs where they are wanted: whoever takes time always has some waiting, of what the policy did lately;
    /// who answers at once is asked what the schedule wants by now. Returns whether there was anything to offer.
    pub fn ask(&mut self, desk: &mut dyn Desk, cancelled: &mut dyn FnMut() -> bool) -> Result<bool, LabError> {
        let answers = desk.answers()?;
        self.learner.set_teacher(answers.teacher);
        let standing = answers.labels.len();
        let count = if answers.asks_in_time {
            let age = |at| desk.now().saturating_sub(at);
            let stale = self.offered.is_none_or(|at| age(at) > self.learner.stale_after());
            if answers.run_short() || stale { PAIRS_READY + 1 } else { 0 }
        } else {
            self.learner.labels_due(standing)
        };
        if count == 0 {
            return Ok(false);
        }
        let pairs = self.learner.propose(count, standing, cancelled)?;
        if pairs.is_empty() {
            return Ok(false);
        }
        self.offered = Some(desk.now());
        desk.offer(pairs, self.learner.steps())?;
        Ok(true)
    }
}

/// What a step of a [`Driver`] did.
pub(super) enum Step {
    /// One round of training.
    Trained,
    /// Nothing: training waits for an answer, which a simulated teacher gives at this time.
    Waits(Option<Duration>),
    /// Nothing: the plan is done.
    Finished,
}

/// Both halves of the loop in one place.
pub(super) struct Driver<C: ?Sized> {
    pub training: Training<C>,
    pub questions: Questions,
    record: Unrecorded,
}

impl<C: TrainingLoop + ?Sized> Driver<C> {
    /// A run that begins.
    pub fn new(learner: Box<C>, settings: &RunSettings) -> Driver<C> {
        Driver {
            training: Training::new(learner),
            questions: Questions::new(settings, PairId(1)),
            record: Unrecorded::default(),
        }
    }

    /// Takes the answers that are due, and trains for one round unless training is done or has to wait. `clock` says
    /// how long the run has gone on.
    pub fn step(
        &mut self,
        clock: &dyn Fn() -> Duration,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Step, LabError> {
        let Driver { training, questions, record } = self;
        let mut desk = Here { questions, record, clock };
        Ok(match training.next(&desk.answers()?) {
            Next::Train => {
                training.train(&mut desk, cancelled)?;
                Step::Trained
            }
            Next::Wait => Step::Waits(questions.next_answer_at()),
            Next::Finish => Step::Finished,
        })
    }
}

/// A desk without a thread of its own: what is due is answered when training looks.
struct Here<'a> {
    questions: &'a mut Questions,
    record: &'a mut Unrecorded,
    clock: &'a dyn Fn() -> Duration,
}

impl Desk for Here<'_> {
    fn now(&self) -> Duration {
        (self.clock)()
    }

    fn answers(&mut self) -> Result<Answers, LabError> {
        self.questions.advance((self.clock)(), self.record)?;
        Ok(self.questions.answers())
    }

    fn offer(&mut self, pairs: Vec<Offered>, env_steps: u64) -> Result<(), LabError> {
        Ok(self.questions.offer(pairs, env_steps, (self.clock)(), self.record)?)
    }
}

#[cfg(test)]
mod tests;
