//! Submitting: a screen becomes a run on the status topic, and its plates are announced, in one transaction.
//!
//! Submitting the same screen again changes nothing; plates that are new since are added. A screen, a network or planes
//! that have changed since are refused ([`crate::identity`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wellspring_workloads::words::Barcode;

use crate::clock::now_ms;
use crate::collector::read_statuses;
use crate::error::StageError;
use crate::events::{ModelIdentity, PlateReady, RunId, Status, Steering};
use crate::identity::{IdentityError, same_model, same_planes, same_screen};
use crate::ids;
use crate::kafka::producer::BatchProducer;
use crate::kafka::topics::{Topic, Urgency};
use crate::kafka::trace::{self, TRACEPARENT};
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use crate::runs::Run;

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
    let plates_now: BTreeSet<&Barcode> = plates.iter().collect();
    let mut known = BTreeSet::new();
    let mut planned = BTreeMap::new();
    for status in read_statuses(kafka)? {
        match status {
            Status::RunSubmitted {
                run: of,
                plates,
                model,
                ..
            } if of == run.id => {
                same_model(&of, model.as_ref(), &run.card)?;
                known.extend(plates);
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
                shading: Some(shading),
                ..
            } if of == run.id && plates_now.contains(&plate) => {
                planned.insert(plate, shading);
            }
            _ => {}
        }
    }
    for (plate, was) in &planned {
        let is = runtime.block_on(run.shading.get(&run.screen, plate))?.digest;
        same_planes(&run.id, plate, Some(was), is.as_deref())?;
    }
    let new: Vec<Barcode> = plates
        .iter()
        .filter(|plate| !known.contains(*plate))
        .cloned()
        .collect();
    if new.is_empty() {
        return Ok(new);
    }
    let submitted = Status::RunSubmitted {
        run: run.id.clone(),
        screen: Box::new(run.screen.clone()),
        plates: new.clone(),
        time_ms: now_ms(),
        model: Some(ModelIdentity::of(&run.card)),
    };
    let id = ids::of_run(
        &run.id,
        "submitted",
        &ids::content(new.iter().map(Barcode::as_str)),
    );
    let mut records = vec![OutRecord::status(id, &submitted)?];
    for plate in &new {
        records.push(plate_ready(plate, Some(&run.id), lane)?);
    }
    publish(kafka, "submit", &records)?;
    Ok(new)
}

/// Announces plates to one run, or to every run whose screen includes them. Blocking.
///
/// # Errors
/// The run was never submitted; Kafka cannot be reached.
pub fn announce(
    kafka: &KafkaSettings,
    plates: &[Barcode],
    run: Option<&RunId>,
    lane: Urgency,
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
        .map(|plate| plate_ready(plate, run, lane))
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
    })
}

fn ready(event: &PlateReady) -> Result<OutRecord, KafkaFailure> {
    let PlateReady { plate, run, .. } = event;
    let id = ids::of_plate(
        run.as_deref().unwrap_or("any"),
        plate,
        "ready",
        &ids::content([plate.as_str()]),
    );
    OutRecord::new(Topic::Plates, plate.as_str(), id, PlateReady::TYPE, event)
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
