//! Why no head was fitted. Every error names wells, columns or classes, and what to do.

use crate::align::AlignError;

/// Columns listed in an error.
const SHOWN: usize = 5;

/// Why no head was fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// Too few wells.
    #[error(
        "there are {found} {what}, and a head needs {needed}: add plates, or say that fewer will do with --fewest-wells"
    )]
    FewWells {
        /// Which wells.
        what: String,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A probe tells classes apart.
    #[error(
        "all control wells are of the class '{class}': a probe needs at least two; see --classes and --wells"
    )]
    OneClass {
        /// The class.
        class: String,
    },
    /// A value is NaN or infinite.
    #[error("{well} column {column} is {value}: values are never imputed, drop the well or embed it again")]
    NotFinite {
        /// Plate and well.
        well: String,
        /// The column.
        column: String,
        /// The value.
        value: f32,
    },
    /// Features that are the same in every well.
    #[error(
        "{} of {features} features do not vary among the control wells ({}): look whether a channel is empty, or give \
         them no weight with --leave-out-constant",
        columns.len(), listed(columns)
    )]
    Constant {
        /// Their names.
        columns: Vec<String>,
        /// How many features there are.
        features: usize,
    },
    /// All wells are equal.
    #[error("the {wells} control wells are all alike: a head needs wells that differ")]
    NoVariation {
        /// How many.
        wells: usize,
    },
    /// Without shrinkage nothing is known of directions that the controls do not span.
    #[error(
        "{wells} control wells span {rank} of {features} dimensions, and with shrinkage 0 the others have no variance to \
         divide by: leave the shrinkage to Ledoit and Wolf, or choose a pca method"
    )]
    Rank {
        /// Control wells.
        wells: usize,
        /// Dimensions they span.
        rank: usize,
        /// All dimensions.
        features: usize,
    },
    /// A setting is out of range.
    #[error("{setting} is {value}: expected {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        expected: String,
    },
    /// The search for the best weights did not end.
    #[error(
        "a logistic regression did not settle within {steps} steps: look at features of extreme scale, or fit a ridge \
         regression"
    )]
    NotFound {
        /// How many.
        steps: usize,
    },
    /// The fitted map is no map of single-precision numbers.
    #[error("the fitted head has values beyond what 32-bit floats hold: look at features of extreme scale")]
    Range,
    /// The decomposition.
    #[error(transparent)]
    Align(#[from] AlignError),
}

fn listed(columns: &[String]) -> String {
    let shown = columns.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if columns.len() > SHOWN {
        shown + ", ..."
    } else {
        shown
    }
}
