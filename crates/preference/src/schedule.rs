//! The label schedule: labels are requested at a falling rate, many of them early.

use flipside_core::settings::LabelSettings;

/// How many labels are wanted after how many env steps.
///
/// A share of the labels is wanted before training, on the untrained policy. The rest follows at a rate ∝ 1/(T + T₀)
/// (Christiano et al. 2017, appendix A), scaled so that all labels are wanted by [`LabelSettings::spent_by`] of the
/// planned steps. The rate's integral is ln(1 + T/T₀), so [`LabelSchedule::wanted`] has a closed form and no state to
/// save.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelSchedule {
    labels: usize,
    untrained: usize,
    /// Env steps by which all labels are wanted.
    end: f64,
    /// T₀ in env steps.
    t0: f64,
}

impl LabelSchedule {
    /// The schedule for `labels` judgements over `env_steps` of training.
    pub fn new(labels: usize, env_steps: u64, settings: &LabelSettings) -> LabelSchedule {
        let share = settings.untrained_share.clamp(0.0, 1.0);
        LabelSchedule {
            labels,
            untrained: (share * labels as f64).ceil() as usize,
            end: (settings.spent_by * env_steps as f64).max(1.0),
            t0: (settings.anneal * env_steps as f64).max(1.0),
        }
    }

    /// Labels wanted before training starts.
    pub fn untrained(&self) -> usize {
        self.untrained
    }

    /// Labels wanted after `env_steps` of training. This never falls. It is [`LabelSchedule::untrained`] at 0 steps,
    /// and all labels from the schedule's end on.
    pub fn wanted(&self, env_steps: u64) -> usize {
        let time = env_steps as f64;
        if time >= self.end {
            return self.labels;
        }
        let spent = (time / self.t0).ln_1p() / (self.end / self.t0).ln_1p();
        self.untrained + (spent * (self.labels - self.untrained) as f64).floor() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_with_a_quarter_never_falls_and_spends_the_plan() {
        for (labels, steps) in [(200, 2_000_000), (900, 10_000_000), (7, 1_000), (0, 1_000), (50, 0), (1, u64::MAX)] {
            let schedule = LabelSchedule::new(labels, steps, &LabelSettings::default());
            assert_eq!(schedule.untrained(), labels.div_ceil(4));
            let wanted: Vec<usize> = (0..=1000_u64).map(|i| schedule.wanted(steps / 1000 * i)).collect();
            assert!(wanted.is_sorted(), "{labels} labels over {steps}: {wanted:?}");
            assert_eq!((wanted[0], schedule.wanted(steps.max(1))), (labels.div_ceil(4), labels));
        }
    }

    #[test]
    fn the_rate_falls_as_the_paper_says() {
        // With T₀ = S/10, the rate at T = 0.1 S is half that at 0, and at 0.9 S it is a tenth.
        let schedule =
            LabelSchedule::new(1_000_000, 1_000_000, &LabelSettings { anneal: 0.1, ..LabelSettings::default() });
        let rate = |at: u64| (schedule.wanted(at + 2_000) - schedule.wanted(at)) as f64;
        assert!((rate(100_000) / rate(0) - 0.5).abs() < 0.01);
        assert!((rate(890_000) / rate(0) - 0.1).abs() < 0.01);
    }
}
