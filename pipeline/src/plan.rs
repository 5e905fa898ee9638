//! Plan: a plate event becomes one task per field of view, checked before any pixel is computed.
//!
//! Plate events enter; tasks, dead letters and the plate's status leave, in one transaction with the event's offset.
//! Listing, names, plate map and controls are compared here, so that a plate that cannot work costs nothing. What
//! fails: an unreadable event, a store that cannot be listed, a plate map that does not match; each is a dead letter,
//! and whatever part of the plate can go on does. Of a plate that is still being imaged the fields that are there are planned at
//! once (`imaging`), each once, whatever is said of it and however often; `deadlines` ends the wait for the others.

mod deadlines;
mod event;
mod expected;
mod imaging;
mod known;
mod listing;
mod map;
mod planes;
mod plate;
mod room;
mod scaling;

pub use deadlines::keep as keep_deadlines;
pub use listing::{list_plate, list_screen, plates_by_name, plates_of};
pub use map::read_plate_map;
pub use planes::check_planes;
pub use plate::{Failure, PlatePlan, PlateSource, plan_plate, try_field};
pub use room::Room;

use std::sync::Arc;

use tokio::runtime::Handle;
use wellspring_workloads::layout::{FieldFiles, PlaneFile};
use wellspring_workloads::words::Barcode;

use self::event::plan_event;
use self::known::{Known, Now};
use crate::dead_letters::Place;
use crate::error::{Stage, StageError};
use crate::events::{ChannelImages, ImageRef, PlateReady, Status};
use crate::failures::{attempt, parked, settle, settle_deadly};
use crate::kafka::lane::Inbound;
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaSettings, OutRecord};
use crate::runs::{Course, Run, Runs};
use crate::track::{Outcome, Tracked};
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
    let mut known = Known::of(lane);
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
        let planned = known.catch_up(kafka, assignment).and_then(|()| {
            let (mut records, mut learned) = (Vec::new(), Vec::new());
            for run in runs_of(&event, runs)? {
                let of = (run.id.clone(), event.plate.clone());
                if known.has(kafka, &of, assignment)? {
                    tracing::info!(run = run.id, plate = %event.plate, "announced again; it is planned already");
                    continue;
                }
                let imaging = known.imaging(&of, assignment);
                // A plate that is being imaged stays where it was begun.
                if lane == Urgency::Live && event.lane == Some(Urgency::Batch) && imaging.is_none() {
                    records.extend(queued(&run, &event.plate)?);
                    learned.push((of, Now::Planned));
                    continue;
                }
                match room.wait(|| runs.course(&run.id), || input.is_closed())? {
                    Course::Open => {}
                    Course::Paused => {
                        let event = ready(&run, &event, lane)?;
                        records.push(parked(event, attempt(ticket.record())));
                        continue;
                    }
                    Course::Cancelled => {
                        tracing::info!(run = run.id, plate = %event.plate, "the run was cancelled");
                        continue;
                    }
                }
                let made = runtime.block_on(plan_event(&run, &event, imaging, lane, &ticket))?;
                records.extend(made.records);
                room.taken(made.tasks);
                learned.extend(made.now.map(|now| (of, now)));
            }
            Ok((records, learned))
        });
        failpoint::pass("planner", "plan");
        match planned {
            Ok((records, learned)) => {
                known.learn(learned, assignment);
                ticket.settle(Outcome::Publish(records));
            }
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
    let event = PlateReady {
        plate: plate.clone(),
        run: None,
        lane: None,
        progress: None,
    };
    Ok([
        ready(run, &event, Urgency::Batch)?,
        OutRecord::status(id, &status).map_err(internal)?,
    ])
}

/// The event of a plate for one run, on its lane's topic.
fn ready(run: &Run, event: &PlateReady, lane: Urgency) -> Result<OutRecord, StageError> {
    let plate = &event.plate;
    let event = PlateReady {
        plate: plate.clone(),
        run: Some(run.id.clone()),
        // What is still being imaged is of the live lane, and says nothing of it.
        lane: event.progress.is_none().then_some(lane),
        progress: event.progress.clone(),
    };
    let id = ids::of_plate(&run.id, plate, "ready", &ids::content([plate.as_str()]));
    OutRecord::new(lane.plates(), plate.as_str(), id, event.kind(), &event)
        .map_err(|error| StageError::internal(Stage::Plan, error))
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
