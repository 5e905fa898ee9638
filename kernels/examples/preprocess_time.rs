//! Times the preprocessing and quality measures of one field: 5 channels of 1080 x 1080, one thread and all threads.
//! `cargo run --release -p wellspring-kernels --example preprocess_time [DEVICE]`

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use wellspring_kernels::{
    Device, DeviceChoice, KernelError, PercentileScale, Placement, RawImage, Recipe, Resize, ResizeFilter,
    ScaleRange, Step, Tile,
};

const REPEATS: usize = 7;

fn best(mut work: impl FnMut() -> Result<(), KernelError>) -> Result<f64, KernelError> {
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        let start = Instant::now();
        work()?;
        least = least.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(least)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let choice: DeviceChoice = std::env::args().nth(1).as_deref().unwrap_or("cpu").parse()?;
    let device = Device::open(choice)?;
    let (c, h, w) = (5, 1080, 1080);
    let mut state = 1u64;
    let pixels = (0..c * h * w).map(|i| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let blob = ((i % w) as f64 / 40.0).sin() * ((i / w) as f64 / 50.0).sin();
        (300.0 + 2000.0 * blob.max(0.0)) as u16 + (state >> 56) as u16
    });
    let image = RawImage::new(c, h, w, pixels.collect(), 65535)?;
    let scale: Step = PercentileScale {
        range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
        scale: 255.0,
        round: true,
    }
    .into();
    let resize: Step = Resize {
        height: 512,
        width: 512,
        filter: ResizeFilter::Area,
    }
    .into();
    let smooth: Step = Resize {
        height: 224,
        width: 224,
        filter: ResizeFilter::Bilinear { antialias: true },
    }
    .into();
    let tile: Step = Tile {
        height: 256,
        width: 256,
        placement: Placement::Grid,
    }
    .into();
    println!("{}", device.describe());
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for (name, steps) in [
            ("scale + area resize to 512", vec![scale.clone(), resize.clone()]),
            (
                "scale + bilinear resize to 224",
                vec![scale.clone(), smooth.clone()],
            ),
            ("scale + 16 tiles of 256", vec![scale.clone(), tile.clone()]),
        ] {
            let recipe = Recipe::new(steps, image.shape())?;
            let ms = pool.install(|| best(|| device.run(&recipe, &image).map(drop)))?;
            println!("{threads} threads, {name}: {ms:.1} ms");
        }
        let ms = pool.install(|| best(|| device.quality(&image).map(drop)))?;
        println!("{threads} threads, quality measures: {ms:.1} ms");
    }
    Ok(())
}
