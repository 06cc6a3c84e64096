//! Layer norm and RMS norm, in f32 whatever the model's precision.

use flipside_learn::{DecodeBatch, numbers};
use tch::{Kind, Tensor};

/// A norm over the last axis.
#[derive(Debug)]
pub struct Norm {
    pub name: String,
    /// `[d]`, f32.
    pub weight: Tensor,
    /// `[d]`, f32; a layer norm has one, an RMS norm does not.
    pub bias: Option<Tensor>,
    pub eps: f64,
}

impl Norm {
    /// `[.., d]` → `[.., d]`, of the same dtype.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let x = x.to_kind(Kind::Float);
        let width = self.weight.size();
        let normed = match &self.bias {
            Some(bias) => x.layer_norm(width, Some(&self.weight), Some(bias), self.eps, false),
            None => x.rms_norm(width, Some(&self.weight), self.eps),
        };
        normed.to_kind(kind)
    }

    /// [`Norm::forward`] for a decode batch on the CPU. Its features may be several groups of size d, which are
    /// normalised separately.
    pub fn decode(&self, x: &DecodeBatch) -> DecodeBatch {
        x.norm(&numbers(&self.weight), self.bias.as_ref().map(numbers).as_deref(), self.eps)
    }
}
