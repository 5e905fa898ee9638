//! Multidimensional perturbation value (Hutz et al. 2013, 10.1177/1087057112469257; cytominer-eval 0.1): is the mean of
//! the replicates farther from the controls, in the controls' own spread, than the mean of wells drawn at random?
//!
//! Two sets of rows enter, a squared Mahalanobis distance and a permutation p leave. It fails with too few rows, and
//! with values that are not finite.
//!
//! Replicates and controls are reduced together to the principal components that hold 90 % of their variance. The
//! original multiplies these by their share of the variance; that cancels in a Mahalanobis distance and is left out.

use faer::Mat;
use rayon::prelude::*;

use super::tail::p_value;
use crate::linalg::{EigenError, symmetric_eigen};
use crate::matrix::FeatureMatrix;
use crate::random::Random;

/// How the value is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MpSettings {
    /// Share of the variance the components hold, in (0, 1).
    pub variance: f64,
    /// Random divisions of the rows.
    pub permutations: u32,
    /// Seed of the divisions.
    pub seed: u64,
}

impl Default for MpSettings {
    /// 90 % of the variance, 999 divisions (cytominer-eval: 100).
    fn default() -> Self {
        Self {
            variance: 0.9,
            permutations: 999,
            seed: 0,
        }
    }
}

/// A distance and how often chance reaches it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MpValue {
    /// Squared Mahalanobis distance of the replicates' mean from the controls' mean, by the controls' population
    /// covariance (pseudo-inverse).
    pub mahalanobis: f64,
    /// `(1 + #{divisions ≥ observed}) / (1 + divisions)`.
    pub p_value: f64,
    /// As cytominer-eval counts it, without the observed division: can be 0.
    pub share_reached: f64,
    /// Components kept.
    pub components: usize,
}

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum MpError {
    /// Too few rows.
    #[error("an mp-value needs a replicate and 2 controls, and there are {replicates} and {controls}")]
    TooFew {
        /// Replicates.
        replicates: usize,
        /// Controls.
        controls: usize,
    },
    /// The sets have different features.
    #[error("replicates have {replicates} feature columns and controls {controls}")]
    Width {
        /// Columns of the replicates.
        replicates: usize,
        /// Columns of the controls.
        controls: usize,
    },
    /// All rows are the same.
    #[error("all {rows} rows are the same: they have no principal components")]
    Constant {
        /// Rows.
        rows: usize,
    },
    /// Values are not finite.
    #[error(transparent)]
    Eigen(#[from] EigenError),
}

/// The mp-value of replicates against controls.
///
/// # Errors
/// [`MpError`] without a replicate, with fewer than two controls, or with values that are not finite.
pub fn mp_value(
    replicates: &FeatureMatrix,
    controls: &FeatureMatrix,
    settings: MpSettings,
) -> Result<MpValue, MpError> {
    // Divisions that differ by less are ties: sums of the same products in another order.
    const TIE: f64 = 1e-9;
    if replicates.is_empty() || controls.len() < 2 {
        return Err(MpError::TooFew {
            replicates: replicates.len(),
            controls: controls.len(),
        });
    }
    if replicates.width() != controls.width() {
        return Err(MpError::Width {
            replicates: replicates.width(),
            controls: controls.width(),
        });
    }
    let rows: Vec<&[f32]> = replicates.rows().chain(controls.rows()).collect();
    let scores = scores(&rows, settings.variance)?;
    let mut taken = vec![false; rows.len()];
    taken[..replicates.len()].fill(true);
    let observed = scores.mahalanobis(&taken)?;
    let least = observed - TIE * observed.abs();
    let reached = (0..settings.permutations)
        .into_par_iter()
        .map(|i| {
            let mut taken = taken.clone();
            Random::keyed(&[settings.seed, u64::from(i)]).shuffle(&mut taken);
            Ok(usize::from(scores.mahalanobis(&taken)? >= least))
        })
        .try_reduce(|| 0, |a, b| Ok::<usize, EigenError>(a + b))?;
    Ok(MpValue {
        mahalanobis: observed,
        p_value: p_value(reached, settings.permutations as usize),
        share_reached: reached as f64 / f64::from(settings.permutations.max(1)),
        components: scores.components,
    })
}

/// Rows in principal components, row after row.
struct Scores {
    values: Vec<f64>,
    components: usize,
}

/// From the rows' inner products: there are far fewer rows than features.
fn scores(rows: &[&[f32]], variance: f64) -> Result<Scores, MpError> {
    let (n, d) = (rows.len(), rows[0].len());
    let mut means = vec![0.0; d];
    for row in rows {
        for (mean, &value) in means.iter_mut().zip(*row) {
            *mean += f64::from(value) / n as f64;
        }
    }
    let centred: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .zip(&means)
                .map(|(&v, mean)| f64::from(v) - mean)
                .collect()
        })
        .collect();
    let gram = Mat::from_fn(n, n, |i, j| {
        centred[i]
            .iter()
            .zip(&centred[j])
            .map(|(a, b)| a * b)
            .sum::<f64>()
    });
    let eigen = symmetric_eigen(gram.as_ref())?;
    let total: f64 = eigen.values.iter().map(|v| v.max(0.0)).sum();
    if total <= 0.0 {
        return Err(MpError::Constant { rows: n });
    }
    // The first number of components whose share is above `variance`, as scikit-learn counts.
    let mut sum = 0.0;
    let components = 1 + eigen
        .values
        .iter()
        .take_while(|v| {
            sum += v.max(0.0);
            sum / total <= variance
        })
        .count();
    let components = components.min(n - 1).min(d);
    let values = (0..n)
        .flat_map(|i| (0..components).map(move |k| (i, k)))
        .map(|(i, k)| eigen.vectors[(i, k)] * eigen.values[k].max(0.0).sqrt())
        .collect();
    Ok(Scores { values, components })
}

impl Scores {
    /// Of the mean of the rows taken from the mean of the others, by the others' covariance.
    fn mahalanobis(&self, taken: &[bool]) -> Result<f64, EigenError> {
        let k = self.components;
        let side = |side: bool| {
            let rows = self.values.chunks_exact(k).zip(taken);
            rows.filter(move |(_, taken)| **taken == side).map(|(row, _)| row)
        };
        let mean = |which: bool| {
            let mut mean = vec![0.0; k];
            let n = side(which).count() as f64;
            for row in side(which) {
                mean.iter_mut().zip(row).for_each(|(mean, v)| *mean += v / n);
            }
            mean
        };
        let (replicates, controls) = (mean(true), mean(false));
        let mut covariance = Mat::<f64>::zeros(k, k);
        let n = side(false).count() as f64;
        for row in side(false) {
            let off: Vec<f64> = row.iter().zip(&controls).map(|(v, mean)| v - mean).collect();
            for j in 0..k {
                for i in j..k {
                    covariance[(i, j)] += off[i] * off[j] / n;
                }
            }
        }
        let eigen = symmetric_eigen(covariance.as_ref())?;
        // scipy's `pinvh`: what is below rounding of the largest eigenvalue is not inverted.
        let least = eigen.values[0].abs() * k as f64 * f64::EPSILON;
        let mut distance = 0.0;
        for (c, &value) in eigen
            .values
            .iter()
            .enumerate()
            .filter(|(_, value)| **value > least)
        {
            let along: f64 = (0..k)
                .map(|i| eigen.vectors[(i, c)] * (replicates[i] - controls[i]))
                .sum();
            distance += along * along / value;
        }
        Ok(distance)
    }
}
