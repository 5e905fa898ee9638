//! `bench compare`: the mathematics of the comparison, one file per area.
//!
//! Every area makes its input from a seed ([`input`]) and gives its seconds, beside what the machine can do at most
//! where that is a fair measure ([`limits`]): matrix products for what multiplies matrices, copying memory for what passes
//! over values. Dose curves do neither: their line has no limit. `scripts/bench/compare` runs the Python peers on the same
//! data in turn.

mod growth;
mod hill;
mod input;
mod limits;
mod precision;
mod scale;
mod screen;
mod signatures;
mod sphere;
mod tvn;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};

use super::Printer;
use super::process::this_program;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure. Default: everything.
    #[arg(long, value_delimiter = ',', value_name = "AREA")]
    areas: Vec<Area>,
    /// Plates of 384 wells in the input of scaling, alignment and replicates.
    #[arg(long, default_value_t = 100)]
    plates: usize,
    /// Values of a profile.
    #[arg(long, default_value_t = 384)]
    features: usize,
    /// Wells of the tables whose comparison must grow with them in time, and not in memory.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    growth: Vec<usize>,
    /// Measure no limits of the machine beside the areas: whoever asks how much memory the process took is told what its
    /// largest part took.
    #[arg(long)]
    without_limits: bool,
    /// Write the input as values.npy, wells.csv and curves.npy into this folder, for peers, and measure nothing.
    #[arg(long, value_name = "DIR")]
    write_input: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Area {
    /// The machine's own limits: matrix products and memory.
    Limits,
    /// The scalers of every plate.
    Scale,
    /// Sphering.
    Sphere,
    /// Alignment of 128 components over plates.
    Tvn,
    /// Mean average precision of replicates.
    Map,
    /// Dose curves.
    Hill,
    /// A whole comparison.
    Screen,
    /// Whole runs on tables of more and more wells.
    Growth,
    /// Every compound against every disease model: the headline.
    Signatures,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    if let Some(folder) = &args.write_input {
        input::Wells::new(args.plates, args.features).write(folder)?;
        return input::Curves::new(hill::CURVES).write(folder);
    }
    let wanted = |area| args.areas.is_empty() || args.areas.contains(&area);
    if args.areas == [Area::Limits] {
        return limits::Limits::measure_here()?.print(printer);
    }
    let limited = [
        Area::Scale,
        Area::Sphere,
        Area::Tvn,
        Area::Map,
        Area::Signatures,
        Area::Growth,
        Area::Limits,
    ];
    let limits = if !args.without_limits && limited.into_iter().any(wanted) {
        limits::Limits::measure()?
    } else {
        limits::Limits::default()
    };
    if wanted(Area::Limits) && !args.without_limits {
        limits.print(printer)?;
    }
    if wanted(Area::Scale) {
        scale::measure(args, &limits, printer)?;
    }
    if wanted(Area::Sphere) {
        sphere::measure(args, &limits, printer)?;
    }
    if wanted(Area::Map) {
        precision::measure(args, &limits, printer)?;
    }
    if wanted(Area::Hill) {
        hill::measure(printer)?;
    }
    if wanted(Area::Tvn) {
        tvn::measure(args, &limits, printer)?;
    }
    if wanted(Area::Screen) {
        screen::measure(printer)?;
    }
    if wanted(Area::Signatures) {
        signatures::measure(args, &limits, printer)?;
    }
    if wanted(Area::Growth) {
        growth::measure(args, &limits, printer)?;
    }
    Ok(())
}

/// What this program prints when it is run once more, in a process of its own.
fn own_process<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> anyhow::Result<String> {
    let output = this_program()?
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("this program cannot be started once more")?;
    if output.stdout.is_empty() {
        bail!(
            "the measured process gave no result ({}); see its messages above",
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
