//! `bench lanes`: how long a live plate takes beside a rerun, and alone.
//!
//! A broker, `serve` and one worker are processes of their own. In turn a live plate is announced to the idle fleet, and to
//! one that is at work on a batch; the batch is cancelled after each turn. Time counts from the moment at which the
//! announcement is on Kafka to the moment at which a feature of the plate is visible to a read-committed reader.
//! Fails where a plate does not come to its end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wellspring::events::{FieldFeatures, RunId};
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::tail::{Polled, Tail};
use wellspring::kafka::topics::{Topic, create_missing};

use super::process::{Process, small_plate, start_broker, this_program};
use super::{Line, Printer, median};
use crate::cli::{common, say};

/// Longest wait for a plate.
const PATIENCE: Duration = Duration::from_secs(600);
/// Most that a live plate may take beside a batch, of what it takes alone (issue 6).
const BAR: f64 = 2.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Turns; each a plate alone and one beside a batch.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Fields of view in each of the 96 wells of a live plate.
    #[arg(long, default_value_t = 2)]
    fields: u32,
    /// The same of the batch's plate.
    #[arg(long, default_value_t = 40)]
    batch_fields: u32,
    /// A Kafka instead of the embedded broker.
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
}

/// What a live plate took, in seconds.
#[derive(Debug, Default)]
struct Times {
    first: Vec<f64>,
    last: Vec<f64>,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let live = small_plate(&folder.path().join("live"), "LIVE", args.fields)?;
    let batch = small_plate(&folder.path().join("batch"), "BATCH", args.batch_fields)?;
    let started = match &args.kafka {
        Some(_) => None,
        None => Some(start_broker(&folder.path().join("broker"))?),
    };
    let bootstrap = match (&args.kafka, &started) {
        (Some(bootstrap), _) => bootstrap.clone(),
        (None, started) => started.as_ref().map(|(_, at)| at.clone()).unwrap_or_default(),
    };
    let prefix = format!("lanes-{}", std::process::id());
    let kafka = KafkaSettings::new(&bootstrap, &prefix, "bench");
    common::runtime()?.block_on(create_missing(&kafka))?;
    let fleet = Fleet {
        folder: folder.path(),
        kafka: &kafka,
    };
    let results = folder.path().join("results").to_string_lossy().into_owned();
    let _serve = fleet.start(&["serve", "--no-worker", "--out", &results])?;
    let _worker = fleet.start(&["worker"])?;
    let mut reader = Reader {
        tail: Tail::open(&kafka, &[Topic::Features])?,
    };

    let fields = 96 * args.fields;
    let (mut alone, mut beside) = (Times::default(), Times::default());
    let mut batch_rates = Vec::new();
    // The first turn opens engines and fills caches, and is not counted.
    for round in 0..=args.rounds {
        let idle = fleet.submit(&live, &format!("alone-{round}"), "live")?;
        let (first, last, _) = reader.plate(&idle, fields)?;
        let running = fleet.submit(&batch, &format!("batch-{round}"), "batch")?;
        reader.wait_for(&running)?;
        let busy = fleet.submit(&live, &format!("beside-{round}"), "live")?;
        let (first_beside, last_beside, others) = reader.plate(&busy, fields)?;
        fleet.succeeds(&["runs", "cancel", &running])?;
        fleet.drained(&mut reader)?;
        say::note(format_args!(
            "turn {round} of {}: first feature {first:.2} s alone, {first_beside:.2} s beside a batch; last {last:.2} and \
             {last_beside:.2} s",
            args.rounds
        ));
        if round > 0 {
            alone.first.push(first);
            alone.last.push(last);
            beside.first.push(first_beside);
            beside.last.push(last_beside);
            batch_rates.push(f64::from(others) / last_beside);
        }
    }
    for (what, of_alone, of_beside) in [
        ("first", &alone.first, &beside.first),
        ("last", &alone.last, &beside.last),
    ] {
        let (Some(alone), Some(beside)) = (
            median(of_alone.iter().copied()),
            median(of_beside.iter().copied()),
        ) else {
            continue;
        };
        printer.push(
            Line::new(
                "lanes",
                format!("live plate of {fields} fields beside a batch, until its {what} feature"),
                beside,
                "s",
            )
            .beside("the same plate alone", alone)
            .at_most(BAR),
        )?;
        let slowest = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
        printer.push(
            Line::new(
                "lanes",
                format!("the slowest of {}, until its {what} feature", args.rounds),
                slowest(of_beside),
                "s",
            )
            .beside("the slowest alone", slowest(of_alone))
            .at_most(BAR),
        )?;
    }
    if let Some(rate) = median(batch_rates.into_iter()) {
        printer.push(Line::new(
            "lanes",
            "fields of the batch beside the live plate",
            rate,
            "fields/s",
        ))?;
    }
    Ok(())
}

struct Fleet<'a> {
    folder: &'a Path,
    kafka: &'a KafkaSettings,
}

impl Fleet<'_> {
    fn command(&self, arguments: &[&str]) -> anyhow::Result<std::process::Command> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("fleet.log"))?;
        let mut command = this_program()?;
        command
            .args(arguments)
            .args(["--kafka", &self.kafka.bootstrap, "--prefix", &self.kafka.prefix])
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    fn start(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        let child = self.command(arguments)?.spawn();
        Ok(Process(child.context("a process cannot be started")?))
    }

    fn succeeds(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let ended = self.command(arguments)?.status()?;
        ensure!(
            ended.success(),
            "`wellspring {}` failed: {}",
            arguments.join(" "),
            std::fs::read_to_string(self.folder.join("fleet.log"))?
        );
        Ok(())
    }

    /// Submits the screen under this name; the run.
    fn submit(&self, screen: &Path, name: &str, lane: &str) -> anyhow::Result<RunId> {
        let text = std::fs::read_to_string(screen)?;
        let named: Vec<String> = text
            .lines()
            .map(|line| match line.starts_with("name = \"") {
                true => format!("name = \"{name}\""),
                false => line.to_owned(),
            })
            .collect();
        let file: PathBuf = screen.with_file_name(format!("{name}.toml"));
        std::fs::write(&file, named.join("\n"))?;
        self.succeeds(&["submit", &file.to_string_lossy(), "--lane", lane])?;
        let run = wellspring::runs::run_id(&common::read_screen(&file)?);
        Ok(run)
    }

    /// Waits until what the worker had of a cancelled batch is through: nothing comes for a second.
    fn drained(&self, reader: &mut Reader) -> anyhow::Result<()> {
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_secs(1) {
            if reader.next()?.is_some() {
                last = Instant::now();
            }
        }
        Ok(())
    }
}

/// Features as they become visible.
struct Reader {
    tail: Tail,
}

impl Reader {
    /// The run of the next feature, if one comes soon.
    fn next(&mut self) -> anyhow::Result<Option<RunId>> {
        match self.tail.poll(Duration::from_millis(20))? {
            Polled::Record(record) => {
                let features: FieldFeatures = record.read()?;
                Ok(Some(features.run))
            }
            Polled::AtEnd(_) | Polled::Nothing => Ok(None),
        }
    }

    fn wait_for(&mut self, run: &RunId) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.next()?.as_ref() != Some(run) {
            ensure!(begun.elapsed() < PATIENCE, "no feature of '{run}' came");
        }
        Ok(())
    }

    /// Reads until all `fields` of the run are there: seconds to the first and to the last, and how many of other runs came
    /// meanwhile.
    fn plate(&mut self, run: &RunId, fields: u32) -> anyhow::Result<(f64, f64, u32)> {
        let begun = Instant::now();
        let (mut own, mut others, mut first) = (0, 0, None);
        while own < fields {
            match self.next()? {
                Some(of) if of == *run => {
                    own += 1;
                    first.get_or_insert(begun.elapsed().as_secs_f64());
                }
                Some(_) => others += 1,
                None => ensure!(
                    begun.elapsed() < PATIENCE,
                    "{own} of {fields} features of '{run}' came"
                ),
            }
        }
        Ok((first.unwrap_or_default(), begun.elapsed().as_secs_f64(), others))
    }
}
