//! Chooses which pairs to ask: those with the highest rank (see [`super::rank_pairs`]), mixed with random ones.

use super::{ClipPool, Pool};
use flipside_core::settings::LabelSettings;
use flipside_core::{Clip, Frames, ItemId, PairReason, Stream};
use rand::{
    RngExt,
    seq::{IndexedRandom, SliceRandom},
};
use std::collections::HashSet;
use std::sync::Arc;

/// Rates how much it is worth to ask each pair of indices into a pool, on any scale; larger is better.
pub type Rank<'a> = &'a mut dyn FnMut(&[[usize; 2]]) -> Vec<f32>;

/// The same for pairs of clips.
pub type ClipRank<'a> = &'a mut dyn FnMut(&[(&Frames, &Frames)]) -> Vec<f32>;

/// The pairs that were asked before, whichever side each item was on.
#[derive(Clone, Debug, Default)]
pub struct AskedPairs(HashSet<[ItemId; 2]>);

impl AskedPairs {
    /// Adds a pair; false if it was already there.
    pub fn insert(&mut self, a: ItemId, b: ItemId) -> bool {
        self.0.insert([a.min(b), a.max(b)])
    }

    /// Whether the pair was asked.
    pub fn contains(&self, a: ItemId, b: ItemId) -> bool {
        self.0.contains(&[a.min(b), a.max(b)])
    }
}

/// A pair to ask, as indices into the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenPair {
    /// The item shown on the left.
    pub left: usize,
    /// The item shown on the right.
    pub right: usize,
    /// Why it was chosen.
    pub reason: PairReason,
}

/// Chooses up to `count` comparable pairs from the pool that were not asked before. Returns fewer if the pool has no
/// more. Left and right are assigned at random.
///
/// [`LabelSettings::candidates`] candidate pairs are drawn for each pair wanted. The share
/// [`LabelSettings::drop_similar_share`] of them whose items are most similar is removed, as long as enough remain. A
/// share [`LabelSettings::random_share`] of the result is chosen at random, the rest by highest `rank`. Without `rank`,
/// as before the reward model's first fit, all are random. Within one call an item is used twice only if the candidates
/// leave no choice, so that one unusual item cannot fill the queue. The chosen pairs are not added to `asked`: a pair
/// that is discarded before it is shown may be chosen again.
pub fn choose_pairs(
    pool: &impl Pool,
    count: usize,
    asked: &AskedPairs,
    rank: Option<Rank>,
    settings: &LabelSettings,
    stream: &mut Stream,
) -> Vec<ChosenPair> {
    let mut candidates = draw(pool, count.saturating_mul(settings.candidates.max(1)), asked, stream);
    if candidates.is_empty() {
        return Vec::new();
    }
    candidates = without_alike(pool, candidates, count, settings.drop_similar_share);
    let ranks = rank.map(|rank| rank(&candidates));
    // The best is last, for `rposition`. A NaN ranks below everything.
    let mut ranked: Vec<usize> = (0..candidates.len()).collect();
    if let Some(ranks) = &ranks {
        let rank = |i: usize| if ranks[i].is_nan() { f32::NEG_INFINITY } else { ranks[i] };
        ranked.sort_by(|&a, &b| rank(a).total_cmp(&rank(b)));
    }

    let mut chosen: Vec<ChosenPair> = Vec::new();
    while chosen.len() < count && !ranked.is_empty() {
        // Always drawn, so that the use of the stream does not depend on whether the model was fitted.
        let at_random = stream.random_bool(settings.random_share.clamp(0.0, 1.0)) || ranks.is_none();
        let fresh = |&i: &usize| {
            candidates[i].iter().all(|item| chosen.iter().all(|pair| pair.left != *item && pair.right != *item))
        };
        let place = if at_random {
            // The candidates are in random order, so the lowest index is a random one.
            let first = |keep: &dyn Fn(&usize) -> bool| {
                ranked.iter().enumerate().filter(|(_, i)| keep(i)).min_by_key(|(_, i)| **i).map(|(place, _)| place)
            };
            first(&fresh).or_else(|| first(&|_| true))
        } else {
            ranked.iter().rposition(fresh).or(Some(ranked.len() - 1))
        };
        let Some(place) = place else { break };
        let pair = &mut candidates[ranked.remove(place)];
        pair.shuffle(stream);
        let reason = if at_random { PairReason::Random } else { PairReason::Disagreement };
        chosen.push(ChosenPair { left: pair[0], right: pair[1], reason });
    }
    chosen
}

/// Chooses up to `count` pairs of a recent clip and a clip of `past`, i.e. one that was judged before. Each pair is the
/// best by `rank` of [`LabelSettings::candidates`] candidates, or, with probability [`LabelSettings::random_share`], a
/// random one. Left and right are assigned at random.
pub fn choose_past_pairs(
    pool: &ClipPool,
    past: &[Arc<Clip>],
    count: usize,
    asked: &AskedPairs,
    rank: ClipRank,
    settings: &LabelSettings,
    stream: &mut Stream,
) -> Vec<[Arc<Clip>; 2]> {
    let mut chosen: Vec<[Arc<Clip>; 2]> = Vec::new();
    for _ in 0..count {
        let mut candidates: Vec<[Arc<Clip>; 2]> = Vec::new();
        for _ in 0..settings.candidates.max(1) {
            let (Some(now), Some(then)) = (pool.any(stream), past.choose(stream)) else { return chosen };
            let (now, then) = (&now.clip, then);
            let again = |pair: &[Arc<Clip>; 2]| pair.iter().any(|clip| clip.id == now.id);
            if !asked.contains(now.id, then.id) && !chosen.iter().any(again) {
                candidates.push([now.clone(), then.clone()]);
            }
        }
        let pairs: Vec<_> = candidates.iter().map(|[now, then]| (&now.frames, &then.frames)).collect();
        let ranks = rank(&pairs);
        let at_random = stream.random_bool(settings.random_share.clamp(0.0, 1.0));
        let best = (0..candidates.len()).rev().max_by(|&a, &b| ranks[a].total_cmp(&ranks[b]));
        if let Some(best) = best {
            let mut pair = candidates.swap_remove(if at_random { 0 } else { best });
            pair.shuffle(stream);
            chosen.push(pair);
        }
    }
    chosen
}

/// The candidates in their order, without the share of them whose items are most similar. At least `count` remain if
/// there were that many.
fn without_alike(pool: &impl Pool, candidates: Vec<[usize; 2]>, count: usize, share: f64) -> Vec<[usize; 2]> {
    let removed = (share.clamp(0.0, 1.0) * candidates.len() as f64) as usize;
    let removed = removed.min(candidates.len().saturating_sub(count));
    if removed == 0 {
        return candidates;
    }
    let distances = pool.distances(&candidates);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
    let mut remaining = order.split_off(removed);
    remaining.sort_unstable();
    remaining.into_iter().map(|i| candidates[i]).collect()
}

/// Draws up to `count` different pairs of the pool that may be asked, in random order.
fn draw(pool: &impl Pool, count: usize, asked: &AskedPairs, stream: &mut Stream) -> Vec<[usize; 2]> {
    let n = pool.count();
    let askable = |a: usize, b: usize| pool.comparable(a, b) && !asked.contains(pool.id(a), pool.id(b));
    if pool.most_pairs() <= count.saturating_mul(8) {
        // Few pairs: list them all, so that even the last one that may be asked is found.
        let mut pairs: Vec<[usize; 2]> =
            (1..n).flat_map(|b| (0..b).map(move |a| [a, b])).filter(|&[a, b]| askable(a, b)).collect();
        pairs.shuffle(stream);
        pairs.truncate(count);
        return pairs;
    }
    // Many pairs: draw with rejection. Few of them were asked, so the bound on attempts is hardly ever reached.
    let mut seen = HashSet::new();
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count.saturating_mul(20) {
        if pairs.len() == count {
            break;
        }
        let (a, b) = (stream.random_range(0..n), stream.random_range(0..n));
        if a < b && seen.insert([a, b]) && askable(a, b) {
            pairs.push([a, b]);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use flipside_core::Seed;

    /// A pool of one-step clips. Clip i has the observation i and the origin `origin(i)`.
    fn pool(clips: usize, origin: impl Fn(usize) -> Origin) -> ClipPool {
        let mut pool = ClipPool::new(clips);
        for i in 0..clips {
            let frames =
                Frames { steps: 1, obs_dim: 1, obs: vec![i as f32], task_reward: vec![0.0], ..Frames::default() };
            let clip = Clip { id: ItemId(i as u64), task: "t".into(), dt: 0.1, recorded_at: 0, frames };
            pool.push(Arc::new(clip), origin(i));
        }
        pool
    }

    fn apart(i: usize) -> Origin {
        Origin { world: 0, start: 10 * i as u64 }
    }

    /// A rank that grows with the difference of the two clips' observations, which are their indices.
    fn distance(pairs: &[[usize; 2]]) -> Vec<f32> {
        pairs.iter().map(|[a, b]| a.abs_diff(*b) as f32).collect()
    }

    #[test]
    fn the_pool_keeps_the_recent_clips() {
        let mut pool = pool(5, apart);
        let extra = Arc::new(Clip { id: ItemId(9), ..(*pool.get(0).clip).clone() });
        assert_eq!(pool.push(extra, apart(9)).map(|clip| clip.id), Some(ItemId(0)));
        assert_eq!(pool.iter().map(|e| e.clip.id.0).collect::<Vec<_>>(), [1, 2, 3, 4, 9]);
    }

    #[test]
    fn every_askable_pair_comes_once_and_no_other() {
        // Clips 0 and 1 overlap in world 0; (2, 3) was asked before, with its sides swapped.
        let pool = pool(5, |i| Origin { world: usize::from(i > 1), start: if i == 1 { 0 } else { i as u64 } });
        let mut asked = AskedPairs::default();
        asked.insert(ItemId(3), ItemId(2));
        let (settings, mut stream) = (LabelSettings::default(), Seed(1).stream("pairs"));
        let mut seen = Vec::new();
        loop {
            let chosen = choose_pairs(&pool, 1, &asked, Some(&mut distance), &settings, &mut stream);
            let Some(pair) = chosen.first() else { break };
            assert!(asked.insert(ItemId(pair.left as u64), ItemId(pair.right as u64)), "asked twice");
            seen.push([pair.left.min(pair.right), pair.left.max(pair.right)]);
        }
        seen.sort_unstable();
        assert_eq!(seen, [[0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [1, 4], [2, 4], [3, 4]]);
    }

    #[test]
    fn disagreement_is_asked_mostly_and_random_sometimes() {
        let pool = pool(100, apart);
        let (settings, mut stream) = (LabelSettings::default(), Seed(2).stream("pairs"));
        let asked = AskedPairs::default();
        let mut far = [Vec::new(), Vec::new()];
        let mut flipped = 0;
        for _ in 0..300 {
            for pair in choose_pairs(&pool, 2, &asked, Some(&mut distance), &settings, &mut stream) {
                flipped += usize::from(pair.left > pair.right);
                far[usize::from(pair.reason == PairReason::Random)].push(pair.left.abs_diff(pair.right) as f64);
            }
        }
        let share = far[1].len() as f64 / 600.0;
        assert!((share - 0.3).abs() < 0.06, "random share {share}");
        // Two random clips of 100 have a mean distance of 100/3; the best of twenty candidates is far above that.
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        assert!(mean(&far[0]) > 60.0 && (mean(&far[1]) - 33.3).abs() < 6.0, "{} {}", mean(&far[0]), mean(&far[1]));
        assert!((220..380).contains(&flipped), "sides are not shuffled: {flipped} of 600");
        // Without a rank all pairs are random.
        let chosen = choose_pairs(&pool, 20, &asked, None, &settings, &mut stream);
        assert!(chosen.len() == 20 && chosen.iter().all(|pair| pair.reason == PairReason::Random));
        let clips: HashSet<usize> = chosen.iter().flat_map(|pair| [pair.left, pair.right]).collect();
        assert_eq!(clips.len(), 40, "a clip came twice although there are enough");
    }

    /// Half of the clips show one movement, half another. With most of the candidates removed, each pair shows both
    /// movements. If there are no other pairs, similar ones are asked nevertheless.
    #[test]
    fn pairs_that_look_alike_are_put_aside() {
        let kind = |i: usize| i % 2 * 100 + i / 2;
        let mut pool = ClipPool::new(40);
        for i in 0..40 {
            let obs = vec![kind(i) as f32, 0.1 * i as f32];
            let frames = Frames { steps: 2, obs_dim: 1, obs, task_reward: vec![0.0; 2], ..Frames::default() };
            let clip = Clip { id: ItemId(i as u64), task: "t".into(), dt: 0.1, recorded_at: 0, frames };
            pool.push(Arc::new(clip), apart(i));
        }
        let settings = LabelSettings { drop_similar_share: 0.7, random_share: 1.0, ..LabelSettings::default() };
        let mut stream = Seed(3).stream("pairs");
        let chosen = choose_pairs(&pool, 6, &AskedPairs::default(), None, &settings, &mut stream);
        assert!(chosen.len() == 6 && chosen.iter().all(|pair| pair.left % 2 != pair.right % 2), "{chosen:?}");
        let few = choose_pairs(&pool, 10_000, &AskedPairs::default(), None, &settings, &mut stream);
        assert_eq!(few.len(), 40 * 39 / 2);
    }

    /// Each pair has one clip from the pool and one that was judged before, no pair comes twice, and pairs of high rank
    /// are preferred.
    #[test]
    fn the_past_is_held_against_the_present() {
        let pool = pool(30, apart);
        let past: Vec<Arc<Clip>> =
            (0..20).map(|i| Arc::new(Clip { id: ItemId(100 + i), ..(*pool.get(i as usize).clip).clone() })).collect();
        let (settings, mut stream) =
            (LabelSettings { random_share: 0.0, ..LabelSettings::default() }, Seed(5).stream("past"));
        let (mut asked, mut far) = (AskedPairs::default(), 0.0);
        let mut distance = |pairs: &[(&Frames, &Frames)]| -> Vec<f32> {
            pairs.iter().map(|(a, b)| (a.obs[0] - b.obs[0]).abs()).collect()
        };
        for _ in 0..40 {
            let chosen = choose_past_pairs(&pool, &past, 3, &asked, &mut distance, &settings, &mut stream);
            assert_eq!(chosen.len(), 3);
            for [left, right] in chosen {
                assert!((left.id.0 < 100) != (right.id.0 < 100), "{} {}", left.id.0, right.id.0);
                assert!(asked.insert(left.id, right.id), "asked twice");
                far += (left.frames.obs[0] - right.frames.obs[0]).abs() / 120.0;
            }
        }
        // A random number below 30 and one below 20 differ by 10.6 on average.
        assert!(far > 16.0, "{far}");
        let none = choose_past_pairs(&pool, &[], 3, &asked, &mut distance, &settings, &mut stream);
        assert!(none.is_empty());
    }

    #[test]
    fn the_same_stream_chooses_the_same_pairs_and_nan_is_no_reason() {
        let pool = pool(30, apart);
        let choose = |seed| {
            let mut nan = |pairs: &[[usize; 2]]| vec![f32::NAN; pairs.len()];
            let stream = &mut Seed(seed).stream("pairs");
            choose_pairs(&pool, 4, &AskedPairs::default(), Some(&mut nan), &LabelSettings::default(), stream)
        };
        assert_eq!(choose(1), choose(1));
        assert_ne!(choose(1), choose(2));
        assert_eq!(choose(1).len(), 4);
    }
}
