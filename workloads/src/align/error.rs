//! Why wells could not be aligned. Every error names plate, well and column where there is one, and what to do.

use crate::linalg::EigenError;
use crate::words::{Barcode, WellPosition};

/// Columns listed in an error.
const SHOWN: usize = 5;

/// Why a transform could not be fitted or applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AlignError {
    /// Rows of another width.
    #[error(
        "a row has {found} features where the transform takes {expected}: was it fitted on other profiles?"
    )]
    Width {
        /// Features the transform takes.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// All rows are equal, or there is only one.
    #[error("{rows} rows do not vary: a transform needs at least 2 wells that differ")]
    NoVariation {
        /// Rows given.
        rows: usize,
    },
    /// Sphering divides by each column's SD.
    #[error(
        "{} of the control wells do not vary ({}): remove them by feature selection (variance_threshold) before sphering",
        count(columns.len(), "column"), listed(columns)
    )]
    FlatColumns {
        /// The columns, 0-based or by name.
        columns: Vec<String>,
    },
    /// Sphering needs wells that span all features, or as many as there are wells less one.
    #[error(
        "{controls} control wells of {features} features have rank {rank}, expected {}: columns depend on one another \
         (among them {}); remove duplicates by feature selection (correlation_threshold) or take more controls",
        (*features).min(controls.saturating_sub(1)), listed(columns)
    )]
    Rank {
        /// Control wells.
        controls: usize,
        /// Features.
        features: usize,
        /// Singular values above rounding.
        rank: usize,
        /// Columns in which the missing directions are strongest, 0-based or by name.
        columns: Vec<String>,
    },
    /// A setting is out of range.
    #[error("alignment setting {setting} is {value}: expected {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// What is expected.
        expected: &'static str,
    },
    /// A decomposition did not converge.
    #[error(transparent)]
    Eigen(#[from] EigenError),
    /// A value is NaN or infinite.
    #[error(
        "plate {plate} well {well} column {column} is {value}: values are never imputed, drop the well or the column"
    )]
    NotFinite {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// The column's name.
        column: String,
        /// The value.
        value: f32,
    },
    /// A plate's wells, rows and controls do not belong together.
    #[error("plate {plate} has {wells} wells for {rows} rows of features, and control row {control:?}")]
    Rows {
        /// The plate.
        plate: Barcode,
        /// Well names given.
        wells: usize,
        /// Rows given.
        rows: usize,
        /// A control that is not one of the rows.
        control: Option<usize>,
    },
    /// The plate comes twice.
    #[error("plate {plate} comes twice: two plates share a barcode")]
    DuplicatePlate {
        /// The plate.
        plate: Barcode,
    },
    /// A step failed on a plate.
    #[error("plate {plate}, step {step}: {source}")]
    Plate {
        /// The plate.
        plate: Barcode,
        /// The step's name.
        step: &'static str,
        /// Why.
        source: Box<AlignError>,
    },
    /// A step failed on the wells of all plates.
    #[error("step {step}, over all plates: {source}")]
    Screen {
        /// The step's name.
        step: &'static str,
        /// Why.
        source: Box<AlignError>,
    },
    /// Too few control wells.
    #[error(
        "{found} control wells, at least {needed} are needed: check the control selectors and the plate map"
    )]
    FewControls {
        /// Control wells given.
        found: usize,
        /// Needed.
        needed: usize,
    },
    /// Another feature stands where one of the fit is expected.
    #[error(
        "column {column} is '{found}' where the transform was fitted on '{expected}': give the columns it names, in \
         their order"
    )]
    Feature {
        /// 0-based column.
        column: usize,
        /// Name at the fit.
        expected: String,
        /// Name given.
        found: String,
    },
}

impl AlignError {
    pub(super) fn check_width(expected: usize, found: usize) -> Result<(), Self> {
        if expected == found {
            Ok(())
        } else {
            Err(Self::Width { expected, found })
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn listed(columns: &[String]) -> String {
    let mut text = columns.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if columns.len() > SHOWN {
        text.push_str(&format!(" and {} more", columns.len() - SHOWN));
    }
    text
}
