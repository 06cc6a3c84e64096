//! A session in text mode, from judgements to PPO: however it is interrupted, its curves and answers are those of an
//! undisturbed run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use flipside::lab::{
    Command as LabCommand, Event, ExampleKind, ExamplesPlan, InsideRequest, InsideView, Lab, Link, Noise,
    TokenizerPlan, measure_text, train_tokenizer, write_examples,
};
use flipside::settings::{
    Asked, Mode, PreferenceLoss, RunSettings, TeacherKind, TextPrecision, TextPreset, TextRun, TextShape, TextStage,
};
use flipside::store::{ModelFolder, SHARD, Session};
use flipside_core::{Choice, LogEntry, Seed};
use flipside_text::data::Reading;
use flipside_text::{Bundle, tokenizer_of};
use rand::RngExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(600);

/// Writes a model folder with random weights and a tokenizer for the grammar's words.
fn small_model(root: &Path) -> PathBuf {
    let (texts, words, folder) = (root.join("texts.jsonl"), root.join("words"), root.join("model"));
    let noise = Noise::default();
    write_examples(&ExamplesPlan { kind: ExampleKind::Reviews, count: 300, seed: 1, noise, output: texts.clone() })
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
    let shape = TextShape { vocabulary: 300, context: 64, width: 16, layers: 2, heads: 2 };
    let (texts, weights) = Bundle::random(&shape, tokenizer, TextPrecision::F32, Seed(3)).to_parts().unwrap();
    ModelFolder { texts, weights }.write(&folder, SHARD).unwrap();
    folder
}

/// 40 noisy answers, 10 steps of the reward model, 6 PPO updates.
fn settings(model: &Path, session: &Path) -> RunSettings {
    let mut run = TextRun {
        model: Some(model.to_owned()),
        from: TextStage::Reward,
        until: TextStage::Ppo,
        reward_steps: 10,
        updates: 6,
        ..TextRun::default()
    };
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (12, 8, 4);
    RunSettings {
        labels: 40,
        teacher: TeacherKind::Mistaken { rate: 0.05 },
        folder: Some(session.to_owned()),
        ..RunSettings::of_text(run)
    }
}

/// Runs the lab until it has finished or has done `steps` steps; then it saves and closes. Returns whether it has
/// finished.
fn run(settings: &RunSettings, steps: u64) -> bool {
    let lab = Lab::open(settings.clone(), Arc::new(|| {})).unwrap();
    let began = Instant::now();
    loop {
        for event in lab.events() {
            match event {
                Event::Finished => return true,
                Event::Faulted(why) => panic!("{why}"),
                _ => {}
            }
        }
        if lab.snapshot().env_steps >= steps {
            return false;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", lab.snapshot());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every point of every curve, and every answer.
type Told = (Vec<(u64, String, f64)>, Vec<Choice>);

fn told(folder: &Path) -> Told {
    let session = Session::open_to_read(folder).unwrap();
    let points = session.metrics().unwrap().into_iter().map(|m| (m.env_steps, m.name, m.value)).collect();
    let answer = |entry: LogEntry| match entry {
        LogEntry::Judged(judgement) => judgement.choice,
        LogEntry::Retracted { .. } => panic!("nobody took an answer back"),
    };
    (points, session.log().unwrap().into_iter().map(answer).collect())
}

/// `flipside text` with these arguments, silently.
fn text_program(arguments: &[&str], session: &Path) -> Child {
    let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
    program.arg("text").args(arguments).arg("--session").arg(session);
    program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Points of all curves of a session; 0 if there is none yet.
fn points(folder: &Path) -> usize {
    Session::open_to_read(folder).and_then(|session| session.metrics()).map_or(0, |all| all.len())
}

/// Answers of a session; 0 if there is none yet.
fn answers(folder: &Path) -> usize {
    Session::open_to_read(folder).and_then(|session| session.log()).map_or(0, |log| log.len())
}

/// Kills a process as soon as this holds. Returns whether it still ran.
fn kill_once(mut child: Child, reached: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while !reached() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn an_interrupted_run_is_the_undisturbed_one() {
    let root = tempfile::tempdir().unwrap();
    let model = small_model(root.path());
    let whole = root.path().join("whole");
    assert!(run(&settings(&model, &whole), u64::MAX));
    let expected = told(&whole);
    assert_eq!(expected.1.len(), 40);
    let names = ["reward_loss", "reward", "gold", "reference_kl", "beta"];
    assert!(names.iter().all(|name| expected.0.iter().any(|(_, known, _)| known == name)), "{:?}", expected.0);
    // In the first update the policy still equals the reference.
    let kl = expected.0.iter().find(|(_, name, _)| name == "reference_kl").unwrap().2;
    assert!(kl.abs() < 1e-4, "{kl}");

    // Closed and reopened during the reward model's training, at its end, and during PPO.
    let cut = root.path().join("cut");
    for steps in [4, 10, 13] {
        assert!(!run(&settings(&model, &cut), steps));
    }
    assert!(run(&settings(&model, &cut), u64::MAX));
    assert_eq!(told(&cut), expected);

    // Each pipeline stage has written a model that can be read.
    for stage in [TextStage::Reward, TextStage::Ppo] {
        ModelFolder::read(&cut.join("models").join(stage.name())).unwrap();
    }
}

/// A person looks inside all the time, at one view after the other, also before the last one is there.
#[test]
fn a_run_that_is_looked_into_is_the_undisturbed_one() {
    let root = tempfile::tempdir().unwrap();
    let model = small_model(root.path());
    let [whole, looked] = ["whole", "looked"].map(|name| root.path().join(name));
    assert!(run(&settings(&model, &whole), u64::MAX));
    let lab = Lab::open(settings(&model, &looked), Arc::new(|| {})).unwrap();
    let views = [
        InsideView::Lens,
        InsideView::Contributions,
        InsideView::PatchTuned,
        InsideView::Attention,
        InsideView::Swap,
        InsideView::Moved,
    ];
    let ask = |place: usize| {
        let (prompt, answers) = (format!("Review of kettle {}:", place / views.len() % 2), Default::default());
        lab.send(LabCommand::Look(InsideRequest { prompt, answers, view: views[place % views.len()] }))
    };
    let began = Instant::now();
    let (mut asked, mut seen_in_training) = (0, 0);
    loop {
        let snapshot = lab.snapshot();
        let seen = snapshot.text().and_then(|view| view.inside.as_ref()).map_or(0, |inside| inside.seen.len());
        let events = lab.events();
        assert!(!events.iter().any(|event| matches!(event, Event::Faulted(_))), "{events:?}");
        if events.contains(&Event::Finished) {
            break;
        }
        seen_in_training += seen;
        asked += usize::from(ask(asked));
        assert!(began.elapsed() < PATIENCE, "{snapshot:?}");
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(asked > 50 && seen_in_training > 0, "{asked} {seen_in_training}");
    // The finished session is looked into, too.
    ask(0);
    while !lab.snapshot().text().and_then(|view| view.inside.clone()).is_some_and(|inside| {
        inside.request.view == InsideView::Lens && inside.seen.get(&InsideView::Lens).is_some_and(|seen| seen.complete)
    }) {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(3));
    }
    drop(lab);
    assert_eq!(told(&looked), told(&whole));
}

#[test]
fn kill_9_changes_no_answer_and_no_point_of_a_curve() {
    let root = tempfile::tempdir().unwrap();
    let model = small_model(root.path());
    let arguments = ["ppo", "--steps", "4", "--labels", "70", "--batch", "8", "--max-new-tokens", "12"];
    let start =
        |session: &Path| text_program(&[&arguments[..], &["--model", model.to_str().unwrap()]].concat(), session);
    let whole = root.path().join("whole");
    assert!(start(&whole).wait().unwrap().success());
    let killed = root.path().join("killed");
    // One kill within a handful of answers, one within the next handful, and one while the reward model is trained.
    for at in [5, 40, 70] {
        kill_once(start(&killed), || answers(&killed) >= at);
    }
    assert!(start(&killed).wait().unwrap().success());
    assert_eq!(told(&killed), told(&whole));
    // It is compared with the model that it was given.
    let found = measure_text(&whole, 4, 1).unwrap();
    assert_eq!((found.stage, &found.start, found.prompts), (TextStage::Ppo, &model, 4));
    assert!(found.reward_accuracy.is_some_and(|share| (0.0..=1.0).contains(&share)), "{found:?}");
}

/// The whole pipeline, from a tokenizer to PPO, with the built-in grammar and a model of a few thousand parameters.
fn small_chain(session: &Path, seed: u64) -> RunSettings {
    let mut run = TextRun {
        shape: TextShape { vocabulary: 300, context: 120, width: 16, layers: 2, heads: 2 },
        base_steps: 60,
        supervised_steps: 40,
        reward_steps: 10,
        updates: 10,
        ..TextRun::default()
    };
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (12, 8, 4);
    RunSettings {
        labels: 70,
        seed,
        teacher: TeacherKind::Mistaken { rate: 0.05 },
        folder: Some(session.to_owned()),
        ..RunSettings::of_text(run)
    }
}

#[test]
#[ignore = "twenty kills at random over whole chains, minutes"]
fn twenty_kills_at_random_leave_the_curves_of_an_undisturbed_run() {
    let mut draws = Seed(11).stream("kills");
    let mut kills = Vec::new();
    for seed in 7.. {
        let root = tempfile::tempdir().unwrap();
        let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
        assert!(run(&small_chain(&whole, seed), u64::MAX));
        // The session's settings are written when it is opened, and the program continues with them.
        run(&small_chain(&killed, seed), 0);
        let start = || {
            let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
            program.args(["text", "ppo", "--mistake-rate", "0.05", "--labels", "70", "--seed"]);
            program
                .arg(seed.to_string())
                .arg("--session")
                .arg(&killed)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let points = || {
            let session = Session::open_to_read(&killed).unwrap();
            session.metrics().unwrap().len() + session.log().unwrap().len()
        };
        loop {
            let mut child = start();
            let began = Instant::now();
            // Waits for 0 to 2 more points or answers, then kills at a random moment.
            let wanted = points() + draws.random_range(0..3);
            while points() < wanted && child.try_wait().unwrap().is_none() {
                assert!(began.elapsed() < PATIENCE);
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(draws.random_range(0..120)));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills.push(points());
        }
        assert!(start().wait().unwrap().success());
        assert_eq!(told(&killed), told(&whole), "seed {seed}");
        println!("seed {seed}: the same; points and answers after each kill so far: {kills:?}");
        if kills.len() >= 20 {
            break;
        }
    }
}

#[test]
#[ignore = "twenty seeds of three kinds, half an hour"]
fn no_seed_breaks_down_or_collapses() {
    let root = tempfile::tempdir().unwrap();
    let half = |run: &mut TextRun| run.frozen_layers = 1;
    let adapters = |run: &mut TextRun| run.lora = Some("r=8,targets=all".parse().unwrap());
    let nothing = |_: &mut TextRun| {};
    for (name, change) in [("full", &nothing as &dyn Fn(&mut TextRun)), ("LoRA", &adapters), ("half-frozen", &half)] {
        let mut gains = Vec::new();
        for seed in 0..20 {
            let folder = root.path().join(format!("{name}-{seed}"));
            let mut settings = small_chain(&folder, seed);
            settings.labels = 200;
            let Mode::Text(run_of) = &mut settings.mode else { unreachable!("it is of text") };
            run_of.shape = TextShape { vocabulary: 512, context: 160, width: 48, layers: 2, heads: 2 };
            (run_of.base_steps, run_of.supervised_steps, run_of.reward_steps, run_of.updates) = (500, 250, 60, 30);
            (run_of.ppo.max_new_tokens, run_of.ppo.batch_size, run_of.ppo.minibatch_size) = (48, 32, 8);
            run_of.ppo.optimiser.learning_rate = 5e-4;
            change(run_of);
            // A number that is not finite would cause an event, and `run` would panic.
            assert!(run(&settings, u64::MAX));
            let curve = |wanted: &str| -> Vec<f64> {
                told(&folder).0.into_iter().filter(|(_, name, _)| name == wanted).map(|(.., value)| value).collect()
            };
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let ends = |name: &str| (mean(&curve(name)[..4]), mean(&curve(name)[22..]));
            let (gold, entropy, kl) = (ends("gold"), ends("entropy"), ends("reference_kl"));
            println!("{name} {seed}: gold {gold:.2?}, entropy {entropy:.2?}, KL {:.2}", kl.1);
            // Collapse means the same few words for every prompt, a policy far from the reference, or a lower gold
            // score.
            assert!(entropy.1 > 0.2 * entropy.0 && kl.1 < 3.0 * 6.0 && gold.1 > gold.0 - 0.5, "{name} {seed}");
            gains.push(gold.1 - gold.0);
        }
        println!(
            "{name}: {} of 20 gained, by {:.2} in the mean",
            gains.iter().filter(|gain| **gain > 0.0).count(),
            gains.iter().sum::<f64>() / 20.0
        );
    }
}

/// Judged pairs of the grammar's prompts.
fn judged_pairs(root: &Path) -> PathBuf {
    let pairs = root.join("pairs.jsonl");
    let noise = Noise::default();
    write_examples(&ExamplesPlan { kind: ExampleKind::Pairs, count: 60, seed: 1, noise, output: pairs.clone() })
        .unwrap();
    pairs
}

/// A run that learns from judgements without a reward model: of a file, or 20 answers of a teacher.
fn offline(model: &Path, session: &Path, until: TextStage, loss: PreferenceLoss, data: Option<PathBuf>) -> RunSettings {
    let mut run = TextRun {
        model: Some(model.to_owned()),
        from: until,
        until,
        comparisons: data,
        preference_steps: 7,
        ilql_steps: 7,
        ..TextRun::default()
    };
    run.ppo.max_new_tokens = 12;
    (run.preference.loss, run.preference.batch_size, run.ilql.batch_size) = (loss, 4, 4);
    RunSettings {
        labels: 20,
        teacher: TeacherKind::Mistaken { rate: 0.05 },
        folder: Some(session.to_owned()),
        ..RunSettings::of_text(run)
    }
}

#[test]
fn learning_from_judgements_directly_goes_on_as_if_nothing_had_happened() {
    let root = tempfile::tempdir().unwrap();
    let (model, pairs) = (small_model(root.path()), judged_pairs(root.path()));
    for (name, until, loss, data) in [
        ("dpo", TextStage::Preference, PreferenceLoss::Sigmoid, Some(&pairs)),
        ("asked", TextStage::Preference, PreferenceLoss::Simpo, None),
        ("kto", TextStage::Preference, PreferenceLoss::Kto, Some(&pairs)),
        ("ilql", TextStage::Ilql, PreferenceLoss::Sigmoid, None),
    ] {
        let [whole, cut] = ["whole", "cut"].map(|kind| root.path().join(format!("{name}-{kind}")));
        let settings = |session: &Path| offline(&model, session, until, loss, data.cloned());
        assert!(run(&settings(&whole), u64::MAX));
        let expected = told(&whole);
        assert_eq!(expected.1.len(), if data.is_some() { 0 } else { 20 }, "{name}");
        let curve = |wanted: &str| expected.0.iter().filter(|(_, name, _)| name == wanted).count();
        let loss = if until == TextStage::Ilql { "ilql_loss" } else { "preference_loss" };
        assert_eq!((curve(loss), curve("gold"), curve("labels")), (7, 1, 1), "{name}: {:?}", expected.0);
        for steps in [0, 2, 5] {
            assert!(!run(&settings(&cut), steps), "{name}");
        }
        assert!(run(&settings(&cut), u64::MAX));
        assert_eq!(told(&cut), expected, "{name}");
        let folder = |session: &Path| ModelFolder::read(&session.join("models").join(until.name())).unwrap();
        assert_eq!(folder(&cut).weights, folder(&whole).weights, "{name}");
        let heads = folder(&cut).weights.keys().filter(|name| name.starts_with("ilql_heads.")).count();
        assert_eq!(heads, if until == TextStage::Ilql { 20 } else { 0 });
        // What it came to is evaluated beside the model that it was given. A file's prompts have no gold score.
        match measure_text(&whole, 4, 1) {
            Ok(found) => {
                assert_eq!((found.stage, &found.start, found.reward_accuracy), (until, &model, None), "{name}")
            }
            Err(error) => assert!(data.is_some() && error.to_string().contains("gold score"), "{name}: {error}"),
        }
    }
}

#[test]
fn preferences_are_learned_from_after_kill_9_and_after_a_reward_model() {
    let root = tempfile::tempdir().unwrap();
    let (model, pairs) = (small_model(root.path()), judged_pairs(root.path()));
    let (model, pairs) = (model.to_str().unwrap(), pairs.to_str().unwrap());
    let start = |session: &Path| {
        let arguments =
            ["preference", "--loss", "ipo", "--steps", "60", "--batch", "4", "--lora", "r=2", "--max-new-tokens", "12"];
        text_program(&[&arguments[..], &["--model", model, "--data", pairs]].concat(), session)
    };
    let [whole, killed] = ["whole", "killed"].map(|name| root.path().join(name));
    assert!(start(&whole).wait().unwrap().success());
    for at in [1, 150, 300] {
        kill_once(start(&killed), || points(&killed) >= at);
    }
    assert!(start(&killed).wait().unwrap().success());
    assert_eq!(told(&killed), told(&whole));
    ModelFolder::read(&whole.join("models/preference-adapter")).unwrap();

    // The answers of a finished reward model are learned from directly, and then by ILQL, whose heads write.
    let taught = root.path().join("taught");
    let reward = ["reward", "--steps", "4", "--labels", "16", "--max-new-tokens", "12", "--model", model];
    assert!(text_program(&reward, &taught).wait().unwrap().success());
    let answers = told(&taught).1;
    assert_eq!(answers.len(), 16);
    let output = root.path().join("output");
    for further in [
        &["preference", "--loss", "robust", "--steps", "4", "--batch", "4"][..],
        &["ilql", "--steps", "4", "--batch", "4", "--output", output.to_str().unwrap()],
    ] {
        assert!(text_program(further, &taught).wait().unwrap().success(), "{further:?}");
        assert_eq!(told(&taught).1, answers);
        ModelFolder::read(&taught.join("models").join(further[0])).unwrap();
    }
    let write = |model: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
        program.args([
            "text",
            "generate",
            "--beta",
            "1",
            "--max-new-tokens",
            "4",
            "--prompt",
            "Film",
            "--model",
            model,
        ]);
        program.output().unwrap()
    };
    assert!(write(output.to_str().unwrap()).status.success());
    let refused = write(model);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no heads of ILQL"));
    // What has been built on is not begun again.
    assert!(!text_program(&["preference", "--loss", "ipo"], &taught).wait().unwrap().success());
}

/// A run of online DPO: by a rule, or by 24 answers of a teacher in rounds of 8.
fn online(model: &Path, session: &Path, by_rule: bool) -> RunSettings {
    let mut run = TextRun {
        model: Some(model.to_owned()),
        from: TextStage::OnlineDpo,
        until: TextStage::OnlineDpo,
        online_dpo_steps: 9,
        reward_functions: if by_rule { vec!["regex:e".to_owned()] } else { vec![] },
        ..TextRun::default()
    };
    (run.online_dpo.max_new_tokens, run.online_dpo.round_size, run.preference.batch_size) = (6, 8, 4);
    RunSettings {
        labels: 24,
        teacher: TeacherKind::Mistaken { rate: 0.05 },
        folder: Some(session.to_owned()),
        ..RunSettings::of_text(run)
    }
}

#[test]
fn online_dpo_goes_on_as_if_nothing_had_happened() {
    let root = tempfile::tempdir().unwrap();
    let model = small_model(root.path());
    for (name, by_rule) in [("rule", true), ("teacher", false)] {
        let [whole, cut] = ["whole", "cut"].map(|kind| root.path().join(format!("{name}-{kind}")));
        assert!(run(&online(&model, &whole, by_rule), u64::MAX));
        let expected = told(&whole);
        assert_eq!(expected.1.len(), if by_rule { 0 } else { 24 }, "{name}");
        let points = |wanted: &str| expected.0.iter().filter(|(_, name, _)| name == wanted).count();
        // A teacher's rounds begin with steps 1, 4 and 7, and the last score is that of the finished policy.
        let (rewards, rounds) = if by_rule { (9, 9) } else { (0, 3) };
        assert_eq!((points("reward"), points("reference_kl"), points("equal_groups")), (rewards, rounds, rounds));
        assert_eq!(points("gold"), rounds + 1, "{name}: {:?}", expected.0);
        assert!(points("preference_loss") > 0, "{name}: {:?}", expected.0);
        for steps in [0, 2, 4, 5] {
            assert!(!run(&online(&model, &cut, by_rule), steps), "{name}");
        }
        assert!(run(&online(&model, &cut, by_rule), u64::MAX));
        assert_eq!(told(&cut), expected, "{name}");
        let folder = |session: &Path| ModelFolder::read(&session.join("models/online-dpo")).unwrap();
        assert_eq!(folder(&cut).weights, folder(&whole).weights, "{name}");
    }
}

#[test]
fn kill_9_changes_nothing_in_online_dpo() {
    let root = tempfile::tempdir().unwrap();
    let model = small_model(root.path());
    let model = model.to_str().unwrap();
    let start = |session: &Path| {
        let what =
            ["online-dpo", "--loss", "hinge", "--steps", "40", "--labels", "40", "--batch", "4", "--lora", "r=2"];
        let rest = ["--max-new-tokens", "8", "--set", "text.online_dpo.round_size=8", "--model", model];
        text_program(&[&what[..], &rest].concat(), session)
    };
    let [whole, killed] = ["whole", "killed"].map(|name| root.path().join(name));
    assert!(start(&whole).wait().unwrap().success());
    for at in [1, 80, 200] {
        kill_once(start(&killed), || points(&killed) >= at);
    }
    assert!(start(&killed).wait().unwrap().success());
    assert_eq!(told(&killed), told(&whole));
    ModelFolder::read(&whole.join("models/online-dpo-adapter")).unwrap();
    // A session whose planned answers were given for a reward model has nothing to ask, unless it may ask for more.
    let taught = root.path().join("taught");
    let go_on = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
        program.arg("text").args(arguments).args(["--steps", "4", "--max-new-tokens", "8"]);
        program.arg("--session").arg(&taught);
        program.output().unwrap()
    };
    assert!(go_on(&["reward", "--labels", "8", "--model", model]).status.success());
    let refused = go_on(&["online-dpo"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("ask for more labels"), "{said}");
    assert!(go_on(&["online-dpo", "--labels", "16"]).status.success());
    assert_eq!(told(&taught).1.len(), 16);
}

/// A run of PPO's trainer under a preset, on a rule. With a minibatch of half an update, two steps of its optimiser.
fn by_preset(model: &Path, session: &Path, preset: TextPreset) -> RunSettings {
    let mut run = TextRun {
        model: Some(model.to_owned()),
        from: TextStage::Ppo,
        until: TextStage::Ppo,
        reward_functions: vec!["regex:[aeiou]{2}".to_owned(), "0.5*length:..7".to_owned()],
        updates: 60,
        ..TextRun::default()
    };
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (10, 16, 8);
    let settings = RunSettings { folder: Some(session.to_owned()), ..RunSettings::of_text(run) };
    let settings = RunSettings { teacher: TeacherKind::Oracle, ..settings };
    settings.with(&Asked::assignments(preset.assignments()).unwrap()).unwrap()
}

/// Every preset and every loss: the run is closed after its second step, goes on in another process, is killed there,
/// and ends with the curves and the weights of a run that nobody disturbed.
#[test]
fn every_method_goes_on_bit_for_bit_after_kill_9() {
    let root = tempfile::tempdir().unwrap();
    let (model, pairs) = (small_model(root.path()), judged_pairs(root.path()));
    let offline = |until: TextStage, loss: PreferenceLoss, session: &Path| {
        let mut settings = offline(&model, session, until, loss, Some(pairs.clone()));
        if let Mode::Text(run) = &mut settings.mode {
            (run.preference_steps, run.ilql_steps) = (120, 120);
        }
        settings
    };
    type Make<'a> = Box<dyn Fn(&Path) -> RunSettings + 'a>;
    let mut cases: Vec<(&str, TextStage, Make)> = Vec::new();
    for preset in TextPreset::ALL {
        let model = &model;
        cases.push((preset.name(), TextStage::Ppo, Box::new(move |session| by_preset(model, session, preset))));
    }
    for loss in PreferenceLoss::ALL {
        let (stage, offline) = (TextStage::Preference, &offline);
        cases.push((loss.name(), stage, Box::new(move |session| offline(stage, loss, session))));
    }
    cases.push(("ilql", TextStage::Ilql, Box::new(|session| offline(TextStage::Ilql, PreferenceLoss::Kto, session))));
    let mut kills = 0;
    for (name, stage, settings) in &cases {
        let [whole, killed] = ["whole", "killed"].map(|kind| root.path().join(format!("{name}-{kind}")));
        assert!(run(&settings(&whole), u64::MAX), "{name}");
        let expected = told(&whole);
        // On a busy machine the whole run may be over before this process looks again.
        let mut cut = (0..20).map(|_| {
            let _ = std::fs::remove_dir_all(&killed);
            run(&settings(&killed), 2);
            points(&killed)
        });
        let before = cut.find(|&points| points > 0 && points < expected.0.len()).expect(name);
        kills += usize::from(kill_once(text_program(&[stage.name()], &killed), || points(&killed) != before));
        assert!(run(&settings(&killed), u64::MAX), "{name}");
        assert_eq!(told(&killed), expected, "{name}");
        let weights = |session: &Path| ModelFolder::read(&session.join("models").join(stage.name())).unwrap().weights;
        assert_eq!(weights(&killed), weights(&whole), "{name}");
        assert_ne!(weights(&whole), ModelFolder::read(&model).unwrap().weights, "{name} has learned nothing");
    }
    assert!(kills > cases.len() / 2, "only {kills} of {} were killed before they had finished", cases.len());
}

/// What writes completions leaves its files whole or not at all, and goes on with the same.
#[test]
fn best_of_n_and_rejection_sampling_survive_kill_9() {
    let root = tempfile::tempdir().unwrap();
    let model = small_model(root.path());
    let start = |verb: &str, more: &[&str], output: &Path| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
        program.args(["text", verb, "--n", "12", "--max-new-tokens", "10"]);
        // Letters that some completions have and others do not.
        program.args(["a", "e", "i", "k", "v"].map(|letter| format!("--reward-function=regex:{letter}")));
        program.args(["--prompt", "Review of the red kettle:", "--prompt", "Review of the blue chair:"]).args(more);
        program.arg("--model").arg(&model).arg("--output").arg(output);
        program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let [whole, killed] = ["whole.jsonl", "killed.jsonl"].map(|name| root.path().join(name));
    assert!(start("best-of", &[], &whole).wait().unwrap().success());
    for wait in [0, 100, 200, 300, 400] {
        let mut child = start("best-of", &[], &killed);
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!killed.exists() || read(killed.clone()) == read(whole.clone()));
    }
    assert!(start("best-of", &[], &killed).wait().unwrap().success());
    assert_eq!(read(killed), read(whole));

    let rounds =
        ["--rounds", "3", "--steps", "20", "--batch", "2", "--first-quantile", "0.3", "--last-quantile", "0.5"];
    let [whole, killed] = ["whole", "killed"].map(|name| root.path().join(name));
    assert!(start("rejection-sampling", &rounds, &whole).wait().unwrap().success());
    for round in [1, 2] {
        let mut child = start("rejection-sampling", &rounds, &killed);
        let began = Instant::now();
        while !killed.join(format!("round-{round}/round.json")).exists() {
            assert!(began.elapsed() < PATIENCE && child.try_wait().unwrap().is_none_or(|status| status.success()));
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(start("rejection-sampling", &rounds, &killed).wait().unwrap().success());
    for round in 1..=3 {
        for file in ["winners.jsonl", "round.json", "model/model.safetensors"] {
            let of = |folder: &Path| read(folder.join(format!("round-{round}")).join(file));
            assert_eq!(of(&killed), of(&whole), "round {round}: {file}");
        }
    }
}
