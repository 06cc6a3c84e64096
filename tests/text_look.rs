//! Looking inside language models, on the command line. What the figures must be is tested in `flipside_text::interp`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use flipside::store::npz::{self, Axis::Free};
use flipside::store::read_arrays;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROMPT: [&str; 2] = ["--prompt", "Review of the red kettle: It is"];

fn look(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flipside")).args(["text", "look"]).args(words).output().unwrap()
}

/// The last line of stdout as JSON.
fn json(words: &[&str]) -> Value {
    let output = look(&[words, &["--json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

fn refusal(words: &[&str]) -> String {
    let output = look(words);
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Runs a verb that must succeed.
fn flipside(words: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_flipside")).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn within(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn the_built_in_model_is_looked_into() {
    let root = tempfile::tempdir().unwrap();
    let (file, picture) = (within(root.path(), "out.npz"), within(root.path(), "out.png"));
    let written = ["--output", &file, "--picture", &picture];
    let lens = json(&[&["lens"][..], &PROMPT[..], &written].concat());
    let tokens = lens["tokens"].as_array().unwrap().len();
    let read = npz::read(Path::new(&file), &[("lens.kl", &[Free("S"), Free("T")])]).unwrap();
    assert_eq!(read[0].shape, [lens["lens.kl"].as_array().unwrap().len(), tokens]);
    let last = lens["lens.kl"].as_array().unwrap().last().unwrap().as_array().unwrap().clone();
    assert!(last.iter().all(|kl| kl.as_f64() == Some(0.0)), "{last:?}");
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));

    let parts = json(&[&["attribution"][..], &PROMPT[..]].concat());
    let (sum, whole) = (parts["sum_base"].as_f64().unwrap(), parts["logit_difference"].as_f64().unwrap());
    assert!((sum - whole).abs() < 1e-4, "{sum} {whole}");
    let safetensors = within(root.path(), "cache.safetensors");
    let cache = json(&[&["cache", "--sites", "blocks.*.attn.hook_z", "--output", &safetensors][..], &PROMPT].concat());
    assert!(cache["shapes"]["blocks.0.attn.hook_z"].is_array() && Path::new(&safetensors).is_file());
    for words in [&["attention"][..], &["ablate"]] {
        json(&[words, &PROMPT[..], &["--picture", &picture]].concat());
    }
    let other = ["--other", "Review of the blue kettle: It is", "--grids", "resid_pre,z"];
    let patch = json(&[&["patch"][..], &PROMPT[..], &other, &["--picture", &picture]].concat());
    assert_eq!(patch["patch.resid_pre"][0].as_array().unwrap().len(), tokens);
    let probe = json(&["probe", "--count", "60"]);
    assert!(probe["probe.accuracy"][0].is_number());

    for (words, says) in [
        (&["lens"][..], "--prompt"),
        (&["lens", "--output", "out.txt", "--prompt", "a"], ".npz or .safetensors"),
        (&["lens", "--tokens", "good", "--prompt", "a"], "two tokens"),
        (&["lens", "--tokens", "a,a", "--prompt", "a"], "two different"),
        (&["lens", "--position", "99", "--prompt", "a"], "no position 99"),
        (&["lens", "--other", "b", "--prompt", "a"], "does not use --other"),
        (&["cache", "--sites", "blocks.99.hook_resid_pre", "--prompt", "a"], "blocks go from 0 to"),
        (&["patch", "--grids", "resid", "--other", "b", "--prompt", "a"], "expected some of resid_pre"),
        (&["patch", "--prompt", "a"], "--other"),
        (&["swap", "--prompt", "a"], "--adapter or --against"),
        (&["reward", "--prompt", "a"], "gives no reward"),
        (&["attention", "--block", "99", "--picture", "a.png", "--prompt", "a"], "no block 99"),
        (&["steer", "--position", "0", "--block", "3", "--prompt", "a", "--other", "b"], "Nothing reads"),
        (&["steer", "--position", "1", "--prompt", "a", "--other", "b"], "no position 1"),
    ] {
        let refused = refusal(words);
        assert!(refused.contains(says), "{words:?}: {refused}");
    }
}

#[test]
fn a_session_is_compared_with_what_it_started_from() {
    let root = tempfile::tempdir().unwrap();
    let session = within(root.path(), "session");
    let train = ["text", "preference", "--steps", "3", "--batch", "8", "--labels", "20", "--session", &session];
    flipside(&train);
    let of_session = ["--session", &session];
    let swap = json(&[&["swap"][..], &PROMPT[..], &of_session].concat());
    assert_eq!(swap["all"], swap["tuned"]);
    assert_ne!(swap["base"], swap["tuned"]);
    let diff = json(&[&["diff"][..], &PROMPT, &of_session].concat());
    assert!(diff["kl"].as_f64().unwrap() > 0.0 && !diff["risen"].as_array().unwrap().is_empty());
    // The default tokens are those that moved most.
    assert_eq!(swap["better"]["token"], diff["risen"][0]["token"]);
    let steer = ["--strengths", "0,1", "--max-new-tokens", "8", "--each", "2"];
    let steered = json(&[&["steer"][..], &PROMPT[..], &of_session, &steer].concat());
    assert!(steered["strengths"][0]["kl"].as_f64().unwrap().abs() < 1e-3, "by 0 nothing changes");
    assert_ne!(steered["strengths"][0]["kl"], steered["strengths"][1]["kl"]);
    let at_one = ["steer", "--strengths", "0,30", "--max-new-tokens", "8", "--position", "1", "--block", "0"];
    let steered = json(&[&at_one[..], &PROMPT, &of_session].concat());
    assert_eq!(steered["position"], 1);
    assert_ne!(steered["strengths"][0]["completions"], steered["strengths"][1]["completions"]);
    // What an online run came to, not the supervised model that it has, too.
    let online = within(root.path(), "online");
    let train = ["text", "online-dpo", "--steps", "3", "--labels", "8", "--batch", "4", "--max-new-tokens", "12"];
    flipside(&[&train[..], &["--set", "text.online_dpo.round_size=4", "--session", &online]].concat());
    let diff = json(&[&["diff"][..], &PROMPT, &["--session", &online]].concat());
    assert!(diff["tuned"].as_str().unwrap().ends_with("online-dpo"), "{diff}");
    assert!(diff["kl"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_tuned_lens_is_trained_written_and_read() {
    let root = tempfile::tempdir().unwrap();
    let (file, picture) = (within(root.path(), "lens.safetensors"), within(root.path(), "lens.png"));
    let train = ["tuned-lens", "--count", "200", "--steps", "30", "--length", "64", "--tokens-per-step", "512"];
    let trained = json(&[&train[..], &["--output", &file, "--picture", &picture]].concat());
    let kl = |name: &str| trained[name].as_array().unwrap().iter().map(|kl| kl.as_f64().unwrap()).collect::<Vec<_>>();
    let (logit, tuned) = (kl("logit_lens_kl"), kl("tuned_lens_kl"));
    assert!(logit.len() == 4 && logit.iter().zip(&tuned).all(|(logit, tuned)| tuned < logit), "{trained}");
    assert_eq!((&trained["lens_type"], &trained["num_hidden_layers"]), (&"linear_tuned_lens".into(), &4.into()));
    let (metadata, arrays) = read_arrays(Path::new(&file)).unwrap();
    assert_eq!(metadata["d_model"], "128");
    // The names of tuned-lens' own files.
    let names: Vec<&str> = arrays.keys().map(String::as_str).collect();
    let expected = (0..4).flat_map(|i| [format!("{i}.bias"), format!("{i}.weight")]);
    assert_eq!(names, expected.collect::<Vec<_>>());

    let plain = json(&[&["lens"][..], &PROMPT].concat());
    let through = json(&[&["lens", "--tuned-lens", &file][..], &PROMPT].concat());
    assert_ne!(plain["lens.kl"][0], through["lens.kl"][0]);
    assert_eq!(plain["lens.kl"][4], through["lens.kl"][4]);

    for (words, says) in [
        (&["tuned-lens"][..], ".safetensors"),
        (&["tuned-lens", "--output", "lens.npz"], ".safetensors"),
        (&["tuned-lens", "--output", "lens.safetensors", "--count", "3"], "too few"),
        (&["tuned-lens", "--output", "lens.safetensors", "--length", "9999"], "rows of 1 to"),
        (&["lens", "--tuned-lens", &picture, "--prompt", "a"], "cannot be read"),
        (&["lens", "--tuned-lens", &file, "--mid", "--prompt", "a"], "no translator for blocks.0.hook_resid_mid"),
    ] {
        let refused = refusal(words);
        assert!(refused.contains(says), "{words:?}: {refused}");
    }
}

/// A text has one reward, whoever is asked.
#[test]
fn a_reward_is_explained_as_it_is_scored() {
    let root = tempfile::tempdir().unwrap();
    let [session, model, data, scores] =
        ["session", "model", "pairs.jsonl", "scores.npz"].map(|name| within(root.path(), name));
    let train = ["text", "reward", "--labels", "24", "--steps", "4", "--batch", "8", "--session", &session];
    flipside(&[&train[..], &["--output", &model]].concat());
    let (prompt, sides) = ("Review of the red kettle:", [" It is a joy. It pours well.", " It is a bore."]);
    let pair = serde_json::json!({ "prompt": prompt, "chosen": sides[0], "rejected": sides[1] });
    std::fs::write(&data, pair.to_string()).unwrap();
    flipside(&["text", "eval", "--model", &model, "--data", &data, "--logprobs", &scores]);
    let scored =
        npz::read(Path::new(&scores), &[("chosen", &[Free("pairs")]), ("rejected", &[Free("pairs")])]).unwrap();
    let texts = sides.map(|side| format!("{prompt}{side}"));
    let both = ["reward", "--prompt", &texts[0], "--other", &texts[1]];
    let looked = json(&[&both[..], &["--model", &model]].concat());
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-4, "{a} {b}");
    for (name, scored) in ["prompt.reward", "other.reward"].into_iter().zip(&scored) {
        near(looked[name].as_f64().unwrap(), scored.values[0]);
    }
    near(looked["margin"].as_f64().unwrap(), scored[0].values[0] - scored[1].values[0]);
    // The session's own reward model says the same.
    let of_session = json(&[&both[..], &["--session", &session]].concat());
    assert_eq!(of_session["prompt.reward"], looked["prompt.reward"]);
    // Alone, its parts add up to it.
    let alone = json(&["reward", "--prompt", &texts[0], "--model", &model]);
    near(alone["sum_prompt"].as_f64().unwrap(), scored[0].values[0]);
}

#[test]
fn the_value_of_a_critic_is_explained_at_every_position() {
    let root = tempfile::tempdir().unwrap();
    let session = within(root.path(), "session");
    let train = ["text", "ppo", "--reward-function", "length:..12", "--steps", "2", "--batch", "16"];
    let short = ["--max-new-tokens", "12", "--session"];
    flipside(&[&train[..], &short, &[&session]].concat());
    let of_session = ["value", "--session", &session];
    let value = json(&[&of_session[..], &PROMPT].concat());
    let values = value["prompt.attribution.total"].as_array().unwrap().clone();
    assert_eq!(values.len(), value["prompt_tokens"].as_array().unwrap().len());
    assert!(values.iter().any(|value| value.as_f64().unwrap() != 0.0), "two updates have taught it something");
    let (sum, last) = (value["sum_prompt"].as_f64().unwrap(), value["prompt.value"].as_f64().unwrap());
    assert!((sum - last).abs() < 1e-4 && Some(last) == values.last().unwrap().as_f64());
    let first = json(&[&of_session[..], &PROMPT, &["--position", "0"]].concat());
    assert_eq!(first["prompt.value"], values[0]);

    // By hand: a linear layer on the last norm's output.
    let models = Path::new(&session).join("models");
    let (policy, cache) = (within(&models, "ppo"), within(root.path(), "cache.safetensors"));
    let site = ["cache", "--model", &policy, "--sites", "ln_final.hook_normalized", "--output", &cache];
    json(&[&site[..], &PROMPT].concat());
    let array = |file: &Path, name: &str| read_arrays(file).unwrap().1[name].as_f32().unwrap().to_vec();
    let critic = models.join("ppo-critic.safetensors");
    let [weight, bias] = ["v_head.summary.weight", "v_head.summary.bias"].map(|name| array(&critic, name));
    let weights = models.join("ppo/model.safetensors");
    let [gain, shift] = ["transformer.ln_f.weight", "transformer.ln_f.bias"].map(|name| array(&weights, name));
    let normed = array(Path::new(&cache), "ln_final.hook_normalized");
    for (x, value) in normed.chunks(weight.len()).zip(&values) {
        let hidden = x.iter().zip(&gain).zip(&shift).map(|((x, gain), shift)| x * gain + shift);
        let by_hand = f64::from(hidden.zip(&weight).map(|(x, w)| x * w).sum::<f32>() + bias[0]);
        assert!((by_hand - value.as_f64().unwrap()).abs() < 1e-4, "{by_hand} {value}");
    }

    assert!(refusal(&["value", "--prompt", "a"]).contains("--session"));
    let group = within(root.path(), "group");
    flipside(&[&train[..], &["--preset", "rloo"], &short, &[&group]].concat());
    assert!(refusal(&["value", "--session", &group, "--prompt", "a"]).contains("has no critic"));
}

/// As in `flipside … | head`.
#[test]
fn a_reader_that_leaves_ends_the_program_without_a_word() {
    let lens = [&["text", "look", "lens"][..], &PROMPT].concat();
    for words in [&lens[..], &["tasks"], &["settings"], &["markdown-help"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_flipside"))
            .args(words)
            .stdout(writer)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{words:?}"
        );
    }
}
