//! CPU form of `percentile_scale`; the numbers of a plane are the lower end (stored, remainder), 1 / span, scale.

use crate::simd::vectorised;

#[inline(always)]
fn scaled(v: f32, [lo, rest, inverse, scale]: [f32; 4]) -> f32 {
    let z = ((v - lo) - rest) * inverse;
    let z = if z > 0.0 { z } else { 0.0 };
    (if z < 1.0 { z } else { 1.0 }) * scale
}

vectorised! {
    pub(super) fn scale(row: &mut [f32], p: [f32; 4], _map: &[f32]) {
        for v in row {
            *v = scaled(*v, p);
        }
    }

    pub(super) fn scale_and_round(row: &mut [f32], p: [f32; 4], _map: &[f32]) {
        for v in row {
            *v = scaled(*v, p).round_ties_even();
        }
    }
}
