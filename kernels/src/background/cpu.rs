//! CPU form of `background`. A constant per plane is a point-wise operation. A window takes, for each row, the running
//! minimum over each chord of the footprint from windows of 1, 2, 4, ... pixels, which each row makes once for all
//! chords: log2 of the width instead of the width, and all of it vectorises. A square is a chord and then a column.

use rayon::prelude::*;

use super::Footprint;
use crate::blur::{self, Border};
use crate::image::Tensor;
use crate::point::positive;
use crate::rows::Rows;
use crate::simd::vectorised;

/// Rows per task.
const CHUNK: usize = 64;

vectorised! {
    pub(super) fn subtract_level(row: &mut [f32], p: [f32; 4], _map: &[f32]) {
        for v in row {
            *v = positive((*v - p[0]) - p[1]);
        }
    }

    fn subtract(row: &mut [f32], other: &[f32]) {
        for (v, o) in row.iter_mut().zip(other) {
            *v = positive(*v - o);
        }
    }
}

pub(super) fn gaussian<'a>(sigma: f64, border: Border, input: Rows<'a>) -> Rows<'a> {
    let blurred = blur::blurred(&input, sigma, border);
    difference(input.materialise(), &blurred)
}

pub(super) fn top_hat<'a>(footprint: Footprint, radius: usize, input: Rows<'a>) -> Rows<'a> {
    let tensor = input.materialise();
    let shape = tensor.shape();
    let source = without_absent(tensor.data());
    let eroded = sweep::<Least>(&source, shape, footprint, radius);
    let opened = sweep::<Greatest>(&eroded, shape, footprint, radius);
    difference(tensor, &opened)
}

/// Absent (NaN, +infinity) pixels must not win a minimum: the largest float stands for them.
pub(super) fn without_absent(pixels: &[f32]) -> Vec<f32> {
    pixels
        .par_iter()
        .with_min_len(1 << 14)
        .map(|&v| if v < f32::MAX { v } else { f32::MAX })
        .collect()
}

fn difference<'a>(tensor: Tensor, other: &[f32]) -> Rows<'a> {
    let shape = tensor.shape();
    let mut out = tensor.into_data();
    out.par_chunks_mut(1 << 14)
        .zip(other.par_chunks(1 << 14))
        .for_each(|(v, o)| subtract(v, o));
    Rows::float(Tensor::from_parts(shape, out))
}

/// Which of two values a window keeps.
trait Pick {
    /// What every value beats.
    const WORST: f32;
    fn pick(a: f32, b: f32) -> f32;
}

struct Least;
impl Pick for Least {
    const WORST: f32 = f32::MAX;
    #[inline(always)]
    fn pick(a: f32, b: f32) -> f32 {
        if b < a { b } else { a }
    }
}

struct Greatest;
impl Pick for Greatest {
    const WORST: f32 = -f32::MAX;
    #[inline(always)]
    fn pick(a: f32, b: f32) -> f32 {
        if b > a { b } else { a }
    }
}

/// The best value under the footprint around every pixel.
fn sweep<P: Pick>(input: &[f32], shape: [usize; 4], footprint: Footprint, radius: usize) -> Vec<f32> {
    let [_, _, height, width] = shape;
    let chords = match footprint {
        Footprint::Disk => footprint.chords(radius),
        Footprint::Square => vec![radius],
    };
    let mut out = vec![P::WORST; input.len()];
    let tasks = height.div_ceil(CHUNK);
    out.par_chunks_mut(height * width)
        .zip(input.par_chunks(height * width))
        .for_each(|(out, plane)| {
            out.par_chunks_mut(CHUNK * width)
                .enumerate()
                .take(tasks)
                .for_each(|(chunk, out)| {
                    chords_of_rows::<P>(plane, width, &chords, chunk * CHUNK, out);
                });
        });
    if footprint == Footprint::Square {
        out.par_chunks_mut(height * width)
            .for_each(|plane| columns::<P>(plane, width, radius));
    }
    out
}

/// Windows of each power of two that some chord needs, of one row; `pad` columns outside lie on both sides.
fn powers_of_row<P: Pick>(row: &[f32], pad: usize, powers: &mut [Vec<f32>]) {
    for k in 0..powers.len() {
        let (before, rest) = powers.split_at_mut(k);
        let line = &mut rest[0];
        match before.last() {
            None => line[pad..pad + row.len()].copy_from_slice(row),
            // Windows of `have` pixels become windows of twice as many, each starting where it did.
            Some(half) => {
                let have = 1 << (k - 1);
                let whole = half.len() - have;
                join::<P>(&half[..whole], &half[have..], &mut line[..whole]);
                line[whole..].copy_from_slice(&half[whole..]);
            }
        }
    }
}

/// The best of the chords of rows `first..`; `out` holds them.
fn chords_of_rows<P: Pick>(plane: &[f32], width: usize, chords: &[usize], first: usize, out: &mut [f32]) {
    let radius = chords.len() / 2;
    let height = plane.len() / width;
    let rows = out.len() / width;
    // Half widths beyond the row see the whole row.
    let pad = chords.iter().copied().max().unwrap_or(0).min(width);
    let power = |half: usize| (2 * half.min(pad) + 1).ilog2() as usize;
    let mut powers = vec![vec![P::WORST; width + 2 * pad]; power(pad) + 1];
    for y in first.saturating_sub(radius)..(first + rows + radius).min(height) {
        powers_of_row::<P>(&plane[y * width..(y + 1) * width], pad, &mut powers);
        for (k, &half) in chords.iter().enumerate() {
            // Row y lies `k - radius` below the output row.
            let Some(row) = (y + radius).checked_sub(k + first).filter(|r| *r < rows) else {
                continue;
            };
            let half = half.min(pad);
            let line = &powers[power(half)];
            let have = 1 << power(half);
            best_of::<P>(
                &mut out[row * width..(row + 1) * width],
                &line[pad - half..],
                &line[pad + half + 1 - have..],
            );
        }
    }
}

/// The best of `2 radius + 1` rows around each row.
fn columns<P: Pick>(plane: &mut [f32], width: usize, radius: usize) {
    let height = plane.len() / width;
    let pad = radius.min(height);
    let mut rows = vec![P::WORST; (height + 2 * pad) * width];
    rows[pad * width..(pad + height) * width].copy_from_slice(plane);
    let window = 2 * pad + 1;
    let mut have = 1;
    while have * 2 <= window {
        for at in 0..height + 2 * pad - have {
            let (a, b) = rows.split_at_mut((at + have) * width);
            best_into::<P>(&mut a[at * width..(at + 1) * width], &b[..width]);
        }
        have *= 2;
    }
    for (y, out) in plane.chunks_exact_mut(width).enumerate() {
        out.fill(P::WORST);
        let last = y + window - have;
        best_of::<P>(out, &rows[y * width..], &rows[last * width..]);
    }
}

vectorised! {
    fn join<P: Pick>(a: &[f32], b: &[f32], out: &mut [f32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = P::pick(*a, *b);
        }
    }

    fn best_into<P: Pick>(out: &mut [f32], a: &[f32]) {
        for (o, a) in out.iter_mut().zip(a) {
            *o = P::pick(*o, *a);
        }
    }

    fn best_of<P: Pick>(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = P::pick(*o, P::pick(*a, *b));
        }
    }
}
