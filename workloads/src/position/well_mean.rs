//! Well-position correction: what a position has in common over many plates is subtracted (SCIENCE 5.1).
//!
//! Profiles after plate scaling enter; [`WellPositionMeans`] leaves, and subtracts itself from profiles of these or
//! later plates. Refused, with the reason, where a position has few plates or always holds the same treatment: the
//! mean of the position is then biology.

use std::collections::{BTreeMap, BTreeSet};

use super::PositionError;
use crate::matrix::FeatureMatrix;
use crate::words::WellPosition;

/// Fewest plates of every position (SCIENCE 5.1).
pub const FEWEST_PLATES: usize = 8;

/// Where a row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedWell {
    /// Number of its plate.
    pub plate: usize,
    /// Its position.
    pub well: WellPosition,
    /// Number of its treatment (role, disease, compound and dose); equal for equal treatments.
    pub treatment: usize,
}

/// The mean profile of every position.
#[derive(Debug, Clone, PartialEq)]
pub struct WellPositionMeans {
    width: usize,
    means: BTreeMap<WellPosition, Vec<f64>>,
}

#[derive(Default)]
struct Position {
    plates: BTreeSet<usize>,
    treatments: BTreeSet<usize>,
    rows: Vec<usize>,
}

impl WellPositionMeans {
    /// Means of every position over the plates; row `i` belongs to `wells[i]`.
    ///
    /// `fewest_plates`: plates a position needs, [`FEWEST_PLATES`] unless there is a reason.
    ///
    /// # Errors
    /// [`PositionError::Shape`], [`PositionError::NotFinite`], [`PositionError::TooFewPlates`] (names the position
    /// with the fewest) or [`PositionError::NotRandomised`].
    pub fn fit(
        rows: &FeatureMatrix,
        wells: &[PlacedWell],
        fewest_plates: usize,
    ) -> Result<Self, PositionError> {
        let width = rows.width();
        check_shape(rows, wells.len(), width)?;
        let mut positions: BTreeMap<WellPosition, Position> = BTreeMap::new();
        for (row, placed) in wells.iter().enumerate() {
            if let Some(&value) = rows.row(row).iter().find(|value| !value.is_finite()) {
                let (well, value) = (placed.well, f64::from(value));
                return Err(PositionError::NotFinite { well, value });
            }
            let position = positions.entry(placed.well).or_default();
            position.plates.insert(placed.plate);
            position.treatments.insert(placed.treatment);
            position.rows.push(row);
        }
        if let Some((&well, position)) = positions.iter().min_by_key(|(_, position)| position.plates.len())
            && position.plates.len() < fewest_plates
        {
            return Err(PositionError::TooFewPlates {
                well,
                plates: position.plates.len(),
                needed: fewest_plates,
            });
        }
        let several_plates = positions.iter().filter(|(_, position)| position.plates.len() > 1);
        for (&well, position) in several_plates {
            if position.treatments.len() == 1 {
                let plates = position.plates.len();
                return Err(PositionError::NotRandomised { well, plates });
            }
        }
        let means = positions
            .into_iter()
            .map(|(well, mut position)| {
                // By plate, so that the order of the rows does not change the sum.
                position.rows.sort_by_key(|&row| wells[row].plate);
                let mut mean = vec![0.0; width];
                for &row in &position.rows {
                    for (mean, &value) in mean.iter_mut().zip(rows.row(row)) {
                        *mean += f64::from(value);
                    }
                }
                let n = position.rows.len() as f64;
                mean.iter_mut().for_each(|mean| *mean /= n);
                (well, mean)
            })
            .collect();
        Ok(Self { width, means })
    }

    /// Subtracts each position's mean; row `i` belongs to `wells[i]`.
    ///
    /// # Errors
    /// [`PositionError::Shape`] or [`PositionError::UnknownPosition`]; then nothing was changed.
    pub fn subtract(&self, rows: &mut FeatureMatrix, wells: &[WellPosition]) -> Result<(), PositionError> {
        check_shape(rows, wells.len(), self.width)?;
        let means: Vec<&Vec<f64>> = wells
            .iter()
            .map(|&well| {
                self.means
                    .get(&well)
                    .ok_or(PositionError::UnknownPosition { well })
            })
            .collect::<Result<_, _>>()?;
        for (row, mean) in means.into_iter().enumerate() {
            for (value, mean) in rows.row_mut(row).iter_mut().zip(mean) {
                *value = (f64::from(*value) - mean) as f32;
            }
        }
        Ok(())
    }
}

fn check_shape(rows: &FeatureMatrix, wells: usize, expected: usize) -> Result<(), PositionError> {
    if rows.len() == wells && rows.width() == expected {
        return Ok(());
    }
    Err(PositionError::Shape {
        rows: rows.len(),
        width: rows.width(),
        wells,
        expected,
    })
}
