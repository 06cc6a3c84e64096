//! Online DPO, top to bottom (Guo et al. 2024, "Direct language model alignment from online AI feedback"; TRL's
//! `OnlineDPOTrainer`). The policy writes two or more completions of each prompt, a judge scores them, and the policy
//! takes one gradient step on the best and the worst of each prompt, with any loss of pairs.
//!
//! Pairs may come from anywhere for the loss to have the optimum of DPO, so the temperature divides the logits when
//! completions are written, and not in the loss. Completions with equal scores are skipped: TRL counts the first as the
//! better one.
//!
//! Where a teacher answers questions, the caller asks about completions of [`TextOnlineDpo::policy`] and gives the
//! answers to [`TextOnlineDpo::step`].

#[cfg(test)]
#[path = "online/tests.rs"]
mod tests;

use super::super::advantage::is_equal;
use super::super::cursor::Cursor;
use super::super::ppo::ScoreFn;
use super::super::rollout::{Episode, Reference, RolloutMeans, RolloutPlan, check_scores};
use super::super::transaction::transaction;
use super::*;
use flipside_core::Stream;
use flipside_core::settings::TextOnlineDpoSettings;

/// The trainer: a policy, its reference, the optimiser, the position in the prompts and the random stream.
pub struct TextOnlineDpo<M> {
    settings: TextOnlineDpoSettings,
    trainer: TextPreference<M>,
    /// Tokens that end a completion. If there are none, no completion counts as unfinished.
    stop: Vec<u32>,
    state: State,
}

/// The state that is not the [`TextPreference`]'s.
#[derive(Clone)]
struct State {
    prompts: Cursor,
    samples: Stream,
    /// Updates done, those without a pair to learn from included.
    updates: u64,
}

/// Statistics of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextOnlineDpoStats {
    /// Of the pairs that were learned from; all zero if there were none. Its log-ratio is of these pairs alone.
    pub preference: TextPreferenceStats,
    /// Pairs that were learned from, at most one of each prompt.
    pub pairs: usize,
    /// Share of the prompts without a pair, because the scores are equal, fewer than two completions have one, or the
    /// best and the worst are the same tokens.
    pub ties: f64,
    /// Mean score of the completions that have one, as it was given.
    pub reward: f64,
    /// Mean over all completions of log π − log π_ref, summed over tokens, nats. With `temperature` = 1 it is an
    /// unbiased estimate of KL(π ‖ π_ref).
    pub kl: f64,
    /// Mean entropy of the policy's distribution of a token, nats.
    pub entropy: f64,
    /// Mean length of a completion, tokens.
    pub length: f64,
    /// Share of the completions that a stop token ended.
    pub stopped: f64,
}

impl<M: LanguageModel> TextOnlineDpo<M> {
    /// A trainer of the policy's trainable parameters. `stop` lists the tokens that end a completion. The seed decides
    /// the order of prompts, every sampled token and the order of a teacher's pairs.
    ///
    /// # Errors
    ///
    /// The loss `kto`, a reference that was to be computed once, [`Reference::Base`] for a policy that trains more than
    /// adapters, and settings that cannot work.
    pub fn new(
        policy: M,
        reference: Reference<M>,
        stop: &[u32],
        settings: &TextOnlineDpoSettings,
        loss: &TextPreferenceSettings,
        seed: Seed,
    ) -> Result<TextOnlineDpo<M>, LearnError> {
        settings.check().and_then(|()| settings.check_loss(loss)).map_err(LearnError::Settings)?;
        Ok(TextOnlineDpo {
            settings: settings.clone(),
            trainer: TextPreference::new(policy, Some(reference), loss, seed)?,
            stop: stop.to_vec(),
            state: State {
                prompts: Cursor::new(seed.stream("text.online_dpo.prompts")),
                samples: seed.stream("text.online_dpo.samples"),
                updates: 0,
            },
        })
    }

    /// Sets the total number of updates, over which the learning rate decays. It is saved with the state. An update
    /// without a pair takes no gradient step, so with ties the rate stays above its end.
    pub fn plan(&mut self, updates: u64) {
        self.trainer.plan(updates);
    }

    /// Updates done so far.
    pub fn updates(&self) -> u64 {
        self.state.updates
    }

    /// The policy.
    pub fn policy(&self) -> &M {
        self.trainer.policy()
    }

    /// The model that is the reference, and whether its adapters are on.
    pub fn reference(&self) -> (&M, bool) {
        self.trainer.models.reference_model()
    }

    /// A whole update: writes completions of the next prompts, has them scored and takes one gradient step, unless all
    /// scores are equal. `prompts` should be the same in every call, none of them empty. On any error, including one of
    /// `score_fn` and a cancel, nothing has changed, so that a repeated update writes the same completions.
    pub fn update<S: Copy + Into<Option<f32>>>(
        &mut self,
        prompts: &[Vec<u32>],
        score_fn: ScoreFn<S>,
        on_progress: ProgressFn,
    ) -> Result<(Vec<Episode>, TextOnlineDpoStats), LearnError> {
        transaction(self, |online| &mut online.state, |online| online.try_update(prompts, score_fn, on_progress))
    }

    fn try_update<S: Copy + Into<Option<f32>>>(
        &mut self,
        prompts: &[Vec<u32>],
        score_fn: ScoreFn<S>,
        on_progress: ProgressFn,
    ) -> Result<(Vec<Episode>, TextOnlineDpoStats), LearnError> {
        let group_size = self.settings.group_size;
        let rollout = RolloutPlan {
            batch_size: self.trainer.models.settings.batch_size * group_size,
            group_size,
            rollout_batch_size: 0,
            temperature: self.settings.temperature,
            max_new_tokens: self.settings.max_new_tokens,
            stop: self.stop.clone(),
            scoring_temperature: 1.0,
            part: 2 * self.trainer.training.part_size(),
        };
        let models = (self.trainer.policy(), self.trainer.models.reference_model(), None);
        let places = (&mut self.state.prompts, &mut self.state.samples);
        let episodes = rollout.collect(models, prompts, places, on_progress)?;
        let scores: Vec<Option<f32>> = score_fn(&episodes, on_progress)?.into_iter().map(Into::into).collect();
        check_scores(&episodes, &scores)?;
        let groups = episodes.chunks(group_size).zip(scores.chunks(group_size));
        let pairs: Vec<(TextComparison, [f32; 2])> = groups.filter_map(|(e, scores)| self.pair(e, scores)).collect();
        let items: Vec<Item> = pairs.iter().map(|(pair, reference)| (pair, Some(*reference))).collect();
        let preference = match items.is_empty() {
            true => TextPreferenceStats::default(),
            false => self.trainer.step_on(&items, on_progress)?,
        };
        self.state.updates += 1;
        let RolloutMeans { reward, kl, entropy, length, stopped } = RolloutMeans::of(&episodes, &scores);
        let ties = 1.0 - (pairs.len() * group_size) as f64 / episodes.len() as f64;
        let pairs = pairs.len();
        Ok((episodes, TextOnlineDpoStats { preference, pairs, ties, reward, kl, entropy, length, stopped }))
    }

    /// The best and the worst completion of a prompt, with their log-probabilities under the reference.
    fn pair(&self, group: &[Episode], scores: &[Option<f32>]) -> Option<(TextComparison, [f32; 2])> {
        let price = |e: &Episode| match self.stop.is_empty() || e.stopped {
            true => 0.0,
            false => self.settings.missing_eos_penalty,
        };
        let priced = |(e, score): (&Episode, &Option<f32>)| score.map(|score| f64::from(score) - price(e));
        let priced: Vec<Option<f64>> = group.iter().zip(scores).map(priced).collect();
        if is_equal(&priced) {
            return None;
        }
        let scored = || group.iter().zip(&priced).filter_map(|(e, score)| Some((e, (*score)?)));
        let (best, _) = scored().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let (worst, _) = scored().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let pair = TextComparison {
            prompt: best.prompt.clone(),
            left: best.completion.clone(),
            right: worst.completion.clone(),
            target: 1.0,
            margin: 0.0,
        };
        let reference = [best, worst].map(|e| e.reference_log_probs.iter().sum());
        (pair.left != pair.right).then_some((pair, reference))
    }

    /// Takes one gradient step on the next batch of a teacher's answers, a list that should only grow between calls:
    /// see [`TextPreference::step`]. Ties have the label ½. Without a pair it counts as an update, and nothing is
    /// learned.
    pub fn step(
        &mut self,
        pairs: &[TextComparison],
        on_progress: ProgressFn,
    ) -> Result<Option<TextPreferenceStats>, LearnError> {
        let stats = match pairs.is_empty() {
            true => None,
            false => Some(self.trainer.step(pairs, on_progress)?),
        };
        self.state.updates += 1;
        Ok(stats)
    }

    /// The whole state: that of the [`TextPreference`], `prompts`, `stream.samples` and `updates`. The reference is
    /// left out, because it does not change.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = self.trainer.to_arrays();
        self.state.prompts.to_arrays("prompts", &mut arrays);
        arrays.insert("stream.samples".to_owned(), Array::u64(self.state.samples.state().to_vec()));
        arrays.insert("updates".to_owned(), Array::u64(vec![self.state.updates]));
        arrays
    }

    /// Restores a state from [`TextOnlineDpo::to_arrays`], of the same models. On the CPU, training continues bit for
    /// bit. On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let reader = Reader(arrays);
        let [updates] = reader.words("updates")?;
        let state = State {
            prompts: Cursor::from_arrays("prompts", reader)?,
            samples: reader.stream("stream.samples")?,
            updates,
        };
        self.trainer.load_arrays(arrays)?;
        self.state = state;
        Ok(())
    }
}
