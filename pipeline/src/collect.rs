//! Collect: fields are gathered into plates, and plates into runs, until every field is accounted for.
//!
//! Features, dead letters and statuses enter, read from the beginning of their topics, so that a collector that
//! starts again after any crash knows what the last one knew. A [`Collection`] leaves when its run is complete.
//! Embeddings wait in a scratch file, not in memory; memory is one index entry per field of plates that are not complete,
//! and counts of the others (`plate`). A record seen twice counts once. What fails: Kafka, and the scratch file's disk.

mod plate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wellspring_workloads::words::Barcode;

use crate::error::{Domain, Stage, StageError};
use crate::events::{DeadLetter, FieldFeatures, LetterAction, RunId, Status};
use crate::kafka::tail::TailRecord;
use crate::kafka::topics::Topic;
use crate::schemas::{Schemas, Unreadable};
use crate::scratch::{ScratchError, ScratchWriter};
use plate::{Field, Planned, PlateFields};

/// One run's fields, as far as they have arrived.
#[derive(Debug)]
pub struct Collection {
    run: RunId,
    submitted: Option<Submitted>,
    plates: BTreeMap<Barcode, PlateFields>,
    /// By id, each with its offset: a failure that comes again has the same id.
    letters: BTreeMap<String, (i64, DeadLetter)>,
    /// Offsets of letters whose records were published again: they count no more.
    retried: BTreeSet<i64>,
    /// Plates whose profiles are on their topic already.
    pub profiled: BTreeSet<Barcode>,
    /// How many comparisons are on their topic already.
    pub comparisons_published: u64,
    /// Whether all comparisons are on their topic already.
    pub finished: bool,
    scratch: ScratchWriter,
    /// How to read what lies in the scratch file.
    schemas: Schemas,
}

#[derive(Debug)]
struct Submitted {
    plates: BTreeSet<Barcode>,
    time_ms: u64,
}

/// How far a run is, in fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Plates announced with the run.
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
            submitted: None,
            plates: BTreeMap::new(),
            letters: BTreeMap::new(),
            retried,
            profiled: BTreeSet::new(),
            comparisons_published: 0,
            finished: false,
            scratch: ScratchWriter::create(folder).map_err(disk)?,
            schemas: Schemas::default(),
        })
    }

    /// Takes a record of any topic; those of other runs change nothing.
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
        self.schemas = record.schemas.clone();
        let plate = self.plates.entry(features.field.plate.clone()).or_default();
        let field = (features.field.well, features.field.field);
        plate
            .arrive(field, &record.value, &mut self.scratch)
            .and_then(|()| plate.settle(&mut self.scratch))
            .map_err(disk)
    }

    fn take_letter(&mut self, offset: i64, letter: DeadLetter) -> Result<(), StageError> {
        let ours = match &letter.run {
            Some(run) => *run == self.run,
            // An event nobody could read belongs to every run that was waiting when it failed.
            None => self
                .submitted
                .as_ref()
                .is_none_or(|submitted| letter.time_ms >= submitted.time_ms),
        };
        if !ours || self.retried.contains(&offset) {
            return Ok(());
        }
        if let Some(plate) = &letter.plate {
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
    fn take_retried(&mut self, offsets: Vec<i64>, plates: &[Barcode]) -> Result<(), StageError> {
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
        // Their profiles and the comparisons are published again.
        self.profiled.retain(|plate| !plates.contains(plate));
        self.comparisons_published = 0;
        self.finished = false;
        Ok(())
    }

    fn take_status(&mut self, status: Status) -> Result<(), StageError> {
        match status {
            Status::RunSubmitted { plates, time_ms, .. } => {
                let submitted = self.submitted.get_or_insert(Submitted {
                    plates: BTreeSet::new(),
                    time_ms,
                });
                submitted.plates.extend(plates);
                let since = submitted.time_ms;
                self.letters
                    .retain(|_, (_, letter)| letter.run.is_some() || letter.time_ms >= since);
            }
            Status::PlatePlanned {
                plate,
                fields_expected,
                fields_planned,
                dead_letters,
                ..
            } => {
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
            Status::PlateProfiled { plate, .. } => {
                self.profiled.insert(plate);
            }
            Status::ComparisonsPublished { records, .. } => {
                self.comparisons_published = self.comparisons_published.max(records);
            }
            Status::RunFinished { .. } => self.finished = true,
            Status::LettersResolved {
                action: LetterAction::Retried,
                offsets,
                plates,
                ..
            } => self.take_retried(offsets, &plates)?,
            Status::LettersResolved { .. } => {}
        }
        Ok(())
    }

    /// Whether every announced plate is planned and each of its fields has arrived or failed.
    pub fn complete(&self) -> bool {
        self.submitted.as_ref().is_some_and(|submitted| {
            submitted
                .plates
                .iter()
                .all(|plate| self.plates.get(plate).is_some_and(PlateFields::complete))
        })
    }

    /// How far the run is.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            plates: self
                .submitted
                .as_ref()
                .map_or(0, |submitted| submitted.plates.len()),
            dead_letters: self.letters.len(),
            ..Progress::default()
        };
        for plate in self.plates.values() {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            progress.done += count(plate.done());
            progress.failed += count(plate.failed());
            if let Some(planned) = plate.planned {
                progress.plates_planned += 1;
                progress.expected += planned.expected;
                progress.failed += planned.expected - planned.planned;
            }
        }
        progress
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
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

    /// The features of a plate's fields in the plan's order, read one by one from the scratch file.
    pub fn fields(
        &mut self,
        plate: &Barcode,
    ) -> Result<impl Iterator<Item = Result<FieldFeatures, StageError>> + use<'_>, StageError> {
        let places = match self.plates.get(plate) {
            Some(plate) => plate.places(&mut self.scratch).map_err(disk)?,
            None => Vec::new(),
        };
        let (scratch, schemas) = (&self.scratch, &self.schemas);
        Ok(places.into_iter().map(move |place| {
            schemas
                .read(Topic::Features, &scratch.read(place).map_err(disk)?)
                .map_err(|error| StageError::internal(Stage::Collect, error))
        }))
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
mod tests {
    use super::*;
    use crate::error::FailureClass;
    use crate::events::Origin;
    use wellspring_workloads::words::FieldId;

    fn features(field: u32) -> TailRecord {
        let features = FieldFeatures {
            run: "r".to_owned(),
            field: FieldId {
                plate: "P".parse().unwrap(),
                well: "A01".parse().unwrap(),
                field,
            },
            model: "m".to_owned(),
            tiles: 1,
            passed: true,
            quality: Vec::new(),
            embedding: vec![field as f32, 0.5],
        };
        TailRecord {
            topic: Topic::Features,
            partition: 0,
            offset: 0,
            id: String::new(),
            value: serde_json::to_vec(&features).unwrap(),
            time_ms: 0,
            schemas: Schemas::default(),
        }
    }

    fn collection() -> Collection {
        let mut collection =
            Collection::open(&"r".to_owned(), &std::env::temp_dir(), BTreeSet::new()).unwrap();
        collection.submitted = Some(Submitted {
            plates: BTreeSet::from(["P".parse().unwrap()]),
            time_ms: 5,
        });
        collection
    }

    fn letter(field: Option<u32>, run: Option<&str>, time_ms: u64) -> DeadLetter {
        DeadLetter {
            id: format!("{field:?}{time_ms}"),
            run: run.map(str::to_owned),
            class: FailureClass::BadImage,
            stage: Stage::Decode,
            plate: field.map(|_| "P".parse().unwrap()),
            well: field.map(|_| "A01".parse().unwrap()),
            field,
            fields_lost: 1,
            message: String::new(),
            origin: Origin {
                topic: String::new(),
                partition: 0,
                offset: 0,
                key: String::new(),
            },
            attempt: 1,
            worker: String::new(),
            original: None,
            original_bytes: 0,
            time_ms,
        }
    }

    #[test]
    fn a_run_is_complete_when_every_planned_field_arrived_or_failed() {
        let mut collection = collection();
        collection
            .take_status(Status::PlatePlanned {
                run: "r".to_owned(),
                plate: "P".parse().unwrap(),
                fields_expected: 4,
                fields_planned: 3,
                dead_letters: 0,
            })
            .unwrap();
        for field in [1, 0, 1] {
            collection.take(&features(field)).unwrap();
        }
        assert!(!collection.complete());
        assert_eq!(collection.progress().lost(), 1);
        collection.take_letter(1, letter(Some(2), Some("r"), 9)).unwrap();
        assert!(collection.complete());
        let progress = collection.progress();
        assert_eq!((progress.done, progress.failed, progress.lost()), (2, 2, 0));
        let plate = "P".parse().unwrap();
        let read: Vec<_> = collection
            .fields(&plate)
            .unwrap()
            .map(|f| f.unwrap().embedding[0])
            .collect();
        assert_eq!(read, vec![0.0, 1.0]);
    }

    /// The status and the letters of a plan are on two topics: a run was once finished without them.
    #[test]
    fn a_run_waits_for_the_dead_letters_of_its_plans() {
        let mut collection = collection();
        collection
            .take_status(Status::PlatePlanned {
                run: "r".to_owned(),
                plate: "P".parse().unwrap(),
                fields_expected: 0,
                fields_planned: 0,
                dead_letters: 2,
            })
            .unwrap();
        let of_plan = |id: &str| DeadLetter {
            id: id.to_owned(),
            stage: Stage::Plan,
            field: None,
            ..letter(Some(0), Some("r"), 9)
        };
        for id in ["first", "first"] {
            collection.take_letter(2, of_plan(id)).unwrap();
            assert!(!collection.complete());
        }
        collection.take_letter(3, of_plan("second")).unwrap();
        assert!(collection.complete());
    }

    /// A field that failed, was tried again by an operator and arrived counts once; until it arrives the run is open.
    #[test]
    fn a_run_waits_for_fields_that_are_tried_again() {
        let mut collection = collection();
        collection
            .take_status(Status::PlatePlanned {
                run: "r".to_owned(),
                plate: "P".parse().unwrap(),
                fields_expected: 2,
                fields_planned: 2,
                dead_letters: 0,
            })
            .unwrap();
        collection.take(&features(1)).unwrap();
        collection.take_letter(7, letter(Some(2), Some("r"), 9)).unwrap();
        assert!(collection.complete());
        collection.finished = true;
        collection
            .take_status(Status::LettersResolved {
                run: "r".to_owned(),
                action: LetterAction::Retried,
                offsets: vec![7],
                plates: vec!["P".parse().unwrap()],
                time_ms: 10,
            })
            .unwrap();
        assert!(!collection.complete() && !collection.finished);
        assert_eq!(collection.progress().lost(), 1);
        // Read again from the beginning, the letter comes after its resolution: the topics are not in one order.
        collection.take_letter(7, letter(Some(2), Some("r"), 9)).unwrap();
        assert!(!collection.complete());
        collection.take(&features(2)).unwrap();
        assert!(collection.complete());
        let progress = collection.progress();
        assert_eq!((progress.done, progress.failed, progress.dead_letters), (2, 0, 0));
    }

    /// The index of a complete plate lies on disk; what comes again is known all the same.
    #[test]
    fn a_complete_plate_can_be_read_and_opened_again() {
        let mut collection = collection();
        for field in [1, 0] {
            collection.take(&features(field)).unwrap();
        }
        collection
            .take_status(Status::PlatePlanned {
                run: "r".to_owned(),
                plate: "P".parse().unwrap(),
                fields_expected: 3,
                fields_planned: 3,
                dead_letters: 0,
            })
            .unwrap();
        assert!(!collection.complete());
        collection.take_letter(8, letter(Some(2), Some("r"), 9)).unwrap();
        let read = |collection: &mut Collection| -> Vec<f32> {
            let plate = "P".parse().unwrap();
            let fields = collection.fields(&plate).unwrap();
            fields.map(|field| field.unwrap().embedding[0]).collect()
        };
        for _ in 0..2 {
            assert!(collection.complete());
            let progress = collection.progress();
            assert_eq!((progress.done, progress.failed), (2, 1));
            assert_eq!(read(&mut collection), [0.0, 1.0]);
            // Once more: nothing changes.
            collection.take(&features(1)).unwrap();
        }
        collection.take(&features(2)).unwrap();
        assert_eq!(read(&mut collection), [0.0, 1.0, 2.0]);
        let progress = collection.progress();
        assert_eq!((progress.done, progress.failed), (3, 0));
    }

    #[test]
    fn letters_of_other_runs_and_of_times_before_the_run_do_not_count() {
        let mut collection = collection();
        collection
            .take_letter(4, letter(Some(0), Some("other"), 9))
            .unwrap();
        collection.take_letter(5, letter(None, None, 4)).unwrap();
        assert_eq!(collection.progress().dead_letters, 0);
        collection.take_letter(6, letter(None, None, 6)).unwrap();
        assert_eq!(collection.progress().dead_letters, 1);
    }
}
