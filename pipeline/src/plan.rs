//! Plan: a plate event becomes one task per field of view, checked before any pixel is computed.
//!
//! Plate events enter; tasks, dead letters and the plate's status leave, in one transaction with the event's offset.
//! Listing, names, plate map and controls are compared here, so that a plate that cannot work costs nothing. What
//! fails: an unreadable event, a store that cannot be listed, a plate map that does not match; each is a dead letter,
//! and whatever part of the plate can go on does. Of a plate that is still being imaged the fields that are there are planned at
//! once (`imaging`), each once, whatever is said of it and however often; `deadlines` ends the wait for the others. All events
//! about a plate are planned by the planner that reads its home partition, whichever partition their senders chose.

mod deadlines;
mod event;
mod expected;
mod files;
mod imaging;
mod known;
mod listing;
mod map;
mod planes;
mod plate;
mod room;
mod scaling;
mod turns;

pub use deadlines::keep as keep_deadlines;
pub use event::task_records;
pub use listing::{list_plate, list_screen, plates_by_name, plates_of};
pub use map::{MapCache, read_plate_map};
pub use planes::check_planes;
pub use plate::{Failure, PlatePlan, PlateSource, plan_listed, plan_plate, try_field};
pub use turns::{Turn, Turns};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wellspring_workloads::layout::{FieldFiles, PlaneFile};
use wellspring_workloads::screen::ScreenName;

use self::event::plan_event;
use self::known::{Known, Learned, Now};
use self::room::Room;
use crate::dead_letters::Place;
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{ChannelImages, ImageRef, PlateReady, RunId, Status};
use crate::failures::{SENT_HOME, attempt, parked, sent_home, settle, settle_deadly};
use crate::kafka::home::Home;
use crate::kafka::lane::Inbound;
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use crate::runs::{Course, Run, Runs};
use crate::track::{Outcome, Ticket, Tracked};
use crate::{failpoint, ids};

/// Between two looks at what has changed, while no plate can be planned.
const LOOK: Duration = Duration::from_millis(20);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a plate waits for the turn of a run that another planner has, or that is on its way, before it goes first.
const PATIENCE: Duration = Duration::from_secs(5);

/// The planner of one lane.
///
/// The live planner reads every event, and so is the one that knows whether a plate is new to a run; what the batch lane
/// is to do it hands over. The batch planner takes the runs in turns.
pub struct Planner {
    kafka: KafkaSettings,
    runs: Arc<Runs>,
    lane: Urgency,
    /// Where plates are at home; in the live lane.
    home: Option<Home>,
    room: Room,
    runtime: Handle,
    known: Known,
    /// Events that wait to be planned, in the order they came in.
    waiting: Vec<Waiting>,
    /// Whose turn is waited for, and since when.
    turn_of: Option<(RunId, Instant)>,
}

/// An event that waits to be planned.
struct Waiting {
    event: PlateReady,
    /// Those that the plate belongs to.
    runs: Vec<Arc<Run>>,
    ticket: Ticket,
}

impl Planner {
    /// The planner of this lane, on nothing yet.
    ///
    /// # Errors
    /// No client can be made.
    pub fn open(
        kafka: &KafkaSettings,
        runs: Arc<Runs>,
        lane: Urgency,
        runtime: &Handle,
    ) -> Result<Self, KafkaFailure> {
        Ok(Self {
            home: match lane {
                Urgency::Live => Some(Home::open(kafka, lane.plates())?),
                // Written by live planners alone.
                Urgency::Batch => None,
            },
            room: Room::open(kafka, lane)?,
            kafka: kafka.clone(),
            runs,
            lane,
            runtime: runtime.clone(),
            known: Known::of(lane),
            waiting: Vec::new(),
            turn_of: None,
        })
    }

    /// Plans until the input ends. Blocking; on a thread of its own.
    pub fn run(mut self, input: &async_channel::Receiver<Tracked<Arc<Inbound>>>) {
        loop {
            if self.waiting.is_empty() {
                let Ok(first) = input.recv_blocking() else { return };
                self.take(first);
            }
            while let Ok(next) = input.try_recv() {
                self.take(next);
            }
            for stale in self.waiting.extract_if(.., |waiting| waiting.ticket.is_stale()) {
                stale.ticket.settle(Outcome::GivenBack);
            }
            if input.is_closed() {
                for waiting in self.waiting {
                    waiting.ticket.settle(Outcome::GivenBack);
                }
                return;
            }
            match self.next() {
                Ok(Some(index)) => {
                    let next = self.waiting.remove(index);
                    self.plan(next);
                }
                Ok(None) if self.waiting.is_empty() => {}
                Ok(None) => std::thread::sleep(LOOK),
                Err(error) => {
                    let message = crate::error::chain(&error);
                    tracing::warn!(message, "how many tasks wait cannot be read now; trying again");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Reads an event, or settles it as one that cannot be planned.
    fn take(&mut self, Tracked { value, ticket }: Tracked<Arc<Inbound>>) {
        let parsed = ticket.read::<PlateReady>(Stage::Plan);
        if value.deadly {
            let place = parsed.map_or_else(|_| Place::default(), |event| place_of(&event));
            settle_deadly(ticket, place);
            return;
        }
        let event = match parsed {
            Ok(event) => event,
            Err(error) => {
                settle(ticket, Place::default(), error);
                return;
            }
        };
        let Some(ticket) = self.unless_elsewhere(&event, ticket) else {
            return;
        };
        match runs_of(&event, &self.runs) {
            Ok(runs) => self.waiting.push(Waiting { event, runs, ticket }),
            Err(error) => settle(ticket, place_of(&event), error),
        }
    }

    /// The ticket, unless the event is sent home.
    fn unless_elsewhere(&mut self, event: &PlateReady, ticket: Ticket) -> Option<Ticket> {
        match self.belongs_elsewhere(event, &ticket) {
            Ok(false) => return Some(ticket),
            Ok(true) => {
                let record = sent_home(ticket.facts().of, ticket.record(), event.plate.as_str());
                ticket.settle(Outcome::Publish(vec![record]));
            }
            Err(error) => settle(ticket, place_of(event), error),
        }
        None
    }

    /// Whether another partition is the plate's home. An event that was sent home once stays where it came to: its sender may
    /// have counted other partitions than there are now.
    fn belongs_elsewhere(&mut self, event: &PlateReady, ticket: &Ticket) -> Result<bool, StageError> {
        let Some(home) = &mut self.home else {
            return Ok(false);
        };
        if ticket.record().header(SENT_HOME).is_some() {
            return Ok(false);
        }
        let partitions = home.partitions();
        let partition = home
            .of(event.plate.as_str())
            .map_err(|error| StageError::external(Stage::Plan, FailureClass::Network, error))?;
        if home.partitions() != partitions {
            // Plates that were begun elsewhere may be at home here now.
            self.known.read_again();
        }
        Ok(partition != ticket.position().partition)
    }

    /// Which event is to be planned now: first one that is taken alone, since it may be what ended other processes. Of the live
    /// lane the first, once there is room for it; of the batch lane one that needs no room, or the one whose turn it is.
    fn next(&mut self) -> Result<Option<usize>, StageError> {
        let Some(first) = self.waiting.first() else {
            return Ok(None);
        };
        let suspect = self
            .waiting
            .iter()
            .position(|waiting| waiting.ticket.record().alone);
        if suspect.is_some() {
            return Ok(suspect);
        }
        let free = match self.lane {
            Urgency::Live => Some(0).filter(|_| self.hands_over(&first.event) || self.is_idle(first)),
            Urgency::Batch => self.waiting.iter().position(|waiting| self.is_idle(waiting)),
        };
        if free.is_some() {
            return Ok(free);
        }
        if !self.room.is_there()? {
            return Ok(None);
        }
        if self.lane == Urgency::Live {
            return Ok(Some(0));
        }
        let here: Vec<&RunId> = self
            .waiting
            .iter()
            .filter_map(|waiting| waiting.event.run.as_ref())
            .collect();
        let run = match self.runs.turn(&here) {
            Some(Turn::Here(run)) => run,
            Some(Turn::Elsewhere(run)) => {
                let since = match &self.turn_of {
                    Some((of, since)) if *of == run => *since,
                    _ => Instant::now(),
                };
                if since.elapsed() >= PATIENCE {
                    self.runs.pass_over(&run);
                }
                self.turn_of = Some((run, since));
                return Ok(None);
            }
            // The status of what is here has not been read yet.
            None => return Ok(Some(0)),
        };
        self.turn_of = None;
        Ok(self
            .waiting
            .iter()
            .position(|waiting| waiting.event.run.as_ref() == Some(&run)))
    }

    /// Whether it is worked on now in none of its runs.
    fn is_idle(&self, waiting: &Waiting) -> bool {
        let mut runs = waiting.runs.iter();
        runs.all(|run| self.runs.course_of_plate(&run.id, &waiting.event.plate) != Course::Open)
    }

    /// Whether the event is the batch planner's to plan.
    fn hands_over(&self, event: &PlateReady) -> bool {
        self.lane == Urgency::Live && event.lane == Some(Urgency::Batch)
    }

    /// Plans a plate for its runs.
    fn plan(&mut self, Waiting { event, runs, ticket }: Waiting) {
        // Partitions may have been added while it waited.
        let Some(ticket) = self.unless_elsewhere(&event, ticket) else {
            return;
        };
        let planned = self.records(&event, &runs, &ticket);
        failpoint::pass("planner", "plan");
        match planned {
            Ok((records, learned)) => {
                self.known.learn(learned, ticket.position().assignment);
                ticket.settle(Outcome::Publish(records));
            }
            Err(error) => settle(ticket, place_of(&event), error),
        }
    }

    /// Everything that is published for an event, and what becomes of its plates thereby.
    fn records(
        &mut self,
        event: &PlateReady,
        runs: &[Arc<Run>],
        ticket: &Ticket,
    ) -> Result<(Vec<OutRecord>, Learned), StageError> {
        let assignment = ticket.position().assignment;
        self.known.catch_up(&self.kafka, assignment)?;
        let (mut records, mut learned) = (Vec::new(), Vec::new());
        let (mut absent, mut found) = (Vec::new(), false);
        let newest = newest(runs);
        for run in runs {
            let course = self.runs.course_of_plate(&run.id, &event.plate);
            if course == Course::Cancelled {
                tracing::info!(run = run.id, plate = %event.plate, "the run, or the plate in it, was cancelled");
                continue;
            }
            let of = (run.id.clone(), event.plate.clone());
            // A run that a later version of its screen has replaced is over but for what it has begun: its results stay as they
            // are.
            let is_newest = newest.get(&run.screen.name) == Some(&run.screen.version);
            if event.run.is_none() && !is_newest && self.known.imaging(&of, assignment).is_none() {
                continue;
            }
            if self.known.has(&self.kafka, &of, assignment)? {
                tracing::info!(run = run.id, plate = %event.plate, "announced again; it is planned already");
                found = true;
                continue;
            }
            let imaging = self.known.imaging(&of, assignment);
            // A plate that is being imaged stays where it was begun.
            if self.hands_over(event) && imaging.is_none() {
                records.extend(queued(run, event)?);
                learned.push((of, Now::Planned));
                continue;
            }
            if course == Course::Paused {
                let event = ready(run, event, self.lane)?;
                records.push(parked(event, attempt(ticket.record())));
                continue;
            }
            let planning = plan_event(run, event, imaging, self.lane, ticket);
            let mut made = self.runtime.block_on(planning)?;
            self.room.place(&mut made.records, &event.plate);
            if made.absent {
                absent.push((of, made));
                continue;
            }
            found = true;
            records.extend(made.records);
            learned.extend(made.now.map(|now| (of, now)));
        }
        // A plate that names no run and lies in the store of one screen is none of the others'.
        if event.run.is_some() || !found {
            for (of, made) in absent {
                records.extend(made.records);
                learned.extend(made.now.map(|now| (of, now)));
            }
        }
        Ok((records, learned))
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
fn queued(run: &Run, event: &PlateReady) -> Result<[OutRecord; 2], StageError> {
    let plate = &event.plate;
    let internal = |error| StageError::internal(Stage::Plan, error);
    let id = ids::of_plate(&run.id, plate, "queued", &ids::content([plate.as_str()]));
    let status = Status::PlateQueued {
        run: run.id.clone(),
        plate: plate.clone(),
    };
    Ok([
        ready(run, event, Urgency::Batch)?,
        OutRecord::status(id, &status).map_err(internal)?,
    ])
}

/// The event of a plate for one run, on its lane's topic.
fn ready(run: &Run, event: &PlateReady, lane: Urgency) -> Result<OutRecord, StageError> {
    let event = PlateReady {
        run: Some(run.id.clone()),
        // What is still being imaged is of the live lane, and says nothing of it.
        lane: event.progress.is_none().then_some(lane),
        ..event.clone()
    };
    // The plates of a run are in one partition of the batch lane, so that none waits behind those of another run.
    let key = match lane {
        Urgency::Live => event.plate.as_str(),
        Urgency::Batch => run.id.as_str(),
    };
    OutRecord::plate(lane.plates(), key, &event).map_err(|error| StageError::internal(Stage::Plan, error))
}

/// The runs that an event may be for: the one that it names, else all that include the plate.
fn runs_of(event: &PlateReady, runs: &Arc<Runs>) -> Result<Vec<Arc<Run>>, StageError> {
    match &event.run {
        Some(run) => Ok(vec![runs.get(run)?]),
        None => {
            let includes = |run: &Arc<Run>| {
                let plates = &run.screen.images.plates;
                plates.is_empty() || plates.contains(&event.plate)
            };
            let goes_on = |run: &Arc<Run>| runs.course(&run.id) != Course::Cancelled;
            Ok(runs.all().into_iter().filter(includes).filter(goes_on).collect())
        }
    }
}

/// Of every screen the newest version.
fn newest(runs: &[Arc<Run>]) -> HashMap<&ScreenName, u32> {
    let mut newest = HashMap::new();
    for run in runs {
        let version = newest.entry(&run.screen.name).or_default();
        *version = run.screen.version.max(*version);
    }
    newest
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
        version: plane.file.version.clone(),
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
