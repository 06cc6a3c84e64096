//! The reward as a Gaussian process conditioned on judgements: the reward model for
//! [`RewardModelKind::GaussianProcess`](flipside_core::settings::RewardModelKind).
//!
//! A judgement depends on the difference between two sums of rewards. A reward that is linear in fixed features,
//! r(x) = w · φ(x), therefore gives a linear model of the judgements: w has a normal prior, and the Bradley–Terry
//! likelihood acts on w · (Σ φ(left) − Σ φ(right)) (Chu and Ghahramani 2005, "Preference learning with Gaussian
//! processes"). The features are the inputs, the products of every two of them (the squares alone if there are many
//! inputs), and random waves that stand for smooth functions of several widths (Rahimi and Recht 2007, "Random features
//! for large-scale kernel machines"). The posterior is Laplace's approximation (Rasmussen and Williams 2006, algorithm
//! 3.1). Its mode is found in the space of the judgements, since there are fewer of them than of features.
//!
//! How relevant each input is, and how much each group of features varies, is learnt by maximising the evidence: the
//! probability of all answers with w integrated out (automatic relevance determination, their section 5.1). Inputs that
//! no answer depends on thereby lose their relevance.
//!
//! The first answers are few and about policies that cannot do anything yet, and relevances that were driven to zero
//! recover slowly. So, as the number of answers grows, the evidence is also maximised again from initial values, and
//! the better optimum is kept. The evidence has several optima, hence several restarts. If many answers are wrong, a
//! process in which every input matters a little explains the wrong ones too and does not improve further. The restarts
//! in which only the single most explanatory input is relevant find what the other answers are about; one of them also
//! assumes a higher label-noise rate.

use super::PreferenceError;
use evidence::{EVIDENCE_STEPS, RESTART_GROWTH, initialisation, noise_rate};
use features::{WAVES, WIDTHS};
use flipside_core::{Array, Arrays, Seed, Stream};
use flipside_learn::{LearnError, Reader, numbers};
use laplace::Conditioned;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::f64::consts::TAU;
use tch::{Kind, Tensor};

mod evidence;
mod features;
mod laplace;
mod linear;

pub use linear::{LinearComparison, LinearFit, LinearReward};

/// The answers to the pairs, `[n]` each, f64.
pub(super) struct Observations<'a> {
    /// The probability that left is better.
    pub targets: &'a Tensor,
    /// What is subtracted from the difference before the likelihood sees it.
    pub margins: &'a Tensor,
    /// The label-noise rate: the prior value of the share of answers that are random …
    pub error_rate: f64,
    /// … and whether it is learnt from the answers.
    pub learns_errors: bool,
}

/// Rows of clips, and which of the clips were compared.
pub(super) struct Pairs<'a> {
    /// `[clips · count, inputs]`, f32.
    pub rows: &'a Tensor,
    /// Rows of a clip.
    pub count: usize,
    /// The factor that turns a clip's mean feature into its sum, in the model's unit, `[clips]`.
    pub weights: &'a Tensor,
    /// Each pair's clips.
    pub sides: &'a [[usize; 2]],
}

impl Pairs<'_> {
    /// The sum over the left clip of each pair minus that over the right one, of features of every row:
    /// `[clips · count, k]` → `[n, k]`, f64.
    fn contrast(&self, features: &Tensor) -> Tensor {
        let rows = features.view([-1, self.count as i64, features.size()[1]]);
        let clips = rows.mean_dim([1_i64].as_slice(), false, Kind::Float).to_kind(Kind::Double);
        let clips = clips * self.weights.unsqueeze(-1);
        let side = |side: usize| {
            let places: Vec<i64> = self.sides.iter().map(|clips| clips[side] as i64).collect();
            clips.index_select(0, &Tensor::from_slice(&places))
        };
        side(0) - side(1)
    }
}

/// The posterior at the judgements.
pub(super) struct Posterior {
    /// Each difference of returns at the mode, before margins, `[n]`.
    pub differences: Vec<f64>,
    /// The same, as predicted by all other judgements (leave-one-out), `[n]`.
    pub loo_predictions: Vec<f64>,
    /// Steps of evidence maximisation.
    pub evidence_steps: usize,
}

/// Random functions of the inputs, conditioned on judgements. The draws come in pairs that are mirror images around the
/// posterior mean.
#[derive(Debug)]
pub(super) struct GaussianProcess {
    inputs: usize,
    members: usize,
    /// Seeds the draws.
    seed: Seed,
    /// `[inputs, waves]`, f32: frequencies of the waves, one width after another.
    frequencies: Tensor,
    /// `[waves]`, f32, radians.
    phases: Tensor,
    /// ln relevance of the inputs, then ln variance of the groups of features, f64. The groups are the inputs
    /// themselves, products, and the waves of each width.
    scales: Vec<f64>,
    /// `[features, members]`, f32.
    weights: Tensor,
    /// Steps on the grid of label-noise rates, from the prior value to the present one.
    noise_steps: i32,
    /// Number of judgements at the last restart.
    judgements_at_restart: usize,
}

impl GaussianProcess {
    /// A process for so many inputs, with `members` draws, an even number. They are 0 before the first fit.
    pub fn new(members: usize, inputs: usize, stream: &mut Stream) -> GaussianProcess {
        let waves = WAVES * WIDTHS.len();
        let mut frequencies = vec![0.0_f32; inputs * waves];
        for (at, frequency) in frequencies.iter_mut().enumerate() {
            let normal: f64 = StandardNormal.sample(stream);
            *frequency = (normal / WIDTHS[at % waves / WAVES]) as f32;
        }
        let phases: Vec<f32> = (0..waves).map(|_| (TAU * stream.random::<f64>()) as f32).collect();
        let mut process = GaussianProcess {
            inputs,
            members,
            seed: Seed(stream.random()),
            frequencies: Tensor::from_slice(&frequencies).view([inputs as i64, -1]),
            phases: Tensor::from_slice(&phases),
            scales: initialisation(inputs),
            weights: Tensor::new(),
            noise_steps: 0,
            judgements_at_restart: 0,
        };
        let sizes = [process.feature_count() as i64, members as i64];
        process.weights = Tensor::zeros(sizes, (Kind::Float, tch::Device::Cpu));
        process
    }

    /// The value of each draw at each row, `[N, inputs]` → `[members, N]`.
    pub fn forward(&self, rows: &Tensor) -> Tensor {
        let (relevance, _) = self.relevance_and_variances(&Tensor::from_slice(&self.scales));
        self.map_features(rows, &relevance).matmul(&self.weights).tr()
    }

    /// Conditions the process on all judgements, after learning relevances and variances from the most recent ones.
    /// `again` says whether this process was fitted before. `cancel` is called between the steps. After an error the
    /// process must not be used.
    pub fn condition(
        &mut self,
        pairs: &Pairs,
        observations: &Observations,
        again: bool,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<Posterior, PreferenceError> {
        let believed = |process: &GaussianProcess| {
            let error_rate = process.error_rate(observations.error_rate);
            Observations { error_rate, ..*observations }
        };
        let steps = EVIDENCE_STEPS[usize::from(again)];
        let mut evidence_steps = self.maximize_evidence(pairs, &believed(self), steps, cancel)?;
        let count = pairs.sides.len();
        if count as f64 >= RESTART_GROWTH * self.judgements_at_restart as f64 {
            self.judgements_at_restart = count;
            evidence_steps += if again { self.restart(pairs, observations, cancel)? } else { 0 };
        }
        let (relevance, variances) = self.relevance_and_variances(&Tensor::from_slice(&self.scales));
        let differences = self.differences(pairs, &relevance);
        if observations.learns_errors {
            let covariance = (&differences * &variances).matmul(&differences.tr());
            self.fit_noise_rate(&covariance, observations)?;
        }
        let conditioned = Conditioned::on(&differences, &variances, &believed(self))?;
        let weights = conditioned.mean().unsqueeze(1) + conditioned.deviations(self.members, self.seed);
        self.weights = weights.to_kind(Kind::Float).contiguous();
        let (differences, loo_predictions) = (doubles(&conditioned.mode.value), conditioned.loo_predictions());
        Ok(Posterior { differences, loo_predictions, evidence_steps })
    }

    /// The label-noise rate as learnt so far, where `prior` is its prior value.
    pub fn error_rate(&self, prior: f64) -> f64 {
        noise_rate(prior, self.noise_steps)
    }

    /// Adds everything that was learnt and drawn, under `process.`.
    pub fn to_arrays(&self, arrays: &mut Arrays) {
        let [inputs, waves, features] = [self.inputs, WAVES * WIDTHS.len(), self.feature_count()];
        arrays.insert("process.frequencies".into(), Array::f32(&[inputs, waves], numbers(&self.frequencies)));
        arrays.insert("process.phases".into(), Array::f32(&[waves], numbers(&self.phases)));
        arrays.insert("process.scales".into(), Array::f64(&[self.scales.len()], self.scales.clone()));
        arrays.insert("process.weights".into(), Array::f32(&[features, self.members], numbers(&self.weights)));
        arrays.insert("process.seed".into(), Array::u64(vec![self.seed.0]));
        // These two keep the names of older checkpoints.
        arrays.insert("process.doubts".into(), Array::f64(&[1], vec![f64::from(self.noise_steps)]));
        arrays.insert("process.begun_with".into(), Array::u64(vec![self.judgements_at_restart as u64]));
    }

    /// Whether these arrays hold a process.
    pub fn is_in(arrays: &Arrays) -> bool {
        arrays.contains_key("process.scales")
    }

    /// The process that [`GaussianProcess::to_arrays`] saved. Its sizes must be those of this one.
    pub fn restored(&self, arrays: Reader) -> Result<GaussianProcess, LearnError> {
        let [inputs, waves, features] = [self.inputs, WAVES * WIDTHS.len(), self.feature_count()];
        let table = |name: &str, sizes: [usize; 2]| {
            Ok::<_, LearnError>(Tensor::from_slice(arrays.f32(name, &sizes)?).view([sizes[0] as i64, sizes[1] as i64]))
        };
        let [seed] = arrays.words("process.seed")?;
        Ok(GaussianProcess {
            inputs,
            members: self.members,
            seed: Seed(seed),
            frequencies: table("process.frequencies", [inputs, waves])?,
            phases: Tensor::from_slice(arrays.f32("process.phases", &[waves])?),
            scales: arrays.f64("process.scales", &[self.scales.len()])?.to_vec(),
            weights: table("process.weights", [features, self.members])?,
            // Old checkpoints lack these two.
            noise_steps: match arrays.0.contains_key("process.doubts") {
                true => arrays.f64("process.doubts", &[1])?[0] as i32,
                false => 0,
            },
            judgements_at_restart: match arrays.0.contains_key("process.begun_with") {
                true => arrays.words::<1>("process.begun_with")?[0] as usize,
                false => 0,
            },
        })
    }
}

/// The numbers of a tensor as f64, row-major.
fn doubles(tensor: &Tensor) -> Vec<f64> {
    let mut numbers = vec![0.0; tensor.numel()];
    tensor.detach().to_kind(Kind::Double).contiguous().copy_data(&mut numbers, tensor.numel());
    numbers
}

#[cfg(test)]
mod tests;
