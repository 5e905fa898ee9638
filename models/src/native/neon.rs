//! The vectors of 64-bit ARM processors, all of which have NEON.

use std::arch::aarch64::*;

use super::simd::{Kernel, Plain, Simd};

/// Four values.
#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t);

/// Runs a kernel compiled for NEON.
///
/// # Safety
/// What the kernel itself asks for holds.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn run_neon<K: Kernel>(kernel: K) {
    // SAFETY: passed on from the caller.
    unsafe { kernel.run::<Neon>() }
}

impl Simd for Neon {
    const LANES: usize = 4;
    // 24 sums, 4 vectors of weights and a value are 29 of 32 registers.
    const ROWS: usize = 6;
    const PANELS: usize = 1;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: every processor of this kind has NEON, here and below.
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: four values may be read there.
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: n values may be read there; the four of a `Plain` may be read again.
        unsafe {
            let lanes = Plain::load_first(from, n);
            Self::load((&raw const lanes).cast())
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: four values may be written there.
        unsafe { vst1q_f32(to, self.0) };
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        let mut lanes = [0.0; 4];
        // SAFETY: `lanes` holds four values, and n may be written at `to`.
        unsafe {
            self.store(lanes.as_mut_ptr());
            Plain::load(lanes.as_ptr()).store_first(to, n);
        }
    }

    #[inline(always)]
    fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { vfmaq_f32(sum.0, self.0, factor.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn relu6(self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { vminq_f32(vdupq_n_f32(6.0), vmaxq_f32(vdupq_n_f32(0.0), self.0)) })
    }
}
