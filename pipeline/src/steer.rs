//! Steering: an operator pauses a run, lets it go on, or ends it for good.
//!
//! The word goes to the status topic, which every process follows. Workers begin no further field of a paused run and
//! finish those they have; its tasks and plates wait on the retries topic, so what was done is never done again. Those of
//! a cancelled run are dropped.

use crate::clock::now_ms;
use crate::events::{RunId, Status, Steering};
use crate::ids;
use crate::kafka::producer::BatchProducer;
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use crate::plates::{Board, RunState};

/// Why a run was not steered.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// No such run.
    #[error("run '{0}' was never submitted; `wellspring runs list` shows all runs")]
    Unknown(RunId),
    /// It has ended.
    #[error("run '{run}' is {state} already")]
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
    if matches!(state, RunState::Cancelled | RunState::Finished) {
        return Err(SteerError::Ended {
            run: run.clone(),
            state,
        });
    }
    let time_ms = now_ms();
    let status = Status::RunSteered {
        run: run.clone(),
        action,
        time_ms,
    };
    // An operator may pause a run twice: the time tells the two apart.
    let id = ids::of_run(run, "steered", &ids::content([time_ms.to_le_bytes()]));
    let record = OutRecord::status(id, &status)?;
    BatchProducer::open(kafka, "steer")?.publish_once(TRIES, &[record])?;
    Ok(true)
}
