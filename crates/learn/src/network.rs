//! A network's parameters as one vector, in the layout of the kernels that learn.

use super::{Dense, Layer, LearnError, Reader};
use flipside_core::simd::padded;
use flipside_core::{Array, Arrays, Stream};
use rand_distr::{Distribution, StandardNormal};

/// Linear layers with tanh between them, and optionally a few free parameters (the actor's log σ).
///
/// All lie in one vector, so that the optimiser is one pass over it and a gradient is one vector of the same layout.
/// Every row of a weight, every bias and the free parameters are padded with zeros to whole registers. These zeros
/// never change, because their gradient is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    layout: Layout,
    numbers: Vec<f32>,
}

/// Where the parts of a [`Network`] lie in its vector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    layers: Vec<Span>,
    /// Where the free parameters start, and how many there are.
    free: (usize, usize),
}

/// Where one layer lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// Width of x in y = W x + b.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// Where W starts, `[outputs, padded(inputs)]`.
    pub weight: usize,
    /// Where b starts, `[padded(outputs)]`.
    pub bias: usize,
}

impl Layout {
    fn new(sizes: &[usize], free: usize) -> Layout {
        let mut at = 0;
        let mut take = |n: usize| {
            at += n;
            at - n
        };
        let layers = sizes.windows(2).map(|pair| {
            let (inputs, outputs) = (pair[0], pair[1]);
            Span { inputs, outputs, weight: take(outputs * padded(inputs)), bias: take(padded(outputs)) }
        });
        let layers = layers.collect();
        Layout { layers, free: (at, free) }
    }

    /// First layer to last.
    pub fn layers(&self) -> &[Span] {
        &self.layers
    }

    /// Where the free parameters start.
    pub fn free(&self) -> usize {
        self.free.0
    }

    /// Length of the vector.
    pub fn len(&self) -> usize {
        self.free.0 + padded(self.free.1)
    }

    /// The ranges that hold parameters, in PyTorch's order: each layer's rows of W `[out, in]`, then b, and the free
    /// parameters last.
    fn pieces(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let layers = self.layers.iter().flat_map(|layer| {
            let row = move |o: usize| layer.weight + o * padded(layer.inputs);
            let rows = (0..layer.outputs).map(move |o| row(o)..row(o) + layer.inputs);
            rows.chain(std::iter::once(layer.bias..layer.bias + layer.outputs))
        });
        let (start, free) = self.free;
        layers.chain(std::iter::once(start..start + free))
    }

    /// The parameters alone, without the padding.
    pub fn flat(&self, numbers: &[f32]) -> Vec<f32> {
        self.pieces().flat_map(|piece| &numbers[piece]).copied().collect()
    }

    /// The inverse of [`Layout::flat`]: adds the padding.
    pub fn filled(&self, flat: &[f32]) -> Vec<f32> {
        let mut numbers = vec![0.0; self.len()];
        let mut rest = flat;
        for piece in self.pieces() {
            let (here, after) = rest.split_at(piece.len());
            numbers[piece].copy_from_slice(here);
            rest = after;
        }
        numbers
    }
}

impl Network {
    /// Layers of these widths, input first. Weights are orthogonal, with gain √2 for hidden layers and `head_gain` for
    /// the last one (Engstrom et al. 2020; Andrychowicz et al. 2021); biases are 0 and the free parameters as given.
    pub fn new(sizes: &[usize], head_gain: f64, free: &[f32], stream: &mut Stream) -> Network {
        let mut flat = Vec::new();
        for (i, pair) in sizes.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let gain = if i + 2 == sizes.len() { head_gain } else { 2.0_f64.sqrt() };
            flat.extend(orthogonal(outputs, inputs, gain, stream));
            flat.extend(std::iter::repeat_n(0.0, outputs));
        }
        flat.extend_from_slice(free);
        let layout = Layout::new(sizes, free.len());
        let numbers = layout.filled(&flat);
        Network { layout, numbers }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The vector, laid out as [`Network::layout`] says.
    pub(super) fn numbers(&self) -> &[f32] {
        &self.numbers
    }

    /// The vector, for the optimiser.
    pub(super) fn numbers_mut(&mut self) -> &mut [f32] {
        &mut self.numbers
    }

    /// The layers' current parameters.
    pub fn layers(&self) -> Vec<Layer> {
        let layer = |span: &Span| {
            let &Span { inputs, outputs, weight, bias } = span;
            let rows = self.numbers[weight..bias].chunks_exact(padded(inputs));
            Layer {
                inputs,
                outputs,
                weight: rows.flat_map(|row| &row[..inputs]).copied().collect(),
                bias: self.numbers[bias..bias + outputs].to_vec(),
            }
        };
        self.layout.layers.iter().map(layer).collect()
    }

    /// The free parameters' current values.
    pub fn free(&self) -> &[f32] {
        let (start, count) = self.layout.free;
        &self.numbers[start..start + count]
    }

    /// A copy for evaluation.
    pub fn dense(&self) -> Dense {
        Dense::new(&self.layers())
    }

    /// Adds `prefix.N.weight`, `[out, in]`, and `prefix.N.bias`, `[out]`, for layer N, counted from 0. Adds the free
    /// parameters, if there are any, under `free_name`.
    pub fn to_arrays(&self, prefix: &str, free_name: &str, arrays: &mut Arrays) {
        layers_to_arrays(&self.layers(), prefix, arrays);
        if !self.free().is_empty() {
            arrays.insert(free_name.to_owned(), Array::f32(&[self.free().len()], self.free().to_vec()));
        }
    }

    /// A network of this one's sizes with the numbers that [`Network::to_arrays`] saved.
    pub fn restored(&self, prefix: &str, free_name: &str, arrays: Reader) -> Result<Network, LearnError> {
        let mut flat = Vec::new();
        for (i, &Span { inputs, outputs, .. }) in self.layout.layers.iter().enumerate() {
            flat.extend_from_slice(arrays.f32(&format!("{prefix}.{i}.weight"), &[outputs, inputs])?);
            flat.extend_from_slice(arrays.f32(&format!("{prefix}.{i}.bias"), &[outputs])?);
        }
        if !self.free().is_empty() {
            flat.extend_from_slice(arrays.f32(free_name, &[self.free().len()])?);
        }
        Ok(Network { layout: self.layout.clone(), numbers: self.layout.filled(&flat) })
    }
}

/// Adds `prefix.N.weight` and `prefix.N.bias` of every layer.
pub(super) fn layers_to_arrays(layers: &[Layer], prefix: &str, arrays: &mut Arrays) {
    for (i, layer) in layers.iter().enumerate() {
        let shape = [layer.outputs, layer.inputs];
        arrays.insert(format!("{prefix}.{i}.weight"), Array::f32(&shape, layer.weight.clone()));
        arrays.insert(format!("{prefix}.{i}.bias"), Array::f32(&[layer.outputs], layer.bias.clone()));
    }
}

/// A random `[rows, columns]` matrix whose rows (or columns, if those are fewer) are orthogonal and of length `gain`
/// (Saxe et al. 2014). It is the Q of a Gaussian matrix, by Gram–Schmidt done twice. This leaves R's diagonal positive,
/// so Q is uniformly distributed.
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
        // A Gaussian vector lies in the span of the others with probability 0. The check avoids a division by almost
        // nothing after rounding.
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
    use flipside_core::Seed;
    use tch::Tensor;

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
    fn what_fills_rows_up_is_no_parameter() {
        let network = Network::new(&[11, 64, 3], 1.0, &[0.5, -0.5], &mut Seed(6).stream("init"));
        let layout = network.layout();
        let flat = layout.flat(network.numbers());
        assert_eq!(flat.len(), 11 * 64 + 64 + 64 * 3 + 3 + 2);
        assert_eq!(layout.filled(&flat), network.numbers());
        assert_eq!(layout.len(), 64 * 16 + 64 + 3 * 64 + 16 + 16);
        assert_eq!(network.layers()[1].weight, flat[11 * 64 + 64..][..64 * 3]);
        assert_eq!((network.free(), &flat[flat.len() - 2..]), (&[0.5, -0.5][..], &[0.5, -0.5][..]));
    }
}
