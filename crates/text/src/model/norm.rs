//! Layer norm and RMS norm, in f32 whatever the model's precision.

use super::hooks::{Hooks, Site};
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
    /// Whether the factor is 1 + the weight.
    pub plus_one: bool,
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
            None => x.rms_norm(width, Some(self.factor()), self.eps),
        };
        normed.to_kind(kind)
    }

    /// [`Norm::forward`] step by step, past the sites of its scale and of what it multiplies by its
    /// weight.
    pub fn written_out<H: Hooks>(&self, x: &Tensor, sites: [Site; 2], block: usize, hooks: &mut H) -> Tensor {
        let mean = |x: &Tensor| x.mean_dim(-1, true, Kind::Float);
        let x = if self.bias.is_some() { x - mean(x) } else { x.shallow_clone() };
        let scale = hooks.at(sites[0], block, (mean(&x.square()) + self.eps).sqrt());
        let x = hooks.at(sites[1], block, x / scale) * self.factor();
        match &self.bias {
            Some(bias) => x + bias,
            None => x,
        }
    }

    /// [`Norm::forward`] of several groups of size d along the last axis, which are normalised separately.
    pub fn forward_groups(&self, x: &Tensor) -> Tensor {
        let shape = x.size();
        let d = self.weight.size()[0];
        if shape.last() == Some(&d) {
            return self.forward(x);
        }
        let mut groups = shape.clone();
        groups.pop();
        groups.extend([-1, d]);
        self.forward(&x.reshape(groups)).reshape(shape)
    }

    /// [`Norm::forward_groups`] for a decode batch on the CPU.
    pub fn decode(&self, x: &DecodeBatch) -> DecodeBatch {
        x.norm(&numbers(&self.factor()), self.bias.as_ref().map(numbers).as_deref(), self.eps)
    }

    /// What the normalised input is multiplied by, `[d]`.
    pub fn factor(&self) -> Tensor {
        if self.plus_one { &self.weight + 1.0 } else { self.weight.shallow_clone() }
    }
}
