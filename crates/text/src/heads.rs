//! Scalar heads on hidden states, for values and rewards.

use flipside_core::{Array, Arrays, Stream};
use flipside_learn::{LearnError, Reader, numbers};
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

/// A linear layer from a hidden state to one number, in f32 whatever the model's precision.
#[derive(Debug)]
pub struct ScalarHead {
    /// `[1, d]`.
    weight: Tensor,
    /// `[1]`.
    bias: Tensor,
}

impl ScalarHead {
    /// All zeros: the initialisation of a critic without prior knowledge.
    pub fn zero(width: usize, device: Device) -> ScalarHead {
        ScalarHead::of(&vec![0.0; width], 0.0, device)
    }

    /// Weights from N(0, 1/(d + 1)), whose standard deviation is 1/√(d + 1), and a bias of 0: the initialisation of a
    /// reward model (Stiennon et al. 2020).
    pub fn random(width: usize, device: Device, stream: &mut Stream) -> ScalarHead {
        let scale = 1.0 / (width as f32 + 1.0).sqrt();
        let weight: Vec<f32> = (0..width)
            .map(|_| {
                let z: f32 = StandardNormal.sample(stream);
                z * scale
            })
            .collect();
        ScalarHead::of(&weight, 0.0, device)
    }

    /// A head with this weight and bias.
    pub fn of(weight: &[f32], bias: f32, device: Device) -> ScalarHead {
        let leaf = |tensor: Tensor| tensor.to_device(device).set_requires_grad(true);
        ScalarHead {
            weight: leaf(Tensor::from_slice(weight).reshape([1, -1])),
            bias: leaf(Tensor::from_slice(&[bias])),
        }
    }

    /// A copy that shares no memory with this one.
    pub fn copy(&self) -> ScalarHead {
        ScalarHead::of(&numbers(&self.weight), numbers(&self.bias)[0], self.weight.device())
    }

    /// Replaces weights and bias in place, so that an optimiser of this head goes on with them.
    pub fn set(&mut self, weight: &[f32], bias: f32) {
        tch::no_grad(|| {
            self.weight.copy_(&Tensor::from_slice(weight).reshape([1, -1]));
            self.bias.copy_(&Tensor::from_slice(&[bias]));
        });
    }

    /// Hidden states `[.., d]` → numbers `[..]`, f32.
    pub fn forward(&self, hidden: &Tensor) -> Tensor {
        hidden.to_kind(Kind::Float).linear(&self.weight, Some(&self.bias)).squeeze_dim(-1)
    }

    /// The weights, `[d]`.
    pub fn weight(&self) -> Vec<f32> {
        numbers(&self.weight)
    }

    /// The bias.
    pub fn bias(&self) -> f64 {
        f64::from(numbers(&self.bias)[0])
    }

    /// The trainable tensors, by name.
    pub fn trainable(&self) -> [(String, Tensor); 2] {
        [("head.weight".to_owned(), self.weight.shallow_clone()), ("head.bias".to_owned(), self.bias.shallow_clone())]
    }

    /// Adds `prefix.weight` `[1, d]` and `prefix.bias` `[1]` (f32).
    pub fn to_arrays(&self, prefix: &str, arrays: &mut Arrays) {
        let weight = self.weight();
        arrays.insert(format!("{prefix}.weight"), Array::f32(&[1, weight.len()], weight));
        arrays.insert(format!("{prefix}.bias"), Array::f32(&[1], numbers(&self.bias)));
    }

    /// The head that [`ScalarHead::to_arrays`] saved, for hidden states of this size.
    pub fn from_arrays(prefix: &str, width: usize, device: Device, arrays: Reader) -> Result<ScalarHead, LearnError> {
        let weight = arrays.f32(&format!("{prefix}.weight"), &[1, width])?;
        Ok(ScalarHead::of(weight, arrays.f32(&format!("{prefix}.bias"), &[1])?[0], device))
    }
}
