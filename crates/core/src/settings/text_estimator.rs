//! How PPO's trainer of language models turns scores into a gradient: the advantage, the ratio, the average and the
//! place of the KL penalty. The published methods are choices among these; [`TextPreset`] has them by name.

use super::text::{above, within};
use super::{KlEstimator, TextPpoSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What a completion, or a token of it, is worth. R is the reward of a completion: its score and what is subtracted
/// from it. A group is the completions of one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextAdvantage {
    /// Generalised advantage estimation with a critic (Schulman et al. 2016), whitened over the update. PPO.
    #[default]
    Gae,
    /// R minus the mean R of the others in the group (Ahmadian et al. 2024). RLOO.
    Rloo,
    /// R minus the mean R of the group (Liu et al. 2025). Dr. GRPO.
    Group,
    /// The same divided by the standard deviation of R in the group (Shao et al. 2024). GRPO.
    GroupStd,
    /// The sum of the rewards still to come, whitened over all tokens of the update (Hu et al. 2025). REINFORCE++.
    Batch,
    /// R minus the mean R of the group, whitened over all tokens of the update (Hu et al. 2025).
    BatchBaseline,
}

impl TextAdvantage {
    /// Whether all tokens of a completion share one advantage.
    pub fn is_of_completions(self) -> bool {
        !matches!(self, TextAdvantage::Gae | TextAdvantage::Batch)
    }
}

/// The probability ratio of policy and rollout that is clipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextRatio {
    /// Of each token.
    #[default]
    Token,
    /// Of the whole completion: the product over its tokens. With n tokens, a clip range of 0.2 leaves each about
    /// 0.2/n.
    CompletionSum,
    /// The geometric mean over the tokens of a completion (Zheng et al. 2025). GSPO.
    CompletionMean,
}

/// What the losses of the tokens of a gradient step are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextAverage {
    /// Each completion's by its number of tokens, then by the number of completions: a token of a long completion
    /// counts less. GRPO.
    Completions,
    /// By the number of all tokens. DAPO, and PPO here.
    #[default]
    Tokens,
    /// By the number of completions times `text.ppo.max_new_tokens`. Dr. GRPO.
    Constant,
}

/// Where the KL penalty stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KlPlace {
    /// In the reward of each token, estimated by k1. The gradient is exactly that of reward − β KL.
    #[default]
    Reward,
    /// In the loss, estimated by k2 or k3. With more than one token it is not exact: it leaves out what a token does to
    /// the KL of the tokens after it.
    Loss,
}

/// The published methods by name. A preset is nothing but settings; what is set besides wins over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPreset {
    /// PPO with a critic (Ziegler et al. 2019): the default settings.
    Ppo,
    /// REINFORCE leave-one-out (Ahmadian et al. 2024), as in TRL.
    Rloo,
    /// Group relative policy optimisation (Shao et al. 2024).
    Grpo,
    /// GRPO without its two biases (Liu et al. 2025).
    DrGrpo,
    /// Group sequence policy optimisation (Zheng et al. 2025).
    Gspo,
    /// Decoupled clip and dynamic sampling policy optimisation (Yu et al. 2025).
    Dapo,
    /// REINFORCE++ (Hu et al. 2025).
    ReinforcePlusPlus,
}

impl TextPreset {
    /// All presets.
    pub const ALL: [TextPreset; 7] = [
        TextPreset::Ppo,
        TextPreset::Rloo,
        TextPreset::Grpo,
        TextPreset::DrGrpo,
        TextPreset::Gspo,
        TextPreset::Dapo,
        TextPreset::ReinforcePlusPlus,
    ];

    /// The name as it is typed.
    pub fn name(self) -> &'static str {
        ["ppo", "rloo", "grpo", "dr-grpo", "gspo", "dapo", "reinforce++"][self as usize]
    }

    /// The settings that it stands for, as `--set` takes them. Step size and batch are the run's, because they depend
    /// on the model.
    pub fn assignments(self) -> &'static str {
        match self {
            TextPreset::Ppo => {
                "text.ppo.advantage=gae; text.ppo.ratio=token; text.ppo.average=tokens; text.ppo.kl.place=reward; \
                 text.ppo.kl.estimator=k1"
            }
            // TRL's RLOO has one gradient step an update and two completions a prompt.
            TextPreset::Rloo => {
                "text.ppo.advantage=rloo; text.ppo.group_size=2; text.ppo.ratio=completion-sum; \
                 text.ppo.average=completions; text.ppo.minibatch_size=0; text.ppo.update_epochs=1; \
                 text.ppo.kl.place=reward; text.ppo.kl.estimator=k1; text.ppo.kl.beta=0.05; text.ppo.kl.adaptive=false"
            }
            TextPreset::Grpo => {
                "text.ppo.advantage=group-std; text.ppo.group_size=8; text.ppo.ratio=token; \
                 text.ppo.average=completions; text.ppo.minibatch_size=0; text.ppo.update_epochs=1; \
                 text.ppo.kl.place=loss; text.ppo.kl.estimator=k3; text.ppo.kl.beta=0.04; text.ppo.kl.adaptive=false"
            }
            TextPreset::DrGrpo => {
                "text.ppo.advantage=group; text.ppo.group_size=8; text.ppo.ratio=token; text.ppo.average=constant; \
                 text.ppo.minibatch_size=0; text.ppo.update_epochs=1; text.ppo.kl.place=loss; \
                 text.ppo.kl.estimator=k3; text.ppo.kl.beta=0; text.ppo.kl.adaptive=false"
            }
            TextPreset::Gspo => {
                "text.ppo.advantage=group-std; text.ppo.group_size=8; text.ppo.ratio=completion-mean; \
                 text.ppo.average=completions; text.ppo.clip_coef=0.0003; text.ppo.clip_high=0.0004; \
                 text.ppo.update_epochs=1; text.ppo.kl.place=loss; text.ppo.kl.estimator=k3; text.ppo.kl.beta=0; \
                 text.ppo.kl.adaptive=false"
            }
            TextPreset::Dapo => {
                "text.ppo.advantage=group-std; text.ppo.group_size=8; text.ppo.ratio=token; text.ppo.average=tokens; \
                 text.ppo.clip_coef=0.2; text.ppo.clip_high=0.28; text.ppo.update_epochs=1; \
                 text.ppo.drop_equal=true; text.ppo.overlong_share=0.2; text.ppo.missing_eos_penalty=0; \
                 text.ppo.kl.place=loss; text.ppo.kl.estimator=k3; text.ppo.kl.beta=0; text.ppo.kl.adaptive=false"
            }
            TextPreset::ReinforcePlusPlus => {
                "text.ppo.advantage=batch; text.ppo.group_size=1; text.ppo.ratio=token; text.ppo.average=tokens; \
                 text.ppo.update_epochs=1; text.ppo.kl.place=reward; text.ppo.kl.estimator=k1; \
                 text.ppo.kl.beta=0.01; text.ppo.kl.adaptive=false"
            }
        }
    }
}

impl TextPreset {
    /// The preset whose advantage, ratio, average and choice of groups these settings have, whatever their numbers are;
    /// `None` if there is none.
    pub fn of(settings: &TextPpoSettings) -> Option<TextPreset> {
        let TextPpoSettings { advantage, ratio, average, drop_equal, .. } = *settings;
        Some(match (advantage, ratio, average, drop_equal) {
            (TextAdvantage::Gae, TextRatio::Token, TextAverage::Tokens, false) => TextPreset::Ppo,
            (TextAdvantage::Rloo, TextRatio::CompletionSum, TextAverage::Completions, false) => TextPreset::Rloo,
            (TextAdvantage::GroupStd, TextRatio::Token, TextAverage::Completions, false) => TextPreset::Grpo,
            (TextAdvantage::Group, TextRatio::Token, TextAverage::Constant, false) => TextPreset::DrGrpo,
            (TextAdvantage::GroupStd, TextRatio::CompletionMean, TextAverage::Completions, false) => TextPreset::Gspo,
            (TextAdvantage::GroupStd, TextRatio::Token, TextAverage::Tokens, true) => TextPreset::Dapo,
            (TextAdvantage::Batch, TextRatio::Token, TextAverage::Tokens, false) => TextPreset::ReinforcePlusPlus,
            _ => return None,
        })
    }
}

impl FromStr for TextPreset {
    type Err = String;

    fn from_str(text: &str) -> Result<TextPreset, String> {
        TextPreset::ALL.into_iter().find(|preset| preset.name() == text).ok_or_else(|| {
            let names = TextPreset::ALL.map(TextPreset::name).join(", ");
            format!("expected one of {names}")
        })
    }
}

impl TextPpoSettings {
    /// Whether the trainer has a critic.
    pub fn has_critic(&self) -> bool {
        self.advantage == TextAdvantage::Gae
    }

    /// Episodes in one gradient step: `minibatch_size`, or the whole batch if that is 0.
    pub fn minibatch(&self) -> usize {
        if self.minibatch_size == 0 { self.batch_size } else { self.minibatch_size }
    }

    /// How far the ratio may fall below 1 and rise above it.
    pub fn clip_range(&self) -> [f64; 2] {
        [self.clip_coef, if self.clip_high == 0.0 { self.clip_coef } else { self.clip_high }]
    }

    /// Refuses choices of advantage, ratio, average and KL that do not go together.
    pub(super) fn check_estimator(&self) -> Result<(), String> {
        let (room, group) = ("text.ppo", self.group_size);
        if group == 0 {
            return Err(format!("{room}.group_size must be at least 1"));
        }
        let needs_group = !matches!(self.advantage, TextAdvantage::Gae | TextAdvantage::Batch);
        if group == 1 && (needs_group || self.drop_equal) {
            let what = if needs_group { "advantage compares" } else { "drop_equal compares" };
            return Err(format!("{room}.{what} the completions of a prompt: set {room}.group_size to 2 or more"));
        }
        for (name, value) in [("batch_size", self.batch_size), ("rollout_batch_size", self.rollout_batch_size)] {
            if !value.is_multiple_of(group) {
                return Err(format!("{room}.{name} must be a multiple of {room}.group_size, {group}, not {value}"));
            }
        }
        if self.ratio != TextRatio::Token && !self.advantage.is_of_completions() {
            return Err(format!(
                "{room}.ratio of whole completions needs an advantage of whole completions: set {room}.advantage to rloo, \
                 group, group-std or batch-baseline"
            ));
        }
        match (self.kl.place, self.kl.estimator) {
            (KlPlace::Reward, KlEstimator::K1) | (KlPlace::Loss, KlEstimator::K2 | KlEstimator::K3) => {}
            (KlPlace::Reward, estimator) => {
                return Err(format!(
                    "{room}.kl.estimator = {} pulls elsewhere than to the reference when it stands in the reward, so \
                     only k1 is let in there: start a new run with {room}.kl.estimator = k1, or with {room}.kl.place = \
                     loss",
                    estimator.name()
                ));
            }
            (KlPlace::Loss, _) => {
                return Err(format!(
                    "{room}.kl.estimator = k1 has no gradient in the loss: set it to k3 or k2, or {room}.kl.place to \
                     reward"
                ));
            }
        }
        if self.drop_equal && self.drop_equal_rounds == 0 {
            return Err(format!("{room}.drop_equal_rounds must be at least 1"));
        }
        if self.clip_high != 0.0 {
            above(room, "clip_high", self.clip_high)?;
        }
        within(room, "overlong_share", self.overlong_share, 0.0, 1.0)?;
        within(room, "overlong_penalty", self.overlong_penalty, 0.0, f64::MAX)
    }
}

impl KlEstimator {
    /// The name as it is typed.
    pub fn name(self) -> &'static str {
        ["k1", "k2", "k3"][self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_settings_that_go_together() {
        for preset in TextPreset::ALL {
            let text = preset.assignments().replace("; ", "\n").replace("text.ppo.", "");
            // Words are typed without quotes, as `--set` takes them.
            let quoted = |line: &str| {
                let (name, value) = line.trim().split_once('=').unwrap();
                match value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok() {
                    true => format!("{name} = {value}\n"),
                    false => format!("{name} = '{value}'\n"),
                }
            };
            let settings: TextPpoSettings = toml::from_str(&text.lines().map(quoted).collect::<String>()).unwrap();
            settings.check().unwrap_or_else(|why| panic!("{}: {why}", preset.name()));
            assert_eq!(preset.name().parse(), Ok(preset));
            assert_eq!(TextPreset::of(&settings), Some(preset));
            assert_eq!(settings == TextPpoSettings::default(), preset == TextPreset::Ppo, "{}", preset.name());
        }
        assert!("grppo".parse::<TextPreset>().unwrap_err().contains("dr-grpo"));
    }

    #[test]
    fn choices_that_do_not_go_together_are_refused_by_name() {
        let usual = TextPpoSettings::default;
        let kl = |place, estimator| super::super::KlSettings { place, estimator, ..usual().kl };
        for (settings, words) in [
            (TextPpoSettings { advantage: TextAdvantage::Rloo, ..usual() }, "text.ppo.group_size to 2"),
            (TextPpoSettings { drop_equal: true, ..usual() }, "text.ppo.drop_equal compares"),
            (TextPpoSettings { group_size: 7, ..usual() }, "text.ppo.batch_size must be a multiple"),
            (TextPpoSettings { ratio: TextRatio::CompletionSum, ..usual() }, "text.ppo.ratio"),
            (TextPpoSettings { kl: kl(KlPlace::Reward, KlEstimator::K3), ..usual() }, "only k1"),
            (TextPpoSettings { kl: kl(KlPlace::Loss, KlEstimator::K1), ..usual() }, "k3 or k2"),
            (TextPpoSettings { overlong_share: 2.0, ..usual() }, "text.ppo.overlong_share must be"),
        ] {
            let said = settings.check().unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(TextPpoSettings { clip_high: 0.28, ..usual() }.clip_range(), [0.2, 0.28]);
        assert_eq!((usual().clip_range(), usual().minibatch()), ([0.2, 0.2], 16));
        assert_eq!(TextPpoSettings { minibatch_size: 0, ..usual() }.minibatch(), 64);
    }
}
