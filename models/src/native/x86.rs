//! The vectors of x86-64 processors: AVX2 with FMA, and AVX-512.

use std::arch::x86_64::*;

use super::simd::{Kernel, Simd};

/// Eight values. The processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// Sixteen values. The processor has AVX-512F.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// Runs a kernel compiled for AVX2 and FMA.
///
/// # Safety
/// The processor has both, and what the kernel itself asks for holds.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn run_avx2<K: Kernel>(kernel: K) {
    // SAFETY: passed on from the caller.
    unsafe { kernel.run::<Avx2>() }
}

/// Runs a kernel compiled for AVX-512F.
///
/// # Safety
/// The processor has it, AVX2 and FMA, and what the kernel itself asks for holds.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(crate) unsafe fn run_avx512<K: Kernel>(kernel: K) {
    // SAFETY: passed on from the caller.
    unsafe { kernel.run::<Avx512>() }
}

/// The lanes below `n`, as AVX2's masked moves want them.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    // SAFETY: the processor has AVX2.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lanes)
    }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const PANELS: usize = 1;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the processor has AVX2.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: eight values may be read there.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: n values may be read there; masked lanes are not touched.
        Self(unsafe { _mm256_maskload_ps(from, mask(n)) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: eight values may be written there.
        unsafe { _mm256_storeu_ps(to, self.0) };
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: n values may be written there; masked lanes are not touched.
        unsafe { _mm256_maskstore_ps(to, mask(n), self.0) };
    }

    #[inline(always)]
    fn prefetch(at: *const f32) {
        // SAFETY: every x86-64 processor has the instruction, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: the processor has FMA.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, sum.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn relu6(self) -> Self {
        // The instructions return their second operand where one is NaN.
        // SAFETY: the processor has AVX2.
        Self(unsafe { _mm256_min_ps(_mm256_set1_ps(6.0), _mm256_max_ps(_mm256_setzero_ps(), self.0)) })
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    // 24 sums, 3 vectors of weights and a value are 28 of 32 registers; 8 rows leave room for their addresses.
    const ROWS: usize = 8;
    const PANELS: usize = 3;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: sixteen values may be read there.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: n values may be read there; masked lanes are not touched.
        Self(unsafe { _mm512_maskz_loadu_ps(lanes_below(n), from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: sixteen values may be written there.
        unsafe { _mm512_storeu_ps(to, self.0) };
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: n values may be written there; masked lanes are not touched.
        unsafe { _mm512_mask_storeu_ps(to, lanes_below(n), self.0) };
    }

    #[inline(always)]
    fn prefetch(at: *const f32) {
        // SAFETY: every x86-64 processor has the instruction, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, sum.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn relu6(self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_min_ps(_mm512_set1_ps(6.0), _mm512_max_ps(_mm512_setzero_ps(), self.0)) })
    }
}

/// The lanes below `n`.
#[inline(always)]
fn lanes_below(n: usize) -> u16 {
    (1u32 << n.min(16)).wrapping_sub(1) as u16
}
