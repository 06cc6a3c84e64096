//! The Bradley–Terry likelihood of a judgement, and its loss: the same for robots and for text.
//!
//! With returns R of two items, the model says that a teacher prefers the left one with probability P = (1 − ε) ·
//! σ(R_left − R_right) + ε/2 (Bradley and Terry 1952). The share ε of uniformly random answers is from Christiano et
//! al. 2017, section 2.2.3. The loss of an answer with target μ (1 left, 0 right, ½ a tie) is −μ ln P − (1 − μ) ln(1 −
//! P), in nats.

use tch::Tensor;

/// P of each difference R_left − R_right, any shape.
pub fn preference_probability(difference: &Tensor, error_rate: f64) -> Tensor {
    difference.sigmoid() * (1.0 - error_rate) + 0.5 * error_rate
}

/// The loss of each answer in nats: `difference` R_left − R_right and `target` μ of one shape, or of shapes that
/// broadcast.
///
/// ln P is taken as ln(e^{ln(1 − ε) + ln σ(Δ)} + e^{ln(ε/2)}), so that neither it nor its gradient overflows, whatever
/// Δ and even at ε = 0.
pub fn preference_loss(difference: &Tensor, target: &Tensor, error_rate: f64) -> Tensor {
    let log_probability = |difference: &Tensor| {
        let chosen = difference.log_sigmoid() + (-error_rate).ln_1p();
        match error_rate > 0.0 {
            true => chosen.logaddexp(&Tensor::from((0.5 * error_rate).ln()).to_kind(chosen.kind())),
            false => chosen,
        }
    };
    let left = log_probability(difference);
    let right = log_probability(&difference.neg());
    // −μ ln P_left − (1 − μ) ln P_right
    target * (&right - left) - right
}

/// What is subtracted from R_left − R_right before the likelihood sees it, if the better item must be further ahead by
/// `margin` log-odds. The sign is the better side's; a tie has no better side and no margin.
pub fn signed_margin(target: f32, margin: f32) -> f32 {
    margin * (2.0 * target - 1.0)
}

/// How much an answer surprises a model that gave the left item the probability `left`: the loss minus its minimum for
/// this answer (0 for a pick, ln 2 for a tie), in nats. This is −ln P for a pick, and 0 for a tie between items that
/// the model considers equal.
pub fn surprise(left: f64, target: f64) -> f64 {
    let term = |weight: f64, p: f64| if weight > 0.0 { weight * (weight / p).ln() } else { 0.0 };
    term(target, left) + term(1.0 - target, 1.0 - left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn doubles(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn agrees_with_closed_forms() {
        // Returns that differ by ln 3 are preferred 3 : 1; with ε = .1, P = .9 · .75 + .05 = .725.
        let difference = Tensor::from_slice(&[3_f64.ln(), 0.0, 1e4, -1e4]);
        let close = |got: Tensor, expected: [f64; 4]| {
            for (got, expected) in doubles(&got).into_iter().zip(expected) {
                assert!((got - expected).abs() < 1e-12, "{got} instead of {expected}");
            }
        };
        close(preference_probability(&difference, 0.1), [0.725, 0.5, 0.95, 0.05]);
        close(preference_probability(&difference, 0.0), [0.75, 0.5, 1.0, 0.0]);
        let left = Tensor::from_slice(&[1.0, 1.0, 1.0, 1.0]);
        let ln2 = 2_f64.ln();
        close(preference_loss(&difference, &left, 0.1), [-0.725_f64.ln(), ln2, -0.95_f64.ln(), -0.05_f64.ln()]);
        close(preference_loss(&difference, &left, 0.0), [-0.75_f64.ln(), ln2, 0.0, 1e4]);
        close(
            preference_loss(&difference, &(1.0 - &left), 0.1),
            [-0.275_f64.ln(), ln2, -0.05_f64.ln(), -0.95_f64.ln()],
        );
        let tie = -0.5 * (0.725_f64.ln() + 0.275_f64.ln());
        let extreme = -0.5 * (0.05_f64.ln() + 0.95_f64.ln());
        close(preference_loss(&difference, &(&left * 0.5), 0.1), [tie, ln2, extreme, extreme]);
        // “Much better” by a margin of ln 3 cancels a lead of ln 3, and triples the odds against the worse side.
        assert!(
            [(1.0, 3.0), (0.0, -3.0), (0.5, 0.0)].iter().all(|&(target, margin)| signed_margin(target, 3.0) == margin)
        );
        let ahead = &difference - f64::from(signed_margin(1.0, 1.0)) * 3_f64.ln();
        close(preference_probability(&ahead, 0.0), [0.5, 0.25, 1.0, 0.0]);
        assert!((surprise(0.725, 1.0) + 0.725_f64.ln()).abs() < 1e-12);
        assert!((surprise(0.725, 0.0) + 0.275_f64.ln()).abs() < 1e-12);
        assert!((surprise(0.725, 0.5) - (tie - ln2)).abs() < 1e-12 && surprise(0.5, 0.5) == 0.0);
    }

    /// The losses that TRL 1.16 gives (`RewardTrainer.compute_loss`) for chosen minus rejected rewards of 0.7, −0.7, 3
    /// and 0 with margins of 0.5, 0, 1 and 2, whichever side was chosen.
    #[test]
    fn a_margin_costs_what_it_costs_in_trl() {
        let trl = [0.598_138_869_381_591_9, 1.103_186_048_885_458, 0.126_928_011_042_972_5, 2.126_928_011_042_972_7];
        for target in [1.0_f32, 0.0] {
            let side = f64::from(signed_margin(target, 1.0));
            let ahead = Tensor::from_slice(&[0.7 * side, -0.7 * side, 3.0 * side, 0.0]);
            let margins: Vec<f64> = [0.5, 0.0, 1.0, 2.0].map(|m| f64::from(signed_margin(target, m))).to_vec();
            let losses =
                preference_loss(&(ahead - Tensor::from_slice(&margins)), &Tensor::from(f64::from(target)), 0.0);
            for (got, expected) in doubles(&losses).into_iter().zip(trl) {
                assert!((got - expected).abs() < 1e-12, "{got} instead of {expected}");
            }
        }
    }

    #[test]
    fn the_gradient_is_the_finite_difference_and_stays_finite() {
        let at: Vec<f64> = vec![-30.0, -4.0, -0.7, 0.0, 0.3, 2.0, 30.0];
        for error_rate in [0.0, 0.1, 0.5] {
            for target in [0.0, 0.5, 1.0] {
                let total = |x: &Tensor| preference_loss(x, &Tensor::from(target).to_kind(Kind::Double), error_rate);
                let x = Tensor::from_slice(&at).set_requires_grad(true);
                total(&x).sum(Kind::Double).backward();
                let h = 1e-5;
                let up = doubles(&total(&(x.detach() + h)));
                let down = doubles(&total(&(x.detach() - h)));
                for (i, gradient) in doubles(&x.grad()).into_iter().enumerate() {
                    let numeric = (up[i] - down[i]) / (2.0 * h);
                    assert!(
                        (gradient - numeric).abs() < 1e-8,
                        "ε {error_rate} μ {target} Δ {}: {gradient} {numeric}",
                        at[i]
                    );
                }
                let x = Tensor::from_slice(&[-1e30_f64, 1e30]).set_requires_grad(true);
                total(&x).sum(Kind::Double).backward();
                assert!(doubles(&x.grad()).iter().all(|g| g.is_finite() && g.abs() <= 1.0));
            }
        }
    }
}
