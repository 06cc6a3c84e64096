//! What the worker drives, whichever mode it is: something that collects experience, proposes pairs, and learns.

use super::ledger::Offered;
use super::vocabulary::{DisputedView, Snapshot, TeacherKind};
use super::{LabError, shared_requests::Label, trainer::Trainer};
use flipside_core::Arrays;
use flipside_preference::Alarm;
use std::sync::Arc;
use std::time::Duration;

/// Points of learning curves, by the names in [`super::Curve::NAMES`].
pub(super) type Values = Vec<(&'static str, f64)>;

/// Tells the desk something while work goes on.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&dyn Fn(&mut Snapshot));

/// A mode's training loop, free of threads and of the database.
pub(super) trait TrainingLoop: Send {
    /// Steps done.
    fn steps(&self) -> u64;

    /// Steps planned in all.
    fn steps_planned(&self) -> u64;

    /// Whether the plan is done.
    fn finished(&self) -> bool;

    /// Steps that training may run on after a person's last answer; `None` where no answers are waited for.
    fn patience(&self) -> Option<u64>;

    /// Whether training is so far ahead of `labels` judgements that it should wait for more.
    fn runs_ahead(&self, _labels: usize) -> bool {
        false
    }

    /// Whether there is a reward to train on.
    fn has_reward(&self) -> bool;

    /// Whether there is something to learn before there is a reward.
    fn explores(&self) -> bool {
        false
    }

    /// Whether there is enough to ask about that an untrained policy may rest.
    fn has_choice(&self) -> bool;

    /// Judgements that the schedule would like to have by now.
    fn labels_wanted(&self) -> usize;

    /// How many pairs a simulated teacher should be asked now, `labels` judgements standing.
    fn labels_due(&self, labels: usize) -> usize;

    /// Whether to wait for a person's next answer, where `labels` judgements stand and training ran on for `since` steps after the last. Who has given
    /// all that are wanted by now, those of the whole plan at its end, is not waited for.
    fn waits(&self, labels: usize, since: u64) -> bool {
        let tires = |patience| {
            let owed = self.labels_wanted() > labels;
            !self.has_reward() || self.runs_ahead(labels) || owed && since > patience
        };
        self.patience().is_some_and(tires)
    }

    /// Waiting pairs older than this are replaced by more recent ones.
    fn stale_after(&self) -> Duration;

    /// Share of judgements that the reward model gets right before it has learnt from them.
    fn agreement(&self) -> Option<f64>;

    /// Why the learned reward should not be trusted, in a sentence with what to do; `None` while it can be.
    fn alarm(&self) -> Option<String> {
        None
    }

    /// What the person should be told once, if there is something.
    fn take_warning(&mut self) -> Option<String> {
        None
    }

    /// The judgements that the reward model contradicts most, as of its last fit, the worst first.
    fn disputed(&self) -> &[DisputedView] {
        &[]
    }

    /// Up to `count` pairs worth asking, sides shuffled, `labels` judgements standing.
    fn propose(
        &mut self,
        count: usize,
        labels: usize,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Offered>, LabError>;

    /// Gathers experience with the present policy. A cancelled one is not kept.
    fn collect(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError>;

    /// Gathers something to ask about where nothing is collected any more: a finished run that was reopened has nothing at hand. Changes neither
    /// policy nor plan.
    fn gather(&mut self, _cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        Ok(())
    }

    /// Learns; returns the points that belong on the curves.
    fn learn(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError>;

    /// All that a resumed run needs.
    fn to_arrays(&self) -> Arrays;

    /// Shows what the present policy does.
    fn show(&mut self, tell: Tell, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError>;

    /// Text mode: answers a free prompt before and after teaching.
    fn ask(&mut self, _prompt: &str, _tell: Tell, _cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        Ok(())
    }

    /// Text mode: asks about these prompts from now on.
    fn set_prompts(&mut self, _prompts: Vec<String>) -> Result<(), LabError> {
        Ok(())
    }

    /// Puts what only this mode has into the picture; called whenever there is something new.
    fn publish(&self, _snapshot: &mut Snapshot) {}

    /// Whether its tensors are so small that one thread computes them fastest.
    fn is_small(&self) -> bool;

    /// Who answers from now on.
    fn set_teacher(&mut self, _teacher: TeacherKind) {}
}

/// Simulated seconds of the free view of a robot's policy.
const POLICY_SECONDS: f32 = 6.0;

/// Env steps that training may run on after a person's last answer: minutes of thought, but not a night of exploiting a frozen reward.
const PATIENCE: u64 = 400_000;

/// Judgement is worth most on what the policy does now.
const PAIRS_STALE: Duration = Duration::from_secs(8);

impl TrainingLoop for Trainer {
    fn steps(&self) -> u64 {
        self.env_steps()
    }

    fn steps_planned(&self) -> u64 {
        self.env_steps_planned()
    }

    fn finished(&self) -> bool {
        Trainer::finished(self)
    }

    fn patience(&self) -> Option<u64> {
        self.learns_from_preferences().then_some(PATIENCE)
    }

    fn runs_ahead(&self, labels: usize) -> bool {
        Trainer::runs_ahead(self, labels)
    }

    fn has_reward(&self) -> bool {
        Trainer::has_reward(self)
    }

    fn explores(&self) -> bool {
        Trainer::explores(self)
    }

    fn has_choice(&self) -> bool {
        Trainer::has_choice(self)
    }

    fn labels_wanted(&self) -> usize {
        Trainer::labels_wanted(self)
    }

    fn labels_due(&self, labels: usize) -> usize {
        Trainer::labels_due(self, labels)
    }

    fn stale_after(&self) -> Duration {
        PAIRS_STALE
    }

    fn agreement(&self) -> Option<f64> {
        Trainer::agreement(self)
    }

    fn take_warning(&mut self) -> Option<String> {
        Trainer::take_warning(self)
    }

    fn alarm(&self) -> Option<String> {
        Trainer::alarm(self).map(Alarm::sentence)
    }

    fn disputed(&self) -> &[DisputedView] {
        Trainer::disputed(self)
    }

    fn propose(
        &mut self,
        count: usize,
        _labels: usize,
        _cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Offered>, LabError> {
        Ok(Trainer::propose(self, count))
    }

    fn collect(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        Trainer::collect(self, cancelled)
    }

    fn gather(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        Trainer::gather(self, cancelled)
    }

    fn learn(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        Trainer::learn(self, labels, cancelled)
    }

    fn to_arrays(&self) -> Arrays {
        Trainer::to_arrays(self)
    }

    fn show(&mut self, tell: Tell, _cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        let clip = Arc::new(self.film_policy(POLICY_SECONDS)?);
        tell(&|s: &mut Snapshot| s.policy_clip = Some(clip.clone()));
        Ok(())
    }

    fn is_small(&self) -> bool {
        true
    }
}
