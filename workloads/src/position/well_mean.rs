//! Well-position correction: what a position has in common over many plates is subtracted (SCIENCE 5.1).
//!
//! Profiles after plate scaling enter plate by plate; [`WellPositionMeans`] leaves, and is subtracted from profiles of
//! these or later plates. Refused, with the reason, where a position has few plates or always holds the same treatment:
//! the mean of the position is then biology. Memory: a profile for each position.

use std::collections::BTreeMap;

use super::PositionError;
use crate::matrix::FeatureMatrix;
use crate::profile::Treatment;
use crate::words::WellPosition;

/// Fewest plates of every position (SCIENCE 5.1).
pub const FEWEST_PLATES: usize = 8;

/// The mean profile of every position.
#[derive(Debug, Clone, PartialEq)]
pub struct WellPositionMeans {
    width: usize,
    means: BTreeMap<WellPosition, Vec<f64>>,
}

/// Adds up the profiles of every position, plate by plate.
#[derive(Debug, Clone, Default)]
pub struct WellPositionFitter {
    /// Of the profiles; known from the first plate on.
    width: Option<usize>,
    positions: BTreeMap<WellPosition, Position>,
}

#[derive(Debug, Clone)]
struct Position {
    sum: Vec<f64>,
    plates: usize,
    first: Treatment,
    /// Whether another treatment than the first was there.
    varied: bool,
}

impl WellPositionFitter {
    /// Adds a plate; row `i` belongs to `wells[i]`, and no well occurs twice. Plates come in one order where bytes must
    /// not differ.
    ///
    /// # Errors
    /// [`PositionError::Shape`] or [`PositionError::NotFinite`]; then nothing was added.
    pub fn add(
        &mut self,
        rows: &FeatureMatrix,
        wells: &[(WellPosition, &Treatment)],
    ) -> Result<(), PositionError> {
        let width = self.width.unwrap_or(rows.width());
        check_shape(rows, wells.len(), width)?;
        for (row, &(well, _)) in rows.rows().zip(wells) {
            if let Some(&value) = row.iter().find(|value| !value.is_finite()) {
                let value = f64::from(value);
                return Err(PositionError::NotFinite { well, value });
            }
        }
        self.width = Some(width);
        for (row, &(well, treatment)) in rows.rows().zip(wells) {
            let position = self.positions.entry(well).or_insert_with(|| Position {
                sum: vec![0.0; width],
                plates: 0,
                first: treatment.clone(),
                varied: false,
            });
            position.plates += 1;
            position.varied |= position.first != *treatment;
            for (sum, &value) in position.sum.iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        Ok(())
    }

    /// The means. `fewest_plates`: plates a position needs, [`FEWEST_PLATES`] unless there is a reason.
    ///
    /// # Errors
    /// [`PositionError::TooFewPlates`] (names the position with the fewest) or [`PositionError::NotRandomised`].
    pub fn finish(self, fewest_plates: usize) -> Result<WellPositionMeans, PositionError> {
        let fewest = self.positions.iter().min_by_key(|(_, position)| position.plates);
        if let Some((&well, position)) = fewest
            && position.plates < fewest_plates
        {
            return Err(PositionError::TooFewPlates {
                well,
                plates: position.plates,
                needed: fewest_plates,
            });
        }
        for (&well, position) in &self.positions {
            if position.plates > 1 && !position.varied {
                let plates = position.plates;
                return Err(PositionError::NotRandomised { well, plates });
            }
        }
        let means = self.positions.into_iter().map(|(well, mut position)| {
            let n = position.plates as f64;
            position.sum.iter_mut().for_each(|mean| *mean /= n);
            (well, position.sum)
        });
        Ok(WellPositionMeans {
            width: self.width.unwrap_or(0),
            means: means.collect(),
        })
    }
}

impl WellPositionMeans {
    /// Of some of the columns only, ascending.
    pub(crate) fn select(&mut self, columns: &[usize]) {
        for mean in self.means.values_mut() {
            *mean = columns
                .iter()
                .filter_map(|&column| mean.get(column).copied())
                .collect();
        }
        self.width = columns.len();
    }

    /// Subtracts each position's mean; row `i` belongs to `wells[i]`.
    ///
    /// # Errors
    /// [`PositionError::Shape`] or [`PositionError::UnknownPosition`]; then nothing was changed.
    pub fn subtract(&self, rows: &mut FeatureMatrix, wells: &[WellPosition]) -> Result<(), PositionError> {
        self.subtract_scaled(rows, wells, None)
    }

    /// The same from profiles that are not scaled: `divisors` are those of their plate's columns.
    ///
    /// # Errors
    /// As [`WellPositionMeans::subtract`].
    pub fn subtract_scaled(
        &self,
        rows: &mut FeatureMatrix,
        wells: &[WellPosition],
        divisors: Option<&[f64]>,
    ) -> Result<(), PositionError> {
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
            for (column, (value, mean)) in rows.row_mut(row).iter_mut().zip(mean).enumerate() {
                let divisor = divisors.and_then(|divisors| divisors.get(column)).copied();
                *value = (f64::from(*value) - divisor.unwrap_or(1.0) * mean) as f32;
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
