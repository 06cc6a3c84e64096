//! What a finished policy does: its true return over many episodes, and its frames for a film. It needs no tensors: the
//! network's plain arrays are enough.

use super::{LabError, task_of};
use crate::settings::RunSettings;
use crate::store::Session;
use flipside_core::{Arrays, Frames, Pose};
use flipside_envs::gym::{FlipCounter, Task, VectorEnv};
use flipside_envs::tasks::Folders;
use flipside_learn::Policy;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// A session's policy, read without opening the session for writing.
pub struct SavedPolicy {
    /// The settings of the run that it comes from.
    pub settings: RunSettings,
    /// The task as the run uses it.
    pub task: Arc<Task>,
    /// The policy at the last checkpoint.
    pub policy: Policy,
    /// The policy before any training.
    pub untrained: Option<Policy>,
    /// Env steps that `policy` was trained for.
    pub env_steps: u64,
}

impl SavedPolicy {
    /// Reads the newest intact checkpoint of the session in `folder`. Its task is searched for in `task_folders` and
    /// then among the bundled ones.
    ///
    /// # Errors
    ///
    /// A folder without a session or without a checkpoint, a damaged file, an unknown task.
    pub fn load(folder: &Path, task_folders: &Folders) -> Result<SavedPolicy, LabError> {
        let mut session = Session::open_to_read(folder)?;
        let settings = RunSettings { task_folders: task_folders.clone(), ..session.settings().clone() };
        if settings.text().is_some() {
            let folder = folder.display();
            return Err(LabError::Text(format!(
                "{folder} teaches a language model; `flipside text eval --session {folder}` measures it, and its models lie in {folder}/models."
            )));
        }
        let loaded = session.load_checkpoint()?.ok_or_else(|| LabError::Untrained(folder.display().to_string()))?;
        let policy =
            |arrays: &Arrays| Ok::<_, LabError>(Policy::from_arrays(&super::arrays::unprefixed(arrays, "ppo/"))?);
        Ok(SavedPolicy {
            task: task_of(&settings)?,
            policy: policy(&loaded.arrays)?,
            untrained: session.load_named("initial")?.map(|l| policy(&l.arrays)).transpose()?,
            env_steps: loaded.header.env_steps,
            settings,
        })
    }
}

/// The true return of a deterministic policy.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Mean over the episodes.
    pub mean_return: f64,
    /// Standard deviation over the episodes (population).
    pub std_return: f64,
    /// Mean length in env steps.
    pub mean_length: f64,
    /// The return of each episode, in the order of their seeds.
    pub returns: Vec<f64>,
    /// Landed flips, if the task's file defines them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landed_flips_per_10s: Option<LandedFlips>,
}

/// Landed flips in ten simulated seconds, counted by [`FlipCounter`], which uses pitch, height and contacts but no
/// reward.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LandedFlips {
    /// Mean over the episodes.
    pub mean: f64,
    /// The value of each episode, in the order of their seeds.
    pub per_episode: Vec<f64>,
}

/// Runs `episodes` episodes in parallel with the policy's mean action. Episode i has the seed `seed + i`.
///
/// # Errors
///
/// An unknown backend.
pub fn evaluate(
    task: &Arc<Task>,
    policy: &Policy,
    backend: &str,
    episodes: usize,
    seed: u64,
) -> Result<Evaluation, LabError> {
    let mut env = world(task, backend, episodes)?;
    let mut obs = env.reset(seed).to_vec();
    let mut ended: Vec<Option<(f64, usize)>> = vec![None; episodes];
    let mut counters: Option<Vec<FlipCounter>> =
        task.flip_rule().map(|rule| vec![FlipCounter::new(rule, task.dt()); episodes]);
    let mut contacts = Vec::new();
    while ended.iter().any(Option::is_none) {
        for (world, counter) in counters.iter_mut().flatten().enumerate().filter(|(world, _)| ended[*world].is_none()) {
            env.stance(world, &mut contacts).into_iter().for_each(|stance| counter.see(stance));
        }
        let actions = policy.act_mean(&obs, episodes);
        let step = env.step(&actions)?;
        for episode in &step.episodes {
            ended[episode.world].get_or_insert((episode.total_reward, episode.length as usize));
        }
        obs.copy_from_slice(&step.obs);
    }
    let ended: Vec<(f64, usize)> = ended.into_iter().flatten().collect();
    let returns: Vec<f64> = ended.iter().map(|e| e.0).collect();
    let count = ended.len().max(1) as f64;
    let landed_flips_per_10s = counters.map(|counters| {
        let rate = |(counter, (_, steps)): (&FlipCounter, &(f64, usize))| {
            10.0 * counter.landed() as f64 / (*steps as f64 * task.dt())
        };
        let per_episode: Vec<f64> = counters.iter().zip(&ended).map(rate).collect();
        LandedFlips { mean: per_episode.iter().sum::<f64>() / count, per_episode }
    });
    let mean_return = returns.iter().sum::<f64>() / count;
    Ok(Evaluation {
        mean_return,
        std_return: (returns.iter().map(|r| (r - mean_return).powi(2)).sum::<f64>() / count).sqrt(),
        mean_length: ended.iter().map(|e| e.1 as f64).sum::<f64>() / count,
        returns,
        landed_flips_per_10s,
    })
}

/// Observations `[n, O]` and actions `[n, A]` (as the robot receives them) of the policy without exploration. They come
/// from every `stride`th env step of `episodes` episodes that run in parallel, with seeds from `seed` on.
///
/// # Errors
///
/// An unknown backend.
pub(super) fn sample_rows(
    task: &Arc<Task>,
    policy: &Policy,
    backend: &str,
    episodes: usize,
    stride: usize,
    seed: u64,
) -> Result<(Vec<f32>, Vec<f32>), LabError> {
    let mut env = world(task, super::worlds::for_one_world(backend), episodes)?;
    let mut obs = env.reset(seed).to_vec();
    let (mut seen, mut done) = (Vec::new(), Vec::new());
    for at in 0..task.horizon() as usize {
        let step = env.step(&policy.act_mean(&obs, episodes))?;
        if at.is_multiple_of(stride) {
            seen.extend_from_slice(&obs);
            done.extend_from_slice(&step.actions);
        }
        obs.copy_from_slice(&step.obs);
    }
    Ok((seen, done))
}

/// Frames of one world under the policy's mean action, from a fresh reset until `seconds` have passed or the episode
/// ends.
///
/// # Errors
///
/// An unknown backend.
pub fn run_policy(
    task: &Arc<Task>,
    policy: &Policy,
    backend: &str,
    seconds: f32,
    seed: u64,
) -> Result<Frames, LabError> {
    let mut env = world(task, super::worlds::for_one_world(backend), 1)?;
    let mut obs = env.reset(seed).to_vec();
    let steps = (f64::from(seconds) / task.dt()).round().max(1.0) as usize;
    let bodies = task.model().nbody();
    let mut frames = Frames { bodies, obs_dim: task.obs_dim(), act_dim: task.act_dim(), ..Frames::default() };
    let mut poses = vec![Pose::IDENTITY; bodies];
    while frames.steps < steps {
        env.poses(0, &mut poses);
        let step = env.step(&policy.act_mean(&obs, 1))?;
        frames.steps += 1;
        frames.poses.extend_from_slice(&poses);
        frames.obs.extend_from_slice(&obs);
        frames.actions.extend_from_slice(&step.actions);
        frames.task_reward.push(step.reward[0]);
        if step.terminated[0] || step.truncated[0] {
            break;
        }
        obs.copy_from_slice(&step.obs);
    }
    Ok(frames)
}

fn world(task: &Arc<Task>, backend: &str, worlds: usize) -> Result<VectorEnv, LabError> {
    let (env, warning) = super::worlds::worlds(task, backend, worlds, None)?;
    if let Some(sentence) = warning {
        log::warn!("{sentence}");
    }
    Ok(env)
}
