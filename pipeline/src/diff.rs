//! Diff: what differs between two runs, and how they were made differently. All of it comes from the log.
//!
//! Two runs enter; a [`Difference`] leaves: parts of the screens, the networks and planes; wells whose profiles are others;
//! calls that changed, each with the scores that make it. Profiles of the first run wait in a temporary file, and of its
//! comparisons some bytes each. What fails: Kafka, a run that was never submitted, the disk.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wellspring_workloads::compare::Call;
use wellspring_workloads::words::{Barcode, WellPosition};

use crate::events::{ComparisonRecord, RunId, WellRecord};
use crate::identity::different_parts;
use crate::kafka::tail::{Start, read_to_end};
use crate::kafka::topics::Topic;
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::replay::{ReplayError, find};
use crate::scratch::{Place, ScratchError, ScratchWriter};

/// Wells that are named: those whose profiles turned the furthest.
const NAMED_WELLS: usize = 20;

/// Why two runs could not be held beside each other.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A run was never submitted.
    #[error(transparent)]
    Run(#[from] ReplayError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
    /// The temporary file.
    #[error(transparent)]
    Disk(#[from] ScratchError),
}

/// What differs between run `a` and run `b`.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The first run.
    pub a: RunId,
    /// The second run.
    pub b: RunId,
    /// How they were made differently, a line each; none where they were made alike.
    pub made: Vec<String>,
    /// Plates of `a` alone.
    pub plates_of_a: Vec<Barcode>,
    /// Plates of `b` alone.
    pub plates_of_b: Vec<Barcode>,
    /// Profiles of wells.
    pub wells: Wells,
    /// Comparisons of a compound at a dose with a disease model, and of a compound over its doses.
    pub comparisons: Comparisons,
}

impl Difference {
    /// Whether the results of the two runs differ; how they were made is left out.
    pub fn is_any(&self) -> bool {
        let (wells, of) = (&self.wells, &self.comparisons);
        wells.changed + wells.of_a + wells.of_b + of.changed.len() + of.of_a + of.of_b > 0
    }
}

/// Profiles of wells in both runs.
#[derive(Debug, Default, Serialize)]
pub struct Wells {
    /// In both, bit for bit the same.
    pub same: usize,
    /// In both, not the same.
    pub changed: usize,
    /// Of other networks: as many values they do not have, so no cosine can be told.
    pub incomparable: usize,
    /// In `a` alone.
    pub of_a: usize,
    /// In `b` alone.
    pub of_b: usize,
    /// Those that turned the furthest, by the cosine between the two profiles, the furthest first.
    pub furthest: Vec<Well>,
}

/// A well whose profile changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Well {
    /// Its plate.
    pub plate: Barcode,
    /// Its place.
    pub well: WellPosition,
    /// Cosine between the two profiles, from -1 to 1.
    pub cosine: f64,
    /// Fields averaged in `a` and in `b`.
    pub fields: (u32, u32),
}

/// Comparisons in both runs.
#[derive(Debug, Default, Serialize)]
pub struct Comparisons {
    /// In both, with the same call.
    pub same_call: usize,
    /// In `a` alone.
    pub of_a: usize,
    /// In `b` alone.
    pub of_b: usize,
    /// Largest change of a rescue score, where both have one.
    pub largest_rescue_change: f64,
    /// Those whose call changed, by disease model, compound and dose.
    pub changed: Vec<Change>,
}

/// A call that changed, with what makes it, in `a` and in `b`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Disease model.
    pub disease: Option<String>,
    /// Compound.
    pub compound: Option<String>,
    /// Dose; absent for the compound over all its doses.
    pub dose: Option<f64>,
    /// The calls.
    pub call: (Call, Call),
    /// Rescue; the best over the doses.
    pub rescue: (Option<f64>, Option<f64>),
    /// q-value; the smallest over the doses.
    pub q_value: (Option<f64>, Option<f64>),
    /// Off-axis z; the largest over the doses.
    pub off_z: (Option<f64>, Option<f64>),
    /// Wells, or doses of the compound.
    pub count: (usize, usize),
}

/// Holds two runs beside each other; `scratch` is a folder for a temporary file. Blocking.
///
/// # Errors
/// A run was never submitted; Kafka cannot be read; the file cannot be written.
pub fn diff(kafka: &KafkaSettings, a: &RunId, b: &RunId, scratch: &Path) -> Result<Difference, DiffError> {
    let (old, new) = (find(kafka, a)?, find(kafka, b)?);
    let mut made: Vec<String> = different_parts(&old.screen, &new.screen)
        .into_iter()
        .filter(|part| {
            !matches!(
                &**part,
                "[screen] name" | "[screen] version" | "[screen] description"
            )
        })
        .map(|part| format!("{part} of the screens"))
        .collect();
    if let (Some(was), Some(is)) = (&old.model, &new.model)
        && was != is
    {
        made.push(format!("the network: {}, then {}", was.told(is), is.told(was)));
    }
    for plate in old.plates.intersection(&new.plates) {
        if old.shadings.get(plate) != new.shadings.get(plate) {
            made.push(format!("illumination functions or dark-fields of plate {plate}"));
        }
    }
    Ok(Difference {
        a: a.clone(),
        b: b.clone(),
        made,
        plates_of_a: old.plates.difference(&new.plates).cloned().collect(),
        plates_of_b: new.plates.difference(&old.plates).cloned().collect(),
        wells: wells(kafka, a, b, scratch)?,
        comparisons: comparisons(kafka, a, b)?,
    })
}

/// Hands what a topic has of a run to `take`, in order. What is published again stands again. Records that cannot be read
/// are other readers' to report.
fn each<E: DeserializeOwned>(
    kafka: &KafkaSettings,
    topic: Topic,
    mut take: impl FnMut(E) -> Result<(), DiffError>,
) -> Result<(), DiffError> {
    read_to_end(kafka, topic, &Start::Beginning, |record| {
        match record.read() {
            Ok(event) => take(event)?,
            Err(error) => {
                let message = crate::error::chain(&record.unreadable(error));
                tracing::warn!(message, "a record is passed over");
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn wells(kafka: &KafkaSettings, a: &RunId, b: &RunId, scratch: &Path) -> Result<Wells, DiffError> {
    type Key = (Barcode, WellPosition);
    let mut file = ScratchWriter::create(scratch)?;
    let mut of_a: HashMap<Key, (u32, Place)> = HashMap::new();
    let mut of_b: HashMap<Key, (u32, Place)> = HashMap::new();
    each(kafka, Topic::Profiles, |well: WellRecord| {
        let of = match &well.run {
            run if run == a => &mut of_a,
            run if run == b => &mut of_b,
            _ => return Ok(()),
        };
        let place = file.push_values(well.embedding.into_iter())?;
        of.insert((well.plate, well.well), (well.fields, place));
        Ok(())
    })?;
    let file = file.finish()?;
    let (mut was, mut is) = (Vec::new(), Vec::new());
    let mut wells = Wells::default();
    for (key, (fields_a, place_a)) in &of_a {
        let Some((fields_b, place_b)) = of_b.get(key) else {
            wells.of_a += 1;
            continue;
        };
        was.clear();
        is.clear();
        file.read_values(*place_a, &mut was)?;
        file.read_values(*place_b, &mut is)?;
        if was
            .iter()
            .map(|value| value.to_bits())
            .eq(is.iter().map(|value| value.to_bits()))
        {
            wells.same += 1;
            continue;
        }
        wells.changed += 1;
        let Some(cosine) = cosine(&was, &is) else {
            wells.incomparable += 1;
            continue;
        };
        wells.furthest.push(Well {
            plate: key.0.clone(),
            well: key.1,
            cosine,
            fields: (*fields_a, *fields_b),
        });
        if wells.furthest.len() > 100 * NAMED_WELLS {
            keep_furthest(&mut wells.furthest);
        }
    }
    keep_furthest(&mut wells.furthest);
    wells.of_b = of_b.keys().filter(|key| !of_a.contains_key(*key)).count();
    Ok(wells)
}

fn keep_furthest(wells: &mut Vec<Well>) {
    wells.sort_by(|x, y| {
        let place = |well: &Well| (well.plate.clone(), well.well);
        x.cosine
            .total_cmp(&y.cosine)
            .then_with(|| place(x).cmp(&place(y)))
    });
    wells.truncate(NAMED_WELLS);
}

/// `None` for profiles of unlike lengths, and where one of them has none.
fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    cosine.is_finite().then_some(cosine)
}

/// What is kept of a comparison of the first run.
#[derive(Debug, Clone, Copy)]
struct Row {
    call: Call,
    rescue: Option<f64>,
    q_value: Option<f64>,
    off_z: Option<f64>,
    count: usize,
}

/// What a comparison is of.
#[derive(Debug, Clone, PartialEq)]
struct Subject {
    disease: Option<String>,
    compound: Option<String>,
    dose: Option<f64>,
    whole: bool,
}

impl Subject {
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (
            &self.disease,
            &self.compound,
            self.dose.map(f64::to_bits),
            self.whole,
        )
            .hash(&mut hasher);
        hasher.finish()
    }
}

fn row_of(record: ComparisonRecord) -> (RunId, Subject, Row) {
    match record {
        ComparisonRecord::Dose { run, comparison, .. } => {
            let row = Row {
                call: comparison.call,
                rescue: comparison.rescue,
                q_value: comparison.q_value,
                off_z: comparison.off_z,
                count: comparison.n_wells,
            };
            let subject = Subject {
                disease: comparison.disease,
                compound: comparison.compound,
                dose: comparison.dose,
                whole: false,
            };
            (run, subject, row)
        }
        ComparisonRecord::Compound { run, summary, .. } => {
            let row = Row {
                call: summary.call,
                rescue: summary.best_rescue,
                q_value: summary.min_q,
                off_z: summary.max_off_z,
                count: summary.n_doses,
            };
            let subject = Subject {
                disease: summary.disease,
                compound: summary.compound,
                dose: None,
                whole: true,
            };
            (run, subject, row)
        }
    }
}

fn comparisons(kafka: &KafkaSettings, a: &RunId, b: &RunId) -> Result<Comparisons, DiffError> {
    let mut of_a: HashMap<u64, Row> = HashMap::new();
    each(kafka, Topic::Comparisons, |record: ComparisonRecord| {
        let (run, subject, row) = row_of(record);
        if run == *a {
            of_a.insert(subject.digest(), row);
        }
        Ok(())
    })?;
    // By what was published last: a record may be replaced by a later one. `true`: in both.
    let mut of_b: HashMap<u64, (bool, f64)> = HashMap::new();
    let mut changed: BTreeMap<u64, Change> = BTreeMap::new();
    each(kafka, Topic::Comparisons, |record: ComparisonRecord| {
        let (run, subject, is) = row_of(record);
        if run != *b {
            return Ok(());
        }
        let key = subject.digest();
        changed.remove(&key);
        let Some(was) = of_a.get(&key) else {
            of_b.insert(key, (false, 0.0));
            return Ok(());
        };
        let moved = match (was.rescue, is.rescue) {
            (Some(was), Some(is)) => (is - was).abs(),
            _ => 0.0,
        };
        of_b.insert(key, (true, moved));
        if was.call != is.call {
            let change = Change {
                disease: subject.disease,
                compound: subject.compound,
                dose: subject.dose,
                call: (was.call, is.call),
                rescue: (was.rescue, is.rescue),
                q_value: (was.q_value, is.q_value),
                off_z: (was.off_z, is.off_z),
                count: (was.count, is.count),
            };
            changed.insert(key, change);
        }
        Ok(())
    })?;
    let both = of_b.values().filter(|(both, _)| *both).count();
    let mut changed: Vec<Change> = changed.into_values().collect();
    changed.sort_by(|x, y| {
        (&x.disease, &x.compound)
            .cmp(&(&y.disease, &y.compound))
            .then_with(|| x.dose.unwrap_or(-1.0).total_cmp(&y.dose.unwrap_or(-1.0)))
    });
    Ok(Comparisons {
        same_call: both - changed.len(),
        of_a: of_a.len() - both,
        of_b: of_b.len() - both,
        largest_rescue_change: of_b.values().map(|(_, moved)| *moved).fold(0.0, f64::max),
        changed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_compared_where_they_can_be() {
        assert_eq!(cosine(&[1.0, 0.0], &[2.0, 0.0]), Some(1.0));
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), Some(0.0));
        assert_eq!(cosine(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(cosine(&[0.0], &[1.0]), None);
        assert_eq!(cosine(&[f32::NAN], &[1.0]), None);
    }

    #[test]
    fn the_wells_that_turned_the_furthest_are_kept_in_order() {
        let well = |number: u32| Well {
            plate: "P".parse().unwrap(),
            well: "A01".parse().unwrap(),
            cosine: f64::from(number % 50) / 50.0,
            fields: (number, number),
        };
        let mut wells: Vec<Well> = (0..100).map(well).collect();
        keep_furthest(&mut wells);
        assert_eq!(wells.len(), NAMED_WELLS);
        assert!(wells.is_sorted_by(|x, y| x.cosine <= y.cosine));
        assert!(wells.iter().all(|well| well.cosine < 0.2));
    }
}
