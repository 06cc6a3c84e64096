//! The ledger thread. It owns the session on disk and the [questions](super::questions), and nothing else, so it
//! responds to an answer within milliseconds, whatever the worker is computing. A judgement is on disk before the next
//! pair is shown.

use super::questions::{Answer, Offer, Question, Questions, Record};
use super::shared_requests::{Label, LookOrder, SharedRequests};
use super::snapshot_publisher::SnapshotPublisher;
use super::{Command, Curve, Event, Phase};
use crate::settings::{RunSettings, TeacherKind};
use crate::store::{CheckpointHeader, Metric, Session, StoreError};
use flipside_core::{Arrays, Choice, Item, ItemId, JudgementId, Pair, PairId};
use flipside_preference::consistency;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the desk, the command line and the worker send to the ledger.
pub(super) enum Message {
    /// From the desk or the command line.
    Command(Command),
    /// Pairs worth asking. They replace waiting pairs that were never shown.
    Offer { offer: Offer, env_steps: u64 },
    /// Points of learning curves.
    Metrics { env_steps: u64, values: Vec<(&'static str, f64)> },
    /// Weights and everything else that a resumed run needs. A checkpoint with a `name` is stored beside the rolling
    /// ones.
    Checkpoint { env_steps: u64, arrays: Arrays, name: Option<&'static str> },
    /// The worker paused itself.
    Fault(String),
    /// The plan is done.
    Finished,
    /// The worker has ended, so the ledger ends too.
    Closed,
}

pub(super) struct Ledger {
    session: Session,
    publisher: Arc<SnapshotPublisher>,
    control: Arc<SharedRequests>,
    questions: Questions,
    /// The version of the labels that was last published.
    published: Option<u64>,
    /// When the person's recent answers came; gives the answers per minute.
    recent: VecDeque<Duration>,
    curves: Vec<Curve>,
    published_curves: Instant,
}

/// The session as a [`Record`], at a given time since it was opened.
struct OnDisk<'a> {
    session: &'a mut Session,
    now: Duration,
}

impl Record for OnDisk<'_> {
    fn put_question(&mut self, pair: &Pair, items: &[Item; 2]) -> Result<(), StoreError> {
        self.session.put_items(pair, items)
    }

    fn put_answer(&mut self, answer: Answer) -> Result<JudgementId, StoreError> {
        let at_ms = now_ms() - self.now.saturating_sub(answer.at).as_millis() as i64;
        let judged =
            self.session.record_judgement(answer.pair, answer.choice, answer.teacher, at_ms, answer.thinking_ms);
        judged.map(|judgement| judgement.id)
    }

    fn retract(&mut self, judgement: JudgementId) -> Result<(), StoreError> {
        self.session.retract(judgement, now_ms()).map(drop)
    }
}

/// Answers per minute are counted over this long.
const RATE_WINDOW: Duration = Duration::from_secs(180);

impl Ledger {
    /// Takes over the session; the judgements that stand in it become the first labels.
    pub fn new(
        session: Session,
        publisher: Arc<SnapshotPublisher>,
        control: Arc<SharedRequests>,
        settings: &RunSettings,
    ) -> Result<Ledger, StoreError> {
        let mut cache: HashMap<ItemId, Item> = HashMap::new();
        let mut labels = Vec::new();
        let mut answered = Vec::new();
        for judgement in session.standing()? {
            // The database holds judgements only of pairs that exist.
            let Some(pair) = session.pair(judgement.pair)? else { continue };
            let mut item = |id: ItemId| -> Result<Item, StoreError> {
                Ok(match cache.get(&id) {
                    Some(item) => item.clone(),
                    None => cache.entry(id).or_insert(session.item(id)?).clone(),
                })
            };
            let items = [item(pair.items[0])?, item(pair.items[1])?];
            labels.push(Label {
                judgement: judgement.id,
                pair: pair.id,
                items: items.clone(),
                choice: judgement.choice,
            });
            if judgement.teacher == "person" {
                answered.push((judgement.id, Question { pair, items, stored: true }));
            }
        }
        let mut curves: Vec<Curve> = Curve::NAMES.iter().map(|(name, ..)| Curve { name, points: Vec::new() }).collect();
        for metric in session.metrics()? {
            if let Some(curve) = curves.iter_mut().find(|c| c.name == metric.name) {
                curve.points.push([metric.env_steps as f64, metric.value]);
            }
        }
        let questions = Questions::new(settings, session.next_pair_id()?).go_on_from(labels, answered);
        let mut ledger = Ledger {
            session,
            publisher,
            control,
            questions,
            published: None,
            recent: VecDeque::new(),
            curves,
            published_curves: Instant::now(),
        };
        ledger.publish(Duration::ZERO);
        let confirmed = ledger.session.meta(super::CONFIRMED)?.and_then(|json| serde_json::from_str(&json).ok());
        ledger.control.change(|w| w.confirmed = Arc::new(confirmed.unwrap_or_default()));
        ledger.publisher.update(|s| s.curves = Arc::new(ledger.curves.clone()));
        Ok(ledger)
    }

    /// Runs until the worker has closed or there are no senders left. Meanwhile a simulated teacher with a thinking
    /// time answers when its answers are due.
    pub fn run(mut self, inbox: &Receiver<Message>) {
        let opened = Instant::now();
        loop {
            let message = match self.next_answer_at() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout(at.saturating_sub(opened.elapsed())),
            };
            let now = opened.elapsed();
            self.advance(now);
            match message {
                Ok(Message::Closed) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.take(message, now),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.publisher.update(|s| s.curves = Arc::new(self.curves.clone()));
        // The session is closed before the last event, so that whoever receives it may open the folder.
        let Ledger { session, publisher, .. } = self;
        drop(session);
        publisher.say(Event::Closed);
    }

    /// When a simulated teacher with a thinking time gives its next answer, since the session was opened.
    pub fn next_answer_at(&self) -> Option<Duration> {
        self.questions.next_answer_at()
    }

    /// Handles a message, `now` after the session was opened.
    pub fn take(&mut self, message: Message, now: Duration) {
        match message {
            Message::Command(command) => self.obey(command, now),
            Message::Offer { offer, env_steps } => self.take_offer(offer, env_steps, now),
            Message::Metrics { env_steps, values } => self.record(env_steps, &values),
            Message::Checkpoint { env_steps, arrays, name } => self.save(env_steps, &arrays, name),
            Message::Fault(why) => {
                self.control.change(|w| w.run = false);
                self.publisher.update(|s| {
                    s.phase = Phase::Faulted;
                    s.fault = Some(why.clone());
                });
                self.publisher.say(Event::Faulted(why));
            }
            Message::Finished => {
                self.publisher.update(|s| s.curves = Arc::new(self.curves.clone()));
                self.publisher.say(Event::Finished);
            }
            Message::Closed => {}
        }
    }

    /// Lets a simulated teacher with a thinking time give the answers that are due by `now`.
    pub fn advance(&mut self, now: Duration) {
        let Ledger { session, questions, .. } = self;
        match questions.advance(now, &mut OnDisk { session, now }) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => self.disk_fault(&error),
        }
        self.publish(now);
    }

    fn obey(&mut self, command: Command, now: Duration) {
        match command {
            Command::Start => {
                self.publisher.update(|s| s.fault = None);
                self.control.change(|w| {
                    w.run = true;
                    w.disk_fault = None;
                });
            }
            Command::Pause => self.control.change(|w| {
                w.run = false;
                w.save = true;
            }),
            Command::Judge { pair, choice, thinking_ms } => self.judge((pair, choice), thinking_ms, now),
            Command::Undo => self.undo(now),
            Command::Retract(judgement) => self.retract(judgement, now),
            Command::Confirm(judgement) => self.confirm(judgement),
            Command::SetTeacher(teacher) => self.set_teacher(teacher, now),
            Command::Save => self.control.change(|w| w.save = true),
            Command::ShowPolicy => self.control.change(|w| w.show_policy = true),
            Command::Ask(prompt) => self.control.change(|w| w.ask = Some(prompt)),
            Command::Look(request) => self.control.change(|w| w.look = Some(LookOrder::Begin(request))),
            Command::StopLooking => self.control.change(|w| w.look = Some(LookOrder::Stop)),
            Command::SetPrompts(prompts) => {
                if prompts.is_empty() || prompts.iter().any(|prompt| prompt.trim().is_empty()) {
                    let why = "There must be a prompt, and none may be empty; the prompts stay as they were.";
                    return self.publisher.say(Event::Refused(why.to_owned()));
                }
                let saved = serde_json::to_string(&prompts).map(|json| self.session.put_meta(super::PROMPTS, &json));
                if let Ok(Err(error)) = saved {
                    return self.disk_fault(&error);
                }
                // The waiting pairs were written for the old prompts.
                self.questions.drop_unseen();
                self.control.change(|w| w.prompts = Some(prompts));
                self.publish(now);
            }
            Command::Quit => self.control.change(|w| w.quit = true),
        }
    }

    fn judge(&mut self, answer: (PairId, Choice), thinking_ms: u32, now: Duration) {
        let Ledger { session, questions, .. } = self;
        let mut record = OnDisk { session, now };
        match questions.answer(answer, thinking_ms, now, &mut record) {
            Ok(true) => {
                let shown = questions.show_next(now, &mut record);
                self.recent.push_back(now);
                if let Err(error) = shown {
                    self.disk_fault(&error);
                }
                self.publish(now);
                self.publisher.say(Event::Judged { pair: answer.0, labels: self.questions.labels().len() });
            }
            Ok(false) => self
                .publisher
                .say(Event::Refused("That pair is no longer on show; the answer was not counted.".to_owned())),
            // The pair stays on show: an answer that was not written does not count.
            Err(error) => self.publisher.say(Event::Refused(format!("The answer was not saved: {error}"))),
        }
    }

    fn undo(&mut self, now: Duration) {
        let Ledger { session, questions, .. } = self;
        match questions.undo(now, &mut OnDisk { session, now }) {
            Ok(Some(pair)) => {
                self.recent.pop_back();
                self.publish(now);
                self.publisher.say(Event::Retracted { pair });
            }
            Ok(None) => self.publisher.say(Event::Refused("There is no answer of yours to take back.".to_owned())),
            Err(error) => self.publisher.say(Event::Refused(format!("The answer was not taken back: {error}"))),
        }
    }

    fn retract(&mut self, judgement: JudgementId, now: Duration) {
        let Ledger { session, questions, .. } = self;
        match questions.retract(judgement, &mut OnDisk { session, now }) {
            Ok(Some(pair)) => {
                self.settle(judgement);
                self.publish(now);
                self.publisher.say(Event::Retracted { pair });
            }
            Ok(None) => self.publisher.say(Event::Refused("That answer does not stand any more.".to_owned())),
            Err(error) => self.publisher.say(Event::Refused(format!("The answer was not taken back: {error}"))),
        }
    }

    fn confirm(&mut self, judgement: JudgementId) {
        let mut confirmed = self.control.latest().confirmed.to_vec();
        if !confirmed.contains(&judgement) {
            confirmed.push(judgement);
        }
        let saved = serde_json::to_string(&confirmed).map(|json| self.session.put_meta(super::CONFIRMED, &json));
        if let Ok(Err(error)) = saved {
            return self.disk_fault(&error);
        }
        self.control.change(|w| w.confirmed = Arc::new(confirmed));
        self.settle(judgement);
    }

    /// Removes a judgement from the list of disputed ones.
    fn settle(&self, judgement: JudgementId) {
        self.publisher.update(|s| Arc::make_mut(&mut s.disputed).retain(|disputed| disputed.judgement != judgement));
    }

    fn set_teacher(&mut self, teacher: TeacherKind, now: Duration) {
        let unknown = self.publisher.snapshot().text().is_some_and(|text| !text.has_gold);
        if unknown && teacher != TeacherKind::Person && teacher != self.questions.teacher() {
            let why =
                "Nobody knows the true score of answers to these prompts, so no simulated teacher can judge them.";
            return self.publisher.say(Event::Refused(why.to_owned()));
        }
        let Ledger { session, questions, .. } = self;
        if let Err(error) = questions.set_teacher(teacher, now, &mut OnDisk { session, now }) {
            self.disk_fault(&error);
        }
        self.publish(now);
    }

    fn take_offer(&mut self, offer: Offer, env_steps: u64, now: Duration) {
        let Ledger { session, questions, .. } = self;
        if let Err(error) = questions.offer(offer, env_steps, now, &mut OnDisk { session, now }) {
            self.disk_fault(&error);
        }
        self.publish(now);
        self.control.change(|w| w.offers_done += 1);
    }

    /// Publishes questions and answers to the desk and the worker.
    fn publish(&mut self, now: Duration) {
        let answers = self.questions.answers();
        let labels = &answers.labels;
        let changed = self.published.replace(answers.labels_version) != Some(answers.labels_version);
        let consistency = changed
            .then(|| consistency(labels.iter().map(|label| (label.items.each_ref().map(Item::id), label.choice))));
        self.publisher.update(|s| {
            s.teacher = answers.teacher;
            s.pair = self.questions.shown().map(Question::view);
            s.pairs_ready = self.questions.waiting();
            s.taught = self.questions.taught().map(|(question, choice)| (question.view(), *choice));
            s.labels = labels.len();
            s.labels_per_minute = self.labels_per_minute(now);
            if let Some(consistency) = consistency {
                s.consistency = consistency;
            }
        });
        self.control.change(|w| w.answers = answers);
    }

    fn labels_per_minute(&self, now: Duration) -> f64 {
        let recent: Vec<Duration> =
            self.recent.iter().copied().filter(|at| now.saturating_sub(*at) < RATE_WINDOW).collect();
        match recent.as_slice() {
            [first, .., last] => (recent.len() - 1) as f64 * 60.0 / (*last - *first).as_secs_f64().max(1.0),
            _ => 0.0,
        }
    }

    fn record(&mut self, env_steps: u64, values: &[(&'static str, f64)]) {
        let at_ms = now_ms();
        let batch: Vec<Metric> =
            values.iter().map(|&(name, value)| Metric { env_steps, name: name.to_owned(), value, at_ms }).collect();
        if let Err(error) = self.session.put_metrics(&batch) {
            self.disk_fault(&error);
        }
        for (name, value) in values {
            if let Some(curve) = self.curves.iter_mut().find(|c| c.name == *name) {
                curve.points.push([env_steps as f64, *value]);
            }
        }
        // Copying every curve several times a second would cost more than it is worth.
        if self.published_curves.elapsed() > Duration::from_millis(500) {
            self.published_curves = Instant::now();
            self.publisher.update(|s| s.curves = Arc::new(self.curves.clone()));
        }
    }

    fn save(&mut self, env_steps: u64, arrays: &Arrays, name: Option<&'static str>) {
        let header = CheckpointHeader::new("run", env_steps);
        let saved = match name {
            Some(name) => self.session.save_named(name, &header, arrays),
            None => self.session.save_checkpoint(&header, arrays),
        };
        match saved {
            Ok(_) if name.is_none() => self.publisher.say(Event::Saved { env_steps }),
            Ok(_) => {}
            Err(error) => self.disk_fault(&error),
        }
    }

    /// The session cannot be written: reports it once and stops training, because its results would be lost.
    fn disk_fault(&mut self, error: &StoreError) {
        let why = format!("Training rests because the session could not be written: {error}");
        let told = self.control.latest().disk_fault.is_some();
        self.control.change(|w| {
            w.run = false;
            w.disk_fault = Some(why.clone());
        });
        if !told {
            self.publisher.update(|s| {
                s.phase = Phase::Faulted;
                s.fault = Some(why.clone());
            });
            self.publisher.say(Event::Faulted(why));
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
