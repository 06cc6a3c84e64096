//! The judging thread: it owns the session on disk and the pair on show, and nothing else, so that a pick is answered in milliseconds
//! whatever the worker is computing. A judgement is on disk before the next pair shows.

use super::shared_requests::{Label, SharedRequests};
use super::snapshot_publisher::SnapshotPublisher;
use super::{Command, Curve, Event, PairView, Phase};
use crate::settings::{RunSettings, TeacherKind, TeacherNoise};
use crate::store::{CheckpointHeader, Metric, Session, StoreError};
use flipside_core::{
    Arrays, Choice, Item, ItemId, Judgement, JudgementId, Pair, PairId, PairReason, Seed, Stream, both_clips,
    both_completions,
};
use flipside_preference::{RunningReturnStats, SimulatedTeacher, consistency};
use flipside_text::teacher::{GoldTeacher, Noise};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What reaches the ledger, from either side.
pub(super) enum Message {
    /// From the desk or the terminal.
    Command(Command),
    /// Pairs worth asking, best first. They replace those that wait and were never shown.
    Offer { pairs: Vec<Offered>, env_steps: u64 },
    /// Points of learning curves.
    Metrics { env_steps: u64, values: Vec<(&'static str, f64)> },
    /// Weights and everything else that a resumed run needs. `name` keeps it beside the rolling checkpoints.
    Checkpoint { env_steps: u64, arrays: Arrays, name: Option<&'static str> },
    /// The worker paused itself.
    Fault(String),
    /// The worker has ended; so does the ledger.
    Closed,
}

/// A pair that the worker proposes, sides already shuffled.
pub(super) struct Offered {
    pub items: [Item; 2],
    pub reason: PairReason,
}

/// A pair with its items.
#[derive(Clone)]
struct Question {
    pair: Pair,
    items: [Item; 2],
    /// Whether the session holds it yet.
    stored: bool,
}

impl Question {
    fn view(&self) -> PairView {
        PairView { id: self.pair.id, items: self.items.clone(), reason: self.pair.reason }
    }
}

pub(super) struct Ledger {
    session: Session,
    publisher: Arc<SnapshotPublisher>,
    control: Arc<SharedRequests>,
    seed: Seed,
    teacher: TeacherKind,
    /// How long a simulated teacher thinks; zero answers with the offer.
    thinking: Duration,
    /// Judgements planned, after which a teacher that thinks has done its part.
    planned: usize,
    /// The question on show.
    shown: Option<Question>,
    /// When a teacher that thinks will answer it.
    answer_at: Instant,
    /// Questions behind it.
    queue: VecDeque<Question>,
    next_pair: u64,
    labels: Vec<Label>,
    /// Standing judgements of the person in this process, newest last: what undo takes back.
    answered: Vec<(Judgement, Question)>,
    /// When the person's recent answers came, for the rate.
    recent: VecDeque<Instant>,
    curves: Vec<Curve>,
    published_curves: Instant,
}

/// Answers a minute are counted over this long.
const RATE_WINDOW: Duration = Duration::from_secs(180);

impl Ledger {
    /// Takes the session over; what stands in it already becomes the first labels.
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
            // The database holds a judgement to a pair that exists.
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
                answered.push((judgement, Question { pair, items, stored: true }));
            }
        }
        let mut curves: Vec<Curve> = Curve::NAMES.iter().map(|(name, ..)| Curve { name, points: Vec::new() }).collect();
        for metric in session.metrics()? {
            if let Some(curve) = curves.iter_mut().find(|c| c.name == metric.name) {
                curve.points.push([metric.env_steps as f64, metric.value]);
            }
        }
        let next_pair = session.next_pair_id()?.0;
        let ledger = Ledger {
            session,
            publisher,
            control,
            seed: Seed(settings.seed),
            teacher: settings.teacher,
            // Text mode's questions are asked in stages, which wait for them.
            thinking: Duration::from_secs_f64(if settings.text.is_some() {
                0.0
            } else {
                settings.answer_seconds.max(0.0)
            }),
            planned: settings.labels,
            shown: None,
            answer_at: Instant::now(),
            queue: VecDeque::new(),
            next_pair,
            labels,
            answered,
            recent: VecDeque::new(),
            curves,
            published_curves: Instant::now(),
        };
        ledger.publish_labels();
        let kept = ledger.session.meta(super::KEPT)?.and_then(|json| serde_json::from_str(&json).ok());
        ledger.control.change(|w| w.kept = Arc::new(kept.unwrap_or_default()));
        ledger.publisher.update(|s| s.curves = Arc::new(ledger.curves.clone()));
        Ok(ledger)
    }

    /// Serves until the worker has closed.
    pub fn run(mut self, inbox: &Receiver<Message>) {
        while let Some(message) = self.next(inbox) {
            match message {
                Message::Command(command) => self.obey(command),
                Message::Offer { pairs, env_steps } => self.take_offer(pairs, env_steps),
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
                Message::Closed => break,
            }
        }
        self.publisher.update(|s| s.curves = Arc::new(self.curves.clone()));
        // The session is closed before the last word, so that whoever hears it may open the folder.
        let Ledger { session, publisher, .. } = self;
        drop(session);
        publisher.say(Event::Closed);
    }

    /// The next message; meanwhile a teacher that thinks answers in its own time. `None` when nobody can send any more.
    fn next(&mut self, inbox: &Receiver<Message>) -> Option<Message> {
        loop {
            if !(self.thinks() && self.shown.is_some()) {
                return inbox.recv().ok();
            }
            let left = self.answer_at.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(left) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => self.answer_in_time(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Whether a simulated teacher answers who takes its time.
    fn thinks(&self) -> bool {
        self.teacher != TeacherKind::Person && !self.thinking.is_zero()
    }

    fn asks_in_time(&self) -> bool {
        self.teacher == TeacherKind::Person || (self.thinks() && self.labels.len() < self.planned)
    }

    /// What a simulated teacher says of the question on show, now that it has thought.
    fn answer_in_time(&mut self) {
        let Some(question) = self.shown.take() else { return };
        if self.labels.len() < self.planned {
            let thinking_ms = self.thinking.as_millis() as u32;
            if let Err(error) = self.answer(self.teacher, &question, thinking_ms) {
                self.shown = Some(question);
                // Not asked again until someone starts again, which shows the next question.
                self.answer_at = Instant::now() + Duration::from_secs(1);
                return self.disk_fault(&error);
            }
        }
        if self.labels.len() < self.planned {
            self.show_next();
        } else {
            self.queue.clear();
            self.publisher.update(|s| s.pair = None);
            self.publish_queue();
        }
        self.publish_labels();
    }

    fn obey(&mut self, command: Command) {
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
            Command::Judge { pair, choice, thinking_ms } => self.judge(pair, choice, thinking_ms),
            Command::Undo => self.undo(),
            Command::Retract(judgement) => self.retract(judgement),
            Command::Keep(judgement) => self.keep(judgement),
            Command::SetTeacher(teacher) => self.set_teacher(teacher),
            Command::Save => self.control.change(|w| w.save = true),
            Command::ShowPolicy => self.control.change(|w| w.show_policy = true),
            Command::Ask(prompt) => self.control.change(|w| w.ask = Some(prompt)),
            Command::SetPrompts(prompts) => {
                if prompts.is_empty() || prompts.iter().any(|prompt| prompt.trim().is_empty()) {
                    let why = "There must be a prompt, and none may be empty; the prompts stay as they were.";
                    return self.publisher.say(Event::Refused(why.to_owned()));
                }
                let kept = serde_json::to_string(&prompts).map(|json| self.session.put_meta(super::PROMPTS, &json));
                if let Ok(Err(error)) = kept {
                    return self.disk_fault(&error);
                }
                // What waits was written for the old prompts.
                self.queue.retain(|q| q.stored);
                self.control.change(|w| w.prompts = Some(prompts));
                self.publish_queue();
            }
            Command::Quit => self.control.change(|w| w.quit = true),
        }
    }

    fn judge(&mut self, pair: PairId, choice: Choice, thinking_ms: u32) {
        let asked = self.shown.clone().filter(|_| self.teacher == TeacherKind::Person);
        let Some(question) = asked.filter(|q| q.pair.id == pair) else {
            self.publisher
                .say(Event::Refused("That pair is no longer on show; the answer was not counted.".to_owned()));
            return;
        };
        match self.commit(&question, choice, "person", thinking_ms) {
            Ok(judgement) => {
                self.answered.push((judgement, question));
                self.recent.push_back(Instant::now());
                self.shown = None;
                self.show_next();
                self.publish_labels();
                self.publisher.say(Event::Judged { pair, labels: self.labels.len() });
            }
            // The pair stays on show: nothing that was not written counts as answered.
            Err(error) => self.publisher.say(Event::Refused(format!("The answer was not saved: {error}"))),
        }
    }

    fn undo(&mut self) {
        let Some((judgement, question)) = self.answered.last().cloned() else {
            self.publisher.say(Event::Refused("There is no answer of yours to take back.".to_owned()));
            return;
        };
        if let Err(error) = self.session.retract(judgement.id, now_ms()) {
            self.publisher.say(Event::Refused(format!("The answer was not taken back: {error}")));
            return;
        }
        self.answered.pop();
        self.recent.pop_back();
        self.labels.retain(|l| l.judgement != judgement.id);
        if let Some(current) = self.shown.take() {
            self.queue.push_front(current);
        }
        let pair = question.pair.id;
        self.show(question);
        self.publish_labels();
        self.publisher.say(Event::Retracted { pair });
    }

    fn retract(&mut self, judgement: JudgementId) {
        let Some(label) = self.labels.iter().find(|label| label.judgement == judgement) else {
            return self.publisher.say(Event::Refused("That answer does not stand any more.".to_owned()));
        };
        let pair = label.pair;
        if let Err(error) = self.session.retract(judgement, now_ms()) {
            return self.publisher.say(Event::Refused(format!("The answer was not taken back: {error}")));
        }
        self.labels.retain(|label| label.judgement != judgement);
        self.answered.retain(|(answer, _)| answer.id != judgement);
        self.settle(judgement);
        self.publish_labels();
        self.publisher.say(Event::Retracted { pair });
    }

    fn keep(&mut self, judgement: JudgementId) {
        let mut kept = self.control.look().kept.to_vec();
        if !kept.contains(&judgement) {
            kept.push(judgement);
        }
        let saved = serde_json::to_string(&kept).map(|json| self.session.put_meta(super::KEPT, &json));
        if let Ok(Err(error)) = saved {
            return self.disk_fault(&error);
        }
        self.control.change(|w| w.kept = Arc::new(kept));
        self.settle(judgement);
    }

    /// Takes an answer off the list of disputed ones.
    fn settle(&self, judgement: JudgementId) {
        self.publisher.update(|s| Arc::make_mut(&mut s.disputed).retain(|disputed| disputed.judgement != judgement));
    }

    fn set_teacher(&mut self, teacher: TeacherKind) {
        if self.teacher == teacher {
            return;
        }
        let unknown = self.publisher.snapshot().text.as_ref().is_some_and(|text| !text.has_gold);
        if unknown && teacher != TeacherKind::Person {
            let why =
                "Nobody knows the true score of answers to these prompts, so no simulated teacher can judge them.";
            return self.publisher.say(Event::Refused(why.to_owned()));
        }
        self.teacher = teacher;
        if teacher == TeacherKind::Person {
            self.show_next();
        } else {
            // What the person did not answer is not answered on their behalf; the worker offers afresh.
            self.shown = None;
            self.queue.clear();
            self.publisher.update(|s| s.pair = None);
        }
        self.publisher.update(|s| {
            s.teacher = teacher;
            s.taught = None;
        });
        let (ready, asks_in_time) = (self.queue.len(), self.asks_in_time());
        self.control.change(|w| {
            w.teacher = teacher;
            w.asks_in_time = asks_in_time;
            w.pairs_ready = ready;
        });
    }

    fn take_offer(&mut self, pairs: Vec<Offered>, env_steps: u64) {
        let questions: Vec<Question> = pairs
            .into_iter()
            .map(|offered| {
                let id = PairId(self.next_pair);
                self.next_pair += 1;
                let items = offered.items.each_ref().map(Item::id);
                Question {
                    pair: Pair { id, items, reason: offered.reason, asked_at: env_steps },
                    items: offered.items,
                    stored: false,
                }
            })
            .collect();
        if self.asks_in_time() {
            // An earlier pair that undo pushed back was seen already and keeps its place in front.
            self.queue.retain(|q| q.stored);
            self.queue.extend(questions);
            if self.shown.is_none() {
                self.show_next();
            } else {
                self.publish_queue();
            }
        } else if self.teacher != TeacherKind::Person && !self.thinks() {
            self.answer_for(self.teacher, &questions);
        }
        self.control.change(|w| w.offers_done += 1);
    }

    /// A simulated teacher answers at once, and what it says is kept like a person's word.
    fn answer_for(&mut self, teacher: TeacherKind, questions: &[Question]) {
        for question in questions {
            let answered = self.session.put_items(&question.pair, &question.items);
            if let Err(error) = answered.and_then(|()| self.answer(teacher, question, 0)) {
                self.disk_fault(&error);
                break;
            }
        }
        self.publish_labels();
    }

    /// Has a simulated teacher judge a question that the session holds.
    fn answer(&mut self, teacher: TeacherKind, question: &Question, thinking_ms: u32) -> Result<(), StoreError> {
        // One stream a question: the answers are the same however the run was cut into sessions. Of texts it is named by the answer's place,
        // as the pair is chosen by it: a pair that was stored and not answered when the process died keeps its own number.
        let number = if self.session.holds_texts() { self.labels.len() as u64 } else { question.pair.id.0 };
        let stream = self.seed.stream(&format!("teacher/{number}"));
        let usual = return_stats(&self.labels);
        let Some((choice, name)) = simulated(teacher, stream, &question.items, usual) else { return Ok(()) };
        self.commit(question, choice, name, thinking_ms)?;
        self.publisher.update(|s| s.taught = Some((question.view(), choice)));
        Ok(())
    }

    /// Writes the judgement, then counts it.
    fn commit(
        &mut self,
        question: &Question,
        choice: Choice,
        teacher: &str,
        thinking_ms: u32,
    ) -> Result<Judgement, StoreError> {
        let judgement = self.session.record_judgement(question.pair.id, choice, teacher, now_ms(), thinking_ms)?;
        self.labels.push(Label {
            judgement: judgement.id,
            pair: question.pair.id,
            items: question.items.clone(),
            choice,
        });
        Ok(judgement)
    }

    fn show_next(&mut self) {
        match self.queue.pop_front() {
            Some(question) => self.show(question),
            None => {
                self.publisher.update(|s| s.pair = None);
                self.publish_queue();
            }
        }
    }

    /// Puts a question on show. It reaches the disk here, before anyone can have answered it.
    fn show(&mut self, mut question: Question) {
        if !question.stored
            && let Err(error) = self.session.put_items(&question.pair, &question.items)
        {
            self.queue.push_front(question);
            self.disk_fault(&error);
            return;
        }
        question.stored = true;
        let view = question.view();
        self.shown = Some(question);
        self.answer_at = Instant::now() + self.thinking;
        self.publisher.update(|s| s.pair = Some(view));
        self.publish_queue();
    }

    fn publish_queue(&self) {
        let ready = self.queue.len() + usize::from(self.shown.is_some());
        self.publisher.update(|s| s.pairs_ready = self.queue.len());
        self.control.change(|w| w.pairs_ready = ready);
    }

    fn publish_labels(&self) {
        let (labels, asks_in_time) = (Arc::new(self.labels.clone()), self.asks_in_time());
        let consistency = consistency(labels.iter().map(|label| (label.items.each_ref().map(Item::id), label.choice)));
        self.publisher.update(|s| {
            s.labels = labels.len();
            s.consistency = consistency;
            s.labels_per_minute = self.labels_per_minute();
        });
        self.control.change(|w| {
            w.labels = labels;
            w.labels_version += 1;
            w.asks_in_time = asks_in_time;
        });
    }

    fn labels_per_minute(&self) -> f64 {
        let now = Instant::now();
        let recent: Vec<&Instant> = self.recent.iter().filter(|&&t| now - t < RATE_WINDOW).collect();
        match recent.as_slice() {
            [first, .., last] => (recent.len() - 1) as f64 * 60.0 / (**last - **first).as_secs_f64().max(1.0),
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
        // A copy of every curve a few times a second would cost more than it tells.
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

    /// The session cannot be written: say so once and rest, so that no training is done that would be lost.
    fn disk_fault(&mut self, error: &StoreError) {
        let why = format!("Training rests because the session could not be written: {error}");
        let told = self.control.look().disk_fault.is_some();
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

/// What a simulated teacher says of a pair, and its name: by the task's true return of clips, by the gold score of texts. `None` for a
/// person, and for texts whose score nobody knows.
pub(super) fn simulated(
    teacher: TeacherKind,
    stream: Stream,
    items: &[Item; 2],
    usual: Option<RunningReturnStats>,
) -> Option<(Choice, &'static str)> {
    if let Some([left, right]) = both_clips(items) {
        let mut teacher = SimulatedTeacher::new(teacher, stream)?.with_return_stats(usual);
        return Some((teacher.judge(&left.frames, &right.frames), teacher.name()));
    }
    let [left, right] = both_completions(items)?;
    let (left, right) = (left.gold?, right.gold?);
    let noise = text_noise(teacher)?;
    Some((GoldTeacher::new(noise, stream).judge(left, right), GoldTeacher::NAME))
}

/// What the latest judgements were about, as many as a teacher remembers.
pub(super) fn return_stats(labels: &[Label]) -> Option<RunningReturnStats> {
    const REMEMBERED: usize = 20;
    let latest = &labels[labels.len().saturating_sub(REMEMBERED)..];
    let returns: Vec<[f64; 2]> = latest
        .iter()
        .filter_map(|label| both_clips(&label.items))
        .map(|clips| clips.map(|clip| clip.frames.task_return()))
        .collect();
    let mean = |of: fn(&[f64; 2]) -> f64| returns.iter().map(of).sum::<f64>() / returns.len() as f64;
    let usual = || RunningReturnStats {
        mean_return: mean(|pair| (pair[0] + pair[1]) / 2.0),
        difference: mean(|pair| (pair[0] - pair[1]).abs()),
    };
    (!returns.is_empty()).then(usual)
}

/// How a simulated teacher of texts errs; `None` for a person.
pub(super) fn text_noise(teacher: TeacherKind) -> Option<Noise> {
    match teacher {
        TeacherKind::Person => None,
        TeacherKind::Oracle => Some(Noise { doubt: 0.0, mistakes: 0.0 }),
        TeacherKind::Mistaken { rate } => Some(Noise { mistakes: rate, ..Noise::default() }),
        TeacherKind::Fallible(TeacherNoise { beta, mistakes, .. }) => {
            Some(Noise { doubt: beta.map_or(0.0, f64::recip), mistakes })
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
