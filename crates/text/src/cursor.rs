//! A trainer's position in its data. Every epoch visits each example once, in an order of its own, which a resumed run
//! continues.

use flipside_core::{Array, Arrays, Stream};
use flipside_learn::{LearnError, Reader};
use rand::seq::SliceRandom;

/// A position in endless epochs over a data set. Neither data nor order is saved: the order follows from the stream's
/// state at the start of the epoch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cursor {
    /// The stream's state before the present epoch was shuffled.
    stream: Stream,
    /// Number of examples of the present epoch that were taken.
    at: usize,
    /// The present epoch's order; empty until the first call of [`Cursor::take`].
    order: Vec<u32>,
}

impl Cursor {
    /// A cursor at the start of the first epoch.
    pub fn new(stream: Stream) -> Cursor {
        Cursor { stream, at: 0, order: Vec::new() }
    }

    /// The next `count` indices among `of` examples (at least 1). If the data set's size has changed, a new epoch
    /// starts.
    pub fn take(&mut self, count: usize, of: usize) -> Vec<usize> {
        if self.order.len() != of {
            if !self.order.is_empty() {
                self.at = 0;
            }
            self.order = shuffled(&mut self.stream.clone(), of);
            self.at = self.at.min(of);
        }
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            if self.at == of {
                // Shuffling advances the stream to the start of the next epoch.
                shuffled(&mut self.stream, of);
                self.order = shuffled(&mut self.stream.clone(), of);
                self.at = 0;
            }
            taken.push(self.order[self.at] as usize);
            self.at += 1;
        }
        taken
    }

    /// Adds `name` (u64): the stream's state and the position in the epoch.
    pub fn to_arrays(&self, name: &str, arrays: &mut Arrays) {
        let mut words = self.stream.state().to_vec();
        words.push(self.at as u64);
        arrays.insert(name.to_owned(), Array::u64(words));
    }

    /// The cursor that [`Cursor::to_arrays`] saved.
    pub fn from_arrays(name: &str, arrays: Reader) -> Result<Cursor, LearnError> {
        let [a, b, c, d, at] = arrays.words(name)?;
        Ok(Cursor { stream: Stream::from_state([a, b, c, d]), at: at as usize, order: Vec::new() })
    }
}

fn shuffled(stream: &mut Stream, of: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..of as u32).collect();
    order.shuffle(stream);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;

    #[test]
    fn every_pass_gives_everything_once_and_a_saved_cursor_goes_on() {
        let mut cursor = Cursor::new(Seed(3).stream("data"));
        let mut passes: Vec<Vec<usize>> = Vec::new();
        let mut all = Vec::new();
        for _ in 0..10 {
            all.extend(cursor.take(7, 10));
            let mut arrays = Arrays::new();
            cursor.to_arrays("cursor", &mut arrays);
            let mut copy = Cursor::from_arrays("cursor", Reader(&arrays)).unwrap();
            assert_eq!(copy.take(25, 10), cursor.clone().take(25, 10));
        }
        for pass in all.chunks_exact(10) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..10));
            passes.push(pass.to_vec());
        }
        passes.dedup();
        assert_eq!(passes.len(), 7);
    }
}
