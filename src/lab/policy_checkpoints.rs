//! The policies that a run may end with.
//!
//! A policy whose reward is being learnt does not only get better, and one that began again from nothing may come to less than the one before it.
//! Which of them did best is known when the last answer is in: so a run puts some aside on its way, each with what it does when it does
//! not explore, and keeps in the end the one that the reward as it then stands says most good of.

use super::LabError;
use super::arrays::{prefixed, unprefixed, words};
use super::evaluate::sample_rows;
use flipside_core::{Array, Arrays};
use flipside_envs::gym::Task;
use flipside_learn::Policy;
use flipside_preference::RewardModel;
use std::sync::Arc;

/// Candidates from the run's last policy are put aside so often in the course of a run.
const LOOKS: u64 = 40;

/// Episodes that show what a candidate does, and of how many env steps one is remembered. All candidates begin theirs in the same states.
const EPISODES: usize = 8;
const STRIDE: usize = 4;
const SEED: u64 = 3_000;

/// A policy that was put aside.
#[derive(Clone, Debug, PartialEq)]
struct Candidate {
    /// Env steps of the run behind it.
    env_steps: u64,
    /// The learner as it stood.
    learner: Arrays,
    /// `[n, O]` and `[n, A]`: what it sees and does.
    obs: Vec<f32>,
    actions: Vec<f32>,
}

/// All that were put aside.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PolicyCheckpoints(Vec<Candidate>);

impl PolicyCheckpoints {
    /// Whether it is time for another one of a policy that is at work till the end of the run, `planned` env steps.
    pub fn is_due(&self, env_steps: u64, planned: u64) -> bool {
        let last = self.0.last().map_or(0, |candidate| candidate.env_steps);
        env_steps >= last + planned / LOOKS
    }

    /// Puts the policy aside, `learner` being all of it.
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

    /// The learner that `reward` says most good of, and the env steps behind it. None where there are none.
    pub fn best(&self, reward: &RewardModel, act_dim: usize) -> Option<(u64, &Arrays)> {
        let mean = |candidate: &Candidate| {
            let n = candidate.actions.len() / act_dim.max(1);
            let rewards = reward.rewards(&candidate.obs, &candidate.actions, n);
            rewards.iter().map(|&reward| f64::from(reward)).sum::<f64>() / n.max(1) as f64
        };
        // A robot that came out of its bounds has a NaN for its mean, which is never the best.
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

    /// What [`PolicyCheckpoints::to_arrays`] gave; none from a run that began before there were any.
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
