//! Rollouts: completions that the policy writes, each with the log-probabilities of its tokens under the policy and
//! under its reference.

use super::cursor::Cursor;
use super::heads::ScalarHead;
use super::language_model::{AncestralSampling, LanguageModel};
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::rows::{Rows, rows_of};
use flipside_core::Stream;
use flipside_learn::LearnError;
use rand::Rng;
use tch::Kind;

/// The model that the KL penalty is measured against.
pub enum Reference<M> {
    /// The policy with its adapters off.
    Base,
    /// Another model. It may share frozen tensors with the policy.
    Model(M),
}

impl<M> Reference<M> {
    /// The reference's model, and whether its adapters are on.
    pub(super) fn model<'a>(&'a self, policy: &'a M) -> (&'a M, bool) {
        match self {
            Reference::Base => (policy, false),
            Reference::Model(model) => (model, true),
        }
    }
}

/// A prompt and the policy's completion. Each list has one number for each token of the completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Index of the prompt.
    pub prompt_index: usize,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The completion, including the stop token.
    pub completion: Vec<u32>,
    /// Whether a stop token ended it; false if it was truncated.
    pub stopped: bool,
    /// log π of the tokens, nats.
    pub log_probs: Vec<f32>,
    /// log π_ref of the tokens, nats.
    pub reference_log_probs: Vec<f32>,
    /// The critic's value before each token; 0 without a critic.
    pub values: Vec<f32>,
    /// Entropy of the policy's distribution of each token, nats.
    pub entropies: Vec<f32>,
}

impl Episode {
    /// log π − log π_ref of each token, nats.
    pub fn log_ratios(&self) -> impl Iterator<Item = f32> {
        self.log_probs.iter().zip(&self.reference_log_probs).map(|(policy, reference)| policy - reference)
    }
}

/// How many completions are written, and how.
pub(super) struct RolloutPlan {
    /// Completions in all, a multiple of `group_size`.
    pub batch_size: usize,
    /// Completions of each prompt.
    pub group_size: usize,
    /// Completions that are written together; 0 means all.
    pub rollout_batch_size: usize,
    /// Divides the logits when completions are written.
    pub temperature: f64,
    /// Number of tokens after which an unfinished completion is truncated.
    pub max_new_tokens: usize,
    /// The tokens that end a completion.
    pub stop: Vec<u32>,
    /// Divides the logits when the log-probabilities are computed.
    pub scoring_temperature: f64,
    /// Completions whose log-probabilities are computed together.
    pub part: usize,
}

impl RolloutPlan {
    /// Writes a group of completions for each of the next prompts, one after the other, and computes their
    /// log-probabilities, entropies and, with a critic's head, values. The models are the policy, the reference with
    /// whether its adapters are on, and the head. After an error, the position in the prompts and the stream may have
    /// moved.
    pub fn collect<M: LanguageModel>(
        &self,
        models: (&M, (&M, bool), Option<&ScalarHead>),
        prompts: &[Vec<u32>],
        (order, samples): (&mut Cursor, &mut Stream),
        on_progress: ProgressFn,
    ) -> Result<Vec<Episode>, LearnError> {
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
            let problem = "writing completions needs prompts of at least one token each: add prompts, or begin them \
                           with a start token";
            return Err(LearnError::Settings(problem.to_owned()));
        }
        let mut episodes = self.write(models.0, prompts, order, samples, on_progress)?;
        self.score(models, &mut episodes, on_progress)?;
        Ok(episodes)
    }

    fn write(
        &self,
        policy: &impl LanguageModel,
        prompts: &[Vec<u32>],
        order: &mut Cursor,
        samples: &mut Stream,
        on_progress: ProgressFn,
    ) -> Result<Vec<Episode>, LearnError> {
        let (batch, each, max_new_tokens) = (self.batch_size, self.group_size, self.max_new_tokens);
        let indices = order.take(batch / each, prompts.len());
        let size = if self.rollout_batch_size == 0 { batch } else { self.rollout_batch_size };
        let of = batch.div_ceil(size) * max_new_tokens;
        let mut episodes = Vec::with_capacity(batch);
        for (part, indices) in indices.chunks(size / each).enumerate() {
            let sampling = AncestralSampling {
                temperature: self.temperature,
                max_new_tokens,
                stop: self.stop.clone(),
                seed: samples.next_u64(),
            };
            let chosen: Vec<&[u32]> = indices.iter().map(|&index| &prompts[index][..]).collect();
            let (mut columns, mut cancelled) = (0, false);
            let completions = policy.complete_each(&chosen, each, &sampling, &mut || {
                columns += 1;
                cancelled = on_progress(Progress::Generating { done: part * max_new_tokens + columns, of });
                !cancelled
            });
            if cancelled {
                return Err(LearnError::Cancelled);
            }
            let prompt_indices = indices.iter().flat_map(|&index| std::iter::repeat_n(index, each));
            for (completion, prompt_index) in completions.into_iter().zip(prompt_indices) {
                episodes.push(Episode {
                    prompt_index,
                    prompt: prompts[prompt_index].clone(),
                    completion: completion.tokens,
                    stopped: completion.stopped,
                    log_probs: Vec::new(),
                    reference_log_probs: Vec::new(),
                    values: Vec::new(),
                    entropies: Vec::new(),
                });
            }
        }
        Ok(episodes)
    }

    /// Fills in log-probabilities, values and entropies, by the same forward passes as in training.
    pub fn score<M: LanguageModel>(
        &self,
        (policy, (reference, adapters), head): (&M, (&M, bool), Option<&ScalarHead>),
        episodes: &mut [Episode],
        on_progress: ProgressFn,
    ) -> Result<(), LearnError> {
        let parts = episodes.chunks_mut(self.part);
        let (of, temperature) = (parts.len(), self.scoring_temperature);
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            tch::no_grad(|| {
                let rows = rows(part.iter(), policy);
                let hidden = rows.before_tokens(&rows.hidden(policy, true));
                let all = rows.log_softmax(policy, &hidden, temperature);
                let lengths = || part.iter().map(|e| e.completion.len()).collect::<Vec<_>>().into_iter();
                let log_probs = rows_of(&rows.chosen(&all), lengths());
                let entropies = rows_of(&-(all.exp() * &all).sum_dim_intlist(-1, false, Kind::Float), lengths());
                drop(all);
                let values = match head {
                    Some(head) => rows_of(&head.forward(&hidden), lengths()),
                    None => lengths().map(|length| vec![0.0; length]).collect(),
                };
                let hidden = rows.before_tokens(&rows.hidden(reference, adapters));
                let all = rows.log_softmax(reference, &hidden, temperature);
                let reference = rows_of(&rows.chosen(&all), lengths());
                let found = log_probs.into_iter().zip(reference).zip(values).zip(entropies);
                for (episode, (((log_probs, reference), values), entropies)) in part.iter_mut().zip(found) {
                    episode.log_probs = log_probs;
                    episode.reference_log_probs = reference;
                    episode.values = values;
                    episode.entropies = entropies;
                }
            });
            let finite = |e: &Episode| e.log_probs.iter().chain(&e.reference_log_probs).all(|x| x.is_finite());
            if !part.iter().all(finite) {
                return Err(LearnError::NotFinite { what: "the log-probability of a token".to_owned() });
            }
        }
        Ok(())
    }
}

/// Means over the episodes of a rollout.
pub(super) struct RolloutMeans {
    /// Of the scores that there are.
    pub reward: f64,
    /// Of log π − log π_ref, summed over tokens, nats.
    pub kl: f64,
    /// Of the entropy of a token's distribution, nats.
    pub entropy: f64,
    /// Of the length, tokens.
    pub length: f64,
    /// Share that a stop token ended.
    pub stopped: f64,
}

impl RolloutMeans {
    pub fn of(episodes: &[Episode], scores: &[Option<f32>]) -> RolloutMeans {
        let n = episodes.len() as f64;
        let tokens = episodes.iter().map(|e| e.completion.len()).sum::<usize>() as f64;
        let sum = |of: &dyn Fn(&Episode) -> f64| episodes.iter().map(of).sum::<f64>();
        let scored = scores.iter().flatten().count().max(1) as f64;
        RolloutMeans {
            reward: scores.iter().flatten().map(|&s| f64::from(s)).sum::<f64>() / scored,
            kl: sum(&|e| e.log_ratios().map(f64::from).sum()) / n,
            entropy: sum(&|e| e.entropies.iter().map(|&x| f64::from(x)).sum()) / tokens.max(1.0),
            length: tokens / n,
            stopped: sum(&|e| f64::from(u8::from(e.stopped))) / n,
        }
    }
}

/// The rows of episodes.
pub(super) fn rows<'a>(episodes: impl Iterator<Item = &'a Episode>, model: &impl LanguageModel) -> Rows {
    let rows: Vec<(&[u32], &[u32])> = episodes.map(|e| (&e.prompt[..], &e.completion[..])).collect();
    Rows::new(&rows, model.device())
}

/// Refuses scores that are not one for each episode, and numbers that are not finite.
pub(super) fn check_scores(episodes: &[Episode], scores: &[Option<f32>]) -> Result<(), LearnError> {
    if episodes.is_empty() || episodes.len() != scores.len() {
        let what = "a score for every episode".to_owned();
        return Err(LearnError::Size { what, expected: episodes.len().max(1), got: scores.len() });
    }
    match scores.iter().position(|score| score.is_some_and(|score| !score.is_finite())) {
        Some(place) => Err(LearnError::NotFinite { what: format!("the score of episode {place}") }),
        None => Ok(()),
    }
}
