use super::*;
use crate::lab::text::corpus::Reader;
use crate::lab::text::corpus::pairs;
use flipside_text::teacher::Noise;
use serde_json::{Value, json};

fn generated(root: &Path) -> PathBuf {
    let output = root.join("data");
    let noise = Noise { doubt: 0.1, mistakes: 0.05 };
    let plan = TldrExamplesPlan { posts: 120, comparisons: 150, noise, seed: 3, output: output.clone() };
    let report = write_tldr_examples(&plan).unwrap();
    assert!(report.ceiling > 0.75 && (report.agreement - report.ceiling).abs() < 0.12, "{report:?}");
    output
}

fn plan(root: &Path, data: &Path, session: &str) -> TldrPlan {
    TldrPlan { session: root.join(session), data: Some(data.to_owned()), ..TldrPlan::default() }
}

fn read(path: PathBuf) -> String {
    read_text(&path).unwrap()
}

#[test]
fn generated_files_are_prepared_once_and_always_in_the_same_way() {
    let root = tempfile::tempdir().unwrap();
    let data = generated(root.path());
    let plan = plan(root.path(), &data, "recipe");
    let recipe = prepare_tldr(&plan).unwrap();
    let TldrCounts { posts, prompts, held_out_posts, reward_comparisons, judge_comparisons, .. } = recipe.counts;
    // Short and long summaries are left out of supervised training, not of PPO.
    assert!((60..120).contains(&posts) && prompts == 150 && (6..=12).contains(&held_out_posts), "{recipe:?}");
    assert_eq!((reward_comparisons, judge_comparisons), (75, 75));
    assert_eq!(
        recipe.counts.held_out_comparisons,
        [("valid1", 15), ("valid2", 15)].map(|(s, n)| (s.to_owned(), n)).into()
    );
    assert_eq!(recipe.counts.left_out.keys().collect::<Vec<_>>(), [&LeftOut::SummaryLength]);
    let places = Places(plan.session.clone());
    let ids = |name: &str| -> Vec<String> {
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["info"]["id"].as_str().unwrap().to_owned();
        read(places.data(name)).lines().map(id).collect()
    };
    let (ours, theirs) = (ids(FOR_REWARD), ids(FOR_JUDGE));
    assert!(ours.iter().all(|id| !theirs.contains(id)));

    // As if it was killed before the last file.
    let before = [POSTS, PROMPTS, HELD_OUT_POSTS, FOR_REWARD, FOR_JUDGE].map(|name| read(places.data(name)));
    std::fs::write(places.recipe(), "{\"preparing\": true}").unwrap();
    assert_eq!(read_recipe(&places).unwrap(), None);
    assert_eq!(prepare_tldr(&plan).unwrap(), recipe);
    assert_eq!([POSTS, PROMPTS, HELD_OUT_POSTS, FOR_REWARD, FOR_JUDGE].map(|name| read(places.data(name))), before);
    // Afterwards the data are not needed, and nothing may be asked for that differs.
    let again = TldrPlan { data: None, ..plan.clone() };
    assert_eq!(prepare_tldr(&again).unwrap(), recipe);
    for (other, option) in [
        (TldrPlan { judge_share: Some(0.2), ..again.clone() }, "--judge-share 0.5"),
        (TldrPlan { model: Some("m".into()), ..again.clone() }, "--model left out"),
        (TldrPlan { seed: Some(7), ..again.clone() }, "--seed 0"),
        (
            TldrPlan { reading: Reading { on_bad: BadLines::Skip, ..Reading::default() }, ..again.clone() },
            "--skip-bad-lines left out",
        ),
        (
            TldrPlan { reading: Reading { ignore_fields: true, ..Reading::default() }, ..again.clone() },
            "--ignore-fields left out",
        ),
    ] {
        let error = prepare_tldr(&other).unwrap_err().to_string();
        assert!(error.contains(option), "{error}");
    }
    let error = prepare_tldr(&TldrPlan { session: root.path().join("new"), ..again }).unwrap_err().to_string();
    assert!(error.contains("--data"), "{error}");
    // Neither a recipe nor examples are written over files of someone else.
    let work = root.path().join("work");
    make_folder(&work.join("data")).unwrap();
    std::fs::write(work.join("data/posts.jsonl"), "mine").unwrap();
    let error = prepare_tldr(&TldrPlan { session: work.clone(), ..plan }).unwrap_err().to_string();
    assert!(error.contains("holds other files"), "{error}");
    assert_eq!(read(work.join("data/posts.jsonl")), "mine");
    generated(root.path());
    let file = data.join("comparisons/batch12.json");
    std::fs::write(&file, "mine").unwrap();
    let noise = Noise { doubt: 0.1, mistakes: 0.05 };
    let other = TldrExamplesPlan { posts: 60, comparisons: 150, noise, seed: 3, output: data.clone() };
    let posts = read(data.join("tldr_3_filtered/train.jsonl"));
    let error = write_tldr_examples(&other).unwrap_err().to_string();
    assert!(error.contains("train.jsonl is there"), "{error}");
    let error = write_tldr_examples(&TldrExamplesPlan { posts: 120, ..other }).unwrap_err().to_string();
    assert!(error.contains("batch12.json is there"), "{error}");
    assert_eq!((read(file), read(data.join("tldr_3_filtered/train.jsonl"))), ("mine".to_owned(), posts));
}

#[test]
fn lines_as_they_are_published_are_read() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    make_folder(&data.join("comparisons")).unwrap();
    let summary =
        "my dog ate my homework and my teacher does not believe me and now I have to write all of it again by tomorrow";
    let post = |id: usize, subreddit: &str, title: &str| json!({"id": format!("t3_{id}"), "subreddit": subreddit, "title": title, "post": format!("Post {id}.\nMore."), "summary": summary});
    let lines = |all: &[Value]| all.iter().map(|line| format!("{line}\n")).collect::<String>();
    let duplicate =
        json!({"id": "t3_9", "subreddit": "dogs", "title": "x", "post": "Post 1.\nMore.", "summary": summary});
    std::fs::write(
        data.join("train.jsonl"),
        lines(&[post(2, "dogs", "My dog"), post(3, "chess", "My move"), post(4, "cats", "UPDATE: my cat"), duplicate]),
    )
    .unwrap();
    std::fs::write(data.join("valid.jsonl"), lines(&[post(1, "dogs", "My dog")])).unwrap();
    let summaries = json!([
        {"text": " One.", "policy": "sup4_ppo_rm3_kl10", "note": "Was it fast."},
        {"text": " Two.", "policy": "ref", "note": null},
    ]);
    let compared = |id: usize, split: &str| {
        json!({
            "info": {"id": format!("t3_{id}"), "post": "P", "title": "T", "subreddit": "legaladvice"},
            "summaries": summaries, "choice": 1, "worker": "ikNmwuc", "batch": "batch9", "split": split,
            "extra": {"confidence": 8},
        })
    };
    let article = json!({
        "info": {"id": "167f80", "site": "dailymail", "title": "Newcastle", "article": "Newcastle stand-in skipper"},
        "summaries": summaries, "choice": 0, "worker": "w", "batch": "cnndm0", "split": "valid2", "extra": {},
    });
    let file = |name: &str| data.join("comparisons").join(name);
    std::fs::write(file("batch3.json"), lines(&[compared(1, "train"), compared(2, "train")])).unwrap();
    std::fs::write(file("batch11.json"), lines(&[compared(5, "valid1"), compared(6, "valid2")])).unwrap();
    // Splits of other names are held out, too, and one of them is called as another file is.
    std::fs::write(file("batch12.json"), lines(&[compared(7, "valid-1"), compared(8, "posts")])).unwrap();
    std::fs::write(file("cnndm0.json"), lines(&[article])).unwrap();
    std::fs::write(file("README.txt"), "no data").unwrap();
    let plan = TldrPlan { judge_share: Some(0.0), ..plan(root.path(), &data, "recipe") };
    let recipe = prepare_tldr(&plan).unwrap();
    let counts = &recipe.counts;
    assert_eq!((counts.posts, counts.prompts, counts.held_out_posts), (1, 1, 1));
    assert_eq!((counts.reward_comparisons, recipe.has_judge()), (2, false));
    let split = |name: &str| counts.held_out_comparisons[name];
    assert_eq!((split("valid1"), split("valid2"), split("cnndm")), (1, 1, 1));
    assert_eq!((split("valid-1"), split("posts")), (1, 1));
    let reasons = [LeftOut::Duplicate, LeftOut::Subreddit, LeftOut::Title].map(|reason| (reason, 1));
    assert_eq!(counts.left_out, reasons.into());

    // What is prepared is read as comparisons: the chosen one is on the left.
    let places = Places(plan.session.clone());
    assert!(read(places.data(HELD_OUT_POSTS)).contains("\"summary\""));
    let tokenizer = tokenizer_for(None).unwrap();
    let reader = Reader { tokenizer: &tokenizer, context: 192, prompt: 139, reading: Reading::default() };
    for (file, chosen) in [(places.held_out("valid1"), " Two."), (places.held_out("cnndm"), " One.")] {
        let pairs = pairs(&file, &reader).unwrap();
        assert_eq!(tokenizer.decode(&pairs[0].left, true).unwrap(), chosen);
    }
    let refused = |name: &str| {
        prepare_tldr(&TldrPlan { session: root.path().join(name), ..plan.clone() }).unwrap_err().to_string()
    };
    std::fs::write(file("batch13.json"), lines(&[compared(9, "valid1"), compared(10, "../x")])).unwrap();
    let error = refused("strange");
    assert!(error.contains("batch13.json: line 2: \"split\" is \"../x\""), "{error}");
    std::fs::remove_dir_all(data.join("comparisons")).unwrap();
    let error = refused("none");
    assert!(error.contains("no comparisons"), "{error}");
    // What the disk says is not taken for an empty folder.
    std::fs::write(data.join("comparisons"), "no folder").unwrap();
    let error = refused("file");
    assert!(!error.contains("no comparisons") && error.contains("comparisons"), "{error}");
}

#[test]
fn steps_follow_from_the_data_and_what_is_asked_for_wins() {
    let counts = TldrCounts {
        posts: 116_722,
        prompts: 116_722,
        held_out_posts: 1,
        reward_comparisons: 46_000,
        judge_comparisons: 46_001,
        ..TldrCounts::default()
    };
    let recipe = Recipe {
        data: "d".into(),
        model: Some("m".into()),
        judge_share: 0.5,
        seed: 4,
        skip_bad_lines: false,
        ignore_fields: false,
        counts,
    };
    let settings = recipe.policy_settings("r".as_ref(), &Asked::default()).unwrap();
    let run = settings.text().unwrap();
    assert!(run.comparisons.as_ref().unwrap().is_absolute() && settings.folder.as_ref().unwrap().is_absolute());
    // One pass each, and a million episodes.
    assert_eq!((run.supervised_steps, run.reward_steps, run.updates), (912, 719, 1954));
    assert_eq!(settings.env_steps, 912 + 719 + 1954);
    let parts = [
        run.supervised.gradient_accumulation_steps,
        run.reward.gradient_accumulation_steps,
        run.ppo.gradient_accumulation_steps,
    ];
    assert_eq!(parts, [16, 16, 64]);
    assert!(!run.ppo.kl.adaptive && run.ppo.kl.beta == 0.05 && run.ppo.max_new_tokens == 53);
    let asked = Asked::assignments("text.ppo.batch_size=16; text.updates=3; text.reward.batch_size=8").unwrap();
    let run = recipe.policy_settings("r".as_ref(), &asked).unwrap().text().unwrap().clone();
    assert_eq!((run.updates, run.ppo.gradient_accumulation_steps, run.reward_steps), (3, 2, 5750));
    let judge = recipe.judge_settings("r".as_ref(), &asked).unwrap();
    assert_eq!((judge.seed, judge.text().unwrap().reward_steps), (5, 5751));
    assert_eq!(judge.text().unwrap().stages(), [TextStage::Reward]);
    // The built-in model makes more passes, and answers each post once.
    let counts = TldrCounts { posts: 2785, prompts: 5000, reward_comparisons: 4000, ..TldrCounts::default() };
    let built_in = Recipe { model: None, counts, ..recipe.clone() };
    let settings = built_in.policy_settings("r".as_ref(), &Asked::default()).unwrap();
    let run = settings.text().unwrap();
    assert_eq!((run.supervised_steps, run.reward_steps, run.updates), (2094, 500, 79));
    let fixed = Asked::assignments("text.prompts=x.jsonl").unwrap();
    let error = recipe.policy_settings("r".as_ref(), &fixed).unwrap_err().to_string();
    assert!(error.contains("`text.prompts`"), "{error}");
}
