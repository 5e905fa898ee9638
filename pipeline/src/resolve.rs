//! Resolve: what an operator does about dead letters. They are listed, tried again, or discarded.
//!
//! Letters are read from their topic, and what was done about them from the status topic. Trying again publishes the
//! original record where it came from, together with the status that says so, in one transaction; the producer is
//! opened before anything is read and fences whoever else is doing the same, so a letter is tried again once. What
//! fails: Kafka, and a letter that cannot be tried again, with the reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use wellspring_workloads::words::{Barcode, WellPosition};

use crate::clock::now_ms;
use crate::collector::read_statuses;
use crate::dead_letters::original;
use crate::error::{FailureClass, Stage};
use crate::events::{DeadLetter, FieldTask, LetterAction, PlateReady, RunId, Status};
use crate::ids;
use crate::kafka::producer::{BatchProducer, Committed};
use crate::kafka::tail::read_events;
use crate::kafka::topics::{Topic, Urgency};
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};

/// A letter as it lies on its topic.
#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// Its offset.
    pub offset: i64,
    /// What it says.
    pub letter: DeadLetter,
    /// What was done about it.
    pub resolved: Option<LetterAction>,
}

/// Which letters are meant; what is empty or absent excludes none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ids, or beginnings of ids.
    pub ids: Vec<String>,
    /// Classes.
    pub classes: Vec<FailureClass>,
    /// The run.
    pub run: Option<RunId>,
    /// The plate.
    pub plate: Option<Barcode>,
    /// The well.
    pub well: Option<WellPosition>,
    /// The field.
    pub field: Option<u32>,
    /// Not before, in milliseconds since 1970 UTC.
    pub since_ms: Option<u64>,
    /// Before, in milliseconds since 1970 UTC.
    pub until_ms: Option<u64>,
}

impl Filter {
    /// Whether the letter is meant.
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        let same = |wanted: &Option<RunId>, found: &Option<RunId>| wanted.is_none() || wanted == found;
        (self.ids.is_empty() || self.ids.iter().any(|id| letter.id.starts_with(id.as_str())))
            && (self.classes.is_empty() || self.classes.contains(&letter.class))
            && same(&self.run, &letter.run)
            && (self.plate.is_none() || self.plate == letter.plate)
            && (self.well.is_none() || self.well == letter.well)
            && (self.field.is_none() || self.field == letter.field)
            && self.since_ms.is_none_or(|since| letter.time_ms >= since)
            && self.until_ms.is_none_or(|until| letter.time_ms < until)
    }
}

/// What came of resolving letters.
#[derive(Debug, Default)]
pub struct Resolution {
    /// The letters that were dealt with.
    pub done: Vec<StoredLetter>,
    /// Letters that cannot be tried again, each with the reason.
    pub left: Vec<(StoredLetter, &'static str)>,
    /// Ids of the filter that no letter has, open or dealt with.
    pub unknown: Vec<String>,
    /// Letters whose ids the filter names, and that were dealt with before.
    pub before: Vec<StoredLetter>,
}

/// Why letters could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Kafka failed, or another operator was faster.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
    /// The transaction did not get through.
    #[error(
        "the connection to {bootstrap} was lost before the letters were committed; list them, since another operator may \
         have resolved them meanwhile, and try again"
    )]
    Unknown {
        /// Where.
        bootstrap: String,
    },
}

/// How many letters there are, by run and plate.
#[derive(Debug, Default)]
pub struct LetterCounts {
    counts: BTreeMap<RunId, BTreeMap<Option<Barcode>, OfPlate>>,
}

#[derive(Debug, Default)]
struct OfPlate {
    open: usize,
    failed: u32,
}

impl LetterCounts {
    /// Counts those of runs among `letters`.
    pub fn among(letters: &[StoredLetter]) -> Self {
        let is_task = |topic: &str| Urgency::ALL.iter().any(|lane| lane.tasks().suffix() == topic);
        let mut counts: BTreeMap<RunId, BTreeMap<Option<Barcode>, OfPlate>> = BTreeMap::new();
        for StoredLetter { letter, resolved, .. } in letters {
            let Some(run) = &letter.run else { continue };
            let of_run = counts.entry(run.clone()).or_default();
            let of_plate = of_run.entry(letter.plate.clone()).or_default();
            of_plate.open += usize::from(resolved.is_none());
            if *resolved != Some(LetterAction::Retried) && is_task(&letter.origin.topic) {
                of_plate.failed += letter.fields_lost;
            }
        }
        Self { counts }
    }

    /// Those of a run that nobody has dealt with yet, its plates' included.
    pub fn open_of_run(&self, run: &str) -> usize {
        let plates = self.counts.get(run).into_iter().flat_map(BTreeMap::values);
        plates.map(|of| of.open).sum()
    }

    /// Those of a plate in a run that nobody has dealt with yet.
    pub fn open_of_plate(&self, run: &str, plate: &Barcode) -> usize {
        self.of_plate(run, plate).map_or(0, |of| of.open)
    }

    /// Fields of a plate in a run that were planned and failed for good, whether a person has discarded their letters or not.
    pub fn fields_failed(&self, run: &str, plate: &Barcode) -> u32 {
        self.of_plate(run, plate).map_or(0, |of| of.failed)
    }

    fn of_plate(&self, run: &str, plate: &Barcode) -> Option<&OfPlate> {
        self.counts.get(run)?.get(&Some(plate.clone()))
    }
}

/// Every letter on the topic, in order. Blocking.
pub fn read_letters(kafka: &KafkaSettings) -> Result<Vec<StoredLetter>, KafkaFailure> {
    let mut resolved = HashMap::new();
    for status in read_statuses(kafka)? {
        if let Status::LettersResolved { action, offsets, .. } = status {
            resolved.extend(offsets.into_iter().map(|offset| (offset, action)));
        }
    }
    let letters = read_events(kafka, Topic::DeadLetters)?;
    let stored = letters.into_iter().map(|(offset, letter)| StoredLetter {
        offset,
        letter,
        resolved: resolved.get(&offset).copied(),
    });
    Ok(stored.collect())
}

/// Tries every open letter of `filter` again, or discards it; with `dry`, only says what would be done. Blocking.
pub fn resolve(
    kafka: &KafkaSettings,
    filter: &Filter,
    action: LetterAction,
    dry: bool,
) -> Result<Resolution, ResolveError> {
    // One name for every operator: opening the producer ends what another one has not committed yet, and what it has
    // committed is read below.
    let kafka = KafkaSettings {
        instance: "operator".to_owned(),
        ..kafka.clone()
    };
    let producer = if dry {
        None
    } else {
        Some(BatchProducer::open(&kafka, "resolve")?)
    };
    let letters = read_letters(&kafka)?;
    let planned = planned(&kafka)?;
    let is_known = |id: &&String| {
        letters
            .iter()
            .any(|stored| stored.letter.id.starts_with(id.as_str()))
    };
    let mut resolution = Resolution {
        unknown: filter.ids.iter().filter(|id| !is_known(id)).cloned().collect(),
        ..Resolution::default()
    };
    let mut records: BTreeMap<(Option<RunId>, String, i32, i64), OutRecord> = BTreeMap::new();
    for stored in letters {
        if !filter.takes(&stored.letter) {
            continue;
        }
        if stored.resolved.is_some() {
            if !filter.ids.is_empty() {
                resolution.before.push(stored);
            }
            continue;
        }
        if action == LetterAction::Retried {
            match again(&kafka, &stored.letter, &planned) {
                // The step is asked again when the run's results are made anew.
                Ok(None) => {}
                // Letters of one record, such as a plate event, send it back once.
                Ok(Some(record)) => {
                    let (run, origin) = (stored.letter.run.clone(), &stored.letter.origin);
                    let of = (run, origin.topic.clone(), origin.partition, origin.offset);
                    records.insert(of, record);
                }
                Err(reason) => {
                    resolution.left.push((stored, reason));
                    continue;
                }
            }
        }
        resolution.done.push(stored);
    }
    let Some(mut producer) = producer.filter(|_| !resolution.done.is_empty()) else {
        return Ok(resolution);
    };
    let mut records: Vec<OutRecord> = records.into_values().collect();
    records.extend(statuses(&resolution.done, action)?);
    producer.remember_end(Topic::Status)?;
    for _ in 0..5 {
        match producer.publish(&records)? {
            Committed::Yes => return Ok(resolution),
            Committed::Aborted => std::thread::sleep(Duration::from_millis(200)),
            Committed::Unknown => {
                // Where they are not in, another operator may have them by now: they are not tried again here.
                return match records.last().map(|status| producer.settle(status)) {
                    Some(Ok(true)) => Ok(resolution),
                    Some(Err(error)) => Err(error.into()),
                    Some(Ok(false)) | None => Err(ResolveError::Unknown {
                        bootstrap: kafka.bootstrap,
                    }),
                };
            }
        }
    }
    Err(KafkaFailure::Aborted {
        bootstrap: kafka.bootstrap,
    }
    .into())
}

/// Plates of which something is planned, by run: their events would change nothing.
fn planned(kafka: &KafkaSettings) -> Result<BTreeSet<(RunId, Barcode)>, KafkaFailure> {
    let mut planned = BTreeSet::new();
    for status in read_statuses(kafka)? {
        if let Status::PlatePlanned {
            run,
            plate,
            fields_planned,
            ..
        } = status
        {
            match fields_planned {
                0 => _ = planned.remove(&(run, plate)),
                _ => _ = planned.insert((run, plate)),
            }
        }
    }
    Ok(planned)
}

/// The original record, on its way back, where one failed; else why it cannot be tried again.
fn again(
    kafka: &KafkaSettings,
    letter: &DeadLetter,
    planned: &BTreeSet<(RunId, Barcode)>,
) -> Result<Option<OutRecord>, &'static str> {
    if letter.step.is_some() {
        return Ok(None);
    }
    let of = letter.run.clone().zip(letter.plate.clone());
    if letter.stage == Stage::Plan && (letter.well.is_some() || of.is_some_and(|of| planned.contains(&of))) {
        return Err(
            "the rest of its plate is planned already; correct plate map and images, and submit the screen under \
             a raised [screen] version",
        );
    }
    let value =
        original(letter).ok_or("the record was too large to be kept; publish it again at its source")?;
    let topic = Topic::from_name(&kafka.prefix, &letter.origin.topic)
        .ok_or("it came from a topic of another installation")?;
    let id = format!("{}/again", letter.id);
    let key = letter.origin.key.clone();
    // A letter that a run took over from another one holds that one's record.
    let run = letter.run.as_ref();
    let again = match topic {
        Topic::Plates => match kafka.schemas.read::<PlateReady>(topic, &value) {
            Ok(event) if run.is_some() && event.run.as_ref() != run => {
                let event = PlateReady {
                    run: run.cloned(),
                    ..event
                };
                OutRecord::new(topic, key, id, event.kind(), &event)
            }
            event => {
                let kind = event.map_or(PlateReady::TYPE, |event| event.kind());
                return Ok(Some(OutRecord::of_bytes(topic, key, id, kind, value)));
            }
        },
        _ => match (kafka.schemas.read::<FieldTask>(topic, &value), run) {
            (Ok(task), Some(run)) if task.run != *run => {
                let task = FieldTask {
                    run: run.clone(),
                    ..task
                };
                OutRecord::new(topic, key, id, TASK, &task)
            }
            _ => return Ok(Some(OutRecord::of_bytes(topic, key, id, TASK, value))),
        },
    };
    again.map(Some).map_err(|error| {
        tracing::error!(
            message = crate::error::chain(&error),
            "a record cannot be written for another run"
        );
        "its record cannot be written for the run that took it over; the log says why"
    })
}

const TASK: &str = "wellspring.task.v1";

/// One status for each run.
fn statuses(letters: &[StoredLetter], action: LetterAction) -> Result<Vec<OutRecord>, KafkaFailure> {
    let mut by_run: BTreeMap<RunId, Vec<&StoredLetter>> = BTreeMap::new();
    for stored in letters {
        by_run
            .entry(stored.letter.run.clone().unwrap_or_default())
            .or_default()
            .push(stored);
    }
    by_run
        .into_iter()
        .map(|(run, letters)| {
            let offsets: Vec<i64> = letters.iter().map(|stored| stored.offset).collect();
            let plates: BTreeSet<Barcode> = letters
                .iter()
                .filter_map(|stored| stored.letter.plate.clone())
                .collect();
            let id = ids::of_run(
                &run,
                "resolved",
                &ids::content(offsets.iter().map(|o| o.to_le_bytes())),
            );
            let status = Status::LettersResolved {
                run: run.clone(),
                action,
                offsets,
                plates: plates.into_iter().collect(),
                time_ms: now_ms(),
            };
            OutRecord::status(id, &status)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_have_failed_where_their_tasks_did_and_are_not_tried_again() {
        let stored = |topic: &str, resolved| {
            let letter = json!({
                "id": "1", "run": "r", "class": "bad_image", "stage": "decode", "plate": "P1", "well": "A01", "field": 1,
                "fields_lost": 1, "message": "m", "time_ms": 1,
                "origin": { "topic": topic, "partition": 0, "offset": 0 }
            });
            StoredLetter {
                offset: 0,
                letter: serde_json::from_value(letter).unwrap(),
                resolved,
            }
        };
        let counts = LetterCounts::among(&[
            stored("tasks", None),
            stored("tasks-batch", Some(LetterAction::Discarded)),
            stored("tasks", Some(LetterAction::Retried)),
            // Never planned.
            stored("plates", None),
        ]);
        let plate: Barcode = "P1".parse().unwrap();
        assert_eq!(
            (counts.open_of_run("r"), counts.open_of_plate("r", &plate)),
            (2, 2)
        );
        assert_eq!(counts.fields_failed("r", &plate), 2);
        assert_eq!(counts.fields_failed("r", &"P2".parse().unwrap()), 0);
    }
}
