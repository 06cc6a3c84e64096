//! Several small networks of the same shape, computed together: one batched matrix product per layer instead of one per
//! member.

use flipside_core::{Array, Arrays, Stream};
use flipside_learn::{LearnError, Reader, numbers, orthogonal};
use tch::{Kind, Tensor};

/// `members` networks, each with two hidden layers of leaky rectifiers (slope 0.01 below 0) and one output.
///
/// All parameters are in one tensor `[members, K]`, one row per member, so that one optimiser step covers them.
#[derive(Debug)]
pub(super) struct Ensemble {
    members: usize,
    /// Factor of the products of every two inputs, which are further inputs; 0 for none.
    pub products: f64,
    /// Widths: inputs with products, hidden, hidden, 1.
    sizes: [usize; 4],
    parameters: Tensor,
}

impl Ensemble {
    /// Networks with orthogonal weights and biases of 0. The weights are scaled so that inputs of variance 1 give
    /// hidden units of variance about 1 before the rectifier; the head has gain 0.5. If `products` is not 0, the
    /// products of every two inputs, squares included, are further inputs, multiplied by `products`.
    pub fn new(members: usize, inputs: usize, products: f64, hidden: usize, stream: &mut Stream) -> Ensemble {
        let features = inputs + if products == 0.0 { 0 } else { inputs * (inputs + 1) / 2 };
        let sizes = [features, hidden, hidden, 1];
        let mut numbers = Vec::new();
        for _ in 0..members {
            for (layer, pair) in sizes.windows(2).enumerate() {
                // An orthogonal map keeps the length of its input, so a layer with more outputs than inputs needs a
                // gain to keep the variance of each unit.
                let spread = (pair[1] as f64 / pair[0] as f64).max(1.0).sqrt();
                let gain = if layer + 2 == sizes.len() { 0.5 } else { spread };
                numbers.extend(orthogonal(pair[0], pair[1], gain, stream));
                numbers.extend(std::iter::repeat_n(0.0, pair[1]));
            }
        }
        Ensemble { members, products, sizes, parameters: parameters(members, &numbers) }
    }

    /// `[members, K]`: a leaf tensor that requires gradients.
    pub fn parameters(&self) -> &Tensor {
        &self.parameters
    }

    /// The same, for the optimiser.
    pub fn parameters_mut(&mut self) -> &mut Tensor {
        &mut self.parameters
    }

    /// Each member's output at each row, `[members, N]`. The rows are `[N, inputs]`, shared by all members, or
    /// `[members, N, inputs]`.
    pub fn forward(&self, rows: &Tensor) -> Tensor {
        let members = self.members as i64;
        let rows = if self.products == 0.0 { rows.shallow_clone() } else { with_products(rows, self.products) };
        let mut x = match rows.dim() {
            2 => rows.unsqueeze(0).expand([members, -1, -1], false),
            _ => rows,
        };
        for (layer, (weight, bias)) in self.layers().into_iter().enumerate() {
            x = bias.baddbmm(&x, &weight, 1, 1);
            if layer + 2 < self.sizes.len() {
                x = x.leaky_relu();
            }
        }
        x.squeeze_dim(-1)
    }

    /// Σ w² over each member's weights, without the biases: `[members]`.
    pub fn squared_weights(&self) -> Tensor {
        let squares = self
            .layers()
            .into_iter()
            .map(|(weight, _)| weight.square().sum_dim_intlist([1_i64, 2].as_slice(), false, Kind::Float));
        squares.reduce(|sum, part| sum + part).unwrap_or_default()
    }

    /// Views of every layer's weight, `[members, in, out]`, and bias, `[members, 1, out]`.
    pub fn layers(&self) -> Vec<(Tensor, Tensor)> {
        let (members, mut at) = (self.members as i64, 0);
        let mut take = |rows: usize, columns: usize| {
            let length = (rows * columns) as i64;
            at += length;
            self.parameters.narrow(1, at - length, length).view([members, rows as i64, columns as i64])
        };
        self.sizes.windows(2).map(|pair| (take(pair[0], pair[1]), take(1, pair[1]))).collect()
    }

    /// Adds `layer.N.weight`, `[members, in, out]`, and `layer.N.bias`, `[members, out]`.
    pub fn to_arrays(&self, arrays: &mut Arrays) {
        for (n, (weight, bias)) in self.layers().iter().enumerate() {
            let (inputs, outputs) = (self.sizes[n], self.sizes[n + 1]);
            arrays.insert(format!("layer.{n}.weight"), Array::f32(&[self.members, inputs, outputs], numbers(weight)));
            arrays.insert(format!("layer.{n}.bias"), Array::f32(&[self.members, outputs], numbers(bias)));
        }
    }

    /// The ensemble that [`Ensemble::to_arrays`] saved. Its sizes must be those of this one.
    pub fn restored(&self, arrays: Reader) -> Result<Ensemble, LearnError> {
        let mut parts = Vec::new();
        for (n, pair) in self.sizes.windows(2).enumerate() {
            let [inputs, outputs] = [pair[0], pair[1]];
            parts.push((arrays.f32(&format!("layer.{n}.weight"), &[self.members, inputs, outputs])?, inputs * outputs));
            parts.push((arrays.f32(&format!("layer.{n}.bias"), &[self.members, outputs])?, outputs));
        }
        let member = |m: usize| parts.iter().flat_map(move |(part, length)| &part[m * length..(m + 1) * length]);
        let numbers: Vec<f32> = (0..self.members).flat_map(member).copied().collect();
        Ok(Ensemble { parameters: parameters(self.members, &numbers), ..*self })
    }
}

/// `[members, K]`, a leaf tensor that requires gradients.
fn parameters(members: usize, numbers: &[f32]) -> Tensor {
    Tensor::from_slice(numbers).view([members as i64, -1]).set_requires_grad(true)
}

/// Appends to the last dimension the products of every two of its numbers, squares included, times `scale`.
fn with_products(rows: &Tensor, scale: f64) -> Tensor {
    let inputs = rows.size().last().copied().unwrap_or(0);
    let products = (0..inputs).map(|i| rows.narrow(-1, i, inputs - i) * (rows.narrow(-1, i, 1) * scale));
    Tensor::cat(&std::iter::once(rows.shallow_clone()).chain(products).collect::<Vec<Tensor>>(), -1)
}
