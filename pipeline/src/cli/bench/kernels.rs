//! `bench kernels`: preprocessing and quality of one large field, in bytes of raw pixels per second, beside the
//! bandwidth of a memory copy on the same machine. The recipe that fuses flat-field, background, scaling and resize is also
//! held against the bytes that it has to move, and its dispatches on a GPU are listed with what each moves.
//! `scripts/bench/kernels` measures single kernels beside scikit-image, scipy and OpenCV.

use rayon::prelude::*;
use wellspring_kernels::{
    Background, Device, DeviceChoice, DeviceKind, FlatField, FlatFieldMode, Illumination, PercentileScale,
    Placement, RawImage, Recipe, Resize, ResizeFilter, ScaleRange, Step, Tile,
};

use super::{Line, Printer, between, pixels, seconds};

/// Side of the network's input.
const TILE: usize = 224;

/// Side of the fused recipe's result.
const RESULT: usize = 512;

/// The least share of the copy bandwidth that the fused recipe has to reach, per byte that must move.
const FUSED_BAR: f64 = 0.55;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Channels of the field.
    #[arg(long, default_value_t = 5, value_parser = between(1, 64))]
    channels: usize,
    /// Rows and columns of the field.
    #[arg(long, default_value_t = 2160, value_parser = between(TILE, 16_384))]
    size: usize,
    /// Also measure on this device: gpu, a kind, a number or part of an adapter's name (`wellspring devices`).
    #[arg(long)]
    device: Option<String>,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let plane = pixels(args.size, args.size, 1);
    let all: Vec<u16> = (0..args.channels).flat_map(|_| plane.iter().copied()).collect();
    let image = RawImage::new(args.channels, args.size, args.size, all, u16::MAX)?;
    let megabytes = image.pixels().len() as f64 * 2.0 / 1e6;

    let copy = megabytes / copy_seconds(image.pixels());
    printer.push(Line::new(
        "kernels",
        "memory copy of the field, all threads",
        copy,
        "MB/s",
    ))?;

    let mut devices = vec![Device::open(DeviceChoice::Cpu)?];
    if let Some(name) = &args.device {
        devices.push(Device::open(name.parse()?)?);
    }
    for device in &devices {
        for (name, steps) in recipes(args.size) {
            let recipe = Recipe::new(steps, image.shape())?;
            let time = seconds(|| device.run(&recipe, &image).map(drop))?;
            printer.push(line(name, args, device, megabytes / time, copy))?;
        }
        let time = seconds(|| device.quality(&image).map(drop))?;
        printer.push(line("quality measures", args, device, megabytes / time, copy))?;
        fused(args, device, &image, copy, printer)?;
    }
    Ok(())
}

/// Flat-field, background, percentile scaling and area resize as one recipe.
fn fused(
    args: &Args,
    device: &Device,
    image: &RawImage,
    copy: f64,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let values = (0..image.pixels().len()).map(|i| 1.0 + (i % args.size) as f32 / args.size as f32);
    let illumination = Illumination::new(args.channels, args.size, args.size, values.collect())?;
    let flat_field = FlatField {
        black_level: vec![100.0],
        illumination: Some(illumination),
        mode: FlatFieldMode::Divide,
    };
    let resize = Resize {
        height: RESULT,
        width: RESULT,
        filter: ResizeFilter::Area,
    };
    let background = Background::Percentile { q: 1.0 };
    let steps = vec![
        flat_field.into(),
        background.into(),
        scale().into(),
        resize.into(),
    ];
    let recipe = Recipe::new(steps, image.shape())?;
    let time = seconds(|| device.run(&recipe, image).map(drop))?;
    // Pixels and functions twice, since the percentiles depend on all of them, and the result once. A copy moves each
    // byte twice.
    let moved = 2.0 * image.pixels().len() as f64 * 6.0 + (args.channels * RESULT * RESULT * 4) as f64;
    let work = "flat-field, background, percentiles and area resize to 512, fused; bytes that must move";
    let mut line = line(work, args, device, moved / 1e6 / time, 2.0 * copy);
    if device.info().kind == DeviceKind::Cpu {
        line = line.at_least(FUSED_BAR);
    }
    printer.push(line)?;
    for dispatch in recipe.traffic() {
        let work = format!("{} {} moves", dispatch.kernel, dispatch.entry);
        let megabytes = (dispatch.read + dispatch.written) as f64 / 1e6;
        printer.push(Line::new("kernels", work, megabytes, "MB"))?;
    }
    Ok(())
}

fn line(name: &str, args: &Args, device: &Device, rate: f64, copy: f64) -> Line {
    let work = format!(
        "{name}, {} x {} x {}, on {}",
        args.channels,
        args.size,
        args.size,
        device.info().name
    );
    Line::new("kernels", work, rate, "MB/s").beside("memory copy", copy)
}

fn scale() -> PercentileScale {
    PercentileScale {
        range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
        scale: 255.0,
        round: false,
    }
}

/// What a screen does by default, and with a resize.
fn recipes(size: usize) -> [(&'static str, Vec<Step>); 2] {
    let tile = || Tile {
        height: TILE,
        width: TILE,
        placement: Placement::Grid,
    };
    let half = (size / 2).max(TILE);
    let resize = Resize {
        height: half,
        width: half,
        filter: ResizeFilter::Area,
    };
    [
        ("percentiles and tiles", vec![scale().into(), tile().into()]),
        (
            "area resize to half, percentiles and tiles",
            vec![resize.into(), scale().into(), tile().into()],
        ),
    ]
}

/// Pixels that a thread copies at a time.
const COPIED: usize = 1 << 18;

/// Seconds to copy the pixels once.
fn copy_seconds(pixels: &[u16]) -> f64 {
    let mut target = vec![0u16; pixels.len()];
    let copy = || {
        let source = std::hint::black_box(pixels).par_chunks(COPIED);
        target
            .par_chunks_mut(COPIED)
            .zip(source)
            .for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&mut target);
        Ok::<(), std::convert::Infallible>(())
    };
    match seconds(copy) {
        Ok(time) => time,
        Err(never) => match never {},
    }
}
