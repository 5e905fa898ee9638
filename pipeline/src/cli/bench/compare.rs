//! `bench compare`: the mathematics of the comparison, one file per area.
//!
//! Every area makes its input from a seed ([`input`]) and gives its seconds, beside what the machine can do at most
//! where that is a fair measure ([`limits`]). `scripts/bench/compare` runs the Python peers on the same data in turn.

mod input;
mod limits;
mod scale;
mod screen;

use std::path::PathBuf;

use super::Printer;

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
    /// Write the input as values.npy and wells.csv into this folder, for peers, and measure nothing.
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
    /// A whole comparison.
    Screen,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    if let Some(folder) = &args.write_input {
        return input::Wells::new(args.plates, args.features).write(folder);
    }
    let wanted = |area| args.areas.is_empty() || args.areas.contains(&area);
    let limits = limits::Limits::measure();
    if wanted(Area::Limits) {
        limits.print(printer)?;
    }
    if wanted(Area::Scale) {
        scale::measure(args, &limits, printer)?;
    }
    if wanted(Area::Screen) {
        screen::measure(printer)?;
    }
    Ok(())
}
