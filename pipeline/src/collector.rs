//! The collector: follows features, dead letters and statuses, and hands over each run when it is complete.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::collect::{Collection, Progress};
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{RunId, Status};
use crate::kafka::tail::{Polled, Tail};
use crate::kafka::topics::Topic;
use crate::kafka::{KafkaFailure, KafkaSettings};

/// Which runs a collector gathers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This one, finished or not: its result files are made again from the log.
    One(RunId),
    /// Every run that is not finished.
    Unfinished,
}

/// Follows the log and gathers runs.
pub struct Collector {
    tail: Tail,
    wanted: Wanted,
    scratch: PathBuf,
    open: BTreeMap<RunId, Collection>,
    closed: HashSet<RunId>,
}

/// The one field that tells where a record belongs.
#[derive(Deserialize)]
struct OfRun {
    run: Option<RunId>,
}

impl Collector {
    /// Starts at the beginning of the log; `scratch` is a folder for temporary files.
    pub fn open(kafka: &KafkaSettings, wanted: Wanted, scratch: &Path) -> Result<Self, StageError> {
        let closed = match wanted {
            Wanted::One(_) => HashSet::new(),
            Wanted::Unfinished => finished_runs(kafka).map_err(network)?,
        };
        let topics = [Topic::Status, Topic::Features, Topic::DeadLetters];
        let tail = Tail::open(kafka, &topics).map_err(network)?;
        Ok(Self {
            tail,
            wanted,
            scratch: scratch.to_owned(),
            open: BTreeMap::new(),
            closed,
        })
    }

    /// Takes what has arrived, waiting up to `timeout` for the first record; then the runs that are complete.
    pub fn step(&mut self, timeout: Duration) -> Result<Vec<RunId>, StageError> {
        let mut wait = timeout;
        for _ in 0..1_000 {
            match self.tail.poll(wait).map_err(network)? {
                Polled::Record(record) => {
                    let Ok(OfRun { run }) = serde_json::from_slice(&record.value) else {
                        tracing::warn!(
                            topic = record.topic.suffix(),
                            record.offset,
                            "a record cannot be read and is passed over"
                        );
                        continue;
                    };
                    match run {
                        Some(run) => {
                            if self.wants(&run) {
                                self.collection(&run)?.take(&record)?;
                            }
                        }
                        None => {
                            for collection in self.open.values_mut() {
                                collection.take(&record)?;
                            }
                        }
                    }
                    wait = Duration::ZERO;
                }
                Polled::AtEnd => {}
                Polled::Nothing => break,
            }
        }
        Ok(self
            .open
            .values()
            .filter(|run| run.complete())
            .map(|run| run.run().clone())
            .collect())
    }

    /// How far each open run is.
    pub fn progress(&self) -> impl Iterator<Item = (&RunId, Progress)> {
        self.open
            .iter()
            .map(|(run, collection)| (run, collection.progress()))
    }

    /// Takes a run out; it is not gathered again.
    pub fn close(&mut self, run: &RunId) -> Option<Collection> {
        self.closed.insert(run.clone());
        self.open.remove(run)
    }

    fn wants(&self, run: &RunId) -> bool {
        match &self.wanted {
            Wanted::One(wanted) => run == wanted && !self.closed.contains(run),
            Wanted::Unfinished => !self.closed.contains(run),
        }
    }

    fn collection(&mut self, run: &RunId) -> Result<&mut Collection, StageError> {
        match self.open.entry(run.clone()) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                Ok(entry.insert(Collection::open(run, &self.scratch)?))
            }
        }
    }
}

fn network(error: KafkaFailure) -> StageError {
    StageError::external(Stage::Collect, FailureClass::Network, error)
}

fn finished_runs(kafka: &KafkaSettings) -> Result<HashSet<RunId>, KafkaFailure> {
    let statuses = read_statuses(kafka)?;
    Ok(statuses
        .into_iter()
        .filter_map(|status| match status {
            Status::RunFinished { run, .. } => Some(run),
            _ => None,
        })
        .collect())
}

/// Every status written so far, in order.
pub fn read_statuses(kafka: &KafkaSettings) -> Result<Vec<Status>, KafkaFailure> {
    let mut tail = Tail::open(kafka, &[Topic::Status])?;
    let mut statuses = Vec::new();
    loop {
        match tail.poll(Duration::from_secs(10))? {
            Polled::Record(record) => match serde_json::from_slice(&record.value) {
                Ok(status) => statuses.push(status),
                Err(error) => {
                    tracing::warn!(%error, record.offset, "a status cannot be read and is passed over")
                }
            },
            // The status topic has one partition, so its end is the end.
            Polled::AtEnd => return Ok(statuses),
            Polled::Nothing => {
                return Err(KafkaFailure::Silent {
                    bootstrap: kafka.bootstrap.clone(),
                });
            }
        }
    }
}
