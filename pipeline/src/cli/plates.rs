//! `wellspring plates`: announce plates, find them in a store, watch it for new ones, tell how far each is, release those that a
//! quality gate holds back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::runtime::Handle;
use wellspring::events::RunId;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::{self, Urgency};
use wellspring::plates::{Board, KnownRun, PlateState, RunState};
use wellspring::runs::Run;
use wellspring::watch::{self, Patience, Ready, Watch};
use wellspring::{plan, submit};
use wellspring_workloads::words::Barcode;

use super::common::{KafkaArgs, LaneArg, end_requested, read_screen, runtime};
use super::say;

/// Missing things that are named for a plate.
const MOST_MISSING: usize = 20;

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
        lane: LaneArg,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Find the plates in a screen's image store, with their fields and what is wrong with their files.
    #[command(after_help = "Example:\n  wellspring plates scan workloads/screens/transfluor.toml")]
    Scan {
        /// The screen file.
        screen: PathBuf,
    },
    /// Watch the image store of a screen, and announce its plates as they become complete.
    #[command(
        after_help = "Example:\n  wellspring plates watch screens/rescue.toml --kafka kafka:9092\n\n\
        For labs that only write files. The screen is submitted with the first plate, and each further one is added to its \
        run; a watcher that is started again goes on where the last one ended. What is written to a store should appear \
        under its final name and be left alone."
    )]
    Watch(WatchArgs),
    /// List every plate that was announced, with how far it is in each run.
    #[command(after_help = "Example:\n  wellspring plates list --kafka kafka:9092")]
    List {
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Let plates into the comparison that a quality gate holds back.
    #[command(
        after_help = "Example:\n  wellspring plates release BR00117006 --kafka kafka:9092\n\n\
        `plates list` shows which are held back and why. The run is compared anew with them; its results say that they were \
        released."
    )]
    Release {
        /// Barcodes.
        #[arg(required = true)]
        plates: Vec<Barcode>,
        /// In this run. Default: in every run in which they are held back.
        #[arg(long)]
        run: Option<String>,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Show how far one plate is, as JSON.
    #[command(after_help = "Example:\n  wellspring plates show BR00117006 --kafka kafka:9092")]
    Show {
        /// The barcode.
        plate: Barcode,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
}

#[derive(Debug, clap::Args)]
struct WatchArgs {
    /// The screen file.
    screen: PathBuf,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    every: f64,
    /// Seconds for which the files of a complete plate must not have changed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    rest: f64,
    /// Seconds for which those of a plate that lacks something must not have changed: then it is announced as it is.
    #[arg(long, value_name = "SECONDS", default_value_t = 7_200.0, value_parser = seconds)]
    give_up: f64,
    /// End when nothing waits to be announced any more.
    #[arg(long)]
    until_none_waits: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("it must be a number of seconds from 0 to 1000000".to_owned()),
    }
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Announce {
            plates,
            run,
            lane,
            kafka,
        } => {
            let kafka = kafka.settings()?;
            runtime()?.block_on(topics::create_missing(&kafka))?;
            submit::announce(&kafka, &plates, run.as_ref(), lane.urgency())?;
            say::line(format_args!("{} announced", say::counted(plates.len(), "plate")));
        }
        Command::Scan { screen } => return scan(&screen),
        Command::Watch(args) => watch(&args)?,
        Command::Release { plates, run, kafka } => {
            let kafka = kafka.settings()?;
            let held = held_back(&Board::read(&kafka)?, &plates, run.as_ref())?;
            for (run, plates) in held {
                submit::release(&kafka, &run, &plates)?;
                let plates: Vec<&str> = plates.iter().map(Barcode::as_str).collect();
                say::line(format_args!("{run}\t{} released", plates.join(", ")));
            }
        }
        Command::List { kafka } => list(&Board::read(&kafka.settings()?)?),
        Command::Show { plate, kafka } => {
            let board = Board::read(&kafka.settings()?)?;
            let known = board.plate(&plate);
            let known = known.with_context(|| format!("plate {plate} was never announced"))?;
            say::line(serde_json::to_string_pretty(known)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Plates that are held back, by run; each of `plates` is, in one of them at least.
fn held_back(
    board: &Board,
    plates: &[Barcode],
    run: Option<&RunId>,
) -> anyhow::Result<BTreeMap<RunId, Vec<Barcode>>> {
    let mut held: BTreeMap<RunId, Vec<Barcode>> = BTreeMap::new();
    for plate in plates {
        let runs = board.plate(plate).map(|known| &known.runs);
        let runs = || {
            let runs = runs.into_iter().flatten();
            runs.filter(|(of, _)| run.is_none_or(|run| *of == run))
        };
        let mut found = false;
        for (of, _) in runs().filter(|(_, of_run)| of_run.state == PlateState::HeldBack) {
            held.entry(of.clone()).or_default().push(plate.clone());
            found = true;
        }
        if !found {
            let states: Vec<String> = runs()
                .map(|(of, of_run)| format!("{} in {of}", of_run.state))
                .collect();
            let is = match (states.is_empty(), run) {
                (true, Some(run)) => format!("not in run {run}"),
                (true, None) => "in no run".to_owned(),
                (false, _) => states.join(", "),
            };
            bail!(
                "plate {plate} is not held back: it is {is}; `wellspring plates list` shows those that are"
            );
        }
    }
    Ok(held)
}

fn list(board: &Board) {
    for (plate, known) in board.plates() {
        for (run, of_run) in &known.runs {
            let state = match board.run(run).map(KnownRun::state) {
                None => {
                    say::line(format_args!(
                        "{run}\t{plate}\tannounced, but the run was never submitted"
                    ));
                    continue;
                }
                // What an operator did with the run is more than how far the plate came.
                Some(state @ (RunState::Paused | RunState::Cancelled)) => state.to_string(),
                Some(RunState::Open | RunState::Finished) => of_run.state.to_string(),
            };
            let held = of_run.held.as_ref().map(|reason| format!("\t{reason}"));
            say::line(format_args!(
                "{run}\t{plate}\t{}\t{} of {} fields planned{}",
                state,
                of_run.fields_planned,
                of_run.fields_expected,
                held.unwrap_or_default()
            ));
        }
        if known.runs.is_empty() {
            say::line(format_args!("-\t{plate}\tannounced, taken by no run"));
        }
    }
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
    for remark in super::check::image_remarks(&found, run.screen.images.bit_depth) {
        say::note(remark);
    }
    for problem in &found.problems {
        say::note(format_args!("problem: {problem}"));
    }
    Ok(ExitCode::from(u8::from(!found.problems.is_empty())))
}

fn watch(args: &WatchArgs) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let kafka = args.kafka.settings()?;
    let run = Run::open(read_screen(&args.screen)?)?;
    runtime.block_on(topics::create_missing(&kafka))?;
    let end = end_requested(&runtime)?;
    let patience = Patience {
        complete: Duration::from_secs_f64(args.rest),
        incomplete: Duration::from_secs_f64(args.give_up),
    };
    say::note(format_args!("{}: watching {}", run.id, run.store.uri()));
    let (mut watch, begun) = (Watch::default(), Instant::now());
    while !end.is_finished() {
        match runtime.block_on(watch::look(&run)) {
            Ok(seen) => {
                let due = watch.look(begun.elapsed(), seen, patience);
                announce(&kafka, &run, &mut watch, &due, runtime.handle());
                if args.until_none_waits && watch.waiting() == 0 {
                    break;
                }
            }
            // A store that is away comes back; what is wrong with a plate map can be mended meanwhile.
            Err(error) => tracing::error!(error = error.chain(), "the store could not be looked at"),
        }
        let next = Instant::now() + Duration::from_secs_f64(args.every);
        while !end.is_finished() && Instant::now() < next {
            std::thread::sleep(Duration::from_millis(50).min(next.saturating_duration_since(Instant::now())));
        }
    }
    Ok(())
}

fn announce(kafka: &KafkaSettings, run: &Run, watch: &mut Watch, due: &[Ready], runtime: &Handle) {
    if due.is_empty() {
        return;
    }
    let plates: Vec<Barcode> = due.iter().map(|ready| ready.plate.clone()).collect();
    let new = match submit::submit(kafka, run, &plates, Urgency::Live, runtime) {
        Ok(new) => new,
        Err(error) => {
            let message = wellspring::error::chain(&error);
            tracing::error!(message, "plates could not be announced; trying again");
            return watch.take_back(&plates);
        }
    };
    for ready in due.iter().filter(|ready| new.contains(&ready.plate)) {
        say::line(format_args!("{}\t{} fields", ready.plate, ready.fields));
        for missing in ready.missing.iter().take(MOST_MISSING) {
            say::note(format_args!("announced without: {missing}"));
        }
        if let Some(more @ 1..) = ready.missing.len().checked_sub(MOST_MISSING) {
            say::note(format_args!("announced without: {more} more"));
        }
    }
}
