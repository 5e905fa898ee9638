//! Heads: maps that are fitted on control wells and turn a network's embedding into another one. Whitening (`whiten`)
//! takes out what varies among the controls; a linear probe (`probe`) scores their classes.
//!
//! Control wells with the network's features enter; a [`Head`] leaves, which is all that is kept of the fit. Sums are
//! `f64`; the same wells in the same order give the same bytes on any number of threads. It fails on wells that are too
//! few, not finite or alike, and says which and what to do.

mod error;
mod logistic;
pub mod probe;
pub mod whiten;

pub use error::HeadError;
pub use probe::{Folds, ProbeFit, ProbeLoss, ProbeSettings, fit_probe};
pub use whiten::{Shrinkage, WhitenFit, WhitenMethod, WhitenSettings, fit_whitening};

use crate::align::moments::Moments;
use crate::matrix::FeatureMatrix;
use crate::words::{Barcode, WellPosition};

/// The fewest control wells, and wells of each class, that a head is fitted on (SCIENCE 6.3 asks for as many per side).
pub const FEWEST_WELLS: usize = 16;

/// The wells that a head is fitted on.
#[derive(Debug, Clone)]
pub struct ControlWells {
    /// Names of the features, for errors.
    pub names: Vec<String>,
    /// Which wells they are, a place for each row.
    pub wells: Vec<(Barcode, WellPosition)>,
    /// Profiles: wells x features.
    pub rows: FeatureMatrix,
}

/// What every head is fitted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FitLimits {
    /// The fewest wells; for a probe of each class.
    pub fewest_wells: usize,
    /// Features that do not vary among the wells get no weight. Otherwise they are an error.
    pub leave_out_constant: bool,
}

impl Default for FitLimits {
    fn default() -> Self {
        Self {
            fewest_wells: FEWEST_WELLS,
            leave_out_constant: false,
        }
    }
}

/// A fitted map. With `z = (x − mean) · gain`, feature by feature, and `s = directions · z`, the new embedding is
/// `s + bias`, or where there is a way back `floor · z + directionsᵀ · (gains · s)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Of each feature over the wells.
    pub mean: Vec<f32>,
    /// What a feature's difference from its mean is multiplied by; 0 where it is left out.
    pub gain: Vec<f32>,
    /// Directions x features.
    pub directions: FeatureMatrix,
    /// What is added to each direction's sum; zeros where there is a way back.
    pub bias: Vec<f32>,
    /// How the directions become features again.
    pub back: Option<Back>,
}

/// From directions back to features.
#[derive(Debug, Clone, PartialEq)]
pub struct Back {
    /// By how much each direction is weighed more than those without a name.
    pub gains: Vec<f32>,
    /// The weight of everything else.
    pub floor: f32,
}

/// The wells as they are decomposed.
struct Standardised {
    mean: Vec<f64>,
    gain: Vec<f64>,
    /// `(x − mean) · gain`.
    rows: FeatureMatrix,
}

impl ControlWells {
    /// Refuses too few wells and values that are not finite.
    fn check(&self, fewest: usize) -> Result<(), HeadError> {
        let found = self.rows.len();
        if found < fewest.max(2) {
            return Err(HeadError::FewWells {
                what: "control wells".to_owned(),
                found,
                needed: fewest.max(2),
            });
        }
        let width = self.rows.width();
        match self.rows.as_slice().iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(HeadError::NotFinite {
                well: self.well(at / width),
                column: self.name(at % width),
                value: self.rows.as_slice()[at],
            }),
        }
    }

    fn well(&self, row: usize) -> String {
        match self.wells.get(row) {
            Some((plate, well)) => format!("plate {plate} well {well}"),
            None => format!("row {row}"),
        }
    }

    fn name(&self, column: usize) -> String {
        let name = self.names.get(column).cloned();
        name.unwrap_or_else(|| column.to_string())
    }

    /// Centred, and where asked divided by each feature's population SD, or by the median of them where that is larger:
    /// what hardly varies among some dozens of wells would otherwise outweigh everything once it does. Features that do
    /// not vary at all are an error, or get the gain 0.
    fn standardised(&self, by_deviation: bool, limits: FitLimits) -> Result<Standardised, HeadError> {
        let moments = column_moments(&self.rows);
        let constant: Vec<usize> = (0..moments.len()).filter(|&j| moments[j].1 == 0.0).collect();
        if constant.len() == moments.len() {
            return Err(HeadError::NoVariation {
                wells: self.rows.len(),
            });
        }
        if !constant.is_empty() && !limits.leave_out_constant {
            return Err(HeadError::Constant {
                columns: constant.into_iter().map(|j| self.name(j)).collect(),
                features: moments.len(),
            });
        }
        let least = median(moments.iter().map(|(_, deviation)| *deviation));
        let gain = |deviation: f64| match deviation {
            0.0 => 0.0,
            _ if by_deviation => deviation.max(least).recip(),
            _ => 1.0,
        };
        let mean: Vec<f64> = moments.iter().map(|(mean, _)| *mean).collect();
        let gain: Vec<f64> = moments.iter().map(|(_, deviation)| gain(*deviation)).collect();
        let mut rows = self.rows.clone();
        for row in rows.as_mut_slice().chunks_exact_mut(mean.len().max(1)) {
            for ((value, mean), gain) in row.iter_mut().zip(&mean).zip(&gain) {
                *value = ((f64::from(*value) - mean) * gain) as f32;
            }
        }
        Ok(Standardised { mean, gain, rows })
    }
}

/// Mean and population SD of each feature; the SD of one that does not vary is 0, as [`Moments`] has it.
fn column_moments(rows: &FeatureMatrix) -> Vec<(f64, f64)> {
    let column = |j: usize| {
        let values: Vec<f32> = rows.rows().map(|row| row[j]).collect();
        let column =
            Moments::of(&FeatureMatrix::from_values(1, values).unwrap_or_else(|_| FeatureMatrix::new(1)));
        let mean = column.mean().first().copied().unwrap_or(0.0);
        (mean, column.deviations().first().copied().unwrap_or(0.0))
    };
    (0..rows.width()).map(column).collect()
}

/// The median of the features' SDs, of those that vary: the least by which a feature is divided.
fn median(deviations: impl Iterator<Item = f64>) -> f64 {
    let mut varying: Vec<f64> = deviations.filter(|deviation| *deviation > 0.0).collect();
    varying.sort_by(f64::total_cmp);
    let middle = varying.len() / 2;
    let upper = varying.get(middle).copied().unwrap_or(0.0);
    match varying.get(middle.wrapping_sub(1)) {
        Some(lower) if varying.len().is_multiple_of(2) => 0.5 * (lower + upper),
        _ => upper,
    }
}

impl Head {
    /// Features that enter.
    pub fn width_in(&self) -> usize {
        self.mean.len()
    }

    /// Values that leave.
    pub fn width_out(&self) -> usize {
        match self.back {
            Some(_) => self.mean.len(),
            None => self.directions.len(),
        }
    }

    /// Refuses what `f32` cannot hold.
    fn checked(self) -> Result<Self, HeadError> {
        let back = self
            .back
            .iter()
            .flat_map(|back| back.gains.iter().chain([&back.floor]));
        let all = self
            .mean
            .iter()
            .chain(&self.gain)
            .chain(self.directions.as_slice());
        let finite = all.chain(&self.bias).chain(back).all(|value| value.is_finite());
        if finite { Ok(self) } else { Err(HeadError::Range) }
    }
}

fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}
