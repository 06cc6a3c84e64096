//! Settings for training language models: supervised fine-tuning, reward models, PPO. The defaults are those of
//! lm-human-preferences (Ziegler et al. 2019) and its reproductions (Huang et al. 2024), where they name one.

use super::{KlPlace, LabelSettings, PairChoice, TextAdvantage, TextAverage, TextRatio};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The optimiser, Adam, of everything that trains a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserSettings {
    /// Adam's step size after the warm-up; above 0.
    pub learning_rate: f64,
    /// Share of `learning_rate` that remains after the last planned step, 0 to 1. The step size falls linearly until
    /// then. 1 turns the decay off.
    pub final_learning_rate: f64,
    /// Gradient steps over which the step size rises linearly from 0 at the start. 0 turns the warm-up off.
    pub warmup_steps: u64,
    /// Parameter groups: multipliers of the step size, 0 or more. A key applies to the parameters whose names contain
    /// it (`head`, `lora_A`, `h.0.`). If several keys match, the longest applies. 0 leaves a parameter as it is.
    /// Parameters that no key matches have 1.
    #[serde(alias = "rates")]
    #[schemars(extend("aliases" = ["rates"]))]
    pub lr_multipliers: BTreeMap<String, f64>,
    /// Adam's ε, above 0.
    pub adam_eps: f64,
    /// Whether ε is placed as in TensorFlow, inside the bias-corrected step: θ ← θ − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v +
    /// ε). If not, it is placed as in PyTorch, which adds ε to the bias-corrected root. TensorFlow's version takes
    /// shorter steps at the start.
    pub tensorflow_eps: bool,
    /// Largest gradient length (L2 norm over all parameters); 0 or more. Longer gradients are scaled down to it. 0
    /// turns gradient clipping off.
    pub max_grad_norm: f64,
}

impl Default for OptimiserSettings {
    fn default() -> Self {
        OptimiserSettings {
            learning_rate: 1e-4,
            final_learning_rate: 0.0,
            warmup_steps: 0,
            lr_multipliers: BTreeMap::new(),
            adam_eps: 1e-5,
            tensorflow_eps: true,
            max_grad_norm: 1.0,
        }
    }
}

impl OptimiserSettings {
    pub(super) fn check(&self, room: &str) -> Result<(), String> {
        above(room, "learning_rate", self.learning_rate)?;
        within(room, "final_learning_rate", self.final_learning_rate, 0.0, 1.0)?;
        above(room, "adam_eps", self.adam_eps)?;
        within(room, "max_grad_norm", self.max_grad_norm, 0.0, f64::MAX)?;
        self.lr_multipliers
            .iter()
            .try_for_each(|(name, &rate)| within(room, &format!("rates.{name}"), rate, 0.0, f64::MAX))
    }

    /// The step size of gradient step `done` (from 0) of `planned`. If `planned` is 0, there is no plan and no decay.
    pub fn learning_rate_at(&self, done: u64, planned: u64) -> f64 {
        let progress = match planned {
            0 => 0.0,
            planned => (done as f64 / planned as f64).min(1.0),
        };
        let warm = match self.warmup_steps {
            0 => 1.0,
            steps => ((done + 1) as f64 / steps as f64).min(1.0),
        };
        self.learning_rate * warm * (1.0 - (1.0 - self.final_learning_rate) * progress)
    }

    /// The step-size multiplier of the parameter of this name.
    pub fn rate_of(&self, name: &str) -> f64 {
        let found = self.lr_multipliers.iter().filter(|(key, _)| name.contains(key.as_str()));
        found.max_by_key(|(key, _)| key.len()).map_or(1.0, |(_, &rate)| rate)
    }
}

/// Supervised fine-tuning, and training from scratch. Both have the same loss, on the tokens of completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisedSettings {
    /// Examples in one gradient step; at least 1.
    #[serde(alias = "batch")]
    #[schemars(extend("aliases" = ["batch"]))]
    pub batch_size: usize,
    /// Number of parts that a batch is split into, from 1 to `batch_size`. Their gradients are added up: less memory,
    /// the same step.
    #[serde(alias = "accumulate")]
    #[schemars(extend("aliases" = ["accumulate"]))]
    pub gradient_accumulation_steps: usize,
    /// The optimiser, Adam.
    pub optimiser: OptimiserSettings,
}

impl Default for SupervisedSettings {
    fn default() -> Self {
        SupervisedSettings {
            batch_size: 32,
            gradient_accumulation_steps: 1,
            optimiser: OptimiserSettings { learning_rate: 1e-4, ..OptimiserSettings::default() },
        }
    }
}

impl SupervisedSettings {
    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        parts("text.supervised", self.batch_size, self.gradient_accumulation_steps)?;
        self.optimiser.check("text.supervised.optimiser")
    }
}

/// Where the rewards are set to 0 after training, and whether they are scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RewardNormalisation {
    /// The rewards of completions of the judged pairs have mean 0 and standard deviation 1.
    #[default]
    Samples,
    /// The rewards of the answers in the demonstrations have mean 0; they keep their scale (Stiennon et al. 2020).
    References,
}

/// Training a reward model on pairs of completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextRewardSettings {
    /// Pairs in one gradient step; at least 1.
    #[serde(alias = "batch")]
    #[schemars(extend("aliases" = ["batch"]))]
    pub batch_size: usize,
    /// Number of parts that a batch is split into, from 1 to `batch_size`. Their gradients are added up: less memory,
    /// the same step.
    #[serde(alias = "accumulate")]
    #[schemars(extend("aliases" = ["accumulate"]))]
    pub gradient_accumulation_steps: usize,
    /// Share of judgements that is assumed to be random, 0 to 1: ε in the Bradley–Terry likelihood.
    pub error_rate: f64,
    /// Margin in nats of log-odds: how much further ahead the better completion must be if the teacher calls it “much
    /// better”. 0 treats that like “better”. A `margin` in a data file counts as it is.
    pub margin: f64,
    /// c of the term c · (R_chosen + R_rejected)² of the loss, which keeps the rewards near 0; 0 or more (Eisenstein et
    /// al. 2023, TRL). 0 turns it off.
    pub center_rewards_coefficient: f64,
    /// Where the rewards are set to 0 after training: `samples` gives completions of the judged pairs mean 0 and
    /// standard deviation 1, `references` gives the answers in the demonstrations mean 0 and keeps the scale.
    pub normalise: RewardNormalisation,
    /// The optimiser, Adam.
    pub optimiser: OptimiserSettings,
}

impl Default for TextRewardSettings {
    fn default() -> Self {
        TextRewardSettings {
            batch_size: 16,
            gradient_accumulation_steps: 1,
            error_rate: 0.0,
            margin: 1.0,
            center_rewards_coefficient: 0.0,
            normalise: RewardNormalisation::Samples,
            optimiser: OptimiserSettings { learning_rate: 5e-5, ..OptimiserSettings::default() },
        }
    }
}

impl TextRewardSettings {
    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        parts("text.reward", self.batch_size, self.gradient_accumulation_steps)?;
        within("text.reward", "error_rate", self.error_rate, 0.0, 1.0)?;
        within("text.reward", "margin", self.margin, 0.0, f64::MAX)?;
        within("text.reward", "center_rewards_coefficient", self.center_rewards_coefficient, 0.0, f64::MAX)?;
        self.optimiser.check("text.reward.optimiser")
    }
}

/// Which completions are asked about. Both completions of a pair answer the same prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextLabelSettings {
    /// Completions that are written for each prompt, so that pairs can be chosen; 2 or more. Before the first answers
    /// there are two.
    pub completions: usize,
    /// Number of completions in the pool that pairs are chosen from, 32 or more. They are the most recent ones.
    pub pool: usize,
    /// Candidate pairs drawn for each pair that is asked about, 1 or more.
    pub candidates: usize,
    /// Share of the candidate pairs that is discarded because their two completions are the most similar, 0 to 1.
    pub drop_similar_share: f64,
    /// Share of the queries that repeat an answered pair with left and right swapped, 0 to 1. They measure the
    /// teacher's consistency.
    pub repeat_share: f64,
    /// How pairs are chosen, except those that are chosen at random (`text.labels.random_share`).
    pub choice: PairChoice,
    /// Share of the pairs that is chosen at random, 0 to 1.
    pub random_share: f64,
}

impl Default for TextLabelSettings {
    fn default() -> Self {
        let LabelSettings { candidates, repeat_share, choice, random_share, .. } = LabelSettings::default();
        TextLabelSettings {
            completions: 4,
            pool: 200,
            candidates,
            drop_similar_share: 0.0,
            repeat_share,
            choice,
            random_share,
        }
    }
}

impl TextLabelSettings {
    /// The same as settings of a robot's queries; what only those have is at its default.
    pub fn of_pairs(&self) -> LabelSettings {
        LabelSettings {
            pool: self.pool,
            candidates: self.candidates,
            drop_similar_share: self.drop_similar_share,
            repeat_share: self.repeat_share,
            choice: self.choice,
            random_share: self.random_share,
            ..LabelSettings::default()
        }
    }

    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        match self.completions {
            0 | 1 => Err("text.labels.completions must be at least 2, which make a pair".to_owned()),
            _ => self.of_pairs().check().map_err(|sentence| sentence.replace("`labels.", "`text.labels.")),
        }
    }
}

/// How KL(policy ‖ reference) is estimated from one sampled token, with r = reference/policy probability (Schulman,
/// "Approximating KL divergence", 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KlEstimator {
    /// −log r: unbiased, positive or negative.
    K1,
    /// ½ (log r)²: biased, never negative.
    K2,
    /// r − 1 − log r: unbiased, never negative.
    K3,
}

/// The KL penalty, which keeps the policy near the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KlSettings {
    /// β at the start, the price of a nat of KL; 0 or more. It stays constant unless `text.ppo.kl.adaptive` is true.
    pub beta: f64,
    /// Whether β is adapted so that the KL of a completion approaches `text.ppo.kl.target`.
    pub adaptive: bool,
    /// KL target: the KL of a whole completion that β is adapted to, in nats; above 0.
    pub target: f64,
    /// Number of episodes over which a KL error of 20 % or more changes β by 20 %; above 0.
    pub horizon: f64,
    /// Where the penalty stands: in the reward or in the loss.
    pub place: KlPlace,
    /// How the KL of a token is estimated: k1 in the reward, k2 or k3 in the loss.
    pub estimator: KlEstimator,
}

impl Default for KlSettings {
    fn default() -> Self {
        KlSettings {
            beta: 0.15,
            adaptive: true,
            target: 6.0,
            horizon: 10_000.0,
            place: KlPlace::Reward,
            estimator: KlEstimator::K1,
        }
    }
}

/// PPO for a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextPpoSettings {
    /// Episodes between two updates; at least 1. An episode is a prompt and its completion.
    #[serde(alias = "batch")]
    #[schemars(extend("aliases" = ["batch"]))]
    pub batch_size: usize,
    /// Episodes in one gradient step, from 1 to `text.ppo.batch_size`; 0 means all of them. If `text.ppo.batch_size` is
    /// set to less and this is not set, this is lowered to it.
    #[serde(alias = "minibatch")]
    #[schemars(extend("aliases" = ["minibatch"]))]
    pub minibatch_size: usize,
    /// Number of parts that a minibatch is split into, from 1 to `text.ppo.minibatch_size`. Their gradients are added
    /// up: less memory, the same step.
    #[serde(alias = "accumulate")]
    #[schemars(extend("aliases" = ["accumulate"]))]
    pub gradient_accumulation_steps: usize,
    /// Completions that are written for each prompt, a group; at least 1. They are written together, and the prompt is
    /// read once. `text.ppo.batch_size` counts completions and is a multiple of it. TRL's `num_generations`.
    #[serde(alias = "num_generations")]
    #[schemars(extend("aliases" = ["num_generations"]))]
    pub group_size: usize,
    /// Episodes that are generated together; 0 means all of `text.ppo.batch_size`.
    #[serde(alias = "side_by_side")]
    #[schemars(extend("aliases" = ["side_by_side"]))]
    pub rollout_batch_size: usize,
    /// Passes over the episodes in one update; at least 1.
    #[serde(alias = "epochs")]
    #[schemars(extend("aliases" = ["epochs"]))]
    pub update_epochs: usize,
    /// What a completion, or a token of it, is worth. Only `gae` has a critic.
    pub advantage: TextAdvantage,
    /// The probability ratio of policy and rollout that is clipped.
    pub ratio: TextRatio,
    /// What the losses of the tokens of a gradient step are divided by, over all parts of the step.
    pub average: TextAverage,
    /// Discount factor per token, γ, 0 to 1, with `text.ppo.advantage` = gae or batch.
    pub gamma: f64,
    /// λ of generalised advantage estimation (GAE), 0 to 1.
    #[serde(alias = "lambda")]
    #[schemars(extend("aliases" = ["lambda"]))]
    pub gae_lambda: f64,
    /// PPO's clip range, above 0: how far the probability ratio of a token may move from 1 before the objective becomes
    /// flat.
    #[serde(alias = "clip")]
    #[schemars(extend("aliases" = ["clip"]))]
    pub clip_coef: f64,
    /// How far the ratio may rise above 1, where `text.ppo.clip_coef` says how far it may fall below; 0 means the same.
    /// DAPO's ε_high, TRL's `epsilon_high`.
    #[serde(alias = "epsilon_high")]
    #[schemars(extend("aliases" = ["epsilon_high"]))]
    pub clip_high: f64,
    /// How far a value may move away from that of the rollout; 0 or more. 0 turns value clipping off.
    pub value_clip: f64,
    /// Weight of the value loss, where the policy loss has weight 1; 0 or more.
    #[serde(alias = "value_weight")]
    #[schemars(extend("aliases" = ["value_weight"]))]
    pub vf_coef: f64,
    /// Temperature, above 0: the logits are divided by it, both in sampling and in scoring.
    pub temperature: f64,
    /// Maximum number of tokens in a completion; at least 1. A completion that has not ended by then is cut.
    pub max_new_tokens: usize,
    /// What is subtracted from the reward of a completion without an end-of-sequence token, in units of the reward; 0
    /// or more.
    #[serde(alias = "missing_eos_cost")]
    #[schemars(extend("aliases" = ["missing_eos_cost"]))]
    pub missing_eos_penalty: f64,
    /// Share of `text.ppo.max_new_tokens` at its end in which a completion costs more with every token: nothing where
    /// it begins, `text.ppo.overlong_penalty` at the last token; 0 to 1. 0 turns it off. DAPO's is 0.2.
    pub overlong_share: f64,
    /// What is subtracted from the reward of a completion of `text.ppo.max_new_tokens` tokens, if
    /// `text.ppo.overlong_share` is above 0; 0 or more.
    pub overlong_penalty: f64,
    /// Whether groups whose completions all have the same score are left out, and further prompts are answered until
    /// enough groups differ (DAPO's dynamic sampling).
    pub drop_equal: bool,
    /// How often completions are drawn for one update at most, with `text.ppo.drop_equal`; at least 1. After that,
    /// training goes on with the groups that differ.
    pub drop_equal_rounds: usize,
    /// Whether completions that were cut at `text.ppo.max_new_tokens` are left out of the loss. They stay in the mean
    /// of their group. TRL's `mask_truncated_completions`.
    #[serde(alias = "mask_truncated_completions")]
    #[schemars(extend("aliases" = ["mask_truncated_completions"]))]
    pub drop_cut: bool,
    /// Whether the reward model's scores are divided by the standard deviation of all scores so far.
    pub scale_scores: bool,
    /// Whether the token rewards of an update, KL included, are scaled to standard deviation 1. Their mean does not
    /// change. Where all tokens of a completion share one advantage, it is the rewards of completions.
    pub whiten_rewards: bool,
    /// The KL penalty, which keeps the policy near the reference.
    pub kl: KlSettings,
    /// The optimiser, Adam.
    pub optimiser: OptimiserSettings,
}

impl Default for TextPpoSettings {
    fn default() -> Self {
        TextPpoSettings {
            batch_size: 64,
            minibatch_size: 16,
            gradient_accumulation_steps: 1,
            group_size: 1,
            rollout_batch_size: 0,
            update_epochs: 4,
            advantage: TextAdvantage::Gae,
            ratio: TextRatio::Token,
            average: TextAverage::Tokens,
            gamma: 1.0,
            gae_lambda: 0.95,
            clip_coef: 0.2,
            clip_high: 0.0,
            value_clip: 0.2,
            vf_coef: 0.1,
            temperature: 1.0,
            max_new_tokens: 24,
            missing_eos_penalty: 1.0,
            overlong_share: 0.0,
            overlong_penalty: 1.0,
            drop_equal: false,
            drop_equal_rounds: 10,
            drop_cut: false,
            scale_scores: false,
            whiten_rewards: false,
            kl: KlSettings::default(),
            optimiser: OptimiserSettings { learning_rate: 1e-5, ..OptimiserSettings::default() },
        }
    }
}

impl TextPpoSettings {
    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let room = "text.ppo";
        parts(room, self.minibatch(), self.gradient_accumulation_steps)?;
        for (name, value) in [
            ("batch_size", self.batch_size),
            ("update_epochs", self.update_epochs),
            ("max_new_tokens", self.max_new_tokens),
        ] {
            if value == 0 {
                return Err(format!("{room}.{name} must be at least 1"));
            }
        }
        if self.minibatch_size > self.batch_size {
            return Err(format!("{room}.minibatch_size must be at most {room}.batch_size, {}", self.batch_size));
        }
        within(room, "gamma", self.gamma, 0.0, 1.0)?;
        within(room, "gae_lambda", self.gae_lambda, 0.0, 1.0)?;
        above(room, "clip_coef", self.clip_coef)?;
        above(room, "temperature", self.temperature)?;
        within(room, "value_clip", self.value_clip, 0.0, f64::MAX)?;
        within(room, "vf_coef", self.vf_coef, 0.0, f64::MAX)?;
        within(room, "missing_eos_penalty", self.missing_eos_penalty, 0.0, f64::MAX)?;
        within(room, "kl.beta", self.kl.beta, 0.0, f64::MAX)?;
        above(room, "kl.target", self.kl.target)?;
        above(room, "kl.horizon", self.kl.horizon)?;
        self.check_estimator()?;
        self.optimiser.check("text.ppo.optimiser")
    }
}

pub(super) fn parts(room: &str, batch: usize, parts: usize) -> Result<(), String> {
    match (batch, parts) {
        (0, _) => Err(format!("{room}.batch_size must be at least 1")),
        (batch, parts) if parts == 0 || parts > batch => Err(format!(
            "{room}.gradient_accumulation_steps must be from 1 to the {batch} examples of a gradient step, not {parts}"
        )),
        _ => Ok(()),
    }
}

pub(super) fn above(room: &str, name: &str, value: f64) -> Result<(), String> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(format!("{room}.{name} must be a number above 0, not {value}")),
    }
}

pub(super) fn within(room: &str, name: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    match ((low..=high).contains(&value), high) {
        (true, _) => Ok(()),
        (false, f64::MAX) => Err(format!("{room}.{name} must be a number of at least {low}, not {value}")),
        (false, _) => Err(format!("{room}.{name} must be a number from {low} to {high}, not {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_size_rises_then_falls_to_nothing() {
        let settings = OptimiserSettings { learning_rate: 1.0, warmup_steps: 4, ..OptimiserSettings::default() };
        let rates: Vec<f64> = [0, 1, 3, 10, 20, 30].map(|done| settings.learning_rate_at(done, 20)).to_vec();
        assert_eq!(rates, [0.25, 0.5 * 0.95, 0.85, 0.5, 0.0, 0.0]);
        assert_eq!(settings.learning_rate_at(1_000_000, 0), 1.0);
    }

    #[test]
    fn the_longest_name_decides_the_rate() {
        let rates = [("h.1.", 0.5), ("h.1.attn", 0.1), ("head", 10.0)].map(|(name, rate)| (name.to_owned(), rate));
        let settings = OptimiserSettings { lr_multipliers: rates.into(), ..OptimiserSettings::default() };
        let names = ["h.1.mlp.w", "h.1.attn.w", "value.head", "h.11.mlp.w"];
        assert_eq!(names.map(|name| settings.rate_of(name)), [0.5, 0.1, 10.0, 1.0]);
    }

    #[test]
    fn impossible_settings_are_named() {
        TextPpoSettings::default().check().unwrap();
        SupervisedSettings::default().check().unwrap();
        TextRewardSettings::default().check().unwrap();
        TextLabelSettings::default().check().unwrap();
        let labels = TextLabelSettings { random_share: 1.5, ..TextLabelSettings::default() };
        assert_eq!(labels.check().unwrap_err(), "expected `text.labels.random_share` from 0 to 1, not 1.5");
        let ppo = TextPpoSettings::default;
        for (settings, wanted) in [
            (
                TextPpoSettings { minibatch_size: 65, ..ppo() },
                "text.ppo.minibatch_size must be at most text.ppo.batch_size, 64",
            ),
            (
                TextPpoSettings { gradient_accumulation_steps: 17, ..ppo() },
                "text.ppo.gradient_accumulation_steps must be from 1 to the 16 examples of a gradient step, not 17",
            ),
            (TextPpoSettings { temperature: 0.0, ..ppo() }, "text.ppo.temperature must be a number above 0, not 0"),
            (TextPpoSettings { gae_lambda: 2.0, ..ppo() }, "text.ppo.gae_lambda must be a number from 0 to 1, not 2"),
        ] {
            assert_eq!(settings.check().unwrap_err(), wanted);
        }
        assert!(toml::from_str::<TextPpoSettings>("[kl]\nbeta = 0.1\nestimator = 'k3'").is_ok());
        assert!(toml::from_str::<TextPpoSettings>("[kl]\nbetta = 0.1").unwrap_err().to_string().contains("betta"));
    }
}
