//! Control wells as if each had been left out of what was fitted on controls.
//!
//! A whitening fitted on n wells makes these very wells look closer to their mean than any other well of the same kind:
//! by half the variance where n is twice the number of components. Compared with such controls every treated well is
//! far away. [`FittedTransform::apply_held_out`] gives control wells the place they would have in a space fitted on
//! the others; all other wells are where [`FittedTransform::apply`] has them.
//!
//! Per-plate scaling is fitted again without the well. For a whitening `A^-½`, `A = w Σ (x−m)(x−m)ᵀ + c I`, the row is
//! lengthened: by the Sherman-Morrison formula its squared length without the well is
//! `(n/(n−1))² z² / (1 − w n/(n−1) z²)` for a squared length of `z²` with it. Its direction is kept; what leaving out
//! one well turns is small of second order. Fails as applying does.

use super::error::AlignError;
use super::step::{PlateRows, ScaleMethod};
use super::transform::{FittedStep, FittedTransform, Projection, fit_scale};
use crate::compare::FitOn;
use crate::linalg::{column_means, project};
use crate::matrix::FeatureMatrix;

/// The most a row is lengthened: a control that alone spans a direction is far away, not infinitely far.
const MOST: f64 = 1e3;
/// Fewest controls of a plate of which one can be left out of a scaling.
const FEWEST: usize = 3;

impl FittedTransform {
    /// Aligns a plate as [`FittedTransform::apply`] does, with every control well held out.
    ///
    /// # Errors
    /// As [`FittedTransform::apply`].
    pub fn apply_held_out(&self, plate: &PlateRows<'_>) -> Result<FeatureMatrix, AlignError> {
        let mut rows = self.apply_steps(plate, 0..0)?;
        let mut held = rows.select(plate.controls);
        let fitted = self.fitted_on.iter().any(|of| of.plate == *plate.plate);
        let wells = self.fitted_on.iter().map(|of| of.controls.len()).sum();
        for (at, step) in self.steps.iter().enumerate() {
            let here = PlateRows {
                rows: &rows,
                ..*plate
            };
            let next = self.apply_steps(&here, at..at + 1)?;
            held = match step {
                FittedStep::Scale { method, on } => scaled(&rows, &held, plate.controls, *method, *on)?,
                FittedStep::Project {
                    projection,
                    centre,
                    map,
                } => {
                    let mut held = project(&held, centre, map.as_ref());
                    let weight = match projection {
                        Projection::Pca => None,
                        Projection::Tvn => Some(1.0 / wells as f64),
                        Projection::Sphere => Some(1.0 / (wells as f64 - 1.0)),
                    };
                    if let (Some(weight), true) = (weight, fitted) {
                        // The rows are centred already.
                        lengthen(&mut held, &next.select(plate.controls), wells, weight);
                    }
                    held
                }
                FittedStep::Coral { settings, colouring } => {
                    let controls = rows.select(plate.controls);
                    let (map, weight) = settings.weighted_whitening(&controls)?;
                    let none = vec![0.0; held.width()];
                    let mut held = project(&held, &none, map.as_ref());
                    let mean = column_means(&controls);
                    lengthen(
                        &mut held,
                        &project(&controls, &mean, map.as_ref()),
                        controls.len(),
                        weight,
                    );
                    match colouring {
                        Some(colouring) => project(&held, &none, colouring.as_ref()),
                        None => held,
                    }
                }
            };
            rows = next;
        }
        for (&control, held) in plate.controls.iter().zip(held.rows()) {
            rows.row_mut(control).copy_from_slice(held);
        }
        Ok(rows)
    }
}

/// Lengthens each row as `centred`, the same wells when they are part of the fit, say.
fn lengthen(held: &mut FeatureMatrix, centred: &FeatureMatrix, wells: usize, weight: f64) {
    if wells < 2 {
        return;
    }
    let n = wells as f64;
    for (i, row) in centred.rows().enumerate() {
        let square: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let left = 1.0 - weight * n / (n - 1.0) * square;
        let factor = (n / (n - 1.0) / left.max(MOST.powi(-2))).sqrt().min(MOST);
        for value in held.row_mut(i) {
            *value = (f64::from(*value) * factor) as f32;
        }
    }
}

/// The held-out controls, scaled by the plate's other controls, or by all of its wells.
fn scaled(
    rows: &FeatureMatrix,
    held: &FeatureMatrix,
    controls: &[usize],
    method: ScaleMethod,
    on: FitOn,
) -> Result<FeatureMatrix, AlignError> {
    let mut out = FeatureMatrix::zeros(held.len(), held.width());
    let all = fit_scale(rows, controls, method, on)?;
    for (i, row) in held.rows().enumerate() {
        if on == FitOn::All || controls.len() < FEWEST {
            all.apply_to(row, out.row_mut(i));
        } else {
            let others: Vec<usize> = controls
                .iter()
                .enumerate()
                .filter(|&(j, _)| j != i)
                .map(|(_, &control)| control)
                .collect();
            fit_scale(rows, &others, method, on)?.apply_to(row, out.row_mut(i));
        }
    }
    Ok(out)
}
