//! Why a position effect cannot be measured or taken out.

use crate::words::WellPosition;

/// Why a position effect cannot be measured or taken out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PositionError {
    /// A value is NaN or infinite.
    #[error("well {well} has the value {value}: leave the well out, values are never imputed")]
    NotFinite {
        /// The well.
        well: WellPosition,
        /// The value.
        value: f64,
    },
    /// A well occurs twice on a plate.
    #[error("well {well} occurs twice: give one value per well of one plate")]
    DuplicateWell {
        /// The well.
        well: WellPosition,
    },
    /// The residuals have no spread.
    #[error(
        "the residuals of {wells} wells have no spread, so that there is no B-score: is the value constant?"
    )]
    NoSpread {
        /// Wells of the plate.
        wells: usize,
    },
    /// A side of the comparison is missing.
    #[error(
        "there are {edge} control wells on the rim and {interior} inside it: an edge effect needs one of each at least"
    )]
    OneSide {
        /// Control wells on the rim.
        edge: usize,
        /// Control wells inside.
        interior: usize,
    },
    /// A well lies outside the plate.
    #[error("well {well} lies outside a plate of {rows} rows and {columns} columns")]
    Outside {
        /// The well.
        well: WellPosition,
        /// Rows of the plate.
        rows: u8,
        /// Columns of the plate.
        columns: u8,
    },
    /// Too few plates hold a position.
    #[error(
        "well {well} has a profile on {plates} plates, and the mean of a position needs {needed}: with fewer, \
         correcting by position removes what the compounds did"
    )]
    TooFewPlates {
        /// The position with the fewest plates.
        well: WellPosition,
        /// Plates that hold it.
        plates: usize,
        /// Plates needed.
        needed: usize,
    },
    /// The layout is not randomised.
    #[error(
        "well {well} holds the same treatment on all {plates} plates: the mean of the position is then the effect of \
         the treatment, and correcting by position would remove it; randomise the layout or leave the correction out"
    )]
    NotRandomised {
        /// A position with one treatment.
        well: WellPosition,
        /// Plates that hold it.
        plates: usize,
    },
    /// A position the means were not fitted on.
    #[error("well {well} is not among the positions that were fitted: fit on plates that use it")]
    UnknownPosition {
        /// The position.
        well: WellPosition,
    },
    /// Rows and wells do not belong together.
    #[error("there are {rows} rows of {width} features for {wells} wells of {expected} features")]
    Shape {
        /// Rows given.
        rows: usize,
        /// Their width.
        width: usize,
        /// Wells given.
        wells: usize,
        /// Width expected.
        expected: usize,
    },
}
