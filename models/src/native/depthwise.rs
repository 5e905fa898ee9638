//! Depthwise convolution: each channel with its own small kernel, bias and activation fused into the store.
//!
//! Enters: a feature map whose border holds the padding. Leaves: a feature map of the same channels.

#![allow(
    clippy::needless_range_loop,
    reason = "pixels and taps index several arrays at once, as the formulas do"
)]

use std::ops::Range;

use super::gemm::Activation;
use super::isa::Isa;
use super::layout::{Border, Map, same_padding};
use super::simd::{Kernel, Simd, multiply_add};

/// Most neighbouring pixels whose sums are in registers together.
const TILE_PIXELS: usize = 8;

/// Values of the input rows that are worked on together: 256 KiB.
const BAND_VALUES: usize = 64 * 1024;

/// The weights of a depthwise convolution.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    channels: usize,
    kernel: usize,
    stride: usize,
    /// Tap by tap in row order, for each the weights of all channels.
    weights: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
}

impl Depthwise {
    /// Takes `weights`, row-major `channels` x `kernel` x `kernel`, with one bias per channel.
    pub(crate) fn new(
        weights: &[f32],
        kernel: usize,
        stride: usize,
        bias: &[f32],
        activation: Activation,
    ) -> Self {
        let (channels, taps) = (bias.len(), kernel * kernel);
        assert_eq!(weights.len(), channels * taps, "one weight per channel and tap");
        let mut by_tap = vec![0.0; weights.len()];
        for (channel, row) in weights.chunks_exact(taps.max(1)).enumerate() {
            for (tap, &w) in row.iter().enumerate() {
                by_tap[tap * channels + channel] = w;
            }
        }
        Self {
            channels,
            kernel,
            stride,
            weights: by_tap,
            bias: bias.to_vec(),
            activation,
        }
    }

    /// Channels.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Side of the kernel.
    pub(crate) fn kernel(&self) -> usize {
        self.kernel
    }

    /// Pixels from one output to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Tap by tap in row order, for each the weights of all channels.
    pub(crate) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// One per channel.
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// What is applied to the sums.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// The first input row after those that output rows up to `rows` read, for an input of `height` rows.
    pub(crate) fn reads_up_to(&self, rows: usize, height: usize) -> usize {
        let before = same_padding(height, self.kernel, self.stride).0;
        let past = rows.saturating_sub(1) * self.stride + self.kernel;
        past.saturating_sub(before).min(height)
    }

    /// The padding an input of this size needs, and the size of the output.
    pub(crate) fn geometry(&self, height: usize, width: usize) -> (Border, usize, usize) {
        let (top, bottom, out_height) = same_padding(height, self.kernel, self.stride);
        let (left, right, out_width) = same_padding(width, self.kernel, self.stride);
        (
            Border {
                top,
                left,
                bottom,
                right,
            },
            out_height,
            out_width,
        )
    }

    /// `output = activation(input (*) weights + bias)`, for output rows `rows`. The border of `input` is zero and at least as wide as
    /// [`Depthwise::geometry`] says; the border of `output` is left alone.
    pub(crate) fn apply(
        &self,
        isa: Isa,
        rows: Range<usize>,
        (input, in_map): (&[f32], &Map),
        (output, out_map): (&mut [f32], &Map),
    ) {
        let (padding, out_height, out_width) = self.geometry(in_map.height, in_map.width);
        // The strips address memory by these layouts, so their agreement is what makes the unsafe kernel sound.
        assert!(
            input.len() >= in_map.len() && in_map.channels == self.channels,
            "input layout"
        );
        assert!(
            self.activation.is_clamp(),
            "no network here has a GELU or SiLU after a depthwise convolution"
        );
        assert!(
            output.len() >= out_map.len() && out_map.channels == self.channels,
            "output layout"
        );
        assert!(
            in_map.border.union(padding) == in_map.border,
            "the border holds the padding"
        );
        assert!(
            (out_map.height, out_map.width) == (out_height, out_width),
            "output size"
        );
        assert!(rows.end <= out_height, "rows of the map");
        assert!(isa.runs_here(), "the instruction set was detected");

        let first = (in_map.border.top - padding.top, in_map.border.left - padding.left);
        // A band of input rows stays in the second-level cache while its channels are taken up one vector after the other.
        let band = (BAND_VALUES / (in_map.row_stride() * self.stride).max(1)).max(1);
        let mut y = rows.start;
        while y < rows.end {
            let count = band.min(rows.end - y);
            let strip = Strip {
                kernel: self.kernel,
                stride: self.stride,
                channels: self.channels,
                pixels: out_width,
                rows: count,
                relu6: self.activation == Activation::Relu6,
                row_stride: in_map.row_stride(),
                out_row_stride: out_map.row_stride(),
                input: &input[(first.0 + y * self.stride) * in_map.row_stride() + first.1 * self.channels..],
                weights: &self.weights,
                bias: &self.bias,
                output: &mut output[out_map.offset(y, 0)..],
            };
            // SAFETY: the asserts above hold: the instructions run here, and the taps of every output pixel lie
            // inside the bordered input.
            unsafe { isa.run(strip) };
            y += count;
        }
    }
}

/// Some output rows.
struct Strip<'a> {
    /// Taps along each side.
    kernel: usize,
    /// Pixels between neighbouring outputs.
    stride: usize,
    /// Channels per pixel.
    channels: usize,
    /// Output pixels of a row.
    pixels: usize,
    /// Output rows.
    rows: usize,
    /// Whether ReLU6 is applied.
    relu6: bool,
    /// Input values from one row to the next.
    row_stride: usize,
    /// Output values from one row to the next.
    out_row_stride: usize,
    /// From the first tap of the first pixel on.
    input: &'a [f32],
    weights: &'a [f32],
    bias: &'a [f32],
    /// From the first pixel on.
    output: &'a mut [f32],
}

impl Kernel for Strip<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        // SAFETY: passed on from the caller.
        let done = unsafe {
            match (self.kernel, self.stride) {
                (3, 1) => self.vectors::<S, 3, 1>(),
                (3, 2) => self.vectors::<S, 3, 2>(),
                (5, 1) => self.vectors::<S, 5, 1>(),
                (5, 2) => self.vectors::<S, 5, 2>(),
                _ => 0,
            }
        };
        self.singles::<S>(done);
    }
}

impl Strip<'_> {
    /// The channels that fill whole vectors, with a `K` x `K` kernel and stride `T`. Returns how many those are.
    ///
    /// # Safety
    /// The processor has the instructions; the taps of every pixel lie inside the input, and the pixels inside the
    /// output.
    #[inline(always)]
    unsafe fn vectors<S: Simd, const K: usize, const T: usize>(&mut self) -> usize {
        let mut channel = 0;
        while channel + S::LANES <= self.channels {
            // All rows of a vector of channels: what the next row reads again is still in the first-level cache.
            for y in 0..self.rows {
                let mut x = 0;
                // SAFETY: the channels fill a vector, and the tiles cover the row's pixels once each.
                unsafe {
                    while x + TILE_PIXELS <= self.pixels {
                        self.taps::<S, K, T, TILE_PIXELS>(channel, y, x);
                        x += TILE_PIXELS;
                    }
                    match self.pixels - x {
                        7 => self.taps::<S, K, T, 7>(channel, y, x),
                        6 => self.taps::<S, K, T, 6>(channel, y, x),
                        5 => self.taps::<S, K, T, 5>(channel, y, x),
                        4 => self.taps::<S, K, T, 4>(channel, y, x),
                        3 => self.taps::<S, K, T, 3>(channel, y, x),
                        2 => self.taps::<S, K, T, 2>(channel, y, x),
                        1 => self.taps::<S, K, T, 1>(channel, y, x),
                        _ => {}
                    }
                }
            }
            channel += S::LANES;
        }
        channel
    }

    /// `P` neighbouring pixels of one vector of channels, all sums in registers.
    ///
    /// # Safety
    /// As [`Strip::vectors`], with `y < rows` and `x + P <= pixels`.
    #[inline(always)]
    unsafe fn taps<S: Simd, const K: usize, const T: usize, const P: usize>(
        &mut self,
        channel: usize,
        y: usize,
        x: usize,
    ) {
        // SAFETY: the input holds K rows, and K columns around every pixel.
        unsafe {
            let n = self.channels;
            let mut sums = [S::load(self.bias.as_ptr().add(channel)); P];
            let start = y * T * self.row_stride + x * T * n + channel;
            let mut row = self.input.as_ptr().add(start);
            let mut tap = self.weights.as_ptr().add(channel);
            for _ in 0..K {
                let mut from: [*const f32; P] = std::array::from_fn(|p| row.add(p * T * n));
                for _ in 0..K {
                    let weight = S::load(tap);
                    tap = tap.wrapping_add(n);
                    for p in 0..P {
                        sums[p] = S::load(from[p]).mul_add(weight, sums[p]);
                        from[p] = from[p].wrapping_add(n);
                    }
                }
                row = row.wrapping_add(self.row_stride);
            }
            let output = self.output.as_mut_ptr().add(y * self.out_row_stride);
            for (p, sum) in sums.into_iter().enumerate() {
                let value = if self.relu6 { sum.relu6() } else { sum };
                value.store(output.add((x + p) * n + channel));
            }
        }
    }

    /// The channels from `start` on, one by one, with any kernel and stride.
    #[inline(always)]
    fn singles<S: Simd>(&mut self, start: usize) {
        let n = self.channels;
        if start == n {
            return;
        }
        for (y, x) in (0..self.rows).flat_map(|y| (0..self.pixels).map(move |x| (y, x))) {
            let to = y * self.out_row_stride + x * n;
            let target = &mut self.output[to + start..to + n];
            target.copy_from_slice(&self.bias[start..]);
            for ky in 0..self.kernel {
                for kx in 0..self.kernel {
                    let from = (y * self.stride + ky) * self.row_stride + (x * self.stride + kx) * n;
                    let values = &self.input[from + start..from + n];
                    let tap = (ky * self.kernel + kx) * n;
                    let weights = &self.weights[tap + start..tap + n];
                    for ((sum, &value), &weight) in target.iter_mut().zip(values).zip(weights) {
                        *sum = multiply_add::<S>(value, weight, *sum);
                    }
                }
            }
            if self.relu6 {
                for value in target {
                    *value = value.clamp(0.0, 6.0);
                }
            }
        }
    }
}
