//! The worker thread. It owns every tensor and every world. The [driver](super::driver) decides what to do next; this
//! file passes it the time and the ledger's requests, and publishes the results.

use super::driver::{Next, QuestionQueue, Training};
use super::ledger::Message;
use super::questions::{Answers, Offer};
use super::shared_requests::{LookOrder, SharedRequests, WorkerRequests};
use super::snapshot_publisher::SnapshotPublisher;
use super::training_loop::TrainingLoop;
use super::{DisputedView, Event, LabError, Phase, Snapshot};
use flipside_core::panic_reason;
use flipside_learn::{OneThread, all_threads};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// A crash loses at most this much training, and never a judgement.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// A large checkpoint takes long to assemble. At least this many times as long passes before the next one.
const CHECKPOINT_SHARE: u32 = 20;

/// While training runs, looking inside the models takes at most as long between two rounds as the last round did,
/// within these bounds, so that training keeps about half of the time.
const LOOKING: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// The training speed is measured over this long.
const PACE_WINDOW: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    training: Training<dyn TrainingLoop>,
    publisher: Arc<SnapshotPublisher>,
    control: Arc<SharedRequests>,
    queue: LedgerQueue,
    saved: Instant,
    /// How long the last checkpoint took to assemble.
    saving: Duration,
    /// How long the last round took, and how long the models were looked into since.
    round: Duration,
    looked: Duration,
    /// `(when, env steps)` of recent iterations.
    pace: VecDeque<(Instant, u64)>,
}

/// The ledger, as training sees it from the worker thread.
struct LedgerQueue {
    control: Arc<SharedRequests>,
    ledger: SyncSender<Message>,
    opened: Instant,
    /// Offers made so far.
    offers: u64,
}

impl LedgerQueue {
    fn tell(&self, message: Message) {
        // The ledger outlives the worker: it ends on `Closed`, which is the last message.
        let _ = self.ledger.send(message);
    }
}

impl QuestionQueue for LedgerQueue {
    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    fn answers(&mut self) -> Result<Answers, LabError> {
        Ok(self.control.latest().answers)
    }

    /// Waits until the ledger has the pairs. That makes runs with a teacher that answers at once repeatable.
    fn offer(&mut self, offer: Offer, env_steps: u64) -> Result<(), LabError> {
        self.offers += 1;
        let offers = self.offers;
        self.tell(Message::Offer { offer, env_steps });
        self.control.wait_until(|w| w.offers_done >= offers || w.quit);
        Ok(())
    }
}

impl Worker {
    pub fn new(
        learner: Box<dyn TrainingLoop>,
        publisher: Arc<SnapshotPublisher>,
        control: Arc<SharedRequests>,
        ledger: SyncSender<Message>,
    ) -> Worker {
        Worker {
            training: Training::new(learner),
            publisher,
            queue: LedgerQueue { control: control.clone(), ledger, opened: Instant::now(), offers: 0 },
            control,
            saved: Instant::now(),
            saving: Duration::ZERO,
            round: Duration::ZERO,
            looked: Duration::ZERO,
            pace: VecDeque::new(),
        }
    }

    /// Works until the ledger requests to quit, then saves and sends `Closed`.
    pub fn run(mut self) {
        // The settings are per thread, and all computing happens on this thread.
        all_threads();
        let _one_thread = self.training.learner.is_small().then(OneThread::new);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve())) {
            let why = panic_reason(&*panic);
            self.queue.tell(Message::Fault(format!(
                "Training broke down ({why}); what was saved is safe: reopen the session to go on from its last checkpoint."
            )));
            self.control.wait_until(|w| w.quit);
        }
        self.queue.tell(Message::Closed);
    }

    fn serve(&mut self) {
        if self.training.learner.steps() == 0 {
            self.checkpoint(Some("initial"));
        }
        loop {
            let requests = self.control.latest();
            if requests.quit {
                break;
            }
            if let Some(sentence) = self.training.learner.take_warning() {
                self.publisher.say(Event::Warned(sentence));
            }
            if self.control.take(|w| &mut w.save) {
                self.checkpoint(None);
            }
            self.grant();
            match self.rest(&requests) {
                // A person may continue to answer whatever training does.
                Some(phase) => {
                    let short = requests.answers.run_short();
                    let supplied = short && self.supply(phase);
                    self.wait(phase, &requests, supplied || !short);
                }
                None if self.look_between_rounds() => self.iterate(),
                None => {}
            }
        }
        if self.control.latest().disk_fault.is_none() {
            self.checkpoint(None);
        }
    }

    /// Why the worker should not train now, if it should not.
    fn rest(&mut self, requests: &WorkerRequests) -> Option<Phase> {
        let next = self.training.next(&requests.answers);
        if !requests.run {
            // A fault keeps its own phase until someone starts training again.
            let phase = self.publisher.snapshot().phase;
            return Some(if phase == Phase::Faulted { phase } else { Phase::Paused });
        }
        match next {
            Next::Train => None,
            Next::Wait => Some(Phase::Waiting),
            Next::Finish => Some(Phase::Finished),
        }
    }

    /// Waits for a request. If `can_offer`, also returns when pairs run short.
    fn wait(&mut self, phase: Phase, requests: &WorkerRequests, can_offer: bool) {
        if self.publisher.snapshot().phase != phase {
            if phase == Phase::Finished {
                self.checkpoint(None);
                // Through the ledger, so that the curves of the whole run are published before.
                self.queue.tell(Message::Finished);
            }
            self.publisher.update(|s| {
                s.phase = phase;
                s.seconds_left = None;
                s.env_steps_per_s = 0.0;
            });
        }
        self.pace.clear();
        let wakes = |w: &WorkerRequests| {
            w.quit
                || w.save
                || w.show_policy
                || w.look.is_some()
                || w.ask.is_some()
                || w.prompts.is_some()
                || w.run != requests.run
                || w.answers.teacher != requests.answers.teacher
                || w.answers.labels_version != requests.answers.labels_version
                || (can_offer && w.answers.run_short())
        };
        while self.training.learner.is_looking() && !self.control.holds(wakes) {
            self.look_on();
        }
        self.control.wait_until(wakes);
    }

    /// Offers pairs while training rests. Returns whether there were any to offer.
    fn supply(&mut self, phase: Phase) -> bool {
        let control = self.control.clone();
        let mut cancelled = || control.quitting();
        // A finished run that was reopened has no clips in memory.
        let gathered = if phase == Phase::Finished { self.training.learner.gather(&mut cancelled) } else { Ok(()) };
        let supplied = gathered.and_then(|()| self.training.ask(&mut self.queue, &mut cancelled));
        supplied.map_err(|error| self.fault(&error)).unwrap_or(false)
    }

    /// Goes on looking inside the models for a bounded time. Returns whether training goes on now, rather than a
    /// request that has just come.
    fn look_between_rounds(&mut self) -> bool {
        let [least, most] = LOOKING;
        while self.training.learner.is_looking() {
            if self.looked >= self.round.clamp(least, most) {
                self.training.learner.keep_looked_into();
                return true;
            }
            if self.control.holds(|w| w.quit || w.look.is_some()) {
                return false;
            }
            self.look_on();
        }
        true
    }

    /// The next part of looking inside the models.
    fn look_on(&mut self) {
        let (began, control) = (Instant::now(), self.control.clone());
        self.training.learner.look_on(&mut || control.holds(|w| w.quit || w.look.is_some()));
        self.looked += began.elapsed();
        let trainer = &self.training.learner;
        self.publisher.update(|s| trainer.publish(s));
    }

    fn iterate(&mut self) {
        let began = Instant::now();
        let control = self.control.clone();
        match self.training.train(&mut self.queue, &mut || control.quitting()) {
            Ok(values) => {
                let env_steps = self.training.learner.steps();
                self.queue.tell(Message::Metrics { env_steps, values });
                self.publish();
                if self.saved.elapsed() > CHECKPOINT_EVERY.max(CHECKPOINT_SHARE * self.saving) {
                    self.checkpoint(None);
                }
            }
            Err(error) => self.fault(&error),
        }
        (self.round, self.looked) = (began.elapsed(), Duration::ZERO);
    }

    fn publish(&mut self) {
        let now = Instant::now();
        let env_steps = self.training.learner.steps();
        self.pace.push_back((now, env_steps));
        while self.pace.len() > 2 && now - self.pace[0].0 > PACE_WINDOW {
            self.pace.pop_front();
        }
        let (since, from) = self.pace[0];
        let seconds = (now - since).as_secs_f64();
        let pace = if seconds > 0.0 { (env_steps - from) as f64 / seconds } else { 0.0 };
        let planned = self.training.learner.steps_planned();
        let wanted = self.training.learner.labels_wanted();
        let (agreement, alarm) = (self.training.learner.agreement(), self.training.learner.alarm());
        let requests = self.control.latest();
        let stands = |disputed: &&DisputedView| {
            requests.answers.labels.iter().any(|label| label.judgement == disputed.judgement)
                && !requests.confirmed.contains(&disputed.judgement)
        };
        let disputed: Arc<Vec<DisputedView>> =
            Arc::new(self.training.learner.disputed().iter().filter(stands).cloned().collect());
        let trainer = &self.training.learner;
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
        let message = Message::Checkpoint {
            env_steps: self.training.learner.steps(),
            arrays: self.training.learner.to_arrays(),
            name,
        };
        self.queue.tell(message);
        self.saved = Instant::now();
        self.saving = began.elapsed();
    }

    /// Fulfils one-time requests: show the policy, answer a free prompt, change the prompts, begin or stop looking.
    fn grant(&mut self) {
        let (publisher, control) = (self.publisher.clone(), self.control.clone());
        let mut tell = |change: &dyn Fn(&mut Snapshot)| publisher.update(change);
        let mut cancelled = || control.quitting();
        let mut done = Ok(());
        if let Some(prompts) = self.control.take(|w| &mut w.prompts) {
            done = self.training.learner.set_prompts(prompts);
            let trainer = &self.training.learner;
            self.publisher.update(|s| trainer.publish(s));
        }
        if let Some(prompt) = self.control.take(|w| &mut w.ask) {
            done = done.and_then(|()| self.training.learner.ask(&prompt, &mut tell, &mut cancelled));
        }
        if self.control.take(|w| &mut w.show_policy) {
            done = done.and_then(|()| self.training.learner.show(&mut tell, &mut cancelled));
        }
        if let Err(error) = done {
            self.fault(&error);
        }
        let began = Instant::now();
        match self.control.take(|w| &mut w.look) {
            Some(LookOrder::Begin(request)) => self.training.learner.begin_look(request),
            Some(LookOrder::Stop) => self.training.learner.stop_looking(),
            None => return,
        }
        self.looked += began.elapsed();
        let trainer = &self.training.learner;
        self.publisher.update(|s| trainer.publish(s));
    }

    /// Pauses and reports the reason. The trainer holds the state before the failed step; nothing of the failed step is
    /// saved.
    fn fault(&mut self, error: &LabError) {
        if error.is_cancelled() {
            return;
        }
        self.control.change(|w| w.run = false);
        self.publisher.update(|s| s.phase = Phase::Faulted);
        self.queue.tell(Message::Fault(error.to_string()));
    }
}
