//! Settings of a run in text mode: the model, the data, the pipeline stages, and how each of them learns.

use super::{
    IlqlSettings, KlSettings, MonitorSettings, OptimiserSettings, SupervisedSettings, TextLabelSettings,
    TextOnlineDpoSettings, TextPpoSettings, TextPreferenceSettings, TextRewardSettings,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// The pipeline stages of a run in text mode. After the supervised model, a run goes one of four ways: to a reward
/// model and PPO, to learning from preferences directly, to ILQL, or to online DPO ([`TextStage::path`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextStage {
    /// Trains the base model on documents.
    Base,
    /// Trains the supervised model (SFT) on demonstrations: prompts with completions.
    Supervised,
    /// Trains the reward model on judgements.
    Reward,
    /// Trains the policy with PPO against the reward model.
    #[default]
    Ppo,
    /// Trains the policy on judgements directly, with the loss of DPO or one of its relatives.
    Preference,
    /// Trains the policy on judged completions by ILQL.
    Ilql,
    /// Trains the policy on judgements of its own completions, with the loss of DPO or one of its relatives.
    OnlineDpo,
}

impl TextStage {
    /// All stages. Each comes after those that it builds on.
    pub const ALL: [TextStage; 7] = [
        TextStage::Base,
        TextStage::Supervised,
        TextStage::Reward,
        TextStage::Ppo,
        TextStage::Preference,
        TextStage::Ilql,
        TextStage::OnlineDpo,
    ];

    /// The stage's name in files and folders.
    pub fn name(self) -> &'static str {
        ["base", "supervised", "reward", "ppo", "preference", "ilql", "online-dpo"][self as usize]
    }

    /// The stages of a run that ends with this one, in order.
    pub fn path(self) -> &'static [TextStage] {
        match self {
            TextStage::Base => &[TextStage::Base],
            TextStage::Supervised => &[TextStage::Base, TextStage::Supervised],
            TextStage::Reward => &[TextStage::Base, TextStage::Supervised, TextStage::Reward],
            TextStage::Ppo => &[TextStage::Base, TextStage::Supervised, TextStage::Reward, TextStage::Ppo],
            TextStage::Preference => &[TextStage::Base, TextStage::Supervised, TextStage::Preference],
            TextStage::Ilql => &[TextStage::Base, TextStage::Supervised, TextStage::Ilql],
            TextStage::OnlineDpo => &[TextStage::Base, TextStage::Supervised, TextStage::OnlineDpo],
        }
    }

    /// The stage that follows this one in a run that ends with `until`; `None` if it ends here. On another way, it is
    /// the first one after the supervised model.
    pub fn next_towards(self, until: TextStage) -> Option<TextStage> {
        until.path().iter().copied().find(|stage| !self.path().contains(stage))
    }
}

/// The number type of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextPrecision {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16. Norms, softmax and logits are in f32, and Adam has f32 master weights.
    Bf16,
}

impl FromStr for TextPrecision {
    type Err = String;

    fn from_str(text: &str) -> Result<TextPrecision, String> {
        match text {
            "f32" => Ok(TextPrecision::F32),
            "bf16" => Ok(TextPrecision::Bf16),
            _ => Err("expected f32 or bf16".to_owned()),
        }
    }
}

/// Low-rank adapters (LoRA, Hu et al. 2021): which linear maps get one, and how large it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSettings {
    /// r: the rank of an adapter; at least 1.
    pub rank: usize,
    /// Scale of an adapter: alpha / rank times the product of its two matrices is added to the map.
    pub alpha: f64,
    /// Share of an adapter's inputs that is set to 0 in supervised and reward training, from 0 to below 1. PPO has no
    /// dropout, since the policy and its samples must agree.
    pub dropout: f64,
    /// Linear maps that get an adapter, by the last part of their names (`q_proj`, `c_attn`, `down_proj`). An empty
    /// list means every linear map.
    pub targets: Vec<String>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        LoraSettings { rank: 16, alpha: 32.0, dropout: 0.0, targets: vec![] }
    }
}

impl FromStr for LoraSettings {
    type Err = String;

    /// Parses `r=16,alpha=32,dropout=0.05,targets=all` or `targets=q_proj+v_proj`. Any part may be left out. Without
    /// `alpha`, it is twice the rank.
    fn from_str(text: &str) -> Result<LoraSettings, String> {
        let mut settings = LoraSettings::default();
        let mut alpha = None;
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not NAME=VALUE"))?;
            let bad = |what: &str| format!("`{name}` is `{value}`; expected {what}");
            match name {
                "r" => {
                    settings.rank = value.parse().ok().filter(|&r| r > 0).ok_or_else(|| bad("a rank of 1 or more"))?
                }
                "alpha" => {
                    let number = value.parse().ok().filter(|a: &f64| a.is_finite() && *a > 0.0);
                    alpha = Some(number.ok_or_else(|| bad("a number above 0"))?);
                }
                "dropout" => {
                    let share = value.parse().ok().filter(|p| (0.0..1.0).contains(p));
                    settings.dropout = share.ok_or_else(|| bad("a share from 0 to below 1"))?;
                }
                "targets" if value == "all" => settings.targets = Vec::new(),
                "targets" => settings.targets = value.split('+').map(str::to_owned).collect(),
                _ => return Err(format!("`{name}` is not known; expected r, alpha, dropout or targets")),
            }
        }
        settings.alpha = alpha.unwrap_or(2.0 * settings.rank as f64);
        Ok(settings)
    }
}

/// The size of a GPT-2 that is trained from scratch. The built-in model has the default one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextShape {
    /// Tokens in the vocabulary of the model's byte-level BPE tokenizer; at least 258.
    pub vocabulary: usize,
    /// Context length in tokens: the number of positions.
    pub context: usize,
    /// Size of a hidden state.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads in a block.
    pub heads: usize,
}

impl Default for TextShape {
    fn default() -> Self {
        TextShape { vocabulary: 1024, context: 192, width: 128, layers: 4, heads: 4 }
    }
}

/// All settings of a run in text mode. They are stored with its session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextRun {
    /// Folder of the model to start from. None means the built-in model.
    pub model: Option<PathBuf>,
    /// Folder of an adapter in PEFT's format, which is merged into `text.model` before training.
    pub adapter: Option<PathBuf>,
    /// First pipeline stage that is trained. The model has already been through the stages before it. Unless it is set,
    /// a run on the built-in model starts with the first stage of its own: reward, if all settings of the base and the
    /// supervised stage are the default ones; supervised, if those of the base stage are. With `base`, the built-in
    /// model is trained from scratch.
    pub from: TextStage,
    /// Last pipeline stage that is trained.
    pub until: TextStage,
    /// Folder of a finished reward model, to use instead of training one.
    pub reward_model: Option<PathBuf>,
    /// What scores completions in PPO and online DPO instead of a reward model: a list of `[WEIGHT*]KIND:ARGUMENT`,
    /// whose scores are added up. The kinds are model, mean, minimum, mean-LAMBDA*variance, regex, number, length and
    /// program. Nobody is then asked for judgements.
    pub reward_functions: Vec<String>,
    /// File of documents for the base model, JSON lines. None uses the built-in grammar's.
    pub documents: Option<PathBuf>,
    /// File of prompts with completions for the supervised model, JSON lines. None uses the built-in grammar's.
    pub demonstrations: Option<PathBuf>,
    /// File of judged pairs, JSON lines, for the reward model, for learning from preferences directly and for ILQL.
    /// They are added to the judgements of the session. KTO and ILQL also take completions with a label.
    pub comparisons: Option<PathBuf>,
    /// File of prompts to answer, JSON lines. None uses the prompts of the demonstrations.
    pub prompts: Option<PathBuf>,
    /// Whether lines of data files that cannot be read are reported and left out.
    pub skip_bad_lines: bool,
    /// Whether fields of data files that carry text and are not used are passed over. Otherwise they are an error.
    pub ignore_fields: bool,
    /// The size of a GPT-2 that is trained from scratch. The built-in model has the default one.
    pub shape: TextShape,
    /// The number type of weights and activations.
    pub precision: TextPrecision,
    /// Low-rank adapters, which are trained instead of all weights: from the supervised stage on, or in all stages if
    /// `text.model` is given. None trains all weights.
    pub lora: Option<LoraSettings>,
    /// Number of blocks, counted from the embedding, that are not trained. The embedding is then not trained, either.
    /// Policy, reference and reward model share these blocks.
    pub frozen_layers: usize,
    /// Whether only the inputs of blocks are kept for the gradients, and each block is computed again in the backward
    /// pass. This saves memory and takes a third more time.
    pub gradient_checkpointing: bool,
    /// Gradient steps of the base model.
    pub base_steps: u64,
    /// Gradient steps of the supervised model.
    pub supervised_steps: u64,
    /// Gradient steps of the reward model, over all planned judgements together.
    pub reward_steps: u64,
    /// Number of PPO updates.
    pub updates: u64,
    /// Number of policies that PPO saves on the way, at equal distances: `models/ppo-00025` and so on. With adapters,
    /// only the adapter is saved.
    pub policy_checkpoints: u64,
    /// Gradient steps of learning from preferences directly.
    pub preference_steps: u64,
    /// Gradient steps of ILQL.
    pub ilql_steps: u64,
    /// Gradient steps of online DPO. Where a reward function judges, each step writes completions of its own.
    pub online_dpo_steps: u64,
    /// Training of the base model.
    pub base: SupervisedSettings,
    /// Training of the supervised model.
    pub supervised: SupervisedSettings,
    /// Which completions are asked about.
    pub labels: TextLabelSettings,
    /// When the learned reward is no longer trusted.
    pub monitor: MonitorSettings,
    /// Training of the reward model.
    pub reward: TextRewardSettings,
    /// Training of the policy with PPO.
    pub ppo: TextPpoSettings,
    /// Training of the policy on judgements directly.
    pub preference: TextPreferenceSettings,
    /// Training of the policy by ILQL.
    pub ilql: IlqlSettings,
    /// How online DPO writes completions and has them judged. Its loss and optimiser are `text.preference`.
    pub online_dpo: TextOnlineDpoSettings,
}

impl Default for TextRun {
    fn default() -> Self {
        let at = |learning_rate: f64| OptimiserSettings { learning_rate, ..OptimiserSettings::default() };
        let ppo = TextPpoSettings::default();
        TextRun {
            model: None,
            adapter: None,
            from: TextStage::Base,
            until: TextStage::Ppo,
            reward_model: None,
            reward_functions: vec![],
            documents: None,
            demonstrations: None,
            comparisons: None,
            prompts: None,
            skip_bad_lines: false,
            ignore_fields: false,
            shape: TextShape::default(),
            precision: TextPrecision::default(),
            lora: None,
            frozen_layers: 0,
            gradient_checkpointing: false,
            // Many small steps: with the same number of texts, a batch of 8 brings the base model to 0.604 nats per
            // token and a batch of 32 to 0.652. The reward model cannot score well what the base model cannot write.
            base_steps: 2400,
            supervised_steps: 800,
            // Two passes over 500 answers. Five passes fit their noise.
            reward_steps: 60,
            updates: 100,
            policy_checkpoints: 0,
            preference_steps: 100,
            ilql_steps: 400,
            online_dpo_steps: 100,
            base: SupervisedSettings { batch_size: 8, optimiser: at(2e-3), ..SupervisedSettings::default() },
            supervised: SupervisedSettings { batch_size: 8, optimiser: at(5e-4), ..SupervisedSettings::default() },
            labels: TextLabelSettings::default(),
            monitor: MonitorSettings::default(),
            reward: TextRewardSettings { batch_size: 16, optimiser: at(3e-4), ..TextRewardSettings::default() },
            ppo: TextPpoSettings {
                max_new_tokens: 64,
                kl: KlSettings { horizon: 300.0, ..ppo.kl.clone() },
                optimiser: at(2e-4),
                ..ppo
            },
            preference: TextPreferenceSettings { optimiser: at(1e-4), ..TextPreferenceSettings::default() },
            ilql: IlqlSettings { optimiser: at(3e-4), ..IlqlSettings::default() },
            online_dpo: TextOnlineDpoSettings::default(),
        }
    }
}

impl TextRun {
    /// Refuses settings that cannot work. The error names the field and what it must be.
    pub fn check(&self) -> Result<(), String> {
        if self.stages().is_empty() {
            return Err(format!("text.from, {}, comes after text.until, {}", self.from.name(), self.until.name()));
        }
        if self.from > TextStage::Base && self.model.is_none() && self.shape != TextShape::default() {
            return Err(format!(
                "text.from = {} starts from the built-in model, which has the default text.shape: set text.model, or leave \
                 text.shape as it is",
                self.from.name()
            ));
        }
        if self.adapter.is_some() && self.model.is_none() {
            return Err("text.adapter needs the model that it was trained on: set text.model".to_owned());
        }
        if self.lora.as_ref().is_some_and(|lora| lora.rank == 0) {
            return Err("text.lora.rank must be at least 1".to_owned());
        }
        if self.lora.is_some() && self.frozen_layers > 0 {
            return Err("text.lora freezes every layer already: leave text.frozen_layers at 0".to_owned());
        }
        if self.from == TextStage::Ppo && !self.has_given_reward() {
            return Err("text.from = ppo needs a reward model to follow: set text.reward_model".to_owned());
        }
        if self.reward_model.is_some() && !self.reward_functions.is_empty() {
            return Err(
                "text.reward_functions and text.reward_model are both set: write the reward model among the functions, as model:DIR"
                    .to_owned(),
            );
        }
        if let Some(lora) = self.lora.as_ref().filter(|lora| !(0.0..1.0).contains(&lora.dropout)) {
            return Err(format!("text.lora.dropout must be a share from 0 to below 1, not {}", lora.dropout));
        }
        self.base.check()?;
        self.supervised.check()?;
        self.labels.check()?;
        self.reward.check()?;
        self.ppo.check()?;
        self.preference.check()?;
        self.ilql.check()?;
        self.online_dpo.check()?;
        if self.until == TextStage::OnlineDpo {
            self.online_dpo.check_loss(&self.preference)?;
            if self.comparisons.is_some() {
                return Err(
                    "text.comparisons are judged already, and online DPO has its own completions judged: leave \
                            them out, or set text.until = preference"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// The stages that are trained, in order; none if `from` comes after `until`. The first one after the supervised
    /// model stands for the one on the way to `until`.
    pub fn stages(&self) -> &'static [TextStage] {
        let path = self.until.path();
        let place = self.from.path().len() - 1;
        path.get(place..).unwrap_or_default()
    }

    /// Whether the reward is given and is not learned in this run.
    pub fn has_given_reward(&self) -> bool {
        self.reward_model.is_some() || !self.reward_functions.is_empty()
    }

    /// The default run: it starts from the built-in supervised model.
    pub fn built_in() -> TextRun {
        let run = TextRun::default();
        TextRun { from: run.first_stage(), ..run }
    }

    /// The first pipeline stage that a run on the built-in model has to train. The built-in base and supervised models
    /// stand for all stages with the default settings, whatever the seed and the precision. The run's last stage is
    /// trained in any case.
    pub fn first_stage(&self) -> TextStage {
        let usual = TextRun::default();
        let base = self.model.is_none()
            && self.documents.is_none()
            && (&self.shape, &self.base, self.base_steps) == (&usual.shape, &usual.base, usual.base_steps);
        let supervised = base
            && self.demonstrations.is_none()
            && self.lora.is_none()
            && self.frozen_layers == 0
            && (&self.supervised, self.supervised_steps) == (&usual.supervised, usual.supervised_steps);
        match (base, supervised) {
            (_, true) if self.until > TextStage::Supervised => self.until.path()[2],
            (true, _) if self.until > TextStage::Base => TextStage::Supervised,
            _ => TextStage::Base,
        }
    }

    /// The temperature at which completions are written that are judged or shown, and the maximum number of their
    /// tokens.
    pub fn sampling(&self) -> (f64, usize) {
        match self.until {
            TextStage::OnlineDpo => (self.online_dpo.temperature, self.online_dpo.max_new_tokens),
            _ => (self.ppo.temperature, self.ppo.max_new_tokens),
        }
    }

    /// Gradient steps or updates of this stage; 0 if the stage is not trained.
    pub fn steps_of(&self, stage: TextStage) -> u64 {
        if !self.stages().contains(&stage) {
            return 0;
        }
        match stage {
            TextStage::Base => self.base_steps,
            TextStage::Supervised => self.supervised_steps,
            TextStage::Reward if self.has_given_reward() => 0,
            TextStage::Reward => self.reward_steps,
            TextStage::Ppo => self.updates,
            TextStage::Preference => self.preference_steps,
            TextStage::Ilql => self.ilql_steps,
            TextStage::OnlineDpo => self.online_dpo_steps,
        }
    }

    /// Steps of all stages together.
    pub fn steps(&self) -> u64 {
        self.stages().iter().map(|&stage| self.steps_of(stage)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_typed_in_a_word() {
        let all = LoraSettings::default();
        assert_eq!("r=16,targets=all".parse(), Ok(all.clone()));
        assert_eq!("".parse(), Ok(all.clone()));
        let typed: LoraSettings = "r=4,alpha=4,dropout=0.1,targets=q_proj+v_proj".parse().unwrap();
        let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
        assert_eq!(typed, LoraSettings { rank: 4, alpha: 4.0, dropout: 0.1, targets });
        assert_eq!("r=8".parse::<LoraSettings>().map(|l| l.alpha), Ok(16.0));
        for wrong in ["r=0", "r", "rank=3", "alpha=-1", "dropout=1"] {
            assert!(wrong.parse::<LoraSettings>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn impossible_runs_are_refused() {
        TextRun::default().check().unwrap();
        let shape = TextShape { width: 64, ..TextShape::default() };
        let run = TextRun { from: TextStage::Reward, shape, ..TextRun::default() };
        assert!(run.check().unwrap_err().contains("text.model"));
        let run = TextRun { until: TextStage::Base, from: TextStage::Reward, ..TextRun::default() };
        assert!(run.check().unwrap_err().contains("comes after"));
        let lora = LoraSettings { dropout: 1.0, ..LoraSettings::default() };
        let run = TextRun { lora: Some(lora), ..TextRun::default() };
        assert!(run.check().unwrap_err().contains("dropout"));
        let run = TextRun { model: Some("m".into()), from: TextStage::Ppo, ..TextRun::default() };
        assert!(run.check().unwrap_err().contains("text.reward_model"));
        let run = TextRun { until: TextStage::Supervised, ..TextRun::default() };
        assert_eq!((run.steps(), run.steps_of(TextStage::Ppo)), (3200, 0));
        // From the supervised model, one way leads to PPO and another to DPO.
        let run = TextRun { until: TextStage::Preference, from: TextStage::Reward, ..TextRun::default() };
        assert_eq!((run.stages(), run.steps()), (&[TextStage::Preference][..], 100));
        assert_eq!(run.first_stage(), TextStage::Preference);
        assert_eq!(TextStage::Reward.next_towards(TextStage::Ppo), Some(TextStage::Ppo));
        assert_eq!(TextStage::Ppo.next_towards(TextStage::Ilql), Some(TextStage::Ilql));
        assert_eq!(TextStage::Ilql.next_towards(TextStage::Ilql), None);
        assert!(TextRun { until: TextStage::Ilql, from: TextStage::Ppo, ..TextRun::default() }.check().is_err());
        let online = TextRun { until: TextStage::OnlineDpo, from: TextStage::Reward, ..TextRun::default() };
        assert_eq!((online.stages(), online.first_stage()), (&[TextStage::OnlineDpo][..], TextStage::OnlineDpo));
        online.check().unwrap();
        let judged = TextRun { comparisons: Some("pairs.jsonl".into()), ..online };
        assert!(judged.check().unwrap_err().contains("text.comparisons"));
        let back: TextRun = toml::from_str(&toml::to_string(&run).unwrap()).unwrap();
        assert_eq!(back, run);
    }
}
