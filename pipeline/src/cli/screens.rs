//! `wellspring screens`: the runs of each screen; pause them all, let them go on, end them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use serde::Serialize;
use wellspring::clock::rfc3339;
use wellspring::events::{RunId, Steering};
use wellspring::plates::{Board, KnownRun, RunState};
use wellspring_workloads::screen::ScreenName;

use super::common::KafkaArgs;
use super::overview::Overview;
use super::runs::{Line, steer_all};
use super::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wellspring screens pause rescue-pilot --kafka kafka:9092")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List every screen that was submitted, by name, with its runs and how far the newest is.
    #[command(after_help = "Example:\n  wellspring screens list --kafka kafka:9092")]
    List {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Show the runs of a screen, oldest first, as JSON.
    #[command(after_help = "Example:\n  wellspring screens show rescue-pilot --kafka kafka:9092")]
    Show {
        /// The screen.
        screen: ScreenName,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Let the work of all runs of screens wait, as `runs pause` does.
    #[command(after_help = "Example:\n  wellspring screens pause rescue-pilot --kafka kafka:9092")]
    Pause(Steered),
    /// Let paused runs of screens go on, as `runs resume` does.
    #[command(after_help = "Example:\n  wellspring screens resume rescue-pilot --kafka kafka:9092")]
    Resume(Steered),
    /// End all runs of screens that have not ended, as `runs cancel` does.
    #[command(after_help = "Example:\n  wellspring screens cancel rescue-pilot --kafka kafka:9092")]
    Cancel(Steered),
}

#[derive(Debug, clap::Args)]
struct Steered {
    /// The screens.
    #[arg(required = true)]
    screens: Vec<ScreenName>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { json, kafka } => list(&Overview::read(&kafka.settings()?)?, json)?,
        Command::Show { screen, kafka } => {
            let all = Overview::read(&kafka.settings()?)?;
            let runs = runs_of(&all, &screen)?;
            say::line(serde_json::to_string_pretty(&Shown {
                screen: &screen,
                runs,
            })?);
        }
        Command::Pause(steered) => steered.execute(Steering::Paused, "paused")?,
        Command::Resume(steered) => steered.execute(Steering::Resumed, "resumed")?,
        Command::Cancel(steered) => steered.execute(Steering::Cancelled, "cancelled")?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Shown<'a> {
    screen: &'a ScreenName,
    runs: Vec<Line<'a>>,
}

impl Steered {
    fn execute(&self, action: Steering, done: &str) -> anyhow::Result<()> {
        let kafka = self.kafka.settings()?;
        let board = Board::read(&kafka)?;
        let mut chosen: Vec<RunId> = Vec::new();
        for screen in &self.screens {
            let mut runs: Vec<(&RunId, &KnownRun)> = board
                .runs()
                .filter(|(_, known)| known.screen == screen.as_str())
                .collect();
            ensure!(!runs.is_empty(), never_submitted(screen));
            runs.sort_by_key(|(_, known)| known.submitted_ms);
            let before = chosen.len();
            let is_going = |known: &KnownRun| matches!(known.state(), RunState::Open | RunState::Paused);
            let going = runs.into_iter().filter(|(_, known)| is_going(known));
            chosen.extend(going.map(|(run, _)| run.clone()));
            ensure!(
                chosen.len() > before,
                "no run of screen '{screen}' is going on; `wellspring screens show {screen}` shows how they ended"
            );
        }
        // Only once it is certain that each of them can be.
        steer_all(&kafka, &chosen, action, done)
    }
}

/// The runs of a screen, oldest first.
fn runs_of<'a>(all: &'a Overview, screen: &ScreenName) -> anyhow::Result<Vec<Line<'a>>> {
    let runs = by_screen(all).remove(screen.as_str());
    runs.with_context(|| never_submitted(screen))
}

fn never_submitted(screen: &ScreenName) -> String {
    format!("screen '{screen}' was never submitted; `wellspring screens list` shows what was")
}

fn by_screen(all: &Overview) -> BTreeMap<&str, Vec<Line<'_>>> {
    let mut screens: BTreeMap<&str, Vec<Line<'_>>> = BTreeMap::new();
    for (run, known) in all.board.runs() {
        let runs = screens.entry(&known.screen).or_default();
        runs.push(Line::of(all, run, known));
    }
    for runs in screens.values_mut() {
        runs.sort_by_key(Line::submitted_ms);
    }
    screens
}

fn list(all: &Overview, json: bool) -> anyhow::Result<()> {
    for (screen, runs) in by_screen(all) {
        if json {
            say::line(serde_json::to_string(
                &serde_json::json!({ "screen": screen, "runs": runs }),
            )?);
            continue;
        }
        let Some(newest) = runs.last() else { continue };
        let count = match runs.len() {
            1 => "1 run".to_owned(),
            count => format!("{count} runs"),
        };
        say::line(format_args!(
            "{screen}\t{count}\tnewest {} {}\t{}",
            newest.run(),
            newest.state(),
            rfc3339(newest.submitted_ms())
        ));
    }
    Ok(())
}
