//! The headline: 10,000 compounds at four doses against 500 disease models, all cosines and rescues with p and q.
//!
//! A made-up screen enters plate by plate, seconds and the peak of memory leave. The peak is that of the process: give
//! `--areas signatures` alone for it to mean this work.

use std::fs::File;

use anyhow::Context;
use wellspring::memory::peak_rss_bytes;
use wellspring::results::{Provenance, SignatureTable};
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::signature::{
    RankBy, SignatureColumn, SignatureError, SignatureGatherer, SignatureScreen, SignatureSettings,
    TopMatches, score,
};
use wellspring_workloads::words::{Barcode, WellPosition};

use super::Args;
use super::limits::{Limits, product_rate};
use crate::cli::bench::{Line, Printer, Random};

/// Disease models, one plate each.
const MODELS: usize = 500;
/// Compounds of the screen.
const COMPOUNDS: usize = 10_000;
/// Doses of a compound, each in two wells of its plate.
const DOSES: [f64; 4] = [0.1, 0.3, 1.0, 3.0];
/// Healthy control wells of a plate, and as many of its disease.
const CONTROLS: usize = 32;
/// Most seconds, and most bytes, of the headline (issue 7).
const BAR_SECONDS: f64 = 60.0;
const BAR_BYTES: f64 = 2e9;

/// On what cells the compounds are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cells {
    /// Every compound on one of the models: 500 kinds of null.
    Diseased,
    /// Every compound on healthy cells: one kind of null.
    Healthy,
}

pub(super) fn measure(args: &Args, limits: &Limits, printer: &mut Printer) -> anyhow::Result<()> {
    for (cells, name) in [
        (Cells::Healthy, "compounds on healthy cells"),
        (Cells::Diseased, "each compound on one model"),
    ] {
        let started = std::time::Instant::now();
        let mut screen = gather(cells, args.features)?;
        let gathered = started.elapsed().as_secs_f64();
        let settings = SignatureSettings::default();
        let effects = screen.effects.len();
        let work = format!(
            "{effects} effects x {MODELS} disease models x {}, {name}",
            args.features
        );
        let started = std::time::Instant::now();
        let mut top = TopMatches::new(&screen.effects, RankBy::Reversal, 10);
        let mut scores = 0usize;
        score(&mut screen, &settings, |column: &SignatureColumn| {
            top.take(column);
            scores += column.q_rescue.len();
            Ok::<(), SignatureError>(())
        })?;
        let time = started.elapsed().as_secs_f64();
        printer.push(Line::new(
            "compare",
            format!("gather {effects} effects from plates, {name}"),
            gathered,
            "s",
        ))?;
        printer.push(
            Line::new(
                "compare",
                format!("cosine, rescue, p and q: {work}, {scores} scores"),
                time,
                "s",
            )
            .beside("the bar", BAR_SECONDS)
            .at_most(1.0),
        )?;
        let operations = 2.0 * (effects * MODELS * args.features) as f64;
        printer.push(limits.products(&format!("cosine, rescue, p and q: {work}"), operations, time))?;
        if cells == Cells::Healthy {
            let vectors = screen.effect_vectors.read(0..effects)?;
            let alone = product_rate(&vectors, &screen.signature_vectors);
            let work = format!("{effects} effects and {MODELS} signatures alone");
            printer.push(limits.products(&work, alone, 1.0))?;
            drop(vectors);
            write(&mut screen, printer)?;
        }
    }
    printer.push(
        Line::new(
            "compare",
            "peak memory of the process so far",
            peak_rss_bytes() as f64,
            "bytes",
        )
        .beside("the bar", BAR_BYTES)
        .at_most(1.0),
    )
}

/// The same scores once more, into `signatures.parquet`, as `wellspring compare` writes them.
fn write(screen: &mut SignatureScreen<File>, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let provenance = Provenance {
        screen: "bench".to_owned(),
        run: "bench".to_owned(),
        screen_sha256: String::new(),
        model: String::new(),
        model_sha256: String::new(),
        seed: 0,
        transform_sha256: None,
    };
    let started = std::time::Instant::now();
    let mut table = SignatureTable::create(folder.path(), screen, "uM", &provenance)?;
    score(
        screen,
        &SignatureSettings::default(),
        |column: &SignatureColumn| table.push(column).map_err(anyhow::Error::from),
    )?;
    let rows = table.finish()?;
    let time = started.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(folder.path().join(SignatureTable::FILE))?.len();
    printer.push(
        Line::new(
            "compare",
            format!("the same, written as {rows} rows of signatures.parquet"),
            time,
            "s",
        )
        .beside("the bar", BAR_SECONDS)
        .at_most(1.0),
    )?;
    printer.push(Line::new("compare", "signatures.parquet", bytes as f64, "bytes"))
}

/// One plate per model, with its share of the compounds.
fn gather(cells: Cells, features: usize) -> anyhow::Result<SignatureScreen<File>> {
    let mut random = Random(500);
    let mut gatherer = SignatureGatherer::new(&SignatureSettings::default(), tempfile::tempfile()?)?;
    let per_plate = COMPOUNDS / MODELS;
    for model in 0..MODELS {
        let disease = format!("model-{model:03}");
        let axis: Vec<f32> = (0..features).map(|_| random.unit() as f32 - 0.5).collect();
        let mut treatments = Vec::new();
        let treatment = |role, disease: Option<&str>, compound: Option<String>, dose| Treatment {
            role,
            disease: disease.map(str::to_owned),
            compound,
            dose,
        };
        treatments.extend((0..CONTROLS).map(|_| treatment(Role::Reference, None, None, None)));
        treatments.extend((0..CONTROLS).map(|_| treatment(Role::Phenotype, Some(&disease), None, None)));
        let given = (cells == Cells::Diseased).then_some(disease.as_str());
        for compound in 0..per_plate {
            for dose in DOSES {
                let name = format!("C{:05}", model * per_plate + compound);
                let well = treatment(Role::Treated, given, Some(name), Some(dose));
                treatments.extend([well.clone(), well]);
            }
        }
        let mut rows = FeatureMatrix::zeros(treatments.len(), features);
        let mut wells = Vec::with_capacity(treatments.len());
        for (index, treatment) in treatments.iter().enumerate() {
            let position = WellPosition::new((index / 24 + 1) as u8, (index % 24 + 1) as u8)
                .context("a plate has up to 32 rows of 48")?;
            wells.push((position, treatment));
            let ill = f32::from(u8::from(treatment.disease.is_some()));
            for (value, axis) in rows.row_mut(index).iter_mut().zip(&axis) {
                *value = ill * axis + random.unit() as f32 + random.unit() as f32 - 1.0;
            }
        }
        let plate: Barcode = format!("PLATE{model:03}").parse()?;
        gatherer.plate(&plate, &wells, &rows)?;
    }
    Ok(gatherer.finish()?)
}
