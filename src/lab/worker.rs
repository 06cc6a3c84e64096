//! The working thread: it holds every tensor and every world, and turns the ledger's wishes into training.

use super::ledger::Message;
use super::shared_requests::{SharedRequests, WorkerRequests};
use super::snapshot_publisher::SnapshotPublisher;
use super::training_loop::TrainingLoop;
use super::{DisputedView, Event, LabError, Phase, Snapshot, priority};
use flipside_learn::OneThread;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// A crash loses at most this much training, and never a judgement.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Where a checkpoint is so large that writing it takes long, this many times as long passes before the next.
const CHECKPOINT_SHARE: u32 = 20;

/// Pairs that should wait behind the one on show: a burst of quick answers must not outrun one round of training.
const PAIRS_READY: usize = 12;

/// The pace is measured over this long.
const PACE_WINDOW: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    trainer: Box<dyn TrainingLoop>,
    publisher: Arc<SnapshotPublisher>,
    control: Arc<SharedRequests>,
    ledger: SyncSender<Message>,
    saved: Instant,
    /// How long the last checkpoint took to put together.
    saving: Duration,
    offered: Option<Instant>,
    offers: u64,
    /// `(when, env steps)` of recent iterations.
    pace: VecDeque<(Instant, u64)>,
    /// Env steps when the labels last changed, and the version they had.
    judged: (u64, u64),
}

impl Worker {
    pub fn new(
        trainer: Box<dyn TrainingLoop>,
        publisher: Arc<SnapshotPublisher>,
        control: Arc<SharedRequests>,
        ledger: SyncSender<Message>,
    ) -> Worker {
        Worker {
            trainer,
            publisher,
            control,
            ledger,
            saved: Instant::now(),
            saving: Duration::ZERO,
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
        let _one_thread = self.trainer.is_small().then(OneThread::new);
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
        if self.trainer.steps() == 0 {
            self.checkpoint(Some("initial"));
        }
        loop {
            let requests = self.control.look();
            if requests.quit {
                break;
            }
            if let Some(sentence) = self.trainer.take_warning() {
                self.publisher.say(Event::Warned(sentence));
            }
            if self.control.take(|w| &mut w.save) {
                self.checkpoint(None);
            }
            self.grant();
            match self.rest(&requests) {
                // A person may go on judging whatever training does.
                Some(phase) => {
                    let short = requests.asks_in_time && requests.pairs_ready < PAIRS_READY;
                    let supplied = short && self.has_more_to_ask(phase) && self.offer(&requests);
                    self.wait(phase, &requests, supplied || !short);
                }
                None => self.iterate(&requests),
            }
        }
        if self.control.look().disk_fault.is_none() {
            self.checkpoint(None);
        }
    }

    /// Why the worker should not train now, if it should not.
    fn rest(&mut self, requests: &WorkerRequests) -> Option<Phase> {
        if self.judged.1 != requests.labels_version {
            self.judged = (self.trainer.steps(), requests.labels_version);
        }
        if !requests.run {
            // A fault keeps its own phase until someone starts again.
            let phase = self.publisher.snapshot().phase;
            return Some(if phase == Phase::Faulted { phase } else { Phase::Paused });
        }
        if self.trainer.finished() {
            return Some(Phase::Finished);
        }
        let waits_for_person = requests.asks_in_time
            && requests.pairs_ready >= PAIRS_READY
            && self.trainer.has_choice()
            && !self.trainer.explores()
            && self.trainer.waits(requests.labels.len(), self.trainer.steps() - self.judged.0);
        waits_for_person.then_some(Phase::Waiting)
    }

    /// Waits for a wish; where `can_offer`, also for pairs to run short.
    fn wait(&mut self, phase: Phase, requests: &WorkerRequests, can_offer: bool) {
        if self.publisher.snapshot().phase != phase {
            if phase == Phase::Finished {
                self.checkpoint(None);
                self.publisher.say(Event::Finished);
            }
            self.publisher.update(|s| {
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
                || w.ask.is_some()
                || w.prompts.is_some()
                || w.run != requests.run
                || w.teacher != requests.teacher
                || w.labels_version != requests.labels_version
                || (can_offer && w.asks_in_time && w.pairs_ready < PAIRS_READY)
        });
    }

    /// Sees to it that a finished run has something to ask about. False where that fails.
    fn has_more_to_ask(&mut self, phase: Phase) -> bool {
        if phase != Phase::Finished {
            return true;
        }
        let control = self.control.clone();
        let gathered = self.trainer.gather(&mut || control.quitting());
        gathered.map_err(|error| self.fault(&error)).is_ok()
    }

    fn iterate(&mut self, requests: &WorkerRequests) {
        self.trainer.set_teacher(requests.teacher);
        let control = self.control.clone();
        let mut cancelled = || control.quitting();
        if let Err(error) = self.trainer.collect(&mut cancelled) {
            return self.fault(&error);
        }
        self.offer(requests);
        let labels = self.control.look().labels;
        match self.trainer.learn(&labels, &mut cancelled) {
            Ok(values) => {
                let env_steps = self.trainer.steps();
                self.tell(Message::Metrics { env_steps, values });
                self.publish();
                if self.saved.elapsed() > CHECKPOINT_EVERY.max(CHECKPOINT_SHARE * self.saving) {
                    self.checkpoint(None);
                }
            }
            Err(error) => self.fault(&error),
        }
    }

    /// Offers pairs where they are wanted and waits until the ledger has them; a simulated teacher has answered them by then, which keeps its
    /// runs repeatable. Returns whether there was anything to offer.
    fn offer(&mut self, requests: &WorkerRequests) -> bool {
        let count = if requests.asks_in_time {
            let stale = self.offered.is_none_or(|at| at.elapsed() > self.trainer.stale_after());
            if requests.pairs_ready < PAIRS_READY || stale { PAIRS_READY + 1 } else { 0 }
        } else {
            self.trainer.labels_due(requests.labels.len())
        };
        if count == 0 {
            return false;
        }
        let control = self.control.clone();
        let pairs = match self.trainer.propose(count, requests.labels.len(), &mut || control.quitting()) {
            Ok(pairs) => pairs,
            Err(error) => {
                self.fault(&error);
                return false;
            }
        };
        if pairs.is_empty() {
            return false;
        }
        self.offered = Some(Instant::now());
        self.offers += 1;
        let offers = self.offers;
        self.tell(Message::Offer { pairs, env_steps: self.trainer.steps() });
        self.control.wait_until(|w| w.offers_done >= offers || w.quit);
        true
    }

    fn publish(&mut self) {
        let now = Instant::now();
        let env_steps = self.trainer.steps();
        self.pace.push_back((now, env_steps));
        while self.pace.len() > 2 && now - self.pace[0].0 > PACE_WINDOW {
            self.pace.pop_front();
        }
        let (since, from) = self.pace[0];
        let seconds = (now - since).as_secs_f64();
        let pace = if seconds > 0.0 { (env_steps - from) as f64 / seconds } else { 0.0 };
        let planned = self.trainer.steps_planned();
        let wanted = self.trainer.labels_wanted();
        let (agreement, alarm) = (self.trainer.agreement(), self.trainer.alarm());
        let requests = self.control.look();
        let stands = |disputed: &&DisputedView| {
            requests.labels.iter().any(|label| label.judgement == disputed.judgement)
                && !requests.kept.contains(&disputed.judgement)
        };
        let disputed: Arc<Vec<DisputedView>> =
            Arc::new(self.trainer.disputed().iter().filter(stands).cloned().collect());
        let trainer = &self.trainer;
        self.publisher.update(|s| {
            trainer.publish(s);
            s.disputed = disputed;
            s.phase = Phase::Training;
            s.fault = None;
            s.env_steps = env_steps;
            s.env_steps_per_s = pace;
            s.seconds_left = (pace > 0.0).then(|| planned.saturating_sub(env_steps) as f64 / pace);
            s.labels_wanted = wanted;
            s.agreement = agreement;
            s.alarm.clone_from(&alarm);
        });
    }

    fn checkpoint(&mut self, name: Option<&'static str>) {
        let began = Instant::now();
        let message = Message::Checkpoint { env_steps: self.trainer.steps(), arrays: self.trainer.to_arrays(), name };
        self.tell(message);
        self.saved = Instant::now();
        self.saving = began.elapsed();
    }

    /// Does what was wished for once: a look at the policy, a free prompt, other prompts.
    fn grant(&mut self) {
        let (publisher, control) = (self.publisher.clone(), self.control.clone());
        let mut tell = |change: &dyn Fn(&mut Snapshot)| publisher.update(change);
        let mut cancelled = || control.quitting();
        let mut done = Ok(());
        if let Some(prompts) = self.control.take(|w| &mut w.prompts) {
            done = self.trainer.set_prompts(prompts);
            let trainer = &self.trainer;
            self.publisher.update(|s| trainer.publish(s));
        }
        if let Some(prompt) = self.control.take(|w| &mut w.ask) {
            done = done.and_then(|()| self.trainer.ask(&prompt, &mut tell, &mut cancelled));
        }
        if self.control.take(|w| &mut w.show_policy) {
            done = done.and_then(|()| self.trainer.show(&mut tell, &mut cancelled));
        }
        if let Err(error) = done {
            self.fault(&error);
        }
    }

    /// Pauses with the reason. The trainer holds what it held before the failed step; nothing of the failure is saved.
    fn fault(&mut self, error: &LabError) {
        if error.is_cancelled() {
            return;
        }
        self.control.change(|w| w.run = false);
        self.publisher.update(|s| s.phase = Phase::Faulted);
        self.tell(Message::Fault(error.to_string()));
    }

    fn tell(&self, message: Message) {
        // The ledger outlives the worker: it ends on `Closed`, the last message.
        let _ = self.ledger.send(message);
    }
}
