//! CPU form of `project`.

use rayon::prelude::*;

use super::{Project, Projection};
use crate::image::Tensor;
use crate::moments;
use crate::point::finite;
use crate::rows::{RowAt, Rows};
use crate::simd::vectorised;

pub(super) fn project<'a>(kernel: Project, input: Rows<'a>) -> Rows<'a> {
    let Project { slices, projection } = kernel;
    let [items, channels, height, width] = input.shape();
    let shape = [items, channels / slices, height, width];
    let at = |plane: usize, y| RowAt {
        item: plane / channels,
        channel: plane % channels,
        y,
        x: 0,
    };
    let mut out = vec![0.0; shape.iter().product()];
    let chosen: Vec<usize> = match projection {
        Projection::BestFocus => (0..items * channels / slices)
            .into_par_iter()
            .map(|stack| sharpest(&input, stack * slices..(stack + 1) * slices, at))
            .collect(),
        _ => Vec::new(),
    };
    out.par_chunks_mut(width)
        .with_min_len(16)
        .enumerate()
        .for_each_init(
            || vec![0.0; width],
            |row, (line, out)| {
                let (stack, y) = (line / height, line % height);
                if let Some(plane) = chosen.get(stack) {
                    input.read(at(*plane, y), out);
                    numbers(out);
                    return;
                }
                input.read(at(stack * slices, y), out);
                match projection {
                    Projection::Mean => clean(out),
                    _ => numbers(out),
                }
                for z in 1..slices {
                    input.read(at(stack * slices + z, y), row);
                    match projection {
                        Projection::Mean => add(out, row),
                        _ => brighten(out, row),
                    }
                }
                if projection == Projection::Mean {
                    divide(out, slices as f32);
                }
            },
        );
    Rows::float(Tensor::from_parts(shape, out))
}

/// The plane with the largest variance of the Laplacian, the first of equals.
fn sharpest(input: &Rows<'_>, planes: std::ops::Range<usize>, at: impl Fn(usize, usize) -> RowAt) -> usize {
    let [_, _, height, width] = input.shape();
    let first = planes.start;
    let mut best: Option<(u128, usize)> = None;
    let mut levels = vec![0u16; height * width];
    let mut row = vec![0.0; width];
    for plane in planes {
        for (y, levels) in levels.chunks_exact_mut(width).enumerate() {
            input.read(at(plane, y), &mut row);
            for (l, &v) in levels.iter_mut().zip(&row) {
                let low = if v > 0.0 { v } else { 0.0 };
                *l = (if low < 65535.0 { low } else { 65535.0 } + 0.5) as u16;
            }
        }
        let spread = moments::spread(&levels, height, width);
        if best.is_none_or(|(most, _)| spread > most) {
            best = Some((spread, plane));
        }
    }
    best.map_or(first, |(_, plane)| plane)
}

vectorised! {
    /// NaN counts as 0.
    fn numbers(row: &mut [f32]) {
        for v in row {
            *v = if v.is_nan() { 0.0 } else { *v };
        }
    }

    fn clean(row: &mut [f32]) {
        for v in row {
            *v = finite(*v);
        }
    }

    fn add(row: &mut [f32], other: &[f32]) {
        for (v, o) in row.iter_mut().zip(other) {
            *v += finite(*o);
        }
    }

    fn brighten(row: &mut [f32], other: &[f32]) {
        for (v, o) in row.iter_mut().zip(other) {
            let o = if o.is_nan() { 0.0 } else { *o };
            *v = if o > *v { o } else { *v };
        }
    }

    fn divide(row: &mut [f32], by: f32) {
        for v in row {
            *v /= by;
        }
    }
}
