//! Blocks swapped between two versions of a model: where a change sits.

use super::patching::{Run, number};
use super::{InterpError, Metric, Start, Subject, Trace};
use crate::model::{HookPoint, Site};
use std::collections::BTreeSet;
use tch::Tensor;

/// The metric of mixtures of two versions of a model. L blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Swaps {
    /// Of the base model.
    pub base: f64,
    /// Of the tuned model.
    pub tuned: f64,
    /// Of the base model with the tuned model's embeddings.
    pub embedding: f64,
    /// Of the base model with block l of the tuned model, `[L]`.
    pub one: Vec<f64>,
    /// Of the base model with the tuned model's embeddings and blocks 0 to l, `[L]`.
    pub up_to: Vec<f64>,
    /// Of the base model with the tuned model's last norm and unembedding.
    pub unembedding: f64,
    /// Of everything swapped one part after the other, which is the tuned model.
    pub all: f64,
}

/// Swaps the parts of `base` for those of `tuned`, with the prompt `[1, T]`. `on_block` is called before every block
/// with the number of blocks done; if it returns true, the work is cancelled.
///
/// # Errors
///
/// Models of different shapes, tokens that cannot be read, or cancellation.
pub fn swaps(
    base: Subject,
    tuned: Subject,
    tokens: &Tensor,
    metric: Metric,
    on_block: &mut dyn FnMut(usize) -> bool,
) -> Result<Swaps, InterpError> {
    let runs = SwapRuns::new(base, tuned, tokens, metric)?;
    let blocks = base.blocks();
    let mut found = runs.ends(base, tuned)?;
    for block in 0..blocks {
        if on_block(block) {
            return Err(InterpError::Cancelled);
        }
        let [one, up_to] = runs.block(base, tuned, block)?;
        found.one.push(one);
        found.up_to.push(up_to);
    }
    Ok(found)
}

/// [`swaps`] in parts: both runs. The mixtures of a block are computed whenever there is time.
#[derive(Debug)]
pub struct SwapRuns {
    tokens: Tensor,
    metric: Metric,
    of_base: Trace,
    of_tuned: Trace,
}

impl SwapRuns {
    /// Runs both models over the prompt, `[1, T]`.
    ///
    /// # Errors
    ///
    /// As [`swaps`].
    pub fn new(base: Subject, tuned: Subject, tokens: &Tensor, metric: Metric) -> Result<SwapRuns, InterpError> {
        base.check_alike(&tuned)?;
        let streams = |subject: Subject| {
            let wanted: BTreeSet<HookPoint> = subject.in_every_block(Site::ResidPre).collect();
            subject.trace(Start::Tokens(tokens), &wanted, &[])
        };
        Ok(SwapRuns { tokens: tokens.shallow_clone(), metric, of_base: streams(base)?, of_tuned: streams(tuned)? })
    }

    fn read(&self, reader: Subject, end: &Tensor) -> Result<f64, InterpError> {
        tch::no_grad(|| self.metric.read(&reader, &reader.norm(end), &self.tokens).map(|m| number(&m)))
    }

    /// The metric with `base` from a residual stream before a block to the end.
    fn on_with(&self, base: Subject, block: usize, x: &Tensor) -> Result<f64, InterpError> {
        self.read(base, &base.run_blocks(block..base.blocks(), x))
    }

    /// The metric with this block from `tuned`, and with its embeddings and all blocks up to this one.
    ///
    /// # Errors
    ///
    /// A block that the models do not have.
    pub fn block(&self, base: Subject, tuned: Subject, block: usize) -> Result<[f64; 2], InterpError> {
        let mixed = |trace: &Trace| {
            let swapped = tuned.run_blocks(block..block + 1, trace.get(Site::ResidPre, block)?);
            self.on_with(base, block + 1, &swapped)
        };
        Ok([mixed(&self.of_base)?, mixed(&self.of_tuned)?])
    }

    /// Everything but the mixtures of the blocks, whose lists stay empty.
    ///
    /// # Errors
    ///
    /// Tokens that cannot be read.
    pub fn ends(&self, base: Subject, tuned: Subject) -> Result<Swaps, InterpError> {
        let mut x = tuned.embed(&self.tokens);
        for block in 0..base.blocks() {
            x = tuned.run_blocks(block..block + 1, &x);
        }
        Ok(Swaps {
            base: self.read(base, &self.of_base.end)?,
            tuned: self.read(tuned, &self.of_tuned.end)?,
            embedding: self.on_with(base, 0, &tuned.embed(&self.tokens))?,
            one: Vec::new(),
            up_to: Vec::new(),
            unembedding: self.read(tuned, &self.of_base.end)?,
            all: self.read(tuned, &x)?,
        })
    }
}

impl Run<'_> {
    /// The metric of the run.
    ///
    /// # Errors
    ///
    /// Tokens that cannot be read.
    pub fn metric(&self, metric: Metric) -> Result<f64, InterpError> {
        let trace = self.subject.trace(Start::Tokens(self.tokens), &BTreeSet::new(), &[])?;
        tch::no_grad(|| metric.read(&self.subject, &trace.normed, self.tokens).map(|m| number(&m)))
    }
}
