//! Proximal policy optimisation (PPO) of a language model, top to bottom. [`TextPpo::collect`] generates completions
//! and computes their log-probabilities under policy and reference. The caller scores them with any function.
//! [`TextPpo::learn`] takes the scores. [`TextPpo::update`] does all three.
//!
//! Four settings turn it into the methods beside PPO: the advantage ([`TextAdvantage`]), the ratio that is clipped
//! ([`TextRatio`]), the average over a gradient step ([`TextAverage`]) and the place of the KL penalty ([`KlPlace`]).
//! `TextPreset` has the published combinations by name. Only GAE has a critic.
//!
//! The details are those of lm-human-preferences (Ziegler et al. 2019) as collected in "The N implementation details of
//! RLHF with PPO" (Huang et al. 2024): one temperature divides the logits of policy and reference, in sampling and in
//! training; the reward of a token is −β times its estimated KL, and the last token also gets the score; advantages are
//! whitened over the rollout; the critic is a scalar head on the policy's own hidden states. No model is copied
//! needlessly: the reference of a policy with adapters is the same model without them.
//!
//! An update is a transaction: if it is cancelled or fails, everything, random streams included, is as it was before.

#[cfg(test)]
mod estimator_tests;
mod samples;
#[cfg(test)]
mod tests;

use super::cursor::Cursor;
use super::heads::ScalarHead;
use super::language_model::LanguageModel;
use super::optimiser::{Optimiser, Saved};
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::rollout::{Episode, Reference, RolloutPlan, check_scores, rows};
use super::rows::rows_of;
use super::transaction::transaction;
use flipside_core::settings::{KlPlace, TextAdvantage, TextAverage, TextPpoSettings, TextRatio};
use flipside_core::{Array, Arrays, Seed, Stream};
use flipside_learn::{
    KlController, LearnError, Reader, RewardScale, approx_kl, clipped_objective_between, clipped_value_loss,
    explained_variance, kl_loss,
};
use rand::seq::SliceRandom;
use samples::Sample;
use tch::{Kind, Tensor};

/// The trainer: policy, critic, reference, optimiser, KL controller, position in the prompts and random streams.
pub struct TextPpo<M> {
    settings: TextPpoSettings,
    policy: M,
    reference: Reference<M>,
    /// The critic, a scalar head on the policy's hidden states, if the advantage needs one.
    head: Option<ScalarHead>,
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

/// Statistics of an update. Losses, KL to the rollout's policy, clip fraction and gradient norm are means over the
/// gradient steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextPpoStats {
    /// Mean score of the episodes that have one, as it was given.
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
    /// Share of the groups whose completions all have the same score; 0 where a group is one completion.
    pub equal_groups: f64,
    /// How often completions were drawn: more than once only with `drop_equal`.
    pub rounds: usize,
    /// The clipped surrogate loss.
    pub policy_loss: f64,
    /// The estimated KL in the loss, before it is multiplied by β; 0 where the penalty is in the reward.
    pub kl_loss: f64,
    /// Half the squared error of the critic; 0 without a critic.
    pub value_loss: f64,
    /// KL from the rollout's policy, estimated on the minibatches, nats per token.
    pub approx_kl: f64,
    /// Share of tokens whose probability ratio, or that of their completion, left the clip range.
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

/// Returns a score for every episode of an update: numbers (`f32`), or `Option<f32>` where an episode may have none.
/// Through the [`ProgressFn`] it can report progress and be cancelled.
pub type ScoreFn<'a, S = f32> = &'a mut dyn FnMut(&[Episode], ProgressFn) -> Result<Vec<S>, LearnError>;

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
        let head = settings.has_critic().then(|| ScalarHead::zero(policy.width(), policy.device()));
        TextPpo::with_head(policy, head, reference, stop, settings, seed)
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
        if !settings.has_critic() {
            return Err(LearnError::Settings("only text.ppo.advantage = gae has a critic".to_owned()));
        }
        TextPpo::with_head(policy, Some(head), reference, stop, settings, seed)
    }

    fn with_head(
        policy: M,
        head: Option<ScalarHead>,
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
        let leaves = leaves.into_iter().chain(head.iter().flat_map(ScalarHead::trainable)).collect();
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

    /// The critic, if there is one.
    pub fn critic(&self) -> Option<&ScalarHead> {
        self.head.as_ref()
    }

    /// A whole update: collects episodes, has them scored and learns. On any error, including one of `score_fn` and a
    /// cancel, nothing has changed, so that a repeated update generates the same completions.
    ///
    /// With `drop_equal`, completions are drawn again until the groups whose scores differ fill a batch, and training
    /// goes on with those. All episodes that were drawn are returned, and the statistics of rewards and completions are
    /// over all of them.
    pub fn update<S: Copy + Into<Option<f32>>>(
        &mut self,
        prompts: &[Vec<u32>],
        score_fn: ScoreFn<S>,
        on_progress: ProgressFn,
    ) -> Result<(Vec<Episode>, TextPpoStats), LearnError> {
        transaction(self, |ppo| &mut ppo.state, |ppo| ppo.try_update(prompts, score_fn, on_progress))
    }

    fn try_update<S: Copy + Into<Option<f32>>>(
        &mut self,
        prompts: &[Vec<u32>],
        score_fn: ScoreFn<S>,
        on_progress: ProgressFn,
    ) -> Result<(Vec<Episode>, TextPpoStats), LearnError> {
        let TextPpoSettings { drop_equal, drop_equal_rounds, group_size, batch_size, .. } = self.settings;
        let mut episodes: Vec<Episode> = Vec::new();
        let mut scores: Vec<Option<f32>> = Vec::new();
        let mut different: Vec<usize> = Vec::new();
        let mut rounds = 0;
        loop {
            rounds += 1;
            let start = episodes.len();
            episodes.extend(self.collect(prompts, on_progress)?);
            scores.extend(score_fn(&episodes[start..], on_progress)?.into_iter().map(Into::into));
            check_scores(&episodes, &scores)?;
            if !drop_equal {
                return self.learn(&episodes, &scores, on_progress).map(|stats| (episodes, stats));
            }
            let groups = (start..episodes.len()).step_by(group_size);
            different.extend(groups.filter(|&group| {
                let group = group..group + group_size;
                !self.are_equal(&episodes[group.clone()], &scores[group])
            }));
            if different.len() * group_size >= batch_size || rounds >= drop_equal_rounds {
                break;
            }
        }
        // If no group differs, only a KL penalty in the loss is left to learn from.
        different.truncate(batch_size / group_size);
        if different.is_empty() {
            different.extend((episodes.len() - batch_size..episodes.len()).step_by(group_size));
        }
        let kept = || different.iter().flat_map(|&group| group..group + group_size);
        let kept_episodes: Vec<Episode> = kept().map(|i| episodes[i].clone()).collect();
        let kept_scores: Vec<Option<f32>> = kept().map(|i| scores[i]).collect();
        let learned = self.learn(&kept_episodes, &kept_scores, on_progress)?;
        let TextPpoStats { reward, kl, entropy, length, stopped, equal_groups, .. } = self.summary(&episodes, &scores);
        Ok((episodes, TextPpoStats { reward, kl, entropy, length, stopped, equal_groups, rounds, ..learned }))
    }

    // Collecting.

    /// Generates a group of completions for each of the next prompts, one after the other, and computes their
    /// log-probabilities, values and entropies. `prompts` should be the same in every call, none of them empty. On any
    /// error, including a cancel, nothing has changed.
    pub fn collect(&mut self, prompts: &[Vec<u32>], on_progress: ProgressFn) -> Result<Vec<Episode>, LearnError> {
        let collect = |ppo: &mut TextPpo<M>| {
            let (rollout, reference) = (ppo.rollout(), ppo.reference.model(&ppo.policy));
            let models = (&ppo.policy, reference, ppo.head.as_ref());
            rollout.collect(models, prompts, (&mut ppo.state.prompts, &mut ppo.state.samples), on_progress)
        };
        transaction(self, |ppo| &mut ppo.state, collect)
    }

    fn rollout(&self) -> RolloutPlan {
        let TextPpoSettings { batch_size, group_size, rollout_batch_size, temperature, max_new_tokens, .. } =
            self.settings;
        RolloutPlan {
            batch_size,
            group_size,
            rollout_batch_size,
            temperature,
            max_new_tokens,
            stop: self.stop.clone(),
            scoring_temperature: temperature,
            part: self.part(),
        }
    }

    /// Episodes in a part of a minibatch (gradient accumulation).
    fn part(&self) -> usize {
        self.settings.minibatch().div_ceil(self.settings.gradient_accumulation_steps)
    }

    // Learning.

    /// Learns from episodes that were collected since the last update, with one score for each: `f32`, or `Option<f32>`
    /// where an episode may have none. An episode without a score counts in no mean and has the advantage 0.
    /// `on_progress` is called before every part of a minibatch and may cancel.
    ///
    /// The completions of a prompt are beside one another, as [`TextPpo::collect`] returns them.
    ///
    /// On any error, including a cancel, the trainer is as it was before the call. A number that is not finite is an
    /// error.
    pub fn learn<S: Copy + Into<Option<f32>>>(
        &mut self,
        episodes: &[Episode],
        scores: &[S],
        on_progress: ProgressFn,
    ) -> Result<TextPpoStats, LearnError> {
        let scores: Vec<Option<f32>> = scores.iter().map(|&score| score.into()).collect();
        check_scores(episodes, &scores)?;
        let group = self.settings.group_size;
        let of_one_prompt = |group: &[Episode]| group.iter().all(|e| e.prompt_index == group[0].prompt_index);
        if !episodes.len().is_multiple_of(group) || !episodes.chunks(group).all(of_one_prompt) {
            let what = "episodes in groups of one prompt each".to_owned();
            return Err(LearnError::Size { what, expected: group, got: episodes.len() % group });
        }
        // The last gradient step is the last thing that can fail, and a failed step changes nothing. If it is the only
        // one, there is nothing to undo, and no copy is needed.
        let several = self.settings.update_epochs * episodes.len().div_ceil(self.settings.minibatch()) > 1;
        let (before, saved) = (self.state.clone(), several.then(|| self.optimiser.save()));
        let done = self.improve(episodes, &scores, on_progress);
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
        scores: &[Option<f32>],
        on_progress: ProgressFn,
    ) -> Result<TextPpoStats, LearnError> {
        let [updates, planned] = self.state.updates;
        let mut stats = self.summary(episodes, scores);
        stats.beta = self.beta();
        stats.learning_rate = self.settings.optimiser.learning_rate_at(updates, planned);

        let rewards = self.token_rewards(episodes, scores);
        let samples = self.samples(episodes, &rewards, scores);
        if self.head.is_some() {
            let scored = || samples.iter().filter(|sample| sample.has_score);
            let values: Vec<f32> = scored().flat_map(|l| l.episode.values.iter().copied()).collect();
            let returns: Vec<f32> = scored().flat_map(|l| l.returns.iter().copied()).collect();
            stats.explained_variance = explained_variance(&values, &returns);
        }

        let (mut means, mut order) = (Means::default(), (0..samples.len()).collect::<Vec<usize>>());
        let (epochs, minibatch) = (self.settings.update_epochs, self.settings.minibatch());
        let parts_each: usize = order.chunks(minibatch).map(|m| m.len().div_ceil(self.part())).sum();
        let (mut done, of) = (0, epochs * parts_each);
        for _ in 0..epochs {
            order.shuffle(&mut self.state.minibatches);
            for minibatch in order.chunks(minibatch) {
                let chosen: Vec<&Sample> = minibatch.iter().map(|&i| &samples[i]).collect();
                let tokens = chosen.iter().map(|l| l.advantages.len()).sum::<usize>().max(1);
                let divisors = self.divisors(&chosen);
                let mut log_ratios = Vec::with_capacity(tokens);
                for part in chosen.chunks(self.part()) {
                    check_cancelled(on_progress, Progress::Learning { done, of })?;
                    done += 1;
                    log_ratios.extend(self.add_gradient(part, divisors, &mut means)?);
                }
                if means.steps == 0 {
                    let largest = log_ratios.iter().fold(0.0_f32, |largest, l| largest.max(l.abs()));
                    stats.first_log_ratio = f64::from(largest);
                    let error = log_ratios.iter().map(|&l| f64::from(l).exp_m1().abs()).sum::<f64>();
                    stats.first_ratio_error = error / tokens as f64;
                }
                means.norm += self.optimiser.step(stats.learning_rate)?;
                means.approx_kl += approx_kl(&log_ratios);
                let [low, high] = self.settings.clip_range();
                let outside = |l: &&f32| {
                    let excess = f64::from(**l).exp() - 1.0;
                    excess > high || excess < -low
                };
                let clipped = self.clipped_log_ratios(&chosen, log_ratios);
                means.clipped += clipped.iter().filter(outside).count() as f64 / tokens as f64;
                means.steps += 1;
            }
        }
        let steps = means.steps as f64;
        stats.policy_loss = means.policy / steps;
        stats.kl_loss = means.kl / steps;
        stats.value_loss = means.value / steps;
        stats.approx_kl = means.approx_kl / steps;
        stats.clip_fraction = means.clipped / steps;
        stats.grad_norm = means.norm / steps;

        self.state.kl.observe(stats.kl, episodes.len());
        self.state.updates[0] += 1;
        Ok(stats)
    }

    /// What the losses of a minibatch are divided by, over all of its parts: the policy's and the critic's.
    fn divisors(&self, minibatch: &[&Sample]) -> [f64; 2] {
        let counted = || minibatch.iter().filter(|sample| sample.is_in_loss);
        let tokens = |samples: &mut dyn Iterator<Item = &&Sample>| samples.map(|l| l.advantages.len()).sum::<usize>();
        let policy = match self.settings.average {
            TextAverage::Tokens => tokens(&mut counted()),
            TextAverage::Completions => counted().count(),
            TextAverage::Constant => minibatch.len() * self.settings.max_new_tokens,
        };
        let value = tokens(&mut minibatch.iter().filter(|sample| sample.has_score));
        [policy, value].map(|divisor| divisor.max(1) as f64)
    }

    /// Adds the gradient of a part of a minibatch whose losses are divided by `divisors`. Returns the log-ratios of the
    /// part's tokens.
    fn add_gradient(
        &mut self,
        part: &[&Sample],
        divisors: [f64; 2],
        means: &mut Means,
    ) -> Result<Vec<f32>, LearnError> {
        let TextPpoSettings { temperature, value_clip, vf_coef: value_weight, ratio, average, .. } = self.settings;
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
        let column = |of: fn(&Sample) -> f32| {
            let numbers: Vec<f32> = part.iter().map(|sample| of(sample)).collect();
            Tensor::from_slice(&numbers).unsqueeze(1).to_device(self.policy.device())
        };
        let length = |sample: &Sample| sample.advantages.len().max(1) as f32;
        let old = table(|l| l.episode.log_probs.clone());
        let advantages = table(|l| l.advantages.clone());
        let mut weights = rows.real.shallow_clone();
        if average == TextAverage::Completions {
            weights = &weights / column(length);
        }
        if part.iter().any(|sample| !sample.is_in_loss) {
            weights = &weights * column(|sample| f32::from(u8::from(sample.is_in_loss)));
        }
        let [of_policy, of_value] = divisors;
        let mean = |loss: Tensor, weights: &Tensor, divisor: f64| (loss * weights).sum(Kind::Float) / divisor;

        // Without dropout: in the first minibatch the policy must be the one that generated the rollout.
        let learning = rows.hidden_for_loss(&self.policy, None);
        let hidden = rows.before_tokens(learning.states());
        let log_probs = rows.chosen(&rows.log_softmax(&self.policy, &hidden, temperature));
        let log_ratio = (&log_probs - old) * &rows.real;
        let of_completion = || log_ratio.sum_dim_intlist(-1, true, Kind::Float);
        let clipped = match ratio {
            TextRatio::Token => log_ratio.shallow_clone(),
            TextRatio::CompletionSum => of_completion().expand_as(&log_ratio),
            TextRatio::CompletionMean => (of_completion() / column(length)).expand_as(&log_ratio),
        };
        let surrogate = clipped_objective_between(&clipped, &advantages, self.settings.clip_range());
        let policy = mean(surrogate, &weights, of_policy);
        let mut losses = vec![("policy", policy, 1.0)];
        if self.settings.kl.place == KlPlace::Loss {
            let reference = table(|l| l.episode.reference_log_probs.clone());
            let kl = kl_loss(self.settings.kl.estimator, &((&log_probs - reference) * &rows.real));
            losses.push(("KL penalty", mean(kl, &weights, of_policy), self.beta()));
        }
        if let Some(head) = &self.head {
            let old_values = table(|l| l.episode.values.clone());
            let returns = table(|l| l.returns.clone());
            let mut weights = rows.real.shallow_clone();
            if part.iter().any(|sample| !sample.has_score) {
                weights = &weights * column(|sample| f32::from(u8::from(sample.has_score)));
            }
            let loss = clipped_value_loss(&head.forward(&hidden), &old_values, &returns, value_clip);
            losses.push(("critic", mean(loss, &weights, of_value), value_weight));
        }
        for (what, loss, _) in &losses {
            let loss = loss.double_value(&[]);
            if !loss.is_finite() {
                return Err(LearnError::NotFinite { what: format!("the loss of the {what}") });
            }
            *match *what {
                "policy" => &mut means.policy,
                "critic" => &mut means.value,
                _ => &mut means.kl,
            } += loss;
        }
        let total = losses.into_iter().map(|(_, loss, weight)| if weight == 1.0 { loss } else { loss * weight });
        let total = total.reduce(|sum, loss| sum + loss).unwrap_or_default();
        self.optimiser.add(&total, &learning)?;
        let lengths = part.iter().map(|l| l.advantages.len());
        Ok(rows_of(&log_ratio, lengths).concat())
    }

    /// The log-ratios that are clipped, out of those of the tokens of a minibatch.
    fn clipped_log_ratios(&self, minibatch: &[&Sample], log_ratios: Vec<f32>) -> Vec<f32> {
        if self.settings.ratio == TextRatio::Token {
            return log_ratios;
        }
        let (mut rest, mut clipped) = (&log_ratios[..], Vec::with_capacity(log_ratios.len()));
        for sample in minibatch {
            let (own, later) = rest.split_at(sample.advantages.len());
            let sum: f32 = own.iter().sum();
            let mean = self.settings.ratio == TextRatio::CompletionMean;
            clipped.extend(std::iter::repeat_n(if mean { sum / own.len() as f32 } else { sum }, own.len()));
            rest = later;
        }
        clipped
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
    kl: f64,
    value: f64,
    approx_kl: f64,
    clipped: f64,
    norm: f64,
    steps: usize,
}
