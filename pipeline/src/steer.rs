//! Steering: an operator pauses a run or a plate in it, lets it go on, or ends it for good.
//!
//! The word goes to the status topic, which every process follows. Workers begin no further field of a paused run and
//! finish those they have; its tasks and plates wait on the retries topic, so what was done is never done again. Those of
//! a cancelled run are dropped. A plate that is cancelled is none of the run's any more: the run is complete without it.

use wellspring_workloads::words::Barcode;

use crate::clock::now_ms;
use crate::events::{RunId, Status, Steering};
use crate::ids;
use crate::kafka::producer::BatchProducer;
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use crate::plates::{Board, PlateState, RunState};
use crate::runs::Course;

/// Why a run was not steered.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// No such run.
    #[error("run '{0}' was never submitted; `wellspring runs list` shows all runs")]
    Unknown(RunId),
    /// The plate is not in the run.
    #[error("plate {plate} is not in run '{run}'; `wellspring runs show {run}` shows its plates")]
    NotInRun {
        /// The plate.
        plate: Barcode,
        /// The run.
        run: RunId,
    },
    /// The plate cannot be steered any more.
    #[error("plate {plate} is {state} in run '{run}' already")]
    PlateEnded {
        /// The plate.
        plate: Barcode,
        /// The run.
        run: RunId,
        /// How far it is.
        state: String,
    },
    /// A run without plates would never end.
    #[error("plate {plate} is the last one of run '{run}': `wellspring runs cancel {run}` ends the run")]
    Last {
        /// The plate.
        plate: Barcode,
        /// The run.
        run: RunId,
    },
    /// It has ended.
    #[error("run '{run}' is {state} already{}", match state {
        RunState::Cancelled => "; raise [screen] version for a new run of the screen",
        RunState::Open | RunState::Paused | RunState::Finished => "",
    })]
    Ended {
        /// The run.
        run: RunId,
        /// How it ended.
        state: RunState,
    },
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
}

/// Tries of a transaction.
const TRIES: u32 = 5;

/// Steers a run; `false` where it is as wanted already. Blocking.
///
/// # Errors
/// There is no such run, or it has ended; Kafka cannot be reached.
pub fn steer(kafka: &KafkaSettings, run: &RunId, action: Steering) -> Result<bool, SteerError> {
    let board = Board::read(kafka)?;
    let known = board.run(run).ok_or_else(|| SteerError::Unknown(run.clone()))?;
    let state = known.state();
    let is_so = match action {
        Steering::Paused => state == RunState::Paused,
        Steering::Resumed => state == RunState::Open,
        Steering::Cancelled => state == RunState::Cancelled,
    };
    if is_so {
        return Ok(false);
    }
    unless_ended(run, state)?;
    let time_ms = now_ms();
    let status = Status::RunSteered {
        run: run.clone(),
        action,
        time_ms,
    };
    // An operator may pause a run twice: the time tells the two apart.
    let id = ids::of_run(run, "steered", &ids::content([time_ms.to_le_bytes()]));
    publish(kafka, OutRecord::status(id, &status)?)?;
    Ok(true)
}

/// Steers a plate in a run; `false` where it is as wanted already. Blocking.
///
/// # Errors
/// There is no such plate or run, one of them has ended, or the run would have no plate left; Kafka cannot be reached.
pub fn steer_plate(
    kafka: &KafkaSettings,
    run: &RunId,
    plate: &Barcode,
    action: Steering,
) -> Result<bool, SteerError> {
    let board = Board::read(kafka)?;
    let known = board.run(run).ok_or_else(|| SteerError::Unknown(run.clone()))?;
    let of_run = board.plate(plate).and_then(|plate| plate.runs.get(run));
    let (plate, run) = (plate.clone(), run.clone());
    let Some(of_run) = of_run else {
        return Err(SteerError::NotInRun { plate, run });
    };
    let wanted = Course::Open.steered(action);
    if of_run.course == wanted {
        return Ok(false);
    }
    unless_ended(&run, known.state())?;
    if of_run.course == Course::Cancelled || of_run.state >= PlateState::Profiled {
        let state = match of_run.course {
            Course::Cancelled => RunState::Cancelled.to_string(),
            Course::Open | Course::Paused => of_run.state.to_string(),
        };
        return Err(SteerError::PlateEnded { plate, run, state });
    }
    if action == Steering::Cancelled && known.plates.iter().all(|of| *of == plate) {
        return Err(SteerError::Last { plate, run });
    }
    let time_ms = now_ms();
    let id = ids::of_plate(&run, &plate, "steered", &ids::content([time_ms.to_le_bytes()]));
    let status = Status::PlateSteered {
        run,
        plate,
        action,
        time_ms,
    };
    publish(kafka, OutRecord::status(id, &status)?)?;
    Ok(true)
}

fn unless_ended(run: &RunId, state: RunState) -> Result<(), SteerError> {
    match state {
        RunState::Open | RunState::Paused => Ok(()),
        RunState::Cancelled | RunState::Finished => Err(SteerError::Ended {
            run: run.clone(),
            state,
        }),
    }
}

fn publish(kafka: &KafkaSettings, record: OutRecord) -> Result<(), KafkaFailure> {
    BatchProducer::open(kafka, "steer")?.publish_once(TRIES, &[record])
}
