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
    /// Number of examples of the present epoch; 0 if it has not begun.
    of: usize,
}

impl Cursor {
    /// A cursor at the start of the first epoch.
    pub fn new(stream: Stream) -> Cursor {
        Cursor { stream, at: 0, order: Vec::new(), of: 0 }
    }

    /// The next `count` indices among `of` examples (at least 1). If the data set's size has changed, a new epoch
    /// starts, in an order that owes nothing to the one before: where answers keep coming, no epoch is ever completed,
    /// and each answer must be as likely as any other to be among the first.
    pub fn take(&mut self, count: usize, of: usize) -> Vec<usize> {
        if self.order.len() != of {
            if self.of != 0 && self.of != of {
                shuffled(&mut self.stream, self.of);
                self.at = 0;
            }
            self.of = of;
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

    /// Adds `name` (u64): the stream's state, the position in the epoch and the number of its examples.
    pub fn to_arrays(&self, name: &str, arrays: &mut Arrays) {
        let mut words = self.stream.state().to_vec();
        words.extend([self.at as u64, self.of as u64]);
        arrays.insert(name.to_owned(), Array::u64(words));
    }

    /// The cursor that [`Cursor::to_arrays`] saved.
    pub fn from_arrays(name: &str, arrays: Reader) -> Result<Cursor, LearnError> {
        // Checkpoints of earlier versions lack the sixth word.
        let [a, b, c, d, at, of] = match arrays.shape(name)? {
            [5] => {
                let [a, b, c, d, at] = arrays.words(name)?;
                [a, b, c, d, at, 0]
            }
            _ => arrays.words(name)?,
        };
        let stream = Stream::from_state([a, b, c, d]);
        Ok(Cursor { stream, at: at as usize, order: Vec::new(), of: of as usize })
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
            // Over the same examples, and over more of them, where a new epoch starts.
            for of in [10, 13] {
                let mut copy = Cursor::from_arrays("cursor", Reader(&arrays)).unwrap();
                assert_eq!(copy.take(25, of), cursor.clone().take(25, of));
            }
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

    /// As a person's answers come in: sixteen more, and a few steps before the next sixteen.
    #[test]
    fn every_example_of_a_growing_list_has_its_turn() {
        let mut cursor = Cursor::new(Seed(5).stream("data"));
        let mut taken = [0; 512];
        for answers in (16..=512).step_by(16) {
            for _ in 0..4 {
                cursor.take(16, answers).into_iter().for_each(|i| taken[i] += 1);
            }
        }
        // With orders that owe each other nothing (300 draws of them): 68 to 106 of the last 256 are never taken,
        // because they come late, and none is taken more than 27 times.
        let never = taken[256..].iter().filter(|&&n| n == 0).count();
        assert!(never < 110, "{never} of the last 256 were never taken");
        assert!(taken.iter().all(|&n| n < 36), "{}", taken.iter().max().unwrap());
    }
}
