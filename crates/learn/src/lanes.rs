//! Several `f32` side by side in a vector register, and the choice of registers when the program runs.
//!
//! A portable build holds every kernel once for AVX-512, once for AVX2 with FMA and once for whatever else there is; [`run`] takes the widest
//! that this processor has. A kernel gives the same bits on the first two, since both fuse a multiplication with the addition behind it, and no
//! sum runs across lanes. Elsewhere (plain x86-64) the last bits may differ.

use std::ops::{Add, Div, Mul, Sub};

/// Rows of matrices are filled up with zeros to a multiple of this, which is a multiple of every [`Lanes::WIDTH`].
pub(super) const PAD: usize = 16;

/// `n` filled up to a multiple of [`PAD`].
pub(super) const fn padded(n: usize) -> usize {
    n.next_multiple_of(PAD)
}

/// A register of numbers. Every operation acts on each lane alone.
pub(super) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// How many numbers.
    const WIDTH: usize;
    /// Whether there are 32 registers rather than 16, so that a product may keep 24 sums in them.
    const MANY: bool;

    /// The same number in every lane.
    fn splat(x: f32) -> Self;
    /// The [`Lanes::WIDTH`] numbers that begin at `at`.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load(at: *const f32) -> Self;
    /// Puts the numbers where `at` points.
    ///
    /// # Safety
    /// [`Lanes::WIDTH`] numbers can be written there.
    unsafe fn store(self, at: *mut f32);
    /// `self · a + b`, rounded once where the processor can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Held within `low` and `high`; NaN stays NaN.
    fn hold(self, low: Self, high: Self) -> Self;
    /// The nearest whole number.
    fn round(self) -> Self;
    /// 2 to the power of whole numbers from −126 to 127.
    fn exp2_whole(self) -> Self;
    /// `yes` where `self < other`, else (and for NaN) `no`.
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self;
    /// Whether `self < other` in any lane.
    fn any_less(self, other: Self) -> bool;
}

/// Work over lanes, compiled for each kind.
pub(super) trait Job {
    /// What it gives.
    type Output;
    /// Does it. An implementation and all that it calls must be `#[inline(always)]`: what is not inlined is compiled without the lanes'
    /// instructions.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Does a job in the widest lanes that this processor has.
pub(super) fn run<J: Job>(job: J) -> J::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { x86::run_avx512(job) };
        }
        if has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::run_avx2(job) };
        }
    }
    job.run::<F32x4>()
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && has_avx2()
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// The four operators of a kind of lanes.
macro_rules! operators {
    ($lanes:ty, $add:expr, $sub:expr, $mul:expr, $div:expr) => {
        operators!($lanes, Add, add, $add);
        operators!($lanes, Sub, sub, $sub);
        operators!($lanes, Mul, mul, $mul);
        operators!($lanes, Div, div, $div);
    };
    ($lanes:ty, $operator:ident, $name:ident, $body:expr) => {
        impl $operator for $lanes {
            type Output = $lanes;
            #[inline(always)]
            fn $name(self, other: $lanes) -> $lanes {
                $body(self, other)
            }
        }
    };
}

/// Registers of x86-64 that not every processor has. Their operations are safe to call where a job runs, since [`run`] has asked.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Job, Lanes};
    use std::arch::x86_64::*;
    use std::ops::{Add, Div, Mul, Sub};

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub fn run_avx512<J: Job>(job: J) -> J::Output {
        job.run::<F32x16>()
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn run_avx2<J: Job>(job: J) -> J::Output {
        job.run::<F32x8>()
    }

    /// An AVX-512 register.
    #[derive(Clone, Copy)]
    pub struct F32x16(__m512);

    /// An AVX register.
    #[derive(Clone, Copy)]
    pub struct F32x8(__m256);

    // SAFETY of all intrinsics below: these types are named in `run_avx512` and `run_avx2` alone.
    operators!(
        F32x16,
        |a: F32x16, b: F32x16| F32x16(unsafe { _mm512_add_ps(a.0, b.0) }),
        |a: F32x16, b: F32x16| F32x16(unsafe { _mm512_sub_ps(a.0, b.0) }),
        |a: F32x16, b: F32x16| F32x16(unsafe { _mm512_mul_ps(a.0, b.0) }),
        |a: F32x16, b: F32x16| F32x16(unsafe { _mm512_div_ps(a.0, b.0) })
    );

    impl Lanes for F32x16 {
        const WIDTH: usize = 16;
        const MANY: bool = true;

        #[inline(always)]
        fn splat(x: f32) -> F32x16 {
            F32x16(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(at: *const f32) -> F32x16 {
            F32x16(unsafe { _mm512_loadu_ps(at) })
        }
        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            unsafe { _mm512_storeu_ps(at, self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: F32x16, b: F32x16) -> F32x16 {
            F32x16(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn sqrt(self) -> F32x16 {
            F32x16(unsafe { _mm512_sqrt_ps(self.0) })
        }
        #[inline(always)]
        fn hold(self, low: F32x16, high: F32x16) -> F32x16 {
            // Where one is NaN, these instructions give the second.
            F32x16(unsafe { _mm512_min_ps(high.0, _mm512_max_ps(low.0, self.0)) })
        }
        #[inline(always)]
        fn round(self) -> F32x16 {
            F32x16(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }
        #[inline(always)]
        fn exp2_whole(self) -> F32x16 {
            F32x16(unsafe {
                let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
            })
        }
        #[inline(always)]
        fn if_less(self, other: F32x16, yes: F32x16, no: F32x16) -> F32x16 {
            F32x16(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0), no.0, yes.0) })
        }
        #[inline(always)]
        fn any_less(self, other: F32x16) -> bool {
            unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) != 0 }
        }
    }

    operators!(
        F32x8,
        |a: F32x8, b: F32x8| F32x8(unsafe { _mm256_add_ps(a.0, b.0) }),
        |a: F32x8, b: F32x8| F32x8(unsafe { _mm256_sub_ps(a.0, b.0) }),
        |a: F32x8, b: F32x8| F32x8(unsafe { _mm256_mul_ps(a.0, b.0) }),
        |a: F32x8, b: F32x8| F32x8(unsafe { _mm256_div_ps(a.0, b.0) })
    );

    impl Lanes for F32x8 {
        const WIDTH: usize = 8;
        const MANY: bool = false;

        #[inline(always)]
        fn splat(x: f32) -> F32x8 {
            F32x8(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(at: *const f32) -> F32x8 {
            F32x8(unsafe { _mm256_loadu_ps(at) })
        }
        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            unsafe { _mm256_storeu_ps(at, self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: F32x8, b: F32x8) -> F32x8 {
            F32x8(unsafe { _mm256_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn sqrt(self) -> F32x8 {
            F32x8(unsafe { _mm256_sqrt_ps(self.0) })
        }
        #[inline(always)]
        fn hold(self, low: F32x8, high: F32x8) -> F32x8 {
            F32x8(unsafe { _mm256_min_ps(high.0, _mm256_max_ps(low.0, self.0)) })
        }
        #[inline(always)]
        fn round(self) -> F32x8 {
            F32x8(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }
        #[inline(always)]
        fn exp2_whole(self) -> F32x8 {
            F32x8(unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            })
        }
        #[inline(always)]
        fn if_less(self, other: F32x8, yes: F32x8, no: F32x8) -> F32x8 {
            F32x8(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0)) })
        }
        #[inline(always)]
        fn any_less(self, other: F32x8) -> bool {
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0)) != 0 }
        }
    }
}

/// Four numbers in an array, which the compiler keeps in a register of SSE2, NEON or whatever there is.
#[derive(Clone, Copy)]
pub(super) struct F32x4([f32; 4]);

#[inline(always)]
fn each(a: F32x4, f: impl Fn(f32) -> f32) -> F32x4 {
    F32x4([f(a.0[0]), f(a.0[1]), f(a.0[2]), f(a.0[3])])
}

#[inline(always)]
fn both(a: F32x4, b: F32x4, f: impl Fn(f32, f32) -> f32) -> F32x4 {
    F32x4([f(a.0[0], b.0[0]), f(a.0[1], b.0[1]), f(a.0[2], b.0[2]), f(a.0[3], b.0[3])])
}

operators!(
    F32x4,
    |a, b| both(a, b, |x, y| x + y),
    |a, b| both(a, b, |x, y| x - y),
    |a, b| both(a, b, |x, y| x * y),
    |a, b| both(a, b, |x, y| x / y)
);

impl Lanes for F32x4 {
    const WIDTH: usize = 4;
    const MANY: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    fn splat(x: f32) -> F32x4 {
        F32x4([x; 4])
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> F32x4 {
        // SAFETY: the caller's promise; an array of numbers is aligned like one.
        F32x4(unsafe { *at.cast() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { *at.cast() = self.0 }
    }
    // Fused only where every processor of the architecture has the instruction; elsewhere it would be a call into libm.
    #[inline(always)]
    fn mul_add(self, a: F32x4, b: F32x4) -> F32x4 {
        match cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            true => F32x4([0, 1, 2, 3].map(|i| self.0[i].mul_add(a.0[i], b.0[i]))),
            false => self * a + b,
        }
    }
    #[inline(always)]
    fn sqrt(self) -> F32x4 {
        each(self, f32::sqrt)
    }
    #[inline(always)]
    fn hold(self, low: F32x4, high: F32x4) -> F32x4 {
        let held = both(self, low, |x, low| if x < low { low } else { x });
        both(held, high, |x, high| if x > high { high } else { x })
    }
    #[inline(always)]
    fn round(self) -> F32x4 {
        // Adding and taking away 1.5 · 2²³ rounds to even, for numbers below 2²²; without it this is a call into libm on plain x86-64.
        const SHIFT: f32 = 12_582_912.0;
        each(self, |x| (x + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn exp2_whole(self) -> F32x4 {
        each(self, |x| f32::from_bits((x as i32).wrapping_add(127).wrapping_shl(23) as u32))
    }
    #[inline(always)]
    fn if_less(self, other: F32x4, yes: F32x4, no: F32x4) -> F32x4 {
        F32x4([0, 1, 2, 3].map(|i| if self.0[i] < other.0[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    fn any_less(self, other: F32x4) -> bool {
        self.0.iter().zip(other.0).any(|(x, y)| *x < y)
    }
}

/// Does a job in every kind of lanes that this processor has, the portable one first.
#[cfg(test)]
pub(super) fn run_in_all<J: Job + Clone>(job: J) -> Vec<(&'static str, J::Output)> {
    let mut all = vec![("portable", job.clone().run::<F32x4>())];
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx2() {
            // SAFETY: the processor has what the function is compiled for.
            all.push(("AVX2", unsafe { x86::run_avx2(job.clone()) }));
        }
        if has_avx512() {
            // SAFETY: as above.
            all.push(("AVX-512", unsafe { x86::run_avx512(job) }));
        }
    }
    all
}
