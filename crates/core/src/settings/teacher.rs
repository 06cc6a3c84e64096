//! Who answers the queries, and how a simulated teacher departs from the oracle.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who answers the queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum TeacherKind {
    /// The person at the desk.
    #[default]
    Person,
    /// A simulated teacher that never errs. It judges by the task's true return, in text mode by the gold score.
    Oracle,
    /// A simulated teacher whose answer is flipped with probability `teacher.rate`. In text mode it is also unsure
    /// where two gold scores are close.
    Mistaken {
        /// Probability that an answer is flipped, 0 to 1.
        rate: f64,
    },
    /// A simulated teacher with any mix of the kinds of noise that the other `teacher` settings describe.
    Fallible(TeacherNoise),
}

impl TeacherKind {
    /// The teachers that have a name, and what each does.
    pub const NAMES: [(&str, TeacherKind, &str); 9] = [
        ("person", TeacherKind::Person, "The person at the desk."),
        ("oracle", TeacherKind::Oracle, "Judges by the task's true return, never errs."),
        (
            "noisy",
            TeacherKind::Fallible(TeacherNoise::NOISY),
            "Prefers the better clip with probability σ(β · difference of returns), β = 1.",
        ),
        (
            "mistaken",
            TeacherKind::Mistaken { rate: TeacherNoise::MISTAKEN.mistakes },
            "One answer in ten is turned round.",
        ),
        (
            "skipping",
            TeacherKind::Fallible(TeacherNoise::SKIPPING),
            "Cannot tell two clips apart that are both hopeless.",
        ),
        ("myopic", TeacherKind::Fallible(TeacherNoise::MYOPIC), "Judges a clip by its end."),
        ("equal", TeacherKind::Fallible(TeacherNoise::EQUAL), "Calls it a tie where the returns are nearly equal."),
        ("graded", TeacherKind::Fallible(TeacherNoise::GRADED), "Never errs, and says where one clip is much better."),
        (
            "hasty",
            TeacherKind::Fallible(TeacherNoise::HASTY),
            "Errs and skips at random, like a person who clicks fast.",
        ),
    ];

    /// The teacher of this name, if there is one.
    pub fn named(name: &str) -> Option<TeacherKind> {
        TeacherKind::NAMES.into_iter().find(|(known, ..)| *known == name).map(|(_, teacher, _)| teacher)
    }
}

/// How a simulated teacher of robots departs from the oracle. Each of the five imperfect teachers of BPref (Lee et al.
/// 2021, "B-Pref", section 3) has one kind of noise: [`TeacherNoise::NOISY`] to [`TeacherNoise::EQUAL`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherNoise {
    /// β: the clip with the higher return R is preferred to the one with return R′ with probability σ(β · (R − R′)).
    /// None means infinite: the better clip is always preferred.
    pub beta: Option<f64>,
    /// Probability that an answer is flipped, 0 to 1.
    pub mistakes: f64,
    /// Probability of “cannot tell”, whatever the clips, 0 to 1.
    pub skips: f64,
    /// “Cannot tell” if neither clip reaches this share of the usual return: both are below μ − (1 − share) · abs(μ),
    /// where μ is the mean return of recently judged clips. (For μ > 0 that is share · μ, as in BPref, whose returns
    /// are never negative.) 0 turns it off.
    pub skip_below: f64,
    /// γ of a myopic teacher, 0 to 1: the weight of a step is γ to the power of the number of steps from it to the
    /// clip's end. 1 weighs all steps equally.
    pub gamma: f64,
    /// A tie if the returns differ by less than this share of abs(μ), where μ is the mean return of recently judged
    /// clips. 0 turns it off.
    pub equal_within: f64,
    /// “Much better” if the returns differ by more than this many times the mean difference between the two returns of
    /// recently judged pairs. 0 turns it off.
    pub much_above: f64,
}

impl Default for TeacherNoise {
    fn default() -> Self {
        TeacherNoise::NONE
    }
}

impl TeacherNoise {
    /// No noise: the oracle.
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
    /// BPref's “Skip”: “cannot tell” for two clips that are both hopeless.
    pub const SKIPPING: TeacherNoise = TeacherNoise { skip_below: 0.1, ..TeacherNoise::NONE };
    /// BPref's “Myopic”: the last steps count most. BPref's γ = 0.9 is for 50 steps of DMControl, about a second.
    pub const MYOPIC: TeacherNoise = TeacherNoise { gamma: 0.9, ..TeacherNoise::NONE };
    /// BPref's “Equal”: nearly equal returns are a tie.
    pub const EQUAL: TeacherNoise = TeacherNoise { equal_within: 0.1, ..TeacherNoise::NONE };
    /// Never errs, and says “much better” of about two pairs in five.
    pub const GRADED: TeacherNoise = TeacherNoise { much_above: 1.0, ..TeacherNoise::NONE };
    /// Like a person who clicks fast: one mistake and one “cannot tell” in ten answers.
    pub const HASTY: TeacherNoise = TeacherNoise { mistakes: 0.1, skips: 0.1, ..TeacherNoise::NONE };
}
