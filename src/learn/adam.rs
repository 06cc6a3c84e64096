//! Adam (Kingma and Ba 2015) over tensors and over plain numbers, with a state that can be saved and restored bit for bit.

use super::kernels::{load, store};
use super::lanes::{Job, Lanes, PAD, run};
use super::network::Layout;
use super::{LearnError, Reader};
use crate::basics::{Array, Arrays};
use tch::{Kind, Tensor};

/// Adam with PyTorch's placement of ε: θ ← θ − η/(1 − β₁ᵗ) · m / (√(v/(1 − β₂ᵗ)) + ε). β₁ = 0.9, β₂ = 0.999, no weight decay.
#[derive(Debug)]
pub struct Adam {
    eps: f64,
    step: u64,
    /// First and second moments, each shaped like its parameter.
    moments: Vec<[Tensor; 2]>,
}

const BETA: [f64; 2] = [0.9, 0.999];

impl Adam {
    /// Moments of zero for parameters of these shapes, on their device and of their kind.
    pub fn new(parameters: &[&Tensor], eps: f64) -> Adam {
        let moments = tch::no_grad(|| parameters.iter().map(|p| [p.zeros_like(), p.zeros_like()]).collect());
        Adam { eps, step: 0, moments }
    }

    /// Gradient steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One gradient step in place with step size `learning_rate`. Parameters and gradients come in the order of [`Adam::new`].
    pub fn step(&mut self, parameters: &mut [&mut Tensor], gradients: &[Tensor], learning_rate: f64) {
        self.step += 1;
        let correction = correction(self.step);
        tch::no_grad(|| {
            for ((parameter, gradient), [m, v]) in parameters.iter_mut().zip(gradients).zip(&mut self.moments) {
                let _ = m.lerp_(gradient, 1.0 - BETA[0]);
                let _ = v.g_mul_scalar_(BETA[1]).addcmul_(gradient, &(gradient * (1.0 - BETA[1])));
                let denominator = (v.sqrt() / correction[1].sqrt()).g_add_scalar_(self.eps);
                let _ = parameter.addcdiv_(&(&*m * (-learning_rate / correction[0])), &denominator);
            }
        });
    }

    /// Adds the state under `prefix.step` (u64), `prefix.N.m` and `prefix.N.v` (f32) for parameter N.
    pub fn to_arrays(&self, prefix: &str, arrays: &mut Arrays) {
        arrays.insert(format!("{prefix}.step"), Array::u64(vec![self.step]));
        for (i, moments) in self.moments.iter().enumerate() {
            for (moment, letter) in moments.iter().zip(["m", "v"]) {
                let shape: Vec<usize> = moment.size().iter().map(|&n| n as usize).collect();
                arrays.insert(format!("{prefix}.{i}.{letter}"), Array::f32(&shape, numbers(moment)));
            }
        }
    }

    /// The state that [`Adam::to_arrays`] saved, for parameters of the same shapes as this one's.
    pub fn restored(&self, prefix: &str, arrays: Reader) -> Result<Adam, LearnError> {
        let [step] = arrays.words(&format!("{prefix}.step"))?;
        let read = |i: usize, letter: &str, like: &Tensor| -> Result<Tensor, LearnError> {
            let shape: Vec<usize> = like.size().iter().map(|&n| n as usize).collect();
            let data = arrays.f32(&format!("{prefix}.{i}.{letter}"), &shape)?;
            Ok(Tensor::from_slice(data).reshape(like.size()).to_device(like.device()))
        };
        let moments = self.moments.iter().enumerate().map(|(i, [m, v])| Ok([read(i, "m", m)?, read(i, "v", v)?]));
        Ok(Adam { eps: self.eps, step, moments: moments.collect::<Result<_, LearnError>>()? })
    }
}

/// 1 − βᵗ: what the moments are divided by after `step` steps.
fn correction(step: u64) -> [f64; 2] {
    BETA.map(|beta| 1.0 - beta.powi(step.min(i32::MAX as u64) as i32))
}

/// [`Adam`] over a [`Network`](super::Network)'s vector, in one pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VectorAdam {
    eps: f64,
    step: u64,
    /// First and second moments, laid out like the parameters.
    moments: [Vec<f32>; 2],
}

impl VectorAdam {
    /// Moments of zero for `len` parameters, a multiple of [`PAD`].
    pub fn new(len: usize, eps: f64) -> VectorAdam {
        VectorAdam { eps, step: 0, moments: [vec![0.0; len], vec![0.0; len]] }
    }

    /// Gradient steps taken.
    #[cfg(test)]
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step of size `learning_rate` down the gradient times `scale`, which is what clipping leaves of it.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], scale: f64, learning_rate: f64) {
        self.step += 1;
        let correction = correction(self.step);
        let [m, v] = &mut self.moments;
        run(AdamPass {
            parameters,
            gradient,
            m,
            v,
            scale: scale as f32,
            rate: (-learning_rate / correction[0]) as f32,
            inverse_root: (1.0 / correction[1].sqrt()) as f32,
            eps: self.eps as f32,
        });
    }

    /// Adds what [`Adam::to_arrays`] would for one tensor of all parameters.
    pub fn to_arrays(&self, prefix: &str, layout: &Layout, arrays: &mut Arrays) {
        arrays.insert(format!("{prefix}.step"), Array::u64(vec![self.step]));
        for (moment, letter) in self.moments.iter().zip(["m", "v"]) {
            let flat = layout.flat(moment);
            arrays.insert(format!("{prefix}.0.{letter}"), Array::f32(&[flat.len()], flat));
        }
    }

    /// The state that [`VectorAdam::to_arrays`] saved.
    pub fn restored(&self, prefix: &str, layout: &Layout, arrays: Reader) -> Result<VectorAdam, LearnError> {
        let [step] = arrays.words(&format!("{prefix}.step"))?;
        let count = layout.flat(&self.moments[0]).len();
        let read = |letter: &str| arrays.f32(&format!("{prefix}.0.{letter}"), &[count]);
        let moments = [layout.filled(read("m")?), layout.filled(read("v")?)];
        Ok(VectorAdam { eps: self.eps, step, moments })
    }
}

/// [`VectorAdam::step`] without the bookkeeping.
struct AdamPass<'a> {
    parameters: &'a mut [f32],
    gradient: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    scale: f32,
    /// −η/(1 − β₁ᵗ).
    rate: f32,
    /// 1/√(1 − β₂ᵗ).
    inverse_root: f32,
    eps: f32,
}

impl Job for AdamPass<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let AdamPass { parameters, gradient, m: all_m, v: all_v, scale, rate, inverse_root, eps } = self;
        let [take_m, keep_v, take_v] = [1.0 - BETA[0], BETA[1], 1.0 - BETA[1]].map(|x| L::splat(x as f32));
        let [scale, rate, inverse_root, eps] = [scale, rate, inverse_root, eps].map(L::splat);
        for at in (0..parameters.len()).step_by(L::WIDTH) {
            let g = load::<L>(gradient, at) * scale;
            let (m, v): (L, L) = (load(all_m, at), load(all_v, at));
            let m = (g - m).mul_add(take_m, m);
            let v = (g * g).mul_add(take_v, v * keep_v);
            store(m, all_m, at);
            store(v, all_v, at);
            let step = m * rate / v.sqrt().mul_add(inverse_root, eps);
            store(load::<L>(parameters, at) + step, parameters, at);
        }
    }
}

/// Adds the second vector to the first; both are a multiple of [`PAD`] long.
pub(super) fn add(sums: &mut [f32], numbers: &[f32]) {
    run(Sum { sums, numbers });
}

/// [`add`].
struct Sum<'a> {
    sums: &'a mut [f32],
    numbers: &'a [f32],
}

impl Job for Sum<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        for at in (0..self.sums.len()).step_by(L::WIDTH) {
            store(load::<L>(self.sums, at) + load(self.numbers, at), self.sums, at);
        }
    }
}

/// The L2 norm of a vector, a multiple of [`PAD`] long.
pub(super) fn norm(numbers: &[f32]) -> f64 {
    run(Norm(numbers))
}

/// [`norm`]: four rows of [`PAD`] sums whatever the registers' width, so that all kinds of lanes add in one order.
struct Norm<'a>(&'a [f32]);

impl Job for Norm<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f64 {
        let mut sums = [0.0_f32; 4 * PAD];
        for numbers in self.0.chunks(4 * PAD) {
            for at in (0..numbers.len()).step_by(L::WIDTH) {
                let x: L = load(numbers, at);
                store(x.mul_add(x, load(&sums, at)), &mut sums, at);
            }
        }
        sums.iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt()
    }
}

/// The numbers of a tensor of f32, row-major.
pub(super) fn numbers(tensor: &Tensor) -> Vec<f32> {
    let count = tensor.numel();
    let mut numbers = vec![0.0; count];
    tensor.detach().to_kind(Kind::Float).contiguous().copy_data(&mut numbers, count);
    numbers
}

/// The L2 norm over all gradients together; where it is above `max` (and `max` above 0) they are scaled down to it, in place.
/// A norm that is not finite is returned as it is, and the gradients are left alone.
pub fn clip_by_global_norm(gradients: &mut [Tensor], max: f64) -> f64 {
    tch::no_grad(|| {
        let squares: f64 = gradients.iter().map(|g| g.norm().double_value(&[]).powi(2)).sum();
        let norm = squares.sqrt();
        if max > 0.0 && norm > max && norm.is_finite() {
            for gradient in gradients {
                let _ = gradient.g_mul_scalar_(max / norm);
            }
        }
        norm
    })
}

#[cfg(test)]
mod tests {
    use super::super::Network;
    use super::*;
    use crate::basics::Seed;
    use rand::RngExt;
    use tch::nn::{OptimizerConfig, VarStore};

    /// A loss with gradients of very different sizes in two tensors.
    fn loss(a: &Tensor, b: &Tensor) -> Tensor {
        (a.square() * Tensor::from_slice(&[1.0_f32, 100.0, 1e-4])).sum(Kind::Float)
            + (b.cos() * 3.0).sum(Kind::Float)
            + a.sum(Kind::Float) * b.get(0)
    }

    fn start() -> [Tensor; 2] {
        [Tensor::from_slice(&[1.0_f32, -2.0, 3.0]), Tensor::from_slice(&[0.3_f32, 0.7])]
            .map(|t| t.set_requires_grad(true))
    }

    fn take(adam: &mut Adam, parameters: &mut [Tensor; 2], steps: usize) {
        for step in 0..steps {
            let [a, b] = parameters;
            let gradients = Tensor::run_backward(&[loss(a, b)], &[&*a, &*b], false, false);
            adam.step(&mut [a, b], &gradients, 0.1 / (1.0 + step as f64));
        }
    }

    #[test]
    fn agrees_with_libtorchs_optimiser() {
        let store = VarStore::new(tch::Device::Cpu);
        let root = store.root();
        let theirs = [root.zeros("a", &[3]), root.zeros("b", &[2])];
        let mut ours = start();
        tch::no_grad(|| theirs.iter().zip(&ours).for_each(|(t, o)| t.shallow_clone().copy_(o)));
        let settings = tch::nn::Adam { eps: 1e-5, ..tch::nn::Adam::default() };
        let mut reference = settings.build(&store, 0.1).unwrap();
        for step in 0..50 {
            reference.set_lr(0.1 / (1.0 + step as f64));
            reference.backward_step(&loss(&theirs[0], &theirs[1]));
        }
        let mut adam = Adam::new(&[&ours[0], &ours[1]], 1e-5);
        take(&mut adam, &mut ours, 50);
        assert_eq!(adam.steps(), 50);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours - theirs).abs().max().double_value(&[]) < 1e-5, "{ours} {theirs}");
        }
    }

    #[test]
    fn over_numbers_it_is_the_same_as_over_tensors() {
        let network = Network::new(&[3, 5, 2], 1.0, &[0.1], &mut Seed(1).stream("network"));
        let (layout, mut stream) = (network.layout(), Seed(2).stream("gradients"));
        let mut plain = network.numbers().to_vec();
        let mut tensor = Tensor::from_slice(&layout.flat(&plain));
        let mut ours = VectorAdam::new(layout.len(), 1e-5);
        let mut theirs = Adam::new(&[&tensor], 1e-5);
        for _ in 0..30 {
            let flat: Vec<f32> = (0..tensor.numel()).map(|_| stream.random_range(-1.0..1.0)).collect();
            let gradient = layout.filled(&flat);
            let mut gradients = [Tensor::from_slice(&flat)];
            let length = norm(&gradient);
            assert!((length - clip_by_global_norm(&mut gradients, 0.5)).abs() < 1e-6 * length);
            ours.step(&mut plain, &gradient, 0.5 / length, 0.01);
            theirs.step(&mut [&mut tensor], &gradients, 0.01);
        }
        for (ours, theirs) in layout.flat(&plain).iter().zip(numbers(&tensor)) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
        let (mut from_ours, mut from_theirs) = (Arrays::new(), Arrays::new());
        ours.to_arrays("adam", layout, &mut from_ours);
        theirs.to_arrays("adam", &mut from_theirs);
        assert!(from_ours.keys().eq(from_theirs.keys()));
        assert_eq!(VectorAdam::new(layout.len(), 1e-5).restored("adam", layout, Reader(&from_ours)).unwrap(), ours);
        for (name, array) in &from_ours {
            assert_eq!(array.shape, from_theirs[name].shape, "{name}");
        }
        // What fills the rows up is still 0.
        assert_eq!(layout.filled(&layout.flat(&plain)), plain);
    }

    #[test]
    fn sums_and_norms_take_every_number() {
        for n in [16, 48, 64, 80, 256] {
            let mut sums: Vec<f32> = (0..n).map(|i| i as f32).collect();
            add(&mut sums, &vec![1.0; n]);
            assert!(sums.iter().zip(1..).all(|(&sum, i)| sum == i as f32));
            let expected = sums.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            assert!((norm(&sums) / expected - 1.0).abs() < 1e-6);
        }
        assert!(norm(&[f32::NAN; 16]).is_nan() && norm(&[3e38; 16]).is_infinite());
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        let mut parameters = start();
        let mut adam = Adam::new(&[&parameters[0], &parameters[1]], 1e-5);
        take(&mut adam, &mut parameters, 7);
        let mut arrays = Arrays::new();
        adam.to_arrays("adam", &mut arrays);
        let mut copies = parameters.each_ref().map(|p| p.detach().copy().set_requires_grad(true));
        let mut restored = Adam::new(&[&copies[0], &copies[1]], 1e-5).restored("adam", Reader(&arrays)).unwrap();
        take(&mut adam, &mut parameters, 5);
        take(&mut restored, &mut copies, 5);
        assert_eq!(parameters.each_ref().map(numbers), copies.each_ref().map(numbers));
        arrays.remove("adam.1.v");
        let error = adam.restored("adam", Reader(&arrays)).unwrap_err();
        assert_eq!(error.to_string(), "the saved array `adam.1.v` is missing");
    }

    #[test]
    fn gradients_are_shortened_together() {
        let gradients = || [Tensor::from_slice(&[3.0_f32, 0.0]), Tensor::from_slice(&[4.0_f32])];
        let mut long = gradients();
        assert_eq!(clip_by_global_norm(&mut long, 1.0), 5.0);
        assert!((numbers(&long[0])[0] - 0.6).abs() < 1e-6 && (numbers(&long[1])[0] - 0.8).abs() < 1e-6);
        let mut short = gradients();
        assert_eq!((clip_by_global_norm(&mut short, 6.0), clip_by_global_norm(&mut short, 0.0)), (5.0, 5.0));
        assert_eq!(short.each_ref().map(numbers), gradients().each_ref().map(numbers));
    }
}
