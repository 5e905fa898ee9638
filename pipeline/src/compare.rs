//! Compare: a complete run becomes profiles, comparisons and calls.
//!
//! A [`Collection`] enters and is read field by field in the plan's order (`fields`); profiles wait on disk
//! (`kept`), and what the wells were given in memory (`planned`), until every plate is read. Then plates are compared
//! one after the other (`found`), as `wellspring compare` does it with tables, by the mathematics of
//! `wellspring_workloads::compare`. [`Compared`] leaves. What fails: the disk; a screen that cannot be compared is an
//! answer, not a failure.

mod fields;
mod findings;
mod found;
mod kept;
mod planned;
mod plate_flags;
mod residuals;
mod signatures;
mod whole;

use std::collections::BTreeMap;
use std::path::Path;

use wellspring_workloads::compare::{CompareError, CompoundSummary};
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::words::{Barcode, WellPosition};

use crate::collect::Collection;
use crate::drift::Watch;
use crate::error::{Stage, StageError};
use crate::external::beyond::Asker;
use crate::report::{FlagCount, PlateFacts};
use crate::results::{ComparisonTables, Provenance};
use crate::runs::Run;
use crate::transforms::read_transform;
use fields::FieldReader;
use kept::KeptWriter;

/// Remarks on files that were passed over that the report has: those of more are counted.
const MOST_REMARKS: usize = 12;

pub use findings::{Finding, Findings, FindingsWriter};
pub use found::{FoundError, Profiled, Shown, compare_plates};
pub use kept::KeptProfiles;
pub use planned::Planned;
pub use signatures::{MatrixError, ShownEffect, ShownMatrix};
pub use whole::ReplicateCounts;

/// What a run comes to.
#[derive(Debug)]
pub struct Compared {
    /// Of every well with enough passing fields, but for those of plates that are held back.
    pub profiles: KeptProfiles,
    /// Why plates are held back, by plate.
    pub held: BTreeMap<Barcode, String>,
    /// What the comparison found, or why there is none.
    pub comparison: Result<Shown, CompareError>,
    /// The first plates with what their wells were given.
    pub plates: Vec<PlateFacts>,
    /// Plates in all.
    pub plate_count: usize,
    /// Wells of all plates.
    pub well_count: usize,
    /// How often each quality flag was raised.
    pub flags: Vec<FlagCount>,
    /// Wells and plates that were left out, in words.
    pub left_out: Vec<String>,
    /// What the watch over the control wells saw.
    pub drift: Watch,
}

impl Compared {
    /// Whether anything could be compared: an assay window or a treatment.
    pub fn has_result(&self) -> bool {
        self.no_result().is_none()
    }

    /// Why it has none.
    pub fn no_result(&self) -> Option<String> {
        match &self.comparison {
            Ok(shown) if shown.rows > 0 || !shown.comparison.windows.is_empty() => None,
            Ok(_) => Some("no treatment and no controls could be compared".to_owned()),
            Err(error) => Some(crate::error::chain(error)),
        }
    }
}

/// Writes the field and well tables into `out` while it builds profiles, then compares into its own tables there.
/// `asker` asks the steps of wells and plates; `provenance` gets the hash of the alignment, where there is one.
pub fn compare(
    run: &Run,
    collection: &mut Collection,
    map: Option<&PlateMap>,
    asker: &mut Asker<'_>,
    provenance: &mut Provenance,
    out: &Path,
) -> Result<Compared, StageError> {
    let screen = &run.screen;
    let mut reader = FieldReader::create(run, provenance, out).map_err(internal)?;
    let mut kept = KeptWriter::create(out).map_err(internal)?;
    let mut planned = Planned::default();
    let mut held = BTreeMap::new();
    let barcodes: Vec<Barcode> = collection.plates().cloned().collect();
    for barcode in &barcodes {
        let treatments = map
            .and_then(|map| screen.treatments(map, barcode).ok())
            .unwrap_or_default();
        reader.start_plate(barcode, treatments);
        for features in collection.fields(barcode)? {
            reader.push(&features?).map_err(internal)?;
        }
        let released = collection.published.released.contains(barcode);
        if let Some(plate) = reader.end_plate(released, asker)? {
            held.extend(plate.held.map(|reason| (barcode.clone(), reason)));
            kept.plate(barcode, &plate.wells).map_err(internal)?;
            planned.watch(screen, &plate.wells, plate.measured);
            planned.add(plate.facts, plate.wells.iter().map(|well| &well.treatment));
        }
    }
    let facts = reader.finish().map_err(internal)?;
    let profiles = kept.finish().map_err(internal)?;
    let drift = planned.judge(screen, provenance).map_err(internal)?;
    let mut left_out = facts.left_out;
    let incomplete = collection.incomplete.iter();
    left_out.extend(incomplete.map(|(plate, incomplete)| format!("plate {plate} was {incomplete}")));
    left_out.extend(remarks(collection));
    left_out.extend(drift.left_out.iter().cloned());
    let comparison = compare_kept(run, &mut planned, &profiles, provenance, out)?;
    Ok(Compared {
        profiles,
        held,
        comparison,
        plates: planned.facts,
        plate_count: planned.plates,
        well_count: planned.mapped_wells,
        flags: facts.flags,
        left_out,
        drift,
    })
}

/// What was passed over of plates' files, in words. Of a screen whose every plate has such files, the first.
fn remarks(collection: &Collection) -> Vec<String> {
    let all = collection.remarks.values().flatten();
    let mut told: Vec<String> = all.clone().take(MOST_REMARKS).cloned().collect();
    if let Some(more @ 1..) = all.count().checked_sub(MOST_REMARKS) {
        told.push(format!(
            "{more} more remarks on files that were passed over; `wellspring plates list` has all of them"
        ));
    }
    told
}

/// The comparison's tables, empty where the screen cannot be compared.
fn compare_kept(
    run: &Run,
    planned: &mut Planned,
    profiles: &KeptProfiles,
    provenance: &mut Provenance,
    out: &Path,
) -> Result<Result<Shown, CompareError>, StageError> {
    let found = planned.design().map_err(FoundError::Screen).and_then(|design| {
        let aside = FindingsWriter::create(out)?;
        let profiled = Profiled {
            features: run.feature_names(),
            earlier: read_transform(&run.screen.comparison.transform)?,
        };
        let read = |plate: &Barcode| profiles.plate(plate);
        compare_plates(
            &design,
            &run.screen.comparison,
            profiled,
            read,
            Some(aside),
            provenance,
            out,
        )
    });
    match found {
        Ok(shown) => Ok(Ok(shown)),
        // The disk is no property of the screen.
        Err(FoundError::Screen(error)) if !matches!(error, CompareError::Spool { .. }) => {
            let empty = ComparisonTables::create(out, provenance);
            empty.and_then(ComparisonTables::finish).map_err(internal)?;
            Ok(Err(error))
        }
        Err(error) => Err(internal(error)),
    }
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> StageError {
    StageError::internal(Stage::Compare, error)
}

/// A well whose image the report shows, and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// What it shows.
    pub label: String,
    /// The plate.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
}

/// Whether a treatment is the one that is wanted.
type Wanted<'a> = Box<dyn Fn(&Treatment) -> bool + 'a>;

/// One well of each control role, and of the best and the most harmful treatment: the first that has a profile.
pub fn exemplars(compared: &Compared) -> Result<Vec<Exemplar>, StageError> {
    let Ok(shown) = &compared.comparison else {
        return Ok(Vec::new());
    };
    let comparison = &shown.comparison;
    let unit = comparison.rows.first().map_or("", |row| row.dose_unit.as_str());
    let treated = |summary: Option<&CompoundSummary>, dose: Option<f64>| -> Option<(String, Wanted<'_>)> {
        let (compound, dose) = (summary?.compound.clone(), dose?);
        let label = format!("{} {dose} {unit}", compound.as_deref().unwrap_or("treated"));
        let wanted = move |given: &Treatment| given.compound == compound && given.dose == Some(dose);
        Some((label, Box::new(wanted)))
    };
    let of_role = |label: &str, role: Role| -> Option<(String, Wanted<'_>)> {
        Some((label.to_owned(), Box::new(move |given| given.role == role)))
    };
    let best = comparison.compounds.iter().find(|summary| summary.rank == 1);
    let worst = shown.most_harmful.as_ref();
    let wanted = [
        of_role("reference", Role::Reference),
        of_role("phenotype", Role::Phenotype),
        treated(best, best.and_then(|summary| summary.best_dose)),
        treated(worst, worst.and_then(|summary| summary.toxic_dose)),
    ];
    let wanted: Vec<(String, Wanted<'_>)> = wanted.into_iter().flatten().collect();
    let mut found: Vec<Option<Exemplar>> = vec![None; wanted.len()];
    for plate in compared.profiles.plates() {
        if found.iter().all(Option::is_some) {
            break;
        }
        let wells = compared.profiles.wells(plate).map_err(internal)?;
        for ((label, wanted), found) in wanted.iter().zip(&mut found) {
            if found.is_none()
                && let Some(well) = wells.iter().find(|well| wanted(&well.treatment))
            {
                *found = Some(Exemplar {
                    label: label.clone(),
                    plate: plate.clone(),
                    well: well.well,
                });
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}
