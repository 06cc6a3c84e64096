//! Distances of rows of numbers to their nearest neighbours: every row is compared with every other, over vector
//! registers.

use flipside_core::simd::{F32Lanes, Job, Mask, PAD, run};

/// How many registers are summed side by side, so that none waits for its own previous sum.
const AT_ONCE: usize = 4;

/// The Euclidean distance of each row of `rows`, `[n, width]`, to the k-th nearest row of `among`, `[m, width]`. With
/// fewer than k rows it is the distance to the farthest, and with none it is 0. A row that is in `among` is its own
/// nearest neighbour.
pub fn neighbour_distances(rows: &[f32], among: &[f32], width: usize, k: usize) -> Vec<f32> {
    let width = width.max(1);
    let others = among.len() / width;
    if k.min(others) == 0 {
        return vec![0.0; rows.len() / width];
    }
    // Stored by columns, so that the distances to consecutive rows fill a register. The padding of the last register is
    // infinitely far away.
    let count = others.next_multiple_of(AT_ONCE * PAD);
    let mut columns = vec![f32::INFINITY; width * count];
    for (i, column) in columns.chunks_exact_mut(count).enumerate() {
        column.iter_mut().zip(among[i..].iter().step_by(width)).for_each(|(to, x)| *to = *x);
    }
    run(Nearest { rows, columns: &columns, width, count, k: k.min(others) })
}

#[derive(Clone)]
struct Nearest<'a> {
    rows: &'a [f32],
    /// `[width, count]`.
    columns: &'a [f32],
    width: usize,
    count: usize,
    k: usize,
}

impl Job for Nearest<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: F32Lanes>(self) -> Vec<f32> {
        let Nearest { rows, columns, width, count, k } = self;
        let mut smallest = vec![0.0; k];
        let mut distances = Vec::with_capacity(rows.len() / width);
        for row in rows.chunks_exact(width) {
            smallest.fill(f32::INFINITY);
            for first in (0..count).step_by(AT_ONCE * L::LANES) {
                let mut squares = [L::splat(0.0); AT_ONCE];
                for (x, column) in row.iter().zip(columns.chunks_exact(count)) {
                    let x = L::splat(*x);
                    for (place, square) in squares.iter_mut().enumerate() {
                        // SAFETY: `count` is a multiple of how many numbers are read at once.
                        let apart = x - unsafe { L::load(column.as_ptr().add(first + place * L::LANES)) };
                        *square += apart * apart;
                    }
                }
                // Few of many rows are among the nearest so far, so the loop mostly ends here.
                let bound = L::splat(smallest[k - 1]);
                for square in squares.into_iter().filter(|square| square.lt(bound).any()) {
                    let mut numbers = [0.0; PAD];
                    // SAFETY: a register has at most as many numbers.
                    unsafe { square.store(numbers.as_mut_ptr()) };
                    numbers[..L::LANES].iter().for_each(|number| insert(&mut smallest, *number));
                }
            }
            distances.push(smallest[k - 1].sqrt());
        }
        distances
    }
}

/// Inserts a number into the sorted smallest ones, if it is one of them.
#[inline(always)]
fn insert(smallest: &mut [f32], number: f32) {
    let last = smallest.len() - 1;
    if number < smallest[last] {
        let place = smallest.partition_point(|kept| *kept <= number);
        smallest[place..].rotate_right(1);
        smallest[place] = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use flipside_core::simd::run_in_each;
    use rand_distr::{Distribution, StandardNormal};

    /// Every kind of lanes gives the same bits as sorting all distances, for sizes that fill registers and sizes that
    /// do not.
    #[test]
    fn the_nearest_are_those_that_sorting_finds() {
        let mut stream = Seed(3).stream("rows");
        for (n, m, width, k) in [(7, 1, 1, 1), (9, 64, 3, 5), (5, 200, 11, 5), (4, 3, 2, 9), (3, 130, 29, 6)] {
            let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| StandardNormal.sample(&mut stream)).collect() };
            let (rows, among) = (draw(n * width), draw(m * width));
            let sorted = |row: &[f32]| {
                let square = |other: &[f32]| row.iter().zip(other).fold(0.0, |sum, (x, y)| sum + (x - y) * (x - y));
                let mut squares: Vec<f32> = among.chunks_exact(width).map(square).collect();
                squares.sort_by(f32::total_cmp);
                squares[k.min(m) - 1].sqrt()
            };
            let expected: Vec<f32> = rows.chunks_exact(width).map(sorted).collect();
            assert_eq!(neighbour_distances(&rows, &among, width, k), expected);
            let count = m.next_multiple_of(AT_ONCE * PAD);
            let columns: Vec<f32> = (0..width * count)
                .map(|at| among.get(at % count * width + at / count).copied().unwrap_or(f32::INFINITY))
                .collect();
            let job = Nearest { rows: &rows, columns: &columns, width, count, k: k.min(m) };
            for (lanes, found) in run_in_each(job) {
                assert_eq!(found, expected, "{lanes:?}: {n} rows among {m} of {width}");
            }
        }
        assert_eq!(neighbour_distances(&[1.0, 2.0], &[], 1, 5), [0.0, 0.0]);
    }
}
