//! The arithmetic of networks over [`F32Lanes`]: one matrix product that all passes share.

use flipside_core::simd::F32Lanes;

/// Where the sums of a [`product`] start and where they go. `row` and `column` are the position of the first lane. The
/// columns are padded to whole registers.
pub(super) trait Target {
    /// The initial value of the sums.
    fn start<L: F32Lanes>(&self, row: usize, column: usize) -> L;
    /// Stores the sums.
    fn finish<L: F32Lanes>(&mut self, row: usize, column: usize, sums: L);
}

/// The left factor of a product. It is read one number at a time.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    /// The numbers, in rows that are [`Left::stride`] apart.
    pub numbers: &'a [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// The right factor of a product. It is read one register at a time. Its rows are `stride` apart, and only the first
/// `columns` count, a multiple of [`PAD`](flipside_core::simd::PAD).
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    /// The numbers.
    pub numbers: &'a [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
    /// Columns computed.
    pub columns: usize,
}

/// Σₖ left(row, k) · right(k, column) for `rows` rows, with `inner` terms per sum; with `TRANSPOSED`, left(k, row).
///
/// Each sum adds its terms in order of k, whatever rows and columns are computed beside it. A row's bits therefore do
/// not depend on the batch.
#[inline(always)]
pub(super) fn product<L: F32Lanes, const TRANSPOSED: bool, T: Target>(
    rows: usize,
    inner: usize,
    left: Left,
    right: Right,
    target: &mut T,
) {
    if rows == 0 || inner == 0 || right.columns == 0 {
        return;
    }
    let (last, across) = if TRANSPOSED { (inner - 1, rows) } else { (rows - 1, inner) };
    assert!(left.numbers.len() >= last * left.stride + across, "the left factor is too short");
    assert!(right.numbers.len() >= (inner - 1) * right.stride + right.columns, "the right factor is too short");
    assert!(right.columns.is_multiple_of(L::LANES), "columns must fill whole registers");
    let mut column = 0;
    while column < right.columns {
        // SAFETY: all rows, terms and columns lie within the lengths just asserted.
        unsafe {
            match (right.columns - column) / L::LANES {
                4.. if L::MANY_REGISTERS => {
                    strip::<L, TRANSPOSED, 4, T>(rows, inner, left, right, column, target);
                    column += 4 * L::LANES;
                }
                2.. => {
                    strip::<L, TRANSPOSED, 2, T>(rows, inner, left, right, column, target);
                    column += 2 * L::LANES;
                }
                _ => {
                    strip::<L, TRANSPOSED, 1, T>(rows, inner, left, right, column, target);
                    column += L::LANES;
                }
            }
        }
    }
}

/// All rows of the columns of N registers.
///
/// # Safety
/// As for [`tile`], for every row.
#[inline(always)]
unsafe fn strip<L: F32Lanes, const TRANSPOSED: bool, const N: usize, T: Target>(
    rows: usize,
    inner: usize,
    left: Left,
    right: Right,
    column: usize,
    target: &mut T,
) {
    let mut row = 0;
    // As many sums as the registers allow, so that additions do not wait for each other: 24 of 32 registers, or 12 of
    // 16.
    unsafe {
        if L::MANY_REGISTERS && N < 4 {
            while rows - row >= 12 {
                tile::<L, TRANSPOSED, 12, N, T>(row, inner, left, right, column, target);
                row += 12;
            }
        }
        while rows - row >= 6 {
            tile::<L, TRANSPOSED, 6, N, T>(row, inner, left, right, column, target);
            row += 6;
        }
        if rows - row >= 4 {
            tile::<L, TRANSPOSED, 4, N, T>(row, inner, left, right, column, target);
            row += 4;
        }
        if rows - row >= 2 {
            tile::<L, TRANSPOSED, 2, N, T>(row, inner, left, right, column, target);
            row += 2;
        }
        if rows > row {
            tile::<L, TRANSPOSED, 1, N, T>(row, inner, left, right, column, target);
        }
    }
}

/// M rows of the columns of N registers, with all sums held in registers.
///
/// # Safety
/// Rows `row..row + M`, terms `0..inner` and the columns lie within the factors.
#[inline(always)]
unsafe fn tile<L: F32Lanes, const TRANSPOSED: bool, const M: usize, const N: usize, T: Target>(
    row: usize,
    inner: usize,
    left: Left,
    right: Right,
    column: usize,
    target: &mut T,
) {
    let (row_step, term_step) = if TRANSPOSED { (1, left.stride) } else { (left.stride, 1) };
    let mut sums = [[L::splat(0.0); N]; M];
    for (m, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = target.start(row + m, column + n * L::LANES);
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut left_at = left.numbers.as_ptr().add(row * row_step);
        let mut right_at = right.numbers.as_ptr().add(column);
        for _ in 0..inner {
            let mut across = [L::splat(0.0); N];
            for (n, across) in across.iter_mut().enumerate() {
                *across = L::load(right_at.add(n * L::LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let x = L::splat(*left_at.add(m * row_step));
                for (sum, across) in sums.iter_mut().zip(across) {
                    *sum = x.mul_add(across, *sum);
                }
            }
            left_at = left_at.wrapping_add(term_step);
            right_at = right_at.wrapping_add(right.stride);
        }
    }
    for (m, sums) in sums.into_iter().enumerate() {
        for (n, sum) in sums.into_iter().enumerate() {
            target.finish(row + m, column + n * L::LANES, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use flipside_core::simd::{Job, load, run_in_each, store};
    use rand::RngExt;

    /// A product that is added to the numbers in memory.
    #[derive(Clone)]
    struct Product<'a> {
        rows: usize,
        inner: usize,
        columns: usize,
        transposed: bool,
        left: &'a [f32],
        right: &'a [f32],
    }

    struct Sums<'a>(&'a mut [f32], usize);

    impl Target for Sums<'_> {
        #[inline(always)]
        fn start<L: F32Lanes>(&self, row: usize, column: usize) -> L {
            load(self.0, row * self.1 + column)
        }
        #[inline(always)]
        fn finish<L: F32Lanes>(&mut self, row: usize, column: usize, sums: L) {
            store(sums, self.0, row * self.1 + column);
        }
    }

    impl Job for Product<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<L: F32Lanes>(self) -> Vec<f32> {
            let Product { rows, inner, columns, .. } = self;
            let mut out = vec![1.0; rows * columns];
            let right = Right { numbers: self.right, stride: columns, columns };
            let mut target = Sums(&mut out, columns);
            match self.transposed {
                true => {
                    let left = Left { numbers: self.left, stride: rows };
                    product::<L, true, _>(rows, inner, left, right, &mut target);
                }
                false => {
                    let left = Left { numbers: self.left, stride: inner };
                    product::<L, false, _>(rows, inner, left, right, &mut target);
                }
            }
            out
        }
    }

    #[test]
    fn products_of_every_remainder_are_those_of_f64_sums() {
        let mut stream = Seed(3).stream("product");
        for rows in (0..=14).chain([24, 25, 47]) {
            for columns in [16, 32, 48, 64, 80, 112] {
                let inner = 1 + (rows * 7 + columns) % 19;
                let mut draw = |n: usize| (0..n).map(|_| stream.random_range(-1.0..1.0)).collect::<Vec<f32>>();
                let (left, right) = (draw(rows * inner), draw(inner * columns));
                for transposed in [false, true] {
                    let all = run_in_each(Product { rows, inner, columns, transposed, left: &left, right: &right });
                    for (lanes, out) in &all {
                        for (i, &sum) in out.iter().enumerate() {
                            let (row, column) = (i / columns, i % columns);
                            let at = |k: usize| if transposed { k * rows + row } else { row * inner + k };
                            let term = |k: usize| f64::from(left[at(k)]) * f64::from(right[k * columns + column]);
                            let truth = 1.0 + (0..inner).map(term).sum::<f64>();
                            let near = (f64::from(sum) - truth).abs() < 2e-6;
                            assert!(near, "{lanes:?}, {rows}×{inner}×{columns}: {sum}, not {truth}");
                        }
                    }
                    if let [_, (_, avx2), (_, avx512)] = &all[..] {
                        assert_eq!(avx2, avx512);
                    }
                }
            }
        }
    }
}
