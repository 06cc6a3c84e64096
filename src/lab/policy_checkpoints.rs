//! The policies that a run may end with.
//!
//! A policy whose reward is still being learned does not improve steadily, and one that started again from scratch may
//! end up worse than the one before it. Which policy is best is only known after the last answer. A run therefore saves
//! policies on the way, each with a sample of its behaviour without exploration. At the end it takes the policy with
//! the highest mean reward under the final reward model.

use super::LabError;
use super::arrays::{prefixed, unprefixed, words};
use super::evaluate::sample_rows;
use flipside_core::{Array, Arrays};
use flipside_envs::gym::Task;
use flipside_learn::Policy;
use flipside_preference::RewardModel;
use std::sync::Arc;

/// The run's last policy is saved each time this fraction, 1 in `LOOKS`, of the planned env steps has passed.
const LOOKS: u64 = 40;

/// The number of episodes that sample a policy's behaviour, and the stride: one env step in `STRIDE` is stored. All
/// policies start their episodes in the same states.
const EPISODES: usize = 8;
const STRIDE: usize = 4;
const SEED: u64 = 3_000;

/// A saved policy.
#[derive(Clone, Debug, PartialEq)]
struct Candidate {
    /// Env steps of the run when it was saved.
    env_steps: u64,
    /// The learner's state when it was saved.
    learner: Arrays,
    /// `[n, O]` and `[n, A]`: the observations and actions of the sample.
    obs: Vec<f32>,
    actions: Vec<f32>,
}

/// All saved policies.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PolicyCheckpoints(Vec<Candidate>);

impl PolicyCheckpoints {
    /// Whether the run's last policy should be saved again. `planned` is the number of env steps in the whole run.
    pub fn is_due(&self, env_steps: u64, planned: u64) -> bool {
        let last = self.0.last().map_or(0, |candidate| candidate.env_steps);
        env_steps >= last + planned / LOOKS
    }

    /// Saves a policy. `learner` is the complete state of its learner.
    ///
    /// # Errors
    /// An unknown backend.
    pub fn add(
        &mut self,
        env_steps: u64,
        learner: Arrays,
        policy: &Policy,
        task: &Arc<Task>,
        backend: &str,
    ) -> Result<(), LabError> {
        let (obs, actions) = sample_rows(task, policy, backend, EPISODES, STRIDE, SEED)?;
        self.0.push(Candidate { env_steps, learner, obs, actions });
        Ok(())
    }

    /// The learner whose policy has the highest mean reward under `reward`, and the env steps at which it was saved;
    /// `None` if there are none.
    pub fn best(&self, reward: &RewardModel, act_dim: usize) -> Option<(u64, &Arrays)> {
        let mean = |candidate: &Candidate| {
            let n = candidate.actions.len() / act_dim.max(1);
            let rewards = reward.rewards(&candidate.obs, &candidate.actions, n);
            rewards.iter().map(|&reward| f64::from(reward)).sum::<f64>() / n.max(1) as f64
        };
        // A robot that left its bounds has a mean of NaN, and is never the best.
        let means = self.0.iter().map(|candidate| (mean(candidate), candidate)).filter(|(mean, _)| mean.is_finite());
        let best = means.max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map(|(_, candidate)| (candidate.env_steps, &candidate.learner))
    }

    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        arrays.insert("at".to_owned(), Array::u64(self.0.iter().map(|candidate| candidate.env_steps).collect()));
        for (n, Candidate { learner, obs, actions, .. }) in self.0.iter().enumerate() {
            arrays.extend(prefixed(learner.clone(), &format!("{n}/learner/")));
            arrays.insert(format!("{n}/obs"), Array::f32(&[obs.len()], obs.clone()));
            arrays.insert(format!("{n}/actions"), Array::f32(&[actions.len()], actions.clone()));
        }
        arrays
    }

    /// Restores what [`PolicyCheckpoints::to_arrays`] returned; empty for a run that began before this was saved.
    pub fn from_arrays(arrays: &Arrays) -> Result<PolicyCheckpoints, LabError> {
        if arrays.is_empty() {
            return Ok(PolicyCheckpoints::default());
        }
        let numbers = |name: String| {
            let numbers = arrays.get(&name).and_then(Array::as_f32).map(<[f32]>::to_vec);
            numbers.ok_or(LabError::Incomplete(format!("candidates/{name}")))
        };
        let candidate = |(n, &env_steps): (usize, &u64)| {
            Ok(Candidate {
                env_steps,
                learner: unprefixed(arrays, &format!("{n}/learner/")),
                obs: numbers(format!("{n}/obs"))?,
                actions: numbers(format!("{n}/actions"))?,
            })
        };
        words(arrays, "at")?.iter().enumerate().map(candidate).collect::<Result<_, LabError>>().map(PolicyCheckpoints)
    }
}
