//! `bench pipeline`: whole runs, each in a process of its own, so that the peak of memory is the run's.
//!
//! A simulated plate is written and run; where a screen file is given and its images exist, that is run too and the
//! two peaks are compared: memory must not grow with the plate. Fails where a run fails.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use serde::Deserialize;
use wellspring_workloads::simulate::{Simulation, SimulationSettings, Stain};

use super::process::this_program;
use super::{Line, Printer};
use crate::cli::simulate::plate_writer::{Compression, write_plates};
use crate::cli::simulate::{Size, cores, resize};
use crate::cli::{common, say};

/// Most that the peaks of a large and a small run may differ, as a ratio.
const MEMORY_BAR: f64 = 1.2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fields of view per well of the simulated plate of 384 wells.
    #[arg(long, default_value_t = 1)]
    fields: u32,
    /// Channels of the simulated plate, 1 to 6.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=6))]
    channels: u8,
    /// Pixels of a simulated field: HEIGHTxWIDTH, or one number for both.
    #[arg(long, value_name = "HxW", default_value = "512")]
    size: Size,
    /// A screen to run as well and to compare memory with, such as workloads/screens/transfluor.toml.
    #[arg(long, value_name = "SCREEN.toml")]
    screen: Option<PathBuf>,
    /// Device of the kernels, as for `wellspring run`.
    #[arg(long)]
    device: Option<String>,
    /// Folder of the networks' weights. Default: the user's cache folder.
    #[arg(long, value_name = "DIR", env = "WELLSPRING_MODELS")]
    models: Option<PathBuf>,
    /// Folder for the simulated plate and the results; removed afterwards. Default: the temporary folder.
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
}

/// What `run --json` ends with, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Summary {
    fields_done: u32,
    fields_failed: u32,
    lost: u32,
    seconds: f64,
    peak_rss_bytes: u64,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = match &args.work {
        Some(work) => tempfile::tempdir_in(work),
        None => tempfile::tempdir(),
    };
    let folder = folder.context("no temporary folder can be made; give one with --work")?;

    let (simulation, work) = simulated(args)?;
    let plate = folder.path().join("plate");
    std::fs::create_dir_all(&plate)?;
    say::note(format!("writing {work} ..."));
    let written = write_plates(&simulation, &plate, cores(), Compression::None, true)?;
    let rate = written.fields as f64 / written.seconds;
    printer.push(Line::new(
        "pipeline",
        format!("simulate and write {work}"),
        rate,
        "fields/s",
    ))?;
    say::note(format!("running {work} ..."));
    let large = run(args, &plate.join("screen.toml"), &folder.path().join("out-plate"))?;
    push_rate(printer, &work, &large)?;
    let memory = Line::new(
        "pipeline",
        format!("peak memory, {work}"),
        large.peak_rss_bytes as f64,
        "bytes",
    );

    let Some(screen) = &args.screen else {
        return printer.push(memory);
    };
    let name = screen
        .file_stem()
        .map_or_else(|| "screen".into(), |stem| stem.to_string_lossy().into_owned());
    let store = common::read_screen(screen)?.images.store;
    if !store.contains("://") && !Path::new(&store).exists() {
        say::note(format!(
            "{name} is left out: its images are not on this machine ('{store}' does not exist)"
        ));
        return printer.push(memory);
    }
    say::note(format!("running {name} ..."));
    let small = run(args, screen, &folder.path().join("out-screen"))?;
    push_rate(printer, &name, &small)?;
    printer.push(
        memory
            .beside(format!("peak memory, {name}"), small.peak_rss_bytes as f64)
            .within(MEMORY_BAR),
    )
}

fn push_rate(printer: &mut Printer, work: &str, run: &Summary) -> anyhow::Result<()> {
    let rate = f64::from(run.fields_done) / run.seconds.max(1e-9);
    printer.push(Line::new("pipeline", format!("run {work}"), rate, "fields/s"))
}

/// The plate of 384 wells, and its description.
fn simulated(args: &Args) -> anyhow::Result<(Simulation, String)> {
    let channels = usize::from(args.channels);
    let mut settings = SimulationSettings {
        name: "BENCH".to_owned(),
        fields: args.fields,
        channels: Stain::ALL[..channels].to_vec(),
        ..SimulationSettings::default()
    };
    resize(&mut settings, args.size);
    let work = format!(
        "384 wells x {} x {}, {} x {} pixels",
        say::counted(settings.fields as usize, "field"),
        say::counted(channels, "channel"),
        settings.height,
        settings.width
    );
    Ok((Simulation::new(settings)?, work))
}

/// Runs a screen with this program in a process of its own.
fn run(args: &Args, screen: &Path, out: &Path) -> anyhow::Result<Summary> {
    let mut command = this_program()?;
    command.arg("run").arg(screen).arg("--out").arg(out).arg("--json");
    if let Some(device) = &args.device {
        command.args(["--device", device]);
    }
    if let Some(models) = &args.models {
        command.arg("--models").arg(models);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("the run cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let Ok(summary) = serde_json::from_str::<Summary>(last) else {
        bail!(
            "the run of '{}' gave no result ({}); see its messages above",
            screen.display(),
            output.status
        );
    };
    if summary.lost > 0 || summary.fields_failed > 0 {
        say::note(format!(
            "{} fields failed, {} were lost",
            summary.fields_failed, summary.lost
        ));
    }
    Ok(summary)
}
