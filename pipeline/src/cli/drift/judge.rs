//! `wellspring drift judge`: the controls of plates that are in tables, made here or elsewhere, without a comparison.
//!
//! Tables, a screen file with its controls, and what each well was given enter, as for `wellspring compare`; a line per
//! plate, `drift.parquet` and `drift-reference.json` leave. Fails where tables or reference cannot be used, and where there
//! are too few plates to judge by.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use wellspring_workloads::monitor::{Level, PlateDrift};
use wellspring_workloads::words::Barcode;

use super::super::compare::Inputs;
use super::super::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Folder of the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// One JSON line per plate instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    plate: &'a Barcode,
    level: Level,
    reason: &'a str,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let mut opened = args.inputs.open(args.inputs.screen()?, &args.out)?;
    // Asked for by name: it is done, whatever the screen says of comparisons.
    opened.screen.monitor.enabled = true;
    let all = opened.judge()?;
    let watch = &all.watch;
    for text in &all.left_out {
        say::note(format!("note: {text}"));
    }
    let Some(report) = &watch.report else {
        let plates = all.planned.plates;
        let needed = opened.screen.monitor.reference_plates;
        let notes = watch.notes.join("; ");
        bail!(
            "nothing can be judged: the tables have {plates} plates, of which the first {needed} with enough controls are \
             the reference; name one with [monitor] reference = \"drift-reference.json\"{}{notes}",
            if notes.is_empty() { "" } else { ": " }
        );
    };
    watch.write(&args.out, &all.provenance)?;
    let width = report
        .plates
        .iter()
        .map(|row| row.plate.as_str().len())
        .max()
        .unwrap_or(0);
    for PlateDrift {
        plate, level, reason, ..
    } in &report.plates
    {
        let level = *level;
        say::line(if args.json {
            serde_json::to_string(&Line { plate, level, reason })?
        } else {
            format!("{plate:width$}  {:13}  {reason}", level.as_str())
                .trim_end()
                .to_owned()
        });
    }
    let alert = report.plates.iter().any(|row| row.level == Level::Alert);
    Ok(if alert || !all.left_out.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
