//! Why a screen could not be compared. Every error names plate, well or column, and what to do.

use super::Note;
use crate::align::AlignError;
use crate::align::harmony::HarmonyError;
use crate::position::PositionError;
use crate::select::SelectError;
use crate::words::{Barcode, WellPosition};

/// Why a screen could not be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// There is no profile at all.
    #[error(
        "there are no well profiles to compare: every well failed, has too few fields that passed quality control, was left out for \
         want of a step's answer, or is on a plate that is held back"
    )]
    NoProfiles,
    /// A well occurs twice.
    #[error(
        "plate {plate} well {well} has more than one profile: two plates share a barcode, or fields were not averaged"
    )]
    DuplicateWell {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
    },
    /// A profile is empty or has another width than the first one (in plate and well order).
    #[error(
        "plate {plate} well {well} has {found} feature columns where {expected} are expected: all profiles of a \
         screen must come from one model and one set of channels"
    )]
    Width {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// Width of the first profile; at least 1.
        expected: usize,
        /// Width of this profile.
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
    /// A dose is negative, NaN or infinite.
    #[error("plate {plate} well {well} has dose {dose}: expected a finite number of at least 0")]
    Dose {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// The dose as given.
        dose: f64,
    },
    /// A cell count is negative, NaN or infinite.
    #[error("plate {plate} well {well} has cell count {count}: expected a finite number of at least 0")]
    CellCount {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// The count as given.
        count: f64,
    },
    /// A setting is out of range.
    #[error("comparison setting {setting} is {value}: expected {expected}")]
    Setting {
        /// The setting's name in the screen file, under `[comparison]`.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// What is expected.
        expected: &'static str,
    },
    /// A plate holds a profile that was not in the design.
    #[error(
        "plate {plate} well {well} was read, but is not part of the plate and treatments asked for: the tables changed \
         while they were compared; compare again"
    )]
    Unplanned {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
    },
    /// The alignment that was asked for cannot be fitted, or an earlier one not be used.
    #[error("the plates cannot be aligned: {0}")]
    Align(#[from] AlignError),
    /// Harmony, which was asked for, cannot be run.
    #[error("the plates cannot be aligned: {0}")]
    Harmony(#[from] HarmonyError),
    /// Too many wells for Harmony, which holds all of them.
    #[error(
        "{wells} wells of {components} components are too many for align = \"harmony\", which holds all of them in \
         memory ({most} values at most): ask for fewer components, or for align = \"tvn\""
    )]
    HarmonyTooLarge {
        /// Wells.
        wells: usize,
        /// Components of each.
        components: usize,
        /// Values that may be held.
        most: usize,
    },
    /// Well positions, which were to be corrected, cannot be.
    #[error("well positions cannot be corrected: {0}; well_position = false leaves the correction out")]
    Position(#[from] PositionError),
    /// No feature columns can be selected.
    #[error("feature columns cannot be selected: {0}; select = \"none\" keeps all")]
    Select(#[from] SelectError),
    /// More plates, compounds or diseases than can be numbered.
    #[error(
        "the screen has more than four billion plates or compounds, or half a billion diseases: compare it in parts"
    )]
    TooLarge,
    /// Finished rows could not be put aside or read back.
    #[error("rows could not be put aside until the whole screen is compared ({kind}): {message}")]
    Spool {
        /// What kind of fault.
        kind: std::io::ErrorKind,
        /// What the system says.
        message: String,
    },
    /// No plate could be scored for any disease.
    #[error("no plate can be scored: {}", reasons(.notes))]
    NothingScored {
        /// One note per plate and disease that failed.
        notes: Vec<Note>,
    },
}

fn reasons(notes: &[Note]) -> String {
    const SHOWN: usize = 5;
    if notes.is_empty() {
        return "no well has the role treated or phenotype; check the plate map and the control selectors"
            .to_owned();
    }
    let mut text = notes
        .iter()
        .take(SHOWN)
        .map(|note| note.text.as_str())
        .collect::<Vec<_>>()
        .join("; ");
    if notes.len() > SHOWN {
        text.push_str(&format!("; and {} more", notes.len() - SHOWN));
    }
    text
}
