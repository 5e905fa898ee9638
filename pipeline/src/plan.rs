//! Plan: a plate event becomes one task per field of view, checked before any pixel is computed.
//!
//! Plate events enter; tasks, dead letters and the plate's status leave, in one transaction with the event's offset.
//! Listing, names, plate map and controls are compared here, so that a plate that cannot work costs nothing. What
//! fails: an unreadable event, a store that cannot be listed, a plate map that does not match; each is a dead letter,
//! and whatever part of the plate can go on does.

mod listing;
mod map;
mod planes;
mod plate;
mod room;
mod scaling;

pub use listing::{list_plate, list_screen, plates_by_name, plates_of};
pub use map::read_plate_map;
pub use planes::check_planes;
pub use plate::{Failure, PlatePlan, PlateSource, plan_plate, try_field};
pub use room::Room;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::runtime::Handle;
use wellspring_workloads::layout::{FieldFiles, PlaneFile};
use wellspring_workloads::words::Barcode;

use crate::collector::read_statuses;
use crate::dead_letters::{Place, letter, record};
use crate::error::{Domain, FailureClass, Stage, StageError};
use crate::events::{ChannelImages, ImageRef, PlateReady, RunId, Status};
use crate::failures::{attempt, parked, settle, settle_deadly, will_be_tried_again};
use crate::kafka::lane::Inbound;
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaSettings, OutRecord};
use crate::runs::{Course, Run, Runs};
use crate::track::{Outcome, Ticket, Tracked};
use crate::{failpoint, ids};

/// Runs the stage of one lane until its input ends. Blocking; on a thread of its own.
///
/// The live planner reads every event, and so is the one that knows whether a plate is new to a run; what the batch lane
/// is to do it hands over.
pub fn run(
    input: &async_channel::Receiver<Tracked<Arc<Inbound>>>,
    kafka: &KafkaSettings,
    runs: &Arc<Runs>,
    lane: Urgency,
    room: &mut Room,
    runtime: &Handle,
) {
    let mut planned = Planned {
        lane,
        ..Planned::default()
    };
    while let Ok(Tracked { value, ticket }) = input.recv_blocking() {
        let parsed = ticket.read::<PlateReady>(Stage::Plan);
        if value.deadly {
            let place = parsed.map_or_else(|_| Place::default(), |event| place_of(&event));
            settle_deadly(ticket, place);
            continue;
        }
        let event = match parsed {
            Ok(event) => event,
            Err(error) => {
                settle(ticket, Place::default(), error);
                continue;
            }
        };
        drop(value);
        let assignment = ticket.position().assignment;
        let records = planned.catch_up(kafka, assignment).and_then(|()| {
            let mut records = Vec::new();
            for run in runs_of(&event, runs)? {
                if planned.has(kafka, &run.id, &event.plate, assignment)? {
                    tracing::info!(run = run.id, plate = %event.plate, "announced again; it is planned already");
                    continue;
                }
                if lane == Urgency::Live && event.lane == Some(Urgency::Batch) {
                    records.extend(queued(&run, &event.plate)?);
                    planned.here.insert((run.id.clone(), event.plate.clone()), assignment);
                    continue;
                }
                match room.wait(|| runs.course(&run.id), || input.is_closed())? {
                    Course::Open => {}
                    Course::Paused => {
                        let event = ready(&run, &event.plate, lane)?;
                        records.push(parked(event, attempt(ticket.record())));
                        continue;
                    }
                    Course::Cancelled => {
                        tracing::info!(run = run.id, plate = %event.plate, "the run was cancelled");
                        continue;
                    }
                }
                let (made, fields) = runtime.block_on(plan_records(&run, &event.plate, lane, &ticket))?;
                records.extend(made);
                room.taken(fields);
                if fields > 0 {
                    planned.here.insert((run.id.clone(), event.plate.clone()), assignment);
                }
            }
            Ok(records)
        });
        failpoint::pass("planner", "plan");
        match records {
            Ok(records) => ticket.settle(Outcome::Publish(records)),
            Err(error) => settle(ticket, place_of(&event), error),
        }
    }
}

fn place_of(event: &PlateReady) -> Place {
    Place {
        run: event.run.clone(),
        plate: Some(event.plate.clone()),
        ..Place::default()
    }
}

/// The event of a plate for the batch lane, and the status that says so.
fn queued(run: &Run, plate: &Barcode) -> Result<[OutRecord; 2], StageError> {
    let internal = |error| StageError::internal(Stage::Plan, error);
    let id = ids::of_plate(&run.id, plate, "queued", &ids::content([plate.as_str()]));
    let status = Status::PlateQueued {
        run: run.id.clone(),
        plate: plate.clone(),
    };
    Ok([
        ready(run, plate, Urgency::Batch)?,
        OutRecord::status(id, &status).map_err(internal)?,
    ])
}

/// The event of a plate for one run, on its lane's topic.
fn ready(run: &Run, plate: &Barcode, lane: Urgency) -> Result<OutRecord, StageError> {
    let event = PlateReady {
        plate: plate.clone(),
        run: Some(run.id.clone()),
        lane: Some(lane),
    };
    let id = ids::of_plate(&run.id, plate, "ready", &ids::content([plate.as_str()]));
    OutRecord::new(lane.plates(), plate.as_str(), id, PlateReady::TYPE, &event)
        .map_err(|error| StageError::internal(Stage::Plan, error))
}

/// The plates that have tasks already, or wait for them in the batch lane: an event that comes twice is planned once. A
/// plate of which no field could be planned may be announced again.
#[derive(Default)]
struct Planned {
    /// Whose planner this is.
    lane: Urgency,
    /// On the status topic.
    known: HashSet<(RunId, Barcode)>,
    /// Planned here, under this assignment of the event's partition; worth nothing when the partition has moved on
    /// before it was committed.
    here: HashMap<(RunId, Barcode), u64>,
    assignments: HashSet<u64>,
}

impl Planned {
    /// Reads the status topic when a partition is new here: its last owner may have planned what comes next.
    fn catch_up(&mut self, kafka: &KafkaSettings, assignment: u64) -> Result<(), StageError> {
        if self.assignments.contains(&assignment) {
            return Ok(());
        }
        for status in statuses(kafka)? {
            match status {
                // What is queued is the batch planner's to plan, and was seen by the live one.
                Status::PlateQueued { run, plate } if self.lane == Urgency::Live => {
                    self.known.insert((run, plate));
                }
                Status::PlatePlanned {
                    run,
                    plate,
                    fields_planned: 0,
                    ..
                } => _ = self.known.remove(&(run, plate)),
                Status::PlatePlanned { run, plate, .. } => _ = self.known.insert((run, plate)),
                _ => {}
            }
        }
        self.assignments.insert(assignment);
        Ok(())
    }

    fn has(
        &mut self,
        kafka: &KafkaSettings,
        run: &RunId,
        plate: &Barcode,
        assignment: u64,
    ) -> Result<bool, StageError> {
        let of = (run.clone(), plate.clone());
        if !self.known.contains(&of) && self.here.get(&of) != Some(&assignment) {
            return Ok(false);
        }
        if self.lane == Urgency::Live {
            // What was queued may have come to nothing in the batch lane since.
            let mut came_to_nothing = false;
            for status in statuses(kafka)? {
                if let Status::PlatePlanned {
                    run: of_run,
                    plate: of_plate,
                    fields_planned,
                    ..
                } = status
                    && of_run == *run
                    && of_plate == *plate
                {
                    came_to_nothing = fields_planned == 0;
                }
            }
            if came_to_nothing {
                self.known.remove(&of);
                self.here.remove(&of);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn statuses(kafka: &KafkaSettings) -> Result<Vec<Status>, StageError> {
    read_statuses(kafka).map_err(|error| StageError::external(Stage::Plan, FailureClass::Network, error))
}

fn runs_of(event: &PlateReady, runs: &Arc<Runs>) -> Result<Vec<Arc<Run>>, StageError> {
    match &event.run {
        Some(run) => Ok(vec![runs.get(run)?]),
        None => {
            let includes = |run: &Arc<Run>| {
                let plates = &run.screen.images.plates;
                plates.is_empty() || plates.contains(&event.plate)
            };
            Ok(runs.all().into_iter().filter(includes).collect())
        }
    }
}

/// Everything that is published for a plate: its tasks, what is wrong with it, and its status last; and how many
/// tasks there are. A failure that is tried again later publishes nothing.
async fn plan_records(
    run: &Run,
    plate: &Barcode,
    lane: Urgency,
    ticket: &Ticket,
) -> Result<(Vec<OutRecord>, u32), StageError> {
    let plan = match plan_plate(run.into(), plate).await {
        Ok(plan) => plan,
        Err(error) if error.domain == Domain::Internal || will_be_tried_again(ticket, &error) => {
            return Err(error);
        }
        Err(error) => PlatePlan::failed(error),
    };
    let internal = |error| StageError::internal(Stage::Plan, error);
    let mut records = Vec::new();
    for task in &plan.tasks {
        let key = format!("{plate}/{}", task.field.well);
        let id = ids::of_field(&run.id, &task.field, "task", &ids::content_of_task(task));
        records.push(OutRecord::new(lane.tasks(), key, id, "wellspring.task.v1", task).map_err(internal)?);
    }
    let mut fields_lost = 0;
    let mut letters = BTreeSet::new();
    for failure in plan.failures {
        fields_lost += failure.fields_lost;
        let place = Place {
            run: Some(run.id.clone()),
            plate: Some(plate.clone()),
            well: failure.well,
            field: failure.field,
            fields_lost: failure.fields_lost,
        };
        tracing::warn!(%plate, class = %failure.class, message = failure.message, "dead letter");
        let letter = letter(place, failure.stage, failure.class, failure.message, ticket);
        records.push(record(&letter)?);
        letters.insert(letter.id);
    }
    let planned = count(plan.tasks.len());
    let status = Status::PlatePlanned {
        run: run.id.clone(),
        plate: plate.clone(),
        fields_expected: planned + fields_lost,
        fields_planned: planned,
        dead_letters: count(letters.len()),
        shading: plan.shading.clone(),
    };
    let content = ids::content(plan.tasks.iter().map(ids::content_of_task).chain(letters));
    let id = ids::of_plate(&run.id, plate, "planned", &content);
    records.push(OutRecord::status(id, &status).map_err(internal)?);
    Ok((records, planned))
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The images of a field as its task names them.
pub fn images(field: &FieldFiles) -> Vec<ChannelImages> {
    let image = |plane: &PlaneFile, of_stack: bool| ImageRef {
        path: plane.file.path.clone(),
        bytes: plane.file.size,
        page: plane.page,
        z: plane.plane.filter(|_| of_stack),
    };
    field
        .channels
        .iter()
        .map(|channel| ChannelImages {
            channel: channel.channel.clone(),
            planes: {
                let of_stack = channel.planes.len() > 1;
                channel
                    .planes
                    .iter()
                    .map(|plane| image(plane, of_stack))
                    .collect()
            },
        })
        .collect()
}
