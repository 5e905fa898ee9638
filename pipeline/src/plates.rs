//! Plates and runs: what is known of each, from the log alone.
//!
//! Plate events and statuses enter, one [`Plate`] per barcode and one [`KnownRun`] per run leave. It is built anew by reading the two topics from their
//! beginning, on threads of its own. An event that cannot be read is passed over: the planner makes its dead letter. A status
//! that cannot be read is warned of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use wellspring_workloads::words::Barcode;

use crate::events::{LetterAction, PlateReady, RunId, Status};
use crate::kafka::follow::Following;
use crate::kafka::tail::{Tail, TailRecord};
use crate::kafka::topics::Topic;
use crate::kafka::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings};
use crate::runs::Course;

/// How far a plate is in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlateState {
    /// Its images are said to be complete; nothing was planned yet.
    Announced,
    /// It waits in the batch lane; nothing was planned yet.
    Queued,
    /// It is still being imaged; what is there is being worked on.
    Imaging,
    /// Its fields are being worked on.
    Planned,
    /// Its profiles are published.
    Profiled,
    /// A quality gate holds it back from the comparison, until it is released.
    HeldBack,
    /// It was held back and is let into the comparison, which is made anew.
    Released,
}

impl fmt::Display for PlateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announced => "announced",
            Self::Queued => "queued",
            Self::Imaging => "imaging",
            Self::Planned => "planned",
            Self::Profiled => "profiled",
            Self::HeldBack => "held back",
            Self::Released => "released",
        })
    }
}

/// A plate in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InRun {
    /// How far it is.
    pub state: PlateState,
    /// What an operator did with it in the run.
    #[serde(default, skip_serializing_if = "is_open")]
    pub course: Course,
    /// Fields it should have.
    pub fields_expected: u32,
    /// Fields for which there were images: the rest are dead letters.
    pub fields_planned: u32,
    /// Dead letters of its planning.
    pub dead_letters: u32,
    /// Why it is held back, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// When it is waited for no longer, in milliseconds since 1970 UTC, while it is being imaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// While it is being imaged: why fields that are there wait. After that: what never came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// What was passed over of its files: nothing is lost by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl InRun {
    /// Whether its profiles are still to come.
    pub fn is_left(&self) -> bool {
        self.state < PlateState::Profiled && self.course != Course::Cancelled
    }
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_open(course: &Course) -> bool {
    *course == Course::Open
}

/// What is known of a plate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plate {
    /// When it was last announced, in milliseconds since 1970 UTC; `None` where only a run speaks of it.
    pub announced_ms: Option<u64>,
    /// Whether an announcement left open which run should take it.
    pub for_any_run: bool,
    /// By run.
    pub runs: BTreeMap<RunId, InRun>,
}

impl Plate {
    fn in_run(&mut self, run: &RunId) -> &mut InRun {
        self.runs.entry(run.clone()).or_insert(InRun {
            state: PlateState::Announced,
            course: Course::Open,
            fields_expected: 0,
            fields_planned: 0,
            dead_letters: 0,
            held: None,
            deadline_ms: None,
            incomplete: None,
            remarks: Vec::new(),
        })
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It is worked on, or waits for a worker.
    Open,
    /// An operator paused it.
    Paused,
    /// Its results are there.
    Finished,
    /// An operator ended it.
    Cancelled,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        })
    }
}

/// What is known of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KnownRun {
    /// Its screen's name.
    pub screen: String,
    /// When it was first submitted, in milliseconds since 1970 UTC.
    pub submitted_ms: u64,
    /// Its plates: those it was submitted with, and those that were announced to it since and its planner knows of.
    pub plates: BTreeSet<Barcode>,
    /// Fields with features, and fields that failed, when it was last finished.
    pub finished: Option<(u32, u32)>,
    /// Why nothing was compared, where it was last finished without.
    pub no_comparison: Option<String>,
    course: Course,
}

impl KnownRun {
    /// A plate that is added makes it unfinished.
    fn add(&mut self, plate: Barcode) {
        if self.plates.insert(plate) {
            self.finished = None;
        }
    }

    /// How far it is, whatever was done with its plates.
    pub fn state(&self) -> RunState {
        match (self.course, self.finished) {
            (Course::Cancelled, _) => RunState::Cancelled,
            (_, Some(_)) => RunState::Finished,
            (Course::Paused, None) => RunState::Paused,
            (Course::Open, None) => RunState::Open,
        }
    }
}

/// All plates and runs on the log.
#[derive(Debug, Default)]
pub struct Board {
    plates: BTreeMap<Barcode, Plate>,
    runs: BTreeMap<RunId, KnownRun>,
}

impl Board {
    /// Reads the two topics to their end. Blocking.
    ///
    /// # Errors
    /// Kafka cannot be read.
    pub fn read(kafka: &KafkaSettings) -> Result<Self, KafkaFailure> {
        Ok(Self::begin(kafka)?.0)
    }

    /// All that is there, and what reads on: one reader for each topic, so that the end of each is known.
    fn begin(kafka: &KafkaSettings) -> Result<(Self, Vec<Tail>), KafkaFailure> {
        let mut board = Self::default();
        let tails = [Topic::Plates, Topic::Status].map(|topic| {
            let mut tail = Tail::open(kafka, &[topic])?;
            tail.read_to_end(BROKER_TIMEOUT, |record| {
                board.learn(record);
                Ok::<_, KafkaFailure>(ControlFlow::Continue(()))
            })?;
            Ok(tail)
        });
        let tails = tails.into_iter().collect::<Result<_, KafkaFailure>>()?;
        Ok((board, tails))
    }

    /// What is known of a plate.
    pub fn plate(&self, plate: &Barcode) -> Option<&Plate> {
        self.plates.get(plate)
    }

    /// All plates, by barcode.
    pub fn plates(&self) -> impl Iterator<Item = (&Barcode, &Plate)> {
        self.plates.iter()
    }

    /// What is known of a run; `None` where it was never submitted.
    pub fn run(&self, run: &str) -> Option<&KnownRun> {
        self.runs.get(run)
    }

    /// All runs, by name.
    pub fn runs(&self) -> impl Iterator<Item = (&RunId, &KnownRun)> {
        self.runs.iter()
    }

    /// The plates of a run, each with how far it is.
    pub fn plates_of<'a>(&'a self, run: &'a str) -> impl Iterator<Item = (&'a Barcode, &'a InRun)> {
        let in_run = move |(plate, known): (&'a Barcode, &'a Plate)| Some((plate, known.runs.get(run)?));
        self.plates.iter().filter_map(in_run)
    }

    /// How far a run is; one whose plates that are left to do are all paused is paused.
    pub fn state_of(&self, run: &str, known: &KnownRun) -> RunState {
        let state = known.state();
        let left = self.plates_of(run).map(|(_, plate)| plate);
        let mut left = left.filter(|plate| plate.is_left()).peekable();
        match state {
            RunState::Open if left.peek().is_some() && left.all(|plate| plate.course == Course::Paused) => {
                RunState::Paused
            }
            state => state,
        }
    }

    fn learn(&mut self, record: &TailRecord) {
        let learned = match record.topic {
            Topic::Plates => record.read().map(|event| self.announced(event, record)),
            _ => record.read().map(|status| self.told(status)),
        };
        if let Err(error) = learned {
            let message = crate::error::chain(&record.unreadable(error));
            match record.topic {
                Topic::Plates => tracing::debug!(message, "a plate event is passed over"),
                _ => tracing::warn!(message, "a record is passed over"),
            }
        }
    }

    fn announced(&mut self, event: PlateReady, record: &TailRecord) {
        // Nobody said that: a clock did.
        if event
            .progress
            .is_some_and(|progress| progress.passed_ms.is_some())
        {
            return;
        }
        let plate = self.plates.entry(event.plate).or_default();
        plate.announced_ms = u64::try_from(record.time_ms).ok();
        match event.run {
            Some(run) => _ = plate.in_run(&run),
            None => plate.for_any_run = true,
        }
    }

    /// A plate is one of the run, as its planner says.
    fn add(&mut self, run: &RunId, plate: &Barcode) {
        // Where its fields are there only now, what the run ended with was nothing.
        let known = self.plates.get(plate).and_then(|plate| plate.runs.get(run));
        if known.is_some_and(|known| known.course == Course::Cancelled) {
            return;
        }
        let was_nothing =
            known.is_some_and(|known| known.state == PlateState::Profiled && known.fields_planned == 0);
        if let Some(run) = self.runs.get_mut(run) {
            run.add(plate.clone());
            if was_nothing {
                run.finished = None;
            }
        }
    }

    fn told(&mut self, status: Status) {
        match status {
            Status::RunSubmitted {
                run,
                screen,
                plates,
                time_ms,
                ..
            } => {
                for plate in &plates {
                    self.plates.entry(plate.clone()).or_default().in_run(&run);
                }
                self.runs.entry(run.clone()).or_insert_with(|| KnownRun {
                    screen: screen.name.to_string(),
                    submitted_ms: time_ms,
                    plates: BTreeSet::new(),
                    finished: None,
                    no_comparison: None,
                    course: Course::Open,
                });
                for plate in &plates {
                    self.add(&run, plate);
                }
            }
            Status::PlateQueued { run, plate } => {
                self.add(&run, &plate);
                self.plates.entry(plate).or_default().in_run(&run).state = PlateState::Queued;
            }
            Status::PlateImaging {
                run,
                plate,
                planned,
                fields_expected,
                deadline_ms,
                waits,
                ..
            } => {
                self.add(&run, &plate);
                let entry = self.plates.entry(plate).or_default().in_run(&run);
                let fields: usize = planned.iter().map(|of| of.fields.len()).sum();
                let fields = u32::try_from(fields).unwrap_or(u32::MAX);
                entry.state = PlateState::Imaging;
                entry.fields_planned = entry.fields_planned.saturating_add(fields);
                entry.fields_expected = fields_expected.unwrap_or(0).max(entry.fields_planned);
                entry.deadline_ms = deadline_ms;
                entry.incomplete = waits;
            }
            Status::PlatePlanned {
                run,
                plate,
                fields_expected,
                fields_planned,
                dead_letters,
                incomplete,
                remarks,
                ..
            } => {
                if fields_planned > 0 {
                    self.add(&run, &plate);
                }
                let entry = self.plates.entry(plate).or_default().in_run(&run);
                *entry = InRun {
                    state: PlateState::Planned,
                    course: entry.course,
                    fields_expected,
                    fields_planned,
                    dead_letters,
                    held: None,
                    deadline_ms: None,
                    incomplete,
                    remarks,
                };
            }
            Status::PlateProfiled { run, plate, held, .. } => {
                let entry = self.plates.entry(plate).or_default().in_run(&run);
                entry.state = match held {
                    Some(_) => PlateState::HeldBack,
                    None => PlateState::Profiled,
                };
                entry.held = held;
            }
            Status::PlateReleased { run, plate, .. } => {
                let entry = self.plates.entry(plate).or_default().in_run(&run);
                entry.held = None;
                if entry.state == PlateState::HeldBack {
                    entry.state = PlateState::Released;
                    if let Some(known) = self.runs.get_mut(&run) {
                        known.finished = None;
                    }
                }
            }
            Status::RunFinished {
                run,
                fields_done,
                fields_failed,
                no_comparison,
            } => {
                if let Some(known) = self.runs.get_mut(&run) {
                    known.finished = Some((fields_done, fields_failed));
                    known.no_comparison = no_comparison;
                }
            }
            Status::RunSteered { run, action, .. } => {
                if let Some(known) = self.runs.get_mut(&run) {
                    known.course = known.course.steered(action);
                }
            }
            Status::PlateSteered {
                run, plate, action, ..
            } => {
                let entry = self.plates.entry(plate.clone()).or_default().in_run(&run);
                entry.course = entry.course.steered(action);
                if entry.course == Course::Cancelled
                    && let Some(known) = self.runs.get_mut(&run)
                {
                    known.plates.remove(&plate);
                }
            }
            Status::LettersResolved {
                run,
                action: LetterAction::Retried,
                ..
            } => {
                if let Some(known) = self.runs.get_mut(&run) {
                    known.finished = None;
                }
            }
            Status::LettersResolved { .. } | Status::ComparisonsPublished { .. } => {}
        }
    }
}

/// A board that is kept up to date.
#[derive(Debug)]
pub struct Followed {
    board: Mutex<Board>,
    failed: OnceLock<String>,
    following: Vec<Following>,
}

impl Followed {
    /// Reads what is there, then goes on on threads of its own. Blocking until all that was there is read.
    ///
    /// # Errors
    /// Kafka cannot be read.
    pub fn follow(kafka: &KafkaSettings) -> Result<Arc<Self>, KafkaFailure> {
        let (board, tails) = Board::begin(kafka)?;
        let followed = Arc::new(Self {
            board: Mutex::new(board),
            failed: OnceLock::new(),
            following: tails.iter().map(|_| Following::default()).collect(),
        });
        let take = |followed: &Self, record: &TailRecord| followed.lock().learn(record);
        let failed = |followed: &Self, message| _ = followed.failed.set(message);
        for (following, tail) in followed.following.iter().zip(tails) {
            following.start("plates", tail, Arc::downgrade(&followed), take, failed)?;
        }
        Ok(followed)
    }

    /// Looks at the board as it is now.
    ///
    /// # Errors
    /// Following has ended; the text says why.
    pub fn look<T>(&self, at: impl FnOnce(&Board) -> T) -> Result<T, String> {
        match self.failed.get() {
            Some(failed) => Err(failed.clone()),
            None => Ok(at(&self.lock())),
        }
    }

    /// Stops following and waits for the threads, so that Kafka may go away.
    pub fn stop(&self) {
        self.following.iter().for_each(Following::stop);
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_run_whose_plates_that_are_left_are_all_paused_is_paused() {
        let screen = "[screen]\nname = \"s\"\n[profiles]\n[controls]\nreference = { role = \"a\" }\n\
                      phenotype = { role = \"b\" }\n";
        let screen = wellspring_workloads::screen::Screen::parse(screen, "s.toml").unwrap();
        let mut board = Board::default();
        let mut tell = |status: Value| {
            board.told(serde_json::from_value(status).unwrap());
            board.state_of("r", board.run("r").unwrap())
        };
        let steered = |plate: &str, action: &str| json!({ "status": "plate_steered", "run": "r", "plate": plate, "action": action, "time_ms": 2 });
        let profiled = |plate: &str| json!({ "status": "plate_profiled", "run": "r", "plate": plate });
        let plates = ["P1", "P2", "P3"];
        let submitted = json!({ "status": "run_submitted", "run": "r", "screen": screen, "plates": plates, "time_ms": 1 });
        assert_eq!(tell(submitted), RunState::Open);
        assert_eq!(tell(steered("P1", "paused")), RunState::Open);
        assert_eq!(tell(profiled("P2")), RunState::Open);
        assert_eq!(tell(steered("P3", "cancelled")), RunState::Paused);
        assert_eq!(tell(steered("P1", "resumed")), RunState::Open);
        // A plate that is done waits for nobody.
        tell(steered("P1", "paused"));
        assert_eq!(tell(profiled("P1")), RunState::Open);
    }
}
