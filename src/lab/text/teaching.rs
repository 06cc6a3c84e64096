//! What learns once there is a supervised model: the reward model, which is fitted to the judgements, and the policy,
//! which PPO trains on that reward model.

use super::asking::Asking;
use super::reward_functions::RewardFunctions;
use crate::lab::LabError;
use crate::lab::shared_requests::Label;
use crate::lab::training_loop::Values;
use crate::settings::{TextRun, TextStage};
use flipside_core::{Completion, JudgementId, Stream, both_completions};
use flipside_text::data::TextOrMessages;
use flipside_text::generate::Sampling;
use flipside_text::model::Transformer;
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Bundle, Episode, Example, ScoreEncoder, TextComparison, TextPpo, TextReward, log_probs};
use std::collections::HashMap;

/// A person's answers before the first fit of the reward model. With fewer it memorises the pairs instead of learning
/// the teacher's preferences.
pub(super) const FIRST_FIT: usize = 12;

/// Rows that are scored at a time outside of training.
pub(super) const SCORED: usize = 32;

/// Predictions that are kept of the latest judgements.
const RECENT: usize = 50;

/// What the run's prompts say, by their tokens.
pub(super) type Words = HashMap<Vec<u32>, TextOrMessages>;

/// The policy, its reward model, and what they start from.
pub(super) struct Teaching {
    /// The pipeline stage that it began with: the reward model, or PPO on a finished reward model.
    pub stage: TextStage,
    /// The supervised model; the KL penalty keeps the policy near it.
    pub start: Bundle,
    pub reward: TextReward<Transformer>,
    pub ppo: TextPpo<Transformer>,
    /// Whether the policy may be trained on the reward model: it was given, or has learned enough.
    pub trusted: bool,
    /// Whether the reward model was given and is not trained.
    pub given: bool,
    /// What scores completions in place of the reward model, if the run says so.
    pub functions: Option<RewardFunctions>,
    /// The answers that the data gives to the prompts, by their places.
    pub references: Vec<Option<String>>,
    /// Answers of the data whose rewards are to have mean 0, if the run says so.
    pub answers: Vec<Example>,
    /// The number of judgements at the last fit and the ID of the newest. `fit_left` is the number of gradient steps
    /// left in the current fit.
    pub fitted: (u64, u64),
    pub fit_left: u64,
    /// Whether the current fit has done its steps, but its rewards are not yet scaled to mean 0 and standard deviation
    /// 1.
    pub unscaled: bool,
    /// Gradient steps of the latest fit. Training does not wait for a person during a fit, and PPO's patience starts
    /// after it.
    pub fit: u64,
    /// Comparisons from a data file.
    pub filed: Vec<TextComparison>,
    /// How much further ahead a much better completion must be, in log-odds.
    pub margin: f64,
    /// Which completions are asked about, and how far the reward can be trusted.
    pub asking: Asking,
    /// The prompts that pairs are drawn from, as tokens, in the corpus's order.
    pub prompts: Vec<Vec<u32>>,
    /// What these prompts say, by their tokens.
    pub words: Words,
    /// Turns completions into what the reward model scores.
    pub encoder: ScoreEncoder,
    /// Random stream for prompts, for seeds of completions and for sides of pairs.
    pub draws: Stream,
    /// Whether the reward model predicted each of the latest judgements, oldest first: 1, ½ or 0.
    pub recent_predictions: Vec<f64>,
}

impl Teaching {
    /// Whether a fit of the reward model is under way.
    pub fn is_fitting(&self) -> bool {
        self.fit_left > 0 || self.unscaled
    }

    /// All standing comparisons to learn from: the file's, then the session's.
    pub fn comparisons(&self, labels: &[Label]) -> Result<Vec<TextComparison>, LabError> {
        let labelled = labels.iter().filter_map(|label| self.comparison(label, self.margin).transpose());
        self.filed.iter().cloned().map(Ok).chain(labelled).collect()
    }

    /// The comparison that a judgement gives to learn from; `None` for a skip. `margin` is that of a much better
    /// completion.
    fn comparison(&self, label: &Label, margin: f64) -> Result<Option<TextComparison>, LabError> {
        let Some([left, right]) = both_completions(&label.items) else { return Ok(None) };
        let scored = |completion: &Completion| {
            scored(&self.encoder, &self.words, &self.start.tokenizer, &completion.prompt_tokens, &completion.tokens)
        };
        let ([left, right], shared) = with_one_prompt([scored(left)?, scored(right)?]);
        Ok(TextComparison::new(shared, left, right, label.choice, margin))
    }

    /// Decides whether to fit the reward model, and for how many steps. Before a fit it records how well the model
    /// predicts the new answers.
    pub fn plan_fit(&mut self, labels: &[Label], planned: usize, person: bool, run: &TextRun) -> Result<(), LabError> {
        let newest = labels.last().map_or(0, |label| label.judgement.0);
        let state = (labels.len() as u64, newest);
        let all = labels.len() + self.filed.len();
        if self.is_fitting() || all == 0 || (self.trusted && state == self.fitted) {
            return Ok(());
        }
        let enough = match (person, self.filed.is_empty()) {
            (_, false) => true,
            (true, _) => labels.len() >= FIRST_FIT.min(planned.max(1)),
            (false, _) => labels.len() >= planned,
        };
        let grown = (state.0.abs_diff(self.fitted.0) as usize).max(1);
        if !enough || (self.trusted && grown < (labels.len() / 8).clamp(4, 32)) {
            return Ok(());
        }
        self.record_predictions(labels)?;
        // The number of passes over the new answers is the same as the plan has over all of them.
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
        Ok(())
    }

    /// Records which judgements the reward model predicts before it learns from them.
    fn record_predictions(&mut self, labels: &[Label]) -> Result<(), LabError> {
        let new = labels.iter().filter(|label| label.judgement > JudgementId(self.fitted.1));
        let new = new.filter(|_| self.trusted).filter_map(|label| {
            let comparison = self.comparison(label, 0.0).transpose()?;
            Some(comparison.map(|comparison| (label.judgement, comparison)))
        });
        let new: Vec<(JudgementId, TextComparison)> = new.collect::<Result<_, LabError>>()?;
        let (judgements, new): (Vec<JudgementId>, Vec<TextComparison>) =
            new.into_iter().filter(|(_, comparison)| comparison.target != 0.5).unzip();
        let ahead = self.reward.differences(&new, &mut |_| false).unwrap_or_default();
        let right = |(ahead, comparison): (&f32, &TextComparison)| match *ahead {
            0.0 => 0.5,
            ahead => f64::from(u8::from((ahead > 0.0) == (comparison.target > 0.5))),
        };
        self.recent_predictions.extend(ahead.iter().zip(&new).map(right));
        let old = self.recent_predictions.len().saturating_sub(RECENT);
        self.recent_predictions.drain(..old);

        let ahead: HashMap<JudgementId, f32> = judgements.into_iter().zip(ahead).collect();
        let ids = self.asking.before.comparison_ids(labels);
        let (decided, answers): (Vec<JudgementId>, Vec<(u64, f32)>) = labels
            .iter()
            .zip(ids)
            .filter_map(|(label, id)| Some((label.judgement, (id, label.choice.target()?))))
            .unzip();
        self.asking.monitor.record_predictions(answers.into_iter(), &mut |place| {
            ahead.get(&decided[place]).map(|&ahead| 1.0 / (1.0 + f64::from(-ahead).exp()))
        });
        Ok(())
    }

    /// Has the monitor evaluate the completions of an update now and then. Returns points of curves.
    pub fn watch(
        &mut self,
        episodes: &[Episode],
        labels: &[Label],
        person: bool,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Values, LabError> {
        if self.given || !self.filed.is_empty() {
            return Ok(Values::new());
        }
        // A run that is reopened has no ensemble yet.
        self.asking.refit(labels, !person, &self.start, &self.words, cancelled)?;
        self.asking.watch(episodes, labels.len(), &self.start, &self.words, cancelled)
    }

    /// Held-out agreement: that of the latest fit, which the alarm goes by. Where nothing is held out, such as beside a
    /// file of judged pairs, the share of the latest judgements that the reward model predicted before it learned from
    /// them; `None` while there are too few.
    pub fn agreement(&self) -> Option<f64> {
        let n = self.recent_predictions.len();
        let predicted = || (n >= 4).then(|| self.recent_predictions.iter().sum::<f64>() / n as f64);
        self.asking.monitor.held_out_agreement().or_else(predicted)
    }

    /// The log-ratio, log π − log π_ref, of each token in nats.
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
        // The file format has a single linear map, so the gain is multiplied into its weights.
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

/// The sampling settings for completions that a person sees, a reward model scores or a run shows: the same as in
/// training.
pub(super) fn sampling(start: &Bundle, run: &TextRun, seed: u64) -> Sampling {
    let (temperature, max_new_tokens) = run.sampling();
    Sampling { temperature, max_new_tokens, stop: start.stop(), seed, ..Sampling::default() }
}

/// What the reward model scores of a completion. A prompt that is not among the run's was typed as a text.
pub(super) fn scored(
    encoder: &ScoreEncoder,
    words: &Words,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    completion: &[u32],
) -> Result<Example, LabError> {
    let typed = || Ok::<_, LabError>(TextOrMessages::Text(tokenizer.decode(prompt, true)?));
    let words = words.get(prompt).cloned().map_or_else(typed, Ok)?;
    Ok(encoder.example(&words, prompt, completion)?)
}

/// Two examples as completions of one prompt, which is what their prompts have in common.
fn with_one_prompt(examples: [Example; 2]) -> ([Vec<u32>; 2], Vec<u32>) {
    let [left, right] = &examples;
    let shared = left.prompt.iter().zip(&right.prompt).take_while(|(left, right)| left == right).count();
    let prompt = left.prompt[..shared].to_vec();
    let completions = examples.map(|Example { prompt, completion }| [&prompt[shared..], &completion].concat());
    (completions, prompt)
}
