//! Chooses the vector registers at run time.

use super::{F32Lanes, F32x4, Lanes};
#[cfg(target_arch = "x86_64")]
use super::{F32x8, F32x16};

/// The instruction sets for which there are register types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// [`F32x4`]: what every processor of the architecture has.
    Portable,
    /// [`F32x8`]: AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// [`F32x16`]: AVX-512 F, with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// All instruction sets, widest last.
    pub const ALL: &[Instructions] = &[
        Instructions::Portable,
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2,
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512,
    ];

    /// Whether this processor has them. The system is queried only once.
    #[inline]
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => is_x86_feature_detected!("avx512f") && Instructions::Avx2.available(),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Instructions::Portable => true,
        }
    }
}

/// The widest instruction set that this processor has.
#[inline]
pub fn detected() -> Instructions {
    let widest = Instructions::ALL.iter().rfind(|instructions| instructions.available());
    widest.copied().unwrap_or(Instructions::Portable)
}

/// Work on one type of lanes, for [`Lanes::run`].
pub trait JobOn<L> {
    /// Its result.
    type Output;
    /// Does the work. Implementations, and all that they call, are `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

/// Work on registers of `f32` of any width, for [`run`].
pub trait Job {
    /// Its result.
    type Output;
    /// Does the work. Implementations, and all that they call, are `#[inline(always)]`.
    fn run<L: F32Lanes>(self) -> Self::Output;
}

impl<L: F32Lanes, J: Job> JobOn<L> for J {
    type Output = J::Output;
    #[inline(always)]
    fn run(self) -> J::Output {
        Job::run::<L>(self)
    }
}

/// Does a job in the widest registers that this processor has.
#[inline]
pub fn run<J: Job>(job: J) -> J::Output {
    run_on(detected(), job)
}

#[inline]
fn run_on<J: Job>(instructions: Instructions, job: J) -> J::Output {
    match instructions {
        Instructions::Portable => F32x4::run(job),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => F32x8::run(job),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => F32x16::run(job),
    }
}

/// Does a job in every kind of registers that this processor has, widest last, so that tests can compare them.
pub fn run_in_each<J: Job + Clone>(job: J) -> Vec<(Instructions, J::Output)> {
    let available = Instructions::ALL.iter().filter(|instructions| instructions.available());
    available.map(|&instructions| (instructions, run_on(instructions, job.clone()))).collect()
}
