//! CPU form of `standardise`: one pass for mean and variance, in f64, row by row; rows are joined in their order, so the
//! result does not depend on the number of threads.

use rayon::prelude::*;

use crate::point::finite;
use crate::rows::{RowAt, Rows};
use crate::simd::vectorised;

/// Sums kept side by side, so that they need not wait for each other.
const LANES: usize = 8;

/// Mean and population variance of every plane.
pub(super) fn moments(rows: &Rows<'_>) -> Vec<(f64, f64)> {
    let [items, channels, height, width] = rows.shape();
    (0..items * channels)
        .into_par_iter()
        .map(|plane| {
            let of_rows: Vec<(f64, f64)> = (0..height)
                .into_par_iter()
                .with_min_len(32)
                .map_init(
                    || vec![0.0; width],
                    |row, y| {
                        rows.read(
                            RowAt {
                                item: plane / channels,
                                channel: plane % channels,
                                y,
                                x: 0,
                            },
                            row,
                        );
                        of_row(row)
                    },
                )
                .collect();
            join(&of_rows, width as f64)
        })
        .collect()
}

/// Mean and variance of the whole from those of rows of `width` pixels (Chan, Golub and LeVeque 1979).
fn join(rows: &[(f64, f64)], width: f64) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for (m, v) in rows {
        let all = count + width;
        let gap = m - mean;
        mean += gap * width / all;
        squares += v * width + gap * gap * count * width / all;
        count = all;
    }
    (mean, squares / count)
}

vectorised! {
    /// Mean and population variance about the first pixel, which a constant row makes exact.
    fn of_row(row: &[f32]) -> (f64, f64) {
        let pivot = f64::from(row.first().map_or(0.0, |v| finite(*v)));
        let (mut sums, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
        let chunks = row.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for i in 0..LANES {
                let d = f64::from(finite(chunk[i])) - pivot;
                sums[i] += d;
                squares[i] += d * d;
            }
        }
        for (i, v) in rest.iter().enumerate() {
            let d = f64::from(finite(*v)) - pivot;
            sums[i] += d;
            squares[i] += d * d;
        }
        let n = row.len() as f64;
        let mean = sums.iter().sum::<f64>() / n;
        (pivot + mean, (squares.iter().sum::<f64>() / n - mean * mean).max(0.0))
    }

    pub(super) fn standardise(row: &mut [f32], p: [f32; 4], _map: &[f32]) {
        for v in row {
            *v = ((finite(*v) - p[0]) - p[1]) * p[2];
        }
    }
}
