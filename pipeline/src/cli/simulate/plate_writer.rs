//! Writes a simulation as files: images as a microscope names them, plate map, truth tables, and a screen file.
//!
//! A checked simulation enters, a folder leaves. Each thread holds one field at a time, so memory does not grow with
//! the plates, and no byte depends on the number of threads. Fails where the disk refuses; the first failure stops
//! all threads.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Predictor;
use wellspring_workloads::simulate::{FieldImage, Simulation, SimulationSettings};
use wellspring_workloads::words::FieldId;

use super::SETTINGS_FILE;
use crate::cli::say;

/// Side of the network's input in pixels; smaller fields are enlarged to it.
const TILE: u32 = 224;

/// How TIFF files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compression {
    /// Not at all: largest files, fastest.
    None,
    /// Deflate with horizontal differences.
    Deflate,
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) fields: u64,
    pub(crate) images: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// Writes the whole simulation into `out`, which exists and is empty.
pub(crate) fn write_plates(
    simulation: &Simulation,
    out: &Path,
    threads: usize,
    compression: Compression,
    progress: bool,
) -> anyhow::Result<Written> {
    let started = Instant::now();
    let settings = simulation.settings();
    let text = toml::to_string(settings).context("the settings cannot be written as TOML")?;
    write(&out.join(SETTINGS_FILE), text.as_bytes())?;
    write(&out.join("platemap.csv"), simulation.plate_map_csv().as_bytes())?;
    write(
        &out.join("truth_compounds.csv"),
        simulation.truth_compounds_csv().as_bytes(),
    )?;
    write(
        &out.join("truth_wells.csv"),
        simulation.truth_wells_csv().as_bytes(),
    )?;
    let images = out.join("images");
    for plate in simulation.plates() {
        let folder = images.join(plate.as_str());
        std::fs::create_dir_all(&folder).with_context(|| format!("'{}' cannot be made", folder.display()))?;
    }
    let writer = PlateWriter {
        simulation,
        images,
        compression,
        left: Mutex::new(Box::new(simulation.field_ids())),
        failed: AtomicBool::new(false),
        fields: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        ended: AtomicU64::new(0),
    };
    writer.run(threads, progress)?;
    // Last, so that a folder with a screen file is whole.
    write(&out.join("screen.toml"), screen_toml(simulation).as_bytes())?;
    let fields = writer.fields.into_inner();
    Ok(Written {
        fields,
        images: fields * simulation.channels().len() as u64,
        bytes: writer.bytes.into_inner(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("'{}' cannot be written", path.display()))
}

struct PlateWriter<'a> {
    simulation: &'a Simulation,
    images: PathBuf,
    compression: Compression,
    /// Fields that no thread has taken yet.
    left: Mutex<Box<dyn Iterator<Item = FieldId> + Send + 'a>>,
    failed: AtomicBool,
    fields: AtomicU64,
    bytes: AtomicU64,
    /// Threads that are done.
    ended: AtomicU64,
}

impl PlateWriter<'_> {
    fn run(&self, threads: usize, progress: bool) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work())).collect();
            if progress {
                self.show_progress(threads as u64);
            }
            workers.into_iter().try_for_each(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that draws fields broke off")))
            })
        })
    }

    fn work(&self) -> anyhow::Result<()> {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.draw_fields()));
        let outcome =
            outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that draws fields broke off")));
        if outcome.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    fn draw_fields(&self) -> anyhow::Result<()> {
        while !self.failed.load(Ordering::Relaxed) {
            let next = self.left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(field) = next else { break };
            let image = self.simulation.render(&field)?;
            for (channel, pixels) in image.pixels.iter().enumerate() {
                let name = self
                    .simulation
                    .file_name(&field.plate, field.well, field.field, channel);
                let path = self.images.join(name);
                let bytes = encode(&image, pixels, self.compression)
                    .with_context(|| format!("'{}' cannot be encoded", path.display()))?;
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                write(&path, &bytes)?;
            }
            self.fields.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Tells how far it is, every few seconds, until all threads have ended.
    fn show_progress(&self, threads: u64) {
        let started = Instant::now();
        let all = self.simulation.field_count();
        let mut told = Instant::now();
        while self.ended.load(Ordering::Relaxed) < threads {
            std::thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= Duration::from_secs(5) {
                told = Instant::now();
                let done = self.fields.load(Ordering::Relaxed);
                let rate = done as f64 / started.elapsed().as_secs_f64();
                say::progress(&format!("{done} of {all} fields, {rate:.1} fields/s"));
            }
        }
    }
}

/// One channel as a 16-bit greyscale TIFF.
fn encode(image: &FieldImage, pixels: &[u16], compression: Compression) -> tiff::TiffResult<Vec<u8>> {
    encode_tiff(image.height, image.width, pixels, compression)
}

/// `height * width` grey levels as a 16-bit greyscale TIFF.
pub(crate) fn encode_tiff(
    height: u32,
    width: u32,
    pixels: &[u16],
    compression: Compression,
) -> tiff::TiffResult<Vec<u8>> {
    use tiff::encoder::{Compression as Tiff, DeflateLevel};
    let mut file = Cursor::new(Vec::with_capacity(pixels.len() * 2 + 1024));
    let encoder = TiffEncoder::new(&mut file)?;
    let mut encoder = match compression {
        Compression::None => encoder,
        Compression::Deflate => encoder
            .with_compression(Tiff::Deflate(DeflateLevel::Fast))
            .with_predictor(Predictor::Horizontal),
    };
    encoder.write_image::<colortype::Gray16>(width, height, pixels)?;
    file.flush()?;
    Ok(file.into_inner())
}

/// A screen file that runs the simulated plates as they are.
fn screen_toml(simulation: &Simulation) -> String {
    let settings = simulation.settings();
    let plates: Vec<String> = simulation
        .plates()
        .iter()
        .map(|plate| format!("\"{plate}\""))
        .collect();
    let channels: String = simulation
        .channels()
        .iter()
        .enumerate()
        .map(|(i, channel)| format!("    {{ name = \"{channel}\", match = \"w{}\" }},\n", i + 1))
        .collect();
    let depth = match settings.bit_depth {
        16 => String::new(),
        bits => format!("bit_depth = {bits}\n"),
    };
    format!(
        "# Written by `wellspring simulate`; the truth is in truth_compounds.csv and truth_wells.csv.\n\
         [screen]\nname = \"{}\"\ndescription = \"Simulated plates, seed {}\"\n\n\
         [images]\nstore = \"images\"\nlayout = \"imagexpress\"\nplates = [{}]\nfields_per_well = {}\n{depth}\
         channels = [\n{channels}]\n\n\
         [plate_map]\nfile = \"platemap.csv\"\ncolumns = {{ disease = \"state\" }}\ndose_unit = \"uM\"\n\n\
         [controls]\nreference = {{ role = \"healthy\" }}\nphenotype = {{ role = \"disease\" }}\n\n\
         # Many features of the network are 0 in most wells; scaled one by one, the rare ones count as much as the rest.\n\
         # The profiles are compared as they are: all plates are of one microscope and one network.\n\
         [comparison]\nnormalise = \"none\"\n{}{}{}",
        screen_name(&settings.name),
        settings.seed,
        plates.join(", "),
        settings.fields,
        nuclei(simulation),
        preprocess(settings),
        quality(settings),
    )
}

/// Cells in a field on average below which the gates for empty fields are no use. With 3.8 of them 12 % of the fields fail,
/// with 4.6 8 to 11 %, with 6.2 5 to 8 %; more than 10 % hold a plate back.
const FEW_CELLS: f64 = 6.0;

/// Whether fields hold so few cells that many of them are empty by the usual gates.
pub(super) fn few_cells(settings: &SimulationSettings) -> bool {
    settings.cells_per_field < FEW_CELLS
}

fn quality(settings: &SimulationSettings) -> String {
    if !few_cells(settings) {
        return String::new();
    }
    format!(
        "\n# Fields hold {:.1} cells on average, so many hold none, or one that fills them: the gates for empty fields would\n\
         # hold the plates back.\n[quality]\nenabled = false\n",
        settings.cells_per_field
    )
}

/// Counts nuclei where they are stained: a healthy one has 0.4 of its cell's diameter.
fn nuclei(simulation: &Simulation) -> String {
    if !simulation
        .channels()
        .iter()
        .any(|channel| channel.as_str() == "DNA")
    {
        return String::new();
    }
    let cell = simulation.settings().cell_diameter;
    format!(
        "\n[nuclei]\nmin_diameter = {:.1}\nmax_diameter = {:.1}\n",
        (0.15 * cell).max(1.0),
        (0.8 * cell).max(1.0)
    )
}

/// The barcodes' start as a screen's name.
fn screen_name(name: &str) -> String {
    let kept: String = name
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .take(64)
        .collect();
    if kept.is_empty() {
        "simulated".to_owned()
    } else {
        kept
    }
}

fn preprocess(settings: &SimulationSettings) -> String {
    let (height, width) = (settings.height.max(TILE), settings.width.max(TILE));
    if (height, width) != (settings.height, settings.width) {
        // The network's tile does not fit into the field.
        return format!(
            "\n[preprocess]\nresize = {{ width = {width}, height = {height}, method = \"bilinear\" }}\n"
        );
    }
    if settings.height.min(settings.width) >= 4 * TILE {
        let tiles = (height / TILE) * (width / TILE);
        return format!(
            "\n# Each field is cut into {tiles} tiles per channel. Half the size is a quarter of the work:\n\
             # [preprocess]\n# resize = {{ factor = 0.5 }}\n"
        );
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_workloads::screen::Screen;

    fn simulation(change: impl FnOnce(&mut SimulationSettings)) -> Simulation {
        let mut settings = SimulationSettings::demo();
        change(&mut settings);
        Simulation::new(settings).unwrap()
    }

    #[test]
    fn the_screen_file_parses_whatever_was_simulated() {
        let odd = |settings: &mut SimulationSettings| {
            settings.name = "Odd Name.3".to_owned();
            settings.bit_depth = 12;
            (settings.height, settings.width, settings.cells_per_field) = (100, 300, 5.0);
        };
        // So few cells that many fields are empty: the gates would hold the plates back.
        let small = Screen::parse(&screen_toml(&simulation(odd)), "screen.toml").unwrap();
        assert!(!small.quality.enabled);
        let demo = Screen::parse(&screen_toml(&simulation(|_| ())), "screen.toml").unwrap();
        assert!(demo.quality.enabled);
        let large = |settings: &mut SimulationSettings| (settings.height, settings.width) = (1080, 1080);
        for simulation in [simulation(|_| ()), simulation(odd), simulation(large)] {
            let screen = Screen::parse(&screen_toml(&simulation), "screen.toml").unwrap();
            assert_eq!(screen.images.channels.len(), 3);
            assert_eq!(screen.images.plates.len(), 2);
        }
        let screen = Screen::parse(&screen_toml(&simulation(odd)), "screen.toml").unwrap();
        assert_eq!(screen.name.as_str(), "oddname3");
        assert_eq!(screen.images.bit_depth, Some(12));
        assert!(screen.preprocess.resize.is_some());
    }

    #[test]
    fn both_compressions_keep_every_grey_level() {
        let pixels: Vec<u16> = (0..64u32 * 48)
            .map(|i| (i.wrapping_mul(40_503) >> 4) as u16)
            .collect();
        for compression in [Compression::None, Compression::Deflate] {
            let bytes = encode_tiff(48, 64, &pixels, compression).unwrap();
            let plane = wellspring::decode::decode(&bytes).unwrap();
            assert_eq!((plane.height, plane.width), (48, 64));
            assert_eq!(plane.pixels, pixels);
        }
    }

    #[test]
    fn names_for_screens_are_always_usable() {
        assert_eq!(screen_name("SIM"), "sim");
        assert_eq!(screen_name("é!"), "simulated");
    }
}
