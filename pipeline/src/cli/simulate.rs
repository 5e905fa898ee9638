//! `wellspring simulate`: plates of simulated cells with known answers, as a microscope would write them.
//!
//! Settings enter from a file or the command line; a folder with images, plate map, truth and a ready screen file
//! leaves. Fails where the settings cannot be met, the folder is not empty, or the disk is full.

pub(crate) mod plate_writer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use wellspring_workloads::simulate::{GeneratedCompounds, Simulation, SimulationSettings, Stain};

use super::say;
use plate_writer::{Compression, few_cells, write_plates};

/// The settings as they were used, in the output folder; `--settings` reads it again. It also marks the folder as
/// one that `--force` may clear.
pub(crate) const SETTINGS_FILE: &str = "simulation.toml";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wellspring simulate --out demo --demo\n  \
                  wellspring simulate --out plate --wells 96 --fields 4 --channels DNA,AGP --size 512 --seed 7\n  \
                  wellspring run demo/screen.toml\n\n\
                  DIR gets images/, platemap.csv, truth_compounds.csv, truth_wells.csv, screen.toml (which \
                  `wellspring run` accepts as it is) and simulation.toml (all settings; --settings reads it again). \
                  The same settings give the same bytes on any number of threads.")]
pub(crate) struct Args {
    /// Folder to write; must be empty or absent.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// All settings from a TOML file; the options below change them.
    #[arg(long, value_name = "FILE.toml", conflicts_with = "demo")]
    settings: Option<PathBuf>,
    /// The demonstration screen: two small 96-well plates with a known rescuer and a known toxicant.
    #[arg(long)]
    demo: bool,
    /// Seed of everything random.
    #[arg(long)]
    seed: Option<u64>,
    /// Plates; each holds one whole replicate.
    #[arg(long, value_name = "N")]
    plates: Option<u32>,
    /// Wells of a plate: 96 or 384.
    #[arg(long, value_name = "N")]
    wells: Option<u32>,
    /// Fields of view per well.
    #[arg(long, value_name = "N")]
    fields: Option<u32>,
    /// Channels, in order: DNA, ER, RNA, AGP, Mito, Brightfield.
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', value_parser = stain)]
    channels: Option<Vec<Stain>>,
    /// Pixels of a field: HEIGHTxWIDTH, or one number for both. The density of cells stays.
    #[arg(long, value_name = "HxW")]
    size: Option<Size>,
    /// Threads. Default: one per core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// How TIFF files are compressed.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// Clear DIR first, if an earlier simulation wrote it.
    #[arg(long)]
    force: bool,
}

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) height: u32,
    pub(crate) width: u32,
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let side = |side: &str| {
            let unusable = || format!("'{text}' is no size: give 512, or 480x640 (height x width)");
            side.trim().parse::<u32>().map_err(|_| unusable())
        };
        match text.split_once(['x', 'X']) {
            Some((height, width)) => Ok(Self {
                height: side(height)?,
                width: side(width)?,
            }),
            None => side(text).map(|both| Self {
                height: both,
                width: both,
            }),
        }
    }
}

fn stain(text: &str) -> Result<Stain, String> {
    let found = Stain::ALL
        .into_iter()
        .find(|stain| stain.name().eq_ignore_ascii_case(text.trim()));
    found.ok_or_else(|| format!("channels are {}", Stain::ALL.map(Stain::name).join(", ")))
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let settings = settings(&args)?;
    let simulation = Simulation::new(settings)?;
    prepare(&args.out, args.force)?;
    let threads = args.threads.unwrap_or_else(cores).max(1);
    let written = write_plates(&simulation, &args.out, threads, args.compression, true)?;
    say::note(format!(
        "{} fields ({} images, {:.1} MB) in {:.1} s: {:.1} fields/s",
        written.fields,
        written.images,
        written.bytes as f64 / 1e6,
        written.seconds,
        written.fields as f64 / written.seconds.max(1e-9)
    ));
    let settings = simulation.settings();
    if few_cells(settings) {
        say::note(format!(
            "note: fields of {} x {} pixels hold {:.1} cells on average and many hold none, so screen.toml has no quality \
             gates; larger fields (--size) give a better assay",
            settings.height, settings.width, settings.cells_per_field
        ));
    }
    say::line(args.out.join("screen.toml").display());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// From file or defaults, changed by the options.
fn settings(args: &Args) -> anyhow::Result<SimulationSettings> {
    let mut settings = match &args.settings {
        Some(path) => {
            let shown = path.display();
            let text = std::fs::read_to_string(path).with_context(|| format!("'{shown}' cannot be read"))?;
            toml::from_str(&text).with_context(|| format!("'{shown}' is not a simulation's settings"))?
        }
        None if args.demo => SimulationSettings::demo(),
        None => SimulationSettings::default(),
    };
    if let Some(seed) = args.seed {
        settings.seed = seed;
    }
    if let Some(wells) = args.wells {
        // The built-in design fills 384 wells; a smaller plate gets a smaller one. A person's own design stays.
        if wells == 96 && settings.wells == 384 && args.settings.is_none() {
            settings.generated = GeneratedCompounds {
                rescue: 2,
                toxic: 2,
                inactive: 8,
            };
            (settings.healthy_wells, settings.disease_wells) = (12, 12);
        }
        settings.wells = wells;
    }
    if let Some(plates) = args.plates {
        (settings.plates, settings.replicates) = (plates, plates);
    }
    if let Some(fields) = args.fields {
        settings.fields = fields;
    }
    if let Some(channels) = &args.channels {
        settings.channels.clone_from(channels);
    }
    if let Some(size) = args.size {
        resize(&mut settings, size);
    }
    Ok(settings)
}

/// Changes the size of fields and keeps cells per area.
pub(crate) fn resize(settings: &mut SimulationSettings, size: Size) {
    let area = |height: u32, width: u32| f64::from(height) * f64::from(width);
    let before = area(settings.height, settings.width).max(1.0);
    settings.cells_per_field *= area(size.height, size.width) / before;
    (settings.height, settings.width) = (size.height, size.width);
}

/// Makes `out` an empty folder, or says why not.
fn prepare(out: &Path, force: bool) -> anyhow::Result<()> {
    let shown = out.display();
    let filled = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("'{shown}' cannot be used as a folder")),
    };
    if filled && !force {
        bail!("'{shown}' is not empty; give another folder, or --force to replace an earlier simulation");
    }
    if filled && !out.join(SETTINGS_FILE).is_file() {
        bail!(
            "'{shown}' was not written by `wellspring simulate` (it has no {SETTINGS_FILE}) and is left as it is"
        );
    }
    if filled {
        let images = out.join("images");
        if images.exists() {
            std::fs::remove_dir_all(&images)
                .with_context(|| format!("'{}' cannot be cleared", images.display()))?;
        }
    }
    std::fs::create_dir_all(out).with_context(|| format!("'{shown}' cannot be made"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::{CommandFactory, Parser};

    fn parsed(line: &str) -> SimulationSettings {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Simulate(args) = cli.command else {
            panic!("{line} is another command")
        };
        settings(&args).unwrap()
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_one_number_or_two() {
        assert_eq!(
            "512".parse(),
            Ok(Size {
                height: 512,
                width: 512
            })
        );
        assert_eq!(
            "480x640".parse(),
            Ok(Size {
                height: 480,
                width: 640
            })
        );
        for text in ["", "x", "12y", "1x2x3", "-5"] {
            assert!(
                text.parse::<Size>().is_err_and(|told| told.contains("480x640")),
                "{text}"
            );
        }
    }

    #[test]
    fn options_change_the_design_so_that_it_still_fits() {
        for line in [
            "wellspring simulate --out x",
            "wellspring simulate --out x --wells 96",
            "wellspring simulate --out x --wells 96 --plates 3",
            "wellspring simulate --out x --size 512 --channels brightfield",
            "wellspring simulate --out x --demo",
            "wellspring simulate --out x --demo --wells 384 --plates 4",
        ] {
            assert!(Simulation::new(parsed(line)).is_ok(), "{line}");
        }
    }

    #[test]
    fn another_size_keeps_the_density_of_cells() {
        let density = |settings: &SimulationSettings| {
            settings.cells_per_field / f64::from(settings.height * settings.width)
        };
        let (whole, part) = (
            parsed("wellspring simulate --out x"),
            parsed("wellspring simulate --out x --size 300x500"),
        );
        assert_eq!((part.height, part.width), (300, 500));
        assert!((density(&whole) / density(&part) - 1.0).abs() < 1e-9);
    }
}
