//! `wellspring rerun`: a screen once more, of which only what changed is made anew.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use wellspring::events::{LetterAction, RunId};
use wellspring::kafka::tail::Start;
use wellspring::kafka::topics;
use wellspring::replay::Selection;
use wellspring::rerun::{Anew, last_run, rerun};
use wellspring::resolve::{Filter, resolve};
use wellspring_workloads::words::Barcode;

use super::common::{KafkaArgs, LaneName, parse_time, read_screen, runtime};
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring rerun rescue-pilot.toml --kafka kafka:9092\n  \
                  wellspring rerun rescue-pilot.toml --model dino-vits16 --kafka kafka:9092\n  \
                  wellspring rerun rescue-pilot.toml --failed --kafka kafka:9092\n\n\
                  A rerun is a new run: the screen under the next [screen] version. Where channels, preprocessing, network and \
                  steps are those of the earlier run, its features are taken over; otherwise its plates are worked on \
                  again, in the batch lane. `wellspring runs diff` tells what came out differently."
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
    /// Only what was announced, or embedded, at this time or later: 2026-11-22T23:15:04Z, or 2h, 3d ago.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<u64>,
    /// With another network than the screen file names.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// From the images on, though nothing in the screen asks for it: when images have changed.
    #[arg(long)]
    embed: bool,
    /// Nothing but what failed, in the run as it is: its dead letters are tried again.
    #[arg(long, conflicts_with_all = ["since", "model", "embed", "lane"])]
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

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let kafka = args.kafka.settings()?;
    let runtime = runtime()?;
    let mut screen = read_screen(&args.screen)?;
    runtime.block_on(topics::create_missing(&kafka))?;
    let old = match args.of {
        Some(old) => old,
        None => last_run(&kafka, &screen.name)?,
    };
    if args.failed {
        return failed(&kafka, old, &args.plates, args.json);
    }
    if let Some(model) = args.model {
        screen.model.name = model;
    }
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
        args.embed,
        args.lane.urgency(),
        (runtime.handle(), &scratch),
    )?;
    if args.json {
        let word = match anew {
            Anew::Comparison => "comparison",
            Anew::Embedding => "embedding",
        };
        say::line(json!({ "run": done.run, "of": old, "plates": done.plates, "anew": word }));
        return Ok(ExitCode::SUCCESS);
    }
    let how = match anew {
        Anew::Comparison => format!("features of {old} taken over"),
        Anew::Embedding => format!("plates of {old} announced again"),
    };
    say::line(format_args!("{}: {} plates, {how}", done.run, done.plates));
    Ok(ExitCode::SUCCESS)
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
            "{run}: {again} failures are tried again, {left} cannot be"
        ));
    }
    Ok(ExitCode::from(u8::from(left > 0)))
}
