//! Bad input: an error that names the kernel, the parameter and the value, before any pixel is touched.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use wellspring_kernels::{
    Background, Border, Composite, Device, DeviceChoice, Fill, FlatField, FlatFieldMode, Footprint,
    GaussianBlur, Illumination, InputShape, KernelError, Median, Pad, PercentileScale, Placement, Project,
    Projection, RawImage, Recipe, Resize, ResizeFilter, ScaleRange, Step, Tensor, Tile, Translate,
};

const INPUT: InputShape = InputShape {
    channels: 2,
    height: 8,
    width: 10,
};

fn refused(step: impl Into<Step>) -> String {
    Recipe::new(vec![step.into()], INPUT).unwrap_err().to_string()
}

fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
}

#[test]
fn images_of_no_size_or_wrong_size() {
    assert!(matches!(
        RawImage::new(1, 0, 5, vec![], 255),
        Err(KernelError::Empty { .. })
    ));
    says(
        &RawImage::new(2, 2, 2, vec![0; 7], 255).unwrap_err().to_string(),
        &["8", "7"],
    );
    assert!(matches!(
        RawImage::new(1, 1, 1, vec![0], 0),
        Err(KernelError::Ceiling)
    ));
    assert!(matches!(
        RawImage::new(usize::MAX, 2, 2, vec![], 1),
        Err(KernelError::Overflow { .. })
    ));
    let mismatched = RawImage::from_planes(&[vec![0; 4], vec![0; 6]], 2, 2, 255)
        .unwrap_err()
        .to_string();
    says(&mismatched, &["plane", "4", "6"]);
    assert!(Tensor::new([1, 1, 2, 2], vec![0.0; 3]).is_err());
    assert!(Tensor::new([0, 1, 2, 2], vec![]).is_err());
}

#[test]
fn percentiles_out_of_order_or_range() {
    let scale = |range| PercentileScale {
        range,
        scale: 1.0,
        round: false,
    };
    let message = refused(scale(ScaleRange::PerImage { lo: 99.9, hi: 0.1 }));
    says(&message, &["percentile_scale", "lo", "99.9", "0.1"]);
    says(
        &refused(scale(ScaleRange::PerImage { lo: -1.0, hi: 50.0 })),
        &["percentile_scale", "lo", "-1"],
    );
    says(
        &refused(scale(ScaleRange::PerImage {
            lo: 0.0,
            hi: f64::NAN,
        })),
        &["hi", "NaN"],
    );
    let given = ScaleRange::Given {
        lo: vec![5.0, 9.0],
        hi: vec![8.0],
    };
    says(&refused(scale(given)), &["lo", "9", "8", "channel 1"]);
    let three = ScaleRange::Given {
        lo: vec![1.0; 3],
        hi: vec![8.0],
    };
    says(&refused(scale(three)), &["lo", "3 values", "2 channels"]);
    let none = ScaleRange::Given {
        lo: vec![],
        hi: vec![8.0],
    };
    says(&refused(scale(none)), &["lo", "0 values"]);
    let flat = PercentileScale {
        range: ScaleRange::PerImage { lo: 0.0, hi: 1.0 },
        scale: 0.0,
        round: true,
    };
    says(&refused(flat), &["scale", "0"]);
    says(
        &refused(Background::Percentile { q: 100.5 }),
        &["background", "q", "100.5"],
    );
}

#[test]
fn illumination_with_zeros_nan_or_another_size() {
    let message = Illumination::new(1, 2, 2, vec![1.0, f32::NAN, 1.0, 1.0])
        .unwrap_err()
        .to_string();
    says(&message, &["flat_field", "illumination", "NaN", "pixel 1"]);
    let field = |channels: usize, height, width, value, mode| FlatField {
        black_level: vec![0.0],
        illumination: Some(
            Illumination::new(channels, height, width, vec![value; channels * height * width]).unwrap(),
        ),
        mode,
    };
    says(
        &refused(field(1, 8, 10, 0.0, FlatFieldMode::Divide)),
        &["flat_field", "illumination", "0 at pixel 0"],
    );
    Recipe::new(vec![field(1, 8, 10, 0.0, FlatFieldMode::Subtract).into()], INPUT).unwrap();
    says(
        &refused(field(1, 9, 10, 1.0, FlatFieldMode::Divide)),
        &["flat_field", "[9, 10]", "[1, 2, 8, 10]"],
    );
    says(
        &refused(field(3, 8, 10, 1.0, FlatFieldMode::Divide)),
        &["illumination", "3 values", "2 channels"],
    );
    let negative = FlatField {
        black_level: vec![-4.0],
        illumination: None,
        mode: FlatFieldMode::Divide,
    };
    says(&refused(negative), &["black_level", "-4"]);
}

#[test]
fn shapes_that_do_not_fit() {
    let crop = |height, width, placement| Tile {
        height,
        width,
        placement,
    };
    says(&refused(crop(9, 3, Placement::Grid)), &["tile", "[9, 3]"]);
    says(
        &refused(crop(3, 3, Placement::Offset { y: 6, x: 0 })),
        &["tile", "[9, 3]"],
    );
    says(
        &refused(crop(3, 3, Placement::Offset { y: usize::MAX, x: 0 })),
        &["tile"],
    );
    says(&refused(crop(0, 3, Placement::Centre)), &["tile", "height", "0"]);
    says(
        &refused(Resize {
            height: 0,
            width: 4,
            filter: ResizeFilter::Area,
        }),
        &["resize", "height"],
    );
    says(
        &refused(Resize {
            height: 1 << 20,
            width: 1 << 20,
            filter: ResizeFilter::Area,
        }),
        &["too large"],
    );
    says(
        &refused(Background::TopHat {
            footprint: Footprint::Disk,
            radius: 0,
        }),
        &["background", "radius", "0"],
    );
    // The error names the step that cannot take what the step before it leaves.
    let steps = vec![
        crop(4, 4, Placement::Centre).into(),
        crop(5, 4, Placement::Centre).into(),
    ];
    says(
        &Recipe::new(steps, INPUT).unwrap_err().to_string(),
        &["tile", "[1, 2, 4, 4]", "[5, 4]"],
    );
    let none = InputShape {
        channels: 0,
        height: 4,
        width: 4,
    };
    assert!(matches!(
        Recipe::new(vec![], none),
        Err(KernelError::Empty { .. })
    ));
}

#[test]
fn parameters_of_windows_projections_and_pictures() {
    for (sigma, word) in [(0.0, "0"), (-2.0, "-2"), (f64::NAN, "NaN"), (1001.0, "1001")] {
        let blur = GaussianBlur {
            sigma,
            border: Border::Reflect,
        };
        says(&refused(blur), &["gaussian_blur", "sigma", word]);
        let background = Background::Gaussian {
            sigma,
            border: Border::Reflect,
        };
        says(&refused(background), &["background", "sigma", word]);
    }
    says(
        &refused(Background::RollingBall { radius: 513 }),
        &["background", "radius", "513"],
    );
    says(&refused(Median { size: 4 }), &["median", "size", "4"]);
    let pad = |top, fill| Pad {
        top,
        bottom: 0,
        left: 0,
        right: 0,
        fill,
    };
    says(&refused(pad(1 << 20, Fill::Edge)), &["pad", "top", "1048576"]);
    says(
        &refused(pad(1, Fill::Constant(f32::INFINITY))),
        &["pad", "fill", "inf"],
    );
    let project = |slices| Project {
        slices,
        projection: Projection::Maximum,
    };
    says(&refused(project(0)), &["project", "slices", "0"]);
    says(&refused(project(3)), &["project", "slices", "3 for 2 planes"]);
    let colours = |colours: Vec<[f32; 3]>| Composite { colours };
    says(
        &refused(colours(vec![[1.0; 3]])),
        &["composite", "colours", "list of 1 for 2"],
    );
    says(
        &refused(colours(vec![[1.0; 3], [0.0, 2.0, 0.0]])),
        &["composite", "colours", "2.0", "channel 1"],
    );
    let translate = |offsets| Translate { offsets };
    says(
        &refused(translate(vec![[0.0; 2]; 3])),
        &["offsets", "3 values", "2 channels"],
    );
    says(
        &refused(translate(vec![[f64::NAN, 0.0]])),
        &["translate", "offsets", "NaN"],
    );
    says(
        &refused(translate(vec![[9.0, 0.0]])),
        &["translate", "offsets", "9.0"],
    );
}

/// Three gigabytes of pixels are refused by the recipe, before anyone allocates what it would make of them.
#[test]
fn images_beyond_what_a_shader_can_count() {
    let shape = InputShape {
        channels: 1,
        height: 50_000,
        width: 50_000,
    };
    says(
        &Recipe::new(vec![], shape).unwrap_err().to_string(),
        &["too large", "50000"],
    );
    // One that fits may still grow too large on its way.
    let shape = InputShape {
        channels: 1,
        height: 30_000,
        width: 30_000,
    };
    let grow = Pad {
        top: 50_000,
        bottom: 50_000,
        left: 0,
        right: 0,
        fill: Fill::Edge,
    };
    says(
        &Recipe::new(vec![grow.into()], shape).unwrap_err().to_string(),
        &["too large", "130000"],
    );
}

#[test]
fn an_image_that_the_recipe_is_not_for() {
    let recipe = Recipe::new(vec![], INPUT).unwrap();
    let image = RawImage::new(1, 8, 10, vec![0; 80], 255).unwrap();
    let message = Device::open(DeviceChoice::Cpu)
        .unwrap()
        .run(&recipe, &image)
        .unwrap_err()
        .to_string();
    says(&message, &["2 channels", "1 channels"]);
}

#[test]
fn devices_that_do_not_exist() {
    assert!("".parse::<DeviceChoice>().is_err());
    assert_eq!(" GPU ".parse::<DeviceChoice>().unwrap(), DeviceChoice::Gpu);
    let choice = "no such adapter".parse::<DeviceChoice>().unwrap();
    let message = Device::open(choice).unwrap_err().to_string();
    // With an adapter or without.
    says(&message, &["no such adapter", "found", "cpu"]);
    let message = "#x".parse::<DeviceChoice>().unwrap_err().to_string();
    says(&message, &["`#x`", "software", "#1", "wellspring devices"]);
}

#[test]
fn auto_never_picks_a_software_adapter_and_says_why() {
    let device = Device::open(DeviceChoice::Auto).unwrap();
    assert_ne!(device.info().kind, wellspring_kernels::DeviceKind::Software);
    assert!(device.describe().contains("auto"), "{}", device.describe());
}
