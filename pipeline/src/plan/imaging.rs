//! A plate that is still being imaged: what is known of it, and what of it can be worked on already.
//!
//! Events and the plate's statuses enter an [`Imaging`]; the fields that are there and have no task yet leave, or that the plate
//! is complete. What the plate lacks is no failure before it is finished. What fails: a store that may recover.

use std::collections::BTreeSet;

use wellspring_workloads::layout::{FieldFiles, PlateFiles};
use wellspring_workloads::screen::Scaling;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::expected::expected_fields;
use super::plate::{Field, PlateSource, tasks};
use super::{check_planes, list_plate};
use crate::error::{Domain, Retry, StageError};
use crate::events::{AcquisitionProgress, FieldTask, RunId, Status, TakenOver, WellFields};
use crate::ids;
use crate::zarr;

/// What the log says of a plate that is still being imaged. The order in which it was said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Imaging {
    /// Fields that have tasks.
    pub(super) planned: BTreeSet<Field>,
    /// Wells that were said to be imaged.
    wells: BTreeSet<WellPosition>,
    /// Whether fields of any well may be taken.
    every_well: bool,
    /// Fields that the plate will have, as was said.
    pub(super) expected: Option<u32>,
    /// When it is waited for no longer, in milliseconds since 1970 UTC, and before that whether an event has said so: what was
    /// said holds, and of several the latest.
    deadline: Option<(bool, u64)>,
    /// Hash of the planes that its tasks were made with.
    pub(super) shading: Option<String>,
    /// Why fields wait that are there.
    waits: Option<String>,
}

impl Imaging {
    /// Takes what an event says; it waits until `otherwise_ms` where the event does not say.
    pub(super) fn hear(&mut self, progress: &AcquisitionProgress, otherwise_ms: u64) {
        let AcquisitionProgress {
            wells,
            fields_expected,
            deadline_ms,
            passed_ms: _,
        } = progress;
        self.add_wells(wells.as_deref());
        self.expected = self.expected.max(*fields_expected);
        let deadline = match deadline_ms {
            Some(said) => (true, *said),
            None => (false, otherwise_ms),
        };
        self.deadline = self.deadline.max(Some(deadline));
    }

    /// Takes one of the plate's statuses.
    pub(super) fn take(&mut self, status: &Status) {
        let Status::PlateImaging {
            planned,
            wells,
            fields_expected,
            deadline_ms,
            deadline_said,
            shading,
            waits,
            ..
        } = status
        else {
            return;
        };
        self.planned.extend(planned.iter().flat_map(WellFields::each));
        self.add_wells(wells.as_deref());
        self.expected = self.expected.max(*fields_expected);
        let deadline = deadline_ms.map(|deadline| (deadline_said.unwrap_or(true), deadline));
        self.deadline = self.deadline.max(deadline);
        if shading.is_some() {
            self.shading.clone_from(shading);
        }
        self.waits.clone_from(waits);
    }

    /// Takes the fields that need no task, since the run has their features.
    pub(super) fn take_over(&mut self, taken_over: &TakenOver) {
        self.planned
            .extend(taken_over.fields.iter().flat_map(WellFields::each));
        self.shading.clone_from(&taken_over.shading);
    }

    /// When it is waited for no longer, in milliseconds since 1970 UTC.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.deadline.map(|(_, deadline)| deadline)
    }

    fn add_wells(&mut self, wells: Option<&[WellPosition]>) {
        match wells {
            Some(wells) => self.wells.extend(wells),
            None => self.every_well = true,
        }
    }

    /// The status that says what an event made of the plate, and its id.
    pub(super) fn status(
        run: &RunId,
        plate: &Barcode,
        progress: &AcquisitionProgress,
        now: &Self,
        found: &SoFar,
    ) -> (String, Status) {
        let planned = found.tasks.iter();
        let planned = planned.map(|task| (task.field.well, task.field.field));
        let status = Status::PlateImaging {
            run: run.clone(),
            plate: plate.clone(),
            planned: WellFields::of(planned),
            wells: progress.wells.clone(),
            fields_expected: now.expected,
            deadline_ms: now.deadline_ms(),
            deadline_said: now.deadline.map(|(said, _)| said),
            shading: found.shading.clone(),
            waits: found.waits.clone(),
        };
        let of_event = format!(
            "{progress:?} {:?} {:?} {:?}",
            now.expected, now.deadline, found.waits
        );
        let content = ids::content(found.tasks.iter().map(ids::content_of_task).chain([of_event]));
        (ids::of_plate(run, plate, "imaging", &content), status)
    }

    /// The fields that may be taken of those that have all channels.
    fn taken<'a>(&self, fields: &'a [FieldFiles]) -> Vec<&'a FieldFiles> {
        let mut fullest: Vec<usize> = Vec::new();
        for field in fields {
            fullest.resize(fullest.len().max(field.channels.len()), 0);
            for (most, channel) in fullest.iter_mut().zip(&field.channels) {
                *most = channel.planes.len().max(*most);
            }
        }
        // What is being written is there too: a stack plane by plane, a file that is still empty, an array's document before
        // its chunks.
        let whole = |field: &FieldFiles| {
            let mut channels = field.channels.iter().zip(&fullest);
            channels.all(|(channel, most)| channel.planes.len() == *most)
                && field
                    .channels
                    .iter()
                    .flat_map(|channel| &channel.planes)
                    .all(|plane| plane.file.size > 0 && !zarr::is_document(&plane.file.path))
        };
        let taken = |field: &&FieldFiles| self.wells.contains(&field.well) || self.every_well && whole(field);
        fields.iter().filter(taken).collect()
    }
}

/// What of a plate can be worked on.
#[derive(Debug)]
pub(super) struct SoFar {
    /// Of fields that have none yet.
    pub(super) tasks: Vec<FieldTask>,
    /// Hash of the planes they were made with.
    pub(super) shading: Option<String>,
    /// Why fields wait that are there.
    pub(super) waits: Option<String>,
    /// The plate's files, where as many fields are there as were expected.
    pub(super) complete: Option<PlateFiles>,
}

impl SoFar {
    pub(super) fn waiting(waits: impl Into<String>) -> Self {
        Self {
            tasks: Vec::new(),
            shading: None,
            waits: Some(waits.into()),
            complete: None,
        }
    }
}

/// What is there and has no task yet.
///
/// # Errors
/// The store is away, or something of this program is wrong.
pub(super) async fn so_far(
    source: PlateSource<'_>,
    plate: &Barcode,
    imaging: &Imaging,
) -> Result<SoFar, StageError> {
    let screen = source.screen;
    let found = match wrong(list_plate(source.store, screen, plate).await)? {
        Ok(found) => found,
        Err(wrong) => return Ok(SoFar::waiting(wrong)),
    };
    let fields = found.plates.get(plate).map_or(&[][..], Vec::as_slice);
    let there = imaging.taken(fields);
    let map = match wrong(source.map.get(screen).await)? {
        Ok(map) => map,
        Err(wrong) => return Ok(SoFar::waiting(wrong)),
    };
    let treatments = match screen.treatments(&map, plate) {
        Ok(treatments) => treatments,
        Err(errors) => return Ok(SoFar::waiting(errors.to_string())),
    };
    let mapped = there.iter().filter(|field| treatments.contains_key(&field.well));
    let complete = match imaging.expected {
        Some(expected) => there.len() >= expected as usize,
        None => match expected_fields(&found, screen, plate, treatments.len()) {
            Some(expected) => expected.arrived(there.len(), mapped.clone().count()),
            None => false,
        },
    };
    if complete {
        return Ok(SoFar {
            tasks: Vec::new(),
            shading: None,
            waits: None,
            complete: Some(found),
        });
    }
    if matches!(screen.preprocess.scaling, Scaling::Controls { .. }) {
        return Ok(SoFar::waiting(
            "grey levels are scaled by the plate's controls ([preprocess] scaling), which have to be there first",
        ));
    }
    let shading = match check_planes(source, plate, fields).await? {
        Ok(shading) => shading,
        Err(errors) => return Ok(SoFar::waiting(errors.to_string())),
    };
    let new = mapped.filter(|field| !imaging.planned.contains(&(field.well, field.field)));
    Ok(SoFar {
        tasks: tasks(screen, plate, new.copied(), None, shading.as_deref()),
        shading,
        waits: None,
        complete: None,
    })
}

/// What is found, or what is wrong with it and may be mended while the plate is imaged. What may pass by itself is an error.
fn wrong<T>(found: Result<T, StageError>) -> Result<Result<T, String>, StageError> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(error) if error.domain != Domain::Input || error.retry != Retry::Never => Err(error),
        Err(error) => Ok(Err(error.chain())),
    }
}
