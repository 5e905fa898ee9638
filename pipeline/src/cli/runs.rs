//! `wellspring runs`: see how far runs are; pause them, let them go on, end them.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use serde::Serialize;
use wellspring::clock::rfc3339;
use wellspring::diff::{Change, Difference, diff};
use wellspring::events::{RunId, Steering};
use wellspring::kafka::{KafkaSettings, topics};
use wellspring::plates::{KnownRun, PlateState, RunState};
use wellspring::retries::{Waiting, waiting};
use wellspring::runs::Course;
use wellspring::steer::steer;
use wellspring_workloads::words::Barcode;

use super::calls::{Grid, Side};
use super::common::{KafkaArgs, runtime};
use super::overview::{self, Overview, letters_told};
use super::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wellspring runs pause rescue-pilot-1a2b3c4d --kafka kafka:9092")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List every run that was submitted, oldest first, with how far it is.
    #[command(after_help = "Example:\n  wellspring runs list --kafka kafka:9092")]
    List {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Show a run with its plates, as JSON.
    #[command(after_help = "Example:\n  wellspring runs show rescue-pilot-1a2b3c4d --kafka kafka:9092")]
    Show {
        /// The run.
        run: RunId,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Tell what differs between two runs: how they were made, wells, scores and calls.
    #[command(
        after_help = "Example:\n  wellspring runs diff rescue-pilot-1a2b3c4d rescue-again-5e6f7a8b --kafka kafka:9092\n\n\
        Exit code 1: a call or a well's profile differs, or one of the runs has what the other has not."
    )]
    Diff {
        /// The first run.
        a: RunId,
        /// The second run.
        b: RunId,
        /// Print one JSON object, with every call that changed.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Let the work of runs wait. Fields that are in a worker are finished; no other is begun.
    #[command(after_help = "Example:\n  wellspring runs pause rescue-pilot-1a2b3c4d --kafka kafka:9092")]
    Pause(Steered),
    /// Let paused runs go on where they were: within 10 seconds their work is there again.
    #[command(after_help = "Example:\n  wellspring runs resume rescue-pilot-1a2b3c4d --kafka kafka:9092")]
    Resume(Steered),
    /// End runs for good: what waits is dropped, and there are no results. The screen can be run again when its
    /// [screen] version is raised.
    #[command(after_help = "Example:\n  wellspring runs cancel rescue-pilot-1a2b3c4d --kafka kafka:9092")]
    Cancel(Steered),
}

#[derive(Debug, clap::Args)]
struct Steered {
    /// The runs.
    #[arg(required = true)]
    runs: Vec<RunId>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { json, kafka } => {
            list(&Overview::read(&kafka.settings()?)?, json)?;
        }
        Command::Show { run, kafka } => {
            let kafka = kafka.settings()?;
            let all = Overview::read(&kafka)?;
            let known = all.board.run(&run).with_context(|| {
                format!("run '{run}' was never submitted; `wellspring runs list` shows all runs")
            })?;
            let shown = Shown {
                line: Line::of(&all, &run, known),
                plates: all
                    .board
                    .plates_of(&run)
                    .map(|(plate, of)| (plate.clone(), all.shown(&run, plate, of)))
                    .collect(),
                retries: waiting(&kafka)?
                    .into_iter()
                    .filter(|waiting| waiting.run.as_ref() == Some(&run))
                    .collect(),
            };
            say::line(serde_json::to_string_pretty(&shown)?);
        }
        Command::Diff { a, b, json, kafka } => {
            ensure!(a != b, "run '{a}' is held beside itself; name two runs");
            let found = diff(&kafka.settings()?, &a, &b, &std::env::temp_dir())?;
            if json {
                say::line(serde_json::to_string(&found)?);
            } else {
                tell(&found);
            }
            return Ok(ExitCode::from(u8::from(found.is_any())));
        }
        Command::Pause(steered) => steered.execute(Steering::Paused, "paused")?,
        Command::Resume(steered) => steered.execute(Steering::Resumed, "resumed")?,
        Command::Cancel(steered) => steered.execute(Steering::Cancelled, "cancelled")?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Steered {
    fn execute(&self, action: Steering, done: &str) -> anyhow::Result<()> {
        steer_all(&self.kafka.settings()?, &self.runs, action, done)
    }
}

/// Steers runs one after the other, and says so of each.
pub(super) fn steer_all(
    kafka: &KafkaSettings,
    runs: &[RunId],
    action: Steering,
    done: &str,
) -> anyhow::Result<()> {
    runtime()?.block_on(topics::complete(kafka))?;
    for run in runs {
        let before = if steer(kafka, run, action)? {
            ""
        } else {
            " already"
        };
        say::line(format_args!("{run}\t{done}{before}"));
    }
    Ok(())
}

/// A run in a list.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    run: &'a str,
    screen: &'a str,
    state: RunState,
    submitted_ms: u64,
    plates: usize,
    plates_planned: usize,
    plates_profiled: usize,
    /// None of their fields can be worked on.
    plates_refused: usize,
    /// Of the plates that are profiled.
    plates_held_back: usize,
    /// Open ones.
    dead_letters: usize,
    /// Of the plates that are planned.
    fields_expected: u64,
    /// Fields whose features are published.
    fields_done: u64,
    /// Once it is finished.
    fields_failed: Option<u32>,
    /// Why nothing was compared, where it was finished without.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_comparison: Option<&'a str>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    #[serde(rename = "of_plates")]
    plates: std::collections::BTreeMap<Barcode, overview::Shown<'a>>,
    /// What waits to be tried again.
    retries: Vec<Waiting>,
}

impl<'a> Line<'a> {
    pub(super) fn run(&self) -> &str {
        self.run
    }

    pub(super) fn state(&self) -> RunState {
        self.state
    }

    pub(super) fn submitted_ms(&self) -> u64 {
        self.submitted_ms
    }

    /// Name, state, plates, those planned, those profiled, those held back, fields planned, fields done, dead letters.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            self.run.to_owned(),
            match self.no_comparison {
                None => self.state.to_string(),
                Some(_) => format!("{}, not compared", self.state),
            },
            self.plates.to_string(),
            self.plates_planned.to_string(),
            self.plates_profiled.to_string(),
            self.plates_held_back.to_string(),
            self.fields_expected.to_string(),
            self.fields_done.to_string(),
            self.dead_letters.to_string(),
        ]
    }

    pub(super) fn of(all: &'a Overview, run: &'a str, known: &'a KnownRun) -> Self {
        let mut line = Self {
            run,
            screen: &known.screen,
            state: all.board.state_of(run, known),
            submitted_ms: known.submitted_ms,
            plates: known.plates.len(),
            plates_planned: 0,
            plates_profiled: 0,
            plates_refused: 0,
            plates_held_back: 0,
            dead_letters: all.letters.open_of_run(run),
            fields_expected: 0,
            fields_done: 0,
            fields_failed: known.finished.map(|(_, failed)| failed),
            no_comparison: known.finished.and(known.no_comparison.as_deref()),
        };
        let members = all
            .board
            .plates_of(run)
            .filter(|(barcode, plate)| known.plates.contains(*barcode) && plate.course != Course::Cancelled);
        for (barcode, plate) in members {
            line.fields_done += u64::from(all.fields_done(run, barcode, plate));
            line.fields_expected += u64::from(plate.fields_expected);
            // One that came to nothing has no profiles, however far it is.
            if plate.fields_planned == 0 && plate.state >= PlateState::Planned {
                line.plates_refused += 1;
                continue;
            }
            line.plates_planned += usize::from(plate.state >= PlateState::Planned);
            line.plates_profiled += usize::from(plate.state >= PlateState::Profiled);
            line.plates_held_back += usize::from(plate.state == PlateState::HeldBack);
        }
        line
    }
}

fn list(all: &Overview, json: bool) -> anyhow::Result<()> {
    let mut runs: Vec<_> = all.board.runs().collect();
    runs.sort_by_key(|(_, known)| known.submitted_ms);
    for (run, known) in runs {
        let line = Line::of(all, run, known);
        if json {
            say::line(serde_json::to_string(&line)?);
            continue;
        }
        let fields = match known.finished {
            Some((done, failed)) => format!("{done} fields done, {failed} failed"),
            None => format!(
                "{} fields planned, {} done",
                line.fields_expected, line.fields_done
            ),
        };
        let held_back = match line.plates_held_back {
            0 => String::new(),
            held_back => format!(", {held_back} held back"),
        };
        let refused = match line.plates_refused {
            0 => String::new(),
            refused => format!(", {refused} refused"),
        };
        let letters = letters_told(line.dead_letters);
        let why = line
            .no_comparison
            .map_or_else(String::new, |why| format!("\tno comparison: {why}"));
        say::line(format_args!(
            "{run}\t{}\t{}\t{} of {} profiled{held_back}{refused}\t{fields}{letters}{why}",
            line.state,
            rfc3339(known.submitted_ms),
            line.plates_profiled,
            say::counted(line.plates, "plate"),
        ));
    }
    Ok(())
}

/// Changed calls in the table.
const MOST_CHANGES: usize = 40;

fn tell(found: &Difference) {
    if found.made.is_empty() {
        say::line("made alike");
    }
    for made in &found.made {
        say::line(format_args!("made differently: {made}"));
    }
    for (run, plates) in [(&found.a, &found.plates_of_a), (&found.b, &found.plates_of_b)] {
        if !plates.is_empty() {
            let names: Vec<String> = plates.iter().map(ToString::to_string).collect();
            say::line(format_args!("plates of {run} alone: {}", names.join(", ")));
        }
    }
    let wells = &found.wells;
    say::line(format_args!(
        "profiles of wells: {} the same, {} changed, {} of {} alone, {} of {} alone",
        wells.same, wells.changed, wells.of_a, found.a, wells.of_b, found.b
    ));
    if wells.incomparable > 0 {
        say::line(format_args!(
            "  {} of the changed have another number of values",
            wells.incomparable
        ));
    }
    if !wells.furthest.is_empty() {
        let mut grid = Grid::new(&[
            ("plate", Side::Left),
            ("well", Side::Left),
            ("cosine", Side::Right),
            ("fields", Side::Right),
        ]);
        for well in &wells.furthest {
            grid.push(vec![
                well.plate.to_string(),
                well.well.to_string(),
                format!("{:.4}", well.cosine),
                format!("{} > {}", well.fields.0, well.fields.1),
            ]);
        }
        say::line(grid.text().trim_end());
    }
    let of = &found.comparisons;
    say::line(format_args!(
        "calls: {} the same, {} changed, {} of {} alone, {} of {} alone; rescue changed by {:.3} at most",
        of.same_call,
        of.changed.len(),
        of.of_a,
        found.a,
        of.of_b,
        found.b,
        of.largest_rescue_change
    ));
    if of.changed.is_empty() {
        return;
    }
    let mut grid = Grid::new(&[
        ("disease", Side::Left),
        ("compound", Side::Left),
        ("dose", Side::Right),
        ("call", Side::Left),
        ("rescue", Side::Right),
        ("q", Side::Right),
        ("off z", Side::Right),
        ("wells", Side::Right),
    ]);
    for change in of.changed.iter().take(MOST_CHANGES) {
        grid.push(cells(change));
    }
    say::line(grid.text().trim_end());
    if let Some(more @ 1..) = of.changed.len().checked_sub(MOST_CHANGES) {
        say::line(format_args!("  and {more} more; --json has them all"));
    }
}

fn cells(change: &Change) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let pair = |(a, b): (Option<f64>, Option<f64>)| {
        let number = |of: Option<f64>| of.map_or("-".to_owned(), |of| format!("{of:.3}"));
        format!("{} > {}", number(a), number(b))
    };
    vec![
        text(&change.disease),
        text(&change.compound),
        change.dose.map_or("all".to_owned(), |dose| dose.to_string()),
        format!("{} > {}", change.call.0, change.call.1),
        pair(change.rescue),
        pair(change.q_value),
        pair(change.off_z),
        format!("{} > {}", change.count.0, change.count.1),
    ]
}
