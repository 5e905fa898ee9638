//! Per-plate scaling of feature columns (SCIENCE 5.1). Rows of raw features enter, a [`Scaler`] leaves.
//!
//! Nothing fails: a column without spread is named by [`Scaler::flat_columns`] and never blown up.

use super::window::{MAD_TO_SD, median_in_place};

/// A centre and a divisor per feature column.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaler {
    /// Mean or median of the fitted rows.
    pub centre: Vec<f64>,
    /// Divisor; 0 marks a dropped column, which [`Scaler::apply`] turns into 0.
    pub scale: Vec<f64>,
    /// Columns without spread in the fitted rows, ascending, 0-based.
    pub flat_columns: Vec<usize>,
}

/// A column's MAD below this share of the plate's median MAD is no spread (SCIENCE 5.1).
const FLAT_SHARE: f64 = 1e-6;

/// The least a column is divided by, as a share of its SD over all wells of the plate.
///
/// Rectified features of a network are near 0 in most wells of one state and not in another. Divided by their spread
/// among controls alone, a few such columns outweigh the rest: on simulated plates (20 controls, 3840 columns, a
/// third of them nearly empty) the leave-one-out Z' was -3.1 and -12.4 without this limit; see the test named
/// after it. A column whose spread among controls is ordinary is not changed.
const LEAST_SHARE: f64 = 0.5;

impl Scaler {
    /// Divides no column by less than half its population SD over `wells`, all wells of the plate. Dropped columns
    /// stay dropped.
    pub fn floored(mut self, wells: &[&[f32]]) -> Self {
        let plate = Self::standardise(wells);
        for (column, scale) in self.scale.iter_mut().enumerate() {
            let flat_on_plate = plate.flat_columns.binary_search(&column).is_ok();
            if *scale == 0.0 || flat_on_plate {
                continue;
            }
            let floor = LEAST_SHARE * plate.scale.get(column).copied().unwrap_or(0.0);
            // The divisor 1 of a column that is constant among the fitted wells says nothing of its unit.
            let constant = self.flat_columns.binary_search(&column).is_ok();
            *scale = if constant { floor } else { scale.max(floor) };
        }
        self
    }

    /// Mean and population SD of each column; NaN is left out, zero variance divides by 1 (`StandardScaler`).
    pub fn standardise(rows: &[&[f32]]) -> Self {
        let mut flat_columns = Vec::new();
        let (centre, scale) = columns(rows, |column, values| {
            let n = values.len() as f64;
            let first = values.first().copied().unwrap_or(0.0);
            // Compared by value, not by variance: rounding must not turn a constant into a tiny SD.
            if values.iter().all(|&v| v == first) {
                flat_columns.push(column);
                return (first, 1.0);
            }
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            (mean, variance.sqrt())
        });
        Self {
            centre,
            scale,
            flat_columns,
        }
    }

    /// Median and `1.4826 MAD` of each column; NaN is left out. Columns whose MAD is below 1e-6 of the median MAD
    /// are flat: their divisor stays what it is until [`Scaler::repair`] or [`Scaler::with_epsilon`].
    pub fn robust(rows: &[&[f32]]) -> Self {
        let (centre, scale): (Vec<f64>, Vec<f64>) = columns(rows, |_, values| {
            let median = median_in_place(values).unwrap_or(0.0);
            for v in values.iter_mut() {
                *v = (*v - median).abs();
            }
            (median, MAD_TO_SD * median_in_place(values).unwrap_or(0.0))
        });
        let floor = FLAT_SHARE * median_in_place(&mut scale.clone()).unwrap_or(0.0);
        let flat_columns = (0..scale.len()).filter(|&c| scale[c] <= floor).collect();
        Self {
            centre,
            scale,
            flat_columns,
        }
    }

    /// pycytominer's `mad_robustize`: `epsilon` (1e-18 there) is added to every divisor. Only for parity: a column
    /// without MAD becomes as large as 1e18.
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        for scale in &mut self.scale {
            *scale += epsilon;
        }
        self
    }

    /// Gives each flat column the median divisor of the other plates where it is not flat, or drops it.
    pub fn repair(&mut self, others: &[&Scaler]) {
        for &column in &self.flat_columns {
            let mut usable: Vec<f64> = others
                .iter()
                .filter(|other| other.flat_columns.binary_search(&column).is_err())
                .filter_map(|other| other.scale.get(column).copied())
                .collect();
            self.scale[column] = median_in_place(&mut usable).unwrap_or(0.0);
        }
    }

    /// `(x - centre) / scale`, 0 in dropped columns.
    pub fn apply(&self, row: &[f32]) -> Vec<f64> {
        row.iter()
            .zip(self.centre.iter().zip(&self.scale))
            .map(|(&x, (centre, &scale))| {
                if scale == 0.0 {
                    0.0
                } else {
                    (f64::from(x) - centre) / scale
                }
            })
            .collect()
    }
}

/// Runs `fit` over the values of every column that are not NaN.
fn columns(rows: &[&[f32]], mut fit: impl FnMut(usize, &mut [f64]) -> (f64, f64)) -> (Vec<f64>, Vec<f64>) {
    let width = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let mut values = Vec::with_capacity(rows.len());
    (0..width)
        .map(|column| {
            values.clear();
            values.extend(
                rows.iter()
                    .map(|row| f64::from(row[column]))
                    .filter(|v| !v.is_nan()),
            );
            fit(column, &mut values)
        })
        .unzip()
}
