//! CPU form of `background`. A constant per plane is a point-wise operation. The top-hat takes, for each row, the
//! running minimum over each chord of the footprint by doubling (windows of 1, 2, 4, ... pixels), which vectorises
//! and costs log2 of the width instead of the width.

use rayon::prelude::*;

use super::{Background, Footprint};
use crate::image::Tensor;
use crate::kernel::per_channel;
use crate::order_statistics::{self, Split};
use crate::rows::Rows;

/// Rows per task.
const CHUNK: usize = 16;

/// `v` where it is positive, else 0; NaN gives 0.
#[inline]
fn positive(v: f32) -> f32 {
    if v > 0.0 { v } else { 0.0 }
}

pub(super) fn background<'a>(kernel: &'a Background, input: Rows<'a>) -> Rows<'a> {
    let [items, channels, ..] = input.shape();
    let (input, levels): (Rows<'a>, Vec<Split>) = match kernel {
        Background::Fixed { levels } => {
            let of = |p| Split::new(per_channel(levels, p % channels));
            (input, (0..items * channels).map(of).collect())
        }
        Background::Percentile { q } => {
            let (input, found) = order_statistics::percentiles(input, [*q, *q]);
            (input, found.into_iter().map(|[lo, _]| lo).collect())
        }
        Background::TopHat { footprint, radius } => return top_hat(*footprint, *radius, input),
    };
    input.then(true, move |at, row| {
        let b = levels[at.item * channels + at.channel];
        row.iter_mut()
            .for_each(|v| *v = positive((*v - b.stored) - b.rest));
    })
}

fn top_hat<'a>(footprint: Footprint, radius: usize, input: Rows<'a>) -> Rows<'a> {
    let tensor = input.materialise();
    let shape = tensor.shape();
    let chords = footprint.chords(radius);
    let mut out = tensor.into_data();
    // Absent (NaN, +infinity) pixels must not win the minimum; the smallest float must not win the maximum.
    let source: Vec<f32> = out
        .iter()
        .map(|&v| if v < f32::MAX { v } else { f32::MAX })
        .collect();
    let eroded = sweep(
        &source,
        shape,
        &chords,
        f32::MAX,
        |a, b| if b < a { b } else { a },
    );
    let opened = sweep(
        &eroded,
        shape,
        &chords,
        -f32::MAX,
        |a, b| if b > a { b } else { a },
    );
    out.par_iter_mut()
        .zip(&opened)
        .with_min_len(4096)
        .for_each(|(v, o)| *v = positive(*v - o));
    Rows::float(Tensor::from_parts(shape, out))
}

/// The best value (by `pick`, starting from `worst`) under the footprint around every pixel.
fn sweep(
    input: &[f32],
    shape: [usize; 4],
    chords: &[usize],
    worst: f32,
    pick: impl Fn(f32, f32) -> f32 + Copy + Send + Sync,
) -> Vec<f32> {
    let [_, _, height, width] = shape;
    let radius = chords.len() / 2;
    let mut out = vec![worst; input.len()];
    out.par_chunks_mut(height * width)
        .zip(input.par_chunks(height * width))
        .for_each(|(out, plane)| {
            out.par_chunks_mut(CHUNK * width)
                .enumerate()
                .for_each(|(chunk, out)| {
                    // Half widths beyond the row see the whole row.
                    let pad = radius.min(width);
                    let mut line = vec![worst; width + 2 * pad];
                    for (i, out) in out.chunks_mut(width).enumerate() {
                        let y = chunk * CHUNK + i;
                        for (k, &half) in chords.iter().enumerate() {
                            let Some(source) = (y + k).checked_sub(radius).filter(|s| *s < height) else {
                                continue;
                            };
                            let half = half.min(pad);
                            line.fill(worst);
                            line[pad..pad + width]
                                .copy_from_slice(&plane[source * width..(source + 1) * width]);
                            let window = 2 * half + 1;
                            let mut have = 1;
                            while have * 2 <= window {
                                double(&mut line, have, pick);
                                have *= 2;
                            }
                            let left = &line[pad - half..];
                            let right = &line[pad + half + 1 - have..];
                            for ((o, a), b) in out.iter_mut().zip(left).zip(right) {
                                *o = pick(*o, pick(*a, *b));
                            }
                        }
                    }
                });
        });
    out
}

/// Windows of `have` pixels become windows of `2 * have`, each starting where it did.
fn double(line: &mut [f32], have: usize, pick: impl Fn(f32, f32) -> f32) {
    for i in 0..line.len().saturating_sub(have) {
        line[i] = pick(line[i], line[i + have]);
    }
}
