//! Ranks pairs by how much it is worth to ask them.

use super::RewardModel;
use flipside_core::Frames;
use flipside_core::settings::PairChoice;

/// A model that says of pairs how uncertain it is and what they show.
pub trait RatePairs<Pair> {
    /// Each member's probability that left is preferred, `[members][pairs]`.
    fn member_probabilities(&self, pairs: &[Pair]) -> Vec<Vec<f32>>;

    /// The features of a pair's two items, in which distances mean something.
    fn pair_features(&self, pair: &Pair) -> [Vec<f32>; 2];
}

impl<'a> RatePairs<(&'a Frames, &'a Frames)> for RewardModel {
    fn member_probabilities(&self, pairs: &[(&'a Frames, &'a Frames)]) -> Vec<Vec<f32>> {
        self.probabilities(pairs, self.settings.rows)
    }

    fn pair_features(&self, pair: &(&'a Frames, &'a Frames)) -> [Vec<f32>; 2] {
        [self.features(pair.0), self.features(pair.1)]
    }
}

/// Rates each candidate pair by the method `choice`, on any scale; larger is better. `known` are the pairs that were
/// judged.
pub fn rank_pairs<Pair>(model: &impl RatePairs<Pair>, choice: PairChoice, pairs: &[Pair], known: &[Pair]) -> Vec<f32> {
    let features = |pair: &Pair| model.pair_features(pair);
    let coverage = |pairs: Vec<PairFeatures>| k_centre(&pairs, &known.iter().map(features).collect::<Vec<_>>());
    match choice {
        PairChoice::Disagreement => disagreement(&model.member_probabilities(pairs)),
        PairChoice::Entropy => predictive_entropy(&model.member_probabilities(pairs)),
        PairChoice::Coverage => coverage(pairs.iter().map(features).collect()),
        PairChoice::DisagreementCoverage => {
            let mut ranks = disagreement(&model.member_probabilities(pairs));
            let mut order: Vec<usize> = (0..pairs.len()).collect();
            order.sort_by(|&a, &b| ranks[b].total_cmp(&ranks[a]));
            order.truncate(pairs.len().div_ceil(3));
            let chosen = coverage(order.iter().map(|&i| features(&pairs[i])).collect());
            // A variance of probabilities is at most ¼, so all of these rank above the rest.
            order.iter().zip(chosen).for_each(|(&i, rank)| ranks[i] = 1.0 + rank);
            ranks
        }
    }
}

/// How much members disagree about each pair: the variance between them of the probability that left is preferred.
/// `members` is `[members][pairs]`.
pub(super) fn disagreement(members: &[Vec<f32>]) -> Vec<f32> {
    let count = members.len() as f32;
    let variance = |i: usize| {
        let mean = members.iter().map(|p| p[i]).sum::<f32>() / count;
        members.iter().map(|p| (p[i] - mean).powi(2)).sum::<f32>() / count
    };
    (0..members.first().map_or(0, Vec::len)).map(variance).collect()
}

/// The predictive entropy of each pair's answer: the entropy in nats of the members' mean probability that left is
/// preferred, at most ln 2. `members` is `[members][pairs]`.
pub(super) fn predictive_entropy(members: &[Vec<f32>]) -> Vec<f32> {
    let entropy = |i: usize| {
        let left = members.iter().map(|p| p[i]).sum::<f32>() / members.len() as f32;
        -left * left.ln() - (1.0 - left) * (1.0 - left).ln()
    };
    (0..members.first().map_or(0, Vec::len)).map(entropy).collect()
}

/// The features of a pair's two items.
type PairFeatures = [Vec<f32>; 2];

/// The greedy k-centre order (Sener and Savarese 2018) as ranks: the next pair is always the one farthest from all that
/// are known or already chosen. Ranks fall from the number of pairs to 1.
fn k_centre(pairs: &[PairFeatures], known: &[PairFeatures]) -> Vec<f32> {
    let nearest = |pair: &PairFeatures| known.iter().map(|other| distance(pair, other)).fold(f32::INFINITY, f32::min);
    let mut nearest: Vec<f32> = pairs.iter().map(nearest).collect();
    let mut ranks = vec![0.0; pairs.len()];
    for rank in (1..=pairs.len()).rev() {
        let left = (0..pairs.len()).filter(|&i| ranks[i] == 0.0);
        let Some(next) = left.max_by(|&a, &b| nearest[a].total_cmp(&nearest[b])) else { break };
        ranks[next] = rank as f32;
        for (near, pair) in nearest.iter_mut().zip(pairs) {
            *near = near.min(distance(pair, &pairs[next]));
        }
    }
    ranks
}

/// Squared distance of two pairs, the smaller one of both assignments of sides.
fn distance(a: &PairFeatures, b: &PairFeatures) -> f32 {
    let apart = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f32>();
    let straight = apart(&a[0], &b[0]) + apart(&a[1], &b[1]);
    straight.min(apart(&a[0], &b[1]) + apart(&a[1], &b[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs on a line, (0, 0) known: the farthest is chosen first, then the one in the middle of the largest gap. A
    /// pair with its sides swapped counts as the same pair.
    #[test]
    fn k_centre_covers_before_it_refines() {
        let pair = |x: f32, y: f32| [vec![x], vec![y]];
        let pairs = [pair(1.0, 1.0), pair(10.0, 10.0), pair(9.0, 9.0), pair(5.0, 4.0), pair(4.0, 5.0)];
        let ranks = k_centre(&pairs, &[pair(0.0, 0.0)]);
        assert_eq!((ranks[1], ranks[3].max(ranks[4])), (5.0, 4.0), "{ranks:?}");
        assert_eq!(
            ranks[3].min(ranks[4]),
            1.0,
            "the mirrored pair is worth nothing once the other is chosen: {ranks:?}"
        );
    }
}
