//! Tests of cancelled turns of the training loop, without threads or database.

use super::super::folders;
use super::super::look::{LookModels, LookPlan, LookWhat, look};
use super::super::tools::{ExampleKind, ExamplesPlan, TokenizerPlan, train_tokenizer, write_examples};
use super::*;
use crate::lab::Noise;
use crate::lab::vocabulary::{Inside, InsideField, InsideFound, InsidePatch, InsideView};
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
    let (points, trainer) = taught(settings, root, [cancels, reopened], &mut |_| {});
    (points, trainer.to_arrays())
}

/// The same, with something done between the turns. Returns the trainer.
fn taught(
    settings: &RunSettings,
    root: &Path,
    [cancels, reopened]: [bool; 2],
    between: &mut dyn FnMut(&mut TextTrainer),
) -> (Vec<Values>, TextTrainer) {
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
        between(&mut trainer);
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
    (points, trainer)
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

const VIEWS: [InsideView; 7] = [
    InsideView::Lens,
    InsideView::Contributions,
    InsideView::Attention,
    InsideView::PatchBase,
    InsideView::PatchTuned,
    InsideView::Swap,
    InsideView::Moved,
];

fn inside(answers: [&str; 2], view: InsideView) -> InsideRequest {
    InsideRequest { prompt: "Review of the red kettle: It is".to_owned(), answers: answers.map(str::to_owned), view }
}

/// What a view finds if all of it is done at once.
fn looked_at_once(trainer: &mut TextTrainer, request: InsideRequest) -> Arc<Inside> {
    trainer.begin_look(request);
    while trainer.is_looking() {
        trainer.look_on(&mut || false);
    }
    trainer.view().inside.unwrap()
}

fn patch_of(inside: &Inside, view: InsideView) -> InsidePatch {
    let InsideFound::Patch(patch) = &inside.seen[&view].found else { panic!("another view") };
    assert!(inside.seen[&view].complete && inside.progress.is_none());
    patch.clone()
}

/// A person looks at every view between the turns of training, part by part. Training is what it is without, bit for
/// bit, and a view is of the policy as it was when the view was begun.
#[test]
fn looking_inside_changes_no_bit_of_training_and_is_not_changed_by_it() {
    let root = tempfile::tempdir().unwrap();
    let mut run = TextRun {
        model: Some(small_model(root.path())),
        from: TextStage::Reward,
        reward_steps: 3,
        updates: 3,
        ..TextRun::default()
    };
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (6, 4, 2);
    run.ppo.optimiser.learning_rate = 1e-2;
    let settings = RunSettings { labels: 8, teacher: TeacherKind::Oracle, ..RunSettings::of_text(run) };
    let undisturbed = points_and_end(&settings, root.path(), false, false);
    let mut views = VIEWS.iter().cycle();
    let mut expected: Option<InsidePatch> = None;
    let (points, mut trainer) = taught(&settings, root.path(), [false, false], &mut |trainer| {
        let updated = matches!(&trainer.stage, Stage::Teaching(teaching) if teaching.ppo.updates() > 0);
        if updated && expected.is_none() {
            // First all of it, and then the same again, which ends after the last update.
            let request = inside([" a joy", " a bore"], InsideView::PatchTuned);
            let all = looked_at_once(trainer, request.clone());
            expected = Some(patch_of(&all, InsideView::PatchTuned));
            trainer.begin_look(request);
        } else if !updated {
            trainer.begin_look(inside(["", ""], *views.next().unwrap()));
        }
        trainer.look_on(&mut || false);
        trainer.keep_looked_into();
    });
    assert_eq!((points, trainer.to_arrays()), undisturbed);
    assert!(trainer.is_looking());
    while trainer.is_looking() {
        trainer.look_on(&mut || false);
    }
    let inside = trainer.view().inside.unwrap();
    let patch = patch_of(&inside, InsideView::PatchTuned);
    assert_ne!(patch.ends[0], patch.ends[1]);
    assert_eq!(Some(patch), expected);
}

/// In a finished session, every view has the figures of `flipside text look` with the models of its folder. What cannot
/// be looked at is refused at its field.
#[test]
fn looking_inside_finds_what_the_command_line_does() {
    let root = tempfile::tempdir().unwrap();
    let model = small_model(root.path());
    let mut run = TextRun {
        model: Some(model.clone()),
        from: TextStage::Ppo,
        updates: 3,
        reward_functions: vec!["regex:[aeiou]".to_owned(), "0.5*length:..4".to_owned()],
        ..TextRun::default()
    };
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (6, 8, 4);
    run.ppo.optimiser.learning_rate = 1e-2;
    let settings = RunSettings { labels: 8, teacher: TeacherKind::Oracle, ..RunSettings::of_text(run) };
    let (_, mut trainer) = taught(&settings, root.path(), [false, false], &mut |_| {});
    let mut seen = Arc::default();
    for view in VIEWS {
        seen = looked_at_once(&mut trainer, inside(["", ""], view));
        assert_eq!(seen.refusal, None);
    }
    assert_eq!(seen.seen.len(), VIEWS.len(), "all views of one prompt stay");
    let question = seen.question.clone().unwrap();
    let models = LookModels {
        model: Some(model),
        against: Some(folders::of_stage(root.path(), TextStage::Ppo)),
        ..LookModels::default()
    };
    let told = |what: LookWhat| {
        let plan = LookPlan {
            models: models.clone(),
            what,
            prompts: vec![inside(["", ""], InsideView::Lens).prompt],
            others: vec![],
            tokens: None,
            completion: None,
            position: None,
            output: None,
            picture: None,
        };
        look(&plan, &mut |_, _| false).unwrap().json
    };
    let near = |a: f32, b: &serde_json::Value| (f64::from(a) - b.as_f64().unwrap()).abs() < 1e-6;

    let InsideFound::Lens(lens) = &seen.seen[&InsideView::Lens].found else { panic!() };
    let json = told(LookWhat::Lens { mid: false, top: 5, tuned_lens: None });
    assert_eq!(
        [json["better"]["text"].as_str(), json["worse"]["text"].as_str()],
        question.compared.each_ref().map(|w| Some(&w[..]))
    );
    let both = lens.cells.as_deref().unwrap();
    for (prefix, rows) in ["", "tuned."].into_iter().zip(both) {
        for (row, cells) in rows.iter().enumerate() {
            let of = |name: &str| json[format!("{prefix}lens.{name}")][row].clone();
            for (column, cell) in cells.iter().enumerate() {
                let likeliest = cell.top[0].probability.ln();
                assert!(near(likeliest, &of("top_log_probs")[column][0]) && near(cell.kl, &of("kl")[column]));
                assert!(
                    near(cell.entropy, &of("entropy")[column]) && near(cell.log_probs[1], &of("log_probs")[column][1])
                );
                assert_eq!(Some(u64::from(cell.rank[0])), of("rank")[column][0].as_u64());
            }
        }
    }
    // Where a token is likely in both models, each says what it is in the other.
    let pairs = both[0].iter().flatten().zip(both[1].iter().flatten());
    let tokens = pairs.flat_map(|(base, tuned)| base.top.iter().map(move |token| (token, &tuned.top)));
    let shared =
        tokens.filter_map(|(token, tuned)| Some((token, tuned.iter().find(|other| other.word == token.word)?)));
    let shared: Vec<_> = shared.collect();
    let equal = |a: f32, b: f32| (a - b).abs() < 1e-5;
    assert!(!shared.is_empty());
    assert!(shared.iter().all(|(a, b)| equal(a.probability, b.other) && equal(a.other, b.probability)));

    let InsideFound::Contributions(both) = &seen.seen[&InsideView::Contributions].found else { panic!() };
    let json = told(LookWhat::Attribution);
    for (place, (name, x)) in ["base", "tuned"].into_iter().zip(both).enumerate() {
        let x = x.as_ref().unwrap();
        let part =
            |name: &str| json["parts"].as_array().unwrap().iter().find(|row| row["part"] == name).unwrap().clone();
        assert!(near(x.map.at(0, 1), &part("L0H1")[name]) && near(x.parts[0].1, &part("embed")[name]));
        let sum: f32 = x.parts.iter().map(|(_, value)| value).sum();
        assert!((f64::from(sum) - question.differences[place]).abs() < 1e-4, "{sum} {:?}", question.differences);
    }

    let InsideFound::Attention(both) = &seen.seen[&InsideView::Attention].found else { panic!() };
    let json = told(LookWhat::Attention(None));
    let tuned = both[1].as_ref().unwrap();
    assert!(near(tuned.kinds[1][1], &json["tuned.attention.previous"][0][1]));
    let tokens = tuned.shape[2];
    assert!(tuned.pattern(0, 1).chunks(tokens).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));

    for (view, reverse) in [(InsideView::PatchBase, false), (InsideView::PatchTuned, true)] {
        let patch = patch_of(&seen, view);
        let grids: Vec<String> = ["resid_pre", "attn_out", "mlp_out", "z"].map(str::to_owned).to_vec();
        let json = told(LookWhat::Patch { grids: grids.clone(), guess: false, reverse });
        for (grid, name) in patch.grids.iter().zip(grids) {
            let expected =
                json[format!("patch.{name}")].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
            assert!(grid.values.iter().zip(expected).all(|(a, b)| near(*a, b)), "{name}");
        }
        assert!(near(patch.unembed as f32, &json["unembed"]));
    }

    let InsideFound::Swap(swap) = &seen.seen[&InsideView::Swap].found else { panic!() };
    let json = told(LookWhat::Swap);
    assert!(near(swap.one[0] as f32, &json["swap.one"][0]) && near(swap.up_to[0] as f32, &json["swap.up_to"][0]));
    assert_eq!(json["all"].as_f64(), Some(swap.tuned));

    let InsideFound::Moved(moved) = &seen.seen[&InsideView::Moved].found else { panic!() };
    let json = told(LookWhat::Diff { mid: false });
    assert_eq!(
        (moved.tokens[0][0].word.as_str(), moved.kl),
        (json["risen"][0]["text"].as_str().unwrap(), json["kl"].as_f64().unwrap())
    );
    assert!(near(moved.streams.at(1, 3), &json["diff.kl"][1][3]));
    let weights = json["weights"].as_array().unwrap();
    assert_eq!(moved.weights.len(), weights.len());
    assert!(moved.weights.iter().zip(weights).all(|(w, json)| json["change"].as_f64() == Some(w.change)));
    assert!(moved.weights.iter().any(|weight| weight.block == Some(0) && weight.change > 0.0));

    // Answers of several tokens are compared where they part.
    let two = looked_at_once(&mut trainer, inside([" a joy", " a bore"], InsideView::Swap));
    let question = two.question.clone().unwrap();
    assert!(question.words.len() > tokens && question.words.concat().trim_end().ends_with("It is a"), "{question:?}");
    assert_eq!(two.seen.len(), 1, "other answers begin anew");
    for (prompt, answers, field, says) in [
        ("", ["", ""], InsideField::Prompt, "at least one token"),
        ("a", ["", " b"], InsideField::Answer(0), "both answers, or none"),
        ("a", [" b", " b"], InsideField::Answer(1), "the same"),
        ("a", [" it", " it is"], InsideField::Answer(0), "begins with this one"),
        ("Review o", ["f", " b"], InsideField::Answer(0), "begin it with a space"),
    ] {
        let request = InsideRequest { prompt: prompt.to_owned(), ..inside(answers, InsideView::Lens) };
        let refusal = looked_at_once(&mut trainer, request).refusal.clone();
        assert!(
            refusal.as_ref().is_some_and(|(at, why)| *at == field && why.contains(says)),
            "{answers:?}: {refusal:?}"
        );
    }
}
