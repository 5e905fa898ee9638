//! Cell count out of the profile (SCIENCE 4): a dense well looks different because it is dense. Profiles and counts
//! enter; what a straight line on the logarithm of the count does not explain leaves. Meant for sensitivity analysis:
//! a compound that kills cells loses part of its effect here.
//!
//! It fails with too few controls, or controls that all have one count.

use crate::matrix::FeatureMatrix;

/// Controls a line needs at the least: two to draw it, and one to speak against it.
const LEAST_CONTROLS: usize = 3;

/// A line per feature: `intercept + slope · ln(count)`.
#[derive(Debug, Clone, PartialEq)]
pub struct CellCountFit {
    /// Value of each feature at one cell.
    pub intercept: Vec<f64>,
    /// Change of each feature per unit of `ln(count)`.
    pub slope: Vec<f64>,
    /// Controls it was fitted to.
    pub controls: usize,
}

/// Why no line could be fitted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum CellCountError {
    /// There is not one count per row.
    #[error("{counts} cell counts for {rows} rows: one is needed for each")]
    Counts {
        /// Rows.
        rows: usize,
        /// Counts.
        counts: usize,
    },
    /// Too few controls with cells and values.
    #[error("{found} control wells have cells and values, and a line on cell count needs {LEAST_CONTROLS}")]
    TooFewControls {
        /// Controls that can be used.
        found: usize,
    },
    /// The counts of the controls are all the same.
    #[error("all {controls} control wells have {count} cells: no line on cell count can be fitted")]
    OneCount {
        /// Controls that can be used.
        controls: usize,
        /// Their count.
        count: f64,
    },
}

impl CellCountFit {
    /// Ordinary least squares of every feature on `ln(count)` over the control rows. Controls without cells, without
    /// a count or with a value that is not finite are passed over.
    ///
    /// # Errors
    /// [`CellCountError`] with fewer than three usable controls, or one count among them.
    pub fn fit(rows: &FeatureMatrix, counts: &[f64], controls: &[usize]) -> Result<Self, CellCountError> {
        if counts.len() != rows.len() {
            return Err(CellCountError::Counts {
                rows: rows.len(),
                counts: counts.len(),
            });
        }
        let usable: Vec<(&[f32], f64)> = controls
            .iter()
            .filter(|&&i| i < rows.len() && usable(counts[i]))
            .map(|&i| (rows.row(i), counts[i]))
            .filter(|(row, _)| row.iter().all(|v| v.is_finite()))
            .collect();
        if usable.len() < LEAST_CONTROLS {
            return Err(CellCountError::TooFewControls { found: usable.len() });
        }
        let n = usable.len() as f64;
        let (_, count) = usable[0];
        if usable.iter().all(|&(_, other)| other == count) {
            return Err(CellCountError::OneCount {
                controls: usable.len(),
                count,
            });
        }
        let centre = usable.iter().map(|(_, count)| count.ln()).sum::<f64>() / n;
        let mut mean = vec![0.0; rows.width()];
        let mut slope = vec![0.0; rows.width()];
        let mut spread = 0.0;
        for &(row, count) in &usable {
            let x = count.ln() - centre;
            spread += x * x;
            for ((mean, slope), &y) in mean.iter_mut().zip(&mut slope).zip(row) {
                *mean += f64::from(y) / n;
                *slope += x * f64::from(y);
            }
        }
        slope.iter_mut().for_each(|slope| *slope /= spread);
        let intercept = mean
            .iter()
            .zip(&slope)
            .map(|(mean, slope)| mean - slope * centre)
            .collect();
        Ok(Self {
            intercept,
            slope,
            controls: usable.len(),
        })
    }

    /// Takes the line out of a row of a well with `count` cells. False, and the row is left as it is, where the well
    /// has no cells or no count: it has no residual and must be left out of what follows.
    #[must_use]
    pub fn residual(&self, row: &mut [f32], count: f64) -> bool {
        if !usable(count) {
            return false;
        }
        let x = count.ln();
        for (value, (intercept, slope)) in row.iter_mut().zip(self.intercept.iter().zip(&self.slope)) {
            *value = (f64::from(*value) - (intercept + slope * x)) as f32;
        }
        true
    }
}

fn usable(count: f64) -> bool {
    count.is_finite() && count > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_follows_the_count_vanishes_and_another_keeps_its_effect() {
        let counts = [100.0, 200.0, 400.0, 800.0, 50.0];
        let mut rows = FeatureMatrix::new(2);
        for (i, count) in counts.iter().enumerate() {
            let shift = if i == 4 { 3.0 } else { 0.0 };
            rows.push(&[(2.0 + 0.5 * f64::ln(*count)) as f32, 1.0 + shift])
                .unwrap();
        }
        let fit = CellCountFit::fit(&rows, &counts, &[0, 1, 2, 3]).unwrap();
        for (i, &count) in counts.iter().enumerate() {
            assert!(fit.residual(rows.row_mut(i), count));
            assert!(rows.row(i)[0].abs() < 1e-5);
        }
        assert!((rows.row(4)[1] - 3.0).abs() < 1e-5);
        assert!(
            !fit.residual(rows.row_mut(0), 0.0),
            "a well without cells has no residual"
        );
    }

    #[test]
    fn controls_that_cannot_carry_a_line_are_an_error() {
        let rows = FeatureMatrix::zeros(4, 2);
        let fit =
            |counts: &[f64], controls: &[usize]| CellCountFit::fit(&rows, counts, controls).unwrap_err();
        assert_eq!(
            fit(&[10.0, 0.0, f64::NAN, 5.0], &[0, 1, 2, 3]),
            CellCountError::TooFewControls { found: 2 }
        );
        assert_eq!(
            fit(&[10.0, 10.0, 10.0, 5.0], &[0, 1, 2]).to_string(),
            "all 3 control wells have 10 cells: no line on cell count can be fitted"
        );
        assert_eq!(fit(&[10.0], &[0]), CellCountError::Counts { rows: 4, counts: 1 });
    }
}
