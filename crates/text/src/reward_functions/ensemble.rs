//! Ensembles of reward models: several scores of a completion become one (Coste et al. 2024, "Reward model ensembles
//! help mitigate overoptimization").

/// How the scores of an ensemble become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Combination {
    /// Their mean.
    Mean,
    /// The lowest: worst-case optimisation.
    Minimum,
    /// Their mean minus λ times their variance (over n): uncertainty-weighted optimisation. λ is 0.1 in PPO and 0.5 in
    /// best of n there.
    MeanLessVariance(f64),
}

impl Combination {
    /// The score of each completion from the members' scores, one list for each member.
    pub fn combine(self, members: &[Vec<f32>]) -> Vec<f32> {
        let count = members.first().map_or(0, Vec::len);
        let n = members.len().max(1) as f64;
        let of = |i: usize| {
            let scores = || members.iter().map(|member| f64::from(member[i]));
            let mean = scores().sum::<f64>() / n;
            let combined = match self {
                Combination::Mean => mean,
                Combination::Minimum => scores().fold(f64::INFINITY, f64::min),
                Combination::MeanLessVariance(lambda) => {
                    mean - lambda * scores().map(|score| (score - mean).powi(2)).sum::<f64>() / n
                }
            };
            combined as f32
        };
        (0..count).map(of).collect()
    }
}

/// What brings a reward model's scores of some samples to mean 0 and standard deviation 1, so that members of an
/// ensemble can be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normaliser {
    mean: f64,
    inverse: f64,
}

impl Normaliser {
    /// The normaliser of these samples. Scores that do not vary are only shifted.
    pub fn new(samples: &[f32]) -> Normaliser {
        let n = samples.len().max(1) as f64;
        let mean = samples.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let std = (samples.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
        // Scores of equal samples may still differ by rounding.
        let inverse = if std <= 1e-6 * mean.abs().max(1e-6) { 1.0 } else { 1.0 / std };
        Normaliser { mean, inverse }
    }

    /// The scores, normalised.
    pub fn apply(self, scores: &[f32]) -> Vec<f32> {
        scores.iter().map(|&x| ((f64::from(x) - self.mean) * self.inverse) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_normalised_and_then_combined() {
        // The second member is the first in other units; the third disagrees.
        let members = [vec![1.0_f32, 2.0, 3.0], vec![110.0, 120.0, 130.0], vec![0.0, 3.0, 0.0]];
        let members: Vec<Vec<f32>> = members.iter().map(|m| Normaliser::new(m).apply(m)).collect();
        assert!(members[0].iter().zip(&members[1]).all(|(a, b)| (a - b).abs() < 1e-5), "{members:?}");
        let (low, high) = (-(1.5_f32.sqrt()), 2.0 / 2_f32.sqrt());
        let close = |got: Vec<f32>, expected: [f32; 3]| {
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-5), "{got:?} {expected:?}");
        };
        let third = -high / 2.0;
        let mean = [(2.0 * low + third) / 3.0, high / 3.0, (-2.0 * low + third) / 3.0];
        close(Combination::Mean.combine(&members), mean);
        close(Combination::Minimum.combine(&members), [low, 0.0, third]);
        let variance = |i: usize| members.iter().map(|m| (m[i] - mean[i]).powi(2)).sum::<f32>() / 3.0;
        let expected = [0, 1, 2].map(|i| mean[i] - 0.5 * variance(i));
        close(Combination::MeanLessVariance(0.5).combine(&members), expected);
        close(Normaliser::new(&[5.0; 4]).apply(&[5.0, 6.0, 4.0]), [0.0, 1.0, -1.0]);
    }
}
