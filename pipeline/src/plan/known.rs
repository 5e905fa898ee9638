//! What a planner knows of plates from the status topic, and of those it has planned itself since.
//!
//! Statuses enter when a partition of plate events is new here; whether a plate is planned, and how far one is that is still
//! being imaged, leaves. Fails where Kafka does.

use std::collections::{HashMap, HashSet};

use wellspring_workloads::words::Barcode;

use super::imaging::Imaging;
use crate::collector::read_statuses;
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{RunId, Status};
use crate::kafka::KafkaSettings;
use crate::kafka::topics::Urgency;

/// A plate in a run.
pub(super) type Of = (RunId, Barcode);

/// What became of a plate.
pub(super) enum Now {
    /// It has tasks, or waits for them in the batch lane.
    Planned,
    /// It is still being imaged.
    Imaging(Imaging),
    /// It came to nothing, and may be announced again.
    Nothing,
}

/// What an event made of plates.
pub(super) type Learned = Vec<(Of, Now)>;

/// The plates that have tasks already, or wait for them in the batch lane: an event that comes twice is planned once. A
/// plate of which no field could be planned may be announced again.
pub(super) struct Known {
    /// Whose planner this is.
    lane: Urgency,
    /// On the status topic.
    planned: HashSet<Of>,
    /// On the status topic, and still being imaged.
    imaging: HashMap<Of, Imaging>,
    /// What was planned here, under this assignment of the event's partition; worth nothing when the partition has moved on
    /// before it was committed.
    here: HashMap<Of, (u64, Now)>,
    assignments: HashSet<u64>,
}

impl Known {
    /// Nothing is known yet.
    pub(super) fn of(lane: Urgency) -> Self {
        Self {
            lane,
            planned: HashSet::new(),
            imaging: HashMap::new(),
            here: HashMap::new(),
            assignments: HashSet::new(),
        }
    }

    /// Reads the status topic when a partition is new here: its last owner may have planned what comes next.
    pub(super) fn catch_up(&mut self, kafka: &KafkaSettings, assignment: u64) -> Result<(), StageError> {
        if self.assignments.contains(&assignment) {
            return Ok(());
        }
        let mut imaging: HashMap<Of, Imaging> = HashMap::new();
        for status in statuses(kafka)? {
            match status {
                // What is queued is the batch planner's to plan, and was seen by the live one.
                Status::PlateQueued { run, plate } if self.lane == Urgency::Live => {
                    self.planned.insert((run, plate));
                }
                Status::PlateImaging {
                    ref run, ref plate, ..
                } if self.lane == Urgency::Live => {
                    let of = (run.clone(), plate.clone());
                    imaging.entry(of).or_default().take(&status);
                }
                Status::PlatePlanned {
                    run,
                    plate,
                    fields_planned,
                    ..
                } => {
                    let of = (run, plate);
                    imaging.remove(&of);
                    match fields_planned {
                        0 => _ = self.planned.remove(&of),
                        _ => _ = self.planned.insert(of),
                    }
                }
                _ => {}
            }
        }
        self.imaging = imaging;
        self.assignments.insert(assignment);
        Ok(())
    }

    /// Before the next plate the status topic is read again.
    pub(super) fn read_again(&mut self) {
        self.assignments.clear();
    }

    /// Whether the plate needs no planning any more.
    pub(super) fn has(
        &mut self,
        kafka: &KafkaSettings,
        of: &Of,
        assignment: u64,
    ) -> Result<bool, StageError> {
        let here = matches!(self.here.get(of), Some((under, Now::Planned)) if *under == assignment);
        if !here && !self.planned.contains(of) {
            return Ok(false);
        }
        if self.lane == Urgency::Live {
            // What was queued may have come to nothing in the batch lane since.
            let mut came_to_nothing = false;
            for status in statuses(kafka)? {
                if let Status::PlatePlanned {
                    run,
                    plate,
                    fields_planned,
                    ..
                } = status
                    && (&run, &plate) == (&of.0, &of.1)
                {
                    came_to_nothing = fields_planned == 0;
                }
            }
            if came_to_nothing {
                self.planned.remove(of);
                self.here.remove(of);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How far a plate is that is still being imaged.
    pub(super) fn imaging(&self, of: &Of, assignment: u64) -> Option<&Imaging> {
        match self.here.get(of) {
            Some((under, Now::Imaging(imaging))) if *under == assignment => Some(imaging),
            Some((under, Now::Nothing)) if *under == assignment => None,
            _ => self.imaging.get(of),
        }
    }

    /// Takes what an event made of plates, once it is certain that its records are handed over.
    pub(super) fn learn(&mut self, learned: Learned, assignment: u64) {
        for (of, now) in learned {
            self.here.insert(of, (assignment, now));
        }
    }
}

fn statuses(kafka: &KafkaSettings) -> Result<Vec<Status>, StageError> {
    read_statuses(kafka).map_err(|error| StageError::external(Stage::Plan, FailureClass::Network, error))
}
