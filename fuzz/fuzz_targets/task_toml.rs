//! A task file. What follows a zero byte is the text of assignments that are laid over it.

#![no_main]

use flipside_envs::Task;
use flipside_envs::physics::Model;
use flipside_envs::tasks::{self, TaskSpec};
use flipside_fuzz::{checked, text_and_file};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

static HOPPER: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let files = tasks::load("hopper").expect("the bundled hopper");
    Arc::new(Model::from_mjcf(&files.mjcf, &files.mjcf_file).expect("the bundled hopper"))
});

fuzz_target!(|data: &[u8]| {
    let Some((text, assignments)) = text_and_file(data) else { return };
    let Some(spec) = checked(TaskSpec::parse(text, "task", "task.toml")) else { return };
    // Names of joints and bodies are checked when a task meets its robot.
    checked(Task::new(spec.clone(), HOPPER.clone()));
    if let Ok(assignments) = std::str::from_utf8(assignments)
        && let Some(changed) = checked(spec.with(assignments))
    {
        checked(Task::new(changed, HOPPER.clone()));
    }
    // A task that changes nothing is the same task.
    let same = spec.with("").expect("no assignment");
    assert_eq!((same.ppo(), same.env_steps(), same.reward.len()), (spec.ppo(), spec.env_steps(), spec.reward.len()));
});
