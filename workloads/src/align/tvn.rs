//! Typical variation normalisation, and CORAL on each plate after it (SCIENCE 5.3; Ando, McLean and Berndl 2017, doi
//! 10.1101/161422; EFAAR_benchmarking 1.0 `tvn_on_controls`; Sun, Feng and Saenko, arXiv:1511.05547).
//!
//! The control wells of all plates enter, then the ones of each plate; maps leave. It fails on controls that do not
//! vary, and on a plate with one control.

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::error::AlignError;
use super::moments::Moments;
use super::pca;
use super::shrink::ledoit_wolf;
use crate::linalg::{
    Eigen, centred_rows, column_means, fix_signs, gram, inner_square, product, project, scale_columns,
    symmetric_eigen,
};
use crate::matrix::FeatureMatrix;

/// Standardise by the controls, rotate to their principal components, standardise again: one map, after which the
/// controls of the screen are white.
#[derive(Debug, Clone, PartialEq)]
pub struct Tvn {
    /// Mean of the controls.
    pub centre: Vec<f64>,
    /// Features x components, by descending variance of the controls; the loading of largest magnitude is positive.
    pub map: Mat<f64>,
    /// Singular values of the standardised controls, one per component.
    pub singular_values: Vec<f64>,
}

impl Tvn {
    /// Fits on the moments of all control wells.
    ///
    /// Only components that the controls span are kept ([`pca::LEAST_VARIANCE`]; at most controls less one): along
    /// others a treated well would be divided by rounding. A feature that does not vary among the controls says
    /// nothing and is left out.
    ///
    /// # Errors
    /// [`AlignError::FewControls`] below two controls, [`AlignError::NoVariation`] where they are all equal, and where
    /// the decomposition does not converge.
    pub fn fit(controls: &Moments) -> Result<Self, AlignError> {
        let n = controls.count();
        if n < 2 {
            return Err(AlignError::FewControls { found: n, needed: 2 });
        }
        let deviations = controls.deviations();
        // A feature without variation divides by nothing: its rows and columns of the scatter become 0.
        let scale: Vec<f64> = deviations
            .iter()
            .map(|&deviation| {
                if deviation == 0.0 {
                    f64::INFINITY
                } else {
                    deviation
                }
            })
            .collect();
        let eigen = symmetric_eigen(controls.scaled_scatter(&scale).as_ref())?;
        let kept = pca::kept(&eigen.values, n, usize::MAX)?;
        let mut loadings = eigen.vectors.subcols(0, kept).to_owned();
        fix_signs(&mut loadings);
        let factors: Vec<f64> = eigen.values[..kept]
            .iter()
            .map(|value| (n as f64 / value).sqrt())
            .collect();
        let mut map = scale_columns(loadings.as_ref(), &factors);
        for j in 0..kept {
            for (i, scale) in scale.iter().enumerate() {
                map[(i, j)] /= scale;
            }
        }
        Ok(Self {
            centre: controls.mean().to_vec(),
            map,
            singular_values: eigen.values[..kept].iter().map(|value| value.sqrt()).collect(),
        })
    }

    /// The rows, normalised: rows x components.
    ///
    /// # Errors
    /// [`AlignError::Width`] for rows of another width.
    pub fn apply(&self, rows: &FeatureMatrix) -> Result<FeatureMatrix, AlignError> {
        AlignError::check_width(self.centre.len(), rows.width())?;
        Ok(project(rows, &self.centre, self.map.as_ref()))
    }
}

/// How a plate's covariance is estimated from its controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoralCovariance {
    /// Ledoit-Wolf where controls are fewer than half the features, the sample covariance elsewhere.
    #[default]
    ShrunkWhenFew,
    /// Always the sample covariance (n - 1), as EFAAR_benchmarking.
    Sample,
}

/// CORAL: each plate's control covariance becomes that of every other plate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoralSettings {
    /// Added to every variance: carries the directions that a plate's controls do not span.
    pub ridge: f64,
    /// The estimate.
    pub covariance: CoralCovariance,
    /// Multiply by the square root of the covariance of all plates' controls afterwards (full CORAL). Without, the
    /// controls become white.
    pub recolour: bool,
}

impl Default for CoralSettings {
    fn default() -> Self {
        Self {
            ridge: 0.5,
            covariance: CoralCovariance::default(),
            recolour: false,
        }
    }
}

impl CoralSettings {
    /// As EFAAR_benchmarking does it.
    pub fn efaar() -> Self {
        Self {
            covariance: CoralCovariance::Sample,
            ..Self::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), AlignError> {
        if self.ridge > 0.0 && self.ridge.is_finite() {
            return Ok(());
        }
        Err(AlignError::Setting {
            setting: "ridge",
            value: self.ridge,
            expected: "a finite number above 0",
        })
    }

    /// `Σ^{-½}` of a plate's controls, features x features: rows are multiplied by it from the right.
    ///
    /// The controls' mean is not removed: a plate whose controls are not at the origin stays off it, unless it was
    /// centred before.
    ///
    /// # Errors
    /// [`AlignError::FewControls`] below two controls, and where the decomposition does not converge.
    pub fn whitening(&self, controls: &FeatureMatrix) -> Result<Mat<f64>, AlignError> {
        Ok(self.weighted_whitening(controls)?.0)
    }

    /// As [`CoralSettings::whitening`], and the weight of one well in the covariance.
    pub(super) fn weighted_whitening(&self, controls: &FeatureMatrix) -> Result<(Mat<f64>, f64), AlignError> {
        self.check()?;
        let (n, d) = (controls.len(), controls.width());
        if n < 2 {
            return Err(AlignError::FewControls { found: n, needed: 2 });
        }
        let mean = column_means(controls);
        // Σ = weight · CᵀC + floor · I, whichever the estimate.
        let (weight, floor) = if self.covariance == CoralCovariance::ShrunkWhenFew && 2 * n < d {
            let rows: Vec<Vec<f64>> = controls
                .rows()
                .map(|row| row.iter().map(|&value| f64::from(value)).collect())
                .collect();
            let shrunk = ledoit_wolf(&rows).map_err(|_| AlignError::FewControls { found: n, needed: 2 })?;
            (
                (1.0 - shrunk.shrinkage) / n as f64,
                shrunk.shrinkage * shrunk.mean_variance + self.ridge,
            )
        } else {
            (1.0 / (n - 1) as f64, self.ridge)
        };
        let centred = centred_rows(controls, &mean);
        if n >= d {
            let eigen = symmetric_eigen(inner_square(centred.as_ref()).as_ref())?;
            let root = eigen.map(|value| (weight * value.max(0.0) + floor).sqrt().recip());
            return Ok((root, weight));
        }
        // CᵀC and CCᵀ share their eigenvalues, and CCᵀ is the smaller: Σ^{-½} is floor^{-½} off the controls' span.
        let Eigen { values, vectors } = symmetric_eigen(gram(controls, &mean).as_ref())?;
        let largest = values.first().copied().unwrap_or(0.0);
        let kept = values
            .iter()
            .take_while(|&&value| value > pca::LEAST_VARIANCE * largest)
            .count();
        let rest = floor.sqrt().recip();
        let factors: Vec<f64> = values[..kept]
            .iter()
            .map(|value| ((weight * value + floor).sqrt().recip() - rest) / value)
            .collect();
        let directions = product(centred.transpose(), vectors.subcols(0, kept));
        let scaled = scale_columns(directions.as_ref(), &factors);
        let mut root = product(scaled.as_ref(), directions.transpose());
        for i in 0..d {
            root[(i, i)] += rest;
        }
        Ok((root, weight))
    }

    /// `Σ^{½}` of the controls of all plates, for [`CoralSettings::recolour`].
    ///
    /// # Errors
    /// As [`CoralSettings::whitening`].
    pub fn colouring(&self, controls: &Moments) -> Result<Mat<f64>, AlignError> {
        self.check()?;
        let n = controls.count();
        if n < 2 {
            return Err(AlignError::FewControls { found: n, needed: 2 });
        }
        let eigen = symmetric_eigen(controls.scatter().as_ref())?;
        Ok(eigen.map(|value| (value.max(0.0) / (n - 1) as f64 + self.ridge).sqrt()))
    }
}
