//! Steps 64 hoppers with random actions, and prints the episodes that ended: `cargo run --release -p flipside-envs
//! --example random_agent`.

use flipside_core::Seed;

fn main() -> Result<(), flipside_envs::MakeError> {
    let num_envs = 64;
    let mut envs = flipside_envs::make_vec("Hopper-v5", num_envs)?;
    let mut actions = Seed(0).stream("random agent");
    let space = envs.task().action_space();
    envs.reset(0);
    let mut returns = Vec::new();
    for _ in 0..200 {
        let action: Vec<f32> = (0..num_envs).flat_map(|_| space.sample(&mut actions)).collect();
        let step = envs.step(&action)?;
        returns.extend(step.episodes.iter().map(|episode| episode.total_reward));
    }
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    println!("{} episodes, mean return {mean:.1}", returns.len());
    Ok(())
}
