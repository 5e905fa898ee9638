//! How adapters are used: pipelines kept between processes, memory that runs out, buffers that may not be large.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use wellspring_kernels::{
    Border, Device, DeviceChoice, DeviceOptions, GaussianBlur, KernelError, PipelineStore, RawImage, Recipe,
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

#[test]
fn buffers_may_be_limited() {
    let options = DeviceOptions {
        binding_bytes: Some(4000),
        ..Default::default()
    };
    let device = open(&options);
    assert_eq!(device.info().max_binding_bytes, Some(4000));
    let image = noise(40, 50);
    let error = device.run(&blur(&image, 1.0), &image).unwrap_err();
    assert!(
        matches!(error, KernelError::TooLarge { limit: 4000, .. }),
        "{error}"
    );
}
