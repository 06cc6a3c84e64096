//! What training changed: weights by matrix, predictions by layer and position, and the tokens that rose and fell.

use super::error::no_position;
use super::lens::{kl, lens_sites};
use super::trace::on_cpu;
use super::{InterpError, Start, Subject, Trace};
use crate::model::{HookPoint, Lora, Tensors, Transformer};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// How far a parameter moved.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightChange {
    /// Its name.
    pub name: String,
    /// ‖tuned − base‖ (Frobenius).
    pub change: f64,
    /// ‖base‖.
    pub length: f64,
    /// ‖tuned − base‖ / ‖base‖; 0 where both are 0.
    pub relative: f64,
}

/// How far each parameter moved from one version of a model to another. A frozen parameter moved by exactly 0. What an
/// adapter adds to a weight, s B A, counts as part of it; where the weight itself stayed, its length comes from r × r
/// products: ‖s B A‖² = s² Σ (Bᵀ B) ⊙ (A Aᵀ).
///
/// # Errors
///
/// Models of different shapes.
pub fn weight_changes(base: Subject, tuned: Subject) -> Result<Vec<WeightChange>, InterpError> {
    weight_names(base, tuned)?.iter().map(|name| weight_change(base, tuned, name)).collect()
}

/// The parameters that [`weight_changes`] compares, by their names.
///
/// # Errors
///
/// Models of different shapes.
pub fn weight_names(base: Subject, tuned: Subject) -> Result<Vec<String>, InterpError> {
    base.check_alike(&tuned)?;
    Ok(names(&base.model().tensors(), &tuned.model().tensors(), base.model()))
}

/// How far one parameter moved; see [`weight_changes`].
///
/// # Errors
///
/// A parameter that the models do not have.
pub fn weight_change(base: Subject, tuned: Subject, name: &str) -> Result<WeightChange, InterpError> {
    let unknown = || {
        let hint = "names are those of the model's file".to_owned();
        InterpError::UnknownName { name: name.to_owned(), hint }
    };
    tch::no_grad(|| {
        let of = |subject: Subject| {
            let module = name.strip_suffix(".weight").unwrap_or_default();
            let linears = subject.model().linears();
            let linear = linears.into_iter().find(|linear| subject.adapters() && linear.name == module);
            let head = || {
                let [_, head] = subject.model().ends().map(|module| format!("{module}.weight"));
                (name == head).then(|| subject.model().unembedding().shallow_clone())
            };
            let weight = subject.model().tensors().remove(name).or_else(head).ok_or_else(unknown)?;
            let transposed = linear.is_some_and(|linear| linear.transposed);
            let lora = linear.and_then(|linear| linear.lora.as_ref().map(Lora::share));
            Ok::<_, InterpError>((weight.detach().to_kind(Kind::Double), lora, transposed))
        };
        let (before, added_before, _) = of(base)?;
        let (after, added_after, transposed) = of(tuned)?;
        let delta = |lora: &Lora| {
            let delta = lora.delta().to_kind(Kind::Double);
            if transposed { delta.tr() } else { delta }
        };
        let whole = match &added_before {
            Some(lora) => &before + delta(lora),
            None => before.shallow_clone(),
        };
        let change = match (&added_before, &added_after) {
            (None, Some(lora)) if before.equal(&after) => adapter_norm(lora),
            (None, None) => norm(&(after - before)),
            (_, Some(lora)) => norm(&(after + delta(lora) - &whole)),
            (Some(_), None) => norm(&(after - &whole)),
        };
        let length = norm(&whole);
        let relative = if change == 0.0 { 0.0 } else { change / length };
        Ok(WeightChange { name: name.to_owned(), change, length, relative })
    })
}

/// The parameters of both models. A head that only one has of its own is compared with the other's embedding.
fn names(ours: &Tensors, theirs: &Tensors, model: &Transformer) -> Vec<String> {
    let [_, head] = model.ends().map(|module| format!("{module}.weight"));
    let is_there = |name: &String| ours.contains_key(name) && theirs.contains_key(name) || *name == head;
    let all: BTreeSet<&String> = ours.keys().chain(theirs.keys()).filter(|name| is_there(name)).collect();
    all.into_iter().cloned().collect()
}

fn norm(x: &Tensor) -> f64 {
    x.square().sum(Kind::Double).sqrt().double_value(&[])
}

/// ‖s B A‖ from r × r products.
pub(super) fn adapter_norm(lora: &Lora) -> f64 {
    let [a, b] = [&lora.a, &lora.b].map(|x| x.detach().to_kind(Kind::Double));
    let square = (b.tr().matmul(&b) * a.matmul(&a.tr())).sum(Kind::Double).double_value(&[]);
    lora.scale.abs() * square.max(0.0).sqrt()
}

/// How far the residual streams of two models are apart on one prompt. S streams, T positions.
#[derive(Debug)]
pub struct StreamChanges {
    /// The streams, as of [`lens_sites`].
    pub sites: Vec<HookPoint>,
    /// KL(lens of tuned ‖ lens of base), `[S, T]`, nats.
    pub kl: Tensor,
    /// ‖tuned − base‖ / ‖base‖, `[S, T]`.
    pub relative: Tensor,
    /// The cosine of the angle between both, `[S, T]`.
    pub cosine: Tensor,
}

/// Compares the residual streams of two models on one prompt, `[1, T]`. `on_site` is called before each stream with the
/// number of streams done; if it returns true, the work is cancelled.
///
/// # Errors
///
/// Models of different shapes, tokens that cannot be read, or cancellation.
pub fn stream_changes(
    base: Subject,
    tuned: Subject,
    tokens: &Tensor,
    mid: bool,
    on_site: &mut dyn FnMut(usize) -> bool,
) -> Result<StreamChanges, InterpError> {
    let runs = StreamRuns::new(base, tuned, tokens, mid)?;
    let mut rows: [Vec<Tensor>; 3] = Default::default();
    for done in 0..runs.sites.len() {
        if on_site(done) {
            return Err(InterpError::Cancelled);
        }
        rows.iter_mut().zip(runs.row(base, tuned, done)?).for_each(|(rows, found)| rows.push(found));
    }
    let [kl, relative, cosine] = rows.map(|rows| Tensor::stack(&rows, 0));
    Ok(StreamChanges { sites: runs.sites, kl, relative, cosine })
}

/// [`stream_changes`] in parts: both runs. A stream is compared whenever there is time.
#[derive(Debug)]
pub struct StreamRuns {
    /// The streams, as of [`lens_sites`].
    pub sites: Vec<HookPoint>,
    of_base: Trace,
    of_tuned: Trace,
}

impl StreamRuns {
    /// Runs both models over the prompt, `[1, T]`.
    ///
    /// # Errors
    ///
    /// As [`stream_changes`].
    pub fn new(base: Subject, tuned: Subject, tokens: &Tensor, mid: bool) -> Result<StreamRuns, InterpError> {
        base.check_alike(&tuned)?;
        let sites = lens_sites(base.blocks(), mid);
        let wanted: BTreeSet<HookPoint> = sites.iter().copied().collect();
        let trace = |subject: Subject| subject.trace(Start::Tokens(tokens), &wanted, &[]);
        Ok(StreamRuns { of_base: trace(base)?, of_tuned: trace(tuned)?, sites })
    }

    /// KL, relative change and cosine of the stream `site`, `[T]` each.
    ///
    /// # Errors
    ///
    /// A stream that was not kept.
    pub fn row(&self, base: Subject, tuned: Subject, site: usize) -> Result<[Tensor; 3], InterpError> {
        let at = self.sites[site];
        let [x, y] = [&self.of_base, &self.of_tuned].map(|trace| trace.get(at.site, at.block).map(|x| x.select(0, 0)));
        let (x, y) = (x?, y?);
        Ok(tch::no_grad(|| {
            let log_probs = |subject: Subject, x: &Tensor| subject.logits(x).log_softmax(-1, Kind::Float);
            let length = |x: &Tensor| x.square().sum_dim_intlist(-1, false, Kind::Double).sqrt();
            let product = (&x * &y).sum_dim_intlist(-1, false, Kind::Double);
            let floor = f64::MIN_POSITIVE;
            let kl = kl(&log_probs(tuned, &y), &log_probs(base, &x));
            let relative = length(&(&y - &x)) / length(&x).clamp_min(floor);
            let cosine = product / (length(&x) * length(&y)).clamp_min(floor);
            [kl, relative, cosine].map(|x| on_cpu(&x))
        }))
    }
}

/// A token whose probability changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MovedToken {
    /// The token.
    pub token: u32,
    /// Its probability in the base model.
    pub base: f64,
    /// Its probability in the tuned model.
    pub tuned: f64,
    /// p_tuned · (log p_tuned − log p_base), nats. Over the vocabulary these add up to KL(tuned ‖ base).
    pub contribution: f64,
}

/// Tokens that rose and fell.
#[derive(Clone, Debug, PartialEq)]
pub struct MovedTokens {
    /// KL(tuned ‖ base), nats.
    pub kl: f64,
    /// Those that rose most, by their contribution.
    pub risen: Vec<MovedToken>,
    /// Those that fell most, by their contribution.
    pub fallen: Vec<MovedToken>,
}

/// The tokens that rose and fell most after the token at `position`, `most` of each.
///
/// # Errors
///
/// Models of different vocabularies, tokens that cannot be read, or a position beyond them.
pub fn moved_tokens(
    base: Subject,
    tuned: Subject,
    tokens: &Tensor,
    position: usize,
    most: usize,
) -> Result<MovedTokens, InterpError> {
    base.check_alike(&tuned)?;
    if position as i64 >= tokens.size()[1] {
        return Err(no_position(position, tokens.size()[1] as usize));
    }
    let normed = |subject: Subject| -> Result<Tensor, InterpError> {
        let trace = subject.trace(Start::Tokens(tokens), &BTreeSet::new(), &[])?;
        Ok(trace.normed.select(1, position as i64).select(0, 0))
    };
    Ok(moved_between(base, tuned, [&normed(base)?, &normed(tuned)?], most))
}

/// [`moved_tokens`] from the last norm's output at one position in each model, `[d]`.
pub fn moved_between(base: Subject, tuned: Subject, normed: [&Tensor; 2], most: usize) -> MovedTokens {
    let log_probs = |subject: Subject, normed: &Tensor| {
        tch::no_grad(|| subject.unembed(normed).to_kind(Kind::Double).log_softmax(-1, Kind::Double))
    };
    let (p, q) = (log_probs(base, normed[0]), log_probs(tuned, normed[1]));
    let contributions = q.exp() * (&q - &p);
    let count = most.min(p.size()[0] as usize) as i64;
    let listed = |largest: bool| {
        let (values, places) = contributions.topk(count, 0, largest, true);
        let one = |i: i64| {
            let token = places.int64_value(&[i]);
            MovedToken {
                token: token as u32,
                base: p.double_value(&[token]).exp(),
                tuned: q.double_value(&[token]).exp(),
                contribution: values.double_value(&[i]),
            }
        };
        // Those that moved in this direction at all.
        (0..count).map(one).filter(|moved| (moved.contribution > 0.0) == largest && moved.contribution != 0.0).collect()
    };
    MovedTokens { kl: contributions.sum(Kind::Double).double_value(&[]), risen: listed(true), fallen: listed(false) }
}
