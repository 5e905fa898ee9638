//! What waits to be tried again.
//!
//! The retries topic enters, from where its reader has come to; leaves what waits there, by run, plate and failure, what is due
//! first in front. Work of what is paused waits there as well, and is told apart. Fails where Kafka cannot be read.

use std::collections::BTreeMap;

use serde::Serialize;
use wellspring_workloads::words::Barcode;

use crate::events::{FieldTask, PlateReady, RunId};
use crate::failures::{CLASS, DUE, ERROR};
use crate::kafka::backlog::Backlog;
use crate::kafka::tail::TailRecord;
use crate::kafka::topics::{PARKED, Topic};
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::topology::RETRIER;

/// Records that wait for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The run; none of an announcement for every run, and of a record that cannot be read.
    pub run: Option<RunId>,
    /// The plate.
    pub plate: Option<Barcode>,
    /// The class of their failure; none where they wait because their run or plate is paused.
    pub class: Option<String>,
    /// Fields of view, or announcements of plates.
    pub records: usize,
    /// When the first of them is due, in milliseconds since 1970 UTC.
    pub first_ms: u64,
    /// When the last one is.
    pub last_ms: u64,
    /// What one of them failed with.
    pub error: Option<String>,
}

/// What waits now. Blocking.
///
/// # Errors
/// Kafka cannot be read.
pub fn waiting(kafka: &KafkaSettings) -> Result<Vec<Waiting>, KafkaFailure> {
    let mut found: BTreeMap<_, Waiting> = BTreeMap::new();
    Backlog::open(kafka, Topic::Retries, RETRIER)?.read(|record| {
        let one = of_record(record);
        let kind = (one.run.clone(), one.plate.clone(), one.class.clone());
        found
            .entry(kind)
            .and_modify(|all| {
                all.records += 1;
                all.first_ms = all.first_ms.min(one.first_ms);
                all.last_ms = all.last_ms.max(one.last_ms);
            })
            .or_insert(one);
    })?;
    let mut waiting: Vec<Waiting> = found.into_values().collect();
    waiting.sort_by_key(|waiting| waiting.first_ms);
    Ok(waiting)
}

fn of_record(record: &TailRecord) -> Waiting {
    let task = record.schemas.read::<FieldTask>(Topic::Tasks, &record.value);
    let (run, plate) = match task {
        Ok(task) => (Some(task.run), Some(task.field.plate)),
        Err(_) => {
            let plate = record.schemas.read::<PlateReady>(Topic::Plates, &record.value);
            plate.map_or((None, None), |event| (event.run, Some(event.plate)))
        }
    };
    let failed = |name| {
        let text = record.header(name).map(str::to_owned);
        text.filter(|_| record.partition != PARKED)
    };
    let due_ms = record
        .header(DUE)
        .and_then(|due| due.parse().ok())
        .unwrap_or_default();
    Waiting {
        run,
        plate,
        class: failed(CLASS),
        records: 1,
        first_ms: due_ms,
        last_ms: due_ms,
        error: failed(ERROR),
    }
}
