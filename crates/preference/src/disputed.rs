//! The judgements that the reward model disputes: slips, changes of mind, or answers that the model has not learnt to
//! explain.

use super::{Comparison, RewardModel};
use flipside_learn::surprise;

/// A judgement, by its index in the given list, and how much it surprises the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disputed {
    /// Its index.
    pub index: usize,
    /// The model's probability that the left item is preferred.
    pub left: f64,
    /// Nats; see [`surprise`].
    pub surprise: f64,
}

/// All these judgements, the most surprising first. Members that trained on a judgement have already fitted it, at
/// least in part, so its probability comes from the members that did not, if there are any.
pub fn disputed(model: &RewardModel, comparisons: &[Comparison]) -> Vec<Disputed> {
    let pairs: Vec<_> = comparisons.iter().map(|c| (c.left, c.right)).collect();
    let members = model.probabilities(&pairs, usize::MAX);
    let left = |index: usize, id: u64| {
        let unseen = |m: usize| model.bag_count(m, id) == 0;
        let any_unseen = (0..members.len()).any(unseen);
        let votes: Vec<f64> =
            (0..members.len()).filter(|&m| !any_unseen || unseen(m)).map(|m| f64::from(members[m][index])).collect();
        votes.iter().sum::<f64>() / votes.len() as f64
    };
    let predictions = comparisons.iter().enumerate().map(|(index, c)| (left(index, c.id), c.target));
    by_surprise(predictions)
}

/// Judgements, each given as the probability that a model gives to left and the target, the most surprising first.
pub fn by_surprise(predictions: impl Iterator<Item = (f64, f32)>) -> Vec<Disputed> {
    let of = |(index, (left, target)): (usize, (f64, f32))| Disputed {
        index,
        left,
        surprise: surprise(left, f64::from(target)),
    };
    let mut all: Vec<Disputed> = predictions.enumerate().map(of).collect();
    all.sort_by(|a, b| b.surprise.total_cmp(&a.surprise));
    all
}
