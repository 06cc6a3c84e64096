//! What the worker drives, in either mode: a loop that collects experience, proposes pairs, and learns.

use super::questions::Offered;
use super::vocabulary::{DisputedView, InsideRequest, ModeView, Snapshot, TeacherKind};
use super::{LabError, shared_requests::Label, trainer::Trainer};
use flipside_core::Arrays;
use flipside_preference::Alarm;
use std::sync::Arc;
use std::time::Duration;

/// Points of learning curves, with the names in [`super::Curve::NAMES`].
pub(super) type Values = Vec<(&'static str, f64)>;

/// Updates the desk's snapshot while work continues.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&dyn Fn(&mut Snapshot));

/// A mode's training loop, without threads or database.
pub(super) trait TrainingLoop: Send {
    /// Steps done.
    fn steps(&self) -> u64;

    /// Steps planned in total.
    fn steps_planned(&self) -> u64;

    /// Whether all planned steps are done.
    fn finished(&self) -> bool;

    /// Steps that training may continue after a person's last answer; `None` if training does not wait for answers.
    fn patience(&self) -> Option<u64>;

    /// Whether training is so far ahead of `labels` judgements that it should wait for more.
    fn runs_ahead(&self, _labels: usize) -> bool {
        false
    }

    /// Whether there is a reward to train on.
    fn has_reward(&self) -> bool;

    /// Whether there is something to learn before there is a reward model, such as exploring.
    fn explores(&self) -> bool {
        false
    }

    /// Whether there is enough to ask about that an untrained policy may stop collecting.
    fn has_choice(&self) -> bool;

    /// Judgements that the schedule wants by now.
    fn labels_wanted(&self) -> usize;

    /// How many pairs a simulated teacher should be asked now. `labels` is the number of standing judgements.
    fn labels_due(&self, labels: usize) -> usize;

    /// Whether to wait for the next answer of a teacher that takes time. `labels` is the number of standing judgements,
    /// and `since` the number of steps since the last answer. Waits while there is no reward yet, while training runs
    /// ahead, and while the schedule wants more labels and `since` exceeds the patience. Otherwise it does not wait for
    /// a teacher that has given as many labels as the schedule wants by now, which at the end are all that were
    /// planned.
    fn waits(&self, labels: usize, since: u64) -> bool {
        let tires = |patience| {
            let owed = self.labels_wanted() > labels;
            !self.has_reward() || self.runs_ahead(labels) || owed && since > patience
        };
        self.patience().is_some_and(tires)
    }

    /// Waiting pairs older than this are replaced by more recent ones.
    fn stale_after(&self) -> Duration;

    /// Whether new pairs replace the question on show, too, because it shows what an earlier policy did.
    fn renews(&self) -> bool {
        false
    }

    /// Held-out agreement: the share of judgements that the reward model predicts without having learned from them.
    fn agreement(&self) -> Option<f64>;

    /// Why the learned reward should not be trusted, and what to do about it, in a sentence; `None` while it can be
    /// trusted.
    fn alarm(&self) -> Option<String> {
        None
    }

    /// A warning that the person should be shown once, if there is one.
    fn take_warning(&mut self) -> Option<String> {
        None
    }

    /// The judgements that the reward model contradicted most at its last fit, the worst first.
    fn disputed(&self) -> &[DisputedView] {
        &[]
    }

    /// Up to `count` pairs worth asking, with their sides shuffled. `labels` are the standing judgements.
    fn propose(
        &mut self,
        count: usize,
        labels: &[Label],
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Offered>, LabError>;

    /// Collects experience with the current policy. Cancelled collection is discarded.
    fn collect(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError>;

    /// Collects clips to ask about when training is over: a finished run that was reopened has none in memory. Changes
    /// neither the policy nor the plan.
    fn gather(&mut self, _cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        Ok(())
    }

    /// Learns. Returns points for the learning curves.
    fn learn(&mut self, labels: &[Label], cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError>;

    /// Everything that a resumed run needs.
    fn to_arrays(&self) -> Arrays;

    /// Shows what the current policy does.
    fn show(&mut self, tell: Tell, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError>;

    /// Text mode: answers a free prompt with the model before and after preference learning.
    fn ask(&mut self, _prompt: &str, _tell: Tell, _cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        Ok(())
    }

    /// Text mode: begins to look inside the models, in place of what it was looking at. This is the first part of the
    /// work and may read models. What is refused is shown where it was asked for, and is no fault.
    fn begin_look(&mut self, _request: InsideRequest) {}

    /// Text mode: does the next part of looking. It changes nothing that training knows of.
    fn look_on(&mut self, _cancelled: &mut dyn FnMut() -> bool) {}

    /// Text mode: whether there is more to do for [`TrainingLoop::look_on`].
    fn is_looking(&self) -> bool {
        false
    }

    /// Text mode: keeps the models as they are for the rest of looking, because training goes on in between.
    fn keep_looked_into(&mut self) {}

    /// Text mode: stops looking.
    fn stop_looking(&mut self) {}

    /// Text mode: asks about these prompts from now on.
    fn set_prompts(&mut self, _prompts: Vec<String>) -> Result<(), LabError> {
        Ok(())
    }

    /// Brings what only this mode has in the snapshot up to date; called whenever there is something new.
    fn publish(&self, _snapshot: &mut Snapshot) {}

    /// Whether its tensors are so small that one thread computes them fastest.
    fn is_small(&self) -> bool;

    /// Sets who answers from now on.
    fn set_teacher(&mut self, _teacher: TeacherKind) {}
}

/// Simulated seconds of the clip that shows a robot's policy.
const POLICY_SECONDS: f32 = 6.0;

/// Env steps that training may continue after a person's last answer. That leaves minutes to think, but does not train
/// all night on a frozen reward.
const PATIENCE: u64 = 400_000;

/// Judgements are worth most on what the policy does now.
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
        Trainer::alarm(self).map(|alarm: Alarm| alarm.sentence("robot"))
    }

    fn disputed(&self) -> &[DisputedView] {
        Trainer::disputed(self)
    }

    fn propose(
        &mut self,
        count: usize,
        _labels: &[Label],
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
        tell(&|snapshot: &mut Snapshot| {
            if let ModeView::Control(view) = &mut snapshot.mode {
                view.policy_clip = Some(clip.clone());
            }
        });
        Ok(())
    }

    fn is_small(&self) -> bool {
        true
    }
}
