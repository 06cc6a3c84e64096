//! Running statistics that scale observations to mean 0 and variance 1, and rewards to a return of variance 1.

use super::{LearnError, Reader};
use flipside_core::{Array, Arrays};

/// Normalised numbers are clipped to ± this.
pub(super) const CLIP: f32 = 10.0;
/// Added to a variance before the square root, as in Gymnasium's and Stable-Baselines3's wrappers.
pub(super) const EPS: f64 = 1e-8;

/// Mean and (population) variance of each column over all rows ever seen, in f64, by Chan, Golub and LeVeque's pairwise
/// update. Before the first row the mean is 0 and the variance 1.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningNorm {
    count: f64,
    mean: Vec<f64>,
    /// Sums of squared deviations.
    m2: Vec<f64>,
}

impl RunningNorm {
    /// Statistics of rows of this width, before any row.
    pub fn new(width: usize) -> RunningNorm {
        RunningNorm { count: 0.0, mean: vec![0.0; width], m2: vec![0.0; width] }
    }

    /// Rows seen.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// The mean of each column.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The variance of each column.
    pub fn var(&self) -> Vec<f64> {
        match self.count > 0.0 {
            true => self.m2.iter().map(|m2| m2 / self.count).collect(),
            false => vec![1.0; self.m2.len()],
        }
    }

    /// Updates the statistics with `[n, width]` numbers.
    pub fn absorb(&mut self, rows: &[f32]) {
        let width = self.mean.len();
        let n = (rows.len() / width) as f64;
        if n == 0.0 {
            return;
        }
        let (mut mean, mut m2) = (vec![0.0; width], vec![0.0; width]);
        for row in rows.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) / n);
        }
        for row in rows.chunks_exact(width) {
            m2.iter_mut().zip(&mean).zip(row).for_each(|((m2, mean), &x)| *m2 += (f64::from(x) - mean).powi(2));
        }
        let total = self.count + n;
        for i in 0..width {
            let delta = mean[i] - self.mean[i];
            self.mean[i] += delta * n / total;
            self.m2[i] += m2[i] + delta * delta * self.count * n / total;
        }
        self.count = total;
    }

    /// (x − mean)/√(var + 1e-8), clipped to ±10, of `[n, width]` numbers. NaN stays NaN.
    pub fn normalise(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; rows.len()];
        Standard::new(&self.mean, &self.var()).apply(rows, &mut out, self.mean.len());
        out
    }

    /// Adds `prefix_count`, `prefix_mean` and `prefix_var` (f64), and the sums `prefix_m2` that the variance is
    /// computed from. A resumed run needs these to be the same to the last bit.
    pub fn to_arrays(&self, prefix: &str, arrays: &mut Arrays) {
        let width = self.mean.len();
        arrays.insert(format!("{prefix}_count"), Array::f64(&[1], vec![self.count]));
        arrays.insert(format!("{prefix}_mean"), Array::f64(&[width], self.mean.clone()));
        arrays.insert(format!("{prefix}_var"), Array::f64(&[width], self.var()));
        arrays.insert(format!("{prefix}_m2"), Array::f64(&[width], self.m2.clone()));
    }

    /// The statistics that [`RunningNorm::to_arrays`] saved.
    pub fn from_arrays(prefix: &str, width: usize, arrays: Reader) -> Result<RunningNorm, LearnError> {
        Ok(RunningNorm {
            count: arrays.f64(&format!("{prefix}_count"), &[1])?[0],
            mean: arrays.f64(&format!("{prefix}_mean"), &[width])?.to_vec(),
            m2: arrays.f64(&format!("{prefix}_m2"), &[width])?.to_vec(),
        })
    }
}

/// (x − mean)/√(var + 1e-8), clipped to ±10, in single precision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standard {
    /// For each column: what is subtracted, and what the difference is multiplied by.
    columns: Vec<[f32; 2]>,
}

impl Standard {
    /// For columns of this mean and variance.
    pub fn new(mean: &[f64], var: &[f64]) -> Standard {
        let column = |(&mean, &var): (&f64, &f64)| [mean as f32, (1.0 / (var + EPS).sqrt()) as f32];
        Standard { columns: mean.iter().zip(var).map(column).collect() }
    }

    /// Mean and inverse standard deviation of each column.
    pub fn columns(&self) -> &[[f32; 2]] {
        &self.columns
    }

    /// Normalises `[n, width]` numbers into rows that are `stride` apart. The gaps between rows stay unchanged.
    pub fn apply(&self, rows: &[f32], out: &mut [f32], stride: usize) {
        for (row, out) in rows.chunks_exact(self.columns.len()).zip(out.chunks_mut(stride)) {
            for ((x, out), [mean, scale]) in row.iter().zip(out).zip(&self.columns) {
                *out = hold((x - mean) * scale);
            }
        }
    }
}

/// Scales numbers to (population) standard deviation 1 and, with `shift`, to mean 0. Without `shift` they keep their
/// mean, as rewards do in lm-human-preferences (Ziegler et al. 2019).
pub fn whiten(numbers: &[f32], shift: bool) -> Vec<f32> {
    let n = numbers.len() as f64;
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let var = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let (scale, centre) = (1.0 / (var.sqrt() + 1e-8), if shift { 0.0 } else { mean });
    numbers.iter().map(|&x| ((f64::from(x) - mean) * scale + centre) as f32).collect()
}

fn hold(x: f32) -> f32 {
    // Not `clamp` or `max`/`min`: comparisons leave NaN as it is and still vectorise.
    let x = if x > CLIP { CLIP } else { x };
    if x < -CLIP { -CLIP } else { x }
}

/// Divides rewards by the standard deviation of the running discounted return R ← γR + r of each world (Engstrom et al.
/// 2020; `VecNormalize` in Stable-Baselines3). The critic's targets are then of order 1 whatever the size of the
/// rewards.
///
/// A whole rollout has one divisor: the rollout first updates the statistics, then it is scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardScale {
    gamma: f64,
    statistics: RunningNorm,
    /// R of each world, `[N]`.
    returns: Vec<f64>,
}

impl RewardScale {
    /// A scale before any reward.
    pub fn new(gamma: f64) -> RewardScale {
        RewardScale { gamma, statistics: RunningNorm::new(1), returns: Vec::new() }
    }

    /// Updates the statistics with `[T, N]` rewards. `ended` says after which steps a world's episode was over,
    /// terminated or truncated. If the number of worlds changes, the running returns start from 0.
    pub fn absorb(&mut self, rewards: &[f32], ended: impl Fn(usize) -> bool, worlds: usize) {
        if self.returns.len() != worlds {
            self.returns = vec![0.0; worlds];
        }
        let mut row = vec![0.0; worlds];
        for (t, rewards) in rewards.chunks_exact(worlds).enumerate() {
            for (world, &reward) in rewards.iter().enumerate() {
                let running = &mut self.returns[world];
                *running = *running * self.gamma + f64::from(reward);
                row[world] = *running as f32;
                if ended(t * worlds + world) {
                    *running = 0.0;
                }
            }
            self.statistics.absorb(&row);
        }
    }

    /// The divisor of rewards.
    pub fn divisor(&self) -> f64 {
        (self.statistics.var()[0] + EPS).sqrt()
    }

    /// The rewards divided by the divisor, clipped to ±10.
    pub fn scale(&self, rewards: &[f32]) -> Vec<f32> {
        let factor = (1.0 / self.divisor()) as f32;
        rewards.iter().map(|r| hold(r * factor)).collect()
    }

    /// Adds `prefix_count`, `_mean`, `_var`, `_m2` and `prefix_returns`.
    pub fn to_arrays(&self, prefix: &str, arrays: &mut Arrays) {
        self.statistics.to_arrays(prefix, arrays);
        arrays.insert(format!("{prefix}_returns"), Array::f64(&[self.returns.len()], self.returns.clone()));
    }

    /// What [`RewardScale::to_arrays`] saved.
    pub fn from_arrays(prefix: &str, gamma: f64, arrays: Reader) -> Result<RewardScale, LearnError> {
        let name = format!("{prefix}_returns");
        let returns = arrays.f64(&name, arrays.shape(&name)?)?.to_vec();
        Ok(RewardScale { gamma, statistics: RunningNorm::from_arrays(prefix, 1, arrays)?, returns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use rand::RngExt;

    #[test]
    fn running_statistics_are_those_of_all_rows_at_once() {
        let mut stream = Seed(2).stream("norm");
        // A naive sum of squares loses precision if the mean is far from 0 and the spread small.
        let rows: Vec<f32> =
            (0..3000).map(|i| if i % 3 == 0 { 1000.0 } else { 0.0 } + stream.random_range(-0.1..0.1)).collect();
        let mut norm = RunningNorm::new(3);
        assert_eq!((norm.mean(), norm.var()), (&[0.0; 3][..], vec![1.0; 3]));
        for part in [&rows[..3], &rows[3..300], &rows[300..300], &rows[300..]] {
            norm.absorb(part);
        }
        for column in 0..3 {
            let numbers: Vec<f64> = rows.iter().skip(column).step_by(3).map(|&x| f64::from(x)).collect();
            let mean = numbers.iter().sum::<f64>() / 1000.0;
            let var = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1000.0;
            assert!((norm.mean()[column] - mean).abs() < 1e-9);
            assert!((norm.var()[column] - var).abs() < 1e-9 * var.max(1.0), "{} {var}", norm.var()[column]);
        }
        let row = norm.normalise(&[1e9, f32::NAN, -1e9]);
        assert_eq!((row[0], row[1].is_nan(), row[2]), (10.0, true, -10.0));
    }

    #[test]
    fn whitening_agrees_with_the_published_numbers() {
        // The check vector of "The N implementation details of RLHF with PPO" (Huang et al. 2024).
        let numbers: Vec<f32> = (12..21).map(|i| i as f32 / 10.0).collect();
        let expected = [0.0508, 0.4381, 0.8254, 1.2127, 1.6, 1.9873, 2.3746, 2.7619, 3.1492];
        for (got, expected) in whiten(&numbers, false).iter().zip(expected) {
            assert!((got - expected).abs() < 5e-5, "{got} {expected}");
        }
        for (got, expected) in whiten(&numbers, true).iter().zip(expected) {
            assert!((got - (expected - 1.6)).abs() < 5e-5, "{got} {expected}");
        }
        assert!(whiten(&[3.0; 4], true).iter().all(|&x| x == 0.0) && whiten(&[], true).is_empty());
    }

    #[test]
    fn scaled_rewards_give_returns_of_variance_one() {
        let (worlds, steps, gamma) = (8, 4000, 0.9_f64);
        let mut stream = Seed(4).stream("scale");
        let rewards: Vec<f32> = (0..worlds * steps).map(|_| stream.random_range(-3.0..3.0)).collect();
        let mut scale = RewardScale::new(gamma);
        scale.absorb(&rewards, |_| false, worlds);
        // Independent rewards of variance s² have a discounted return of variance s²/(1 − γ²).
        let expected = (3.0 / (1.0 - gamma * gamma)).sqrt();
        assert!((scale.divisor() / expected - 1.0).abs() < 0.03, "{} {expected}", scale.divisor());
        // Episodes of one step: the return is the reward.
        let mut scale = RewardScale::new(gamma);
        scale.absorb(&rewards, |_| true, worlds);
        assert!((scale.divisor() / 3.0_f64.sqrt() - 1.0).abs() < 0.03, "{}", scale.divisor());
    }
}
