//! The samples between two updates.

use super::LearnError;

/// Sampled actions for `n` observations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actions {
    /// `[n, A]`: samples, not clipped to the action space, because the environment clips.
    pub actions: Vec<f32>,
    /// `[n]`: log-densities of these samples, nats.
    pub log_probs: Vec<f32>,
}

/// T steps of N worlds. Observations are raw and rewards unscaled, because the learner normalises both. Rows are
/// time-major, `[T, N, …]`.
///
/// [`Rollout::record`] fills it, and [`Ppo::close`](super::Ppo::close) adds the values. The rewards may be replaced
/// before the update, as long as all of them come from one reward function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// T.
    pub steps: usize,
    /// N.
    pub worlds: usize,
    /// `[T, N, O]`: the observations that the actions were based on.
    pub obs: Vec<f32>,
    /// `[T, N, A]`: the samples, not clipped.
    pub actions: Vec<f32>,
    /// `[T, N]`.
    pub log_probs: Vec<f32>,
    /// `[T, N]`: the critic's values of `obs`.
    pub values: Vec<f32>,
    /// `[T, N]`.
    pub rewards: Vec<f32>,
    /// `[T, N]`: the episode ended by itself. Takes precedence where `truncated` is set too.
    pub terminated: Vec<bool>,
    /// `[T, N]`: the episode was cut.
    pub truncated: Vec<bool>,
    /// `[T, N]`: the critic's values of the final observations, where truncated; 0 elsewhere.
    pub final_values: Vec<f32>,
    /// `[K, O]`: the final observations of the K truncated steps, in order of the steps.
    pub final_obs: Vec<f32>,
    /// `[N, O]`: the observations after the last step.
    pub last_obs: Vec<f32>,
    /// `[N]`: the critic's values of `last_obs`.
    pub last_values: Vec<f32>,
}

/// The result of one step of a vector environment of N worlds.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// `[N]`.
    pub rewards: &'a [f32],
    /// `[N]`: the episode ended by itself.
    pub terminated: &'a [bool],
    /// `[N]`: the episode was cut.
    pub truncated: &'a [bool],
    /// `[N, O]`: the last observation of an episode that ended; only rows of truncated worlds are read.
    pub final_obs: &'a [f32],
}

impl Rollout {
    /// An empty rollout of `worlds` worlds.
    pub fn new(worlds: usize) -> Rollout {
        Rollout { worlds, ..Rollout::default() }
    }

    /// Empties it but keeps its memory for the next rollout.
    pub fn clear(&mut self) {
        let Rollout { steps, worlds: _, terminated, truncated, .. } = self;
        *steps = 0;
        terminated.clear();
        truncated.clear();
        let Rollout {
            obs, actions, log_probs, values, rewards, final_values, final_obs, last_obs, last_values, ..
        } = self;
        [obs, actions, log_probs, values, rewards, final_values, final_obs, last_obs, last_values]
            .into_iter()
            .for_each(Vec::clear);
    }

    /// Appends one step of all worlds: the observations `[N, O]`, what [`Ppo::act`](super::Ppo::act) returned for them,
    /// and the result.
    pub fn record(&mut self, obs: &[f32], actions: &Actions, transition: Transition) {
        let obs_dim = obs.len() / self.worlds;
        self.steps += 1;
        self.obs.extend_from_slice(obs);
        self.actions.extend_from_slice(&actions.actions);
        self.log_probs.extend_from_slice(&actions.log_probs);
        self.rewards.extend_from_slice(transition.rewards);
        self.terminated.extend_from_slice(transition.terminated);
        self.truncated.extend_from_slice(transition.truncated);
        for (final_obs, _) in transition.final_obs.chunks_exact(obs_dim).zip(transition.truncated).filter(|(_, t)| **t)
        {
            self.final_obs.extend_from_slice(final_obs);
        }
    }

    /// T·N.
    pub fn samples(&self) -> usize {
        self.steps * self.worlds
    }

    /// Whether an episode ended with sample `i`, terminated or truncated.
    pub fn ended(&self, i: usize) -> bool {
        self.terminated[i] || self.truncated[i]
    }

    /// Refuses sizes that do not match and numbers that are not finite, and says which and where.
    pub(super) fn check(&self, obs_dim: usize, act_dim: usize) -> Result<(), LearnError> {
        let (samples, worlds) = (self.samples(), self.worlds);
        let truncated = self.truncated.iter().filter(|&&t| t).count();
        let sizes = [
            ("the rollout's observations", self.obs.len(), samples * obs_dim),
            ("the rollout's actions", self.actions.len(), samples * act_dim),
            ("the rollout's log-probabilities", self.log_probs.len(), samples),
            ("the rollout's values", self.values.len(), samples),
            ("the rollout's rewards", self.rewards.len(), samples),
            ("the rollout's termination flags", self.terminated.len(), samples),
            ("the rollout's truncation flags", self.truncated.len(), samples),
            ("the rollout's final values", self.final_values.len(), samples),
            ("the rollout's final observations", self.final_obs.len(), truncated * obs_dim),
            ("the rollout's last observations", self.last_obs.len(), worlds * obs_dim),
            ("the rollout's last values", self.last_values.len(), worlds),
        ];
        if samples == 0 {
            return Err(LearnError::Size { what: "the rollout's samples".to_owned(), expected: 1, got: 0 });
        }
        for (what, got, expected) in sizes {
            if got != expected {
                return Err(LearnError::Size { what: what.to_owned(), expected, got });
            }
        }
        let numbers: [(&str, &[f32], usize); 8] = [
            ("an observation", &self.obs, worlds * obs_dim),
            ("an action", &self.actions, worlds * act_dim),
            ("a log-probability", &self.log_probs, worlds),
            ("a value", &self.values, worlds),
            ("a reward", &self.rewards, worlds),
            ("a final value", &self.final_values, worlds),
            ("a final observation", &self.final_obs, usize::MAX),
            ("a last observation", &self.last_obs, usize::MAX),
        ];
        for (what, numbers, row) in numbers {
            if let Some(i) = numbers.iter().position(|x| !x.is_finite()) {
                let place = match row {
                    usize::MAX => String::new(),
                    row => format!(" at step {} in world {}", i / row, i % row / (row / worlds)),
                };
                return Err(LearnError::NotFinite { what: format!("{what} of the rollout{place}") });
            }
        }
        Ok(())
    }
}
