//! A simulated teacher for texts. It knows each completion's gold score, is unsure about close ones, and sometimes
//! makes a mistake. The best possible agreement with it is known exactly, which no data set offers.

use flipside_core::{Choice, Stream};
use rand::RngExt;

/// How a teacher errs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// Difference of scores at which the better one wins with probability σ(1) = 0.73. At 0 the better one always wins,
    /// and equal scores are a tie.
    pub doubt: f64,
    /// Share of answers that are then flipped, 0 to 1.
    pub mistakes: f64,
}

impl Default for Noise {
    fn default() -> Noise {
        Noise { doubt: 0.25, mistakes: 0.05 }
    }
}

impl Noise {
    /// The probability that the left one is preferred: σ((left − right) / doubt), then flipped with probability
    /// `mistakes` (Bradley and Terry 1952; the flips as in B-Pref, Lee et al. 2021).
    pub fn probability_left(&self, left: f64, right: f64) -> f64 {
        let sure = match left - right {
            0.0 => 0.5,
            gap if self.doubt > 0.0 => 1.0 / (1.0 + (-gap / self.doubt).exp()),
            gap => f64::from(u8::from(gap > 0.0)),
        };
        sure + self.mistakes.clamp(0.0, 1.0) * (1.0 - 2.0 * sure)
    }

    /// The probability of the likelier answer for these two gold scores. No reward model can agree with the teacher
    /// more often on this pair.
    pub fn ceiling(&self, left: f64, right: f64) -> f64 {
        let left = self.probability_left(left, right);
        left.max(1.0 - left)
    }
}

/// A teacher that judges by the gold score.
#[derive(Clone, Debug)]
pub struct GoldTeacher {
    noise: Noise,
    stream: Stream,
}

impl GoldTeacher {
    /// Its name in judgements.
    pub const NAME: &str = "gold";

    /// A teacher with this noise, drawn from `stream`.
    pub fn new(noise: Noise, stream: Stream) -> GoldTeacher {
        GoldTeacher { noise, stream }
    }

    /// Answers for two completions with these gold scores. Every answer draws exactly one random number, so that the
    /// stream's position depends only on the number of answers.
    pub fn judge(&mut self, left: f64, right: f64) -> Choice {
        let draw: f64 = self.stream.random();
        if self.noise.doubt <= 0.0 && left == right {
            Choice::Tie
        } else if draw < self.noise.probability_left(left, right) {
            Choice::Left
        } else {
            Choice::Right
        }
    }

    /// How it errs.
    pub fn noise(&self) -> Noise {
        self.noise
    }

    /// The stream's state, for a checkpoint.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;

    #[test]
    fn answers_come_at_the_rate_that_is_promised() {
        for (noise, left, right) in [
            (Noise { doubt: 0.5, mistakes: 0.0 }, 0.3, 0.0),
            (Noise { doubt: 0.25, mistakes: 0.1 }, -1.0, 1.0),
            (Noise { doubt: 0.0, mistakes: 0.2 }, 1.0, 0.9),
            (Noise { doubt: 1.0, mistakes: 0.05 }, 0.0, 0.0),
        ] {
            let mut teacher = GoldTeacher::new(noise, Seed(1).stream("teacher"));
            let count = (0..20_000).filter(|_| teacher.judge(left, right) == Choice::Left).count() as f64;
            let p = noise.probability_left(left, right);
            let deviation = (20_000.0 * p * (1.0 - p)).sqrt();
            assert!((count - 20_000.0 * p).abs() < 4.0 * deviation, "{noise:?}: {count}");
            assert!((noise.probability_left(right, left) + p - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn ceilings_by_hand() {
        // σ(2) = 0.880797; one in ten is flipped: 0.880797 − 0.1 · (2 · 0.880797 − 1) = 0.804638.
        let noise = Noise { doubt: 0.5, mistakes: 0.1 };
        assert!((noise.ceiling(1.0, 0.0) - 0.804_638).abs() < 1e-6);
        assert!((noise.ceiling(0.0, 1.0) - 0.804_638).abs() < 1e-6);
        assert_eq!(noise.ceiling(0.4, 0.4), 0.5);
        let sure = Noise { doubt: 0.0, mistakes: 0.0 };
        assert_eq!((sure.ceiling(0.1, 0.0), sure.probability_left(0.0, 0.1)), (1.0, 0.0));
    }

    #[test]
    fn a_sure_teacher_calls_equal_scores_a_tie_and_goes_on_from_a_saved_stream() {
        let sure = Noise { doubt: 0.0, mistakes: 0.0 };
        let mut teacher = GoldTeacher::new(sure, Seed(1).stream("teacher"));
        assert_eq!([teacher.judge(0.5, 0.5), teacher.judge(1.0, 0.5)], [Choice::Tie, Choice::Left]);
        let unsure = Noise::default();
        let mut whole = GoldTeacher::new(unsure, teacher.stream().clone());
        let mut first = whole.clone();
        let answers: Vec<Choice> = (0..200).map(|i| whole.judge(f64::from(i % 3) * 0.1, 0.1)).collect();
        assert_eq!((0..100).map(|i| first.judge(f64::from(i % 3) * 0.1, 0.1)).collect::<Vec<_>>(), answers[..100]);
        let mut second = GoldTeacher::new(unsure, Stream::from_state(first.stream().state()));
        assert_eq!((100..200).map(|i| second.judge(f64::from(i % 3) * 0.1, 0.1)).collect::<Vec<_>>(), answers[100..]);
    }
}
