//! Features of one run as those of another, plate by plate.
//!
//! A plate of a collected run enters; its records leave under the new run's name, in batches, each with the content it was made
//! from in its id. What fails: Kafka, and the scratch file's disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sha2::{Digest, Sha256};
use wellspring_workloads::screen::QualitySettings;
use wellspring_workloads::words::{Barcode, FieldId};

use super::{ReplayError, TRIES};
use crate::collect::{Collection, Field};
use crate::error::Stage;
use crate::events::{DeadLetter, FieldFeatures, RunId, Status};
use crate::ids;
use crate::kafka::OutRecord;
use crate::kafka::producer::{BatchProducer, TRANSACTION_BYTES};
use crate::kafka::topics::Topic;
use crate::quality::judge_again;

/// Publishes one plate of the new run: its features in batches, then its letters and its plan. The plan comes last and
/// says that the plate is whole.
pub(super) fn take_over<'a>(
    producer: &mut BatchProducer,
    collection: &mut Collection,
    plate: &Barcode,
    new: &NewRun<'_>,
    letters: impl Iterator<Item = &'a DeadLetter>,
    shading: Option<String>,
) -> Result<u64, ReplayError> {
    let run = new.id;
    let Copied {
        fields: copied,
        mut batch,
        published,
    } = copy_features(producer, collection, plate, new, |_| true)?;
    let mut failed = BTreeSet::new();
    let mut plan_letters: BTreeMap<String, u32> = BTreeMap::new();
    for letter in letters {
        match (letter.well, letter.field) {
            (Some(well), Some(field)) if letter.stage != Stage::Plan => {
                // Tried again with success.
                if copied.contains(&(well, field)) {
                    continue;
                }
                failed.insert((well, field));
            }
            _ => {}
        }
        let letter = DeadLetter {
            id: letter_id(run, &letter.id),
            run: Some(run.clone()),
            ..letter.clone()
        };
        if letter.stage == Stage::Plan || letter.field.is_none() {
            plan_letters.insert(letter.id.clone(), letter.fields_lost);
        }
        batch.push(crate::dead_letters::record(&letter)?);
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let fields_planned = count(copied.len() + failed.len());
    let planned = Status::PlatePlanned {
        run: run.clone(),
        plate: plate.clone(),
        fields_expected: fields_planned + plan_letters.values().sum::<u32>(),
        fields_planned,
        dead_letters: count(plan_letters.len()),
        shading,
        incomplete: collection.incomplete.get(plate).cloned(),
        remarks: collection.remarks.get(plate).cloned().unwrap_or_default(),
    };
    // Made from the records of another run.
    let content = ids::content([collection.run().as_str()]);
    let planned_id = ids::of_plate(run, plate, "planned", &content);
    batch.push(OutRecord::status(planned_id, &planned)?);
    producer.publish_once(TRIES, &batch)?;
    Ok(published)
}

/// The run that features are copied for.
pub(super) struct NewRun<'a> {
    pub(super) id: &'a RunId,
    /// Its gates: what was measured is judged by them.
    pub(super) quality: &'a QualitySettings,
    /// Fields that it has already.
    pub(super) present: &'a HashSet<FieldId>,
}

/// What was copied of a plate's features.
pub(super) struct Copied {
    /// The fields, those that were there before included.
    pub(super) fields: HashSet<Field>,
    /// Records that are still to be published, with what closes the plate.
    pub(super) batch: Vec<OutRecord>,
    /// How many records are new.
    pub(super) published: u64,
}

/// Publishes features of a plate for another run, all but the last batch: of the fields that are `wanted` and not there yet.
/// Each keeps the content it was made from in its id.
pub(super) fn copy_features(
    producer: &mut BatchProducer,
    collection: &mut Collection,
    plate: &Barcode,
    new: &NewRun<'_>,
    wanted: impl Fn(&Field) -> bool,
) -> Result<Copied, ReplayError> {
    let otherwise = ids::content([collection.run().as_str()]);
    let mut copied = Copied {
        fields: HashSet::new(),
        batch: Vec::new(),
        published: 0,
    };
    let mut bytes = 0;
    for field in collection.fields_and_contents(plate)? {
        let (features, content) = field?;
        let at = (features.field.well, features.field.field);
        if !wanted(&at) {
            continue;
        }
        copied.fields.insert(at);
        if new.present.contains(&features.field) {
            continue;
        }
        let run = new.id;
        let mut features = FieldFeatures {
            run: run.clone(),
            ..features
        };
        judge_again(&mut features, new.quality);
        let content = content.map_or_else(|| otherwise.clone(), |content| content.to_string());
        let id = ids::of_field(run, &features.field, "features", &content);
        let record = OutRecord::new(
            Topic::Features,
            plate.as_str(),
            id,
            "wellspring.features.v1",
            &features,
        )?;
        bytes += record.value.len();
        copied.batch.push(record);
        copied.published += 1;
        if bytes >= TRANSACTION_BYTES {
            producer.publish_once(TRIES, &copied.batch)?;
            copied.batch.clear();
            bytes = 0;
        }
    }
    Ok(copied)
}

fn letter_id(run: &RunId, old: &str) -> String {
    let digest = Sha256::digest(format!("{run}\0{old}").as_bytes());
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
