//! The loop of a run, written once: collect experience, ask about it, take the answers, fit the reward model, improve
//! the policy.
//!
//! There are no threads, no files and no clock here. Time and answers are passed in, and each step says whether
//! training continues, waits or has finished. The loop has two halves:
//!
//! - [`Training`] owns everything that learns. It knows how many pairs are due, when waiting pairs are stale, and when
//!   training should wait for answers.
//! - [`Questions`] owns the waiting pairs, the standing answers, and the time of a simulated teacher's next answer.
//!
//! A [`QuestionQueue`] connects them. In a session the halves run on two threads, so that a person's answer never waits
//! for training: the worker drives the first, the ledger the second. A [`Driver`] holds both, for benchmarks and tests,
//! so that they measure the same loop as a session.

use super::LabError;
use super::questions::{Answers, Offer, PAIRS_READY, Questions, Unrecorded};
use super::training_loop::{TrainingLoop, Values};
use crate::settings::RunSettings;
use flipside_core::PairId;
use std::time::Duration;

/// Takes pairs from training and returns the answers to them.
pub(super) trait QuestionQueue {
    /// The current time on the clock that simulated teachers use.
    fn now(&self) -> Duration;

    /// The answers as they stand now.
    fn answers(&mut self) -> Result<Answers, LabError>;

    /// Adds pairs worth asking. A teacher that answers at once has answered them when this returns.
    fn offer(&mut self, offer: Offer, env_steps: u64) -> Result<(), LabError>;
}

/// What training should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Train for another round.
    Train,
    /// Wait for another answer: training may not run too far ahead of the judgements that its reward is learned from.
    Wait,
    /// Nothing: the plan is done.
    Finish,
}

/// The half of the loop that learns.
pub(super) struct Training<C: ?Sized> {
    /// What learns.
    pub learner: Box<C>,
    /// When pairs were last offered.
    offered: Option<Duration>,
    /// The latest version of the labels, and how many steps were done when it was first seen.
    answered: Option<(u64, u64)>,
}

impl<C: TrainingLoop + ?Sized> Training<C> {
    pub fn new(learner: Box<C>) -> Training<C> {
        Training { learner, offered: None, answered: None }
    }

    /// What to do next, given the answers.
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

    /// One round: collects experience, asks about it if questions are due, and learns from both. Returns points of
    /// learning curves.
    pub fn train(
        &mut self,
        queue: &mut dyn QuestionQueue,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Values, LabError> {
        self.learner.collect(cancelled)?;
        self.ask(queue, cancelled)?;
        let labels = queue.answers()?.labels;
        self.learner.learn(&labels, cancelled)
    }

    /// Offers pairs if they are needed. A teacher that takes time always has some waiting, from the policy's recent
    /// behaviour. A teacher that answers at once is asked as many as the schedule wants by now. Returns whether any
    /// pairs were offered.
    pub fn ask(
        &mut self,
        queue: &mut dyn QuestionQueue,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<bool, LabError> {
        let answers = queue.answers()?;
        self.learner.set_teacher(answers.teacher);
        let standing = answers.labels.len();
        let count = if answers.asks_in_time {
            let age = |at| queue.now().saturating_sub(at);
            let stale = self.offered.is_none_or(|at| age(at) > self.learner.stale_after());
            if answers.run_short() || stale { PAIRS_READY + 1 } else { 0 }
        } else {
            self.learner.labels_due(standing)
        };
        if count == 0 {
            return Ok(false);
        }
        let renews = self.learner.renews();
        let pairs = self.learner.propose(count, &answers.labels, cancelled)?;
        if pairs.is_empty() {
            return Ok(false);
        }
        self.offered = Some(queue.now());
        queue.offer(Offer { pairs, renews }, self.learner.steps())?;
        Ok(true)
    }
}

/// What a step of a [`Driver`] did.
pub(super) enum Step {
    /// One round of training.
    Trained,
    /// Nothing: training waits for an answer. This is the time at which a simulated teacher gives it.
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
    /// A new run.
    pub fn new(learner: Box<C>, settings: &RunSettings) -> Driver<C> {
        Driver {
            training: Training::new(learner),
            questions: Questions::new(settings, PairId(1)),
            record: Unrecorded::default(),
        }
    }

    /// Takes the answers that are due. Then trains for one round, unless training is finished or has to wait. `clock`
    /// returns how long the run has lasted.
    pub fn step(
        &mut self,
        clock: &dyn Fn() -> Duration,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Step, LabError> {
        let Driver { training, questions, record } = self;
        let mut queue = Here { questions, record, clock };
        Ok(match training.next(&queue.answers()?) {
            Next::Train => {
                training.train(&mut queue, cancelled)?;
                Step::Trained
            }
            Next::Wait => Step::Waits(questions.next_answer_at()),
            Next::Finish => Step::Finished,
        })
    }
}

/// A queue without a thread of its own: answers that are due are given when training asks for them.
struct Here<'a> {
    questions: &'a mut Questions,
    record: &'a mut Unrecorded,
    clock: &'a dyn Fn() -> Duration,
}

impl QuestionQueue for Here<'_> {
    fn now(&self) -> Duration {
        (self.clock)()
    }

    fn answers(&mut self) -> Result<Answers, LabError> {
        self.questions.advance((self.clock)(), self.record)?;
        Ok(self.questions.answers())
    }

    fn offer(&mut self, offer: Offer, env_steps: u64) -> Result<(), LabError> {
        Ok(self.questions.offer(offer, env_steps, (self.clock)(), self.record)?)
    }
}

#[cfg(test)]
mod tests;
