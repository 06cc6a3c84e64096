//! Adam (Kingma and Ba 2015) over plain tensors, with a state that can be saved and restored bit for bit.

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
        let correction = BETA.map(|beta| 1.0 - beta.powi(self.step.min(i32::MAX as u64) as i32));
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
    use super::*;
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
