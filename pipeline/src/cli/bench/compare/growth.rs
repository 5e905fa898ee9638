//! How time and memory grow with the wells: whole `wellspring compare` runs on Parquet tables, each in a process of its
//! own.
//!
//! Monitoring is off: it keeps every plate's controls. Two plates hold the replicates of 72 compounds at four doses; the tables grow by more plates and more compounds.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use wellspring::results::{Cell, Column, ColumnKind, TableWriter};
use wellspring_workloads::words::WellPosition;

use super::input::PLATE_WELLS;
use super::limits::Limits;
use super::{Args, own_process};
use crate::cli::bench::{Line, Printer, Random};
use crate::cli::say;

/// Healthy wells of a plate, and as many diseased ones.
const CONTROLS: usize = 48;
const DOSES: [f64; 4] = [0.1, 1.0, 10.0, 100.0];
/// The most that memory may grow.
const MEMORY_BAR: f64 = 1.2;
/// The most that seconds per well may grow.
const TIME_BAR: f64 = 1.2;

const SCREEN: &str = r#"
[screen]
name = "growth"
[profiles]
[plate_map]
columns = { compound = "Metadata_compound", dose = "Metadata_dose", disease = "Metadata_disease" }
[controls]
reference = { Metadata_role = "healthy" }
phenotype = { Metadata_role = "disease" }
[comparison]
normalise = "none"
[monitor]
enabled = false
[output]
report = false
"#;

#[derive(Debug, Deserialize)]
struct Summary {
    wells: usize,
    seconds: f64,
    peak_rss_bytes: u64,
}

pub(super) fn measure(args: &Args, limits: &Limits, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    std::fs::write(folder.path().join("screen.toml"), SCREEN)?;
    let mut first: Option<Summary> = None;
    for wells in &args.growth {
        let plates = wells.div_ceil(PLATE_WELLS);
        say::note(format!("writing {plates} plates ..."));
        let table = folder.path().join("wells.parquet");
        write(&table, plates, args.features)?;
        let found = run(folder.path(), &table)?;
        std::fs::remove_file(&table)?;
        let work = format!(
            "{} wells x {} from Parquet to results",
            found.wells, args.features
        );
        let time = Line::new("compare", work.clone(), found.seconds, "s");
        let memory = Line::new(
            "compare",
            format!("peak memory, {work}"),
            found.peak_rss_bytes as f64,
            "bytes",
        );
        let bytes = (found.wells * args.features * size_of::<f32>()) as f64;
        printer.push(limits.moved(&format!("{work}, values read"), bytes, found.seconds))?;
        let Some(first) = &first else {
            printer.push(time)?;
            printer.push(memory)?;
            first = Some(found);
            continue;
        };
        let rate = |summary: &Summary| summary.seconds / summary.wells as f64 * 1e6;
        printer.push(time)?;
        printer.push(
            Line::new("compare", format!("time per well, {work}"), rate(&found), "us")
                .beside(format!("{} wells", first.wells), rate(first))
                .at_most(TIME_BAR),
        )?;
        printer.push(
            memory
                .beside(format!("{} wells", first.wells), first.peak_rss_bytes as f64)
                .at_most(MEMORY_BAR),
        )?;
    }
    Ok(())
}

fn run(folder: &Path, table: &Path) -> anyhow::Result<Summary> {
    let (screen, out) = (folder.join("screen.toml"), folder.join("out"));
    let paths = [
        OsStr::new("--screen"),
        screen.as_ref(),
        "--out".as_ref(),
        out.as_ref(),
    ];
    let start = ["compare", "--json"].map(OsStr::new);
    let said = own_process(
        start
            .into_iter()
            .chain(paths)
            .chain(["--features".as_ref(), table.as_ref()]),
    )?;
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).context("the comparison gave no result; see its messages above")
}

/// Wells on an axis with noise; a quarter of the compounds bring the disease back as the dose rises.
fn write(path: &Path, plates: usize, features: usize) -> anyhow::Result<()> {
    let text = |name: &str| Column::required(name, ColumnKind::Text);
    let columns = vec![
        text("Metadata_Plate"),
        text("Metadata_Well"),
        text("Metadata_role"),
        text("Metadata_disease"),
        text("Metadata_compound"),
        text("Metadata_dose"),
    ];
    let names: Vec<String> = (0..features).map(|i| format!("e_{i}")).collect();
    let mut table = TableWriter::create(path, columns, &names, &[])?;
    let mut random = Random(17);
    let axis: Vec<f32> = (0..features).map(|_| noise(&mut random)).collect();
    let mut values = vec![0.0; features];
    for plate in 0..plates {
        let barcode = format!("G{plate:05}");
        for index in 0..PLATE_WELLS {
            let well = WellPosition::new((index / 24 + 1) as u8, (index % 24 + 1) as u8)
                .context("a plate of 384 wells has 16 rows of 24")?;
            let treated = index.checked_sub(2 * CONTROLS);
            let (role, disease, compound, dose, place) = match treated {
                None if index < CONTROLS => ("healthy", "", "DMSO".to_owned(), String::new(), 0.0),
                None => ("disease", "model", "DMSO".to_owned(), String::new(), 1.0),
                Some(treated) => {
                    let number = plate / 2 * 72 + treated / DOSES.len();
                    let dose = DOSES[treated % DOSES.len()];
                    let place = if number.is_multiple_of(4) {
                        1.0 / (1.0 + dose)
                    } else {
                        1.0
                    };
                    (
                        "treated",
                        "model",
                        format!("C{number:06}"),
                        dose.to_string(),
                        place,
                    )
                }
            };
            for (value, along) in values.iter_mut().zip(&axis) {
                *value = along * place as f32 + noise(&mut random);
            }
            let well = well.to_string();
            let cells = [&barcode, &well, role, disease, &compound, &dose].map(Cell::Text);
            table.push(&cells, &values)?;
        }
    }
    table.finish()?;
    Ok(())
}

/// From -1 to 1.
fn noise(random: &mut Random) -> f32 {
    let bits = random.next();
    let half = |bits: u64| (bits & 0xff_ffff) as f32 / 16_777_216.0;
    half(bits) - half(bits >> 32)
}
