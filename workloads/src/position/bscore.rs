//! B-score of one scalar of one plate: rows and columns are taken out by median polish (Brideau et al. 2003; Tukey
//! 1977).
//!
//! Values of wells enter, a [`BScore`] leaves; wells without a value are simply not given. It assumes that most wells of
//! every row and column are inactive. Fails on values that are not finite, on a well given twice, and where the
//! residuals have no spread.

use std::collections::BTreeSet;

use super::PositionError;
use crate::compare::window::{MAD_TO_SD, median_in_place};
use crate::words::WellPosition;

/// Most sweeps over rows and columns (SCIENCE 5.1).
const SWEEPS: usize = 10;
/// Sweeping stops when `Σ|residual|` changes by less than this share (SCIENCE 5.1).
const SETTLED: f64 = 0.01;
/// Residuals below this share of the largest value are rounding: a plate of rows and columns alone has no B-score.
const ROUNDING: f64 = 1e-12;

/// A plate's values as `overall + row + column + residual`, and the residuals in robust SDs.
#[derive(Debug, Clone, PartialEq)]
pub struct BScore {
    /// Value of a typical well.
    pub overall: f64,
    /// Effect of each row that holds a well, by row number (1-based).
    pub rows: Vec<(u8, f64)>,
    /// Effect of each column that holds a well, by column number (1-based).
    pub columns: Vec<(u8, f64)>,
    /// `1.4826 · median|residual − median residual|`; above 0.
    pub residual_mad: f64,
    /// Sweeps made.
    pub sweeps: usize,
    /// `residual / residual_mad`, in the order the wells were given.
    pub scores: Vec<f64>,
}

/// Median polish of one value per well.
///
/// # Errors
/// [`PositionError::NotFinite`], [`PositionError::DuplicateWell`] or [`PositionError::NoSpread`].
pub fn b_scores(wells: &[(WellPosition, f64)]) -> Result<BScore, PositionError> {
    let mut seen = BTreeSet::new();
    for &(well, value) in wells {
        if !value.is_finite() {
            return Err(PositionError::NotFinite { well, value });
        }
        if !seen.insert(well) {
            return Err(PositionError::DuplicateWell { well });
        }
    }
    let mut rows = Lines::new(wells.iter().map(|(well, _)| well.row()));
    let mut columns = Lines::new(wells.iter().map(|(well, _)| well.column()));
    let mut residuals: Vec<f64> = wells.iter().map(|&(_, value)| value).collect();
    let (mut overall, mut before, mut sweeps) = (0.0, 0.0, 0);
    while sweeps < SWEEPS {
        sweeps += 1;
        rows.polish(&mut residuals);
        overall += columns.centre();
        columns.polish(&mut residuals);
        overall += rows.centre();
        let size: f64 = residuals.iter().map(|r| r.abs()).sum();
        if size == 0.0 || (size - before).abs() < SETTLED * size {
            break;
        }
        before = size;
    }
    let no_spread = PositionError::NoSpread { wells: wells.len() };
    let mut scratch = residuals.clone();
    let median = median_in_place(&mut scratch).ok_or_else(|| no_spread.clone())?;
    scratch.iter_mut().for_each(|r| *r = (*r - median).abs());
    let residual_mad = MAD_TO_SD * median_in_place(&mut scratch).unwrap_or(0.0);
    let largest = wells.iter().map(|(_, value)| value.abs()).fold(0.0, f64::max);
    if residual_mad <= ROUNDING * largest {
        return Err(no_spread);
    }
    residuals.iter_mut().for_each(|r| *r /= residual_mad);
    Ok(BScore {
        overall,
        rows: rows.effects(),
        columns: columns.effects(),
        residual_mad,
        sweeps,
        scores: residuals,
    })
}

/// The rows or the columns of a plate: which wells lie on each, and its effect so far.
struct Lines {
    numbers: Vec<u8>,
    members: Vec<Vec<usize>>,
    effects: Vec<f64>,
}

impl Lines {
    fn new(line_of_well: impl Iterator<Item = u8> + Clone) -> Self {
        let numbers: Vec<u8> = line_of_well
            .clone()
            .collect::<BTreeSet<u8>>()
            .into_iter()
            .collect();
        let mut members = vec![Vec::new(); numbers.len()];
        for (well, line) in line_of_well.enumerate() {
            if let Ok(place) = numbers.binary_search(&line) {
                members[place].push(well);
            }
        }
        Self {
            effects: vec![0.0; numbers.len()],
            numbers,
            members,
        }
    }

    /// Moves the median of every line from the residuals into its effect.
    fn polish(&mut self, residuals: &mut [f64]) {
        for (members, effect) in self.members.iter().zip(&mut self.effects) {
            let mut values: Vec<f64> = members.iter().map(|&well| residuals[well]).collect();
            let median = median_in_place(&mut values).unwrap_or(0.0);
            *effect += median;
            for &well in members {
                residuals[well] -= median;
            }
        }
    }

    /// Moves the median of the effects out of them.
    fn centre(&mut self) -> f64 {
        let median = median_in_place(&mut self.effects.clone()).unwrap_or(0.0);
        self.effects.iter_mut().for_each(|effect| *effect -= median);
        median
    }

    fn effects(self) -> Vec<(u8, f64)> {
        self.numbers.into_iter().zip(self.effects).collect()
    }
}
