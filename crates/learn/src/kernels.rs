//! What networks are computed with, over [`Lanes`]: one matrix product that all passes share, and the functions of a single number.

use super::lanes::Lanes;

/// Where the sums of a [`product`] begin and what becomes of them. `row` and `column` say where the first of the lanes lies; the columns are
/// filled up to whole registers.
pub(super) trait Target {
    /// What is added to.
    fn start<L: Lanes>(&self, row: usize, column: usize) -> L;
    /// Takes the sums.
    fn finish<L: Lanes>(&mut self, row: usize, column: usize, sums: L);
}

/// The left factor of a product, of which single numbers are taken.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    /// The numbers, rows of [`Left::stride`].
    pub numbers: &'a [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// The right factor of a product, of which registers are taken: rows of `stride`, of which the first `columns` count, a multiple of
/// [`PAD`](super::lanes::PAD).
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    /// The numbers.
    pub numbers: &'a [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
    /// Columns computed.
    pub columns: usize,
}

/// Σₖ left(row, k) · right(k, column) for `rows` rows, with `inner` terms to a sum; with `TRANSPOSED`, left(k, row).
///
/// Each sum takes its terms in order of k, whatever rows and columns are computed beside it: a row's bits do not depend on the batch.
#[inline(always)]
pub(super) fn product<L: Lanes, const TRANSPOSED: bool, T: Target>(
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
    assert!(right.columns.is_multiple_of(L::WIDTH), "columns must fill whole registers");
    let mut column = 0;
    while column < right.columns {
        // SAFETY: all rows, terms and columns lie within the lengths just asserted.
        unsafe {
            match (right.columns - column) / L::WIDTH {
                4.. if L::MANY => {
                    strip::<L, TRANSPOSED, 4, T>(rows, inner, left, right, column, target);
                    column += 4 * L::WIDTH;
                }
                2.. => {
                    strip::<L, TRANSPOSED, 2, T>(rows, inner, left, right, column, target);
                    column += 2 * L::WIDTH;
                }
                _ => {
                    strip::<L, TRANSPOSED, 1, T>(rows, inner, left, right, column, target);
                    column += L::WIDTH;
                }
            }
        }
    }
}

/// All rows of N registers' columns.
///
/// # Safety
/// As for [`tile`], for every row.
#[inline(always)]
unsafe fn strip<L: Lanes, const TRANSPOSED: bool, const N: usize, T: Target>(
    rows: usize,
    inner: usize,
    left: Left,
    right: Right,
    column: usize,
    target: &mut T,
) {
    let mut row = 0;
    // As many sums as registers allow, so that additions do not wait for each other: 24 of 32, or 12 of 16.
    unsafe {
        if L::MANY && N < 4 {
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

/// M rows of N registers' columns, all sums held in registers.
///
/// # Safety
/// Rows `row..row + M`, terms `0..inner` and the columns lie within the factors.
#[inline(always)]
unsafe fn tile<L: Lanes, const TRANSPOSED: bool, const M: usize, const N: usize, T: Target>(
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
            *sum = target.start(row + m, column + n * L::WIDTH);
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut left_at = left.numbers.as_ptr().add(row * row_step);
        let mut right_at = right.numbers.as_ptr().add(column);
        for _ in 0..inner {
            let mut across = [L::splat(0.0); N];
            for (n, across) in across.iter_mut().enumerate() {
                *across = L::load(right_at.add(n * L::WIDTH));
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
            target.finish(row + m, column + n * L::WIDTH, sum);
        }
    }
}

/// The lanes at `at` of a slice.
#[inline(always)]
pub(super) fn load<L: Lanes>(numbers: &[f32], at: usize) -> L {
    assert!(at <= numbers.len() && numbers.len() - at >= L::WIDTH);
    // SAFETY: just asserted.
    unsafe { L::load(numbers.as_ptr().add(at)) }
}

/// Puts lanes into a slice at `at`.
#[inline(always)]
pub(super) fn store<L: Lanes>(lanes: L, numbers: &mut [f32], at: usize) {
    assert!(at <= numbers.len() && numbers.len() - at >= L::WIDTH);
    // SAFETY: just asserted.
    unsafe { lanes.store(numbers.as_mut_ptr().add(at)) }
}

/// The polynomial of these coefficients, highest power first.
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(x: L, coefficients: [f32; N]) -> L {
    let mut sum = L::splat(coefficients[0]);
    for &c in &coefficients[1..] {
        sum = sum.mul_add(x, L::splat(c));
    }
    sum
}

/// tanh to within 5 units in the last place: an odd polynomial of degree 9 over an even one of degree 8, which Eigen found by rational
/// minimax; from 8 on it is 1 to within two units. NaN stays NaN.
#[inline(always)]
pub(super) fn tanh<L: Lanes>(x: L) -> L {
    const LIMIT: f32 = 8.017_734;
    let x = x.hold(L::splat(-LIMIT), L::splat(LIMIT));
    let x2 = x * x;
    let p = polynomial(x2, [1.394_553_6e-8, 2.102_733_6e-5, 3.520_756_7e-3, 1.340_216_1e-1, 1.0]);
    let q = polynomial(x2, [8.015_777e-7, 3.326_951_4e-4, 2.597_254_5e-2, 4.673_548_3e-1, 1.0]);
    x * p / q
}

/// exp to within 1 unit in the last place, by Cody and Waite's reduction to ±½ ln 2 and the Cephes library's polynomial. What would be above
/// f32's range is infinite, what would be below its normal numbers stays at the least of them, NaN stays NaN.
#[inline(always)]
pub(super) fn exp<L: Lanes>(x: L) -> L {
    const HIGH: f32 = 88.376_26;
    let held = x.hold(L::splat(-87.336_54), L::splat(HIGH));
    let whole = (held * L::splat(std::f32::consts::LOG2_E)).round();
    let r = whole.mul_add(L::splat(-0.693_359_4), held);
    let r = whole.mul_add(L::splat(2.121_944_4e-4), r);
    let p = polynomial(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let fraction = (p * r).mul_add(r, r) + L::splat(1.0);
    L::splat(HIGH).if_less(x, L::splat(f32::INFINITY), fraction * whole.exp2_whole())
}

/// eˣ − 1 − x, which is ½x² + … : without the cancellation that computing it as written suffers near 0, to within 6 units in the last
/// place. `exp_x` is eˣ.
#[inline(always)]
pub(super) fn exp_excess<L: Lanes>(x: L, exp_x: L) -> L {
    let near =
        polynomial(x, [1.0 / 40_320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5]) * x * x;
    let far = exp_x - L::splat(1.0) - x;
    (x * x).if_less(L::splat(0.25), near, far)
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{Job, Lanes, run_in_all};
    use super::*;
    use flipside_core::Seed;
    use rand::RngExt;

    /// Runs one function over numbers, in all kinds of lanes.
    #[derive(Clone)]
    struct Map<'a>(Function, &'a [f32]);

    #[derive(Clone, Copy)]
    enum Function {
        Tanh,
        Exp,
        Excess,
    }

    impl Job for Map<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<L: Lanes>(self) -> Vec<f32> {
            let mut out = vec![0.0; self.1.len()];
            for at in (0..out.len()).step_by(L::WIDTH) {
                let x: L = load(self.1, at);
                let y = match self.0 {
                    Function::Tanh => tanh(x),
                    Function::Exp => exp(x),
                    Function::Excess => exp_excess(x, exp(x)),
                };
                store(y, &mut out, at);
            }
            out
        }
    }

    /// How far y lies from the true number, in units of the last place of an f32 of its size.
    fn ulps(y: f32, truth: f64) -> f64 {
        let unit = f64::from((truth as f32).abs().max(f32::MIN_POSITIVE));
        let unit = unit.log2().floor().exp2() * f64::from(f32::EPSILON);
        (f64::from(y) - truth).abs() / unit
    }

    fn check(function: Function, truth: fn(f64) -> f64, range: f32, allowed: f64) {
        let n = 1 << 18;
        let even = (0..n).map(|i| range * (2.0 * i as f32 / n as f32 - 1.0));
        // And small ones of every size.
        let small = (0..n).map(|i| (i as f32 / n as f32 * -60.0).exp() * if i % 2 == 0 { 0.7 } else { -0.7 });
        let numbers: Vec<f32> = even.chain(small).collect();
        let all = run_in_all(Map(function, &numbers));
        for (lanes, out) in &all {
            let worst = numbers
                .iter()
                .zip(out)
                .map(|(&x, &y)| (ulps(y, truth(f64::from(x))), x))
                .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
            assert!(worst.0 <= allowed, "{lanes}: {} units at {}", worst.0, worst.1);
        }
        if let [_, (_, avx2), (_, avx512)] = &all[..] {
            assert!(avx2.iter().zip(avx512).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn functions_are_within_a_few_units_of_the_last_place() {
        check(Function::Tanh, f64::tanh, 12.0, 5.0);
        check(Function::Exp, f64::exp, 87.0, 1.0);
        // Relative to the result, which has no error of cancellation to hide behind.
        check(
            Function::Excess,
            |x| if x.abs() < 1e-3 { x * x * (0.5 + x / 6.0 + x * x / 24.0) } else { x.exp_m1() - x },
            3.0,
            6.0,
        );
    }

    #[test]
    fn functions_end_where_f32_ends() {
        let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.0, -0.0, 89.0];
        let numbers = [&numbers[..], &[0.0; 8]].concat();
        for (lanes, out) in run_in_all(Map(Function::Tanh, &numbers)) {
            assert!(out[0].is_nan(), "{lanes}");
            assert!(out[1] <= 1.0 && out[1] > 1.0 - 2e-7, "{lanes}: {}", out[1]);
            assert_eq!(&out[2..7], [-out[1], out[1], -out[1], 0.0, 0.0], "{lanes}");
        }
        for (lanes, out) in run_in_all(Map(Function::Exp, &numbers)) {
            assert!(out[0].is_nan(), "{lanes}");
            assert_eq!(
                [out[1], out[3], out[5], out[6], out[7]],
                [f32::INFINITY, f32::INFINITY, 1.0, 1.0, f32::INFINITY]
            );
            assert!(out[2] < 1.2e-38 && out[4] < 1.2e-38, "{lanes}: {out:?}");
        }
        for (lanes, out) in run_in_all(Map(Function::Excess, &numbers)) {
            assert!(out[0].is_nan() && out[3] == f32::INFINITY && out[5] == 0.0, "{lanes}: {out:?}");
        }
    }

    /// A product into memory, added to what is there.
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
        fn start<L: Lanes>(&self, row: usize, column: usize) -> L {
            load(self.0, row * self.1 + column)
        }
        #[inline(always)]
        fn finish<L: Lanes>(&mut self, row: usize, column: usize, sums: L) {
            store(sums, self.0, row * self.1 + column);
        }
    }

    impl Job for Product<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<L: Lanes>(self) -> Vec<f32> {
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
                    let all = run_in_all(Product { rows, inner, columns, transposed, left: &left, right: &right });
                    for (lanes, out) in &all {
                        for (i, &sum) in out.iter().enumerate() {
                            let (row, column) = (i / columns, i % columns);
                            let at = |k: usize| if transposed { k * rows + row } else { row * inner + k };
                            let term = |k: usize| f64::from(left[at(k)]) * f64::from(right[k * columns + column]);
                            let truth = 1.0 + (0..inner).map(term).sum::<f64>();
                            let near = (f64::from(sum) - truth).abs() < 2e-6;
                            assert!(near, "{lanes}, {rows}×{inner}×{columns}: {sum}, not {truth}");
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
