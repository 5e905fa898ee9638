//! Illumination, background, standardisation and projections against reference outputs of CellProfiler, scikit-image and
//! numpy in `../shared/oracles`; kernels on both devices.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use wellspring_kernels::illumination::{block_background, rank_median, rescaled};
use wellspring_kernels::{
    Background, Form, IlluminationSettings, MeanImage, PercentileScale, Project, Projection, RawImage,
    Recipe, ScaleRange, Smoothing, Standardise, Step, Tensor,
};

mod common;

use common::{cpu, gpu, npy};

/// CellProfiler's scale of 16-bit pixels.
const SCALE: f64 = 65535.0;

/// One grey level of the median beside the robust minimum of the stack, 952.
const ONE_LEVEL: f64 = 1.06e-3;

/// Largest gap, relative to the larger of `floor` and the reference.
fn gap(ours: impl IntoIterator<Item = f64>, theirs: &[f64], floor: f64) -> f64 {
    let mut count = 0;
    let gap = ours
        .into_iter()
        .zip(theirs)
        .inspect(|_| count += 1)
        .map(|(a, b)| (a - b).abs() / b.abs().max(floor))
        .fold(0.0, f64::max);
    assert_eq!(count, theirs.len());
    gap
}

fn f64s(values: &[f32]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|v| f64::from(*v))
}

/// The vignetted stack as images of one channel.
fn stack() -> Option<(Vec<RawImage>, [usize; 2])> {
    let (shape, pixels) = npy::u16s("illum_stack.npy")?;
    let [_, height, width] = shape[..] else {
        panic!("{shape:?}")
    };
    let image = |p: &[u16]| RawImage::new(1, height, width, p.to_vec(), 65535).unwrap();
    Some((
        pixels.chunks_exact(height * width).map(image).collect(),
        [height, width],
    ))
}

fn mean(images: &[RawImage]) -> MeanImage {
    let mut mean = MeanImage::new(images[0].shape());
    images.iter().for_each(|image| mean.add(image).unwrap());
    mean
}

#[test]
fn illumination_functions_agree_with_cellprofiler() {
    let Some((images, size)) = stack() else { return };
    let mean = mean(&images);
    let average = mean.plane(0);
    let (_, theirs) = npy::floats("illum_avg.npy").unwrap();
    assert!(gap(average.iter().map(|v| v / SCALE), &theirs, 1e-9) < 1e-12);

    let settings = |smoothing, rescale| IlluminationSettings {
        smoothing,
        size: 40.0,
        reduction: 1,
        rescale,
    };
    let ours = |settings| mean.illumination(&settings).unwrap().parts().1.to_vec();

    // Ranks are exact; the reference truncates a product that may fall short of a whole grey level.
    let (_, theirs) = npy::u16s("illum_median40_raw.npy").unwrap();
    let levels: Vec<u16> = average.iter().map(|v| *v as u16).collect();
    let median = rank_median(&levels, size, 17);
    assert!(median.iter().zip(&theirs).all(|(a, b)| a.abs_diff(*b) <= 1));
    assert!(
        f64s(&ours(settings(Smoothing::Median, false)))
            .zip(&median)
            .all(|(a, b)| a == f64::from(*b))
    );

    let (_, theirs) = npy::floats("illum_median40_rescaled.npy").unwrap();
    let median: Vec<f64> = npy::u16s("illum_median40_raw.npy")
        .unwrap()
        .1
        .into_iter()
        .map(f64::from)
        .collect();
    let found = gap(rescaled(median), &theirs, 1.0);
    assert!(found < 1e-7, "median, from the same levels: {found:e}");
    let found = gap(f64s(&ours(settings(Smoothing::Median, true))), &theirs, 1.0);
    assert!(found < ONE_LEVEL, "median: {found:e}");
    let (_, theirs) = npy::floats("illum_gauss40_rescaled.npy").unwrap();
    let found = gap(f64s(&ours(settings(Smoothing::Gaussian, true))), &theirs, 1.0);
    assert!(found < 1e-6, "Gaussian: {found:e}");
    let (_, theirs) = npy::floats("illum_polyfit.npy").unwrap();
    let surface = ours(settings(Smoothing::Polynomial, false));
    let found = gap(f64s(&surface).map(|v| v / SCALE), &theirs, 1e-3);
    assert!(found < 1e-6, "polynomial: {found:e}");
}

#[test]
fn background_of_blocks_agrees_with_cellprofiler() {
    let Some((images, size)) = stack() else { return };
    let ours = block_background(images[0].plane(0), size, 30, 50.0).unwrap();
    let (_, theirs) = npy::floats("illum_background_block30_gauss50_img0.npy").unwrap();
    let found = gap(ours.iter().map(|v| v / SCALE), &theirs, 1e-3);
    assert!(found < 1e-6, "{found:e}");
}

#[test]
fn correction_by_the_estimated_function_agrees() {
    let Some((images, _)) = stack() else { return };
    let illumination = mean(&images)
        .illumination(&IlluminationSettings {
            smoothing: Smoothing::Median,
            size: 40.0,
            reduction: 1,
            rescale: true,
        })
        .unwrap();
    let (_, theirs) = npy::floats("illum_corrected_img0.npy").unwrap();
    let step = wellspring_kernels::FlatField {
        black_level: vec![0.0],
        illumination: Some(illumination),
        mode: wellspring_kernels::FlatFieldMode::Divide,
    };
    for device in [cpu(), gpu()] {
        let recipe = Recipe::new(vec![step.clone().into()], images[0].shape()).unwrap();
        let ours = device.run(&recipe, &images[0]).unwrap();
        let found = gap(
            f64s(ours.data()).map(|v| (v / SCALE).clamp(0.0, 1.0)),
            &theirs,
            1e-3,
        );
        assert!(found < ONE_LEVEL, "{}: {found:e}", device.info());
    }
}

/// Per cent of the full resolution, on a stack that is hard for it: 24 small fields leave cells in the mean, so that the
/// median itself has steps.
#[test]
fn reduced_resolution_stays_close() {
    let Some((images, _)) = stack() else { return };
    let mean = mean(&images);
    for (smoothing, by, most, average) in [
        (Smoothing::Median, 2, 0.025, 0.003),
        (Smoothing::Gaussian, 4, 0.025, 0.003),
    ] {
        let with = |reduction| {
            let settings = IlluminationSettings {
                smoothing,
                size: 40.0,
                reduction,
                rescale: true,
            };
            mean.illumination(&settings).unwrap().parts().1.to_vec()
        };
        let (full, reduced) = (with(1), with(by));
        let gaps: Vec<f64> = f64s(&reduced)
            .zip(f64s(&full))
            .map(|(a, b)| (a - b).abs() / b)
            .collect();
        let largest = gaps.iter().copied().fold(0.0, f64::max);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!(
            largest < most && mean < average,
            "{smoothing:?}: {largest} {mean}"
        );
    }
}

/// Cells anywhere under a vignette: their mean, corrected by the function estimated from it, is flat.
#[test]
fn the_estimate_undoes_a_vignette() {
    let (height, width) = (96, 120);
    let mut random = common::Random(4);
    let light = |i: usize| {
        let (y, x) = ((i / width) as f32 / 96.0 - 0.4, (i % width) as f32 / 120.0 - 0.6);
        1.0 - 0.7 * (y * y + x * x)
    };
    let mut mean = MeanImage::new(wellspring_kernels::InputShape {
        channels: 1,
        height,
        width,
    });
    for _ in 0..300 {
        let pixels = (0..height * width).map(|i| {
            let cell = if random.unit() < 0.2 { 4000.0 } else { 300.0 };
            (light(i) * cell * (0.5 + random.unit())) as u16
        });
        mean.add(&RawImage::new(1, height, width, pixels.collect(), 65535).unwrap())
            .unwrap();
    }
    for smoothing in [Smoothing::Median, Smoothing::Gaussian, Smoothing::Polynomial] {
        let settings = IlluminationSettings {
            smoothing,
            size: 30.0,
            reduction: 2,
            rescale: true,
        };
        let found = mean.illumination(&settings).unwrap();
        let ([_, h, w], values) = found.parts();
        assert_eq!((h, w), (height, width));
        assert!(values.iter().all(|v| *v >= 1.0));
        // Away from the border, where half of a window is missing.
        let inside: Vec<usize> = (0..height * width)
            .filter(|i| (12..84).contains(&(i / w)) && (12..108).contains(&(i % w)))
            .collect();
        let variation = |of: &dyn Fn(usize) -> f64| {
            let mean = inside.iter().map(|i| of(*i)).sum::<f64>() / inside.len() as f64;
            (inside.iter().map(|i| (of(*i) - mean).powi(2)).sum::<f64>() / inside.len() as f64).sqrt() / mean
        };
        let before = variation(&|i| f64::from(light(i)));
        let after = variation(&|i| f64::from(light(i)) / f64::from(values[i]));
        assert!(after < before / 5.0, "{smoothing:?}: {after} of {before}");
    }
}

/// The top left 128 x 128 pixels of the field in focus.
fn corner() -> Option<RawImage> {
    let (shape, pixels) = npy::u16s("qc_images.npy")?;
    let width = shape[2];
    let corner = (0..128)
        .flat_map(|y| pixels[y * width..y * width + 128].to_vec())
        .collect();
    Some(RawImage::new(1, 128, 128, corner, 65535).unwrap())
}

#[test]
fn rolling_ball_agrees_with_scikit_image() {
    let Some(image) = corner() else { return };
    let (_, theirs) = npy::floats("bg_rolling_ball25_focus128.npy").unwrap();
    let recipe = Recipe::new(vec![Background::RollingBall { radius: 25 }.into()], image.shape()).unwrap();
    for device in [cpu(), gpu()] {
        let ours = device.run(&recipe, &image).unwrap();
        let background = f64s(ours.data())
            .zip(image.pixels())
            .map(|(v, x)| f64::from(*x) - v);
        let found = gap(background, &theirs, 1.0);
        assert!(found < 1e-5, "{}: {found:e}", device.info());
    }
}

#[test]
fn self_standardisation_agrees_with_the_networks() {
    let Some((shape, pixels)) = npy::u16s("qc_images.npy") else {
        return;
    };
    let reference = npy::json("self_standardise.json").unwrap();
    let names = [
        "focus",
        "blur2",
        "blur6",
        "saturated",
        "empty",
        "debris",
        "dim",
        "constant",
    ];
    let image = RawImage::new(shape[0], shape[1], shape[2], pixels, 65535).unwrap();
    let scale = PercentileScale {
        range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
        scale: 255.0,
        round: true,
    };
    let mut compared = 0;
    for (form, key, deviation) in [
        (Form::OpenPhenom, "openphenom_first5", "openphenom_scale"),
        (Form::CellDino, "celldino_first5", "celldino_scale"),
    ] {
        let steps: Vec<Step> = vec![scale.clone().into(), Standardise { form }.into()];
        let recipe = Recipe::new(steps, image.shape()).unwrap();
        for device in [cpu(), gpu()] {
            let ours = device.run(&recipe, &image).unwrap();
            for (c, name) in names.iter().enumerate() {
                let Some(expected) = reference.get(name) else {
                    continue;
                };
                let first: Vec<f64> = expected[key]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|v| v.as_f64().unwrap())
                    .collect();
                let found = gap(f64s(&ours.plane(0, c)[..5]), &first, 1.0);
                // A GPU sums in f32.
                let allowed = if device.info().name.starts_with("cpu") {
                    1e-6
                } else {
                    1e-5
                };
                assert!(found < allowed, "{} {name} {key}: {found:e}", device.info());
                assert!(expected[deviation].as_f64().unwrap() > 0.0);
                compared += 1;
            }
        }
    }
    assert!(compared >= 4 * 5, "{compared}");
}

#[test]
fn projections_agree_with_numpy() {
    let Some((shape, pixels)) = npy::u16s("zstack.npy") else {
        return;
    };
    let reference = npy::json("zproj.json").unwrap();
    let [slices, height, width] = shape[..] else {
        panic!("{shape:?}")
    };
    let image = RawImage::new(slices, height, width, pixels.clone(), 65535).unwrap();
    for device in [cpu(), gpu()] {
        let run = |projection| -> Tensor {
            let step = Project { slices, projection }.into();
            device
                .run(&Recipe::new(vec![step], image.shape()).unwrap(), &image)
                .unwrap()
        };
        let sum = |t: &Tensor| f64s(t.data()).sum::<f64>();
        assert_eq!(
            sum(&run(Projection::Maximum)),
            reference["max_sum"].as_f64().unwrap()
        );
        let mean = sum(&run(Projection::Mean));
        assert!(
            (mean - reference["mean_sum"].as_f64().unwrap()).abs() < 1.0,
            "{mean}"
        );
        let best = reference["best_focus_slice"].as_u64().unwrap() as usize;
        let slice: Vec<f32> = image.plane(best).iter().map(|v| f32::from(*v)).collect();
        assert_eq!(run(Projection::BestFocus).data(), slice);
    }
}
