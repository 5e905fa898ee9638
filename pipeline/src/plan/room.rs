//! Room: plates are planned as the workers get through with what is planned, not all at once.
//!
//! So the tasks topic stays short, whatever is announced: a run that is paused has few tasks to put aside, and what a plate
//! is planned with is as new as can be.

use std::time::Duration;

use crate::error::{FailureClass, Stage, StageError};
use crate::kafka::backlog::Backlog;
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::runs::Course;

/// Tasks that wait for a lane's workers at most, before a further plate is planned: about ten plates of 384 wells, a
/// thousand for each partition.
const MOST_WAITING: u64 = 32_768;
/// Between two looks at a backlog that is too long.
const LOOK: Duration = Duration::from_millis(200);

/// Room in a lane for further tasks.
pub struct Room {
    backlog: Backlog,
    /// Tasks that may be published before the backlog has to be looked at again.
    left: u64,
}

impl Room {
    /// Room in this lane.
    ///
    /// # Errors
    /// No client can be made.
    pub fn open(kafka: &KafkaSettings, lane: Urgency) -> Result<Self, KafkaFailure> {
        Ok(Self {
            backlog: Backlog::open(kafka, lane.tasks(), lane.worker())?,
            left: 0,
        })
    }

    /// Waits until there is room, the run is not open any more, or the planner `ends`: what it holds then it plans still.
    /// Blocking.
    pub(super) fn wait(
        &mut self,
        course: impl Fn() -> Course,
        ends: impl Fn() -> bool,
    ) -> Result<Course, StageError> {
        loop {
            let course = course();
            if course != Course::Open || self.left > 0 || ends() {
                return Ok(course);
            }
            let waiting = self
                .backlog
                .look()
                .map_err(|error| StageError::external(Stage::Plan, FailureClass::Network, error))?
                .waiting;
            self.left = MOST_WAITING.saturating_sub(waiting);
            if self.left == 0 {
                std::thread::sleep(LOOK);
            }
        }
    }

    /// So many tasks were published.
    pub(super) fn taken(&mut self, tasks: u32) {
        self.left = self.left.saturating_sub(u64::from(tasks));
    }
}
