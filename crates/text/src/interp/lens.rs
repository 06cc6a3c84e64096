//! The logit lens (nostalgebraist 2020): what the model would predict if it stopped after a block. The last norm's
//! statistics are computed anew from each residual stream.

use super::trace::on_cpu;
use super::{InterpError, Start, Subject, Trace};
use crate::model::{HookPoint, Site};
use std::collections::BTreeSet;
use tch::{Device, Kind, Tensor};

/// What the lens shows of one prompt. S residual streams, T positions, K likeliest tokens, C chosen tokens.
#[derive(Debug)]
pub struct Lens {
    /// The residual streams, from the embeddings up.
    pub sites: Vec<HookPoint>,
    /// The likeliest tokens, `[S, T, K]` (i64), and their log-probabilities, `[S, T, K]`, nats.
    pub top: [Tensor; 2],
    /// The entropy of the prediction, `[S, T]`, nats.
    pub entropy: Tensor,
    /// KL(model's prediction ‖ lens's prediction), `[S, T]`, nats.
    pub kl: Tensor,
    /// The rank of the chosen tokens, 1 for the likeliest, `[S, T, C]` (i64).
    pub rank: Tensor,
    /// The log-probability of the chosen tokens, `[S, T, C]`, nats.
    pub log_probs: Tensor,
}

/// The residual streams that a lens reads: the embeddings and the stream after every block, and with `mid` that between
/// attention and MLP.
pub fn lens_sites(blocks: usize, mid: bool) -> Vec<HookPoint> {
    let mut sites = vec![Site::ResidPre.of(0)];
    for block in 0..blocks {
        sites.extend(mid.then(|| Site::ResidMid.of(block)));
        sites.push(Site::ResidPost.of(block));
    }
    sites
}

/// Reads residual streams of one prompt, `[1, T]`. `keep` is K. `on_site` is called before each stream with the number
/// of streams done; if it returns true, the work is cancelled. No more than the logits of two streams are in memory.
///
/// # Errors
///
/// A chosen token beyond the vocabulary, a site that is no residual stream, or cancellation.
pub fn lens(
    subject: &Subject,
    tokens: &Tensor,
    sites: &[HookPoint],
    chosen: &[u32],
    keep: usize,
    on_site: &mut dyn FnMut(usize) -> bool,
) -> Result<Lens, InterpError> {
    lens_with(subject, tokens, sites, chosen, keep, &|_, x| subject.logits(x), on_site)
}

/// [`lens`] with another reading of residual streams: from a site and its stream `[1, T, d]` to logits.
pub(super) fn lens_with(
    subject: &Subject,
    tokens: &Tensor,
    sites: &[HookPoint],
    chosen: &[u32],
    keep: usize,
    read: &dyn Fn(HookPoint, &Tensor) -> Tensor,
    on_site: &mut dyn FnMut(usize) -> bool,
) -> Result<Lens, InterpError> {
    let pass = LensPass::new(subject, tokens, sites, chosen, keep)?;
    let mut rows = Vec::with_capacity(sites.len());
    for (done, &point) in sites.iter().enumerate() {
        if on_site(done) {
            return Err(InterpError::Cancelled);
        }
        rows.push(pass.row(&pass.log_probs_with(point, read)?));
    }
    let stack = |of: &dyn Fn(&LensRow) -> &Tensor| {
        let all: Vec<&Tensor> = rows.iter().map(of).collect();
        Tensor::stack(&all, 0)
    };
    Ok(Lens {
        sites: sites.to_vec(),
        top: [stack(&|row| &row.top[0]), stack(&|row| &row.top[1])],
        entropy: stack(&|row| &row.entropy),
        kl: stack(&|row| &row.kl),
        rank: stack(&|row| &row.rank),
        log_probs: stack(&|row| &row.log_probs),
    })
}

/// [`lens`] in parts: a pass whose residual streams are read one at a time, whenever there is time.
#[derive(Debug)]
pub struct LensPass {
    trace: Trace,
    /// The model's own prediction, log-probabilities, `[T, vocabulary]`.
    last: Tensor,
    /// The chosen tokens, `[C]` (i64).
    chosen: Tensor,
    keep: i64,
}

/// What a lens shows of one residual stream; see [`Lens`] for what it is.
#[derive(Debug)]
pub struct LensRow {
    /// `[T, K]` (i64) and `[T, K]`, nats.
    pub top: [Tensor; 2],
    /// `[T]`, nats.
    pub entropy: Tensor,
    /// `[T]`, nats.
    pub kl: Tensor,
    /// `[T, C]` (i64).
    pub rank: Tensor,
    /// `[T, C]`, nats.
    pub log_probs: Tensor,
}

impl LensPass {
    /// Runs the model over one prompt, `[1, T]`, and keeps these streams.
    ///
    /// # Errors
    ///
    /// As [`lens`].
    pub fn new(
        subject: &Subject,
        tokens: &Tensor,
        sites: &[HookPoint],
        chosen: &[u32],
        keep: usize,
    ) -> Result<LensPass, InterpError> {
        let vocabulary = subject.config().vocabulary;
        if let Some(token) = chosen.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(InterpError::Tokens(format!(
                "The token {token} is beyond the model's vocabulary of {vocabulary}."
            )));
        }
        let is_stream = |at: &&HookPoint| matches!(at.site, Site::ResidPre | Site::ResidMid | Site::ResidPost);
        if let Some(site) = sites.iter().find(|at| !is_stream(at)) {
            let hint = "a lens reads hook_resid_pre, hook_resid_mid and hook_resid_post".to_owned();
            return Err(InterpError::UnknownName { name: site.to_string(), hint });
        }
        let trace = subject.trace(Start::Tokens(tokens), &sites.iter().copied().collect::<BTreeSet<_>>(), &[])?;
        let last = tch::no_grad(|| subject.unembed(&trace.normed).log_softmax(-1, Kind::Float).squeeze_dim(0));
        let chosen: Vec<i64> = chosen.iter().map(|&token| i64::from(token)).collect();
        let chosen = Tensor::from_slice(&chosen).to_device(subject.device());
        Ok(LensPass { trace, last, chosen, keep: keep.clamp(1, vocabulary) as i64 })
    }

    /// The log-probabilities of a stream, `[T, vocabulary]`, nats. `subject` is the model of the pass.
    ///
    /// # Errors
    ///
    /// A stream that the pass did not keep.
    pub fn log_probs(&self, subject: &Subject, point: HookPoint) -> Result<Tensor, InterpError> {
        self.log_probs_with(point, &|_, x| subject.logits(x))
    }

    fn log_probs_with(
        &self,
        point: HookPoint,
        read: &dyn Fn(HookPoint, &Tensor) -> Tensor,
    ) -> Result<Tensor, InterpError> {
        let x = self.trace.get(point.site, point.block)?;
        Ok(tch::no_grad(|| read(point, x).log_softmax(-1, Kind::Float).squeeze_dim(0)))
    }

    /// What these log-probabilities of a stream show.
    pub fn row(&self, log_probs: &Tensor) -> LensRow {
        tch::no_grad(|| {
            let (top_log_probs, top) = log_probs.topk(self.keep, -1, true, true);
            let of_chosen = log_probs.index_select(-1, &self.chosen);
            let above = |i: i64| {
                log_probs.gt_tensor(&of_chosen.select(-1, i).unsqueeze(-1)).sum_dim_intlist(-1, false, Kind::Int64)
            };
            let rank: Vec<Tensor> = (0..self.chosen.size()[0]).map(|i| above(i) + 1).collect();
            let rank = if rank.is_empty() { of_chosen.to_kind(Kind::Int64) } else { Tensor::stack(&rank, -1) };
            LensRow {
                top: [top.to_device(Device::Cpu), on_cpu(&top_log_probs)],
                entropy: on_cpu(&entropy(log_probs)),
                kl: on_cpu(&kl(&self.last, log_probs)),
                rank: rank.to_device(Device::Cpu),
                log_probs: on_cpu(&of_chosen),
            }
        })
    }
}

/// The entropy of log-probabilities `[.., vocabulary]`, nats.
fn entropy(log_probs: &Tensor) -> Tensor {
    -(log_probs.exp() * log_probs).sum_dim_intlist(-1, false, Kind::Float)
}

/// KL(p ‖ q) of log-probabilities `[.., vocabulary]`, nats.
pub(super) fn kl(p: &Tensor, q: &Tensor) -> Tensor {
    (p.exp() * (p - q)).sum_dim_intlist(-1, false, Kind::Float)
}
