//! CPU form of the rolling ball. The height of the ball is the same at `(+-dy, +-dx)`, so the four pixels compete before
//! the height is added: rounding keeps order, so the result is the same as adding it to each. One output row keeps its
//! running minimum in registers, 32 columns at a time.

use rayon::prelude::*;

use super::Footprint;
use super::cpu::without_absent;
use crate::image::Tensor;
use crate::point::positive;
use crate::rows::Rows;
use crate::simd::vectorised;

/// Columns whose minimum is kept in registers.
const BLOCK: usize = 32;

/// `r - sqrt(r^2 - dy^2 - dx^2)` by row distance and column distance, each from 0 to `r`; infinite outside the ball.
pub(super) fn heights(radius: usize) -> Vec<Vec<f32>> {
    let square = |d: usize| (d * d) as f64;
    (0..=radius)
        .map(|dy| {
            (0..=radius)
                .map(|dx| {
                    let inside = square(radius) - square(dy) - square(dx);
                    if inside < 0.0 {
                        f32::INFINITY
                    } else {
                        (radius as f64 - inside.sqrt()) as f32
                    }
                })
                .collect()
        })
        .collect()
}

pub(super) fn rolling_ball<'a>(radius: usize, input: Rows<'a>) -> Rows<'a> {
    let tensor = input.materialise();
    let shape = tensor.shape();
    let [_, _, height, width] = shape;
    let heights = heights(radius);
    let chords = Footprint::Disk.chords(radius);
    let source = without_absent(tensor.data());
    let mut out = tensor.into_data();
    out.par_chunks_mut(width).enumerate().for_each_init(
        || {
            (
                vec![f32::MAX; width.next_multiple_of(BLOCK) + 2 * radius],
                vec![0.0; width.next_multiple_of(BLOCK)],
            )
        },
        |(pair, best), (row, out)| {
            let (plane, y) = (row / height * height * width, row % height);
            let line = |y: usize| &source[plane + y * width..plane + (y + 1) * width];
            best.fill(f32::MAX);
            for dy in 0..=radius {
                let inner = &mut pair[radius..radius + width];
                match (y.checked_sub(dy), (y + dy < height).then_some(y + dy)) {
                    (Some(up), Some(down)) => lower(line(up), line(down), inner),
                    (Some(one), None) | (None, Some(one)) => inner.copy_from_slice(line(one)),
                    (None, None) => continue,
                }
                let half = chords[radius - dy];
                under(pair, &heights[dy][..=half], radius, best);
            }
            for (v, b) in out.iter_mut().zip(best.iter()) {
                *v = positive(*v - b);
            }
        },
    );
    Rows::float(Tensor::from_parts(shape, out))
}

#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

vectorised! {
    fn lower(a: &[f32], b: &[f32], out: &mut [f32]) {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = least(*a, *b);
        }
    }

    /// `best[x] = min(best[x], min(pair[x - d], pair[x + d]) + heights[d])` for each `d`; `pair[radius]` is column 0.
    fn under(pair: &[f32], heights: &[f32], radius: usize, best: &mut [f32]) {
        for (block, best) in best.chunks_exact_mut(BLOCK).enumerate() {
            let mut kept = [0.0f32; BLOCK];
            kept.copy_from_slice(best);
            let centre = block * BLOCK + radius;
            for (d, &h) in heights.iter().enumerate() {
                let left = &pair[centre - d..][..BLOCK];
                let right = &pair[centre + d..][..BLOCK];
                for i in 0..BLOCK {
                    kept[i] = least(kept[i], least(left[i], right[i]) + h);
                }
            }
            best.copy_from_slice(&kept);
        }
    }
}
