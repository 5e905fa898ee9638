//! The command line: one file per command, each with its arguments, its help and what it does.
//!
//! Exit codes: 0 all is well; 1 the work was done but something in it failed (fields, checks); 2 the command could
//! not do its work. Results go to standard output, everything else to standard error.

mod bench;
mod broker;
mod calls;
mod check;
mod common;
mod compare;
mod dead_letters;
mod devices;
mod doctor;
mod door;
mod drift;
mod illumination;
mod models;
mod neighbours;
mod overview;
mod plan;
mod plates;
mod relate;
mod replay;
mod rerun;
mod run;
mod runs;
pub(crate) mod say;
mod screens;
mod serve;
mod simulate;
mod status;
mod submit;
mod topics;
mod worker;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// High-content screening from microscope to comparison.
#[derive(Debug, Parser)]
#[command(name = "wellspring", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Log more; twice for everything. RUST_LOG overrides.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log only errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole screen in one process, from images to report.
    Run(run::Args),
    /// Check a screen file, and print what would be done.
    Check(check::Args),
    /// Print what a screen amounts to, and the graph of its steps.
    Plan(plan::Args),
    /// Register a screen as a run and announce its plates.
    Submit(submit::Args),
    /// Serve submitted runs until stopped: plan plates, collect features, compare, write results.
    Serve(serve::Args),
    /// Embed fields of submitted runs as one member of the fleet.
    Worker(worker::Args),
    /// See how far runs are, what waits and how fast it goes, and what failed.
    Status(status::Args),
    /// Announce plates, or see which there are.
    Plates(plates::Args),
    /// See runs, pause them, let them go on, or end them.
    Runs(runs::Args),
    /// See the runs of each screen; pause them all, let them go on, or end them.
    Screens(screens::Args),
    /// See what failed for good, try it again, or say that it stands.
    DeadLetters(dead_letters::Args),
    /// Replay an earlier run's plates or features into a new run.
    Replay(replay::Args),
    /// Run a screen again: only what changed is made anew.
    Rerun(rerun::Args),
    /// Compare, create and alter topics, and read what is on them.
    Topics(topics::Args),
    /// Compare profiles made here or elsewhere, without Kafka.
    Compare(compare::Args),
    /// See, extend or retire the reference that control wells are judged by.
    Drift(drift::Args),
    /// Measure how well profiles find known relations again.
    Relate(relate::Args),
    /// List what is nearest to a perturbation, and what is most opposite.
    Neighbours(neighbours::Args),
    /// Estimate how evenly each plate is lit, and write what its images are corrected by.
    Illumination(illumination::Args),
    /// Make plates of simulated cells with known answers.
    Simulate(simulate::Args),
    /// List, fetch and verify networks.
    Models(models::Args),
    /// List the devices kernels can run on.
    Devices(devices::Args),
    /// Run the embedded Kafka broker by itself.
    Broker(broker::Args),
    /// Measure speed; JSON lines.
    Bench(bench::Args),
    /// Check this machine: devices, models, folders, Kafka.
    Doctor(doctor::Args),
}

impl Command {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Run(args) => run::execute(args),
            Command::Check(args) => check::execute(args),
            Command::Plan(args) => plan::execute(&args),
            Command::Submit(args) => submit::execute(args),
            Command::Serve(args) => serve::execute(args),
            Command::Worker(args) => worker::execute(args),
            Command::Status(args) => status::execute(&args),
            Command::Plates(args) => plates::execute(args),
            Command::Runs(args) => runs::execute(args),
            Command::Screens(args) => screens::execute(args),
            Command::DeadLetters(args) => dead_letters::execute(args),
            Command::Replay(args) => replay::execute(args),
            Command::Rerun(args) => rerun::execute(args),
            Command::Topics(args) => topics::execute(args),
            Command::Compare(args) => compare::execute(args),
            Command::Drift(args) => drift::execute(args),
            Command::Relate(args) => relate::execute(&args),
            Command::Neighbours(args) => neighbours::execute(&args),
            Command::Illumination(args) => illumination::execute(&args),
            Command::Simulate(args) => simulate::execute(args),
            Command::Models(args) => models::execute(args),
            Command::Devices(args) => devices::execute(args),
            Command::Broker(args) => broker::execute(args),
            Command::Bench(args) => bench::execute(args),
            Command::Doctor(args) => doctor::execute(args),
        }
    }
}

/// Logs go to standard error: warnings by default, so that a run's own progress stays readable.
pub(crate) fn start_logging(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("error,wellspring={level},wellspring_broker={level}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours are for people, not for files and journals.
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
}
