//! Does a treatment do anything, and the same in each replicate? The measures of whole profiles (SCIENCE 6.2, 6.4), for
//! every compound at every dose and for every compound.
//!
//! Plates enter in the order of reading, as rows in the space of the comparison; an [`Activity`] per treatment leaves
//! after the last plate, and a [`Perturbation`] (its consensus profile) as soon as its wells are complete. The flow is
//! the file list: `plate` (one plate moved to its origin, wells against its controls), `open` (treatments whose wells
//! are still coming), `measure` (a complete treatment), `chance` (what control wells give), `finish` (what needs the
//! whole screen). Nothing fails but the spool and the sink.
//!
//! Origin: the plate's own disease controls in rescue screens, its reference wells otherwise; a cosine depends on it.
//!
//! Memory: the wells of open treatments, of each compound and dose at most [`MOST_WELLS`], the controls of plates with
//! open treatments, a sample of [`POOL_WELLS`] treated wells of the screen, and a few numbers per treatment.

mod chance;
mod finish;
mod measure;
mod open;
mod plate;
mod settings;

pub use settings::{ActivitySettings, Consensus, MapNull};

pub(super) use finish::Support;
pub(super) use open::Activities;
pub(super) use plate::effects;

use serde::{Deserialize, Serialize};

/// Most wells of a compound at a dose that measures are taken of: of more, those of smallest hash of plate and well.
pub const MOST_WELLS: usize = 64;
/// Treated wells of the screen that the threshold of percent replicating is drawn from.
pub const POOL_WELLS: usize = 2048;

/// What the rows of [`Activity`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A compound at one dose.
    Dose,
    /// A compound over all its doses: wells of different doses are replicates of each other.
    Compound,
}

/// How alike the wells of a treatment are, and how unlike its controls. The names of retrieval are copairs' columns.
///
/// What is not defined is `None`: of one well, everything but the counts; of fewer than five, the magnitude.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// The disease model; `None` where the screen names none.
    pub disease: Option<String>,
    /// The compound.
    pub compound: Option<String>,
    /// The dose, of rows of one dose that have one.
    pub dose: Option<f64>,
    /// Whether it is of one dose.
    pub level: Level,
    /// Wells.
    pub n_wells: usize,
    /// Wells that were measured: at most [`MOST_WELLS`].
    pub n_measured: usize,
    /// Plates.
    pub n_plates: usize,
    /// Mean average precision of finding the treatment's other wells among the controls of a well's plate, in (0, 1].
    pub mean_average_precision: Option<f64>,
    /// The same, 0 at what chance gives, in [-1, 1].
    pub mean_normalized_average_precision: Option<f64>,
    /// One-sided, of the mean average precision; never 0.
    pub p_value: Option<f64>,
    /// After correction over all rows of its level in the screen.
    pub corrected_p_value: Option<f64>,
    /// Whether `p_value` is below the limit (`thresholds.q`).
    pub below_p: Option<bool>,
    /// Whether `corrected_p_value` is.
    pub below_corrected_p: Option<bool>,
    /// Median Pearson correlation of its pairs of wells, in [-1, 1].
    pub median_replicate_correlation: Option<f64>,
    /// Whether that is above the 95th percentile of pairs of different treatments: "percent replicating" is the share.
    pub replicates: Option<bool>,
    /// Mean correlation of its wells with the compound's other wells, in SDs of those with the controls of its plate.
    pub grit: Option<f64>,
    /// Mean cosine of its pairs of wells (EFAAR), in [-1, 1].
    pub consistency: Option<f64>,
    /// One-sided, against as many control wells from the same plates; never 0.
    pub consistency_p_value: Option<f64>,
    /// Energy distance from the controls of its plates (EFAAR's magnitude), in the units of the rows; five wells and more.
    pub magnitude: Option<f64>,
    /// Share of divisions of wells and controls that are as far apart; never 0.
    pub magnitude_p_value: Option<f64>,
}

/// The consensus profile of a compound at a dose: its wells as one row, measured from the plates' own controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Perturbation {
    /// The disease model.
    pub disease: Option<String>,
    /// The compound.
    pub compound: Option<String>,
    /// The dose.
    pub dose: Option<f64>,
    /// Wells.
    pub n_wells: usize,
    /// Plates.
    pub n_plates: usize,
    /// One value per feature.
    pub values: Vec<f32>,
}
