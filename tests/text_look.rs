//! Looking inside language models, on the command line. What the figures must be is tested in `flipside_text::interp`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use flipside::store::npz::{self, Axis::Free};
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
    ] {
        let refused = refusal(words);
        assert!(refused.contains(says), "{words:?}: {refused}");
    }
}

#[test]
fn a_session_is_compared_with_what_it_started_from() {
    let root = tempfile::tempdir().unwrap();
    let session = within(root.path(), "session");
    let train = |words: &[&str], session: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
        let trained = program.arg("text").args(words).args(["--steps", "3", "--session", session]).output().unwrap();
        assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    };
    train(&["preference", "--batch", "8", "--labels", "20"], &session);
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
    // What an online run came to, not the supervised model that it has, too.
    let online = within(root.path(), "online");
    let asked = ["--labels", "8", "--batch", "4", "--max-new-tokens", "12", "--set", "text.online_dpo.round_size=4"];
    train(&[&["online-dpo"][..], &asked].concat(), &online);
    let diff = json(&[&["diff"][..], &PROMPT, &["--session", &online]].concat());
    assert!(diff["tuned"].as_str().unwrap().ends_with("online-dpo"), "{diff}");
    assert!(diff["kl"].as_f64().unwrap() > 0.0);
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
