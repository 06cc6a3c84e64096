//! Prints what a PPO update costs, in microseconds an env step, on one thread and on two: `cargo bench --bench ppo_update`. The observations
//! and rewards are random numbers; the sizes are those of Hopper.

use flipside_core::Seed;
use flipside_core::settings::PpoSettings;
use flipside_learn::{LearnError, Ppo, Rollout, Transition};
use rand::RngExt;
use std::time::Instant;

const WORLDS: usize = 64;
const OBS: usize = 11;
const ACTIONS: usize = 3;

fn main() -> Result<(), LearnError> {
    let mut stream = Seed(0).stream("speed");
    for (samples, minibatch) in [(2048, 256), (8192, 256), (8192, 1024), (8192, 4096)] {
        let settings = PpoSettings {
            worlds: WORLDS,
            horizon: samples / WORLDS,
            minibatch,
            target_kl: 0.0,
            ..PpoSettings::default()
        };
        let mut ppo = Ppo::new(OBS, ACTIONS, settings, Seed(0))?;
        let mut rollout = Rollout::new(WORLDS);
        let mut obs = vec![0.0; WORLDS * OBS];
        for _ in 0..samples / WORLDS {
            obs.iter_mut().for_each(|x| *x = stream.random_range(-1.0..1.0));
            let actions = ppo.act(&obs, WORLDS);
            let rewards: Vec<f32> = (0..WORLDS).map(|_| stream.random_range(-1.0..1.0)).collect();
            let flags = [false; WORLDS];
            let transition = Transition { rewards: &rewards, terminated: &flags, truncated: &flags, final_obs: &obs };
            rollout.record(&obs, &actions, transition);
        }
        ppo.close(&mut rollout, &obs);
        let mut quickest = |threads: usize| -> Result<f64, LearnError> {
            ppo.use_threads(threads);
            let mut least = f64::MAX;
            for _ in 0..400_000 / samples {
                let started = Instant::now();
                ppo.update(&rollout, &mut || false)?;
                least = least.min(started.elapsed().as_secs_f64());
            }
            Ok(least * 1e6 / samples as f64)
        };
        let [one, two] = [quickest(1)?, quickest(2)?];
        println!("{samples} samples in minibatches of {minibatch}: {one:.2} µs on one thread, {two:.2} on two");
    }
    Ok(())
}
