//! Mean vectors in `f64`, and their inner products block by block.
//!
//! Rows enter, rows and products leave. Nothing fails but a row of another width, which is refused. Means are kept in
//! the precision they were summed in: a cosine of two means then agrees with its formula to the last digits, and the
//! product of ten thousands of effects with hundreds of signatures still takes a fraction of a second.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::matrix::{FeatureMatrix, WidthError};

/// Rows of one product of [`cosines`]; the same whatever the number of threads, and so are the bytes.
const BLOCK_ROWS: usize = 256;

/// `n` rows of `width` values in `f64`, row after row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vectors {
    values: Vec<f64>,
    width: usize,
}

impl Vectors {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Self {
            values: Vec::new(),
            width,
        }
    }

    /// Of values row after row; what is left of a last row that is not whole is no row.
    pub(super) fn from_values(values: Vec<f64>, width: usize) -> Self {
        debug_assert!(width == 0 || values.len().is_multiple_of(width), "whole rows");
        Self { values, width }
    }

    /// The rows of a feature matrix.
    pub fn from_features(rows: &FeatureMatrix) -> Self {
        Self {
            values: rows.as_slice().iter().map(|&value| f64::from(value)).collect(),
            width: rows.width(),
        }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`WidthError`] where it has another width.
    pub fn push(&mut self, row: &[f64]) -> Result<(), WidthError> {
        if row.len() != self.width {
            return Err(WidthError {
                expected: self.width,
                found: row.len(),
            });
        }
        self.values.extend_from_slice(row);
        Ok(())
    }

    /// Number of rows; 0 where rows have no values.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    ///
    /// # Panics
    /// Where there are not that many rows, as a slice does.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// Every row.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> + Clone {
        self.values.chunks_exact(self.width.max(1))
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[f64] {
        &self.values
    }

    /// Length of every row.
    pub fn lengths(&self) -> Vec<f64> {
        self.rows().map(|row| dot(row, row).sqrt()).collect()
    }

    /// Every row at length 1; a row without a direction (zero, or not finite) becomes NaN, never 0.
    pub fn directions(mut self) -> Self {
        for row in self.values.chunks_exact_mut(self.width.max(1)) {
            let length = dot(row, row).sqrt();
            let usable = length > 0.0 && length.is_finite();
            row.iter_mut()
                .for_each(|value| *value = if usable { *value / length } else { f64::NAN });
        }
        self
    }
}

/// Inner product, in one order of additions.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight sums side by side: one would wait for each addition.
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// `out[j * m + i] = a_i · b_j` for `m` rows `a` and the rows `b` of one `width`: a column for each `b`. On the calling
/// thread.
pub(crate) fn products(a: &[f64], b: &[f64], width: usize, out: &mut [f64]) {
    if width == 0 || a.is_empty() || b.is_empty() {
        out.fill(0.0);
        return;
    }
    let (m, n) = (a.len() / width, b.len() / width);
    let left = MatRef::from_row_major_slice(a, m, width);
    let right = MatRef::from_row_major_slice(b, n, width);
    let product = MatMut::from_column_major_slice_mut(out, m, n);
    matmul(product, Accum::Replace, left, right.transpose(), 1.0, Par::Seq);
}

/// Cosines of every row of `a` with every row of `b`, of one width: `out[i * b.len() + j]`, within [-1, 1], NaN where a
/// row has no length. In parallel, the same on any number of threads.
pub fn cosines(a: &Vectors, b: &Vectors) -> Vec<f64> {
    debug_assert_eq!(a.width, b.width, "rows of one space");
    let (d, n) = (a.width, b.len());
    let (lengths, others) = (a.lengths(), b.lengths());
    let mut out = vec![0.0; a.len() * n];
    if n == 0 || d == 0 {
        return out;
    }
    out.par_chunks_mut(BLOCK_ROWS * n)
        .zip(a.values.par_chunks(BLOCK_ROWS * d))
        .zip(lengths.par_chunks(BLOCK_ROWS))
        .for_each(|((out, rows), lengths)| {
            // A column of products for each row of `rows` is a row of `out`.
            products(&b.values, rows, d, out);
            for (row, length) in out.chunks_exact_mut(n).zip(lengths) {
                for (value, other) in row.iter_mut().zip(&others) {
                    let product = length * other;
                    *value = if product > 0.0 {
                        (*value / product).clamp(-1.0, 1.0)
                    } else {
                        f64::NAN
                    };
                }
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_the_written_sums() {
        let a: Vec<f64> = (0..7 * 19).map(|i| (i as f64).sin()).collect();
        let b: Vec<f64> = (0..3 * 19).map(|i| (i as f64).cos()).collect();
        let mut out = vec![f64::NAN; 21];
        products(&a, &b, 19, &mut out);
        for i in 0..7 {
            for j in 0..3 {
                let (a, b) = (&a[i * 19..(i + 1) * 19], &b[j * 19..(j + 1) * 19]);
                let expected: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((out[j * 7 + i] - expected).abs() < 1e-12);
                assert!((dot(a, b) - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_row_without_a_direction_is_nan() {
        let mut rows = Vectors::new(2);
        rows.push(&[3.0, 4.0]).unwrap();
        rows.push(&[0.0, 0.0]).unwrap();
        assert!(rows.push(&[1.0]).is_err());
        let directions = rows.directions();
        assert_eq!(directions.row(0), [0.6, 0.8]);
        assert!(directions.row(1).iter().all(|value| value.is_nan()));
    }
}
