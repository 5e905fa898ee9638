//! What an alignment is made of: the steps, and the wells of a plate that they take.

use serde::{Deserialize, Serialize};

use super::error::AlignError;
use super::sphere::SphereSettings;
use super::tvn::CoralSettings;
use crate::compare::FitOn;
use crate::matrix::FeatureMatrix;
use crate::words::{Barcode, WellPosition};

/// The wells of one plate.
#[derive(Debug, Clone, Copy)]
pub struct PlateRows<'a> {
    /// The plate.
    pub plate: &'a Barcode,
    /// The wells, one per row.
    pub wells: &'a [WellPosition],
    /// Their features.
    pub rows: &'a FeatureMatrix,
    /// Which rows are control wells (negative controls of the disease: healthy, untreated).
    pub controls: &'a [usize],
}

impl PlateRows<'_> {
    pub(super) fn check(&self, names: &[String]) -> Result<(), AlignError> {
        let rows = self.rows.len();
        let control = self.controls.iter().copied().find(|&control| control >= rows);
        if self.wells.len() != rows || control.is_some() {
            return Err(AlignError::Rows {
                plate: self.plate.clone(),
                wells: self.wells.len(),
                rows,
                control,
            });
        }
        let found = self.rows.as_slice().iter().position(|value| !value.is_finite());
        if let Some(at) = found {
            let (row, column) = (at / self.rows.width(), at % self.rows.width());
            return Err(AlignError::NotFinite {
                plate: self.plate.clone(),
                well: self.wells[row],
                column: names.get(column).cloned().unwrap_or_else(|| column.to_string()),
                value: self.rows.as_slice()[at],
            });
        }
        Ok(())
    }
}

/// How a column is centred and scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleMethod {
    /// `(x − mean) / SD`, population SD.
    #[default]
    Standardise,
    /// `(x − median) / (1.4826 MAD)`.
    RobustMad,
    /// `x − median`: the plate's centre, whatever a few of its wells are.
    Centre,
    /// The share of the values that lie below.
    Percentile,
}

/// One step. Where a step says *per plate*, it is fitted on each plate's own wells, at every time: nothing of it is
/// kept, and a plate that comes later is treated as the plates of the fit. Where it says *all plates*, it is fitted
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Per plate. A column without spread among the wells of the fit is divided by its spread on the whole plate, and
    /// is 0 where it has none there either.
    Scale {
        /// Centre and divisor.
        method: ScaleMethod,
        /// On the plate's control wells, or on all of them.
        on: FitOn,
    },
    /// Principal components of all wells of all plates.
    Pca {
        /// At most so many.
        components: usize,
    },
    /// Typical variation normalisation, on the controls of all plates: see [`super::tvn::Tvn`].
    Tvn,
    /// Per plate, on its controls; recolouring is on the controls of all plates: see [`CoralSettings`].
    Coral(CoralSettings),
    /// Sphering, on the controls of all plates: see [`super::sphere::Sphering`].
    Sphere(SphereSettings),
}

impl Step {
    /// Components of EFAAR_benchmarking's embedding.
    pub const EFAAR_COMPONENTS: usize = 128;

    /// EFAAR_benchmarking 1.0 as it is: every plate standardised by all its wells, 128 components, TVN, CORAL.
    pub fn efaar() -> Vec<Self> {
        vec![
            Self::standardise(FitOn::All),
            Self::Pca {
                components: Self::EFAAR_COMPONENTS,
            },
            Self::Tvn,
            Self::Coral(CoralSettings::efaar()),
        ]
    }

    /// The recommended alignment: as [`Step::efaar`], but each plate's components are first standardised by its own
    /// controls, and the covariance of few controls is shrunk.
    ///
    /// After the first [`Step::CENTRED`] steps wells are in the space in which rescue is scored, after all of them in
    /// the one for off-axis effect, activity and similarity (SCIENCE 5.7).
    pub fn recommended() -> Vec<Self> {
        vec![
            Self::standardise(FitOn::All),
            Self::Pca {
                components: Self::EFAAR_COMPONENTS,
            },
            Self::standardise(FitOn::Reference),
            Self::Tvn,
            Self::Coral(CoralSettings::default()),
        ]
    }

    /// Steps of [`Step::recommended`] after which plates are centred and scaled, and not yet whitened.
    pub const CENTRED: usize = 3;

    fn standardise(on: FitOn) -> Self {
        Self::Scale {
            method: ScaleMethod::Standardise,
            on,
        }
    }

    /// The step's name in files and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scale { .. } => "scale",
            Self::Pca { .. } => "pca",
            Self::Tvn => "tvn",
            Self::Coral(_) => "coral",
            Self::Sphere(_) => "sphere",
        }
    }

    pub(super) fn check(&self) -> Result<(), AlignError> {
        match self {
            Self::Pca { components: 0 } => Err(AlignError::Setting {
                setting: "components",
                value: 0.0,
                expected: "at least 1",
            }),
            Self::Coral(settings) => settings.check(),
            Self::Sphere(settings) => settings.check(),
            _ => Ok(()),
        }
    }
}
