//! A reward that is linear in given features, conditioned on judgements: the cheap ensemble beside a reward model of
//! text. It says which questions teach most, which answers are disputed and when the reward is a guess.
//!
//! It is a Gaussian process with a linear kernel, so its posterior, its draws and its leave-one-out predictions are
//! those of the robots' reward model. In Bayesian deep learning this is known as a Laplace approximation of the last
//! layer (Daxberger et al. 2021).

use super::laplace::{Conditioned, Mode};
use super::{Observations, doubles};
use crate::PreferenceError;
use crate::rank::RatePairs;
use flipside_core::Seed;
use flipside_learn::{LearnError, RunningNorm};
use tch::{Kind, Tensor};

/// Draws from the posterior: half of them, and their mirror images.
const DRAWS: usize = 16;
/// The prior variance is searched on a grid whose points are this factor apart, at most this many steps up or down.
const VARIANCE_FACTOR: f64 = 2.0;
const MAX_VARIANCE_STEPS: i32 = 6;
/// Lower bound of a feature's standard deviation.
const LEAST_SPREAD: f64 = 1e-6;
/// At most this many judgements are learned from, the newest ones: the cost grows with their number cubed.
const MAX_RECENT: usize = 1000;

/// A judgement of two items, each given by its features.
#[derive(Clone, Copy, Debug)]
pub struct LinearComparison<'a> {
    /// The pair's id. Two answers to one pair predict each other, so neither counts as held out.
    pub id: u64,
    /// The features of the left item.
    pub left: &'a [f32],
    /// The features of the right item.
    pub right: &'a [f32],
    /// The teacher's answer as the probability that left is better: 1, 0, or ½ for a tie.
    pub target: f32,
    /// What is subtracted from R_left − R_right before the likelihood sees it.
    pub margin: f32,
}

/// A posterior of the reward.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearReward {
    /// Mean of each feature over the judged items.
    centre: Vec<f64>,
    /// 1/standard deviation of each feature over the judged items.
    scale: Vec<f64>,
    /// Draws of the weights of the scaled features, `[DRAWS][features]`.
    draws: Vec<Vec<f64>>,
    error_rate: f64,
}

/// What a fit says of the judgements.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearFit {
    /// The posterior.
    pub reward: LinearReward,
    /// Each judgement's leave-one-out probability that left is preferred; `None` for those too old to be learned from.
    pub held_out: Vec<Option<f64>>,
    /// The share of decided judgements that the leave-one-out predictions get right, and their number; `None` if there
    /// are none. It is slightly optimistic, since the prior variance is learned from all.
    pub agreement: Option<(f64, usize)>,
    /// Mean ensemble standard deviation of the reward of the judged items.
    pub judged_spread: f64,
}

impl LinearReward {
    /// Conditions a reward on all judgements, the newest last. `error_rate` is the label-noise rate: the share of
    /// answers that is taken for random. The seed decides the draws. The prior variance is the one with the highest
    /// evidence.
    ///
    /// # Errors
    ///
    /// No judgement, features of different sizes, or numbers that are not finite.
    pub fn fit(comparisons: &[LinearComparison], error_rate: f64, seed: Seed) -> Result<LinearFit, PreferenceError> {
        let recent = &comparisons[comparisons.len().saturating_sub(MAX_RECENT)..];
        let width = recent.first().ok_or(PreferenceError::NoComparisons)?.left.len();
        let mut statistics = RunningNorm::new(width);
        for features in recent.iter().flat_map(|c| [c.left, c.right]) {
            if features.len() != width {
                let (what, expected, got) = ("the features of an item".to_owned(), width, features.len());
                return Err(LearnError::Size { what, expected, got }.into());
            }
            statistics.absorb(features);
        }
        let scale: Vec<f64> = statistics.var().iter().map(|var| 1.0 / var.sqrt().max(LEAST_SPREAD)).collect();
        let difference = |c: &LinearComparison| {
            let sides = c.left.iter().zip(c.right).zip(&scale);
            sides.map(|((l, r), scale)| f64::from(l - r) * scale).collect::<Vec<f64>>()
        };
        let differences = Tensor::from_slice(&recent.iter().flat_map(difference).collect::<Vec<f64>>());
        let differences = differences.view([-1, width as i64]);
        let column = |of: fn(&LinearComparison) -> f32| {
            Tensor::from_slice(&recent.iter().map(of).collect::<Vec<f32>>()).to_kind(Kind::Double)
        };
        let (targets, margins) = (column(|c| c.target), column(|c| c.margin));
        let observations = Observations { targets: &targets, margins: &margins, error_rate, learns_errors: false };
        let variance = best_variance(&differences.matmul(&differences.tr()), width, &observations)?;
        let variances = Tensor::full([width as i64], variance, (Kind::Double, tch::Device::Cpu));
        let posterior = Conditioned::on(&differences, &variances, &observations)?;
        let draws = (posterior.mean().unsqueeze(1) + posterior.deviations(DRAWS, seed)).tr();
        let draws: Vec<Vec<f64>> = doubles(&draws).chunks_exact(width.max(1)).map(<[f64]>::to_vec).collect();
        let reward = LinearReward { centre: statistics.mean().to_vec(), scale, draws, error_rate };
        if reward.draws.iter().flatten().any(|weight| !weight.is_finite()) {
            return Err(LearnError::NotFinite { what: "the posterior of the reward".to_owned() }.into());
        }

        let loo = posterior.loo_predictions();
        let too_old = comparisons.len() - recent.len();
        let mut asked = std::collections::HashMap::<u64, usize>::new();
        recent.iter().for_each(|c| *asked.entry(c.id).or_default() += 1);
        let once = recent.iter().zip(&loo).filter(|(c, _)| c.target != 0.5 && asked[&c.id] == 1);
        let right: Vec<bool> = once.map(|(c, ahead)| (*ahead > 0.0) == (c.target > 0.5)).collect();
        let share = right.iter().filter(|&&right| right).count() as f64 / right.len().max(1) as f64;
        Ok(LinearFit {
            held_out: std::iter::repeat_n(None, too_old)
                .chain(loo.iter().map(|&ahead| Some(probability(ahead, error_rate))))
                .collect(),
            agreement: (!right.is_empty()).then_some((share, right.len())),
            judged_spread: reward.ensemble_std(recent.iter().flat_map(|c| [c.left, c.right])),
            reward,
        })
    }

    /// The mean of the draws as one linear function of the features: weights and bias. The reward of the mean judged
    /// item is 0.
    pub fn mean(&self) -> (Vec<f32>, f64) {
        let count = self.draws.len() as f64;
        let mean = |at: usize| self.draws.iter().map(|draw| draw[at]).sum::<f64>() / count * self.scale[at];
        let weights: Vec<f64> = (0..self.scale.len()).map(mean).collect();
        let bias = -weights.iter().zip(&self.centre).map(|(weight, centre)| weight * centre).sum::<f64>();
        (weights.into_iter().map(|weight| weight as f32).collect(), bias)
    }

    /// The draws' mean probability that the left item is preferred.
    pub fn predict(&self, left: &[f32], right: &[f32]) -> f64 {
        let votes = self.member_probabilities(&[[left, right]]);
        votes.iter().map(|p| f64::from(p[0])).sum::<f64>() / votes.len().max(1) as f64
    }

    /// The ensemble standard deviation of these items' rewards: the standard deviation between the draws, averaged over
    /// the items. A reward is counted from that of the mean judged item. 0 if there are none.
    pub fn ensemble_std<'a>(&self, items: impl Iterator<Item = &'a [f32]>) -> f64 {
        let deviation = |features: &[f32]| {
            let rewards: Vec<f64> = self.draws.iter().map(|draw| self.reward(draw, features)).collect();
            let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
            (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / rewards.len() as f64).sqrt()
        };
        let deviations: Vec<f64> = items.map(deviation).collect();
        deviations.iter().sum::<f64>() / deviations.len().max(1) as f64
    }

    fn reward(&self, draw: &[f64], features: &[f32]) -> f64 {
        let scaled = features.iter().zip(&self.centre).zip(&self.scale);
        scaled.zip(draw).map(|(((x, centre), scale), weight)| (f64::from(*x) - centre) * scale * weight).sum()
    }
}

impl<'a> RatePairs<[&'a [f32]; 2]> for LinearReward {
    fn member_probabilities(&self, pairs: &[[&'a [f32]; 2]]) -> Vec<Vec<f32>> {
        let ahead = |draw: &[f64], pair: &[&[f32]; 2]| self.reward(draw, pair[0]) - self.reward(draw, pair[1]);
        let of =
            |draw: &Vec<f64>| pairs.iter().map(|pair| probability(ahead(draw, pair), self.error_rate) as f32).collect();
        self.draws.iter().map(of).collect()
    }

    fn pair_features(&self, pair: &[&'a [f32]; 2]) -> [Vec<f32>; 2] {
        pair.map(|side| {
            let scaled = side.iter().zip(&self.centre).zip(&self.scale);
            scaled.map(|((x, centre), scale)| ((f64::from(*x) - centre) * scale) as f32).collect()
        })
    }
}

/// The probability that the left item is preferred if its reward is ahead by so much.
fn probability(ahead: f64, error_rate: f64) -> f64 {
    (1.0 - error_rate) / (1.0 + (-ahead).exp()) + 0.5 * error_rate
}

/// The prior variance of each weight that makes the observations most likely, by climbing a grid. `products` are the
/// inner products of the differences, `[n, n]`.
fn best_variance(products: &Tensor, width: usize, observations: &Observations) -> Result<f64, PreferenceError> {
    // At step 0 the reward of an item has variance 1.
    let variance = |step: i32| VARIANCE_FACTOR.powi(step) / width.max(1) as f64;
    let evidence = |step: i32| -> Result<f64, PreferenceError> {
        Ok(Mode::find(&(products * variance(step)), observations, None)?.evidence(observations))
    };
    let (mut best, mut at) = (evidence(0)?, 0_i32);
    for direction in [1, -1] {
        while (at + direction).abs() <= MAX_VARIANCE_STEPS {
            let next = evidence(at + direction)?;
            if next <= best {
                break;
            }
            (best, at) = (next, at + direction);
        }
        if at != 0 {
            break;
        }
    }
    Ok(variance(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rank_pairs;
    use flipside_core::Stream;
    use flipside_core::settings::PairChoice;
    use rand::RngExt;
    use rand_distr::{Distribution, StandardNormal};

    const WIDTH: usize = 6;

    fn items(count: usize, stream: &mut Stream) -> Vec<Vec<f32>> {
        (0..count).map(|_| (0..WIDTH).map(|_| StandardNormal.sample(stream)).collect()).collect()
    }

    /// A teacher that likes the first feature and dislikes the second, by Bradley and Terry's law.
    fn judge(items: &[Vec<f32>], stream: &mut Stream) -> Vec<f32> {
        let ahead = |pair: &[Vec<f32>]| f64::from(2.0 * (pair[0][0] - pair[1][0]) - (pair[0][1] - pair[1][1]));
        let answer = |pair: &[Vec<f32>]| stream.random::<f64>() < 1.0 / (1.0 + (-ahead(pair)).exp());
        items.chunks_exact(2).map(answer).map(|left| f32::from(u8::from(left))).collect()
    }

    fn comparisons<'a>(items: &'a [Vec<f32>], targets: &[f32], margin: f32) -> Vec<LinearComparison<'a>> {
        let of = |(id, (pair, target)): (u64, (&'a [Vec<f32>], &f32))| LinearComparison {
            id,
            left: &pair[0],
            right: &pair[1],
            target: *target,
            margin: margin * (2.0 * target - 1.0),
        };
        (0..).zip(items.chunks_exact(2).zip(targets)).map(of).collect()
    }

    /// The leave-one-out probability of each answer is that of a fit without it, with the same prior variance and the
    /// same scales; the posterior predicts fresh answers about as often as it claims.
    #[test]
    fn held_out_predictions_are_those_of_fits_without_the_answer() {
        let mut stream = Seed(5).stream("linear");
        let made = items(240, &mut stream);
        let targets = judge(&made, &mut stream);
        let all = comparisons(&made, &targets, 0.0);
        let fit = LinearReward::fit(&all, 0.05, Seed(1)).unwrap();
        for left_out in [0, 17, 60, 119] {
            let rest: Vec<LinearComparison> =
                all.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, c)| *c).collect();
            let refit = LinearReward::fit(&rest, 0.05, Seed(1)).unwrap();
            let (claimed, found) =
                (fit.held_out[left_out].unwrap(), refit.reward.predict(all[left_out].left, all[left_out].right));
            assert!((claimed - found).abs() < 0.06, "{left_out}: {claimed} {found}");
        }
        let fresh = items(2_000, &mut stream);
        let right = comparisons(&fresh, &judge(&fresh, &mut stream), 0.0)
            .iter()
            .filter(|c| (fit.reward.predict(c.left, c.right) > 0.5) == (c.target > 0.5))
            .count() as f64
            / 1_000.0;
        let (claimed, count) = fit.agreement.unwrap();
        assert!(count == 120 && right > 0.75 && (right - claimed).abs() < 0.1, "{right} {claimed} {count}");
    }

    /// Draws disagree most about items unlike those judged, equal items are no question, and a margin puts items
    /// further apart.
    #[test]
    fn draws_disagree_about_what_was_not_judged() {
        let mut stream = Seed(6).stream("linear");
        let mut made = items(120, &mut stream);
        // Nothing was judged that differs in the last feature by much.
        made.iter_mut().for_each(|item| item[WIDTH - 1] *= 0.01);
        let targets = judge(&made, &mut stream);
        let fit = LinearReward::fit(&comparisons(&made, &targets, 0.0), 0.0, Seed(1)).unwrap();
        let (known, mut odd) = ([&made[0][..], &made[1][..]], made[1].clone());
        odd[WIDTH - 1] += 1.0;
        let ranks = rank_pairs(&fit.reward, PairChoice::Disagreement, &[known, [&made[1], &odd], [&odd, &odd]], &[]);
        assert!(ranks[1] > 2.0 * ranks[0] && ranks[2] == 0.0, "{ranks:?}");
        // The mean of the draws as a head: mirrored draws cancel but for the posterior mean.
        let (weights, bias) = fit.reward.mean();
        let score = |item: &[f32]| bias + item.iter().zip(&weights).map(|(x, w)| f64::from(x * w)).sum::<f64>();
        let ahead = |draw: &Vec<f64>| fit.reward.reward(draw, &made[0]) - fit.reward.reward(draw, &made[1]);
        let mean = fit.reward.draws.iter().map(ahead).sum::<f64>() / fit.reward.draws.len() as f64;
        assert!((score(&made[0]) - score(&made[1]) - mean).abs() < 1e-4);
        let far = fit.reward.ensemble_std([&odd[..]].into_iter());
        assert!(far > 3.0 * fit.judged_spread && fit.judged_spread > 0.0, "{far} {}", fit.judged_spread);
        let sure = |margin: f32| {
            let fit = LinearReward::fit(&comparisons(&made, &targets, margin), 0.0, Seed(1)).unwrap();
            let chance = |pair: &[Vec<f32>]| (fit.reward.predict(&pair[0], &pair[1]) - 0.5).abs();
            made.chunks_exact(2).map(chance).sum::<f64>()
        };
        assert!(sure(1.0) > sure(0.0) + 1.0, "{} {}", sure(1.0), sure(0.0));
        assert!(matches!(LinearReward::fit(&[], 0.0, Seed(1)), Err(PreferenceError::NoComparisons)));
    }
}
