//! CPU form of `median`: 8 neighbouring pixels at a time, each of the compared values a vector of 8.

use rayon::prelude::*;

use crate::blur::reflected;
use crate::image::Tensor;
use crate::rows::Rows;
use crate::simd::vectorised;

/// Pixels worked on side by side.
const LANES: usize = 8;

type Lanes = [f32; LANES];

pub(super) fn median<'a>(size: usize, input: Rows<'a>) -> Rows<'a> {
    let tensor = input.materialise();
    let shape = tensor.shape();
    let [_, _, height, width] = shape;
    let half = size / 2;
    // Lines with mirrored ends, and room for the last lanes.
    let long = width.next_multiple_of(LANES) + 2 * half;
    let mut padded = vec![0.0f32; shape[0] * shape[1] * height * long];
    padded
        .par_chunks_mut(long)
        .zip(tensor.data().par_chunks(width))
        .for_each(|(line, row)| {
            for (x, v) in line[..width + 2 * half].iter_mut().enumerate() {
                let value = row[reflected(x as isize - half as isize, width)];
                *v = if value.is_nan() { 0.0 } else { value };
            }
        });
    let mut out = tensor.into_data();
    out.par_chunks_mut(width)
        .with_min_len(16)
        .enumerate()
        .for_each(|(row, out)| {
            let (plane, y) = (row / height * height, row % height);
            let mut lines: [&[f32]; 5] = [&[]; 5];
            for (k, line) in lines.iter_mut().enumerate().take(size) {
                let at = plane + reflected(y as isize + k as isize - half as isize, height);
                *line = &padded[at * long..(at + 1) * long];
            }
            match size {
                3 => median3(&lines[..3], out),
                _ => median5(&lines, out),
            }
        });
    Rows::float(Tensor::from_parts(shape, out))
}

/// Moves the lesser value of each lane to `a`.
#[inline(always)]
fn order(kept: &mut [Lanes], a: usize, b: usize) {
    let (mut x, mut y) = (kept[a], kept[b]);
    for (x, y) in x.iter_mut().zip(&mut y) {
        (*x, *y) = if *y < *x { (*y, *x) } else { (*x, *y) };
    }
    (kept[a], kept[b]) = (x, y);
}

/// Of N values the first N / 2 + 2 are kept; the least and the greatest kept cannot be the median, so they are dropped for
/// the next value, until three are left.
#[inline(always)]
fn select<const SIZE: usize, const KEPT: usize>(lines: &[&[f32]], x: usize) -> Lanes {
    let neighbour = |k: usize| -> Lanes {
        lines[k / SIZE][x + k % SIZE..]
            .first_chunk::<LANES>()
            .copied()
            .unwrap_or_default()
    };
    let mut kept = [[0.0; LANES]; KEPT];
    for (k, v) in kept.iter_mut().enumerate() {
        *v = neighbour(k);
    }
    let mut n = KEPT;
    let mut next = KEPT;
    loop {
        for i in 1..n {
            order(&mut kept, 0, i);
        }
        for i in 1..n - 1 {
            order(&mut kept, i, n - 1);
        }
        if n == 3 {
            return kept[1];
        }
        kept[0] = neighbour(next);
        next += 1;
        n -= 1;
    }
}

#[inline(always)]
fn row<const SIZE: usize, const KEPT: usize>(lines: &[&[f32]], out: &mut [f32]) {
    for (block, out) in out.chunks_mut(LANES).enumerate() {
        let found = select::<SIZE, KEPT>(lines, block * LANES);
        out.copy_from_slice(&found[..out.len()]);
    }
}

vectorised! {
    fn median3(lines: &[&[f32]], out: &mut [f32]) {
        row::<3, 6>(lines, out);
    }

    fn median5(lines: &[&[f32]], out: &mut [f32]) {
        row::<5, 14>(lines, out);
    }
}
