//! How the columns of a plate are made comparable, whichever way was asked for: by a centre and a divisor, or by ranks.
//! Rows of raw features enter, scaled rows leave. Nothing fails.

use super::percentile::Percentiles;
use super::scale::Scaler;

/// What a plate's columns are scaled by.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// `(x - centre) / divisor`.
    Linear(Scaler),
    /// Ranks among reference values.
    Percentile(Percentiles),
}

impl Scaling {
    /// Columns without spread in the fitted rows, ascending, 0-based.
    pub fn flat_columns(&self) -> &[usize] {
        match self {
            Self::Linear(scaler) => &scaler.flat_columns,
            Self::Percentile(percentiles) => &percentiles.flat_columns,
        }
    }

    /// Columns that are 0 in every scaled row.
    pub(super) fn dropped(&self) -> usize {
        match self {
            Self::Linear(scaler) => scaler.scale.iter().filter(|&&scale| scale == 0.0).count(),
            Self::Percentile(_) => 0,
        }
    }

    /// A scaled row.
    pub fn apply(&self, row: &[f32]) -> Vec<f64> {
        match self {
            Self::Linear(scaler) => scaler.apply(row),
            Self::Percentile(percentiles) => percentiles.shares(row).collect(),
        }
    }

    /// The same, rounded to `f32`, into `out`: no memory is asked for. Columns beyond the shorter of the two stay.
    pub fn apply_to(&self, row: &[f32], out: &mut [f32]) {
        match self {
            Self::Linear(scaler) => scaler.apply_to(row, out),
            Self::Percentile(percentiles) => {
                for (out, share) in out.iter_mut().zip(percentiles.shares(row)) {
                    *out = share as f32;
                }
            }
        }
    }
}

impl From<Scaler> for Scaling {
    fn from(scaler: Scaler) -> Self {
        Self::Linear(scaler)
    }
}
