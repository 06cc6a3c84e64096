//! Questions and answers: the question on show, the questions that wait behind it, the standing answers, and when a
//! simulated teacher's next answer is due.
//!
//! This half of the [driver](super::driver) has no threads, no files and no clock. Time is passed in. Whatever must not
//! be lost is written to a [`Record`] before it counts. The ledger passes in its session and the current time; a
//! benchmark passes in [`Unrecorded`].

use super::shared_requests::Label;
use super::vocabulary::PairView;
use crate::settings::{RunSettings, TeacherKind, TeacherNoise};
use crate::store::StoreError;
use flipside_core::{Choice, Item, JudgementId, Pair, PairId, PairReason, Seed, Stream, both_clips, both_completions};
use flipside_preference::{RunningReturnStats, SimulatedTeacher};
use flipside_text::teacher::{GoldTeacher, Noise};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How many pairs should be ready, including the one on show. This must be enough for a burst of quick answers during
/// one round of training.
pub(super) const PAIRS_READY: usize = 12;

/// A simulated teacher's answer that could not be saved is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A pair that training proposes, with its sides already shuffled.
pub(super) struct Offered {
    pub items: [Item; 2],
    pub reason: PairReason,
}

/// What training offers to ask.
pub(super) struct Offer {
    /// Pairs worth asking, best first.
    pub pairs: Vec<Offered>,
    /// Whether they replace the question on show, too: it is no longer about what the policy does.
    pub renews: bool,
}

/// A pair with its items.
#[derive(Clone)]
pub(super) struct Question {
    pub pair: Pair,
    pub items: [Item; 2],
    /// Whether it has been written to the record.
    pub stored: bool,
}

impl Question {
    pub fn view(&self) -> PairView {
        PairView { id: self.pair.id, items: self.items.clone(), reason: self.pair.reason }
    }
}

/// An answer, as a record stores it.
pub(super) struct Answer<'a> {
    pub pair: PairId,
    pub choice: Choice,
    /// `person`, or the simulated teacher's name.
    pub teacher: &'a str,
    /// When it was given, on the caller's clock.
    pub at: Duration,
    pub thinking_ms: u32,
}

/// Stores what must not be lost. If it returns an error, the change did not happen.
pub(super) trait Record {
    /// Stores a question, before anyone can have answered it.
    fn put_question(&mut self, pair: &Pair, items: &[Item; 2]) -> Result<(), StoreError>;

    /// Appends an answer and returns its ID.
    fn put_answer(&mut self, answer: Answer) -> Result<JudgementId, StoreError>;

    /// Appends that an answer was taken back.
    fn retract(&mut self, judgement: JudgementId) -> Result<(), StoreError>;
}

/// A record that stores nothing and numbers answers as a new session does: 1, 2, 3, …
#[derive(Default)]
pub(super) struct Unrecorded {
    answers: u64,
}

impl Record for Unrecorded {
    fn put_question(&mut self, _pair: &Pair, _items: &[Item; 2]) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_answer(&mut self, _answer: Answer) -> Result<JudgementId, StoreError> {
        self.answers += 1;
        Ok(JudgementId(self.answers))
    }

    fn retract(&mut self, _judgement: JudgementId) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What training needs to know of questions and answers.
#[derive(Clone, Default)]
pub(super) struct Answers {
    /// Who answers.
    pub teacher: TeacherKind,
    /// Whether pairs should be ready while training continues, because the teacher takes time to answer. That is a
    /// person, or a simulated teacher with a thinking time until it has given all planned answers.
    pub asks_in_time: bool,
    /// The number of pairs on show or waiting.
    pub pairs_ready: usize,
    /// Every standing judgement, skips included, oldest first.
    pub labels: Arc<Vec<Label>>,
    /// Changes whenever `labels` changes.
    pub labels_version: u64,
}

impl Answers {
    /// Whether fewer pairs are ready than there should be.
    pub fn run_short(&self) -> bool {
        self.asks_in_time && self.pairs_ready < PAIRS_READY
    }
}

/// The questions of a run and their answers.
pub(super) struct Questions {
    seed: Seed,
    /// Whether the items are texts.
    of_texts: bool,
    teacher: TeacherKind,
    /// A simulated teacher's thinking time. With zero it answers as soon as a pair is offered.
    thinking: Duration,
    /// Judgements planned. A simulated teacher with a thinking time stops after these.
    planned: usize,
    shown: Option<Question>,
    /// The question that was on show until newer ones replaced it. An answer to it may be on its way.
    replaced: Option<Question>,
    /// The question that the person took an answer back to, and has not answered again.
    returned: Option<PairId>,
    /// When a simulated teacher with a thinking time will answer the question on show.
    answer_at: Duration,
    /// Questions that wait behind the one on show, the next one first.
    waiting: VecDeque<Question>,
    next_pair: u64,
    labels: Arc<Vec<Label>>,
    labels_version: u64,
    /// Standing judgements of the person, newest last. Undo takes these back.
    answered: Vec<(JudgementId, Question)>,
    /// The latest question that a simulated teacher answered, and its answer.
    taught: Option<(Question, Choice)>,
}

impl Questions {
    /// The questions of a new run. `next_pair` is the first number that no pair in the record has.
    pub fn new(settings: &RunSettings, next_pair: PairId) -> Questions {
        let of_texts = settings.text().is_some();
        Questions {
            seed: Seed(settings.seed),
            of_texts,
            teacher: settings.teacher,
            thinking: settings.thinking(),
            planned: settings.labels,
            shown: None,
            replaced: None,
            returned: None,
            answer_at: Duration::ZERO,
            waiting: VecDeque::new(),
            next_pair: next_pair.0,
            labels: Arc::default(),
            labels_version: 0,
            answered: Vec::new(),
            taught: None,
        }
    }

    /// Restores the questions of a run that was closed: every standing judgement, and the person's own with their
    /// questions.
    pub fn go_on_from(self, labels: Vec<Label>, answered: Vec<(JudgementId, Question)>) -> Questions {
        Questions { labels: Arc::new(labels), labels_version: 1, answered, ..self }
    }

    /// The question on show.
    pub fn shown(&self) -> Option<&Question> {
        self.shown.as_ref()
    }

    /// How many questions wait behind the one on show.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The latest question that a simulated teacher answered, and its answer.
    pub fn taught(&self) -> Option<&(Question, Choice)> {
        self.taught.as_ref()
    }

    /// Every standing judgement, oldest first.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Who answers.
    pub fn teacher(&self) -> TeacherKind {
        self.teacher
    }

    /// What training needs to know of questions and answers.
    pub fn answers(&self) -> Answers {
        Answers {
            teacher: self.teacher,
            asks_in_time: self.asks_in_time(),
            pairs_ready: self.waiting.len() + usize::from(self.shown.is_some()),
            labels: self.labels.clone(),
            labels_version: self.labels_version,
        }
    }

    /// When a simulated teacher's next answer is due; `None` if no question is on show to one with a thinking time.
    pub fn next_answer_at(&self) -> Option<Duration> {
        (self.thinks() && self.shown.is_some()).then_some(self.answer_at)
    }

    /// Whether the teacher is a simulated one with a thinking time.
    fn thinks(&self) -> bool {
        self.teacher != TeacherKind::Person && !self.thinking.is_zero()
    }

    fn asks_in_time(&self) -> bool {
        self.teacher == TeacherKind::Person || (self.thinks() && self.labels.len() < self.planned)
    }

    /// Has a simulated teacher with a thinking time give every answer that is due by `now`, each at its own time: it
    /// sees the next question as soon as it has answered the last, however rarely this is called. Returns whether any
    /// answer was due.
    pub fn advance(&mut self, now: Duration, record: &mut dyn Record) -> Result<bool, StoreError> {
        let mut any = false;
        while let Some(at) = self.next_answer_at().filter(|at| *at <= now) {
            let Some(question) = self.shown.take() else { break };
            any = true;
            if self.labels.len() < self.planned
                && let Err(error) = self.answer_for(&question, at, record)
            {
                self.shown = Some(question);
                self.answer_at = now + TRY_AGAIN;
                return Err(error);
            }
            if self.labels.len() < self.planned {
                self.show_next(at, record)?;
            } else {
                self.waiting.clear();
            }
        }
        Ok(any)
    }

    /// Takes pairs worth asking, best first. They replace waiting pairs that were never shown. A teacher that answers
    /// at once has answered them when this returns.
    pub fn offer(
        &mut self,
        offer: Offer,
        env_steps: u64,
        now: Duration,
        record: &mut dyn Record,
    ) -> Result<(), StoreError> {
        self.advance(now, record)?;
        let Offer { pairs, renews } = offer;
        let questions: Vec<Question> = pairs.into_iter().map(|offered| self.question(offered, env_steps)).collect();
        if self.asks_in_time() {
            if renews {
                self.waiting.clear();
                // Whoever took an answer back wants to give it again.
                let returned = self.returned;
                let outdated = self.shown.take_if(|shown| Some(shown.pair.id) != returned);
                self.replaced = outdated.or_else(|| self.replaced.take());
            } else {
                // A stored question has been seen before: undo pushed it back. It keeps its place in front.
                self.waiting.retain(|question| question.stored);
            }
            self.waiting.extend(questions);
            if self.shown.is_none() {
                self.show_next(now, record)?;
            }
        } else if self.teacher != TeacherKind::Person && !self.thinks() {
            for question in &questions {
                record.put_question(&question.pair, &question.items)?;
                self.answer_for(question, now, record)?;
            }
        }
        Ok(())
    }

    fn question(&mut self, offered: Offered, env_steps: u64) -> Question {
        let id = PairId(self.next_pair);
        self.next_pair += 1;
        let items = offered.items.each_ref().map(Item::id);
        let pair = Pair { id, items, reason: offered.reason, asked_at: env_steps };
        Question { pair, items: offered.items, stored: false }
    }

    /// Takes a person's answer to the question on show, or to the one that was on show until newer ones replaced it;
    /// false if `pair` is neither. [`Questions::show_next`] then shows the next question.
    pub fn answer(
        &mut self,
        (pair, choice): (PairId, Choice),
        thinking_ms: u32,
        at: Duration,
        record: &mut dyn Record,
    ) -> Result<bool, StoreError> {
        let is_asked = |question: &mut Question| self.teacher == TeacherKind::Person && question.pair.id == pair;
        let (question, was_on_show) = match (self.shown.take_if(is_asked), self.replaced.take_if(is_asked)) {
            (Some(question), _) => (question, true),
            (None, Some(question)) => (question, false),
            (None, None) => return Ok(false),
        };
        match self.commit(&question, Answer { pair, choice, teacher: "person", at, thinking_ms }, record) {
            Ok(judgement) => {
                self.returned = self.returned.filter(|returned| *returned != pair);
                self.answered.push((judgement, question));
                Ok(true)
            }
            // The question stays where it was: an answer that was not saved does not count.
            Err(error) => {
                *(if was_on_show { &mut self.shown } else { &mut self.replaced }) = Some(question);
                Err(error)
            }
        }
    }

    /// Takes the person's latest answer back and shows its question again; `None` if there is none.
    pub fn undo(&mut self, now: Duration, record: &mut dyn Record) -> Result<Option<PairId>, StoreError> {
        let Some((judgement, question)) = self.answered.last().cloned() else { return Ok(None) };
        record.retract(judgement)?;
        self.answered.pop();
        self.forget(judgement);
        if let Some(current) = self.shown.take() {
            self.waiting.push_front(current);
        }
        let pair = question.pair.id;
        self.returned = Some(pair);
        self.show(question, now, record)?;
        Ok(Some(pair))
    }

    /// Takes an answer back for good. Returns the pair that it was about, or `None` if it does not stand.
    pub fn retract(&mut self, judgement: JudgementId, record: &mut dyn Record) -> Result<Option<PairId>, StoreError> {
        let Some(label) = self.labels.iter().find(|label| label.judgement == judgement) else { return Ok(None) };
        let pair = label.pair;
        record.retract(judgement)?;
        self.answered.retain(|(answer, _)| *answer != judgement);
        self.forget(judgement);
        Ok(Some(pair))
    }

    fn forget(&mut self, judgement: JudgementId) {
        Arc::make_mut(&mut self.labels).retain(|label| label.judgement != judgement);
        self.labels_version += 1;
    }

    /// Sets who answers from now on.
    pub fn set_teacher(
        &mut self,
        teacher: TeacherKind,
        now: Duration,
        record: &mut dyn Record,
    ) -> Result<(), StoreError> {
        if self.teacher == teacher {
            return Ok(());
        }
        self.teacher = teacher;
        self.taught = None;
        if teacher != TeacherKind::Person {
            // Questions that the person left open are not answered on their behalf. Training offers new ones.
            (self.shown, self.replaced, self.returned) = (None, None, None);
            self.waiting.clear();
        } else if self.shown.is_none() {
            self.show_next(now, record)?;
        }
        Ok(())
    }

    /// Drops the questions that nobody has seen.
    pub fn drop_unseen(&mut self) {
        self.waiting.retain(|question| question.stored);
    }

    /// Puts the next question on show, if none is and there is one.
    pub fn show_next(&mut self, now: Duration, record: &mut dyn Record) -> Result<(), StoreError> {
        if self.shown.is_some() {
            return Ok(());
        }
        match self.waiting.pop_front() {
            Some(question) => self.show(question, now, record),
            None => Ok(()),
        }
    }

    /// Puts a question on show. It is written to the record before anyone can have answered it.
    fn show(&mut self, mut question: Question, now: Duration, record: &mut dyn Record) -> Result<(), StoreError> {
        if !question.stored
            && let Err(error) = record.put_question(&question.pair, &question.items)
        {
            self.waiting.push_front(question);
            return Err(error);
        }
        question.stored = true;
        self.shown = Some(question);
        self.answer_at = now + self.thinking;
        Ok(())
    }

    /// Has the simulated teacher answer a question that is in the record. Its answer is stored like a person's.
    fn answer_for(&mut self, question: &Question, at: Duration, record: &mut dyn Record) -> Result<(), StoreError> {
        // There is one random stream per question, so the answers are the same however the run was split into sessions.
        // For texts the stream is named by the position of the answer, which also determines the pair. The pair's
        // number would not do: a pair that was stored but not answered when the process died keeps that number.
        let number = if self.of_texts { self.labels.len() as u64 } else { question.pair.id.0 };
        let stream = self.seed.stream(&format!("teacher/{number}"));
        let usual = return_stats(&self.labels);
        let Some((choice, teacher)) = simulated(self.teacher, stream, &question.items, usual) else { return Ok(()) };
        let thinking_ms = self.thinking.as_millis() as u32;
        self.commit(question, Answer { pair: question.pair.id, choice, teacher, at, thinking_ms }, record)?;
        self.taught = Some((question.clone(), choice));
        Ok(())
    }

    /// Saves the answer, then counts it.
    fn commit(
        &mut self,
        question: &Question,
        answer: Answer,
        record: &mut dyn Record,
    ) -> Result<JudgementId, StoreError> {
        let (pair, choice) = (answer.pair, answer.choice);
        let judgement = record.put_answer(answer)?;
        Arc::make_mut(&mut self.labels).push(Label { judgement, pair, items: question.items.clone(), choice });
        self.labels_version += 1;
        Ok(judgement)
    }
}

/// A simulated teacher's answer to a pair, and the teacher's name. It judges clips by their teacher reward and texts by
/// their gold score. `None` for a person, and for texts whose gold score is unknown.
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
    let choice = match teacher {
        TeacherKind::Fallible(_) => {
            SimulatedTeacher::new(teacher, stream)?.with_return_stats(usual).judge_scores(left, right)
        }
        _ => GoldTeacher::new(text_noise(teacher)?, stream).judge(left, right),
    };
    Some((choice, GoldTeacher::NAME))
}

/// Statistics of the returns, or of the gold scores of texts, of the latest judgements, as many as a simulated teacher
/// remembers.
pub(super) fn return_stats(labels: &[Label]) -> Option<RunningReturnStats> {
    const REMEMBERED: usize = 20;
    let latest = &labels[labels.len().saturating_sub(REMEMBERED)..];
    let of = |item: &Item| match item {
        Item::Clip(clip) => Some(clip.frames.task_return()),
        Item::Completion(completion) => completion.gold,
    };
    let both = |label: &Label| Some([of(&label.items[0])?, of(&label.items[1])?]);
    let returns: Vec<[f64; 2]> = latest.iter().filter_map(both).collect();
    let mean = |of: fn(&[f64; 2]) -> f64| returns.iter().map(of).sum::<f64>() / returns.len() as f64;
    let usual = || RunningReturnStats {
        mean_return: mean(|pair| (pair[0] + pair[1]) / 2.0),
        difference: mean(|pair| (pair[0] - pair[1]).abs()),
    };
    (!returns.is_empty()).then(usual)
}

/// The noise of a simulated teacher of texts; `None` for a person.
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
