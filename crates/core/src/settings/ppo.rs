//! Settings of proximal policy optimisation (PPO, Schulman et al. 2017).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a policy is trained with PPO. The defaults suit the shipped robots on two CPU cores. A task's file may override
/// any of them in its table `[ppo]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PpoSettings {
    /// Worlds that are stepped together, N; at least 1.
    #[serde(alias = "worlds")]
    #[schemars(extend("aliases" = ["worlds"]))]
    pub num_envs: usize,
    /// Env steps of each world between two updates, T; at least 1. An update learns from T·N samples.
    #[serde(alias = "horizon")]
    #[schemars(extend("aliases" = ["horizon"]))]
    pub num_steps: usize,
    /// Passes over the T·N samples in one update; at least 1.
    #[serde(alias = "epochs")]
    #[schemars(extend("aliases" = ["epochs"]))]
    pub update_epochs: usize,
    /// Samples in one gradient step; at least 1. The T·N samples are split into equal parts of about this size.
    #[serde(alias = "minibatch")]
    #[schemars(extend("aliases" = ["minibatch"]))]
    pub minibatch_size: usize,
    /// Adam's step size at the start, for actor and critic; above 0.
    pub learning_rate: f64,
    /// Share of `ppo.learning_rate` that remains when the planned env steps are done, 0 to 1. The step size falls
    /// linearly until then and stays there. 1 turns annealing off.
    pub final_learning_rate: f64,
    /// Adam's ε, above 0. It is added to the square root of the second moment after bias correction, as in PyTorch.
    pub adam_eps: f64,
    /// Discount factor per env step, γ, 0 to 1.
    pub gamma: f64,
    /// λ of generalised advantage estimation (GAE), 0 to 1. At 0.95, one Hopper seed in three kept diving forward for
    /// 300,000 env steps. At 0.98, every seed that was tried learned to stay up.
    #[serde(alias = "lambda")]
    #[schemars(extend("aliases" = ["lambda"]))]
    pub gae_lambda: f64,
    /// PPO's clip range, above 0: how far the probability ratio may move from 1 before the objective becomes flat.
    #[serde(alias = "clip")]
    #[schemars(extend("aliases" = ["clip"]))]
    pub clip_coef: f64,
    /// How far the critic may move a prediction away from that of the rollout, in units of scaled return; 0 or more. 0
    /// turns value clipping off.
    pub value_clip: f64,
    /// Weight of the entropy bonus, per nat; 0 or more.
    #[serde(alias = "entropy")]
    #[schemars(extend("aliases" = ["entropy"]))]
    pub ent_coef: f64,
    /// Largest gradient length (global L2 norm, actor and critic separately); 0 or more. Longer gradients are scaled
    /// down to it. 0 turns gradient clipping off.
    pub max_grad_norm: f64,
    /// KL divergence at which an update stops early, in nats; 0 or more. The actor's epochs end when the estimated KL
    /// of a minibatch from the rollout's policy exceeds 1.5 times this. 0 turns early stopping off.
    pub target_kl: f64,
    /// Sizes of the hidden layers of actor and critic, each at least 1. The activation is tanh.
    pub hidden: Vec<usize>,
    /// log σ of every action at the start, −20 to 20. Actions are in the actuators' own units.
    pub initial_log_std: f64,
    /// Lower bound of log σ, −20 to 20. While the reward is still being learned, a policy that has stopped exploring
    /// shows the teacher nothing new. Evaluation and films use the mean action, so the noise costs nothing there.
    #[serde(alias = "least_log_std")]
    #[schemars(extend("aliases" = ["least_log_std"]))]
    pub min_log_std: f64,
    /// Whether observations are normalised to mean 0 and variance 1 and clipped to ±10.
    pub normalise_obs: bool,
    /// Whether rewards are divided by the standard deviation of the running discounted return and clipped to ±10.
    pub scale_rewards: bool,
    /// Whether worlds on a GPU step through the next rollout while the policy learns from the last one. The policy that
    /// acts is then one update behind the policy that learns. It is off because the delay costs more than it saves:
    /// after 400,000 env steps, hoppers of seeds 0 to 4 returned 2,105 on average without such a delay and 739 with it
    /// (measured with the backend `lanes`, where five seeds take a minute). The reward model is fitted during the next
    /// rollout in any case, because that does not change the policy.
    pub overlap: bool,
    /// Passes over the last rollout when the critic is refitted after a change of the reward model; at least 1.
    pub refit_epochs: usize,
}

impl Default for PpoSettings {
    fn default() -> Self {
        PpoSettings {
            num_envs: 32,
            num_steps: 64,
            update_epochs: 10,
            minibatch_size: 256,
            learning_rate: 7e-4,
            final_learning_rate: 0.1,
            adam_eps: 1e-5,
            gamma: 0.99,
            gae_lambda: 0.98,
            clip_coef: 0.2,
            value_clip: 0.0,
            ent_coef: 0.0,
            max_grad_norm: 0.5,
            target_kl: 0.03,
            hidden: vec![64, 64],
            initial_log_std: 0.0,
            min_log_std: -20.0,
            normalise_obs: true,
            scale_rewards: true,
            overlap: false,
            refit_epochs: 5,
        }
    }
}

impl PpoSettings {
    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("num_envs", self.num_envs),
            ("num_steps", self.num_steps),
            ("update_epochs", self.update_epochs),
            ("minibatch_size", self.minibatch_size),
            ("refit_epochs", self.refit_epochs),
        ];
        for (name, value) in counts {
            if value == 0 {
                return Err(format!("ppo.{name} must be at least 1"));
            }
        }
        if self.hidden.contains(&0) {
            return Err("ppo.hidden must list layer sizes of at least 1".to_owned());
        }
        let ranges = [
            ("learning_rate", self.learning_rate, f64::MIN_POSITIVE, f64::MAX),
            ("final_learning_rate", self.final_learning_rate, 0.0, 1.0),
            ("adam_eps", self.adam_eps, f64::MIN_POSITIVE, f64::MAX),
            ("gamma", self.gamma, 0.0, 1.0),
            ("gae_lambda", self.gae_lambda, 0.0, 1.0),
            ("clip_coef", self.clip_coef, f64::MIN_POSITIVE, f64::MAX),
            ("value_clip", self.value_clip, 0.0, f64::MAX),
            ("ent_coef", self.ent_coef, 0.0, f64::MAX),
            ("max_grad_norm", self.max_grad_norm, 0.0, f64::MAX),
            ("target_kl", self.target_kl, 0.0, f64::MAX),
            ("initial_log_std", self.initial_log_std, -20.0, 20.0),
            ("min_log_std", self.min_log_std, -20.0, 20.0),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                let wanted = match (low, high) {
                    (low, f64::MAX) if low > 0.0 => "a number above 0".to_owned(),
                    (_, f64::MAX) => "a number of at least 0".to_owned(),
                    (low, high) => format!("a number from {low} to {high}"),
                };
                return Err(format!("ppo.{name} must be {wanted}, not {value}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_overrides_only_what_it_names() {
        let read = |text: &str| toml::from_str::<PpoSettings>(text);
        assert_eq!(read("").unwrap(), PpoSettings::default());
        let some = read("num_envs = 32\nhidden = [32]").unwrap();
        assert_eq!(read("worlds = 32\nhidden = [32]").unwrap(), some, "the name of version 0.1.0");
        assert_eq!(some, PpoSettings { num_envs: 32, hidden: vec![32], ..PpoSettings::default() });
        assert!(read("num_evns = 32").unwrap_err().to_string().contains("num_evns"));
    }

    #[test]
    fn impossible_settings_are_named() {
        let default = PpoSettings::default;
        default().check().unwrap();
        for (settings, wanted) in [
            (PpoSettings { num_envs: 0, ..default() }, "ppo.num_envs must be at least 1"),
            (PpoSettings { gamma: 1.5, ..default() }, "ppo.gamma must be a number from 0 to 1, not 1.5"),
            (PpoSettings { clip_coef: 0.0, ..default() }, "ppo.clip_coef must be a number above 0, not 0"),
            (
                PpoSettings { learning_rate: f64::NAN, ..default() },
                "ppo.learning_rate must be a number above 0, not NaN",
            ),
            (PpoSettings { hidden: vec![64, 0], ..default() }, "ppo.hidden must list layer sizes of at least 1"),
        ] {
            assert_eq!(settings.check().unwrap_err(), wanted);
        }
    }
}
