//! Depthwise convolution: each channel with its own small kernel, bias and activation fused into the store.
//!
//! Enters: a feature map whose border holds the padding. Leaves: a feature map of the same channels.

use super::gemm::{Activation, multiply_add};
use super::isa::Isa;
use super::layout::{Border, Map, same_padding};

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

/// One output row: where it is read and written.
pub(crate) struct Strip {
    /// Taps along each side.
    pub(crate) kernel: usize,
    /// Pixels between neighbouring outputs.
    pub(crate) stride: usize,
    /// Channels per pixel.
    pub(crate) channels: usize,
    /// Output pixels.
    pub(crate) pixels: usize,
    /// Applied before the store.
    pub(crate) activation: Activation,
    /// Where the first tap of the first pixel reads.
    pub(crate) from: usize,
    /// Input values from one row to the next.
    pub(crate) row_stride: usize,
    /// Where the first pixel is written.
    pub(crate) to: usize,
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
                activation: self.activation,
                from: (first.0 + y * self.stride) * in_map.row_stride() + first.1 * self.channels,
                row_stride: in_map.row_stride(),
                to: out_map.offset(y, 0),
            };
            let done = match isa {
                Isa::Portable => 0,
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the asserts above hold: the processor has AVX2 and FMA, and the taps of every output
                // pixel lie inside the bordered input.
                Isa::Avx2 => unsafe {
                    super::avx2::depthwise_row(&strip, input, &self.weights, &self.bias, output)
                },
            };
            self.portable_row(&strip, done, input, output);
        }
    }

    /// One row in plain Rust, from channel `start`: the specification of the vector kernels.
    fn portable_row(&self, strip: &Strip, start: usize, input: &[f32], output: &mut [f32]) {
        let n = self.channels;
        if start == n {
            return;
        }
        for x in 0..strip.pixels {
            let target = &mut output[strip.to + x * n + start..strip.to + (x + 1) * n];
            target.copy_from_slice(&self.bias[start..]);
            for ky in 0..self.kernel {
                for kx in 0..self.kernel {
                    let from = strip.from + ky * strip.row_stride + (x * self.stride + kx) * n;
                    let values = &input[from + start..from + n];
                    let tap = (ky * self.kernel + kx) * n;
                    let weights = &self.weights[tap + start..tap + n];
                    for ((sum, &value), &weight) in target.iter_mut().zip(values).zip(weights) {
                        *sum = multiply_add(value, weight, *sum);
                    }
                }
            }
            for value in target {
                *value = self.activation.apply(*value);
            }
        }
    }
}
