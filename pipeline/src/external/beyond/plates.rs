//! Steps that are asked about plates: each once, when all wells have their columns, in the order of the graph.
//!
//! A step is given the table of the plate's profiles so far (`aggregate`: its address and its wells), which is written beside
//! the results as `external/STEP-PLATE/profiles.parquet`, and what its wells were given (`plate_map`). It answers with columns of all wells,
//! or takes note. A plate without columns that it should have is taken out; one of which only no note was taken is not.

use std::collections::HashSet;

use serde_json::{Map, Value};
use wellspring_workloads::profile::WellProfile;
use wellspring_workloads::screen::ExternalStep;
use wellspring_workloads::screen::graph::{AGGREGATE, Level, PLATE_MAP};
use wellspring_workloads::words::WellPosition;

use super::{Asker, PlateGiven, content, file_input, given};
use crate::error::{Stage, StageError};
use crate::external::answer::Answer;
use crate::external::protocol::{Request, Subject};
use crate::results::{ProfileTable, WriteError};

pub(super) fn ask(
    asker: &mut Asker<'_>,
    plate: &PlateGiven<'_>,
    profiles: &mut Vec<WellProfile>,
) -> Result<(), StageError> {
    let (mut unanswered, mut lost) = (HashSet::new(), false);
    for (index, step) in asker.steps(Level::Plate) {
        if profiles.is_empty() {
            asker.count(index, |outcome| outcome.not_asked += 1);
            let (name, plate) = (&step.name, plate.plate);
            asker.left_out.push(format!(
                "step '{name}' was not asked about plate {plate}: none of its wells has a profile"
            ));
            continue;
        }
        if let Some(input) = Asker::missing_input(step, &unanswered) {
            asker.count(index, |outcome| outcome.not_asked += 1);
            let why = format!("was not asked, because it takes from '{input}'");
            unanswered.insert(step.name.as_str());
            lost |= lose(asker, step, plate, profiles, &why);
            continue;
        }
        let about = Subject {
            plate: Some(plate.plate.clone()),
            well: None,
        };
        let wells: Vec<WellPosition> = profiles.iter().map(|profile| profile.well).collect();
        let make = |asker: &Asker<'_>| request(asker, step, plate, profiles);
        let read = |answer: Answer| match step.columns.is_empty() {
            true => answer.note().map(|()| Vec::new()),
            false => answer.of_wells(step, &wells),
        };
        match asker.answer(step, about, make, read)? {
            Some(columns) => {
                for (profile, values) in profiles.iter_mut().zip(columns) {
                    profile.values.extend(values);
                }
                asker.count(index, |outcome| outcome.answered += 1);
            }
            None => {
                asker.count(index, |outcome| outcome.failed += 1);
                unanswered.insert(step.name.as_str());
                let why = "gave no answer (dead-letters.jsonl says why; `wellspring dead-letters retry` has it asked again)";
                lost |= lose(asker, step, plate, profiles, why);
            }
        }
    }
    if lost {
        profiles.clear();
    }
    Ok(())
}

/// Says what is missing. Where it is columns, the plate's profiles will be of no use, but other steps are asked as if it came
/// first or last: the columns are there, without values. Whether it was so.
fn lose(
    asker: &mut Asker<'_>,
    step: &ExternalStep,
    plate: &PlateGiven<'_>,
    profiles: &mut [WellProfile],
    why: &str,
) -> bool {
    let (name, plate) = (&step.name, plate.plate);
    asker.left_out.push(match step.columns.is_empty() {
        true => format!("plate {plate}: step '{name}' {why}; the plate is compared nevertheless"),
        false => format!("plate {plate} is left out of the comparison: step '{name}' {why}"),
    });
    for profile in profiles {
        profile.values.extend(step.columns.iter().map(|_| f32::NAN));
    }
    !step.columns.is_empty()
}

fn request(
    asker: &Asker<'_>,
    step: &ExternalStep,
    plate: &PlateGiven<'_>,
    profiles: &[WellProfile],
) -> Result<Request, StageError> {
    let run = asker.run;
    let mut table: Option<Value> = None;
    let mut inputs = Map::new();
    for input in &step.inputs {
        if input == PLATE_MAP {
            let wells = plate.treatments.iter();
            let unit = &run.screen.plate_map.dose_unit;
            let wells = wells.map(|(well, treatment)| (well.to_string(), given(treatment, unit)));
            inputs.insert(input.clone(), Value::Object(wells.collect()));
            continue;
        }
        let table = match &mut table {
            Some(table) => table,
            none => none.insert(write(asker, step, plate, profiles)?),
        };
        let value = match input.as_str() {
            AGGREGATE => table.clone(),
            name => asker.columns_in_table(name, table),
        };
        inputs.insert(input.clone(), value);
    }
    let content = content(&inputs, &[]);
    let about = Subject {
        plate: Some(plate.plate.clone()),
        well: None,
    };
    Ok(Request::beyond_fields(
        &run.id,
        step,
        about,
        Vec::new(),
        inputs,
        &content,
    ))
}

/// Writes the profiles as they are by now, in the form of the run's own table.
fn write(
    asker: &Asker<'_>,
    step: &ExternalStep,
    plate: &PlateGiven<'_>,
    profiles: &[WellProfile],
) -> Result<Value, StageError> {
    let folder = format!("{}-{}", step.name, plate.plate);
    let folder = asker.out.join("external").join(folder);
    let written = || {
        std::fs::create_dir_all(&folder).map_err(|source| WriteError::Io {
            path: folder.clone(),
            action: "make the folder",
            source,
        })?;
        let width = profiles.first().map_or(0, |profile| profile.values.len());
        let names = asker.run.feature_names();
        let names = names.get(..width).unwrap_or(names);
        let mut table = ProfileTable::create(&folder, names, &asker.provenance)?;
        for profile in profiles {
            table.push(profile, false)?;
        }
        table.finish()
    };
    written().map_err(|error: WriteError| StageError::internal(Stage::External, error))?;
    let mut table = file_input(&folder.join(ProfileTable::FILE))?;
    let wells = profiles.iter().map(|profile| profile.well.to_string());
    table["wells"] = wells.collect::<Vec<_>>().into();
    Ok(table)
}
