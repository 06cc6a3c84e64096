//! The diagonal Gaussian of a policy: means `[B, A]`, log standard deviations `[A]`. All in nats.
//!
//! There are tensor versions for automatic differentiation, and [`Spread`] in plain numbers for acting and for the
//! derivatives of `loss.rs`.

use std::f64::consts::{E, PI};
use tch::Tensor;

/// Log-density of `actions`, `[B, A]` → `[B]`: Σ −½ z² − log σ − ½ log 2π with z = (a − μ)/σ.
pub fn log_prob(mean: &Tensor, log_std: &Tensor, actions: &Tensor) -> Tensor {
    let z = (actions - mean) * (-log_std).exp();
    let action_dims = log_std.size().iter().product::<i64>() as f64;
    let constant: Tensor = log_std.sum(log_std.kind()) + 0.5 * (2.0 * PI).ln() * action_dims;
    z.square().sum_dim_intlist(-1, false, mean.kind()) * -0.5 - constant
}

/// Entropy, a scalar: Σ log σ + ½ log 2πe. It depends on the state only through σ, and here σ does not depend on the
/// state.
pub fn entropy(log_std: &Tensor) -> Tensor {
    let action_dims = log_std.size().iter().product::<i64>() as f64;
    log_std.sum(log_std.kind()) + 0.5 * (2.0 * PI * E).ln() * action_dims
}

/// KL(p ‖ q) of each row, `[B]`: Σ log(σ_q/σ_p) + (σ_p² + (μ_p − μ_q)²)/(2σ_q²) − ½.
pub fn kl(p: (&Tensor, &Tensor), q: (&Tensor, &Tensor)) -> Tensor {
    let ((mean_p, log_std_p), (mean_q, log_std_q)) = (p, q);
    let spread = (log_std_p * 2.0).exp() + (mean_p - mean_q).square();
    let each: Tensor = log_std_q - log_std_p + spread * (log_std_q * -2.0).exp() * 0.5 - 0.5;
    each.sum_dim_intlist(-1, false, mean_p.kind())
}

/// The current log standard deviations in the forms that sampling and densities need, all `[A]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spread {
    std: Vec<f32>,
    inverse: Vec<f32>,
    /// Σ log σ + ½ log 2π.
    constant: f32,
}

impl Spread {
    /// For these log σ.
    pub fn new(log_std: &[f32]) -> Spread {
        let mut spread = Spread::default();
        spread.set(log_std);
        spread
    }

    /// Replaces log σ.
    pub fn set(&mut self, log_std: &[f32]) {
        self.std.clear();
        self.std.extend(log_std.iter().map(|l| l.exp()));
        self.inverse.clear();
        self.inverse.extend(log_std.iter().map(|l| (-l).exp()));
        self.constant = log_std.iter().map(|l| l + 0.5 * std::f32::consts::TAU.ln()).sum();
    }

    /// σ.
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// 1/σ.
    pub fn inverse(&self) -> &[f32] {
        &self.inverse
    }

    /// Σ log σ + ½ log 2π.
    pub fn constant(&self) -> f32 {
        self.constant
    }

    /// Entropy: Σ log σ + ½ log 2πe.
    pub fn entropy(&self) -> f64 {
        f64::from(self.constant) + 0.5 * self.std.len() as f64
    }

    /// Log-density of one action; writes z = (a − μ)/σ into `z`. All `[A]`.
    #[inline(always)]
    pub fn log_prob(&self, action: &[f32], mean: &[f32], z: &mut [f32]) -> f32 {
        let mut squares = 0.0;
        for (((z, a), mean), inverse) in z.iter_mut().zip(action).zip(mean).zip(&self.inverse) {
            *z = (a - mean) * inverse;
            squares += *z * *z;
        }
        -0.5 * squares - self.constant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    const MEAN: [f64; 2] = [0.3, -1.2];
    const LOG_STD: [f64; 2] = [-0.7, 0.4];
    const OTHER: ([f64; 2], [f64; 2]) = ([0.1, -0.8], [-0.2, 0.1]);

    fn row(numbers: [f64; 2]) -> Tensor {
        Tensor::from_slice(&numbers).view([1, 2])
    }

    fn density(x: f64, mean: f64, std: f64) -> f64 {
        (-0.5 * ((x - mean) / std).powi(2)).exp() / (std * (2.0 * PI).sqrt())
    }

    /// ∫ f(x) p(x) dx for the Gaussian of one dimension, by Simpson's rule over ±10 σ.
    fn expectation(mean: f64, std: f64, f: impl Fn(f64) -> f64) -> f64 {
        let (n, low, step) = (2000, mean - 10.0 * std, std * 0.01);
        let weight = |i: usize| if i == 0 || i == n { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
        let at = |i: usize| low + step * i as f64;
        (0..=n).map(|i| weight(i) * f(at(i)) * density(at(i), mean, std)).sum::<f64>() * step / 3.0
    }

    #[test]
    fn log_density_is_the_log_of_the_density() {
        let actions = [0.9, -2.0];
        let ours = log_prob(&row(MEAN), &Tensor::from_slice(&LOG_STD), &row(actions)).double_value(&[0]);
        let expected: f64 = (0..2).map(|i| density(actions[i], MEAN[i], LOG_STD[i].exp()).ln()).sum();
        assert!((ours - expected).abs() < 1e-12, "{ours} {expected}");
        let [log_std, mean, actions] = [LOG_STD, MEAN, actions].map(|numbers| numbers.map(|x| x as f32));
        let (spread, mut z) = (Spread::new(&log_std), [0.0; 2]);
        let ours = spread.log_prob(&actions, &mean, &mut z);
        assert!((f64::from(ours) - expected).abs() < 1e-6, "{ours} {expected}");
        assert!((z[1] * spread.std()[1] + mean[1] - actions[1]).abs() < 1e-6, "{z:?}");
    }

    #[test]
    fn entropy_and_kl_are_their_integrals() {
        let (mean_q, log_std_q) = OTHER;
        let log = |x: f64, mean: f64, log_std: f64| density(x, mean, log_std.exp()).ln();
        let each = |f: &dyn Fn(usize, f64) -> f64| -> f64 {
            (0..2).map(|i| expectation(MEAN[i], LOG_STD[i].exp(), |x| f(i, x))).sum()
        };
        let h = each(&|i, x| -log(x, MEAN[i], LOG_STD[i]));
        let d = each(&|i, x| log(x, MEAN[i], LOG_STD[i]) - log(x, mean_q[i], log_std_q[i]));
        let (log_std, log_std_q) = (Tensor::from_slice(&LOG_STD), Tensor::from_slice(&log_std_q));
        assert!((entropy(&log_std).double_value(&[]) - h).abs() < 1e-9);
        assert!((Spread::new(&LOG_STD.map(|l| l as f32)).entropy() - h).abs() < 1e-6);
        let ours = kl((&row(MEAN), &log_std), (&row(mean_q), &log_std_q));
        assert_eq!((ours.size(), ours.kind()), (vec![1], Kind::Double));
        assert!((ours.double_value(&[0]) - d).abs() < 1e-9, "{ours} {d}");
    }
}
