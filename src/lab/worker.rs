//! The working thread: it holds every tensor and every world, and turns the ledger's wishes into training.

use super::board::Board;
use super::control::{Control, Wishes};
use super::ledger::Message;
use super::trainer::Trainer;
use super::{Event, LabError, Phase, priority};
use crate::learn::{LearnError, OneThread};
use crate::preference::PreferenceError;
use crate::settings::TeacherKind;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// A crash loses at most this much training, and never a judgement.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Pairs that should wait behind the one on show: a burst of quick answers must not outrun one round of training.
const PAIRS_READY: usize = 12;

/// Waiting pairs older than this are replaced by more recent ones, since judgement is worth most on what the policy does now.
const PAIRS_STALE: Duration = Duration::from_secs(8);

/// Env steps that training may run on after a person's last answer: minutes of thought, but not a night of exploiting a frozen reward.
const PATIENCE: u64 = 400_000;

/// The pace is measured over this long.
const PACE_WINDOW: Duration = Duration::from_secs(10);

/// Simulated seconds of the free view of the policy.
const POLICY_SECONDS: f32 = 6.0;

pub(super) struct Worker {
    trainer: Trainer,
    board: Arc<Board>,
    control: Arc<Control>,
    ledger: SyncSender<Message>,
    saved: Instant,
    offered: Option<Instant>,
    offers: u64,
    /// `(when, env steps)` of recent iterations.
    pace: VecDeque<(Instant, u64)>,
    /// Env steps when the labels last changed, and the version they had.
    judged: (u64, u64),
}

impl Worker {
    pub fn new(trainer: Trainer, board: Arc<Board>, control: Arc<Control>, ledger: SyncSender<Message>) -> Worker {
        Worker {
            trainer,
            board,
            control,
            ledger,
            saved: Instant::now(),
            offered: None,
            offers: 0,
            pace: VecDeque::new(),
            judged: (0, 0),
        }
    }

    /// Serves until the ledger wishes to quit, then saves and says so.
    pub fn run(mut self) {
        priority::yield_to_the_window();
        // The setting belongs to a thread, and this one does all the computing there is.
        let _one_thread = OneThread::new();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve())) {
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .and_then(|why| why.lines().next())
                .unwrap_or("no reason given");
            self.tell(Message::Fault(format!(
                "Training broke down ({why}); what was saved is safe: reopen the session to go on from its last checkpoint."
            )));
            self.control.wait_until(|w| w.quit);
        }
        self.tell(Message::Closed);
    }

    fn serve(&mut self) {
        if self.trainer.env_steps() == 0 {
            self.checkpoint(Some("initial"));
        }
        loop {
            let wishes = self.control.look();
            if wishes.quit {
                break;
            }
            if self.control.take(|w| &mut w.save) {
                self.checkpoint(None);
            }
            if self.control.take(|w| &mut w.show_policy) {
                self.show_policy();
            }
            match self.rest(&wishes) {
                // A person may go on judging whatever training does.
                Some(phase) => {
                    let short = wishes.teacher == TeacherKind::Person && wishes.pairs_ready < PAIRS_READY;
                    let supplied = short && self.offer(&wishes);
                    self.wait(phase, &wishes, supplied || !short);
                }
                None => self.iterate(&wishes),
            }
        }
        if self.control.look().disk_fault.is_none() {
            self.checkpoint(None);
        }
    }

    /// Why the worker should not train now, if it should not.
    fn rest(&mut self, wishes: &Wishes) -> Option<Phase> {
        if self.judged.1 != wishes.labels_version {
            self.judged = (self.trainer.env_steps(), wishes.labels_version);
        }
        if !wishes.run {
            // A fault keeps its own phase until someone starts again.
            let phase = self.board.snapshot().phase;
            return Some(if phase == Phase::Faulted { phase } else { Phase::Paused });
        }
        if self.trainer.finished() {
            return Some(Phase::Finished);
        }
        let waits_for_person = self.trainer.learns_from_preferences()
            && wishes.teacher == TeacherKind::Person
            && wishes.pairs_ready >= PAIRS_READY
            && self.trainer.has_choice()
            && (!self.trainer.has_reward() || self.trainer.env_steps() - self.judged.0 > PATIENCE);
        waits_for_person.then_some(Phase::Waiting)
    }

    /// Waits for a wish; where `can_offer`, also for pairs to run short.
    fn wait(&mut self, phase: Phase, wishes: &Wishes, can_offer: bool) {
        if self.board.snapshot().phase != phase {
            if phase == Phase::Finished {
                self.checkpoint(None);
                self.board.say(Event::Finished);
            }
            self.board.update(|s| {
                s.phase = phase;
                s.seconds_left = None;
                s.env_steps_per_s = 0.0;
            });
        }
        self.pace.clear();
        self.control.wait_until(|w| {
            w.quit
                || w.save
                || w.show_policy
                || w.run != wishes.run
                || w.teacher != wishes.teacher
                || w.labels_version != wishes.labels_version
                || (can_offer && w.teacher == TeacherKind::Person && w.pairs_ready < PAIRS_READY)
        });
    }

    fn iterate(&mut self, wishes: &Wishes) {
        let control = self.control.clone();
        let mut cancelled = || control.quitting();
        if let Err(error) = self.trainer.collect(&mut cancelled) {
            return self.fault(&error);
        }
        self.offer(wishes);
        let labels = self.control.look().labels;
        match self.trainer.learn(&labels, &mut cancelled) {
            Ok(values) => {
                let env_steps = self.trainer.env_steps();
                self.tell(Message::Metrics { env_steps, values });
                self.publish();
                if self.saved.elapsed() > CHECKPOINT_EVERY {
                    self.checkpoint(None);
                }
            }
            Err(error) => self.fault(&error),
        }
    }

    /// Offers pairs where they are wanted and waits until the ledger has them; a simulated teacher has answered them by then, which keeps its
    /// runs repeatable. Returns whether there was anything to offer.
    fn offer(&mut self, wishes: &Wishes) -> bool {
        let count = match wishes.teacher {
            TeacherKind::Person => {
                let stale = self.offered.is_none_or(|at| at.elapsed() > PAIRS_STALE);
                if wishes.pairs_ready < PAIRS_READY || stale { PAIRS_READY + 1 } else { 0 }
            }
            _ => self.trainer.labels_due(wishes.labels.len()),
        };
        let pairs = self.trainer.propose(count);
        if pairs.is_empty() {
            return false;
        }
        self.offered = Some(Instant::now());
        self.offers += 1;
        let offers = self.offers;
        self.tell(Message::Offer { pairs, env_steps: self.trainer.env_steps() });
        self.control.wait_until(|w| w.offers_done >= offers || w.quit);
        true
    }

    fn publish(&mut self) {
        let now = Instant::now();
        let env_steps = self.trainer.env_steps();
        self.pace.push_back((now, env_steps));
        while self.pace.len() > 2 && now - self.pace[0].0 > PACE_WINDOW {
            self.pace.pop_front();
        }
        let (since, from) = self.pace[0];
        let seconds = (now - since).as_secs_f64();
        let pace = if seconds > 0.0 { (env_steps - from) as f64 / seconds } else { 0.0 };
        let planned = self.trainer.env_steps_planned();
        let wanted = self.trainer.labels_wanted();
        let agreement = self.trainer.agreement();
        self.board.update(|s| {
            s.phase = Phase::Training;
            s.fault = None;
            s.env_steps = env_steps;
            s.env_steps_per_s = pace;
            s.seconds_left = (pace > 0.0).then(|| planned.saturating_sub(env_steps) as f64 / pace);
            s.labels_wanted = wanted;
            s.agreement = agreement;
        });
    }

    fn checkpoint(&mut self, name: Option<&'static str>) {
        self.saved = Instant::now();
        let message =
            Message::Checkpoint { env_steps: self.trainer.env_steps(), arrays: self.trainer.to_arrays(), name };
        self.tell(message);
    }

    fn show_policy(&mut self) {
        match self.trainer.film_policy(POLICY_SECONDS) {
            Ok(clip) => self.board.update(|s| s.policy_clip = Some(Arc::new(clip))),
            Err(error) => self.fault(&error),
        }
    }

    /// Pauses with the reason. The trainer holds what it held before the failed step; nothing of the failure is saved.
    fn fault(&mut self, error: &LabError) {
        if matches!(
            error,
            LabError::Cancelled
                | LabError::Learn(LearnError::Cancelled)
                | LabError::Preference(PreferenceError::Cancelled)
        ) {
            return;
        }
        self.control.change(|w| w.run = false);
        self.board.update(|s| s.phase = Phase::Faulted);
        self.tell(Message::Fault(error.to_string()));
    }

    fn tell(&self, message: Message) {
        // The ledger outlives the worker: it ends on `Closed`, the last message.
        let _ = self.ledger.send(message);
    }
}
