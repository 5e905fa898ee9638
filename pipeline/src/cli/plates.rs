//! `wellspring plates`: announce plates, find them in a store, watch it for new ones, tell how far each is, pause them or
//! take them out of a run, release those that a quality gate holds back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::runtime::Handle;
use wellspring::clock::{now_ms, parse_deadline};
use wellspring::events::{AcquisitionProgress, RunId, Steering};
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::{self, Urgency};
use wellspring::plates::{Board, KnownRun, PlateState, RunState};
use wellspring::runs::{Course, Run};
use wellspring::steer::steer_plate;
use wellspring::watch::{self, Patience, Ready, Watch, Wells};
use wellspring::{plan, submit};
use wellspring_workloads::words::{Barcode, WellPosition};

use super::common::{KafkaArgs, LaneArg, end_requested, read_screen, runtime};
use super::overview::{self, Overview, letters_told};
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
    /// Announce plates as ready, or as still being imaged.
    #[command(
        after_help = "Examples:\n  wellspring plates announce BR00117006 --kafka kafka:9092\n  \
        wellspring plates announce BR00117006 --progress --wells A01,A02 --expected-fields 3456 --deadline 6h \\\n    \
        --screen screens/rescue.toml --kafka kafka:9092\n\n\
        With --progress the fields that are there are worked on at once, and the plate is finished when the expected number of \
        fields is there, when it is announced without --progress, or at the deadline: what is missing then is named, and the \
        plate goes on without it. Announcements may be repeated, in any order."
    )]
    Announce(Box<AnnounceArgs>),
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
    /// Let the work on plates wait in a run. Fields that are in a worker are finished; no other is begun.
    #[command(after_help = "Example:\n  wellspring plates pause BR00117006 --kafka kafka:9092")]
    Pause(Steered),
    /// Let paused plates go on where they were: within 10 seconds their work is there again.
    #[command(after_help = "Example:\n  wellspring plates resume BR00117006 --kafka kafka:9092")]
    Resume(Steered),
    /// Take plates out of a run for good, such as one that was dropped or announced by mistake: the run is complete without
    /// them, and what was made of them is in no result.
    #[command(
        after_help = "Example:\n  wellspring plates cancel BR00117006 --run rescue-pilot-1a2b3c4d --kafka kafka:9092"
    )]
    Cancel(Steered),
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
struct Steered {
    /// Barcodes.
    #[arg(required = true)]
    plates: Vec<Barcode>,
    /// In this run. Default: in every run that has them and goes on.
    #[arg(long)]
    run: Option<RunId>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, clap::Args)]
struct AnnounceArgs {
    /// Barcodes.
    #[arg(required = true)]
    plates: Vec<Barcode>,
    /// The run that should take them. Default: the newest run of every screen that includes the plate and has
    /// images of it.
    #[arg(long, conflicts_with = "screen")]
    run: Option<String>,
    /// Submit this screen with these plates, where that was not done yet, and announce them to its run.
    #[arg(long, value_name = "SCREEN")]
    screen: Option<PathBuf>,
    /// They are still being imaged: work on what is there.
    #[arg(long, conflicts_with = "lane")]
    progress: bool,
    /// Wells whose images are all there. Default: every field with all channels, no empty file and as many planes as the fullest.
    #[arg(long, value_name = "WELL,..", value_delimiter = ',', requires = "progress")]
    wells: Vec<WellPosition>,
    /// Fields that each plate will have. Default: what the microscope's metadata say, else the screen.
    #[arg(long, value_name = "FIELDS", requires = "progress", value_parser = clap::value_parser!(u32).range(1..))]
    expected_fields: Option<u32>,
    /// When to wait no longer: in 90s, 15m, 2h, 3d, or at a date and time in UTC. Default: the screen's.
    #[arg(long, value_name = "WHEN", requires = "progress", value_parser = deadline)]
    deadline: Option<u64>,
    #[command(flatten)]
    lane: LaneArg,
    #[command(flatten)]
    kafka: KafkaArgs,
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
    /// Have wells worked on while their plate is still being imaged: each as soon as its files have not changed for --rest.
    #[arg(long)]
    progress: bool,
    /// End when nothing waits to be announced any more.
    #[arg(long)]
    until_none_waits: bool,
}

/// A plate in all its runs.
#[derive(Serialize)]
struct Shown<'a> {
    announced_ms: Option<u64>,
    for_any_run: bool,
    runs: BTreeMap<&'a RunId, overview::Shown<'a>>,
}

fn deadline(text: &str) -> Result<u64, String> {
    parse_deadline(text, now_ms()).ok_or_else(|| {
        "it must be a time from now such as 90s, 15m, 2h or 3d, or a date such as 2026-11-22T23:15:00Z"
            .to_owned()
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("it must be a number of seconds from 0 to 1000000".to_owned()),
    }
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Announce(args) => announce(*args)?,
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
        Command::Pause(steered) => steered.execute(Steering::Paused, "paused")?,
        Command::Resume(steered) => steered.execute(Steering::Resumed, "resumed")?,
        Command::Cancel(steered) => steered.execute(Steering::Cancelled, "cancelled")?,
        Command::List { kafka } => list(&Overview::read(&kafka.settings()?)?),
        Command::Show { plate, kafka } => {
            let all = Overview::read(&kafka.settings()?)?;
            let known = all.board.plate(&plate);
            let known = known.with_context(|| format!("plate {plate} was never announced"))?;
            let runs = known.runs.iter();
            say::line(serde_json::to_string_pretty(&Shown {
                announced_ms: known.announced_ms,
                for_any_run: known.for_any_run,
                runs: runs
                    .map(|(run, of_run)| (run, all.shown(run, &plate, of_run)))
                    .collect(),
            })?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Steered {
    fn execute(&self, action: Steering, done: &str) -> anyhow::Result<()> {
        let kafka = self.kafka.settings()?;
        let board = Board::read(&kafka)?;
        let mut chosen = Vec::new();
        for plate in &self.plates {
            let before = chosen.len();
            match &self.run {
                Some(run) => {
                    let known = board.plate(plate);
                    // Of a run that nobody knows that is said.
                    if board.run(run).is_none() || known.is_some_and(|known| known.runs.contains_key(run)) {
                        chosen.push((run.clone(), plate));
                    }
                }
                None => {
                    let runs = board.plate(plate).into_iter().flat_map(|known| known.runs.keys());
                    let goes_on = |run: &&RunId| {
                        let state = board.run(run).map(KnownRun::state);
                        matches!(state, Some(RunState::Open | RunState::Paused))
                    };
                    chosen.extend(runs.filter(goes_on).map(|run| (run.clone(), plate)));
                }
            }
            if chosen.len() == before {
                match &self.run {
                    Some(run) => bail!(
                        "plate {plate} is not in run '{run}'; `wellspring plates list` shows where it is"
                    ),
                    None => bail!(
                        "plate {plate} is in no run that goes on; `wellspring plates list` shows where it is"
                    ),
                }
            }
        }
        for (run, plate) in chosen {
            let before = if steer_plate(&kafka, &run, plate, action)? {
                ""
            } else {
                " already"
            };
            say::line(format_args!("{run}\t{plate}\t{done}{before}"));
        }
        Ok(())
    }
}

fn announce(args: AnnounceArgs) -> anyhow::Result<()> {
    let kafka = args.kafka.settings()?;
    let progress = args.progress.then(|| AcquisitionProgress {
        wells: Some(args.wells).filter(|wells| !wells.is_empty()),
        fields_expected: args.expected_fields,
        deadline_ms: args.deadline,
        passed_ms: None,
    });
    let runtime = runtime()?;
    let run = args.screen.as_deref().map(read_screen).transpose()?;
    let run = run.map(Run::open).transpose()?;
    runtime.block_on(topics::create_missing(&kafka))?;
    let plates = &args.plates;
    let announced = match (&run, &progress) {
        (None, progress) => {
            let lane = args.lane.urgency();
            submit::announce(&kafka, plates, args.run.as_ref(), lane, progress.as_ref())?;
            plates.len()
        }
        (Some(run), None) if args.lane.urgency() == Urgency::Batch => {
            submit::submit(&kafka, run, plates, Urgency::Batch, runtime.handle())?.len()
        }
        (Some(run), progress) => {
            let plates = plates.iter().map(|plate| (plate.clone(), progress.clone()));
            submit::submit_imaging(&kafka, run, &plates.collect(), runtime.handle())?.len()
        }
    };
    let known = match plates.len().saturating_sub(announced) {
        0 => String::new(),
        known => format!("; {} before, which is enough", say::counted(known, "plate")),
    };
    say::line(format_args!(
        "{} announced{known}",
        say::counted(announced, "plate")
    ));
    Ok(())
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

fn list(all: &Overview) {
    let board = &all.board;
    for (plate, known) in board.plates() {
        for (run, of_run) in &known.runs {
            let state = match board.run(run).map(KnownRun::state) {
                None => {
                    say::line(format_args!(
                        "{run}\t{plate}\tannounced, but the run was never submitted"
                    ));
                    continue;
                }
                Some(RunState::Cancelled) => RunState::Cancelled.to_string(),
                Some(_) if of_run.course == Course::Cancelled => RunState::Cancelled.to_string(),
                Some(_) if of_run.fields_planned == 0 && of_run.state >= PlateState::Planned => {
                    "refused".to_owned()
                }
                // What is done waits for nobody.
                Some(state) if of_run.is_left() => match (state, of_run.course) {
                    (RunState::Paused, _) | (_, Course::Paused) => RunState::Paused.to_string(),
                    _ => of_run.state.to_string(),
                },
                Some(_) => of_run.state.to_string(),
            };
            let letters = letters_told(all.letters.open_of_plate(run, plate));
            let reasons = of_run
                .held
                .iter()
                .chain(&of_run.incomplete)
                .chain(&of_run.remarks);
            let reasons: String = reasons.map(|reason| format!("\t{reason}")).collect();
            say::line(format_args!(
                "{run}\t{plate}\t{state}\t{} of {} fields planned, {} done{letters}{reasons}",
                of_run.fields_planned,
                of_run.fields_expected,
                all.fields_done(run, plate, of_run)
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
    let mut wells = args.progress.then(Wells::default);
    while !end.is_finished() {
        match runtime.block_on(watch::look(&run)) {
            Ok(seen) => {
                let imaged = match &mut wells {
                    Some(wells) => wells.look(begun.elapsed(), &seen, patience.complete),
                    None => BTreeMap::new(),
                };
                let due = watch.look(begun.elapsed(), seen, patience);
                match &mut wells {
                    None => announce_ready(&kafka, &run, &mut watch, &due, runtime.handle()),
                    Some(wells) => {
                        let told = tell(&kafka, &run, &imaged, &due, runtime.handle());
                        if !told {
                            wells.take_back(&imaged);
                            watch.take_back(&due.iter().map(|ready| ready.plate.clone()).collect::<Vec<_>>());
                        }
                    }
                }
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

/// Tells of wells that are imaged and of plates that are complete; whether that could be done.
fn tell(
    kafka: &KafkaSettings,
    run: &Run,
    imaged: &BTreeMap<Barcode, Vec<WellPosition>>,
    due: &[Ready],
    runtime: &Handle,
) -> bool {
    let wells = |wells: &Vec<WellPosition>| {
        let wells = Some(wells.clone());
        Some(AcquisitionProgress {
            wells,
            ..AcquisitionProgress::default()
        })
    };
    let mut events: BTreeMap<Barcode, Option<AcquisitionProgress>> = imaged
        .iter()
        .map(|(plate, of)| (plate.clone(), wells(of)))
        .collect();
    // What is complete needs no word on its wells.
    events.extend(due.iter().map(|ready| (ready.plate.clone(), None)));
    if events.is_empty() {
        return true;
    }
    let told = match submit::submit_imaging(kafka, run, &events, runtime) {
        Ok(told) => told,
        Err(error) => {
            let message = wellspring::error::chain(&error);
            tracing::error!(message, "plates could not be announced; trying again");
            return false;
        }
    };
    for (plate, wells) in imaged {
        if told.contains(plate) && events.get(plate).is_some_and(Option::is_some) {
            say::line(format_args!(
                "{plate}\t{} imaged",
                say::counted(wells.len(), "well")
            ));
        }
    }
    say_ready(due.iter().filter(|ready| told.contains(&ready.plate)));
    true
}

fn announce_ready(kafka: &KafkaSettings, run: &Run, watch: &mut Watch, due: &[Ready], runtime: &Handle) {
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
    say_ready(due.iter().filter(|ready| new.contains(&ready.plate)));
}

fn say_ready<'a>(ready: impl Iterator<Item = &'a Ready>) {
    for ready in ready {
        say::line(format_args!("{}\t{} fields", ready.plate, ready.fields));
        for missing in ready.missing.iter().take(MOST_MISSING) {
            say::note(format_args!("announced without: {missing}"));
        }
        if let Some(more @ 1..) = ready.missing.len().checked_sub(MOST_MISSING) {
            say::note(format_args!("announced without: {more} more"));
        }
    }
}
