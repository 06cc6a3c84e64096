//! A network of linear layers with tanh between them, run as plain loops over f32.
//!
//! Acting evaluates a 64×64 network for a few dozen rows at a time. There libtorch's fixed cost a call exceeds the arithmetic; a loop
//! that the compiler turns into vector instructions does a row in about a microsecond. A row's result does not depend on the rows beside it.

/// One linear layer y = W x + b, in PyTorch's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// W, `[outputs, inputs]`.
    pub weight: Vec<f32>,
    /// b, `[outputs]`.
    pub bias: Vec<f32>,
}

/// The network, packed for evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    layers: Vec<Packed>,
}

/// Outputs that are computed together: two or one vector registers of any x86-64 or ARM processor.
const LANES: usize = 8;
/// Rows that are computed together, so that a weight once loaded serves each.
const ROWS: usize = 4;
/// Rows taken through all layers before the next ones: their activations stay in the first-level cache.
const BLOCK: usize = 32;

/// A layer as the inner loop wants it: [`LANES`] outputs side by side for each input, the last group filled up with zeros.
#[derive(Clone, Debug, PartialEq)]
struct Packed {
    inputs: usize,
    outputs: usize,
    /// `[groups, inputs]`.
    weight: Vec<[f32; LANES]>,
    /// `[groups]`.
    bias: Vec<[f32; LANES]>,
}

impl Dense {
    /// Packs the layers, first to last. Panics if a layer's arrays do not have its sizes or a layer does not fit the one before it.
    pub fn new(layers: &[Layer]) -> Dense {
        assert!(!layers.is_empty(), "a network has at least one layer");
        assert!(
            layers.windows(2).all(|pair| pair[0].outputs == pair[1].inputs),
            "each layer must fit the one before it"
        );
        Dense { layers: layers.iter().map(Packed::new).collect() }
    }

    /// The layers again, in PyTorch's order.
    pub fn layers(&self) -> Vec<Layer> {
        self.layers.iter().map(Packed::unpack).collect()
    }

    /// Width of an input row.
    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    /// Width of an output row.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// The outputs of `n` rows, `[n, inputs]` → `[n, outputs]`.
    pub fn forward(&self, rows: &[f32], n: usize) -> Vec<f32> {
        assert_eq!(rows.len(), n * self.inputs(), "rows must be [n, inputs]");
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { self.forward_avx2(rows, n) };
        }
        self.forward_anywhere(rows, n)
    }

    /// The same code for wider registers. Multiplications and additions are never fused, so the bits are the same.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn forward_avx2(&self, rows: &[f32], n: usize) -> Vec<f32> {
        self.forward_anywhere(rows, n)
    }

    #[inline(always)]
    fn forward_anywhere(&self, rows: &[f32], n: usize) -> Vec<f32> {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let widest = self.layers.iter().map(Packed::stride).max().unwrap_or(0);
        let (mut here, mut next) = (vec![0.0; BLOCK * widest], vec![0.0; BLOCK * widest]);
        let mut out = Vec::with_capacity(n * outputs);
        for block in rows.chunks(BLOCK * inputs) {
            let count = block.len() / inputs;
            let mut stride = self.layers[0].stride();
            self.layers[0].apply(block, inputs, count, &mut here);
            for layer in &self.layers[1..] {
                here[..count * stride].iter_mut().for_each(|x| *x = tanh(*x));
                layer.apply(&here, stride, count, &mut next);
                stride = layer.stride();
                std::mem::swap(&mut here, &mut next);
            }
            here[..count * stride].chunks(stride).for_each(|row| out.extend_from_slice(&row[..outputs]));
        }
        out
    }
}

impl Packed {
    fn new(layer: &Layer) -> Packed {
        let &Layer { inputs, outputs, .. } = layer;
        assert!(
            layer.weight.len() == inputs * outputs && layer.bias.len() == outputs,
            "weight must be [outputs, inputs]"
        );
        let lane = |group: usize, lane: usize| Some(group * LANES + lane).filter(|&o| o < outputs);
        let groups = outputs.div_ceil(LANES);
        let weight = (0..groups)
            .flat_map(|group| (0..inputs).map(move |input| (group, input)))
            .map(|(group, input)| {
                std::array::from_fn(|l| lane(group, l).map_or(0.0, |output| layer.weight[output * inputs + input]))
            })
            .collect();
        let bias = (0..groups)
            .map(|group| std::array::from_fn(|l| lane(group, l).map_or(0.0, |output| layer.bias[output])))
            .collect();
        Packed { inputs, outputs, weight, bias }
    }

    fn unpack(&self) -> Layer {
        let &Packed { inputs, outputs, .. } = self;
        let weight = (0..outputs)
            .flat_map(|output| (0..inputs).map(move |input| (output, input)))
            .map(|(output, input)| self.weight[output / LANES * inputs + input][output % LANES])
            .collect();
        let bias = self.bias.as_flattened()[..outputs].to_vec();
        Layer { inputs, outputs, weight, bias }
    }

    /// Numbers from one output row to the next: the outputs, filled up to whole groups.
    fn stride(&self) -> usize {
        self.bias.len() * LANES
    }

    /// `count` rows of x, `x_stride` apart, to rows of y, [`Packed::stride`] apart.
    #[inline(always)]
    fn apply(&self, x: &[f32], x_stride: usize, count: usize, y: &mut [f32]) {
        let whole = count / ROWS * ROWS;
        for row in (0..whole).step_by(ROWS) {
            self.tile::<ROWS>(&x[row * x_stride..], x_stride, &mut y[row * self.stride()..]);
        }
        for row in whole..count {
            self.tile::<1>(&x[row * x_stride..], x_stride, &mut y[row * self.stride()..]);
        }
    }

    /// R rows. Each output starts at its bias and adds its inputs in order, whatever R: the bits do not depend on the batch.
    #[inline(always)]
    fn tile<const R: usize>(&self, x: &[f32], x_stride: usize, y: &mut [f32]) {
        let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * x_stride..][..self.inputs]);
        let stride = self.stride();
        for (group, (weight, bias)) in self.weight.chunks_exact(self.inputs).zip(&self.bias).enumerate() {
            let mut sums = [*bias; R];
            for (input, weights) in weight.iter().enumerate() {
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let x = row[input];
                    sum.iter_mut().zip(weights).for_each(|(s, w)| *s += x * w);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                y[r * stride + group * LANES..][..LANES].copy_from_slice(sum);
            }
        }
    }
}

/// tanh to within 5e-7, without branches so that it vectorises: Eigen's rational approximation (degree 13 over 6), which is what libtorch's
/// own kernels come close to. NaN stays NaN.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    const LIMIT: f32 = 7.905_311;
    const P: [f32; 7] = [
        4.893_524_6e-3,
        6.372_619_3e-4,
        1.485_722_4e-5,
        5.122_297_1e-8,
        -8.604_672e-11,
        2.000_188e-13,
        -2.760_768_5e-16,
    ];
    const Q: [f32; 4] = [4.893_525e-3, 2.268_434_6e-3, 1.185_347_1e-4, 1.198_258_4e-6];
    let x = if x > LIMIT { LIMIT } else { x };
    let x = if x < -LIMIT { -LIMIT } else { x };
    let x2 = x * x;
    let p = P.iter().rev().fold(0.0, |sum, p| sum * x2 + p);
    let q = Q.iter().rev().fold(0.0, |sum, q| sum * x2 + q);
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basics::Seed;
    use rand::RngExt;

    #[test]
    fn tanh_is_close_to_the_standard_librarys() {
        let mut worst = 0.0_f64;
        for i in -200_000..=200_000 {
            let x = i as f32 * 1e-4;
            worst = worst.max((f64::from(tanh(x)) - f64::from(x).tanh()).abs());
        }
        assert!(worst < 5e-7, "{worst}");
        assert!(tanh(f32::NAN).is_nan());
        assert_eq!((tanh(0.0), tanh(f32::INFINITY), tanh(-50.0)), (0.0, tanh(8.0), -tanh(8.0)));
    }

    #[test]
    fn forward_agrees_with_f64_sums_and_does_not_depend_on_the_batch() {
        let mut stream = Seed(1).stream("dense");
        let mut draw = |n: usize| (0..n).map(|_| stream.random_range(-0.5..0.5)).collect::<Vec<f32>>();
        let mut layer =
            |inputs, outputs| Layer { inputs, outputs, weight: draw(inputs * outputs), bias: draw(outputs) };
        let layers = [layer(11, 64), layer(64, 21), layer(21, 3)];
        let n = 71;
        let rows = draw(n * 11);
        let network = Dense::new(&layers);
        assert_eq!(network.layers(), layers);

        let ours = network.forward(&rows, n);
        for (row, ours) in rows.chunks(11).zip(ours.chunks(3)) {
            let mut x: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            for (i, layer) in layers.iter().enumerate() {
                let dot = |w: &[f32]| w.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
                x = layer.weight.chunks(layer.inputs).zip(&layer.bias).map(|(w, &b)| dot(w) + f64::from(b)).collect();
                if i < 2 {
                    x.iter_mut().for_each(|x| *x = x.tanh());
                }
            }
            assert!(x.iter().zip(ours).all(|(x, &y)| (x - f64::from(y)).abs() < 2e-6), "{x:?} {ours:?}");
            assert_eq!(network.forward(row, 1), ours);
        }
        assert_eq!(network.forward_anywhere(&rows, n), ours);
    }
}
