//! A network of linear layers with tanh between them, packed for evaluation.
//!
//! Acting evaluates a 64×64 network for a few dozen rows at a time. At this size libtorch's fixed cost per call exceeds
//! the arithmetic. The kernels of `kernels.rs` compute a row in a tenth of a microsecond. A row's result does not
//! depend on the other rows.

use super::kernels::{Left, Right, Target, product};
use super::network::Network;
use flipside_core::simd::{F32Lanes, Job, load, padded, run, store, tanh};

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

/// How many rows pass through all layers before the next ones, so that their activations stay in the first-level cache.
const BLOCK: usize = 48;

/// A layer in the layout of the product: the outputs side by side for each input, padded with zeros to whole registers.
#[derive(Clone, Debug, PartialEq)]
struct Packed {
    inputs: usize,
    outputs: usize,
    /// Wᵀ, `[inputs, padded(outputs)]`.
    weight: Vec<f32>,
    /// `[padded(outputs)]`.
    bias: Vec<f32>,
}

impl Dense {
    /// Packs the layers, first to last. Panics if a layer's arrays do not have its sizes or a layer does not fit the
    /// previous one.
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

    /// Copies the current parameters of the network from which this was made.
    pub(super) fn follow(&mut self, network: &Network) {
        for (packed, span) in self.layers.iter_mut().zip(network.layout().layers()) {
            let numbers = network.numbers();
            packed.set_weight(&numbers[span.weight..span.bias], padded(span.inputs));
            packed.bias.copy_from_slice(&numbers[span.bias..][..padded(span.outputs)]);
        }
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
        let mut out = vec![0.0; n * self.outputs()];
        self.forward_into(rows, self.inputs(), &mut out, &mut Vec::new());
        out
    }

    /// The outputs of rows that are `stride` apart, into `[n, outputs]`. `scratch` is memory that the caller keeps for
    /// reuse.
    pub(super) fn forward_into(&self, rows: &[f32], stride: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        run(Forward { network: self, rows, stride, out, scratch });
    }

    /// The number of layers, for callers that keep the activations between them and call once per layer.
    pub(super) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Evaluates layer `index` for `count` rows. Rows of `x` are `stride` apart, rows of `y` `padded(outputs)`. tanh
    /// follows every layer but the last.
    #[inline(always)]
    pub(super) fn layer<L: F32Lanes>(&self, index: usize, count: usize, x: Left, y: &mut [f32]) {
        let layer = &self.layers[index];
        let columns = layer.bias.len();
        let right = Right { numbers: &layer.weight, stride: columns, columns };
        let (bias, stride) = (&layer.bias[..], columns);
        match index + 1 < self.layers.len() {
            true => product::<L, false, _>(count, layer.inputs, x, right, &mut Affine::<true> { bias, y, stride }),
            false => product::<L, false, _>(count, layer.inputs, x, right, &mut Affine::<false> { bias, y, stride }),
        }
    }
}

/// y = W x + b, followed by tanh if `BENT`.
struct Affine<'a, const BENT: bool> {
    bias: &'a [f32],
    y: &'a mut [f32],
    stride: usize,
}

impl<const BENT: bool> Target for Affine<'_, BENT> {
    #[inline(always)]
    fn start<L: F32Lanes>(&self, _row: usize, column: usize) -> L {
        load(self.bias, column)
    }
    #[inline(always)]
    fn finish<L: F32Lanes>(&mut self, row: usize, column: usize, sums: L) {
        store(if BENT { tanh(sums) } else { sums }, self.y, row * self.stride + column);
    }
}

/// The job behind [`Dense::forward_into`].
struct Forward<'a> {
    network: &'a Dense,
    rows: &'a [f32],
    stride: usize,
    out: &'a mut [f32],
    scratch: &'a mut Vec<f32>,
}

impl Job for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        let Forward { network, rows, stride, out, scratch } = self;
        let (widest, outputs) = (network.layers.iter().map(|l| l.bias.len()).max().unwrap_or(0), network.outputs());
        scratch.resize(2 * BLOCK * widest, 0.0);
        let (mut here, mut next) = scratch.split_at_mut(BLOCK * widest);
        for (block, out) in out.chunks_mut(BLOCK * outputs).enumerate() {
            let count = out.len() / outputs;
            let mut x = Left { numbers: &rows[block * BLOCK * stride..], stride };
            for index in 0..network.depth() {
                network.layer::<L>(index, count, x, next);
                std::mem::swap(&mut here, &mut next);
                x = Left { numbers: here, stride: network.layers[index].bias.len() };
            }
            for (row, out) in here.chunks_exact(x.stride).zip(out.chunks_exact_mut(outputs)) {
                out.copy_from_slice(&row[..outputs]);
            }
        }
    }
}

impl Packed {
    fn new(layer: &Layer) -> Packed {
        let &Layer { inputs, outputs, .. } = layer;
        assert!(
            layer.weight.len() == inputs * outputs && layer.bias.len() == outputs,
            "weight must be [outputs, inputs]"
        );
        let mut packed =
            Packed { inputs, outputs, weight: vec![0.0; inputs * padded(outputs)], bias: vec![0.0; padded(outputs)] };
        packed.set_weight(&layer.weight, inputs);
        packed.bias[..outputs].copy_from_slice(&layer.bias);
        packed
    }

    /// Transposes W, whose rows are `stride` apart.
    fn set_weight(&mut self, weight: &[f32], stride: usize) {
        let columns = self.bias.len();
        for (output, row) in weight.chunks_exact(stride).enumerate() {
            for (input, &w) in row[..self.inputs].iter().enumerate() {
                self.weight[input * columns + output] = w;
            }
        }
    }

    fn unpack(&self) -> Layer {
        let &Packed { inputs, outputs, .. } = self;
        let at = |output: usize, input: usize| self.weight[input * self.bias.len() + output];
        let weight = (0..outputs).flat_map(|output| (0..inputs).map(move |input| at(output, input))).collect();
        Layer { inputs, outputs, weight, bias: self.bias[..outputs].to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use flipside_core::simd::run_in_each;
    use rand::RngExt;

    #[derive(Clone)]
    struct Evaluate<'a>(&'a Dense, &'a [f32], usize);

    impl Job for Evaluate<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<L: F32Lanes>(self) -> Vec<f32> {
            let mut out = vec![0.0; self.2 * self.0.outputs()];
            let (network, rows) = (self.0, self.1);
            Forward { network, rows, stride: network.inputs(), out: &mut out, scratch: &mut Vec::new() }.run::<L>();
            out
        }
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
        let all = run_in_each(Evaluate(&network, &rows, n));
        assert_eq!(all[all.len() - 1].1, ours);
        for (row, at) in rows.chunks(11).zip(0..) {
            let mut x: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            for (i, layer) in layers.iter().enumerate() {
                let dot = |w: &[f32]| w.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
                x = layer.weight.chunks(layer.inputs).zip(&layer.bias).map(|(w, &b)| dot(w) + f64::from(b)).collect();
                if i < 2 {
                    x.iter_mut().for_each(|x| *x = x.tanh());
                }
            }
            for (lanes, out) in &all {
                let out = &out[at * 3..][..3];
                assert!(x.iter().zip(out).all(|(x, &y)| (x - f64::from(y)).abs() < 2e-6), "{lanes:?}: {x:?} {out:?}");
            }
            assert_eq!(network.forward(row, 1), ours[at * 3..][..3]);
        }
    }

    #[test]
    fn a_copy_follows_its_network() {
        let network = |seed: u64| Network::new(&[5, 20, 7], 1.0, &[], &mut Seed(seed).stream("network"));
        let mut copy = network(1).dense();
        copy.follow(&network(2));
        assert_eq!(copy, network(2).dense());
        assert_ne!(copy, network(1).dense());
    }
}
