//! Functions of a single number, lane by lane: polynomials with errors of a few units in the last place of an `f32`.

use super::F32Lanes;

/// The polynomial of these coefficients, highest power first.
#[inline(always)]
fn polynomial<L: F32Lanes, const N: usize>(x: L, coefficients: [f32; N]) -> L {
    let mut sum = L::splat(coefficients[0]);
    for &c in &coefficients[1..] {
        sum = sum.mul_add(x, L::splat(c));
    }
    sum
}

/// sin and cos to within 1e-7, for |x| up to some thousand. x is reduced to ±π/4 by multiples of π/2 in three parts
/// (Cody and Waite), then the minimax polynomials of the Cephes library's sinf and cosf are applied.
#[inline(always)]
pub(super) fn sin_cos<L: F32Lanes>(x: L) -> (L, L) {
    let quarter_turns = (x * L::splat(std::f32::consts::FRAC_2_PI)).round();
    let mut r = quarter_turns.mul_add(L::splat(-1.570_312_5), x);
    r = quarter_turns.mul_add(L::splat(-4.837_513e-4), r);
    r = quarter_turns.mul_add(L::splat(-7.549_79e-8), r);
    let z = r * r;
    let sin = polynomial(z, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let sin = (sin * z).mul_add(r, r);
    let cos = polynomial(z, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let cos = (cos * z).mul_add(z, z.mul_add(L::splat(-0.5), L::splat(1.0)));
    // The quadrant, from the whole number of quarter turns modulo 4: −2, −1, 0, 1 or 2.
    let quadrant = quarter_turns - (quarter_turns * L::splat(0.25)).round() * L::splat(4.0);
    let odd = L::splat(0.5).lt(quadrant.abs()) & quadrant.abs().lt(L::splat(1.5));
    let sin_negative = quadrant.lt(L::splat(-0.5)) | L::splat(1.5).lt(quadrant);
    let cos_negative = L::splat(0.5).lt(quadrant) | quadrant.lt(L::splat(-1.5));
    let (s, c) = (L::select(odd, cos, sin), L::select(odd, sin, cos));
    (L::select(sin_negative, -s, s), L::select(cos_negative, -c, c))
}

/// tanh to within 5 units in the last place: an odd polynomial of degree 9 over an even one of degree 8, the rational
/// minimax approximation of Eigen. From 8 on it is 1 to within two units. NaN stays NaN.
#[inline(always)]
pub fn tanh<L: F32Lanes>(x: L) -> L {
    const LIMIT: f32 = 8.017_734;
    let x = x.clamp(L::splat(-LIMIT), L::splat(LIMIT));
    let x2 = x * x;
    let p = polynomial(x2, [1.394_553_6e-8, 2.102_733_6e-5, 3.520_756_7e-3, 1.340_216_1e-1, 1.0]);
    let q = polynomial(x2, [8.015_777e-7, 3.326_951_4e-4, 2.597_254_5e-2, 4.673_548_3e-1, 1.0]);
    x * p / q
}

/// exp to within 1 unit in the last place, by Cody and Waite's reduction to ±½ ln 2 and the Cephes library's
/// polynomial. Results above f32's range are infinite, results below its normal numbers become the smallest normal
/// number, and NaN stays NaN.
#[inline(always)]
pub fn exp<L: F32Lanes>(x: L) -> L {
    const HIGH: f32 = 88.376_26;
    let held = x.clamp(L::splat(-87.336_54), L::splat(HIGH));
    let whole = (held * L::splat(std::f32::consts::LOG2_E)).round();
    let r = whole.mul_add(L::splat(-0.693_359_4), held);
    let r = whole.mul_add(L::splat(2.121_944_4e-4), r);
    let p = polynomial(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let fraction = (p * r).mul_add(r, r) + L::splat(1.0);
    L::select(L::splat(HIGH).lt(x), L::splat(f32::INFINITY), fraction * whole.exp2_whole())
}

/// eˣ − 1 − x, which is ½x² + …, to within 6 units in the last place. It avoids the cancellation that the plain
/// expression suffers near 0. `exp_x` is eˣ.
#[inline(always)]
pub fn exp_excess<L: F32Lanes>(x: L, exp_x: L) -> L {
    let near =
        polynomial(x, [1.0 / 40_320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5]) * x * x;
    let far = exp_x - L::splat(1.0) - x;
    L::select((x * x).lt(L::splat(0.25)), near, far)
}

#[cfg(test)]
mod tests {
    use super::super::{Job, load, run_in_each, store};
    use super::*;

    /// Runs one function on numbers, in all kinds of registers.
    #[derive(Clone)]
    struct Map<'a>(Function, &'a [f32]);

    #[derive(Clone, Copy)]
    enum Function {
        Sin,
        Cos,
        Tanh,
        Exp,
        Excess,
    }

    impl Job for Map<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<L: F32Lanes>(self) -> Vec<f32> {
            let mut out = vec![0.0; self.1.len()];
            for at in (0..out.len()).step_by(L::LANES) {
                let x: L = load(self.1, at);
                let y = match self.0 {
                    Function::Sin => x.sin_cos().0,
                    Function::Cos => x.sin_cos().1,
                    Function::Tanh => tanh(x),
                    Function::Exp => exp(x),
                    Function::Excess => exp_excess(x, exp(x)),
                };
                store(y, &mut out, at);
            }
            out
        }
    }

    /// The distance of y from the true number, in units in the last place of an f32 of its size.
    fn ulps(y: f32, truth: f64) -> f64 {
        let unit = f64::from((truth as f32).abs().max(f32::MIN_POSITIVE));
        let unit = unit.log2().floor().exp2() * f64::from(f32::EPSILON);
        (f64::from(y) - truth).abs() / unit
    }

    fn absolute(y: f32, truth: f64) -> f64 {
        (f64::from(y) - truth).abs()
    }

    /// Compares every kind of registers with the truth, by a measure of error, and the fused kinds with each other, bit
    /// by bit.
    fn check(function: Function, truth: fn(f64) -> f64, range: f32, error: fn(f32, f64) -> f64, allowed: f64) {
        let n = 1 << 18;
        let even = (0..n).map(|i| range * (2.0 * i as f32 / n as f32 - 1.0));
        // And small numbers of every size.
        let small = (0..n).map(|i| (i as f32 / n as f32 * -60.0).exp() * if i % 2 == 0 { 0.7 } else { -0.7 });
        let numbers: Vec<f32> = even.chain(small).collect();
        let all = run_in_each(Map(function, &numbers));
        for (lanes, out) in &all {
            let worst = numbers
                .iter()
                .zip(out)
                .map(|(&x, &y)| (error(y, truth(f64::from(x))), x))
                .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
            assert!(worst.0 <= allowed, "{lanes:?}: off by {} at {}", worst.0, worst.1);
        }
        if let [_, (_, avx2), (_, avx512)] = &all[..] {
            assert!(avx2.iter().zip(avx512).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn functions_are_within_a_few_units_of_the_last_place() {
        check(Function::Tanh, f64::tanh, 12.0, ulps, 5.0);
        check(Function::Exp, f64::exp, 87.0, ulps, 1.0);
        // Relative to the result, so an error of cancellation would show.
        let excess = |x: f64| if x.abs() < 1e-3 { x * x * (0.5 + x / 6.0 + x * x / 24.0) } else { x.exp_m1() - x };
        check(Function::Excess, excess, 3.0, ulps, 6.0);
    }

    #[test]
    fn sines_and_cosines_are_right_to_single_precision() {
        check(Function::Sin, f64::sin, 100.0, absolute, 1.2e-7);
        check(Function::Cos, f64::cos, 100.0, absolute, 1.2e-7);
    }

    #[test]
    fn functions_end_where_f32_ends() {
        let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.0, -0.0, 89.0];
        let numbers = [&numbers[..], &[0.0; 8]].concat();
        for (lanes, out) in run_in_each(Map(Function::Tanh, &numbers)) {
            assert!(out[0].is_nan(), "{lanes:?}");
            assert!(out[1] <= 1.0 && out[1] > 1.0 - 2e-7, "{lanes:?}: {}", out[1]);
            assert_eq!(&out[2..7], [-out[1], out[1], -out[1], 0.0, 0.0], "{lanes:?}");
        }
        for (lanes, out) in run_in_each(Map(Function::Exp, &numbers)) {
            assert!(out[0].is_nan(), "{lanes:?}");
            assert_eq!(
                [out[1], out[3], out[5], out[6], out[7]],
                [f32::INFINITY, f32::INFINITY, 1.0, 1.0, f32::INFINITY]
            );
            assert!(out[2] < 1.2e-38 && out[4] < 1.2e-38, "{lanes:?}: {out:?}");
        }
        for (lanes, out) in run_in_each(Map(Function::Excess, &numbers)) {
            assert!(out[0].is_nan() && out[3] == f32::INFINITY && out[5] == 0.0, "{lanes:?}: {out:?}");
        }
    }
}
