//! Keeps a policy near a reference: estimators of the KL divergence from samples, and the controller of its price β.

use super::{LearnError, Reader};
use flipside_core::settings::{KlEstimator, KlSettings};
use flipside_core::{Array, Arrays};
use tch::Tensor;

/// The estimate of KL(policy ‖ reference), nats, from log π(a) − log π_ref(a) of one action sampled from the policy
/// (Schulman, "Approximating KL divergence", 2020).
pub fn kl_estimate(estimator: KlEstimator, log_ratio: f64) -> f64 {
    match estimator {
        KlEstimator::K1 => log_ratio,
        KlEstimator::K2 => 0.5 * log_ratio * log_ratio,
        KlEstimator::K3 => (-log_ratio).exp_m1() + log_ratio,
    }
}

/// [`kl_estimate`] of each element as a tensor, to be differentiated: a KL penalty in the loss. The expected gradient,
/// for actions of the policy itself, is 0 with k1, that of KL(policy ‖ reference) with k2, and that of KL(reference ‖
/// policy) with k3.
pub fn kl_loss(estimator: KlEstimator, log_ratio: &Tensor) -> Tensor {
    match estimator {
        KlEstimator::K1 => log_ratio.shallow_clone(),
        KlEstimator::K2 => log_ratio.square() * 0.5,
        KlEstimator::K3 => log_ratio.neg().expm1() + log_ratio,
    }
}

/// The estimate E[(r − 1) − log r] of KL(old ‖ new) in nats, from log-ratios (new over old) of samples of the old
/// policy. It is unbiased and never negative: [`KlEstimator::K3`].
pub fn approx_kl(log_ratios: &[f32]) -> f64 {
    let sum: f64 = log_ratios.iter().map(|&l| kl_estimate(KlEstimator::K3, -f64::from(l))).sum();
    sum / log_ratios.len().max(1) as f64
}

/// The error is clipped to ± this.
const HOLD: f64 = 0.2;

/// β, the price of a nat. It is fixed or adapted to a target by β ← β (1 + clip(KL/target − 1, ±0.2) ·
/// episodes/horizon) (Ziegler et al. 2019, section 2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct KlController {
    settings: KlSettings,
    beta: f64,
}

impl KlController {
    /// A controller with the initial β of the settings.
    pub fn new(settings: &KlSettings) -> KlController {
        KlController { beta: settings.beta, settings: settings.clone() }
    }

    /// The current price of a nat.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// Updates β from the mean KL of a completion, nats, over this many episodes. A KL that is not finite changes
    /// nothing.
    pub fn observe(&mut self, kl: f64, episodes: usize) {
        let KlSettings { adaptive, target, horizon, .. } = self.settings;
        if adaptive && kl.is_finite() {
            let error = (kl / target - 1.0).clamp(-HOLD, HOLD);
            self.beta *= 1.0 + error * episodes as f64 / horizon;
        }
    }

    /// Adds β under this name (f64).
    pub fn to_arrays(&self, name: &str, arrays: &mut Arrays) {
        arrays.insert(name.to_owned(), Array::f64(&[1], vec![self.beta]));
    }

    /// The controller with the β that [`KlController::to_arrays`] saved.
    pub fn restored(&self, name: &str, arrays: Reader) -> Result<KlController, LearnError> {
        Ok(KlController { beta: arrays.f64(name, &[1])?[0], settings: self.settings.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use rand::RngExt;
    use tch::Kind;

    #[test]
    fn the_estimators_agree_with_the_divergence_of_two_known_distributions() {
        let (p, q) = ([0.5_f64, 0.3, 0.15, 0.05], [0.4_f64, 0.35, 0.15, 0.1]);
        let exact: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
        // Expectations over the policy, summed rather than sampled.
        let mean = |estimator: KlEstimator| -> f64 {
            p.iter().zip(q).map(|(p, q)| p * kl_estimate(estimator, (p / q).ln())).sum()
        };
        assert!((mean(KlEstimator::K1) - exact).abs() < 1e-15);
        assert!((mean(KlEstimator::K3) - exact).abs() < 1e-15);
        let k2: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln().powi(2) / 2.0).sum();
        assert!((mean(KlEstimator::K2) - k2).abs() < 1e-15 && (k2 / exact - 1.0).abs() < 0.1, "{k2} {exact}");
        let mut stream = Seed(1).stream("kl");
        for _ in 0..1000 {
            let log_ratio = stream.random_range(-5.0..5.0);
            assert!(kl_estimate(KlEstimator::K2, log_ratio) >= 0.0 && kl_estimate(KlEstimator::K3, log_ratio) >= 0.0);
        }
    }

    /// Expected gradients with respect to the logits of the policy, over all actions.
    #[test]
    fn in_a_loss_k1_pulls_nowhere_k2_to_the_reference_and_k3_from_it() {
        let logits = Tensor::from_slice(&[0.3_f64, -0.4, 1.1, 0.0]).set_requires_grad(true);
        let reference = Tensor::from_slice(&[0.5_f64, 0.1, -0.7, 0.9]).log_softmax(-1, Kind::Double);
        let policy = || logits.log_softmax(-1, Kind::Double);
        let gradient = |loss: Tensor| Vec::<f64>::try_from(&Tensor::run_backward(&[loss], &[&logits], true, false)[0]);
        let sampled = |estimator| {
            let loss = policy().exp().detach() * kl_loss(estimator, &(policy() - &reference));
            gradient(loss.sum(Kind::Double)).unwrap()
        };
        let forward = gradient((policy().exp() * (policy() - &reference)).sum(Kind::Double)).unwrap();
        let reverse = gradient((reference.exp() * (&reference - policy())).sum(Kind::Double)).unwrap();
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&sampled(KlEstimator::K1), &[0.0; 4]));
        assert!(close(&sampled(KlEstimator::K2), &forward));
        assert!(close(&sampled(KlEstimator::K3), &reverse) && !close(&forward, &reverse));
        // In the reward, each estimate weighs the score of its action: k1 has the gradient of KL(policy ‖ reference),
        // k3 the difference of the two.
        let weighed = |estimator| {
            let estimates: Vec<f64> = Vec::try_from(policy() - &reference).unwrap();
            let estimates: Vec<f64> = estimates.into_iter().map(|x| kl_estimate(estimator, x)).collect();
            gradient((policy().exp() * Tensor::from_slice(&estimates)).sum(Kind::Double)).unwrap()
        };
        let difference: Vec<f64> = forward.iter().zip(&reverse).map(|(f, r)| f - r).collect();
        assert!(close(&weighed(KlEstimator::K1), &forward) && close(&weighed(KlEstimator::K3), &difference));
        for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
            let x = [-2.0_f64, -0.1, 0.0, 0.7, 3.0];
            let tensor: Vec<f64> = Vec::try_from(kl_loss(estimator, &Tensor::from_slice(&x))).unwrap();
            assert!(close(&tensor, &x.map(|x| kl_estimate(estimator, x))), "{estimator:?}");
        }
    }

    #[test]
    fn beta_follows_the_published_rule() {
        let mut controller = KlController::new(&KlSettings::default());
        // Twice the target: the error is clipped to .2; 64 of 10,000 episodes.
        controller.observe(12.0, 64);
        let first = 0.15 * (1.0 + 0.2 * 64.0 / 10_000.0);
        assert!((controller.beta() - first).abs() < 1e-15);
        // 10 % below the target.
        controller.observe(5.4, 500);
        let second = first * (1.0 - 0.1 * 0.05);
        assert!((controller.beta() - second).abs() < 1e-15);
        controller.observe(f64::NAN, 500);
        assert!((controller.beta() - second).abs() < 1e-15);
        let mut fixed = KlController::new(&KlSettings { adaptive: false, ..KlSettings::default() });
        fixed.observe(12.0, 64);
        assert_eq!(fixed.beta(), 0.15);
        let mut arrays = Arrays::new();
        controller.to_arrays("beta", &mut arrays);
        assert_eq!(KlController::new(&KlSettings::default()).restored("beta", Reader(&arrays)).unwrap(), controller);
    }

    #[test]
    fn the_controller_brings_a_plant_to_its_target() {
        // A policy whose KL slowly approaches 1/β, its response to the price β.
        let settings = KlSettings { target: 4.0, horizon: 1000.0, ..KlSettings::default() };
        let (mut controller, mut kl) = (KlController::new(&settings), 0.0);
        for _ in 0..1000 {
            kl += 0.1 * (1.0 / controller.beta() - kl);
            controller.observe(kl, 64);
        }
        assert!((kl / 4.0 - 1.0).abs() < 0.05, "{kl}");
    }
}
