//! Actor and critic as tensors: one flat vector of parameters, seen as layers.

use super::adam::numbers;
use super::{Dense, Layer, LearnError, Reader};
use crate::basics::{Array, Arrays, Stream};
use rand_distr::{Distribution, StandardNormal};
use tch::Tensor;

/// Linear layers with tanh between them, and optionally a few free parameters more (the actor's log σ).
///
/// All parameters lie in one flat tensor, of which the layers are views: the optimiser and the gradient's norm then cost a handful of
/// libtorch calls instead of a handful a layer, and one vector is what a snapshot keeps.
#[derive(Debug)]
pub struct Network {
    /// Layer widths, input first.
    sizes: Vec<usize>,
    free: usize,
    parameters: Tensor,
}

/// The network's tensors as views on the flat vector, through which gradients flow back to it.
pub struct Views {
    /// Weight `[out, in]` and bias `[out]`, first layer to last.
    layers: Vec<(Tensor, Tensor)>,
    /// The free parameters, `[free]`.
    pub free: Tensor,
}

impl Network {
    /// Layers of these widths, input first. Weights are orthogonal, with gain √2 for hidden layers and `head_gain` for the last one
    /// (Engstrom et al. 2020; Andrychowicz et al. 2021); biases are 0 and the free parameters as given.
    pub fn new(sizes: &[usize], head_gain: f64, free: &[f32], stream: &mut Stream) -> Network {
        let mut flat = Vec::new();
        for (i, pair) in sizes.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let gain = if i + 2 == sizes.len() { head_gain } else { 2.0_f64.sqrt() };
            flat.extend(orthogonal(outputs, inputs, gain, stream));
            flat.extend(std::iter::repeat_n(0.0, outputs));
        }
        flat.extend_from_slice(free);
        let parameters = Tensor::from_slice(&flat).set_requires_grad(true);
        Network { sizes: sizes.to_vec(), free: free.len(), parameters }
    }

    /// The flat vector: a leaf that gradients are taken for.
    pub fn parameters(&self) -> &Tensor {
        &self.parameters
    }

    /// The flat vector, for the optimiser.
    pub fn parameters_mut(&mut self) -> &mut Tensor {
        &mut self.parameters
    }

    /// Its parts; made anew for every forward pass.
    pub fn views(&self) -> Views {
        let pairs = || self.sizes.windows(2).map(|pair| (pair[0] as i64, pair[1] as i64));
        let lengths: Vec<i64> =
            pairs().flat_map(|(inputs, outputs)| [inputs * outputs, outputs]).chain([self.free as i64]).collect();
        let mut parts = self.parameters.split_with_sizes(lengths, 0).into_iter();
        // One part for each length asked for, so that none of these is missing.
        let mut part = || parts.next().unwrap_or_default();
        let layers = pairs().map(|(inputs, outputs)| (part().view([outputs, inputs]), part())).collect();
        Views { layers, free: part() }
    }

    /// The layers' present numbers.
    pub fn layers(&self) -> Vec<Layer> {
        let flat = numbers(&self.parameters);
        let mut at = 0;
        let mut take = |n: usize| {
            at += n;
            flat[at - n..at].to_vec()
        };
        let layer = |pair: &[usize]| {
            let (inputs, outputs) = (pair[0], pair[1]);
            Layer { inputs, outputs, weight: take(inputs * outputs), bias: take(outputs) }
        };
        self.sizes.windows(2).map(layer).collect()
    }

    /// The free parameters' present numbers.
    pub fn free(&self) -> Vec<f32> {
        let flat = numbers(&self.parameters);
        flat[flat.len() - self.free..].to_vec()
    }

    /// A copy for evaluation without tensors.
    pub fn dense(&self) -> Dense {
        Dense::new(&self.layers())
    }

    /// Adds `prefix.N.weight`, `[out, in]`, and `prefix.N.bias`, `[out]`, for layer N, counted from 0, and the free parameters under
    /// `free_name` where there are any.
    pub fn to_arrays(&self, prefix: &str, free_name: &str, arrays: &mut Arrays) {
        layers_to_arrays(&self.layers(), prefix, arrays);
        if self.free > 0 {
            arrays.insert(free_name.to_owned(), Array::f32(&[self.free], self.free()));
        }
    }

    /// A network of this one's sizes with the numbers that [`Network::to_arrays`] saved.
    pub fn restored(&self, prefix: &str, free_name: &str, arrays: Reader) -> Result<Network, LearnError> {
        let mut flat = Vec::new();
        for (i, pair) in self.sizes.windows(2).enumerate() {
            flat.extend_from_slice(arrays.f32(&format!("{prefix}.{i}.weight"), &[pair[1], pair[0]])?);
            flat.extend_from_slice(arrays.f32(&format!("{prefix}.{i}.bias"), &[pair[1]])?);
        }
        if self.free > 0 {
            flat.extend_from_slice(arrays.f32(free_name, &[self.free])?);
        }
        let parameters = Tensor::from_slice(&flat).set_requires_grad(true);
        Ok(Network { sizes: self.sizes.clone(), free: self.free, parameters })
    }
}

impl Views {
    /// Rows `[B, in]` → `[B, out]`.
    pub fn forward(&self, rows: &Tensor) -> Tensor {
        let mut x = rows.shallow_clone();
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            if i > 0 {
                x = tanh(&x);
            }
            x = x.linear(weight, Some(bias));
        }
        x
    }
}

/// tanh x = 2σ(2x) − 1, to within 2e-7: libtorch's own tanh takes four times as long on a processor, which made it the dearest part of
/// an update.
fn tanh(x: &Tensor) -> Tensor {
    (x * 2.0).sigmoid_().g_mul_scalar(2.0).g_sub_scalar_(1.0)
}

/// Adds `prefix.N.weight` and `prefix.N.bias` of every layer.
pub(super) fn layers_to_arrays(layers: &[Layer], prefix: &str, arrays: &mut Arrays) {
    for (i, layer) in layers.iter().enumerate() {
        let shape = [layer.outputs, layer.inputs];
        arrays.insert(format!("{prefix}.{i}.weight"), Array::f32(&shape, layer.weight.clone()));
        arrays.insert(format!("{prefix}.{i}.bias"), Array::f32(&[layer.outputs], layer.bias.clone()));
    }
}

/// A random `[rows, columns]` matrix whose rows (or columns, where those are fewer) are orthogonal and `gain` long (Saxe et al. 2014): the Q
/// of a Gaussian matrix, by Gram–Schmidt done twice, which leaves R's diagonal positive and Q therefore uniformly distributed.
pub fn orthogonal(rows: usize, columns: usize, gain: f64, stream: &mut Stream) -> Vec<f32> {
    let (few, long) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(few);
    while basis.len() < few {
        let mut vector: Vec<f64> = (0..long).map(|_| StandardNormal.sample(stream)).collect();
        for _ in 0..2 {
            for unit in &basis {
                let along: f64 = unit.iter().zip(&vector).map(|(u, v)| u * v).sum();
                vector.iter_mut().zip(unit).for_each(|(v, u)| *v -= along * u);
            }
        }
        let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        // A Gaussian vector lies in the span of the others with probability 0; rounding must not divide by almost nothing all the same.
        if length > 1e-6 {
            vector.iter_mut().for_each(|v| *v /= length);
            basis.push(vector);
        }
    }
    let at = |row: usize, column: usize| if rows <= columns { basis[row][column] } else { basis[column][row] };
    (0..rows * columns).map(|i| (gain * at(i / columns, i % columns)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basics::Seed;

    #[test]
    fn rows_or_columns_are_orthogonal_and_as_long_as_the_gain() {
        for (rows, columns, gain) in [(64, 11, 2.0_f64.sqrt()), (64, 64, 2.0_f64.sqrt()), (3, 64, 0.01), (1, 1, 1.0)] {
            let matrix = orthogonal(rows, columns, gain, &mut Seed(5).stream("init"));
            let matrix = Tensor::from_slice(&matrix).view([rows as i64, columns as i64]).to_kind(tch::Kind::Double);
            let gram = if rows <= columns { matrix.matmul(&matrix.tr()) } else { matrix.tr().matmul(&matrix) };
            let identity = Tensor::eye(rows.min(columns) as i64, (tch::Kind::Double, tch::Device::Cpu));
            let worst = (gram / (gain * gain) - identity).abs().max().double_value(&[]);
            assert!(worst < 1e-6, "{rows}x{columns}: {worst}");
        }
    }

    #[test]
    fn tensors_and_plain_loops_compute_the_same() {
        let mut stream = Seed(6).stream("init");
        let network = Network::new(&[11, 64, 64, 3], 1.0, &[0.5, -0.5], &mut stream);
        let rows: Vec<f32> = (0..100 * 11).map(|_| StandardNormal.sample(&mut stream)).collect();
        let views = network.views();
        let tensors = numbers(&views.forward(&Tensor::from_slice(&rows).view([100, 11])));
        let loops = network.dense().forward(&rows, 100);
        let worst = tensors.iter().zip(&loops).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 3e-6, "{worst}");
        assert_eq!((numbers(&views.free), network.free()), (vec![0.5, -0.5], vec![0.5, -0.5]));
    }
}
