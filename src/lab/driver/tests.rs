use super::*;
use crate::lab::ledger::{Ledger, Message};
use crate::lab::questions::Offered;
use crate::lab::shared_requests::{Label, SharedRequests, WorkerRequests};
use crate::lab::snapshot_publisher::SnapshotPublisher;
use crate::lab::trainer::Trainer;
use crate::lab::training_loop::Tell;
use crate::lab::{ControlView, ModeView, TeacherKind, first_snapshot, task_of};
use crate::settings::{ControlRun, TeacherNoise};
use crate::store::Session;
use flipside_core::{Arrays, Choice, Clip, Frames, Item, ItemId, JudgementId, PairReason};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// A learner that only counts. One round is one step, and it plans 40 steps.
struct Counting {
    steps: u64,
    /// What was done, one entry for each call.
    done: Vec<String>,
    proposed: u64,
    /// Whether what it proposes next replaces the question on show.
    renews: bool,
}

/// Steps that it continues after an answer.
const PATIENCE: u64 = 3;

impl TrainingLoop for Counting {
    fn steps(&self) -> u64 {
        self.steps
    }
    fn steps_planned(&self) -> u64 {
        40
    }
    fn finished(&self) -> bool {
        self.steps >= 40
    }
    fn patience(&self) -> Option<u64> {
        Some(PATIENCE)
    }
    fn has_reward(&self) -> bool {
        true
    }
    fn has_choice(&self) -> bool {
        true
    }
    fn labels_wanted(&self) -> usize {
        100
    }
    fn labels_due(&self, labels: usize) -> usize {
        (2 * self.steps as usize).saturating_sub(labels)
    }
    fn stale_after(&self) -> Duration {
        if self.renews { Duration::ZERO } else { Duration::from_secs(8) }
    }
    fn renews(&self) -> bool {
        self.renews
    }
    fn agreement(&self) -> Option<f64> {
        None
    }
    fn propose(
        &mut self,
        count: usize,
        labels: &[Label],
        _cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Offered>, LabError> {
        self.done.push(format!("propose {count} after {}", labels.len()));
        self.renews = false;
        let mut clip = |reward: f32| {
            self.proposed += 1;
            let frames = Frames { steps: 1, task_reward: vec![reward], ..Frames::default() };
            let (id, task) = (ItemId(self.proposed), "t".to_owned());
            Item::Clip(Arc::new(Clip { id, task, dt: 0.1, recorded_at: self.steps, frames }))
        };
        Ok((0..count).map(|_| Offered { items: [clip(1.0), clip(2.0)], reason: PairReason::Random }).collect())
    }
    fn collect(&mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        if cancelled() {
            return Err(LabError::Cancelled);
        }
        self.steps += 1;
        self.done.push("collect".to_owned());
        Ok(())
    }
    fn learn(&mut self, labels: &[Label], _cancelled: &mut dyn FnMut() -> bool) -> Result<Values, LabError> {
        self.done.push(format!("learn {}", labels.len()));
        Ok(Values::new())
    }
    fn to_arrays(&self) -> Arrays {
        Arrays::new()
    }
    fn show(&mut self, _tell: Tell, _cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        Ok(())
    }
    fn is_small(&self) -> bool {
        true
    }
}

fn counting(teacher: TeacherKind, answer_seconds: f64) -> Driver<Counting> {
    let settings = RunSettings { teacher, answer_seconds, labels: 100, ..RunSettings::default() };
    Driver::new(Box::new(Counting { steps: 0, done: Vec::new(), proposed: 0, renews: false }), &settings)
}

/// Makes a step at this time and returns a word for what it did.
fn step(driver: &mut Driver<Counting>, seconds: f64) -> String {
    match driver.step(&|| Duration::from_secs_f64(seconds), &mut || false).unwrap() {
        Step::Trained => "trained".to_owned(),
        Step::Waits(None) => "waits".to_owned(),
        Step::Waits(Some(at)) => format!("waits until {}", at.as_secs_f64()),
        Step::Finished => "finished".to_owned(),
    }
}

fn pairs(driver: &Driver<Counting>) -> Vec<u64> {
    driver.questions.labels().iter().map(|label| label.pair.0).collect()
}

#[test]
fn a_teacher_that_answers_at_once_is_asked_between_collecting_and_learning() {
    let mut driver = counting(TeacherKind::Oracle, 0.0);
    for _ in 0..40 {
        assert_eq!(step(&mut driver, 0.0), "trained");
    }
    assert_eq!(step(&mut driver, 0.0), "finished");
    let done = &driver.training.learner.done;
    let expected = ["collect", "propose 2 after 0", "learn 2", "collect", "propose 2 after 2", "learn 4"];
    assert_eq!(done[..6], expected);
    assert_eq!(pairs(&driver), (1..=80).collect::<Vec<_>>());
    assert!(driver.questions.labels().iter().all(|label| label.choice == Choice::Right), "the second pays more");
}

#[test]
fn a_person_always_has_pairs_to_answer_and_training_waits_when_none_comes() {
    let mut driver = counting(TeacherKind::Person, 0.0);
    let answer = |driver: &mut Driver<Counting>, seconds: f64| {
        let (now, pair) = (Duration::from_secs_f64(seconds), driver.questions.shown().unwrap().pair.id);
        assert!(driver.questions.answer((pair, Choice::Left), 900, now, &mut driver.record).unwrap());
        driver.questions.show_next(now, &mut driver.record).unwrap();
    };
    for _ in 0..=PATIENCE {
        assert_eq!(step(&mut driver, 0.0), "trained");
    }
    assert_eq!(step(&mut driver, 60.0), "waits", "however long it takes");
    assert_eq!(driver.training.learner.steps, PATIENCE + 1);
    let asked = driver.training.learner.done.iter().filter(|word| word.starts_with("propose"));
    assert_eq!(asked.count(), 1, "who has enough to answer is offered no more");
    assert_eq!(driver.questions.waiting(), PAIRS_READY);

    // An answer lets training continue. New pairs replace the old ones that nobody has seen, and the pair on show
    // stays.
    answer(&mut driver, 60.0);
    assert_eq!(step(&mut driver, 60.0), "trained");
    assert_eq!(driver.questions.shown().unwrap().pair.id, PairId(2));
    answer(&mut driver, 61.0);
    assert_eq!(driver.questions.shown().unwrap().pair.id, PairId(14));
    for _ in 0..3 {
        answer(&mut driver, 62.0);
    }
    // Few pairs are left, so new ones are offered before the old ones are stale.
    assert_eq!(step(&mut driver, 62.0), "trained");
    assert_eq!(pairs(&driver), [1, 2, 14, 15, 16]);
    assert_eq!(driver.questions.waiting(), PAIRS_READY + 1);

    // A pair whose answer was taken back is asked again, before all others.
    let now = Duration::from_secs(63);
    assert_eq!(driver.questions.undo(now, &mut driver.record).unwrap(), Some(PairId(16)));
    assert_eq!((driver.questions.shown().unwrap().pair.id, driver.questions.labels().len()), (PairId(16), 4));
    assert_eq!(driver.questions.retract(JudgementId(1), &mut driver.record).unwrap(), Some(PairId(1)));
    assert_eq!(pairs(&driver), [2, 14, 15]);
    answer(&mut driver, 64.0);
    assert_eq!(driver.questions.shown().unwrap().pair.id, PairId(17), "it was on show before");
}

/// Where the policy has moved on, its new pairs replace the question on show. An answer to that question that was on
/// its way counts all the same, and one that was taken back is asked again.
#[test]
fn a_question_of_an_earlier_policy_makes_way_and_its_answer_is_not_lost() {
    let mut driver = counting(TeacherKind::Person, 0.0);
    let now = Duration::from_secs(1);
    let shown = |driver: &Driver<Counting>| driver.questions.shown().unwrap().pair.id.0;
    let answer = |driver: &mut Driver<Counting>, pair: u64| {
        let counted = driver.questions.answer((PairId(pair), Choice::Left), 900, now, &mut driver.record).unwrap();
        driver.questions.show_next(now, &mut driver.record).unwrap();
        counted
    };
    assert_eq!(step(&mut driver, 1.0), "trained");
    assert_eq!(shown(&driver), 1);
    driver.training.learner.renews = true;
    assert_eq!(step(&mut driver, 1.1), "trained");
    assert_eq!((shown(&driver), driver.questions.waiting()), (14, PAIRS_READY), "13 pairs were proposed before");
    // The answer was given before the new question was there.
    assert!(answer(&mut driver, 1) && !answer(&mut driver, 1));
    assert_eq!((pairs(&driver), shown(&driver)), (vec![1], 14), "the new question is still on show");
    assert!(answer(&mut driver, 14));
    // Without a new policy, a question stays on show for as long as it takes.
    assert_eq!((step(&mut driver, 60.0).as_str(), shown(&driver)), ("trained", 15));
    assert_eq!(driver.questions.undo(now, &mut driver.record).unwrap(), Some(PairId(14)));
    driver.training.learner.renews = true;
    assert_eq!((step(&mut driver, 60.1).as_str(), shown(&driver)), ("trained", 14));
    assert!(answer(&mut driver, 14) && pairs(&driver) == [1, 14]);
    assert!(shown(&driver) > 26 && !answer(&mut driver, 15), "what waited is put aside");
}

#[test]
fn a_teacher_that_thinks_answers_what_waits_in_front_by_its_own_clock() {
    let mut driver = counting(TeacherKind::Oracle, 2.0);
    assert_eq!(step(&mut driver, 1.0), "trained");
    assert_eq!(pairs(&driver), [0; 0], "it thinks");
    // All answers that are due are given, one after the other, however late the step comes.
    assert_eq!(step(&mut driver, 5.5), "trained");
    assert_eq!(pairs(&driver), [1, 2]);
    assert_eq!(driver.questions.next_answer_at(), Some(Duration::from_secs(7)));
    // The teacher is thinking about pair 3 when new pairs arrive.
    assert_eq!(step(&mut driver, 6.9), "trained");
    assert_eq!(pairs(&driver), [1, 2]);
    assert_eq!(step(&mut driver, 9.1), "trained");
    assert_eq!(pairs(&driver), [1, 2, 3, 14]);
    // Training runs ahead of the teacher, waits, and continues after its answer.
    let outcomes: Vec<String> = (0..4).map(|_| step(&mut driver, 9.2)).collect();
    assert_eq!(outcomes, ["trained", "trained", "trained", "waits until 11"]);
    assert_eq!(step(&mut driver, 11.0), "trained");
}

/// A teacher that takes time has a queue, but it is not asked for more answers than were planned.
#[test]
fn a_teacher_that_has_given_what_was_planned_is_asked_no_more() {
    let mut driver = counting(TeacherKind::Oracle, 0.5);
    let mut seconds = 0.0;
    while step(&mut driver, seconds) != "finished" {
        seconds += 10.0;
    }
    assert_eq!(driver.questions.labels().len(), 100);
    assert!(driver.questions.shown().is_none());
    assert_eq!((driver.questions.waiting(), driver.questions.next_answer_at()), (0, None));
}

#[test]
fn a_cancelled_round_asks_nothing() {
    let mut driver = counting(TeacherKind::Oracle, 0.0);
    let cancelled = driver.step(&|| Duration::ZERO, &mut || true).err();
    assert!(cancelled.is_some_and(|error| error.is_cancelled()));
    assert!(driver.training.learner.done.is_empty() && driver.questions.labels().is_empty());
}

#[test]
fn the_loop_has_no_thread_no_file_and_no_clock() {
    for text in [include_str!("../driver.rs"), include_str!("../questions.rs")] {
        for word in ["std::thread", "std::fs", "Instant", "SystemTime", "Mutex", "Condvar", "mpsc"] {
            assert!(!text.contains(word), "{word}");
        }
    }
}

/// The ledger on the test's own thread. Its clock stands still unless the test sets it.
struct SameThread {
    ledger: Ledger,
    control: Arc<SharedRequests>,
    clock: Rc<Cell<Duration>>,
}

impl QuestionQueue for SameThread {
    fn now(&self) -> Duration {
        self.clock.get()
    }

    fn answers(&mut self) -> Result<Answers, LabError> {
        self.ledger.advance(self.clock.get());
        Ok(self.control.latest().answers)
    }

    fn offer(&mut self, offer: Offer, env_steps: u64) -> Result<(), LabError> {
        self.ledger.take(Message::Offer { offer, env_steps }, self.clock.get());
        Ok(())
    }
}

/// A cheap run whose teacher makes mistakes, skips some pairs, and takes its time.
fn hasty(answer_seconds: f64) -> RunSettings {
    RunSettings {
        teacher: TeacherKind::Fallible(TeacherNoise::HASTY),
        answer_seconds,
        labels: 24,
        env_steps: 60_000,
        seed: 5,
        ..RunSettings::of_control(ControlRun { task: "inverted_pendulum".to_owned(), ..ControlRun::default() })
    }
}

fn trainer(settings: &RunSettings) -> Box<Trainer> {
    Box::new(Trainer::new(settings, task_of(settings).unwrap(), ItemId(1), None, Some(1)).unwrap())
}

/// How long a round takes on the tests' clock.
const ROUND: Duration = Duration::from_millis(700);

/// The outcome of a run: labels, weights, and how often it had to wait.
type Outcome = (Vec<Label>, Arrays, usize);

/// Runs it as a benchmark does.
fn by_the_driver(settings: &RunSettings) -> Outcome {
    let mut driver = Driver::new(trainer(settings), settings);
    let (mut now, mut waits) = (Duration::ZERO, 0);
    loop {
        match driver.step(&|| now, &mut || false).unwrap() {
            Step::Trained => now += ROUND,
            Step::Waits(at) => (now, waits) = (at.unwrap(), waits + 1),
            Step::Finished => break,
        }
    }
    (driver.questions.labels().to_vec(), driver.training.learner.to_arrays(), waits)
}

/// Runs it as a session does: the worker's half of the loop, the ledger, and the session on disk.
fn by_the_ledger(settings: &RunSettings, folder: &Path) -> Outcome {
    let session = Session::create(folder, settings).unwrap();
    let mode = ControlView {
        task: settings.task().to_owned(),
        from_preferences: true,
        scene: Arc::default(),
        policy_clip: None,
    };
    let first = first_snapshot(settings, ModeView::Control(mode), folder);
    let publisher = Arc::new(SnapshotPublisher::new(first, Arc::new(|| {})));
    let control = Arc::new(SharedRequests::new(WorkerRequests { run: true, ..WorkerRequests::default() }));
    let ledger = Ledger::new(session, publisher, control.clone(), settings).unwrap();
    let clock = Rc::new(Cell::new(Duration::ZERO));
    let mut queue = SameThread { ledger, control: control.clone(), clock: clock.clone() };
    let learner: Box<dyn TrainingLoop> = trainer(settings);
    let (mut training, mut waits) = (Training::new(learner), 0);
    loop {
        let answers = queue.answers().unwrap();
        match training.next(&answers) {
            Next::Train => {
                training.train(&mut queue, &mut || false).unwrap();
                clock.set(clock.get() + ROUND);
            }
            Next::Wait => {
                clock.set(queue.ledger.next_answer_at().unwrap());
                waits += 1;
            }
            Next::Finish => break,
        }
    }
    (control.latest().answers.labels.to_vec(), training.learner.to_arrays(), waits)
}

/// A benchmark's result for a teacher that takes its time also holds for the desk and for `train`: the teacher answers
/// the front of the same queue, by the same clock.
#[test]
fn a_hasty_teacher_answers_the_same_queue_by_the_same_clock_in_benchmark_and_session() {
    for answer_seconds in [0.25, 3.0] {
        let settings = hasty(answer_seconds);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        let (measured, weights, waits) = by_the_driver(&settings);
        let (taught, learnt, rests) = by_the_ledger(&settings, &path);
        let told = |labels: &[Label]| -> Vec<(JudgementId, PairId, [ItemId; 2], Choice)> {
            let of = |label: &Label| (label.judgement, label.pair, label.items.each_ref().map(Item::id), label.choice);
            labels.iter().map(of).collect()
        };
        assert!(!measured.is_empty());
        assert_eq!(told(&measured), told(&taught), "{answer_seconds} s an answer");
        assert_eq!(waits, rests);
        assert!(weights == learnt, "{answer_seconds} s an answer: weights agree bit for bit");
        let standing = Session::open_to_read(&path).unwrap().standing().unwrap();
        let kept: Vec<_> = standing.iter().map(|judgement| (judgement.id, judgement.pair, judgement.choice)).collect();
        let said: Vec<_> = taught.iter().map(|label| (label.judgement, label.pair, label.choice)).collect();
        assert_eq!(kept, said);
        // A slow teacher answers pairs from several offers, so some pairs that were offered were never asked.
        let dropped = measured.iter().zip(1..).any(|(label, place)| label.pair.0 > place);
        assert!(dropped, "{answer_seconds} s an answer");
    }
}
