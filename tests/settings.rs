//! Settings through the program's command line: they are given by name, kept by the session, and listed in the
//! reference.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

fn flipside(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flipside")).args(arguments).output().unwrap()
}

/// The last line of stdout as JSON.
fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

/// The error message of a run that fails.
fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[test]
fn what_is_set_reaches_the_trainer_and_stays_with_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let (session, file) = (folder.path().join("s"), folder.path().join("run.toml"));
    std::fs::write(&file, "task = \"inverted_pendulum\"\nreward = \"true\"\n[ppo]\nworlds = 4\nhorizon = 32\n")
        .unwrap();
    let (session, file) = (session.to_str().unwrap(), file.to_str().unwrap());
    let first =
        ["train", "--config", file, "--set", "ppo.horizon = 16", "--steps", "640", "--session", session, "--json"];
    // Rollouts of 4 worlds and 16 steps end exactly at 640 env steps. The rollouts of the task's file have 2,048.
    assert_eq!(json(&flipside(&first))["env_steps"], 640);
    // Without settings, and with the same settings again, the plan is already done.
    let go_on = ["train", "--session", session, "--json"];
    assert_eq!(json(&flipside(&go_on))["env_steps"], 640);
    assert_eq!(json(&flipside(&first))["env_steps"], 640);
    // A longer plan continues with the same rollouts of 64.
    assert_eq!(json(&flipside(&[&go_on[..], &["--steps", "704"]].concat()))["env_steps"], 704);

    let other = refusal(&flipside(&[&go_on[..], &["--seed", "3", "--set", "ppo.horizon = 32"]].concat()));
    assert!(other.contains("`ppo.num_steps` is 16 there, and 32 is asked for; `seed` is 0 there, and 3"), "{other}");
    let both = refusal(&flipside(&["train", "hopper", "--labels", "10", "--set", "num_labels = 20"]));
    assert_eq!(both, "flipside: --labels sets `num_labels` to 10, and --set to 20; leave one of them out");
    let range = refusal(&flipside(&["train", "hopper", "--set", "ppo.gamma = 2"]));
    assert!(range.contains("ppo.gamma must be a number from 0 to 1, not 2"), "{range}");
    assert!(refusal(&flipside(&["train"])).contains("name a task"));
    assert!(refusal(&flipside(&["bench", "learning", "--set", "seed = 3"])).contains("`seed`"));
}

#[test]
fn the_reference_is_what_the_program_says() {
    for (page, arguments) in [("settings.md", &["settings", "--markdown"][..]), ("command-line.md", &["markdown-help"])]
    {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(page);
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        let said = flipside(arguments);
        assert!(
            written.as_bytes() == said.stdout,
            "{} is out of date: write it anew with `flipside {} > {0}`",
            file.display(),
            arguments.join(" ")
        );
    }
}

#[test]
fn settings_are_listed_with_their_defaults() {
    let listed = json(&flipside(&["settings", "text.ppo.kl", "--json"]));
    let target = listed["settings"].as_array().unwrap().iter().find(|s| s["name"] == "text.ppo.kl.target").unwrap();
    assert_eq!((&target["default"], &target["kind"]), (&6.0.into(), &"number".into()));
    assert!(target["meaning"].as_str().unwrap().contains("nats"));
    let unknown = refusal(&flipside(&["settings", "text.ppo.kl.taget"]));
    assert!(unknown.contains("did you mean `text.ppo.kl.target`"), "{unknown}");
}
