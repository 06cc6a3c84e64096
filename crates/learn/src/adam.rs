//! Adam (Kingma and Ba 2015) for tensors and for plain vectors, with a state that can be saved and restored bit for
//! bit.

use super::network::Layout;
use super::{LearnError, Reader};
use flipside_core::simd::{F32Lanes, Job, PAD, load, run, store};
use flipside_core::{Array, Arrays};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Adam: θ ← θ − η/(1 − β₁ᵗ) · m / (√(v/(1 − β₂ᵗ)) + ε), with PyTorch's placement of ε or TensorFlow's. β₁ = 0.9, β₂ =
/// 0.999, no weight decay.
///
/// Moments are f32 whatever the parameters' type. Parameters of lower precision have an f32 copy here, the master copy,
/// which the steps update. A relative step of a thousandth would be lost in the 8 bits of a bf16 number.
#[derive(Debug)]
pub struct Adam {
    eps: f64,
    tensorflow: bool,
    step: u64,
    /// First and second moments, each with its parameter's shape and memory order.
    moments: Vec<[Tensor; 2]>,
    /// f32 copies of the parameters that are not f32.
    masters: Vec<Option<Tensor>>,
}

const BETA: [f64; 2] = [0.9, 0.999];

impl Adam {
    /// Moments of zero for parameters of these shapes, on the parameters' device.
    pub fn new(parameters: &[&Tensor], eps: f64) -> Adam {
        tch::no_grad(|| {
            let zeros = |p: &Tensor| p.detach().to_kind(Kind::Float).zeros_like();
            let master = |p: &Tensor| (p.kind() != Kind::Float).then(|| p.detach().to_kind(Kind::Float));
            Adam {
                eps,
                tensorflow: false,
                step: 0,
                moments: parameters.iter().map(|p| [zeros(p), zeros(p)]).collect(),
                masters: parameters.iter().map(|p| master(p)).collect(),
            }
        })
    }

    /// The same with ε where TensorFlow puts it: θ ← θ − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε).
    pub fn with_tensorflow_eps(self) -> Adam {
        Adam { tensorflow: true, ..self }
    }

    /// Gradient steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One gradient step in place with step size `learning_rate`. Parameters and gradients come in the order of
    /// [`Adam::new`].
    pub fn step(&mut self, parameters: &mut [&mut Tensor], gradients: &[Tensor], learning_rate: f64) {
        self.step_each(parameters, gradients, 1.0, |_| learning_rate);
    }

    /// One gradient step in place with a step size for each parameter. The gradients are first multiplied by `scale`,
    /// which clipping determines. A parameter whose gradient is not defined stays unchanged.
    pub fn step_each(
        &mut self,
        parameters: &mut [&mut Tensor],
        gradients: &[Tensor],
        scale: f64,
        learning_rate: impl Fn(usize) -> f64,
    ) {
        self.step += 1;
        let correction = correction(self.step);
        let root = correction[1].sqrt();
        let eps = if self.tensorflow { self.eps / root } else { self.eps };
        tch::no_grad(|| {
            for (i, (parameter, gradient)) in parameters.iter_mut().zip(gradients).enumerate() {
                if !gradient.defined() {
                    continue;
                }
                let [m, v] = &mut self.moments[i];
                let gradient = gradient.to_kind(Kind::Float);
                let rate = -learning_rate(i) / correction[0];
                let mut own = parameter.shallow_clone();
                let numbers = self.masters[i].as_mut().unwrap_or(&mut own);
                // A matrix may be stored column by column. That is fine for the step as long as all four tensors are.
                let turned = numbers.dim() == 2 && !numbers.is_contiguous();
                let [mut flat, gradient_flat, mut m_flat, mut v_flat] =
                    [&*numbers, &gradient, &*m, &*v].map(|t| if turned { t.tr() } else { t.shallow_clone() });
                let mut gradient_flat = gradient_flat.contiguous();
                if let (Some(numbers), Some(gradient), Some(m), Some(v)) =
                    (slice(&mut flat), slice(&mut gradient_flat), slice(&mut m_flat), slice(&mut v_flat))
                {
                    let step = Step {
                        scale: scale as f32,
                        rate: rate as f32,
                        inverse_root: (1.0 / root) as f32,
                        eps: eps as f32,
                    };
                    step.apply(numbers, gradient, m, v);
                } else {
                    let gradient = gradient * scale;
                    let _ = m.lerp_(&gradient, 1.0 - BETA[0]);
                    let _ = v.g_mul_scalar_(BETA[1]).addcmul_(&gradient, &(&gradient * (1.0 - BETA[1])));
                    let denominator = (v.sqrt() / root).g_add_scalar_(eps);
                    let _ = numbers.addcdiv_(&(&*m * rate), &denominator);
                }
                if let Some(master) = &self.masters[i] {
                    parameter.copy_(master);
                }
            }
        });
    }

    /// A copy of the whole state that shares no memory with this one.
    pub fn copy(&self) -> Adam {
        tch::no_grad(|| Adam {
            moments: self.moments.iter().map(|moments| moments.each_ref().map(Tensor::copy)).collect(),
            masters: self.masters.iter().map(|master| master.as_ref().map(Tensor::copy)).collect(),
            ..*self
        })
    }

    /// Copies the state of another optimiser for the same parameters into this one's existing memory.
    pub fn take_over(&mut self, other: &Adam) {
        (self.eps, self.tensorflow, self.step) = (other.eps, other.tensorflow, other.step);
        tch::no_grad(|| {
            let moments = self.moments.iter_mut().flatten().zip(other.moments.iter().flatten());
            let masters = self.masters.iter_mut().flatten().zip(other.masters.iter().flatten());
            moments.chain(masters).for_each(|(own, other)| own.copy_(other));
        });
    }

    /// The f32 copies of the parameters that are not f32.
    pub fn masters(&self) -> &[Option<Tensor>] {
        &self.masters
    }

    /// Adds the state under `prefix.step` (u64), `prefix.N.m` and `prefix.N.v` (f32) for parameter N, and
    /// `prefix.N.master` (f32) if the parameter itself is not f32.
    pub fn to_arrays(&self, prefix: &str, arrays: &mut Arrays) {
        arrays.insert(format!("{prefix}.step"), Array::u64(vec![self.step]));
        let mut add = |i: usize, letter: &str, tensor: &Tensor| {
            let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
            arrays.insert(format!("{prefix}.{i}.{letter}"), Array::f32(&shape, numbers(tensor)));
        };
        for (i, ([m, v], master)) in self.moments.iter().zip(&self.masters).enumerate() {
            add(i, "m", m);
            add(i, "v", v);
            if let Some(master) = master {
                add(i, "master", master);
            }
        }
    }

    /// The state that [`Adam::to_arrays`] saved, for parameters of the same shapes and kinds as this one's.
    pub fn restored(&self, prefix: &str, arrays: Reader) -> Result<Adam, LearnError> {
        let [step] = arrays.words(&format!("{prefix}.step"))?;
        let read = |i: usize, letter: &str, like: &Tensor| -> Result<Tensor, LearnError> {
            let shape: Vec<usize> = like.size().iter().map(|&n| n as usize).collect();
            let data = arrays.f32(&format!("{prefix}.{i}.{letter}"), &shape)?;
            let mut read = like.zeros_like();
            read.copy_(&Tensor::from_slice(data).reshape(like.size()));
            Ok(read)
        };
        let moments = self.moments.iter().enumerate().map(|(i, [m, v])| Ok([read(i, "m", m)?, read(i, "v", v)?]));
        let master = |(i, master): (usize, &Option<Tensor>)| master.as_ref().map(|m| read(i, "master", m)).transpose();
        Ok(Adam {
            step,
            moments: moments.collect::<Result<_, LearnError>>()?,
            masters: self.masters.iter().enumerate().map(master).collect::<Result<_, LearnError>>()?,
            ..*self
        })
    }
}

/// The numbers of a contiguous f32 tensor on the CPU; `None` for any other.
fn slice(tensor: &mut Tensor) -> Option<&mut [f32]> {
    let plain = tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous();
    // SAFETY: a contiguous f32 tensor is `numel` floats in memory, which live as long as the tensor. The parameter, its
    // moments and its gradient are four tensors that share no memory, and nothing else reads them while they are
    // borrowed here.
    (plain && tensor.numel() > 0)
        .then(|| unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}

/// 1 − βᵗ, the divisors of the moments after `step` steps.
fn correction(step: u64) -> [f64; 2] {
    BETA.map(|beta| 1.0 - beta.powi(step.min(i32::MAX as u64) as i32))
}

/// [`Adam`] for a [`Network`](super::Network)'s vector, in one pass.
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

    /// One step of size `learning_rate` down the gradient times `scale`, which clipping determines.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], scale: f64, learning_rate: f64) {
        self.step += 1;
        let correction = correction(self.step);
        let [m, v] = &mut self.moments;
        let step = Step {
            scale: scale as f32,
            rate: (-learning_rate / correction[0]) as f32,
            inverse_root: (1.0 / correction[1].sqrt()) as f32,
            eps: self.eps as f32,
        };
        run(AdamPass { parameters, gradient, m, v, step });
    }

    /// Adds the arrays that [`Adam::to_arrays`] would add for one tensor of all parameters.
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

/// The coefficients of one gradient step.
#[derive(Clone, Copy)]
struct Step {
    /// The gradient is first multiplied by this.
    scale: f32,
    /// −η/(1 − β₁ᵗ).
    rate: f32,
    /// 1/√(1 − β₂ᵗ).
    inverse_root: f32,
    eps: f32,
}

/// How many numbers a thread processes at once, a multiple of [`PAD`].
const SHARE: usize = 1 << 16;

impl Step {
    /// Applies the step to slices of the same length, on all threads if they are long.
    fn apply(self, parameters: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
        let shares = parameters.par_chunks_mut(SHARE).zip(gradient.par_chunks(SHARE));
        let shares = shares.zip(m.par_chunks_mut(SHARE)).zip(v.par_chunks_mut(SHARE));
        shares.for_each(|(((parameters, gradient), m), v)| {
            let whole = parameters.len() / PAD * PAD;
            let (parameters, last) = parameters.split_at_mut(whole);
            let (gradient, last_gradient) = gradient.split_at(whole);
            let (m, last_m) = m.split_at_mut(whole);
            let (v, last_v) = v.split_at_mut(whole);
            run(AdamPass { parameters, gradient, m, v, step: self });
            // Numbers that do not fill a register are copied to a buffer where they do.
            let fill = |numbers: &[f32]| {
                let mut filled = [0.0; PAD];
                filled[..numbers.len()].copy_from_slice(numbers);
                filled
            };
            let [mut parameters, gradient, mut m, mut v] =
                [fill(last), fill(last_gradient), fill(last_m), fill(last_v)];
            run(AdamPass { parameters: &mut parameters, gradient: &gradient, m: &mut m, v: &mut v, step: self });
            for (last, filled) in [(last, parameters), (last_m, m), (last_v, v)] {
                last.copy_from_slice(&filled[..last.len()]);
            }
        });
    }
}

/// One pass over vectors whose length is a multiple of [`PAD`].
struct AdamPass<'a> {
    parameters: &'a mut [f32],
    gradient: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    step: Step,
}

impl Job for AdamPass<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        let AdamPass { parameters, gradient, m: all_m, v: all_v, step: Step { scale, rate, inverse_root, eps } } = self;
        let [take_m, keep_v, take_v] = [1.0 - BETA[0], BETA[1], 1.0 - BETA[1]].map(|x| L::splat(x as f32));
        let [scale, rate, inverse_root, eps] = [scale, rate, inverse_root, eps].map(L::splat);
        for at in (0..parameters.len()).step_by(L::LANES) {
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

/// Adds the second vector to the first; both lengths are a multiple of [`PAD`].
pub(super) fn add(sums: &mut [f32], numbers: &[f32]) {
    run(Sum { sums, numbers });
}

/// The job behind [`add`].
struct Sum<'a> {
    sums: &'a mut [f32],
    numbers: &'a [f32],
}

impl Job for Sum<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: F32Lanes>(self) {
        for at in (0..self.sums.len()).step_by(L::LANES) {
            store(load::<L>(self.sums, at) + load(self.numbers, at), self.sums, at);
        }
    }
}

/// The L2 norm of a vector whose length is a multiple of [`PAD`].
pub(super) fn norm(numbers: &[f32]) -> f64 {
    run(Norm(numbers))
}

/// The job behind [`norm`]. It uses four rows of [`PAD`] sums whatever the registers' width, so that all kinds of lanes
/// add in the same order.
struct Norm<'a>(&'a [f32]);

impl Job for Norm<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<L: F32Lanes>(self) -> f64 {
        let mut sums = [0.0_f32; 4 * PAD];
        for numbers in self.0.chunks(4 * PAD) {
            for at in (0..numbers.len()).step_by(L::LANES) {
                let x: L = load(numbers, at);
                store(x.mul_add(x, load(&sums, at)), &mut sums, at);
            }
        }
        sums.iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt()
    }
}

/// The numbers of a tensor on any device, row-major, as f32.
pub fn numbers(tensor: &Tensor) -> Vec<f32> {
    let count = tensor.numel();
    let mut numbers = vec![0.0; count];
    tensor.detach().to_kind(Kind::Float).contiguous().copy_data(&mut numbers, count);
    numbers
}

/// The L2 norm of all gradients together, computed in f32 or higher precision. Undefined gradients count as zero.
pub fn global_norm(gradients: &[Tensor]) -> f64 {
    tch::no_grad(|| {
        let square = |g: &Tensor| g.to_kind(Kind::Float).norm().double_value(&[]).powi(2);
        gradients.iter().filter(|g| g.defined()).map(square).sum::<f64>().sqrt()
    })
}

/// The L2 norm of all gradients together. If it exceeds `max` (and `max` is above 0), the gradients are scaled down to
/// it, in place. If the norm is not finite, it is returned and the gradients stay unchanged.
pub fn clip_by_global_norm(gradients: &mut [Tensor], max: f64) -> f64 {
    let norm = global_norm(gradients);
    if max > 0.0 && norm > max && norm.is_finite() {
        tch::no_grad(|| gradients.iter_mut().for_each(|gradient| drop(gradient.g_mul_scalar_(max / norm))));
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::super::Network;
    use super::*;
    use flipside_core::Seed;
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
        // The padding is still 0.
        assert_eq!(layout.filled(&layout.flat(&plain)), plain);
    }

    /// θ of one number after steps down these gradients, by the published formulas in f64.
    fn by_hand(mut x: f64, gradients: &[f64], eps: f64, tensorflow: bool) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (t, g) in (1..).zip(gradients) {
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let [first, second] = [1.0 - 0.9_f64.powi(t), 1.0 - 0.999_f64.powi(t)];
            x -= match tensorflow {
                true => 0.1 * second.sqrt() / first * m / (f64::sqrt(v) + eps),
                false => 0.1 * (m / first) / ((v / second).sqrt() + eps),
            };
        }
        x
    }

    #[test]
    fn either_placement_of_eps_is_the_published_one_at_any_length() {
        // Gradients of the size of ε distinguish the placements. The lengths leave registers and threads' shares partly
        // filled.
        for length in [1, 15, 16, 33, (SHARE + 17)] {
            let mut stream = Seed(7).stream("eps");
            let rows: Vec<Vec<f32>> =
                (0..4).map(|_| (0..length).map(|_| stream.random_range(1e-5..3e-5)).collect()).collect();
            for tensorflow in [false, true] {
                let mut x = Tensor::ones([length as i64], (Kind::Float, Device::Cpu));
                let mut adam = Adam::new(&[&x], 1e-5);
                if tensorflow {
                    adam = adam.with_tensorflow_eps();
                }
                rows.iter().for_each(|row| adam.step(&mut [&mut x], &[Tensor::from_slice(row)], 0.1));
                for (i, got) in
                    numbers(&x).into_iter().enumerate().step_by(61).chain([(length - 1, numbers(&x)[length - 1])])
                {
                    let gradients: Vec<f64> = rows.iter().map(|row| f64::from(row[i])).collect();
                    let expected = by_hand(1.0, &gradients, 1e-5, tensorflow);
                    assert!((f64::from(got) - expected).abs() < 1e-6, "{length} {tensorflow} {i}: {got} {expected}");
                    assert!((expected - by_hand(1.0, &gradients, 1e-5, !tensorflow)).abs() > 1e-5);
                }
            }
        }
    }

    #[test]
    fn small_steps_of_bf16_numbers_are_not_lost() {
        let mut weight = Tensor::ones([40], (Kind::BFloat16, Device::Cpu));
        let mut single = Tensor::ones([40], (Kind::Float, Device::Cpu));
        let mut adam = Adam::new(&[&weight], 1e-8);
        let mut reference = Adam::new(&[&single], 1e-8);
        for _ in 0..20 {
            // Each step changes a number by about 1e-4; the neighbours of 1 in bf16 are .004 and .008 away.
            adam.step(&mut [&mut weight], &[Tensor::ones([40], (Kind::BFloat16, Device::Cpu))], 1e-4);
            reference.step(&mut [&mut single], &[Tensor::ones([40], (Kind::Float, Device::Cpu))], 1e-4);
        }
        let master = adam.masters()[0].as_ref().unwrap();
        assert_eq!(numbers(master), numbers(&single));
        assert!((numbers(&single)[0] - 0.998).abs() < 1e-5);
        assert_eq!(numbers(&weight), numbers(&single.to_kind(Kind::BFloat16)));
        let mut arrays = Arrays::new();
        adam.to_arrays("adam", &mut arrays);
        let restored = Adam::new(&[&weight], 1e-8).restored("adam", Reader(&arrays)).unwrap();
        assert_eq!(numbers(restored.masters()[0].as_ref().unwrap()), numbers(&single));
        assert!(Adam::new(&[&single], 1e-8).masters()[0].is_none());
    }

    #[test]
    fn each_parameter_has_its_own_rate_and_one_without_gradient_stays() {
        let mut parameters = [1.0_f32, 1.0, 1.0].map(|x| Tensor::from_slice(&[x]));
        let [a, b, c] = &mut parameters;
        let mut adam = Adam::new(&[a, b, c], 1e-8);
        let gradients = [Tensor::from_slice(&[2.0_f32]), Tensor::from_slice(&[2.0_f32]), Tensor::new()];
        assert_eq!(global_norm(&gradients), 8.0_f64.sqrt());
        adam.step_each(&mut [a, b, c], &gradients, 0.5, |i| [0.1, 0.0, 0.1][i]);
        let [a, b, c] = parameters.map(|p| numbers(&p)[0]);
        assert!((a - 0.9).abs() < 1e-6 && b == 1.0 && c == 1.0, "{a} {b} {c}");
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
