//! The logit lens (nostalgebraist 2020): what the model would predict if it stopped after a block. The last norm's
//! statistics are computed anew from each residual stream.

use super::trace::on_cpu;
use super::{InterpError, Start, Subject};
use crate::model::{HookPoint, Site};
use std::collections::BTreeSet;
use std::ops::Range;
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

/// Logits that are in memory at a time, so that they stay in the processor's caches.
const LOGITS: i64 = 1 << 19;

/// Reads residual streams of one prompt, `[1, T]`. `keep` is K. All streams are read together, and the vocabulary in
/// parts. `on_site` is called before each part with the number of streams whose share of the work is done; if it
/// returns true, the work is cancelled.
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
    lens_with(subject, tokens, sites, chosen, keep, &|_, x| x.shallow_clone(), on_site)
}

/// [`lens`] of streams `[1, T, d]` that are translated before.
pub(super) fn lens_with(
    subject: &Subject,
    tokens: &Tensor,
    sites: &[HookPoint],
    chosen: &[u32],
    keep: usize,
    translate: &dyn Fn(HookPoint, &Tensor) -> Tensor,
    on_site: &mut dyn FnMut(usize) -> bool,
) -> Result<Lens, InterpError> {
    let vocabulary = subject.config().vocabulary;
    if let Some(token) = chosen.iter().find(|&&token| token as usize >= vocabulary) {
        return Err(InterpError::Tokens(format!(
            "The token {token} is beyond the model's vocabulary of {vocabulary}."
        )));
    }
    if let Some(site) = sites.iter().find(|at| !matches!(at.site, Site::ResidPre | Site::ResidMid | Site::ResidPost)) {
        let hint = "a lens reads hook_resid_pre, hook_resid_mid and hook_resid_post".to_owned();
        return Err(InterpError::UnknownName { name: site.to_string(), hint });
    }
    let trace = subject.trace(Start::Tokens(tokens), &sites.iter().copied().collect::<BTreeSet<_>>(), &[])?;
    tch::no_grad(|| {
        let normed = |at: &HookPoint| Ok(subject.norm(&translate(*at, trace.get(at.site, at.block)?)));
        let mut streams = sites.iter().map(normed).collect::<Result<Vec<Tensor>, InterpError>>()?;
        // Where the model's own prediction is. Usually it is the last stream.
        let own = streams.iter().position(|x| x.equal(&trace.normed)).unwrap_or(sites.len());
        if own == sites.len() {
            streams.push(trace.normed.shallow_clone());
        }
        let mut read = Reading::new(subject, &Tensor::cat(&streams, 0), own, chosen, keep.clamp(1, vocabulary));
        let parts = read.parts();
        for (done, part) in parts.iter().enumerate() {
            if on_site(done * sites.len() / parts.len()) {
                return Err(InterpError::Cancelled);
            }
            read.add(part.clone());
        }
        Ok(read.lens(sites))
    })
}

/// The log-probabilities that the streams of a lens give to other tokens, one list at each place: `[S, T, K]` (i64) →
/// `[S, T, K]`, nats. `lens` is what [`lens`] found of this model and these tokens `[1, T]`.
///
/// # Errors
///
/// Tokens that cannot be read.
pub fn lens_of(subject: &Subject, ids: &Tensor, lens: &Lens, tokens: &Tensor) -> Result<Tensor, InterpError> {
    let trace = subject.trace(Start::Tokens(ids), &lens.sites.iter().copied().collect::<BTreeSet<_>>(), &[])?;
    tch::no_grad(|| {
        let mut rows = Vec::with_capacity(lens.sites.len());
        for (row, at) in lens.sites.iter().enumerate() {
            let row = row as i64;
            let normed = subject.norm(trace.get(at.site, at.block)?).select(0, 0);
            let logits = |tokens: &Tensor| subject.logits_at(&normed, &tokens.to_device(subject.device()));
            // log Σ exp of all logits, from a token whose logit and log-probability are known.
            let likeliest = logits(&lens.top[0].get(row).narrow(-1, 0, 1));
            let log_sum = likeliest - lens.top[1].get(row).narrow(-1, 0, 1).to_device(subject.device());
            rows.push(on_cpu(&(logits(&tokens.get(row)) - log_sum)));
        }
        Ok(Tensor::stack(&rows, 0))
    })
}

/// The statistics of the logits of S streams at T positions, from the logits of some tokens after the other. Sums of
/// exponentials are relative to the largest logit so far.
struct Reading<'a> {
    subject: &'a Subject<'a>,
    /// The norms of the streams, `[S T, d]`.
    normed: Tensor,
    /// S and T.
    shape: [i64; 2],
    /// Which stream is the model's own prediction, p.
    own: i64,
    /// The logits of the chosen tokens, `[S T, C]`.
    of_chosen: Tensor,
    /// How many logits are above those, `[S T, C]` (i64).
    above: Tensor,
    /// The largest logit x, `[S T]`.
    largest: Tensor,
    /// Σ exp x, `[S T]` (f64).
    sum: Tensor,
    /// Σ x exp x, `[S T]` (f64).
    weighted: Tensor,
    /// Σ x p up to a factor, `[S, T]` (f64).
    shared: Tensor,
    /// The largest logits, `[S T, K]`, and their tokens, `[S T, K]` (i64).
    top: [Tensor; 2],
}

impl<'a> Reading<'a> {
    /// Nothing read yet, of normed streams `[S, T, d]`.
    fn new(subject: &'a Subject<'a>, normed: &Tensor, own: usize, chosen: &[u32], keep: usize) -> Reading<'a> {
        let [streams, positions, keep, chosen_count] =
            [normed.size()[0], normed.size()[1], keep as i64, chosen.len() as i64];
        let rows = streams * positions;
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, subject.device()));
        let lowest = |shape: &[i64]| Tensor::full(shape, f64::NEG_INFINITY, (Kind::Float, subject.device()));
        let read = Reading {
            subject,
            normed: normed.flatten(0, 1),
            shape: [streams, positions],
            own: own as i64,
            of_chosen: zeros(&[rows, chosen_count], Kind::Float),
            above: zeros(&[rows, chosen_count], Kind::Int64),
            largest: lowest(&[rows]),
            sum: zeros(&[rows], Kind::Double),
            weighted: zeros(&[rows], Kind::Double),
            shared: zeros(&[streams, positions], Kind::Double),
            top: [lowest(&[rows, keep]), zeros(&[rows, keep], Kind::Int64)],
        };
        // They come from the parts that they are compared within, so that no token is above itself by a rounding.
        let parts = read.parts();
        for (i, token) in chosen.iter().map(|&token| i64::from(token)).enumerate() {
            if let Some(part) = parts.iter().find(|part| part.contains(&token)) {
                let logits = subject.logits_within(&read.normed, part.clone());
                read.of_chosen.select(1, i as i64).copy_(&logits.select(1, token - part.start));
            }
        }
        read
    }

    /// The parts of the vocabulary.
    fn parts(&self) -> Vec<Range<i64>> {
        let all = self.subject.config().vocabulary as i64;
        // Multiples of 64, whose logits lie in whole cache lines.
        let width = (LOGITS / self.normed.size()[0].max(1)).max(64) / 64 * 64;
        (0..all).step_by(width as usize).map(|first| first..all.min(first + width)).collect()
    }

    /// Reads the logits of these tokens.
    fn add(&mut self, tokens: Range<i64>) {
        let x = self.subject.logits_within(&self.normed, tokens.clone());
        let [streams, positions] = self.shape;
        let sum = |x: &Tensor| x.sum_dim_intlist(-1, false, Kind::Float).to_kind(Kind::Double);
        let by_stream = |x: &Tensor| x.reshape([streams, positions, -1]);
        let largest_here = x.amax([-1], false);
        let largest = self.largest.maximum(&largest_here);
        let shrink = (&self.largest - &largest).exp().to_kind(Kind::Double);
        let weights = (&x - largest.unsqueeze(-1)).exp_();
        self.sum = &self.sum * &shrink + sum(&weights);
        self.weighted = &self.weighted * &shrink + sum(&(&weights * &x));
        let own = by_stream(&weights).get(self.own);
        self.shared =
            &self.shared * by_stream(&shrink).get(self.own).squeeze_dim(-1) + sum(&(by_stream(&x) * own.unsqueeze(0)));
        for i in 0..self.of_chosen.size()[1] {
            let above = x.gt_tensor(&self.of_chosen.narrow(1, i, 1)).sum_dim_intlist(-1, false, Kind::Int64);
            let _ = self.above.select(1, i).g_add_(&above);
        }
        let [logits, names] = &mut self.top;
        let keep = logits.size()[1];
        // Few rows have anything among their largest here, except in the first parts.
        let rows = largest_here.gt_tensor(&logits.select(1, keep - 1)).nonzero().squeeze_dim(-1);
        if rows.numel() > 0 {
            let of_rows = |x: &Tensor| x.index_select(0, &rows);
            let (here, places) = of_rows(&x).topk(keep.min(x.size()[1]), -1, true, true);
            let (largest, order) = Tensor::cat(&[of_rows(logits), here], 1).topk(keep, -1, true, true);
            let all = Tensor::cat(&[of_rows(names), places + tokens.start], 1);
            let _ = logits.index_copy_(0, &rows, &largest);
            let _ = names.index_copy_(0, &rows, &all.gather(1, &order, false));
        }
        self.largest = largest;
    }

    /// What all logits say of the first streams, which are these.
    fn lens(self, sites: &[HookPoint]) -> Lens {
        let [streams, positions] = self.shape;
        let log_sum = self.largest.to_kind(Kind::Double) + self.sum.log();
        let by_stream = |x: &Tensor| x.reshape([streams, positions]);
        let each = |x: Tensor| {
            let more = x.size()[1..].to_vec();
            x.reshape([&[streams, positions], &more[..]].concat()).narrow(0, 0, sites.len() as i64)
        };
        // Σ p x, and Σ p log q for the prediction q of each stream.
        let shared = &self.shared / by_stream(&self.sum).get(self.own);
        let cross = shared - by_stream(&log_sum);
        let kl = (cross.get(self.own) - &cross).clamp_min(0.0);
        let log_prob = |logits: &Tensor| logits.to_kind(Kind::Double) - log_sum.unsqueeze(-1);
        let [logits, names] = &self.top;
        Lens {
            sites: sites.to_vec(),
            top: [each(names.shallow_clone()).to_device(Device::Cpu), on_cpu(&each(log_prob(logits)))],
            entropy: on_cpu(&each(&log_sum - &self.weighted / &self.sum)),
            kl: on_cpu(&kl.narrow(0, 0, sites.len() as i64)),
            rank: each(&self.above + 1).to_device(Device::Cpu),
            log_probs: on_cpu(&each(log_prob(&self.of_chosen))),
        }
    }
}

/// KL(p ‖ q) of log-probabilities `[.., vocabulary]`, nats.
pub(super) fn kl(p: &Tensor, q: &Tensor) -> Tensor {
    (p.exp() * (p - q)).sum_dim_intlist(-1, false, Kind::Float)
}
