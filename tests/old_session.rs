//! A session and a task file of version 0.1.0, with that version's names of settings, are read, evaluated and
//! continued.
//!
//! `tests/data/session-0.1.0` was made by version 0.1.0 with `flipside train balance --teacher hasty --labels 8 --steps
//! 8000 --seed 5 --session balance`, where `FLIPSIDE_ENVS` named the folder `envs` in it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The last line that the program prints, as JSON; null if it is not JSON.
fn flipside(tasks: &Path, words: &[&str]) -> Value {
    let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
    let done = program.args(words).env("FLIPSIDE_ENVS", tasks).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    let out = String::from_utf8(done.stdout).unwrap();
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_default()
}

#[test]
fn a_session_of_version_0_1_0_goes_on() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/session-0.1.0");
    let tasks = data.join("envs");
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("balance");
    std::fs::create_dir_all(session.join("checkpoints")).unwrap();
    for file in ["session.db", "checkpoints/checkpoint-00000002.safetensors", "checkpoints/initial.safetensors"] {
        std::fs::copy(data.join("balance").join(file), session.join(file)).unwrap();
    }
    let session = session.to_str().unwrap();

    // The returns that version 0.1.0 printed for this policy.
    let measured = flipside(&tasks, &["eval", session, "--episodes", "3", "--json"]);
    assert_eq!(measured["returns"], serde_json::json!([8.0, 9.0, 13.0]));
    assert_eq!(measured["env_steps"], 8192);

    let labels = folder.path().join("labels.jsonl");
    flipside(&tasks, &["export", "labels", session, "--output", labels.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(labels).unwrap().lines().count(), 8);

    let continued = flipside(&tasks, &["train", "balance", "--steps", "10000", "--session", session, "--json"]);
    assert_eq!(continued["labels"], 8);
    assert!(continued["env_steps"].as_u64().unwrap() >= 10_000, "{continued}");
}
