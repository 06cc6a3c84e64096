//! Supervised fine-tuning: the likelihood of completion tokens, each given all tokens before it. Training a base model
//! from scratch is the same with short prompts.

use super::hidden::Hidden;
use super::language_model::LanguageModel;
use super::minibatch::MinibatchTrainer;
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::rows::{Example, Rows};
use flipside_core::settings::SupervisedSettings;
use flipside_core::{Arrays, Seed};
use flipside_learn::{LearnError, Reader};
use tch::{Kind, Tensor};

/// The trainer: a model, its optimiser and the position in the data.
pub struct Supervised<M> {
    model: M,
    training: MinibatchTrainer,
}

/// Statistics of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SupervisedStats {
    /// Mean negative log-likelihood of the batch's completion tokens, nats.
    pub loss: f64,
    /// Number of completion tokens in the batch.
    pub tokens: usize,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Adam's learning rate.
    pub learning_rate: f64,
}

impl<M: LanguageModel> Supervised<M> {
    /// A trainer of the model's trainable parameters. The seed decides the order of examples and the adapters' dropout.
    pub fn new(model: M, settings: &SupervisedSettings, seed: Seed) -> Result<Supervised<M>, LearnError> {
        settings.check().map_err(LearnError::Settings)?;
        let training = MinibatchTrainer::new(
            model.trainable(),
            &settings.optimiser,
            settings.batch_size,
            settings.gradient_accumulation_steps,
            seed.stream("text.sft.examples"),
            seed,
        )?;
        Ok(Supervised { model, training })
    }

    /// Sets the total number of steps, over which the learning rate decays. It is saved with the state.
    pub fn plan(&mut self, steps: u64) {
        self.training.plan(steps);
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.training.steps()
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Returns the model.
    pub fn into_model(self) -> M {
        self.model
    }

    /// Takes one gradient step on the next batch of `examples`, which should be the same in every call. `on_progress`
    /// is called before every part of the batch (gradient accumulation) and may cancel. On any error the trainer is
    /// unchanged.
    pub fn step(&mut self, examples: &[Example], on_progress: ProgressFn) -> Result<SupervisedStats, LearnError> {
        if examples.is_empty() {
            return Err(LearnError::Settings("there is no example to learn from".to_owned()));
        }
        let (model, mut stats) = (&self.model, SupervisedStats::default());
        let step = self.training.step(examples, on_progress, |minibatch, part, dropout| {
            stats.tokens = minibatch.iter().copied().map(completion_tokens).sum();
            let hidden = |rows: &Rows| rows.hidden_for_loss(model, Some(dropout));
            let Some((sum, hidden)) = negative_log_likelihood(model, part.iter().copied(), hidden) else {
                return Ok(None);
            };
            let loss = sum / stats.tokens as f64;
            stats.loss += loss.double_value(&[]);
            if !stats.loss.is_finite() {
                return Err(LearnError::NotFinite { what: "the loss of the completions".to_owned() });
            }
            Ok(Some((loss, hidden)))
        })?;
        Ok(SupervisedStats { grad_norm: step.grad_norm, learning_rate: step.learning_rate, ..stats })
    }

    /// Mean negative log-likelihood of the examples' completion tokens, nats; its exponential is the perplexity. 0
    /// where there are none.
    pub fn evaluate(&self, examples: &[Example], on_progress: ProgressFn) -> Result<f64, LearnError> {
        let tokens: usize = examples.iter().map(completion_tokens).sum();
        let parts = examples.chunks(self.training.part_size());
        let (of, mut sum) = (parts.len(), 0.0);
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            let hidden = |rows: &Rows| Hidden::with_graph(rows.hidden(&self.model, true));
            let part = tch::no_grad(|| negative_log_likelihood(&self.model, part.iter(), hidden));
            sum += part.map_or(0.0, |(sum, _)| sum.double_value(&[]));
        }
        Ok(sum / tokens.max(1) as f64)
    }

    /// The whole state: the trained parameters under `model.*`, `adam.*`, `cursor` and `progress`.
    pub fn to_arrays(&self) -> Arrays {
        self.training.to_arrays()
    }

    /// Restores a state from [`Supervised::to_arrays`], of the same model. On the CPU, training continues bit for bit.
    /// On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        self.training.load_arrays(Reader(arrays))
    }
}

/// Number of completion tokens of an example.
fn completion_tokens(example: &Example) -> usize {
    example.parts().1.len()
}

/// The negative log-likelihood summed over completion tokens, nats, and the hidden states that it was computed from;
/// `None` without completion tokens.
fn negative_log_likelihood<'e, 'm>(
    model: &impl LanguageModel,
    examples: impl Iterator<Item = &'e Example>,
    hidden: impl FnOnce(&Rows) -> Hidden<'m>,
) -> Option<(Tensor, Hidden<'m>)> {
    let rows: Vec<(&[u32], &[u32])> =
        examples.map(Example::parts).filter(|(_, completion)| !completion.is_empty()).collect();
    if rows.is_empty() {
        return None;
    }
    let rows = Rows::new(&rows, model.device());
    let hidden = hidden(&rows);
    let all = rows.log_softmax(model, &rows.before_tokens(hidden.states()), 1.0);
    Some((-(rows.chosen(&all) * &rows.real).sum(Kind::Float), hidden))
}
