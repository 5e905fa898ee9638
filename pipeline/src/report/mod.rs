//! The report of a run: one self-contained HTML page.
//!
//! A comparison, the facts of the run and a few image tiles enter; the text of the page leaves. No script, no
//! external resource: charts are inline SVG, images are base64 PNG. The page reads in light and dark and prints.
//! All text from outside is escaped. Fails only where an image cannot be encoded.

mod calls;
mod charts;
mod drift;
mod heatmap;
mod html;
mod matrix;
pub mod montage;
mod number;
mod page;
mod plate;

use wellspring_workloads::compare::{Question, ScreenComparison};
use wellspring_workloads::monitor::DriftReport;
use wellspring_workloads::profile::Role;
use wellspring_workloads::words::{Barcode, WellPosition};

pub use montage::{Montage, MontageError, Tile};
pub use page::render;

use crate::compare::{ReplicateCounts, ShownMatrix};
use crate::results::tables::Provenance;

/// The page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The montage could not be made.
    #[error("cannot make the image montage of the report: {source}")]
    Montage {
        /// Why.
        #[from]
        source: MontageError,
    },
}

/// Everything the page shows.
#[derive(Debug, Clone)]
pub struct ReportInput<'a> {
    /// What ran, when and on what.
    pub run: &'a RunFacts,
    /// The comparison; `None` where nothing could be compared, with the reason in `comparison_failed`.
    pub comparison: Option<&'a ScreenComparison>,
    /// Why there is no comparison.
    pub comparison_failed: Option<&'a str>,
    /// What the watch over the control wells saw; `None` where there was none.
    pub drift: Option<&'a DriftReport>,
    /// How many treatments replicate; `None` where nothing was compared.
    pub replicates: Option<ReplicateCounts>,
    /// Compounds against every disease model of the screen; `None` with fewer than two.
    pub matrix: Option<&'a ShownMatrix>,
    /// What the screen asks: decides which words and which curve the page shows.
    pub question: Question,
    /// Unit of the doses, such as `uM`.
    pub dose_unit: &'a str,
    /// The first plates with what their wells were given, scored or not: more than the page draws.
    pub plates: &'a [PlateFacts],
    /// Fields that were lost; the page shows the first ones and the count.
    pub dead_letters: &'a [DeadLetterLine],
    /// How often each quality flag was raised, such as `blur:DNA`.
    pub quality_flags: &'a [FlagCount],
    /// Image crops with labels; empty where no images were kept.
    pub montage: Option<&'a Montage>,
}

/// What ran, when and on what.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    /// Screen, run, hashes and seed.
    pub provenance: Provenance,
    /// A sentence about the screen; may be empty.
    pub description: String,
    /// When the run ended, as text in UTC.
    pub finished: String,
    /// How long it took.
    pub seconds: f64,
    /// Plates of the screen, scored or not.
    pub plates: u64,
    /// Wells of their plate maps.
    pub wells: u64,
    /// Fields the plan expected.
    pub fields_expected: u64,
    /// Fields embedded.
    pub fields_done: u64,
    /// Fields that failed.
    pub fields_failed: u64,
    /// Dead-letter records in all.
    pub dead_letters: u64,
    /// The device that ran the kernels, in words.
    pub device: String,
    /// The engine that ran the model, in words.
    pub engine: String,
    /// The product's version.
    pub version: String,
    /// More rows of the provenance table: name and value.
    pub more: Vec<(String, String)>,
}

/// One plate.
#[derive(Debug, Clone, PartialEq)]
pub struct PlateFacts {
    /// The barcode.
    pub barcode: Barcode,
    /// Rows and columns of the plate, such as (8, 12).
    pub shape: (u8, u8),
    /// The wells of the plate map.
    pub wells: Vec<WellFacts>,
}

/// One well of the plate map.
#[derive(Debug, Clone, PartialEq)]
pub struct WellFacts {
    /// The well.
    pub well: WellPosition,
    /// Its part in the comparison.
    pub role: Role,
    /// Its disease model.
    pub disease: Option<String>,
    /// Its compound.
    pub compound: Option<String>,
    /// Its dose.
    pub dose: Option<f64>,
    /// Fields that passed quality checks.
    pub fields_passed: u32,
    /// Fields expected.
    pub fields_expected: u32,
}

/// One line of the dead-letter table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterLine {
    /// The stage that failed.
    pub stage: String,
    /// What failed, such as `plate P1 well A01 field 2`.
    pub subject: String,
    /// Why.
    pub reason: String,
}

/// How often a quality flag was raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagCount {
    /// The flag, such as `blur:DNA`.
    pub flag: String,
    /// Fields that carry it.
    pub fields: u64,
    /// Those of them that failed because of it.
    pub failed: u64,
}
