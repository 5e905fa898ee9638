//! `wellspring compare`: the comparison by itself, on features made here or elsewhere.
//!
//! Feature tables, a screen file and a plate map enter; comparisons, a report and a summary leave. The numbers are
//! those that `wellspring run` writes for the same features and screen. Fails where tables contradict each other or
//! nothing can be compared.

mod inputs;
mod join;
mod left_out;
mod read_as;
mod tables;
mod treatments;
mod wells;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use serde::Serialize;
use wellspring::compare::{Planned, Profiled, Shown, compare_plates};
use wellspring::drift::Watch;
use wellspring::report::{ReportInput, RunFacts, render};
use wellspring::results::{AtomicFile, FeatureTable, Provenance, write_json};
use wellspring::transforms::read_transform;
use wellspring::{memory, scratch};
use wellspring_workloads::compare::NoteKind;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use super::{calls, say};
pub(crate) use inputs::Inputs;
use inputs::{Judged, Opened};
use left_out::LeftOut;
use read_as::ReadAs;
use wells::PlateWells;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring compare --features out/demo/features.parquet --screen demo/screen.toml --out again\n  \
                  wellspring compare --features *.csv.gz --platemap map.csv --screen screen.toml --out out\n  \
                  wellspring compare --features embeddings.parquet --metadata metadata.csv --screen screen.toml --out out\n\n\
                  Tables: Parquet, CSV or TSV, gzipped or not, one row per well, field or cell; the rows of a well are \
                  averaged. A feature missing in more than 5 % of the rows is dropped, then rows that miss one. Exit 1: compared, but some plates or rows had to be left out."
)]
pub(crate) struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Folder of the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Align with this file, an alignment of earlier plates (`transforms/*.json`), instead of fitting one.
    #[arg(long, value_name = "FILE")]
    transform: Option<PathBuf>,
    /// End with one JSON line on standard output instead of the table of calls.
    #[arg(long)]
    json: bool,
}

/// `run.json` of a comparison, and what `--json` prints.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    screen: &'a str,
    run: &'a str,
    plates: usize,
    wells: usize,
    rows_read: u64,
    rows_left_out: u64,
    features: usize,
    comparisons: usize,
    seconds: f64,
    peak_rss_bytes: u64,
    out: &'a Path,
}

#[derive(Debug, Serialize)]
struct RunFile<'a> {
    #[serde(flatten)]
    summary: &'a Summary<'a>,
    provenance: &'a Provenance,
    version: &'static str,
    tables: &'a [PathBuf],
    columns: &'a ReadAs,
    notes: &'a [String],
    definition: &'a Screen,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    memory::return_large_blocks();
    let screen = args.inputs.screen()?;
    let named = args.transform.as_ref().map(|path| path.to_string_lossy());
    let earlier = read_transform(named.as_deref().unwrap_or(&screen.comparison.transform))?;
    refuse_a_runs_folder(&args.out)?;
    let out = &args.out;
    let opened = args.inputs.open(screen, out)?;
    // Blocks of rows were the largest of all that is held.
    memory::give_back_free();
    let read_as = ReadAs::new(&opened.screen, &opened.tables, &opened.treatments);
    say::note(read_as.line());
    let Judged {
        watch: drift,
        mut planned,
        mut left_out,
        rows_left_out,
        mut provenance,
    } = opened.judge()?;
    left_out.extend(drift.left_out.iter().cloned());
    let Opened {
        screen,
        treatments,
        tables,
    } = opened;
    if planned.wells == 0 {
        bail!("no well of the tables can be compared:\n{}", left_out.join("\n"));
    }
    // What a plate leaves out was told when it was planned.
    let read = |plate: &Barcode| {
        PlateWells::plan(&screen, &tables, &treatments, plate, &mut LeftOut::default())?.profiles(&tables)
    };
    let shown = compare_plates(
        &planned.design()?,
        &screen.comparison,
        Profiled {
            features: &tables.features,
            earlier,
        },
        read,
        None,
        &mut provenance,
        out,
    )?;
    drift.write(out, &provenance)?;
    let comparison = &shown.comparison;
    let summary = Summary {
        screen: screen.name.as_str(),
        run: &provenance.run,
        plates: planned.plates,
        wells: planned.wells,
        rows_read: tables.rows_read,
        rows_left_out,
        features: tables.features.len(),
        comparisons: shown.rows,
        seconds: started.elapsed().as_secs_f64(),
        peak_rss_bytes: memory::peak_rss_bytes(),
        out,
    };
    if screen.output.report {
        write_report(
            &screen,
            &shown,
            &planned,
            &left_out,
            &drift,
            &summary,
            &provenance,
        )?;
    }
    let notes: Vec<String> = left_out
        .iter()
        .cloned()
        .chain(drift.notes.iter().cloned())
        .chain(read_as.doubts())
        .chain(comparison.notes.iter().map(|note| note.text.clone()))
        .collect();
    let file = RunFile {
        summary: &summary,
        provenance: &provenance,
        version: env!("CARGO_PKG_VERSION"),
        tables: &args.inputs.features,
        columns: &read_as,
        notes: &notes,
        definition: &screen,
    };
    write_json(&out.join("run.json"), &file)?;
    for note in &notes {
        say::note(format!("note: {note}"));
    }
    if args.json {
        say::line(serde_json::to_string(&summary)?);
    } else {
        say::line(calls::table(comparison));
        if screen.output.report {
            say::line(format!("report: {}", out.join("report.html").display()));
        }
    }
    let not_scored = comparison.notes.iter().any(|note| {
        matches!(
            note.kind,
            NoteKind::NoAxis | NoteKind::NoReference | NoteKind::NoPhenotype
        )
    });
    Ok(if left_out.is_empty() && !not_scored {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A run's results carry tables and images that a comparison cannot write again: they are never mixed.
fn refuse_a_runs_folder(out: &Path) -> anyhow::Result<()> {
    if out.join(FeatureTable::FILE).exists() {
        bail!(
            "'{}' holds the results of a run; give another folder with --out",
            out.display()
        );
    }
    Ok(())
}

fn write_report(
    screen: &Screen,
    shown: &Shown,
    planned: &Planned,
    left_out: &[String],
    drift: &Watch,
    summary: &Summary<'_>,
    provenance: &Provenance,
) -> anyhow::Result<()> {
    let facts = RunFacts {
        provenance: provenance.clone(),
        description: screen.description.clone(),
        finished: wellspring::clock::rfc3339_now(),
        seconds: summary.seconds,
        plates: planned.plates as u64,
        wells: planned.mapped_wells as u64,
        fields_expected: summary.rows_read,
        fields_done: summary.rows_read - summary.rows_left_out,
        fields_failed: summary.rows_left_out,
        dead_letters: 0,
        device: "none: features were read from tables".to_owned(),
        engine: "none: features were read from tables".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        more: left_out
            .iter()
            .map(|text| ("left out".to_owned(), text.clone()))
            .chain(shown.beyond.iter().map(|text| ("shown".to_owned(), text.clone())))
            .collect(),
    };
    let page = render(&ReportInput {
        run: &facts,
        comparison: Some(&shown.comparison),
        comparison_failed: None,
        drift: drift.report.as_ref(),
        replicates: Some(shown.replicates),
        matrix: shown.matrix.as_ref(),
        question: screen.comparison.question,
        dose_unit: &screen.comparison.dose_unit,
        plates: &planned.facts,
        dead_letters: &[],
        quality_flags: &[],
        montage: None,
    })?;
    AtomicFile::write(&summary.out.join("report.html"), page.as_bytes())?;
    Ok(())
}
