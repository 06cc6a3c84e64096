//! Simulated teachers: they judge by the task's true return, so that learning from judgements can be tested and
//! measured without a person.
//!
//! They use [`Frames::task_return`] only, never the learned reward: a teacher that judged by the reward that it taught
//! would agree with every mistake.

use flipside_core::settings::{TeacherKind, TeacherNoise};
use flipside_core::{Choice, Frames, Stream};
use rand::RngExt;

/// Means over the recently judged pairs, by which a teacher's thresholds are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunningReturnStats {
    /// Mean of the clips' true returns.
    pub mean_return: f64,
    /// Mean absolute difference of the two returns of a pair.
    pub difference: f64,
}

/// A teacher that answers by itself.
#[derive(Clone, Debug)]
pub struct SimulatedTeacher {
    name: &'static str,
    noise: TeacherNoise,
    /// Statistics of the recently judged pairs.
    usual: Option<RunningReturnStats>,
    stream: Stream,
}

impl SimulatedTeacher {
    /// Returns that differ by less than this share of the larger one are a tie: smaller differences may be rounding
    /// errors of single-precision rewards.
    pub const TIE: f64 = 1e-5;

    /// A teacher of this kind, whose random choices come from `stream`; `None` for a person.
    pub fn new(kind: TeacherKind, stream: Stream) -> Option<SimulatedTeacher> {
        let (name, noise) = match kind {
            TeacherKind::Person => return None,
            TeacherKind::Oracle => ("oracle", TeacherNoise::NONE),
            TeacherKind::Mistaken { rate } => ("mistaken", TeacherNoise { mistakes: rate, ..TeacherNoise::NONE }),
            TeacherKind::Fallible(noise) => ("fallible", noise),
        };
        Some(SimulatedTeacher { name, noise, usual: None, stream })
    }

    /// The same teacher with statistics of the recently judged pairs, which scale its thresholds. Without statistics no
    /// threshold is applied.
    pub fn with_return_stats(self, usual: Option<RunningReturnStats>) -> SimulatedTeacher {
        SimulatedTeacher { usual, ..self }
    }

    /// The name under which its judgements are recorded.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Prefers the clip with the higher true return, subject to the teacher's noise; equal returns are a tie. The kinds
    /// of noise are applied in BPref's order: skip, equal, myopic, noisy, mistaken.
    pub fn judge(&mut self, left: &Frames, right: &Frames) -> Choice {
        let gamma = self.noise.gamma;
        let whole = [left.task_return(), right.task_return()];
        let recent = if gamma == 1.0 { whole } else { [left, right].map(|clip| recency_return(clip, gamma)) };
        self.judge_returns(whole, recent)
    }

    /// The same for items without steps, by their scores: a myopic teacher judges like one that is not.
    pub fn judge_scores(&mut self, left: f64, right: f64) -> Choice {
        self.judge_returns([left, right], [left, right])
    }

    /// Compares two returns. `recent` are those that weight recent steps most.
    fn judge_returns(&mut self, whole: [f64; 2], recent: [f64; 2]) -> Choice {
        // Always drawn, so that the stream's position depends only on the number of answers.
        let [skip, pick]: [f64; 2] = std::array::from_fn(|_| self.stream.random());
        let TeacherNoise { beta, mistakes, skips, skip_below, equal_within, much_above, .. } = self.noise;
        if skip < skips {
            return Choice::Skip;
        }
        if let Some(RunningReturnStats { mean_return: usual, .. }) = self.usual {
            if skip_below > 0.0 && whole[0].max(whole[1]) < usual - (1.0 - skip_below) * usual.abs() {
                return Choice::Skip;
            }
            if (whole[0] - whole[1]).abs() < equal_within * usual.abs() {
                return Choice::Tie;
            }
        }
        let [left, right] = recent;
        let ahead = left - right;
        if ahead.abs() <= Self::TIE * left.abs().max(right.abs()) {
            return Choice::Tie;
        }
        let sure = match beta {
            None => f64::from(u8::from(ahead > 0.0)),
            Some(beta) => 1.0 / (1.0 + (-beta * ahead).exp()),
        };
        let mistakes = if mistakes.is_nan() { 0.0 } else { mistakes.clamp(0.0, 1.0) };
        let choice = if pick < sure + mistakes * (1.0 - 2.0 * sure) { Choice::Left } else { Choice::Right };
        let much = |usual: RunningReturnStats| much_above > 0.0 && ahead.abs() > much_above * usual.difference;
        if self.usual.is_some_and(much) { choice.much() } else { choice }
    }

    /// The stream, for a checkpoint.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}

/// Σ γ^(T − 1 − t) r_t: a return that weights recent steps most.
fn recency_return(clip: &Frames, gamma: f64) -> f64 {
    clip.task_reward.iter().fold(0.0, |sum, &reward| gamma * sum + f64::from(reward))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;

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
        // 1000 ± 4 standard deviations of a binomial with n = 10 000, p = 0.1.
        assert!((880..1120).contains(&wrong), "{wrong} of 10 000");
        let mut first = teacher(kind);
        answers[..5_000].iter().for_each(|&c| assert_eq!(first.judge(&good, &bad), c));
        let mut second = SimulatedTeacher::new(kind, Stream::from_state(first.stream().state())).unwrap();
        answers[5_000..].iter().for_each(|&c| assert_eq!(second.judge(&good, &bad), c));
        assert!((0..100).all(|_| mistaken.judge(&good, &good) == Choice::Tie));
    }

    #[test]
    fn much_better_is_further_apart_than_usual() {
        let judge = |usual: Option<f64>, left: f32, right: f32| {
            let usual = usual.map(|difference| RunningReturnStats { mean_return: 0.0, difference });
            let mut teacher = teacher(TeacherKind::Fallible(TeacherNoise { much_above: 1.5, ..TeacherNoise::NONE }))
                .with_return_stats(usual);
            teacher.judge(&clip(&[left]), &clip(&[right]))
        };
        assert_eq!(judge(Some(1.0), 1.6, 0.0), Choice::MuchLeft);
        assert_eq!(judge(Some(1.0), -2.0, -0.4), Choice::MuchRight);
        assert_eq!(judge(Some(1.0), 1.4, 0.0), Choice::Left);
        assert_eq!(judge(Some(0.0), 0.0, 0.0), Choice::Tie);
        assert_eq!(judge(None, 100.0, 0.0), Choice::Left);
        let usual = RunningReturnStats { mean_return: 0.0, difference: 0.5 };
        let mut graded = teacher(TeacherKind::Fallible(TeacherNoise::GRADED)).with_return_stats(Some(usual));
        let scores = [(1.0, 0.4), (0.4, 1.0), (0.4, 0.0), (0.4, 0.4)];
        let answers = scores.map(|(left, right)| graded.judge_scores(left, right));
        assert_eq!(answers, [Choice::MuchLeft, Choice::MuchRight, Choice::Left, Choice::Tie]);
    }

    /// How often a teacher with this noise gives each answer to one pair: left, right, tie, skip.
    fn shares(noise: TeacherNoise, usual: Option<f64>, left: &[f32], right: &[f32]) -> [f64; 4] {
        let usual = usual.map(|mean_return| RunningReturnStats { mean_return, difference: 1.0 });
        let mut teacher = teacher(TeacherKind::Fallible(noise)).with_return_stats(usual);
        let (left, right, mut counts) = (clip(left), clip(right), [0.0; 4]);
        for _ in 0..20_000 {
            let place = match teacher.judge(&left, &right) {
                Choice::Left => 0,
                Choice::Right => 1,
                Choice::Tie => 2,
                Choice::Skip => 3,
                much => panic!("{much:?} was not asked for"),
            };
            counts[place] += 1.0 / 20_000.0;
        }
        counts
    }

    /// Every teacher of BPref against its formula. Four standard deviations of a share of 20 000 are at most 0.0141.
    #[test]
    fn each_habit_answers_by_its_formula() {
        const ALWAYS_LEFT: [f64; 4] = [1.0, 0.0, 0.0, 0.0];
        const TIE: [f64; 4] = [0.0, 0.0, 1.0, 0.0];
        const SKIP: [f64; 4] = [0.0, 0.0, 0.0, 1.0];
        let one_above: (&[f32], &[f32]) = (&[1.0, 1.0], &[0.5, 0.5]);
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let both = TeacherNoise { beta: Some(2.0), mistakes: 0.3, skips: 0.25, ..TeacherNoise::NONE };
        // Three quarters are answered; of those, three tenths of the answers with σ(2 · 1) are reversed.
        let left = 0.75 * (0.7 * sigma(2.0) + 0.3 * (1.0 - sigma(2.0)));
        // The last step counts most: the left return is 1; the right one is 1.2 without discount, but 0.9² · 1.2 =
        // 0.972 with it.
        let late: (&[f32], &[f32]) = (&[0.0, 0.0, 1.0], &[1.2, 0.0, 0.0]);
        let cases = [
            ("oracle", TeacherNoise::NONE, None, one_above, ALWAYS_LEFT),
            ("noisy", TeacherNoise::NOISY, None, one_above, [sigma(1.0), 1.0 - sigma(1.0), 0.0, 0.0]),
            ("mistaken", TeacherNoise::MISTAKEN, None, one_above, [0.9, 0.1, 0.0, 0.0]),
            ("hasty", TeacherNoise::HASTY, None, one_above, [0.81, 0.09, 0.0, 0.1]),
            ("noisy, mistaken and skipping", both, None, one_above, [left, 0.75 - left, 0.0, 0.25]),
            ("oracle, early and late", TeacherNoise::NONE, None, late, [0.0, 1.0, 0.0, 0.0]),
            ("myopic", TeacherNoise::MYOPIC, None, late, ALWAYS_LEFT),
            ("skipping, one is fair", TeacherNoise::SKIPPING, Some(19.9), one_above, ALWAYS_LEFT),
            ("skipping, both are hopeless", TeacherNoise::SKIPPING, Some(20.1), one_above, SKIP),
            ("skipping, used to nothing", TeacherNoise::SKIPPING, None, one_above, ALWAYS_LEFT),
            (
                "skipping, costs: −2 is fair for −1.1",
                TeacherNoise::SKIPPING,
                Some(-1.1),
                (&[-2.0], &[-3.0]),
                ALWAYS_LEFT,
            ),
            ("skipping, costs: −2 is hopeless for −1", TeacherNoise::SKIPPING, Some(-1.0), (&[-2.0], &[-3.0]), SKIP),
            ("equal, apart", TeacherNoise::EQUAL, Some(9.9), one_above, ALWAYS_LEFT),
            ("equal, alike", TeacherNoise::EQUAL, Some(-10.1), one_above, TIE),
        ];
        for (what, noise, usual, (left, right), expected) in cases {
            let got = shares(noise, usual, left, right);
            let off = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max);
            assert!(off < if expected.contains(&1.0) { 1e-9 } else { 0.0142 }, "{what}: {got:?}, not {expected:?}");
        }
    }
}
