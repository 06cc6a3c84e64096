//! The clipped losses, one number per element, so that the caller can mask and average as its batch needs: samples of a
//! rollout or tokens of a completion.

use tch::Tensor;

/// PPO's surrogate to be minimised, −min(r Â, clip(r, 1 − ε, 1 + ε) Â) with r = exp(log π − log π_old). It has the
/// shape of the inputs, which must agree. Schulman et al. 2017, equation 7.
pub fn clipped_objective(log_ratio: &Tensor, advantages: &Tensor, clip: f64) -> Tensor {
    clipped_objective_between(log_ratio, advantages, [clip, clip])
}

/// [`clipped_objective`] with a range of its own below 1 and above it, clip(r, 1 − ε_low, 1 + ε_high) (Yu et al. 2025,
/// DAPO's “clip-higher”).
pub fn clipped_objective_between(log_ratio: &Tensor, advantages: &Tensor, [low, high]: [f64; 2]) -> Tensor {
    let ratio = log_ratio.exp();
    let clipped = ratio.clamp(1.0 - low, 1.0 + high) * advantages;
    -(ratio * advantages).minimum(&clipped)
}

/// Half the squared error of the critic: the larger of the prediction's error and the error of the prediction clipped
/// to within ±`clip` of `old_values`. It has the shape of the inputs, which must agree. `clip` 0 means no clipping.
pub fn clipped_value_loss(values: &Tensor, old_values: &Tensor, returns: &Tensor, clip: f64) -> Tensor {
    let loss = (values - returns).square();
    match clip > 0.0 {
        true => {
            let held = old_values + (values - old_values).clamp(-clip, clip);
            loss.maximum(&(held - returns).square()) * 0.5
        }
        false => loss * 0.5,
    }
}

/// The share of the returns' variance that the predictions explain: 1 is perfect, 0 no better than their mean, below 0
/// worse. 0 where the returns do not vary.
pub fn explained_variance(predictions: &[f32], returns: &[f32]) -> f64 {
    let variance = |numbers: &mut dyn Iterator<Item = f64>| {
        let (mut count, mut mean, mut m2) = (0.0, 0.0, 0.0);
        for x in numbers {
            count += 1.0;
            let delta = x - mean;
            mean += delta / count;
            m2 += delta * (x - mean);
        }
        m2 / f64::max(count, 1.0)
    };
    let total = variance(&mut returns.iter().map(|&r| f64::from(r)));
    let residual = variance(&mut returns.iter().zip(predictions).map(|(&r, &p)| f64::from(r) - f64::from(p)));
    if total > 0.0 { 1.0 - residual / total } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adam::numbers;

    #[test]
    fn the_surrogate_is_flat_only_where_the_ratio_has_left_in_the_good_direction() {
        // Ratios 0.5, 1 and 2 with advantages of both signs; the paper's figure 1, by hand.
        let ln2 = std::f32::consts::LN_2;
        let log_ratio = Tensor::from_slice(&[-ln2, -ln2, 0.0, 0.0, ln2, ln2]);
        let advantages = Tensor::from_slice(&[3.0_f32, -3.0, 3.0, -3.0, 3.0, -3.0]);
        let loss = numbers(&clipped_objective(&log_ratio, &advantages, 0.2));
        let expected = [-1.5, 2.4, -3.0, 3.0, -3.6, 6.0];
        assert!(loss.iter().zip(expected).all(|(l, e)| (l - e).abs() < 1e-5), "{loss:?}");
        // A higher upper bound changes only what has left upwards with a good advantage.
        let loss = numbers(&clipped_objective_between(&log_ratio, &advantages, [0.2, 0.28]));
        let expected = [-1.5, 2.4, -3.0, 3.0, -3.84, 6.0];
        assert!(loss.iter().zip(expected).all(|(l, e)| (l - e).abs() < 1e-5), "{loss:?}");
    }

    #[test]
    fn the_value_loss_takes_the_worse_of_free_and_held() {
        let [values, old, returns] =
            [[1.0_f32, 1.0, 0.1], [0.0, 0.0, 0.0], [2.0, 0.0, 0.5]].map(|v| Tensor::from_slice(&v));
        // Unclipped errors are 1, 1, .4; clipped at ±.2 they are 1.8, .2, .4.
        let close = |loss: Tensor, expected: [f32; 3]| {
            assert!(numbers(&loss).iter().zip(expected).all(|(l, e)| (l - e).abs() < 1e-6), "{loss}");
        };
        close(clipped_value_loss(&values, &old, &returns, 0.2), [1.62, 0.5, 0.08]);
        close(clipped_value_loss(&values, &old, &returns, 0.0), [0.5, 0.5, 0.08]);
    }

    #[test]
    fn explained_variance_is_one_zero_or_negative() {
        let returns = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(explained_variance(&returns, &returns), 1.0);
        assert_eq!(explained_variance(&[7.0; 4], &returns), 0.0);
        assert_eq!(explained_variance(&[4.0, 3.0, 2.0, 1.0], &returns), -3.0);
        assert_eq!(explained_variance(&[1.0, 2.0], &[5.0, 5.0]), 0.0);
    }
}
