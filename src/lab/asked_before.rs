//! What was asked before, in either mode: no pair is asked twice as a new one, some are asked again with their sides
//! swapped, and the answers that the reward model disputes are listed.

use super::questions::Offered;
use super::shared_requests::Label;
use super::vocabulary::{DisputedView, PairView};
use flipside_core::{Item, ItemId, PairReason, Stream};
use flipside_preference::{AskedPairs, Disputed};
use rand::{RngExt, seq::IndexedRandom};
use std::collections::HashMap;

/// At most `DISPUTED` disputed judgements are listed, and only those with a surprise of more than `SURPRISE` nats: the
/// model gave the answer a probability below 0.3.
const DISPUTED: usize = 8;
const SURPRISE: f64 = 1.2;

/// Judgements before a pair is asked again, so that nobody remembers the first time.
const FIRST_REPEAT: usize = 20;

/// The pairs of a run that were asked.
#[derive(Default)]
pub(super) struct AskedBefore {
    /// Pairs that were offered, answered or not.
    pub pairs: AskedPairs,
    /// The judged pairs: new ones are chosen to be unlike them, and some of them are asked again.
    pub judged: Vec<[Item; 2]>,
    /// The pairs that were asked again.
    repeated: AskedPairs,
}

impl AskedBefore {
    /// Draws which of `count` questions repeat an answered pair, and returns those pairs with their sides swapped. No
    /// pair is repeated twice. `share` is the share of the questions that are repeats.
    pub fn repeats(&mut self, count: usize, share: f64, stream: &mut Stream) -> Vec<Offered> {
        let share = share.clamp(0.0, 1.0);
        if share == 0.0 || self.judged.len() < FIRST_REPEAT {
            return Vec::new();
        }
        let wanted = (0..count).filter(|_| stream.random_bool(share)).count();
        let fresh: Vec<&[Item; 2]> =
            self.judged.iter().filter(|[left, right]| !self.repeated.contains(left.id(), right.id())).collect();
        let chosen: Vec<[Item; 2]> = fresh.sample(stream, wanted).map(|&pair| pair.clone()).collect();
        let again = |[left, right]: [Item; 2]| {
            self.repeated.insert(left.id(), right.id());
            Offered { items: [right, left], reason: PairReason::Repeat }
        };
        chosen.into_iter().map(again).collect()
    }

    /// Each judgement's number as a comparison. A pair that was asked again keeps the number of its first question, so
    /// that whoever holds one of the answers out does not learn from the other.
    pub fn comparison_ids(&mut self, labels: &[Label]) -> Vec<u64> {
        let mut ids: HashMap<[ItemId; 2], u64> = HashMap::new();
        let mut id_of = |label: &Label| {
            let [left, right] = label.items.each_ref().map(Item::id);
            let id = *ids.entry([left.min(right), left.max(right)]).or_insert(label.pair.0);
            if id != label.pair.0 {
                // This is derived from the labels, so that a run that is reopened does not repeat a pair a second time.
                self.repeated.insert(left, right);
            }
            id
        };
        labels.iter().map(&mut id_of).collect()
    }

    /// Takes note of the judged pairs, for the next questions.
    pub fn set_judged(&mut self, labels: &[Label]) {
        self.judged = labels.iter().map(|label| label.items.clone()).collect();
    }
}

/// The judgements that surprise the reward model most, for the desk. `found` has places in `labels`, the most
/// surprising first.
pub(super) fn disputed_views(found: &[Disputed], labels: &[&Label]) -> Vec<DisputedView> {
    let view = |found: &Disputed| {
        let label = labels[found.index];
        // A label does not say why its pair was asked, and here it does not matter.
        let pair = PairView { id: label.pair, items: label.items.clone(), reason: PairReason::Disagreement };
        DisputedView { judgement: label.judgement, pair, choice: label.choice, left: found.left }
    };
    found.iter().filter(|found| found.surprise > SURPRISE).take(DISPUTED).map(view).collect()
}
