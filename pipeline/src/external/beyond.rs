//! Beyond fields: what the collector asks external steps about wells, plates and the screen.
//!
//! Profiles of a plate's wells enter ([`Asker::plate`]) and leave with the columns that were answered behind their values;
//! wells and plates that a step gave no answer about are taken out. When the result files are written, steps of the screen
//! are asked ([`Asker::screen`]). Nothing is remembered of an answer but what the results have of it: whoever makes them
//! again asks again, under the same idempotency id. A failure that is final is a dead letter, and while that stands its
//! step is not asked about the same again. What fails: the disk, and whoever wants no answers any more ([`Stopped`]).

mod plates;
mod screen;
mod wells;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tracing::field::display;
use wellspring_workloads::profile::{Treatment, WellProfile};
use wellspring_workloads::screen::ExternalStep;
use wellspring_workloads::screen::graph::Level;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::ExternalError;
use super::answer::{Answer, AnswerError};
use super::protocol::{Request, Subject, local_uri};
use super::services::Services;
use crate::dead_letters::{Place, letter_of_step};
use crate::error::{FailureClass, Stage, StageError};
use crate::events::DeadLetter;
use crate::failpoint;
use crate::results::Provenance;
use crate::runs::Run;

/// How often it is looked whether the answers are still wanted.
const LOOK: Duration = Duration::from_millis(250);
/// Wells that a line for people names.
const NAMED_WELLS: usize = 3;

/// What the collector asks with.
pub struct Asking<'a> {
    /// The services.
    pub services: Arc<Services>,
    /// Where they are waited for.
    pub runtime: &'a Handle,
    /// Whether the answers are not wanted any more: the process is to end, or the run was steered.
    pub stop: &'a dyn Fn() -> bool,
    /// The process, as dead letters name it.
    pub worker: &'a str,
}

/// Nobody waits for the answers any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the results are not wanted any more: the run or a plate of it was steered, or the process is to end"
)]
pub struct Stopped;

impl Stopped {
    /// Whether this is why a stage failed.
    pub fn is_cause_of(error: &StageError) -> bool {
        error.source.is::<Self>()
    }

    /// As the failure of a stage.
    pub(crate) fn error() -> StageError {
        StageError::external(Stage::External, FailureClass::External, Self)
    }
}

/// Plates in a row about which nothing was heard of a service, after which it is not asked about others.
const SILENT_PLATES: u32 = 2;

/// A service that nothing is heard of.
#[derive(Debug, thiserror::Error)]
#[error(
    "step '{step}' was not asked: nothing was heard of its service about the {plates} plates before, whose dead letters say why; \
     `wellspring dead-letters retry` has all of them asked about again"
)]
struct Down {
    step: String,
    plates: u32,
}

/// What came of a step that the collector asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepOutcome {
    /// The step.
    pub step: String,
    /// What it was asked about.
    pub level: Level,
    /// Of how many there is an answer.
    pub answered: usize,
    /// Of how many there is none, for good.
    pub failed: usize,
    /// Of how many it was not asked, since what it takes is missing.
    pub not_asked: usize,
    /// The file with its answer, in the folder of the results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl StepOutcome {
    /// In words.
    pub fn describe(&self) -> String {
        let of = match self.level {
            Level::Screen => "the screen".to_owned(),
            level => format!("{level}s"),
        };
        let mut text = format!("asked about {of}: {} answered", self.answered);
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        if self.not_asked > 0 {
            text.push_str(&format!(", {} not asked", self.not_asked));
        }
        if let Some(file) = &self.file {
            text.push_str(&format!("; {file}"));
        }
        text
    }
}

/// Everything that was asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// By step, in the order of the screen file.
    pub outcomes: Vec<StepOutcome>,
    /// Failures that are new.
    pub letters: Vec<DeadLetter>,
    /// What is missing for want of an answer, in words.
    pub left_out: Vec<String>,
}

/// A step and what it was asked about.
type About = (String, Option<Barcode>, Option<WellPosition>);

/// Asks the steps of one run.
pub struct Asker<'a> {
    run: &'a Run,
    asking: &'a Asking<'a>,
    out: &'a Path,
    provenance: Provenance,
    /// What failed for good before, and was not tried again.
    failed: HashSet<About>,
    /// Plates in a row about which nothing was heard of a step's service.
    silent: HashMap<String, u32>,
    outcomes: BTreeMap<usize, StepOutcome>,
    letters: Vec<DeadLetter>,
    left_out: Vec<String>,
}

/// What is known of a plate's wells besides their profiles.
pub struct PlateGiven<'a> {
    /// The plate.
    pub plate: &'a Barcode,
    /// What each well was given.
    pub treatments: &'a BTreeMap<WellPosition, Treatment>,
    /// The fields that have features, by well.
    pub fields: &'a BTreeMap<WellPosition, Vec<u32>>,
}

impl<'a> Asker<'a> {
    /// Asks for `run`, whose results are written into `out`; `letters` are its dead letters that stand.
    pub fn new(
        run: &'a Run,
        asking: &'a Asking<'a>,
        letters: &[&DeadLetter],
        provenance: &Provenance,
        out: &'a Path,
    ) -> Self {
        let about = |letter: &&DeadLetter| {
            let step = letter.step.clone()?;
            Some((step, letter.plate.clone(), letter.well))
        };
        let outcomes = run.screen.steps.iter().enumerate();
        let outcomes = outcomes.filter(|(_, step)| !step.level.is_field());
        Self {
            run,
            asking,
            out,
            provenance: provenance.clone(),
            failed: letters.iter().filter_map(about).collect(),
            silent: HashMap::new(),
            outcomes: outcomes.map(|(index, step)| (index, untouched(step))).collect(),
            letters: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Asks the steps of wells and of plates about a plate. Values of `profiles` are those of their fields; of the profiles
    /// that stay all columns are behind them.
    ///
    /// # Errors
    /// [`Stopped`]; the disk refuses.
    pub fn plate(
        &mut self,
        given: &PlateGiven<'_>,
        profiles: &mut Vec<WellProfile>,
    ) -> Result<(), StageError> {
        wells::ask(self, given, profiles)?;
        plates::ask(self, given, profiles)
    }

    /// What came of it.
    pub fn finish(self) -> Asked {
        Asked {
            outcomes: self.outcomes.into_values().collect(),
            letters: self.letters,
            left_out: self.left_out,
        }
    }

    /// Waits for an answer as long as it is wanted.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, StageError> {
        self.asking.runtime.block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return Ok(done),
                    () = tokio::time::sleep(LOOK) => {
                        if (self.asking.stop)() {
                            return Err(Stopped::error());
                        }
                    }
                }
            }
        })
    }

    /// The steps of a level, in the order in which they are asked.
    fn steps(&self, level: Level) -> Vec<(usize, &'a ExternalStep)> {
        let run = self.run;
        let places = run.graph.externals(level);
        places
            .filter_map(|index| Some((index, run.screen.steps.get(index)?)))
            .collect()
    }

    fn count(&mut self, step: usize, what: impl FnOnce(&mut StepOutcome)) {
        if let Some(outcome) = self.outcomes.get_mut(&step) {
            what(outcome);
        }
    }

    /// What came of another step so far, as an input.
    fn counts_of(&self, name: &str) -> Value {
        let mut outcomes = self.outcomes.values();
        let outcome = outcomes.find(|outcome| outcome.step == name);
        outcome.map_or(Value::Null, |outcome| {
            json!({
                "answered": outcome.answered,
                "failed": outcome.failed,
                "not_asked": outcome.not_asked,
            })
        })
    }

    /// Whether a failure about this stands.
    fn has_failed(&self, step: &ExternalStep, about: &Subject) -> bool {
        self.failed
            .contains(&(step.name.clone(), about.plate.clone(), about.well))
    }

    /// The first input of a step that is an answer which did not come.
    fn missing_input<'s>(step: &'s ExternalStep, unanswered: &HashSet<&str>) -> Option<&'s str> {
        let mut inputs = step.inputs.iter().map(String::as_str);
        inputs.find(|input| unanswered.contains(input))
    }

    /// A step's answer about a plate or the screen, to the request that `make` makes; `None`, and a dead letter that says why,
    /// where there is none for good.
    fn answer<T>(
        &mut self,
        step: &ExternalStep,
        about: Subject,
        make: impl FnOnce(&Self) -> Result<Request, StageError>,
        read: impl Fn(Answer) -> Result<T, AnswerError>,
    ) -> Result<Option<T>, StageError> {
        if self.has_failed(step, &about) {
            return Ok(None);
        }
        let mut request = make(self)?;
        let services = self.asking.services.clone();
        let answer = self.wait(services.ask(step, &mut request, read))?;
        failpoint::pass("collector", "asked");
        let failed = |error: ExternalError| {
            self.fail(step, about, &error.stage_error(step), Some(&request));
        };
        Ok(answer.map_err(failed).ok())
    }

    /// Whether a step is not asked about further plates, since nothing was heard of its service about the last ones.
    fn is_down(&self, step: &ExternalStep) -> Option<StageError> {
        let plates = self.silent.get(&step.name).copied().unwrap_or(0);
        let down = Down {
            step: step.name.clone(),
            plates,
        };
        (plates >= SILENT_PLATES).then(|| StageError::external(Stage::External, FailureClass::External, down))
    }

    /// A plate's wells were asked about: whether anything was heard of the service.
    fn heard_of(&mut self, step: &ExternalStep, heard: bool) {
        match heard {
            true => _ = self.silent.remove(&step.name),
            false => *self.silent.entry(step.name.clone()).or_default() += 1,
        }
    }

    /// A failure for good: a dead letter.
    fn fail(&mut self, step: &ExternalStep, about: Subject, error: &StageError, request: Option<&Request>) {
        let place = Place {
            run: Some(self.run.id.clone()),
            plate: about.plate.clone(),
            well: about.well,
            ..Place::default()
        };
        let message = error.chain();
        let (plate, well) = (about.plate.as_ref().map(display), about.well.map(display));
        tracing::error!(step = step.name, plate, well, message, "dead letter");
        let asked = request.map_or_else(|| "{}".to_owned(), Request::to_line);
        let attempt = request.map_or(1, |request| request.attempt);
        let by = (attempt, self.asking.worker);
        let letter = letter_of_step(place, &step.name, error.class, message, asked.as_bytes(), by);
        self.letters.push(letter);
        self.failed.insert((step.name.clone(), about.plate, about.well));
    }

    /// The columns of another step among a table's, as an input of steps that are given tables.
    fn columns_in_table(&self, name: &str, table: &Value) -> Value {
        let steps = &self.run.screen.steps;
        let Some(index) = steps.iter().position(|step| step.name == name) else {
            return Value::Null;
        };
        let names = self.run.feature_names().get(self.run.columns_of(index));
        match names.unwrap_or_default() {
            [] => json!({ "acknowledged": true }),
            names => {
                let mut input = table.clone();
                input["columns"] = json!(names);
                input
            }
        }
    }
}

fn untouched(step: &ExternalStep) -> StepOutcome {
    StepOutcome {
        step: step.name.clone(),
        level: step.level,
        answered: 0,
        failed: 0,
        not_asked: 0,
        file: None,
    }
}

/// What a well was given, as an input.
fn given(treatment: &Treatment, dose_unit: &str) -> Value {
    let mut given = json!(treatment);
    if treatment.dose.is_some() {
        given["dose_unit"] = dose_unit.into();
    }
    given
}

/// A result file as an input: where it is, and what it is.
fn file_input(path: &Path) -> Result<Value, StageError> {
    let failed = |source| {
        let path = path.to_owned();
        StageError::internal(Stage::External, Unread { path, source })
    };
    let path = std::path::absolute(path).map_err(failed)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut std::fs::File::open(&path).map_err(failed)?, &mut hash).map_err(failed)?;
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({ "uri": local_uri(&path.to_string_lossy()), "sha256": digits }))
}

/// What a request is made from, wherever the files lie: inputs without their addresses.
fn content(inputs: &Map<String, Value>, images: &[super::protocol::RequestImages]) -> String {
    fn without_addresses(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let is_file = fields.contains_key("sha256");
                let kept = fields.iter().filter(|(name, _)| !is_file || *name != "uri");
                Value::Object(
                    kept.map(|(name, value)| (name.clone(), without_addresses(value)))
                        .collect(),
                )
            }
            other => other.clone(),
        }
    }
    let inputs = without_addresses(&Value::Object(inputs.clone()));
    crate::ids::content([inputs.to_string(), json!(images).to_string()])
}

#[derive(Debug, thiserror::Error)]
#[error("the result file '{path}' cannot be read back for an external step", path = path.display())]
struct Unread {
    path: PathBuf,
    source: std::io::Error,
}

/// Some wells by name, as a line for people has them.
fn named(wells: &[WellPosition]) -> String {
    let few: Vec<String> = wells.iter().take(NAMED_WELLS).map(ToString::to_string).collect();
    let more = if wells.len() > NAMED_WELLS { ", ..." } else { "" };
    format!("{}{more}", few.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results that are written elsewhere are the same work.
    #[test]
    fn the_content_of_a_request_is_what_files_hold_and_not_where_they_lie() {
        let inputs = |folder: &str, hash: &str| {
            let table = json!({ "uri": format!("file:///{folder}/profiles.parquet"), "sha256": hash });
            Map::from_iter([("export".to_owned(), json!({ "files": { "profiles": table } }))])
        };
        let one = content(&inputs("a", "01"), &[]);
        assert_eq!(one, content(&inputs("b", "01"), &[]));
        assert_ne!(one, content(&inputs("a", "02"), &[]));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a b.txt");
        std::fs::write(&file, "abc").unwrap();
        let input = file_input(&file).unwrap();
        assert!(input["uri"].as_str().unwrap().ends_with("/a%20b.txt"));
        assert!(input["sha256"].as_str().unwrap().starts_with("ba7816bf8f01cfea"));
    }

    #[test]
    fn an_outcome_says_what_is_missing() {
        let mut outcome = StepOutcome {
            step: "lims".to_owned(),
            level: Level::Plate,
            answered: 3,
            failed: 0,
            not_asked: 0,
            file: None,
        };
        assert_eq!(outcome.describe(), "asked about plates: 3 answered");
        (outcome.failed, outcome.not_asked) = (1, 2);
        assert_eq!(
            outcome.describe(),
            "asked about plates: 3 answered, 1 failed, 2 not asked"
        );
    }
}
