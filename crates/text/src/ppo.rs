//! Proximal policy optimisation (PPO) of a language model, top to bottom. [`TextPpo::collect`] generates completions
//! and computes their log-probabilities under policy and reference. The caller scores them with any function.
//! [`TextPpo::learn`] takes the scores. [`TextPpo::update`] does all three.
//!
//! The details are those of lm-human-preferences (Ziegler et al. 2019) as collected in "The N implementation details of
//! RLHF with PPO" (Huang et al. 2024): one temperature divides the logits of policy and reference, in sampling and in
//! training; the reward of a token is −β times its estimated KL, and the last token also gets the score; advantages are
//! whitened over the rollout; the critic is a scalar head on the policy's own hidden states. No model is copied
//! needlessly: the reference of a policy with adapters is the same model without them.
//!
//! An update is a transaction: if it is cancelled or fails, everything, random streams included, is as it was before.

#[cfg(test)]
mod tests;

use super::cursor::Cursor;
use super::heads::ScalarHead;
use super::language_model::{AncestralSampling, LanguageModel};
use super::optimiser::{Optimiser, Saved};
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::rows::{Rows, rows_of};
use flipside_core::settings::TextPpoSettings;
use flipside_core::{Array, Arrays, Seed, Stream};
use flipside_learn::{
    KlController, LearnError, Reader, RewardScale, Trajectories, approx_kl, clipped_objective, clipped_value_loss,
    explained_variance, gae, kl_estimate, whiten,
};
use rand::Rng;
use rand::seq::SliceRandom;
use tch::{Kind, Tensor};

/// The model that the KL penalty is measured against.
pub enum Reference<M> {
    /// The policy with its adapters off.
    Base,
    /// Another model. It may share frozen tensors with the policy.
    Model(M),
}

/// The trainer: policy, critic, reference, optimiser, KL controller, position in the prompts and random streams.
pub struct TextPpo<M> {
    settings: TextPpoSettings,
    policy: M,
    reference: Reference<M>,
    /// The critic, a scalar head on the policy's hidden states.
    head: ScalarHead,
    optimiser: Optimiser,
    /// Tokens that end a completion. If there are none, every completion has the full length and none counts as
    /// unfinished.
    stop: Vec<u32>,
    state: State,
}

/// The state that is not in tensors.
#[derive(Clone)]
struct State {
    kl: KlController,
    scores: RewardScale,
    prompts: Cursor,
    samples: Stream,
    minibatches: Stream,
    /// Updates done, and planned in total (0: no plan, so the learning rate does not decay).
    updates: [u64; 2],
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
    /// The critic's value before each token.
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

/// Statistics of an update. Losses, KL to the rollout's policy, clip fraction and gradient norm are means over the
/// gradient steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextPpoStats {
    /// Mean score of the episodes, as it was given.
    pub reward: f64,
    /// Mean over completions of log π − log π_ref, summed over tokens, nats.
    pub kl: f64,
    /// Mean entropy of the policy's distribution of a token, nats.
    pub entropy: f64,
    /// The KL coefficient β in this update.
    pub beta: f64,
    /// Mean length of a completion, tokens.
    pub length: f64,
    /// Share of the completions that a stop token ended.
    pub stopped: f64,
    /// The clipped surrogate loss.
    pub policy_loss: f64,
    /// Half the squared error of the critic.
    pub value_loss: f64,
    /// KL from the rollout's policy, estimated on the minibatches, nats per token.
    pub approx_kl: f64,
    /// Share of tokens whose probability ratio left the clip range.
    pub clip_fraction: f64,
    /// Explained variance of the returns by the rollout's values: 1 is perfect, 0 no better than a constant.
    pub explained_variance: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Largest |log ratio| to the rollout's policy in the first minibatch, before any step: 0 up to rounding.
    pub first_log_ratio: f64,
    /// Mean |ratio − 1| in the first minibatch.
    pub first_ratio_error: f64,
}

/// Returns a score for every episode of an update. Through the [`ProgressFn`] it can report progress and be cancelled.
pub type ScoreFn<'a> = &'a mut dyn FnMut(&[Episode], ProgressFn) -> Result<Vec<f32>, LearnError>;

/// An episode with its advantages and returns, as training needs it.
struct Sample<'a> {
    episode: &'a Episode,
    advantages: Vec<f32>,
    returns: Vec<f32>,
}

impl<M: LanguageModel> TextPpo<M> {
    /// A trainer of the policy's trainable parameters, with a critic that is zero at first. `stop` lists the tokens
    /// that end a completion. The seed decides the order of prompts, every sampled token and the minibatches.
    pub fn new(
        policy: M,
        reference: Reference<M>,
        stop: &[u32],
        settings: &TextPpoSettings,
        seed: Seed,
    ) -> Result<TextPpo<M>, LearnError> {
        let head = ScalarHead::zero(policy.width(), policy.device());
        TextPpo::with_critic(policy, head, reference, stop, settings, seed)
    }

    /// The same with a critic that is initialised to this head, such as a copy of the reward model's.
    pub fn with_critic(
        policy: M,
        head: ScalarHead,
        reference: Reference<M>,
        stop: &[u32],
        settings: &TextPpoSettings,
        seed: Seed,
    ) -> Result<TextPpo<M>, LearnError> {
        settings.check().map_err(LearnError::Settings)?;
        let leaves = policy.trainable();
        if leaves.is_empty() {
            return Err(LearnError::Settings(
                "the policy has nothing to train: unfreeze a layer or attach adapters".to_owned(),
            ));
        }
        let leaves = leaves.into_iter().chain(head.trainable()).collect();
        Ok(TextPpo {
            optimiser: Optimiser::new(leaves, &settings.optimiser)?,
            policy,
            reference,
            head,
            stop: stop.to_vec(),
            state: State {
                kl: KlController::new(&settings.kl),
                scores: RewardScale::new(1.0),
                prompts: Cursor::new(seed.stream("text.ppo.prompts")),
                samples: seed.stream("text.ppo.samples"),
                minibatches: seed.stream("text.ppo.minibatches"),
                updates: [0, 0],
            },
            settings: settings.clone(),
        })
    }

    /// Sets the total number of updates, over which the learning rate decays. It is saved with the state.
    pub fn plan(&mut self, updates: u64) {
        self.state.updates[1] = updates;
    }

    /// Updates done so far.
    pub fn updates(&self) -> u64 {
        self.state.updates[0]
    }

    /// The present KL coefficient β.
    pub fn beta(&self) -> f64 {
        self.state.kl.beta()
    }

    /// The policy.
    pub fn policy(&self) -> &M {
        &self.policy
    }

    /// The reference, if it is a model of its own.
    pub fn reference(&self) -> Option<&M> {
        match &self.reference {
            Reference::Base => None,
            Reference::Model(model) => Some(model),
        }
    }

    /// The critic.
    pub fn critic(&self) -> &ScalarHead {
        &self.head
    }

    /// A whole update: collects episodes, has them scored and learns. On any error, including one of `score_fn` and a
    /// cancel, nothing has changed, so that a repeated update generates the same completions.
    pub fn update(
        &mut self,
        prompts: &[Vec<u32>],
        score_fn: ScoreFn,
        on_progress: ProgressFn,
    ) -> Result<(Vec<Episode>, TextPpoStats), LearnError> {
        let before = self.state.clone();
        let episodes = self.collect(prompts, on_progress)?;
        let scores = score_fn(&episodes, on_progress);
        let done = scores.and_then(|scores| self.learn(&episodes, &scores, on_progress));
        if done.is_err() {
            self.state = before;
        }
        Ok((episodes, done?))
    }

    // Collecting.

    /// Generates a completion for each of the next prompts, and computes its log-probabilities, values and entropies.
    /// `prompts` should be the same in every call, none of them empty. On any error, including a cancel, nothing has
    /// changed.
    pub fn collect(&mut self, prompts: &[Vec<u32>], on_progress: ProgressFn) -> Result<Vec<Episode>, LearnError> {
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
            let problem = "PPO needs prompts of at least one token each: add prompts, or begin them with a start token";
            return Err(LearnError::Settings(problem.to_owned()));
        }
        let before = self.state.clone();
        let done = self.generate(prompts, on_progress).and_then(|mut episodes| {
            self.score(&mut episodes, on_progress)?;
            Ok(episodes)
        });
        if done.is_err() {
            self.state = before;
        }
        done
    }

    fn generate(&mut self, prompts: &[Vec<u32>], on_progress: ProgressFn) -> Result<Vec<Episode>, LearnError> {
        let TextPpoSettings {
            batch_size: batch, temperature, max_new_tokens, rollout_batch_size: side_by_side, ..
        } = self.settings;
        let indices = self.state.prompts.take(batch, prompts.len());
        let size = if side_by_side == 0 { batch } else { side_by_side };
        let of = batch.div_ceil(size) * max_new_tokens;
        let mut episodes = Vec::with_capacity(batch);
        for (part, indices) in indices.chunks(size).enumerate() {
            let sampling = AncestralSampling {
                temperature,
                max_new_tokens,
                stop: self.stop.clone(),
                seed: self.state.samples.next_u64(),
            };
            let chosen: Vec<&[u32]> = indices.iter().map(|&index| &prompts[index][..]).collect();
            let (mut columns, mut cancelled) = (0, false);
            let completions = self.policy.complete(&chosen, &sampling, &mut || {
                columns += 1;
                cancelled = on_progress(Progress::Generating { done: part * max_new_tokens + columns, of });
                !cancelled
            });
            if cancelled {
                return Err(LearnError::Cancelled);
            }
            for (completion, &prompt_index) in completions.into_iter().zip(indices) {
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
    fn score(&self, episodes: &mut [Episode], on_progress: ProgressFn) -> Result<(), LearnError> {
        let parts = episodes.chunks_mut(self.part());
        let of = parts.len();
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            tch::no_grad(|| {
                let rows = rows(part.iter(), &self.policy);
                let temperature = self.settings.temperature;
                let hidden = rows.before_tokens(&rows.hidden(&self.policy, true));
                let all = rows.log_softmax(&self.policy, &hidden, temperature);
                let lengths = || part.iter().map(|e| e.completion.len()).collect::<Vec<_>>().into_iter();
                let log_probs = rows_of(&rows.chosen(&all), lengths());
                let entropies = rows_of(&-(all.exp() * &all).sum_dim_intlist(-1, false, Kind::Float), lengths());
                drop(all);
                let values = rows_of(&self.head.forward(&hidden), lengths());
                let reference = {
                    let (model, adapters) = match &self.reference {
                        Reference::Base => (&self.policy, false),
                        Reference::Model(model) => (model, true),
                    };
                    let all = rows.log_softmax(model, &rows.before_tokens(&rows.hidden(model, adapters)), temperature);
                    rows_of(&rows.chosen(&all), lengths())
                };
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

    /// Episodes in a part of a minibatch (gradient accumulation).
    fn part(&self) -> usize {
        self.settings.minibatch_size.div_ceil(self.settings.gradient_accumulation_steps)
    }

    // Learning.

    /// Learns from episodes that were collected since the last update, with one score for each. `on_progress` is called
    /// before every part of a minibatch and may cancel.
    ///
    /// On any error, including a cancel, the trainer is as it was before the call. A number that is not finite is an
    /// error.
    pub fn learn(
        &mut self,
        episodes: &[Episode],
        scores: &[f32],
        on_progress: ProgressFn,
    ) -> Result<TextPpoStats, LearnError> {
        if episodes.is_empty() || episodes.len() != scores.len() {
            let what = "a score for every episode".to_owned();
            return Err(LearnError::Size { what, expected: episodes.len().max(1), got: scores.len() });
        }
        if let Some(place) = scores.iter().position(|score| !score.is_finite()) {
            return Err(LearnError::NotFinite { what: format!("the score of episode {place}") });
        }
        // The last gradient step is the last thing that can fail, and a failed step changes nothing. If it is the only
        // one, there is nothing to undo, and no copy is needed.
        let several = self.settings.update_epochs * episodes.len().div_ceil(self.settings.minibatch_size) > 1;
        let (before, saved) = (self.state.clone(), several.then(|| self.optimiser.save()));
        let done = self.improve(episodes, scores, on_progress);
        match (&done, saved) {
            (Ok(_), Some(saved)) => self.optimiser.reuse(saved),
            (Ok(_), None) => {}
            (Err(_), Some(saved)) => self.restore(before, saved),
            (Err(_), None) => {
                self.state = before;
                self.optimiser.zero_grad();
            }
        }
        done
    }

    fn restore(&mut self, state: State, saved: Saved) {
        self.state = state;
        self.optimiser.restore(saved);
    }

    fn improve(
        &mut self,
        episodes: &[Episode],
        scores: &[f32],
        on_progress: ProgressFn,
    ) -> Result<TextPpoStats, LearnError> {
        let [updates, planned] = self.state.updates;
        let mut stats = summary(episodes, scores);
        stats.beta = self.beta();
        stats.learning_rate = self.settings.optimiser.learning_rate_at(updates, planned);

        let rewards = self.token_rewards(episodes, scores);
        let samples = self.samples(episodes, &rewards);
        let values: Vec<f32> = episodes.iter().flat_map(|e| e.values.iter().copied()).collect();
        let returns: Vec<f32> = samples.iter().flat_map(|l| l.returns.iter().copied()).collect();
        stats.explained_variance = explained_variance(&values, &returns);

        let (mut means, mut order) = (Means::default(), (0..samples.len()).collect::<Vec<usize>>());
        let TextPpoSettings { update_epochs: epochs, minibatch_size: minibatch, .. } = self.settings;
        let parts_each: usize = order.chunks(minibatch).map(|m| m.len().div_ceil(self.part())).sum();
        let (mut done, of) = (0, epochs * parts_each);
        for _ in 0..epochs {
            order.shuffle(&mut self.state.minibatches);
            for minibatch in order.chunks(minibatch) {
                let chosen: Vec<&Sample> = minibatch.iter().map(|&i| &samples[i]).collect();
                let tokens = chosen.iter().map(|l| l.advantages.len()).sum::<usize>().max(1);
                let mut log_ratios = Vec::with_capacity(tokens);
                for part in chosen.chunks(self.part()) {
                    check_cancelled(on_progress, Progress::Learning { done, of })?;
                    done += 1;
                    log_ratios.extend(self.add_gradient(part, tokens, &mut means)?);
                }
                if means.steps == 0 {
                    let largest = log_ratios.iter().fold(0.0_f32, |largest, l| largest.max(l.abs()));
                    stats.first_log_ratio = f64::from(largest);
                    let error = log_ratios.iter().map(|&l| f64::from(l).exp_m1().abs()).sum::<f64>();
                    stats.first_ratio_error = error / tokens as f64;
                }
                means.norm += self.optimiser.step(stats.learning_rate)?;
                means.approx_kl += approx_kl(&log_ratios);
                let outside = |l: &&f32| (f64::from(**l).exp() - 1.0).abs() > self.settings.clip_coef;
                means.clipped += log_ratios.iter().filter(outside).count() as f64 / tokens as f64;
                means.steps += 1;
            }
        }
        let steps = means.steps as f64;
        stats.policy_loss = means.policy / steps;
        stats.value_loss = means.value / steps;
        stats.approx_kl = means.approx_kl / steps;
        stats.clip_fraction = means.clipped / steps;
        stats.grad_norm = means.norm / steps;

        self.state.kl.observe(stats.kl, episodes.len());
        self.state.updates[0] += 1;
        Ok(stats)
    }

    /// −β times the estimated KL of each token. The last token also gets the score, minus `missing_eos_cost` if the
    /// completion is unfinished.
    fn token_rewards(&mut self, episodes: &[Episode], scores: &[f32]) -> Vec<Vec<f32>> {
        let scores = match self.settings.scale_scores {
            true => {
                self.state.scores.absorb(scores, |_| true, scores.len());
                self.state.scores.scale(scores)
            }
            false => scores.to_vec(),
        };
        let (beta, estimator) = (self.beta(), self.settings.kl.estimator);
        let mut rewards: Vec<Vec<f32>> = Vec::with_capacity(episodes.len());
        for (episode, score) in episodes.iter().zip(scores) {
            let price = |log_ratio: f32| (-beta * kl_estimate(estimator, f64::from(log_ratio))) as f32;
            let mut of_tokens: Vec<f32> = episode.log_ratios().map(price).collect();
            if let Some(last) = of_tokens.last_mut() {
                let unfinished = !self.stop.is_empty() && !episode.stopped;
                *last += score - if unfinished { self.settings.missing_eos_penalty as f32 } else { 0.0 };
            }
            rewards.push(of_tokens);
        }
        if self.settings.whiten_rewards {
            let mut whitened = whiten(&rewards.concat(), false).into_iter();
            rewards.iter_mut().flatten().zip(&mut whitened).for_each(|(reward, white)| *reward = white);
        }
        rewards
    }

    /// Advantages, whitened over all tokens, and returns. A completion is an episode that terminates with its last
    /// token.
    fn samples<'a>(&self, episodes: &'a [Episode], rewards: &[Vec<f32>]) -> Vec<Sample<'a>> {
        let (gamma, lambda) = (self.settings.gamma as f32, self.settings.gae_lambda as f32);
        let mut samples: Vec<Sample> = (episodes.iter().zip(rewards))
            .map(|(episode, rewards)| {
                let n = rewards.len();
                let ends: Vec<bool> = (1..=n).map(|t| t == n).collect();
                let found = gae(
                    Trajectories {
                        rewards,
                        values: &episode.values,
                        terminated: &ends,
                        truncated: &vec![false; n],
                        final_values: &vec![0.0; n],
                        last_values: &[0.0],
                    },
                    gamma,
                    lambda,
                );
                Sample { episode, advantages: found.advantages, returns: found.returns }
            })
            .collect();
        let all: Vec<f32> = samples.iter().flat_map(|l| l.advantages.iter().copied()).collect();
        let mut white = whiten(&all, true).into_iter();
        samples.iter_mut().flat_map(|l| &mut l.advantages).zip(&mut white).for_each(|(a, white)| *a = white);
        samples
    }

    /// Adds the gradient of a part of a minibatch that has `tokens` tokens in total. Returns the log-ratios of the
    /// part's tokens.
    fn add_gradient(&mut self, part: &[&Sample], tokens: usize, means: &mut Means) -> Result<Vec<f32>, LearnError> {
        let TextPpoSettings { temperature, clip_coef: clip, value_clip, vf_coef: value_weight, .. } = self.settings;
        let rows = rows(part.iter().map(|l| l.episode), &self.policy);
        let columns = rows.tokens.size()[1] as usize;
        let table = |of: fn(&Sample) -> Vec<f32>| {
            let mut flat = vec![0.0_f32; part.len() * columns];
            for (row, sample) in flat.chunks_exact_mut(columns.max(1)).zip(part) {
                let numbers = of(sample);
                row[..numbers.len()].copy_from_slice(&numbers);
            }
            Tensor::from_slice(&flat).reshape([-1, columns as i64]).to_device(self.policy.device())
        };
        let old = table(|l| l.episode.log_probs.clone());
        let advantages = table(|l| l.advantages.clone());
        let old_values = table(|l| l.episode.values.clone());
        let returns = table(|l| l.returns.clone());

        // Without dropout: in the first minibatch the policy must be the one that generated the rollout.
        let learning = rows.hidden_for_loss(&self.policy, None);
        let hidden = rows.before_tokens(learning.states());
        let log_probs = rows.chosen(&rows.log_softmax(&self.policy, &hidden, temperature));
        let log_ratio = (log_probs - old) * &rows.real;
        let mean = |loss: Tensor| (loss * &rows.real).sum(Kind::Float) / tokens as f64;
        let policy = mean(clipped_objective(&log_ratio, &advantages, clip));
        let values = self.head.forward(&hidden);
        let value = mean(clipped_value_loss(&values, &old_values, &returns, value_clip));
        let [of_policy, of_value] = [&policy, &value].map(|loss| loss.double_value(&[]));
        for (what, loss) in [("policy", of_policy), ("critic", of_value)] {
            if !loss.is_finite() {
                return Err(LearnError::NotFinite { what: format!("the loss of the {what}") });
            }
        }
        self.optimiser.add(&(policy + value * value_weight), &learning)?;
        means.policy += of_policy;
        means.value += of_value;
        let lengths = part.iter().map(|l| l.advantages.len());
        Ok(rows_of(&log_ratio, lengths).concat())
    }

    // Saving.

    /// The whole state: the trained parameters (including the critic's head) under `model.*`, `adam.*`, `beta`,
    /// `scores_*`, `prompts`, `stream.*` and `progress` (updates done and planned). The reference is left out, because
    /// it does not change.
    pub fn to_arrays(&self) -> Arrays {
        let (mut arrays, state) = (Arrays::new(), &self.state);
        self.optimiser.to_arrays(&mut arrays);
        state.kl.to_arrays("beta", &mut arrays);
        state.scores.to_arrays("scores", &mut arrays);
        state.prompts.to_arrays("prompts", &mut arrays);
        arrays.insert("stream.samples".to_owned(), Array::u64(state.samples.state().to_vec()));
        arrays.insert("stream.minibatches".to_owned(), Array::u64(state.minibatches.state().to_vec()));
        arrays.insert("progress".to_owned(), Array::u64(state.updates.to_vec()));
        arrays
    }

    /// Restores a state from [`TextPpo::to_arrays`], of a trainer of the same models. On the CPU, training continues
    /// bit for bit. On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let reader = Reader(arrays);
        let saved = self.optimiser.read(reader)?;
        let state = State {
            kl: self.state.kl.restored("beta", reader)?,
            scores: RewardScale::from_arrays("scores", 1.0, reader)?,
            prompts: Cursor::from_arrays("prompts", reader)?,
            samples: reader.stream("stream.samples")?,
            minibatches: reader.stream("stream.minibatches")?,
            updates: reader.words("progress")?,
        };
        self.restore(state, saved);
        Ok(())
    }
}

/// Sums over gradient steps.
#[derive(Default)]
struct Means {
    policy: f64,
    value: f64,
    approx_kl: f64,
    clipped: f64,
    norm: f64,
    steps: usize,
}

fn rows<'a>(episodes: impl Iterator<Item = &'a Episode>, model: &impl LanguageModel) -> Rows {
    let rows: Vec<(&[u32], &[u32])> = episodes.map(|e| (&e.prompt[..], &e.completion[..])).collect();
    Rows::new(&rows, model.device())
}

/// The statistics of episodes that are known before learning.
fn summary(episodes: &[Episode], scores: &[f32]) -> TextPpoStats {
    let n = episodes.len() as f64;
    let tokens = episodes.iter().map(|e| e.completion.len()).sum::<usize>() as f64;
    let sum = |of: &dyn Fn(&Episode) -> f64| episodes.iter().map(of).sum::<f64>();
    TextPpoStats {
        reward: scores.iter().map(|&s| f64::from(s)).sum::<f64>() / n,
        kl: sum(&|e| e.log_ratios().map(f64::from).sum()) / n,
        entropy: sum(&|e| e.entropies.iter().map(|&x| f64::from(x)).sum()) / tokens.max(1.0),
        length: tokens / n,
        stopped: sum(&|e| f64::from(u8::from(e.stopped))) / n,
        ..TextPpoStats::default()
    }
}
