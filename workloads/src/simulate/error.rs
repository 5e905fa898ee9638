//! Why a simulation cannot be built or a field cannot be rendered.

use crate::words::{FieldId, WordError};

/// Why a simulation cannot be built, or a field cannot be rendered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulateError {
    /// A number lies outside its range.
    #[error("{setting} is {value}: set it between {min} and {max}")]
    OutOfRange {
        /// The setting's name as written in a file.
        setting: &'static str,
        /// The value as it was given.
        value: f64,
        /// Smallest allowed value.
        min: f64,
        /// Largest allowed value.
        max: f64,
    },
    /// A number must be one of a few.
    #[error("{setting} is {value}: use one of {allowed:?}")]
    NotOneOf {
        /// The setting's name as written in a file.
        setting: &'static str,
        /// The value as it was given.
        value: u32,
        /// The allowed values.
        allowed: &'static [u32],
    },
    /// A list that must hold something is empty.
    #[error("{setting} is empty: {remedy}")]
    Empty {
        /// The setting's name as written in a file.
        setting: &'static str,
        /// What to put there.
        remedy: &'static str,
    },
    /// The same name or value occurs twice.
    #[error("{setting} holds '{name}' twice: every entry must be different")]
    Duplicate {
        /// The setting's name as written in a file.
        setting: &'static str,
        /// What occurs twice.
        name: String,
    },
    /// A name is taken for something else.
    #[error("{setting} '{name}' is a word the plate map uses itself: choose another name")]
    Reserved {
        /// The setting's name as written in a file.
        setting: &'static str,
        /// The name as it was given.
        name: String,
    },
    /// A name cannot be part of a path or a table.
    #[error("{setting}: {source}")]
    Name {
        /// The setting's name as written in a file.
        setting: &'static str,
        /// What is wrong with it.
        source: WordError,
    },
    /// A compound names a disease that the settings do not define.
    #[error(
        "compound '{compound}' acts on disease '{disease}', which diseases does not define: add it there"
    )]
    UnknownDisease {
        /// The compound.
        compound: String,
        /// The disease it names.
        disease: String,
    },
    /// Controls and treatments need more wells than the plates have.
    #[error(
        "{controls} control wells per plate and {treatments} treated wells do not fit on {plates} plates of \
         {wells} wells: use more plates, fewer compounds, doses, replicates or controls"
    )]
    DoesNotFit {
        /// Control wells asked for on each plate.
        controls: u64,
        /// Treated wells over all plates.
        treatments: u64,
        /// Number of plates.
        plates: u32,
        /// Wells on a plate.
        wells: u32,
    },
    /// More cells than the field has room for.
    #[error(
        "{cells} cells of {diameter} pixels do not fit in a {height} x {width} field: at most {most}; lower \
         cells_per_field or cell_diameter"
    )]
    TooCrowded {
        /// Cells asked for per field.
        cells: f64,
        /// Cell diameter in pixels.
        diameter: f64,
        /// Field height in pixels.
        height: u32,
        /// Field width in pixels.
        width: u32,
        /// The most cells a field of this size takes.
        most: f64,
    },
    /// The field is not part of this simulation.
    #[error("{field} is not part of this simulation of {plates} plates with {fields} fields per well")]
    NoSuchField {
        /// The field asked for.
        field: FieldId,
        /// Number of plates simulated.
        plates: usize,
        /// Fields per well simulated.
        fields: u32,
    },
}
