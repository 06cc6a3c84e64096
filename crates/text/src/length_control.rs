//! The win rate that a policy would have if its summaries were as long as the references (Stiennon et al. 2020,
//! appendix F). Judges like longer summaries, so a policy can win by length alone.

use std::fmt;

/// One comparison of a policy's summary with the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// 1 if the policy's summary wins, 0 if the reference does, ½ for a tie.
    pub win: f64,
    /// ln(length of the policy's summary / length of the reference), in tokens.
    pub log_ratio: f64,
}

/// Win rates at equal length, from one regression over several policies.
#[derive(Clone, Debug, PartialEq)]
pub struct LengthControl {
    /// Of each policy, in the order given.
    pub policies: Vec<ControlledRate>,
    /// b: by how much the log-odds of winning rise when a summary becomes e times as long.
    pub slope: f64,
}

/// The win rate of one policy at equal length, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ControlledRate {
    /// σ(a), with a the policy's log-odds of winning at a length ratio of 1.
    pub win_rate: f64,
    /// The lower end of a 95 % interval: σ(a − 1.96 standard errors).
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl fmt::Display for ControlledRate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:.1} % ({:.1}–{:.1})", 100.0 * self.win_rate, 100.0 * self.low, 100.0 * self.high)
    }
}

/// Precision of the normal prior on each coefficient. It is too weak to matter, except where the data alone have no
/// optimum: if a policy always wins, or all length ratios are the same.
const PRIOR: f64 = 1e-6;

/// Newton steps at most. From 0, a dozen are enough.
const STEPS: usize = 100;

impl LengthControl {
    /// Fits P(policy k wins) = σ(aₖ + b · log_ratio) by maximum likelihood. Each policy has its own aₖ; all share b.
    /// `None` if there is no outcome, or one that is not a number.
    pub fn fit(policies: &[Vec<Outcome>]) -> Option<LengthControl> {
        let all = || policies.iter().enumerate().flat_map(|(k, outcomes)| outcomes.iter().map(move |o| (k, o)));
        let finite = |(_, o): (usize, &Outcome)| o.win.is_finite() && o.log_ratio.is_finite();
        if all().next().is_none() || !all().all(finite) {
            return None;
        }
        let size = policies.len() + 1;
        let odds = |c: &[f64], k: usize, o: &Outcome| c[k] + c[size - 1] * o.log_ratio;
        let loss = |c: &[f64]| {
            // −ln σ of the winner, weighted for ties.
            let of = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
            let data: f64 = all().map(|(k, o)| of(odds(c, k, o)) - o.win * odds(c, k, o)).sum();
            data + 0.5 * PRIOR * c.iter().map(|c| c * c).sum::<f64>()
        };
        let mut coefficients = vec![0.0; size];
        let mut covariance = diagonal(size, 1.0);
        for _ in 0..STEPS {
            let mut gradient: Vec<f64> = coefficients.iter().map(|c| PRIOR * c).collect();
            let mut hessian = diagonal(size, PRIOR);
            for (k, o) in all() {
                let p = 1.0 / (1.0 + (-odds(&coefficients, k, o)).exp());
                let (error, weight) = (p - o.win, p * (1.0 - p));
                for (i, x) in [(k, 1.0), (size - 1, o.log_ratio)] {
                    gradient[i] += error * x;
                    for (j, y) in [(k, 1.0), (size - 1, o.log_ratio)] {
                        hessian[i][j] += weight * x * y;
                    }
                }
            }
            covariance = inverse(hessian)?;
            let step: Vec<f64> = covariance.iter().map(|row| dot(row, &gradient)).collect();
            // Newton's method may step too far where a policy nearly always wins.
            let before = loss(&coefficients);
            let mut size_of_step = 1.0;
            let next = loop {
                let moved = coefficients.iter().zip(&step).map(|(c, s)| c - size_of_step * s);
                let moved: Vec<f64> = moved.collect();
                if loss(&moved) <= before || size_of_step < 1e-9 {
                    break moved;
                }
                size_of_step /= 2.0;
            };
            let moved = coefficients.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            coefficients = next;
            if moved < 1e-12 {
                break;
            }
        }
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let rate = |k: usize| {
            let (a, error) = (coefficients[k], covariance[k][k].max(0.0).sqrt());
            ControlledRate { win_rate: sigmoid(a), low: sigmoid(a - 1.96 * error), high: sigmoid(a + 1.96 * error) }
        };
        Some(LengthControl { policies: (0..policies.len()).map(rate).collect(), slope: coefficients[size - 1] })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn diagonal(size: usize, value: f64) -> Vec<Vec<f64>> {
    (0..size).map(|i| (0..size).map(|j| if i == j { value } else { 0.0 }).collect()).collect()
}

/// The inverse of a symmetric positive definite matrix, by Gauss–Jordan elimination; `None` if it has none.
fn inverse(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let size = matrix.len();
    let mut inverse = diagonal(size, 1.0);
    for column in 0..size {
        let pivot = (column..size).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        matrix.swap(column, pivot);
        inverse.swap(column, pivot);
        let scale = matrix[column][column];
        if !scale.is_finite() || scale == 0.0 {
            return None;
        }
        for all in [&mut matrix, &mut inverse] {
            all[column].iter_mut().for_each(|x| *x /= scale);
        }
        for row in (0..size).filter(|&row| row != column) {
            let factor = matrix[row][column];
            for all in [&mut matrix, &mut inverse] {
                let pivot = all[column].clone();
                all[row].iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic outcomes of two policies, without a random generator, so that another program can repeat them.
    fn outcomes() -> Vec<Vec<Outcome>> {
        let policy = |k: usize, n: usize| {
            let one = |i: usize| {
                let log_ratio = ((i * 37 + k * 11) % 41) as f64 / 20.0 - 1.0 + 0.3 * k as f64;
                let win = ((i * 29 + k * 7) % 10) as f64 / 10.0 < 0.35 + 0.15 * k as f64 + 0.2 * log_ratio;
                let win = if i.is_multiple_of(17) { 0.5 } else { f64::from(u8::from(win)) };
                Outcome { win, log_ratio }
            };
            (0..n).map(one).collect()
        };
        vec![policy(0, 120), policy(1, 90)]
    }

    #[test]
    fn the_fit_is_that_of_another_program() {
        let fit = LengthControl::fit(&outcomes()).unwrap();
        // By iteratively reweighted least squares in NumPy 2.4.6 on the same outcomes.
        let slope = -0.180174747;
        let expected = [[0.408736650, 0.324381761, 0.498831544], [0.458189587, 0.352710572, 0.567554264]];
        assert!((fit.slope - slope).abs() < 1e-6, "{}", fit.slope);
        for (found, expected) in fit.policies.iter().zip(expected) {
            for (found, expected) in [found.win_rate, found.low, found.high].into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{fit:?}");
            }
        }
    }

    #[test]
    fn length_alone_is_no_merit_and_what_has_no_optimum_is_bounded() {
        // Whoever is longer wins, and each side is longer equally often: at equal length nobody is better.
        let mirrored = (1..=40).flat_map(|i| [(f64::from(i) / 20.0, 1.0), (-f64::from(i) / 20.0, 0.0)]);
        let noise = [(0.5, 0.0), (-0.5, 1.0)];
        let all = mirrored.chain(noise).map(|(log_ratio, win)| Outcome { win, log_ratio }).collect();
        let fit = LengthControl::fit(&[all]).unwrap();
        assert!((fit.policies[0].win_rate - 0.5).abs() < 1e-9 && fit.slope > 1.0, "{fit:?}");
        let wins = vec![Outcome { win: 1.0, log_ratio: 0.0 }; 20];
        let losses = vec![Outcome { win: 0.0, log_ratio: 0.0 }; 20];
        let fit = LengthControl::fit(&[wins, losses]).unwrap();
        assert!(fit.policies[0].win_rate > 0.99 && fit.policies[1].win_rate < 0.01, "{fit:?}");
        assert_eq!(LengthControl::fit(&[vec![]]), None);
        assert_eq!(LengthControl::fit(&[vec![Outcome { win: 1.0, log_ratio: f64::NAN }]]), None);
    }
}
