//! `wellspring check`: is this screen file right, and do its images, plate map and controls fit together?
//!
//! A screen file enters; its plan and every problem found leave, whichever was found first. Exit 1 where there is a problem.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use wellspring::embed::engine_kind;
use wellspring::error::chain;
use wellspring::model_cards;
use wellspring::model_store::weights_path;
use wellspring::plan::{Failure, MapCache, PlateSource, list_screen, plan_plate, read_plate_map, try_field};
use wellspring::preprocess::check_fit;
use wellspring::runs::{Run, RunError, run_id};
use wellspring::shading::ShadingCache;
use wellspring::store::ImageStore;
use wellspring_models::check_engine;
use wellspring_workloads::layout::PlateFiles;
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::screen::{Screen, place_of};
use wellspring_workloads::words::Barcode;

use super::models::WeightsState;
use super::{common, say};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring check screen.toml\n  wellspring check screen.toml --images\n  \
                  wellspring check screen.toml --plates BR00117006,BR00117010\n\n\
                  Exit 0: nothing is wrong. Exit 1: something is; every problem is printed."
)]
pub(crate) struct Args {
    /// The screen file.
    #[arg(value_name = "SCREEN.toml")]
    screen: PathBuf,
    /// Also list the image store, compare it with the plate map and the controls, which are read in any case, and decode one
    /// field of every plate.
    #[arg(long)]
    images: bool,
    /// Look at these plates only, with their images.
    #[arg(long, value_name = "BARCODE,..", value_delimiter = ',')]
    plates: Vec<Barcode>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let shown = args.screen.display().to_string();
    let text = common::screen_text(&args.screen)?;
    let checked = match common::parse_screen(&text, &shown)? {
        Ok(mut screen) => {
            let folder = std::path::absolute(&args.screen)?;
            let folder = folder.parent().unwrap_or(Path::new("/"));
            screen.resolve_paths(&folder.to_string_lossy());
            let mut checked = Checked::of(screen, &args)?;
            checked
                .problems
                .iter_mut()
                .for_each(|problem| problem.find(&text, &shown));
            checked
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

    /// Finds the place in the screen file of what its message begins with, such as `controls.reference`.
    fn find(&mut self, text: &str, file: &str) {
        let end = self
            .message
            .find(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == '.'));
        let name = self.message.get(..end.unwrap_or(0)).unwrap_or_default();
        if let Some((line, column)) = place_of(text, name).filter(|_| name.contains('.')) {
            self.line = Some((line, column));
            self.message = format!("{file}:{line}:{column}: {}", self.message);
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
    fn of(screen: Screen, args: &Args) -> anyhow::Result<Self> {
        let mut checked = Self {
            screen: Some(screen.clone()),
            ..Self::default()
        };
        let mut run = None;
        let folder = wellspring::model_store::models_folder()?;
        if screen.is_of_profiles() {
            if let Err(error) = model_cards::find(&folder, &screen.model.name) {
                checked.problem(Problem::text("model", format!("model.name: {}", chain(&error))));
            }
        } else {
            match Run::open(screen.clone()) {
                Ok(opened) => run = Some(opened),
                // It is told below, where it is asked for.
                Err(RunError::Store(_)) => {}
                Err(error) => {
                    checked.problem(Problem::text("model", format!("model.name: {}", chain(&error))));
                }
            }
            checked.look_at_networks(&screen, &folder);
        }
        if args.images || !args.plates.is_empty() {
            match ImageStore::open(&screen.images.store) {
                _ if screen.is_of_profiles() => {
                    let message = "the screen has [profiles] and no [images]".to_owned();
                    checked.problem(Problem::text("image store", message));
                }
                Ok(store) => {
                    let (shading, map) = (ShadingCache::default(), MapCache::default());
                    let source = PlateSource {
                        screen: &screen,
                        store: &store,
                        shading: &shading,
                        map: &map,
                    };
                    common::runtime()?.block_on(checked.look_at((source, run.as_ref()), &args.plates));
                }
                Err(error) => {
                    checked.problem(Problem::text("image store", chain(&error)));
                    common::runtime()?.block_on(checked.look_at_map(&screen, &args.plates));
                }
            }
        } else if !screen.is_of_profiles() {
            let absent = |what: &str, at: &str| {
                let local = !at.contains("://") && !Path::new(at).exists();
                local.then(|| format!("{what} {at} is not there yet"))
            };
            let map = absent("the plate map", &screen.plate_map.file);
            if map.is_none() {
                common::runtime()?.block_on(checked.look_at_map(&screen, &[]));
            }
            checked.remarks.extend(map);
            checked
                .remarks
                .extend(absent("the image store", &screen.images.store));
            checked
                .remarks
                .push("images were not looked at; --images does".to_owned());
        }
        Ok(checked)
    }

    /// Each problem once: what is wrong with a screen is wrong for each of its plates.
    fn problem(&mut self, problem: Problem) {
        if !self.problems.iter().any(|known| known.message == problem.message) {
            self.problems.push(problem);
        }
    }

    /// What the cards of the networks tell of whether these run here. Weights may be where the screen is worked on, so that
    /// absent ones are no problem.
    fn look_at_networks(&mut self, screen: &Screen, folder: &Path) {
        for (index, network) in screen.all_networks().enumerate() {
            // A model that is not known was told with the rest of the file.
            let Ok(card) = model_cards::find(folder, &network.model) else {
                continue;
            };
            let base = match model_cards::base_of(folder, &card) {
                Ok(base) => base,
                Err(error) => {
                    let text = format!("{}: {}", place(index, &network.name, "name"), chain(&error));
                    self.problem(Problem::text("model", text));
                    continue;
                }
            };
            let runs = base.as_deref().unwrap_or(&card);
            if let Err(error) = check_engine(&runs.name, &runs.architecture, engine_kind(network.engine)) {
                let place = place(index, &network.name, "engine");
                let text = format!("{place} = \"{}\": {}", network.engine.word(), chain(&error));
                self.problem(Problem::text("model", text));
            }
            for card in base.iter().chain([&card]) {
                if !weights_path(folder, card).exists() {
                    let said = WeightsState::Absent.describe(card, folder);
                    let remark = format!("{}: {said}", card.name);
                    if !self.remarks.contains(&remark) {
                        self.remarks.push(remark);
                    }
                }
            }
        }
    }

    /// Lists the store and plans every plate, as a run would.
    async fn look_at(&mut self, (source, run): (PlateSource<'_>, Option<&Run>), asked: &[Barcode]) {
        let screen = source.screen;
        let found = match list_screen(source.store, screen).await {
            Ok(found) => Some(found),
            Err(error) => {
                self.problem(Problem::text(&error.class.to_string(), error.chain()));
                None
            }
        };
        let map = match source.map.get(screen).await {
            Ok(map) => Some(map),
            Err(error) => {
                self.problem(Problem::text(&error.class.to_string(), error.chain()));
                None
            }
        };
        if let Some(found) = &found {
            self.remarks
                .push(format!("file names are read as {}: {}", found.layout, found.why));
            // The others cost fields; planning their plate tells them again with what they cost.
            let remarks = found.problems.iter().filter(|problem| problem.is_remark());
            self.remarks.extend(remarks.map(ToString::to_string));
            self.remarks.extend(image_remarks(found, screen.images.bit_depth));
        }
        let plates: Vec<Barcode> = match (asked, screen.images.plates.as_slice(), &found, &map) {
            ([], [], Some(found), _) => found.plates.keys().cloned().collect(),
            ([], [], None, Some(map)) => map.plates().cloned().collect(),
            ([], [], None, None) => Vec::new(),
            ([], plates, ..) | (plates, ..) => plates.to_vec(),
        };
        match (found, map) {
            (Some(_), Some(map)) => {
                if asked.is_empty() {
                    self.remark_unseen(&map, &plates);
                }
                for plate in plates {
                    self.plan((source, run), plate).await;
                }
            }
            // What can be said without the other.
            (Some(found), None) => {
                let of_plates = found.problems.iter().filter(|problem| !problem.is_remark());
                for problem in of_plates.filter(|of| of.plate().is_none_or(|plate| plates.contains(plate))) {
                    let text = Problem::text("image store", problem.to_string());
                    let plate = problem.plate().cloned();
                    self.problem(Problem { plate, ..text });
                }
            }
            (None, Some(map)) => self.controls(screen, &map, plates),
            (None, None) => {}
        }
    }

    /// The plate map by itself: whether it can be read, and has the controls.
    async fn look_at_map(&mut self, screen: &Screen, asked: &[Barcode]) {
        match read_plate_map(screen).await {
            Ok(map) => {
                let plates = match (asked, screen.images.plates.as_slice()) {
                    ([], []) => map.plates().cloned().collect(),
                    ([], plates) | (plates, _) => plates.to_vec(),
                };
                self.controls(screen, &map, plates);
            }
            Err(error) => self.problem(Problem::text(&error.class.to_string(), error.chain())),
        }
    }

    fn controls(&mut self, screen: &Screen, map: &PlateMap, plates: Vec<Barcode>) {
        for plate in plates {
            let errors = screen.treatments(map, &plate).err();
            for error in errors.into_iter().flat_map(|errors| errors.0) {
                let text = Problem::text("plate_map", error.to_string());
                let plate = Some(plate.clone());
                self.problem(Problem { plate, ..text });
            }
        }
    }

    fn remark_unseen(&mut self, map: &PlateMap, plates: &[Barcode]) {
        let unseen = map.plates().filter(|plate| !plates.contains(plate));
        let unseen: Vec<&str> = unseen.map(Barcode::as_str).collect();
        if !unseen.is_empty() {
            let listed = unseen.join(", ");
            self.remarks.push(format!(
                "the plate map also has plates without images here: {listed}"
            ));
        }
    }

    async fn plan(&mut self, (source, run): (PlateSource<'_>, Option<&Run>), plate: Barcode) {
        let at_plate = |error: wellspring::error::StageError| {
            let text = Problem::text(&error.class.to_string(), error.chain());
            let plate = Some(plate.clone());
            Problem { plate, ..text }
        };
        match plan_plate(source, &plate).await {
            Ok(plan) => {
                self.plates.push((plate.clone(), plan.tasks.len()));
                for failure in plan.failures {
                    self.problem(Problem::of(&plate, failure));
                }
                // One field tells what is wrong with all: another compression, more levels than images.bit_depth, fewer pixels
                // than the network sees.
                let Some(task) = plan.tasks.first() else { return };
                let fits = |shape| run.map_or(Ok(()), |run| check_fit(run, shape));
                if let Err(error) = try_field(source, task).await.and_then(fits) {
                    self.problem(Problem {
                        well: Some(task.field.well.to_string()),
                        field: Some(task.field.field),
                        fields_lost: 1,
                        ..at_plate(error)
                    });
                }
            }
            Err(error) => self.problem(at_plate(error)),
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

/// Where a screen file says something of a network.
fn place(index: usize, name: &str, key: &str) -> String {
    match (index, key) {
        (0, _) => format!("model.{key}"),
        (_, "name") => format!("steps, the one called '{name}', model"),
        _ => format!("steps, the one called '{name}', {key}"),
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
