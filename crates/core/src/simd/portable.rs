//! Numbers in an array, which the compiler keeps in registers of SSE2, NEON or whatever the processor has.

use super::functions::sin_cos;
use super::{F32Lanes, JobOn, Lanes, Mask};
use std::array::from_fn;
use std::ops::{Add, AddAssign, BitAnd, BitOr, Div, Mul, Neg, Not, Sub, SubAssign};

/// Four numbers: one register of 128 bits.
pub type F32x4 = Array<4>;

/// An array of N numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Array<const N: usize>([f32; N]);

/// Which lanes of an array: all bits of a lane, or none.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct ArrayMask<const N: usize>([u32; N]);

/// An operator of two operands, lane by lane.
macro_rules! lanewise {
    ($name:ident, $operator:ident, $function:ident, |$a:ident, $b:ident| $of_one:expr) => {
        impl<const N: usize> $operator for $name<N> {
            type Output = $name<N>;
            #[inline(always)]
            fn $function(self, other: $name<N>) -> $name<N> {
                $name(from_fn(|i| {
                    let ($a, $b) = (self.0[i], other.0[i]);
                    $of_one
                }))
            }
        }
    };
}

lanewise!(Array, Add, add, |a, b| a + b);
lanewise!(Array, Sub, sub, |a, b| a - b);
lanewise!(Array, Mul, mul, |a, b| a * b);
lanewise!(Array, Div, div, |a, b| a / b);
lanewise!(ArrayMask, BitAnd, bitand, |a, b| a & b);
lanewise!(ArrayMask, BitOr, bitor, |a, b| a | b);

impl<const N: usize> Neg for Array<N> {
    type Output = Array<N>;
    #[inline(always)]
    fn neg(self) -> Array<N> {
        Array(self.0.map(|x| -x))
    }
}

impl<const N: usize> AddAssign for Array<N> {
    #[inline(always)]
    fn add_assign(&mut self, other: Array<N>) {
        *self = *self + other;
    }
}

impl<const N: usize> SubAssign for Array<N> {
    #[inline(always)]
    fn sub_assign(&mut self, other: Array<N>) {
        *self = *self - other;
    }
}

impl<const N: usize> Not for ArrayMask<N> {
    type Output = ArrayMask<N>;
    #[inline(always)]
    fn not(self) -> ArrayMask<N> {
        ArrayMask(self.0.map(|bits| !bits))
    }
}

impl<const N: usize> Mask for ArrayMask<N> {
    const NONE: ArrayMask<N> = ArrayMask([0; N]);
    #[inline(always)]
    fn any(self) -> bool {
        self.0.iter().fold(0, |any, bits| any | bits) != 0
    }
    #[inline(always)]
    fn get(self, lane: usize) -> bool {
        self.0[lane] != 0
    }
}

impl<const N: usize> Lanes for Array<N> {
    type Mask = ArrayMask<N>;
    type Scalar = f32;
    const LANES: usize = N;
    const EPSILON: f64 = f32::EPSILON as f64;

    #[inline(always)]
    fn splat(x: f32) -> Array<N> {
        Array([x; N])
    }
    #[inline(always)]
    fn get(&self, lane: usize) -> f64 {
        f64::from(self.0[lane])
    }
    #[inline(always)]
    fn set(&mut self, lane: usize, x: f64) {
        self.0[lane] = x as f32;
    }
    // Fused only if every processor of the architecture has the instruction; otherwise it would be a call into libm.
    #[inline(always)]
    fn mul_add(self, a: Array<N>, b: Array<N>) -> Array<N> {
        match cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            true => Array(from_fn(|i| self.0[i].mul_add(a.0[i], b.0[i]))),
            false => self * a + b,
        }
    }
    #[inline(always)]
    fn sqrt(self) -> Array<N> {
        Array(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    fn min(self, other: Array<N>) -> Array<N> {
        Array(from_fn(|i| if self.0[i] < other.0[i] { self.0[i] } else { other.0[i] }))
    }
    #[inline(always)]
    fn max(self, other: Array<N>) -> Array<N> {
        Array(from_fn(|i| if self.0[i] > other.0[i] { self.0[i] } else { other.0[i] }))
    }
    #[inline(always)]
    fn abs(self) -> Array<N> {
        Array(self.0.map(f32::abs))
    }
    #[inline(always)]
    fn round(self) -> Array<N> {
        // Adding and subtracting 1.5 · 2²³ rounds to even, for numbers below 2²². Otherwise this is a call into libm on
        // plain x86-64.
        const SHIFT: f32 = 12_582_912.0;
        Array(self.0.map(|x| (x + SHIFT) - SHIFT))
    }
    #[inline(always)]
    fn lt(self, other: Array<N>) -> ArrayMask<N> {
        ArrayMask(from_fn(|i| u32::from(self.0[i] < other.0[i]).wrapping_neg()))
    }
    #[inline(always)]
    fn select(mask: ArrayMask<N>, this: Array<N>, other: Array<N>) -> Array<N> {
        let bits = |i: usize| this.0[i].to_bits() & mask.0[i] | other.0[i].to_bits() & !mask.0[i];
        Array(from_fn(|i| f32::from_bits(bits(i))))
    }
    #[inline(always)]
    fn sin_cos(self) -> (Array<N>, Array<N>) {
        sin_cos(self)
    }
    #[inline]
    fn run<J: JobOn<Array<N>>>(job: J) -> J::Output {
        job.run()
    }
}

impl<const N: usize> F32Lanes for Array<N> {
    const MANY_REGISTERS: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Array<N> {
        // SAFETY: the caller's promise; an array of numbers is aligned like one.
        Array(unsafe { *at.cast() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { *at.cast() = self.0 }
    }
    #[inline(always)]
    fn exp2_whole(self) -> Array<N> {
        Array(self.0.map(|x| f32::from_bits((x as i32).wrapping_add(127).wrapping_shl(23) as u32)))
    }
}
