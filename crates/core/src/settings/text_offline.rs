//! Settings for learning from a fixed set of judgements, without writing completions: the losses of direct preference
//! optimisation (DPO) and its relatives, and ILQL. The defaults are those of TRL and trlX.

use super::OptimiserSettings;
use super::text::{above, parts, within};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The loss of learning from preferences without a reward model. h is how much further the policy has moved towards the
/// better completion than towards the worse one: the difference of their log-ratios, log π − log π_ref, each summed
/// over the completion's tokens. σ is the logistic function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PreferenceLoss {
    /// DPO: −log σ(β h) (Rafailov et al. 2023).
    #[default]
    Sigmoid,
    /// max(0, 1 − β h) (SLiC; Zhao et al. 2023).
    Hinge,
    /// IPO: (h − 1/(2β))², with β for τ and log-ratios per token (Azar et al. 2023).
    Ipo,
    /// The sigmoid loss, corrected for a share of answers that is turned round (Chowdhury et al. 2024).
    Robust,
    /// Conservative DPO: the sigmoid loss for labels of which a share is wrong (Mitchell 2023).
    Cdpo,
    /// The sigmoid loss with log-ratios per token.
    LengthNormalised,
    /// The sigmoid loss with a uniform reference.
    ReferenceFree,
    /// SimPO: −log σ(β h − γ) with log-probabilities per token and no reference (Meng et al. 2024).
    Simpo,
    /// ORPO: the negative log-likelihood per token of the better completion, and −β log σ of the difference of the
    /// log-odds, without a reference (Hong et al. 2024).
    Orpo,
    /// KTO: single completions that are good or bad (Ethayarajh et al. 2024).
    Kto,
}

impl PreferenceLoss {
    /// All losses.
    pub const ALL: [PreferenceLoss; 10] = [
        PreferenceLoss::Sigmoid,
        PreferenceLoss::Hinge,
        PreferenceLoss::Ipo,
        PreferenceLoss::Robust,
        PreferenceLoss::Cdpo,
        PreferenceLoss::LengthNormalised,
        PreferenceLoss::ReferenceFree,
        PreferenceLoss::Simpo,
        PreferenceLoss::Orpo,
        PreferenceLoss::Kto,
    ];

    /// The loss's name in settings and on the command line.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 10] = [
            "sigmoid",
            "hinge",
            "ipo",
            "robust",
            "cdpo",
            "length-normalised",
            "reference-free",
            "simpo",
            "orpo",
            "kto",
        ];
        NAMES[self as usize]
    }

    /// Whether the loss compares the policy with a reference.
    pub fn has_reference(self) -> bool {
        !matches!(self, PreferenceLoss::ReferenceFree | PreferenceLoss::Simpo | PreferenceLoss::Orpo)
    }
}

impl FromStr for PreferenceLoss {
    type Err = String;

    fn from_str(text: &str) -> Result<PreferenceLoss, String> {
        PreferenceLoss::ALL.into_iter().find(|loss| loss.name() == text).ok_or_else(|| {
            let names = PreferenceLoss::ALL.map(PreferenceLoss::name);
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// Learning from preferences without a reward model: DPO and its relatives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextPreferenceSettings {
    /// The loss.
    pub loss: PreferenceLoss,
    /// Pairs in one gradient step, at least 1; with the loss `kto` completions, at least 2.
    pub batch_size: usize,
    /// Number of parts that a batch is split into, from 1 to `batch_size`. Their gradients are added up: less memory,
    /// the same step.
    pub gradient_accumulation_steps: usize,
    /// β, above 0: how much a nat of log-ratio counts. The larger it is, the nearer the policy stays to the reference.
    /// It is τ of IPO and the weight λ of ORPO's odds. None means 2 for `simpo` and 0.1 for all others.
    pub beta: Option<f64>,
    /// ε, from 0 to below 0.5: the share of answers that is taken to be wrong. Only `robust` and `cdpo` read it.
    pub label_smoothing: f64,
    /// SimPO's margin γ as a share of β, 0 or more.
    pub gamma_beta_ratio: f64,
    /// Whether IPO takes the sums of log-ratios over a completion, as its authors do, and not their means per token, as
    /// TRL does. τ then means something else, by a factor of the length.
    pub ipo_sum: bool,
    /// Weight α of the better completion's negative log-likelihood per token, which is added to the loss of a pair; 0
    /// or more.
    pub nll_weight: f64,
    /// How much further ahead a completion that was judged much better must be, in log-odds; 0 or more. A `margin` in a
    /// data file counts as it is. `ipo`, `orpo` and `kto` have no log-odds and pass over both.
    pub margin: f64,
    /// KTO's weight λ of a good completion, 0 or more. λ times the number of good completions should be 1 to 4/3 of that
    /// of the bad ones.
    pub desirable_weight: f64,
    /// KTO's weight λ of a bad completion, 0 or more.
    pub undesirable_weight: f64,
    /// Whether the reference's log-probabilities are computed once, before the first step, and kept. Otherwise the
    /// reference is the policy with its adapters off, and every step computes them. A policy without adapters has them
    /// computed in any case, except with the loss `kto`, which holds a copy of the model.
    pub precompute_ref_log_probs: bool,
    /// The optimiser, Adam.
    pub optimiser: OptimiserSettings,
}

impl Default for TextPreferenceSettings {
    fn default() -> Self {
        TextPreferenceSettings {
            loss: PreferenceLoss::Sigmoid,
            batch_size: 16,
            gradient_accumulation_steps: 1,
            beta: None,
            label_smoothing: 0.1,
            gamma_beta_ratio: 0.5,
            ipo_sum: false,
            nll_weight: 0.0,
            margin: 0.0,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            precompute_ref_log_probs: false,
            optimiser: OptimiserSettings { learning_rate: 1e-6, ..OptimiserSettings::default() },
        }
    }
}

impl TextPreferenceSettings {
    /// β, or the loss's own default.
    pub fn beta(&self) -> f64 {
        self.beta.unwrap_or(if self.loss == PreferenceLoss::Simpo { 2.0 } else { 0.1 })
    }

    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let room = "text.preference";
        parts(room, self.batch_size, self.gradient_accumulation_steps)?;
        above(room, "beta", self.beta())?;
        if !(0.0..0.5).contains(&self.label_smoothing) {
            return Err(format!(
                "{room}.label_smoothing must be a share from 0 to below 0.5, not {}",
                self.label_smoothing
            ));
        }
        for (name, value) in [
            ("gamma_beta_ratio", self.gamma_beta_ratio),
            ("nll_weight", self.nll_weight),
            ("margin", self.margin),
            ("desirable_weight", self.desirable_weight),
            ("undesirable_weight", self.undesirable_weight),
        ] {
            within(room, name, value, 0.0, f64::MAX)?;
        }
        if self.loss == PreferenceLoss::Kto {
            if self.batch_size < 2 {
                return Err(format!("{room}.batch_size must be at least 2 with the loss kto, which pairs its rows"));
            }
            if self.precompute_ref_log_probs {
                return Err(format!(
                    "{room}.precompute_ref_log_probs must be false with the loss kto, which pairs the completions of \
                     every batch anew"
                ));
            }
        }
        self.optimiser.check("text.preference.optimiser")
    }
}

/// ILQL: implicit language Q-learning from completions with scores (Snell et al. 2022, as in trlX).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IlqlSettings {
    /// Completions in one gradient step; at least 1.
    pub batch_size: usize,
    /// Number of parts that a batch is split into, from 1 to `batch_size`. Their gradients are added up: less memory,
    /// the same step.
    pub gradient_accumulation_steps: usize,
    /// Discount factor per token, γ, 0 to 1.
    pub gamma: f64,
    /// τ, between 0 and 1: V is the τ-expectile of Q over the tokens of the data. The nearer to 1, the nearer to the best
    /// token.
    pub tau: f64,
    /// Weight of conservative Q-learning: the cross-entropy of Q with the tokens of the data, which keeps Q low
    /// elsewhere; 0 or more.
    pub cql_scale: f64,
    /// Weight of the cross-entropy of the language model with the tokens of the data; 0 or more.
    pub awac_scale: f64,
    /// Share by which the slow copies of the Q heads move towards them at a time, 0 to 1.
    pub alpha: f64,
    /// Gradient steps between two moves of the slow copies; at least 1.
    pub steps_for_target_q_sync: u64,
    /// β, 0 or more: completions are written by log π + β (Q − V). 0 is the language model alone.
    pub beta: f64,
    /// Only this many of the likeliest tokens are written; 0 for all.
    pub top_k: usize,
    /// The optimiser, Adam.
    pub optimiser: OptimiserSettings,
}

impl Default for IlqlSettings {
    fn default() -> Self {
        IlqlSettings {
            batch_size: 32,
            gradient_accumulation_steps: 1,
            gamma: 0.99,
            tau: 0.7,
            cql_scale: 0.1,
            awac_scale: 1.0,
            alpha: 0.001,
            steps_for_target_q_sync: 5,
            beta: 1.0,
            top_k: 0,
            optimiser: OptimiserSettings { learning_rate: 1e-4, ..OptimiserSettings::default() },
        }
    }
}

impl IlqlSettings {
    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let room = "text.ilql";
        parts(room, self.batch_size, self.gradient_accumulation_steps)?;
        within(room, "gamma", self.gamma, 0.0, 1.0)?;
        if !(self.tau > 0.0 && self.tau < 1.0) {
            return Err(format!("{room}.tau must be a number between 0 and 1, not {}", self.tau));
        }
        within(room, "cql_scale", self.cql_scale, 0.0, f64::MAX)?;
        within(room, "awac_scale", self.awac_scale, 0.0, f64::MAX)?;
        within(room, "alpha", self.alpha, 0.0, 1.0)?;
        within(room, "beta", self.beta, 0.0, f64::MAX)?;
        if self.steps_for_target_q_sync == 0 {
            return Err(format!("{room}.steps_for_target_q_sync must be at least 1"));
        }
        self.optimiser.check("text.ilql.optimiser")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_have_the_names_that_settings_have() {
        for loss in PreferenceLoss::ALL {
            assert_eq!(toml::Value::try_from(loss).unwrap().as_str(), Some(loss.name()));
            assert_eq!(loss.name().parse(), Ok(loss));
        }
        assert!("dpo".parse::<PreferenceLoss>().unwrap_err().contains("sigmoid, hinge"));
    }

    #[test]
    fn impossible_settings_are_named() {
        let usual = TextPreferenceSettings::default;
        usual().check().unwrap();
        IlqlSettings::default().check().unwrap();
        let kto = TextPreferenceSettings { loss: PreferenceLoss::Kto, ..usual() };
        for (settings, wanted) in [
            (TextPreferenceSettings { label_smoothing: 0.5, ..usual() }, "text.preference.label_smoothing"),
            (TextPreferenceSettings { beta: Some(0.0), ..usual() }, "text.preference.beta"),
            (TextPreferenceSettings { batch_size: 1, ..kto.clone() }, "at least 2"),
            (TextPreferenceSettings { precompute_ref_log_probs: true, ..kto }, "precompute_ref_log_probs"),
        ] {
            let sentence = settings.check().unwrap_err();
            assert!(sentence.contains(wanted), "{sentence}");
        }
        let simpo = TextPreferenceSettings { loss: PreferenceLoss::Simpo, ..usual() };
        assert_eq!([simpo.beta(), usual().beta()], [2.0, 0.1]);
        let sentence = IlqlSettings { tau: 1.0, ..IlqlSettings::default() }.check().unwrap_err();
        assert!(sentence.contains("text.ilql.tau"), "{sentence}");
    }
}
