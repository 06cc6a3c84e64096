//! Simulated teachers: they judge by the task's true return, so that the loop can be tried, tested and measured without
//! a person.
//!
//! They look at [`Frames::task_return`] alone, never at the learnt reward: a teacher that judged by what it had taught
//! would agree with every mistake.

use crate::basics::{Choice, Frames, Stream};
use crate::settings::TeacherKind;
use rand::RngExt;

/// A teacher that answers by itself.
#[derive(Clone, Debug)]
pub struct SimulatedTeacher {
    name: &'static str,
    /// Probability of a flipped answer.
    mistakes: f64,
    stream: Stream,
}

impl SimulatedTeacher {
    /// Returns that differ by less than this share of the larger one are a tie: below it lies the rounding of
    /// single-precision rewards.
    pub const TIE: f64 = 1e-5;

    /// The teacher of this kind, with `stream` for its mistakes; `None` for a person.
    pub fn new(kind: TeacherKind, stream: Stream) -> Option<SimulatedTeacher> {
        match kind {
            TeacherKind::Person => None,
            TeacherKind::Oracle => Some(SimulatedTeacher { name: "oracle", mistakes: 0.0, stream }),
            TeacherKind::Mistaken { rate } => {
                let mistakes = if rate.is_nan() { 0.0 } else { rate.clamp(0.0, 1.0) };
                Some(SimulatedTeacher { name: "mistaken", mistakes, stream })
            }
        }
    }

    /// What a judgement names it by.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Prefers the clip with the higher true return, flips that at the rate of mistakes, and calls equal returns a tie.
    pub fn judge(&mut self, left: &Frames, right: &Frames) -> Choice {
        // Drawn for ties too, so that the stream's place depends on the number of answers alone.
        let mistaken = self.stream.random_bool(self.mistakes);
        let (left, right) = (left.task_return(), right.task_return());
        if (left - right).abs() <= Self::TIE * left.abs().max(right.abs()) {
            Choice::Tie
        } else if (left > right) != mistaken {
            Choice::Left
        } else {
            Choice::Right
        }
    }

    /// The stream's state, for a checkpoint.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basics::Seed;

    fn clip(rewards: &[f32]) -> Frames {
        Frames { steps: rewards.len(), task_reward: rewards.to_vec(), ..Frames::default() }
    }

    fn teacher(kind: TeacherKind) -> SimulatedTeacher {
        SimulatedTeacher::new(kind, Seed(4).stream("teacher")).unwrap()
    }

    #[test]
    fn the_oracle_prefers_the_higher_return() {
        let mut oracle = teacher(TeacherKind::Oracle);
        let cases: [(&[f32], &[f32], Choice); 5] = [
            (&[1.0, 2.0], &[2.5, 0.0], Choice::Left),
            (&[-1.0], &[-0.5], Choice::Right),
            (&[0.1, 0.2, 0.3], &[0.3, 0.2, 0.1], Choice::Tie),
            (&[0.0], &[0.0], Choice::Tie),
            (&[100.0], &[100.1], Choice::Right),
        ];
        for (left, right, choice) in cases {
            assert_eq!(oracle.judge(&clip(left), &clip(right)), choice, "{left:?} {right:?}");
        }
        assert!(SimulatedTeacher::new(TeacherKind::Person, Seed(4).stream("teacher")).is_none());
    }

    #[test]
    fn mistakes_come_at_their_rate_and_go_on_from_a_saved_stream() {
        let kind = TeacherKind::Mistaken { rate: 0.1 };
        let (good, bad) = (clip(&[1.0]), clip(&[0.0]));
        let mut mistaken = teacher(kind);
        let answers: Vec<Choice> = (0..10_000).map(|_| mistaken.judge(&good, &bad)).collect();
        let wrong = answers.iter().filter(|&&c| c == Choice::Right).count();
        // 1000 ± 4 standard deviations of a binomial with n = 10 000, p = .1.
        assert!((880..1120).contains(&wrong), "{wrong} of 10 000");
        let mut first = teacher(kind);
        answers[..5_000].iter().for_each(|&c| assert_eq!(first.judge(&good, &bad), c));
        let mut second = SimulatedTeacher::new(kind, Stream::from_state(first.stream().state())).unwrap();
        answers[5_000..].iter().for_each(|&c| assert_eq!(second.judge(&good, &bad), c));
        assert!((0..100).all(|_| mistaken.judge(&good, &good) == Choice::Tie));
    }
}
