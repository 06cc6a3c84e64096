//! Gradient steps on one minibatch after the other, as supervised training and reward models take them.

use super::cursor::Cursor;
use super::hidden::Hidden;
use super::optimiser::Optimiser;
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::transaction::transaction;
use flipside_core::settings::OptimiserSettings;
use flipside_core::{Array, Arrays, Seed, Stream};
use flipside_learn::{LearnError, Reader};
use rand::Rng;
use tch::Tensor;

/// What a trainer needs beside its model and its loss: the optimiser, the position in the data and the number of steps.
pub(super) struct MinibatchTrainer {
    optimiser: Optimiser,
    cursor: Cursor,
    batch_size: usize,
    gradient_accumulation_steps: usize,
    /// Seeds the adapters' dropout.
    seed: Seed,
    /// Steps done, and planned in total (0: no plan, so the learning rate does not decay).
    steps: [u64; 2],
}

/// Statistics of a gradient step.
pub(super) struct GradientStep {
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Adam's learning rate.
    pub learning_rate: f64,
}

impl MinibatchTrainer {
    /// A trainer of these leaves. `order` decides the order of the data, and `seed` the adapters' dropout.
    pub fn new(
        leaves: Vec<(String, Tensor)>,
        settings: &OptimiserSettings,
        batch_size: usize,
        gradient_accumulation_steps: usize,
        order: Stream,
        seed: Seed,
    ) -> Result<MinibatchTrainer, LearnError> {
        Ok(MinibatchTrainer {
            optimiser: Optimiser::new(leaves, settings)?,
            cursor: Cursor::new(order),
            batch_size,
            gradient_accumulation_steps,
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

    /// Examples in a part of a minibatch (gradient accumulation).
    pub fn part_size(&self) -> usize {
        self.batch_size.div_ceil(self.gradient_accumulation_steps)
    }

    /// Takes one gradient step on the next minibatch of `data`, which must not be empty. `on_progress` is called before
    /// every part of the minibatch and may cancel. On any error nothing has changed.
    ///
    /// `part_loss` gets the minibatch, one part of it and the seed of that part's dropout. It returns the part's share
    /// of the minibatch's loss with the hidden states that it was computed from, or `None` if the part has no loss.
    pub fn step<'m, T>(
        &mut self,
        data: &[T],
        on_progress: ProgressFn,
        part_loss: impl FnMut(&[&T], &[&T], u64) -> Result<Option<(Tensor, Hidden<'m>)>, LearnError>,
    ) -> Result<GradientStep, LearnError> {
        let step = |trainer: &mut MinibatchTrainer| {
            let indices = trainer.cursor.take(trainer.batch_size, data.len());
            let minibatch: Vec<&T> = indices.into_iter().map(|i| &data[i]).collect();
            trainer.step_on(&minibatch, on_progress, part_loss)
        };
        transaction(self, |trainer| &mut trainer.cursor, step)
    }

    /// The same on exactly these examples, whatever the batch size and the position in the data.
    pub fn step_on<'m, T>(
        &mut self,
        minibatch: &[&T],
        on_progress: ProgressFn,
        part_loss: impl FnMut(&[&T], &[&T], u64) -> Result<Option<(Tensor, Hidden<'m>)>, LearnError>,
    ) -> Result<GradientStep, LearnError> {
        let done = self.descend(minibatch, on_progress, part_loss);
        match done {
            // Weights and moments change only at the very end of a step, so an error leaves nothing to undo there.
            Ok(_) => self.steps[0] += 1,
            Err(_) => self.optimiser.zero_grad(),
        }
        done
    }

    fn descend<'m, T>(
        &mut self,
        minibatch: &[&T],
        on_progress: ProgressFn,
        mut part_loss: impl FnMut(&[&T], &[&T], u64) -> Result<Option<(Tensor, Hidden<'m>)>, LearnError>,
    ) -> Result<GradientStep, LearnError> {
        let [step, planned] = self.steps;
        let learning_rate = self.optimiser.settings().learning_rate_at(step, planned);
        let parts = minibatch.chunks(self.part_size());
        let of = parts.len();
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Learning { done, of })?;
            if let Some((loss, hidden)) = part_loss(minibatch, part, dropout_seed(self.seed, step, done))? {
                self.optimiser.add(&loss, &hidden)?;
            }
        }
        let grad_norm = self.optimiser.step(learning_rate)?;
        Ok(GradientStep { grad_norm, learning_rate })
    }

    /// The whole state: the trained parameters under `model.*`, `adam.*`, `cursor` and `progress`.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        self.optimiser.to_arrays(&mut arrays);
        self.cursor.to_arrays("cursor", &mut arrays);
        arrays.insert("progress".to_owned(), Array::u64(self.steps.to_vec()));
        arrays
    }

    /// Restores a state from [`MinibatchTrainer::to_arrays`], of the same model. On an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: Reader) -> Result<(), LearnError> {
        let saved = self.optimiser.read(arrays)?;
        let cursor = Cursor::from_arrays("cursor", arrays)?;
        self.steps = arrays.words("progress")?;
        self.cursor = cursor;
        self.optimiser.restore(saved);
        Ok(())
    }
}

/// The dropout seed for one part of a step's minibatch. It depends only on what a resumed run has too.
fn dropout_seed(seed: Seed, step: u64, part: usize) -> u64 {
    seed.stream(&format!("text.dropout.{step}.{part}")).next_u64()
}
