//! Exact principal components (SCIENCE 5.3): the same rows give the same components, with the same signs.
//!
//! Rows, or their [`Moments`], enter. It fails on rows that do not vary, and on values that are not finite.

use faer::Mat;

use super::error::AlignError;
use super::moments::Moments;
use crate::linalg::{
    Eigen, centred_rows, column_means, fix_signs, gram, product, project, scale_columns, symmetric_eigen,
};
use crate::matrix::FeatureMatrix;

/// Components whose variance is below this share of the first one's are rounding: singular values below 1e-6 of the
/// largest (SCIENCE 5.3, guard). Without it 288 controls in 384 dimensions gave values up to 3e15.
pub const LEAST_VARIANCE: f64 = 1e-12;

/// Principal components of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// What is subtracted from a row.
    pub mean: Vec<f64>,
    /// Features x components; columns are orthonormal, their entry of largest magnitude is positive.
    pub loadings: Mat<f64>,
    /// Variance along each component (n - 1 denominator), descending.
    pub explained_variance: Vec<f64>,
    /// Variance of all features together (n - 1 denominator).
    pub total_variance: f64,
}

impl Pca {
    /// The first `components` components, or fewer where the rows do not span as many ([`LEAST_VARIANCE`]).
    ///
    /// The features' scatter is decomposed: rows may be any number.
    ///
    /// # Errors
    /// [`AlignError`] without variation, or where the decomposition does not converge.
    pub fn fit(moments: &Moments, components: usize) -> Result<Self, AlignError> {
        let eigen = symmetric_eigen(moments.scatter().as_ref())?;
        let kept = kept(&eigen.values, moments.count(), components)?;
        let loadings = eigen.vectors.subcols(0, kept).to_owned();
        Ok(Self::new(
            moments.mean().to_vec(),
            loadings,
            &eigen.values[..kept],
            moments.count(),
            (0..moments.width()).map(|j| moments.scatter()[(j, j)]).sum(),
        ))
    }

    /// As [`Pca::fit`]; where there are fewer rows than features, their inner products are decomposed instead, which
    /// is the smaller matrix.
    ///
    /// # Errors
    /// As [`Pca::fit`].
    pub fn fit_rows(rows: &FeatureMatrix, components: usize) -> Result<Self, AlignError> {
        if rows.len() >= rows.width() {
            return Self::fit(&Moments::of(rows), components);
        }
        let mean = column_means(rows);
        let gram = gram(rows, &mean);
        let Eigen { values, vectors } = symmetric_eigen(gram.as_ref())?;
        let kept = kept(&values, rows.len(), components)?;
        let lengths: Vec<f64> = values[..kept].iter().map(|value| 1.0 / value.sqrt()).collect();
        let centred = centred_rows(rows, &mean);
        let scores = scale_columns(vectors.subcols(0, kept), &lengths);
        let loadings = product(centred.transpose(), scores.as_ref());
        let total = (0..rows.len()).map(|i| gram[(i, i)]).sum();
        Ok(Self::new(mean, loadings, &values[..kept], rows.len(), total))
    }

    fn new(mean: Vec<f64>, mut loadings: Mat<f64>, values: &[f64], rows: usize, total: f64) -> Self {
        fix_signs(&mut loadings);
        let freedom = rows.saturating_sub(1).max(1) as f64;
        Self {
            mean,
            loadings,
            explained_variance: values.iter().map(|value| value / freedom).collect(),
            total_variance: total / freedom,
        }
    }

    /// The rows' scores: rows x components.
    ///
    /// # Errors
    /// [`AlignError::Width`] for rows of another width.
    pub fn apply(&self, rows: &FeatureMatrix) -> Result<FeatureMatrix, AlignError> {
        AlignError::check_width(self.mean.len(), rows.width())?;
        Ok(project(rows, &self.mean, self.loadings.as_ref()))
    }
}

/// How many of the descending eigenvalues of `rows` centred rows are variation, at most `components`.
pub(super) fn kept(values: &[f64], rows: usize, components: usize) -> Result<usize, AlignError> {
    let largest = values.first().copied().unwrap_or(0.0);
    if largest <= 0.0 || rows < 2 {
        return Err(AlignError::NoVariation { rows });
    }
    let above = values
        .iter()
        .take_while(|&&value| value > LEAST_VARIANCE * largest)
        .count();
    Ok(above.min(rows - 1).min(components))
}
