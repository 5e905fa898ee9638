//! Collect: fields are gathered into plates, and plates into runs, until every field is accounted for.
//!
//! Features, dead letters and statuses enter, read from the beginning of their topics, so that a collector that
//! starts again after any crash knows what the last one knew. A [`Collection`] leaves when its run is complete.
//! Embeddings wait in a scratch file, not in memory; memory is one index entry per field of plates that are not complete,
//! and counts of the others (`plate`). A record seen twice counts once. What fails: Kafka, and the scratch file's disk.

mod plate;
mod published;

pub use self::plate::Field;
pub use self::published::Published;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wellspring_workloads::words::Barcode;

use crate::error::{Domain, Stage, StageError};
use crate::events::{DeadLetter, FieldFeatures, LetterAction, RunId, Status};
use crate::ids::Content;
use crate::kafka::tail::TailRecord;
use crate::kafka::topics::Topic;
use crate::schemas::{Schemas, Unreadable};
use crate::scratch::{ScratchError, ScratchWriter};
use plate::{Planned, PlateFields, Record};

/// A field's features, and what they were made from, where their id says so.
pub type FieldWithContent = (FieldFeatures, Option<Content>);

/// One run's fields, as far as they have arrived.
#[derive(Debug)]
pub struct Collection {
    run: RunId,
    /// When it was first submitted, in milliseconds since 1970 UTC.
    submitted_ms: Option<u64>,
    /// What of it is on its topics already.
    pub published: Published,
    plates: BTreeMap<Barcode, PlateFields>,
    /// By id, each with its offset: a failure that comes again has the same id.
    letters: BTreeMap<String, (i64, DeadLetter)>,
    /// Offsets of letters whose records were published again: they count no more.
    retried: BTreeSet<i64>,
    /// What never came of plates that were finished while they were being imaged.
    pub incomplete: BTreeMap<Barcode, String>,
    /// What was passed over of plates' files.
    pub remarks: BTreeMap<Barcode, Vec<String>>,
    scratch: ScratchWriter,
    /// How to read what lies in the scratch file.
    schemas: Schemas,
}

/// How far a run is, in fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Plates of the run.
    pub plates: usize,
    /// Plates planned.
    pub plates_planned: usize,
    /// Fields the planned plates should have.
    pub expected: u32,
    /// Fields with features.
    pub done: u32,
    /// Fields that failed for good.
    pub failed: u32,
    /// Dead letters.
    pub dead_letters: usize,
}

impl Progress {
    /// Fields that neither arrived nor failed: 0 when the run is complete.
    pub fn lost(&self) -> u32 {
        self.expected.saturating_sub(self.done + self.failed)
    }
}

impl Collection {
    /// An empty collection; `folder` takes the scratch file, and letters at the offsets `retried` do not count.
    pub fn open(run: &RunId, folder: &Path, retried: BTreeSet<i64>) -> Result<Self, StageError> {
        Ok(Self {
            run: run.clone(),
            submitted_ms: None,
            published: Published::default(),
            plates: BTreeMap::new(),
            letters: BTreeMap::new(),
            retried,
            incomplete: BTreeMap::new(),
            remarks: BTreeMap::new(),
            scratch: ScratchWriter::create(folder).map_err(disk)?,
            schemas: Schemas::default(),
        })
    }

    /// Takes a record of any topic; those of other runs change nothing, nor do letters about events of which nobody could
    /// tell the run.
    pub fn take(&mut self, record: &TailRecord) -> Result<(), StageError> {
        match record.topic {
            Topic::Features => match record.read::<FieldFeatures>() {
                Ok(features) if features.run == self.run => self.take_features(&features, record)?,
                Ok(_) => {}
                Err(error) => pass_over(record, error)?,
            },
            Topic::DeadLetters => match record.read::<DeadLetter>() {
                Ok(letter) => self.take_letter(record.offset, letter)?,
                Err(error) => pass_over(record, error)?,
            },
            Topic::Status => match record.read::<Status>() {
                Ok(status) if *status.run() == self.run => self.take_status(status)?,
                Ok(_) => {}
                Err(error) => pass_over(record, error)?,
            },
            _ => {}
        }
        Ok(())
    }

    fn take_features(&mut self, features: &FieldFeatures, record: &TailRecord) -> Result<(), StageError> {
        if self.published.cancelled.contains(&features.field.plate) {
            return Ok(());
        }
        self.schemas = record.schemas.clone();
        let plate = self.plates.entry(features.field.plate.clone()).or_default();
        let field = (features.field.well, features.field.field);
        plate
            .arrive(
                field,
                (&record.value, Content::of_id(&record.id)),
                &mut self.scratch,
            )
            .and_then(|()| plate.settle(&mut self.scratch))
            .map_err(disk)
    }

    fn take_letter(&mut self, offset: i64, letter: DeadLetter) -> Result<(), StageError> {
        let is_cancelled = |plate| self.published.cancelled.contains(plate);
        if letter.run.as_ref() != Some(&self.run)
            || self.retried.contains(&offset)
            || letter.plate.as_ref().is_some_and(is_cancelled)
        {
            return Ok(());
        }
        // What a step was asked about wells and plates concerns no field.
        if let Some(plate) = letter.plate.as_ref().filter(|_| letter.step.is_none()) {
            let fields = self.plates.entry(plate.clone()).or_default();
            match failed_field(&letter) {
                Some(field) => fields.fail(field, true, &mut self.scratch).map_err(disk)?,
                None => {
                    fields.plan_letters.insert(letter.id.clone());
                }
            }
            fields.settle(&mut self.scratch).map_err(disk)?;
        }
        self.letters.insert(letter.id.clone(), (offset, letter));
        Ok(())
    }

    /// The letters at these offsets are being tried again: what they are about is open once more.
    fn take_retried(&mut self, offsets: Vec<i64>) -> Result<(), StageError> {
        self.retried.extend(offsets);
        let (gone, stay) = std::mem::take(&mut self.letters)
            .into_iter()
            .partition(|(_, (offset, _))| self.retried.contains(offset));
        let gone: BTreeMap<String, (i64, DeadLetter)> = gone;
        self.letters = stay;
        for (id, (_, letter)) in gone {
            let Some(fields) = letter.plate.as_ref().and_then(|plate| self.plates.get_mut(plate)) else {
                continue;
            };
            match failed_field(&letter) {
                Some(field) => fields.fail(field, false, &mut self.scratch).map_err(disk)?,
                None => {
                    fields.plan_letters.remove(&id);
                }
            }
        }
        Ok(())
    }

    fn take_status(&mut self, status: Status) -> Result<(), StageError> {
        self.published.take(&status);
        if let Some(plate) = status.plate()
            && self.published.cancelled.contains(plate)
        {
            self.forget(plate);
            return Ok(());
        }
        match status {
            Status::RunSubmitted { plates, time_ms, .. } => {
                self.submitted_ms.get_or_insert(time_ms);
                plates.iter().for_each(|plate| self.forget_nothing(plate));
            }
            Status::PlateQueued { plate, .. } => self.forget_nothing(&plate),
            Status::PlateImaging { plate, planned, .. } => {
                self.forget_nothing(&plate);
                let fields: usize = planned.iter().map(|of| of.fields.len()).sum();
                let plate = self.plates.entry(plate).or_default();
                let imaged = plate.imaged.get_or_insert(0);
                *imaged = imaged.saturating_add(u32::try_from(fields).unwrap_or(u32::MAX));
            }
            Status::PlatePlanned {
                plate,
                fields_expected,
                fields_planned,
                dead_letters,
                incomplete,
                remarks,
                ..
            } => {
                self.remarks.remove(&plate);
                if !remarks.is_empty() {
                    self.remarks.insert(plate.clone(), remarks);
                }
                self.incomplete
                    .extend(incomplete.map(|incomplete| (plate.clone(), incomplete)));
                let planned = Planned {
                    expected: fields_expected,
                    planned: fields_planned,
                    letters: dead_letters,
                };
                // A plate is planned again only where nothing of it could be planned before.
                let plate = self.plates.entry(plate).or_default();
                plate.planned = Some(planned);
                plate.settle(&mut self.scratch).map_err(disk)?;
            }
            Status::LettersResolved {
                action: LetterAction::Retried,
                offsets,
                ..
            } => self.take_retried(offsets)?,
            // What they say is all in `published`.
            Status::PlateProfiled { .. }
            | Status::PlateReleased { .. }
            | Status::ComparisonsPublished { .. }
            | Status::RunFinished { .. }
            | Status::RunSteered { .. }
            | Status::PlateSteered { .. }
            | Status::LettersResolved { .. } => {}
        }
        Ok(())
    }

    /// A plate is none of the run any more.
    fn forget(&mut self, plate: &Barcode) {
        self.plates.remove(plate);
        self.incomplete.remove(plate);
        self.remarks.remove(plate);
        self.letters
            .retain(|_, (_, letter)| letter.plate.as_ref() != Some(plate));
    }

    /// A plate that came to nothing is announced again: another plan follows.
    fn forget_nothing(&mut self, plate: &Barcode) {
        if let Some(plate) = self.plates.get_mut(plate) {
            plate.forget_nothing();
        }
    }

    /// Whether every plate is planned and each of its fields has arrived or failed.
    pub fn complete(&self) -> bool {
        let complete = |plate: &Barcode| self.plates.get(plate).is_some_and(PlateFields::complete);
        // Of which every plate was cancelled one waits for others.
        let is_empty = self.published.members.is_empty() && !self.published.cancelled.is_empty();
        self.submitted_ms.is_some()
            && !is_empty
            && self.published.members.iter().all(complete)
            && !self.plates.values().any(PlateFields::is_open)
    }

    /// Whether a plate is planned and each of its fields has arrived or failed, or nothing is known of it any more.
    pub fn is_complete(&self, plate: &Barcode) -> bool {
        let came_to_nothing = || self.published.profiled.contains(plate);
        self.plates
            .get(plate)
            .map_or_else(came_to_nothing, PlateFields::complete)
    }

    /// How far the run is.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            plates: self.published.members.len(),
            dead_letters: self.letters.len(),
            ..Progress::default()
        };
        for plate in self.plates.values() {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            progress.done += count(plate.done());
            progress.failed += count(plate.failed());
            match plate.planned {
                Some(planned) => {
                    progress.plates_planned += 1;
                    progress.expected += planned.expected;
                    progress.failed += planned.expected - planned.planned;
                }
                None => progress.expected += plate.imaged.unwrap_or(0),
            }
        }
        progress
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// When the run was first submitted, in milliseconds since 1970 UTC; `None` where that was not read yet.
    pub fn submitted_ms(&self) -> Option<u64> {
        self.submitted_ms
    }

    /// The plates, in order.
    pub fn plates(&self) -> impl Iterator<Item = &Barcode> {
        self.plates.keys()
    }

    /// Dead letters, by plate, well, field and class.
    pub fn letters(&self) -> Vec<&DeadLetter> {
        let mut letters: Vec<&DeadLetter> = self.letters.values().map(|(_, letter)| letter).collect();
        letters.sort_by_key(|letter| (&letter.plate, letter.well, letter.field, letter.class, &letter.id));
        letters
    }

    /// Adds a letter that is made while the run is finished, and is on its topic soon.
    pub fn add_letter(&mut self, letter: DeadLetter) {
        self.letters.insert(letter.id.clone(), (i64::MAX, letter));
    }

    /// The features of a plate's fields in the plan's order, read one by one from the scratch file.
    pub fn fields(
        &mut self,
        plate: &Barcode,
    ) -> Result<impl Iterator<Item = Result<FieldFeatures, StageError>> + use<'_>, StageError> {
        Ok(self.fields_and_contents(plate)?.map(|field| Ok(field?.0)))
    }

    /// The features of a plate's fields as [`Collection::fields`] has them, each with what it was made from.
    pub fn fields_and_contents(
        &mut self,
        plate: &Barcode,
    ) -> Result<impl Iterator<Item = Result<FieldWithContent, StageError>> + use<'_>, StageError> {
        let index = self.index(plate)?;
        let (scratch, schemas) = (&self.scratch, &self.schemas);
        Ok(index.into_iter().map(move |(_, record)| {
            let features = schemas
                .read(Topic::Features, &scratch.read(record.place).map_err(disk)?)
                .map_err(|error| StageError::internal(Stage::Collect, error))?;
            Ok((features, record.content))
        }))
    }

    /// What the features of a plate's fields were made from, as far as their ids say.
    pub fn contents(&mut self, plate: &Barcode) -> Result<BTreeMap<Field, Content>, StageError> {
        let index = self.index(plate)?.into_iter();
        Ok(index
            .filter_map(|(field, record)| Some((field, record.content?)))
            .collect())
    }

    fn index(&mut self, plate: &Barcode) -> Result<Vec<(Field, Record)>, StageError> {
        match self.plates.get(plate) {
            Some(plate) => plate.index(&mut self.scratch).map_err(disk),
            None => Ok(Vec::new()),
        }
    }
}

/// The field of a letter about a planned field. What failed in planning is not among the planned fields; what failed
/// later is, and names its field.
fn failed_field(letter: &DeadLetter) -> Option<Field> {
    Some((letter.well?, letter.field?)).filter(|_| letter.stage != Stage::Plan)
}

/// Passes over a record that cannot be read; one that could be, if the registry answered, is an error.
pub(crate) fn pass_over(record: &TailRecord, error: Unreadable) -> Result<(), StageError> {
    let error = record.unreadable(error).stage_error(Stage::Collect);
    if error.domain == Domain::Internal {
        return Err(error);
    }
    let message = error.chain();
    tracing::warn!(message, "a record is passed over");
    Ok(())
}

fn disk(error: ScratchError) -> StageError {
    StageError::internal(Stage::Collect, error)
}

#[cfg(test)]
mod tests;
