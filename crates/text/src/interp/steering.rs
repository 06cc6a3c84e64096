//! Steering: a vector is added to the residual stream while a model writes (Turner et al. 2023; Rimsky et al. 2024).

use super::{InterpError, Start, Subject};
use crate::generate::{Completion, Sampling, generate_with};
use crate::model::{HookPoint, Hooks, Site, Transformer};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// A vector to be added to the residual stream after a block, from the last token of the prompt on.
#[derive(Debug)]
pub struct Steering {
    block: usize,
    /// `[d]`, f32.
    added: Tensor,
}

impl Steering {
    /// `strength` times this vector, `[d]`, after block `block` of this model.
    ///
    /// # Errors
    ///
    /// A block that the model does not have, or a vector of another size.
    pub fn new(subject: &Subject, block: usize, vector: &Tensor, strength: f64) -> Result<Steering, InterpError> {
        let config = subject.config();
        if block >= config.layers {
            return Err(InterpError::Data(format!(
                "The model has {} blocks, so there is no block {block}; they count from 0.",
                config.layers
            )));
        }
        if vector.size() != [config.width as i64] {
            let (found, width) = (vector.size(), config.width);
            return Err(InterpError::Models(format!("the vector is {found:?} and hidden states have {width} numbers")));
        }
        let added = (vector.detach() * strength).to_kind(Kind::Float).to_device(subject.device());
        Ok(Steering { block, added })
    }
}

/// The hooks of a steered pass.
struct Steered<'a> {
    steering: &'a Steering,
    /// How many of the last columns are steered.
    columns: i64,
}

impl Hooks for Steered<'_> {
    const TRACES: bool = false;

    fn at(&mut self, site: Site, block: usize, x: Tensor) -> Tensor {
        if site != Site::ResidPost || block != self.steering.block {
            return x;
        }
        let all = x.size()[1];
        let columns = self.columns.min(all);
        let (before, after) = (x.narrow(1, 0, all - columns), x.narrow(1, all - columns, columns));
        Tensor::cat(&[before, after + self.steering.added.to_kind(x.kind())], 1)
    }

    fn added(&self, block: usize) -> Option<&Tensor> {
        (block == self.steering.block).then_some(&self.steering.added)
    }
}

/// One completion for each prompt, steered; otherwise as [`crate::generate::generate`].
pub fn generate_steered(
    subject: &Subject,
    prompts: &[&[u32]],
    steering: &Steering,
    sampling: &Sampling,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Vec<Completion> {
    let mut hooks = Steered { steering, columns: 1 };
    generate_with(subject.model(), prompts, 1, sampling, subject.adapters(), &mut hooks, on_token)
}

/// The hidden states after the last norm, `[B, T, d]`, of ids `[B, T]` under a mask, steered in the columns from `from`
/// on, in one pass.
pub fn steered_hidden(subject: &Subject, ids: &Tensor, mask: &Tensor, steering: &Steering, from: i64) -> Tensor {
    let model: &Transformer = subject.model();
    let mut hooks = Steered { steering, columns: ids.size()[1] - from };
    tch::no_grad(|| model.hidden_with(ids, mask, 0, None, subject.adapters(), &mut hooks))
}

/// The residual streams at the last token of each prompt, `[prompts, sites, d]`, one prompt after the other.
/// `on_prompt` is called before each with the number of prompts done; if it returns true, the work is cancelled.
///
/// # Errors
///
/// No prompts, tokens that cannot be read, or cancellation.
pub fn last_streams(
    subject: &Subject,
    prompts: &[Vec<u32>],
    sites: &[HookPoint],
    on_prompt: &mut dyn FnMut(usize) -> bool,
) -> Result<Tensor, InterpError> {
    if prompts.is_empty() {
        return Err(InterpError::Data("There are no prompts to read; give some.".to_owned()));
    }
    let wanted: BTreeSet<HookPoint> = sites.iter().copied().collect();
    let mut rows = Vec::with_capacity(prompts.len());
    for (done, prompt) in prompts.iter().enumerate() {
        if on_prompt(done) {
            return Err(InterpError::Cancelled);
        }
        let tokens = subject.tokens(prompt)?;
        let trace = subject.trace(Start::Tokens(&tokens), &wanted, &[])?;
        let last = |at: &HookPoint| trace.get(at.site, at.block).map(|x| x.get(0).get(prompt.len() as i64 - 1));
        rows.push(Tensor::stack(&sites.iter().map(last).collect::<Result<Vec<_>, _>>()?, 0));
    }
    Ok(Tensor::stack(&rows, 0))
}

/// The difference of means, `[d]`: of the residual stream after block `block` at the last token of `towards`, less that
/// of `away`. Each side has a subject of its own, so that it may be two sets of prompts in one model or the same
/// prompts in two models.
///
/// # Errors
///
/// A side without prompts, or tokens that cannot be read.
pub fn difference_of_means(
    towards: (&Subject, &[Vec<u32>]),
    away: (&Subject, &[Vec<u32>]),
    block: usize,
) -> Result<Tensor, InterpError> {
    let mean = |(subject, prompts): (&Subject, &[Vec<u32>])| -> Result<Tensor, InterpError> {
        let streams = last_streams(subject, prompts, &[Site::ResidPost.of(block)], &mut |_| false)?;
        Ok(streams.mean_dim(0, false, Kind::Float).get(0))
    };
    towards.0.check_alike(away.0)?;
    Ok(mean(towards)? - mean(away)?)
}
