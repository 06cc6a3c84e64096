//! The registers of x86-64 that not every processor has.
//!
//! This file holds all of this module's `unsafe` code that concerns instructions. An intrinsic may only run if the
//! processor has its instruction. Anyone can name the types here, so their users must promise to compute with one only
//! if [`Instructions::available`] returned true. Inside a job this holds, because [`Lanes::run`] asserts it.

use super::functions::sin_cos;
use super::{F32Lanes, Instructions, JobOn, Lanes, Mask};
use std::arch::x86_64::*;
use std::ops::{Add, AddAssign, BitAnd, BitOr, Div, Mul, Neg, Not, Sub, SubAssign};

/// The operators and traits of a register type. An intrinsic is given by name if it does the whole operation, otherwise
/// as an expression in the raw registers. (Closures would not work: they are functions of their own, compiled without
/// their caller's instructions.)
macro_rules! register {
    (
        $(#[$doc:meta])*
        $name:ident($raw:ty), $lanes:literal lanes, mask $mask:ident($raw_mask:ty),
        $instructions:ident, features $features:literal, many registers $many:literal,
        splat $splat:ident, load $load:ident, store $store:ident,
        add $add:ident, sub $sub:ident, mul $mul:ident, div $div:ident, mul_add $mul_add:ident,
        sqrt $sqrt:ident, min $min:ident, max $max:ident,
        neg |$n:ident| $neg:expr,
        abs |$a:ident| $abs:expr,
        round |$r:ident| $round:expr,
        exp2_whole |$e:ident| $exp2_whole:expr,
        lt |$x:ident, $y:ident| $lt:expr,
        select |$m:ident, $yes:ident, $no:ident| $select:expr,
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(transparent)]
        pub struct $name($raw);

        // SAFETY of every intrinsic: the promise of the module's documentation.
        register!(operator $name, Add add, $add);
        register!(operator $name, Sub sub, $sub);
        register!(operator $name, Mul mul, $mul);
        register!(operator $name, Div div, $div);

        impl Neg for $name {
            type Output = $name;
            #[inline(always)]
            fn neg(self) -> $name {
                let $n = self.0;
                $name(unsafe { $neg })
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

        impl Lanes for $name {
            type Mask = $mask;
            type Scalar = f32;
            const LANES: usize = $lanes;
            const EPSILON: f64 = f32::EPSILON as f64;

            #[inline(always)]
            fn splat(x: f32) -> $name {
                $name(unsafe { $splat(x) })
            }
            #[inline(always)]
            fn get(&self, lane: usize) -> f64 {
                // SAFETY: a register consists of that many numbers.
                let numbers: &[f32; $lanes] = unsafe { &*std::ptr::from_ref(self).cast() };
                f64::from(numbers[lane])
            }
            #[inline(always)]
            fn set(&mut self, lane: usize, x: f64) {
                // SAFETY: as above.
                let numbers: &mut [f32; $lanes] = unsafe { &mut *std::ptr::from_mut(self).cast() };
                numbers[lane] = x as f32;
            }
            #[inline(always)]
            fn mul_add(self, a: $name, b: $name) -> $name {
                $name(unsafe { $mul_add(self.0, a.0, b.0) })
            }
            #[inline(always)]
            fn sqrt(self) -> $name {
                $name(unsafe { $sqrt(self.0) })
            }
            #[inline(always)]
            fn min(self, other: $name) -> $name {
                $name(unsafe { $min(self.0, other.0) })
            }
            #[inline(always)]
            fn max(self, other: $name) -> $name {
                $name(unsafe { $max(self.0, other.0) })
            }
            #[inline(always)]
            fn abs(self) -> $name {
                let $a = self.0;
                $name(unsafe { $abs })
            }
            #[inline(always)]
            fn round(self) -> $name {
                let $r = self.0;
                $name(unsafe { $round })
            }
            #[inline(always)]
            fn lt(self, other: $name) -> $mask {
                let ($x, $y) = (self.0, other.0);
                $mask(unsafe { $lt })
            }
            #[inline(always)]
            fn select(mask: $mask, this: $name, other: $name) -> $name {
                let ($m, $yes, $no) = (mask.0, this.0, other.0);
                $name(unsafe { $select })
            }
            #[inline(always)]
            fn sin_cos(self) -> ($name, $name) {
                sin_cos(self)
            }
            #[inline]
            fn run<J: JobOn<$name>>(job: J) -> J::Output {
                #[target_feature(enable = $features)]
                fn compiled<J: JobOn<$name>>(job: J) -> J::Output {
                    job.run()
                }
                assert!(Instructions::$instructions.available(), "this processor has no {}", $features);
                // SAFETY: just asserted.
                unsafe { compiled(job) }
            }
        }

        impl F32Lanes for $name {
            const MANY_REGISTERS: bool = $many;

            #[inline(always)]
            unsafe fn load(at: *const f32) -> $name {
                $name(unsafe { $load(at) })
            }
            #[inline(always)]
            unsafe fn store(self, at: *mut f32) {
                unsafe { $store(at, self.0) }
            }
            #[inline(always)]
            fn exp2_whole(self) -> $name {
                let $e = self.0;
                $name(unsafe { $exp2_whole })
            }
        }
    };
    (operator $name:ident, $operator:ident $function:ident, $intrinsic:ident) => {
        impl $operator for $name {
            type Output = $name;
            #[inline(always)]
            fn $function(self, other: $name) -> $name {
                $name(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}

register!(
    /// Sixteen numbers in an AVX-512 register.
    F32x16(__m512), 16 lanes, mask Mask16(__mmask16),
    Avx512, features "avx512f,avx2,fma", many registers true,
    splat _mm512_set1_ps, load _mm512_loadu_ps, store _mm512_storeu_ps,
    add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, div _mm512_div_ps, mul_add _mm512_fmadd_ps,
    sqrt _mm512_sqrt_ps, min _mm512_min_ps, max _mm512_max_ps,
    neg |a| _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(i32::MIN))),
    abs |a| _mm512_abs_ps(a),
    round |a| _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a),
    exp2_whole |a| {
        let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
    },
    lt |a, b| _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b),
    select |mask, yes, no| _mm512_mask_blend_ps(mask, no, yes),
);

register!(
    /// Eight numbers in an AVX2 register.
    F32x8(__m256), 8 lanes, mask Mask8(__m256),
    Avx2, features "avx2,fma", many registers false,
    splat _mm256_set1_ps, load _mm256_loadu_ps, store _mm256_storeu_ps,
    add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, div _mm256_div_ps, mul_add _mm256_fmadd_ps,
    sqrt _mm256_sqrt_ps, min _mm256_min_ps, max _mm256_max_ps,
    neg |a| _mm256_xor_ps(a, _mm256_set1_ps(-0.0)),
    abs |a| _mm256_andnot_ps(_mm256_set1_ps(-0.0), a),
    round |a| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a),
    exp2_whole |a| {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    },
    lt |a, b| _mm256_cmp_ps::<_CMP_LT_OQ>(a, b),
    select |mask, yes, no| _mm256_blendv_ps(no, yes, mask),
);

/// A set of sixteen lanes, one bit each.
#[derive(Clone, Copy, Debug)]
pub struct Mask16(__mmask16);

impl BitAnd for Mask16 {
    type Output = Mask16;
    #[inline(always)]
    fn bitand(self, other: Mask16) -> Mask16 {
        Mask16(self.0 & other.0)
    }
}
impl BitOr for Mask16 {
    type Output = Mask16;
    #[inline(always)]
    fn bitor(self, other: Mask16) -> Mask16 {
        Mask16(self.0 | other.0)
    }
}
impl Not for Mask16 {
    type Output = Mask16;
    #[inline(always)]
    fn not(self) -> Mask16 {
        Mask16(!self.0)
    }
}
impl Mask for Mask16 {
    const NONE: Mask16 = Mask16(0);
    #[inline(always)]
    fn any(self) -> bool {
        self.0 != 0
    }
    #[inline(always)]
    fn get(self, lane: usize) -> bool {
        self.0 >> lane & 1 == 1
    }
}

/// A set of eight lanes: all bits of a lane, or none.
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
    // SAFETY: any bits are a valid register.
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
