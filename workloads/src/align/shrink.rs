//! Covariances of few rows: shrunk towards a multiple of the identity, so that they can be inverted (SCIENCE 5.4).
//!
//! Rows of any number and width enter; a covariance that is positive definite unless all rows are equal leaves. It
//! fails below two rows.

use faer::Mat;

use crate::linalg::inner_square;

/// A covariance `(1 - δ) S + δ μ I`.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// Width x width.
    pub covariance: Mat<f64>,
    /// δ, from 0 (the sample covariance) to 1 (a multiple of the identity).
    pub shrinkage: f64,
    /// μ: the mean variance of a column.
    pub mean_variance: f64,
}

/// Why there is no covariance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShrinkError {
    /// Fewer than two rows.
    #[error("a covariance needs at least 2 rows, but there are {rows}")]
    TooFewRows {
        /// Rows given.
        rows: usize,
    },
    /// Rows of differing widths.
    #[error("row {row} has {found} features where the first row has {expected}")]
    Width {
        /// 0-based row.
        row: usize,
        /// Features of the first row.
        expected: usize,
        /// Features of this row.
        found: usize,
    },
}

/// Ledoit-Wolf: the δ of least expected squared error (Ledoit and Wolf 2004, doi 10.1016/S0047-259X(03)00096-4).
///
/// `rows`: n rows of one width, not yet centred. `S` is the population covariance.
///
/// # Errors
/// [`ShrinkError`] below two rows, and where they differ in width.
pub fn ledoit_wolf<R: AsRef<[f64]>>(rows: &[R]) -> Result<Shrunk, ShrinkError> {
    let sample = Sample::new(rows)?;
    let (n, size) = (rows.len() as f64, sample.covariance.ncols());
    let d = size as f64;
    let squares = sample.sum_of_squares();
    // a = |S − μI|² / d, written out so that it can not cancel below 0.
    let mut a = 0.0;
    for j in 0..size {
        for i in 0..size {
            let target = if i == j { sample.mean_variance } else { 0.0 };
            let difference = sample.covariance[(i, j)] - target;
            a += difference * difference;
        }
    }
    let shrinkage = least_error(a / d, squares, sample.fourth_moment, n * d);
    Ok(sample.shrunk(shrinkage))
}

/// The δ of [`ledoit_wolf`] where the covariance is known by its eigenvalues, as where there are far fewer rows than
/// columns and the covariance itself would not fit.
///
/// `variances`: the eigenvalues of `S` that are not 0. `width`: columns. `squared_lengths`: `|x|²` of each row about
/// the mean.
pub fn ledoit_wolf_shrinkage(variances: &[f64], width: usize, squared_lengths: &[f64]) -> f64 {
    let (n, d) = (squared_lengths.len().max(1) as f64, width.max(1) as f64);
    let mean_variance = variances.iter().sum::<f64>() / d;
    let squares: f64 = variances.iter().map(|value| value * value).sum();
    let spread: f64 = variances
        .iter()
        .map(|value| (value - mean_variance) * (value - mean_variance))
        .sum();
    // The eigenvalues that are 0 lie `mean_variance` away from it.
    let others = d - variances.len() as f64;
    let a = (spread + others * mean_variance * mean_variance) / d;
    let fourth_moment = squared_lengths.iter().map(|length| length * length).sum::<f64>() / n;
    least_error(a, squares, fourth_moment, n * d)
}

/// `min(b, a) / a` with `b = (mean |x|⁴ − |S|²) / (n d)`; 0 where there is nothing to shrink.
fn least_error(a: f64, squares: f64, fourth_moment: f64, rows_times_columns: f64) -> f64 {
    let b = (fourth_moment - squares) / rows_times_columns;
    if a > 0.0 { b.min(a).max(0.0) / a } else { 0.0 }
}

/// Oracle approximating shrinkage: better than Ledoit-Wolf where rows are normal (Chen et al. 2010, doi
/// 10.1109/TSP.2010.2053029, in the form of scikit-learn).
///
/// `rows`: n rows of one width, not yet centred.
///
/// # Errors
/// [`ShrinkError`] below two rows, and where they differ in width.
pub fn oracle_approximating<R: AsRef<[f64]>>(rows: &[R]) -> Result<Shrunk, ShrinkError> {
    let sample = Sample::new(rows)?;
    let (n, size) = (rows.len() as f64, sample.covariance.ncols());
    let d = size as f64;
    let mean_square = sample.sum_of_squares() / (d * d);
    let target = sample.mean_variance * sample.mean_variance;
    let denominator = (n + 1.0) * (mean_square - target / d);
    let shrinkage = if size == 1 {
        0.0
    } else if denominator > 0.0 {
        ((mean_square + target) / denominator).min(1.0)
    } else {
        1.0
    };
    Ok(sample.shrunk(shrinkage))
}

/// What both estimates need of the rows.
struct Sample {
    covariance: Mat<f64>,
    mean_variance: f64,
    /// Mean over rows of `|x|⁴`.
    fourth_moment: f64,
}

impl Sample {
    fn new<R: AsRef<[f64]>>(rows: &[R]) -> Result<Self, ShrinkError> {
        let n = rows.len();
        if n < 2 {
            return Err(ShrinkError::TooFewRows { rows: n });
        }
        let mut means = vec![0.0; rows[0].as_ref().len()];
        let d = means.len();
        for (row, values) in rows.iter().enumerate() {
            let values = values.as_ref();
            if values.len() != d {
                return Err(ShrinkError::Width {
                    row,
                    expected: d,
                    found: values.len(),
                });
            }
            for (mean, value) in means.iter_mut().zip(values) {
                *mean += value / n as f64;
            }
        }
        let centred = Mat::from_fn(n, d, |i, j| rows[i].as_ref()[j] - means[j]);
        let mut covariance = inner_square(centred.as_ref());
        for j in 0..d {
            for i in 0..d {
                covariance[(i, j)] /= n as f64;
            }
        }
        let trace: f64 = (0..d).map(|j| covariance[(j, j)]).sum();
        let fourth_moment = (0..n)
            .map(|i| {
                let length: f64 = centred.row(i).iter().map(|x| x * x).sum();
                length * length
            })
            .sum::<f64>()
            / n as f64;
        Ok(Self {
            covariance,
            mean_variance: trace / d.max(1) as f64,
            fourth_moment,
        })
    }

    fn sum_of_squares(&self) -> f64 {
        let size = self.covariance.ncols();
        (0..size)
            .map(|j| self.covariance.col(j).iter().map(|x| x * x).sum::<f64>())
            .sum()
    }

    fn shrunk(self, shrinkage: f64) -> Shrunk {
        let size = self.covariance.ncols();
        let covariance = Mat::from_fn(size, size, |i, j| {
            let target = if i == j { self.mean_variance } else { 0.0 };
            (1.0 - shrinkage) * self.covariance[(i, j)] + shrinkage * target
        });
        Shrunk {
            covariance,
            shrinkage,
            mean_variance: self.mean_variance,
        }
    }
}
