//! The losses of [`TextPreference`](super::TextPreference), one formula each, on the log-probabilities of whole
//! completions.

use flipside_core::settings::{PreferenceLoss, TextPreferenceSettings};
use tch::{Kind, Tensor};

/// What the loss of a pair is computed from. Every tensor is `[B]`, one number for each pair; of two, the first is the
/// left completion's.
pub(super) struct PairTerms {
    /// log π of a completion, summed over its tokens, nats.
    pub log_probs: [Tensor; 2],
    /// log π_ref; zeros for a loss without a reference.
    pub reference: [Tensor; 2],
    /// Tokens of a completion, 1 or more.
    pub lengths: [Tensor; 2],
    /// The probability that the left completion is better.
    pub target: Tensor,
    /// How much further ahead the left one must be, in log-odds; below 0 for the right one.
    pub margin: Tensor,
}

/// The loss of each pair, `[B]`, and how far the left completion is ahead in the loss's own measure, times β, `[B]`.
///
/// Every loss is a function f of the lead h of the better completion. With a probability t that the left one is better,
/// it is t f(h) + (1 − t) f(−h), which covers ties and soft labels.
pub(super) fn pair_losses(settings: &TextPreferenceSettings, terms: &PairTerms) -> (Tensor, Tensor) {
    let (loss, beta) = (settings.loss, settings.beta());
    let per_token = match loss {
        PreferenceLoss::LengthNormalised | PreferenceLoss::Simpo | PreferenceLoss::Orpo => true,
        PreferenceLoss::Ipo => !settings.ipo_sum,
        _ => false,
    };
    let [left, right] = [0, 1].map(|side| {
        let ratio = &terms.log_probs[side] - &terms.reference[side];
        let ratio = if per_token { ratio / &terms.lengths[side] } else { ratio };
        if loss == PreferenceLoss::Orpo { log_odds(&ratio) } else { ratio }
    });
    let lead = left - right;
    let log_odds = &lead * beta - &terms.margin;
    let f = |sign: f64| match loss {
        PreferenceLoss::Sigmoid
        | PreferenceLoss::LengthNormalised
        | PreferenceLoss::ReferenceFree
        | PreferenceLoss::Kto => surprise(&(&log_odds * sign)),
        PreferenceLoss::Hinge => (1.0_f64 - &log_odds * sign).relu(),
        PreferenceLoss::Ipo => (&lead * sign - 0.5 / beta).square(),
        PreferenceLoss::Robust => {
            let wrong = settings.label_smoothing;
            let (ahead, behind) = (surprise(&(&log_odds * sign)), surprise(&(&log_odds * -sign)));
            (ahead * (1.0 - wrong) - behind * wrong) / (1.0 - 2.0 * wrong)
        }
        PreferenceLoss::Cdpo => {
            let wrong = settings.label_smoothing;
            surprise(&(&log_odds * sign)) * (1.0 - wrong) + surprise(&(&log_odds * -sign)) * wrong
        }
        PreferenceLoss::Simpo => surprise(&(&log_odds * sign - settings.gamma_beta_ratio * beta)),
        PreferenceLoss::Orpo => surprise(&(&lead * sign)) * beta,
    };
    let either = |left: &Tensor, right: &Tensor| &terms.target * left + (1.0 - &terms.target) * right;
    let mut losses = either(&f(1.0), &f(-1.0));
    let nll_weight = settings.nll_weight + if loss == PreferenceLoss::Orpo { 1.0 } else { 0.0 };
    if nll_weight > 0.0 {
        let [left, right] = [0, 1].map(|side| &terms.log_probs[side] / &terms.lengths[side]);
        losses -= either(&left, &right) * nll_weight;
    }
    (losses, lead * beta)
}

/// KTO's loss of each completion, `[B]`. `log_ratios` are the completions' log π − log π_ref, `good` is 1 for a good
/// one and 0 for a bad one, and `baseline` is the log-ratio of completions that belong to other prompts.
pub(super) fn kto_losses(
    settings: &TextPreferenceSettings,
    log_ratios: &Tensor,
    good: &Tensor,
    baseline: f64,
) -> Tensor {
    let ahead = (log_ratios - baseline) * settings.beta();
    let [good_loss, bad_loss] = [ahead.neg().sigmoid(), ahead.sigmoid()];
    good * good_loss * settings.desirable_weight + (1.0 - good) * bad_loss * settings.undesirable_weight
}

/// −log σ(x).
fn surprise(x: &Tensor) -> Tensor {
    -x.log_sigmoid()
}

/// log p − log(1 − p) of log p. Where p is 1 up to rounding, it is that of the next smaller number, so that neither it
/// nor its gradient is infinite.
fn log_odds(log_p: &Tensor) -> Tensor {
    let smallest = if log_p.kind() == Kind::Double { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let log_p = log_p.clamp_max(-smallest);
    &log_p - log_p.expm1().neg().log()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(loss: PreferenceLoss, target: f64) -> PairTerms {
        let one = |x: f64| Tensor::from_slice(&[x]);
        let reference = if loss.has_reference() { [-11.0, -13.0] } else { [0.0, 0.0] };
        PairTerms {
            log_probs: [one(-10.0), one(-14.0)],
            reference: reference.map(one),
            lengths: [one(4.0), one(5.0)],
            target: one(target),
            margin: one(0.0),
        }
    }

    fn with(loss: PreferenceLoss) -> TextPreferenceSettings {
        TextPreferenceSettings { loss, ..TextPreferenceSettings::default() }
    }

    fn value(settings: &TextPreferenceSettings, target: f64) -> f64 {
        pair_losses(settings, &terms(settings.loss, target)).0.double_value(&[0])
    }

    /// Values that were computed by hand in double precision: log π of −10 and −14 nats, log π_ref of −11 and −13, 4
    /// and 5 tokens, β = 0.1, ε = 0.1.
    #[test]
    fn losses_have_the_published_values() {
        let ipo_sum = TextPreferenceSettings { ipo_sum: true, ..with(PreferenceLoss::Ipo) };
        let base = 10.0 / 4.0;
        for (settings, expected) in [
            (with(PreferenceLoss::Sigmoid), 0.598139),
            (with(PreferenceLoss::Hinge), 0.8),
            (with(PreferenceLoss::Ipo), 20.7025),
            (ipo_sum, 9.0),
            (with(PreferenceLoss::Cdpo), 0.618139),
            (with(PreferenceLoss::Robust), 0.573139),
            (with(PreferenceLoss::LengthNormalised), 0.670900),
            (with(PreferenceLoss::ReferenceFree), 0.513015),
            (with(PreferenceLoss::Simpo), 0.913015),
            // The likelihood of the better completion, 2.5 nats a token, comes before the second term.
            (with(PreferenceLoss::Orpo), base + 0.054467),
            (TextPreferenceSettings { nll_weight: 0.2, ..with(PreferenceLoss::Sigmoid) }, 0.598139 + 0.2 * base),
        ] {
            let found = value(&settings, 1.0);
            assert!((found - expected).abs() < 5e-7, "{:?}: {found} {expected}", settings.loss);
        }
        let kto = |ratio: f64, good: f64| {
            let one = |x: f64| Tensor::from_slice(&[x]);
            kto_losses(&with(PreferenceLoss::Kto), &one(ratio), &one(good), 0.5).double_value(&[0])
        };
        assert!((kto(1.0, 1.0) - 0.487503).abs() < 5e-7 && (kto(-1.0, 0.0) - 0.462570).abs() < 5e-7);
    }

    #[test]
    fn a_label_between_mixes_both_answers() {
        for loss in PreferenceLoss::ALL {
            let settings = TextPreferenceSettings { nll_weight: 0.3, ..with(loss) };
            let [left, right, between] = [1.0, 0.0, 0.3].map(|target| value(&settings, target));
            assert!((between - (0.3 * left + 0.7 * right)).abs() < 1e-12, "{loss:?}");
        }
        // cDPO is the sigmoid loss with a softer label, and robust DPO undoes what turned answers do to it.
        let [cdpo, robust] = [PreferenceLoss::Cdpo, PreferenceLoss::Robust].map(|loss| value(&with(loss), 1.0));
        let sigmoid = |target| value(&with(PreferenceLoss::Sigmoid), target);
        assert!((cdpo - sigmoid(0.9)).abs() < 1e-12);
        let turned = value(&with(PreferenceLoss::Robust), 0.0);
        assert!((0.9 * robust + 0.1 * turned - sigmoid(1.0)).abs() < 1e-12);
        // A margin takes the place of that much log-odds.
        let sigmoid = with(PreferenceLoss::Sigmoid);
        let ahead = PairTerms { margin: Tensor::from_slice(&[0.2]), ..terms(PreferenceLoss::Sigmoid, 1.0) };
        assert!((pair_losses(&sigmoid, &ahead).0.double_value(&[0]) - 2_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn certain_completions_have_finite_odds() {
        let log_p = Tensor::from_slice(&[0.0_f32, -1e-12, -1e-3, -50.0]).set_requires_grad(true);
        let odds = log_odds(&log_p);
        odds.sum(Kind::Float).backward();
        let [values, slopes] = [odds, log_p.grad()].map(|t| Vec::<f32>::try_from(t).unwrap());
        assert!(values.iter().chain(&slopes).all(|x| x.is_finite()), "{values:?} {slopes:?}");
        assert!((values[2] - (-1e-3 - (-(-1e-3_f32).exp_m1()).ln())).abs() < 1e-5 && values[3] == -50.0);
    }
}
