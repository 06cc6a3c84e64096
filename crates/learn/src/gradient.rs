//! Loss and gradient of a part of a minibatch, computed directly: forward pass, the loss's own derivative, backward
//! pass. It takes a few dozen samples at a time so that nothing leaves the first-level cache. `ppo/tests.rs` compares
//! the result with libtorch's automatic differentiation.

use super::Dense;
use super::gaussian::Spread;
use super::kernels::{Left, Right, Target, product};
use super::loss::{Loss, Sums, TILE};
use super::network::{Layout, Network};
use flipside_core::simd::{F32Lanes, Job, load, padded, run, store};

/// A part of a minibatch.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Normalised observations of the whole rollout, `[samples, padded(O)]`.
    pub obs: &'a [f32],
    /// The indices of the samples.
    pub samples: &'a [u32],
    /// The weight of each sample: 1 / size of the minibatch.
    pub weight: f32,
}

/// One thread's scratch memory for a gradient.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// The gradient, laid out like the network.
    pub gradient: Vec<f32>,
    /// The sums of the last [`Tape::take`].
    pub sums: Sums,
    /// Inputs of each layer, `[TILE, padded(inputs)]`, and the outputs of the last.
    activations: Vec<Vec<f32>>,
    /// Derivatives with respect to a layer's output and to its input, `[TILE, padded]`.
    deltas: [Vec<f32>; 2],
    spread: Spread,
}

impl Tape {
    /// Scratch memory for the gradient of a network.
    pub fn new(layout: &Layout) -> Tape {
        let widths = || layout.layers().iter().map(|l| l.inputs).chain(layout.layers().last().map(|l| l.outputs));
        let widest = widths().max().unwrap_or(0);
        Tape {
            gradient: vec![0.0; layout.len()],
            sums: Sums::default(),
            activations: widths().map(|width| vec![0.0; TILE * padded(width)]).collect(),
            deltas: [0, 1].map(|_| vec![0.0; TILE * padded(widest)]),
            spread: Spread::default(),
        }
    }

    /// Computes the gradient and the sums of one part. `packed` is the copy of `network` for evaluation.
    pub fn take(&mut self, network: &Network, packed: &Dense, objective: &Loss, part: Part) {
        run(Take { tape: self, network, packed, objective, part });
    }
}

/// The job behind [`Tape::take`].
struct Take<'a> {
    tape: &'a mut Tape,
    network: &'a Network,
    packed: &'a Dense,
    objective: &'a Loss<'a>,
    part: Part<'a>,
}

impl Job for Take<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        let Take { tape: Tape { gradient, sums, activations, deltas, spread }, network, packed, objective, part } =
            self;
        let layers = network.layout().layers();
        gradient.fill(0.0);
        *sums = Sums::default();
        spread.set(network.free());
        for samples in part.samples.chunks(TILE) {
            let count = samples.len();
            gather(part.obs, samples, padded(packed.inputs()), &mut activations[0]);
            for (index, layer) in layers.iter().enumerate() {
                // There is one more activation than there are layers.
                let (x, y) = activations.split_at_mut(index + 1);
                let x = Left { numbers: &x[index], stride: padded(layer.inputs) };
                packed.layer::<L>(index, count, x, &mut y[0]);
            }

            let [delta, next] = deltas;
            let ends = [&mut activations[layers.len()][..], &mut delta[..]];
            let stride = padded(packed.outputs());
            *sums += match objective {
                Loss::Policy(policy) => {
                    let by_log_std = &mut gradient[network.layout().free()..];
                    policy.derive::<L>(samples, ends, stride, part.weight, spread, by_log_std)
                }
                Loss::Value(value) => value.derive(samples, ends, stride, part.weight),
            };

            let (mut delta, mut next) = (&mut delta[..], &mut next[..]);
            for (index, layer) in layers.iter().enumerate().rev() {
                let (x, x_stride) = (&activations[index], padded(layer.inputs));
                let d_stride = padded(layer.outputs);
                let right = Right { numbers: x, stride: x_stride, columns: x_stride };
                let mut weight = AddTo { sums: &mut gradient[layer.weight..layer.bias], stride: x_stride };
                let by_output = Left { numbers: delta, stride: d_stride };
                product::<L, true, _>(layer.outputs, count, by_output, right, &mut weight);
                sum_rows::<L>(&delta[..count * d_stride], &mut gradient[layer.bias..][..d_stride]);
                if index > 0 {
                    let weight = &network.numbers()[layer.weight..layer.bias];
                    let right = Right { numbers: weight, stride: x_stride, columns: x_stride };
                    let mut by_input = ThroughTanh { tanh: x, out: next, stride: x_stride };
                    product::<L, false, _>(count, layer.outputs, by_output, right, &mut by_input);
                    std::mem::swap(&mut delta, &mut next);
                }
            }
        }
    }
}

/// Copies the rows of these samples side by side.
#[inline(always)]
fn gather(rows: &[f32], samples: &[u32], stride: usize, out: &mut [f32]) {
    for (&sample, out) in samples.iter().zip(out.chunks_exact_mut(stride)) {
        out.copy_from_slice(&rows[sample as usize * stride..][..stride]);
    }
}

/// Adds every row to `sums`.
#[inline(always)]
fn sum_rows<L: F32Lanes>(rows: &[f32], sums: &mut [f32]) {
    let stride = sums.len();
    for column in (0..stride).step_by(L::LANES) {
        let mut sum: L = load(sums, column);
        for row in rows.chunks_exact(stride) {
            sum += load(row, column);
        }
        store(sum, sums, column);
    }
}

/// A product that is added to the existing numbers.
struct AddTo<'a> {
    sums: &'a mut [f32],
    stride: usize,
}

impl Target for AddTo<'_> {
    #[inline(always)]
    fn start<L: F32Lanes>(&self, row: usize, column: usize) -> L {
        load(self.sums, row * self.stride + column)
    }
    #[inline(always)]
    fn finish<L: F32Lanes>(&mut self, row: usize, column: usize, sums: L) {
        store(sums, self.sums, row * self.stride + column);
    }
}

/// The derivative with respect to tanh's argument: (1 − tanh²) times the sums, which are the derivative with respect to
/// the tanh.
struct ThroughTanh<'a> {
    tanh: &'a [f32],
    out: &'a mut [f32],
    stride: usize,
}

impl Target for ThroughTanh<'_> {
    #[inline(always)]
    fn start<L: F32Lanes>(&self, _row: usize, _column: usize) -> L {
        L::splat(0.0)
    }
    #[inline(always)]
    fn finish<L: F32Lanes>(&mut self, row: usize, column: usize, sums: L) {
        let at = row * self.stride + column;
        let y: L = load(self.tanh, at);
        store(sums * (L::splat(1.0) - y * y), self.out, at);
    }
}

#[cfg(test)]
mod tests {
    use super::super::kl::approx_kl;
    use super::super::loss::{ClippedPolicy, ClippedValue};
    use super::super::reference::{self, TensorNetwork};
    use super::*;
    use flipside_core::Seed;
    use flipside_core::simd::run_in_each;
    use rand::RngExt;
    use tch::{Kind, Tensor};

    const SAMPLES: usize = 150;
    /// The layers' widths, input first, and how many of the 150 samples are used.
    const SHAPES: [(&[usize], usize); 8] = [
        (&[11, 64, 64, 3], 150),
        (&[1, 1, 1], 1),
        (&[3, 2], 47),
        (&[5, 7, 2], 48),
        (&[17, 32, 48, 5, 6], 49),
        (&[348, 64, 64, 17], 97),
        (&[27, 100, 33, 20], 150),
        (&[8, 256, 128, 1], 33),
    ];

    #[derive(Clone)]
    struct All<'a>(&'a Network, &'a Loss<'a>, Part<'a>);

    impl Job for All<'_> {
        type Output = (Vec<f32>, Sums);
        #[inline(always)]
        fn run<L: F32Lanes>(self) -> (Vec<f32>, Sums) {
            let All(network, objective, part) = self;
            let mut tape = Tape::new(network.layout());
            // Values left over from an earlier part must not matter.
            tape.gradient.fill(9.0);
            tape.deltas.iter_mut().for_each(|delta| delta.fill(9.0));
            Take { tape: &mut tape, network, packed: &network.dense(), objective, part }.run::<L>();
            (tape.gradient, tape.sums)
        }
    }

    fn check(network: &Network, objective: &Loss, obs: &[f32], order: &[u32]) {
        let width = network.layout().layers()[0].inputs;
        let mut rows = vec![0.0; SAMPLES * padded(width)];
        for (row, obs) in rows.chunks_mut(padded(width)).zip(obs.chunks(width)) {
            row[..width].copy_from_slice(obs);
        }
        let tensors = TensorNetwork::new(network);
        let (loss, log_ratio) = reference::loss(&tensors, objective, obs, order, SAMPLES);
        let truth = Tensor::run_backward(&[&loss], &[&tensors.parameters], false, false).remove(0);
        let size = truth.square().sum(Kind::Double).sqrt().double_value(&[]);
        assert!(size > 1e-3, "the gradient says nothing: {size}");
        let n = order.len() as f64;
        let all = run_in_each(All(network, objective, Part { obs: &rows, samples: order, weight: 1.0 / n as f32 }));
        for (lanes, (gradient, sums)) in &all {
            let flat = Tensor::from_slice(&network.layout().flat(gradient));
            let error = (flat - &truth).square().sum(Kind::Double).sqrt().double_value(&[]) / size;
            assert!(error < 1e-5, "{lanes:?}: the gradient is off by {error}");
            assert_eq!(network.layout().filled(&network.layout().flat(gradient)), *gradient, "{lanes:?}");
            let loss = loss.double_value(&[]);
            assert!((sums.loss / n - loss).abs() < 1e-5 * (1.0 + loss.abs()), "{lanes:?}: {} {loss}", sums.loss / n);
            if let Loss::Policy(ClippedPolicy { clip, .. }) = objective {
                let log_ratios: Vec<f32> = log_ratio.iter::<f64>().unwrap().map(|l| l as f32).collect();
                let kl = approx_kl(&log_ratios);
                assert!((sums.kl / n - kl).abs() < 1e-5 * kl + 1e-7, "{lanes:?}: {} {kl}", sums.kl / n);
                let left = log_ratios.iter().filter(|l| (l.exp() - 1.0).abs() > *clip).count();
                assert_eq!(sums.clipped, left as f64, "{lanes:?}");
            }
        }
        if let [_, (_, avx2), (_, avx512)] = &all[..] {
            assert_eq!(avx2, avx512);
        }
    }

    #[test]
    fn gradients_are_those_of_automatic_differentiation() {
        let mut stream = Seed(9).stream("gradients");
        for (case, (sizes, count)) in SHAPES.into_iter().enumerate() {
            let mut draw =
                |n: usize, size: f32| (0..n).map(|_| size * stream.random_range(-1.0..1.0)).collect::<Vec<f32>>();
            let (inputs, outputs) = (sizes[0], sizes[sizes.len() - 1]);
            let (obs, log_std) = (draw(SAMPLES * inputs, 2.0), draw(outputs, 0.5));
            let (actions, advantages) = (draw(SAMPLES * outputs, 2.0), draw(SAMPLES, 1.0));
            let (noise, returns, moves) = (draw(SAMPLES, 0.6), draw(SAMPLES, 1.0), draw(SAMPLES, 0.5));
            // Samples in any order, some of them twice.
            let order: Vec<u32> = draw(count, 1.0).iter().map(|x| ((x + 1.0) * 74.9) as u32).collect();

            let actor = Network::new(sizes, 1.0, &log_std, &mut Seed(case as u64).stream("actor"));
            // Old log-densities around the present ones, so that ratios lie on both sides of the clip range.
            let means = actor.dense().forward(&obs, SAMPLES);
            let (spread, mut z) = (Spread::new(&log_std), vec![0.0; outputs]);
            let rows = actions.chunks(outputs).zip(means.chunks(outputs)).zip(&noise);
            let old_log_probs: Vec<f32> =
                rows.map(|((action, mean), noise)| spread.log_prob(action, mean, &mut z) + noise).collect();
            let (old_log_probs, advantages) = (&old_log_probs[..], &advantages[..]);
            let objective = ClippedPolicy { actions: &actions, old_log_probs, advantages, clip: 0.2 };
            check(&actor, &Loss::Policy(objective), &obs, &order);

            let sizes = [&sizes[..sizes.len() - 1], &[1]].concat();
            let critic = Network::new(&sizes, 1.0, &[], &mut Seed(case as u64).stream("critic"));
            let values = critic.dense().forward(&obs, SAMPLES);
            // Old values around the present ones, for the same reason.
            let old_values: Vec<f32> = values.iter().zip(&moves).map(|(value, moved)| value + moved).collect();
            for clip in [0.0, 0.2] {
                let objective = ClippedValue { old_values: &old_values, returns: &returns, clip };
                check(&critic, &Loss::Value(objective), &obs, &order);
            }
        }
    }
}
