//! The twin test: every kernel of the registry runs on the CPU and on a graphics adapter (a software one will do) over
//! the same images, and every element must agree within the kernel's own tolerance. On failure both images and their
//! difference are written as PNG and the paths are printed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use wellspring_kernels::registry::{MEASURES, STEP_TYPES};
use wellspring_kernels::{
    Background, FlatField, FlatFieldMode, Illumination, Kernel, PercentileScale, Placement, Project,
    Projection, RawImage, Recipe, Resize, ResizeFilter, ScaleRange, Step, Tensor, Tile, Tolerance,
};

mod common;

use common::examples::examples;
use common::{Random, compare, cpu, gpu, images};

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

/// The chain that a screen puts before everything else is read through by every kernel.
#[test]
fn every_step_agrees_behind_a_chain_of_point_wise_steps() {
    let chain = |channels: usize, height: usize, width: usize| -> Vec<Step> {
        let values = (0..channels * height * width)
            .map(|i| 1.0 + (i % 23) as f32 / 17.0)
            .collect();
        let illumination = Illumination::new(channels, height, width, values).unwrap();
        vec![
            FlatField {
                black_level: vec![20.0],
                illumination: Some(illumination),
                mode: FlatFieldMode::Divide,
            }
            .into(),
            Background::Percentile { q: 1.0 }.into(),
            PercentileScale {
                range: ScaleRange::PerImage { lo: 0.5, hi: 99.5 },
                scale: 255.0,
                round: false,
            }
            .into(),
        ]
    };
    for (name, image) in images() {
        let shape = image.shape();
        if shape.height * shape.width > 2000 || !name.contains("16-bit") {
            continue;
        }
        for step in examples([1, shape.channels, shape.height, shape.width]) {
            // Rounding before the choice of a slice may choose another one.
            if matches!(
                step,
                Step::Project(Project {
                    projection: Projection::BestFocus,
                    ..
                })
            ) {
                continue;
            }
            let own = step.tolerance();
            let tolerance = Tolerance {
                absolute: own.absolute + 255.0 * 1e-5,
                relative: own.relative + 1e-5,
                why: "the step's own, and the rounding of three steps before it",
            };
            let mut steps = chain(shape.channels, shape.height, shape.width);
            steps.push(step.clone());
            let recipe = Recipe::new(steps, shape).unwrap();
            let (a, b) = (
                cpu().run(&recipe, &image).unwrap(),
                gpu().run(&recipe, &image).unwrap(),
            );
            compare(&format!("chain {name} {step:?}"), tolerance, &a, &b);
        }
    }
}

/// Buffers are reused: what they held before, and what lies beyond the image in them, must not matter.
#[test]
fn poisoned_buffers_do_not_show() {
    let shape = [1, 2, 19, 23];
    let mut random = Random(3);
    let input = Tensor::new(shape, (0..2 * 19 * 23).map(|_| random.unit() * 4000.0).collect()).unwrap();
    let poison = Tensor::new([2, 3, 31, 29], vec![f32::NAN; 2 * 3 * 31 * 29]).unwrap();
    for step in examples(shape) {
        let clean = gpu().run_step(&step, &input).unwrap();
        for steps in [examples(shape), examples([2, 3, 31, 29])] {
            for other in steps
                .iter()
                .step_by(5)
                .filter(|s| s.output_shape(poison.shape()).is_ok())
            {
                gpu().run_step(other, &poison).unwrap();
            }
        }
        let again = gpu().run_step(&step, &input).unwrap();
        let bits = |t: &Tensor| t.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&clean) == bits(&again), "{step:?}");
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
    let shape = [3, 190, 211];
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
                    190,
                    211,
                    (0..190 * 211).map(|i| 1.0 + (i % 211) as f32 / 300.0).collect(),
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
fn a_plane_above_the_binding_limit_is_cut_or_refused_before_any_dispatch() {
    let limit = gpu().info().max_binding_bytes.unwrap();
    let Ok(side) = usize::try_from(limit / 4).map(|pixels| pixels.isqrt() + 1) else {
        return;
    };
    if side > 8192 {
        println!("skipped: this adapter binds {limit} bytes, too much to exceed in a test");
        return;
    }
    let image = RawImage::new(1, side, side, vec![1; side * side], 255).unwrap();
    let run = |steps| gpu().run(&Recipe::new(steps, image.shape()).unwrap(), &image);
    let converted = run(vec![]).unwrap();
    assert!(converted.shape() == [1, 1, side, side] && converted.data().iter().all(|v| *v == 1.0));
    // A percentile needs the plane as a whole.
    let Err(error) = run(vec![Background::Percentile { q: 1.0 }.into()]) else {
        panic!("a plane of {side} x {side} pixels was ranked");
    };
    let error = error.to_string();
    assert!(
        error.contains("convert") && error.contains(&limit.to_string()),
        "{error}"
    );
}
