//! A Gaussian process on made-up judgements, compared with fits that leave a judgement out and with closed forms.

use super::evidence::{LOG_RELEVANCE_BOUNDS, OTHER_LOG_RELEVANCE, SINGLE_INPUT_LOG_RELEVANCE};
use super::laplace::Mode;
use super::*;

const INPUTS: usize = 5;
const ROWS: usize = 12;

/// Clips whose rows scatter around random places, and pairs of them. The teacher's reward is the third input times the
/// first.
struct Made {
    rows: Tensor,
    weights: Tensor,
    sides: Vec<[usize; 2]>,
    targets: Tensor,
    margins: Tensor,
}

impl Made {
    fn new(pairs: usize) -> Made {
        let mut stream = Seed(4).stream("made");
        let (mut rows, mut teacher_rewards) = (Vec::new(), Vec::new());
        for _ in 0..2 * pairs {
            let mut normal = || -> f32 { StandardNormal.sample(&mut stream) };
            let place: [f32; INPUTS] = std::array::from_fn(|_| normal());
            let mut teacher_reward = 0.0;
            for _ in 0..ROWS {
                let row = place.map(|x| x + 0.3 * normal());
                teacher_reward += row[2] * row[0];
                rows.extend(row);
            }
            teacher_rewards.push(teacher_reward);
        }
        let doubles = Tensor::from_slice::<f64>;
        let targets: Vec<f64> = teacher_rewards.chunks_exact(2).map(|t| f64::from(u8::from(t[0] > t[1]))).collect();
        Made {
            rows: Tensor::from_slice(&rows).view([-1, INPUTS as i64]),
            weights: doubles(&vec![1.0; 2 * pairs]),
            sides: (0..pairs).map(|pair| [2 * pair, 2 * pair + 1]).collect(),
            targets: doubles(&targets),
            margins: doubles(&vec![0.0; pairs]),
        }
    }

    fn pairs(&self) -> Pairs<'_> {
        Pairs { rows: &self.rows, count: ROWS, weights: &self.weights, sides: &self.sides }
    }

    fn observations(&self) -> Observations<'_> {
        Observations { targets: &self.targets, margins: &self.margins, error_rate: 0.05, learns_errors: false }
    }

    /// The same without one of the pairs.
    fn without(&self, left_out: usize) -> Made {
        let kept: Vec<usize> = (0..self.sides.len()).filter(|&pair| pair != left_out).collect();
        let index = Tensor::from_slice(&kept.iter().map(|&pair| pair as i64).collect::<Vec<i64>>());
        Made {
            rows: self.rows.shallow_clone(),
            weights: self.weights.shallow_clone(),
            sides: kept.iter().map(|&pair| self.sides[pair]).collect(),
            targets: self.targets.index_select(0, &index),
            margins: self.margins.index_select(0, &index),
        }
    }
}

impl GaussianProcess {
    /// Differences of features, `[n, features]`, and their prior covariance, `[n, n]`.
    fn covariance(&self, pairs: &Pairs) -> (Tensor, Tensor) {
        let (relevance, variances) = self.relevance_and_variances(&Tensor::from_slice(&self.scales));
        let differences = self.differences(pairs, &relevance);
        let covariance = (&differences * variances).matmul(&differences.tr());
        (differences, covariance)
    }

    /// ln of the marginal likelihood.
    fn evidence(&self, made: &Made) -> f64 {
        let (_, covariance) = self.covariance(&made.pairs());
        Mode::find(&covariance, &made.observations(), None).unwrap().evidence(&made.observations())
    }
}

fn process(members: usize) -> GaussianProcess {
    GaussianProcess::new(members, INPUTS, &mut Seed(7).stream("features"))
}

/// Evidence maximisation makes the answers more likely, and finds the two inputs that they are about.
#[test]
fn what_matters_is_learnt() {
    let made = Made::new(60);
    let mut process = process(2);
    let before = process.evidence(&made);
    process.maximize_evidence(&made.pairs(), &made.observations(), 40, &mut || false).unwrap();
    let after = process.evidence(&made);
    assert!(after > before + 3.0, "{before} {after}");
    let relevance = &process.scales[..INPUTS];
    let least = relevance[0].min(relevance[2]);
    assert!([1, 3, 4].iter().all(|&i| relevance[i] < least - 1.0), "{relevance:?}");
    assert!(matches!(
        process.maximize_evidence(&made.pairs(), &made.observations(), 40, &mut || true),
        Err(PreferenceError::Learn(LearnError::Cancelled))
    ));
}

/// An input that lost its relevance while there were few answers regains it when there are more, and a restart finds it
/// sooner than continued maximisation does.
#[test]
fn what_has_faded_comes_back() {
    let made = Made::new(60);
    let relevance = |judgements_at_restart: usize| {
        let mut process = process(2);
        process.scales[0] = LOG_RELEVANCE_BOUNDS[0];
        process.judgements_at_restart = judgements_at_restart;
        for _ in 0..3 {
            process.condition(&made.pairs(), &made.observations(), true, &mut || false).unwrap();
        }
        (process.scales[0], process.judgements_at_restart)
    };
    let (continued, restarted) = (relevance(50), relevance(20));
    assert!(restarted.0 > continued.0 + 1.0, "{continued:?} {restarted:?}");
    assert!(continued.1 == 50 && restarted.1 == 60, "{continued:?} {restarted:?}");
}

/// One answer in four is wrong, and the teacher's reward rises with one input or falls with its square. That input
/// still explains most on its own, and it has the highest relevance in the end.
#[test]
fn one_input_is_found_among_wrong_answers() {
    for squared in [false, true] {
        let mut made = Made::new(100);
        let teacher_rewards =
            made.pairs().contrast(&if squared { -made.rows.square() } else { made.rows.shallow_clone() });
        let right: Vec<bool> = doubles(&teacher_rewards.select(1, 3)).into_iter().map(|ahead| ahead > 0.0).collect();
        let targets: Vec<f64> =
            right.iter().enumerate().map(|(pair, right)| f64::from(u8::from(*right != (pair % 4 == 0)))).collect();
        made.targets = Tensor::from_slice(&targets);
        let mut process = process(2);
        let observations = Observations { error_rate: 0.1, learns_errors: true, ..made.observations() };
        let found = process.single_input_initialisation(&made.pairs(), &observations, &mut || false).unwrap();
        let expected = |i: usize| if i == 3 { SINGLE_INPUT_LOG_RELEVANCE } else { OTHER_LOG_RELEVANCE };
        assert!((0..INPUTS).all(|i| found[i] == expected(i)), "{found:?}");
        process.restart(&made.pairs(), &observations, &mut || false).unwrap();
        let relevance = &process.scales[..INPUTS];
        assert!([0, 1, 2, 4].iter().all(|&i| relevance[i] < relevance[3] - 1.0), "{relevance:?}");
    }
}

/// At the mode the gradients of prior and likelihood cancel, and the leave-one-out prediction of a judgement is what a
/// fit without it predicts.
#[test]
fn loo_predictions_are_those_of_fits_without_the_judgement() {
    let made = Made::new(40);
    let mut process = process(2);
    let learnt = process.condition(&made.pairs(), &made.observations(), true, &mut || false).unwrap();
    let (differences, covariance) = process.covariance(&made.pairs());
    let mode = Mode::find(&covariance, &made.observations(), None).unwrap();
    let apart = (covariance.mv(&mode.slope) - &mode.value).abs().max() / mode.value.abs().max();
    assert!(f64::try_from(&apart).unwrap() < 5e-3, "{apart}");
    let (mut errors, mut sizes) = (0.0, 0.0);
    for pair in 0..40 {
        let less = made.without(pair);
        let (others, covariance) = process.covariance(&less.pairs());
        let mode = Mode::find(&covariance, &less.observations(), None).unwrap();
        let (_, variances) = process.relevance_and_variances(&Tensor::from_slice(&process.scales));
        let row = differences.get(pair as i64);
        let expected = f64::try_from((&row * variances).dot(&others.tr().mv(&mode.slope))).unwrap();
        errors += (learnt.loo_predictions[pair] - expected).powi(2);
        sizes += expected.powi(2);
    }
    assert!(errors < 0.02 * sizes, "{errors} of {sizes}");
}

/// The label-noise rate is learnt: it falls below its prior value if all answers are right, and not if one in four is
/// wrong.
#[test]
fn random_answers_are_noticed() {
    let learnt = |every: usize| {
        let mut made = Made::new(150);
        let wrong: Vec<f64> = (0..150).map(|pair| f64::from(u8::from(pair % every == 0))).collect();
        made.targets = (&made.targets - Tensor::from_slice(&wrong)).abs();
        let mut process = process(2);
        let observations = Observations { error_rate: 0.1, learns_errors: true, ..made.observations() };
        for again in [false, true, true, true] {
            process.condition(&made.pairs(), &observations, again, &mut || false).unwrap();
        }
        process.error_rate(0.1)
    };
    let [steady, careless] = [learnt(1000), learnt(4)];
    assert!(steady < 0.06 && careless > 3.0 * steady, "{steady} {careless}");
}

/// The draws have the posterior's variance around the mean: k − kᵀ (K + W⁻¹)⁻¹ k.
#[test]
fn draws_vary_as_the_posterior_does() {
    let made = Made::new(30);
    let mut process = process(2000);
    let learnt = process.condition(&made.pairs(), &made.observations(), true, &mut || false).unwrap();
    let (differences, covariance) = process.covariance(&made.pairs());
    let mode = Mode::find(&covariance, &made.observations(), None).unwrap();
    let drawn = differences.matmul(&process.weights.to_kind(Kind::Double));
    let mean = doubles(&drawn.mean_dim([1_i64].as_slice(), false, Kind::Double));
    let variance = doubles(&drawn.var_dim([1_i64].as_slice(), false, false));
    let expected = doubles(&(&covariance - covariance.matmul(&mode.inverse()).matmul(&covariance)).diagonal(0, 0, 1));
    for pair in 0..30 {
        assert!((mean[pair] - learnt.differences[pair]).abs() < 0.02 * (1.0 + mean[pair].abs()), "{pair}: mean");
        let ratio = variance[pair] / expected[pair];
        assert!((0.85..1.17).contains(&ratio), "{pair}: {ratio}");
    }
}
