//! Ablation: what a head is worth. Its output before the output projection becomes something that carries nothing of
//! the prompt, and the metric changes.

use super::patching::{Run, copies, number, patched};
use super::trace::on_cpu;
use super::{InterpError, Metric, Start};
use crate::model::{HookPoint, Site};
use std::collections::BTreeSet;
use tch::Tensor;

/// What a head's output becomes.
#[derive(Clone, Copy, Debug)]
pub enum Replacement<'a> {
    /// 0.
    Zero,
    /// Its mean over all positions of other prompts, each `[1, T']`.
    Mean(&'a [Tensor]),
    /// What it is in another prompt of the same length, `[1, T]` (resample ablation, Chan et al. 2022).
    Other(&'a Tensor),
}

/// What the heads are worth. L blocks, H heads.
#[derive(Debug)]
pub struct Ablation {
    /// The metric of the whole model.
    pub whole: f64,
    /// The metric without the head minus that of the whole model, `[L, H]`.
    pub changes: Tensor,
    /// The same without all heads of a block, `[L]`.
    pub blocks: Tensor,
}

/// Ablates each head, and all heads of each block. `on_block` is called before every block with the number of blocks
/// done; if it returns true, the work is cancelled.
///
/// # Errors
///
/// Tokens that cannot be read, no prompts for a mean, a prompt of another length, or cancellation.
pub fn ablate(
    run: Run,
    metric: Metric,
    replacement: Replacement,
    on_block: &mut dyn FnMut(usize) -> bool,
) -> Result<Ablation, InterpError> {
    let subject = run.subject;
    let outputs: BTreeSet<HookPoint> = subject.in_every_block(Site::Z).collect();
    let wanted: BTreeSet<HookPoint> = subject.in_every_block(Site::ResidPre).chain(outputs.iter().copied()).collect();
    let trace = subject.trace(Start::Tokens(run.tokens), &wanted, &[])?;
    let whole = tch::no_grad(|| metric.read(&subject, &trace.normed, run.tokens).map(|m| number(&m)))?;
    let others: Vec<_> = match replacement {
        Replacement::Zero => Vec::new(),
        Replacement::Mean([]) => {
            return Err(InterpError::Data("A mean needs other prompts; give some.".to_owned()));
        }
        Replacement::Mean(prompts) => prompts
            .iter()
            .map(|tokens| subject.trace(Start::Tokens(tokens), &outputs, &[]))
            .collect::<Result<_, _>>()?,
        Replacement::Other(tokens) if tokens.size() != run.tokens.size() => {
            return Err(InterpError::Tokens(format!(
                "The prompts have {} and {} tokens; take another prompt of the same length in tokens.",
                run.tokens.size()[1],
                tokens.size()[1]
            )));
        }
        Replacement::Other(tokens) => vec![subject.trace(Start::Tokens(tokens), &outputs, &[])?],
    };
    let (mut heads, mut blocks) = (Vec::new(), Vec::new());
    for block in 0..subject.blocks() {
        if on_block(block) {
            return Err(InterpError::Cancelled);
        }
        let point = Site::Z.of(block);
        let z = trace.get(Site::Z, block)?;
        let other = match replacement {
            Replacement::Zero => z.zeros_like(),
            Replacement::Other(_) => others[0].get(Site::Z, block)?.shallow_clone(),
            Replacement::Mean(_) => {
                let rows: Result<Vec<&Tensor>, _> = others.iter().map(|other| other.get(Site::Z, block)).collect();
                let mean = Tensor::cat(&rows?, 1).mean_dim(1, true, tch::Kind::Float);
                mean.expand(z.size(), false).contiguous()
            }
        };
        let change = |value: Tensor| Ok::<_, InterpError>(patched(&run, metric, &trace, point, value, 0)? - whole);
        let mut rows = Vec::new();
        copies(z, &other, 2, run.tokens.size()[1], false, &mut |value, _| {
            rows.push(change(value)?);
            Ok(())
        })?;
        heads.push(Tensor::cat(&rows, 0));
        blocks.push(change(other)?);
    }
    Ok(Ablation { whole, changes: on_cpu(&Tensor::stack(&heads, 0)), blocks: on_cpu(&Tensor::cat(&blocks, 0)) })
}
