//! `wellspring status`: how far the runs are, what waits in the lanes and how fast it goes, and what failed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;
use wellspring::clock::now_ms;
use wellspring::dead_letters::subject;
use wellspring::kafka::KafkaFailure;
use wellspring::kafka::backlog::{Backlog, Reached, Standing};
use wellspring::kafka::topics::Urgency;
use wellspring::plates::RunState;
use wellspring::resolve::{StoredLetter, read_letters};
use wellspring::retries::{Waiting, waiting};

use super::calls::{Grid, Side};
use super::common::{KafkaArgs, end_requested, runtime};
use super::overview::Overview;
use super::runs::Line;
use super::say;

/// Between the two looks that a rate needs, where only one is asked for.
const GLANCE: Duration = Duration::from_secs(2);
/// Lines of failures in a table.
const MOST_FAILURES: usize = 20;
/// Characters of an error in a table.
const MOST_OF_ERROR: usize = 120;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring status --kafka kafka:9092\n  wellspring status --watch 5 --kafka kafka:9092"
)]
pub(crate) struct Args {
    /// Look again every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    /// Also runs that have ended.
    #[arg(long)]
    all: bool,
    /// One JSON object per look.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What one look found.
#[derive(Serialize)]
struct Look<'a> {
    lanes: Vec<Lane>,
    runs: Vec<Line<'a>>,
    retries: Vec<Waiting>,
    failures: Vec<Failure>,
}

/// The tasks of a lane.
#[derive(Serialize)]
struct Lane {
    lane: Urgency,
    /// Fields.
    waiting: u64,
    /// Since the look before.
    fields_per_second: f64,
    /// Until nothing waits, if it goes on like this.
    seconds_left: Option<f64>,
}

/// Open dead letters of one kind.
#[derive(Serialize)]
struct Failure {
    run: Option<String>,
    plate: Option<String>,
    class: String,
    letters: usize,
    /// What one of them is about.
    example: String,
}

pub(crate) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let kafka = args.kafka.settings()?;
    let runtime = runtime()?;
    let end = end_requested(&runtime)?;
    let backlogs = Urgency::ALL
        .into_iter()
        .map(|lane| {
            let backlog = Backlog::open(&kafka, lane.tasks(), lane.worker())?;
            Ok((lane, backlog, Reached::default()))
        })
        .collect::<Result<Vec<_>, KafkaFailure>>();
    let mut backlogs = backlogs?;
    let mut looks = || -> Result<Vec<(Urgency, Standing)>, KafkaFailure> {
        let looks = backlogs.iter_mut();
        looks
            .map(|(lane, backlog, reached)| Ok((*lane, backlog.since(reached, |_| {})?)))
            .collect()
    };
    looks()?;
    let mut at = Instant::now();
    loop {
        let next = at + args.watch.map_or(GLANCE, Duration::from_secs);
        while !end.is_finished() && Instant::now() < next {
            std::thread::sleep(Duration::from_millis(50).min(next.saturating_duration_since(Instant::now())));
        }
        if end.is_finished() {
            return Ok(ExitCode::SUCCESS);
        }
        let (now, seconds) = (looks()?, at.elapsed().as_secs_f64());
        at = Instant::now();
        let lanes = now
            .into_iter()
            .map(|(lane, standing)| Lane::after(seconds, lane, standing))
            .collect();
        let letters = read_letters(&kafka)?;
        let all = Overview::with(&kafka, &letters)?;
        let look = Look {
            lanes,
            runs: runs(&all, args.all),
            retries: waiting(&kafka)?,
            failures: failures(&letters),
        };
        if args.json {
            say::line(serde_json::to_string(&look)?);
        } else {
            look.print();
        }
        if args.watch.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

impl Lane {
    fn after(seconds: f64, lane: Urgency, Standing { answered, waiting }: Standing) -> Self {
        let fields_per_second = answered as f64 / seconds.max(1e-9);
        Self {
            lane,
            waiting,
            fields_per_second,
            seconds_left: (waiting == 0 || fields_per_second > 0.0)
                .then(|| waiting as f64 / fields_per_second.max(1e-9)),
        }
    }
}

fn runs(all: &Overview, ended: bool) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = all
        .board
        .runs()
        .filter(|(_, known)| ended || matches!(known.state(), RunState::Open | RunState::Paused))
        .map(|(run, known)| Line::of(all, run, known))
        .collect();
    lines.sort_by_key(Line::submitted_ms);
    lines
}

/// Most letters first.
fn failures(letters: &[StoredLetter]) -> Vec<Failure> {
    let mut found: BTreeMap<_, Failure> = BTreeMap::new();
    for stored in letters {
        if stored.resolved.is_some() {
            continue;
        }
        let letter = &stored.letter;
        let kind = (letter.run.clone(), letter.plate.clone(), letter.class);
        let failure = found.entry(kind).or_insert_with(|| Failure {
            run: letter.run.clone(),
            plate: letter.plate.as_ref().map(ToString::to_string),
            class: letter.class.to_string(),
            letters: 0,
            example: format!("{}: {}", subject(letter), letter.message),
        });
        failure.letters += 1;
    }
    let mut failures: Vec<Failure> = found.into_values().collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.letters));
    failures
}

impl Look<'_> {
    fn print(&self) {
        let mut grid = Grid::new(&[
            ("lane", Side::Left),
            ("fields waiting", Side::Right),
            ("fields/s", Side::Right),
            ("time left", Side::Right),
        ]);
        for lane in &self.lanes {
            grid.push(vec![
                match lane.lane {
                    Urgency::Live => "live".to_owned(),
                    Urgency::Batch => "batch".to_owned(),
                },
                lane.waiting.to_string(),
                format!("{:.1}", lane.fields_per_second),
                lane.seconds_left.map_or("-".to_owned(), duration),
            ]);
        }
        say::line(grid.text().trim_end());
        if !self.runs.is_empty() {
            let mut grid = Grid::new(&[
                ("run", Side::Left),
                ("state", Side::Left),
                ("plates", Side::Right),
                ("planned", Side::Right),
                ("profiled", Side::Right),
                ("held back", Side::Right),
                ("fields planned", Side::Right),
                ("done", Side::Right),
                ("dead letters", Side::Right),
            ]);
            for run in &self.runs {
                grid.push(run.cells());
            }
            say::line(grid.text().trim_end());
        }
        if !self.retries.is_empty() {
            let mut grid = Grid::new(&[
                ("waiting", Side::Right),
                ("tried again in", Side::Right),
                ("plate", Side::Left),
                ("run", Side::Left),
                ("because", Side::Left),
            ]);
            for waiting in self.retries.iter().take(MOST_FAILURES) {
                grid.push(waits(waiting, now_ms()));
            }
            say::line(grid.text().trim_end());
            tell_more(self.retries.len());
        }
        if !self.failures.is_empty() {
            let mut grid = Grid::new(&[
                ("dead letters", Side::Right),
                ("class", Side::Left),
                ("plate", Side::Left),
                ("run", Side::Left),
            ]);
            for failure in self.failures.iter().take(MOST_FAILURES) {
                let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                grid.push(vec![
                    failure.letters.to_string(),
                    failure.class.clone(),
                    or_none(&failure.plate),
                    or_none(&failure.run),
                ]);
            }
            say::line(grid.text().trim_end());
            tell_more(self.failures.len());
        }
    }
}

fn tell_more(kinds: usize) {
    if let Some(more @ 1..) = kinds.checked_sub(MOST_FAILURES) {
        say::line(format_args!("  and {more} more kinds"));
    }
}

/// What waits for the same reason, in a line.
fn waits(waiting: &Waiting, now_ms: u64) -> Vec<String> {
    let left = |due_ms: u64| duration(due_ms.saturating_sub(now_ms) as f64 / 1_000.0);
    let (first, last) = (left(waiting.first_ms), left(waiting.last_ms));
    let because = match (&waiting.class, &waiting.error) {
        (None, _) => "paused".to_owned(),
        (Some(class), None) => class.clone(),
        (Some(class), Some(error)) => format!("{class}: {error}"),
    };
    vec![
        waiting.records.to_string(),
        if first == last {
            first
        } else {
            format!("{first} to {last}")
        },
        waiting.plate.as_ref().map_or("-".to_owned(), ToString::to_string),
        waiting.run.clone().unwrap_or_else(|| "-".to_owned()),
        because.chars().take(MOST_OF_ERROR).collect(),
    ]
}

/// A time in the two units that matter.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..172_800 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_what_is_left() {
        let standing = |answered, waiting| Standing { answered, waiting };
        let lane = Lane::after(2.0, Urgency::Live, standing(20, 70));
        assert_eq!((lane.fields_per_second, lane.seconds_left), (10.0, Some(7.0)));
        let stuck = Lane::after(2.0, Urgency::Live, standing(0, 9));
        assert_eq!(stuck.seconds_left, None);
        let idle = Lane::after(2.0, Urgency::Batch, standing(0, 0));
        assert_eq!(idle.seconds_left, Some(0.0));
        assert_eq!(
            [59.6, 3_599.0, 7_260.0, 200_000.0].map(duration),
            ["1 min 0 s", "59 min 59 s", "2 h 1 min", "2 days"]
        );
    }
}
