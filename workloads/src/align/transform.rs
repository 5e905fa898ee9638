//! A fitted alignment: what was learnt from the plates of a fit, applied to those and to later plates alike.
//!
//! Plates enter, one at a time or many; their aligned rows leave. It fails on plates whose features are not those of
//! the fit, and where a step cannot be fitted on a plate.

use std::borrow::Cow;
use std::ops::Range;

use faer::Mat;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::AlignError;
use super::saved::{matrix_base64, vector_base64};
use super::step::{PlateRows, ScaleMethod};
use super::tvn::CoralSettings;
use crate::compare::FitOn;
use crate::compare::percentile::Percentiles;
use crate::compare::scale::Scaler;
use crate::compare::scaling::Scaling;
use crate::linalg::{product, project};
use crate::matrix::FeatureMatrix;
use crate::words::{Barcode, WellPosition};

/// One step with all that was fitted on the wells of all plates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum FittedStep {
    /// Fitted on each plate when it is applied.
    Scale {
        /// Centre and divisor.
        method: ScaleMethod,
        /// The plate's wells it is fitted on.
        on: FitOn,
    },
    /// `(x − centre) · map`: principal components, TVN or sphering.
    Project {
        /// What was fitted.
        projection: Projection,
        /// One value per feature.
        #[serde(with = "vector_base64")]
        centre: Vec<f64>,
        /// Features x components.
        #[serde(with = "matrix_base64")]
        map: Mat<f64>,
    },
    /// Whitening fitted on each plate when it is applied, then the colour of the plates of the fit, if any.
    Coral {
        /// How.
        settings: CoralSettings,
        /// Features x features.
        #[serde(with = "super::saved::optional_matrix_base64")]
        colouring: Option<Mat<f64>>,
    },
}

/// What a [`FittedStep::Project`] was fitted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// [`super::pca::Pca`].
    Pca,
    /// [`super::tvn::Tvn`].
    Tvn,
    /// [`super::sphere::Sphering`].
    Sphere,
}

/// A plate of the fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedPlate {
    /// The plate.
    pub plate: Barcode,
    /// Wells that were taken.
    pub wells: usize,
    /// The control wells among them.
    pub controls: Vec<WellPosition>,
}

/// A fitted alignment. [`FittedTransform::to_json`] saves it, with its hash.
///
/// No step draws random numbers, so there is no seed. Steps that are fitted on each plate keep nothing here: a plate
/// that comes later needs its own controls, and gets exactly what it would have got as a plate of the fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedTransform {
    pub(super) features: Vec<String>,
    pub(super) fitted_on: Vec<FittedPlate>,
    pub(super) steps: Vec<FittedStep>,
}

impl FittedTransform {
    /// Names of the features it takes, in their order.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// The plates it was fitted on, and their control wells.
    pub fn fitted_on(&self) -> &[FittedPlate] {
        &self.fitted_on
    }

    /// Values of an aligned row.
    pub fn width(&self) -> usize {
        let width = |step: &FittedStep| match step {
            FittedStep::Project { map, .. } => Some(map.ncols()),
            _ => None,
        };
        self.steps
            .iter()
            .rev()
            .find_map(width)
            .unwrap_or(self.features.len())
    }

    /// The steps.
    pub fn steps(&self) -> &[FittedStep] {
        &self.steps
    }

    /// Whether a plate needs control wells of its own to be aligned.
    pub fn needs_controls(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(
                step,
                FittedStep::Coral { .. }
                    | FittedStep::Scale {
                        on: FitOn::Reference,
                        ..
                    }
            )
        })
    }

    /// Refuses features other than those of the fit.
    ///
    /// # Errors
    /// [`AlignError::Feature`] at the first other name, [`AlignError::Width`] for another number of them.
    pub fn check_features(&self, names: &[String]) -> Result<(), AlignError> {
        for (column, (expected, found)) in self.features.iter().zip(names).enumerate() {
            if expected != found {
                return Err(AlignError::Feature {
                    column,
                    expected: expected.clone(),
                    found: found.clone(),
                });
            }
        }
        AlignError::check_width(self.features.len(), names.len())
    }

    /// Aligns a plate. The rows are the plate's own, of the features of the fit ([`FittedTransform::check_features`]).
    ///
    /// # Errors
    /// [`AlignError`] that names the plate where rows do not fit or a step cannot be fitted on its wells.
    pub fn apply(&self, plate: &PlateRows<'_>) -> Result<FeatureMatrix, AlignError> {
        self.apply_steps(plate, 0..self.steps.len())
    }

    /// Some of the steps only: `0..n` gives the space after `n` steps, and `n..` goes on from there.
    ///
    /// # Errors
    /// As [`FittedTransform::apply`].
    ///
    /// # Panics
    /// Where there are not that many steps, as a slice does.
    pub fn apply_steps(
        &self,
        plate: &PlateRows<'_>,
        steps: Range<usize>,
    ) -> Result<FeatureMatrix, AlignError> {
        let at = |step, source| AlignError::Plate {
            plate: plate.plate.clone(),
            step,
            source: Box::new(source),
        };
        plate.check(if steps.start == 0 { &self.features } else { &[] })?;
        if steps.start == 0 {
            AlignError::check_width(self.features.len(), plate.rows.width())
                .map_err(|source| at("features", source))?;
        }
        let mut rows = Cow::Borrowed(plate.rows);
        for step in &self.steps[steps] {
            let next = step
                .apply(&rows, plate.controls)
                .map_err(|source| at(step.name(), source))?;
            rows = Cow::Owned(next);
        }
        Ok(rows.into_owned())
    }

    /// Aligns many plates, in parallel; the result has their order.
    ///
    /// # Errors
    /// As [`FittedTransform::apply`].
    pub fn apply_all(&self, plates: &[PlateRows<'_>]) -> Result<Vec<FeatureMatrix>, AlignError> {
        plates.par_iter().map(|plate| self.apply(plate)).collect()
    }
}

impl FittedStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Scale { .. } => "scale",
            Self::Project { projection, .. } => match projection {
                Projection::Pca => "pca",
                Projection::Tvn => "tvn",
                Projection::Sphere => "sphere",
            },
            Self::Coral { .. } => "coral",
        }
    }

    fn apply(&self, rows: &FeatureMatrix, controls: &[usize]) -> Result<FeatureMatrix, AlignError> {
        match self {
            Self::Scale { method, on } => scale(rows, controls, *method, *on),
            Self::Project { centre, map, .. } => {
                AlignError::check_width(centre.len(), rows.width())?;
                Ok(project(rows, centre, map.as_ref()))
            }
            Self::Coral { settings, colouring } => {
                let mut map = settings.whitening(&rows.select(controls))?;
                if let Some(colouring) = colouring {
                    AlignError::check_width(colouring.nrows(), rows.width())?;
                    map = product(map.as_ref(), colouring.as_ref());
                }
                Ok(project(rows, &vec![0.0; rows.width()], map.as_ref()))
            }
        }
    }
}

/// Scales a plate by some or all of its own wells.
fn scale(
    rows: &FeatureMatrix,
    controls: &[usize],
    method: ScaleMethod,
    on: FitOn,
) -> Result<FeatureMatrix, AlignError> {
    let scaler = fit_scale(rows, controls, method, on)?;
    let mut out = FeatureMatrix::zeros(rows.len(), rows.width());
    for (i, row) in rows.rows().enumerate() {
        scaler.apply_to(row, out.row_mut(i));
    }
    Ok(out)
}

/// What [`scale`] scales by.
pub(super) fn fit_scale(
    rows: &FeatureMatrix,
    controls: &[usize],
    method: ScaleMethod,
    on: FitOn,
) -> Result<Scaling, AlignError> {
    let fit = |rows: &[&[f32]]| match method {
        ScaleMethod::Standardise => Scaler::standardise(rows).into(),
        ScaleMethod::RobustMad => Scaler::robust(rows).into(),
        ScaleMethod::Centre => Scaler::median(rows).into(),
        ScaleMethod::Percentile => Scaling::Percentile(Percentiles::fit(rows)),
    };
    let all: Vec<&[f32]> = rows.rows().collect();
    let mut scaling = match on {
        FitOn::All => fit(&all),
        FitOn::Reference => {
            if controls.len() < 2 {
                return Err(AlignError::FewControls {
                    found: controls.len(),
                    needed: 2,
                });
            }
            fit(&controls.iter().map(|&i| rows.row(i)).collect::<Vec<_>>())
        }
    };
    if scaling.flat_columns().len() == rows.width() {
        return Err(AlignError::NoVariation {
            rows: match on {
                FitOn::All => rows.len(),
                FitOn::Reference => controls.len(),
            },
        });
    }
    if let Scaling::Linear(scaler) = &mut scaling
        && !scaler.flat_columns.is_empty()
        && let Scaling::Linear(plate) = fit(&all)
    {
        for &column in &scaler.flat_columns {
            let flat = plate.flat_columns.binary_search(&column).is_ok();
            scaler.scale[column] = if flat { 0.0 } else { plate.scale[column] };
        }
    }
    Ok(scaling)
}
