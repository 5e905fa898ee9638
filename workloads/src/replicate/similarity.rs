//! Cosines and correlations of pairs of rows: `f32` rows enter, `f64` sums leave. Nothing fails; a row without a
//! direction has no similarity.

use rayon::prelude::*;

use crate::matrix::FeatureMatrix;

/// Sums kept side by side, so that a product runs in vector registers and its order never changes.
const LANES: usize = 8;

/// `Σ a_i b_i`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = (a_chunks.remainder().iter().zip(b_chunks.remainder()))
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f64::from(a) * f64::from(b);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Lengths of rows, for cosines.
pub(super) struct Directions<'a> {
    rows: &'a FeatureMatrix,
    /// One over the length; NaN for a row without a direction.
    inverse: Vec<f64>,
}

impl<'a> Directions<'a> {
    pub(super) fn of(rows: &'a FeatureMatrix) -> Self {
        let inverse = rows
            .as_slice()
            .par_chunks(rows.width().max(1))
            .map(|row| {
                let square = dot(row, row);
                if square > 0.0 && square.is_finite() {
                    1.0 / square.sqrt()
                } else {
                    f64::NAN
                }
            })
            .collect();
        Self { rows, inverse }
    }

    /// Whether row `i` has a direction: it is finite and not zero.
    pub(super) fn exists(&self, i: usize) -> bool {
        !self.inverse[i].is_nan()
    }

    /// Rows without a direction, ascending.
    pub(super) fn missing(&self) -> Vec<usize> {
        (0..self.inverse.len()).filter(|&i| !self.exists(i)).collect()
    }

    /// Within [-1, 1]; NaN where a row has no direction.
    pub(super) fn cosine(&self, i: usize, j: usize) -> f64 {
        let product = dot(self.rows.row(i), self.rows.row(j));
        (product * self.inverse[i] * self.inverse[j]).clamp(-1.0, 1.0)
    }
}

/// Each row less its own mean, so that cosines become Pearson correlations. The means are taken in `f64`; the
/// difference is rounded to `f32`.
pub(super) fn centred(rows: &FeatureMatrix) -> FeatureMatrix {
    let mut out = rows.clone();
    let width = rows.width().max(1);
    out.as_mut_slice().par_chunks_mut(width).for_each(|row| {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / row.len() as f64;
        row.iter_mut().for_each(|v| *v = (f64::from(*v) - mean) as f32);
    });
    out
}
