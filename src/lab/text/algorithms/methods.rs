//! The methods that are compared, with the settings that each is compared with.

use crate::settings::{Asked, TextPreset, TextStage};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A way to learn from judged completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextAlgorithm {
    /// PPO with a critic (Ziegler et al. 2019).
    Ppo,
    /// REINFORCE leave-one-out (Ahmadian et al. 2024).
    Rloo,
    /// Group relative policy optimisation (Shao et al. 2024).
    Grpo,
    /// Decoupled clip and dynamic sampling policy optimisation (Yu et al. 2025).
    Dapo,
    /// Direct preference optimisation (Rafailov et al. 2023).
    Dpo,
    /// Identity preference optimisation (Azar et al. 2023).
    Ipo,
    /// SimPO (Meng et al. 2024).
    Simpo,
    /// Odds-ratio preference optimisation (Hong et al. 2024).
    Orpo,
    /// Kahneman–Tversky optimisation (Ethayarajh et al. 2024).
    Kto,
    /// The best of 16 completions (Stiennon et al. 2020). Nothing is trained but the reward model.
    #[serde(rename = "best-of-16")]
    BestOf,
    /// Fine-tuning on the best of the model's own completions, in rounds (Touvron et al. 2023).
    RejectionSampling,
    /// Implicit language Q-learning (Snell et al. 2022).
    Ilql,
}

/// The n of best of n.
pub(super) const BEST_OF: usize = 16;

/// Rounds of rejection sampling, and prompts and completions of a prompt in each.
pub(super) const ROUNDS: usize = 3;
pub(super) const PROMPTS: usize = 160;
pub(super) const EACH: usize = 16;
/// The quantile of a prompt's scores that a completion must reach, in the first and the last round.
pub(super) const QUANTILES: [f64; 2] = [0.7, 0.95];

impl TextAlgorithm {
    /// All methods, in the order of the table.
    pub const ALL: [TextAlgorithm; 12] = [
        TextAlgorithm::Ppo,
        TextAlgorithm::Rloo,
        TextAlgorithm::Grpo,
        TextAlgorithm::Dapo,
        TextAlgorithm::Dpo,
        TextAlgorithm::Ipo,
        TextAlgorithm::Simpo,
        TextAlgorithm::Orpo,
        TextAlgorithm::Kto,
        TextAlgorithm::BestOf,
        TextAlgorithm::RejectionSampling,
        TextAlgorithm::Ilql,
    ];

    /// The name as it is typed and printed.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 12] = [
            "ppo",
            "rloo",
            "grpo",
            "dapo",
            "dpo",
            "ipo",
            "simpo",
            "orpo",
            "kto",
            "best-of-16",
            "rejection-sampling",
            "ilql",
        ];
        NAMES[self as usize]
    }

    /// Whether it follows a reward model that was fitted to the judgements before.
    pub fn has_reward_model(self) -> bool {
        matches!(self.stage(), None | Some(TextStage::Ppo))
    }

    /// The pipeline stage that trains the policy. Best of n and rejection sampling have none.
    pub(super) fn stage(self) -> Option<TextStage> {
        match self {
            TextAlgorithm::Ppo | TextAlgorithm::Rloo | TextAlgorithm::Grpo | TextAlgorithm::Dapo => {
                Some(TextStage::Ppo)
            }
            TextAlgorithm::Dpo
            | TextAlgorithm::Ipo
            | TextAlgorithm::Simpo
            | TextAlgorithm::Orpo
            | TextAlgorithm::Kto => Some(TextStage::Preference),
            TextAlgorithm::BestOf | TextAlgorithm::RejectionSampling => None,
            TextAlgorithm::Ilql => Some(TextStage::Ilql),
        }
    }

    /// The preset of its settings, for the methods that have one.
    fn preset(self) -> Option<TextPreset> {
        match self {
            TextAlgorithm::Ppo => Some(TextPreset::Ppo),
            TextAlgorithm::Rloo => Some(TextPreset::Rloo),
            TextAlgorithm::Grpo => Some(TextPreset::Grpo),
            TextAlgorithm::Dapo => Some(TextPreset::Dapo),
            _ => None,
        }
    }

    /// What differs from the preset and from the defaults, as `--set` takes it. Steps are chosen so that a run takes
    /// about a minute on two cores, and step sizes and β by the gold score with seed 100, which is in no table.
    fn assignments(self) -> &'static str {
        match self {
            TextAlgorithm::Ppo => "text.updates=60",
            TextAlgorithm::Rloo => {
                "text.updates=120; text.ppo.group_size=4; text.ppo.optimiser.learning_rate=1e-3; text.ppo.kl.beta=0.1"
            }
            TextAlgorithm::Grpo => "text.updates=80; text.ppo.optimiser.learning_rate=3e-4; text.ppo.kl.beta=0.2",
            // Without a KL penalty it stops before it has learned what the reward model is wrong about.
            TextAlgorithm::Dapo => "text.updates=25; text.ppo.optimiser.learning_rate=1e-4",
            TextAlgorithm::Dpo => {
                "text.preference.loss=sigmoid; text.preference_steps=100; text.preference.beta=0.3; \
                 text.preference.optimiser.learning_rate=2e-4"
            }
            TextAlgorithm::Ipo => "text.preference.loss=ipo; text.preference_steps=100",
            TextAlgorithm::Simpo => "text.preference.loss=simpo; text.preference_steps=100",
            TextAlgorithm::Orpo => {
                "text.preference.loss=orpo; text.preference_steps=100; text.preference.beta=5; \
                 text.preference.optimiser.learning_rate=3e-4"
            }
            TextAlgorithm::Kto => "text.preference.loss=kto; text.preference_steps=200",
            TextAlgorithm::BestOf => "",
            TextAlgorithm::RejectionSampling => {
                "text.supervised_steps=60; text.supervised.optimiser.learning_rate=2e-4"
            }
            TextAlgorithm::Ilql => {
                "text.ilql_steps=400; text.ilql.beta=16; text.ilql.alpha=0.1; text.ilql.optimiser.learning_rate=1e-3"
            }
        }
    }

    /// All of its settings that are not the defaults.
    ///
    /// # Errors
    ///
    /// A sentence, if a setting does not exist.
    pub(super) fn asked(self) -> Result<Asked, String> {
        let preset = self.preset().map_or("", TextPreset::assignments);
        Ok(Asked::assignments(preset)?.and(Asked::assignments(self.assignments())?))
    }
}

impl FromStr for TextAlgorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<TextAlgorithm, String> {
        TextAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or_else(|| {
            let names = TextAlgorithm::ALL.map(TextAlgorithm::name).join(", ");
            format!("expected one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{RunSettings, TextAdvantage, TextRun};

    #[test]
    fn each_method_has_a_name_and_settings_that_go_together() {
        for algorithm in TextAlgorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.name());
            let settings = RunSettings::of_text(TextRun::default()).with(&algorithm.asked().unwrap()).unwrap();
            let run = settings.text().unwrap();
            run.check().unwrap();
            let groups = matches!(algorithm, TextAlgorithm::Grpo | TextAlgorithm::Dapo);
            assert_eq!(run.ppo.advantage == TextAdvantage::GroupStd, groups, "{}", algorithm.name());
        }
        assert!("reinforce".parse::<TextAlgorithm>().unwrap_err().contains("best-of-16"));
    }
}
