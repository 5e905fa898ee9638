//! Parameter sets for every kernel of the registry.

use wellspring_kernels::{
    Background, Border, Composite, Fill, FlatField, FlatFieldMode, Footprint, Form, GaussianBlur,
    Illumination, Median, Orient, Pad, PercentileScale, Placement, Project, Projection, Resize, ResizeFilter,
    ScaleRange, Standardise, Step, Tile, Translate, Turn,
};

use super::Random;

/// Parameter sets for every kernel, given the shape that enters.
pub fn examples(shape: [usize; 4]) -> Vec<Step> {
    [
        point_wise(shape),
        windows(shape),
        geometry(shape),
        channels(shape),
    ]
    .concat()
}

/// Kernels that change each pixel by itself.
fn point_wise([_, channels, height, width]: [usize; 4]) -> Vec<Step> {
    let mut random = Random(11);
    let per_channel = |f: &dyn Fn(usize) -> f64| (0..channels).map(f).collect::<Vec<_>>();
    let illumination = |planes: usize, random: &mut Random| {
        let values = (0..planes * height * width)
            .map(|_| 1.0 + 2.0 * random.unit())
            .collect();
        Some(Illumination::new(planes, height, width, values).unwrap())
    };
    let field = |black_level, illumination, mode| FlatField {
        black_level,
        illumination,
        mode,
    };
    let black = (0..channels).map(|c| c as f32 * 10.5).collect();
    let given = ScaleRange::Given {
        lo: per_channel(&|c| 100.1 + c as f64),
        hi: vec![30000.7],
    };
    let mut steps: Vec<Step> = vec![
        field(vec![100.0], None, FlatFieldMode::Divide).into(),
        field(black, illumination(channels, &mut random), FlatFieldMode::Divide).into(),
        field(vec![3.25], illumination(1, &mut random), FlatFieldMode::Subtract).into(),
        Background::Fixed {
            levels: per_channel(&|c| 200.3 + c as f64),
        }
        .into(),
        Background::Percentile { q: 1.0 }.into(),
        Background::Percentile { q: 37.77 }.into(),
        PercentileScale {
            range: given,
            scale: 1.0,
            round: false,
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
    for form in [Form::ZScore, Form::OpenPhenom, Form::CellDino, Form::MorphEm] {
        steps.push(Standardise { form }.into());
    }
    steps
}

/// Kernels that look at neighbours.
fn windows(_: [usize; 4]) -> Vec<Step> {
    let mut steps: Vec<Step> = vec![
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
        Background::RollingBall { radius: 1 }.into(),
        Background::RollingBall { radius: 5 }.into(),
        Background::Gaussian {
            sigma: 4.0,
            border: Border::Normalised,
        }
        .into(),
        Median { size: 3 }.into(),
        Median { size: 5 }.into(),
    ];
    for (sigma, border) in [
        (0.5, Border::Reflect),
        (2.0, Border::Reflect),
        (9.0, Border::Reflect),
        (2.5, Border::Normalised),
    ] {
        steps.push(GaussianBlur { sigma, border }.into());
    }
    steps
}

/// Kernels that change the size or the place of pixels.
fn geometry([_, channels, height, width]: [usize; 4]) -> Vec<Step> {
    let mut steps: Vec<Step> = vec![
        Resize {
            height: 1,
            width: 1,
            filter: ResizeFilter::Area,
        }
        .into(),
    ];
    let filters = [
        ResizeFilter::Area,
        ResizeFilter::Bilinear { antialias: true },
        ResizeFilter::Bilinear { antialias: false },
        ResizeFilter::Lanczos,
    ];
    for filter in filters {
        for (height, width) in [
            (height, width),
            (height.div_ceil(2), width.div_ceil(3)),
            (height * 2 + 1, width + 3),
        ] {
            steps.push(
                Resize {
                    height,
                    width,
                    filter,
                }
                .into(),
            );
        }
    }
    let crop = [height.div_ceil(3), width.div_ceil(2)];
    let corner = Placement::Offset {
        y: height - crop[0],
        x: (width - crop[1]) / 2,
    };
    for placement in [Placement::Grid, Placement::Centre, corner] {
        steps.push(
            Tile {
                height: crop[0],
                width: crop[1],
                placement,
            }
            .into(),
        );
    }
    for turn in [
        Turn::FlipHorizontal,
        Turn::FlipVertical,
        Turn::Rotate90,
        Turn::Rotate180,
        Turn::Rotate270,
        Turn::Transpose,
        Turn::Transverse,
    ] {
        steps.push(Orient { turn }.into());
    }
    for fill in [Fill::Constant(-1.5), Fill::Edge, Fill::Reflect] {
        steps.push(
            Pad {
                top: 1,
                bottom: 4,
                left: 7,
                right: 0,
                fill,
            }
            .into(),
        );
    }
    let offsets = (0..channels)
        .map(|c| [(c as f64 - 1.0).min(height as f64), -0.3 * (c % 3) as f64])
        .collect();
    steps.push(Translate { offsets }.into());
    steps.push(
        Translate {
            offsets: vec![[-0.75, 0.25]],
        }
        .into(),
    );
    steps
}

/// Kernels that mix channels.
fn channels([_, channels, ..]: [usize; 4]) -> Vec<Step> {
    let colours = (0..channels)
        .map(|c| [0.25 * (c % 5) as f32, 1.0 / (c + 1) as f32, 0.7])
        .collect();
    let mut steps: Vec<Step> = vec![Composite { colours }.into()];
    for projection in [Projection::Maximum, Projection::Mean, Projection::BestFocus] {
        steps.push(
            Project {
                slices: channels,
                projection,
            }
            .into(),
        );
        steps.push(
            Project {
                slices: 1,
                projection,
            }
            .into(),
        );
        if channels.is_multiple_of(2) {
            steps.push(
                Project {
                    slices: channels / 2,
                    projection,
                }
                .into(),
            );
        }
    }
    steps
}
