//! SIMD: the same arithmetic on several numbers side by side, in the widest vector registers that the processor has.
//!
//! Code is written once, for any type `L` of these traits; the type is chosen at run time:
//!
//! - [`Lanes`] is arithmetic and comparison. Its types are [`f64`] (one lane, the reference), [`F32x16`] (AVX-512),
//!   [`F32x8`] (AVX2 with FMA) and [`F32x4`] (an array, for SSE2, NEON and everything else).
//! - [`F32Lanes`] adds memory access and a few functions for the registers of `f32`.
//! - [`run`] does a [`Job`] in the widest registers there are. Code that stores values of `L` chooses by [`detected`]
//!   instead and calls [`Lanes::run`].
//!
//! A lane's result never depends on the other lanes. AVX-512 and AVX2 give the same bits, because both fuse a
//! multiplication with the addition that follows it. The array only fuses if every processor of the architecture can,
//! so plain x86-64 may differ in the last bits.
//!
//! Everything that a job calls must be `#[inline(always)]`, down to the intrinsics. Otherwise the compiler translates
//! the function without the job's instructions. That costs speed but does not change the result.

mod dispatch;
mod functions;
mod lanes;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use dispatch::{Instructions, Job, JobOn, detected, run, run_in_each};
pub use functions::{exp, exp_excess, tanh};
pub use lanes::{F32Lanes, Lanes, Mask, Scalar};
pub use portable::F32x4;
#[cfg(target_arch = "x86_64")]
pub use x86::{F32x8, F32x16};

/// Rows of matrices are padded with zeros to a multiple of this, which is a multiple of the lanes of every
/// [`F32Lanes`].
pub const PAD: usize = 16;

/// `n` rounded up to a multiple of [`PAD`].
pub const fn padded(n: usize) -> usize {
    n.next_multiple_of(PAD)
}

/// The numbers of a slice from index `at` on. Panics if it has too few.
#[inline(always)]
pub fn load<L: F32Lanes>(numbers: &[f32], at: usize) -> L {
    assert!(at <= numbers.len() && numbers.len() - at >= L::LANES);
    // SAFETY: just asserted.
    unsafe { L::load(numbers.as_ptr().add(at)) }
}

/// Stores numbers into a slice, from index `at` on. Panics if it has too few.
#[inline(always)]
pub fn store<L: F32Lanes>(lanes: L, numbers: &mut [f32], at: usize) {
    assert!(at <= numbers.len() && numbers.len() - at >= L::LANES);
    // SAFETY: just asserted.
    unsafe { lanes.store(numbers.as_mut_ptr().add(at)) }
}
