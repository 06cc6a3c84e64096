//! The methods by which a run in text mode can learn, as the form for a new run offers them. A method is nothing but
//! settings: the run's last stage and, for PPO and its relatives, a preset.

use super::forms::PathField;
use crate::settings::{Asked, Mode, PreferenceLoss, RunSettings, TextPpoSettings, TextPreset, TextRun, TextStage};

/// A way to learn from judgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Following a reward: PPO or a relative of it. `None` stands for choices that no preset has.
    Policy(Option<TextPreset>),
    /// DPO or a relative of it, on a fixed set of judgements.
    Preference,
    /// ILQL.
    Ilql,
    /// DPO or a relative of it, on judgements of what the policy writes.
    OnlineDpo,
}

impl Method {
    /// All that the form offers.
    pub fn all() -> impl Iterator<Item = Method> {
        let presets = TextPreset::ALL.into_iter().map(|preset| Method::Policy(Some(preset)));
        presets.chain([Method::Preference, Method::OnlineDpo, Method::Ilql])
    }

    /// The method of a run.
    pub fn of(run: &TextRun) -> Method {
        match run.until {
            TextStage::Preference => Method::Preference,
            TextStage::Ilql => Method::Ilql,
            TextStage::OnlineDpo => Method::OnlineDpo,
            _ => Method::Policy(TextPreset::of(&run.ppo)),
        }
    }

    /// Its name on the form.
    pub fn title(self) -> &'static str {
        match self {
            Method::Policy(Some(preset)) => match preset {
                TextPreset::Ppo => "PPO",
                TextPreset::Rloo => "RLOO",
                TextPreset::Grpo => "GRPO",
                TextPreset::DrGrpo => "Dr. GRPO",
                TextPreset::Gspo => "GSPO",
                TextPreset::Dapo => "DAPO",
                TextPreset::ReinforcePlusPlus => "REINFORCE++",
            },
            Method::Policy(None) => "PPO with settings of its own",
            Method::Preference => "DPO and relatives",
            Method::Ilql => "ILQL",
            Method::OnlineDpo => "Online DPO",
        }
    }

    /// What it does, in a sentence.
    pub fn what(self) -> &'static str {
        match self {
            Method::Policy(Some(TextPreset::Ppo)) => "A reward model learns from the answers, and PPO follows it",
            Method::Policy(_) => "The policy follows a reward model that learns from answers; no critic",
            Method::Preference => "First all answers, or a file; then the policy learns from them directly",
            Method::Ilql => "First all answers, or a file; then Q and V say which tokens to write",
            Method::OnlineDpo => "The policy writes, its completions are judged, and it learns from that",
        }
    }

    /// Whether this path has a meaning in it.
    pub fn has(self, path: PathField) -> bool {
        match path {
            PathField::RewardModel => matches!(self, Method::Policy(_) | Method::OnlineDpo),
            PathField::Comparisons => self != Method::OnlineDpo,
            _ => true,
        }
    }

    /// Makes a run learn by this method. The settings that other methods read stay; those of a preset begin anew,
    /// except how completions are written.
    pub fn choose(self, settings: &mut RunSettings) {
        let Mode::Text(run) = &mut settings.mode else { return };
        run.until = match self {
            Method::Policy(_) => TextStage::Ppo,
            Method::Preference => TextStage::Preference,
            Method::Ilql => TextStage::Ilql,
            Method::OnlineDpo => TextStage::OnlineDpo,
        };
        if !self.has(PathField::RewardModel) {
            run.reward_model = None;
            run.reward_functions.clear();
        }
        if !self.has(PathField::Comparisons) {
            run.comparisons = None;
        }
        if self == Method::OnlineDpo && run.preference.loss == PreferenceLoss::Kto {
            run.preference.loss = PreferenceLoss::default();
        }
        if self == Method::OnlineDpo {
            run.preference.precompute_ref_log_probs = false;
        }
        let Method::Policy(Some(preset)) = self else { return };
        let TextPpoSettings { temperature, max_new_tokens, .. } = run.ppo;
        run.ppo = TextPpoSettings { temperature, max_new_tokens, ..TextRun::default().ppo };
        // A preset can always be parsed; a test goes through all of them.
        if let Ok(chosen) = Asked::assignments(preset.assignments()).and_then(|asked| settings.with(&asked)) {
            settings.mode = chosen.mode;
        }
    }
}

/// The losses of a method that has a choice of them.
pub(super) fn losses(method: Method) -> impl Iterator<Item = PreferenceLoss> {
    PreferenceLoss::ALL.into_iter().filter(move |loss| method != Method::OnlineDpo || *loss != PreferenceLoss::Kto)
}

/// A loss's name on the form.
pub(super) fn loss_title(loss: PreferenceLoss) -> &'static str {
    match loss {
        PreferenceLoss::Sigmoid => "DPO (sigmoid)",
        PreferenceLoss::Hinge => "Hinge (SLiC)",
        PreferenceLoss::Ipo => "IPO",
        PreferenceLoss::Robust => "Robust DPO",
        PreferenceLoss::Cdpo => "Conservative DPO",
        PreferenceLoss::LengthNormalised => "DPO per token",
        PreferenceLoss::ReferenceFree => "DPO without reference",
        PreferenceLoss::Simpo => "SimPO",
        PreferenceLoss::Orpo => "ORPO",
        PreferenceLoss::Kto => "KTO",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is chosen after whatever else, the run is the one that the command line would start, and it can start.
    #[test]
    fn a_method_is_the_settings_that_the_command_line_has_for_it() {
        for before in Method::all() {
            for method in Method::all() {
                let mut settings = RunSettings::of_text(TextRun::built_in());
                before.choose(&mut settings);
                method.choose(&mut settings);
                let run = settings.text().unwrap();
                assert_eq!(Method::of(run), method, "after {}", before.title());
                run.check().unwrap_or_else(|why| panic!("{}: {why}", method.title()));
                if let Method::Policy(Some(preset)) = method {
                    let asked = Asked::assignments(preset.assignments()).unwrap();
                    let usual = RunSettings::of_text(TextRun::default()).with(&asked).unwrap();
                    assert_eq!(run.ppo, usual.text().unwrap().ppo, "{}", preset.name());
                }
            }
        }
        let mut own = TextRun::built_in();
        own.ppo.ratio = crate::settings::TextRatio::CompletionSum;
        assert_eq!(Method::of(&own), Method::Policy(None));
    }

    /// What a method cannot use goes when it is chosen, and how completions are written stays.
    #[test]
    fn what_has_no_meaning_in_a_method_is_left_out() {
        let mut run = TextRun { reward_model: Some("r".into()), comparisons: Some("c".into()), ..TextRun::built_in() };
        (run.ppo.temperature, run.ppo.max_new_tokens, run.preference.loss) = (0.7, 20, PreferenceLoss::Kto);
        let mut settings = RunSettings::of_text(run);
        Method::Policy(Some(TextPreset::Dapo)).choose(&mut settings);
        let run = settings.text().unwrap();
        assert_eq!((run.ppo.temperature, run.ppo.max_new_tokens), (0.7, 20));
        assert!(run.reward_model.is_some() && run.comparisons.is_some());
        Method::Preference.choose(&mut settings);
        assert_eq!(settings.text().unwrap().reward_model, None);
        assert_eq!(settings.text().unwrap().preference.loss, PreferenceLoss::Kto);
        Method::OnlineDpo.choose(&mut settings);
        let run = settings.text().unwrap();
        assert_eq!((&run.comparisons, run.preference.loss), (&None, PreferenceLoss::Sigmoid));
        assert!(losses(Method::OnlineDpo).all(|loss| loss != PreferenceLoss::Kto));
    }
}
