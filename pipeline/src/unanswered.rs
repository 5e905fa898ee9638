//! Fields that are planned and neither done nor given up.
//!
//! The topics of tasks enter, from where their workers have come to, and that of retries; leaves how many fields wait of each plate
//! in each run. What a worker has begun waits until its features are committed. Fails where Kafka cannot be read.

use std::collections::BTreeMap;

use serde::Deserialize;
use wellspring_workloads::words::Barcode;

use crate::events::RunId;
use crate::kafka::backlog::Backlog;
use crate::kafka::topics::{Topic, Urgency};
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::topology::RETRIER;

/// How many fields wait, by run and plate.
#[derive(Debug, Default)]
pub struct Unanswered {
    fields: BTreeMap<RunId, BTreeMap<Barcode, u32>>,
}

/// What tells a task from a plate event, and where it belongs.
#[derive(Deserialize)]
struct OfField {
    run: RunId,
    plate: Barcode,
    #[serde(rename = "field")]
    _field: u32,
}

impl Unanswered {
    /// Those of now. A task that is tried again just then may be counted twice, or not at all. Blocking; no more than the planner
    /// lets wait is read.
    ///
    /// # Errors
    /// Kafka cannot be read.
    pub fn read(kafka: &KafkaSettings) -> Result<Self, KafkaFailure> {
        let mut found = Self::default();
        let lanes = Urgency::ALL.map(|lane| (lane.tasks(), lane.worker()));
        for (topic, role) in lanes.into_iter().chain([(Topic::Retries, RETRIER)]) {
            Backlog::open(kafka, topic, role)?.read(|record| {
                // Of what cannot be read a worker makes a dead letter.
                if let Ok(task) = record.schemas.read::<OfField>(Topic::Tasks, &record.value) {
                    let of_run = found.fields.entry(task.run).or_default();
                    *of_run.entry(task.plate).or_default() += 1;
                }
            })?;
        }
        Ok(found)
    }

    /// Those of a plate in a run.
    pub fn of_plate(&self, run: &str, plate: &Barcode) -> u32 {
        let plates = self.fields.get(run);
        plates.and_then(|plates| plates.get(plate)).copied().unwrap_or(0)
    }
}
