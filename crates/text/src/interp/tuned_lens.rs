//! The tuned lens (Belrose et al. 2023): a logit lens that first translates each residual stream into the basis of the
//! last one, x + A x + b. Untrained it is the logit lens.

use super::lens::{kl, lens_with};
use super::{InterpError, Lens, Start, Subject, Trace};
use crate::model::{HookPoint, Site};
use flipside_core::{Array, Arrays};
use flipside_learn::{clip_by_global_norm, numbers};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// Logits of one stream that are in memory at a time while a lens is trained. A step is computed in parts that keep to
/// it.
const LOGITS: i64 = 1 << 24;

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
}

/// How a tuned lens is trained: SGD with Nesterov momentum, and a learning rate that falls to 0 linearly. The defaults
/// are the published ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TunedLensSettings {
    /// Number of steps; the published number is for batches of 2¹⁸ tokens.
    pub steps: usize,
    /// The first learning rate.
    pub learning_rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// Share of a weight that is added to its gradient.
    pub weight_decay: f64,
    /// The most that the norm of a translator's gradient may be.
    pub max_grad_norm: f64,
}

impl Default for TunedLensSettings {
    fn default() -> TunedLensSettings {
        TunedLensSettings {
            steps: 250,
            // 1 for each step that the momentum adds up.
            learning_rate: 0.1,
            momentum: 0.9,
            weight_decay: 1e-3,
            max_grad_norm: 1.0,
        }
    }
}

/// How far two lenses are from what the model predicts at one residual stream: the mean KL(model ‖ lens) of tokens,
/// nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LensErrors {
    /// Of the logit lens.
    pub logit_lens: f64,
    /// Of the tuned lens.
    pub tuned_lens: f64,
}

impl Translator {
    /// A stream in the basis of the last one.
    fn translated(&self, x: &Tensor) -> Tensor {
        let [a, b] = &self.weights;
        x + x.matmul(&a.tr()) + b
    }
}

/// The name of a stream's translator: `3` for the stream before block 3, as tuned-lens has it, and `3.mid` for the one
/// between its attention and its MLP.
fn name(site: HookPoint) -> String {
    match site.site {
        Site::ResidMid => format!("{}.mid", site.block),
        Site::ResidPost => (site.block + 1).to_string(),
        _ => site.block.to_string(),
    }
}

impl TunedLens {
    /// Translators of 0 for the streams of [`lens_sites`](super::lens_sites) but the last one, which needs none.
    pub fn new(subject: &Subject, mid: bool) -> TunedLens {
        let d = subject.config().width as i64;
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, subject.device()));
        let translator = |&site: &HookPoint| Translator { site, weights: [zeros(&[d, d]), zeros(&[d])] };
        let sites = super::lens_sites(subject.blocks(), mid);
        TunedLens { translators: sites[..sites.len() - 1].iter().map(translator).collect() }
    }

    /// The streams that it translates, from the embeddings up.
    pub fn sites(&self) -> Vec<HookPoint> {
        self.translators.iter().map(|translator| translator.site).collect()
    }

    /// [`lens`](super::lens()) through the translators. The last stream of the model is read as it is.
    ///
    /// # Errors
    ///
    /// As of [`lens`](super::lens()); a stream without a translator.
    pub fn lens(
        &self,
        subject: &Subject,
        tokens: &Tensor,
        sites: &[HookPoint],
        chosen: &[u32],
        keep: usize,
        on_site: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Lens, InterpError> {
        let last = Site::ResidPost.of(subject.blocks() - 1);
        let of = |site: HookPoint| self.translators.iter().find(|translator| translator.site == site);
        if let Some(site) = sites.iter().find(|&&site| site != last && of(site).is_none()) {
            return Err(InterpError::Data(format!("The tuned lens has no translator for {site}; train one that has.")));
        }
        let translate =
            |site: HookPoint, x: &Tensor| of(site).map_or_else(|| x.shallow_clone(), |found| found.translated(x));
        lens_with(subject, tokens, sites, chosen, keep, &translate, on_site)
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
        let TunedLensSettings { steps, learning_rate, momentum, weight_decay, max_grad_norm } = *settings;
        let in_range = learning_rate > 0.0 && (0.0..1.0).contains(&momentum) && weight_decay >= 0.0;
        if !in_range || max_grad_norm <= 0.0 {
            return Err(InterpError::Data(
                "A tuned lens needs a learning rate and a gradient norm above 0, a momentum from 0 to 1 and a weight \
                 decay of 0 or more."
                    .to_owned(),
            ));
        }
        let zeros = |of: &Translator| of.weights.each_ref().map(Tensor::zeros_like);
        let mut velocities: Vec<[Tensor; 2]> = self.translators.iter().map(zeros).collect();
        for step in 0..steps {
            let tokens = batch(step)?;
            let mut gradients: Vec<[Tensor; 2]> = self.translators.iter().map(zeros).collect();
            let mut loss = 0.0;
            self.in_parts(subject, &tokens, |this, trace, own, share| {
                for (translator, sums) in this.translators.iter().zip(&mut gradients) {
                    let leaf = Translator {
                        site: translator.site,
                        weights: translator.weights.each_ref().map(|x| x.detach().set_requires_grad(true)),
                    };
                    let x = trace.get(leaf.site.site, leaf.site.block)?;
                    let seen = subject.logits(&leaf.translated(x)).log_softmax(-1, Kind::Float);
                    let part = kl(own, &seen).mean(Kind::Float) * share;
                    loss += part.double_value(&[]) / this.translators.len() as f64;
                    let found = Tensor::run_backward(&[&part], &leaf.weights.each_ref(), false, false);
                    tch::no_grad(|| sums.iter_mut().zip(&found).for_each(|(sum, found)| *sum += found));
                }
                Ok(())
            })?;
            let rate = learning_rate * (1.0 - step as f64 / steps as f64);
            tch::no_grad(|| {
                for ((translator, velocity), gradient) in
                    self.translators.iter_mut().zip(&mut velocities).zip(&mut gradients)
                {
                    clip_by_global_norm(gradient, max_grad_norm);
                    for ((weight, velocity), gradient) in translator.weights.iter_mut().zip(velocity).zip(gradient) {
                        let slope = &*gradient + &*weight * weight_decay;
                        *velocity = &*velocity * momentum + &slope;
                        *weight = &*weight - (slope + &*velocity * momentum) * rate;
                    }
                }
            });
            if on_step(step, loss) {
                break;
            }
        }
        Ok(())
    }

    /// How far the logit lens and this lens are from what the model predicts for tokens `[B, T]`, at each stream.
    ///
    /// # Errors
    ///
    /// Tokens that cannot be read.
    pub fn errors(&self, subject: &Subject, tokens: &Tensor) -> Result<Vec<LensErrors>, InterpError> {
        let mut all = vec![LensErrors { logit_lens: 0.0, tuned_lens: 0.0 }; self.translators.len()];
        self.in_parts(subject, tokens, |this, trace, own, share| {
            for (translator, errors) in this.translators.iter().zip(&mut all) {
                let x = trace.get(translator.site.site, translator.site.block)?;
                let mean = |x: &Tensor| {
                    let seen = subject.logits(x).log_softmax(-1, Kind::Float);
                    share * kl(own, &seen).mean(Kind::Double).double_value(&[])
                };
                errors.logit_lens += tch::no_grad(|| mean(x));
                errors.tuned_lens += tch::no_grad(|| mean(&translator.translated(x)));
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Calls `on_part` for some rows of the tokens after the other, with their trace, the model's log-probabilities
    /// `[rows, T, vocabulary]` and their share of all rows.
    fn in_parts<F: FnMut(&TunedLens, &Trace, &Tensor, f64) -> Result<(), InterpError>>(
        &self,
        subject: &Subject,
        tokens: &Tensor,
        mut on_part: F,
    ) -> Result<(), InterpError> {
        let wanted: BTreeSet<HookPoint> = self.sites().into_iter().collect();
        let of_row = tokens.size()[1] * subject.config().vocabulary as i64;
        for part in tokens.split((LOGITS / of_row.max(1)).max(1), 0) {
            let trace = subject.trace(Start::Tokens(&part), &wanted, &[])?;
            let own = tch::no_grad(|| subject.unembed(&trace.normed).log_softmax(-1, Kind::Float));
            on_part(self, &trace, &own, part.size()[0] as f64 / tokens.size()[0] as f64)?;
        }
        Ok(())
    }

    /// Adds `prefix` and the name of a translator with `.weight` `[d, d]` and `.bias` `[d]`, f32. Without a prefix the
    /// names are those of tuned-lens, whose translator i reads the stream before block i.
    pub fn to_arrays(&self, prefix: &str, arrays: &mut Arrays) {
        for Translator { site, weights: [a, b] } in &self.translators {
            let d = b.size()[0] as usize;
            arrays.insert(format!("{prefix}{}.weight", name(*site)), Array::f32(&[d, d], numbers(a)));
            arrays.insert(format!("{prefix}{}.bias", name(*site)), Array::f32(&[d], numbers(b)));
        }
    }

    /// The lens that [`TunedLens::to_arrays`] saved; with the streams between attention and MLP if it has those.
    ///
    /// # Errors
    ///
    /// Translators that are missing, or are of a model of another size.
    pub fn from_arrays(subject: &Subject, prefix: &str, arrays: &Arrays) -> Result<TunedLens, InterpError> {
        let d = subject.config().width;
        let mid = arrays.contains_key(&format!("{prefix}0.mid.weight"));
        let mut lens = TunedLens::new(subject, mid);
        let array = |name: String, shape: &[usize]| -> Result<Tensor, InterpError> {
            let refuse = |what: String| InterpError::Data(format!("The tuned lens is not of this model: {what}."));
            let found = arrays.get(&name).ok_or_else(|| refuse(format!("it has no `{name}`")))?;
            let numbers = found.as_f32().filter(|_| found.shape == shape).ok_or_else(|| {
                refuse(format!("`{name}` is {:?}, and the model needs {shape:?} in f32", found.shape))
            })?;
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            Ok(Tensor::from_slice(numbers).reshape(shape).to_device(subject.device()))
        };
        for translator in &mut lens.translators {
            let name = format!("{prefix}{}", name(translator.site));
            translator.weights = [array(format!("{name}.weight"), &[d, d])?, array(format!("{name}.bias"), &[d])?];
        }
        // A model with fewer blocks would take the first of its translators.
        let next = format!("{prefix}{}.weight", subject.blocks());
        match arrays.contains_key(&next) {
            true => Err(InterpError::Data(format!(
                "The tuned lens is not of this model: it has a translator `{next}`, and the model {} blocks.",
                subject.blocks()
            ))),
            false => Ok(lens),
        }
    }
}
