//! Reduces true colour to a palette of 256. One palette serves a whole film, so that nothing flickers from frame to
//! frame.

use super::Picture;
use std::collections::HashMap;

/// Colours of a palette that pictures use. The last one of a GIF's 256 means "as before".
const COLOURS: usize = 255;

/// A film's palette, with a cache of each colour's nearest entry.
pub(super) struct Palette {
    colours: Vec<[u8; 3]>,
    nearest: HashMap<[u8; 3], u8>,
}

/// A colour and its weight, which grows with the number of pixels that have it.
#[derive(Clone, Copy)]
struct Counted {
    rgb: [u8; 3],
    pixels: f64,
}

impl Palette {
    /// The palette for `pictures` (after Wu 1992). It starts with one set of all colours. The set with the greatest
    /// squared error is cut at its mean, across the channel in which it varies most, until there are enough sets. Each
    /// entry is a set's mean.
    pub fn of(pictures: &[Picture]) -> Palette {
        let mut counts: HashMap<[u8; 3], u32> = HashMap::new();
        for pixel in pictures.iter().flat_map(|picture| picture.rgba.chunks_exact(4)) {
            *counts.entry([pixel[0], pixel[1], pixel[2]]).or_default() += 1;
        }
        let mut all = counts
            .into_iter()
            // The square root gives a small robot its share of the colours beside a large floor.
            .map(|(rgb, pixels)| Counted { rgb, pixels: f64::from(pixels).sqrt() })
            .collect::<Vec<_>>();
        // A hash map has no fixed order, and the same film must get the same palette.
        all.sort_by_key(|counted| counted.rgb);
        let mut sets = vec![Set::new(all)];
        while sets.len() < COLOURS {
            let Some(worst) = (0..sets.len()).max_by(|&a, &b| sets[a].error().total_cmp(&sets[b].error())) else {
                break;
            };
            if sets[worst].error() <= 0.0 {
                break;
            }
            let (low, high) = sets.swap_remove(worst).cut();
            sets.extend([low, high]);
        }
        let colours = sets.iter().map(|set| set.mean.map(|c| c.round() as u8)).collect();
        Palette { colours, nearest: HashMap::new() }
    }

    /// Red, green and blue of every entry, as a GIF stores them, including the unused one.
    pub fn bytes(&self) -> Vec<u8> {
        [self.colours.concat(), vec![0; 3]].concat()
    }

    /// The index that no colour has. It marks pixels that stay as they were.
    pub fn unchanged(&self) -> u8 {
        // At most 255 colours, so this fits.
        self.colours.len() as u8
    }

    /// The palette index of every pixel. `before` holds the indices on show, if any. A pixel takes the index that was
    /// just used, else the one on show, if that one is within [`SAME`] of its colour. Otherwise it takes the nearest.
    /// GIF compresses runs of one index well.
    ///
    /// Returns the indices to write, where [`Palette::unchanged`] leaves a pixel as it is, and the indices that are
    /// then on show.
    pub fn indices(&mut self, picture: &Picture, before: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
        let pixels = picture.rgba.len() / 4;
        let (mut written, mut shown) = (Vec::with_capacity(pixels), Vec::with_capacity(pixels));
        let mut last = None;
        for (at, pixel) in picture.rgba.chunks_exact(4).enumerate() {
            let rgb = [pixel[0], pixel[1], pixel[2]];
            let same = |index: u8| self.colours.get(usize::from(index)).is_some_and(|&c| distance(c, rgb) <= SAME);
            let unchanged = before.map(|before| before[at]).filter(|&index| same(index));
            let (write, show) = match (last, unchanged) {
                (Some(run), _) if same(run) => (run, run),
                (_, Some(index)) => (self.unchanged(), index),
                _ => {
                    let index = self.index(rgb);
                    (index, index)
                }
            };
            last = (write != self.unchanged()).then_some(write);
            written.push(write);
            shown.push(show);
        }
        (written, shown)
    }

    fn index(&mut self, rgb: [u8; 3]) -> u8 {
        let colours = &self.colours;
        *self
            .nearest
            .entry(rgb)
            .or_insert_with(|| (0..colours.len()).min_by_key(|&i| distance(colours[i], rgb)).unwrap_or(0) as u8)
    }
}

/// Squared distance in sRGB bytes up to which two colours count as the same: two in each channel.
const SAME: u32 = 12;

fn distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.iter().zip(b).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

/// Colours that share an entry.
struct Set {
    members: Vec<Counted>,
    mean: [f64; 3],
    /// Weighted squared distance from the mean, by channel.
    errors: [f64; 3],
}

impl Set {
    fn new(members: Vec<Counted>) -> Set {
        let pixels: f64 = members.iter().map(|m| m.pixels).sum();
        let over = |f: &dyn Fn(f64) -> f64, channel: usize| -> f64 {
            members.iter().map(|m| m.pixels * f(f64::from(m.rgb[channel]))).sum()
        };
        let mean: [f64; 3] = std::array::from_fn(|c| over(&|x| x, c) / pixels.max(1e-9));
        let errors = std::array::from_fn(|c| over(&|x| (x - mean[c]).powi(2), c));
        Set { members, mean, errors }
    }

    fn error(&self) -> f64 {
        if self.members.len() < 2 { 0.0 } else { self.errors.iter().sum() }
    }

    /// Cuts the set in two. Neither part is empty: with an error above 0, there are colours on both sides of the mean.
    fn cut(self) -> (Set, Set) {
        let across = (0..3).max_by(|&a, &b| self.errors[a].total_cmp(&self.errors[b])).unwrap_or(0);
        let (low, high) = self.members.into_iter().partition(|m| f64::from(m.rgb[across]) <= self.mean[across]);
        (Set::new(low), Set::new(high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pixels: impl Iterator<Item = [u8; 3]>) -> Picture {
        let rgba = pixels.flat_map(|[r, g, b]| [r, g, b, 255]).collect::<Vec<_>>();
        Picture { width: rgba.len() as u32 / 4, height: 1, rgba }
    }

    #[test]
    fn few_colours_stay_as_they_are() {
        let colours = [[0, 0, 0], [255, 0, 0], [10, 200, 30], [255, 255, 255], [10, 200, 40]];
        let picture = picture(colours.iter().copied().cycle().take(500));
        let mut palette = Palette::of(std::slice::from_ref(&picture));
        let bytes = palette.bytes();
        let (written, shown) = palette.indices(&picture, None);
        assert_eq!(written, shown);
        for (index, pixel) in shown.iter().zip(picture.rgba.chunks(4)) {
            assert_eq!(bytes[3 * usize::from(*index)..][..3], pixel[..3]);
        }
        let (again, still) = palette.indices(&picture, Some(&shown));
        assert!(again.iter().all(|&i| i == palette.unchanged()));
        assert_eq!(still, shown);
    }

    #[test]
    fn a_gradient_is_off_by_little_more_than_its_steps() {
        // 4096 colours on a line in colour space, in 255 entries: steps of 1, 0.4 and 1 between neighbouring entries.
        let picture = picture((0..4096_u32).map(|i| [(i / 16) as u8, 100 + (i / 40) as u8, (255 - i / 16) as u8]));
        let mut palette = Palette::of(std::slice::from_ref(&picture));
        let bytes = palette.bytes();
        let (written, _) = palette.indices(&picture, None);
        for (index, pixel) in written.into_iter().zip(picture.rgba.chunks(4)) {
            let entry = &bytes[3 * usize::from(index)..][..3];
            assert!(entry.iter().zip(pixel).all(|(a, b)| a.abs_diff(*b) <= 3), "{entry:?} for {pixel:?}");
        }
    }
}
