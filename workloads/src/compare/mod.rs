//! From well profiles to calls: which treatments move a disease model back towards healthy, at which dose, and
//! what else they do.
//!
//! Well profiles and [`ComparisonSettings`] enter, a [`ScreenComparison`] leaves. Pure and blocking; every reduction
//! is in `f64`; the same profiles in any order, on any number of threads, give the same bytes.
//!
//! The flow is the file list: [`scale`] (per plate), [`axis`] (0 at the reference, 1 at the phenotype; controls are
//! scored on an axis built without them), [`window`] (Z′, SSMD), [`null`] (exact or sampled p-values), [`multiple`]
//! (false discovery rate), [`curve`] (dose response), `call` (what a biologist reads). `plates` and `rows` carry them
//! over the screen.
//!
//! It fails on profiles that contradict each other (duplicate wells, differing widths, values that are not finite)
//! and when nothing at all can be scored. One plate that cannot be scored is a [`Note`], and has no rows.

pub mod axis;
pub mod buscar;
mod call;
pub mod curve;
mod error;
pub mod multiple;
pub mod null;
mod plates;
mod result;
mod rows;
pub mod scale;
mod settings;
pub mod trend;
pub mod window;

pub use curve::CurveLoss;
pub use error::CompareError;
pub use result::{
    AicTable, AssayWindow, Call, Censoring, Comparison, CompoundSummary, CurveModel, CurveParameters,
    DoseCurve, DosePoint, Measure, Note, NoteKind, ScreenComparison, WellScore,
};
pub use settings::{ComparisonSettings, Correction, FitOn, Normalise, Question, Thresholds};

use crate::profile::WellProfile;

/// Compares every treatment of the screen with its plate's controls.
///
/// `profiles`: one per well, any order, all of one width. Scores follow the screen's question; see
/// [`ScreenComparison`] for what leaves.
///
/// # Errors
/// [`CompareError`] when settings are out of range, profiles contradict each other, or no plate can be scored.
pub fn compare(
    profiles: &[WellProfile],
    settings: &ComparisonSettings,
) -> Result<ScreenComparison, CompareError> {
    settings.check()?;
    let sorted = plates::checked(profiles)?;
    let (plates, mut notes) = plates::score(&sorted, settings);
    if plates.is_empty() {
        return Err(CompareError::NothingScored { notes });
    }
    let (mut rows, groups) = rows::rows(&plates, settings);
    let (compounds, more) = call::summarise(&mut rows, &groups, settings);
    notes.extend(more);
    let mut wells: Vec<WellScore> = plates.iter().flat_map(plates::ScoredPlate::well_scores).collect();
    wells.sort_by(|a, b| (&a.plate, a.well, &a.disease).cmp(&(&b.plate, b.well, &b.disease)));
    let windows = plates.iter().map(plates::ScoredPlate::window).collect();
    Ok(ScreenComparison {
        rows,
        compounds,
        windows,
        wells,
        notes,
    })
}
