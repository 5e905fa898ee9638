//! `wellspring dead-letters`: what failed for good; look at it, try it again, or say that it stands.

use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use wellspring::clock::rfc3339;
use wellspring::dead_letters::{original, subject};
use wellspring::error::FailureClass;
use wellspring::events::{DeadLetter, LetterAction};
use wellspring::kafka::topics::Topic;
use wellspring::resolve::{Filter, StoredLetter, read_letters, resolve};
use wellspring_workloads::words::{Barcode, WellPosition};

use super::common::{KafkaArgs, parse_time};
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  wellspring dead-letters list --class network --since 2h --kafka kafka:9092"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what failed for good and was not dealt with yet, oldest first.
    #[command(
        after_help = "Example:\n  wellspring dead-letters list --plate BR00117006 --json --kafka kafka:9092"
    )]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Also those that were tried again or discarded.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show letters whole: reason, place, attempts, worker, and the original record.
    #[command(after_help = "Example:\n  wellspring dead-letters show 5f3a --kafka kafka:9092")]
    Show {
        /// Ids, or beginnings of ids.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Publish the original records again, each once: when the reason is gone, the fields are done and the run's
    /// results are made anew.
    #[command(
        after_help = "Example:\n  wellspring dead-letters retry --class network --class throttled --kafka kafka:9092\n\n\
        Exit code 1: some of them cannot be tried again, or no letter has an id that was given; the reason is told."
    )]
    Retry(ResolveArgs),
    /// Say that failures stand: they are not listed any more.
    #[command(
        after_help = "Example:\n  wellspring dead-letters discard --well B03 --plate BR00117006 --kafka kafka:9092"
    )]
    Discard(ResolveArgs),
}

#[derive(Debug, clap::Args)]
struct ResolveArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Every letter that is open; without it some filter must be given.
    #[arg(long)]
    all: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Ids, or beginnings of ids.
    ids: Vec<String>,
    /// Of this class: bad_event, missing_image, bad_image, bad_metadata, plate_map, network, throttled, out_of_memory, device,
    /// access, model, configuration, external, poison or internal. May be given several times.
    #[arg(long, value_name = "CLASS", value_parser = parse_class)]
    class: Vec<FailureClass>,
    /// Of this run.
    #[arg(long)]
    run: Option<String>,
    /// Of this plate.
    #[arg(long)]
    plate: Option<Barcode>,
    /// Of this well.
    #[arg(long)]
    well: Option<WellPosition>,
    /// Of this field of view.
    #[arg(long)]
    field: Option<u32>,
    /// Not before: 90s, 15m, 2h or 3d ago, or a date such as 2026-11-22 or 2026-11-22T23:15:04Z.
    #[arg(long, value_name = "WHEN", value_parser = parse_time)]
    since: Option<u64>,
    /// Before: as --since.
    #[arg(long, value_name = "WHEN", value_parser = parse_time)]
    until: Option<u64>,
}

fn parse_class(word: &str) -> Result<FailureClass, String> {
    FailureClass::from_word(word).ok_or_else(|| {
        let classes = FailureClass::ALL.map(|class| class.to_string());
        format!("classes are {}", classes.join(", "))
    })
}

impl FilterArgs {
    fn filter(self) -> Filter {
        Filter {
            ids: self.ids,
            classes: self.class,
            run: self.run,
            plate: self.plate,
            well: self.well,
            field: self.field,
            since_ms: self.since,
            until_ms: self.until,
        }
    }
}

/// A letter as `--json` prints it.
#[derive(Serialize)]
struct Line<'a> {
    offset: i64,
    resolved: Option<LetterAction>,
    #[serde(flatten)]
    letter: &'a DeadLetter,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { filter, all, output } => {
            let filter = filter.filter();
            for stored in read_letters(&output.kafka.settings()?)? {
                if filter.takes(&stored.letter) && (all || stored.resolved.is_none()) {
                    print(&stored, output.json, None)?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { ids, output } => show(ids, &output),
        Command::Retry(args) => deal_with(args, LetterAction::Retried),
        Command::Discard(args) => deal_with(args, LetterAction::Discarded),
    }
}

fn deal_with(args: ResolveArgs, action: LetterAction) -> anyhow::Result<ExitCode> {
    let filter = args.filter.filter();
    if filter == Filter::default() && !args.all {
        bail!(
            "say which letters are meant, by id, --class, --run, --plate, --well, --field, --since or --until; or --all"
        );
    }
    let resolution = resolve(&args.output.kafka.settings()?, &filter, action, args.dry_run)?;
    for stored in &resolution.done {
        let resolved = (!args.dry_run).then_some(action);
        let stored = StoredLetter {
            resolved,
            ..stored.clone()
        };
        print(&stored, args.output.json, None)?;
    }
    for (stored, reason) in &resolution.left {
        print(stored, args.output.json, Some(reason))?;
    }
    let done = match (action, args.dry_run) {
        (LetterAction::Retried, false) => "are tried again",
        (LetterAction::Retried, true) => "would be tried again",
        (LetterAction::Discarded, false) => "are discarded",
        (LetterAction::Discarded, true) => "would be discarded",
    };
    for stored in &resolution.before {
        let was = match stored.resolved {
            Some(LetterAction::Discarded) => "discarded",
            _ => "tried again",
        };
        say::note(format_args!("{} was {was} before", stored.letter.id));
    }
    match resolution.done.len() {
        1 => say::note(format_args!("1 letter {}", done.replacen("are", "is", 1))),
        count => say::note(format_args!("{count} letters {done}")),
    }
    if !resolution.left.is_empty() {
        say::note(format_args!("{} cannot be", resolution.left.len()));
    }
    for id in &resolution.unknown {
        say::note(format_args!(
            "no letter has the id '{id}'; `wellspring dead-letters list --all` shows all of them"
        ));
    }
    let whole = resolution.left.is_empty() && resolution.unknown.is_empty();
    Ok(ExitCode::from(u8::from(!whole)))
}

fn show(ids: Vec<String>, output: &Output) -> anyhow::Result<ExitCode> {
    let filter = Filter {
        ids,
        ..Filter::default()
    };
    let kafka = output.kafka.settings()?;
    let letters = read_letters(&kafka)?;
    let mut found = false;
    for stored in letters.iter().filter(|stored| filter.takes(&stored.letter)) {
        found = true;
        if output.json {
            print(stored, true, None)?;
            continue;
        }
        let letter = &stored.letter;
        let origin = &letter.origin;
        let resolved = match stored.resolved {
            None => "open",
            Some(LetterAction::Retried) => "tried again",
            Some(LetterAction::Discarded) => "discarded",
        };
        let mut bytes = original(letter);
        // Avro as JSON, where it can be read.
        if let (Some(bytes), Some(topic)) = (&mut bytes, Topic::from_name(&kafka.prefix, &origin.topic))
            && let Ok(json) = kafka.schemas.to_json(topic, bytes)
        {
            *bytes = json;
        }
        let text = match bytes.as_deref().map(std::str::from_utf8) {
            Some(Ok(text)) => text.to_owned(),
            Some(Err(_)) => format!(
                "{} bytes that are not UTF-8; --json has them in base64",
                letter.original_bytes
            ),
            None => format!("{} bytes; too large to be kept whole", letter.original_bytes),
        };
        let rows = [
            ("id", letter.id.clone()),
            ("state", resolved.to_owned()),
            ("time", rfc3339(letter.time_ms)),
            ("about", subject(letter)),
            ("run", letter.run.clone().unwrap_or_default()),
            ("stage", letter.stage.to_string()),
            ("class", letter.class.to_string()),
            ("fields lost", letter.fields_lost.to_string()),
            ("attempt", letter.attempt.to_string()),
            ("worker", letter.worker.clone()),
            ("message", letter.message.clone()),
            match letter.step {
                Some(_) => ("request", text),
                None => ("original", text),
            },
            (
                "from",
                match letter.step {
                    Some(_) => "the collector, when it made the run's results".to_owned(),
                    None => format!(
                        "{} partition {} offset {}",
                        origin.topic, origin.partition, origin.offset
                    ),
                },
            ),
        ];
        for (name, value) in rows {
            say::line(format_args!("{name:<12}{value}"));
        }
        say::line("");
    }
    if !found {
        bail!("no letter has such an id; `wellspring dead-letters list --all` shows all of them");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(stored: &StoredLetter, json: bool, reason: Option<&'static str>) -> anyhow::Result<()> {
    let letter = &stored.letter;
    if json {
        let line = Line {
            offset: stored.offset,
            resolved: stored.resolved,
            letter,
            reason,
        };
        say::line(serde_json::to_string(&line)?);
        return Ok(());
    }
    say::line(format_args!(
        "{}\t{}\t{}\t{}\t{}\t{}",
        letter.id,
        rfc3339(letter.time_ms),
        letter.class,
        letter.stage,
        subject(letter),
        reason.unwrap_or(&letter.message)
    ));
    Ok(())
}
