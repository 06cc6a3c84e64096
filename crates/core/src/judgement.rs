//! Pairs, choices and the append-only log of judgements: the one record that must never be lost.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The id of an item: of a clip or, in text mode, of a completion. Unique within a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId(pub u64);

/// The id of a pair. Unique within a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PairId(pub u64);

/// The id of a judgement. Unique within a session, increasing in the order of the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JudgementId(pub u64);

/// Why this pair was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairReason {
    /// Drawn at random.
    Random,
    /// The reward model's members disagree on it.
    Disagreement,
    /// It was answered before and is asked again with its sides swapped. The two answers show how consistent the
    /// teacher is.
    Repeat,
    /// A recent clip beside one that was judged before. The answer puts clips of different times in one order.
    Past,
}

/// Two items side by side, in the order in which they are shown (which is shuffled when the pair is made).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The pair's id.
    pub id: PairId,
    /// `[left, right]`, as shown.
    pub items: [ItemId; 2],
    /// Why it was asked.
    pub reason: PairReason,
    /// Env steps of training done when it was made.
    pub asked_at: u64,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The left one is better.
    Left,
    /// The right one is better.
    Right,
    /// The left one is much better.
    MuchLeft,
    /// The right one is much better.
    MuchRight,
    /// Equally good.
    Tie,
    /// Cannot tell: the pair is dropped from training.
    Skip,
}

impl Choice {
    /// The probability that the left item is the better one, as a training target; `None` for a skip.
    pub fn target(self) -> Option<f32> {
        match self {
            Choice::Left | Choice::MuchLeft => Some(1.0),
            Choice::Right | Choice::MuchRight => Some(0.0),
            Choice::Tie => Some(0.5),
            Choice::Skip => None,
        }
    }

    /// Whether one item is much better.
    pub fn is_much(self) -> bool {
        matches!(self, Choice::MuchLeft | Choice::MuchRight)
    }

    /// The same item as much better. A tie and a skip stay as they are.
    pub fn much(self) -> Choice {
        match self {
            Choice::Left => Choice::MuchLeft,
            Choice::Right => Choice::MuchRight,
            other => other,
        }
    }
}

/// An answer to a pair: the choice, who made it, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The judgement's id.
    pub id: JudgementId,
    /// The pair.
    pub pair: PairId,
    /// The choice.
    pub choice: Choice,
    /// `person`, or the simulated teacher's name.
    pub teacher: String,
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// Time from showing the pair to the answer, milliseconds.
    pub thinking_ms: u32,
}

/// One line of the log. Nothing is ever removed from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogEntry {
    /// An answer was given.
    Judged(Judgement),
    /// An earlier answer was taken back.
    Retracted {
        /// The judgement.
        judgement: JudgementId,
        /// Unix time in milliseconds.
        at_ms: i64,
    },
}

/// The judgements that were not retracted, oldest first.
pub fn standing<'a>(log: impl IntoIterator<Item = &'a LogEntry>) -> Vec<&'a Judgement> {
    let mut stands = BTreeMap::new();
    for entry in log {
        match entry {
            LogEntry::Judged(j) => drop(stands.insert(j.id, j)),
            LogEntry::Retracted { judgement, .. } => drop(stands.remove(judgement)),
        }
    }
    stands.into_values().collect()
}
