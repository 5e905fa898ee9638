//! The space in which plates are compared: scaled features, and the principal directions of reference wells.

use super::MonitorError;
use crate::align::pca::Pca;
use crate::matrix::FeatureMatrix;

/// A feature with less spread than this share of its mean is constant.
const CONSTANT: f64 = 1e-6;
/// A component with less than this share of the first one's variance is rounding.
const LEAST_VARIANCE: f64 = 1e-9;

/// Mean and population SD of every feature; the SD of a constant one is 0.
pub(super) fn scale_of(rows: &FeatureMatrix) -> (Vec<f32>, Vec<f32>) {
    let means = crate::linalg::column_means(rows);
    let mut squares = vec![0.0; rows.width()];
    for row in rows.rows() {
        for (square, (&x, mean)) in squares.iter_mut().zip(row.iter().zip(&means)) {
            *square += (f64::from(x) - mean) * (f64::from(x) - mean);
        }
    }
    let n = rows.len().max(1) as f64;
    let divisor = squares
        .iter()
        .zip(&means)
        .map(|(square, mean)| {
            let sd = (square / n).sqrt();
            if sd > CONSTANT * mean.abs() {
                sd as f32
            } else {
                0.0
            }
        })
        .collect();
    (means.iter().map(|&mean| mean as f32).collect(), divisor)
}

pub(super) fn scaled(rows: &FeatureMatrix, centre: &[f32], divisor: &[f32]) -> FeatureMatrix {
    let mut out = rows.clone();
    for row in out.as_mut_slice().chunks_exact_mut(centre.len().max(1)) {
        for (x, (&centre, &divisor)) in row.iter_mut().zip(centre.iter().zip(divisor)) {
            *x = if divisor == 0.0 {
                0.0
            } else {
                ((f64::from(*x) - f64::from(centre)) / f64::from(divisor)) as f32
            };
        }
    }
    out
}

/// The first principal directions, one row each; those that are more than rounding.
pub(super) fn components(rows: &FeatureMatrix, wanted: usize) -> Result<Vec<Vec<f32>>, MonitorError> {
    let pca = Pca::fit_rows(rows, wanted)?;
    let floor = LEAST_VARIANCE * pca.explained_variance.first().copied().unwrap_or(0.0);
    let kept = pca.explained_variance.iter().filter(|&&v| v > floor).count();
    let column = |j: usize| -> Vec<f32> {
        (0..rows.width())
            .map(|feature| pca.loadings[(feature, j)] as f32)
            .collect()
    };
    Ok((0..kept).map(column).collect())
}
