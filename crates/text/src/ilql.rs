//! Implicit language Q-learning (ILQL; Snell et al. 2022), with the losses of trlX: offline reinforcement learning from
//! completions that have a score, without writing any.
//!
//! A completion is an episode whose actions are its tokens and whose only reward is its score, at the last token. Two
//! Q heads learn r + γ V of the next state. V learns the τ-expectile of the smaller one of their slow copies, over the
//! tokens of the data, which approaches the best of these tokens as τ approaches 1. So nothing is ever asked about
//! tokens that the data does not have. [`generate_by_values`] writes with them.

#[path = "ilql/heads.rs"]
mod heads;
#[cfg(test)]
#[path = "ilql/tests.rs"]
mod tests;
#[path = "ilql/write.rs"]
mod write;

use super::hidden::Hidden;
use super::language_model::LanguageModel;
use super::minibatch::MinibatchTrainer;
use super::progress::ProgressFn;
use super::rows::{Rows, check_prompts};
use flipside_core::settings::IlqlSettings;
use flipside_core::{Arrays, Seed};
use flipside_learn::{LearnError, Reader};
pub use heads::IlqlHeads;
use tch::{Kind, Tensor};
pub use write::generate_by_values;
pub(super) use write::scores_by_values;

/// A completion with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredCompletion {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The completion.
    pub completion: Vec<u32>,
    /// Its score; the larger, the better.
    pub score: f32,
}

/// Gives the scores mean 0 and standard deviation 1 over the data, as trlX does. If they are all the same, they become
/// 0.
pub fn standardise(completions: &mut [ScoredCompletion]) {
    let n = completions.len().max(1) as f64;
    let mean = completions.iter().map(|one| f64::from(one.score)).sum::<f64>() / n;
    let std = (completions.iter().map(|one| (f64::from(one.score) - mean).powi(2)).sum::<f64>() / n).sqrt();
    for one in completions {
        let ahead = f64::from(one.score) - mean;
        one.score = if std > 1e-6 * mean.abs() { (ahead / std) as f32 } else { 0.0 };
    }
}

/// The trainer: a language model, its heads, the optimiser and the position in the data.
pub struct Ilql<M> {
    settings: IlqlSettings,
    model: M,
    heads: IlqlHeads,
    training: MinibatchTrainer,
}

/// Statistics of a step. Each loss is the mean over the batch's completion tokens, before its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IlqlStats {
    /// The weighted sum of the losses below.
    pub loss: f64,
    /// Squared error of the Q heads, the sum of both.
    pub q_loss: f64,
    /// Expectile loss of V.
    pub v_loss: f64,
    /// Cross-entropy of the Q heads with the tokens of the data, the sum of both, nats.
    pub cql_loss: f64,
    /// Negative log-likelihood of the tokens of the data, nats.
    pub nll: f64,
    /// Mean of the smaller one of the slow copies' Q of the tokens of the data.
    pub q: f64,
    /// Mean of V.
    pub v: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Adam's learning rate.
    pub learning_rate: f64,
}

impl<M: LanguageModel> Ilql<M> {
    /// A trainer of the model's trainable parameters and of random heads. The seed decides the heads and the order of
    /// the data.
    pub fn new(model: M, settings: &IlqlSettings, seed: Seed) -> Result<Ilql<M>, LearnError> {
        settings.check().map_err(LearnError::Settings)?;
        let token = Tensor::from_slice(&[0_i64]).reshape([1, 1]).to_device(model.device());
        let logits = tch::no_grad(|| model.logits(&model.hidden(&token, &token.ones_like(), 0, true)));
        let vocabulary = logits.size()[2] as usize;
        let heads = IlqlHeads::random(model.width(), vocabulary, model.device(), &mut seed.stream("text.ilql.heads"));
        let training = MinibatchTrainer::new(
            model.trainable().into_iter().chain(heads.trainable()).collect(),
            &settings.optimiser,
            settings.batch_size,
            settings.gradient_accumulation_steps,
            seed.stream("text.ilql.examples"),
            seed,
        )?;
        Ok(Ilql { settings: settings.clone(), model, heads, training })
    }

    /// Sets the total number of steps, over which the learning rate decays. It is saved with the state.
    pub fn plan(&mut self, steps: u64) {
        self.training.plan(steps);
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.training.steps()
    }

    /// The language model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The heads.
    pub fn heads(&self) -> &IlqlHeads {
        &self.heads
    }

    /// Takes one gradient step on the next batch of `completions`, which should be the same in every call and have
    /// standardised scores ([`standardise`]). `on_progress` is called before every part of the batch (gradient
    /// accumulation) and may cancel. On any error the trainer is unchanged.
    pub fn step(&mut self, completions: &[ScoredCompletion], on_progress: ProgressFn) -> Result<IlqlStats, LearnError> {
        check_prompts(completions.iter().map(|one| &one.prompt), "completion")?;
        let (settings, model, heads) = (&self.settings, &self.model, &self.heads);
        let mut stats = IlqlStats::default();
        let step = self.training.step(completions, on_progress, |minibatch, part, _| {
            if part.iter().all(|one| one.completion.is_empty()) {
                return Ok(None);
            }
            let tokens = minibatch.iter().map(|one| one.completion.len()).sum::<usize>().max(1);
            let (loss, hidden) = part_loss(model, heads, settings, part, tokens, &mut stats);
            match stats.loss.is_finite() {
                true => Ok(Some((loss, hidden))),
                false => Err(LearnError::NotFinite { what: "the loss of ILQL".to_owned() }),
            }
        })?;
        if self.training.steps().is_multiple_of(self.settings.steps_for_target_q_sync) {
            self.heads.follow(self.settings.alpha);
        }
        Ok(IlqlStats { grad_norm: step.grad_norm, learning_rate: step.learning_rate, ..stats })
    }

    /// The whole state: the trained parameters (including the heads) under `model.*`, the slow copies under
    /// `ilql_heads.*`, `adam.*`, `cursor` and `progress`.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = self.training.to_arrays();
        arrays.extend(self.heads.slow_to_arrays());
        arrays
    }

    /// Restores a state from [`Ilql::to_arrays`], of the same model. On the CPU, training continues bit for bit. On an
    /// error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let slow = self.heads.read_slow(Reader(arrays))?;
        self.training.load_arrays(Reader(arrays))?;
        self.heads.set_slow(slow);
        Ok(())
    }
}

/// The part's share of the loss of a batch with so many tokens, and the hidden states that it was computed from.
fn part_loss<'m>(
    model: &'m impl LanguageModel,
    heads: &IlqlHeads,
    settings: &IlqlSettings,
    part: &[&ScoredCompletion],
    tokens: usize,
    stats: &mut IlqlStats,
) -> (Tensor, Hidden<'m>) {
    let rows: Vec<(&[u32], &[u32])> = part.iter().map(|one| (&one.prompt[..], &one.completion[..])).collect();
    let rows = Rows::new(&rows, model.device());
    let hidden = rows.hidden_for_loss(model, None);
    // The state before each token. The last column is the state after the longest completion.
    let before = rows.before_tokens(hidden.states());
    let columns = rows.real.size()[1];
    // 1 where another token follows.
    let goes_on = rows.real.narrow(1, 1, (columns - 1).max(0)).constant_pad_nd([0, 1]);
    let scores: Vec<f32> = part.iter().map(|one| one.score).collect();
    let rewards = Tensor::from_slice(&scores).to_device(model.device()).unsqueeze(1) * (&rows.real - &goes_on);

    let values = heads.v(hidden.states());
    let v = values.narrow(1, 0, columns);
    let target = rewards + values.narrow(1, 1, columns).detach() * goes_on * settings.gamma;
    let mean = |of_tokens: Tensor| (of_tokens * &rows.real).sum(Kind::Float) / tokens as f64;

    let q = heads.q(&before);
    let q_loss = q.each_ref().map(|q| mean((rows.chosen(q) - &target).square()));
    let cql_loss = q.each_ref().map(|q| mean(-rows.chosen(&q.log_softmax(-1, Kind::Float))));
    let slow_q = rows.chosen(&heads.slow_q(&before));
    let ahead = &slow_q - &v;
    let weight = ahead.detach().ge(0.0).to_kind(Kind::Float) * (2.0 * settings.tau - 1.0) + (1.0 - settings.tau);
    let v_loss = mean(weight * ahead.square());
    let nll = mean(-rows.chosen(&rows.log_softmax(model, &before, 1.0)));

    let [q_loss, cql_loss] = [q_loss, cql_loss].map(|[first, second]| first + second);
    let loss = &q_loss + &v_loss + &cql_loss * settings.cql_scale + &nll * settings.awac_scale;
    let number = |tensor: &Tensor| tensor.double_value(&[]);
    stats.loss += number(&loss);
    stats.q_loss += number(&q_loss);
    stats.v_loss += number(&v_loss);
    stats.cql_loss += number(&cql_loss);
    stats.nll += number(&nll);
    stats.q += number(&mean(slow_q));
    stats.v += number(&mean(v.detach()));
    (loss, hidden)
}
