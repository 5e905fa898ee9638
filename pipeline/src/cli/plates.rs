//! `wellspring plates`: announce plates, find them in a store, list those that were planned.

use std::path::PathBuf;
use std::process::ExitCode;

use wellspring::collector::read_statuses;
use wellspring::events::Status;
use wellspring::kafka::topics;
use wellspring::runs::Run;
use wellspring::{plan, submit};
use wellspring_workloads::words::Barcode;

use super::common::{KafkaArgs, read_screen, runtime};
use super::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wellspring plates scan workloads/screens/transfluor.toml")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Announce plates as ready.
    #[command(after_help = "Example:\n  wellspring plates announce BR00117006 --kafka kafka:9092")]
    Announce {
        /// Barcodes.
        #[arg(required = true)]
        plates: Vec<Barcode>,
        /// The run that should take them. Default: every run whose screen includes the plate.
        #[arg(long)]
        run: Option<String>,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Find the plates in a screen's image store, with their fields and what is wrong with their files.
    #[command(after_help = "Example:\n  wellspring plates scan workloads/screens/transfluor.toml")]
    Scan {
        /// The screen file.
        screen: PathBuf,
    },
    /// List the plates that were planned, by run.
    #[command(after_help = "Example:\n  wellspring plates list --kafka kafka:9092")]
    List {
        #[command(flatten)]
        kafka: KafkaArgs,
    },
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Announce { plates, run, kafka } => {
            let kafka = kafka.settings()?;
            runtime()?.block_on(topics::create_missing(&kafka))?;
            submit::announce(&kafka, &plates, run.as_ref())?;
            say::line(format_args!("{} plates announced", plates.len()));
        }
        Command::Scan { screen } => return scan(&screen),
        Command::List { kafka } => {
            for status in read_statuses(&kafka.settings()?)? {
                if let Status::PlatePlanned {
                    run,
                    plate,
                    fields_expected,
                    fields_planned,
                    ..
                } = status
                {
                    say::line(format_args!(
                        "{run}\t{plate}\t{fields_planned} of {fields_expected} fields planned"
                    ));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn scan(screen: &std::path::Path) -> anyhow::Result<ExitCode> {
    let run = Run::open(read_screen(screen)?)?;
    let found = runtime()?.block_on(plan::list_screen(&run.store, &run.screen))?;
    say::note(format_args!("layout {}: {}", found.layout, found.why));
    for (plate, fields) in &found.plates {
        let wells: std::collections::BTreeSet<_> = fields.iter().map(|field| field.well).collect();
        say::line(format_args!(
            "{plate}\t{} wells\t{} fields",
            wells.len(),
            fields.len()
        ));
    }
    for problem in &found.problems {
        say::note(format_args!("problem: {problem}"));
    }
    Ok(ExitCode::from(u8::from(!found.problems.is_empty())))
}
