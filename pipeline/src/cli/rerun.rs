//! `wellspring rerun`: a screen once more, of which only what changed is made anew.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;
use wellspring::events::{LetterAction, RunId};
use wellspring::kafka::tail::Start;
use wellspring::kafka::topics;
use wellspring::plates::Board;
use wellspring::replay::Selection;
use wellspring::rerun::{Anew, Begin, last_run, rerun};
use wellspring::resolve::{Filter, resolve};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::screen::graph::{Level, StepGraph};
use wellspring_workloads::words::Barcode;

use super::common::{KafkaArgs, LaneName, parse_time, read_screen, runtime};
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring rerun rescue-pilot.toml --kafka kafka:9092\n  \
                  wellspring rerun rescue-pilot.toml --model dino-vits16 --kafka kafka:9092\n  \
                  wellspring rerun rescue-pilot.toml --failed --kafka kafka:9092\n\n\
                  A rerun is a new run: the screen under the next [screen] version. Where channels, preprocessing, network and \
                  steps are those of the earlier run, features are taken over of the fields whose images are what they were; \
                  the other fields, or all, are worked on again, in the batch lane. `wellspring runs diff` tells what came \
                  out differently."
)]
pub(crate) struct Args {
    /// The screen file.
    screen: PathBuf,
    /// Begin from this run. Default: the last one of the screen's name.
    #[arg(long, value_name = "RUN")]
    of: Option<RunId>,
    /// Only these plates.
    #[arg(long = "plate", value_name = "BARCODE")]
    plates: Vec<Barcode>,
    /// Only what was announced, or embedded, at this time or later: 2026-11-22T23:15:04Z, or 2h, 3d ago. What is embedded is
    /// taken over as it is.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<u64>,
    /// With another network than the screen file names.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// From this step on, as `wellspring plan --graph` names them: `embed..` works on all images again, `compare..` takes features
    /// over as they are, without a look at the store. Default: what has changed.
    #[arg(long, value_name = "STEP..")]
    steps: Option<String>,
    /// Nothing but what failed, in the run as it is: its dead letters are tried again.
    #[arg(long, conflicts_with_all = ["since", "model", "steps", "lane"])]
    failed: bool,
    /// How urgent it is.
    #[arg(long, value_name = "LANE", value_enum, default_value_t = LaneName::Batch)]
    lane: LaneName,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// A run of some plates begins no run of all of them, though it may be the last one.
fn tell_of_larger(board: &Board, last: &RunId) {
    let Some(known) = board.run(last) else { return };
    let runs = board.runs().filter(|(_, other)| other.screen == known.screen);
    let largest = runs.max_by_key(|(_, other)| other.plates.len());
    if let Some((run, other)) = largest
        && other.plates.len() > known.plates.len()
    {
        say::note(format_args!(
            "begins from {last}, the last run of the screen, which has {}; {run} has {} (--of {run} begins from that)",
            say::counted(known.plates.len(), "plate"),
            other.plates.len()
        ));
    }
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let kafka = args.kafka.settings()?;
    let runtime = runtime()?;
    let mut screen = read_screen(&args.screen)?;
    runtime.block_on(topics::complete(&kafka))?;
    let old = match args.of {
        Some(old) => old,
        None => {
            let last = last_run(&kafka, &screen.name)?;
            tell_of_larger(&Board::read(&kafka)?, &last);
            last
        }
    };
    if args.failed {
        let board = Board::read(&kafka)?;
        let is_in_run = |plate: &&Barcode| {
            board
                .plate(plate)
                .is_some_and(|known| known.runs.contains_key(&old))
        };
        if let Some(plate) = args.plates.iter().find(|plate| !is_in_run(plate)) {
            bail!("plate {plate} is not in run '{old}'; `wellspring runs show {old}` shows its plates");
        }
        return failed(&kafka, old, &args.plates, args.json);
    }
    if let Some(model) = args.model {
        screen.model.name = model;
    }
    let begin = match args.steps.as_deref() {
        None => Begin::Changed,
        Some(step) => begin_with(step, &screen)?,
    };
    let since = args.since.map(i64::try_from).transpose();
    let selection = Selection {
        plates: args.plates,
        start: since
            .context("the time is too far off")?
            .map_or(Start::Beginning, Start::Time),
        until: None,
    };
    let scratch = std::env::temp_dir();
    let (anew, done) = rerun(
        &kafka,
        screen,
        &old,
        &selection,
        begin,
        args.lane.urgency(),
        (runtime.handle(), &scratch),
    )?;
    if args.json {
        let (word, fields) = match anew {
            Anew::Comparison => ("comparison", None),
            Anew::Fields(fields) => ("changed", Some(fields)),
            Anew::Embedding => ("embedding", None),
        };
        let mut line = json!({ "run": done.run, "of": old, "plates": done.plates, "anew": word });
        if let Some(fields) = fields {
            line["fields_taken_over"] = fields.same.into();
            line["fields_anew"] = fields.anew.into();
        }
        say::line(line);
        return Ok(ExitCode::SUCCESS);
    }
    let how = match anew {
        Anew::Comparison => format!("features of {old} taken over as they are"),
        Anew::Fields(fields) => format!(
            "features of {old} taken over of {} fields; {} have changed, are new or had failed, and are worked on",
            fields.same, fields.anew
        ),
        Anew::Embedding => format!("plates of {old} announced again"),
    };
    say::line(format_args!(
        "{}: {}, {how}",
        done.run,
        say::counted(done.plates, "plate")
    ));
    Ok(ExitCode::SUCCESS)
}

/// Where to begin so that this step and all after it are done again. What lies before the features is done as one.
fn begin_with(step: &str, screen: &Screen) -> anyhow::Result<Begin> {
    let name = step.strip_suffix("..").unwrap_or(step);
    let graph = StepGraph::of(screen)?;
    match graph.steps().iter().find(|step| step.name == name) {
        Some(step) if step.level == Level::Field => Ok(Begin::Images),
        Some(_) => Ok(Begin::Features),
        None => {
            let known: Vec<&str> = graph.steps().iter().map(|step| step.name.as_str()).collect();
            bail!(
                "--steps: the screen has no step '{name}' to begin with (STEP..); its steps are {}",
                known.join(", ")
            )
        }
    }
}

fn failed(
    kafka: &wellspring::kafka::KafkaSettings,
    run: RunId,
    plates: &[Barcode],
    json: bool,
) -> anyhow::Result<ExitCode> {
    let of_plates: Vec<Option<Barcode>> = match plates {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let (mut again, mut left) = (0, 0);
    for plate in of_plates {
        let filter = Filter {
            run: Some(run.clone()),
            plate,
            ..Filter::default()
        };
        let resolution = resolve(kafka, &filter, LetterAction::Retried, false)?;
        again += resolution.done.len();
        left += resolution.left.len();
        for (stored, reason) in &resolution.left {
            say::note(format_args!(
                "{} cannot be tried again: {reason}",
                stored.letter.id
            ));
        }
    }
    if json {
        say::line(json!({ "run": run, "again": again, "left": left }));
    } else {
        say::line(format_args!(
            "{run}: {} tried again, {left} cannot be",
            say::counted(again, "failure")
        ));
    }
    Ok(ExitCode::from(u8::from(left > 0)))
}
