//! From clips to a reward: clips of hoppers that act at random, pairs of them, the answers of an oracle, a reward
//! model, and how often it agrees with the oracle on pairs that it never saw. `cargo run --release -p
//! flipside-preference --example preference`

use flipside_core::settings::{LabelSettings, RewardModelSettings, TeacherKind};
use flipside_core::{Clip, ItemId, Pose, Seed};
use flipside_envs::physics::{self, Precision};
use flipside_envs::{Autoreset, MakeError, Task, VectorEnv};
use flipside_preference::{
    AskedPairs, ClipPool, Comparison, Recorder, RewardModel, SimulatedTeacher, StepRecord, choose_pairs,
};
use std::sync::Arc;

const NUM_ENVS: usize = 16;
const CLIP_STEPS: usize = 60;
const LABELS: usize = 150;
const HELD_OUT: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = Seed(0);
    let pool = record(seed)?;
    println!("{} clips", pool.len());

    // Pairs at random, because there is no reward model yet that could rank them.
    let pairs = choose_pairs(
        &pool,
        LABELS + HELD_OUT,
        &AskedPairs::default(),
        None,
        &LabelSettings::default(),
        &mut seed.stream("pairs"),
    );
    // The oracle prefers the clip with the higher return of the task's own reward, which the reward model never sees.
    let mut oracle =
        SimulatedTeacher::new(TeacherKind::Oracle, seed.stream("teacher")).ok_or("no simulated teacher")?;
    let mut comparisons = Vec::new();
    for (id, pair) in (0..).zip(&pairs) {
        let (left, right) = (&pool.get(pair.left).clip.frames, &pool.get(pair.right).clip.frames);
        let choice = oracle.judge(left, right);
        comparisons.extend(Comparison::new(id, left, right, choice));
    }
    let (held_out, training) = comparisons.split_at(HELD_OUT.min(comparisons.len()));

    let frames = &pool.get(0).clip.frames;
    let mut model = RewardModel::new(frames.obs_dim, frames.act_dim, RewardModelSettings::default(), seed);
    let agreement = |model: &RewardModel| {
        let agrees = |c: &&Comparison| (model.predict(c.left, c.right) > 0.5) == (c.target > 0.5);
        held_out.iter().filter(agrees).count() as f64 / held_out.len() as f64
    };
    println!("before any label: agrees on {:.0} % of {} pairs", 100.0 * agreement(&model), held_out.len());
    for labels in [25, 75, LABELS] {
        let labels = labels.min(training.len());
        model.fit(&training[..labels], &[], &mut || false)?;
        println!("after {labels} labels: agrees on {:.0} % of {} pairs", 100.0 * agreement(&model), held_out.len());
    }
    // What a policy is paid: the reward model's output, normalised over what the policy does.
    model.renormalise(&frames.obs, &frames.actions)?;
    let rewards = model.rewards(&frames.obs, &frames.actions, frames.steps);
    println!("rewards of the first clip's first steps: {:.2?}", &rewards[..5.min(rewards.len())]);
    Ok(())
}

/// Steps hoppers with random actions and cuts clips out of what they do.
fn record(seed: Seed) -> Result<ClipPool, MakeError> {
    // Episodes of one length: a robot that fell goes on, so that what it does on the floor can be judged, too.
    let task = Arc::new(Task::load("hopper")?.fixed_horizon());
    let (space, dt, horizon) = (task.action_space(), task.dt() as f32, task.horizon() as usize);
    let backend = physics::backend("lanes", Precision::F32, task.model().clone(), NUM_ENVS, None)?;
    let mut envs = VectorEnv::new(task.clone(), backend, Autoreset::SameStep)?;
    let worlds: Vec<usize> = (0..NUM_ENVS).collect();
    let mut recorder = Recorder::new(&worlds, CLIP_STEPS, horizon, seed.stream("recorder"));
    let mut pool = ClipPool::new(1000);
    let mut noise = seed.stream("actions");
    let mut poses = vec![Pose::IDENTITY; task.model().nbody()];
    let mut obs = envs.reset(seed.0).to_vec();
    let (obs_dim, act_dim) = (task.obs_dim(), task.act_dim());
    for recorded_at in 0..1200 {
        let actions: Vec<f32> = (0..NUM_ENVS).flat_map(|_| space.sample(&mut noise)).collect();
        // Where the bodies are when the action is chosen.
        let before: Vec<Vec<Pose>> = (worlds.iter())
            .map(|&world| {
                envs.poses(world, &mut poses);
                poses.clone()
            })
            .collect();
        let step = envs.step(&actions)?;
        for world in 0..NUM_ENVS {
            let record = StepRecord {
                poses: &before[world],
                obs: &obs[world * obs_dim..][..obs_dim],
                action: &step.actions[world * act_dim..][..act_dim],
                task_reward: step.reward[world],
                done: step.terminated[world] || step.truncated[world],
            };
            if let Some(cut) = recorder.push(world, record) {
                let id = ItemId(pool.len() as u64);
                let clip = Clip { id, task: "hopper".to_owned(), dt, recorded_at, frames: cut.frames };
                pool.push(Arc::new(clip), cut.origin);
            }
        }
        obs.clone_from(&step.obs);
    }
    Ok(pool)
}
