//! Laplace's approximation of the posterior (Rasmussen and Williams 2006, section 3.4).

use super::{Observations, doubles};
use crate::PreferenceError;
use flipside_core::Seed;
use flipside_learn::LearnError;
use rand_distr::{Distribution, StandardNormal};
use tch::{Kind, Tensor};

/// At most this many Newton steps to the mode.
const MAX_NEWTON_STEPS: usize = 60;
/// The mode is reached when a step gains less than this, nats.
const TOLERANCE: f64 = 1e-6;
/// Added to the diagonal of the judgements' covariance, so that it has an inverse where one pair was asked twice.
const JITTER: f64 = 1e-6;

/// The mode of the posterior of the differences, and the normal distribution around it; `[n]` each, f64.
pub(super) struct Mode {
    /// The differences f at the mode.
    pub value: Tensor,
    /// The gradient of the log-likelihood there, α = K⁻¹ f.
    pub slope: Tensor,
    /// The expected negative second derivative of the log-likelihood, W (Fisher information). Unlike the observed one
    /// it is never negative, whatever the label-noise rate.
    pub curvature: Tensor,
    /// Lower Cholesky factor of I + √W K √W, `[n, n]`.
    pub factor: Tensor,
}

impl Mode {
    /// Newton's method in α, from α = 0 or from the mode `from`. Each step is halved until it gains.
    pub fn find(
        covariance: &Tensor,
        observations: &Observations,
        from: Option<&Mode>,
    ) -> Result<Mode, PreferenceError> {
        let n = covariance.size()[0];
        let identity = Tensor::eye(n, (Kind::Double, tch::Device::Cpu));
        let covariance = covariance + &identity * JITTER;
        let mut slope = match from {
            Some(mode) => mode.slope.shallow_clone(),
            None => Tensor::zeros([n], (Kind::Double, tch::Device::Cpu)),
        };
        let mut value = covariance.mv(&slope);
        let mut here = Likelihood::at(&value, observations);
        let mut reached = here.sum - half_product(&slope, &value);
        let factor = |curvature: &Tensor| {
            let root = curvature.sqrt();
            (&identity + root.unsqueeze(1) * &covariance * root.unsqueeze(0)).f_linalg_cholesky(false)
        };
        let lost = |_| PreferenceError::Learn(LearnError::NotFinite { what: "the judgements' covariance".to_owned() });
        for _ in 0..MAX_NEWTON_STEPS {
            let root = here.curvature.sqrt();
            let factor = factor(&here.curvature).map_err(lost)?;
            let right = &here.curvature * &value + &here.slope;
            let inner = (&root * covariance.mv(&right)).unsqueeze(1).cholesky_solve(&factor, false).squeeze_dim(1);
            let step = right - root * inner - &slope;
            let (mut length, before) = (1.0, reached);
            while length > 1e-4 {
                let tried = &slope + &step * length;
                let at = covariance.mv(&tried);
                let there = Likelihood::at(&at, observations);
                let gained = there.sum - half_product(&tried, &at);
                if gained >= reached {
                    (slope, value, here, reached) = (tried, at, there, gained);
                    break;
                }
                length *= 0.5;
            }
            if !reached.is_finite() {
                return Err(LearnError::NotFinite { what: "the judgements' likelihood".to_owned() }.into());
            }
            if reached - before < TOLERANCE {
                break;
            }
        }
        let factor = factor(&here.curvature).map_err(lost)?;
        Ok(Mode { value, slope: here.slope, curvature: here.curvature, factor })
    }

    /// ln of the marginal likelihood of the observations (their equation 3.32).
    pub fn evidence(&self, observations: &Observations) -> f64 {
        let half = doubles(&self.factor.diagonal(0, 0, 1)).iter().map(|x| x.ln()).sum::<f64>();
        Likelihood::at(&self.value, observations).sum - half_product(&self.slope, &self.value) - half
    }

    /// (K + W⁻¹)⁻¹ = √W (I + √W K √W)⁻¹ √W, `[n, n]`.
    pub fn inverse(&self) -> Tensor {
        let root = self.curvature.sqrt();
        let inner = Tensor::diag_embed(&root, 0, 0, 1).cholesky_solve(&self.factor, false);
        root.unsqueeze(1) * inner
    }
}

/// The posterior of w in r(x) = w · φ(x), where the prior variances are those of w's numbers, f64.
pub(super) struct Conditioned {
    /// Σ φ(left) − Σ φ(right) of each pair, `[n, features]`.
    differences: Tensor,
    /// The same times the prior variances.
    scaled: Tensor,
    /// `[features]`.
    variances: Tensor,
    pub mode: Mode,
}

impl Conditioned {
    /// Conditions w on these observations of differences, `[n, features]`. `variances` is `[features]`.
    pub fn on(
        differences: &Tensor,
        variances: &Tensor,
        observations: &Observations,
    ) -> Result<Conditioned, PreferenceError> {
        let scaled = differences * variances;
        let mode = Mode::find(&scaled.matmul(&differences.tr()), observations, None)?;
        Ok(Conditioned { differences: differences.shallow_clone(), scaled, variances: variances.shallow_clone(), mode })
    }

    /// The mean of w, `[features]`: A Dᵀ α, where A is the diagonal matrix of prior variances.
    pub fn mean(&self) -> Tensor {
        self.scaled.tr().matmul(&self.mode.slope)
    }

    /// Draws of w minus its mean, `[features, members]`: half of the members, then their mirror images.
    ///
    /// By Matheron's rule: a draw from the prior, corrected by what it predicts of the judgements. The same seed gives
    /// the same normal numbers for every posterior, so that the draws change no more than the posterior does.
    pub fn deviations(&self, members: usize, seed: Seed) -> Tensor {
        let [n, features] = [self.differences.size()[0] as usize, self.differences.size()[1] as usize];
        let halves = members / 2;
        let normal = |name: &str, rows: usize| {
            let mut stream = seed.stream(name);
            let numbers: Vec<f64> = (0..rows * halves).map(|_| StandardNormal.sample(&mut stream)).collect();
            Tensor::from_slice(&numbers).view([rows as i64, halves as i64])
        };
        let prior = normal("prior", features) * self.variances.sqrt().unsqueeze(1);
        let root = self.mode.curvature.sqrt().unsqueeze(1);
        let apart = &root * self.differences.matmul(&prior) + normal("likelihood", n);
        let half = prior - self.scaled.tr().matmul(&(&root * apart.cholesky_solve(&self.mode.factor, false)));
        Tensor::cat(&[half.shallow_clone(), -half], 1)
    }

    /// Each difference of returns as predicted by all other judgements (leave-one-out), `[n]`: equation 5.12, with the
    /// normal likelihoods that approximate the true ones at the mode.
    pub fn loo_predictions(&self) -> Vec<f64> {
        let inverse = self.mode.inverse().diagonal(0, 0, 1);
        doubles(&(&self.mode.value - &self.mode.slope * (inverse.reciprocal() - &self.mode.curvature.reciprocal())))
    }
}

/// The log-likelihood of the observations at given differences, with its derivatives, `[n]`.
struct Likelihood {
    sum: f64,
    slope: Tensor,
    curvature: Tensor,
}

impl Likelihood {
    fn at(differences: &Tensor, observations: &Observations) -> Likelihood {
        let ahead = differences - observations.margins;
        let loss = flipside_learn::preference_loss(&ahead, observations.targets, observations.error_rate);
        let loss = loss.sum(Kind::Double);
        let left = flipside_learn::preference_probability(&ahead, observations.error_rate);
        let turn: Tensor = ahead.sigmoid() * ahead.neg().sigmoid() * (1.0 - observations.error_rate);
        // d/df of t ln P + (1 − t) ln (1 − P) is (t − P) P′ / (P (1 − P)). The expectation of its square over answers
        // is P′² / (P (1 − P)).
        let spread: Tensor = &left - left.square();
        let share = &turn / spread.clamp_min(1e-12);
        Likelihood {
            sum: -f64::try_from(loss).unwrap_or(f64::NAN),
            slope: (observations.targets - &left) * &share,
            curvature: (turn * share).clamp_min(1e-8),
        }
    }
}

/// ½ aᵀb.
fn half_product(a: &Tensor, b: &Tensor) -> f64 {
    0.5 * f64::try_from(a.dot(b)).unwrap_or(f64::NAN)
}
