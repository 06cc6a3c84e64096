//! Generalised advantage estimation (Schulman et al. 2016). Termination and truncation are distinguished.

/// The input of [`gae`] for T steps of N worlds. Every slice is row-major `[T, N]` except `last_values`, `[N]`.
///
/// Step t of a world goes from the state that its value belongs to, to the next state. If that next state ended the
/// episode, row t + 1 already belongs to a new episode (same-step autoreset) and is not read.
#[derive(Clone, Copy, Debug)]
pub struct Trajectories<'a> {
    /// Rewards of the steps.
    pub rewards: &'a [f32],
    /// The critic's value of the state that each step starts in.
    pub values: &'a [f32],
    /// Whether the step terminated the episode: the value after it is 0. Takes precedence where both flags are set.
    pub terminated: &'a [bool],
    /// Whether the step truncated the episode: the value after it is in `final_values`.
    pub truncated: &'a [bool],
    /// The value of the episode's final state, if `truncated`; other entries are not read.
    pub final_values: &'a [f32],
    /// The value of the state after the last row, `[N]`; not read for a world whose episode ended there.
    pub last_values: &'a [f32],
}

/// The result of [`gae`], both `[T, N]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gae {
    /// Advantages.
    pub advantages: Vec<f32>,
    /// Targets for the critic: advantage + value, which is TD(λ)'s return.
    pub returns: Vec<f32>,
}

/// Advantages Âₜ = δₜ + γλ Âₜ₊₁ with δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ); the sum stops at the end of an episode.
///
/// Panics if the slices' lengths do not fit each other.
pub fn gae(steps: Trajectories, gamma: f32, lambda: f32) -> Gae {
    let worlds = steps.last_values.len();
    let count = steps.rewards.len();
    assert!(
        worlds > 0
            && count.is_multiple_of(worlds)
            && [steps.values.len(), steps.terminated.len(), steps.truncated.len(), steps.final_values.len()]
                .iter()
                .all(|&n| n == count),
        "the slices of a trajectory must be [T, N] and [N]"
    );
    let mut advantages = vec![0.0; count];
    let mut next_advantages = vec![0.0; worlds];
    let mut next_values = steps.last_values.to_vec();
    for t in (0..count / worlds).rev() {
        for world in 0..worlds {
            let i = t * worlds + world;
            let (next_value, carried) = match (steps.terminated[i], steps.truncated[i]) {
                (true, _) => (0.0, 0.0),
                (false, true) => (steps.final_values[i], 0.0),
                (false, false) => (next_values[world], next_advantages[world]),
            };
            let delta = steps.rewards[i] + gamma * next_value - steps.values[i];
            advantages[i] = delta + gamma * lambda * carried;
            next_advantages[world] = advantages[i];
            next_values[world] = steps.values[i];
        }
    }
    let returns = advantages.iter().zip(steps.values).map(|(a, v)| a + v).collect();
    Gae { advantages, returns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use rand::RngExt;

    /// The definition, summed directly: Âₜ = (1 − λ) Σₖ λᵏ⁻¹ Gₜ⁽ᵏ⁾ − V(sₜ) with k-step returns, the last of which takes
    /// the remaining weight. It shares no recursion with the code under test.
    fn by_k_step_returns(s: Trajectories, gamma: f64, lambda: f64, world: usize, t: usize) -> f64 {
        let worlds = s.last_values.len();
        let steps = s.rewards.len() / worlds;
        let at = |t: usize| t * worlds + world;
        let mut rewards = 0.0;
        let mut sum = 0.0;
        for k in 1.. {
            let i = at(t + k - 1);
            rewards += gamma.powi(k as i32 - 1) * f64::from(s.rewards[i]);
            let last = t + k == steps;
            let next = if s.terminated[i] {
                0.0
            } else if s.truncated[i] {
                f64::from(s.final_values[i])
            } else if last {
                f64::from(s.last_values[world])
            } else {
                f64::from(s.values[at(t + k)])
            };
            let k_step_return = rewards + gamma.powi(k as i32) * next;
            if s.terminated[i] || s.truncated[i] || last {
                sum += lambda.powi(k as i32 - 1) * k_step_return;
                break;
            }
            sum += (1.0 - lambda) * lambda.powi(k as i32 - 1) * k_step_return;
        }
        sum - f64::from(s.values[at(t)])
    }

    #[test]
    fn agrees_with_the_mixture_of_k_step_returns() {
        let (steps, worlds) = (23, 4);
        let mut stream = Seed(3).stream("gae");
        let mut draw = |n: usize| (0..n).map(|_| stream.random_range(-1.0..1.0)).collect::<Vec<f32>>();
        let (rewards, values, final_values, last_values) =
            (draw(steps * worlds), draw(steps * worlds), draw(steps * worlds), draw(worlds));
        // World 0 runs through; world 1 terminates in the middle; world 2 is truncated twice, once on the last row;
        // world 3 has both, once on the same step.
        let flags = |marks: &[(usize, usize)]| {
            let mut flags = vec![false; steps * worlds];
            marks.iter().for_each(|&(t, world)| flags[t * worlds + world] = true);
            flags
        };
        let terminated = flags(&[(9, 1), (4, 3), (15, 3)]);
        let truncated = flags(&[(6, 2), (steps - 1, 2), (15, 3), (18, 3)]);
        let s = Trajectories {
            rewards: &rewards,
            values: &values,
            terminated: &terminated,
            truncated: &truncated,
            final_values: &final_values,
            last_values: &last_values,
        };
        for (gamma, lambda) in [(0.99, 0.95), (0.9, 0.0), (0.9, 1.0), (1.0, 1.0)] {
            let ours = gae(s, gamma, lambda);
            for t in 0..steps {
                for world in 0..worlds {
                    let expected = by_k_step_returns(s, f64::from(gamma), f64::from(lambda), world, t);
                    let i = t * worlds + world;
                    assert!((f64::from(ours.advantages[i]) - expected).abs() < 2e-5, "{t} {world}");
                    assert!((f64::from(ours.returns[i]) - expected - f64::from(values[i])).abs() < 2e-5, "{t} {world}");
                }
            }
        }
    }
}
