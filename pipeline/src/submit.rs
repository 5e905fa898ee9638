//! Submitting: a screen becomes a run on the status topic, and its plates are announced, in one transaction.
//!
//! Submitting the same screen again changes nothing; plates that are new since are added.

use std::collections::BTreeSet;

use wellspring_workloads::words::Barcode;

use crate::clock::now_ms;
use crate::collector::read_statuses;
use crate::events::{PlateReady, RunId, Status};
use crate::ids;
use crate::kafka::producer::BatchProducer;
use crate::kafka::topics::Topic;
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use crate::runs::Run;

/// Registers the run and announces those of `plates` that were not announced with it before; returns those.
/// Blocking.
pub fn submit(kafka: &KafkaSettings, run: &Run, plates: &[Barcode]) -> Result<Vec<Barcode>, KafkaFailure> {
    let known: BTreeSet<Barcode> = read_statuses(kafka)?
        .into_iter()
        .filter_map(|status| match status {
            Status::RunSubmitted { run: of, plates, .. } if of == run.id => Some(plates),
            _ => None,
        })
        .flatten()
        .collect();
    let new: Vec<Barcode> = plates
        .iter()
        .filter(|plate| !known.contains(*plate))
        .cloned()
        .collect();
    if new.is_empty() {
        return Ok(new);
    }
    let submitted = Status::RunSubmitted {
        run: run.id.clone(),
        screen: Box::new(run.screen.clone()),
        plates: new.clone(),
        time_ms: now_ms(),
    };
    let id = ids::of_run(
        &run.id,
        "submitted",
        &ids::content(new.iter().map(Barcode::as_str)),
    );
    let mut records = vec![OutRecord::status(id, &submitted)?];
    for plate in &new {
        records.push(plate_ready(plate, Some(&run.id))?);
    }
    publish(kafka, "submit", &records)?;
    Ok(new)
}

/// Announces plates to one run, or to every run whose screen includes them. Blocking.
pub fn announce(kafka: &KafkaSettings, plates: &[Barcode], run: Option<&RunId>) -> Result<(), KafkaFailure> {
    let records = plates
        .iter()
        .map(|plate| plate_ready(plate, run))
        .collect::<Result<Vec<_>, _>>()?;
    publish(kafka, "announce", &records)
}

fn plate_ready(plate: &Barcode, run: Option<&RunId>) -> Result<OutRecord, KafkaFailure> {
    let id = ids::of_plate(
        run.map_or("any", String::as_str),
        plate,
        "ready",
        &ids::content([plate.as_str()]),
    );
    let event = PlateReady {
        plate: plate.clone(),
        run: run.cloned(),
    };
    OutRecord::new(
        Topic::Plates,
        plate.as_str(),
        id,
        "wellspring.plate-ready.v1",
        &event,
    )
}

fn publish(kafka: &KafkaSettings, role: &str, records: &[OutRecord]) -> Result<(), KafkaFailure> {
    BatchProducer::open(kafka, role)?.publish_once(5, records)
}
