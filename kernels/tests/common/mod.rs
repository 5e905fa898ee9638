//! Devices, images, parameter sets and the comparison that the tests of both devices share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test uses its part; a failed unwrap fails the test; skips are printed"
)]

use std::path::PathBuf;
use std::sync::OnceLock;

use wellspring_kernels::{Device, DeviceChoice, RawImage, Tensor, Tolerance};

pub mod examples;
pub mod npy;

pub fn cpu() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| Device::open(DeviceChoice::Cpu).unwrap())
}

/// One adapter for all tests of this file.
pub fn gpu() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        Device::open(DeviceChoice::Gpu).unwrap_or_else(|e| {
            panic!(
                "the twin test needs a graphics adapter; install mesa-vulkan-drivers for a software one: {e}"
            )
        })
    })
}

/// A small deterministic generator (SplitMix64), so that cases are the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Channels, height, width: single pixels, lines, odd sizes, and more pixels than one workgroup has threads.
pub const SHAPES: &[[usize; 3]] = &[
    [1, 1, 1],
    [1, 1, 37],
    [2, 41, 1],
    [1, 2, 2],
    [3, 5, 7],
    [4, 17, 16],
    [8, 19, 23],
    [5, 67, 53],
    [2, 128, 131],
    // Enough pixels that percentiles are found between brackets.
    [1, 200, 170],
];

/// 8- and 16-bit noise, constant, saturated, and dark with a few bright pixels.
pub fn images() -> Vec<(String, RawImage)> {
    let mut random = Random(7);
    let mut images = Vec::new();
    for &[c, h, w] in SHAPES {
        let mut add = |name: &str, ceiling: u16, value: &mut dyn FnMut(usize) -> u16| {
            let pixels = (0..c * h * w).map(value).collect();
            images.push((
                format!("{name} {c}x{h}x{w}"),
                RawImage::new(c, h, w, pixels, ceiling).unwrap(),
            ));
        };
        add("8-bit noise", 255, &mut |_| (random.next() & 0xff) as u16);
        add("16-bit noise", 65535, &mut |_| random.next() as u16);
        add("constant", 65535, &mut |_| 500);
        add("saturated", 65535, &mut |i| if i % 3 == 0 { 311 } else { 65535 });
        add("all saturated", 65535, &mut |_| 65535);
        add("narrow range far from zero", 65535, &mut |i| {
            65000 + (i % 5) as u16
        });
        add("black with few bright", 4095, &mut |i| {
            if i % 29 == 28 { 4095 } else { 0 }
        });
    }
    images
}

/// Fails with pictures if an element differs by more than the tolerance.
pub fn compare(label: &str, tolerance: Tolerance, cpu: &Tensor, gpu: &Tensor) {
    assert_eq!(cpu.shape(), gpu.shape(), "{label}");
    let pairs = || cpu.data().iter().zip(gpu.data());
    let Some(bad) = pairs().position(|(a, b)| !tolerance.accepts(*a, *b)) else {
        return;
    };
    let wrong = pairs().filter(|(a, b)| !tolerance.accepts(**a, **b)).count();
    let [_, channels, height, width] = cpu.shape();
    let (plane, at) = (bad / (height * width), bad % (height * width));
    let (n, c) = (plane / channels, plane % channels);
    let difference: Vec<f32> = cpu
        .plane(n, c)
        .iter()
        .zip(gpu.plane(n, c))
        .map(|(a, b)| (a - b).abs())
        .collect();
    let paths = [
        ("cpu", cpu.plane(n, c)),
        ("gpu", gpu.plane(n, c)),
        ("difference", &difference),
    ]
    .map(|(name, values)| picture(&format!("{name} {label}"), values, height, width));
    panic!(
        "{label}: {wrong} of {} elements differ by more than {tolerance:?}; first at item {n} channel {c} row {} \
         column {}: cpu {} gpu {}; pictures: {paths:?}",
        cpu.data().len(),
        at / width,
        at % width,
        cpu.data()[bad],
        gpu.data()[bad],
    );
}

/// Writes one plane, stretched to 8 bits, and gives the path.
pub fn picture(label: &str, values: &[f32], height: usize, width: usize) -> PathBuf {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let lo = finite().fold(f32::INFINITY, f32::min);
    let span = (finite().fold(f32::NEG_INFINITY, f32::max) - lo).max(f32::MIN_POSITIVE);
    let grey = values.iter().map(|v| ((v - lo) / span * 255.0) as u8).collect();
    let name: String = label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name:.180}.png"));
    image::GrayImage::from_raw(width as u32, height as u32, grey)
        .unwrap()
        .save(&path)
        .unwrap();
    path
}
