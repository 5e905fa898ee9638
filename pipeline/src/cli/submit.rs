//! `wellspring submit`: registers a screen as a run and announces its plates.

use std::path::PathBuf;
use std::process::ExitCode;

use wellspring::kafka::topics;
use wellspring::runs::Run;
use wellspring::submit::submit;

use super::common::{KafkaArgs, LaneArg, check_transform, plates_of, read_screen, runtime};
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  wellspring submit screens/rescue.toml --kafka kafka:9092\n\n\
    Submitting the same screen twice is one run; plates that are new since are added."
)]
pub(crate) struct Args {
    /// The screen file.
    screen: PathBuf,
    #[command(flatten)]
    lane: LaneArg,
    #[command(flatten)]
    kafka: KafkaArgs,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let kafka = args.kafka.settings()?;
    let run = Run::open(read_screen(&args.screen)?)?;
    check_transform(&run)?;
    let plates = runtime.block_on(plates_of(&run))?;
    runtime.block_on(topics::create_missing(&kafka))?;
    let new = submit(&kafka, &run, &plates, args.lane.urgency(), runtime.handle())?;
    say::line(format_args!(
        "{}: {}, {} of them announced now",
        run.id,
        say::counted(plates.len(), "plate"),
        new.len()
    ));
    Ok(ExitCode::SUCCESS)
}
