//! `wellspring drift`: control wells judged by those of accepted plates, and the reference that holds these.
//!
//! Tables enter and every plate is judged, without comparing anything; or a reference file enters, which a comparison
//! leaves in its output folder: what it holds is shown, a judged plate is accepted into it, or it is put aside. Fails
//! where a file cannot be read or written, and where a plate was not judged by the reference.

mod judge;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use wellspring::drift::{REFERENCE_FILE, read_reference, write_reference};
use wellspring_workloads::monitor::{DriftReference, Identity, MonitorSettings};
use wellspring_workloads::words::Barcode;

use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A comparison of a screen with more plates than its reference needs (10) judges the others by the \
                  first ones and writes drift.parquet and drift-reference.json. To judge later plates by the same \
                  reference, name the file in their screen:\n\n  [monitor]\n  reference = \"out/drift-reference.json\"\n  \
                  action = \"quarantine\"\n\nExamples:\n  wellspring drift judge --profiles plates/*.parquet --screen screen.toml --out drift\n  wellspring \
                  drift show out/drift-reference.json\n  wellspring \
                  drift accept out/drift-reference.json P0123 P0124\n  wellspring drift reset out/drift-reference.json"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Judge the controls of every plate of some tables, and compare nothing. Exit 1: a plate is on alert, or something
    /// was left out.
    Judge(judge::Args),
    /// Show what a reference is of, its plates, and the plates judged by it.
    Show {
        /// The reference, such as out/drift-reference.json.
        reference: PathBuf,
    },
    /// Take judged plates into the reference; the oldest ones retire.
    Accept {
        /// The reference, such as out/drift-reference.json.
        reference: PathBuf,
        /// Barcodes of plates that were judged by it.
        #[arg(required = true)]
        plates: Vec<Barcode>,
        /// Plates to keep. Default: as many as there are.
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
    },
    /// Put a reference aside, after a change of model, stain lot or microscope. It is kept under its hash; the next
    /// comparison without monitor.reference makes a new one.
    Reset {
        /// The reference, such as out/drift-reference.json.
        reference: PathBuf,
    },
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Judge(args) => return judge::execute(&args),
        Action::Show { reference } => show(&read_reference(&reference)?),
        Action::Accept {
            reference,
            plates,
            keep,
        } => accept(&reference, &plates, keep)?,
        Action::Reset { reference } => reset(&reference)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(reference: &DriftReference) {
    let Identity {
        assay,
        microscope,
        model,
        model_sha256,
    } = reference.identity();
    let names = |plates: Vec<String>| {
        if plates.is_empty() {
            "none".to_owned()
        } else {
            plates.join(" ")
        }
    };
    say::line(format!("assay       {assay}"));
    say::line(format!("microscope  {microscope}"));
    say::line(format!("model       {model} {model_sha256}"));
    say::line(format!("sha256      {}", reference.sha256()));
    let plates: Vec<String> = reference.plate_names().map(ToString::to_string).collect();
    say::line(format!("plates      {}", names(plates)));
    let judged: Vec<String> = reference.judged_names().map(ToString::to_string).collect();
    say::line(format!("judged      {}", names(judged)));
}

fn accept(path: &Path, plates: &[Barcode], keep: Option<usize>) -> anyhow::Result<()> {
    let mut reference = read_reference(path)?;
    let settings = MonitorSettings {
        reference_plates: keep.unwrap_or(reference.plate_names().len()),
        ..MonitorSettings::default()
    };
    settings
        .check()
        .context("--keep sets how many plates the reference has")?;
    for plate in plates {
        reference.accept_judged(plate, &settings)?;
    }
    write_reference(path, &reference)?;
    show(&reference);
    Ok(())
}

fn reset(path: &Path) -> anyhow::Result<()> {
    let reference = read_reference(path)?;
    let hash = reference.sha256();
    let name = REFERENCE_FILE.trim_end_matches(".json");
    let aside = path.with_file_name(format!("{name}-{}.json", &hash[..12]));
    if aside.exists() {
        bail!("'{}' exists already: remove it first", aside.display());
    }
    std::fs::rename(path, &aside)
        .with_context(|| format!("'{}' cannot be renamed to '{}'", path.display(), aside.display()))?;
    say::line(format!("kept as {}", aside.display()));
    Ok(())
}
