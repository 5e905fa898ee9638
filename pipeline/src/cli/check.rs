//! `wellspring check`: is this screen file right, and do its images, plate map and controls fit together?
//!
//! A screen file enters; its plan and every problem found leave. Exit 1 where there is a problem.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use wellspring::error::chain;
use wellspring::heads::check_channels;
use wellspring::plan::{Failure, list_screen, plan_plate, read_plate_map};
use wellspring::runs::{Run, run_id};
use wellspring_workloads::layout::PlateFiles;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use super::{common, say};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring check screen.toml\n  wellspring check screen.toml --images\n\n\
                  Exit 0: nothing is wrong. Exit 1: something is; every problem is printed."
)]
pub(crate) struct Args {
    /// The screen file.
    #[arg(value_name = "SCREEN.toml")]
    screen: PathBuf,
    /// Also list the image store and compare it with the plate map and the controls.
    #[arg(long)]
    images: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let shown = args.screen.display().to_string();
    let checked = match common::parse_screen(&common::screen_text(&args.screen)?, &shown)? {
        Ok(mut screen) => {
            let folder = std::path::absolute(&args.screen)?;
            let folder = folder.parent().unwrap_or(Path::new("/"));
            screen.resolve_paths(&folder.to_string_lossy());
            Checked::of(screen, args.images)?
        }
        Err(errors) => {
            let problem = |error: &wellspring_workloads::screen::ScreenError| Problem {
                line: Some((error.line, error.column)),
                ..Problem::text("screen file", error.to_string())
            };
            Checked {
                problems: errors.0.iter().map(problem).collect(),
                ..Checked::default()
            }
        }
    };
    if args.json {
        say::line(checked.in_json());
    } else {
        checked.print(&shown);
    }
    Ok(if checked.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What a check found.
#[derive(Default)]
struct Checked {
    screen: Option<Screen>,
    /// Plates with the fields that would be processed.
    plates: Vec<(Barcode, usize)>,
    problems: Vec<Problem>,
    /// Things to know that cost nothing.
    remarks: Vec<String>,
}

/// One thing that is wrong.
struct Problem {
    /// Where it lies: `screen file`, or the kind of failure a run would give it.
    kind: String,
    plate: Option<Barcode>,
    well: Option<String>,
    field: Option<u32>,
    fields_lost: u32,
    line: Option<(usize, usize)>,
    message: String,
}

impl Problem {
    fn text(kind: &str, message: String) -> Self {
        let kind = kind.to_owned();
        Self {
            kind,
            plate: None,
            well: None,
            field: None,
            fields_lost: 0,
            line: None,
            message,
        }
    }

    fn of(plate: &Barcode, failure: Failure) -> Self {
        Self {
            kind: failure.class.to_string(),
            plate: Some(plate.clone()),
            well: failure.well.map(|well| well.to_string()),
            field: failure.field,
            fields_lost: failure.fields_lost,
            line: None,
            message: failure.message,
        }
    }

    fn in_json(&self) -> Value {
        json!({
            "kind": self.kind, "plate": self.plate, "well": self.well, "field": self.field,
            "fields_lost": self.fields_lost, "line": self.line.map(|(line, _)| line),
            "column": self.line.map(|(_, column)| column), "message": self.message,
        })
    }
}

impl Checked {
    fn of(screen: Screen, images: bool) -> anyhow::Result<Self> {
        let mut checked = Self {
            screen: Some(screen.clone()),
            ..Self::default()
        };
        let model =
            wellspring::model_cards::find(&wellspring::model_store::models_folder()?, &screen.model.name);
        let problem = match &model {
            Err(error) => Some(chain(error)),
            Ok(card) if !screen.is_of_profiles() => {
                check_channels(card, &screen).err().map(|error| error.to_string())
            }
            Ok(_) => None,
        };
        if let Some(problem) = problem {
            let message = format!("model.name: {problem}");
            checked.problems.push(Problem::text("model", message));
        } else if images {
            match Run::open(screen) {
                Ok(run) => common::runtime()?.block_on(checked.look_at(&run)),
                Err(error) => checked.problems.push(Problem::text("image store", chain(&error))),
            }
        }
        Ok(checked)
    }

    /// Lists the store and plans every plate, as a run would.
    async fn look_at(&mut self, run: &Run) {
        let found = match list_screen(&run.store, &run.screen).await {
            Ok(found) => found,
            Err(error) => {
                self.problems
                    .push(Problem::text(&error.class.to_string(), error.chain()));
                return;
            }
        };
        self.remarks
            .push(format!("file names are read as {}: {}", found.layout, found.why));
        // The others cost fields; planning their plate tells them again with what they cost.
        let remarks = found.problems.iter().filter(|problem| problem.is_remark());
        self.remarks.extend(remarks.map(ToString::to_string));
        self.remarks
            .extend(image_remarks(&found, run.screen.images.bit_depth));
        let mut plates: Vec<Barcode> = run.screen.images.plates.clone();
        if plates.is_empty() {
            plates = found.plates.keys().cloned().collect();
        }
        match read_plate_map(&run.screen).await {
            Ok(map) => {
                let unseen: Vec<&str> = map
                    .plates()
                    .filter(|plate| !plates.contains(plate))
                    .map(Barcode::as_str)
                    .collect();
                if !unseen.is_empty() {
                    let listed = unseen.join(", ");
                    self.remarks.push(format!(
                        "the plate map also has plates without images here: {listed}"
                    ));
                }
            }
            Err(error) => {
                // One message, not one per plate.
                self.problems
                    .push(Problem::text(&error.class.to_string(), error.chain()));
                return;
            }
        }
        for plate in plates {
            match plan_plate(run, &plate).await {
                Ok(plan) => {
                    self.plates.push((plate.clone(), plan.tasks.len()));
                    self.problems.extend(
                        plan.failures
                            .into_iter()
                            .map(|failure| Problem::of(&plate, failure)),
                    );
                }
                Err(error) => {
                    let text = Problem::text(&error.class.to_string(), error.chain());
                    self.problems.push(Problem {
                        plate: Some(plate),
                        ..text
                    });
                }
            }
        }
    }

    fn print(&self, file: &str) {
        if let Some(screen) = &self.screen {
            say::line(screen.plan_text());
        }
        for (plate, fields) in &self.plates {
            say::line(format!("plate {plate}: {fields} fields"));
        }
        for remark in &self.remarks {
            say::line(format!("note: {remark}"));
        }
        for problem in &self.problems {
            // A problem of the file starts with its place already; that of a plate with its kind.
            match problem.line {
                Some(_) => say::line(&problem.message),
                None => say::line(format!("{}: {}", problem.kind, problem.message)),
            }
        }
        match self.problems.len() {
            0 => say::line(format!("{file}: nothing is wrong")),
            1 => say::line(format!("{file}: 1 problem")),
            n => say::line(format!("{file}: {n} problems")),
        }
    }

    fn in_json(&self) -> Value {
        let plates: Vec<Value> = self
            .plates
            .iter()
            .map(|(plate, fields)| json!({"plate": plate, "fields": fields}))
            .collect();
        let problems: Vec<Value> = self.problems.iter().map(Problem::in_json).collect();
        json!({
            "screen": self.screen.as_ref().map(|screen| screen.name.as_str()),
            "run": self.screen.as_ref().map(run_id),
            "hash": self.screen.as_ref().map(Screen::hash),
            "plates": plates,
            "remarks": self.remarks,
            "problems": problems,
        })
    }
}

/// What the metadata say of how images were taken, a line for every channel, with the plates that have it so.
pub(crate) fn image_remarks(found: &PlateFiles, bit_depth: Option<u8>) -> Vec<String> {
    let mut taken: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (plate, facts) in &found.facts {
        for of in facts {
            let mut line = format!("channel {}: {}", of.channel, of.facts);
            // A ceiling of 16 bits would never see a detector of 12 saturate.
            if let (Some(bits @ (12 | 14)), None) = (of.facts.bit_depth, bit_depth) {
                line.push_str(&format!(
                    " (set images.bit_depth = {bits} so that saturation is seen)"
                ));
            }
            taken.entry(line).or_default().push(plate.as_str());
        }
    }
    let of_plates = |plates: Vec<&str>| match plates.as_slice() {
        plates if plates.len() == found.plates.len() => String::new(),
        [plate] => format!("plate {plate}, "),
        [first, ..] => format!("{} plates ({first}, ...), ", plates.len()),
        [] => String::new(),
    };
    let lines = taken.into_iter();
    lines
        .map(|(line, plates)| format!("{}{line}", of_plates(plates)))
        .collect()
}
