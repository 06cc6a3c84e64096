//! Summarises the few seeds of a benchmark: the interquartile mean and a bootstrap interval around it (Agarwal et al.
//! 2021, "Deep reinforcement learning at the edge of the statistical precipice").

use flipside_core::Stream;
use rand::RngExt;
use serde::Serialize;

/// A mean and its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The interquartile mean: the mean of the middle half.
    pub iqm: f64,
    /// The lower end of the interval. In 95 of 100 resamplings of the runs, the interquartile mean lies between `low`
    /// and `high`.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

/// Number of resamplings for an interval.
const RESAMPLINGS: usize = 2_000;

impl Interval {
    /// The interval of one or more runs, resampled from `stream`; `None` if there are none.
    pub fn of(runs: &[f64], stream: &mut Stream) -> Option<Interval> {
        if runs.is_empty() {
            return None;
        }
        let mut means: Vec<f64> = (0..RESAMPLINGS)
            .map(|_| interquartile_mean((0..runs.len()).map(|_| runs[stream.random_range(0..runs.len())]).collect()))
            .collect();
        means.sort_by(f64::total_cmp);
        let at = |share: f64| means[(share * (RESAMPLINGS - 1) as f64).round() as usize];
        Some(Interval { iqm: interquartile_mean(runs.to_vec()), low: at(0.025), high: at(0.975) })
    }
}

/// The mean without the lowest and the highest quarter of the numbers. A number that a cut goes through counts in part.
fn interquartile_mean(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let n = numbers.len() as f64;
    let (from, to) = (0.25 * n, 0.75 * n);
    let share = |i: usize| ((i + 1) as f64).min(to) - (i as f64).max(from);
    numbers.iter().enumerate().map(|(i, x)| x * share(i).max(0.0)).sum::<f64>() / (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn outliers_do_not_move_the_mean_and_parts_count_as_parts() {
        assert_eq!(interquartile_mean(vec![3.0]), 3.0);
        assert_eq!(interquartile_mean(vec![-1e9, 1.0, 2.0, 1e9]), 1.5);
        // The middle 2.5 of five numbers: the third counts fully, the second and the fourth by three quarters.
        assert_eq!(interquartile_mean(vec![9.0, 1.0, 2.0, 4.0, 0.0]), (0.75 * 1.0 + 2.0 + 0.75 * 4.0) / 2.5);
    }

    /// For normally distributed runs, the interval contains the true mean about as often as it claims. A bootstrap of
    /// 20 runs is known to be a little narrow.
    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let mut stream = Seed(1).stream("runs");
        let held = (0..200).filter(|_| {
            let runs: Vec<f64> =
                (0..20).map(|_| 7.0 + Distribution::<f64>::sample(&StandardNormal, &mut stream)).collect();
            let interval = Interval::of(&runs, &mut stream).unwrap();
            interval.low <= 7.0 && 7.0 <= interval.high
        });
        let held = held.count();
        assert!((172..=198).contains(&held), "{held} of 200");
        assert_eq!(Interval::of(&[], &mut stream), None);
    }
}
