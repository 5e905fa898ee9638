//! `wellspring topics`: the topics as they are and should be, and what is on them.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use serde::Serialize;
use wellspring::kafka::admin::{Admin, Described, Difference, Wanted};
use wellspring::kafka::tail::{Start, read_to_end};
use wellspring::kafka::topics::Topic;
use wellspring::schemas::published::newest;

use super::calls::{Grid, Side};
use super::common::{KafkaArgs, parse_offset, parse_time, runtime};
use super::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wellspring topics diff --kafka kafka:9092\n  \
                  wellspring topics apply --partitions tasks=64 --retention tasks=30d --copies 3\n  \
                  wellspring topics describe --json\n  wellspring topics read dead-letters --limit 5")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create missing topics, add partitions and change settings; shows first what it will change.
    ///
    /// Nothing is deleted, and no partition is taken away. More partitions send later records of a key elsewhere: do it
    /// between runs.
    #[command(after_help = "Example:\n  wellspring topics apply --kafka kafka:9092 --retention tasks=30d")]
    Apply(Change),
    /// Show what `apply` would change. Exit code 1 where something differs.
    #[command(after_help = "Example:\n  wellspring topics diff --kafka kafka:9092 --json")]
    Diff(Change),
    /// Show the topics as they are.
    #[command(after_help = "Example:\n  wellspring topics describe --kafka kafka:9092")]
    Describe {
        /// Print one JSON line per topic.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
    /// Print the records of a topic as JSON lines, whatever they are written as.
    #[command(
        after_help = "Example:\n  wellspring topics read features --since 2026-11-23T00:00:00Z --limit 1"
    )]
    Read {
        /// The topic without its prefix, such as features.
        #[arg(value_parser = parse_topic)]
        topic: Topic,
        /// Records at most.
        #[arg(long)]
        limit: Option<u64>,
        /// Only records written at this time or later: 2026-11-22T23:15:04Z, or 2h, 3d ago.
        #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "from")]
        since: Option<u64>,
        /// Only records from this offset of this partition on; nothing of partitions that are not named.
        #[arg(long, value_name = "PARTITION:OFFSET", value_parser = parse_offset)]
        from: Vec<(i32, i64)>,
        #[command(flatten)]
        kafka: KafkaArgs,
    },
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Partitions of a topic, where more are wanted than the usual number.
    #[arg(long, value_name = "TOPIC=N", value_parser = parse_partitions)]
    partitions: Vec<(Topic, usize)>,
    /// How long a topic keeps records, such as 30d, 12h or forever. Usual: forever.
    #[arg(long, value_name = "TOPIC=TIME", value_parser = parse_retention)]
    retention: Vec<(Topic, String)>,
    /// Copies of each partition of topics that are made new. Default: the broker's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    copies: Option<i32>,
    /// Print one JSON line per difference.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    let names = || Topic::ALL.map(Topic::suffix).join(", ");
    let mut all = Topic::ALL.into_iter();
    all.find(|topic| topic.suffix() == text)
        .ok_or_else(|| format!("topics are {}", names()))
}

fn of_topic(text: &str) -> Result<(Topic, &str), String> {
    let (topic, value) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not TOPIC=VALUE"))?;
    Ok((parse_topic(topic)?, value))
}

fn parse_partitions(text: &str) -> Result<(Topic, usize), String> {
    let (topic, number) = of_topic(text)?;
    let number = number.parse().ok().filter(|n| (1..=10_000).contains(n));
    let number = number.ok_or_else(|| format!("'{text}': partitions are a number from 1 to 10000"))?;
    if matches!(topic, Topic::DeadLetters | Topic::Status) && number > 1 {
        return Err(format!(
            "topic {} has one partition, so that all read one order",
            topic.suffix()
        ));
    }
    Ok((topic, number))
}

fn parse_retention(text: &str) -> Result<(Topic, String), String> {
    let (topic, time) = of_topic(text)?;
    if time == "forever" {
        return Ok((topic, "-1".to_owned()));
    }
    let unit = |letter| match letter {
        'd' => Some(86_400_000u64),
        'h' => Some(3_600_000),
        'm' => Some(60_000),
        _ => None,
    };
    let parsed = time.chars().last().and_then(|letter| {
        let number: u64 = time[..time.len() - letter.len_utf8()].parse().ok()?;
        number
            .checked_mul(unit(letter)?)
            .filter(|ms| *ms > 0 && *ms < i64::MAX as u64)
    });
    parsed
        .map(|ms| (topic, ms.to_string()))
        .ok_or_else(|| format!("'{time}' is no time to keep records; write 30d, 12h, 90m or forever"))
}

impl Change {
    fn wanted(&self) -> Vec<Wanted> {
        let mut all: Vec<Wanted> = Topic::ALL.into_iter().map(Wanted::usual).collect();
        for wanted in &mut all {
            wanted.copies = self.copies;
            if let Some((_, number)) = self.partitions.iter().rfind(|(of, _)| *of == wanted.topic) {
                wanted.partitions = *number;
            }
            if let Some((_, time)) = self.retention.iter().rfind(|(of, _)| *of == wanted.topic) {
                wanted.settings.insert("retention.ms", time.clone());
            }
        }
        all
    }

    fn show(&self, differences: &[Difference]) -> anyhow::Result<()> {
        for difference in differences {
            if self.json {
                say::line(serde_json::to_string(difference)?);
            } else {
                say::line(difference);
            }
        }
        if differences.is_empty() && !self.json {
            say::line("all topics are as wanted");
        }
        Ok(())
    }
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Diff(change) => {
            let admin = Admin::open(&change.kafka.settings()?)?;
            let differences = runtime()?.block_on(admin.differences(&change.wanted()))?;
            change.show(&differences)?;
            Ok(ExitCode::from(u8::from(!differences.is_empty())))
        }
        Command::Apply(change) => {
            let kafka = change.kafka.settings()?;
            let (admin, runtime, wanted) = (Admin::open(&kafka)?, runtime()?, change.wanted());
            let differences = runtime.block_on(admin.differences(&wanted))?;
            change.show(&differences)?;
            for wanted in &wanted {
                let name = wanted.topic.name(&kafka.prefix);
                if differences.iter().any(|difference| difference.topic == name) {
                    runtime.block_on(admin.apply(wanted))?;
                    say::note(format_args!("{name}: done"));
                }
            }
            runtime.block_on(async { kafka.schemas.register(&kafka.prefix) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Describe { json, kafka } => describe(&kafka, json),
        Command::Read {
            topic,
            limit,
            since,
            from,
            kafka,
        } => {
            let start = match since {
                Some(since) => Start::Time(i64::try_from(since)?),
                None if from.is_empty() => Start::Beginning,
                None => Start::Offsets(from.into_iter().collect()),
            };
            read(&kafka, topic, limit.unwrap_or(u64::MAX), &start)
        }
    }
}

/// One topic as `describe` shows it.
#[derive(Serialize)]
struct Shown<'a> {
    topic: &'static str,
    exists: bool,
    #[serde(flatten)]
    described: Option<&'a Described>,
    /// Newest version of its schema.
    schema: Option<usize>,
    /// The fingerprint of that version in single-object encoding.
    fingerprint: Option<String>,
}

fn describe(kafka: &KafkaArgs, json: bool) -> anyhow::Result<ExitCode> {
    let admin = Admin::open(&kafka.settings()?)?;
    let runtime = runtime()?;
    let mut grid = Grid::new(&[
        ("topic", Side::Left),
        ("partitions", Side::Right),
        ("copies", Side::Right),
        ("records", Side::Right),
        ("cleanup", Side::Left),
        ("retention", Side::Left),
        ("schema", Side::Left),
    ]);
    let mut whole = true;
    for topic in Topic::ALL {
        let described = runtime.block_on(admin.describe(topic))?;
        let version = newest(topic)?;
        let fingerprint = version.map(|version| -> String {
            version
                .fingerprint
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        });
        whole &= described.is_some();
        if json {
            say::line(serde_json::to_string(&Shown {
                topic: topic.suffix(),
                exists: described.is_some(),
                described: described.as_ref(),
                schema: version.map(|version| version.number),
                fingerprint,
            })?);
            continue;
        }
        let schema = version.map_or("-".to_owned(), |version| {
            format!("{} v{}", topic.records().suffix(), version.number)
        });
        let Some(is) = described else {
            let missing = "-".to_owned();
            grid.push(vec![
                topic.suffix().to_owned(),
                "missing".to_owned(),
                missing.clone(),
                missing.clone(),
                missing.clone(),
                missing,
                schema,
            ]);
            continue;
        };
        let setting = |key: &str| is.settings.get(key).cloned().unwrap_or_else(|| "-".to_owned());
        grid.push(vec![
            is.name.clone(),
            is.partitions.to_string(),
            is.copies.to_string(),
            is.records.to_string(),
            setting("cleanup.policy"),
            retention(&setting("retention.ms")),
            schema,
        ]);
    }
    if !json {
        say::line(grid.text().trim_end());
    }
    Ok(ExitCode::from(u8::from(!whole)))
}

fn retention(ms: &str) -> String {
    match ms.parse::<i64>() {
        Ok(-1) => "forever".to_owned(),
        Ok(ms) if ms % 86_400_000 == 0 => format!("{} d", ms / 86_400_000),
        Ok(ms) if ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
        _ => format!("{ms} ms"),
    }
}

fn read(kafka: &KafkaArgs, topic: Topic, limit: u64, start: &Start) -> anyhow::Result<ExitCode> {
    let kafka = kafka.settings()?;
    let (mut left, mut unreadable) = (limit, 0u64);
    if left == 0 {
        bail!("--limit 0 leaves nothing to print");
    }
    read_to_end(
        &kafka,
        topic,
        start,
        |record| -> Result<ControlFlow<()>, anyhow::Error> {
            match kafka.schemas.to_json(record.topic, &record.value) {
                Ok(json) => say::line(format_args!(
                    "{{\"partition\":{},\"offset\":{},\"time_ms\":{},\"value\":{}}}",
                    record.partition,
                    record.offset,
                    record.time_ms,
                    String::from_utf8(json).map_err(|error| anyhow!(error))?
                )),
                Err(error) => {
                    unreadable += 1;
                    say::note(wellspring::error::chain(&record.unreadable(error)));
                }
            }
            left -= 1;
            Ok(if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        },
    )?;
    Ok(ExitCode::from(u8::from(unreadable > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_keep_records() {
        let ms = |text: &str| parse_retention(text).map(|(_, ms)| ms);
        assert_eq!(ms("tasks=30d").unwrap(), "2592000000");
        assert_eq!(ms("tasks=12h").unwrap(), "43200000");
        assert_eq!(ms("tasks=forever").unwrap(), "-1");
        for wrong in [
            "tasks=0d",
            "tasks=30",
            "tasks=d",
            "tasks=-1d",
            "tasks=30é",
            "task=30d",
            "30d",
            "tasks=",
        ] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
        assert!(parse_partitions("status=2").is_err());
        assert_eq!(parse_partitions("tasks=64").unwrap(), (Topic::Tasks, 64));
    }
}
