//! The number type that the equations are written for: one world in double precision ([`f64`]), or several worlds side by side in the
//! lanes of a vector register of `f32` (see [`super::simd`]).
//!
//! Every operation acts on each lane alone and rounds it as it would round any other lane, so that what happens to a world does not
//! depend on which lane it sits in, or beside whom.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, BitAnd, BitOr, Div, Mul, Neg, Not, Sub, SubAssign};

/// Which lanes something holds for.
pub trait Mask: Copy + Send + Sync + BitAnd<Output = Self> + BitOr<Output = Self> + Not<Output = Self> {
    /// Holds for no lane.
    const NONE: Self;
    /// Whether it holds for at least one lane.
    fn any(self) -> bool;
    /// Whether it holds for this lane.
    fn get(self, lane: usize) -> bool;
}

/// A model's constant in the precision of the lanes; it is spread over them where it is used.
pub trait Scalar: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// Rounds to this precision.
    fn of(x: f64) -> Self;
}

impl Scalar for f64 {
    fn of(x: f64) -> f64 {
        x
    }
}

impl Scalar for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
}

/// Numbers side by side, one a world.
pub trait Lane:
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
    /// What comparisons give.
    type Mask: Mask;
    /// One lane's number, and a model's constants.
    type Scalar: Scalar;

    /// How many worlds.
    const LANES: usize;
    /// What rounding one operation can change, relative to its result.
    const EPSILON: f64;

    /// The same number in every lane.
    fn splat(x: Self::Scalar) -> Self;
    /// One lane's number.
    fn get(&self, lane: usize) -> f64;
    /// Replaces one lane's number.
    fn set(&mut self, lane: usize, x: f64);

    /// `self · a + b`, rounded once where the processor can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The lesser number.
    fn min(self, other: Self) -> Self;
    /// The greater number.
    fn max(self, other: Self) -> Self;
    /// Without its sign.
    fn abs(self) -> Self;
    /// The nearest whole number.
    fn round(self) -> Self;
    /// Less than; false for NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// This where the mask holds, else the other.
    fn select(mask: Self::Mask, this: Self, other: Self) -> Self;
    /// Sine and cosine, radians.
    fn sin_cos(self) -> (Self, Self);

    /// Runs a job whose code is compiled for the instructions that these lanes need. All that the job calls must be inlined into it.
    fn run<J: Job>(job: J) -> J::Output;

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
}

/// Work for [`Lane::run`].
pub trait Job {
    /// What it gives.
    type Output;
    /// Does it. Implementations are `#[inline(always)]`.
    fn run(self) -> Self::Output;
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

/// One world, as the reference that the lanes are held against.
impl Lane for f64 {
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
    // Not fused: without a compile-time target that has the instruction, f64::mul_add is a call into libm.
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
    fn run<J: Job>(job: J) -> J::Output {
        job.run()
    }
}
