//! CPU form of `gaussian_blur`: the sums of 64 columns are kept in registers while the filter passes over its rows (or
//! over the line). Two pixels at the same distance are added before they are weighted; the sum runs outwards.

use std::ops::{Add, Mul};

use rayon::prelude::*;

use super::{Border, inverse_weight_inside, weights};
use crate::point::finite;
use crate::rows::{RowAt, Rows};
use crate::simd::vectorised;

/// Columns whose sums are kept in registers.
const BLOCK: usize = 64;

/// Least rows per task.
const CHUNK: usize = 64;

/// f32 for images, f64 for illumination functions.
pub(crate) trait Real: Copy + Default + Send + Sync + Add<Output = Self> + Mul<Output = Self> {
    /// Rounds where it must.
    fn of(value: f64) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
}

/// The blurred planes of `rows`.
pub(crate) fn blurred(rows: &Rows<'_>, sigma: f64, border: Border) -> Vec<f32> {
    let [items, channels, height, width] = rows.shape();
    let filter = Filter::<f32>::new([height, width], sigma, border);
    let mut out = vec![0.0; items * channels * height * width];
    out.par_chunks_mut(height * width)
        .enumerate()
        .for_each(|(plane, out)| {
            let read = |y, row: &mut [f32]| {
                rows.read(
                    RowAt {
                        item: plane / channels,
                        channel: plane % channels,
                        y,
                        x: 0,
                    },
                    row,
                );
                clean(row);
            };
            filter.run(&read, out);
        });
    out
}

/// Blurs one plane of finite values.
pub(crate) fn convolved(plane: &[f64], size: [usize; 2], sigma: f64, border: Border) -> Vec<f64> {
    let width = size[1];
    let mut out = vec![0.0; plane.len()];
    let read = |y: usize, row: &mut [f64]| row.copy_from_slice(&plane[y * width..(y + 1) * width]);
    Filter::new(size, sigma, border).run(&read, &mut out);
    out
}

/// The weights for planes of one size.
struct Filter<T> {
    size: [usize; 2],
    reflect: bool,
    weights: Vec<T>,
    /// One over the weight inside, by row and by column.
    inside: [Vec<T>; 2],
}

impl<T: Real> Filter<T> {
    fn new(size: [usize; 2], sigma: f64, border: Border) -> Self {
        let weights = weights(sigma);
        Self {
            size,
            reflect: border == Border::Reflect,
            inside: size.map(|length| {
                let inside = inverse_weight_inside(&weights, length, border);
                inside.into_iter().map(T::of).collect()
            }),
            weights: weights.into_iter().map(T::of).collect(),
        }
    }

    /// Each task reads the rows that its output rows see, once.
    fn run(&self, read: &(impl Fn(usize, &mut [T]) + Sync), out: &mut [T]) {
        let [height, width] = self.size;
        let end = self.weights.len() - 1;
        let chunk = end.max(CHUNK);
        let padded = width.next_multiple_of(BLOCK);
        out.par_chunks_mut(chunk * width)
            .enumerate()
            .for_each(|(task, out)| {
                let first = task * chunk;
                let rows = out.len() / width;
                let mut window = vec![T::default(); (rows + 2 * end) * padded];
                for (row, y) in window
                    .chunks_exact_mut(padded)
                    .zip(first as isize - end as isize..)
                {
                    let inside = (0..height as isize).contains(&y);
                    if inside || self.reflect {
                        read(reflected(y, height), &mut row[..width]);
                    }
                }
                let mut sums = vec![T::default(); rows * padded];
                vertical(
                    &window,
                    padded,
                    &self.weights,
                    &self.inside[0][first..first + rows],
                    &mut sums,
                );
                let mut line = vec![T::default(); padded + 2 * end];
                for (row, sums) in out.chunks_exact_mut(width).zip(sums.chunks_exact(padded)) {
                    line[end..end + padded].copy_from_slice(sums);
                    self.extend(&mut line);
                    horizontal(&line, &self.weights, &self.inside[1], row);
                }
            });
    }

    /// Fills what lies outside the image at both ends of a line.
    fn extend(&self, line: &mut [T]) {
        let width = self.size[1];
        let end = self.weights.len() - 1;
        // The last block of the vertical sums reaches beyond the image.
        line[end + width..].fill(T::default());
        if self.reflect {
            for d in 1..=end {
                line[end - d] = line[end + reflected(-(d as isize), width)];
                line[end + width - 1 + d] = line[end + reflected((width - 1 + d) as isize, width)];
            }
        }
    }
}

/// Neighbour outside the image: mirrored with the edge pixel repeated.
pub(crate) fn reflected(at: isize, length: usize) -> usize {
    let k = at.rem_euclid(2 * length as isize) as usize;
    if k >= length { 2 * length - 1 - k } else { k }
}

vectorised! {
    fn clean(row: &mut [f32]) {
        for v in row {
            *v = finite(*v);
        }
    }

    /// Sums over the rows of `window`, for as many rows as `inside` has; the middle one of the first is number
    /// `weights.len() - 1`. Column by column, so that what the filter passes over stays in the cache.
    fn vertical<T: Real>(window: &[T], padded: usize, weights: &[T], inside: &[T], out: &mut [T]) {
        let end = weights.len() - 1;
        for block in 0..padded / BLOCK {
            for (i, &n) in inside.iter().enumerate() {
                let at = |row: usize| &window[(i + row) * padded + block * BLOCK..][..BLOCK];
                let mut sum = [T::default(); BLOCK];
                add_one(&mut sum, at(end), weights[0]);
                for (d, &w) in weights.iter().enumerate().skip(1) {
                    add_two(&mut sum, at(end - d), at(end + d), w);
                }
                let out = &mut out[i * padded + block * BLOCK..][..BLOCK];
                for (o, s) in out.iter_mut().zip(sum) {
                    *o = s * n;
                }
            }
        }
    }

    /// `line` is the row with the end of the filter on both sides.
    fn horizontal<T: Real>(line: &[T], weights: &[T], inside: &[T], out: &mut [T]) {
        let end = weights.len() - 1;
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let centre = block * BLOCK + end;
            let mut sum = [T::default(); BLOCK];
            add_one(&mut sum, &line[centre..][..BLOCK], weights[0]);
            for (d, &w) in weights.iter().enumerate().skip(1) {
                add_two(&mut sum, &line[centre - d..][..BLOCK], &line[centre + d..][..BLOCK], w);
            }
            for ((o, s), n) in out.iter_mut().zip(sum).zip(&inside[block * BLOCK..]) {
                *o = s * *n;
            }
        }
    }
}

/// `sum += w a`.
#[inline(always)]
fn add_one<T: Real>(sum: &mut [T; BLOCK], a: &[T], w: T) {
    for (s, a) in sum.iter_mut().zip(a) {
        *s = *s + w * *a;
    }
}

/// `sum += w (a + b)`.
#[inline(always)]
fn add_two<T: Real>(sum: &mut [T; BLOCK], a: &[T], b: &[T], w: T) {
    for ((s, a), b) in sum.iter_mut().zip(a).zip(b) {
        *s = *s + w * (*a + *b);
    }
}
