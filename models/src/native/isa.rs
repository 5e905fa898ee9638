//! Which instructions the kernels use.

use super::simd::{Kernel, Plain, Simd};

/// An instruction set the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Plain Rust that the compiler vectorises for the target it builds for.
    Portable,
    /// 8-wide vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 16-wide vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 4-wide vectors of 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// Those this processor can run, the best first.
    pub(crate) fn available() -> Vec<Self> {
        [
            #[cfg(target_arch = "x86_64")]
            Self::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2,
            #[cfg(target_arch = "aarch64")]
            Self::Neon,
            Self::Portable,
        ]
        .into_iter()
        .filter(|isa| isa.runs_here())
        .collect()
    }

    /// The best one of this processor.
    pub(crate) fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self::Portable)
    }

    /// Whether this processor has the instructions. The answer is kept by the standard library, so asking is cheap.
    pub(crate) fn runs_here(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx2.runs_here() && is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
        }
    }

    /// The name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2+fma",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }

    /// Most rows of a matrix tile, and most panels of 16 columns.
    pub(crate) fn tile(self) -> (usize, usize) {
        match self {
            Self::Portable => (Plain::ROWS, Plain::PANELS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => (super::x86::Avx2::ROWS, super::x86::Avx2::PANELS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => (super::x86::Avx512::ROWS, super::x86::Avx512::PANELS),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => (super::neon::Neon::ROWS, super::neon::Neon::PANELS),
        }
    }

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Safety
    /// [`Isa::runs_here`], and what the kernel itself asks for holds.
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) {
        // SAFETY: passed on from the caller.
        unsafe {
            match self {
                Self::Portable => kernel.run::<Plain>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => super::x86::run_avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => super::x86::run_avx512(kernel),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => super::neon::run_neon(kernel),
            }
        }
    }
}
