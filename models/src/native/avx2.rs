//! The convolution tiles for processors with AVX2 and FMA.
//!
//! Everything here is `unsafe` to call: the processor must have both, and the offsets must lie inside the slices.
//! The callers in `gemm.rs` and `depthwise.rs` check that once per layer.

#![allow(
    clippy::needless_range_loop,
    reason = "rows and vectors index several arrays at once, as the formulas do"
)]

use std::arch::x86_64::*;

use super::depthwise::Strip;
use super::gemm::{Activation, TILE_COLUMNS, Tile};

/// One tile of a matrix product.
///
/// # Safety
/// The processor has AVX2 and FMA; `tile.columns` is 8 or 16; `tile.from[r] + tile.inputs`, `tile.to[r] + columns`
/// and `tile.add[r] + columns` lie inside `input`, `output` and `residual` for each row in use; `panel` holds 16
/// values per input.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn gemm_tile(
    tile: &Tile,
    input: &[f32],
    panel: &[f32],
    bias: &[f32; TILE_COLUMNS],
    residual: &[f32],
    output: &mut [f32],
) {
    debug_assert!(panel.len() >= tile.inputs * TILE_COLUMNS);
    let (a, r, c) = (input.as_ptr(), residual.as_ptr(), output.as_mut_ptr());
    // SAFETY: passed on from the caller.
    unsafe {
        match (tile.rows, tile.columns > 8) {
            (6, true) => rows::<6, 2>(tile, a, panel.as_ptr(), bias, r, c),
            (5, true) => rows::<5, 2>(tile, a, panel.as_ptr(), bias, r, c),
            (4, true) => rows::<4, 2>(tile, a, panel.as_ptr(), bias, r, c),
            (3, true) => rows::<3, 2>(tile, a, panel.as_ptr(), bias, r, c),
            (2, true) => rows::<2, 2>(tile, a, panel.as_ptr(), bias, r, c),
            (1, true) => rows::<1, 2>(tile, a, panel.as_ptr(), bias, r, c),
            (6, false) => rows::<6, 1>(tile, a, panel.as_ptr(), bias, r, c),
            (5, false) => rows::<5, 1>(tile, a, panel.as_ptr(), bias, r, c),
            (4, false) => rows::<4, 1>(tile, a, panel.as_ptr(), bias, r, c),
            (3, false) => rows::<3, 1>(tile, a, panel.as_ptr(), bias, r, c),
            (2, false) => rows::<2, 1>(tile, a, panel.as_ptr(), bias, r, c),
            _ => rows::<1, 1>(tile, a, panel.as_ptr(), bias, r, c),
        }
    }
}

/// `R` rows and `V` vectors of columns, all sums in registers.
///
/// # Safety
/// As [`gemm_tile`], with `R <= tile.rows` and `8 V = tile.columns`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const R: usize, const V: usize>(
    tile: &Tile,
    input: *const f32,
    panel: *const f32,
    bias: &[f32; TILE_COLUMNS],
    residual: *const f32,
    output: *mut f32,
) {
    // SAFETY: every pointer is an offset the caller vouches for.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); V]; R];
        for row in &mut sums {
            for (v, sum) in row.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(bias.as_ptr().add(8 * v));
            }
        }
        let mut from = [input; R];
        for (pointer, &offset) in from.iter_mut().zip(&tile.from) {
            *pointer = input.add(offset);
        }
        let mut weights = panel;
        for k in 0..tile.inputs {
            let mut w = [_mm256_setzero_ps(); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = _mm256_loadu_ps(weights.add(8 * v));
            }
            weights = weights.add(TILE_COLUMNS);
            for r in 0..R {
                let value = _mm256_broadcast_ss(&*from[r].add(k));
                for v in 0..V {
                    sums[r][v] = _mm256_fmadd_ps(value, w[v], sums[r][v]);
                }
            }
        }
        if tile.activation == Activation::Relu6 {
            for row in &mut sums {
                for sum in row {
                    *sum = relu6(*sum);
                }
            }
        }
        if let Some(add) = &tile.add {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = _mm256_add_ps(sums[r][v], _mm256_loadu_ps(residual.add(add[r] + 8 * v)));
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                _mm256_storeu_ps(output.add(tile.to[r] + 8 * v), sums[r][v]);
            }
        }
    }
}

/// `min(max(x, 0), 6)`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn relu6(x: __m256) -> __m256 {
    _mm256_min_ps(_mm256_max_ps(x, _mm256_setzero_ps()), _mm256_set1_ps(6.0))
}

/// One output row of a depthwise convolution, for the channels that fill whole vectors. Returns how many those are;
/// 0 where no kernel is written for the size and stride.
///
/// # Safety
/// The processor has AVX2 and FMA; the strip's reads and writes lie inside `input` and `output`; `weights` and
/// `bias` hold one value per tap and channel, and per channel.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn depthwise_row(
    strip: &Strip,
    input: &[f32],
    weights: &[f32],
    bias: &[f32],
    output: &mut [f32],
) -> usize {
    let (i, w, b, o) = (
        input.as_ptr(),
        weights.as_ptr(),
        bias.as_ptr(),
        output.as_mut_ptr(),
    );
    // SAFETY: passed on from the caller.
    unsafe {
        match (strip.kernel, strip.stride) {
            (3, 1) => strip_of::<3, 1>(strip, i, w, b, o),
            (3, 2) => strip_of::<3, 2>(strip, i, w, b, o),
            (5, 1) => strip_of::<5, 1>(strip, i, w, b, o),
            (5, 2) => strip_of::<5, 2>(strip, i, w, b, o),
            _ => return 0,
        }
    }
    strip.channels / 8 * 8
}

/// A row with a `K` x `K` kernel and stride `S`.
///
/// # Safety
/// As [`depthwise_row`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn strip_of<const K: usize, const S: usize>(
    strip: &Strip,
    input: *const f32,
    weights: *const f32,
    bias: *const f32,
    output: *mut f32,
) {
    let mut channel = 0;
    // SAFETY: passed on from the caller; `channel` stays below the channels that fill whole vectors.
    unsafe {
        // Two vectors are one cache line: a pixel's line is used whole while it is near.
        while channel + 16 <= strip.channels {
            pixels_of::<K, S, 2>(strip, channel, input, weights, bias, output);
            channel += 16;
        }
        if channel + 8 <= strip.channels {
            pixels_of::<K, S, 1>(strip, channel, input, weights, bias, output);
        }
    }
}

/// All pixels of the row, for `8 V` channels from `channel`.
///
/// # Safety
/// As [`depthwise_row`], with `channel + 8 V <= strip.channels`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn pixels_of<const K: usize, const S: usize, const V: usize>(
    strip: &Strip,
    channel: usize,
    input: *const f32,
    weights: *const f32,
    bias: *const f32,
    output: *mut f32,
) {
    // SAFETY: passed on from the caller; the tiles cover the row's pixels once each.
    unsafe {
        let (input, output) = (input.add(strip.from + channel), output.add(strip.to + channel));
        let (weights, bias) = (weights.add(channel), bias.add(channel));
        let mut x = 0;
        while x + 4 <= strip.pixels {
            taps::<K, S, V, 4>(strip, x, input, weights, bias, output);
            x += 4;
        }
        match strip.pixels - x {
            3 => taps::<K, S, V, 3>(strip, x, input, weights, bias, output),
            2 => taps::<K, S, V, 2>(strip, x, input, weights, bias, output),
            1 => taps::<K, S, V, 1>(strip, x, input, weights, bias, output),
            _ => {}
        }
    }
}

/// `T` neighbouring pixels, all sums in registers.
///
/// # Safety
/// As [`pixels_of`], with `x + T <= strip.pixels`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn taps<const K: usize, const S: usize, const V: usize, const T: usize>(
    strip: &Strip,
    x: usize,
    input: *const f32,
    weights: *const f32,
    bias: *const f32,
    output: *mut f32,
) {
    // SAFETY: the strip's layout holds K rows from `from` and K columns around every pixel in use.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); V]; T];
        for sum in &mut sums {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(bias.add(8 * v));
            }
        }
        for ky in 0..K {
            let row = input.add(ky * strip.row_stride + x * S * strip.channels);
            for kx in 0..K {
                let tap = weights.add((ky * K + kx) * strip.channels);
                for v in 0..V {
                    let w = _mm256_loadu_ps(tap.add(8 * v));
                    for (t, sum) in sums.iter_mut().enumerate() {
                        let value = _mm256_loadu_ps(row.add((t * S + kx) * strip.channels + 8 * v));
                        sum[v] = _mm256_fmadd_ps(value, w, sum[v]);
                    }
                }
            }
        }
        for (t, sum) in sums.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                let value = if strip.activation == Activation::Relu6 {
                    relu6(*sum)
                } else {
                    *sum
                };
                _mm256_storeu_ps(output.add((x + t) * strip.channels + 8 * v), value);
            }
        }
    }
}
