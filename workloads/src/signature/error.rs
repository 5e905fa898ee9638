//! Why disease signatures could not be built. Every error names plate, well or setting, and what to do.

use crate::words::{Barcode, WellPosition};

/// Why disease signatures could not be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SignatureError {
    /// A plate came twice.
    #[error("plate {plate} was given twice: two plates share a barcode, or its wells are not together")]
    PlateTwice {
        /// The plate.
        plate: Barcode,
    },
    /// Wells and rows of values are not of one number.
    #[error("plate {plate} has {wells} wells and {rows} rows of features: there must be one row per well")]
    Rows {
        /// The plate.
        plate: Barcode,
        /// Wells.
        wells: usize,
        /// Rows of features.
        rows: usize,
    },
    /// A plate has another number of features.
    #[error(
        "plate {plate} has {found} feature columns where {expected} are expected: all plates must come from one model \
         and one alignment"
    )]
    Width {
        /// The plate.
        plate: Barcode,
        /// Width of the screen.
        expected: usize,
        /// Width of this plate.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "plate {plate} well {well} feature column {column} is {value}: leave the well out, values are never imputed"
    )]
    NotFinite {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// 0-based feature column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A setting is out of range.
    #[error("signature setting {setting} is {value}: expected {expected}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What is expected.
        expected: &'static str,
    },
    /// Effects could not be put aside or read back.
    #[error("effects could not be put aside until all plates are read ({kind}): {message}")]
    Spool {
        /// What kind of fault.
        kind: std::io::ErrorKind,
        /// What the system says.
        message: String,
    },
    /// More compounds than can be numbered.
    #[error("the screen has more than four billion compounds: compare it in parts")]
    TooLarge,
    /// No plate has both healthy and disease controls.
    #[error(
        "no disease has a signature: no plate holds both reference wells (healthy) and phenotype wells (disease without \
         a compound); check the plate map and the control selectors"
    )]
    NoSignature,
}
