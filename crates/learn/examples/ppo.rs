//! PPO balances a pole on a cart within seconds: `cargo run --release -p flipside-learn --example ppo`
//!
//! The loop is all there is: act, step, record, update.

use flipside_core::Seed;
use flipside_core::settings::PpoSettings;
use flipside_learn::{Ppo, Rollout, Transition};
use std::time::Instant;

const NUM_ENVS: usize = 16;
const NUM_STEPS: usize = 64;
const UPDATES: usize = 60;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = Seed(0);
    let mut envs = flipside_envs::make_vec("InvertedPendulum-v5", NUM_ENVS)?;
    let (obs_dim, act_dim) = (envs.task().obs_dim(), envs.task().act_dim());
    let mut ppo = Ppo::new(obs_dim, act_dim, PpoSettings::default(), seed)?;
    // The learning rate is annealed over so many env steps.
    ppo.plan((UPDATES * NUM_STEPS * NUM_ENVS) as u64);

    let started = Instant::now();
    let mut obs = envs.reset(seed.0).to_vec();
    let mut rollout = Rollout::new(NUM_ENVS);
    let mut returns = Vec::new();
    for update in 1..=UPDATES {
        rollout.clear();
        for _ in 0..NUM_STEPS {
            let actions = ppo.act(&obs, NUM_ENVS);
            let step = envs.step(&actions.actions)?;
            let transition = Transition {
                rewards: &step.reward,
                terminated: &step.terminated,
                truncated: &step.truncated,
                final_obs: &step.final_obs,
            };
            rollout.record(&obs, &actions, transition);
            returns.extend(step.episodes.iter().map(|episode| episode.total_reward));
            obs.clone_from(&step.obs);
        }
        ppo.close(&mut rollout, &obs);
        // An update may be cancelled between two minibatches; nothing has changed then.
        let stats = ppo.update(&rollout, &mut || false)?;
        if update % 10 == 0 {
            let last: &[f64] = &returns[returns.len().saturating_sub(20)..];
            println!(
                "{:6} env steps, {:4.1} s: mean return of the last {} episodes {:.0}; KL {:.3}, entropy {:.2} nats",
                ppo.env_steps(),
                started.elapsed().as_secs_f64(),
                last.len(),
                last.iter().sum::<f64>() / last.len() as f64,
                stats.approx_kl,
                stats.entropy
            );
        }
    }

    // One episode of the mean actions: 1000 steps of reward 1 at most.
    let mut env = flipside_envs::make("InvertedPendulum-v5")?;
    let mut obs = env.reset(Some(1)).to_vec();
    let mut total = 0.0;
    loop {
        let step = env.step(&ppo.act_mean(&obs, 1))?;
        total += step.reward;
        obs = step.obs.to_vec();
        if step.terminated || step.truncated {
            break;
        }
    }
    println!("the learned policy's return: {total:.0} of 1000");
    Ok(())
}
