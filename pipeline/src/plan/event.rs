//! What is published for one event about one plate of one run.
//!
//! The event and what is known of the plate enter; records leave: tasks, dead letters, and the plate's status last. What
//! fails: a store that may recover; then nothing is published.

use std::collections::BTreeSet;

use wellspring_workloads::layout::PlateFiles;
use wellspring_workloads::screen::ImagesSettings;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::imaging::{Imaging, SoFar, so_far};
use super::known::Now;
use super::plate::plan_rest;
use super::{Failure, PlatePlan, count};
use crate::clock::{now_ms, rfc3339};
use crate::dead_letters::{Place, letter, record};
use crate::error::{Domain, FailureClass, Stage, StageError};
use crate::events::{AcquisitionProgress, FieldTask, PlateReady, Status};
use crate::failures::will_be_tried_again;
use crate::identity::same_planes;
use crate::ids;
use crate::kafka::OutRecord;
use crate::kafka::topics::Urgency;
use crate::runs::Run;
use crate::track::Ticket;

/// Wells that are named in one message.
const MOST_NAMED: usize = 12;

/// What an event came to.
#[derive(Default)]
pub(super) struct Made {
    pub(super) records: Vec<OutRecord>,
    /// What the plate is now, if anything else than before.
    pub(super) now: Option<Now>,
    /// Whether the run's store has no image of the plate, and never had.
    pub(super) absent: bool,
}

/// Plans what there is to plan: the whole plate, or what of it is there; `imaging` is what was said of it before.
pub(super) async fn plan_event(
    run: &Run,
    event: &PlateReady,
    imaging: Option<&Imaging>,
    lane: Urgency,
    ticket: &Ticket,
) -> Result<Made, StageError> {
    let plate = &event.plate;
    let planning = Planning {
        run,
        plate,
        lane,
        ticket,
    };
    let Some(progress) = &event.progress else {
        let why = imaging.map(|_| "it was announced as ready".to_owned());
        let mut before = imaging.cloned().unwrap_or_default();
        if let Some(taken_over) = &event.taken_over {
            before.take_over(taken_over);
        }
        return planning.whole(&before, why, None).await;
    };
    if let Some(passed) = progress.passed_ms {
        return match imaging {
            Some(known) if known.deadline_ms().is_some_and(|deadline| deadline <= passed) => {
                let why = format!("its deadline passed ({})", rfc3339(passed));
                planning.whole(known, Some(why), None).await
            }
            // Another event has put it off since, or ended it.
            _ => Ok(Made::default()),
        };
    }
    let mut now = imaging.cloned().unwrap_or_default();
    let minutes = run.screen.images.deadline_minutes;
    let minutes = minutes.unwrap_or(ImagesSettings::DEADLINE_MINUTES);
    now.hear(progress, now_ms().saturating_add(u64::from(minutes) * 60_000));
    let mut found = match so_far(run.into(), plate, &now).await {
        Ok(found) => found,
        // The plate is known of, and has a deadline, even where its store stays away.
        Err(error) if error.domain != Domain::Internal && !will_be_tried_again(ticket, &error) => {
            SoFar::waiting(error.chain())
        }
        Err(error) => return Err(error),
    };
    if let Some(files) = found.complete.take() {
        let why = "as many fields are there as were expected".to_owned();
        return planning.whole(&now, Some(why), Some(files)).await;
    }
    planning.some(progress, imaging, now, found)
}

/// Where the work belongs.
struct Planning<'a> {
    run: &'a Run,
    plate: &'a Barcode,
    lane: Urgency,
    ticket: &'a Ticket,
}

impl Planning<'_> {
    /// Tasks for what is there of a plate that is still being imaged.
    fn some(
        &self,
        progress: &AcquisitionProgress,
        before: Option<&Imaging>,
        mut now: Imaging,
        mut found: SoFar,
    ) -> Result<Made, StageError> {
        let (run, plate) = (&self.run.id, self.plate);
        if !found.tasks.is_empty()
            && let Err(error) = same_planes(run, plate, now.shading.as_deref(), found.shading.as_deref())
        {
            found = SoFar::waiting(error.to_string());
        }
        if let Some(waits) = &found.waits {
            tracing::warn!(%plate, run, waits, "the plate is being imaged, and its fields wait");
        }
        let (id, status) = Imaging::status(run, plate, progress, &now, &found);
        now.take(&status);
        if found.tasks.is_empty() && before == Some(&now) {
            return Ok(Made::default());
        }
        let mut records = task_records(self.lane, &found.tasks)?;
        records.push(OutRecord::status(id, &status).map_err(internal)?);
        Ok(Made {
            records,
            now: Some(Now::Imaging(now)),
            absent: false,
        })
    }

    /// Everything that is published for a plate: tasks for fields that have none, what is wrong with it, and its status.
    /// `finished`: why a plate that was being imaged is not waited for any more; `files`: its files, where they have just been
    /// listed. A failure that is tried again later publishes nothing.
    async fn whole(
        &self,
        before: &Imaging,
        finished: Option<String>,
        files: Option<PlateFiles>,
    ) -> Result<Made, StageError> {
        let Self {
            run, plate, ticket, ..
        } = *self;
        let mut plan = match plan_rest(run.into(), plate, &before.planned, files).await {
            Ok(plan) => plan,
            Err(error) if error.domain == Domain::Internal || will_be_tried_again(ticket, &error) => {
                return Err(error);
            }
            Err(error) => PlatePlan::failed(error),
        };
        if !before.planned.is_empty()
            && !plan.tasks.is_empty()
            && let Err(error) =
                same_planes(&run.id, plate, before.shading.as_deref(), plan.shading.as_deref())
        {
            let error = StageError::input(Stage::Plan, FailureClass::Configuration, error);
            plan.failures.push(Failure {
                fields_lost: count(plan.tasks.len()),
                ..Failure::plate(error)
            });
            plan.tasks.clear();
            plan.refused = true;
        }
        let planned = count(before.planned.len() + plan.tasks.len());
        let absent = plan.absent && *before == Imaging::default();
        // Of a plate that is refused for another reason than absent images it says nothing that some did not come.
        let is_missing = |failure: &Failure| failure.class == FailureClass::MissingImage;
        let incomplete = finished
            .filter(|_| !plan.refused || plan.failures.iter().all(is_missing))
            .and_then(|why| self.never_came(&mut plan, planned, before.expected, &why));
        let mut records = task_records(self.lane, &plan.tasks)?;
        let tasks = records.len();
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
        let status = Status::PlatePlanned {
            run: run.id.clone(),
            plate: plate.clone(),
            fields_expected: planned + fields_lost,
            fields_planned: planned,
            dead_letters: count(letters.len()),
            shading: plan.shading.clone().or_else(|| before.shading.clone()),
            incomplete,
            remarks: plan.remarks,
        };
        let of_tasks = records
            .iter()
            .take(tasks)
            .map(|task| ids::content_of_id(&task.id));
        let content = ids::content(of_tasks.chain(letters.iter().map(String::as_str)));
        let id = ids::of_plate(&run.id, plate, "planned", &content);
        records.push(OutRecord::status(id, &status).map_err(internal)?);
        Ok(Made {
            records,
            now: Some(if planned > 0 { Now::Planned } else { Now::Nothing }),
            absent,
        })
    }

    /// What of a plate that was being imaged never came, in words; a dead letter is added that says so.
    fn never_came(
        &self,
        plan: &mut PlatePlan,
        planned: u32,
        expected: Option<u32>,
        why: &str,
    ) -> Option<String> {
        let absent =
            |failure: &&Failure| failure.class == FailureClass::MissingImage && failure.fields_lost > 0;
        let lost: u32 = plan.failures.iter().map(|failure| failure.fields_lost).sum();
        let named: u32 = plan
            .failures
            .iter()
            .filter(absent)
            .map(|failure| failure.fields_lost)
            .sum();
        // What was said to come is all that the microscope images.
        let unnamed = expected
            .map(|expected| expected.saturating_sub(plan.left_out))
            .or(plan.expected)
            .unwrap_or(0)
            .saturating_sub(planned.saturating_add(lost));
        let missing = named + unnamed;
        if missing == 0 {
            return None;
        }
        let wells: BTreeSet<WellPosition> = plan
            .failures
            .iter()
            .filter(absent)
            .filter_map(|failure| failure.well)
            .collect();
        let mut of_wells: Vec<String> = wells
            .iter()
            .take(MOST_NAMED)
            .map(WellPosition::to_string)
            .collect();
        if wells.len() > MOST_NAMED {
            of_wells.push(format!("and {} more", wells.len() - MOST_NAMED));
        }
        if unnamed > 0 {
            of_wells.push(match of_wells.is_empty() {
                true => "nothing says of which wells".to_owned(),
                false => format!("and {unnamed} of which nothing says the well"),
            });
        }
        let incomplete = format!(
            "finished because {why}: {missing} of {} fields never came ({})",
            planned.saturating_add(lost).saturating_add(unnamed),
            of_wells.join(", ")
        );
        let message = format!(
            "plate {} was {incomplete}; once their images are there, a run of the screen under a raised [screen] version has \
             them, and a later deadline waits longer",
            self.plate
        );
        plan.failures.push(Failure {
            fields_lost: unnamed,
            ..Failure::plate(StageError::input(
                Stage::Plan,
                FailureClass::MissingImage,
                message,
            ))
        });
        Some(incomplete)
    }
}

/// Tasks as they are published in a lane.
///
/// # Errors
/// One that no record can hold.
pub fn task_records(lane: Urgency, tasks: &[FieldTask]) -> Result<Vec<OutRecord>, StageError> {
    let record = |task: &FieldTask| {
        let key = format!("{}/{}", task.field.plate, task.field.well);
        let id = ids::of_field(&task.run, &task.field, "task", &ids::content_of_task(task));
        OutRecord::new(lane.tasks(), key, id, "wellspring.task.v1", task).map_err(internal)
    };
    tasks.iter().map(record).collect()
}

fn internal(error: crate::kafka::KafkaFailure) -> StageError {
    StageError::internal(Stage::Plan, error)
}
