//! Depthwise convolution: each channel with its own small kernel, bias and activation fused into the store.
//!
//! Enters: a feature map whose border holds the padding. Leaves: a feature map of the same channels.

#![allow(
    clippy::needless_range_loop,
    reason = "pixels and taps index several arrays at once, as the formulas do"
)]

use super::gemm::Activation;
use super::isa::Isa;
use super::layout::{Border, Map, same_padding};
use super::simd::{Kernel, Simd, multiply_add};

/// Most neighbouring pixels whose sums are in registers together.
const TILE_PIXELS: usize = 8;

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

    /// `output = activation(input (*) weights + bias)`. The border of `input` is zero and at least as wide as
    /// [`Depthwise::geometry`] says; the border of `output` is left alone.
    pub(crate) fn apply(
        &self,
        isa: Isa,
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
            self.activation != Activation::Gelu,
            "no network here has a GELU after a depthwise convolution"
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
        assert!(isa.runs_here(), "the instruction set was detected");

        let first = (in_map.border.top - padding.top, in_map.border.left - padding.left);
        for y in 0..out_height {
            let strip = Strip {
                kernel: self.kernel,
                stride: self.stride,
                channels: self.channels,
                pixels: out_width,
                relu6: self.activation == Activation::Relu6,
                row_stride: in_map.row_stride(),
                input: &input[(first.0 + y * self.stride) * in_map.row_stride() + first.1 * self.channels..],
                weights: &self.weights,
                bias: &self.bias,
                output: &mut output[out_map.offset(y, 0)..],
            };
            // SAFETY: the asserts above hold: the instructions run here, and the taps of every output pixel lie
            // inside the bordered input.
            unsafe { isa.run(strip) };
        }
    }
}

/// One output row.
struct Strip<'a> {
    /// Taps along each side.
    kernel: usize,
    /// Pixels between neighbouring outputs.
    stride: usize,
    /// Channels per pixel.
    channels: usize,
    /// Output pixels.
    pixels: usize,
    /// Whether ReLU6 is applied.
    relu6: bool,
    /// Input values from one row to the next.
    row_stride: usize,
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
            let mut x = 0;
            // SAFETY: the channels fill a vector, and the tiles cover the row's pixels once each.
            unsafe {
                while x + TILE_PIXELS <= self.pixels {
                    self.taps::<S, K, T, TILE_PIXELS>(channel, x);
                    x += TILE_PIXELS;
                }
                match self.pixels - x {
                    7 => self.taps::<S, K, T, 7>(channel, x),
                    6 => self.taps::<S, K, T, 6>(channel, x),
                    5 => self.taps::<S, K, T, 5>(channel, x),
                    4 => self.taps::<S, K, T, 4>(channel, x),
                    3 => self.taps::<S, K, T, 3>(channel, x),
                    2 => self.taps::<S, K, T, 2>(channel, x),
                    1 => self.taps::<S, K, T, 1>(channel, x),
                    _ => {}
                }
            }
            channel += S::LANES;
        }
        channel
    }

    /// `P` neighbouring pixels of one vector of channels, all sums in registers. Each input value is read once and
    /// meets the taps of every pixel that wants it.
    ///
    /// # Safety
    /// As [`Strip::vectors`], with `x + P <= pixels`.
    #[inline(always)]
    unsafe fn taps<S: Simd, const K: usize, const T: usize, const P: usize>(
        &mut self,
        channel: usize,
        x: usize,
    ) {
        // SAFETY: the input holds K rows, and K columns around every pixel.
        unsafe {
            let mut sums = [S::load(self.bias.as_ptr().add(channel)); P];
            for ky in 0..K {
                let row = self
                    .input
                    .as_ptr()
                    .add(ky * self.row_stride + x * T * self.channels + channel);
                let taps = self.weights.as_ptr().add(ky * K * self.channels + channel);
                let taps: [S; K] = std::array::from_fn(|kx| S::load(taps.add(kx * self.channels)));
                for column in 0..(P - 1) * T + K {
                    let value = S::load(row.add(column * self.channels));
                    for p in 0..P {
                        if p * T <= column && column < p * T + K {
                            sums[p] = value.mul_add(taps[column - p * T], sums[p]);
                        }
                    }
                }
            }
            for (p, sum) in sums.into_iter().enumerate() {
                let value = if self.relu6 { sum.relu6() } else { sum };
                value.store(self.output.as_mut_ptr().add((x + p) * self.channels + channel));
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
        for x in 0..self.pixels {
            let target = &mut self.output[x * n + start..(x + 1) * n];
            target.copy_from_slice(&self.bias[start..]);
            for ky in 0..self.kernel {
                for kx in 0..self.kernel {
                    let from = ky * self.row_stride + (x * self.stride + kx) * n;
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
