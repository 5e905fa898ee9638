//! `wellspring runs`: see how far runs are; pause them, let them go on, end them.

use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use wellspring::clock::rfc3339;
use wellspring::events::{RunId, Steering};
use wellspring::kafka::topics;
use wellspring::plates::{Board, InRun, KnownRun, PlateState, RunState};
use wellspring::steer::steer;
use wellspring_workloads::words::Barcode;

use super::common::{KafkaArgs, runtime};
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
        Command::List { json, kafka } => list(&Board::read(&kafka.settings()?)?, json)?,
        Command::Show { run, kafka } => {
            let board = Board::read(&kafka.settings()?)?;
            let known = board.run(&run).with_context(|| {
                format!("run '{run}' was never submitted; `wellspring runs list` shows all runs")
            })?;
            let shown = Shown {
                line: Line::of(&board, &run, known),
                plates: board
                    .plates_of(&run)
                    .map(|(plate, of)| (plate.clone(), of))
                    .collect(),
            };
            say::line(serde_json::to_string_pretty(&shown)?);
        }
        Command::Pause(steered) => steered.execute(Steering::Paused, "paused")?,
        Command::Resume(steered) => steered.execute(Steering::Resumed, "resumed")?,
        Command::Cancel(steered) => steered.execute(Steering::Cancelled, "cancelled")?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Steered {
    fn execute(&self, action: Steering, done: &str) -> anyhow::Result<()> {
        let kafka = self.kafka.settings()?;
        runtime()?.block_on(topics::create_missing(&kafka))?;
        for run in &self.runs {
            let before = if steer(&kafka, run, action)? {
                ""
            } else {
                " already"
            };
            say::line(format_args!("{run}\t{done}{before}"));
        }
        Ok(())
    }
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
    /// Of the plates that are planned.
    fields_expected: u64,
    fields_done: Option<u32>,
    fields_failed: Option<u32>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    #[serde(rename = "of_plates")]
    plates: std::collections::BTreeMap<Barcode, &'a InRun>,
}

impl<'a> Line<'a> {
    pub(super) fn submitted_ms(&self) -> u64 {
        self.submitted_ms
    }

    /// Name, state, plates, those planned, those profiled, fields planned.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            self.run.to_owned(),
            self.state.to_string(),
            self.plates.to_string(),
            self.plates_planned.to_string(),
            self.plates_profiled.to_string(),
            self.fields_expected.to_string(),
        ]
    }

    pub(super) fn of(board: &'a Board, run: &'a str, known: &'a KnownRun) -> Self {
        let mut line = Self {
            run,
            screen: &known.screen,
            state: known.state(),
            submitted_ms: known.submitted_ms,
            plates: known.plates.len(),
            plates_planned: 0,
            plates_profiled: 0,
            fields_expected: 0,
            fields_done: known.finished.map(|(done, _)| done),
            fields_failed: known.finished.map(|(_, failed)| failed),
        };
        for (_, plate) in board.plates_of(run) {
            line.fields_expected += u64::from(plate.fields_expected);
            line.plates_planned += usize::from(plate.state >= PlateState::Planned);
            line.plates_profiled += usize::from(plate.state == PlateState::Profiled);
        }
        line
    }
}

fn list(board: &Board, json: bool) -> anyhow::Result<()> {
    let mut runs: Vec<_> = board.runs().collect();
    runs.sort_by_key(|(_, known)| known.submitted_ms);
    for (run, known) in runs {
        let line = Line::of(board, run, known);
        if json {
            say::line(serde_json::to_string(&line)?);
            continue;
        }
        let fields = match known.finished {
            Some((done, failed)) => format!("{done} fields done, {failed} failed"),
            None => format!("{} fields planned", line.fields_expected),
        };
        say::line(format_args!(
            "{run}\t{}\t{}\t{} of {} plates profiled\t{fields}",
            line.state,
            rfc3339(known.submitted_ms),
            line.plates_profiled,
            line.plates
        ));
    }
    Ok(())
}
