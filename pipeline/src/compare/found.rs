//! Where a comparison's findings go: all of them into the tables, the first of each kind to the report, and rows and
//! compounds to whoever publishes them.
//!
//! The plates of a screen enter, one at a time; rows are written as they are found, and [`Shown`] leaves. A run and
//! `wellspring compare` are this one path. Memory is what a page can show. Fails where plates cannot be read, the disk
//! refuses, or the screen cannot be compared.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use wellspring_workloads::align::FittedTransform;
use wellspring_workloads::compare::{
    Activity, AssayWindow, Call, CompareError, Comparison, ComparisonSettings, CompoundSummary, Design,
    Frame, Note, Perturbation, PlateRows, ScreenComparison, Sink, StreamError, WellScore, stream,
};
use wellspring_workloads::profile::WellProfile;
use wellspring_workloads::words::Barcode;

use super::findings::{Findings, FindingsWriter};
use super::signatures::{MatrixError, ShownMatrix};
use super::whole::{ReplicateCounts, WholeProfiles};
use crate::memory;
use crate::results::{ComparisonTables, Provenance, WriteError, write_dropped};
use crate::scratch::{ScratchError, unnamed_file};
use crate::transforms::{TransformError, keep_transform};

/// Plates after which free memory goes back to the system.
const GIVE_BACK: usize = 4;
/// Rows after which the same is done.
const GIVE_BACK_ROWS: usize = 8 << 10;
/// Most of each kind that the report is given; it shows fewer.
const MOST_ROWS: usize = 4_000;
const MOST_COMPOUNDS: usize = 1_000;
/// Of compounds beyond, those that were called something.
const MOST_CALLED: usize = 1_000;
const MOST_WELLS: usize = 4_000;
const MOST_WINDOWS: usize = 1_000;
const MOST_NOTES: usize = 200;

/// A comparison was not completed.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The screen cannot be compared.
    #[error(transparent)]
    Screen(CompareError),
    /// A plate's profiles cannot be read.
    #[error(transparent)]
    Read(Box<dyn Error + Send + Sync>),
    /// A table cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Compounds cannot be compared with the disease signatures.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Findings cannot be put aside.
    #[error(transparent)]
    Aside(#[from] ScratchError),
    /// An alignment cannot be read or kept.
    #[error(transparent)]
    Transform(#[from] TransformError),
}

/// What the features are called, and by what they are aligned.
#[derive(Debug)]
pub struct Profiled<'a> {
    /// The columns' names.
    pub features: &'a [String],
    /// An alignment fitted before.
    pub earlier: Option<FittedTransform>,
}

/// Takes what a comparison finds.
#[derive(Debug)]
struct Found {
    tables: ComparisonTables,
    whole: WholeProfiles,
    findings: Option<FindingsWriter>,
    shown: ScreenComparison,
    rows: usize,
    compounds: usize,
    calls: BTreeMap<Call, usize>,
    most_harmful: Option<CompoundSummary>,
    notes: usize,
    plates: usize,
}

/// What of the findings a report can show.
#[derive(Debug)]
pub struct Shown {
    /// The first of everything.
    pub comparison: ScreenComparison,
    /// Rows of `comparisons.parquet`.
    pub rows: usize,
    /// What the report must say of the compounds that it was not given.
    pub beyond: Option<String>,
    /// How many treatments replicate.
    pub replicates: ReplicateCounts,
    /// Compounds against every disease model; `None` with fewer than two.
    pub matrix: Option<ShownMatrix>,
    /// Of all toxic compounds, the one that is furthest beside the axis.
    pub most_harmful: Option<CompoundSummary>,
    /// Rows and compounds, where they were to be put aside.
    pub findings: Option<Findings>,
}

/// Compares the plates of a design into the tables of the folder `out`.
///
/// `read` gives the profiles of a plate, as [`stream`] wants them; `aside`: takes rows and compounds for publishing.
/// The alignment is kept in the folder, and `provenance` gets its hash.
///
/// # Errors
/// [`FoundError`]; no table is left behind.
pub fn compare_plates<W, E>(
    design: &Design,
    settings: &ComparisonSettings,
    profiled: Profiled<'_>,
    mut read: impl FnMut(&Barcode) -> Result<Vec<W>, E> + Send,
    aside: Option<FindingsWriter>,
    provenance: &mut Provenance,
    out: &Path,
) -> Result<Shown, FoundError>
where
    W: Borrow<WellProfile> + Send + Sync,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut read = |plate: &Barcode| read(plate).map_err(|error| FoundError::Read(error.into()));
    let Profiled { features, earlier } = profiled;
    let frame = Frame::fit(design, settings, features, earlier, &mut read).map_err(ended)?;
    write_dropped(out, frame.selection())?;
    let features = frame.selection().map_or(features, |selection| selection.names());
    if let Some(transform) = frame.transform() {
        provenance.transform_sha256 = Some(keep_transform(out, transform)?);
    }
    let mut found = Found {
        tables: ComparisonTables::create(out, provenance)?,
        whole: WholeProfiles::new(design, settings, features, provenance, out)?,
        findings: aside,
        shown: ScreenComparison::default(),
        rows: 0,
        compounds: 0,
        calls: BTreeMap::new(),
        most_harmful: None,
        notes: 0,
        plates: 0,
    };
    stream(design, settings, &frame, read, unnamed_file(out)?, &mut found).map_err(ended)?;
    found.finish()
}

fn ended(error: StreamError<FoundError>) -> FoundError {
    match error {
        StreamError::Compare(error) => FoundError::Screen(error),
        StreamError::Caller(error) => error,
    }
}

impl Found {
    /// Completes the tables.
    fn finish(self) -> Result<Shown, FoundError> {
        // What this holds back for its last row group is not beside what the tables do.
        let (replicates, matrix) = self.whole.finish()?;
        self.tables.finish()?;
        let beyond = (self.compounds > self.shown.compounds.len()).then(|| {
            let calls = self.calls.iter().map(|(call, count)| format!("{count} {call}"));
            format!(
                "This page was given {} of {} compounds; compounds.parquet has all: {}",
                self.shown.compounds.len(),
                self.compounds,
                calls.collect::<Vec<_>>().join(", ")
            )
        });
        let mut comparison = self.shown;
        if let (Some(last), true) = (comparison.notes.last_mut(), self.notes > MOST_NOTES) {
            let more = self.notes - MOST_NOTES;
            last.text
                .push_str(&format!("; and {more} more notes of this kind or another"));
        }
        Ok(Shown {
            comparison,
            rows: self.rows,
            beyond,
            replicates,
            matrix,
            most_harmful: self.most_harmful,
            findings: self.findings.map(FindingsWriter::finish).transpose()?,
        })
    }
}

fn keep<T>(kept: &mut Vec<T>, most: usize, found: T) {
    if kept.len() < most {
        kept.push(found);
    }
}

impl Sink for Found {
    type Error = FoundError;

    fn plate(&mut self, plate: PlateRows<'_>) -> Result<(), FoundError> {
        self.plates += 1;
        memory::give_back_every(GIVE_BACK, self.plates);
        Ok(self.whole.plate(&plate)?)
    }

    fn perturbation(&mut self, profile: Perturbation) -> Result<(), FoundError> {
        Ok(self.whole.perturbation(&profile)?)
    }

    fn activity(&mut self, activity: Activity) -> Result<(), FoundError> {
        Ok(self.whole.activity(&activity)?)
    }

    fn well(&mut self, score: WellScore) -> Result<(), FoundError> {
        if self.shown.wells.len() < MOST_WELLS {
            self.shown.wells.push(score.clone());
        }
        Ok(self.tables.well(score)?)
    }

    fn window(&mut self, window: AssayWindow) -> Result<(), FoundError> {
        if self.shown.windows.len() < MOST_WINDOWS {
            self.shown.windows.push(window.clone());
        }
        Ok(self.tables.window(window)?)
    }

    fn row(&mut self, row: Comparison) -> Result<(), FoundError> {
        // Rows come after all plates.
        for note in self.whole.complete_matrix()? {
            self.note(note)?;
        }
        self.tables.row(&row)?;
        if let Some(findings) = &mut self.findings {
            findings.row(&row)?;
        }
        self.rows += 1;
        memory::give_back_every(GIVE_BACK_ROWS, self.rows);
        keep(&mut self.shown.rows, MOST_ROWS, row);
        Ok(())
    }

    fn compound(&mut self, mut summary: CompoundSummary) -> Result<(), FoundError> {
        summary.best_model_specificity = self.whole.specificity(&summary);
        self.tables.compound(&summary)?;
        if let Some(findings) = &mut self.findings {
            findings.compound(&summary)?;
        }
        self.compounds += 1;
        memory::give_back_every(GIVE_BACK_ROWS, self.compounds);
        *self.calls.entry(summary.call).or_default() += 1;
        let harm = |summary: &CompoundSummary| summary.max_off_z.unwrap_or(0.0);
        if summary.toxic_dose.is_some()
            && self
                .most_harmful
                .as_ref()
                .is_none_or(|worst| harm(&summary).total_cmp(&harm(worst)).is_ge())
        {
            self.most_harmful = Some(summary.clone());
        }
        // By rank within a disease: what is toxic comes last.
        let most = MOST_COMPOUNDS + if summary.call.is_finding() { MOST_CALLED } else { 0 };
        keep(&mut self.shown.compounds, most, summary);
        Ok(())
    }

    fn note(&mut self, note: Note) -> Result<(), FoundError> {
        self.notes += 1;
        keep(&mut self.shown.notes, MOST_NOTES, note);
        Ok(())
    }
}
