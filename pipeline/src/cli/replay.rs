//! `wellspring replay`: an earlier run's plates or features into a new run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use wellspring::kafka::tail::Start;
use wellspring::kafka::topics;
use wellspring::replay::{self, Selection};
use wellspring_workloads::screen::ScreenName;
use wellspring_workloads::words::Barcode;

use super::common::{KafkaArgs, LaneName, parse_offset, parse_time, read_screen, runtime};
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring replay features rescue-pilot-1a2b3c4d --as rescue-robust --screen robust.toml\n  \
                  wellspring replay plates rescue-pilot-1a2b3c4d --as rescue-again --plate BR00117006\n  \
                  wellspring replay features rescue-pilot-1a2b3c4d --as first-week --until 2026-11-23T00:00:00Z\n\n\
                  The new run is the screen under the name of --as. Replaying again under that name adds what is missing and \
                  nothing else; members of the fleet that are at work do not notice."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Take over the features of a run and compare them anew, without embedding.
    Features(Common),
    /// Announce the plates of a run again, to be embedded anew; in the batch lane, unless told otherwise.
    Plates {
        #[command(flatten)]
        common: Common,
        /// How urgent it is.
        #[arg(long, value_name = "LANE", value_enum, default_value_t = LaneName::Batch)]
        lane: LaneName,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The run that is replayed (`wellspring plates list` shows runs).
    run: String,
    /// Name of the new run's screen.
    #[arg(long = "as", value_name = "NAME")]
    name: ScreenName,
    /// Its screen file. Default: the screen of the old run.
    #[arg(long, value_name = "FILE")]
    screen: Option<PathBuf>,
    /// Only these plates.
    #[arg(long = "plate", value_name = "BARCODE")]
    plates: Vec<Barcode>,
    /// Only records written at this time or later: 2026-11-22T23:15:04Z, or 2h, 3d ago.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "from")]
    since: Option<u64>,
    /// Only records written before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<u64>,
    /// Only records from this offset of this partition on; nothing of partitions that are not named.
    #[arg(long, value_name = "PARTITION:OFFSET", value_parser = parse_offset)]
    from: Vec<(i32, i64)>,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

impl Common {
    fn selection(&self) -> anyhow::Result<Selection> {
        let time = |ms: u64| i64::try_from(ms).context("the time is too far off");
        let offsets: BTreeMap<i32, i64> = self.from.iter().copied().collect();
        if offsets.len() != self.from.len() {
            bail!("--from names a partition twice");
        }
        let start = match self.since {
            Some(since) => Start::Time(time(since)?),
            None if offsets.is_empty() => Start::Beginning,
            None => Start::Offsets(offsets),
        };
        Ok(Selection {
            plates: self.plates.clone(),
            start,
            until: self.until.map(time).transpose()?,
        })
    }
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let (common, of, lane) = match args.what {
        What::Features(common) => (common, "features", LaneName::Batch),
        What::Plates { common, lane } => (common, "plates", lane),
    };
    let kafka = common.kafka.settings()?;
    let selection = common.selection()?;
    let screen = common.screen.as_deref().map(read_screen).transpose()?;
    let runtime = runtime()?;
    runtime.block_on(topics::complete(&kafka))?;
    let done = if of == "features" {
        let scratch = std::env::temp_dir();
        replay::features(&kafka, &common.run, &common.name, screen, &selection, &scratch)?
    } else {
        replay::plates(
            &kafka,
            &common.run,
            &common.name,
            screen,
            &selection,
            lane.urgency(),
            runtime.handle(),
        )?
    };
    if common.json {
        say::line(serde_json::to_string(&done)?);
    } else {
        say::line(format_args!(
            "{}: {}, {} {of} replayed now, {} before",
            done.run,
            say::counted(done.plates, "plate"),
            done.published,
            done.published_before
        ));
    }
    Ok(ExitCode::SUCCESS)
}
