//! Why relations could not be measured. Every error says what, where, and what to do.

/// Why relations could not be measured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RelateError {
    /// A profile has another number of features.
    #[error(
        "perturbation '{name}' has {found} features where {expected} are expected: use profiles of one model"
    )]
    Width {
        /// The perturbation.
        name: String,
        /// Features of the first profile; at least 1.
        expected: usize,
        /// Features of this one.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "perturbation '{name}' plate {plate} feature column {column} is {value}: leave the row out, values are never imputed"
    )]
    NotFinite {
        /// The perturbation.
        name: String,
        /// The plate.
        plate: String,
        /// 0-based feature column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// Too few perturbations for a null.
    #[error(
        "{found} perturbations with a direction, where at least {needed} are needed: their pairs are the null that \
         known pairs are compared with"
    )]
    TooFew {
        /// Perturbations.
        found: usize,
        /// Fewest.
        needed: usize,
    },
    /// No annotated pair has both perturbations.
    #[error(
        "none of the {pairs} annotated pairs has both perturbations in the profiles; an annotation names '{annotated}', \
         the profiles have '{present}': check that both use the same names"
    )]
    NothingAnnotated {
        /// Distinct pairs of the table.
        pairs: usize,
        /// A name of the table.
        annotated: String,
        /// A name of the profiles.
        present: String,
    },
    /// A column of an annotation table is missing.
    #[error("{file} has no column '{column}'; it has {found}")]
    Column {
        /// The table.
        file: String,
        /// What is expected.
        column: &'static str,
        /// The columns there are.
        found: String,
    },
    /// A line of an annotation table cannot be read.
    #[error("{file} line {line}: {reason}")]
    Line {
        /// The table.
        file: String,
        /// 1-based.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A threshold pair is out of range.
    #[error("recall thresholds ({low}, {high}): expected 0 <= low < high <= 1")]
    Thresholds {
        /// Lower tail.
        low: f64,
        /// Upper tail.
        high: f64,
    },
    /// There is no such perturbation.
    #[error("there is no perturbation '{name}' in the profiles; the nearest name is '{nearest}'")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        nearest: String,
    },
}
