//! The collector: follows features, dead letters and statuses, and hands over each run when it is complete.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::collect::{Collection, Progress, Published, pass_over};
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{LetterAction, RunId, Status, Steering};
use crate::failpoint;
use crate::kafka::tail::{Polled, Start, Tail, TailRecord, read_events, read_to_end};
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
    past: Past,
    /// Offset of the last dead letter that was there when the collector began to read.
    last_letter: Option<i64>,
    /// Offset of the last one that was read.
    letter_read: Option<i64>,
    /// How far statuses have been read.
    status_read: i64,
}

/// What the status topic said when the collector began to read.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Runs that were finished, with all their plates, or cancelled.
    ended: HashSet<RunId>,
    /// Those that were cancelled: nothing opens them again.
    cancelled: HashSet<RunId>,
    /// Offsets of dead letters that were tried again.
    pub(crate) retried: BTreeSet<i64>,
    /// Where it ended.
    end: i64,
}

/// The one field that tells where a record belongs.
#[derive(Deserialize)]
struct OfRun {
    run: Option<RunId>,
}

impl Collector {
    /// Starts at the beginning of the log; `scratch` is a folder for temporary files.
    pub fn open(kafka: &KafkaSettings, wanted: Wanted, scratch: &Path) -> Result<Self, StageError> {
        let past = Past::read(kafka).map_err(network)?;
        let closed = match wanted {
            Wanted::One(_) => HashSet::new(),
            Wanted::Unfinished => past.ended.clone(),
        };
        Ok(Self {
            last_letter: last_letter(kafka).map_err(network)?,
            tail: Tail::open(kafka, &FOLLOWED).map_err(network)?,
            wanted,
            scratch: scratch.to_owned(),
            open: BTreeMap::new(),
            closed,
            kafka: kafka.clone(),
            past,
            letter_read: None,
            status_read: 0,
        })
    }

    /// Takes what has arrived, waiting up to `timeout` for the first record; then the runs that are complete.
    pub fn step(&mut self, timeout: Duration) -> Result<Vec<RunId>, StageError> {
        let mut wait = timeout;
        for _ in 0..1_000 {
            match self.tail.poll(wait).map_err(network)? {
                Polled::Record(record) => {
                    match record.topic {
                        Topic::DeadLetters => self.letter_read = Some(record.offset),
                        Topic::Status => self.status_read = record.offset + 1,
                        _ => {}
                    }
                    let run = match record.read() {
                        Ok(OfRun { run }) => run,
                        Err(error) => {
                            pass_over(&record, error)?;
                            continue;
                        }
                    };
                    // An event that nobody could read is of no run; its dead letter stays on the topic.
                    if let Some(run) = run {
                        if record.topic == Topic::Status && is_cancelled(&record) {
                            self.cancel(&run)?;
                        } else if record.topic == Topic::Status && self.is_reopened(&run, &record) {
                            tracing::info!(
                                run,
                                "plates were added, announced or released, or dead letters are tried again: the run is open again"
                            );
                            self.start_over()?;
                        } else if self.wants(&run) {
                            self.collection(&run)?.take(&record)?;
                            failpoint::pass("collector", "collect");
                        }
                    }
                    wait = Duration::ZERO;
                }
                Polled::AtEnd(_) => {}
                Polled::Nothing => break,
            }
        }
        // Topics are not in one order: statuses and letters that were there before belong to the run as its features do.
        let is_read = self.status_read >= self.past.end && self.letter_read >= self.last_letter;
        Ok(self
            .open
            .values()
            .filter(|run| is_read && run.complete())
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

    /// Whether a finished run is made unfinished: plates were added to it, announced to it or released, or dead letters are
    /// being tried again.
    fn is_reopened(&self, run: &RunId, record: &TailRecord) -> bool {
        self.wanted == Wanted::Unfinished
            && self.closed.contains(run)
            && !self.past.cancelled.contains(run)
            && record.offset >= self.past.end
            && record.read().is_ok_and(|status| reopens(&status))
    }

    /// Gathers a run anew that was taken out: its results were not made.
    ///
    /// # Errors
    /// Kafka.
    pub fn gather_again(&mut self) -> Result<(), StageError> {
        self.start_over()
    }

    /// Reads the log again from its beginning: what was known of a closed run is gone.
    fn start_over(&mut self) -> Result<(), StageError> {
        self.past = Past::read(&self.kafka).map_err(network)?;
        self.tail = Tail::open(&self.kafka, &FOLLOWED).map_err(network)?;
        self.open.clear();
        self.last_letter = last_letter(&self.kafka).map_err(network)?;
        self.letter_read = None;
        self.status_read = 0;
        self.closed = self.past.ended.clone();
        Ok(())
    }

    /// A cancelled run is gathered no more; who wants only that one waits in vain.
    fn cancel(&mut self, run: &RunId) -> Result<(), StageError> {
        if self.wanted == Wanted::One(run.clone()) {
            return Err(StageError::input(
                Stage::Collect,
                FailureClass::Configuration,
                format!("run '{run}' was cancelled; raise [screen] version for a new run of the screen"),
            ));
        }
        self.past.cancelled.insert(run.clone());
        self.close(run);
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
                Ok(entry.insert(Collection::open(run, &self.scratch, self.past.retried.clone())?))
            }
        }
    }
}

/// Whether a run that was finished is not any more.
fn reopens(status: &Status) -> bool {
    match status {
        Status::RunSubmitted { plates, .. } => !plates.is_empty(),
        Status::PlatePlanned { fields_planned, .. } => *fields_planned > 0,
        Status::PlateQueued { .. } | Status::PlateImaging { .. } | Status::PlateReleased { .. } => true,
        Status::LettersResolved { action, .. } => *action == LetterAction::Retried,
        _ => false,
    }
}

fn is_cancelled(record: &TailRecord) -> bool {
    matches!(
        record.read(),
        Ok(Status::RunSteered {
            action: Steering::Cancelled,
            ..
        })
    )
}

fn network(error: KafkaFailure) -> StageError {
    StageError::external(Stage::Collect, FailureClass::Network, error)
}

impl Past {
    /// Reads the status topic to its end. Blocking.
    pub(crate) fn read(kafka: &KafkaSettings) -> Result<Self, KafkaFailure> {
        let (mut runs, mut past) = (HashMap::<RunId, Published>::new(), Self::default());
        for (offset, status) in read_events::<Status>(kafka, Topic::Status)? {
            past.end = past.end.max(offset + 1);
            runs.entry(status.run().clone()).or_default().take(&status);
            match status {
                Status::LettersResolved {
                    action: LetterAction::Retried,
                    offsets,
                    ..
                } => past.retried.extend(offsets),
                Status::RunSteered {
                    run,
                    action: Steering::Cancelled,
                    ..
                } => _ = past.cancelled.insert(run),
                _ => {}
            }
        }
        let finished = runs.into_iter().filter(|(_, run)| run.finished);
        past.ended = finished
            .map(|(id, _)| id)
            .chain(past.cancelled.iter().cloned())
            .collect();
        Ok(past)
    }
}

/// The offset of the last dead letter; the topic has one partition.
fn last_letter(kafka: &KafkaSettings) -> Result<Option<i64>, KafkaFailure> {
    let mut last = None;
    read_to_end(kafka, Topic::DeadLetters, &Start::Beginning, |letter| {
        last = Some(letter.offset);
        Ok::<_, KafkaFailure>(ControlFlow::Continue(()))
    })?;
    Ok(last)
}

/// Every status written so far, in order.
pub fn read_statuses(kafka: &KafkaSettings) -> Result<Vec<Status>, KafkaFailure> {
    let statuses = read_events(kafka, Topic::Status)?;
    Ok(statuses.into_iter().map(|(_, status)| status).collect())
}
