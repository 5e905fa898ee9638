//! The comparison of a screen of any size: plates pass by, one after the other; rows leave.
//!
//! What each well was given is known first ([`Design`]), then what the plates have in common ([`Frame`]); then each
//! plate's profiles are read once in the design's order, scored, added to open treatments and forgotten. Finished treatments
//! wait in a [`Spool`] until the last plate, when false discovery rates and calls are known. Memory holds a few plates,
//! the treatments that are open ([`Design::most_open`]), and for each treatment of the screen its name and some 30 bytes.
//!
//! Fails where the caller's reading or writing does, and on profiles that contradict each other.

use std::borrow::Borrow;
use std::ops::Range;
use std::panic::resume_unwind;

use rayon::prelude::*;

use super::activity::{self, Activities, Activity, Perturbation};
use super::design::Design;
use super::finished::Finished;
use super::frames::Frame;
use super::plates;
use super::series::Open;
use super::spool::Spool;
use super::{
    AssayWindow, CompareError, Comparison, ComparisonSettings, CompoundSummary, Note, WellScore, input,
};
use crate::profile::WellProfile;
use crate::words::Barcode;

/// The wells of a plate in the space in which they are compared.
#[derive(Debug, Clone, Copy)]
pub struct PlateRows<'a> {
    /// The plate.
    pub plate: &'a Barcode,
    /// By well.
    pub wells: &'a [&'a WellProfile],
    /// One per well: aligned where the screen aligns plates, else scaled per plate.
    pub rows: &'a [Vec<f64>],
    /// Whether they are aligned: their columns are then no features.
    pub aligned: bool,
    /// One per well: whether it is an outlier among the controls; empty where none was judged.
    pub outliers: &'a [bool],
}

/// Takes what a comparison finds, as it is found.
pub trait Sink {
    /// Why it could not be taken.
    type Error;
    /// The rows of a plate that has at least one axis, before its scores; for measures over whole profiles.
    ///
    /// # Errors
    /// Where they cannot be taken; the comparison ends.
    fn plate(&mut self, _plate: PlateRows<'_>) -> Result<(), Self::Error> {
        Ok(())
    }
    /// A well's score. Plates in the order of [`Design::plates`], then by disease.
    ///
    /// # Errors
    /// Where it cannot be taken; the comparison ends.
    fn well(&mut self, score: WellScore) -> Result<(), Self::Error>;
    /// A plate's assay window for a disease, after its wells.
    ///
    /// # Errors
    /// Where it cannot be taken; the comparison ends.
    fn window(&mut self, window: AssayWindow) -> Result<(), Self::Error>;
    /// The consensus profile of a treatment, once its wells are complete; those complete with one plate by disease, compound
    /// and dose.
    ///
    /// # Errors
    /// Where it cannot be taken; the comparison ends.
    fn perturbation(&mut self, _profile: Perturbation) -> Result<(), Self::Error> {
        Ok(())
    }
    /// How alike the wells of a treatment are, after all plates and before all rows; by disease, compound and dose.
    ///
    /// # Errors
    /// Where it cannot be taken; the comparison ends.
    fn activity(&mut self, _activity: Activity) -> Result<(), Self::Error> {
        Ok(())
    }
    /// A row, in the order of [`super::ScreenComparison::rows`], after all wells.
    ///
    /// # Errors
    /// Where it cannot be taken; the comparison ends.
    fn row(&mut self, row: Comparison) -> Result<(), Self::Error>;
    /// A compound on a disease, by disease and rank, after the disease's rows.
    ///
    /// # Errors
    /// Where it cannot be taken; the comparison ends.
    fn compound(&mut self, summary: CompoundSummary) -> Result<(), Self::Error>;
    /// Something a reader must know.
    ///
    /// # Errors
    /// Where it cannot be taken; the comparison ends.
    fn note(&mut self, note: Note) -> Result<(), Self::Error>;
}

/// Why a comparison ended early.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StreamError<E> {
    /// The screen cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A plate could not be read, or a result not be taken.
    #[error("{0}")]
    Caller(E),
}

/// Notes kept for the error of a screen that cannot be scored at all.
const REASONS: usize = 64;

/// Compares a screen plate by plate.
///
/// `read` gives the profiles of a plate: those that were added to `design`, or fewer where some could not be used. It is
/// called for each of [`Design::plates`] in order, from another thread while plates are scored. `frame` was fitted on
/// the same plates, or with an earlier alignment. `spool` holds finished rows until the end; it is written from its end on.
///
/// # Errors
/// [`StreamError::Caller`] with what `read` or `sink` failed with; [`StreamError::Compare`] where settings are out of
/// range, profiles contradict each other, the spool fails, or no plate can be scored.
pub fn stream<W, E, K>(
    design: &Design,
    settings: &ComparisonSettings,
    frame: &Frame,
    mut read: impl FnMut(&Barcode) -> Result<Vec<W>, E> + Send,
    spool: impl Spool,
    sink: &mut K,
) -> Result<(), StreamError<E>>
where
    W: Borrow<WellProfile> + Send + Sync,
    E: Send,
    K: Sink<Error = E>,
{
    settings.check()?;
    let mut width = None;
    for note in &frame.notes {
        sink.note(note.clone()).map_err(StreamError::Caller)?;
    }
    let mut done = Finished::new(design, settings, spool)?;
    let mut open = Open::new(design, settings);
    let mut activities = Activities::new(design, settings);
    let mut reasons = Vec::new();
    let mut scored_any = false;
    batches(design, &mut read, |places, plates| {
        let sorted = checked(plates, &mut width)?;
        let scored: Vec<_> = sorted
            .par_iter()
            .zip(places.clone())
            .map(|(wells, place)| {
                let framed = match frame.frame(place, wells, settings) {
                    Ok(framed) => framed,
                    Err(note) => {
                        return (
                            Vec::new(),
                            vec![note],
                            (Vec::new(), false, Vec::new()),
                            Vec::new(),
                        );
                    }
                };
                let (panels, notes) = plates::score(wells, &framed, settings);
                let outliers = framed.outliers.unwrap_or_default();
                let aligned = framed.aligned.is_some();
                let rows = framed.aligned.unwrap_or(framed.rows);
                let effects = activity::effects(place, wells, &rows, &panels, settings);
                (panels, notes, (rows, aligned, outliers), effects)
            })
            .collect();
        for ((place, wells), (panels, notes, (rows, aligned, outliers), effects)) in
            places.clone().zip(&sorted).zip(scored)
        {
            for note in notes {
                if reasons.len() < REASONS && !scored_any {
                    reasons.push(note.clone());
                }
                sink.note(note).map_err(StreamError::Caller)?;
            }
            if let (Some(panel), false) = (panels.first(), rows.is_empty()) {
                sink.plate(PlateRows {
                    plate: panel.plate,
                    wells,
                    rows: &rows,
                    aligned,
                    outliers: &outliers,
                })
                .map_err(StreamError::Caller)?;
            }
            drop(rows);
            activities.add(place, effects);
            for panel in &panels {
                scored_any = true;
                let plate = panel.plate.clone();
                open.add(place, panel)
                    .map_err(|well| CompareError::Unplanned { plate, well })?;
                let mut wells: Vec<WellScore> = panel.well_scores(settings.question).collect();
                wells.sort_by_key(|score| score.well);
                for score in wells {
                    sink.well(score).map_err(StreamError::Caller)?;
                }
                sink.window(panel.window(settings.question))
                    .map_err(StreamError::Caller)?;
            }
        }
        let complete = design.complete(places.clone());
        for (series, rows) in open.close(complete, &mut done)? {
            done.put(series, &rows)?;
        }
        open.limit(&mut done)?;
        activities.close(complete, &mut done, sink)?;
        open.forget(places.end.saturating_sub(1));
        activities.forget(places.end.saturating_sub(1));
        Ok(())
    })?;
    if !scored_any {
        return Err(CompareError::NothingScored { notes: reasons }.into());
    }
    let support = activities.finish(&mut done, sink)?;
    done.leave(&open.into_samples(), &support, sink)
}

pub(super) type Sorted<'w> = Vec<&'w WellProfile>;

pub(super) fn checked<'w, W: Borrow<WellProfile>>(
    plates: &'w [(&Barcode, Vec<W>)],
    width: &mut Option<usize>,
) -> Result<Vec<Sorted<'w>>, CompareError> {
    plates
        .iter()
        .map(|(plate, wells)| input::checked(plate, wells, width))
        .collect()
}

/// Hands plates to `work` in the design's order, as many at a time as there are threads, and reads the next ones
/// meanwhile.
pub(super) fn batches<'d, W, E>(
    design: &'d Design,
    read: &mut (impl FnMut(&Barcode) -> Result<Vec<W>, E> + Send),
    mut work: impl FnMut(Range<usize>, &[(&'d Barcode, Vec<W>)]) -> Result<(), StreamError<E>>,
) -> Result<(), StreamError<E>>
where
    W: Send,
    E: Send,
{
    let size = rayon::current_num_threads().max(1);
    let plates = design.plates();
    let mut load = |places: Range<usize>| -> Result<Vec<(&'d Barcode, Vec<W>)>, E> {
        plates[places]
            .iter()
            .map(|plate| Ok((plate, read(plate)?)))
            .collect()
    };
    let mut start = 0;
    let mut batch = load(0..size.min(plates.len())).map_err(StreamError::Caller)?;
    while !batch.is_empty() {
        let end = start + batch.len();
        let following = end..(end + size).min(plates.len());
        let (next, worked) = std::thread::scope(|scope| {
            // What takes results need not be shared between threads: the reading moves away, the work stays.
            let reading = scope.spawn(|| load(following));
            let worked = work(start..end, &batch);
            let next = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
            (next, worked)
        });
        worked?;
        batch = next.map_err(StreamError::Caller)?;
        start = end;
    }
    Ok(())
}
