//! `bench kernels`: preprocessing and quality of one large field, in bytes of raw pixels per second, beside the
//! bandwidth of a memory copy on the same machine.

use wellspring_kernels::{
    Device, DeviceChoice, PercentileScale, Placement, RawImage, Recipe, Resize, ResizeFilter, ScaleRange,
    Step, Tile,
};

use super::{Line, Printer, pixels, seconds};

/// Side of the network's input.
const TILE: usize = 224;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Channels of the field.
    #[arg(long, default_value_t = 5)]
    channels: usize,
    /// Rows and columns of the field.
    #[arg(long, default_value_t = 2160)]
    size: usize,
    /// Also measure on this device: gpu, or part of an adapter's name.
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
        "memory copy of the field, one thread",
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

/// What a screen does by default, and with a resize.
fn recipes(size: usize) -> [(&'static str, Vec<Step>); 2] {
    let scale = || PercentileScale {
        range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
        scale: 255.0,
        round: false,
    };
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

/// Seconds to copy the pixels once.
fn copy_seconds(pixels: &[u16]) -> f64 {
    let mut target = vec![0u16; pixels.len()];
    let copy = || {
        target.copy_from_slice(std::hint::black_box(pixels));
        std::hint::black_box(&mut target);
        Ok::<(), std::convert::Infallible>(())
    };
    match seconds(copy) {
        Ok(time) => time,
        Err(never) => match never {},
    }
}
