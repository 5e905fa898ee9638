//! Times kernels on a field of 5 x 2160 x 2160 pixels (illumination: 1080 x 1080), on images from files or of its own,
//! and prints a line of JSON per work: `scripts/bench/kernels` runs it beside scikit-image, scipy, numpy and OpenCV.
//!
//! ```text
//! kernels_time --write-input DIR                the field, its illumination functions and a mean image, as .npy
//! kernels_time [--device D] [--repeats N] [WORK...]     copy fused percentiles gaussian2 gaussian50 top_hat15
//!                                                       rolling_ball50 illumination illumination_full median5 dispatches
//! ```
//!
//! Times are the best of the repeats, with all threads of the pool (`RAYON_NUM_THREADS`); `cpu_seconds` is the mean. `dispatches` prints, for a GPU,
//! what each dispatch of the fused recipe moves and how long it takes.

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use wellspring_kernels::{
    Background, Border, Device, FlatField, FlatFieldMode, Footprint, GaussianBlur, Histogram, Illumination,
    IlluminationSettings, KernelError, MeanImage, Median, PercentileScale, RawImage, Recipe, Resize,
    ResizeFilter, ScaleRange, Smoothing, Step,
};

/// Channels, rows and columns.
const FIELD: [usize; 3] = [5, 2160, 2160];
/// Rows and columns of the mean image.
const MEAN: usize = 1080;
/// Rows and columns of the fused recipe's result.
const RESULT: usize = 512;
/// Bytes copied to measure the bandwidth.
const COPIED: usize = 100_000_000;

const WORK: [&str; 10] = [
    "copy",
    "fused",
    "percentiles",
    "gaussian2",
    "gaussian50",
    "top_hat15",
    "rolling_ball50",
    "median5",
    "illumination",
    "illumination_full",
];

/// Cells and noise.
fn image(channels: usize, height: usize, width: usize, seed: u64) -> Result<RawImage, KernelError> {
    let mut state = seed;
    let pixels = (0..channels * height * width).map(|i| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let cells = ((i % width) as f32 / 13.0).sin() * ((i / width % height) as f32 / 17.0).sin();
        (300.0 + 4000.0 * cells.max(0.0)) as u16 + (state >> 56) as u16
    });
    RawImage::new(channels, height, width, pixels.collect(), 65535)
}

/// Between 1 at the corner and 1.6 in the middle, a little different for each channel.
fn vignettes() -> Vec<f32> {
    let [channels, height, width] = FIELD;
    let squared = |i: usize, n: usize| (2.0 * i as f32 / n as f32 - 1.0).powi(2);
    (0..channels * height * width)
        .map(|i| {
            let (channel, y, x) = (i / (height * width), i / width % height, i % width);
            1.6 + 0.01 * channel as f32 - 0.3 * (squared(y, height) + squared(x, width))
        })
        .collect()
}

fn fused(field: &RawImage) -> Result<Recipe, KernelError> {
    let [channels, height, width] = FIELD;
    let flat_field = FlatField {
        black_level: vec![100.0],
        illumination: Some(Illumination::new(channels, height, width, vignettes())?),
        mode: FlatFieldMode::Divide,
    };
    let scale = PercentileScale {
        range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
        scale: 255.0,
        round: false,
    };
    let resize = Resize {
        height: RESULT,
        width: RESULT,
        filter: ResizeFilter::Area,
    };
    let background = Background::Percentile { q: 1.0 };
    let steps = vec![flat_field.into(), background.into(), scale.into(), resize.into()];
    Recipe::new(steps, field.shape())
}

fn single(name: &str) -> Option<Step> {
    let blur = |sigma| GaussianBlur {
        sigma,
        border: Border::Reflect,
    };
    Some(match name {
        "gaussian2" => blur(2.0).into(),
        "gaussian50" => blur(50.0).into(),
        "top_hat15" => Background::TopHat {
            footprint: Footprint::Disk,
            radius: 15,
        }
        .into(),
        "rolling_ball50" => Background::RollingBall { radius: 50 }.into(),
        "median5" => Median { size: 5 }.into(),
        _ => return None,
    })
}

/// Seconds by the clock and of all processors together.
struct Times {
    wall: f64,
    /// Where the system tells.
    cpu: Option<f64>,
}

/// Processor time of this process so far, in ticks of a hundredth of a second.
fn ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may hold anything; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// The best time by the clock of `repeats` and the mean of the processors', after one call that warms up. At least half a
/// second, so that ticks suffice.
fn best(repeats: usize, mut work: impl FnMut() -> Result<(), KernelError>) -> Result<Times, KernelError> {
    work()?;
    let mut least = f64::INFINITY;
    let (begun, before) = (Instant::now(), ticks());
    let mut calls = 0;
    while calls < repeats || begun.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        work()?;
        least = least.min(start.elapsed().as_secs_f64());
        calls += 1;
    }
    let spent = before
        .zip(ticks())
        .map(|(before, after)| (after - before) as f64 / 100.0);
    Ok(Times {
        wall: least,
        cpu: spent.map(|s| s / calls as f64),
    })
}

/// The times of one work, and the bytes that it must move, where that is what limits it.
fn measure(name: &str, device: &Device, repeats: usize) -> Result<(Times, Option<usize>), Box<dyn Error>> {
    let [channels, height, width] = FIELD;
    if name == "copy" {
        let source = vec![1u8; COPIED];
        let mut target = vec![0u8; COPIED];
        let copy = || {
            let parts = target.par_chunks_mut(1 << 20).zip(source.par_chunks(1 << 20));
            parts.for_each(|(to, from)| to.copy_from_slice(from));
            std::hint::black_box(&mut target);
            Ok(())
        };
        return Ok((best(repeats, copy)?, Some(2 * COPIED)));
    }
    if let Some(reduction) = [("illumination", 4), ("illumination_full", 1)]
        .iter()
        .find_map(|(n, by)| (*n == name).then_some(*by))
    {
        let mut mean = MeanImage::new(image(1, MEAN, MEAN, 2)?.shape());
        mean.add(&image(1, MEAN, MEAN, 2)?)?;
        let settings = IlluminationSettings {
            smoothing: Smoothing::Median,
            size: 200.0,
            reduction,
            rescale: false,
        };
        return Ok((best(repeats, || mean.illumination(&settings).map(drop))?, None));
    }
    let field = image(channels, height, width, 1)?;
    let pixels = field.pixels().len();
    if name == "percentiles" {
        let work = || {
            let histograms = device.histograms(&field)?;
            let of = |h: &Histogram| [0.1, 1.0, 50.0, 99.0, 99.9].map(|q| h.percentile(q));
            let found: Result<Vec<f64>, _> = histograms.iter().flat_map(of).collect();
            std::hint::black_box(found?);
            Ok(())
        };
        return Ok((best(repeats, work)?, Some(2 * pixels)));
    }
    let (recipe, bytes) = match single(name) {
        // Pixels once, floats once.
        Some(step) => (Recipe::new(vec![step], field.shape())?, 6 * pixels),
        // Pixels and functions twice, since the percentiles depend on all of them, and the result once.
        None => (fused(&field)?, 12 * pixels + channels * RESULT * RESULT * 4),
    };
    Ok((
        best(repeats, || device.run(&recipe, &field).map(drop))?,
        Some(bytes),
    ))
}

fn dispatches(device: &Device) -> Result<(), Box<dyn Error>> {
    let [channels, height, width] = FIELD;
    let field = image(channels, height, width, 1)?;
    let recipe = fused(&field)?;
    device.run(&recipe, &field)?;
    let (_, times) = device.run_timed(&recipe, &field)?;
    for (i, t) in recipe.traffic().iter().enumerate() {
        let seconds = times
            .as_ref()
            .and_then(|times| times.get(i))
            .map(|t| t.time.as_secs_f64());
        let dispatch = serde_json::json!({
            "kernel": t.kernel, "entry": t.entry, "read": t.read, "written": t.written, "seconds": seconds,
        });
        println!("{dispatch}");
    }
    Ok(())
}

fn write_npy(path: &Path, descr: &str, shape: &str, bytes: &[u8]) -> std::io::Result<()> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // The header ends on a multiple of 64, with a line feed.
    let length = (header.len() + 11).next_multiple_of(64) - 10;
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((length as u16).to_le_bytes());
    file.extend(format!("{header:<width$}\n", width = length - 1).bytes());
    file.extend(bytes);
    std::fs::write(path, file)
}

fn write_input(folder: &Path) -> Result<(), Box<dyn Error>> {
    let [channels, height, width] = FIELD;
    let u16s = |image: &RawImage| {
        image
            .pixels()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let functions: Vec<u8> = vignettes().iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = format!("{channels}, {height}, {width}");
    write_npy(
        &folder.join("field.npy"),
        "<u2",
        &shape,
        &u16s(&image(channels, height, width, 1)?),
    )?;
    write_npy(&folder.join("illumination.npy"), "<f4", &shape, &functions)?;
    write_npy(
        &folder.join("mean.npy"),
        "<u2",
        &format!("{MEAN}, {MEAN}"),
        &u16s(&image(1, MEAN, MEAN, 2)?),
    )?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut device = "cpu".to_owned();
    let mut repeats = 5;
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--write-input" => return write_input(Path::new(&value()?)),
            "--device" => device = value()?,
            "--repeats" => repeats = value()?.parse()?,
            work => wanted.push(work.to_owned()),
        }
    }
    let device = Device::open(device.parse()?)?;
    if wanted.is_empty() {
        wanted = WORK.map(str::to_owned).to_vec();
    }
    for name in wanted {
        if name == "dispatches" {
            dispatches(&device)?;
            continue;
        }
        if !WORK.contains(&name.as_str()) {
            return Err(format!("no work '{name}'; there are {} and dispatches", WORK.join(", ")).into());
        }
        let (times, bytes) = measure(&name, &device, repeats)?;
        let (seconds, cpu_seconds) = (times.wall, times.cpu);
        let line = serde_json::json!({
            "work": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": bytes,
        });
        println!("{line}");
    }
    Ok(())
}
