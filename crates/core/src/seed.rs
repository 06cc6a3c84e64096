//! Named seed streams. Every random number in Flipside comes from one of these, so the same seed gives the same run.
//!
//! A [`Seed`] names a run. [`Seed::stream`] derives an independent [`Stream`] for each use ("policy", "reset",
//! "pairs"), and [`Seed::world`] the seed of one world of a batch. A stream is plain data, so it can be saved and
//! restored bit for bit.

use super::fnv1a;
use rand::TryRng;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

/// The seed of a run, or of one world in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of this name. Streams of different names or seeds are independent for all practical purposes.
    pub fn stream(self, name: &str) -> Stream {
        // FNV-1a over the name, mixed with the seed by SplitMix64, as xoshiro's authors advise for seeding.
        let mut mix = split_mix(self.0) ^ fnv1a(name.as_bytes());
        Stream {
            state: std::array::from_fn(|_| {
                mix = mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
                split_mix(mix)
            }),
        }
    }

    /// The seed of world `index` of a batch: seed + index, as in Gymnasium. A world's random numbers thus do not depend
    /// on how many worlds run beside it.
    pub fn world(self, index: usize) -> Seed {
        Seed(self.0.wrapping_add(index as u64))
    }
}

/// A xoshiro256++ generator (Blackman and Vigna 2019) as plain, saveable data. Use it through `rand`'s traits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The four words of the whole state. A checkpoint saves them.
    pub fn state(&self) -> [u64; 4] {
        self.state
    }

    /// The stream that continues from a saved state. An all-zero state would never change, so the stream of seed 0
    /// replaces it.
    pub fn from_state(state: [u64; 4]) -> Stream {
        match state {
            [0, 0, 0, 0] => Seed(0).stream(""),
            state => Stream { state },
        }
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

fn split_mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

    #[test]
    fn agrees_with_rands_xoshiro() {
        let mut bytes = [0_u8; 32];
        let mut ours = Stream::from_state([1, 2, 3, 4]);
        for (word, chunk) in [1_u64, 2, 3, 4].iter().zip(bytes.chunks_mut(8)) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let mut theirs = Xoshiro256PlusPlus::from_seed(bytes);
        for _ in 0..1000 {
            assert_eq!(ours.next_u64(), theirs.next_u64());
        }
    }

    #[test]
    fn streams_differ_by_name_and_seed() {
        let first = |seed: u64, name: &str| Seed(seed).stream(name).next_u64();
        assert_ne!(first(0, "policy"), first(0, "pairs"));
        assert_ne!(first(0, "policy"), first(1, "policy"));
        assert_eq!(first(7, "policy"), first(7, "policy"));
    }
}
