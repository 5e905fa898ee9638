//! Room: plates are planned as the workers get through with what is planned, not all at once.
//!
//! So the tasks topic stays short, whatever is announced: a run that is paused has few tasks to put aside, and what a plate
//! is planned with is as new as can be.

use std::time::{Duration, Instant};

use crate::error::{FailureClass, Stage, StageError};
use crate::kafka::backlog::Backlog;
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaFailure, KafkaSettings};

/// Tasks that wait for a lane's workers at most, before a further plate is planned: about ten plates of 384 wells, a
/// thousand for each partition.
const MOST_WAITING: u64 = 32_768;
/// Between two looks at a backlog that is too long.
const LOOK: Duration = Duration::from_millis(200);

/// Room in a lane for further tasks.
pub(super) struct Room {
    backlog: Backlog,
    /// Tasks that may be published before the backlog has to be looked at again.
    left: u64,
    /// When it was looked at last.
    looked: Option<Instant>,
}

impl Room {
    /// Room in this lane.
    ///
    /// # Errors
    /// No client can be made.
    pub(super) fn open(kafka: &KafkaSettings, lane: Urgency) -> Result<Self, KafkaFailure> {
        Ok(Self {
            backlog: Backlog::open(kafka, lane.tasks(), lane.worker())?,
            left: 0,
            looked: None,
        })
    }

    /// Whether there is room now. Blocking, for as long as Kafka takes to say.
    ///
    /// # Errors
    /// Kafka cannot be asked.
    pub(super) fn is_there(&mut self) -> Result<bool, StageError> {
        if self.left == 0 && self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            let waiting = self
                .backlog
                .look()
                .map_err(|error| StageError::external(Stage::Plan, FailureClass::Network, error))?
                .waiting;
            self.left = MOST_WAITING.saturating_sub(waiting);
            self.looked = Some(Instant::now());
        }
        Ok(self.left > 0)
    }

    /// So many tasks were published.
    pub(super) fn taken(&mut self, tasks: u32) {
        self.left = self.left.saturating_sub(u64::from(tasks));
    }
}
