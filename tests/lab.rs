//! The whole training loop through the lab's public interface: commands in, events and snapshots out, and what is on
//! disk afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use flipside::lab::bench::{Plan, physics_of_session};
use flipside::lab::{Command, Event, Lab, Link, Phase, Precision, SavedPolicy, Snapshot};
use flipside::settings::{ControlRun, RewardSource, RunSettings, TeacherKind};
use flipside::store::Session;
use flipside_core::{Choice, LogEntry};
use flipside_envs::tasks::Folders;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Only a hang takes this long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

fn settings(folder: &Path) -> RunSettings {
    RunSettings {
        teacher: TeacherKind::Oracle,
        labels: 24,
        env_steps: 80_000,
        folder: Some(folder.to_owned()),
        ..RunSettings::of_control(ControlRun {
            reward: RewardSource::Preferences,
            ..ControlRun::of("inverted_pendulum")
        })
    }
}

fn open(settings: RunSettings) -> Lab {
    Lab::open(settings, Arc::new(|| {})).expect("the lab opens")
}

/// Waits until `found` returns a value. Fails with the last snapshot if it never does.
fn until<T>(lab: &Lab, what: &str, mut found: impl FnMut(&Snapshot, &[Event]) -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        let (events, snapshot) = (lab.events(), lab.snapshot());
        if let Some(value) = found(&snapshot, &events) {
            return value;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "{what} never came; phase {:?}, fault {:?}",
            snapshot.phase,
            snapshot.fault
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Answers the pair on show and waits until the answer is confirmed.
fn answer(lab: &Lab, pair: flipside_core::PairId, choice: Choice) {
    assert!(lab.send(Command::Judge { pair, choice, thinking_ms: 1200 }));
    until(lab, "the receipt", |_, events| {
        events.iter().any(|e| matches!(e, Event::Judged { pair: p, .. } if *p == pair)).then_some(())
    });
}

#[test]
fn a_simulated_teacher_spends_its_labels_and_the_same_seed_gives_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let path = folder.path().join(name);
        let lab = open(settings(&path));
        until(&lab, "the end", |_, events| events.contains(&Event::Finished).then_some(()));
        let done = lab.snapshot();
        drop(lab);
        let mut session = Session::open_to_read(&path).unwrap();
        let standing = session.standing().unwrap();
        assert_eq!((done.labels, standing.len()), (24, 24), "every label asked for is on disk");
        assert!(standing.iter().all(|j| j.teacher == "oracle"));
        let choices: Vec<Choice> = standing.iter().map(|j| j.choice).collect();
        (choices, session.load_checkpoint().unwrap().unwrap().arrays, done)
    };
    let (first, again) = (run("a"), run("b"));
    assert_eq!(first.0, again.0, "the same questions get the same answers");
    assert!(first.1 == again.1, "weights, moments, normalisers and streams agree bit for bit");
    assert!(first.2.curves.iter().any(|c| c.name == "true_return" && !c.points.is_empty()));
    assert!(first.2.curves.iter().any(|c| c.name == "agreement" && !c.points.is_empty()));
}

/// A simulated teacher with a thinking time is shown one pair after another while training continues. It stops after
/// the planned number of answers.
#[test]
fn a_teacher_takes_its_time_while_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let slow = RunSettings { answer_seconds: 0.03, labels: 15, env_steps: u64::MAX / 2, ..settings(&path) };
    let lab = open(slow);
    let steps = until(&lab, "the first answer", |s, _| (s.labels > 0).then_some(s.env_steps));
    until(&lab, "the last answer", |s, _| (s.labels == 15 && s.pair.is_none()).then_some(()));
    let more = until(&lab, "training after it", |s, _| (s.env_steps > steps + 20_000).then_some(s.labels));
    assert_eq!(more, 15);
    // Nobody else may answer for it.
    lab.send(Command::Judge { pair: flipside_core::PairId(1), choice: Choice::Left, thinking_ms: 1 });
    until(&lab, "the refusal", |_, e| e.iter().any(|e| matches!(e, Event::Refused(_))).then_some(()));
    drop(lab);
    let standing = Session::open_to_read(&path).unwrap().standing().unwrap();
    assert!(standing.iter().all(|j| j.teacher == "oracle" && j.thinking_ms == 30), "{standing:?}");
    let took = standing[14].at_ms - standing[0].at_ms;
    assert!(took >= 14 * 29, "15 answers of 30 ms came within {took} ms");
}

#[test]
fn a_person_picks_ties_skips_and_takes_back_and_all_of_it_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let by_hand = RunSettings { teacher: TeacherKind::Person, ..settings(&path) };
    let lab = open(by_hand.clone());
    let mut shown = Vec::new();
    for choice in [Choice::Left, Choice::Right, Choice::Tie, Choice::Skip] {
        let pair = until(&lab, "a pair", |s, _| s.pair.clone().filter(|p| !shown.contains(&p.id)));
        let clips = pair.clips().unwrap();
        assert_ne!(clips[0].id, clips[1].id);
        assert!(clips.iter().all(|c| c.frames.is_sound() && c.frames.steps >= 25));
        shown.push(pair.id);
        answer(&lab, pair.id, choice);
    }
    // An answer to a pair that is no longer on show is refused and does not count.
    lab.send(Command::Judge { pair: shown[0], choice: Choice::Left, thinking_ms: 1 });
    until(&lab, "the refusal", |_, e| e.iter().any(|e| matches!(e, Event::Refused(_))).then_some(()));
    // Undo shows the pair again, and the second answer differs.
    lab.send(Command::Undo);
    until(&lab, "the pair again", |s, _| s.pair.clone().filter(|p| p.id == shown[3]));
    answer(&lab, shown[3], Choice::Right);
    assert_eq!(lab.snapshot().labels, 4);
    drop(lab);

    let session = Session::open_to_read(&path).unwrap();
    let log = session.log().unwrap();
    assert_eq!(log.len(), 6, "four answers, a retraction, a fifth answer");
    assert!(matches!(log[4], LogEntry::Retracted { .. }));
    let standing: Vec<_> = session.standing().unwrap().iter().map(|j| (j.pair, j.choice)).collect();
    let choices = [Choice::Left, Choice::Right, Choice::Tie, Choice::Right];
    assert_eq!(standing, shown.iter().copied().zip(choices).collect::<Vec<_>>());
    drop(session);

    let lab = open(by_hand);
    assert_eq!(lab.snapshot().labels, 4);
    until(&lab, "a new pair", |s, _| s.pair.clone().filter(|p| !shown.contains(&p.id)));
    lab.send(Command::Undo);
    until(&lab, "the last pair of the earlier sitting", |s, _| s.pair.clone().filter(|p| p.id == shown[3]));
}

#[test]
fn pausing_saves_and_reopening_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let long = RunSettings { env_steps: 10_000_000, ..settings(&path) };
    let lab = open(long.clone());
    until(&lab, "training", |s, _| (s.phase == Phase::Training && s.env_steps > 10_000).then_some(()));
    lab.send(Command::Pause);
    // A checkpoint that was due anyway may come before the one that pausing writes.
    let mut last = None;
    let saved = until(&lab, "the pause and its checkpoint", |s, events| {
        let mut saves =
            events.iter().filter_map(|e| if let Event::Saved { env_steps } = e { Some(*env_steps) } else { None });
        last = saves.next_back().or(last);
        last.filter(|steps| s.phase == Phase::Paused && *steps == s.env_steps)
    });
    drop(lab);
    assert_eq!(SavedPolicy::load(&path, &Folders::default()).unwrap().env_steps, saved);

    // Its policy can act while physics speed is measured. It uses the session's own task, whatever the plan says.
    let plan = Plan {
        task: "ant".to_owned(),
        task_folders: Folders::default(),
        backend: "lanes".to_owned(),
        precision: Precision::F32,
        threads: Some(1),
        threads_per_world: None,
        overrides: Default::default(),
        worlds: Some(8),
        duration: Duration::from_millis(20),
    };
    let speed = physics_of_session(&plan, &path).unwrap();
    assert_eq!((speed.task.as_str(), speed.worlds), ("inverted_pendulum", 8));
    assert!(speed.range[0] > 0.0 && speed.solver_residual.is_some());
    assert!(physics_of_session(&plan, &folder.path().join("none")).is_err());
    let lab = open(long);
    let first = until(&lab, "training again", |s, _| (s.phase == Phase::Training).then_some(s.env_steps));
    assert!(first > saved && first < saved + 100_000, "went on from {saved} at {first}");
}

/// A finished session that is reopened shows how far it came. A person can continue to answer pairs of its policy,
/// which learns no more.
#[test]
fn a_finished_session_asks_on_when_it_is_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let lab = open(settings(&path));
    until(&lab, "the end", |_, events| events.contains(&Event::Finished).then_some(()));
    let (done, agreement) = (lab.snapshot().env_steps, lab.snapshot().agreement);
    drop(lab);
    let policy = || SavedPolicy::load(&path, &Folders::default()).unwrap().policy.to_arrays();
    let learnt = policy();
    let lab = open(RunSettings { teacher: TeacherKind::Person, ..settings(&path) });
    assert!(agreement.is_some());
    assert_eq!((lab.snapshot().env_steps, lab.snapshot().agreement), (done, agreement));
    for _ in 0..2 {
        let pair = until(&lab, "a pair", |s, _| s.pair.clone());
        answer(&lab, pair.id, Choice::Left);
    }
    until(&lab, "the end again", |s, _| (s.phase == Phase::Finished).then_some(()));
    assert_eq!((lab.snapshot().labels, lab.snapshot().env_steps), (26, done));
    drop(lab);
    assert_eq!(SavedPolicy::load(&path, &Folders::default()).unwrap().env_steps, done);
    assert!(policy() == learnt, "clips to ask about teach the policy nothing");
}

#[test]
fn an_untrained_policy_does_not_use_the_plan_up_while_a_person_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lab = open(RunSettings { teacher: TeacherKind::Person, ..settings(&folder.path().join("s")) });
    until(&lab, "the rest", |s, _| (s.phase == Phase::Waiting && s.pair.is_some()).then_some(()));
    let before = lab.snapshot().env_steps;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(lab.snapshot().env_steps, before);
}

#[test]
fn unknown_names_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    for (wrong, lists) in [
        (settings(&path).map_control(|run| ControlRun { task: "hoper".to_owned(), ..run }), "hopper"),
        (settings(&path).map_control(|run| ControlRun { backend: "bullet".to_owned(), ..run }), "rapier"),
    ] {
        let error = Lab::open(wrong, Arc::new(|| {})).err().expect("refused").to_string();
        assert!(error.contains(lists), "{error}");
    }
    assert!(!path.exists());
}
