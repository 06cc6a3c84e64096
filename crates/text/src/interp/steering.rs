//! Steering: a vector is added to the residual stream while a model writes (Turner et al. 2023; Rimsky et al. 2024).

use super::error::no_position;
use super::{InterpError, Start, Subject};
use crate::generate::{Completion, Sampling, generate_with};
use crate::model::{HookPoint, Hooks, Site, Transformer};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// A vector to be added to the residual stream after a block, from the last token of the prompt on, or at one of its
/// tokens alone.
#[derive(Debug)]
pub struct Steering {
    block: usize,
    /// `[d]`, f32.
    added: Tensor,
    /// The only token of the prompt that is steered.
    position: Option<usize>,
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
        Ok(Steering { block, added, position: None })
    }

    /// The same at this token of each prompt alone, which every prompt has to have.
    pub fn at(self, position: usize) -> Steering {
        Steering { position: Some(position), ..self }
    }
}

/// The hooks of a steered pass.
struct Steered<'a> {
    steering: &'a Steering,
    /// Which columns are steered.
    columns: Columns,
}

/// The columns of a pass that are steered.
enum Columns {
    /// This many of the last ones, in every pass.
    Last(i64),
    /// In the first pass alone, this column of each row, counted back from the last one, which is 0.
    Each(Vec<i64>),
}

impl Hooks for Steered<'_> {
    const TRACES: bool = false;

    fn at(&mut self, site: Site, block: usize, x: Tensor) -> Tensor {
        if site != Site::ResidPost || block != self.steering.block {
            return x;
        }
        let added = self.steering.added.to_kind(x.kind());
        match &mut self.columns {
            Columns::Last(most) => {
                let all = x.size()[1];
                let columns = (*most).min(all);
                let (before, after) = (x.narrow(1, 0, all - columns), x.narrow(1, all - columns, columns));
                Tensor::cat(&[before, after + added], 1)
            }
            Columns::Each(columns) => {
                let steered = x.copy();
                let last = x.size()[1] - 1;
                // The last block leaves out all columns but the last. What it writes there, nothing reads.
                let computed = std::mem::take(columns).into_iter().enumerate().filter(|&(_, back)| back <= last);
                for (row, back) in computed {
                    let mut column = steered.get(row as i64).get(last - back);
                    column += &added;
                }
                steered
            }
        }
    }

    fn added(&self, block: usize) -> Option<&Tensor> {
        let in_every_pass = matches!(self.columns, Columns::Last(_));
        (in_every_pass && block == self.steering.block).then_some(&self.steering.added)
    }
}

/// One completion for each prompt, steered; otherwise as [`crate::generate::generate`].
///
/// # Errors
///
/// A prompt without the token that is steered.
pub fn generate_steered(
    subject: &Subject,
    prompts: &[&[u32]],
    steering: &Steering,
    sampling: &Sampling,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Result<Vec<Completion>, InterpError> {
    let columns = match steering.position {
        // Prompts are padded on the left.
        Some(position) => Columns::Each(
            prompts
                .iter()
                .map(|prompt| match position < prompt.len() {
                    true => Ok((prompt.len() - 1 - position) as i64),
                    false => Err(no_position(position, prompt.len())),
                })
                .collect::<Result<_, _>>()?,
        ),
        None => Columns::Last(1),
    };
    let mut hooks = Steered { steering, columns };
    Ok(generate_with(subject.model(), prompts, 1, sampling, subject.adapters(), &mut hooks, on_token))
}

/// The hidden states after the last norm, `[B, T, d]`, of ids `[B, T]` under a mask, steered in the columns from `from`
/// on, whatever the position of the steering, in one pass.
pub fn steered_hidden(subject: &Subject, ids: &Tensor, mask: &Tensor, steering: &Steering, from: i64) -> Tensor {
    let model: &Transformer = subject.model();
    let mut hooks = Steered { steering, columns: Columns::Last(ids.size()[1] - from) };
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
