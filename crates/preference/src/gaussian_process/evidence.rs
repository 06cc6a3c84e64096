//! Evidence maximisation: relevances, variances and the label-noise rate are chosen by the marginal likelihood of the
//! answers, with w integrated out (Rasmussen and Williams 2006, chapter 5).

use super::features::{SQUARE, WIDTHS};
use super::laplace::Mode;
use super::{GaussianProcess, Observations, Pairs, doubles};
use crate::PreferenceError;
use flipside_learn::LearnError;
use tch::{Kind, Tensor};

/// Initial relevance of an input where there are at most [`DOZEN`]. With more inputs each one starts lower, or no two
/// rows would be similar.
const INITIAL_RELEVANCE: f64 = 0.5;
const DOZEN: f64 = 12.0;
/// Bounds of ln relevance.
pub(super) const LOG_RELEVANCE_BOUNDS: [f64; 2] = [-5.0, 2.0];
/// Initial ln variance of a group of features, and its bounds.
const INITIAL_LOG_VARIANCE: f64 = 1.1;
const LOG_VARIANCE_BOUNDS: [f64; 2] = [-6.0, 9.0];
/// Steps of evidence maximisation in the first fit, and in later fits, which start where the last one ended.
pub(super) const EVIDENCE_STEPS: [usize; 2] = [40, 8];
/// Evidence maximisation restarts whenever there are this many times as many judgements as at the last restart.
pub(super) const RESTART_GROWTH: f64 = 1.5;
/// Step size of the evidence maximisation, and the decay rates of its averages of the gradient and of its square (β₁
/// and β₂ of Adam).
const STEP_SIZE: f64 = 0.15;
const BETAS: [f64; 2] = [0.8, 0.95];
/// Evidence maximisation uses at most this many judgements, the most recent ones: few are enough to see relevance.
const MAX_RECENT: usize = 300;
/// The single-input initialisation: ln relevance of that input, and of all others.
pub(super) const SINGLE_INPUT_LOG_RELEVANCE: f64 = 0.0;
pub(super) const OTHER_LOG_RELEVANCE: f64 = -3.0;
/// Noise steps that restarts from the single-input initialisation begin with.
const SINGLE_INPUT_NOISE_STEPS: [i32; 2] = [0, 2];

/// The label-noise rate is searched on a grid around its prior value: each noise step multiplies it by this factor, at
/// most this many steps up or down.
const NOISE_FACTOR: f64 = 2.0;
const MAX_NOISE_STEPS: i32 = 3;
/// Upper bound of the label-noise rate. Nothing can be learnt from answers that are all random.
const MAX_NOISE_RATE: f64 = 0.8;

impl GaussianProcess {
    /// Moves the label-noise rate by at most one step towards the value that makes these answers most likely.
    ///
    /// The prior of its logarithm is normal around ln of the prior rate, with a standard deviation of 1. One step per
    /// fit is enough, since there are many fits.
    pub(super) fn fit_noise_rate(
        &mut self,
        covariance: &Tensor,
        observations: &Observations,
    ) -> Result<(), PreferenceError> {
        let mut best = f64::NEG_INFINITY;
        let range = -MAX_NOISE_STEPS..=MAX_NOISE_STEPS;
        let steps = [self.noise_steps, self.noise_steps - 1, self.noise_steps + 1];
        for noise_steps in steps.into_iter().filter(|steps| range.contains(steps)) {
            let evidence = self.log_evidence(covariance, observations, noise_steps)?;
            if evidence > best {
                (best, self.noise_steps) = (evidence, noise_steps);
            }
        }
        Ok(())
    }

    /// ln of the marginal likelihood of the observations, plus the log prior of so many noise steps.
    fn log_evidence(
        &self,
        covariance: &Tensor,
        observations: &Observations,
        noise_steps: i32,
    ) -> Result<f64, PreferenceError> {
        let error_rate = noise_rate(observations.error_rate, noise_steps);
        let observations = Observations { error_rate, ..*observations };
        let prior = -0.5 * (f64::from(noise_steps) * NOISE_FACTOR.ln()).powi(2);
        Ok(Mode::find(covariance, &observations, None)?.evidence(&observations) + prior)
    }

    /// Maximises the evidence from each initialisation and keeps the best optimum, the present one included. Returns
    /// the steps taken.
    pub(super) fn restart(
        &mut self,
        pairs: &Pairs,
        observations: &Observations,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<usize, PreferenceError> {
        let evidence = |process: &GaussianProcess| {
            let (relevance, variances) = process.relevance_and_variances(&Tensor::from_slice(&process.scales));
            let differences = process.differences(pairs, &relevance);
            let covariance = (&differences * variances).matmul(&differences.tr());
            process.log_evidence(&covariance, observations, process.noise_steps)
        };
        let mut initialisations = vec![(initialisation(self.inputs), self.noise_steps)];
        let single = self.single_input_initialisation(pairs, observations, cancel)?;
        let noise_steps = match observations.learns_errors {
            true => &SINGLE_INPUT_NOISE_STEPS[..],
            false => &SINGLE_INPUT_NOISE_STEPS[..1],
        };
        initialisations.extend(noise_steps.iter().map(|noise_steps| (single.clone(), *noise_steps)));
        let mut best = (evidence(self)?, self.scales.clone(), self.noise_steps);
        let mut evidence_steps = 0;
        for (scales, noise_steps) in initialisations {
            (self.scales, self.noise_steps) = (scales, noise_steps);
            let believed = Observations { error_rate: self.error_rate(observations.error_rate), ..*observations };
            evidence_steps += self.maximize_evidence(pairs, &believed, EVIDENCE_STEPS[0], cancel)?;
            let reached = evidence(self)?;
            if reached > best.0 {
                best = (reached, self.scales.clone(), self.noise_steps);
            }
        }
        (_, self.scales, self.noise_steps) = best;
        Ok(evidence_steps)
    }

    /// Initial [`GaussianProcess::scales`] in which one input is relevant and the others hardly are: the input that,
    /// together with its square, explains the recent answers best on its own.
    pub(super) fn single_input_initialisation(
        &self,
        pairs: &Pairs,
        observations: &Observations,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<f64>, PreferenceError> {
        let recent = RecentObservations::of(pairs, observations);
        let (pairs, observations) = (&recent.pairs(), &recent.observations());
        let lines = pairs.contrast(pairs.rows);
        let squares = pairs.contrast(&(pairs.rows.square() * SQUARE));
        let mut best = (f64::NEG_INFINITY, 0);
        for input in 0..self.inputs {
            if cancel() {
                return Err(LearnError::Cancelled.into());
            }
            let features = [&lines, &squares].map(|features| features.narrow(1, input as i64, 1));
            let covariance = Tensor::cat(&features, 1);
            let covariance = covariance.matmul(&covariance.tr()) * INITIAL_LOG_VARIANCE.exp();
            let evidence = Mode::find(&covariance, observations, None)?.evidence(observations);
            if evidence > best.0 {
                best = (evidence, input);
            }
        }
        let mut scales = initialisation(self.inputs);
        scales[..self.inputs].fill(OTHER_LOG_RELEVANCE);
        scales[best.1] = SINGLE_INPUT_LOG_RELEVANCE;
        Ok(scales)
    }

    /// Gradient ascent on the evidence of the recent judgements, in ln relevance and ln variance, with Adam's step
    /// lengths. Returns the steps taken.
    ///
    /// The gradient holds the mode fixed: for covariance K, slope α and M = K + W⁻¹ it is that of ½ αᵀKα − ½ tr(M⁻¹K),
    /// the explicit part of equation 5.22. The other part is small and needs third derivatives.
    pub(super) fn maximize_evidence(
        &mut self,
        pairs: &Pairs,
        observations: &Observations,
        steps: usize,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<usize, PreferenceError> {
        let recent = RecentObservations::of(pairs, observations);
        let (pairs, observations) = (&recent.pairs(), &recent.observations());
        let (mut moments, mut last) = (vec![[0.0_f64; 2]; self.scales.len()], None);
        for step in 1..=steps {
            if cancel() {
                return Err(LearnError::Cancelled.into());
            }
            let scales = Tensor::from_slice(&self.scales).set_requires_grad(true);
            let (relevance, variances) = self.relevance_and_variances(&scales);
            let differences = self.differences(pairs, &relevance);
            let covariance = (&differences * variances).matmul(&differences.tr());
            let mode = Mode::find(&covariance.detach(), observations, last.as_ref())?;
            let pull = mode.slope.outer(&mode.slope) - mode.inverse();
            let gain = (covariance * pull).sum(Kind::Double) * 0.5;
            let gradient = doubles(&Tensor::run_backward(&[gain], &[&scales], false, false)[0]);
            for (at, (scale, moments)) in self.scales.iter_mut().zip(&mut moments).enumerate() {
                let powers = [gradient[at], gradient[at] * gradient[at]];
                let [mean, square] = std::array::from_fn(|k| {
                    moments[k] = BETAS[k] * moments[k] + (1.0 - BETAS[k]) * powers[k];
                    moments[k] / (1.0 - BETAS[k].powi(step as i32))
                });
                let [low, high] = if at < self.inputs { LOG_RELEVANCE_BOUNDS } else { LOG_VARIANCE_BOUNDS };
                // 1e-3 nats are negligible: where the evidence is that flat, a step is short.
                *scale = (*scale + STEP_SIZE * mean / (square.sqrt() + 1e-3)).clamp(low, high);
            }
            last = Some(mode);
        }
        Ok(steps)
    }
}

/// The judgements that evidence maximisation uses, with every other row of the clips that they compare.
struct RecentObservations {
    rows: Tensor,
    count: usize,
    weights: Tensor,
    sides: Vec<[usize; 2]>,
    targets: Tensor,
    margins: Tensor,
    error_rate: f64,
    learns_errors: bool,
}

impl RecentObservations {
    fn of(pairs: &Pairs, observations: &Observations) -> RecentObservations {
        let first = pairs.sides.len().saturating_sub(MAX_RECENT);
        let mut places = std::collections::BTreeMap::new();
        let (mut rows, mut clips) = (Vec::new(), Vec::new());
        let stride = if pairs.count >= 20 { 2 } else { 1 };
        let mut place = |clip: usize| {
            *places.entry(clip).or_insert_with(|| {
                rows.extend((0..pairs.count).step_by(stride).map(|row| (clip * pairs.count + row) as i64));
                clips.push(clip as i64);
                clips.len() - 1
            })
        };
        let sides: Vec<_> = pairs.sides[first..].iter().map(|clips| clips.map(&mut place)).collect();
        let last = |of: &Tensor| of.narrow(0, first as i64, sides.len() as i64);
        RecentObservations {
            rows: pairs.rows.index_select(0, &Tensor::from_slice(&rows)),
            count: pairs.count.div_ceil(stride),
            weights: pairs.weights.index_select(0, &Tensor::from_slice(&clips)),
            targets: last(observations.targets),
            margins: last(observations.margins),
            error_rate: observations.error_rate,
            learns_errors: observations.learns_errors,
            sides,
        }
    }

    fn pairs(&self) -> Pairs<'_> {
        Pairs { rows: &self.rows, count: self.count, weights: &self.weights, sides: &self.sides }
    }

    fn observations(&self) -> Observations<'_> {
        let RecentObservations { targets, margins, error_rate, learns_errors, .. } = self;
        Observations { targets, margins, error_rate: *error_rate, learns_errors: *learns_errors }
    }
}

/// Initial [`GaussianProcess::scales`] for so many inputs, before the first fit.
pub(super) fn initialisation(inputs: usize) -> Vec<f64> {
    let relevance = (INITIAL_RELEVANCE * (DOZEN / inputs as f64).min(1.0).sqrt()).ln();
    [vec![relevance; inputs], vec![INITIAL_LOG_VARIANCE; 2 + WIDTHS.len()]].concat()
}

/// The label-noise rate so many noise steps away from its prior value.
pub(super) fn noise_rate(prior: f64, noise_steps: i32) -> f64 {
    (prior * NOISE_FACTOR.powi(noise_steps)).min(MAX_NOISE_RATE.max(prior))
}
