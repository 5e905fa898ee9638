//! The collector: follows features, dead letters and statuses, and hands over each run when it is complete.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::collect::{Collection, Progress, pass_over};
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{LetterAction, RunId, Status};
use crate::failpoint;
use crate::kafka::tail::{Polled, Tail, TailRecord, read_events};
use crate::kafka::topics::Topic;
use crate::kafka::{KafkaFailure, KafkaSettings};

/// What a collector reads.
const FOLLOWED: [Topic; 3] = [Topic::Status, Topic::Features, Topic::DeadLetters];

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
    kafka: KafkaSettings,
    /// Offsets of dead letters that were tried again before the collector started.
    retried: BTreeSet<i64>,
}

/// The one field that tells where a record belongs.
#[derive(Deserialize)]
struct OfRun {
    run: Option<RunId>,
}

impl Collector {
    /// Starts at the beginning of the log; `scratch` is a folder for temporary files.
    pub fn open(kafka: &KafkaSettings, wanted: Wanted, scratch: &Path) -> Result<Self, StageError> {
        let (finished, retried) = past(kafka).map_err(network)?;
        let closed = match wanted {
            Wanted::One(_) => HashSet::new(),
            Wanted::Unfinished => finished,
        };
        Ok(Self {
            tail: Tail::open(kafka, &FOLLOWED).map_err(network)?,
            wanted,
            scratch: scratch.to_owned(),
            open: BTreeMap::new(),
            closed,
            kafka: kafka.clone(),
            retried,
        })
    }

    /// Takes what has arrived, waiting up to `timeout` for the first record; then the runs that are complete.
    pub fn step(&mut self, timeout: Duration) -> Result<Vec<RunId>, StageError> {
        let mut wait = timeout;
        for _ in 0..1_000 {
            match self.tail.poll(wait).map_err(network)? {
                Polled::Record(record) => {
                    let run = match record.read() {
                        Ok(OfRun { run }) => run,
                        Err(error) => {
                            pass_over(&record, error)?;
                            continue;
                        }
                    };
                    match run {
                        Some(run) => {
                            if record.topic == Topic::Status && self.is_reopened(&run, &record) {
                                self.start_over(&run)?;
                            } else if self.wants(&run) {
                                self.collection(&run)?.take(&record)?;
                                failpoint::pass("collector", "collect");
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
                Polled::AtEnd(_) => {}
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

    /// Whether a finished run's dead letters are being tried again, which makes it unfinished.
    fn is_reopened(&self, run: &RunId, record: &TailRecord) -> bool {
        self.wanted == Wanted::Unfinished
            && self.closed.contains(run)
            && match record.read() {
                Ok(Status::LettersResolved {
                    action: LetterAction::Retried,
                    offsets,
                    ..
                }) => !offsets.iter().all(|offset| self.retried.contains(offset)),
                _ => false,
            }
    }

    /// Reads the log again from its beginning: what was known of a closed run is gone.
    fn start_over(&mut self, run: &RunId) -> Result<(), StageError> {
        tracing::info!(run, "dead letters are tried again; the run is open again");
        let (finished, retried) = past(&self.kafka).map_err(network)?;
        self.tail = Tail::open(&self.kafka, &FOLLOWED).map_err(network)?;
        self.open.clear();
        self.closed = finished;
        self.retried = retried;
        Ok(())
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
                Ok(entry.insert(Collection::open(run, &self.scratch, self.retried.clone())?))
            }
        }
    }
}

fn network(error: KafkaFailure) -> StageError {
    StageError::external(Stage::Collect, FailureClass::Network, error)
}

/// The runs that are finished, and the offsets of the dead letters that were tried again.
pub(crate) fn past(kafka: &KafkaSettings) -> Result<(HashSet<RunId>, BTreeSet<i64>), KafkaFailure> {
    let (mut finished, mut retried) = (HashSet::new(), BTreeSet::new());
    for status in read_statuses(kafka)? {
        match status {
            Status::RunFinished { run, .. } => {
                finished.insert(run);
            }
            Status::LettersResolved {
                run,
                action: LetterAction::Retried,
                offsets,
                ..
            } => {
                finished.remove(&run);
                retried.extend(offsets);
            }
            _ => {}
        }
    }
    Ok((finished, retried))
}

/// Every status written so far, in order.
pub fn read_statuses(kafka: &KafkaSettings) -> Result<Vec<Status>, KafkaFailure> {
    let statuses = read_events(kafka, Topic::Status)?;
    Ok(statuses.into_iter().map(|(_, status)| status).collect())
}
