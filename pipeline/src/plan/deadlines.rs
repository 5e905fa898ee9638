//! Deadlines of plates that are still being imaged.
//!
//! Statuses enter; for each plate whose deadline has passed an event leaves that says so, to the topic of plate events, where
//! the planner finishes the plate with what is there. So only this clock is looked at, and planning is a function of the log.
//! Said twice, by another process or by this one started again, it changes nothing. What fails is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use wellspring_workloads::words::Barcode;

use super::known::Of;
use crate::clock::now_ms;
use crate::events::{AcquisitionProgress, PlateReady, RunId, Status, Steering};
use crate::ids;
use crate::kafka::producer::BatchProducer;
use crate::kafka::tail::{Polled, Tail};
use crate::kafka::topics::Topic;
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(200);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// Tries of a transaction.
const TRIES: u32 = 5;

/// Keeps deadlines until there is nobody to keep them for. Blocking; on a thread of its own.
pub fn keep(kafka: &KafkaSettings, ended: impl Fn() -> bool) {
    while !ended() {
        if let Err(error) = follow(kafka, &ended) {
            let message = crate::error::chain(&error);
            tracing::warn!(message, "deadlines of plates are not kept now; trying again");
            let mut left = PAUSE;
            while !left.is_zero() && !ended() {
                std::thread::sleep(LOOK);
                left = left.saturating_sub(LOOK);
            }
        }
    }
}

fn follow(kafka: &KafkaSettings, ended: impl Fn() -> bool) -> Result<(), KafkaFailure> {
    let mut tail = Tail::open(kafka, &[Topic::Status])?;
    let (mut waiting, mut producer, mut is_read) = (Waiting::default(), None, false);
    while !ended() {
        match tail.poll(LOOK)? {
            Polled::Record(record) => {
                // A status that cannot be read is told by whoever follows runs.
                if let Ok(status) = record.read() {
                    waiting.learn(status);
                }
                continue;
            }
            Polled::AtEnd(_) => is_read = true,
            Polled::Nothing => {}
        }
        let due = if is_read {
            waiting.due(now_ms())
        } else {
            Vec::new()
        };
        if due.is_empty() {
            continue;
        }
        let records = due.iter().map(passed).collect::<Result<Vec<_>, _>>()?;
        let producer = match &mut producer {
            Some(producer) => producer,
            none => none.insert(BatchProducer::open(kafka, "deadlines")?),
        };
        producer.publish_once(TRIES, &records)?;
        for ((run, plate), _) in &due {
            tracing::info!(run, %plate, "the plate is not waited for any longer");
        }
        waiting.told(due);
    }
    Ok(())
}

/// The event that a deadline has passed.
fn passed(((run, plate), deadline): &(Of, u64)) -> Result<OutRecord, KafkaFailure> {
    let event = PlateReady {
        plate: plate.clone(),
        run: Some(run.clone()),
        lane: None,
        progress: Some(AcquisitionProgress {
            passed_ms: Some(*deadline),
            ..AcquisitionProgress::default()
        }),
        taken_over: None,
    };
    let id = ids::of_plate(run, plate, "deadline", &ids::content([deadline.to_le_bytes()]));
    OutRecord::new(Topic::Plates, plate.as_str(), id, event.kind(), &event)
}

/// Plates that are being imaged, with their deadlines.
#[derive(Debug, Default)]
struct Waiting {
    /// Whether an event has said it, and the deadline: the largest of these pairs holds.
    deadlines: BTreeMap<Of, (bool, u64)>,
    /// Deadlines that were said to have passed.
    told: BTreeMap<Of, u64>,
}

impl Waiting {
    fn learn(&mut self, status: Status) {
        match status {
            Status::PlateImaging {
                run,
                plate,
                deadline_ms: Some(deadline),
                deadline_said,
                ..
            } => {
                let latest = self.deadlines.entry((run, plate)).or_default();
                *latest = (deadline_said.unwrap_or(true), deadline).max(*latest);
            }
            Status::PlatePlanned { run, plate, .. } => self.forget(&run, Some(&plate)),
            Status::RunSteered {
                run,
                action: Steering::Cancelled,
                ..
            } => self.forget(&run, None),
            _ => {}
        }
    }

    fn forget(&mut self, run: &RunId, plate: Option<&Barcode>) {
        let is_another = |of: &Of| of.0 != *run || plate.is_some_and(|plate| of.1 != *plate);
        self.deadlines.retain(|of, _| is_another(of));
        self.told.retain(|of, _| is_another(of));
    }

    /// Deadlines that have passed and were not said to have.
    fn due(&self, now_ms: u64) -> Vec<(Of, u64)> {
        let deadlines = self.deadlines.iter().map(|(of, (_, deadline))| (of, *deadline));
        let due =
            deadlines.filter(|(of, deadline)| *deadline <= now_ms && self.told.get(of) != Some(deadline));
        due.map(|(of, deadline)| (of.clone(), deadline)).collect()
    }

    fn told(&mut self, due: Vec<(Of, u64)>) {
        self.told.extend(due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imaging(plate: &str, deadline_ms: u64) -> Status {
        Status::PlateImaging {
            run: "r".to_owned(),
            plate: plate.parse().unwrap(),
            planned: Vec::new(),
            wells: None,
            fields_expected: None,
            deadline_ms: Some(deadline_ms),
            deadline_said: None,
            shading: None,
            waits: None,
        }
    }

    #[test]
    fn a_deadline_is_told_once_and_again_when_it_was_put_off() {
        let mut waiting = Waiting::default();
        waiting.learn(imaging("P", 50));
        // What was said earlier and comes later does not bring it forward.
        waiting.learn(imaging("P", 10));
        waiting.learn(imaging("Q", 90));
        assert!(waiting.due(49).is_empty());
        let due = waiting.due(50);
        assert_eq!(due.len(), 1);
        waiting.told(due);
        assert!(waiting.due(60).is_empty());
        // What no event has said puts nothing off.
        let mut usual = imaging("P", 500);
        if let Status::PlateImaging { deadline_said, .. } = &mut usual {
            *deadline_said = Some(false);
        }
        waiting.learn(usual);
        assert!(waiting.due(60).is_empty());
        waiting.learn(imaging("P", 70));
        assert!(waiting.due(69).is_empty());
        assert_eq!(waiting.due(70).len(), 1);
        waiting.forget(&"r".to_owned(), Some(&"P".parse().unwrap()));
        assert_eq!(waiting.due(100).len(), 1);
        waiting.learn(Status::RunSteered {
            run: "r".to_owned(),
            action: Steering::Cancelled,
            time_ms: 0,
        });
        assert!(waiting.due(100).is_empty());
    }
}
