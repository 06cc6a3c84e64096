//! What learns once there is a supervised model: the reward model, which is fitted to the judgements, and the policy, which follows it.

use crate::lab::shared_requests::Label;
use crate::settings::{TextRun, TextStage};
use flipside_core::{JudgementId, Stream, both_completions};
use flipside_text::generate::Sampling;
use flipside_text::model::Transformer;
use flipside_text::{Bundle, Example, TextComparison, TextPpo, TextReward, log_probs};

/// Answers of a person before the reward model first learns: with fewer it learns the pair and not the teacher reward.
pub(super) const FIRST_FIT: usize = 12;

/// Rows that are scored at once where nothing is learnt.
const SCORED: usize = 32;

/// Judgements of which the share that the reward model foresaw is told.
const FORESEEN: usize = 50;

/// The policy, its reward model, and what they come from.
pub(super) struct Teaching {
    /// Where it began: with the reward model, or with PPO on a finished one.
    pub stage: TextStage,
    /// The supervised model: what the policy is held near.
    pub start: Bundle,
    pub reward: TextReward<Transformer>,
    pub ppo: TextPpo<Transformer>,
    /// Whether the reward model was given, or has learnt enough to be followed.
    pub trusted: bool,
    /// Whether the reward model was given and does not learn.
    pub given: bool,
    /// Judgements of the last fit, the newest of them, and gradient steps that are left of the present one.
    pub fitted: (u64, u64),
    pub fit_left: u64,
    /// Whether the present fit has taken its steps and its rewards have yet to be brought to mean 0 and deviation 1.
    pub unscaled: bool,
    /// Gradient steps of the latest fit: a person is not waited for within one, and PPO's patience begins behind it.
    pub fit: u64,
    /// Comparisons of a data file.
    pub filed: Vec<TextComparison>,
    /// Prompts that pairs are drawn from, in tokens, as the corpus has them.
    pub prompts: Vec<Vec<u32>>,
    /// Draws prompts, seeds of completions and sides of pairs.
    pub draws: Stream,
    /// Whether the reward model foresaw each of the latest judgements, oldest first: 1, ½ or 0.
    pub foreseen: Vec<f64>,
}

impl Teaching {
    /// Whether a fit of the reward model is under way.
    pub fn is_fitting(&self) -> bool {
        self.fit_left > 0 || self.unscaled
    }

    /// How completions are written for a person to see and a reward model to score: as PPO writes them.
    pub fn sampling(&self, run: &TextRun, seed: u64) -> Sampling {
        Sampling {
            temperature: run.ppo.temperature,
            max_new_tokens: run.ppo.max_new_tokens,
            stop: self.start.stop(),
            seed,
            ..Sampling::default()
        }
    }

    /// Every standing comparison that teaches: those of the file, then the session's.
    pub fn comparisons(&self, labels: &[Label]) -> Vec<TextComparison> {
        self.filed.iter().cloned().chain(labels.iter().filter_map(comparison)).collect()
    }

    /// Decides whether the reward model is to learn, and how long; asks it first what it makes of the answers that are new.
    pub fn plan_fit(&mut self, labels: &[Label], planned: usize, person: bool, run: &TextRun) {
        let newest = labels.last().map_or(0, |label| label.judgement.0);
        let state = (labels.len() as u64, newest);
        let all = labels.len() + self.filed.len();
        if self.is_fitting() || all == 0 || (self.trusted && state == self.fitted) {
            return;
        }
        let enough = match (person, self.filed.is_empty()) {
            (_, false) => true,
            (true, _) => labels.len() >= FIRST_FIT.min(planned.max(1)),
            (false, _) => labels.len() >= planned,
        };
        let grown = (state.0.abs_diff(self.fitted.0) as usize).max(1);
        if !enough || (self.trusted && grown < (labels.len() / 8).clamp(4, 32)) {
            return;
        }
        if self.trusted {
            self.foresee(labels);
        }
        // As many passes over what is new as the plan has over all.
        let first = self.fitted.0 == 0;
        let whole = planned.max(1) + if planned == 0 { self.filed.len() } else { 0 };
        let share = run.reward_steps as f64 * grown as f64 / whole as f64;
        self.fit_left = match (person, first) {
            (false, true) => run.reward_steps,
            _ if !self.filed.is_empty() && first => run.reward_steps,
            (_, true) => (share as u64).max(FIRST_FIT as u64),
            (_, false) => (share as u64).max(4),
        };
        self.fit = self.fit_left;
        self.fitted = state;
    }

    /// What the reward model makes of judgements that it has not learnt from.
    fn foresee(&mut self, labels: &[Label]) {
        let new = labels.iter().filter(|label| label.judgement > JudgementId(self.fitted.1));
        let comparisons: Vec<TextComparison> = new.filter_map(comparison).collect();
        for comparison in comparisons.iter().filter(|c| c.target != 0.5) {
            if let Ok(stats) = self.reward.evaluate(std::slice::from_ref(comparison), &mut |_| false) {
                self.foreseen.push(stats.accuracy);
            }
        }
        let old = self.foreseen.len().saturating_sub(FORESEEN);
        self.foreseen.drain(..old);
    }

    pub fn agreement(&self) -> Option<f64> {
        let n = self.foreseen.len();
        (n >= 4).then(|| self.foreseen.iter().sum::<f64>() / n as f64)
    }

    /// log π − log π_ref of each token.
    pub fn log_ratios(&self, examples: &[Example], temperature: f64) -> Vec<Vec<f32>> {
        if self.ppo.updates() == 0 {
            return examples.iter().map(|e| vec![0.0; e.completion.len()]).collect();
        }
        let of = |model, adapters| log_probs(model, examples, adapters, temperature, SCORED, &mut |_| false);
        let policy = of(self.ppo.policy(), true);
        let reference = match self.ppo.reference() {
            Some(model) => of(model, true),
            None => of(self.ppo.policy(), false),
        };
        let less =
            |(policy, reference): (Vec<f32>, Vec<f32>)| policy.iter().zip(&reference).map(|(p, r)| p - r).collect();
        policy.into_iter().zip(reference).map(less).collect()
    }

    pub fn reward_bundle(&self) -> Bundle {
        let [gain, bias] = self.reward.gain_and_bias();
        // The format has one linear map: the gain goes into its weights.
        let weight: Vec<f32> = self.reward.head().weight().into_iter().map(|w| (f64::from(w) * gain) as f32).collect();
        let bias = self.reward.head().bias() * gain + bias;
        Bundle {
            model: self.reward.model().clone(),
            tokenizer: self.start.tokenizer.clone(),
            score: Some((weight, bias)),
        }
    }

    pub fn policy_bundle(&self) -> Bundle {
        Bundle { model: self.ppo.policy().clone(), tokenizer: self.start.tokenizer.clone(), score: None }
    }
}

/// What a judgement teaches; `None` for a skip.
fn comparison(label: &Label) -> Option<TextComparison> {
    let [left, right] = both_completions(&label.items)?;
    TextComparison::new(left.prompt_tokens.clone(), left.tokens.clone(), right.tokens.clone(), label.choice)
}
