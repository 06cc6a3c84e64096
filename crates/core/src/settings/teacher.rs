//! Who answers, and how a simulated teacher departs from the perfect one.

use serde::{Deserialize, Serialize};

/// Who answers the pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum TeacherKind {
    /// The person at the desk.
    #[default]
    Person,
    /// A simulated teacher that judges by the task's true return, in text mode by the gold score, and never errs.
    Oracle,
    /// A simulated teacher whose answer is flipped at this rate. In text mode it is also unsure where two scores lie close.
    Mistaken {
        /// Probability of a flip, 0..=1.
        rate: f64,
    },
    /// A simulated teacher with these habits.
    Fallible(TeacherNoise),
}

/// How a simulated teacher of robots departs from the perfect one. The five imperfect teachers of BPref (Lee et al. 2021, "B-Pref", section 3)
/// have one habit each: [`TeacherNoise::NOISY`] and those after it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherNoise {
    /// β: the clip with the higher return R is preferred with probability σ(β · (R − R′)); infinite where absent.
    pub beta: Option<f64>,
    /// Probability that an answer is turned round, 0..=1.
    pub mistakes: f64,
    /// Probability of “cannot tell”, whatever the clips, 0..=1.
    pub skips: f64,
    /// “Cannot tell” where neither clip reaches this share of the usual return: both lie below μ − (1 − share) · |μ|, with μ the mean return of
    /// recently judged clips. (For μ > 0 that is share · μ, as in BPref, whose returns are never negative.) 0 turns it off.
    pub skip_below: f64,
    /// The weight of a step is γ to the power of how long before the clip's end it is.
    pub gamma: f64,
    /// A tie where the returns differ by less than this share of |μ|. 0 turns it off.
    pub equal_within: f64,
    /// “Much better” where the returns differ by more than this many times what those of recently judged pairs differ by on average. 0 turns it
    /// off.
    pub much_above: f64,
}

impl Default for TeacherNoise {
    fn default() -> Self {
        TeacherNoise::NONE
    }
}

impl TeacherNoise {
    /// The perfect teacher.
    pub const NONE: TeacherNoise = TeacherNoise {
        beta: None,
        mistakes: 0.0,
        skips: 0.0,
        skip_below: 0.0,
        gamma: 1.0,
        equal_within: 0.0,
        much_above: 0.0,
    };
    /// BPref's “Stoc”: β = 1.
    pub const NOISY: TeacherNoise = TeacherNoise { beta: Some(1.0), ..TeacherNoise::NONE };
    /// BPref's “Mistake”: one answer in ten is wrong.
    pub const MISTAKEN: TeacherNoise = TeacherNoise { mistakes: 0.1, ..TeacherNoise::NONE };
    /// BPref's “Skip”: nothing is said of two clips that are both hopeless.
    pub const SKIPPING: TeacherNoise = TeacherNoise { skip_below: 0.1, ..TeacherNoise::NONE };
    /// BPref's “Myopic”: what comes last counts most. Its γ = .9 is for 50 steps of DMControl, about a second.
    pub const MYOPIC: TeacherNoise = TeacherNoise { gamma: 0.9, ..TeacherNoise::NONE };
    /// BPref's “Equal”: nearly the same is the same.
    pub const EQUAL: TeacherNoise = TeacherNoise { equal_within: 0.1, ..TeacherNoise::NONE };
    /// One that never errs, and says “much better” of two pairs in five or so.
    pub const GRADED: TeacherNoise = TeacherNoise { much_above: 1.0, ..TeacherNoise::NONE };
    /// A person who clicks fast: one slip and one “cannot tell” in ten.
    pub const HASTY: TeacherNoise = TeacherNoise { mistakes: 0.1, skips: 0.1, ..TeacherNoise::NONE };
}
