//! Tests of cancelled turns of the training loop, without threads or database.

use super::super::tools::{ExampleKind, ExamplesPlan, TokenizerPlan, train_tokenizer, write_examples};
use super::*;
use crate::lab::Noise;
use crate::settings::{KlEstimator, KlPlace, PreferenceLoss, TextAdvantage, TextPrecision, TextShape};
use crate::store::{ModelFolder, SHARD};
use flipside_core::{Choice, JudgementId, PairId, both_completions};
use flipside_text::data::Reading;
use flipside_text::tokenizer_of;

/// Writes a model folder with random weights and a tokenizer for the grammar's words.
fn small_model(root: &Path) -> PathBuf {
    let (texts, words, folder) = (root.join("texts.jsonl"), root.join("words"), root.join("model"));
    let noise = Noise::default();
    write_examples(&ExamplesPlan { kind: ExampleKind::Reviews, count: 100, seed: 1, noise, output: texts.clone() })
        .unwrap();
    let plan = TokenizerPlan {
        data: Some(texts),
        reading: Reading::default(),
        vocabulary: 300,
        seed: 0,
        output: words.clone(),
    };
    train_tokenizer(&plan).unwrap();
    let tokenizer = tokenizer_of(&ModelFolder::read_texts(&words).unwrap()).unwrap();
    let shape = TextShape { vocabulary: 300, context: 64, width: 16, layers: 1, heads: 2 };
    let (texts, weights) = Bundle::random(&shape, tokenizer, TextPrecision::F32, Seed(3)).to_parts().unwrap();
    ModelFolder { texts, weights }.write(&folder, SHARD).unwrap();
    folder
}

/// Three steps of a reward model on eight answers, then two PPO updates. With `cancels`, every turn is cancelled at the
/// first place where it checks, then at the second, and so on, until it completes. With `reopened`, the trainer is
/// rebuilt from its arrays after each cancelled turn.
fn points_and_end(settings: &RunSettings, root: &Path, cancels: bool, reopened: bool) -> (Vec<Values>, Arrays) {
    let new = |arrays: Option<&Arrays>| TextTrainer::new(settings, root, ItemId(0), None, arrays).unwrap();
    let mut trainer = new(None);
    let offered = trainer.propose(8, &[], &mut || false).unwrap();
    let label = |(i, Offered { items, .. }): (usize, Offered)| {
        let choice = if i % 3 == 0 { Choice::Left } else { Choice::Right };
        Label { judgement: JudgementId(i as u64 + 1), pair: PairId(i as u64 + 1), items, choice }
    };
    let labels: Vec<Label> = offered.into_iter().enumerate().map(label).collect();
    let mut points = Vec::new();
    let mut cancelled_turns = 0;
    while !trainer.finished() {
        for place in 1.. {
            let mut asked = 0;
            let mut cancelled = || {
                asked += 1;
                cancels && asked == place
            };
            match trainer.learn(&labels, &mut cancelled) {
                Ok(values) => {
                    points.push(values);
                    break;
                }
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
            cancelled_turns += 1;
            if reopened {
                trainer = new(Some(&trainer.to_arrays()));
            }
        }
    }
    assert_eq!(cancelled_turns > 20, cancels, "{cancelled_turns}");
    (points, trainer.to_arrays())
}

#[test]
fn a_turn_that_is_cancelled_anywhere_is_begun_again() {
    let root = tempfile::tempdir().unwrap();
    let mut run = TextRun {
        model: Some(small_model(root.path())),
        from: TextStage::Reward,
        reward_steps: 3,
        updates: 2,
        ..TextRun::default()
    };
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (6, 4, 2);
    let settings = RunSettings { labels: 8, teacher: TeacherKind::Oracle, ..RunSettings::of_text(run) };
    let undisturbed = points_and_end(&settings, root.path(), false, false);
    let names = ["reward_loss", "labels", "reward", "gold"];
    assert!(names.iter().all(|name| undisturbed.0.iter().flatten().any(|(known, _)| known == name)));
    assert_eq!(points_and_end(&settings, root.path(), true, false), undisturbed);
    assert_eq!(points_and_end(&settings, root.path(), true, true), undisturbed);
}

/// GRPO on reward functions, with no reward model: nobody is asked, and no turn of the reward stage is taken.
#[test]
fn reward_functions_take_the_place_of_a_reward_model() {
    let root = tempfile::tempdir().unwrap();
    let mut run = TextRun {
        model: Some(small_model(root.path())),
        from: TextStage::Ppo,
        updates: 3,
        reward_functions: vec!["regex:[aeiou]".to_owned(), "0.5*length:..4".to_owned()],
        ..TextRun::default()
    };
    assert_eq!((run.steps_of(TextStage::Reward), run.steps_of(TextStage::Ppo)), (0, 3));
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (6, 8, 4);
    (run.ppo.advantage, run.ppo.group_size) = (TextAdvantage::GroupStd, 4);
    (run.ppo.kl.place, run.ppo.kl.estimator) = (KlPlace::Loss, KlEstimator::K3);
    let settings = RunSettings { labels: 8, teacher: TeacherKind::Oracle, ..RunSettings::of_text(run.clone()) };
    let undisturbed = points_and_end(&settings, root.path(), false, false);
    assert_eq!(undisturbed.0.len(), 3);
    let names = ["reward", "reference_kl", "grad_norm", "equal_groups"];
    assert!(names.iter().all(|name| undisturbed.0.iter().flatten().any(|(known, _)| known == name)));
    assert!(undisturbed.1.keys().all(|name| !name.starts_with("reward/") && !name.contains("head.")));
    assert_eq!(points_and_end(&settings, root.path(), true, true), undisturbed);
    // A sentence for what cannot be.
    for (functions, words) in [(vec!["mean:a,b"], "folder"), (vec!["regex:("], "regex")] {
        let functions = functions.into_iter().map(str::to_owned).collect();
        let run = TextRun { reward_functions: functions, ..run.clone() };
        let error = TextTrainer::new(&RunSettings::of_text(run), root.path(), ItemId(0), None, None).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Online DPO by a rule that scores at once, interrupted at every place.
#[test]
fn online_dpo_by_a_rule_is_begun_again_wherever_it_is_cancelled() {
    let root = tempfile::tempdir().unwrap();
    let mut run = TextRun {
        model: Some(small_model(root.path())),
        from: TextStage::OnlineDpo,
        until: TextStage::OnlineDpo,
        online_dpo_steps: 2,
        reward_functions: vec!["regex:[aeiou]".to_owned(), "0.1*length:..4".to_owned()],
        ..TextRun::default()
    };
    (run.online_dpo.max_new_tokens, run.online_dpo.group_size, run.preference.batch_size) = (6, 3, 4);
    let settings = RunSettings { labels: 8, teacher: TeacherKind::Oracle, ..RunSettings::of_text(run.clone()) };
    let undisturbed = points_and_end(&settings, root.path(), false, false);
    assert_eq!(undisturbed.0.len(), 3, "two updates and the end: {:?}", undisturbed.0);
    let names = ["reward", "reference_kl", "equal_groups", "preference_loss", "gold"];
    assert!(names.iter().all(|name| undisturbed.0.iter().flatten().any(|(known, _)| known == name)));
    assert_eq!(points_and_end(&settings, root.path(), true, true), undisturbed);
    // A sentence for what cannot be.
    let nobody = RunSettings { labels: 0, ..RunSettings::of_text(TextRun { reward_functions: vec![], ..run.clone() }) };
    let mut kto = run.clone();
    kto.preference.loss = PreferenceLoss::Kto;
    let judged = TextRun { comparisons: Some("pairs.jsonl".into()), ..run };
    for (settings, words) in [
        (nobody, "Nobody judges"),
        (RunSettings::of_text(kto), "text.preference.loss"),
        (RunSettings::of_text(judged), "text.comparisons"),
    ] {
        let error = TextTrainer::new(&settings, root.path(), ItemId(0), None, None).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// A person is asked about what the policy writes. After every round of answers it learns, and before it waits for the
/// next round it writes anew.
#[test]
fn a_person_judges_what_the_policy_writes_and_it_learns_after_every_round() {
    let root = tempfile::tempdir().unwrap();
    let mut run = TextRun {
        model: Some(small_model(root.path())),
        from: TextStage::OnlineDpo,
        until: TextStage::OnlineDpo,
        online_dpo_steps: 4,
        ..TextRun::default()
    };
    (run.online_dpo.max_new_tokens, run.online_dpo.round_size, run.preference.batch_size) = (6, 4, 4);
    run.preference.optimiser.learning_rate = 1e-2;
    let settings = RunSettings { labels: 8, teacher: TeacherKind::Person, ..RunSettings::of_text(run) };
    let mut trainer = TextTrainer::new(&settings, root.path(), ItemId(0), None, None).unwrap();
    let mut labels: Vec<Label> = Vec::new();
    let mut written = Vec::new();
    for round in 1..=2 {
        if round == 1 {
            written.push(trainer.propose(6, &labels, &mut || false).unwrap());
        }
        assert!(trainer.waits(labels.len(), 2), "round {round}: there is nothing to learn from");
        assert_eq!(trainer.labels_wanted(), 4 * round);
        // With three of four answers nothing is learned.
        for (i, Offered { items, .. }) in written[round - 1].iter().take(4).enumerate() {
            assert!(trainer.waits(labels.len(), 2) && trainer.learn(&labels, &mut || false).unwrap().is_empty());
            let number = labels.len() as u64 + 1;
            let choice = if i == 0 { Choice::Tie } else { Choice::Left };
            let (judgement, pair) = (JudgementId(number), PairId(number));
            labels.push(Label { judgement, pair, items: items.clone(), choice });
        }
        assert!(!trainer.waits(labels.len(), 2));
        let first = trainer.learn(&labels, &mut || false).unwrap();
        let value = |name: &str| first.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        assert_eq!((value("labels"), value("equal_groups")), (Some(4.0 * round as f64), Some(0.25)), "{first:?}");
        assert_eq!(value("reference_kl") == Some(0.0), round == 1, "{first:?}");
        assert!(trainer.stale_after() > Duration::ZERO, "the round has another step");
        let second = trainer.learn(&labels, &mut || false).unwrap();
        assert!(second.iter().any(|(name, _)| *name == "preference_loss"), "{second:?}");
        if round == 1 {
            // The policy has moved: before it waits, questions that were written by the earlier one are replaced.
            assert!(!trainer.waits(labels.len(), 2) && trainer.stale_after() == Duration::ZERO && trainer.renews());
            written.push(trainer.propose(6, &labels, &mut || false).unwrap());
            assert!(
                trainer.waits(labels.len(), 2)
                    && trainer.stale_after() > Duration::from_secs(3600)
                    && !trainer.renews()
            );
        }
    }
    assert!(!trainer.finished());
    trainer.learn(&labels, &mut || false).unwrap();
    assert!(trainer.finished());
    let ratios = |offered: &[Offered]| -> Vec<f32> {
        let pairs = offered.iter().filter_map(|offered| both_completions(&offered.items));
        pairs.flatten().flat_map(|completion| completion.log_ratios.clone()).collect()
    };
    assert!(ratios(&written[0]).iter().all(|&ratio| ratio == 0.0) && ratios(&written[1]).iter().any(|&r| r != 0.0));
}
