//! What a well was given, and the profile measured from it: the input of every comparison.

use serde::{Deserialize, Serialize};

use crate::words::{Barcode, WellPosition};

/// The part a well plays in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Defines 0 on the axis: healthy, or untreated.
    Reference,
    /// Defines 1 on the axis: the disease model with vehicle, or the treatment that gives the full response.
    Phenotype,
    /// A compound at a dose, to be scored.
    Treated,
}

/// What a well was given, from the plate map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Treatment {
    /// The part the well plays.
    pub role: Role,
    /// The disease model; `None` for reference wells shared by all disease models of the plate.
    pub disease: Option<String>,
    /// The compound; `None` for an untreated well.
    pub compound: Option<String>,
    /// Dose in the screen's unit; `None` where no dose was given.
    pub dose: Option<f64>,
}

/// One well's profile: the mean of its passing fields.
#[derive(Debug, Clone, PartialEq)]
pub struct WellProfile {
    /// The plate's barcode.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// What the well was given.
    pub treatment: Treatment,
    /// How many passing fields were averaged; at least 1.
    pub fields: u32,
    /// Cells per field, passing or not, where they were counted. Compared with the plate's controls only.
    pub cell_count: Option<f64>,
    /// The embedding; every profile of a screen has the same width, and every value is finite.
    pub values: Vec<f32>,
}
