//! The tuned lens (Belrose et al. 2023): a logit lens that first translates each residual stream into the basis of the
//! last one, x + A x + b. Untrained it is the logit lens.

use super::lens::{kl, lens_with};
use super::{InterpError, Lens, Start, Subject};
use crate::model::HookPoint;
use flipside_learn::clip_by_global_norm;
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// The translators of some residual streams.
#[derive(Debug)]
pub struct TunedLens {
    translators: Vec<Translator>,
}

/// The translator of one stream.
#[derive(Debug)]
struct Translator {
    site: HookPoint,
    /// A `[d, d]` and b `[d]`, f32.
    weights: [Tensor; 2],
    /// Their moving sums of gradients.
    momentum: [Tensor; 2],
}

/// How a tuned lens is trained: SGD with Nesterov momentum, and a step size that falls to 0 linearly. The defaults are
/// the published ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TunedLensSettings {
    /// Number of steps; the published number is for batches of 2¹⁸ tokens.
    pub steps: usize,
    /// The first step size.
    pub learning_rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// The most that the norm of a translator's gradient may be.
    pub max_grad_norm: f64,
}

impl Default for TunedLensSettings {
    fn default() -> TunedLensSettings {
        TunedLensSettings { steps: 250, learning_rate: 1.0 - 0.9, momentum: 0.9, max_grad_norm: 1.0 }
    }
}

impl TunedLens {
    /// Translators of 0 for these streams. The last one of the model needs none.
    pub fn new(subject: &Subject, sites: &[HookPoint]) -> TunedLens {
        let d = subject.config().width as i64;
        let zeros = || {
            let options = (Kind::Float, subject.device());
            [Tensor::zeros([d, d], options), Tensor::zeros([d], options)]
        };
        let leaf = |x: Tensor| x.set_requires_grad(true);
        let translator = |&site: &HookPoint| Translator { site, weights: zeros().map(leaf), momentum: zeros() };
        TunedLens { translators: sites.iter().map(translator).collect() }
    }

    /// A stream in the basis of the last one.
    fn translated(&self, site: HookPoint, x: &Tensor) -> Tensor {
        match self.translators.iter().find(|translator| translator.site == site) {
            Some(Translator { weights: [a, b], .. }) => x + x.matmul(&a.tr()) + b,
            None => x.shallow_clone(),
        }
    }

    /// [`lens`](super::lens) through the translators.
    ///
    /// # Errors
    ///
    /// As of [`lens`](super::lens).
    pub fn lens(
        &self,
        subject: &Subject,
        tokens: &Tensor,
        sites: &[HookPoint],
        chosen: &[u32],
        keep: usize,
        on_site: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Lens, InterpError> {
        let read = |site: HookPoint, x: &Tensor| subject.logits(&self.translated(site, x));
        lens_with(subject, tokens, sites, chosen, keep, &read, on_site)
    }

    /// Trains the translators so that each predicts what the model does: the loss is KL(model ‖ lens), the mean over
    /// tokens. `batch` gives the token ids `[B, T]` of a step. After each step `on_step` gets its number and the mean
    /// loss of all streams before it, nats; if it returns true, training ends.
    ///
    /// # Errors
    ///
    /// Settings out of range, or tokens that cannot be read.
    pub fn train(
        &mut self,
        subject: &Subject,
        settings: &TunedLensSettings,
        batch: &mut dyn FnMut(usize) -> Result<Tensor, InterpError>,
        on_step: &mut dyn FnMut(usize, f64) -> bool,
    ) -> Result<(), InterpError> {
        let TunedLensSettings { steps, learning_rate, momentum, max_grad_norm } = *settings;
        if !(learning_rate > 0.0 && (0.0..1.0).contains(&momentum) && max_grad_norm > 0.0) {
            return Err(InterpError::Data(
                "A tuned lens needs a step size above 0, a momentum from 0 to 1 and a norm above 0.".to_owned(),
            ));
        }
        let wanted: BTreeSet<HookPoint> = self.translators.iter().map(|translator| translator.site).collect();
        for step in 0..steps {
            let trace = subject.trace(Start::Tokens(&batch(step)?), &wanted, &[])?;
            let last = tch::no_grad(|| subject.unembed(&trace.normed).log_softmax(-1, Kind::Float));
            let rate = learning_rate * (1.0 - step as f64 / steps as f64);
            let mut losses = 0.0;
            for translator in &mut self.translators {
                let [a, b] = &translator.weights;
                let x = trace.get(translator.site.site, translator.site.block)?;
                let seen = subject.logits(&(x + x.matmul(&a.tr()) + b)).log_softmax(-1, Kind::Float);
                let loss = kl(&last, &seen).mean(Kind::Float);
                losses += loss.double_value(&[]);
                let mut gradients = Tensor::run_backward(&[&loss], &[a, b], false, false);
                tch::no_grad(|| {
                    clip_by_global_norm(&mut gradients, max_grad_norm);
                    let moved = translator.weights.iter_mut().zip(&mut translator.momentum).zip(&gradients);
                    for ((weight, sum), gradient) in moved {
                        *sum = &*sum * momentum + gradient;
                        let next = (&*weight - (gradient + &*sum * momentum) * rate).detach();
                        *weight = next.set_requires_grad(true);
                    }
                });
            }
            if on_step(step, losses / self.translators.len().max(1) as f64) {
                break;
            }
        }
        Ok(())
    }
}
