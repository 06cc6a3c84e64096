//! What is asked and what was answered: the question on show, those that wait behind it, the answers that stand, and
//! when a simulated teacher's next answer is due.
//!
//! This half of the [driver](super::driver) has no threads, no files and no clock. Time is handed in, and what must not
//! be lost goes to a [`Record`] before it counts. The ledger hands in its session and the time of day; a benchmark
//! hands in [`Unrecorded`].

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

/// Pairs that should wait, the one on show among them: a burst of quick answers must not outrun one round of training.
pub(super) const PAIRS_READY: usize = 12;

/// An answer that could not be kept is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A pair that training proposes, sides already shuffled.
pub(super) struct Offered {
    pub items: [Item; 2],
    pub reason: PairReason,
}

/// A pair with its items.
#[derive(Clone)]
pub(super) struct Question {
    pub pair: Pair,
    pub items: [Item; 2],
    /// Whether the record holds it yet.
    pub stored: bool,
}

impl Question {
    pub fn view(&self) -> PairView {
        PairView { id: self.pair.id, items: self.items.clone(), reason: self.pair.reason }
    }
}

/// An answer, as a record keeps it.
pub(super) struct Answer<'a> {
    pub pair: PairId,
    pub choice: Choice,
    /// `person`, or the simulated teacher's name.
    pub teacher: &'a str,
    /// When it was given, by the clock that is handed in.
    pub at: Duration,
    pub thinking_ms: u32,
}

/// Keeps what must not be lost. What it refuses did not happen.
pub(super) trait Record {
    /// Keeps a question, before anyone can have answered it.
    fn put_question(&mut self, pair: &Pair, items: &[Item; 2]) -> Result<(), StoreError>;

    /// Appends an answer; returns its name.
    fn put_answer(&mut self, answer: Answer) -> Result<JudgementId, StoreError>;

    /// Appends that an answer was taken back.
    fn retract(&mut self, judgement: JudgementId) -> Result<(), StoreError>;
}

/// A record that keeps nothing and names answers as a new session does: 1, 2, 3, …
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
    /// Whether whoever answers takes time for it, so that pairs should wait ready while training goes on: a person, or
    /// a simulated teacher with the clock of one, until it has given what was planned.
    pub asks_in_time: bool,
    /// Pairs that are on show or wait.
    pub pairs_ready: usize,
    /// Every standing judgement, skips included, oldest first.
    pub labels: Arc<Vec<Label>>,
    /// Changes whenever `labels` does.
    pub labels_version: u64,
}

impl Answers {
    /// Whether more pairs should wait than do.
    pub fn run_short(&self) -> bool {
        self.asks_in_time && self.pairs_ready < PAIRS_READY
    }
}

/// The questions of a run and their answers.
pub(super) struct Questions {
    seed: Seed,
    /// Whether they are about texts.
    of_texts: bool,
    teacher: TeacherKind,
    /// How long a simulated teacher thinks; zero answers with the offer.
    thinking: Duration,
    /// Judgements planned, after which a teacher that thinks has done its part.
    planned: usize,
    shown: Option<Question>,
    /// When a teacher that thinks will answer the question on show.
    answer_at: Duration,
    /// Questions behind it, the next one first.
    waiting: VecDeque<Question>,
    next_pair: u64,
    labels: Arc<Vec<Label>>,
    labels_version: u64,
    /// Standing judgements of the person, newest last: what undo takes back.
    answered: Vec<(JudgementId, Question)>,
    /// The latest question that a simulated teacher answered, and its answer.
    taught: Option<(Question, Choice)>,
}

impl Questions {
    /// Those of a run that begins: `next_pair` is the first number that no pair of the record has.
    pub fn new(settings: &RunSettings, next_pair: PairId) -> Questions {
        let of_texts = settings.text().is_some();
        Questions {
            seed: Seed(settings.seed),
            of_texts,
            teacher: settings.teacher,
            thinking: settings.thinking(),
            planned: settings.labels,
            shown: None,
            answer_at: Duration::ZERO,
            waiting: VecDeque::new(),
            next_pair: next_pair.0,
            labels: Arc::default(),
            labels_version: 0,
            answered: Vec::new(),
            taught: None,
        }
    }

    /// As they stood when the run was closed: every standing judgement, and those of the person among them with their
    /// questions.
    pub fn go_on_from(self, labels: Vec<Label>, answered: Vec<(JudgementId, Question)>) -> Questions {
        Questions { labels: Arc::new(labels), labels_version: 1, answered, ..self }
    }

    /// The question on show.
    pub fn shown(&self) -> Option<&Question> {
        self.shown.as_ref()
    }

    /// How many wait behind it.
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

    /// What training needs to know.
    pub fn answers(&self) -> Answers {
        Answers {
            teacher: self.teacher,
            asks_in_time: self.asks_in_time(),
            pairs_ready: self.waiting.len() + usize::from(self.shown.is_some()),
            labels: self.labels.clone(),
            labels_version: self.labels_version,
        }
    }

    /// When the next answer of a simulated teacher is due; `None` while nothing is asked of one that thinks.
    pub fn next_answer_at(&self) -> Option<Duration> {
        (self.thinks() && self.shown.is_some()).then_some(self.answer_at)
    }

    /// Whether a simulated teacher answers who takes its time.
    fn thinks(&self) -> bool {
        self.teacher != TeacherKind::Person && !self.thinking.is_zero()
    }

    fn asks_in_time(&self) -> bool {
        self.teacher == TeacherKind::Person || (self.thinks() && self.labels.len() < self.planned)
    }

    /// Has a simulated teacher that thinks answer whatever is due by `now`, each question at its own time: it sees the
    /// next one when it has answered the last, however seldom anyone looks. Returns whether there was anything.
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

    /// Takes pairs worth asking, best first. They replace those that wait and were never shown. A teacher that answers
    /// at once has answered them when this returns.
    pub fn offer(
        &mut self,
        pairs: Vec<Offered>,
        env_steps: u64,
        now: Duration,
        record: &mut dyn Record,
    ) -> Result<(), StoreError> {
        self.advance(now, record)?;
        let questions: Vec<Question> = pairs.into_iter().map(|offered| self.question(offered, env_steps)).collect();
        if self.asks_in_time() {
            // An earlier pair that undo pushed back was seen already and keeps its place in front.
            self.waiting.retain(|question| question.stored);
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

    /// Takes a person's answer to the question on show; false where `pair` is not the one. [`Questions::show_next`]
    /// then shows the next.
    pub fn answer(
        &mut self,
        (pair, choice): (PairId, Choice),
        thinking_ms: u32,
        at: Duration,
        record: &mut dyn Record,
    ) -> Result<bool, StoreError> {
        let asked = self.shown.take_if(|shown| self.teacher == TeacherKind::Person && shown.pair.id == pair);
        let Some(question) = asked else { return Ok(false) };
        match self.commit(&question, Answer { pair, choice, teacher: "person", at, thinking_ms }, record) {
            Ok(judgement) => {
                self.answered.push((judgement, question));
                Ok(true)
            }
            // It stays on show: nothing that was not kept counts as answered.
            Err(error) => {
                self.shown = Some(question);
                Err(error)
            }
        }
    }

    /// Takes the person's latest answer back and shows its question again; `None` where there is none.
    pub fn undo(&mut self, now: Duration, record: &mut dyn Record) -> Result<Option<PairId>, StoreError> {
        let Some((judgement, question)) = self.answered.last().cloned() else { return Ok(None) };
        record.retract(judgement)?;
        self.answered.pop();
        self.forget(judgement);
        if let Some(current) = self.shown.take() {
            self.waiting.push_front(current);
        }
        let pair = question.pair.id;
        self.show(question, now, record)?;
        Ok(Some(pair))
    }

    /// Takes an answer back for good; the pair that it was about, or `None` where it does not stand.
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

    /// Has someone else answer from now on.
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
            // What the person did not answer is not answered on their behalf; training offers afresh.
            self.shown = None;
            self.waiting.clear();
        } else if self.shown.is_none() {
            self.show_next(now, record)?;
        }
        Ok(())
    }

    /// Lets go of the questions that nobody has seen.
    pub fn drop_unseen(&mut self) {
        self.waiting.retain(|question| question.stored);
    }

    /// Puts the next question on show, if there is one.
    pub fn show_next(&mut self, now: Duration, record: &mut dyn Record) -> Result<(), StoreError> {
        match self.waiting.pop_front() {
            Some(question) => self.show(question, now, record),
            None => Ok(()),
        }
    }

    /// Puts a question on show. The record has it before anyone can have answered it.
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

    /// Has the simulated teacher judge a question that the record holds; what it says is kept like a person's word.
    fn answer_for(&mut self, question: &Question, at: Duration, record: &mut dyn Record) -> Result<(), StoreError> {
        // One stream a question: the answers are the same however the run was cut into sessions. Of texts it is named
        // by the answer's place, as the pair is chosen by it: a pair that was stored and not answered when the process
        // died keeps its own number.
        let number = if self.of_texts { self.labels.len() as u64 } else { question.pair.id.0 };
        let stream = self.seed.stream(&format!("teacher/{number}"));
        let usual = return_stats(&self.labels);
        let Some((choice, teacher)) = simulated(self.teacher, stream, &question.items, usual) else { return Ok(()) };
        let thinking_ms = self.thinking.as_millis() as u32;
        self.commit(question, Answer { pair: question.pair.id, choice, teacher, at, thinking_ms }, record)?;
        self.taught = Some((question.clone(), choice));
        Ok(())
    }

    /// Keeps the answer, then counts it.
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

/// What a simulated teacher says of a pair, and its name: by the task's true return of clips, by the gold score of
/// texts. `None` for a person, and for texts whose score nobody knows.
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
