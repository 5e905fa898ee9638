//! The normal law that reference wells follow: mean and shrunk covariance, and how far a row is from it.
//!
//! Rows of principal components in `f64` enter. Fails where there are fewer than two rows or where they have no spread
//! at all.

use faer::Mat;
use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::MonitorError;
use crate::align::shrink::{Shrunk, ledoit_wolf};
use crate::linalg::symmetric_eigen;

/// Mean and Ledoit-Wolf covariance of rows (SCIENCE 5.4), with its inverse root.
#[derive(Debug, Clone)]
pub struct Gaussian {
    n: usize,
    mean: Vec<f64>,
    covariance: Mat<f64>,
    shrinkage: f64,
    /// Rows of `Λ^−½ Vᵀ`: the squared length of its product with `x − mean` is the Mahalanobis distance.
    whitening: Mat<f64>,
}

impl Gaussian {
    /// Fits rows of equal width.
    ///
    /// # Errors
    /// [`MonitorError::NoSpread`] with fewer than two rows, or where all rows are equal; [`MonitorError::Eigen`] where
    /// a value is not finite.
    pub fn fit(rows: &[&[f64]]) -> Result<Self, MonitorError> {
        let (n, d) = (rows.len(), rows.first().map_or(0, |row| row.len()));
        if n < 2 || d == 0 {
            return Err(MonitorError::NoSpread { rows: n });
        }
        let mean = mean(rows, d);
        let Ok(Shrunk {
            covariance,
            shrinkage,
            ..
        }) = ledoit_wolf(rows)
        else {
            return Err(MonitorError::NoSpread { rows: n });
        };
        let eigen = symmetric_eigen(covariance.as_ref())?;
        // With any spread, shrinkage makes the smallest eigenvalue positive unless nothing was shrunk.
        let smallest = eigen.values.last().copied().unwrap_or(0.0);
        let largest = eigen.values.first().copied().unwrap_or(0.0);
        if smallest.is_nan() || smallest <= f64::EPSILON * largest {
            return Err(MonitorError::NoSpread { rows: n });
        }
        let whitening = Mat::from_fn(d, d, |i, j| eigen.vectors[(j, i)] / eigen.values[i].sqrt());
        Ok(Self {
            n,
            mean,
            covariance,
            shrinkage,
            whitening,
        })
    }

    /// Rows it was fitted on.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Their mean.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The shrunk covariance, width x width.
    pub fn covariance(&self) -> &Mat<f64> {
        &self.covariance
    }

    /// How much of the covariance is a multiple of the unit matrix, from 0 to 1.
    pub fn shrinkage(&self) -> f64 {
        self.shrinkage
    }

    /// `(x − mean)ᵀ Σ⁻¹ (x − mean)`.
    pub fn distance2(&self, x: &[f64]) -> f64 {
        let d = self.mean.len();
        (0..d)
            .map(|i| {
                let coordinate: f64 = (0..d)
                    .map(|j| self.whitening[(i, j)] * (x[j] - self.mean[j]))
                    .sum();
                coordinate * coordinate
            })
            .sum()
    }
}

/// Column means of rows of width `d`.
pub(super) fn mean(rows: &[&[f64]], d: usize) -> Vec<f64> {
    let mut mean = vec![0.0; d];
    for row in rows {
        for (sum, x) in mean.iter_mut().zip(*row) {
            *sum += x;
        }
    }
    let n = rows.len().max(1) as f64;
    mean.iter_mut().for_each(|sum| *sum /= n);
    mean
}

/// The value that a χ² variable of `freedom` degrees exceeds with probability `p`; `freedom` from 1, `p` from 1e-15
/// to 1.
pub fn chi_squared_limit(freedom: usize, p: f64) -> f64 {
    let Ok(law) = ChiSquared::new(freedom.max(1) as f64) else {
        return f64::INFINITY;
    };
    // Bisection to the last bit: `statrs` inverts only to about 1e-8.
    let (mut low, mut high) = (0.0, 2.0 * freedom.max(1) as f64 + 200.0);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if law.sf(middle) > p {
            low = middle;
        } else {
            high = middle;
        }
    }
}
