//! The reward as a Gaussian process that judgements condition: what the reward model is made of where
//! [`RewardModelKind::GaussianProcess`](flipside_core::settings::RewardModelKind) says so.
//!
//! A judgement says something of the difference of two sums of rewards, so that a linear model of many fixed features stays a linear model:
//! r(x) = w · φ(x), with a normal prior on w, and the Bradley–Terry likelihood on w · (Σ φ(left) − Σ φ(right)) (Chu and Ghahramani 2005,
//! "Preference learning with Gaussian processes"). The features are the inputs, the products of every two of them (of many, their squares), and
//! random waves that stand for smooth functions of several widths (Rahimi and Recht 2007, "Random features for large-scale kernel machines").
//! The posterior is Laplace's approximation (Rasmussen and Williams 2006, algorithm 3.1), whose mode is found in the space of the judgements:
//! there are fewer of them than of features.
//!
//! How much each input matters, and how much each group of features varies, is not set but learnt: by climbing the marginal likelihood, the
//! probability of all answers with w integrated out (automatic relevance determination, their section 5.1). What no answer depends on fades
//! from the reward by itself. What has faded is slow to come back, and the first answers are few and about policies that can do nothing yet: so,
//! as answers grow more, the climb is done again from its beginning, too, and the higher end counts. There are several beginnings, for there are
//! several tops: where many answers are wrong, a process to which every input matters a little explains the wrong ones, too, and climbs no further.
//! Those that begin with the single input that explains most by itself, one of them holding more answers for random, find what the others are about.

use super::PreferenceError;
use super::ensemble::numbers;
use flipside_core::{Array, Arrays, Seed, Stream};
use flipside_learn::{Layer, LearnError, Reader};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::f64::consts::{FRAC_1_SQRT_2, TAU};
use tch::{Kind, Tensor};

/// Widths of the waves, in standard deviations of an input whose relevance is 1.
const WIDTHS: [f64; 3] = [1.0, 2.0, 4.0];
/// Waves of each width: a multiple of four, as shaders take them by four.
const WAVES: usize = 128;
const _: () = assert!(WAVES.is_multiple_of(4));
/// What squares of inputs weigh, and products of two: together the features of (x · y)²/2.
const SQUARE: f64 = 0.5;
const PRODUCT: f64 = FRAC_1_SQRT_2;
/// Most inputs of which every two are multiplied; of more there are too many products, and squares alone are among the features.
const MOST_MULTIPLIED: usize = 40;

/// An input's relevance at first, and its logarithm's bounds. Of more than a dozen inputs each matters less, or no two rows would be alike.
const RELEVANCE: f64 = 0.5;
const DOZEN: f64 = 12.0;
const RELEVANCE_BOUNDS: [f64; 2] = [-5.0, 2.0];
/// ln of a group's variance at first, and its bounds.
const VARIANCE: f64 = 1.1;
const VARIANCE_BOUNDS: [f64; 2] = [-6.0, 9.0];
/// Steps up the marginal likelihood in the first fit, and in those after it, which begin where the last one ended.
const CLIMB: [usize; 2] = [40, 8];
/// There is a climb from the beginning whenever the judgements are this many times as many as at the last one.
const ANEW: f64 = 1.5;
/// The size of such a step, and how fast its averages of the gradient and of its square forget.
const STEP: f64 = 0.15;
const FORGET: [f64; 2] = [0.8, 0.95];
/// Most judgements that a climb looks at, the latest: relevance is seen in few.
const CLIMBED: usize = 300;
/// Where one input matters at first, its ln relevance, and that of all others.
const FOREMOST: f64 = 0.0;
const OTHERS: f64 = -3.0;
/// Doubts that a climb from one input begins with.
const FOREMOST_DOUBTS: [i32; 2] = [0, 2];

/// By what the share of random answers is multiplied from one guess at it to the next, how many such steps it may lie from what was believed
/// beforehand, and the most that it may come to: of judges who answer at random nothing can be learnt.
const DOUBT: f64 = 2.0;
const MOST_DOUBTS: i32 = 3;
const MOST_RANDOM: f64 = 0.8;

/// Most of Newton's steps to the mode, and the gain in nats below which it is reached.
const NEWTON: usize = 60;
const REACHED: f64 = 1e-6;
/// Added to the judgements' covariance, so that it has an inverse where one pair was asked twice.
const JITTER: f64 = 1e-6;

/// What was said of the pairs, `[n]` each, in f64.
pub(super) struct Said<'a> {
    /// The probability that left is better.
    pub targets: &'a Tensor,
    /// What the difference is lessened by first.
    pub margins: &'a Tensor,
    /// The share of answers that are random: what it is taken for beforehand …
    pub error_rate: f64,
    /// … and whether the answers say how large it is.
    pub learns_errors: bool,
}

/// Rows of clips, and which of them were compared.
pub(super) struct Pairs<'a> {
    /// `[clips · count, inputs]`, f32.
    pub rows: &'a Tensor,
    /// Rows of a clip.
    pub count: usize,
    /// What a clip's mean feature must be multiplied with to stand for its sum, in the model's unit, `[clips]`.
    pub weights: &'a Tensor,
    /// Each pair's clips.
    pub sides: &'a [[usize; 2]],
}

impl Pairs<'_> {
    /// Each pair's left sum less its right one of what each row is said to be, `[clips · count, k]` → `[n, k]`, f64.
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

/// What a fit says of the judgements.
pub(super) struct Conditioned {
    /// Each difference at the mode, margins apart, `[n]`.
    pub differences: Vec<f64>,
    /// The same as all the other judgements foresee it.
    pub foreseen: Vec<f64>,
    /// Steps up the marginal likelihood.
    pub climbed: usize,
}

/// Random functions of the inputs, conditioned on judgements: the posterior mean, and draws around it in pairs that are as far above as below.
#[derive(Debug)]
pub(super) struct GaussianProcess {
    inputs: usize,
    members: usize,
    /// Seeds the draws.
    seed: Seed,
    /// `[inputs, waves]`, f32: frequencies of waves of every width, one width after the other; and `[waves]`: their phases.
    frequencies: Tensor,
    phases: Tensor,
    /// ln relevance of the inputs and ln variance of the groups, f64: the inputs themselves, products, each width.
    scales: Vec<f64>,
    /// `[features, members]`, f32.
    weights: Tensor,
    /// Steps from the share of random answers that was believed beforehand to that which is believed now.
    doubts: i32,
    /// Judgements at the last climb from the beginning.
    begun_with: usize,
}

impl GaussianProcess {
    /// Of so many inputs, with `members` draws, an even number. They are 0 before the first fit.
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
            scales: beginning(inputs),
            weights: Tensor::new(),
            doubts: 0,
            begun_with: 0,
        };
        process.weights = Tensor::zeros([process.features() as i64, members as i64], (Kind::Float, tch::Device::Cpu));
        process
    }

    /// What each draw says of each row, `[N, inputs]` → `[members, N]`.
    pub fn forward(&self, rows: &Tensor) -> Tensor {
        let (relevance, _) = self.read(&Tensor::from_slice(&self.scales));
        self.describe(rows, &relevance).matmul(&self.weights).tr()
    }

    /// The same as two linear layers, for what computes those. The first gives of the normalised inputs what waves are the cosine of, in turns.
    /// The second gives what each draw says, and sees the waves, the inputs, and products: of input i and every one from i on, for one i after
    /// another; or squares alone.
    pub fn layers(&self) -> [Layer; 2] {
        let (inputs, members, features) = (self.inputs, self.members, self.features());
        let (frequencies, phases, weights) =
            (numbers(&self.frequencies), numbers(&self.phases), numbers(&self.weights));
        let count = phases.len();
        let relevance: Vec<f64> = self.scales[..inputs].iter().map(|scale| scale.exp()).collect();
        // Each feature's place among those of `describe`, and what it is there for inputs that are not multiplied with their relevance.
        let mut seen: Vec<(usize, f64)> = (features - count..features).map(|place| (place, amplitude())).collect();
        seen.extend(relevance.iter().copied().enumerate());
        let mut product = 2 * inputs;
        for i in 0..inputs {
            seen.push((inputs + i, SQUARE * relevance[i] * relevance[i]));
            let others = if self.multiplies() { &relevance[i + 1..] } else { &[] };
            for other in others {
                seen.push((product, PRODUCT * relevance[i] * other));
                product += 1;
            }
        }
        let turns = |at: usize| {
            let (wave, input) = (at / inputs, at % inputs);
            (f64::from(frequencies[input * count + wave]) * relevance[input] / TAU) as f32
        };
        let weight = |member: usize| {
            let weights = &weights;
            seen.iter().map(move |(place, factor)| (f64::from(weights[place * members + member]) * factor) as f32)
        };
        let waves = Layer {
            inputs,
            outputs: count,
            weight: (0..count * inputs).map(turns).collect(),
            bias: phases.iter().map(|phase| (f64::from(*phase) / TAU) as f32).collect(),
        };
        let draws = Layer {
            inputs: features,
            outputs: members,
            weight: (0..members).flat_map(weight).collect(),
            bias: vec![0.0; members],
        };
        [waves, draws]
    }

    /// Sizes of the groups of features.
    fn groups(&self) -> Vec<usize> {
        let products = if self.multiplies() { self.inputs * (self.inputs + 1) / 2 } else { self.inputs };
        [self.inputs, products].into_iter().chain([WAVES; WIDTHS.len()]).collect()
    }

    /// Whether every two inputs are multiplied.
    fn multiplies(&self) -> bool {
        self.inputs <= MOST_MULTIPLIED
    }

    fn features(&self) -> usize {
        self.groups().iter().sum()
    }

    /// φ of every row, `[N, features]`, where inputs matter by `relevance`, `[inputs]`.
    fn describe(&self, rows: &Tensor, relevance: &Tensor) -> Tensor {
        let rows = rows * relevance;
        let waves = self.phases.addmm(&rows, &self.frequencies).cos() * amplitude();
        let mut parts = vec![rows.shallow_clone(), rows.square() * SQUARE];
        if self.multiplies() {
            for i in 0..self.inputs as i64 - 1 {
                let others = rows.narrow(-1, i + 1, self.inputs as i64 - i - 1);
                parts.push(others * (rows.narrow(-1, i, 1) * PRODUCT));
            }
        }
        parts.push(waves);
        Tensor::cat(&parts, -1)
    }

    /// Of [`GaussianProcess::scales`]: each input's relevance, `[inputs]`, f32, and each feature's prior variance, `[features]`, f64.
    fn read(&self, scales: &Tensor) -> (Tensor, Tensor) {
        let inputs = self.inputs as i64;
        let relevance = scales.narrow(0, 0, inputs).exp().to_kind(Kind::Float);
        let sizes: Vec<i64> = self.groups().into_iter().map(|size| size as i64).collect();
        let groups = scales.narrow(0, inputs, sizes.len() as i64).exp();
        (relevance, groups.repeat_interleave_self_tensor(&Tensor::from_slice(&sizes), 0, None))
    }

    /// Each pair's Σ φ(left) − Σ φ(right), `[n, features]`, f64.
    fn differences(&self, pairs: &Pairs, relevance: &Tensor) -> Tensor {
        pairs.contrast(&self.describe(pairs.rows, relevance))
    }

    /// Takes in all judgements, first learning from the latest of them what matters. `cancel` is asked between the steps; after an error what is
    /// learnt is not to be used.
    pub fn condition(
        &mut self,
        pairs: &Pairs,
        said: &Said,
        again: bool,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<Conditioned, PreferenceError> {
        let believed = |process: &GaussianProcess| Said { error_rate: process.error_rate(said.error_rate), ..*said };
        let mut climbed = self.climb(pairs, &believed(self), CLIMB[usize::from(again)], cancel)?;
        let count = pairs.sides.len();
        if count as f64 >= ANEW * self.begun_with as f64 {
            self.begun_with = count;
            climbed += if again { self.climb_anew(pairs, said, cancel)? } else { 0 };
        }
        let (relevance, variances) = self.read(&Tensor::from_slice(&self.scales));
        let differences = self.differences(pairs, &relevance);
        let scaled = &differences * &variances;
        let covariance = scaled.matmul(&differences.tr());
        if said.learns_errors {
            self.doubt(&covariance, said)?;
        }
        let mode = Mode::find(&covariance, &believed(self), None)?;
        // w = A Dᵀ α, with the prior's variances A.
        let mean = scaled.tr().matmul(&mode.slope);
        let weights = mean.unsqueeze(1) + self.deviations(&differences, &scaled, &variances, &mode);
        self.weights = weights.to_kind(Kind::Float).contiguous();
        let inverse = mode.inverse().diagonal(0, 0, 1);
        // Without the judgement itself (equation 5.12, on the normal likelihoods that stand for the true ones at the mode).
        let foreseen = &mode.value - &mode.slope * (inverse.reciprocal() - &mode.curvature.reciprocal());
        Ok(Conditioned { differences: doubles(&mode.value), foreseen: doubles(&foreseen), climbed })
    }

    /// The share of random answers as it is believed now, where `believed` is what it was taken for beforehand.
    pub fn error_rate(&self, believed: f64) -> f64 {
        doubted(believed, self.doubts)
    }

    /// Goes a step towards the share of random answers that makes these answers likeliest, if it is not there. Beforehand, its logarithm is normal
    /// about what was believed, with a standard deviation of 1. One step a fit: fits are many.
    fn doubt(&mut self, covariance: &Tensor, said: &Said) -> Result<(), PreferenceError> {
        let mut best = f64::NEG_INFINITY;
        let range = -MOST_DOUBTS..=MOST_DOUBTS;
        for doubts in [self.doubts, self.doubts - 1, self.doubts + 1].into_iter().filter(|steps| range.contains(steps))
        {
            let likelihood = self.log_evidence(covariance, said, doubts)?;
            if likelihood > best {
                (best, self.doubts) = (likelihood, doubts);
            }
        }
        Ok(())
    }

    /// ln of how likely what was said is, with so many steps of doubt.
    fn log_evidence(&self, covariance: &Tensor, said: &Said, doubts: i32) -> Result<f64, PreferenceError> {
        let said = Said { error_rate: doubted(said.error_rate, doubts), ..*said };
        let prior = -0.5 * (f64::from(doubts) * DOUBT.ln()).powi(2);
        Ok(Mode::find(covariance, &said, None)?.evidence(&said) + prior)
    }

    /// Climbs from each beginning, too, and ends where the answers are likeliest, be it where the process stood. Returns its steps.
    fn climb_anew(
        &mut self,
        pairs: &Pairs,
        said: &Said,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<usize, PreferenceError> {
        let evidence = |process: &GaussianProcess| {
            let (relevance, variances) = process.read(&Tensor::from_slice(&process.scales));
            let differences = process.differences(pairs, &relevance);
            process.log_evidence(&(&differences * variances).matmul(&differences.tr()), said, process.doubts)
        };
        let mut beginnings = vec![(beginning(self.inputs), self.doubts)];
        let one = self.beginning_with_one(pairs, said, cancel)?;
        let doubts = if said.learns_errors { &FOREMOST_DOUBTS[..] } else { &FOREMOST_DOUBTS[..1] };
        beginnings.extend(doubts.iter().map(|doubts| (one.clone(), *doubts)));
        let mut best = (evidence(self)?, self.scales.clone(), self.doubts);
        let mut climbed = 0;
        for (scales, doubts) in beginnings {
            (self.scales, self.doubts) = (scales, doubts);
            let believed = Said { error_rate: self.error_rate(said.error_rate), ..*said };
            climbed += self.climb(pairs, &believed, CLIMB[0], cancel)?;
            let likelihood = evidence(self)?;
            if likelihood > best.0 {
                best = (likelihood, self.scales.clone(), self.doubts);
            }
        }
        (_, self.scales, self.doubts) = best;
        Ok(climbed)
    }

    /// [`GaussianProcess::scales`] to begin with where hardly anything matters but the input that, with its square, explains the latest answers
    /// best by itself.
    fn beginning_with_one(
        &self,
        pairs: &Pairs,
        said: &Said,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<f64>, PreferenceError> {
        let latest = Latest::of(pairs, said);
        let (pairs, said) = (&latest.pairs(), &latest.said());
        let lines = pairs.contrast(pairs.rows);
        let squares = pairs.contrast(&(pairs.rows.square() * SQUARE));
        let mut best = (f64::NEG_INFINITY, 0);
        for input in 0..self.inputs {
            if cancel() {
                return Err(PreferenceError::Cancelled);
            }
            let features = [&lines, &squares].map(|features| features.narrow(1, input as i64, 1));
            let covariance = Tensor::cat(&features, 1);
            let covariance = covariance.matmul(&covariance.tr()) * VARIANCE.exp();
            let likelihood = Mode::find(&covariance, said, None)?.evidence(said);
            if likelihood > best.0 {
                best = (likelihood, input);
            }
        }
        let mut scales = beginning(self.inputs);
        scales[..self.inputs].fill(OTHERS);
        scales[best.1] = FOREMOST;
        Ok(scales)
    }

    /// Draws of w less its mean, `[features, members]`, each beside its mirror image (Matheron's rule: a draw of the prior, corrected by what it says
    /// of the judgements). The normal numbers under them are the same in every fit, so that the draws change no more than the posterior does.
    fn deviations(&self, differences: &Tensor, scaled: &Tensor, variances: &Tensor, mode: &Mode) -> Tensor {
        let [n, features] = [differences.size()[0] as usize, differences.size()[1] as usize];
        let halves = self.members / 2;
        let normal = |name: &str, rows: usize| {
            let mut stream = self.seed.stream(name);
            let numbers: Vec<f64> = (0..rows * halves).map(|_| StandardNormal.sample(&mut stream)).collect();
            Tensor::from_slice(&numbers).view([rows as i64, halves as i64])
        };
        let prior = normal("prior", features) * variances.sqrt().unsqueeze(1);
        let root = mode.curvature.sqrt().unsqueeze(1);
        let apart = &root * differences.matmul(&prior) + normal("likelihood", n);
        let half = prior - scaled.tr().matmul(&(&root * apart.cholesky_solve(&mode.factor, false)));
        Tensor::cat(&[half.shallow_clone(), -half], 1)
    }

    /// Climbs the marginal likelihood of the latest judgements in ln relevance and ln variance, by steps as long as Adam's. Returns how many.
    ///
    /// Its gradient is taken with the mode held still: for covariance K, slope α and M = K + W⁻¹ it is that of ½ αᵀKα − ½ tr(M⁻¹K)
    /// (equation 5.22's explicit part; the other part is small and needs third derivatives).
    fn climb(
        &mut self,
        pairs: &Pairs,
        said: &Said,
        steps: usize,
        cancel: &mut dyn FnMut() -> bool,
    ) -> Result<usize, PreferenceError> {
        let latest = Latest::of(pairs, said);
        let (pairs, said) = (&latest.pairs(), &latest.said());
        let (mut moments, mut last) = (vec![[0.0_f64; 2]; self.scales.len()], None);
        for step in 1..=steps {
            if cancel() {
                return Err(PreferenceError::Cancelled);
            }
            let scales = Tensor::from_slice(&self.scales).set_requires_grad(true);
            let (relevance, variances) = self.read(&scales);
            let differences = self.differences(pairs, &relevance);
            let covariance = (&differences * variances).matmul(&differences.tr());
            let mode = Mode::find(&covariance.detach(), said, last.as_ref())?;
            let pull = mode.slope.outer(&mode.slope) - mode.inverse();
            let gain = (covariance * pull).sum(Kind::Double) * 0.5;
            let gradient = doubles(&Tensor::run_backward(&[gain], &[&scales], false, false)[0]);
            for (at, (scale, moments)) in self.scales.iter_mut().zip(&mut moments).enumerate() {
                let powers = [gradient[at], gradient[at] * gradient[at]];
                let [mean, square] = std::array::from_fn(|k| {
                    moments[k] = FORGET[k] * moments[k] + (1.0 - FORGET[k]) * powers[k];
                    moments[k] / (1.0 - FORGET[k].powi(step as i32))
                });
                let [low, high] = if at < self.inputs { RELEVANCE_BOUNDS } else { VARIANCE_BOUNDS };
                // Where the likelihood is flat, a step is short: 1e-3 nats are nothing.
                *scale = (*scale + STEP * mean / (square.sqrt() + 1e-3)).clamp(low, high);
            }
            last = Some(mode);
        }
        Ok(steps)
    }

    /// Adds all that was learnt and drawn, under `process.`.
    pub fn to_arrays(&self, arrays: &mut Arrays) {
        let [inputs, waves, features] = [self.inputs, WAVES * WIDTHS.len(), self.features()];
        arrays.insert("process.frequencies".into(), Array::f32(&[inputs, waves], numbers(&self.frequencies)));
        arrays.insert("process.phases".into(), Array::f32(&[waves], numbers(&self.phases)));
        arrays.insert("process.scales".into(), Array::f64(&[self.scales.len()], self.scales.clone()));
        arrays.insert("process.weights".into(), Array::f32(&[features, self.members], numbers(&self.weights)));
        arrays.insert("process.seed".into(), Array::u64(vec![self.seed.0]));
        arrays.insert("process.doubts".into(), Array::f64(&[1], vec![f64::from(self.doubts)]));
        arrays.insert("process.begun_with".into(), Array::u64(vec![self.begun_with as u64]));
    }

    /// Whether one was saved in these arrays.
    pub fn is_in(arrays: &Arrays) -> bool {
        arrays.contains_key("process.scales")
    }

    /// The process that [`GaussianProcess::to_arrays`] saved, of this one's sizes.
    pub fn restored(&self, arrays: Reader) -> Result<GaussianProcess, LearnError> {
        let [inputs, waves, features] = [self.inputs, WAVES * WIDTHS.len(), self.features()];
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
            // Processes that were saved before there were doubts have none.
            doubts: match arrays.0.contains_key("process.doubts") {
                true => arrays.f64("process.doubts", &[1])?[0] as i32,
                false => 0,
            },
            begun_with: match arrays.0.contains_key("process.begun_with") {
                true => arrays.words::<1>("process.begun_with")?[0] as usize,
                false => 0,
            },
        })
    }
}

/// The judgements that a climb looks at, with every other row of the clips that they compare.
struct Latest {
    rows: Tensor,
    count: usize,
    weights: Tensor,
    sides: Vec<[usize; 2]>,
    targets: Tensor,
    margins: Tensor,
    error_rate: f64,
    learns_errors: bool,
}

impl Latest {
    fn of(pairs: &Pairs, said: &Said) -> Latest {
        let first = pairs.sides.len().saturating_sub(CLIMBED);
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
        Latest {
            rows: pairs.rows.index_select(0, &Tensor::from_slice(&rows)),
            count: pairs.count.div_ceil(stride),
            weights: pairs.weights.index_select(0, &Tensor::from_slice(&clips)),
            targets: last(said.targets),
            margins: last(said.margins),
            error_rate: said.error_rate,
            learns_errors: said.learns_errors,
            sides,
        }
    }

    fn pairs(&self) -> Pairs<'_> {
        Pairs { rows: &self.rows, count: self.count, weights: &self.weights, sides: &self.sides }
    }

    fn said(&self) -> Said<'_> {
        let Latest { targets, margins, error_rate, learns_errors, .. } = self;
        Said { targets, margins, error_rate: *error_rate, learns_errors: *learns_errors }
    }
}

/// The mode of the posterior of the differences, and the normal distribution about it; `[n]` each, f64.
struct Mode {
    value: Tensor,
    /// The log-likelihood's gradient there, α = K⁻¹ f.
    slope: Tensor,
    /// Its negative second derivative W, Fisher's: never negative, whatever the share of random answers.
    curvature: Tensor,
    /// Cholesky's lower factor of I + √W K √W.
    factor: Tensor,
}

impl Mode {
    /// Newton's way in α from where the last one ended, if one did; each step is cut in half until it gains.
    fn find(covariance: &Tensor, said: &Said, from: Option<&Mode>) -> Result<Mode, PreferenceError> {
        let n = covariance.size()[0];
        let identity = Tensor::eye(n, (Kind::Double, tch::Device::Cpu));
        let covariance = covariance + &identity * JITTER;
        let mut slope = match from {
            Some(mode) => mode.slope.shallow_clone(),
            None => Tensor::zeros([n], (Kind::Double, tch::Device::Cpu)),
        };
        let mut value = covariance.mv(&slope);
        let mut here = Likelihood::at(&value, said);
        let mut reached = here.sum - half_product(&slope, &value);
        let factor = |curvature: &Tensor| {
            let root = curvature.sqrt();
            (&identity + root.unsqueeze(1) * &covariance * root.unsqueeze(0)).f_linalg_cholesky(false)
        };
        let lost = |_| PreferenceError::NotFinite { what: "the judgements' covariance".to_owned() };
        for _ in 0..NEWTON {
            let root = here.curvature.sqrt();
            let factor = factor(&here.curvature).map_err(lost)?;
            let right = &here.curvature * &value + &here.slope;
            let inner = (&root * covariance.mv(&right)).unsqueeze(1).cholesky_solve(&factor, false).squeeze_dim(1);
            let step = right - root * inner - &slope;
            let (mut length, before) = (1.0, reached);
            while length > 1e-4 {
                let tried = &slope + &step * length;
                let at = covariance.mv(&tried);
                let there = Likelihood::at(&at, said);
                let gained = there.sum - half_product(&tried, &at);
                if gained >= reached {
                    (slope, value, here, reached) = (tried, at, there, gained);
                    break;
                }
                length *= 0.5;
            }
            if !reached.is_finite() {
                return Err(PreferenceError::NotFinite { what: "the judgements' likelihood".to_owned() });
            }
            if reached - before < REACHED {
                break;
            }
        }
        let factor = factor(&here.curvature).map_err(lost)?;
        Ok(Mode { value, slope: here.slope, curvature: here.curvature, factor })
    }

    /// ln of the marginal likelihood of what was said (their equation 3.32).
    fn evidence(&self, said: &Said) -> f64 {
        let half = doubles(&self.factor.diagonal(0, 0, 1)).iter().map(|x| x.ln()).sum::<f64>();
        Likelihood::at(&self.value, said).sum - half_product(&self.slope, &self.value) - half
    }

    /// (K + W⁻¹)⁻¹ = √W (I + √W K √W)⁻¹ √W.
    fn inverse(&self) -> Tensor {
        let root = self.curvature.sqrt();
        let inner = Tensor::diag_embed(&root, 0, 0, 1).cholesky_solve(&self.factor, false);
        root.unsqueeze(1) * inner
    }
}

/// [`GaussianProcess::scales`] of so many inputs before the first fit.
fn beginning(inputs: usize) -> Vec<f64> {
    let relevance = (RELEVANCE * (DOZEN / inputs as f64).min(1.0).sqrt()).ln();
    [vec![relevance; inputs], vec![VARIANCE; 2 + WIDTHS.len()]].concat()
}

/// The share of random answers so many steps away from what was believed.
fn doubted(believed: f64, doubts: i32) -> f64 {
    (believed * DOUBT.powi(doubts)).min(MOST_RANDOM.max(believed))
}

/// The log-likelihood of what was said, if the differences were these.
struct Likelihood {
    sum: f64,
    slope: Tensor,
    curvature: Tensor,
}

impl Likelihood {
    fn at(differences: &Tensor, said: &Said) -> Likelihood {
        let ahead = differences - said.margins;
        let loss = flipside_learn::preference_loss(&ahead, said.targets, said.error_rate).sum(Kind::Double);
        let left = flipside_learn::preference_probability(&ahead, said.error_rate);
        let turn: Tensor = ahead.sigmoid() * ahead.neg().sigmoid() * (1.0 - said.error_rate);
        // d/df of t ln P + (1 − t) ln (1 − P) is (t − P) P′ / (P (1 − P)); the expectation of its square over answers, P′² / (P (1 − P)).
        let spread: Tensor = &left - left.square();
        let share = &turn / spread.clamp_min(1e-12);
        Likelihood {
            sum: -f64::try_from(loss).unwrap_or(f64::NAN),
            slope: (said.targets - &left) * &share,
            curvature: (turn * share).clamp_min(1e-8),
        }
    }
}

/// Of each wave, so that those of one width have variance 1 together.
fn amplitude() -> f64 {
    (2.0 / WAVES as f64).sqrt()
}

/// ½ aᵀb.
fn half_product(a: &Tensor, b: &Tensor) -> f64 {
    0.5 * f64::try_from(a.dot(b)).unwrap_or(f64::NAN)
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    let mut numbers = vec![0.0; tensor.numel()];
    tensor.detach().to_kind(Kind::Double).contiguous().copy_data(&mut numbers, tensor.numel());
    numbers
}

#[cfg(test)]
mod tests;
