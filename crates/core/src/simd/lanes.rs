//! The traits that equations and kernels are written for.

use super::JobOn;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, BitAnd, BitOr, Div, Mul, Neg, Not, Sub, SubAssign};

/// The set of lanes for which a condition holds.
pub trait Mask: Copy + Send + Sync + BitAnd<Output = Self> + BitOr<Output = Self> + Not<Output = Self> {
    /// Holds for no lane.
    const NONE: Self;
    /// Whether it holds for at least one lane.
    fn any(self) -> bool;
    /// Whether it holds for this lane.
    fn get(self, lane: usize) -> bool;
}

/// One lane's number, [`f32`] or [`f64`]. Constants are stored in it and spread over the lanes where they are used.
pub trait Scalar: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// Rounds to this precision.
    fn of(x: f64) -> Self;
    /// The same number in double precision.
    fn wide(self) -> f64;
}

impl Scalar for f64 {
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

impl Scalar for f32 {
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

/// Numbers side by side. Every operation acts on each lane separately and rounds it as it would round any other lane.
pub trait Lanes:
    Copy
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
{
    /// The type of comparison results.
    type Mask: Mask;
    /// One lane's number.
    type Scalar: Scalar;

    /// The number of lanes.
    const LANES: usize;
    /// The largest relative rounding error of one operation.
    const EPSILON: f64;

    /// The same number in every lane.
    fn splat(x: Self::Scalar) -> Self;
    /// One lane's number, in double precision.
    fn get(&self, lane: usize) -> f64;
    /// Replaces one lane's number.
    fn set(&mut self, lane: usize, x: f64);

    /// `self · a + b`, rounded once where the processor can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The lesser number; `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// The greater number; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// The nearest whole number, with ties to even, for numbers below 2²².
    fn round(self) -> Self;
    /// Less than; false for NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// This where the mask holds, else the other.
    fn select(mask: Self::Mask, this: Self, other: Self) -> Self;
    /// Sine and cosine, radians.
    fn sin_cos(self) -> (Self, Self);

    /// Does a job, compiled for the instructions of these lanes. Panics if the processor does not have them.
    fn run<J: JobOn<Self>>(job: J) -> J::Output;

    /// The same number in every lane, from double precision.
    #[inline(always)]
    fn of(x: f64) -> Self {
        Self::splat(Self::Scalar::of(x))
    }

    /// Zero in every lane.
    #[inline(always)]
    fn zero() -> Self {
        Self::of(0.0)
    }

    /// One in every lane.
    #[inline(always)]
    fn one() -> Self {
        Self::of(1.0)
    }

    /// Clipped to `low` and `high`; NaN stays NaN.
    #[inline(always)]
    fn clamp(self, low: Self, high: Self) -> Self {
        high.min(low.max(self))
    }
}

/// A vector register of `f32`.
pub trait F32Lanes: Lanes<Scalar = f32> {
    /// Whether there are 32 registers rather than 16, so that a matrix product may keep 24 sums in them.
    const MANY_REGISTERS: bool;

    /// The [`Lanes::LANES`] numbers that begin at `at`.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load(at: *const f32) -> Self;
    /// Stores the numbers where `at` points.
    ///
    /// # Safety
    /// [`Lanes::LANES`] numbers must be writable there.
    unsafe fn store(self, at: *mut f32);
    /// 2 to the power of whole numbers from −126 to 127.
    fn exp2_whole(self) -> Self;
}

impl Mask for bool {
    const NONE: bool = false;
    #[inline(always)]
    fn any(self) -> bool {
        self
    }
    #[inline(always)]
    fn get(self, _lane: usize) -> bool {
        self
    }
}

/// One lane in double precision: the reference for the vector registers.
impl Lanes for f64 {
    type Mask = bool;
    type Scalar = f64;
    const LANES: usize = 1;
    const EPSILON: f64 = f64::EPSILON;

    #[inline(always)]
    fn splat(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn get(&self, _lane: usize) -> f64 {
        *self
    }
    #[inline(always)]
    fn set(&mut self, _lane: usize, x: f64) {
        *self = x;
    }
    // Not fused: unless the compile target has the instruction, f64::mul_add is a call into libm.
    #[inline(always)]
    fn mul_add(self, a: f64, b: f64) -> f64 {
        self * a + b
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn min(self, other: f64) -> f64 {
        if self < other { self } else { other }
    }
    #[inline(always)]
    fn max(self, other: f64) -> f64 {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn round(self) -> f64 {
        f64::round_ties_even(self)
    }
    #[inline(always)]
    fn lt(self, other: f64) -> bool {
        self < other
    }
    #[inline(always)]
    fn select(mask: bool, this: f64, other: f64) -> f64 {
        if mask { this } else { other }
    }
    #[inline(always)]
    fn sin_cos(self) -> (f64, f64) {
        f64::sin_cos(self)
    }
    fn run<J: JobOn<f64>>(job: J) -> J::Output {
        job.run()
    }
}
