//! CPU form of `resize`: for each output row, the weighted sum of input rows read through the pending operations,
//! then the columns. Both sums run in ascending order, so the bits do not depend on the thread count.

use rayon::prelude::*;

use super::{Axis, Resize};
use crate::image::Tensor;
use crate::rows::{RowAt, Rows};
use crate::simd::vectorised;

/// Output rows per task; consecutive rows share input rows, which the task keeps.
const CHUNK: usize = 16;

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
                    let mut window = Window::new(&input, plane / channels, plane % channels, width);
                    let mut sum = vec![0.0f32; width];
                    for (o, out) in out.chunks_mut(kernel.width).enumerate() {
                        let (start, weights) = vertical.taps(chunk * CHUNK + o);
                        sum.fill(0.0);
                        for (k, &w) in weights.iter().enumerate() {
                            let row = window.row(start + k, start);
                            accumulate(&mut sum, row, w);
                        }
                        columns(&horizontal, &sum, out);
                    }
                });
        });
    Rows::float(Tensor::from_parts(shape, data))
}

vectorised! {
    fn accumulate(sum: &mut [f32], row: &[f32], weight: f32) {
        for (s, v) in sum.iter_mut().zip(row) {
            *s += weight * v;
        }
    }

    fn columns(axis: &Axis, row: &[f32], out: &mut [f32]) {
        for (o, out) in out.iter_mut().enumerate() {
            let (start, weights) = axis.taps(o);
            let values = &row[start..start + weights.len()];
            let mut sum = 0.0;
            for (v, w) in values.iter().zip(weights) {
                sum += w * v;
            }
            *out = sum;
        }
    }
}

/// Input rows that the current task still needs, each read once.
struct Window<'r, 'a> {
    input: &'r Rows<'a>,
    item: usize,
    channel: usize,
    width: usize,
    rows: Vec<(usize, Vec<f32>)>,
}

impl<'r, 'a> Window<'r, 'a> {
    fn new(input: &'r Rows<'a>, item: usize, channel: usize, width: usize) -> Self {
        Self {
            input,
            item,
            channel,
            width,
            rows: Vec::new(),
        }
    }

    /// Row `y`; rows above `oldest` may be forgotten.
    fn row(&mut self, y: usize, oldest: usize) -> &[f32] {
        let at = match self.rows.iter().position(|(have, _)| *have == y) {
            Some(at) => at,
            None => {
                let at = match self.rows.iter().position(|(have, _)| *have < oldest) {
                    Some(free) => free,
                    None => {
                        self.rows.push((y, vec![0.0; self.width]));
                        self.rows.len() - 1
                    }
                };
                self.rows[at].0 = y;
                let at_row = RowAt {
                    item: self.item,
                    channel: self.channel,
                    y,
                    x: 0,
                };
                self.input.read(at_row, &mut self.rows[at].1);
                at
            }
        };
        &self.rows[at].1
    }
}
