//! Supervised fine-tuning: the likelihood of completion tokens, each given all tokens before it. Training a base model
//! from scratch is the same with short prompts.

use super::cursor::Cursor;
use super::hidden::Hidden;
use super::language_model::LanguageModel;
use super::optimiser::Optimiser;
use super::progress::{Progress, Watch, look};
use super::rows::{Example, Rows, drop_in_part};
use flipside_core::settings::SupervisedSettings;
use flipside_core::{Array, Arrays, Seed};
use flipside_learn::{LearnError, Reader};
use tch::{Kind, Tensor};

/// The trainer: a model, its optimiser and the position in the data.
pub struct Supervised<M> {
    settings: SupervisedSettings,
    model: M,
    optimiser: Optimiser,
    cursor: Cursor,
    /// Seeds the adapters' dropout.
    seed: Seed,
    /// Steps done, and planned in total (0: no plan, so the learning rate does not decay).
    steps: [u64; 2],
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
        Ok(Supervised {
            optimiser: Optimiser::new(model.trainable(), &settings.optimiser)?,
            cursor: Cursor::new(seed.stream("text.sft.examples")),
            settings: settings.clone(),
            model,
            seed,
            steps: [0, 0],
        })
    }

    /// Sets the total number of steps, over which the learning rate decays. It is saved with the state.
    pub fn plan(&mut self, steps: u64) {
        self.steps[1] = steps;
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.steps[0]
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Returns the model.
    pub fn into_model(self) -> M {
        self.model
    }

    /// Takes one gradient step on the next batch of `examples`, which should be the same in every call. `watch` is
    /// called before every part of the batch (gradient accumulation) and may cancel. On any error the trainer is
    /// unchanged.
    pub fn step(&mut self, examples: &[Example], watch: Watch) -> Result<SupervisedStats, LearnError> {
        if examples.is_empty() {
            return Err(LearnError::Settings("there is no example to learn from".to_owned()));
        }
        let cursor = self.cursor.clone();
        let done = self.descend(examples, watch);
        match done {
            // Weights and moments change only at the very end of a step, so an error leaves nothing to undo there.
            Ok(_) => self.steps[0] += 1,
            Err(_) => {
                self.optimiser.forget();
                self.cursor = cursor;
            }
        }
        done
    }

    fn descend(&mut self, examples: &[Example], watch: Watch) -> Result<SupervisedStats, LearnError> {
        let batch: Vec<(&[u32], &[u32])> = self
            .cursor
            .take(self.settings.batch_size, examples.len())
            .into_iter()
            .map(|i| examples[i].parts())
            .collect();
        let tokens: usize = batch.iter().map(|(_, completion)| completion.len()).sum();
        let learning_rate = self.settings.optimiser.learning_rate_at(self.steps[0], self.steps[1]);
        let mut stats = SupervisedStats { tokens, learning_rate, ..SupervisedStats::default() };
        let size = batch.len().div_ceil(self.settings.gradient_accumulation_steps);
        let parts = batch.chunks(size);
        let of = parts.len();
        for (done, part) in parts.enumerate() {
            look(watch, Progress::Learning { done, of })?;
            let dropout = drop_in_part(self.seed, self.steps[0], done);
            if let Some((sum, hidden)) =
                negative_log_likelihood(&self.model, part, |rows| rows.to_learn(&self.model, Some(dropout)))
            {
                let loss = sum / tokens as f64;
                stats.loss += loss.double_value(&[]);
                if !stats.loss.is_finite() {
                    return Err(LearnError::NotFinite { what: "the loss of the completions".to_owned() });
                }
                self.optimiser.add(&loss, &hidden)?;
            }
        }
        stats.grad_norm = self.optimiser.step(learning_rate)?;
        Ok(stats)
    }

    /// Mean negative log-likelihood of the examples' completion tokens, nats; its exponential is the perplexity. 0
    /// where there are none.
    pub fn evaluate(&self, examples: &[Example], watch: Watch) -> Result<f64, LearnError> {
        let rows: Vec<(&[u32], &[u32])> = examples.iter().map(Example::parts).collect();
        let tokens: usize = rows.iter().map(|(_, completion)| completion.len()).sum();
        let parts = rows.chunks(self.settings.batch_size.div_ceil(self.settings.gradient_accumulation_steps));
        let (of, mut sum) = (parts.len(), 0.0);
        for (done, part) in parts.enumerate() {
            look(watch, Progress::Scoring { done, of })?;
            let hidden = |rows: &Rows| Hidden::whole(rows.hidden(&self.model, true));
            let part = tch::no_grad(|| negative_log_likelihood(&self.model, part, hidden));
            sum += part.map_or(0.0, |(sum, _)| sum.double_value(&[]));
        }
        Ok(sum / tokens.max(1) as f64)
    }

    /// The whole state: the trained parameters under `model.*`, `adam.*`, `cursor` and `progress`.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        self.optimiser.to_arrays(&mut arrays);
        self.cursor.to_arrays("cursor", &mut arrays);
        arrays.insert("progress".to_owned(), Array::u64(self.steps.to_vec()));
        arrays
    }

    /// Restores a state from [`Supervised::to_arrays`], of the same model. On the CPU, training continues bit for bit.
    /// On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), LearnError> {
        let reader = Reader(arrays);
        let saved = self.optimiser.read(reader)?;
        let cursor = Cursor::from_arrays("cursor", reader)?;
        self.steps = reader.words("progress")?;
        self.cursor = cursor;
        self.optimiser.restore(saved);
        Ok(())
    }
}

/// The negative log-likelihood summed over completion tokens, nats, and the hidden states that it was computed from;
/// `None` without completion tokens.
fn negative_log_likelihood<'m>(
    model: &impl LanguageModel,
    rows: &[(&[u32], &[u32])],
    hidden: impl FnOnce(&Rows) -> Hidden<'m>,
) -> Option<(Tensor, Hidden<'m>)> {
    let rows: Vec<(&[u32], &[u32])> = rows.iter().filter(|(_, completion)| !completion.is_empty()).copied().collect();
    if rows.is_empty() {
        return None;
    }
    let rows = Rows::new(&rows, model.device());
    let hidden = hidden(&rows);
    let all = rows.log_softmax(model, &rows.before_tokens(hidden.states()), 1.0);
    Some((-(rows.chosen(&all) * &rows.real).sum(Kind::Float), hidden))
}
