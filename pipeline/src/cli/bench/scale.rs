//! `bench scale`: how throughput and latency grow with a fleet, by simulation.
//!
//! Planners, lanes, consumer groups and transactions are the real ones, on a real broker in a process of its own; of a worker
//! storage and engine are delays ([`member`]), so that hundreds fit on one machine. Plates are names of image files. Three
//! parts: fields per second with more and more workers, the latency of live plates alone and beside a full backlog of
//! batch plates, and what workers that are slow, lost or join late cost. Fails where a plate does not come to its end.

mod fleet;
mod member;
mod plates;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::Urgency;

use self::fleet::{Fleet, Kind};
use self::member::Delays;
use super::{Line, Printer, median};
use crate::cli::say;

/// Least that throughput may be of what the engines of all workers can (issue 6).
const LINEAR: f64 = 0.95;
/// Most that a live plate may take beside a backlog, of what it takes alone.
const BESIDE: f64 = 2.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which parts; all when absent.
    #[arg(long = "part", value_name = "PART")]
    parts: Vec<Part>,
    /// Numbers of workers of the first part, each more than the last.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256")]
    workers: Vec<u32>,
    /// Partitions of the tasks.
    #[arg(long, default_value_t = 32)]
    partitions: u32,
    /// Plates in the batch lane.
    #[arg(long, default_value_t = 1000)]
    plates: u32,
    /// Milliseconds of an engine for one field, in the first part.
    #[arg(long, default_value_t = 400)]
    field_ms: u64,
    /// The same in the other parts, of which all have 16 workers.
    #[arg(long, default_value_t = 40)]
    quick_field_ms: u64,
    /// Fields of an engine's batch at most.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Milliseconds of reading a field's images.
    #[arg(long, default_value_t = 50)]
    read_ms: u64,
    /// Seconds of each measurement of throughput.
    #[arg(long, default_value_t = 60)]
    window: u64,
    /// Live plates alone, and as many beside the backlog.
    #[arg(long, default_value_t = 100)]
    live: u32,
    /// A Kafka instead of the embedded broker.
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
    /// Be so many of the workers.
    #[arg(long, hide = true, requires_all = ["kafka", "prefix"])]
    members: Option<u32>,
    #[arg(long, hide = true)]
    prefix: Option<String>,
    /// Of the workers that this process is: only the batch lane.
    #[arg(long, hide = true)]
    batch_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Fields per second, with more and more workers.
    Throughput,
    /// Live plates alone, and beside a backlog.
    Latency,
    /// Workers that are slow, lost, or join late.
    Faults,
}

/// Workers of the second and third part.
const WORKERS: u32 = 16;

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    if let (Some(members), Some(kafka), Some(prefix)) = (args.members, &args.kafka, &args.prefix) {
        let delays = Delays {
            read: Duration::from_millis(args.read_ms),
            engine: Duration::from_millis(args.field_ms),
            batch: args.batch,
        };
        let lanes: &[Urgency] = if args.batch_only {
            &[Urgency::Batch]
        } else {
            &Urgency::ALL
        };
        return member::run(
            &KafkaSettings::new(kafka, prefix, "virtual"),
            members,
            lanes,
            delays,
        );
    }
    ensure!(
        args.workers.is_sorted_by(|a, b| a < b) && args.workers.first().is_some_and(|first| *first > 0),
        "--workers takes numbers above 0, each more than the last"
    );
    for part in [Part::Throughput, Part::Latency, Part::Faults] {
        if args.parts.is_empty() || args.parts.contains(&part) {
            let folder = tempfile::tempdir().context("no temporary folder can be made")?;
            let fleet = Fleet::start(folder.path(), args)?;
            match part {
                Part::Throughput => throughput(args, fleet, printer)?,
                Part::Latency => latency(args, fleet, printer)?,
                Part::Faults => faults(args, fleet, printer)?,
            }
        }
    }
    Ok(())
}

/// One fleet that grows, at work on one backlog.
fn throughput(args: &Args, mut fleet: Fleet<'_>, printer: &mut Printer) -> anyhow::Result<()> {
    let kind = Kind {
        field_ms: args.field_ms,
        batch_only: true,
    };
    fleet.submit_batch()?;
    let mut running = 0;
    let alone = 1e3 / args.field_ms as f64;
    for workers in &args.workers {
        while running < *workers {
            let more = (workers - running).min(32);
            fleet.join(more, kind)?;
            running += more;
        }
        fleet.settle(*workers)?;
        let rate = fleet.rate(Duration::from_secs(args.window))?;
        let engines = alone * f64::from(*workers);
        say::note(format_args!(
            "{workers} workers: {rate:.1} fields/s, {:.3} of what their engines can",
            rate / engines
        ));
        let line = Line::new(
            "scale",
            format!("{workers} workers, {} partitions", args.partitions),
            rate,
            "fields/s",
        )
        .beside("the engines' delays alone", engines);
        // A worker without a partition has nothing to do.
        printer.push(match *workers <= args.partitions {
            true => line.at_least(LINEAR),
            false => line,
        })?;
    }
    fleet.end(printer, "throughput", false)
}

/// Live plates, one after the other.
fn latency(args: &Args, mut fleet: Fleet<'_>, printer: &mut Printer) -> anyhow::Result<()> {
    let kind = Kind {
        field_ms: args.quick_field_ms,
        batch_only: false,
    };
    fleet.join(WORKERS, kind)?;
    // The first one opens what a run needs, and is not counted.
    fleet.live_plate("WARM")?;
    let mut times = Vec::new();
    for beside in [false, true] {
        if beside {
            fleet.submit_batch()?;
            fleet.settle(WORKERS)?;
        }
        let begun = (Instant::now(), fleet.seen());
        let mut found = Vec::new();
        for number in 0..args.live {
            found.push(fleet.live_plate(&format!("{}{number:03}", if beside { "B" } else { "A" }))?);
        }
        let seconds = begun.0.elapsed().as_secs_f64();
        let others = fleet.seen() - begun.1 - (args.live * plates::LIVE_FIELDS) as usize;
        if beside {
            printer.push(Line::new(
                "scale",
                "fields of the backlog beside live plates",
                others as f64 / seconds,
                "fields/s",
            ))?;
        }
        times.push(found);
    }
    let (Some(alone), Some(beside)) = (times.first(), times.get(1)) else {
        return Ok(());
    };
    for (what, of) in [("first", 0), ("last", 1)] {
        let sorted = |times: &[[f64; 2]]| {
            let mut times: Vec<f64> = times.iter().filter_map(|time| time.get(of)).copied().collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let (alone, beside) = (sorted(alone), sorted(beside));
        let p99 = |times: &[f64]| {
            let at = (times.len() * 99).div_ceil(100).saturating_sub(1);
            times.get(at).copied().unwrap_or(0.0)
        };
        let [alone_median, beside_median] =
            [&alone, &beside].map(|times| median(times.iter().copied()).unwrap_or(0.0));
        for (which, ours, peer) in [
            ("median", beside_median, alone_median),
            ("99th percentile", p99(&beside), p99(&alone)),
        ] {
            let line = Line::new(
                "scale",
                format!("a live plate beside a backlog until its {what} feature, {which}"),
                ours,
                "s",
            );
            printer.push(line.beside("alone", peer).at_most(BESIDE))?;
        }
    }
    fleet.end(printer, "latency", false)
}

/// Slow workers from the beginning, some that are lost, and some that join late; to the end of the backlog.
fn faults(args: &Args, mut fleet: Fleet<'_>, printer: &mut Printer) -> anyhow::Result<()> {
    let kind = Kind {
        field_ms: args.quick_field_ms,
        batch_only: true,
    };
    let slow = Kind {
        field_ms: args.quick_field_ms * 4,
        ..kind
    };
    let window = Duration::from_secs(args.window.min(20));
    fleet.submit_batch()?;
    let quarter = WORKERS / 4;
    let doomed = fleet.join(quarter, kind)?;
    let leaving = fleet.join(quarter, kind)?;
    fleet.join(quarter, kind)?;
    fleet.join(quarter, slow)?;
    fleet.settle(WORKERS)?;
    let of = |workers: f64| workers * 1e3 / args.quick_field_ms as f64;
    let (fast, slow) = (f64::from(quarter), f64::from(quarter) / 4.0);
    let measure = |fleet: &mut Fleet<'_>, printer: &mut Printer, what: &str, ideal: f64| {
        let rate = fleet.rate(window)?;
        let line = Line::new("scale", what, rate, "fields/s");
        printer.push(line.beside("the engines' delays alone", ideal))
    };
    let all = of(3.0 * fast + slow);
    measure(
        &mut fleet,
        printer,
        "a quarter of the workers is four times slower",
        all,
    )?;
    fleet.kill(doomed);
    let struck = Instant::now();
    measure(
        &mut fleet,
        printer,
        "just after the loss of another quarter",
        of(2.0 * fast + slow),
    )?;
    measure(
        &mut fleet,
        printer,
        &format!("{:.0} s after it", struck.elapsed().as_secs_f64()),
        of(2.0 * fast + slow),
    )?;
    fleet.join(quarter, kind)?;
    measure(&mut fleet, printer, "while a quarter joins", all)?;
    fleet.leave(leaving)?;
    fleet.join(quarter, kind)?;
    measure(&mut fleet, printer, "while a quarter leaves and one joins", all)?;
    fleet.end(printer, "faults", true)
}
