//! What pairs are chosen from, and the pool of recent clips.

use super::similarity;
use flipside_core::{Clip, ItemId, Stream};
use rand::RngExt;
use std::collections::VecDeque;
use std::sync::Arc;

/// The items that pairs are chosen from, by index: clips or completions.
pub trait Pool {
    /// Number of items.
    fn count(&self) -> usize;

    /// An item's id. Panics, like a slice, if `index` is not below [`Pool::count`].
    fn id(&self, index: usize) -> ItemId;

    /// Whether a teacher can compare these two items.
    fn comparable(&self, a: usize, b: usize) -> bool;

    /// At least the number of pairs that are comparable.
    fn most_pairs(&self) -> usize {
        self.count() * self.count().saturating_sub(1) / 2
    }

    /// How far the two items of each pair are apart, on any scale: 0 for items that are alike. It needs no reward
    /// model.
    fn distances(&self, pairs: &[[usize; 2]]) -> Vec<f32>;
}

/// Which world a clip was cut from, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Index in the batch of worlds.
    pub world: usize,
    /// The world's env steps before the clip's first frame.
    pub start: u64,
}

impl Origin {
    /// Whether a clip of `steps` env steps that starts here overlaps, in the same world, with one of `other_steps` that
    /// starts at `other`.
    pub fn overlaps(self, steps: usize, other: Origin, other_steps: usize) -> bool {
        self.world == other.world
            && self.start < other.start + other_steps as u64
            && other.start < self.start + steps as u64
    }
}

/// A clip in the pool.
#[derive(Clone, Debug)]
pub struct PoolEntry {
    /// The clip.
    pub clip: Arc<Clip>,
    /// Where it was cut.
    pub origin: Origin,
}

/// A bounded pool: if it is full, a new clip replaces the oldest.
#[derive(Clone, Debug)]
pub struct ClipPool {
    capacity: usize,
    entries: VecDeque<PoolEntry>,
}

impl ClipPool {
    /// An empty pool of at most `capacity` clips (at least two: a pair).
    pub fn new(capacity: usize) -> ClipPool {
        ClipPool { capacity: capacity.max(2), entries: VecDeque::new() }
    }

    /// Adds a clip; returns the one that it replaced, if the pool was full.
    pub fn push(&mut self, clip: Arc<Clip>, origin: Origin) -> Option<Arc<Clip>> {
        let evicted = (self.entries.len() == self.capacity).then(|| self.entries.pop_front()).flatten();
        self.entries.push_back(PoolEntry { clip, origin });
        evicted.map(|entry| entry.clip)
    }

    /// Clips in the pool.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A clip by its index; 0 is the oldest. Panics, like a slice, if `index` is not below [`ClipPool::len`].
    pub fn get(&self, index: usize) -> &PoolEntry {
        &self.entries[index]
    }

    /// A random clip, if there is one.
    pub fn any(&self, stream: &mut Stream) -> Option<&PoolEntry> {
        (!self.is_empty()).then(|| self.get(stream.random_range(0..self.len())))
    }

    /// All clips, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &PoolEntry> {
        self.entries.iter()
    }

    /// Drops all clips, e.g. those of the untrained policy once training has begun.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Whether two clips of the pool overlap in time in the same world, or are the same clip.
    pub fn share_a_moment(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.get(a), self.get(b));
        a.clip.id == b.clip.id || a.origin.overlaps(a.clip.frames.steps, b.origin, b.clip.frames.steps)
    }
}

impl Pool for ClipPool {
    fn count(&self) -> usize {
        self.len()
    }

    fn id(&self, index: usize) -> ItemId {
        self.get(index).clip.id
    }

    /// Clips that overlap in time in the same world are not compared.
    fn comparable(&self, a: usize, b: usize) -> bool {
        !self.share_a_moment(a, b)
    }

    fn distances(&self, pairs: &[[usize; 2]]) -> Vec<f32> {
        similarity::distances(self, pairs)
    }
}
