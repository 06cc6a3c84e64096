//! Measures how fast PPO learns each task: several seeds of the run that the task's file plans, each timed until its
//! policy's return first reaches the task's target. There is no session and no disk. Evaluations do not count as time.

use super::bench::processor;
use super::driver::{Driver, Step};
use super::opening::load_task;
use super::trainer::Trainer;
use super::{LabError, evaluate};
use crate::settings::{ControlRun, RewardSource, RunSettings};
use flipside_core::{ItemId, cores};
use flipside_envs::gym::Task;
use flipside_envs::tasks::Folders;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Debug)]
pub struct LearningPlan {
    /// The task's name; `None` for every task whose file has a `[benchmark]`.
    pub task: Option<String>,
    /// The folders of a person's own tasks, which are searched before the bundled ones.
    pub task_folders: Folders,
    /// The physics backend's name.
    pub backend: String,
    /// Runs of each task, with the seeds 0, 1, 2, …
    pub seeds: u64,
    /// Env steps of a run; `None` uses the number in the task's file.
    pub env_steps: Option<u64>,
    /// Settings that replace those of the tasks' files.
    pub overrides: toml::Table,
    /// Episodes of the evaluation at the end of a run.
    pub episodes: usize,
}

/// One seed's run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LearningRun {
    /// Its seed.
    pub seed: u64,
    /// Seconds of training until an evaluation of the deterministic policy first reached the target; `None` if none
    /// did.
    pub seconds_to_target: Option<f64>,
    /// Total seconds of training.
    pub seconds: f64,
    /// Env steps of training.
    pub env_steps: u64,
    /// The deterministic policy's mean return at the end.
    pub mean_return: f64,
}

/// One task's runs.
#[derive(Clone, Debug, Serialize)]
pub struct Learning {
    /// The task's name.
    pub task: String,
    /// The return to reach.
    pub target_return: f64,
    /// The time within which the mean over the seeds should have reached it, seconds.
    pub within_s: f64,
    /// Each seed's run.
    pub runs: Vec<LearningRun>,
    /// Mean and standard deviation over the seeds (population) of the return at the end.
    pub mean_return: f64,
    /// See `mean_return`.
    pub std_return: f64,
    /// The processor's name.
    pub mean_seconds_to_target: Option<f64>,
    /// Number of cores in use.
    pub device: String,
    /// Cores in use.
    pub threads: usize,
}

/// Evaluations during a run, and the episodes of each.
const LOOKS: u64 = 60;
const LOOK_EPISODES: usize = 20;

/// Runs the seeds of one task or of all tasks, and calls `done` after each run.
///
/// # Errors
///
/// An unknown task or backend, a task without a `[benchmark]`, training that fails.
pub fn learning(plan: &LearningPlan, done: &mut dyn FnMut(&str, &LearningRun)) -> Result<Vec<Learning>, LabError> {
    let names: Vec<String> = match &plan.task {
        Some(name) => vec![name.clone()],
        None => plan.task_folders.list().into_iter().map(|entry| entry.name).collect(),
    };
    let mut all = vec![];
    for name in names {
        let run = ControlRun { overrides: plan.overrides.clone(), ..ControlRun::of(&name) };
        let task = Arc::new(load_task(&plan.task_folders, &run)?);
        let Some(benchmark) = task.spec().benchmark.clone() else {
            if plan.task.is_some() {
                return Err(LabError::NoBenchmark(name));
            }
            continue;
        };
        let settings = RunSettings {
            env_steps: plan.env_steps.unwrap_or(benchmark.env_steps),
            ..RunSettings::of_control(ControlRun { reward: RewardSource::True, backend: plan.backend.clone(), ..run })
        };
        let mut runs = vec![];
        for seed in 0..plan.seeds {
            let run = one(&RunSettings { seed, ..settings.clone() }, &task, benchmark.target_return, plan.episodes)?;
            done(task.name(), &run);
            runs.push(run);
        }
        let (mean_return, std_return) = mean_and_deviation(runs.iter().map(|run| run.mean_return));
        let reached: Vec<f64> = runs.iter().filter_map(|run| run.seconds_to_target).collect();
        all.push(Learning {
            task: task.name().to_owned(),
            target_return: benchmark.target_return,
            within_s: benchmark.within_s,
            mean_return,
            std_return,
            mean_seconds_to_target: (!reached.is_empty()).then(|| mean_and_deviation(reached.into_iter()).0),
            runs,
            device: processor(),
            threads: cores(),
        });
    }
    Ok(all)
}

fn one(settings: &RunSettings, task: &Arc<Task>, target: f64, episodes: usize) -> Result<LearningRun, LabError> {
    let mut trained = Duration::ZERO;
    let mut clock = Instant::now();
    let trainer = Trainer::new(settings, task.clone(), ItemId(1), None, None)?;
    let mut driver = Driver::new(Box::new(trainer), settings);
    let (mut next_look, mut seconds_to_target) = (0, None);
    // Nobody is asked, so the time does not matter.
    while let Step::Trained = driver.step(&|| Duration::ZERO, &mut || false)? {
        let trainer = &driver.training.learner;
        if seconds_to_target.is_none() && trainer.env_steps() >= next_look {
            trained += clock.elapsed();
            let look = evaluate(task, &trainer.policy(), settings.backend(), LOOK_EPISODES, 1_000)?;
            if look.mean_return >= target {
                seconds_to_target = Some(trained.as_secs_f64());
            }
            next_look += settings.env_steps / LOOKS;
            clock = Instant::now();
        }
    }
    trained += clock.elapsed();
    let trainer = &driver.training.learner;
    let end = evaluate(task, &trainer.policy(), settings.backend(), episodes, 2_000)?;
    Ok(LearningRun {
        seed: settings.seed,
        seconds_to_target,
        seconds: trained.as_secs_f64(),
        env_steps: trainer.env_steps(),
        mean_return: end.mean_return,
    })
}

fn mean_and_deviation(numbers: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = numbers.clone().count().max(1) as f64;
    let mean = numbers.clone().sum::<f64>() / count;
    (mean, (numbers.map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt())
}
