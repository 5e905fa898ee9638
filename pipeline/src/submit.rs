//! Submitting: a screen becomes a run on the status topic, and its plates are announced, in one transaction.
//!
//! Submitting the same screen again changes nothing; plates that are new since are added, and parts that change no result
//! ([`Screen::FREE`]) hold from then on. A screen, a network or planes that have changed since are refused
//! ([`crate::identity`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use crate::clock::now_ms;
use crate::collector::read_statuses;
use crate::error::StageError;
use crate::events::{AcquisitionProgress, ModelIdentity, PlateReady, RunId, Status, Steering};
use crate::identity::{IdentityError, different_parts, same_model, same_planes, same_screen};
use crate::ids;
use crate::kafka::producer::BatchProducer;
use crate::kafka::topics::{Topic, Urgency};
use crate::kafka::trace::{self, TRACEPARENT};
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use crate::runs::{Run, run_id};

/// Why nothing was submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It would not be the run that was begun.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A plate's planes cannot be read.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
    /// The run was ended for good.
    #[error("run '{0}' was cancelled; raise [screen] version for a new run of the screen")]
    Cancelled(RunId),
    /// No such run to announce plates to.
    #[error("run '{0}' was never submitted; leave it out, or submit its screen first")]
    UnknownRun(RunId),
}

/// Registers the run and announces those of `plates` that were not announced with it before, as urgent as `lane` says;
/// returns those. Blocking.
///
/// # Errors
/// The screen, the network or the planes of plates that are planned are not those the run was begun with; Kafka cannot be
/// reached.
pub fn submit(
    kafka: &KafkaSettings,
    run: &Run,
    plates: &[Barcode],
    lane: Urgency,
    runtime: &Handle,
) -> Result<Vec<Barcode>, SubmitError> {
    let begun = Begun::read(kafka, run, plates, runtime)?;
    let new: Vec<Barcode> = plates
        .iter()
        .filter(|plate| !begun.plates.contains(*plate))
        .cloned()
        .collect();
    if new.is_empty() && !begun.is_told_anew(run) {
        return Ok(new);
    }
    let mut records = vec![submitted(&run.screen, Some(run.model()), &new)?];
    for plate in &new {
        records.push(plate_ready(plate, Some(&run.id), lane)?);
    }
    publish(kafka, "submit", &records)?;
    Ok(new)
}

/// Registers the run with plates of which some are still being imaged, and tells what is known of each: how far it is, or, with
/// `None`, that all its images are there. Returns those that still had to be told of: the others are planned. Blocking.
///
/// # Errors
/// As [`submit`].
pub fn submit_imaging(
    kafka: &KafkaSettings,
    run: &Run,
    plates: &BTreeMap<Barcode, Option<AcquisitionProgress>>,
    runtime: &Handle,
) -> Result<Vec<Barcode>, SubmitError> {
    let barcodes: Vec<Barcode> = plates.keys().cloned().collect();
    let begun = Begun::read(kafka, run, &barcodes, runtime)?;
    let new: Vec<Barcode> = barcodes
        .into_iter()
        .filter(|plate| !begun.plates.contains(plate))
        .collect();
    let mut records = Vec::new();
    if !new.is_empty() || begun.is_told_anew(run) {
        records.push(submitted(&run.screen, Some(run.model()), &new)?);
    }
    let mut told = Vec::new();
    for (plate, progress) in plates {
        if begun.whole.contains(plate) {
            continue;
        }
        records.push(ready(&PlateReady {
            plate: plate.clone(),
            run: Some(run.id.clone()),
            lane: None,
            progress: progress.clone(),
            taken_over: None,
        })?);
        told.push(plate.clone());
    }
    if !records.is_empty() {
        publish(kafka, "submit", &records)?;
    }
    Ok(told)
}

/// What was submitted of a run before.
struct Begun {
    /// Plates that were announced to it.
    plates: BTreeSet<Barcode>,
    /// Plates that are planned as a whole.
    whole: BTreeSet<Barcode>,
    /// The screen, as it was submitted last.
    screen: Option<Box<Screen>>,
}

impl Begun {
    /// Reads it, and refuses to go on with another screen, network or other planes of `plates`.
    fn read(
        kafka: &KafkaSettings,
        run: &Run,
        plates: &[Barcode],
        runtime: &Handle,
    ) -> Result<Self, SubmitError> {
        let plates_now: BTreeSet<&Barcode> = plates.iter().collect();
        let (mut known, mut whole) = (BTreeSet::new(), BTreeSet::new());
        let (mut planned, mut told) = (BTreeMap::new(), None);
        for status in read_statuses(kafka)? {
            match status {
                Status::RunSubmitted {
                    run: of,
                    plates,
                    model,
                    screen,
                    ..
                } if of == run.id => {
                    same_model(&of, model.as_ref(), &run.model())?;
                    known.extend(plates);
                    told = Some(screen);
                }
                Status::RunSteered {
                    run: of,
                    action: Steering::Cancelled,
                    ..
                } if of == run.id => return Err(SubmitError::Cancelled(of)),
                Status::RunSubmitted { run: of, screen, .. } => same_screen(&of, &screen, &run.screen)?,
                Status::PlatePlanned {
                    run: of,
                    plate,
                    fields_planned,
                    shading,
                    ..
                } if of == run.id => {
                    if let Some(shading) = shading.filter(|_| plates_now.contains(&plate)) {
                        planned.insert(plate.clone(), shading);
                    }
                    match fields_planned {
                        // It came to nothing, and may be announced again.
                        0 => {
                            known.remove(&plate);
                            whole.remove(&plate);
                        }
                        _ => {
                            known.insert(plate.clone());
                            whole.insert(plate);
                        }
                    }
                }
                _ => {}
            }
        }
        for (plate, was) in &planned {
            let is = runtime.block_on(run.shading.get(&run.screen, plate))?.digest;
            same_planes(&run.id, plate, Some(was), is.as_deref())?;
        }
        Ok(Self {
            plates: known,
            whole,
            screen: told,
        })
    }

    /// Whether the screen says otherwise than before how the run is worked on: who works on it has to hear of that.
    fn is_told_anew(&self, run: &Run) -> bool {
        let differ = match &self.screen {
            Some(before) => different_parts(before, &run.screen),
            None => Vec::new(),
        };
        if !differ.is_empty() {
            tracing::info!(
                run = run.id,
                "{} of the screen holds from now on",
                differ.join(" and ")
            );
        }
        !differ.is_empty()
    }
}

/// The status that registers a run of a screen, made with `model`, with plates.
pub(crate) fn submitted(
    screen: &Screen,
    model: Option<ModelIdentity>,
    plates: &[Barcode],
) -> Result<OutRecord, KafkaFailure> {
    let run = run_id(screen);
    // The run's name does not say all of the screen ([`Screen::FREE`]).
    let said = format!("{screen:?}");
    let content = ids::content(plates.iter().map(Barcode::as_str).chain([said.as_str()]));
    let id = ids::of_run(&run, "submitted", &content);
    let submitted = Status::RunSubmitted {
        run,
        screen: Box::new(screen.clone()),
        plates: plates.to_vec(),
        time_ms: now_ms(),
        model,
    };
    OutRecord::status(id, &submitted)
}

/// Announces plates to one run, or to the newest run of every screen that includes them; with `progress` as still being imaged. Blocking.
///
/// # Errors
/// The run was never submitted; Kafka cannot be reached.
pub fn announce(
    kafka: &KafkaSettings,
    plates: &[Barcode],
    run: Option<&RunId>,
    lane: Urgency,
    progress: Option<&AcquisitionProgress>,
) -> Result<(), SubmitError> {
    if let Some(run) = run {
        let mut submitted = false;
        for status in read_statuses(kafka)? {
            match status {
                Status::RunSubmitted { run: of, .. } if of == *run => submitted = true,
                Status::RunSteered {
                    run: of,
                    action: Steering::Cancelled,
                    ..
                } if of == *run => return Err(SubmitError::Cancelled(of)),
                _ => {}
            }
        }
        if !submitted {
            return Err(SubmitError::UnknownRun(run.clone()));
        }
    }
    let records = plates
        .iter()
        .map(|plate| match progress {
            None => plate_ready(plate, run, lane),
            Some(progress) => ready(&PlateReady {
                plate: plate.clone(),
                run: run.cloned(),
                lane: None,
                progress: Some(progress.clone()),
                taken_over: None,
            }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(publish(kafka, "announce", &records)?)
}

/// Lets plates that are held back into a run's comparison. Blocking.
///
/// # Errors
/// Kafka cannot be reached.
pub fn release(kafka: &KafkaSettings, run: &RunId, plates: &[Barcode]) -> Result<(), KafkaFailure> {
    let status = |plate: &Barcode| {
        let id = ids::of_plate(run, plate, "released", &ids::content([plate.as_str()]));
        let status = Status::PlateReleased {
            run: run.clone(),
            plate: plate.clone(),
            time_ms: now_ms(),
        };
        OutRecord::status(id, &status)
    };
    let records = plates.iter().map(status).collect::<Result<Vec<_>, _>>()?;
    publish(kafka, "release", &records)
}

fn plate_ready(plate: &Barcode, run: Option<&RunId>, lane: Urgency) -> Result<OutRecord, KafkaFailure> {
    ready(&PlateReady {
        plate: plate.clone(),
        run: run.cloned(),
        lane: (lane != Urgency::Live).then_some(lane),
        progress: None,
        taken_over: None,
    })
}

/// An event for the planners of the live lane, who read every one first.
pub(crate) fn ready(event: &PlateReady) -> Result<OutRecord, KafkaFailure> {
    OutRecord::plate(Topic::Plates, event.plate.as_str(), event)
}

fn publish(kafka: &KafkaSettings, role: &str, records: &[OutRecord]) -> Result<(), KafkaFailure> {
    BatchProducer::open(kafka, role)?.publish_once(TRIES, records)
}

/// Announces plates from a thread of its own: those that are waiting go in one transaction.
#[derive(Debug, Clone)]
pub struct Announcer(async_channel::Sender<Announcement>);

#[derive(Debug)]
struct Announcement {
    records: Vec<OutRecord>,
    done: oneshot::Sender<Result<(), Arc<str>>>,
}

/// Requests that wait at most.
const WAITING: usize = 64;
/// Tries of a transaction.
const TRIES: u32 = 5;

impl Announcer {
    /// Starts the thread; it ends with the last handle. Blocking.
    ///
    /// # Errors
    /// Kafka cannot be reached, or no thread can be started.
    pub fn start(kafka: &KafkaSettings) -> Result<Self, KafkaFailure> {
        let mut producer = BatchProducer::open(kafka, "announce")?;
        let (sender, waiting) = async_channel::bounded::<Announcement>(WAITING);
        std::thread::Builder::new()
            .name("announce".to_owned())
            .spawn(move || {
                while let Ok(first) = waiting.recv_blocking() {
                    let more = std::iter::from_fn(|| waiting.try_recv().ok()).take(WAITING);
                    let together: Vec<Announcement> = std::iter::once(first).chain(more).collect();
                    let records: Vec<OutRecord> = together
                        .iter()
                        .flat_map(|one| one.records.iter().cloned())
                        .collect();
                    let result = producer
                        .publish_once(TRIES, &records)
                        .map_err(|error| Arc::from(crate::error::chain(&error)));
                    for one in together {
                        // A caller that left does not need to know.
                        let _ = one.done.send(result.clone());
                    }
                }
            })?;
        Ok(Self(sender))
    }

    /// Announces plates; they are on Kafka when this returns. `traceparent`: the caller's trace.
    ///
    /// # Errors
    /// Why they are not, or may not be.
    pub async fn announce(
        &self,
        events: Vec<PlateReady>,
        traceparent: Option<String>,
    ) -> Result<(), Arc<str>> {
        let records = events.iter().map(|event| {
            let mut record = ready(event).map_err(|error| Arc::from(crate::error::chain(&error)))?;
            if let Some(parent) = &traceparent {
                let trace = trace::traceparent(Some(parent), &record.id);
                record.headers.push((TRACEPARENT, trace));
            }
            Ok(record)
        });
        let records = records.collect::<Result<Vec<_>, Arc<str>>>()?;
        let (done, answer) = oneshot::channel();
        let gone = || Arc::from("the thread that announces plates has ended");
        let sent = self.0.send(Announcement { records, done }).await;
        sent.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
