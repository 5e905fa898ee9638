//! Sphering: the control wells get the identity as covariance (SCIENCE 5.2, pycytominer `Spherize`; Kessy, Lewin and
//! Strimmer, arXiv:1512.00809).
//!
//! The control wells' [`Moments`] enter; a centre and a map leave. It fails where a column does not vary, and where
//! columns depend on one another.

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::error::AlignError;
use super::moments::Moments;
use super::pca::LEAST_VARIANCE;
use crate::linalg::{Eigen, fix_signs, product, project, scale_columns, symmetric_eigen};
use crate::matrix::FeatureMatrix;

/// Which of the many sphering maps: they differ by a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SphereMethod {
    /// Principal components, each divided by its SD.
    Pca,
    /// Rotated back: as close to the centred features as can be.
    Zca,
    /// Principal components of the standardised features.
    PcaCor,
    /// Rotated back: as close to the standardised features as can be. pycytominer's default.
    #[default]
    ZcaCor,
    /// `V diag((λ + ε)^-½) Vᵀ` of the population covariance: ε is added to variances, as profile code of deep networks
    /// does. Defined for any rank.
    Eigen,
}

/// How to sphere.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SphereSettings {
    /// The map.
    pub method: SphereMethod,
    /// Added to singular values, or to variances by [`SphereMethod::Eigen`]. Greater values leave weak directions
    /// weaker.
    pub epsilon: f64,
}

impl Default for SphereSettings {
    /// pycytominer's: ZCA-cor with 1e-6.
    fn default() -> Self {
        Self {
            method: SphereMethod::default(),
            epsilon: 1e-6,
        }
    }
}

impl SphereSettings {
    pub(super) fn check(&self) -> Result<(), AlignError> {
        if self.epsilon >= 0.0 && self.epsilon.is_finite() {
            return Ok(());
        }
        Err(AlignError::Setting {
            setting: "epsilon",
            value: self.epsilon,
            expected: "a finite number of at least 0",
        })
    }
}

/// A fitted sphering: `(x − centre) · map`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sphering {
    /// Mean of the controls.
    pub centre: Vec<f64>,
    /// Features x features.
    pub map: Mat<f64>,
}

impl Sphering {
    /// Fits on the moments of the control wells. `names` are the columns', for errors.
    ///
    /// With n controls of d features, n ≤ d, only n - 1 directions are known; the others are divided by the last known
    /// singular value, as pycytominer does, and the controls' covariance is then not the identity.
    ///
    /// # Errors
    /// [`AlignError::FlatColumns`], [`AlignError::Rank`] where d or n - 1 directions are expected and fewer are there,
    /// [`AlignError::Setting`] where `epsilon` is negative, and where the decomposition does not converge.
    pub fn fit(controls: &Moments, names: &[String], settings: SphereSettings) -> Result<Self, AlignError> {
        let SphereSettings { method, epsilon } = settings;
        settings.check()?;
        let (n, d) = (controls.count(), controls.width());
        if n < 2 {
            return Err(AlignError::FewControls { found: n, needed: 2 });
        }
        let scale = match method {
            SphereMethod::PcaCor | SphereMethod::ZcaCor => standard_deviations(controls, names)?,
            _ => vec![1.0; d],
        };
        let eigen = symmetric_eigen(controls.scaled_scatter(&scale).as_ref())?;
        let mut map = if method == SphereMethod::Eigen {
            if epsilon == 0.0 {
                check_rank(&eigen, n, d, names)?;
            }
            eigen.map(|value| (value.max(0.0) / n as f64 + epsilon).sqrt().recip())
        } else {
            let rank = check_rank(&eigen, n, d, names)?;
            let singular: Vec<f64> = eigen.values.iter().map(|value| value.max(0.0).sqrt()).collect();
            // Directions without control wells take the last known spread.
            let spread = |j: usize| singular[j.min(rank - 1)] + epsilon;
            let factors: Vec<f64> = (0..d).map(|j| ((n - 1) as f64).sqrt() / spread(j)).collect();
            let Eigen { mut vectors, .. } = eigen;
            fix_signs(&mut vectors);
            let map = scale_columns(vectors.as_ref(), &factors);
            match method {
                SphereMethod::Zca | SphereMethod::ZcaCor => product(map.as_ref(), vectors.transpose()),
                _ => map,
            }
        };
        for j in 0..d {
            for (i, scale) in scale.iter().enumerate() {
                map[(i, j)] /= scale;
            }
        }
        Ok(Self {
            centre: controls.mean().to_vec(),
            map,
        })
    }

    /// The rows, sphered.
    ///
    /// # Errors
    /// [`AlignError::Width`] for rows of another width.
    pub fn apply(&self, rows: &FeatureMatrix) -> Result<FeatureMatrix, AlignError> {
        AlignError::check_width(self.centre.len(), rows.width())?;
        Ok(project(rows, &self.centre, self.map.as_ref()))
    }
}

/// Population SDs; a column without one is an error.
fn standard_deviations(controls: &Moments, names: &[String]) -> Result<Vec<f64>, AlignError> {
    let deviations = controls.deviations();
    let flat: Vec<String> = (0..deviations.len())
        .filter(|&j| deviations[j] == 0.0)
        .map(|j| name(names, j))
        .collect();
    if flat.is_empty() {
        Ok(deviations)
    } else {
        Err(AlignError::FlatColumns { columns: flat })
    }
}

/// The rank, which must be as great as `n` centred rows of `d` columns can have.
fn check_rank(eigen: &Eigen, n: usize, d: usize, names: &[String]) -> Result<usize, AlignError> {
    let largest = eigen.values.first().copied().unwrap_or(0.0);
    let full = d.min(n - 1);
    let rank = eigen
        .values
        .iter()
        .take(full)
        .take_while(|&&value| value > LEAST_VARIANCE * largest)
        .count();
    if rank == full && rank > 0 {
        return Ok(rank);
    }
    // With at least as many wells as columns, a direction without variance is a dependence between columns: the ones
    // it weighs most.
    let mut columns = Vec::new();
    for j in rank..full {
        let strongest = (0..d).max_by(|&a, &b| {
            let weight = |i: usize| eigen.vectors[(i, j)].abs();
            weight(a).total_cmp(&weight(b)).then(b.cmp(&a))
        });
        let strongest = strongest.map_or_else(String::new, |i| name(names, i));
        if !columns.contains(&strongest) {
            columns.push(strongest);
        }
    }
    Err(AlignError::Rank {
        controls: n,
        features: d,
        rank,
        columns,
    })
}

fn name(names: &[String], column: usize) -> String {
    names.get(column).cloned().unwrap_or_else(|| column.to_string())
}
