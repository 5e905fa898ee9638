//! Why drift cannot be monitored. Every error names plate, well or column, and what to do.

use crate::align::AlignError;
use crate::linalg::EigenError;
use crate::words::{Barcode, WellPosition};

/// Why drift cannot be monitored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MonitorError {
    /// A well occurs twice.
    #[error("plate {plate} well {well} has more than one profile: two plates share a barcode")]
    DuplicateWell {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
    },
    /// Wells of two plates were given as one.
    #[error("wells of plates {plate} and {other} were given as one plate")]
    MixedPlates {
        /// The first.
        plate: Barcode,
        /// The other one.
        other: Barcode,
    },
    /// A plate occurs twice.
    #[error("plate {plate} occurs twice: give each plate once")]
    DuplicatePlate {
        /// The plate.
        plate: Barcode,
    },
    /// A profile has another width than the reference.
    #[error(
        "plate {plate} has {found} feature columns where the reference has {expected}: they come from another model or \
         other channels; make a new reference (wellspring drift reset)"
    )]
    Width {
        /// The plate.
        plate: Barcode,
        /// Width of the reference; at least 1.
        expected: usize,
        /// Width of this plate.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "plate {plate} well {well} feature column {column} is {value}: drop the field that produced it, values are \
         never imputed"
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
    /// There are no wells.
    #[error("a plate without wells was given")]
    NoWells,
    /// Not enough plates for a reference.
    #[error(
        "{found} plates can be reference plates and {needed} are needed: each needs at least {controls} reference \
         wells and an assay window that is not negative; compare more plates, or lower monitor.reference_plates \
         (not below 10)"
    )]
    TooFewPlates {
        /// Plates that could be.
        found: usize,
        /// Plates needed.
        needed: usize,
        /// Reference wells that each of them needs.
        controls: usize,
    },
    /// A reference plate has too few controls.
    #[error(
        "plate {plate} has {found} reference wells and cannot be a reference plate, which needs {needed}"
    )]
    FewControls {
        /// The plate.
        plate: Barcode,
        /// Its reference wells.
        found: usize,
        /// Wells needed.
        needed: usize,
    },
    /// A plate that cannot be accepted.
    #[error(
        "plate {plate} cannot be accepted: only the latest judged plates with at least {controls} reference wells are \
         kept in the reference for that; compare it again with this reference first"
    )]
    NotJudged {
        /// The plate.
        plate: Barcode,
        /// Reference wells needed.
        controls: usize,
    },
    /// Reference rows have no spread.
    #[error("{rows} reference rows have no spread: are all their features constant?")]
    NoSpread {
        /// Rows.
        rows: usize,
    },
    /// A decomposition failed.
    #[error(transparent)]
    Eigen(#[from] EigenError),
    /// The reference is of something else.
    #[error(
        "the drift reference is of {what} \"{reference}\" and the plates are of \"{found}\": make a new reference \
         (wellspring drift reset), the old one is kept"
    )]
    Identity {
        /// assay, microscope, model or model hash.
        what: &'static str,
        /// Of the reference.
        reference: String,
        /// Of the plates.
        found: String,
    },
    /// The reference file was written by another version.
    #[error(
        "the drift reference has format version {found} and this is a program for version {known}: use the program \
         that wrote it, or make a new reference (wellspring drift reset)"
    )]
    Version {
        /// Of the file.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// The reference file cannot be read.
    #[error(
        "the drift reference cannot be read: {reason}; restore it, or make a new one (wellspring drift reset)"
    )]
    Malformed {
        /// Why.
        reason: String,
    },
    /// The components of a reference cannot be found.
    #[error("the reference has no principal components: {0}")]
    Components(#[from] AlignError),
    /// A setting is out of range.
    #[error("monitor setting {0}")]
    Setting(#[from] super::SettingRange),
}
