//! Tests of the training loop as a whole: policies that start from scratch, the policy that a run ends with, and
//! resuming.

use super::super::training_loop::TrainingLoop;
use super::*;
use crate::settings::{ControlRun, ExploreSettings, RewardModelKind, RewardModelSettings, TeacherKind};
use flipside_core::{Choice, JudgementId, PairId};
use toml::Spanned;

/// Asks up to `count` questions, and answers left and right alternately.
pub fn answer(trainer: &mut Trainer, labels: &mut Vec<Label>, count: usize) {
    for offered in trainer.propose(count) {
        let id = labels.len() as u64 + 1;
        let choice = [Choice::Left, Choice::Right][labels.len() % 2];
        labels.push(Label { judgement: JudgementId(id), pair: PairId(id), items: offered.items, choice });
    }
}

/// A policy that starts from scratch keeps only the observation normaliser and has its own learning-rate schedule. If
/// it is saved later, it resumes where it stood.
#[test]
fn a_fresh_start_forgets_the_policy_and_no_more() {
    let settings = RunSettings { env_steps: 1024, ..RunSettings::of_control(ControlRun::of("hopper_backflip")) };
    let loaded = super::super::task_of(&settings).unwrap();
    let mut spec = loaded.spec().clone();
    spec.explore = ExploreSettings { policy_resets: 1, last_reset: 0.5, env_steps: 1024, share: 1.0, ..spec.explore };
    let task = Arc::new(Task::new(spec, loaded.model().clone()).unwrap());
    let make = || Trainer::new(&settings, task.clone(), ItemId(0), Some(4), Some(1)).unwrap();
    let mut trainer = make();
    let rollout = 4 * trainer.ppo.settings().num_steps as u64;
    let (mut before, mut rates) = (trainer.policy(), Vec::new());
    while trainer.env_steps() + rollout < 512 {
        trainer.collect(&mut || false).unwrap();
        trainer.learn(&[], &mut || false).unwrap();
        before = trainer.policy();
        rates.push(trainer.ppo.learning_rate());
    }
    let seen = before.to_arrays()["obs_mean"].clone();
    trainer.collect(&mut || false).unwrap();
    trainer.learn(&[], &mut || false).unwrap();
    assert_eq!(trainer.take_warning().as_deref(), Some(BEGINS_AGAIN));
    let fresh = trainer.policy().to_arrays();
    assert_ne!(fresh["actor.0.weight"], before.to_arrays()["actor.0.weight"]);
    assert_ne!(fresh["obs_mean"], seen, "the last rollout was not taken in");
    let spread = fresh["log_std"].as_f32().unwrap();
    assert!(spread.iter().all(|x| *x == trainer.ppo.settings().initial_log_std as f32), "{spread:?}");
    assert!(rates.is_sorted_by(|a, b| a > b) && trainer.ppo.learning_rate() > rates[0], "{rates:?}");

    trainer.collect(&mut || false).unwrap();
    trainer.learn(&[], &mut || false).unwrap();
    let mut again = make();
    again.load(&trainer.to_arrays()).unwrap();
    assert!(again.ppo.to_arrays() == trainer.ppo.to_arrays(), "the policy was not taken up where it stood");
    assert_eq!(again.ppo.learning_rate(), trainer.ppo.learning_rate());
}

/// The last policy continues from the best of those before it. The run ends with the policy checkpoint that has the
/// highest learned reward, whichever that is, even if the run was saved and resumed in between.
#[test]
fn the_best_policy_goes_on_and_is_kept() {
    let settings = RunSettings {
        labels: 20,
        env_steps: 8_000,
        teacher: TeacherKind::Oracle,
        ..RunSettings::of_control(ControlRun::of("hopper_backflip"))
    };
    let loaded = super::super::task_of(&settings).unwrap();
    let mut spec = loaded.spec().clone();
    (spec.labels.select_best_policy, spec.horizon) = (true, Spanned::new(0..0, 300));
    spec.explore = ExploreSettings { policy_resets: 1, last_reset: 0.9, ..spec.explore };
    let task = Arc::new(Task::new(spec, loaded.model().clone()).unwrap());
    let make = || Trainer::new(&settings, task.clone(), ItemId(0), Some(4), Some(1)).unwrap();
    let (mut trainer, mut labels) = (make(), Vec::<Label>::new());
    while trainer.env_steps() < 7_200 {
        assert_eq!(trainer.checkpoints, PolicyCheckpoints::default());
        trainer.collect(&mut || false).unwrap();
        answer(&mut trainer, &mut labels, 1);
        trainer.learn(&labels, &mut || false).unwrap();
    }
    assert!(trainer.has_reward());
    assert!(trainer.take_warning().unwrap().contains("goes on"));
    let (at, best) = trainer.best().unwrap();
    assert_eq!(at, trainer.env_steps());
    assert_eq!(trainer.ppo.to_arrays()["actor.0.weight"], best["actor.0.weight"]);
    assert_eq!(trainer.ppo.learning_rate(), trainer.ppo.settings().learning_rate);

    let mut again = make();
    again.load(&trainer.to_arrays()).unwrap();
    assert!(again.checkpoints == trainer.checkpoints, "the candidates were not saved");
    while !trainer.finished() {
        trainer.collect(&mut || false).unwrap();
        trainer.learn(&labels, &mut || false).unwrap();
    }
    let (at, best) = trainer.best().unwrap();
    assert_eq!(trainer.ppo.to_arrays()["actor.0.weight"], best["actor.0.weight"]);
    assert_eq!(trainer.take_warning().is_some(), at < trainer.env_steps());
}

/// A run that began with the other kind of reward model keeps its policy, and fits its reward model anew to the
/// standing answers.
#[test]
fn another_kind_of_reward_is_learnt_from_the_same_answers() {
    let settings = RunSettings {
        labels: 40,
        env_steps: 100_000,
        teacher: TeacherKind::Oracle,
        ..RunSettings::of_control(ControlRun::of("hopper_backflip"))
    };
    let loaded = super::super::task_of(&settings).unwrap();
    let of = |kind: RewardModelKind| {
        let mut spec = loaded.spec().clone();
        spec.explore.policy_resets = 0;
        spec.reward_model = Some(Spanned::new(0..0, RewardModelSettings { kind, ..RewardModelSettings::default() }));
        let task = Arc::new(Task::new(spec, loaded.model().clone()).unwrap());
        Trainer::new(&settings, task, ItemId(0), Some(4), Some(1)).unwrap()
    };
    let kinds = [RewardModelKind::Networks, RewardModelKind::GaussianProcess];
    for [before, after] in [kinds, [kinds[1], kinds[0]]] {
        let (mut old, mut labels) = (of(before), Vec::<Label>::new());
        while !old.has_reward() {
            old.collect(&mut || false).unwrap();
            answer(&mut old, &mut labels, 1);
            old.learn(&labels, &mut || false).unwrap();
        }
        let (mut new, mut same) = (of(after), of(before));
        same.load(&old.to_arrays()).unwrap();
        new.load(&old.to_arrays()).unwrap();
        assert!(same.has_reward() && !new.has_reward());
        assert!(new.ppo.to_arrays() == old.ppo.to_arrays());
        new.collect(&mut || false).unwrap();
        new.learn(&labels, &mut || false).unwrap();
        assert!(new.has_reward());
    }
}

/// A run with a learned reward waits if more answers are wanted than the task's `max_lead` allows. It does not wait
/// before there is a reward, or if the task allows any lead. At the end it waits for a person only while an answer is
/// owed.
#[test]
fn training_waits_for_answers_that_are_wanted() {
    let settings = RunSettings {
        labels: 40,
        env_steps: 4_000,
        teacher: TeacherKind::Oracle,
        ..RunSettings::of_control(ControlRun::of("hopper_backflip"))
    };
    let loaded = super::super::task_of(&settings).unwrap();
    let with_lead = |lead: f64| {
        let mut spec = loaded.spec().clone();
        spec.labels.max_lead = lead;
        spec.explore.policy_resets = 0;
        let task = Arc::new(Task::new(spec, loaded.model().clone()).unwrap());
        Trainer::new(&settings, task, ItemId(0), Some(4), Some(1)).unwrap()
    };
    for lead in [0.1, 1.0] {
        let (mut trainer, mut labels) = (with_lead(lead), Vec::<Label>::new());
        while !trainer.has_reward() {
            trainer.collect(&mut || false).unwrap();
            assert!(!trainer.runs_ahead(0));
            answer(&mut trainer, &mut labels, 1);
            trainer.learn(&labels, &mut || false).unwrap();
        }
        let wanted = trainer.labels_wanted();
        assert!(wanted > 10, "{wanted}");
        // A tenth of 40 labels is 4.
        assert!(!trainer.runs_ahead(wanted - 4));
        assert_eq!(trainer.runs_ahead(wanted - 5), lead < 1.0);
        let waits = |labels, since| TrainingLoop::waits(&trainer, labels, since);
        assert_eq!([waits(wanted - 1, 0), waits(wanted - 1, u64::MAX), waits(wanted, u64::MAX)], [false, true, false]);
    }
}

/// A run that loses its GPU continues on the CPU from the same states, and reports it once. Any other error stops it.
#[test]
fn a_lost_device_is_left() {
    let settings = RunSettings {
        ..RunSettings::of_control(ControlRun { reward: RewardSource::True, ..ControlRun::of("hopper") })
    };
    let task = super::super::task_of(&settings).unwrap();
    let mut trainer = Trainer::new(&settings, task, ItemId(0), Some(4), Some(1)).unwrap();
    trainer.collect(&mut || false).unwrap();
    assert_eq!(trainer.take_warning(), None);
    let before = trainer.env.to_arrays();
    let lost = DeviceError::Lost { adapter: "a card".to_owned(), why: "it was pulled out".to_owned() };
    trainer.leave_device(EnvError::Device(lost)).unwrap();
    assert_eq!(trainer.env.to_arrays(), before);
    let told = trainer.take_warning().unwrap();
    assert!(told.contains("a card") && told.contains("goes on"), "{told}");
    assert_eq!(trainer.take_warning(), None);
    trainer.collect(&mut || false).unwrap();
    assert!(matches!(trainer.leave_device(EnvError::NotReset), Err(LabError::Env(EnvError::NotReset))));
}
