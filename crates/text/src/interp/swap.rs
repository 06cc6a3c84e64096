//! Blocks swapped between two versions of a model: where a change sits.

use super::patching::{Run, number};
use super::{InterpError, Metric, Start, Subject};
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
    base.check_alike(&tuned)?;
    let blocks = base.blocks();
    let streams = |subject: Subject| {
        let wanted: BTreeSet<HookPoint> = subject.in_every_block(Site::ResidPre).collect();
        subject.trace(Start::Tokens(tokens), &wanted, &[])
    };
    let (of_base, of_tuned) = (streams(base)?, streams(tuned)?);
    let read = |reader: Subject, end: &Tensor| {
        tch::no_grad(|| metric.read(&reader, &reader.norm(end), tokens).map(|m| number(&m)))
    };
    // From the residual stream before a block to the end, with the base model.
    let on_with_base = |block: usize, x: &Tensor| read(base, &base.run_blocks(block..blocks, x));
    let (mut one, mut up_to) = (Vec::with_capacity(blocks), Vec::with_capacity(blocks));
    for block in 0..blocks {
        if on_block(block) {
            return Err(InterpError::Cancelled);
        }
        let swapped = tuned.run_blocks(block..block + 1, of_base.get(Site::ResidPre, block)?);
        one.push(on_with_base(block + 1, &swapped)?);
        let so_far = tuned.run_blocks(block..block + 1, of_tuned.get(Site::ResidPre, block)?);
        up_to.push(on_with_base(block + 1, &so_far)?);
    }
    let mut x = tuned.embed(tokens);
    for block in 0..blocks {
        x = tuned.run_blocks(block..block + 1, &x);
    }
    Ok(Swaps {
        base: read(base, &of_base.end)?,
        tuned: read(tuned, &of_tuned.end)?,
        embedding: on_with_base(0, &tuned.embed(tokens))?,
        one,
        up_to,
        unembedding: read(tuned, &of_base.end)?,
        all: read(tuned, &x)?,
    })
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
