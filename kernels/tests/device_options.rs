//! How adapters are used: pipelines kept between processes, memory that runs out, buffers that may not be large.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use wellspring_kernels::{
    Background, Border, Device, DeviceChoice, DeviceOptions, FlatField, FlatFieldMode, Footprint,
    GaussianBlur, Illumination, KernelError, Median, Orient, PercentileScale, PipelineStore, RawImage,
    Recipe, Resize, ResizeFilter, ScaleRange, Step, Tensor, Turn,
};

mod common;

use common::Random;

fn noise(height: usize, width: usize) -> RawImage {
    let mut random = Random(5);
    let pixels = (0..height * width)
        .map(|_| (random.next() & 0xfff) as u16)
        .collect();
    RawImage::new(1, height, width, pixels, 4095).unwrap()
}

fn blur(image: &RawImage, sigma: f64) -> Recipe {
    let border = Border::Reflect;
    Recipe::new(vec![GaussianBlur { sigma, border }.into()], image.shape()).unwrap()
}

fn open(options: &DeviceOptions) -> Device {
    Device::open_with(DeviceChoice::Gpu, options).unwrap_or_else(|e| panic!("{e}"))
}

/// Keeps everything in memory, and what happened.
#[derive(Debug, Default)]
struct Memory {
    kept: Mutex<HashMap<String, Vec<u8>>>,
    events: Mutex<Vec<&'static str>>,
}

impl Memory {
    fn happened(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

impl PipelineStore for Memory {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.events.lock().unwrap().push("load");
        self.kept.lock().unwrap().get(key).cloned()
    }
    fn save(&self, key: &str, bytes: &[u8]) {
        assert!(
            key.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)),
            "{key}"
        );
        self.events.lock().unwrap().push("save");
        self.kept.lock().unwrap().insert(key.to_owned(), bytes.to_vec());
    }
    fn damaged(&self, _key: &str) {
        self.events.lock().unwrap().push("damaged");
    }
}

#[test]
fn pipelines_are_kept_between_devices_and_damaged_ones_made_anew() {
    let memory = Arc::new(Memory::default());
    let options = DeviceOptions {
        pipelines: Some(Arc::<Memory>::clone(&memory)),
        ..Default::default()
    };
    let image = noise(40, 50);
    let recipe = blur(&image, 2.0);
    let device = open(&options);
    let expected = device.run(&recipe, &image).unwrap();
    let first = memory.happened();
    if first.is_empty() {
        println!("skipped: this adapter keeps no pipelines");
        return;
    }
    assert_eq!(first, ["load", "save"]);
    // What was compiled once is not saved again.
    assert_eq!(device.run(&recipe, &image).unwrap(), expected);
    assert!(memory.happened().is_empty());
    // Another device begins with it, and so does the one that follows a lost one.
    assert_eq!(open(&options).run(&recipe, &image).unwrap(), expected);
    assert_eq!(memory.happened(), ["load", "save"]);
    device.lose();
    assert_eq!(device.run(&recipe, &image).unwrap(), expected);
    assert_eq!(memory.happened(), ["load", "save"]);
    // Damage is told once, and mended by what is saved.
    for bytes in memory.kept.lock().unwrap().values_mut() {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    }
    let device = open(&options);
    assert_eq!(device.run(&recipe, &image).unwrap(), expected);
    assert_eq!(device.run(&recipe, &image).unwrap(), expected);
    assert_eq!(memory.happened(), ["load", "damaged", "save"]);
    open(&options);
    assert_eq!(memory.happened(), ["load"]);
}

/// A device that binds at most so many bytes.
fn limited(bytes: u64) -> Device {
    let device = open(&DeviceOptions {
        binding_bytes: Some(bytes),
        ..Default::default()
    });
    assert_eq!(device.info().max_binding_bytes, Some(bytes));
    device
}

/// Where not even the rows that one needs fit, or a percentile needs all of them.
#[test]
fn what_cannot_be_cut_into_strips_that_fit_is_an_error() {
    let image = noise(40, 50);
    let error = limited(1600).run(&blur(&image, 1.0), &image).unwrap_err();
    assert!(
        matches!(error, KernelError::TooLarge { limit: 1600, .. }),
        "{error}"
    );
    let steps = vec![Background::Percentile { q: 1.0 }.into()];
    let recipe = Recipe::new(steps, image.shape()).unwrap();
    let error = limited(2000).run(&recipe, &image).unwrap_err();
    assert!(matches!(error, KernelError::TooLarge { .. }), "{error}");
}

/// Planes above the limit come out as they do from a device that binds them at once, bit by bit.
#[test]
fn planes_above_the_limit_are_run_in_strips() {
    const SIZE: [usize; 2] = [170, 60];
    let [height, width] = SIZE;
    let mut random = Random(9);
    let pixels = (0..2 * height * width).map(|_| random.next() as u16 >> 3);
    let image = RawImage::new(2, height, width, pixels.collect(), 65535).unwrap();
    let functions = (0..2 * height * width).map(|i| 1.0 + (i % 1013) as f32 / 900.0);
    let corrected: Vec<Step> = vec![
        FlatField {
            black_level: vec![20.0, 30.0],
            illumination: Some(Illumination::new(2, height, width, functions.collect()).unwrap()),
            mode: FlatFieldMode::Divide,
        }
        .into(),
        PercentileScale {
            range: ScaleRange::Given {
                lo: vec![100.0],
                hi: vec![5000.0, 4000.0],
            },
            scale: 255.0,
            round: false,
        }
        .into(),
    ];
    let blur = |border| Step::from(GaussianBlur { sigma: 1.6, border });
    let resize = |height, width, filter| {
        Step::from(Resize {
            height,
            width,
            filter,
        })
    };
    let footprint = Footprint::Disk;
    let (whole, strips) = (open(&DeviceOptions::default()), limited(12_000));
    for more in [
        vec![],
        vec![blur(Border::Reflect), Median { size: 5 }.into()],
        vec![blur(Border::Normalised)],
        vec![Background::TopHat { footprint, radius: 6 }.into()],
        vec![Background::RollingBall { radius: 5 }.into()],
        vec![
            Background::Gaussian {
                sigma: 1.2,
                border: Border::Reflect,
            }
            .into(),
        ],
        vec![resize(41, 33, ResizeFilter::Area)],
        vec![
            Median { size: 3 }.into(),
            resize(37, 29, ResizeFilter::Lanczos),
            Orient {
                turn: Turn::Transpose,
            }
            .into(),
        ],
        vec![
            blur(Border::Reflect),
            resize(190, 12, ResizeFilter::Bilinear { antialias: true }),
        ],
    ] {
        let steps = [corrected.clone(), more].concat();
        let recipe = Recipe::new(steps, image.shape()).unwrap();
        let expected = whole.run(&recipe, &image).unwrap();
        let found = strips.run(&recipe, &image).unwrap();
        assert_eq!(found.shape(), expected.shape());
        let bits = |t: &Tensor| t.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&found) == bits(&expected), "{:?}", &recipe.steps()[2..]);
    }
}
