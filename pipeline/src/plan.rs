//! Plan: a plate event becomes one task per field of view, checked before any pixel is computed.
//!
//! Plate events enter; tasks, dead letters and the plate's status leave, in one transaction with the event's offset.
//! Listing, names, plate map and controls are compared here, so that a plate that cannot work costs nothing. What
//! fails: an unreadable event, a store that cannot be listed, a plate map that does not match; each is a dead letter,
//! and whatever part of the plate can go on does.

mod listing;
mod planes;
mod room;

pub use listing::{list_plate, list_screen, plates_of};
pub use planes::check_planes;
pub use room::Room;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::runtime::Handle;
use wellspring_kernels::Histogram;
use wellspring_workloads::layout::{FieldFiles, FileProblem, PlaneFile, PlateFiles};
use wellspring_workloads::plate_map::{GalleryMap, MapFile, PlateMap, PlateMapErrors};
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::screen::{Scaling, Screen};
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use crate::collector::read_statuses;
use crate::dead_letters::{Place, letter, record};
use crate::decode::field_image;
use crate::error::{Domain, FailureClass, Stage, StageError};
use crate::events::{ChannelImages, FieldTask, ImageRef, PlateReady, RunId, Status};
use crate::failures::{attempt, parked, settle, settle_deadly, will_be_tried_again};
use crate::kafka::lane::Inbound;
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaSettings, OutRecord};
use crate::runs::{Course, Run, Runs};
use crate::track::{Outcome, Ticket, Tracked};
use crate::{failpoint, ids};

/// Control fields whose histograms are pooled for scaling, spread evenly over the plate's controls.
const SCALING_FIELDS: usize = 32;

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
    let plan = match plan_plate(run, plate).await {
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

/// What is to be done for a plate, and what of it cannot be.
#[derive(Debug)]
pub struct PlatePlan {
    /// One per field, in well and field order.
    pub tasks: Vec<FieldTask>,
    /// What cannot be done.
    pub failures: Vec<Failure>,
    /// Hash of the plate's illumination functions and dark-fields, where it has any.
    pub shading: Option<String>,
}

impl PlatePlan {
    fn nothing(failures: Vec<Failure>) -> Self {
        Self {
            tasks: Vec::new(),
            failures,
            shading: None,
        }
    }

    fn failed(error: StageError) -> Self {
        Self::nothing(vec![Failure::plate(error)])
    }
}

/// Part of a plate that cannot be processed.
#[derive(Debug)]
pub struct Failure {
    /// Where it was found.
    pub stage: Stage,
    /// What kind.
    pub class: FailureClass,
    /// The well; the whole plate when absent.
    pub well: Option<WellPosition>,
    /// The field; the whole well when absent.
    pub field: Option<u32>,
    /// Fields it costs.
    pub fields_lost: u32,
    /// What is wrong and what to do.
    pub message: String,
}

impl Failure {
    fn plate(error: StageError) -> Self {
        let (stage, class, message) = (error.stage, error.class, error.chain());
        Self {
            stage,
            class,
            well: None,
            field: None,
            fields_lost: 0,
            message,
        }
    }

    fn well(class: FailureClass, well: WellPosition, fields_lost: u32, message: String) -> Self {
        Self {
            stage: Stage::Plan,
            class,
            well: Some(well),
            field: None,
            fields_lost,
            message,
        }
    }
}

/// Plans one plate: lists its files, checks them against the plate map, and makes its tasks.
pub async fn plan_plate(run: &Run, plate: &Barcode) -> Result<PlatePlan, StageError> {
    let screen = &run.screen;
    let found = list_plate(&run.store, screen, plate).await?;
    let map = read_plate_map(screen).await?;
    let fields = found.plates.get(plate).map_or(&[][..], Vec::as_slice);
    let mut failures = file_failures(&found, plate);
    if fields.is_empty() && failures.is_empty() {
        let mut message = format!("no image of plate {plate} was found in {}", screen.images.store);
        // What was found instead is the reason: another channel's text, another layout.
        for problem in &found.problems {
            message.push_str(&format!("; {problem}"));
        }
        let error = StageError::input(Stage::Plan, FailureClass::MissingImage, message);
        return Ok(PlatePlan::failed(error));
    }
    let treatments = match screen.treatments(&map, plate) {
        Ok(treatments) => treatments,
        Err(errors) => {
            let error = StageError::input(Stage::Plan, FailureClass::PlateMap, errors);
            let lost = count(fields.len());
            failures.push(Failure {
                fields_lost: lost,
                ..Failure::plate(error)
            });
            return Ok(PlatePlan::nothing(failures));
        }
    };

    let mut by_well: BTreeMap<WellPosition, Vec<&FieldFiles>> = BTreeMap::new();
    for field in fields {
        by_well.entry(field.well).or_default().push(field);
    }
    let expected = screen
        .images
        .fields_per_well
        .unwrap_or_else(|| most_common_count(&by_well));
    failures.extend(unmatched_wells(
        &by_well,
        &treatments,
        &map,
        plate,
        expected,
        &failures,
    ));
    by_well.retain(|well, _| treatments.contains_key(well));

    let shading = match check_planes(run, plate, fields).await? {
        Ok(digest) => digest,
        // All fields of the plate would fail for it, one after the other.
        Err(errors) => {
            let mut lost = count(by_well.values().map(Vec::len).sum());
            for error in errors.0 {
                let error = StageError::input(Stage::Plan, FailureClass::Configuration, error);
                failures.push(Failure {
                    fields_lost: std::mem::take(&mut lost),
                    ..Failure::plate(error)
                });
            }
            return Ok(PlatePlan::nothing(failures));
        }
    };

    let scaling = match screen.preprocess.scaling {
        Scaling::Controls { low, high } if !by_well.is_empty() => {
            Some(pooled_scaling(run, &by_well, &treatments, low, high).await?)
        }
        _ => None,
    };
    let tasks = by_well
        .into_values()
        .flatten()
        .map(|field| FieldTask {
            run: run.id.clone(),
            field: FieldId {
                plate: plate.clone(),
                well: field.well,
                field: field.field,
            },
            images: images(field),
            scaling: scaling.clone(),
            shading: shading.clone(),
        })
        .collect();
    Ok(PlatePlan {
        tasks,
        failures,
        shading,
    })
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The images of a field as its task names them.
pub fn images(field: &FieldFiles) -> Vec<ChannelImages> {
    let image = |plane: &PlaneFile| ImageRef {
        path: plane.file.path.clone(),
        bytes: plane.file.size,
        page: plane.page,
    };
    field
        .channels
        .iter()
        .map(|channel| ChannelImages {
            channel: channel.channel.clone(),
            planes: channel.planes.iter().map(image).collect(),
        })
        .collect()
}

/// The screen's plate map.
pub async fn read_plate_map(screen: &Screen) -> Result<PlateMap, StageError> {
    let uri = &screen.plate_map.file;
    let bytes = crate::store::read_uri(uri).await.map_err(|error| StageError {
        stage: Stage::Plan,
        class: if error.class == FailureClass::MissingImage {
            FailureClass::PlateMap
        } else {
            error.class
        },
        ..error
    })?;
    let wrong = |errors| StageError::input(Stage::Plan, FailureClass::PlateMap, errors);
    match PlateMap::read(&bytes, uri, &screen.plate_map).map_err(wrong)? {
        MapFile::Whole(map) => Ok(map),
        MapFile::Gallery(gallery) => join_maps(*gallery).await?.map_err(wrong),
    }
}

/// Reads what a barcode file of the Gallery names. What is absent or refused is for the map to tell; what may pass is an
/// error to be tried again.
async fn join_maps(gallery: GalleryMap) -> Result<Result<PlateMap, PlateMapErrors>, StageError> {
    let mut maps = BTreeMap::new();
    for uri in gallery.maps() {
        let bytes = match crate::store::read_uri(&uri).await {
            Err(error) if error.domain != Domain::Input => return Err(error),
            bytes => bytes.map(|bytes| bytes.to_vec()).map_err(|error| error.chain()),
        };
        maps.insert(uri, bytes);
    }
    let (places, needed) = gallery.external();
    let mut external = None;
    for uri in places {
        match crate::store::read_uri(&uri).await {
            Ok(bytes) => {
                external = Some((uri, bytes));
                break;
            }
            // The usual places may all be empty; that a screen names must not be.
            Err(error) if needed || error.domain != Domain::Input => return Err(error),
            Err(_) => {}
        }
    }
    let external = external
        .as_ref()
        .map(|(uri, bytes)| (uri.as_str(), bytes.as_ref()));
    Ok(gallery.join(&maps, external))
}

fn file_failures(found: &PlateFiles, plate: &Barcode) -> Vec<Failure> {
    let mut failures = Vec::new();
    for problem in &found.problems {
        let message = problem.to_string();
        match problem {
            FileProblem::MissingChannel { field, .. }
            | FileProblem::AbsentFile { field, .. }
            | FileProblem::UnusableImage { field, .. }
            | FileProblem::DuplicateFile { field, .. }
                if field.plate == *plate =>
            {
                let class = match problem {
                    FileProblem::DuplicateFile { .. } => FailureClass::BadImage,
                    FileProblem::UnusableImage { .. } => FailureClass::BadMetadata,
                    _ => FailureClass::MissingImage,
                };
                failures.push(Failure {
                    field: Some(field.field),
                    ..Failure::well(class, field.well, 1, message)
                });
            }
            // Names were used instead, so that no field is lost by it alone.
            FileProblem::Metadata { plate: of, .. } if of.as_ref().is_none_or(|of| of == plate) => {
                failures.push(Failure {
                    stage: Stage::Plan,
                    class: FailureClass::BadMetadata,
                    well: None,
                    field: None,
                    fields_lost: 0,
                    message,
                });
            }
            FileProblem::FewerFields {
                plate: of,
                well,
                found,
                expected,
            } if of == plate => {
                let lost = expected.saturating_sub(*found);
                failures.push(Failure::well(FailureClass::MissingImage, *well, lost, message));
            }
            // These cost no field of this plate, but a person should know.
            problem if problem.is_remark() && problem.plate().is_none_or(|of| of == plate) => {
                tracing::warn!(%plate, message, "files passed over");
            }
            _ => {}
        }
    }
    failures
}

fn most_common_count(by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>) -> u32 {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for fields in by_well.values() {
        *counts.entry(fields.len()).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, wells)| *wells)
        .map_or(1, |(fields, _)| count(fields))
}

/// Wells with images that the map lacks, and wells of the map without images.
fn unmatched_wells(
    by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>,
    treatments: &BTreeMap<WellPosition, Treatment>,
    map: &PlateMap,
    plate: &Barcode,
    expected: u32,
    known: &[Failure],
) -> Vec<Failure> {
    let file = map.file();
    let not_in_map = by_well.iter().filter(|(well, _)| map.treatment(plate, **well).is_none()).map(|(well, fields)| {
        let message = format!(
            "plate {plate} well {well} has {} fields of images but no row in {file}; add the row, or take the images away",
            fields.len()
        );
        Failure::well(FailureClass::PlateMap, *well, count(fields.len()), message)
    });
    // A well whose every field already failed for another reason is not reported twice.
    let reported: BTreeSet<WellPosition> = known.iter().filter_map(|failure| failure.well).collect();
    let not_imaged = treatments
        .keys()
        .filter(|well| !by_well.contains_key(well) && !reported.contains(well))
        .map(|well| {
            let message = format!(
                "plate {plate} well {well} has a row in {file} but no images; remove the row or exclude the well in \
                 [controls] if it was not imaged"
            );
            Failure::well(FailureClass::MissingImage, *well, expected, message)
        });
    not_in_map.chain(not_imaged).collect()
}

/// The grey levels that become 0 and 1, per channel: percentiles pooled over control fields.
async fn pooled_scaling(
    run: &Run,
    by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>,
    treatments: &BTreeMap<WellPosition, Treatment>,
    low: f64,
    high: f64,
) -> Result<Vec<(f32, f32)>, StageError> {
    let controls: Vec<&FieldFiles> = by_well
        .iter()
        .filter(|(well, _)| {
            treatments
                .get(well)
                .is_some_and(|treatment| treatment.role != Role::Treated)
        })
        .flat_map(|(_, fields)| fields.iter().copied())
        .collect();
    let step = controls.len().div_ceil(SCALING_FIELDS).max(1);
    let mut pooled = vec![Histogram::new(); run.screen.images.channels.len()];
    for field in controls.into_iter().step_by(step) {
        // A control image that cannot be read gets its dead letter from its own task; here it only counts less.
        if let Err(error) = pool_field(run, field, &mut pooled).await {
            tracing::warn!(%error, "a control field is left out of the pooled scaling");
        }
    }
    let internal = |error| StageError::internal(Stage::Plan, error);
    let mut scaling = Vec::with_capacity(pooled.len());
    for histogram in &pooled {
        if histogram.total() == 0 {
            return Err(StageError::input(
                Stage::Plan,
                FailureClass::MissingImage,
                "no image of a control well could be read, so the plate cannot be scaled by its controls",
            ));
        }
        let low = histogram.percentile(low).map_err(internal)?;
        let high = histogram.percentile(high).map_err(internal)?;
        scaling.push((low as f32, high as f32));
    }
    Ok(scaling)
}

async fn pool_field(run: &Run, field: &FieldFiles, pooled: &mut [Histogram]) -> Result<(), StageError> {
    let images = images(field);
    let bytes = crate::fetch::read_channels(&run.store, &images).await?;
    let planes = images.iter().map(|channel| &channel.planes);
    let image = field_image(bytes.iter().zip(planes), &run.screen.images)?;
    for (channel, histogram) in pooled.iter_mut().enumerate() {
        histogram.merge(&Histogram::of(image.plane(channel)));
    }
    Ok(())
}
