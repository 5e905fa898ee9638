//! BaSiC: shading of known truth is found again, and numbers are those of the reference form.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use wellspring_kernels::{
    BasicSettings, BasicStack, IlluminationSettings, KernelError, MeanImage, RawImage, Shading,
};

mod common;

use common::{Random, npy};

const HEIGHT: usize = 150;
const WIDTH: usize = 201;

/// Light of channel `c` at a pixel, about 1: brightest beside the centre.
fn light(c: usize, y: usize, x: usize) -> f64 {
    let at = |i: usize, n: usize, centre: f64| i as f64 / n as f64 - centre;
    let (y, x) = (at(y, HEIGHT, 0.4 + 0.2 * c as f64), at(x, WIDTH, 0.55));
    1.3 - 0.9 * y * y - 1.1 * x * x
}

/// Grey levels without light.
fn darkness(y: usize, x: usize) -> f64 {
    60.0 + 40.0 * (y as f64 / HEIGHT as f64) * (x as f64 / WIDTH as f64)
}

/// Images of a background of differing brightness under some bright cells, and noise.
#[test]
fn no_method_makes_a_function_of_no_light() {
    let dark = RawImage::new(1, 32, 32, vec![0; 1024], 65535).unwrap();
    let mut mean = MeanImage::new(dark.shape());
    mean.add(&dark).unwrap();
    let error = mean.illumination(&IlluminationSettings::default()).unwrap_err();
    assert!(error.to_string().contains("zeros in channel 0"), "{error}");
}

fn stack(settings: BasicSettings, images: u64, dark: bool) -> (BasicStack, MeanImage) {
    let mut random = Random(11);
    let channels = if dark { 1 } else { 2 };
    let shape = RawImage::new(channels, HEIGHT, WIDTH, vec![0; channels * HEIGHT * WIDTH], 65535)
        .unwrap()
        .shape();
    let (mut stack, mut sum) = (BasicStack::new(settings, shape).unwrap(), MeanImage::new(shape));
    for n in 0..images {
        let brightness = 150.0 + 60.0 * ((n * 5) % 9) as f64;
        let mut pixels = Vec::new();
        for c in 0..channels {
            let cells: Vec<[f64; 3]> = (0..12)
                .map(|_| {
                    let (y, x) = (random.unit(), random.unit());
                    [
                        f64::from(y) * HEIGHT as f64,
                        f64::from(x) * WIDTH as f64,
                        4.0 + 4.0 * f64::from(random.unit()),
                    ]
                })
                .collect();
            for y in 0..HEIGHT {
                for x in 0..WIDTH {
                    let inside =
                        |[cy, cx, r]: &[f64; 3]| (y as f64 - cy).powi(2) + (x as f64 - cx).powi(2) < r * r;
                    let content = brightness * if cells.iter().any(inside) { 5.0 } else { 1.0 };
                    let offset = if dark { darkness(y, x) } else { 0.0 };
                    let noise = 10.0 * f64::from(random.unit() - 0.5);
                    pixels.push((content * light(c, y, x) + offset + noise).round() as u16);
                }
            }
        }
        let image = RawImage::new(channels, HEIGHT, WIDTH, pixels, 65535).unwrap();
        stack.add(&image).unwrap();
        sum.add(&image).unwrap();
    }
    (stack, sum)
}

/// Root of the mean square and the largest of the relative differences of two planes, both over their mean.
fn gaps(found: &[f64], truth: &[f64]) -> [f64; 2] {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (a, b) = (mean(found), mean(truth));
    let gaps: Vec<f64> = found
        .iter()
        .zip(truth)
        .map(|(f, t)| (f / a) / (t / b) - 1.0)
        .collect();
    let square = mean(&gaps.iter().map(|g| g * g).collect::<Vec<_>>());
    [square.sqrt(), gaps.iter().fold(0.0, |most, g| g.abs().max(most))]
}

fn truth(c: usize) -> Vec<f64> {
    (0..HEIGHT * WIDTH)
        .map(|i| light(c, i / WIDTH, i % WIDTH))
        .collect()
}

fn plane(shading: &Shading, c: usize) -> Vec<f64> {
    let ([_, height, width], values) = shading.flat_field.parts();
    values[c * height * width..(c + 1) * height * width]
        .iter()
        .map(|v| f64::from(*v))
        .collect()
}

#[test]
fn the_light_of_few_images_is_found_under_their_cells() {
    let (stack, sum) = stack(BasicSettings::default(), 20, false);
    let shading = stack.shading().unwrap();
    assert!(shading.unsettled.is_empty() && shading.dark_field.is_none());
    for c in 0..2 {
        let [square, largest] = gaps(&plane(&shading, c), &truth(c));
        let [mean_square, _] = gaps(&sum.plane(c), &truth(c));
        assert!(square < 0.01 && largest < 0.04, "{c}: {square} {largest}");
        // Twenty images are too few for a mean.
        assert!(mean_square > 8.0 * square, "{c}: {mean_square} {square}");
    }
}

#[test]
fn a_dark_field_is_told_from_the_light() {
    let settings = BasicSettings {
        dark_field: true,
        ..Default::default()
    };
    let (stack, _) = stack(settings, 36, true);
    let shading = stack.shading().unwrap();
    let [square, _] = gaps(&plane(&shading, 0), &truth(0));
    let ([1, HEIGHT, WIDTH], dark) = shading.dark_field.as_ref().unwrap().parts() else {
        panic!("another shape");
    };
    let miss: f64 = dark
        .iter()
        .enumerate()
        .map(|(i, d)| (f64::from(*d) - darkness(i / WIDTH, i % WIDTH)).powi(2))
        .sum();
    let miss = (miss / dark.len() as f64).sqrt();
    // Without a dark-field the light is wrong by what the darkness hides.
    let (without, _) = self::stack(BasicSettings::default(), 36, true);
    let [flat_only, _] = gaps(&plane(&without.shading().unwrap(), 0), &truth(0));
    assert!(square < 0.02 && flat_only > 2.0 * square, "{square} {flat_only}");
    assert!(miss < 15.0, "{miss}");
}

#[test]
fn threads_do_not_matter() {
    let settings = BasicSettings {
        working_size: 40,
        dark_field: true,
        ..Default::default()
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| stack(settings, 9, true).0.shading().unwrap())
    };
    assert_eq!(with(1), with(3));
}

/// basicpy 2.0.0, `ApproximateFit` in double precision over the same rounds as `BaSiC.fit`, on images of the working size.
#[test]
fn numbers_are_those_of_basicpy() {
    let [height, width] = [16, 20];
    let at = [[0, 0], [3, 17], [8, 11], [15, 0], [15, 19]];
    let cases = [(false, FLAT, [0.0; 5]), (true, FLAT_BESIDE_DARK, DARK)];
    for (dark_field, flat, dark) in cases {
        let settings = BasicSettings {
            working_size: 20,
            dark_field,
            ..Default::default()
        };
        let mut stack: Option<BasicStack> = None;
        for k in 0..24 {
            let brightness = 200.0 + 37.0 * ((k * 7) % 11) as f64;
            let pixel = |i: usize| {
                let (y, x) = (i / width, i % width);
                let light =
                    1.2 - 0.5 * ((y as f64 - 8.0) / 16.0).powi(2) - 0.8 * ((x as f64 - 11.0) / 20.0).powi(2);
                let cell = if (31 * y + 17 * x + 13 * k) % 23 == 0 {
                    900.0
                } else {
                    0.0
                };
                (brightness * light + 40.0 + x as f64 + cell).floor() as u16
            };
            let pixels = (0..height * width).map(pixel).collect();
            let image = RawImage::new(1, height, width, pixels, 65535).unwrap();
            let stack = stack.get_or_insert_with(|| BasicStack::new(settings, image.shape()).unwrap());
            stack.add(&image).unwrap();
        }
        let shading = stack.unwrap().shading().unwrap();
        for (k, [y, x]) in at.into_iter().enumerate() {
            let found = f64::from(shading.flat_field.parts().1[y * width + x]);
            assert!(
                (found - flat[k]).abs() < 2e-4,
                "{dark_field} {y} {x}: {found} {}",
                flat[k]
            );
            if let Some(plane) = &shading.dark_field {
                let found = f64::from(plane.parts().1[y * width + x]);
                assert!((found - dark[k]).abs() < 0.05, "{y} {x}: {found} {}", dark[k]);
            }
        }
    }
}

const FLAT: [f64; 5] = [0.770_776, 1.009_94, 1.096_496, 0.794_703, 0.927_953];
const FLAT_BESIDE_DARK: [f64; 5] = [0.777_093, 0.994_188, 1.102_561, 0.800_335, 0.902_357];
const DARK: [f64; 5] = [10.7542, 24.5427, 16.4636, 11.6251, 28.1633];

/// The same reference on images of cells, which cover most of them, so that rounds of weights matter: `../shared/oracles`.
#[test]
fn images_of_cells_are_decomposed_as_basicpy_does() {
    let Some((shape, pixels)) = npy::u16s("illum_stack.npy") else {
        return;
    };
    let [_, height, width] = shape[..] else {
        panic!("{shape:?}")
    };
    let at = [[0, 0], [20, 100], [64, 80], [127, 0], [127, 159]];
    let flats = [
        [0.236_587, 0.943_588, 1.279_437, 0.264_016, 0.289_248],
        [0.220_874, 0.921_82, 1.263_14, 0.090_308, 0.093_777],
    ];
    let dark = [10.2409, 35.0401, -66.3639, 136.3595, 170.0387];
    for (dark_field, flat) in [false, true].into_iter().zip(flats) {
        let settings = BasicSettings {
            working_size: width,
            dark_field,
            ..Default::default()
        };
        let image = |pixels: &[u16]| RawImage::new(1, height, width, pixels.to_vec(), 65535).unwrap();
        let mut images = pixels.chunks_exact(height * width).map(image).peekable();
        let mut stack = BasicStack::new(settings, images.peek().unwrap().shape()).unwrap();
        images.for_each(|image| stack.add(&image).unwrap());
        let shading = stack.shading().unwrap();
        for (k, [y, x]) in at.into_iter().enumerate() {
            let found = f64::from(shading.flat_field.parts().1[y * width + x]);
            assert!(
                (found - flat[k]).abs() < 1e-4,
                "{dark_field} {y} {x}: {found} {}",
                flat[k]
            );
            if let Some(plane) = &shading.dark_field {
                let found = f64::from(plane.parts().1[y * width + x]);
                assert!((found - dark[k]).abs() < 0.02, "{y} {x}: {found} {}", dark[k]);
            }
        }
    }
}

#[test]
fn bad_input_is_named() {
    let image =
        |height, width, level| RawImage::new(1, height, width, vec![level; height * width], 65535).unwrap();
    let shape = image(30, 40, 1).shape();
    let message = |settings: BasicSettings| BasicStack::new(settings, shape).unwrap_err().to_string();
    let usual = BasicSettings::default();
    for (settings, words) in [
        (
            BasicSettings {
                working_size: 4,
                ..usual
            },
            "working_size` is 4",
        ),
        (
            BasicSettings {
                smoothness_flat: Some(f64::NAN),
                ..usual
            },
            "smoothness_flat` is NaN",
        ),
        (
            BasicSettings {
                smoothness_dark: Some(0.0),
                ..usual
            },
            "smoothness_dark` is 0",
        ),
        (
            BasicSettings {
                epsilon: -1.0,
                ..usual
            },
            "epsilon` is -1",
        ),
    ] {
        let message = message(settings);
        assert!(message.contains(words), "{message}");
    }
    let mut stack = BasicStack::new(usual, shape).unwrap();
    assert!(matches!(
        stack.add(&image(40, 30, 1)),
        Err(KernelError::Input { .. })
    ));
    stack.add(&image(30, 40, 0)).unwrap();
    let few = stack.shading().unwrap_err().to_string();
    assert!(few.contains("at least two images"), "{few}");
    stack.add(&image(30, 40, 0)).unwrap();
    let dark = stack.shading().unwrap_err().to_string();
    assert!(dark.contains("zeros in channel 0"), "{dark}");
    // Images of one level are a flat-field of 1.
    let mut stack = BasicStack::new(usual, shape).unwrap();
    for level in [70, 90, 400] {
        stack.add(&image(30, 40, level)).unwrap();
    }
    let flat = stack.shading().unwrap().flat_field;
    assert!(flat.parts().1.iter().all(|v| (v - 1.0).abs() < 1e-3));
}
