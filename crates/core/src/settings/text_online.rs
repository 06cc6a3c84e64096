//! Settings for learning from preferences online: the policy writes the completions that are judged. The loss and the
//! optimiser are those of learning from a fixed set of judgements. The defaults are TRL's.

use super::text::{above, within};
use super::{PreferenceLoss, TextPreferenceSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Online DPO: how completions are written and judged (Guo et al. 2024, as in TRL). `text.preference` has the loss, β,
/// the optimiser and the number of pairs in a gradient step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextOnlineDpoSettings {
    /// Completions that are written for each prompt, at least 2. Reward functions score all of them, and the best and
    /// the worst become a pair. A teacher is asked about pairs that `text.labels` chooses.
    pub group_size: usize,
    /// Temperature, above 0: the logits are divided by it when completions are written. The loss has no temperature.
    pub temperature: f64,
    /// Maximum number of tokens in a completion; at least 1. A completion that has not ended by then is cut.
    pub max_new_tokens: usize,
    /// What is subtracted from the score of a completion without an end-of-sequence token, in units of the score; 0 or
    /// more. Answers of a teacher have no such price.
    pub missing_eos_penalty: f64,
    /// Answers of a teacher after which the policy learns, at least 1. The gradient steps of the plan are spread evenly
    /// over the planned answers.
    pub round_size: usize,
}

impl Default for TextOnlineDpoSettings {
    fn default() -> Self {
        TextOnlineDpoSettings {
            group_size: 2,
            temperature: 0.9,
            max_new_tokens: 64,
            missing_eos_penalty: 0.0,
            round_size: 16,
        }
    }
}

impl TextOnlineDpoSettings {
    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let room = "text.online_dpo";
        if self.group_size < 2 {
            return Err(format!("{room}.group_size must be at least 2, which make a pair"));
        }
        for (name, value) in [("max_new_tokens", self.max_new_tokens), ("round_size", self.round_size)] {
            if value == 0 {
                return Err(format!("{room}.{name} must be at least 1"));
            }
        }
        above(room, "temperature", self.temperature)?;
        within(room, "missing_eos_penalty", self.missing_eos_penalty, 0.0, f64::MAX)
    }

    /// Refuses settings of the loss that online DPO cannot work with.
    pub fn check_loss(&self, loss: &TextPreferenceSettings) -> Result<(), String> {
        if loss.loss == PreferenceLoss::Kto {
            return Err(
                "text.preference.loss = kto learns from single completions, and online DPO judges pairs: choose another \
                 loss"
                .to_owned(),
            );
        }
        if loss.precompute_ref_log_probs {
            return Err("text.preference.precompute_ref_log_probs must be false in online DPO, whose completions are \
                        not known before"
                .to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_named() {
        let usual = TextOnlineDpoSettings::default;
        usual().check().unwrap();
        usual().check_loss(&TextPreferenceSettings::default()).unwrap();
        for (settings, wanted) in [
            (TextOnlineDpoSettings { group_size: 1, ..usual() }, "text.online_dpo.group_size"),
            (TextOnlineDpoSettings { round_size: 0, ..usual() }, "text.online_dpo.round_size"),
            (TextOnlineDpoSettings { temperature: 0.0, ..usual() }, "text.online_dpo.temperature"),
        ] {
            let sentence = settings.check().unwrap_err();
            assert!(sentence.contains(wanted), "{sentence}");
        }
        let kto = TextPreferenceSettings { loss: PreferenceLoss::Kto, ..TextPreferenceSettings::default() };
        assert!(usual().check_loss(&kto).unwrap_err().contains("text.preference.loss"));
    }
}
