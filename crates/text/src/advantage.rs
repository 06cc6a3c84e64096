//! What completions are worth beside others, without a critic: advantages of groups (RLOO, GRPO and their variants) and
//! of whole batches (REINFORCE++). A group is the completions of one prompt. A completion without a score counts in no
//! mean and has the advantage 0.

use flipside_core::settings::TextAdvantage;

/// Added to the standard deviation of a group, as in TRL.
const EPS: f64 = 1e-4;

/// A group whose scores have at most this standard deviation teaches nothing.
const EQUAL: f64 = 1e-6;

/// Mean, standard deviation (over n − 1) and number of the scores that there are.
fn moments(scores: &[Option<f64>]) -> (f64, f64, usize) {
    let known = || scores.iter().flatten();
    let count = known().count();
    let mean = known().sum::<f64>() / count.max(1) as f64;
    let variance = known().map(|score| (score - mean).powi(2)).sum::<f64>() / count.saturating_sub(1).max(1) as f64;
    (mean, variance.sqrt(), count)
}

/// Whether the completions of a group all have the same score, up to rounding, or at most one has a score.
pub(super) fn is_equal(scores: &[Option<f64>]) -> bool {
    moments(scores).1 <= EQUAL
}

/// The advantage of each completion of a group, from their rewards. [`TextAdvantage::BatchBaseline`] is not yet
/// whitened. A completion that has no other beside it has the advantage 0.
pub(super) fn of_group(advantage: TextAdvantage, rewards: &[Option<f64>]) -> Vec<f64> {
    let (mean, std, count) = moments(rewards);
    let scale = match advantage {
        _ if count < 2 => 0.0,
        // G/(G − 1) · (R − mean) is R minus the mean of the others.
        TextAdvantage::Rloo => count as f64 / (count - 1) as f64,
        TextAdvantage::GroupStd if std <= EQUAL => 0.0,
        TextAdvantage::GroupStd => 1.0 / (std + EPS),
        _ => 1.0,
    };
    rewards.iter().map(|reward| reward.map_or(0.0, |reward| (reward - mean) * scale)).collect()
}

/// The discounted sum of the rewards from each token on.
pub(super) fn returns_to_go(rewards: &[f32], gamma: f64) -> Vec<f32> {
    let mut sum = 0.0;
    let mut returns: Vec<f32> = rewards
        .iter()
        .rev()
        .map(|&reward| {
            sum = f64::from(reward) + gamma * sum;
            sum as f32
        })
        .collect();
    returns.reverse();
    returns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(advantage: TextAdvantage, rewards: &[Option<f64>], expected: &[f64]) {
        for (got, expected) in of_group(advantage, rewards).into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{advantage:?} of {rewards:?}: {got} instead of {expected}");
        }
    }

    /// Computed in double precision from the published formulas, with ε = 1e-4 as in TRL.
    #[test]
    fn groups_have_the_advantages_of_the_published_methods() {
        let [two, one] = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]].map(|rewards| rewards.map(Some));
        close(TextAdvantage::GroupStd, &two, &[0.865_875, -0.865_875, -0.865_875, 0.865_875]);
        close(TextAdvantage::GroupStd, &one, &[-0.4999, -0.4999, -0.4999, 1.4997]);
        close(TextAdvantage::Rloo, &two, &[0.666_667, -0.666_667, -0.666_667, 0.666_667]);
        close(TextAdvantage::Rloo, &one, &[-1.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0, 1.0]);
        close(TextAdvantage::Group, &one, &[-0.25, -0.25, -0.25, 0.75]);
        // Without a score: out of the mean and the deviation, advantage 0.
        close(TextAdvantage::Rloo, &[Some(1.0), None, Some(0.0), Some(0.5)], &[0.75, 0.0, -0.75, 0.0]);
        for advantage in [TextAdvantage::Rloo, TextAdvantage::Group, TextAdvantage::GroupStd] {
            close(advantage, &[Some(3.0), None], &[0.0, 0.0]);
            close(advantage, &[None, None], &[0.0, 0.0]);
        }
    }

    #[test]
    fn a_group_is_equal_by_its_deviation_as_a_whole() {
        // Scores that differ only by rounding, far from 0: leave-one-out means or a ratio to the mean would differ.
        let nearly = [0.1_f32 + 0.2, 0.3].map(|score| Some(f64::from(score)));
        assert!(is_equal(&nearly) && is_equal(&[Some(1e6); 4]) && is_equal(&[None, Some(2.0), None]));
        assert!(!is_equal(&[Some(0.0), Some(0.0), Some(1e-3)]));
        close(TextAdvantage::GroupStd, &[Some(0.7), Some(0.7 + 1e-7)], &[0.0, 0.0]);
        assert_eq!(returns_to_go(&[1.0, 2.0, 4.0], 0.5), [3.0, 4.0, 4.0]);
    }
}
