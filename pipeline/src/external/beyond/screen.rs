//! Steps that are asked about the screen: each once, when the result files are written, in the order of the graph.
//!
//! A step is given the addresses of the tables (`export`, `aggregate`), the calls (`compare`) and what earlier steps
//! answered. It takes note, or answers with an object that is kept as `external/NAME.json`. Without an answer the run is
//! finished nevertheless, and says so.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use wellspring_workloads::compare::CompoundSummary;
use wellspring_workloads::screen::ExternalStep;
use wellspring_workloads::screen::graph::{AGGREGATE, COMPARE, EXPORT, Level};

use super::{Asker, content, file_input};
use crate::compare::Compared;
use crate::error::{Stage, StageError};
use crate::external::answer::Answer;
use crate::external::protocol::{Request, Subject};
use crate::results::{ProfileTable, write_json};

/// Compounds whose calls a request has; `compounds.parquet` has those of all.
const MOST_CALLS: usize = 1_000;

impl Asker<'_> {
    /// Asks the steps of the screen, whose tables are written.
    ///
    /// # Errors
    /// [`Stopped`](super::Stopped); the disk refuses.
    pub fn screen(&mut self, compared: &Compared) -> Result<(), StageError> {
        let mut unanswered: HashSet<&str> = HashSet::new();
        let mut files = Files::default();
        for (index, step) in self.steps(Level::Screen) {
            if let Some(input) = Asker::missing_input(step, &unanswered) {
                self.count(index, |outcome| outcome.not_asked += 1);
                self.left_out.push(format!(
                    "step '{}' of the screen was not asked, because it takes from '{input}'",
                    step.name
                ));
                unanswered.insert(&step.name);
                continue;
            }
            let path = result_file(self.out, step);
            // What an earlier answer left is not that of this one.
            remove(&path)?;
            let about = Subject::default();
            let make = |asker: &Self| request(asker, step, compared, &mut files);
            match self.answer(step, about, make, Answer::note_or_result)? {
                Some(result) => {
                    if let Some(result) = &result {
                        keep(&path, result)?;
                    }
                    let file = result.map(|_| format!("external/{}.json", step.name));
                    self.count(index, |outcome| {
                        outcome.answered += 1;
                        outcome.file = file;
                    });
                }
                None => {
                    self.count(index, |outcome| outcome.failed += 1);
                    unanswered.insert(&step.name);
                    self.left_out.push(format!(
                        "step '{}' of the screen gave no answer; the results are whole without it (dead-letters.jsonl says \
                         why; `wellspring dead-letters retry` has it asked again)",
                        step.name
                    ));
                }
            }
        }
        Ok(())
    }
}

fn result_file(out: &Path, step: &ExternalStep) -> PathBuf {
    out.join("external").join(format!("{}.json", step.name))
}

fn disk(path: &Path, action: &'static str, source: std::io::Error) -> StageError {
    let path = path.to_owned();
    StageError::internal(
        Stage::External,
        crate::results::WriteError::Io { path, action, source },
    )
}

fn remove(path: &Path) -> Result<(), StageError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(disk(path, "remove", error)),
        _ => Ok(()),
    }
}

fn keep(path: &Path, result: &Map<String, Value>) -> Result<(), StageError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| disk(folder, "make the folder", source))?;
    }
    write_json(path, result).map_err(|error| StageError::internal(Stage::External, error))
}

/// Files as inputs, each read once: they are whole before the first step is asked, or when they are first an input.
#[derive(Default)]
struct Files(HashMap<PathBuf, Value>);

impl Files {
    fn input(&mut self, path: PathBuf) -> Result<Value, StageError> {
        Ok(match self.0.entry(path) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let input = file_input(new.key())?;
                new.insert(input).clone()
            }
        })
    }
}

fn request(
    asker: &Asker<'_>,
    step: &ExternalStep,
    compared: &Compared,
    files: &mut Files,
) -> Result<Request, StageError> {
    let run = asker.run;
    let profiles = asker.out.join(ProfileTable::FILE);
    let mut inputs = Map::new();
    for input in &step.inputs {
        let earlier = run.screen.steps.iter().find(|step| step.name == *input);
        let value = match (input.as_str(), earlier) {
            (EXPORT, _) => json!({ "files": tables(asker.out, files)? }),
            (COMPARE, _) => calls(compared),
            (AGGREGATE, _) => files.input(profiles.clone())?,
            (_, Some(earlier)) if earlier.level == Level::Screen => {
                let path = result_file(asker.out, earlier);
                match path.exists() {
                    true => files.input(path)?,
                    false => json!({ "acknowledged": true }),
                }
            }
            // Of some plates no note may have been taken.
            (name, Some(earlier)) if earlier.columns.is_empty() => asker.counts_of(name),
            (name, _) => asker.columns_in_table(name, &files.input(profiles.clone())?),
        };
        inputs.insert(input.clone(), value);
    }
    let content = content(&inputs, &[]);
    Ok(Request::beyond_fields(
        &run.id,
        step,
        Subject::default(),
        Vec::new(),
        inputs,
        &content,
    ))
}

/// The tables in the folder of the results, by name.
fn tables(out: &Path, files: &mut Files) -> Result<Map<String, Value>, StageError> {
    let unread = |source| disk(out, "list", source);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(out).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        if path.extension().is_some_and(|ending| ending == "parquet") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut tables = Map::new();
    for path in paths {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        tables.insert(name, files.input(path)?);
    }
    Ok(tables)
}

/// What was found of compounds, best first; or why nothing was.
fn calls(compared: &Compared) -> Value {
    let shown = match &compared.comparison {
        Ok(shown) => shown,
        Err(error) => return json!({ "compounds": [], "failed": error.to_string() }),
    };
    let mut compounds: Vec<&CompoundSummary> = shown.comparison.compounds.iter().collect();
    compounds.sort_by_key(|summary| (&summary.disease, summary.rank));
    let call = |summary: &CompoundSummary| {
        json!({
            "disease": summary.disease,
            "compound": summary.compound,
            "call": summary.call,
            "rank": summary.rank,
            "score": summary.score,
            "best_dose": summary.best_dose,
            "toxic_dose": summary.toxic_dose,
        })
    };
    let called = compounds.into_iter().take(MOST_CALLS).map(call);
    json!({ "compounds": called.collect::<Vec<_>>() })
}
