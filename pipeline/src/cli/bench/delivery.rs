//! `bench delivery`: what exactly-once costs. A screen is run with transactions and without, in turn, each time in a
//! process of its own on a broker of its own; fields per second are compared, and the share of the run's processor time
//! that its Kafka threads took is told.
//!
//! The first run warms the caches of the system and is not counted. Linux only where shares are asked for: elsewhere
//! they are left out. Fails where a run or the broker does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::process::{Process, start_broker, this_program};
use super::{Line, Printer, median};
use crate::cli::say;

/// Least that throughput with transactions may be of that without (issue 5).
const THROUGHPUT_BAR: f64 = 0.95;
/// Most of the processor time that Kafka may take.
const CPU_BAR: f64 = 0.03;
/// Between two looks at the threads of a run.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The screen to run.
    #[arg(
        long,
        value_name = "SCREEN.toml",
        default_value = "workloads/screens/transfluor.toml"
    )]
    screen: PathBuf,
    /// Runs of each kind.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A Kafka instead of the embedded broker.
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
    /// Folder of the networks' weights. Default: the user's cache folder.
    #[arg(long, value_name = "DIR", env = "WELLSPRING_MODELS")]
    models: Option<PathBuf>,
}

/// What `run --json` ends with, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Summary {
    fields_done: u32,
    fields_failed: u32,
    lost: u32,
    seconds: f64,
}

/// A run that was measured.
struct Measured {
    fields_per_second: f64,
    /// Of all processor time, that of the threads of Kafka's client and of the lanes.
    kafka_share: Option<f64>,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let started = match &args.kafka {
        Some(_) => None,
        None => Some(start_broker(&folder.path().join("broker"))?),
    };
    let bootstrap = match (&args.kafka, &started) {
        (Some(bootstrap), _) => bootstrap.as_str(),
        (None, Some((_, bootstrap))) => bootstrap,
        (None, None) => bail!("there is no broker"),
    };
    let mut found: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for round in 0..=args.rounds {
        for delivery in ["exactly-once", "at-least-once"] {
            say::note(format!("run {round} of {}, {delivery} ...", args.rounds));
            let name = format!("{delivery}-{round}-{}", wellspring::clock::now_ms());
            let run = Run {
                args,
                bootstrap,
                name: &name,
                delivery,
                out: &folder.path().join(&name),
            };
            let measured = run.measure()?;
            if round > 0 {
                found.entry(delivery).or_default().push(measured);
            }
        }
    }
    let screen = args.screen.file_stem().unwrap_or_default().to_string_lossy();
    let rate = |delivery| {
        median(
            found
                .get(delivery)
                .into_iter()
                .flatten()
                .map(|m| m.fields_per_second),
        )
    };
    let (once, least) = (rate("exactly-once"), rate("at-least-once"));
    let (Some(once), Some(least)) = (once, least) else {
        bail!("nothing was measured");
    };
    printer.push(
        Line::new("delivery", format!("{screen}, exactly once"), once, "fields/s")
            .beside("at least once", least)
            .at_least(THROUGHPUT_BAR),
    )?;
    let shares = found.get("exactly-once").into_iter().flatten();
    if let Some(share) = median(shares.filter_map(|measured| measured.kafka_share)) {
        printer.push(
            Line::new(
                "delivery",
                format!("{screen}, share of Kafka in the processor time"),
                share,
                "",
            )
            .beside("the bar", CPU_BAR)
            .at_most(1.0),
        )?;
    }
    Ok(())
}

/// A run to be measured.
struct Run<'a> {
    args: &'a Args,
    bootstrap: &'a str,
    name: &'a str,
    delivery: &'a str,
    out: &'a Path,
}

impl Run<'_> {
    fn measure(&self) -> anyhow::Result<Measured> {
        let mut command = this_program()?;
        command
            .args(["--quiet", "run"])
            .arg(&self.args.screen)
            .arg("--out")
            .arg(self.out)
            .args(["--json", "--kafka", self.bootstrap, "--prefix", self.name])
            .args(["--delivery", self.delivery])
            .stdout(Stdio::piped());
        if let Some(models) = &self.args.models {
            command.arg("--models").arg(models);
        }
        let mut run = Process(command.spawn().context("the run cannot be started")?);
        let mut threads = Threads::default();
        let status = loop {
            threads.look(run.0.id());
            if let Some(status) = run.0.try_wait()? {
                break status;
            }
            std::thread::sleep(LOOK);
        };
        let output = run.0.stdout.take().context("the run has no output")?;
        let last = BufReader::new(output).lines().map_while(Result::ok).last();
        let Some(Ok(summary)) = last.map(|line| serde_json::from_str::<Summary>(&line)) else {
            bail!("the run gave no result ({status}); see its messages above");
        };
        if summary.lost > 0 || summary.fields_failed > 0 {
            bail!(
                "{} fields failed and {} were lost: nothing is compared with that",
                summary.fields_failed,
                summary.lost
            );
        }
        Ok(Measured {
            fields_per_second: f64::from(summary.fields_done) / summary.seconds.max(1e-9),
            kafka_share: threads.share_of_kafka(),
        })
    }
}

/// Processor time of the threads of a process, as last seen of each: name and clock ticks.
#[derive(Debug, Default)]
struct Threads(BTreeMap<String, (String, u64)>);

impl Threads {
    /// Looks at all threads that live; those that ended keep what was seen last.
    fn look(&mut self, process: u32) {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
            return;
        };
        for thread in threads.flatten() {
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            if let Some(seen) = stat.ok().as_deref().and_then(name_and_ticks) {
                let id = thread.file_name().to_string_lossy().into_owned();
                self.0.insert(id, seen);
            }
        }
    }

    /// `None` where the system does not tell.
    fn share_of_kafka(&self) -> Option<f64> {
        let ticks = |of: &dyn Fn(&str) -> bool| -> u64 {
            let threads = self.0.values().filter(|(name, _)| of(name));
            threads.map(|(_, ticks)| ticks).sum()
        };
        let all = ticks(&|_| true);
        (all > 0).then(|| ticks(&is_kafka) as f64 / all as f64)
    }
}

/// librdkafka's threads, and those of the lanes, which do nothing else; names are cut off after 15 letters.
fn is_kafka(name: &str) -> bool {
    name.starts_with("rdk:") || ["-source", "-publish"].iter().any(|part| name.ends_with(part))
}

/// Of a line of `/proc/PID/task/TID/stat`: the name in brackets, and the 14th and 15th field, user and system time.
fn name_and_ticks(stat: &str) -> Option<(String, u64)> {
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat.get(end + 2..)?.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some((stat.get(start + 1..end)?.to_owned(), user + system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_times_are_read_whatever_the_name() {
        let stat = "812 (rdk:broker (1) S) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0";
        assert_eq!(name_and_ticks(stat), Some(("rdk:broker (1) S".to_owned(), 300)));
        assert_eq!(name_and_ticks("812 (x"), None);
        assert!(is_kafka("rdk:main") && is_kafka("worker-publish") && !is_kafka("embed-1"));
    }
}
