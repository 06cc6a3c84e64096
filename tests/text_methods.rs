//! The methods beside PPO, reward functions and best of n, on the command line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn flipside(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flipside")).args(words).output().unwrap()
}

/// The last line of stdout as JSON.
fn json(words: &[&str]) -> Value {
    let output = flipside(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

fn refusal(words: &[&str]) -> String {
    let output = flipside(words);
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn within<'a>(folder: &'a Path, name: &str) -> &'a str {
    let path = folder.join(name).to_str().unwrap().to_owned();
    // A handful of short paths in a test.
    Box::leak(path.into_boxed_str())
}

#[test]
fn a_preset_runs_on_reward_functions_and_a_setting_wins_over_it() {
    let root = tempfile::tempdir().unwrap();
    let session = within(root.path(), "session");
    let common = ["text", "ppo", "--preset", "dapo", "--reward-function", "length:..12", "--reward-function"];
    let rest = ["-0.2*regex:(?i)terrible", "--max-new-tokens", "16", "--batch", "16", "--set"];
    let settings = ["text.ppo.group_size=4; text.ppo.drop_equal_rounds=2", "--session", session, "--json"];
    let words = |steps| [&common[..], &rest, &settings, &["--steps", steps]].concat();
    let done = json(&words("2"));
    assert_eq!((&done["steps"], &done["labels"]), (&2.into(), &0.into()));
    for name in ["reward", "reference_kl", "grad_norm", "equal_groups"] {
        assert!(done["figures"][name].is_number(), "{name}: {done}");
    }
    // The finished session says the same again, and refuses other settings by name.
    assert_eq!(json(&words("2"))["figures"], done["figures"]);
    let other = refusal(&["text", "ppo", "--preset", "rloo", "--session", session]);
    assert!(other.contains("text.ppo.advantage"), "{other}");
    let refused = refusal(&["text", "sft", "--preset", "rloo"]);
    assert!(refused.contains("for `flipside text ppo`"), "{refused}");
    let refused = refusal(&["text", "ppo", "--reward-function", "regexp:a"]);
    assert!(refused.contains("is no reward function"), "{refused}");
    let refused = refusal(&["text", "ppo", "--set", "text.ppo.kl.estimator=k3"]);
    assert!(refused.contains("only k1"), "{refused}");
}

#[test]
fn the_best_of_n_is_written_with_its_bound() {
    let root = tempfile::tempdir().unwrap();
    let (data, winners) = (within(root.path(), "sums.jsonl"), within(root.path(), "winners.jsonl"));
    std::fs::write(data, "{\"prompt\": \"Review of the red kettle:\", \"completion\": \" It has 5 stars.\"}\n")
        .unwrap();
    let common = ["text", "best-of", "--n", "8", "--data", data, "--output", winners, "--max-new-tokens", "12"];
    let more = ["--reward-function", "length:..9", "--reward-function", "0.5*number", "--json"];
    let done = json(&[&common[..], &more].concat());
    let bound = 8_f64.ln() - 0.875;
    assert!((done["kl_bound"].as_f64().unwrap() - bound).abs() < 1e-9 && done["prompts"] == 1, "{done}");
    let line: Value = serde_json::from_str(std::fs::read_to_string(winners).unwrap().trim()).unwrap();
    assert_eq!(line["prompt"], "Review of the red kettle:");
    assert_eq!(line["score"], done["best_score"]);
    let refused = refusal(&common);
    assert!(refused.contains("--reward DIR"), "{refused}");
}

/// The whole benchmark on a few answers, killed after its first result: the second call makes what is missing, and the
/// third makes nothing.
#[test]
fn methods_are_compared_by_a_command_that_can_be_killed() {
    let root = tempfile::tempdir().unwrap();
    let output = within(root.path(), "algorithms");
    let words = ["bench", "text-algorithms", "--methods", "simpo,best-of-16,ilql", "--seeds", "1", "--answers", "16"];
    let set = "text.preference_steps=3; text.ilql_steps=3";
    let words = [&words[..], &["--prompts", "16", "--set", set, "--output", output, "--json"]].concat();
    let results = root.path().join("algorithms/runs.jsonl");
    let lines = || std::fs::read_to_string(&results).unwrap_or_default();
    let mut child = Command::new(env!("CARGO_BIN_EXE_flipside")).args(&words).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while lines().is_empty() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(600));
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = lines();
    let done = json(&words);
    let after = lines();
    assert!(after.starts_with(&before) && after.lines().count() == 3, "{before}{after}");
    assert_eq!(json(&words)["text_algorithms"], done["text_algorithms"]);
    assert_eq!(lines(), after);
    let rows = done["text_algorithms"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["algorithm"].as_str().unwrap()).collect();
    assert_eq!(names, ["simpo", "best-of-16", "ilql"]);
    for row in rows {
        let number = |name: &str| row[name]["mean"].as_f64().unwrap();
        assert!((-3.0..=2.0).contains(&number("gold")) && (0.0..=1.0).contains(&number("win_rate")), "{row}");
        assert!(number("kl") > 0.0 && number("seconds") > 0.0 && row["supervised_gold"] == rows[0]["supervised_gold"]);
        assert!(row["peak_mib"].as_f64().is_none_or(|mib| mib > 20.0), "{row}");
    }
    // Of best of 16, every step raises the bound; the last is the row's own.
    let curve = rows[1]["best_of"].as_array().unwrap();
    assert_eq!(curve.iter().map(|point| point["n"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 4, 8, 16]);
    assert_eq!((&curve[4]["kl_bound"], &curve[4]["gold"]), (&rows[1]["kl"]["mean"], &rows[1]["gold"]["mean"]));
    let picture = std::fs::read(done["picture"].as_str().unwrap()).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
    let refused = refusal(&["bench", "text-algorithms", "--set", "text.reward_steps=1", "--output", output]);
    assert!(refused.contains("would change what is compared"), "{refused}");
}

#[test]
fn online_dpo_learns_from_what_reward_functions_say_of_its_own_completions() {
    let root = tempfile::tempdir().unwrap();
    let (session, output) = (within(root.path(), "session"), within(root.path(), "policy"));
    let common =
        ["text", "online-dpo", "--loss", "ipo", "--reward-function", "regex:good|fine|great", "--max-new-tokens", "16"];
    let rest = ["--batch", "8", "--set", "text.online_dpo.group_size=3", "--session", session, "--json"];
    let done = json(&[&common[..], &rest, &["--steps", "2", "--output", output]].concat());
    assert_eq!((&done["stage"], &done["steps"], &done["labels"]), (&"online-dpo".into(), &2.into(), &0.into()));
    for name in ["reward", "reference_kl", "equal_groups", "preference_loss", "preference_margin", "chosen_log_prob"] {
        assert!(done["figures"][name].is_number(), "{name}: {done}");
    }
    let written = json(&["text", "generate", "--model", output, "--prompt", "Review of the red kettle:", "--json"]);
    assert!(written["completions"][0]["text"].is_string(), "{written}");
    let found = json(&["text", "eval", "--session", session, "--prompts", "8", "--json"]);
    assert_eq!((&found["stage"], &found["prompts"]), (&"online-dpo".into(), &8.into()));
    assert!(found["start"].as_str().unwrap().ends_with("models/supervised"), "{found}");
    assert!(found["gold"].is_number() && found["start_gold"].is_number() && found["reward_accuracy"].is_null());
    for (words, sentence) in [
        (&["--loss", "kto"][..], "text.preference.loss = kto"),
        (&["--preset", "grpo"], "does not use --preset"),
        (&["--set", "text.online_dpo.group_size=1"], "text.online_dpo.group_size must be at least 2"),
        (&["--set", "text.comparisons=pairs.jsonl"], "text.comparisons are judged already"),
        (&["--labels", "0"], "Nobody judges the completions"),
    ] {
        let refused = within(root.path(), "refused");
        let refused = refusal(&[&["text", "online-dpo", "--steps", "2", "--session", refused], words].concat());
        assert!(refused.contains(sentence), "{words:?}: {refused}");
    }
}

/// Whatever is typed counts, or is refused with a sentence.
#[test]
fn options_without_a_use_are_refused() {
    for (words, sentence) in [
        (&["sft", "--labels", "5"][..], "`text sft` does not use --labels: nobody judges"),
        (&["sft", "--max-new-tokens", "5"], "does not use --max-new-tokens: nothing is written"),
        (&["sft", "--reward", "r"], "does not use --reward"),
        (&["base", "--lora", "r=2"], "does not use --lora"),
        (&["reward", "--reward-function", "number"], "does not use --reward-function"),
        (&["preference", "--data", "pairs.jsonl", "--labels", "5"], "--labels: the data is judged already"),
        (&["preference", "--set", "text.comparisons=p.jsonl", "--mistake-rate", "0"], "does not use --mistake-rate"),
        (&["ilql", "--preset", "rloo"], "does not use --preset"),
        (&["ilql", "--reward", "r"], "does not use --reward"),
        (&["online-dpo", "--reward-function", "number", "--labels", "5"], "--labels: the reward is given"),
        (&["ppo", "--reward", "r", "--mistake-rate", "0"], "--mistake-rate: the reward is given"),
        (&["ppo", "--skip-bad-lines"], "--data"),
        (&["best-of", "--reward", "r", "--output", "o", "--ignore-fields"], "--data"),
        (&["rejection-sampling", "--reward", "r", "--output", "o", "--set", "text.ppo.kl.beta=1"], "text.ppo.kl.beta"),
        (&["eval", "--session", "s", "--data", "d.jsonl"], "cannot be used with"),
        (&["eval", "--session", "s", "--precision", "bf16"], "cannot be used with"),
        (&["eval", "--model", "m", "--data", "d.jsonl", "--prompts", "5"], "--session"),
        (&["examples", "reviews", "--doubt", "1", "--output", "o"], "--doubt is for pairs"),
        (&["merge", "--model", "m", "--adapter", "a", "--shard", "5", "--output", "o"], "--shard is for"),
        (&["tokenizer", "--data", "d.jsonl", "--seed", "1", "--output", "o"], "cannot be used with"),
        (&["tldr", "run", "--session", "s", "--skip-bad-lines"], "--data"),
        (&["look", "cache", "--prompt", "a", "--position", "1"], "does not use --position"),
        (&["look", "probe", "--data", "d.jsonl", "--count", "5"], "cannot be used with"),
    ] {
        let refused = refusal(&[&["text"], words].concat());
        assert!(refused.contains(sentence), "{words:?}: {refused}");
    }
}
