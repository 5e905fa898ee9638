//! From well profiles to calls: which treatments move a disease model back towards healthy, at which dose, and
//! what else they do.
//!
//! Well profiles and [`ComparisonSettings`] enter, a [`ScreenComparison`] leaves: at once with [`compare`], or plate by
//! plate in memory that does not grow with the screen, with [`stream`]. Pure and blocking; every reduction is in
//! `f64`; the same profiles in any order, on any number of threads, give the same bytes.
//!
//! The flow is the file list: [`design`] (which plates carry what, and the order to read them), `input` (what a profile
//! must be), [`Frame`] and [`scale`] (the space of the comparison, fitted over all plates by `fitting`), `outliers` (controls unlike the others of their plate), `plates` and
//! [`axis`] (0 at the reference, 1 at the phenotype, between means that `centre` trims where outliers are many; controls
//! are scored on an axis built without them), [`window`] (Z′, SSMD), `series` (wells of a treatment
//! over its plates; `scores` of controls on every plate), [`null`] and `pool` (p-values), `finished` and `spool` (until the screen is complete),
//! [`activity`] (replicates among controls, whole profiles), [`multiple`] (false discovery rate), [`curve`] (dose response), `call` (what a biologist reads). `engine` carries
//! plates through them.
//!
//! It fails on profiles that contradict each other (duplicate wells, differing widths, values that are not finite)
//! and when nothing at all can be scored. One plate that cannot be scored is a [`Note`], and has no rows.

pub mod activity;
pub mod axis;
pub mod buscar;
mod call;
mod centre;
pub mod curve;
pub mod design;
mod engine;
mod error;
mod finished;
pub mod fisher;
mod fitting;
mod frames;
mod harmonised;
mod input;
pub mod multiple;
pub mod null;
mod outliers;
pub mod percentile;
mod plates;
mod pool;
mod position;
mod result;
pub mod scale;
pub mod scaling;
mod scores;
mod selecting;
mod series;
mod settings;
mod spool;
mod tally;
pub mod trend;
pub mod window;

pub use activity::{Activity, ActivitySettings, Consensus, Level, MapNull, Perturbation};
pub use curve::CurveLoss;
pub use design::{Design, DesignBuilder, WIDEST};
pub use engine::{PlateRows, Sink, StreamError, stream};
pub use error::CompareError;
pub use frames::Frame;
pub use result::{
    AicTable, AssayWindow, Call, Censoring, Comparison, CompoundSummary, CurveModel, CurveParameters,
    DoseCurve, DosePoint, Measure, Note, NoteKind, ScreenComparison, WellScore,
};
pub use settings::{
    Align, AlignmentSettings, ComparisonSettings, Correction, FitOn, Normalise, NullFrom, Question, Select,
    Thresholds,
};
pub use spool::Spool;
pub(crate) use spool::Tape;
pub use window::WindowVerdict;

use std::convert::Infallible;
use std::io::Cursor;

use crate::align::FittedTransform;
use crate::profile::WellProfile;

/// Compares every treatment of the screen with its plate's controls.
///
/// `profiles`: one per well, any order, all of one width. Scores follow the screen's question; see
/// [`ScreenComparison`] for what leaves. Profiles and results are all in memory: [`stream`] does the same for screens
/// of any size.
///
/// # Errors
/// [`CompareError`] when settings are out of range, profiles contradict each other, or no plate can be scored.
pub fn compare(
    profiles: &[WellProfile],
    settings: &ComparisonSettings,
) -> Result<ScreenComparison, CompareError> {
    let width = profiles.first().map_or(0, |well| well.values.len());
    let features: Vec<String> = (0..width).map(|column| column.to_string()).collect();
    compare_framed(profiles, settings, &features, None).map(|(found, _)| found)
}

/// As [`compare`], with the features' names and an alignment fitted before, where there is one; gives also the space in
/// which the wells were compared.
///
/// # Errors
/// As [`Frame::fit`] and [`compare`].
pub fn compare_framed(
    profiles: &[WellProfile],
    settings: &ComparisonSettings,
    features: &[String],
    earlier: Option<FittedTransform>,
) -> Result<(ScreenComparison, Frame), CompareError> {
    let mut sorted: Vec<&WellProfile> = profiles.iter().collect();
    sorted.sort_by(|a, b| (&a.plate, a.well).cmp(&(&b.plate, b.well)));
    let design = Design::of(sorted.iter().map(|well| (&well.plate, &well.treatment)))?;
    let read = |plate: &crate::words::Barcode| -> Result<Vec<&WellProfile>, Infallible> {
        let from = sorted.partition_point(|well| well.plate < *plate);
        let wells = sorted[from..].iter().take_while(|well| well.plate == *plate);
        Ok(wells.copied().collect())
    };
    let mut found = ScreenComparison::default();
    let compared = Frame::fit(&design, settings, features, earlier, read).and_then(|frame| {
        let spool = Cursor::new(Vec::new());
        stream(&design, settings, &frame, read, spool, &mut found)?;
        Ok(frame)
    });
    match compared {
        Ok(frame) => {
            found.sort();
            Ok((found, frame))
        }
        Err(StreamError::Compare(error)) => Err(error),
        Err(StreamError::Caller(never)) => match never {},
    }
}
