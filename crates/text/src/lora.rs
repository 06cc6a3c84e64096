//! LoRA adapters (Hu et al. 2021) on a model's linear layers. They are trained while the base stays frozen.

use super::error::ModelError;
use super::model::{Lora, Transformer};
use flipside_core::Stream;
use rand::RngExt;
use tch::{Kind, Tensor};

pub use flipside_core::settings::LoraSettings;

impl Transformer {
    /// Attaches a new adapter to each target. The model's outputs stay the same, bit for bit, until it is trained: A is
    /// uniform within ±1/√input (Kaiming's bound for a slope of √5), B is zero.
    ///
    /// # Errors
    ///
    /// A rank of 0, or a target that none of the model's linear layers has as its name.
    pub fn attach(&mut self, settings: &LoraSettings, stream: &mut Stream) -> Result<(), ModelError> {
        if settings.rank == 0 {
            return Err(ModelError::Adapter("its rank is 0".into()));
        }
        let device = self.device();
        let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
        for target in &settings.targets {
            if !self.linears().iter().any(|linear| last(&linear.name) == *target) {
                let mut known: Vec<String> = self.linears().iter().map(|linear| last(&linear.name)).collect();
                known.sort();
                known.dedup();
                let known = known.join(", ");
                return Err(ModelError::Adapter(format!(
                    "the model has no module `{target}`; expected some of {known}"
                )));
            }
        }
        for linear in self.linears_mut() {
            if !settings.targets.is_empty() && !settings.targets.contains(&last(&linear.name)) {
                continue;
            }
            let [input, output] = linear.sizes();
            let bound = 1.0 / (input as f32).sqrt();
            let rank = settings.rank as i64;
            let a: Vec<f32> = (0..rank * input).map(|_| stream.random_range(-bound..bound)).collect();
            linear.lora = Some(Lora {
                a: Tensor::from_slice(&a).reshape([rank, input]).to_device(device).set_requires_grad(true),
                b: Tensor::zeros([output, rank], (Kind::Float, device)).set_requires_grad(true),
                scale: settings.alpha / settings.rank as f64,
                dropout: settings.dropout,
            });
        }
        self.adapter = Some(settings.clone());
        Ok(())
    }

    /// Removes the adapters and leaves the base model, bit for bit as it was before they were attached.
    pub fn remove_adapters(&mut self) {
        if let Some(base) = self.attached.take().and_then(|attached| attached.base) {
            let pad = self.score_pad();
            *self = *base;
            self.set_score_pad(pad);
        }
        self.linears_mut().into_iter().for_each(|linear| linear.lora = None);
        self.adapter = None;
    }

    /// The adapters' settings, if there are adapters.
    pub fn adapter(&self) -> Option<&LoraSettings> {
        self.adapter.as_ref()
    }

    /// The trained tensors by name, always in the same order: the adapters if there are any, else every parameter. What
    /// [`Transformer::freeze`] froze is left out. From now on these are leaves that require gradients, and no other
    /// tensor of the model does.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let (base, adapters) = (self.tensors(), self.adapter_tensors());
        let adapted = !adapters.is_empty();
        let all = base.into_iter().map(|pair| (pair, !adapted)).chain(adapters.into_iter().map(|pair| (pair, true)));
        all.filter_map(|((name, tensor), candidate)| {
            let trained = candidate && !self.is_frozen(&name);
            let tensor = tensor.set_requires_grad(trained);
            trained.then_some((name, tensor))
        })
        .collect()
    }

    /// A model without adapters, whose weights have the adapters' products added. It shares the parameters that no
    /// adapter changes. This model keeps its base and its adapters, so unmerging needs no subtraction.
    pub fn merged(&self) -> Transformer {
        let mut merged = self.clone();
        (merged.adapter, merged.attached) = (None, None);
        for linear in merged.linears_mut() {
            let Some(lora) = linear.lora.take() else { continue };
            let delta = tch::no_grad(|| if linear.transposed { lora.delta().tr() } else { lora.delta() });
            let sum = tch::no_grad(|| linear.weight.to_kind(Kind::Float) + delta);
            linear.weight = sum.to_kind(linear.weight.kind()).detach();
        }
        merged
    }
}
