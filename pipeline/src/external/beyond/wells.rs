//! Steps that are asked about wells: each once, as many at a time as the step takes, in the order of the graph.
//!
//! A step is given the well's profile so far (`aggregate`), the images of its fields, what it was given (`plate_map`) and
//! columns of earlier steps. A well that one step gives no answer about is taken out, and no other step is asked about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use wellspring_workloads::profile::WellProfile;
use wellspring_workloads::screen::ExternalStep;
use wellspring_workloads::screen::graph::{AGGREGATE, IMAGES, Level, PLATE_MAP};
use wellspring_workloads::words::WellPosition;

use super::{Asker, PlateGiven, content, given, named};
use crate::error::{Retry, Stage, StageError};
use crate::external::ExternalError;
use crate::external::protocol::{Request, RequestImages, Subject, images_of};
use crate::failpoint;
use crate::plan::{images, list_plate};

/// Images of the fields with features, by well.
type Images = BTreeMap<WellPosition, Vec<RequestImages>>;

/// What came of a request: the place of its well, what was asked, and the answer.
type Answered = (usize, Request, Result<Vec<f32>, ExternalError>);

pub(super) fn ask(
    asker: &mut Asker<'_>,
    plate: &PlateGiven<'_>,
    profiles: &mut Vec<WellProfile>,
) -> Result<(), StageError> {
    let mut images: Option<Images> = None;
    for (index, step) in asker.steps(Level::Well) {
        if profiles.is_empty() {
            continue;
        }
        let of_plate = Subject {
            plate: Some(plate.plate.clone()),
            well: None,
        };
        if asker.has_failed(step, &of_plate) {
            lose_plate(asker, index, step, plate, (profiles, 0));
            continue;
        }
        if let Some(down) = asker.is_down(step) {
            asker.fail(step, of_plate, &down, None);
            lose_plate(asker, index, step, plate, (profiles, 0));
            continue;
        }
        if images.is_none() && step.inputs.iter().any(|input| input == IMAGES) {
            match asker.wait(images_with_patience(asker, step, plate))? {
                Ok(found) => images = Some(found),
                Err(error) => {
                    let error = error.of(format!("step '{}' cannot be given the images", step.name));
                    asker.fail(step, of_plate, &error, None);
                    lose_plate(asker, index, step, plate, (profiles, 0));
                    continue;
                }
            }
        }
        let none = Images::new();
        let Answers { answered, silent } = {
            let images = images.as_ref().unwrap_or(&none);
            let wells = profiles.iter().enumerate().filter(|(_, profile)| {
                let well = Some(profile.well);
                let plate = of_plate.plate.clone();
                !asker.has_failed(step, &Subject { plate, well })
            });
            let requests = wells.map(|(at, profile)| (at, request(asker, step, profile, images)));
            asker.wait(all(asker, step, requests))??
        };
        let broken = answered.iter().find_map(|(_, request, answer)| {
            let error = answer.as_ref().err()?;
            (error.is_of_service() || silent && error.is_silence()).then_some(request)
        });
        asker.heard_of(step, !silent);
        let asked = answered.len();
        // What is wrong with the service is told once, and not for each well.
        let broken = broken.cloned();
        let mut by_well: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for (at, request, answer) in answered {
            match (answer, &broken) {
                (Ok(values), _) => _ = by_well.insert(at, values),
                (Err(error), None) => {
                    let about = Subject {
                        plate: request.plate.clone(),
                        well: request.well,
                    };
                    asker.fail(step, about, &error.stage_error(step), Some(&request));
                }
                (Err(error), Some(first)) if *first == request => {
                    asker.fail(step, of_plate.clone(), &error.stage_error(step), Some(&request));
                }
                (Err(_), Some(_)) => {}
            }
        }
        if broken.is_some() {
            lose_plate(asker, index, step, plate, (profiles, asked));
            continue;
        }
        join(asker, index, step, plate, (&mut *profiles, by_well));
    }
    Ok(())
}

/// Puts the answers behind the values; wells without one are taken out.
fn join(
    asker: &mut Asker<'_>,
    index: usize,
    step: &ExternalStep,
    plate: &PlateGiven<'_>,
    (profiles, mut by_well): (&mut Vec<WellProfile>, BTreeMap<usize, Vec<f32>>),
) {
    let mut missing = Vec::new();
    let mut at = 0;
    profiles.retain_mut(|profile| {
        let answer = by_well.remove(&at);
        at += 1;
        match answer {
            Some(values) => profile.values.extend(values),
            None => {
                missing.push(profile.well);
                return false;
            }
        }
        true
    });
    asker.count(index, |outcome| {
        outcome.answered += at - missing.len();
        outcome.failed += missing.len();
    });
    if !missing.is_empty() {
        asker.left_out.push(format!(
            "plate {}: step '{}' gave no answer about {} of {at} wells ({}), which are left out of the comparison; \
             dead-letters.jsonl says why, and `wellspring dead-letters retry` has them asked about again",
            plate.plate,
            step.name,
            missing.len(),
            named(&missing)
        ));
    }
}

/// No well of the plate is of use, after so many were asked about.
fn lose_plate(
    asker: &mut Asker<'_>,
    index: usize,
    step: &ExternalStep,
    plate: &PlateGiven<'_>,
    (profiles, asked): (&mut Vec<WellProfile>, usize),
) {
    asker.count(index, |outcome| {
        outcome.failed += asked;
        outcome.not_asked += profiles.len() - asked;
    });
    profiles.clear();
    asker.left_out.push(format!(
        "plate {} is left out of the comparison: step '{}' could not be asked about its wells; dead-letters.jsonl says why, \
         and `wellspring dead-letters retry` has it asked again",
        plate.plate, step.name
    ));
}

/// The answers to the requests about a plate's wells.
struct Answers {
    answered: Vec<Answered>,
    /// Whether nothing was heard of the service in so many attempts that the rest was not asked.
    silent: bool,
}

/// Requests in a row without a sign of the service, each after all its attempts, after which no other is made.
const SILENT: usize = 8;

/// The answers to all requests, as many at once as the step takes. After one that could not be asked at all, or [`SILENT`] of
/// which nothing was heard, no other is.
async fn all(
    asker: &Asker<'_>,
    step: &ExternalStep,
    requests: impl Iterator<Item = (usize, Request)>,
) -> Result<Answers, StageError> {
    let step = Arc::new(step.clone());
    let mut requests = requests.fuse();
    let (mut asking, mut answered, mut broken) = (JoinSet::new(), Vec::new(), false);
    let (mut unheard, most) = (0, SILENT.max(step.in_flight as usize));
    loop {
        while !broken && unheard < most && asking.len() < step.in_flight as usize {
            let Some((at, mut request)) = requests.next() else {
                break;
            };
            let (services, step) = (asker.asking.services.clone(), step.clone());
            asking.spawn(async move {
                let answer = services
                    .ask(&step, &mut request, |answer| answer.columns(&step))
                    .await;
                (at, request, answer)
            });
        }
        let Some(done) = asking.join_next().await else {
            let silent = unheard >= most;
            return Ok(Answers { answered, silent });
        };
        let done: Answered = done.map_err(|panicked| StageError::internal(Stage::External, panicked))?;
        failpoint::pass("collector", "asked");
        broken |= done.2.as_ref().is_err_and(ExternalError::is_of_service);
        unheard = match done.2.as_ref().is_err_and(ExternalError::is_silence) {
            true => unheard + 1,
            // What was given up stays given up.
            false if unheard < most => 0,
            false => unheard,
        };
        answered.push(done);
    }
}

fn request(asker: &Asker<'_>, step: &ExternalStep, profile: &WellProfile, images: &Images) -> Request {
    let run = asker.run;
    let names = run.feature_names();
    let mut inputs = Map::new();
    let mut shown = Vec::new();
    for input in &step.inputs {
        let value = match input.as_str() {
            IMAGES => {
                shown = images.get(&profile.well).cloned().unwrap_or_default();
                continue;
            }
            AGGREGATE => json!({
                "fields": profile.fields,
                "cell_count": profile.cell_count,
                "features": by_name(names, &profile.values),
            }),
            PLATE_MAP => given(&profile.treatment, &run.screen.plate_map.dose_unit),
            name => {
                let mut steps = run.screen.steps.iter().enumerate();
                let earlier = steps.find(|(_, step)| step.name == name);
                let (place, columns) = earlier.map_or((0..0, &[][..]), |(index, step)| {
                    (run.columns_of(index), &step.columns[..])
                });
                by_name(columns, profile.values.get(place).unwrap_or_default())
            }
        };
        inputs.insert(input.clone(), value);
    }
    let content = content(&inputs, &shown);
    let about = Subject {
        plate: Some(profile.plate.clone()),
        well: Some(profile.well),
    };
    Request::beyond_fields(&run.id, step, about, shown, inputs, &content)
}

fn by_name(names: &[String], values: &[f32]) -> Value {
    let values = names
        .iter()
        .zip(values)
        .map(|(name, value)| (name.clone(), json!(value)));
    Value::Object(values.collect())
}

/// As [`images_of_plate`], as often as the step may be asked where the store is away.
async fn images_with_patience(
    asker: &Asker<'_>,
    step: &ExternalStep,
    plate: &PlateGiven<'_>,
) -> Result<Images, StageError> {
    for _ in 1..step.attempts {
        match images_of_plate(asker, plate).await {
            Err(error) if error.retry == Retry::Backoff => {
                tokio::time::sleep(Duration::from_millis(step.backoff_ms)).await;
            }
            found => return found,
        }
    }
    images_of_plate(asker, plate).await
}

/// The images of the plate's fields that have features, as the store lists them.
async fn images_of_plate(asker: &Asker<'_>, plate: &PlateGiven<'_>) -> Result<Images, StageError> {
    let run = asker.run;
    let found = list_plate(&run.store, &run.screen, plate.plate).await?;
    let mut by_well = Images::new();
    for field in found.plates.get(plate.plate).into_iter().flatten() {
        let used = plate.fields.get(&field.well);
        if used.is_some_and(|fields| fields.contains(&field.field)) {
            let shown = images_of(run.store.uri(), &images(field), Some(field.field));
            by_well.entry(field.well).or_default().extend(shown);
        }
    }
    Ok(by_well)
}
