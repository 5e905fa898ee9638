//! CPU form: the vertical sum of a strip of columns while its rows lie in the first-level cache, then the horizontal one for
//! eight output rows at a time, side by side in a vector. Each output is summed in one task in a fixed order, so the bits do
//! not depend on the thread count.

use std::ops::Range;

use rayon::prelude::*;

use super::{Axis, Resize};
use crate::image::Tensor;
use crate::rows::{RowAt, Rows};
use crate::simd::{LANES, transpose, vectorised};

/// Output rows per task; consecutive rows share input rows, which a task keeps.
const CHUNK: usize = 2 * LANES;

/// Columns of a strip: the input rows behind one output row fit the first-level cache.
const STRIP: usize = 512;

/// Rows that are added to a sum in one go.
const TOGETHER: usize = 6;

pub(super) fn resize<'a>(kernel: &Resize, input: Rows<'a>) -> Rows<'a> {
    let [items, channels, height, width] = input.shape();
    let vertical = Axis::new(kernel.filter, height, kernel.height);
    let horizontal = Axis::new(kernel.filter, width, kernel.width);
    let shape = [items, channels, kernel.height, kernel.width];
    let mut data = vec![0.0; shape.iter().product()];
    data.par_chunks_mut(kernel.height * kernel.width)
        .enumerate()
        .for_each(|(plane, out)| {
            out.par_chunks_mut(CHUNK * kernel.width)
                .enumerate()
                .for_each(|(chunk, out)| {
                    let mut window =
                        Window::new(&input, plane / channels, plane % channels, vertical.most_taps());
                    let mut tall = vec![[0.0; LANES]; width];
                    let mut wide = vec![[0.0; LANES]; kernel.width];
                    for (part, out) in out.chunks_mut(LANES * kernel.width).enumerate() {
                        let first = chunk * CHUNK + part * LANES;
                        let rows = out.len() / kernel.width;
                        for (strip, tall) in tall.chunks_mut(STRIP).enumerate() {
                            window.sum(&vertical, first..first + rows, strip * STRIP, tall);
                        }
                        columns(&horizontal, &tall, &mut wide);
                        for (lane, out) in out.chunks_exact_mut(kernel.width).enumerate() {
                            take(&wide, lane, out);
                        }
                    }
                });
        });
    Rows::float(Tensor::from_parts(shape, data))
}

vectorised! {
    /// Adds as many rows as there are weights to the first `length` sums, in their order.
    fn add_rows(sums: &mut [f32; STRIP], rows: &[&[f32; STRIP]; TOGETHER], weights: &[f32], length: usize) {
        match weights.len() {
            1 => add::<1>(sums, rows, weights, length),
            2 => add::<2>(sums, rows, weights, length),
            3 => add::<3>(sums, rows, weights, length),
            4 => add::<4>(sums, rows, weights, length),
            5 => add::<5>(sums, rows, weights, length),
            _ => add::<TOGETHER>(sums, rows, weights, length),
        }
    }

    /// The weighted sums along each of eight rows, which lie side by side.
    fn columns(axis: &Axis, tall: &[[f32; LANES]], wide: &mut [[f32; LANES]]) {
        for (o, wide) in wide.iter_mut().enumerate() {
            let (start, weights) = axis.taps(o);
            let mut sums = [0.0; LANES];
            for (values, weight) in tall[start..start + weights.len()].iter().zip(weights) {
                for (sum, v) in sums.iter_mut().zip(values) {
                    *sum += weight * v;
                }
            }
            *wide = sums;
        }
    }
}

/// Adds `N` weighted rows to sums, one after the other.
#[inline(always)]
fn add<const N: usize>(
    sums: &mut [f32; STRIP],
    rows: &[&[f32; STRIP]; TOGETHER],
    weights: &[f32],
    length: usize,
) {
    let (Some(rows), Some(weights)) = (rows.first_chunk::<N>(), weights.first_chunk::<N>()) else {
        return;
    };
    let (rows, weights) = (*rows, *weights);
    for x in 0..length.min(STRIP) {
        let mut sum = sums[x];
        for n in 0..N {
            sum += weights[n] * rows[n][x];
        }
        sums[x] = sum;
    }
}

/// One of the eight rows that lie side by side.
fn take(wide: &[[f32; LANES]], lane: usize, out: &mut [f32]) {
    for (out, values) in out.iter_mut().zip(wide) {
        *out = values[lane % LANES];
    }
}

/// A strip of the latest input rows of one plane, each read once for eight output rows.
struct Window<'r, 'a> {
    input: &'r Rows<'a>,
    item: usize,
    channel: usize,
    /// Row `y` of the strip is at `y` modulo their number, which is the number of weights of the output that has most.
    rows: Vec<[f32; STRIP]>,
    sums: [[f32; STRIP]; LANES],
}

impl<'r, 'a> Window<'r, 'a> {
    fn new(input: &'r Rows<'a>, item: usize, channel: usize, rows: usize) -> Self {
        Self {
            input,
            item,
            channel,
            rows: vec![[0.0; STRIP]; rows],
            sums: [[0.0; STRIP]; LANES],
        }
    }

    /// The vertical sums behind the `outputs` (at most eight), of the columns from `x` on.
    fn sum(&mut self, axis: &Axis, outputs: Range<usize>, x: usize, tall: &mut [[f32; LANES]]) {
        let length = tall.len().min(STRIP);
        let capacity = self.rows.len();
        let mut read = 0;
        for (output, sums) in outputs.zip(&mut self.sums) {
            let (start, weights) = axis.taps(output);
            for y in start.max(read)..start + weights.len() {
                let at = RowAt {
                    item: self.item,
                    channel: self.channel,
                    y,
                    x,
                };
                self.input.read(at, &mut self.rows[y % capacity][..length]);
            }
            read = read.max(start + weights.len());
            sums[..length].fill(0.0);
            for (k, weights) in weights.chunks(TOGETHER).enumerate() {
                let first = start + k * TOGETHER;
                let row = |n: usize| &self.rows[(first + n.min(weights.len() - 1)) % capacity];
                let rows: [&[f32; STRIP]; TOGETHER] = std::array::from_fn(row);
                add_rows(sums, &rows, weights, length);
            }
        }
        transpose(self.sums.each_ref().map(|row| &row[..length]), tall);
    }
}
