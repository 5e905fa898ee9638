//! `wellspring neighbours`: what is nearest to a perturbation, and what is most opposite.
//!
//! Profile tables and a name enter, two short lists leave. Fails on a name that is not there.

use std::process::ExitCode;

use serde::Serialize;
use wellspring_workloads::relate::{Neighbour, Pairs, neighbours};

use super::calls::{Grid, Side};
use super::relate::profiles::ProfileArgs;
use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring neighbours --profiles aligned.parquet --of staurosporine\n  \
                  wellspring neighbours --profiles *.parquet --by Metadata_compound,Metadata_dose --of C01_10 --json"
)]
pub(crate) struct Args {
    #[command(flatten)]
    profiles: ProfileArgs,
    /// The perturbation.
    #[arg(long, value_name = "NAME")]
    of: String,
    /// Length of each list.
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Leave out perturbations on a common plate: a shared plate makes profiles alike.
    #[arg(long)]
    cross_plate: bool,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    of: &'a str,
    nearest: Vec<Entry<'a>>,
    opposite: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    name: &'a str,
    cosine: f64,
    percentile: f64,
    same_plate: bool,
}

pub(crate) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let read = args.profiles.read()?;
    let pairs = if args.cross_plate {
        Pairs::CrossPlate
    } else {
        Pairs::All
    };
    let found = neighbours(&read.perturbations, &args.of, args.k, pairs)?;
    for note in &read.notes {
        say::note(format!("note: {note}"));
    }
    if args.json {
        say::line(serde_json::to_string(&Found {
            of: &args.of,
            nearest: found.nearest.iter().map(entry).collect(),
            opposite: found.opposite.iter().map(entry).collect(),
        })?);
        return Ok(ExitCode::SUCCESS);
    }
    say::line(format!("nearest to {}", args.of));
    say::line(table(&found.nearest).trim_end());
    say::line(format!("most opposite to {}", args.of));
    say::line(table(&found.opposite).trim_end());
    Ok(ExitCode::SUCCESS)
}

fn entry(neighbour: &Neighbour) -> Entry<'_> {
    Entry {
        name: &neighbour.name,
        cosine: neighbour.cosine,
        percentile: neighbour.percentile,
        same_plate: neighbour.same_plate,
    }
}

fn table(neighbours: &[Neighbour]) -> String {
    let mut grid = Grid::new(&[
        ("perturbation", Side::Left),
        ("cosine", Side::Right),
        ("not above, % of pairs", Side::Right),
        ("same plate", Side::Left),
    ]);
    for neighbour in neighbours {
        grid.push(vec![
            neighbour.name.clone(),
            format!("{:.3}", neighbour.cosine),
            format!("{:.2}", 100.0 * neighbour.percentile),
            if neighbour.same_plate { "yes" } else { "no" }.to_owned(),
        ]);
    }
    grid.text()
}
