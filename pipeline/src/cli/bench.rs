//! `wellspring bench`: how fast this build is on this machine.
//!
//! Each bench makes its own input from a seed, measures, and gives [`Line`]s: a table for people, JSON lines for
//! programs. A line that compares carries its peer, their ratio, and the bar it has to clear. Fails where an input
//! is missing, never because something is slow.

mod compare;
mod decode;
mod delivery;
mod embed;
mod faults;
mod kafka;
mod kernels;
mod lanes;
mod listing;
mod pipeline;
mod plan;
mod process;
mod scale;
mod wells;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

pub(crate) use self::embed::Args as EmbedArgs;
use super::calls::{Grid, Side};
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring bench kernels --json\n  wellspring bench embed --threads 1,4\n  \
                  wellspring bench pipeline --fields 9 --channels 5 --size 1080 --screen workloads/screens/transfluor.toml\n\n\
                  JSON lines: {\"bench\",\"work\",\"ours\",\"unit\",\"peer\",\"peer_value\",\"ratio\",\"bar\",\"met\"}; peer is \
                  null where nothing is compared. Measure release builds on an idle machine."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
    /// Print JSON lines.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    /// Preprocessing and quality of a large field, against the speed of memory.
    Kernels(kernels::Args),
    /// Decoding of every file format, per core.
    Decode(decode::Args),
    /// Embedding, per image, by batch and threads. Needs weights.
    Embed(embed::Args),
    /// The comparison of a screen's wells.
    Compare(compare::Args),
    /// Whole runs in a process of their own: fields per second, and memory that must not grow with the plate.
    Pipeline(pipeline::Args),
    /// Processes killed at random moments: what is lost, what comes twice, how long until work goes on.
    Faults(faults::Args),
    /// Fields per second with transactions and without, and the processor time that Kafka takes.
    Delivery(delivery::Args),
    /// Plates planned, from their files' names to the tasks' bytes.
    Plan(plan::Args),
    /// How long a live plate takes beside a rerun, and alone.
    Lanes(lanes::Args),
    /// A fleet of up to hundreds of virtual workers on a real broker: throughput, latency of live plates, faults.
    Scale(scale::Args),
    /// Feature records as bytes, through a Kafka and back, and into a collector.
    Kafka(kafka::Args),
    /// A flat bucket of many objects: how long until it is listed, and until the first field is in flight.
    Listing(listing::Args),
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// The bench.
    bench: &'static str,
    /// What was done.
    work: String,
    /// Our figure, in `unit`.
    ours: f64,
    /// Unit of both figures.
    unit: &'static str,
    /// What ours is compared with.
    peer: Option<String>,
    /// The peer's figure.
    peer_value: Option<f64>,
    /// `ours / peer_value`, or as `peer` says.
    ratio: Option<f64>,
    /// What the ratio has to reach, or must not pass.
    bar: Option<f64>,
    /// Whether it does.
    met: Option<bool>,
}

impl Line {
    /// A figure by itself.
    fn new(bench: &'static str, work: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        let work = work.into();
        Self {
            bench,
            work,
            ours,
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            bar: None,
            met: None,
        }
    }

    /// The figure beside another one.
    fn beside(self, peer: impl Into<String>, peer_value: f64) -> Self {
        let ratio = Some(self.ours / peer_value).filter(|ratio| ratio.is_finite());
        Self {
            peer: Some(peer.into()),
            peer_value: Some(peer_value),
            ratio,
            ..self
        }
    }

    /// The most the ratio may be, in either direction.
    fn within(self, bar: f64) -> Self {
        let ratio = self.ratio.map(|ratio| ratio.max(1.0 / ratio));
        Self {
            ratio,
            bar: Some(bar),
            met: ratio.map(|ratio| ratio <= bar),
            ..self
        }
    }
}

impl Line {
    /// The least the ratio may be.
    fn at_least(self, bar: f64) -> Self {
        Self {
            bar: Some(bar),
            met: self.ratio.map(|ratio| ratio >= bar),
            ..self
        }
    }

    /// The most the ratio may be.
    fn at_most(self, bar: f64) -> Self {
        Self {
            bar: Some(bar),
            met: self.ratio.map(|ratio| ratio <= bar),
            ..self
        }
    }
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        say::note("this is a development build; measure with `cargo build --release`");
    }
    let mut printer = Printer {
        json: args.json,
        lines: Vec::new(),
    };
    let done = match args.bench {
        Bench::Kernels(args) => kernels::execute(&args, &mut printer),
        Bench::Decode(args) => decode::execute(&args, &mut printer),
        Bench::Embed(args) => embed::execute(&args, &mut printer),
        Bench::Compare(args) => compare::execute(&args, &mut printer),
        Bench::Pipeline(args) => pipeline::execute(&args, &mut printer),
        Bench::Delivery(args) => delivery::execute(&args, &mut printer),
        Bench::Faults(args) => faults::execute(&args, &mut printer),
        Bench::Plan(args) => plan::execute(&args, &mut printer),
        Bench::Lanes(args) => lanes::execute(&args, &mut printer),
        Bench::Scale(args) => scale::execute(&args, &mut printer),
        Bench::Kafka(args) => kafka::execute(&args, &mut printer),
        Bench::Listing(args) => listing::execute(&args, &mut printer),
    };
    // What was measured before something failed is worth seeing.
    printer.finish();
    done.map(|()| ExitCode::SUCCESS)
}

/// `models bench`: the bench of one network by itself, as a table.
pub(crate) fn embed_alone(args: &EmbedArgs) -> anyhow::Result<ExitCode> {
    let mut printer = Printer {
        json: false,
        lines: Vec::new(),
    };
    let done = embed::execute(args, &mut printer);
    printer.finish();
    done.map(|()| ExitCode::SUCCESS)
}

/// Where benches put their lines: at once as JSON, at the end as a table.
struct Printer {
    json: bool,
    lines: Vec<Line>,
}

impl Printer {
    fn push(&mut self, line: Line) -> anyhow::Result<()> {
        if self.json {
            say::line(serde_json::to_string(&line)?);
        } else {
            self.lines.push(line);
        }
        Ok(())
    }

    fn finish(&self) {
        if !self.lines.is_empty() {
            say::line(table(&self.lines).trim_end());
        }
    }
}

fn table(lines: &[Line]) -> String {
    let mut grid = Grid::new(&[
        ("work", Side::Left),
        ("ours", Side::Right),
        ("unit", Side::Left),
        ("peer", Side::Left),
        ("its value", Side::Right),
        ("ratio", Side::Right),
        ("bar", Side::Right),
        ("met", Side::Left),
    ]);
    let number = |value: Option<f64>| value.map_or("-".to_owned(), figure);
    for line in lines {
        grid.push(vec![
            line.work.clone(),
            figure(line.ours),
            line.unit.to_owned(),
            line.peer.clone().unwrap_or_else(|| "-".to_owned()),
            number(line.peer_value),
            number(line.ratio),
            number(line.bar),
            line.met
                .map_or("-", |met| if met { "yes" } else { "no" })
                .to_owned(),
        ]);
    }
    grid.text()
}

fn figure(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

/// Median seconds of one call of `work`, after one call that warms up: at least three calls, and for about a second.
fn seconds<E>(mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    const FEWEST: usize = 3;
    const MOST: usize = 200;
    work()?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < FEWEST || (times.len() < MOST && begun.elapsed() < Duration::from_secs(1)) {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// A seeded stream of numbers (SplitMix64: Steele, Lea and Flood 2014), the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Grey levels like a camera's: a bright spot every 64 pixels on a ramp, with noise in the low bits.
fn pixels(height: usize, width: usize, seed: u64) -> Vec<u16> {
    let mut random = Random(seed);
    let mut pixels = Vec::with_capacity(height * width);
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = ((x % 64) as i64 - 32, (y % 64) as i64 - 32);
            let spot = (900 - dx * dx - dy * dy).max(0) * 8;
            let ramp = 400 + (x + y) as i64 / 16;
            let noise = (random.next() % 64) as i64;
            pixels.push((spot + ramp + noise).clamp(0, 65535) as u16);
        }
    }
    pixels
}

/// A whole number from `least` to `most`.
fn between(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.trim().parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("it must be a whole number from {least} to {most}")),
    }
}

/// The middle value; of an even number the upper one of the two.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_have_all_nine_names_and_null_where_nothing_is_compared() {
        let line = serde_json::to_value(Line::new("kernels", "w", 2.0, "MB/s")).unwrap();
        let mut names: Vec<&String> = line.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(
            names,
            [
                "bar",
                "bench",
                "met",
                "ours",
                "peer",
                "peer_value",
                "ratio",
                "unit",
                "work"
            ]
        );
        assert!(line["peer"].is_null() && line["met"].is_null());
    }

    #[test]
    fn a_bar_holds_in_both_directions() {
        let line = |ours: f64| {
            Line::new("pipeline", "w", ours, "bytes")
                .beside("p", 100.0)
                .within(1.2)
        };
        assert_eq!(line(119.0).met, Some(true));
        assert_eq!(line(121.0).met, Some(false));
        assert_eq!(line(84.0).met, Some(true));
        assert_eq!(line(80.0).met, Some(false));
        assert_eq!(line(80.0).ratio, Some(1.25));
    }

    #[test]
    fn pixels_are_the_same_every_time_and_fit_a_camera() {
        assert_eq!(pixels(40, 70, 1), pixels(40, 70, 1));
        assert_ne!(pixels(40, 70, 1), pixels(40, 70, 2));
        assert!(
            pixels(40, 70, 1)
                .iter()
                .all(|level| (400..10_000).contains(level))
        );
    }

    #[test]
    fn tables_show_what_was_compared() {
        let lines = [Line::new("pipeline", "a", 1.0, "bytes")
            .beside("b", 2.0)
            .within(1.2)];
        let text = table(&lines);
        assert!(text.contains("no") && text.contains("2.000"), "{text}");
    }
}
