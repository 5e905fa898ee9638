//! The twin test: every kernel of the registry runs on the CPU and on a graphics adapter (a software one will do) over
//! the same images, and every element must agree within the kernel's own tolerance. On failure both images and their
//! difference are written as PNG and the paths are printed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use std::path::PathBuf;
use std::sync::OnceLock;

use wellspring_kernels::registry::{MEASURES, STEP_TYPES};
use wellspring_kernels::{
    Background, Device, DeviceChoice, FlatField, FlatFieldMode, Footprint, Illumination, Kernel,
    PercentileScale, Placement, RawImage, Recipe, Resize, ResizeFilter, ScaleRange, Step, Tensor, Tile,
    Tolerance,
};

fn cpu() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| Device::open(DeviceChoice::Cpu).unwrap())
}

/// One adapter for all tests of this file.
fn gpu() -> &'static Device {
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
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Channels, height, width: single pixels, lines, odd sizes, and more pixels than one workgroup has threads.
const SHAPES: &[[usize; 3]] = &[
    [1, 1, 1],
    [1, 1, 37],
    [2, 41, 1],
    [1, 2, 2],
    [3, 5, 7],
    [4, 17, 16],
    [8, 19, 23],
    [5, 67, 53],
    [2, 128, 131],
];

/// 8- and 16-bit noise, constant, saturated, and dark with a few bright pixels.
fn images() -> Vec<(String, RawImage)> {
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

/// Parameter sets for every kernel, given the shape that enters.
fn examples([_, channels, height, width]: [usize; 4]) -> Vec<Step> {
    let mut random = Random(11);
    let per_channel = |f: &dyn Fn(usize) -> f64| (0..channels).map(f).collect::<Vec<_>>();
    let illumination = |planes: usize, random: &mut Random| {
        let values = (0..planes * height * width)
            .map(|_| 1.0 + 2.0 * random.unit())
            .collect();
        Some(Illumination::new(planes, height, width, values).unwrap())
    };
    let mut steps: Vec<Step> = vec![
        FlatField {
            black_level: vec![100.0],
            illumination: None,
            mode: FlatFieldMode::Divide,
        }
        .into(),
        FlatField {
            black_level: (0..channels).map(|c| c as f32 * 10.5).collect(),
            illumination: illumination(channels, &mut random),
            mode: FlatFieldMode::Divide,
        }
        .into(),
        FlatField {
            black_level: vec![3.25],
            illumination: illumination(1, &mut random),
            mode: FlatFieldMode::Subtract,
        }
        .into(),
        Background::Fixed {
            levels: per_channel(&|c| 200.3 + c as f64),
        }
        .into(),
        Background::Percentile { q: 1.0 }.into(),
        Background::Percentile { q: 37.77 }.into(),
        Background::TopHat {
            footprint: Footprint::Square,
            radius: 3,
        }
        .into(),
        Background::TopHat {
            footprint: Footprint::Disk,
            radius: 6,
        }
        .into(),
        PercentileScale {
            range: ScaleRange::Given {
                lo: per_channel(&|c| 100.1 + c as f64),
                hi: vec![30000.7],
            },
            scale: 1.0,
            round: false,
        }
        .into(),
        Resize {
            height: 1,
            width: 1,
            filter: ResizeFilter::Area,
        }
        .into(),
    ];
    for (lo, hi) in [(0.1, 99.9), (0.0, 100.0), (50.0, 50.0), (12.3, 61.8)] {
        for (scale, round) in [(1.0, false), (255.0, true)] {
            steps.push(
                PercentileScale {
                    range: ScaleRange::PerImage { lo, hi },
                    scale,
                    round,
                }
                .into(),
            );
        }
    }
    let filters = [
        ResizeFilter::Area,
        ResizeFilter::Bilinear { antialias: true },
        ResizeFilter::Bilinear { antialias: false },
    ];
    for filter in filters {
        for (h, w) in [
            (height, width),
            (height.div_ceil(2), width.div_ceil(3)),
            (height * 2 + 1, width + 3),
        ] {
            steps.push(
                Resize {
                    height: h,
                    width: w,
                    filter,
                }
                .into(),
            );
        }
    }
    let crop = [height.div_ceil(3), width.div_ceil(2)];
    for placement in [
        Placement::Grid,
        Placement::Centre,
        Placement::Offset {
            y: height - crop[0],
            x: (width - crop[1]) / 2,
        },
    ] {
        steps.push(
            Tile {
                height: crop[0],
                width: crop[1],
                placement,
            }
            .into(),
        );
    }
    steps
}

/// Fails with pictures if an element differs by more than the tolerance.
fn compare(label: &str, tolerance: Tolerance, cpu: &Tensor, gpu: &Tensor) {
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
fn picture(label: &str, values: &[f32], height: usize, width: usize) -> PathBuf {
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

#[test]
fn every_step_agrees_on_raw_images() {
    for (name, image) in images() {
        let shape = image.shape();
        for step in examples([1, shape.channels, shape.height, shape.width]) {
            let label = format!("{name} {step:?}");
            let recipe = Recipe::new(vec![step.clone()], shape).unwrap();
            let a = cpu().run(&recipe, &image).unwrap();
            let b = gpu().run(&recipe, &image).unwrap();
            assert_eq!(a.shape(), recipe.output_shape(), "{label}");
            compare(&label, step.tolerance(), &a, &b);
        }
    }
}

#[test]
fn every_step_agrees_on_float_input_with_nan_and_infinity() {
    let mut random = Random(23);
    for &shape in &[[1, 1, 1, 1], [2, 3, 9, 13], [1, 8, 21, 40]] {
        for special in [0.0, 0.02, 0.3, 1.0] {
            let values = (0..shape.iter().product())
                .map(|_| match random.unit() < special {
                    true => {
                        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, -5.5][(random.next() % 5) as usize]
                    }
                    false => random.unit() * 5000.0,
                })
                .collect();
            let input = Tensor::new(shape, values).unwrap();
            for step in examples(shape) {
                let a = cpu().run_step(&step, &input).unwrap();
                let b = gpu().run_step(&step, &input).unwrap();
                compare(
                    &format!("{special} special {shape:?} {step:?}"),
                    step.tolerance(),
                    &a,
                    &b,
                );
            }
        }
    }
}

#[test]
fn every_measure_agrees_exactly() {
    for (name, image) in images() {
        for &measure in MEASURES {
            let a = cpu().measure(measure, &image).unwrap();
            let b = gpu().measure(measure, &image).unwrap();
            assert!(a == b, "{} differs on {name}", measure.name());
        }
        assert_eq!(
            format!("{:?}", cpu().quality(&image).unwrap()),
            format!("{:?}", gpu().quality(&image).unwrap()),
            "{name}"
        );
    }
}

#[test]
fn the_examples_cover_the_registry() {
    let covered = format!("{:?}", examples([1, 2, 30, 40]));
    for kind in STEP_TYPES {
        assert!(covered.contains(&format!("{kind}(")), "no example of {kind}");
    }
}

#[test]
fn a_whole_recipe_agrees_and_buffers_are_reused_safely() {
    let shape = [3, 150, 211];
    let mut random = Random(5);
    let pixels = (0..shape.iter().product())
        .map(|_| (random.next() & 0xfff) as u16)
        .collect();
    let image = RawImage::new(shape[0], shape[1], shape[2], pixels, 4095).unwrap();
    let steps = vec![
        FlatField {
            black_level: vec![20.0],
            illumination: Some(
                Illumination::new(
                    1,
                    150,
                    211,
                    (0..150 * 211).map(|i| 1.0 + (i % 211) as f32 / 300.0).collect(),
                )
                .unwrap(),
            ),
            mode: FlatFieldMode::Divide,
        }
        .into(),
        Background::Percentile { q: 1.0 }.into(),
        PercentileScale {
            range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
            scale: 255.0,
            round: false,
        }
        .into(),
        Tile {
            height: 64,
            width: 64,
            placement: Placement::Grid,
        }
        .into(),
        Resize {
            height: 32,
            width: 32,
            filter: ResizeFilter::Bilinear { antialias: true },
        }
        .into(),
    ];
    let recipe = Recipe::new(steps, image.shape()).unwrap();
    let expected = cpu().run(&recipe, &image).unwrap();
    let tolerance = Tolerance {
        absolute: 255.0 * 4e-6,
        relative: 4e-6,
        why: "five steps in f32",
    };
    for _ in 0..3 {
        compare(
            "whole recipe",
            tolerance,
            &expected,
            &gpu().run(&recipe, &image).unwrap(),
        );
    }
}

#[test]
fn one_device_serves_many_threads() {
    let image = RawImage::new(
        1,
        40,
        40,
        (0..1600).map(|i| (i * 37 % 4096) as u16).collect(),
        4095,
    )
    .unwrap();
    let scale = PercentileScale {
        range: ScaleRange::PerImage { lo: 1.0, hi: 99.0 },
        scale: 1.0,
        round: false,
    };
    let recipe = Recipe::new(vec![scale.into()], image.shape()).unwrap();
    let expected = gpu().run(&recipe, &image).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(gpu().run(&recipe, &image).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn an_image_above_the_binding_limit_is_refused_before_any_dispatch() {
    let limit = gpu().info().max_binding_bytes.unwrap();
    let Ok(side) = usize::try_from(limit / 4).map(|pixels| pixels.isqrt() + 1) else {
        return;
    };
    if side > 8192 {
        println!("skipped: this adapter binds {limit} bytes, too much to exceed in a test");
        return;
    }
    let image = RawImage::new(1, side, side, vec![1; side * side], 255).unwrap();
    let error = gpu()
        .run(&Recipe::new(vec![], image.shape()).unwrap(), &image)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("convert") && error.contains(&limit.to_string()),
        "{error}"
    );
}
