//! Proximal policy optimisation (Schulman et al. 2017): its dials.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a policy learns. The defaults suit the shipped robots on two cores; a task's file may override any of them in a
/// table `[ppo]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PpoSettings {
    /// Worlds stepped side by side, N.
    #[serde(alias = "worlds")]
    #[schemars(extend("aliases" = ["worlds"]))]
    pub num_envs: usize,
    /// Env steps a world between two updates, T; an update learns from T·N samples.
    #[serde(alias = "horizon")]
    #[schemars(extend("aliases" = ["horizon"]))]
    pub num_steps: usize,
    /// Passes over those samples.
    #[serde(alias = "epochs")]
    #[schemars(extend("aliases" = ["epochs"]))]
    pub update_epochs: usize,
    /// Samples a gradient step. T·N is cut into equal parts of about this size.
    #[serde(alias = "minibatch")]
    #[schemars(extend("aliases" = ["minibatch"]))]
    pub minibatch_size: usize,
    /// Adam's step size at the start, for actor and critic alike.
    pub learning_rate: f64,
    /// The share of [`learning_rate`](Self::learning_rate) left when the planned env steps are done; it falls linearly
    /// till then and stays there. 1 turns annealing off.
    pub final_learning_rate: f64,
    /// Adam's ε, added to the root of the second moment after bias correction, as in PyTorch.
    pub adam_eps: f64,
    /// Discount an env step, γ.
    pub gamma: f64,
    /// GAE's λ. At 0.95 one Hopper seed in three went on diving forward for 300,000 env steps; at 0.98 every seed tried
    /// learnt to stay up.
    #[serde(alias = "lambda")]
    #[schemars(extend("aliases" = ["lambda"]))]
    pub gae_lambda: f64,
    /// How far the probability ratio may leave 1 before the objective goes flat.
    #[serde(alias = "clip")]
    #[schemars(extend("aliases" = ["clip"]))]
    pub clip_coef: f64,
    /// How far the critic may move a prediction from that of the rollout, in units of scaled return; 0 turns it off.
    pub value_clip: f64,
    /// Weight of the entropy bonus, per nat.
    #[serde(alias = "entropy")]
    #[schemars(extend("aliases" = ["entropy"]))]
    pub ent_coef: f64,
    /// Gradients longer than this (global L2 norm, actor and critic apart) are shortened to it; 0 turns it off.
    pub max_grad_norm: f64,
    /// The actor's epochs end when a minibatch's estimated KL from the rollout's policy passes 1.5 times this, nats; 0
    /// turns it off.
    pub target_kl: f64,
    /// Hidden layers' sizes, tanh, for actor and critic alike.
    pub hidden: Vec<usize>,
    /// log σ of every action at the start; actions are in the actuators' own units.
    pub initial_log_std: f64,
    /// Below which log σ never falls. While a reward is still being learnt, a policy that has stopped trying things
    /// shows the judge nothing new; the mean action is what is measured and filmed, so the noise costs nothing there.
    #[serde(alias = "least_log_std")]
    #[schemars(extend("aliases" = ["least_log_std"]))]
    pub min_log_std: f64,
    /// Whether observations are brought to mean 0, variance 1 and clipped to ±10.
    pub normalise_obs: bool,
    /// Whether rewards are divided by the standard deviation of the running discounted return and clipped to ±10.
    pub scale_rewards: bool,
    /// Whether worlds that lie on a graphics device step through the next rollout while the policy learns from the last
    /// one. The policy that acts is then an update behind the one that learns. Off, because that costs more than it
    /// saves: after 400,000 env steps hoppers of seeds 0 to 4 returned 2,105 on average without such a delay and 739
    /// with it (made on the lanes, where five seeds take a minute). The reward model is fitted beside the next rollout
    /// in any case, for that changes no policy.
    pub overlap: bool,
    /// Passes over the last rollout when the critic is refitted to a changed reward.
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
    /// Refuses settings that cannot work, naming the field and what it must be.
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
        let some = read("worlds = 32\nhidden = [32]").unwrap();
        assert_eq!(some, PpoSettings { num_envs: 32, hidden: vec![32], ..PpoSettings::default() });
        assert!(read("wolrds = 32").unwrap_err().to_string().contains("wolrds"));
    }

    #[test]
    fn impossible_settings_are_named() {
        let default = PpoSettings::default;
        default().check().unwrap();
        for (settings, wanted) in [
            (PpoSettings { num_envs: 0, ..default() }, "ppo.worlds must be at least 1"),
            (PpoSettings { gamma: 1.5, ..default() }, "ppo.gamma must be a number from 0 to 1, not 1.5"),
            (PpoSettings { clip_coef: 0.0, ..default() }, "ppo.clip must be a number above 0, not 0"),
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
