//! The whole loop in one file, without session, threads or window: hoppers act, clips are cut, an oracle chooses
//! between two of them, a reward model learns from its choices, and PPO follows the reward model. The task's own reward
//! reaches the oracle and one printed figure.
//!
//! `cargo run --release --example preference_loop` (20 seconds on two cores)
//!
//! The program's loop, `src/lab/driver.rs`, does more: a schedule of labels, ranked pairs, monitoring, checkpoints.

use flipside_core::settings::{LabelSettings, PpoSettings, RewardModelSettings, TeacherKind};
use flipside_core::{Choice, Clip, ItemId, Pose, Seed};
use flipside_envs::physics::{self, Precision};
use flipside_envs::{Autoreset, Task, VectorEnv};
use flipside_learn::{Ppo, Rollout, Transition};
use flipside_preference::{
    AskedPairs, ClipPool, Comparison, Recorder, RewardModel, SimulatedTeacher, StepRecord, choose_pairs,
};
use std::sync::Arc;

const NUM_ENVS: usize = 32;
const NUM_STEPS: usize = 64;
const UPDATES: usize = 120;
const CLIP_STEPS: usize = 60;
/// Pairs asked before the reward model is fitted anew.
const PAIRS_A_FIT: usize = 20;
/// Updates from one fit to the next.
const UPDATES_A_FIT: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = Seed(0);
    // Episodes of one length, so that their end says nothing about the task's reward.
    let task = Arc::new(Task::load("hopper")?.fixed_horizon());
    let backend = physics::backend("lanes", Precision::F32, task.model().clone(), NUM_ENVS, None)?;
    let mut envs = VectorEnv::new(task.clone(), backend, Autoreset::SameStep)?;
    let (obs_dim, act_dim, dt) = (task.obs_dim(), task.act_dim(), task.dt() as f32);

    let mut ppo = Ppo::new(obs_dim, act_dim, PpoSettings::default(), seed)?;
    ppo.plan((UPDATES * NUM_STEPS * NUM_ENVS) as u64);
    let mut reward_model = RewardModel::new(obs_dim, act_dim, RewardModelSettings::default(), seed);
    let mut oracle =
        SimulatedTeacher::new(TeacherKind::Oracle, seed.stream("teacher")).ok_or("no simulated teacher")?;

    let worlds: Vec<usize> = (0..NUM_ENVS).collect();
    let mut recorder = Recorder::new(&worlds, CLIP_STEPS, task.horizon() as usize, seed.stream("recorder"));
    let mut pool = ClipPool::new(400);
    let (mut next_clip, mut pair_stream) = (0, seed.stream("pairs"));
    let mut asked = AskedPairs::default();
    let mut judged: Vec<(Arc<Clip>, Arc<Clip>, Choice)> = Vec::new();

    let mut obs = envs.reset(seed.0).to_vec();
    let mut poses = vec![Pose::IDENTITY; task.model().nbody()];
    for update in 0..UPDATES {
        // Collect a rollout and cut clips out of it.
        let mut rollout = Rollout::new(NUM_ENVS);
        let (mut received, mut true_reward) = (Vec::new(), 0.0);
        for _ in 0..NUM_STEPS {
            let actions = ppo.act(&obs, NUM_ENVS);
            let mut before = Vec::new();
            for &world in &worlds {
                envs.poses(world, &mut poses);
                before.push(poses.clone());
            }
            let step = envs.step(&actions.actions)?;
            for &world in &worlds {
                let record = StepRecord {
                    poses: &before[world],
                    obs: &obs[world * obs_dim..][..obs_dim],
                    action: &step.actions[world * act_dim..][..act_dim],
                    task_reward: step.reward[world],
                    done: step.truncated[world],
                };
                if let Some(cut) = recorder.push(world, record) {
                    let (id, recorded_at) = (ItemId(next_clip), ppo.env_steps());
                    let clip = Clip { id, task: "hopper".to_owned(), dt, recorded_at, frames: cut.frames };
                    pool.push(Arc::new(clip), cut.origin);
                    next_clip += 1;
                }
            }
            true_reward += f64::from(step.reward.iter().sum::<f32>());
            received.extend_from_slice(&step.actions);
            let unknown = vec![0.0; NUM_ENVS];
            let transition = Transition {
                rewards: &unknown,
                terminated: &step.terminated,
                truncated: &step.truncated,
                final_obs: &step.final_obs,
            };
            rollout.record(&obs, &actions, transition);
            obs.clone_from(&step.obs);
        }

        if update % UPDATES_A_FIT == 0 {
            // Ask: pairs that the reward model's members disagree on, at random before the first fit.
            let mut rank = |pairs: &[[usize; 2]]| {
                let clips = |[a, b]: &[usize; 2]| (&pool.get(*a).clip.frames, &pool.get(*b).clip.frames);
                reward_model.disagreement(&pairs.iter().map(clips).collect::<Vec<_>>())
            };
            let rank: Option<flipside_preference::Rank> = if judged.is_empty() { None } else { Some(&mut rank) };
            let settings = LabelSettings::default();
            for pair in choose_pairs(&pool, PAIRS_A_FIT, &asked, rank, &settings, &mut pair_stream) {
                let [left, right] = [pair.left, pair.right].map(|place| pool.get(place).clip.clone());
                asked.insert(left.id, right.id);
                // Answer.
                let choice = oracle.judge(&left.frames, &right.frames);
                judged.push((left, right, choice));
            }
            // Fit, and bring the rewards to mean 0 and standard deviation 1 over what the policy does now.
            let comparisons: Vec<Comparison> = (0..)
                .zip(&judged)
                .filter_map(|(id, (left, right, choice))| Comparison::new(id, &left.frames, &right.frames, *choice))
                .collect();
            let report = reward_model.fit(&comparisons, &[], &mut || false)?;
            reward_model.renormalise(&rollout.obs, &received)?;
            println!(
                "{:6} env steps, {:3} labels: agreement on held-out labels {:3.0} %, true reward a step {:5.2}",
                ppo.env_steps(),
                judged.len(),
                100.0 * report.held_out_agreement.unwrap_or(f64::NAN),
                true_reward / (NUM_STEPS * NUM_ENVS) as f64
            );
        }

        // Improve the policy under the reward as it stands.
        rollout.rewards = reward_model.rewards(&rollout.obs, &received, rollout.samples());
        ppo.close(&mut rollout, &obs);
        ppo.update(&rollout, &mut || false)?;
    }
    Ok(())
}
