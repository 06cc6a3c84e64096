//! Lanes of `f32`: sixteen in an AVX-512 register, eight in an AVX2 one, and eight in an array that the compiler spreads over whatever
//! registers there are (SSE2, NEON).
//!
//! A portable build holds all of them; [`best`] chooses when the program runs. The three may differ in the last bits, since a fused
//! multiply-add rounds once and not every processor has one; two runs on one machine do not differ.

use super::lane::{Job, Lane, Mask};
use std::ops::{Add, AddAssign, BitAnd, BitOr, Div, Mul, Neg, Not, Sub, SubAssign};

/// The kinds of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// Sixteen lanes: AVX-512 F, with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Eight lanes: AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Eight lanes in an array.
    Portable,
}

/// The widest that this processor has.
pub fn best() -> Instructions {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Instructions::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Instructions::Avx2;
        }
    }
    Instructions::Portable
}

/// sin and cos of single precision to within 1e-7, for |x| up to some thousand: x is brought to ±π/4 by multiples of π/2 in three parts
/// (Cody and Waite), then the minimax polynomials of the Cephes library's sinf and cosf.
#[inline(always)]
fn sin_cos<L: Lane<Scalar = f32>>(x: L) -> (L, L) {
    let quarter_turns = (x * L::splat(std::f32::consts::FRAC_2_PI)).round();
    let mut r = quarter_turns.mul_add(L::splat(-1.570_312_5), x);
    r = quarter_turns.mul_add(L::splat(-4.837_513e-4), r);
    r = quarter_turns.mul_add(L::splat(-7.549_79e-8), r);
    let z = r * r;
    let sin = L::splat(-1.951_529_6e-4).mul_add(z, L::splat(8.332_161e-3)).mul_add(z, L::splat(-1.666_665_5e-1));
    let sin = (sin * z).mul_add(r, r);
    let cos = L::splat(2.443_315_7e-5).mul_add(z, L::splat(-1.388_731_6e-3)).mul_add(z, L::splat(4.166_664_6e-2));
    let cos = (cos * z).mul_add(z, z.mul_add(L::splat(-0.5), L::splat(1.0)));
    // The quadrant, from the whole number of quarter turns modulo 4: −2, −1, 0, 1 or 2.
    let quadrant = quarter_turns - (quarter_turns * L::splat(0.25)).round() * L::splat(4.0);
    let odd = L::splat(0.5).lt(quadrant.abs()) & quadrant.abs().lt(L::splat(1.5));
    let sin_negative = quadrant.lt(L::splat(-0.5)) | L::splat(1.5).lt(quadrant);
    let cos_negative = L::splat(0.5).lt(quadrant) | quadrant.lt(L::splat(-1.5));
    let (s, c) = (L::select(odd, cos, sin), L::select(odd, sin, cos));
    (L::select(sin_negative, -s, s), L::select(cos_negative, -c, c))
}

/// Operators from expressions in the two operands. Not closures: those are functions of their own, compiled without the instructions that
/// their caller has, into which an intrinsic cannot be inlined.
macro_rules! operators {
    ($name:ident, $a:ident, $b:ident, $add:expr, $sub:expr, $mul:expr, $div:expr, $neg:expr) => {
        impl Add for $name {
            type Output = $name;
            #[inline(always)]
            fn add(self, $b: $name) -> $name {
                let $a = self;
                $add
            }
        }
        impl Sub for $name {
            type Output = $name;
            #[inline(always)]
            fn sub(self, $b: $name) -> $name {
                let $a = self;
                $sub
            }
        }
        impl Mul for $name {
            type Output = $name;
            #[inline(always)]
            fn mul(self, $b: $name) -> $name {
                let $a = self;
                $mul
            }
        }
        impl Div for $name {
            type Output = $name;
            #[inline(always)]
            fn div(self, $b: $name) -> $name {
                let $a = self;
                $div
            }
        }
        impl Neg for $name {
            type Output = $name;
            #[inline(always)]
            fn neg(self) -> $name {
                let $a = self;
                $neg
            }
        }
        impl AddAssign for $name {
            #[inline(always)]
            fn add_assign(&mut self, other: $name) {
                *self = *self + other;
            }
        }
        impl SubAssign for $name {
            #[inline(always)]
            fn sub_assign(&mut self, other: $name) {
                *self = *self - other;
            }
        }
    };
}

macro_rules! bits {
    ($name:ident, $bits:ty, $lanes:expr) => {
        /// One bit a lane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $bits);

        impl BitAnd for $name {
            type Output = $name;
            #[inline(always)]
            fn bitand(self, other: $name) -> $name {
                $name(self.0 & other.0)
            }
        }
        impl BitOr for $name {
            type Output = $name;
            #[inline(always)]
            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }
        impl Not for $name {
            type Output = $name;
            #[inline(always)]
            fn not(self) -> $name {
                $name(!self.0)
            }
        }
        impl Mask for $name {
            const NONE: $name = $name(0);
            #[inline(always)]
            fn any(self) -> bool {
                self.0 != 0
            }
            #[inline(always)]
            fn get(self, lane: usize) -> bool {
                self.0 >> lane & 1 == 1
            }
        }
    };
}

bits!(Mask16, u16, 16);

#[cfg(target_arch = "x86_64")]
pub use x86::{F32x8, F32x16};

/// The register types. Their operations are `unsafe` only because the instructions may be missing; a value of these types is made in
/// [`Lane::run`] alone, which whoever chose the type has asked [`best`] about.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// Sixteen worlds in an AVX-512 register.
    #[derive(Clone, Copy, Debug)]
    #[repr(transparent)]
    pub struct F32x16(__m512);

    // SAFETY (of every intrinsic here): see the module's documentation.
    operators!(
        F32x16,
        a,
        b,
        F32x16(unsafe { _mm512_add_ps(a.0, b.0) }),
        F32x16(unsafe { _mm512_sub_ps(a.0, b.0) }),
        F32x16(unsafe { _mm512_mul_ps(a.0, b.0) }),
        F32x16(unsafe { _mm512_div_ps(a.0, b.0) }),
        F32x16(unsafe { _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a.0), _mm512_set1_epi32(i32::MIN))) })
    );

    impl Lane for F32x16 {
        type Mask = Mask16;
        type Scalar = f32;
        const LANES: usize = 16;
        const EPSILON: f64 = f32::EPSILON as f64;

        #[inline(always)]
        fn splat(x: f32) -> F32x16 {
            F32x16(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        fn get(&self, lane: usize) -> f64 {
            let numbers: &[f32; 16] = unsafe { &*std::ptr::from_ref(self).cast() };
            f64::from(numbers[lane])
        }
        #[inline(always)]
        fn set(&mut self, lane: usize, x: f64) {
            let numbers: &mut [f32; 16] = unsafe { &mut *std::ptr::from_mut(self).cast() };
            numbers[lane] = x as f32;
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
        fn min(self, other: F32x16) -> F32x16 {
            F32x16(unsafe { _mm512_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: F32x16) -> F32x16 {
            F32x16(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn abs(self) -> F32x16 {
            F32x16(unsafe { _mm512_abs_ps(self.0) })
        }
        #[inline(always)]
        fn round(self) -> F32x16 {
            F32x16(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }
        #[inline(always)]
        fn lt(self, other: F32x16) -> Mask16 {
            Mask16(unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) })
        }
        #[inline(always)]
        fn select(mask: Mask16, this: F32x16, other: F32x16) -> F32x16 {
            F32x16(unsafe { _mm512_mask_blend_ps(mask.0, other.0, this.0) })
        }
        #[inline(always)]
        fn sin_cos(self) -> (F32x16, F32x16) {
            sin_cos(self)
        }
        fn run<J: Job>(job: J) -> J::Output {
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn inner<J: Job>(job: J) -> J::Output {
                job.run()
            }
            // SAFETY: this type is chosen where `best` found the instructions.
            unsafe { inner(job) }
        }
    }

    /// Eight worlds in an AVX2 register.
    #[derive(Clone, Copy, Debug)]
    #[repr(transparent)]
    pub struct F32x8(__m256);

    /// Which of eight lanes: all bits of a lane, or none.
    #[derive(Clone, Copy, Debug)]
    pub struct Mask8(__m256);

    impl BitAnd for Mask8 {
        type Output = Mask8;
        #[inline(always)]
        fn bitand(self, other: Mask8) -> Mask8 {
            Mask8(unsafe { _mm256_and_ps(self.0, other.0) })
        }
    }
    impl BitOr for Mask8 {
        type Output = Mask8;
        #[inline(always)]
        fn bitor(self, other: Mask8) -> Mask8 {
            Mask8(unsafe { _mm256_or_ps(self.0, other.0) })
        }
    }
    impl Not for Mask8 {
        type Output = Mask8;
        #[inline(always)]
        fn not(self) -> Mask8 {
            Mask8(unsafe { _mm256_xor_ps(self.0, _mm256_castsi256_ps(_mm256_set1_epi32(-1))) })
        }
    }
    impl Mask for Mask8 {
        const NONE: Mask8 = Mask8(unsafe { std::mem::transmute::<[f32; 8], __m256>([0.0; 8]) });
        #[inline(always)]
        fn any(self) -> bool {
            unsafe { _mm256_movemask_ps(self.0) != 0 }
        }
        #[inline(always)]
        fn get(self, lane: usize) -> bool {
            unsafe { _mm256_movemask_ps(self.0) >> lane & 1 == 1 }
        }
    }

    operators!(
        F32x8,
        a,
        b,
        F32x8(unsafe { _mm256_add_ps(a.0, b.0) }),
        F32x8(unsafe { _mm256_sub_ps(a.0, b.0) }),
        F32x8(unsafe { _mm256_mul_ps(a.0, b.0) }),
        F32x8(unsafe { _mm256_div_ps(a.0, b.0) }),
        F32x8(unsafe { _mm256_xor_ps(a.0, _mm256_set1_ps(-0.0)) })
    );

    impl Lane for F32x8 {
        type Mask = Mask8;
        type Scalar = f32;
        const LANES: usize = 8;
        const EPSILON: f64 = f32::EPSILON as f64;

        #[inline(always)]
        fn splat(x: f32) -> F32x8 {
            F32x8(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        fn get(&self, lane: usize) -> f64 {
            let numbers: &[f32; 8] = unsafe { &*std::ptr::from_ref(self).cast() };
            f64::from(numbers[lane])
        }
        #[inline(always)]
        fn set(&mut self, lane: usize, x: f64) {
            let numbers: &mut [f32; 8] = unsafe { &mut *std::ptr::from_mut(self).cast() };
            numbers[lane] = x as f32;
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
        fn min(self, other: F32x8) -> F32x8 {
            F32x8(unsafe { _mm256_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: F32x8) -> F32x8 {
            F32x8(unsafe { _mm256_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn abs(self) -> F32x8 {
            F32x8(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
        }
        #[inline(always)]
        fn round(self) -> F32x8 {
            F32x8(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }
        #[inline(always)]
        fn lt(self, other: F32x8) -> Mask8 {
            Mask8(unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) })
        }
        #[inline(always)]
        fn select(mask: Mask8, this: F32x8, other: F32x8) -> F32x8 {
            F32x8(unsafe { _mm256_blendv_ps(other.0, this.0, mask.0) })
        }
        #[inline(always)]
        fn sin_cos(self) -> (F32x8, F32x8) {
            sin_cos(self)
        }
        fn run<J: Job>(job: J) -> J::Output {
            #[target_feature(enable = "avx2,fma")]
            fn inner<J: Job>(job: J) -> J::Output {
                job.run()
            }
            // SAFETY: this type is chosen where `best` found the instructions.
            unsafe { inner(job) }
        }
    }
}

/// Eight worlds in an array, for processors without the registers above.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Array8([f32; 8]);

bits!(MaskArray8, u8, 8);

macro_rules! array8 {
    ($a:ident, $b:ident, $op:tt) => {{
        let mut out = $a;
        for ((out, a), b) in out.0.iter_mut().zip(&$a.0).zip(&$b.0) {
            *out = *a $op *b;
        }
        out
    }};
}

#[inline(always)]
fn each(a: Array8, b: Array8, f: impl Fn(f32, f32) -> f32) -> Array8 {
    let mut out = a;
    for (x, y) in out.0.iter_mut().zip(&b.0) {
        *x = f(*x, *y);
    }
    out
}

operators!(Array8, a, b, array8!(a, b, +), array8!(a, b, -), array8!(a, b, *), array8!(a, b, /), {
    let mut out = a;
    for x in &mut out.0 {
        *x = -*x;
    }
    out
});

impl Lane for Array8 {
    type Mask = MaskArray8;
    type Scalar = f32;
    const LANES: usize = 8;
    const EPSILON: f64 = f32::EPSILON as f64;

    #[inline(always)]
    fn splat(x: f32) -> Array8 {
        Array8([x; 8])
    }
    #[inline(always)]
    fn get(&self, lane: usize) -> f64 {
        f64::from(self.0[lane])
    }
    #[inline(always)]
    fn set(&mut self, lane: usize, x: f64) {
        self.0[lane] = x as f32;
    }
    // Fused only where every processor of the architecture has the instruction; elsewhere it would be a call into libm.
    #[inline(always)]
    fn mul_add(self, a: Array8, b: Array8) -> Array8 {
        let mut out = self;
        for ((x, a), b) in out.0.iter_mut().zip(&a.0).zip(&b.0) {
            *x =
                if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { x.mul_add(*a, *b) } else { *x * a + b };
        }
        out
    }
    #[inline(always)]
    fn sqrt(self) -> Array8 {
        each(self, self, |x, _| x.sqrt())
    }
    #[inline(always)]
    fn min(self, other: Array8) -> Array8 {
        each(self, other, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, other: Array8) -> Array8 {
        each(self, other, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn abs(self) -> Array8 {
        each(self, self, |x, _| x.abs())
    }
    #[inline(always)]
    fn round(self) -> Array8 {
        each(self, self, |x, _| x.round_ties_even())
    }
    #[inline(always)]
    fn lt(self, other: Array8) -> MaskArray8 {
        let mut bits = 0;
        for (lane, (x, y)) in self.0.iter().zip(&other.0).enumerate() {
            bits |= u8::from(x < y) << lane;
        }
        MaskArray8(bits)
    }
    #[inline(always)]
    fn select(mask: MaskArray8, this: Array8, other: Array8) -> Array8 {
        let mut out = other;
        for (lane, (x, y)) in out.0.iter_mut().zip(&this.0).enumerate() {
            *x = if mask.0 >> lane & 1 == 1 { *y } else { *x };
        }
        out
    }
    #[inline(always)]
    fn sin_cos(self) -> (Array8, Array8) {
        sin_cos(self)
    }
    fn run<J: Job>(job: J) -> J::Output {
        job.run()
    }
}
