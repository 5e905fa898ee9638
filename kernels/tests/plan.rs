//! What a GPU runs for a recipe: which dispatches, and how many bytes each moves. Fewer passes over the pixels is what
//! fusing is for, so the numbers are fixed here.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use wellspring_kernels::plan::Traffic;
use wellspring_kernels::{
    Background, Border, FlatField, FlatFieldMode, GaussianBlur, Illumination, InputShape, PercentileScale,
    Placement, Recipe, Resize, ResizeFilter, ScaleRange, Step, Tile,
};

mod common;

const SHAPE: InputShape = InputShape {
    channels: 5,
    height: 216,
    width: 216,
};
const PIXELS: u64 = 5 * 216 * 216;
/// Two bytes of a raw pixel and four of its illumination function.
const RAW: u64 = 2 * PIXELS;
const FUNCTIONS: u64 = 4 * PIXELS;
const RESULT: u64 = 5 * 51 * 51 * 4;

fn divide() -> Step {
    let values = vec![1.5; PIXELS as usize];
    FlatField {
        black_level: vec![100.0],
        illumination: Some(Illumination::new(5, 216, 216, values).unwrap()),
        mode: FlatFieldMode::Divide,
    }
    .into()
}

fn shrink() -> Step {
    Resize {
        height: 51,
        width: 51,
        filter: ResizeFilter::Area,
    }
    .into()
}

fn per_image() -> Step {
    PercentileScale {
        range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
        scale: 255.0,
        round: false,
    }
    .into()
}

fn given() -> Step {
    PercentileScale {
        range: ScaleRange::Given {
            lo: vec![200.0],
            hi: vec![4000.0],
        },
        scale: 255.0,
        round: false,
    }
    .into()
}

fn traffic(steps: Vec<Step>) -> Vec<Traffic> {
    Recipe::new(steps, SHAPE).unwrap().traffic()
}

fn entries(traffic: &[Traffic]) -> Vec<&'static str> {
    traffic.iter().map(|t| t.entry).collect()
}

/// Dispatches that read as many bytes as there are in all raw pixels.
fn passes(traffic: &[Traffic]) -> usize {
    traffic.iter().filter(|t| t.read >= RAW).count()
}

#[test]
fn with_given_levels_the_pixels_are_read_once_and_only_the_result_is_written() {
    let all = traffic(vec![
        divide(),
        Background::Fixed { levels: vec![20.0] }.into(),
        given(),
        shrink(),
    ]);
    assert_eq!(entries(&all), ["direct"]);
    assert_eq!(all[0].written, RESULT);
    // Besides the pixels: three times four numbers per plane, and the table of weights.
    let rest = all[0].read - RAW - FUNCTIONS;
    assert!((3 * 5 * 16..8 * 1024).contains(&rest), "{rest}");
}

/// Percentiles need all pixels before the first is scaled. Those behind a division are found in one pass, all six ranks
/// together: it keeps the few pixels between the brackets of a sample, which are then counted by the upper half of their key
/// and the lower half. The next pass makes the result.
#[test]
fn percentiles_of_a_chain_share_their_passes() {
    let all = traffic(vec![
        divide(),
        Background::Percentile { q: 1.0 }.into(),
        per_image(),
        shrink(),
    ]);
    assert_eq!(
        entries(&all),
        [
            "sample",
            "sift",
            "settle",
            "count_upper",
            "select_upper",
            "count_lower",
            "select_lower",
            "one_level",
            "range_levels",
            "direct"
        ]
    );
    assert_eq!(passes(&all), 2);
    assert_eq!(all[1].read, RAW + FUNCTIONS + 3 * 5 * 16);
    // An eighth of the pixels has room among those that are kept.
    let (bins, state, kept) = (5 * (1 << 16) * 4, 5 * 34 * 4, 5 * (216 * 216 / 8) * 4);
    assert_eq!(all[1].written, state + kept);
    assert_eq!(all[3].written, bins + state + kept);
    assert_eq!(all[5].written, 6 * bins + state + kept);
    assert_eq!(all[9].written, RESULT);
}

/// Small planes are not worth a sample.
#[test]
fn percentiles_of_small_planes_are_counted_at_once() {
    let small = InputShape {
        height: 100,
        width: 100,
        ..SHAPE
    };
    let function = Illumination::new(1, 100, 100, vec![1.5; 10_000]).unwrap();
    let subtract = FlatField {
        black_level: vec![100.0],
        illumination: Some(function),
        mode: FlatFieldMode::Subtract,
    };
    let steps = vec![subtract.into(), per_image()];
    let all = Recipe::new(steps, small).unwrap().traffic();
    assert_eq!(
        entries(&all)[..5],
        [
            "settle",
            "count_upper",
            "select_upper",
            "count_lower",
            "select_lower"
        ]
    );
}

/// Raw integers are ranked by one histogram.
#[test]
fn percentiles_of_raw_pixels_take_one_pass() {
    let all = traffic(vec![
        Background::Percentile { q: 1.0 }.into(),
        per_image(),
        shrink(),
    ]);
    assert_eq!(
        entries(&all),
        [
            "count_whole",
            "select_whole",
            "one_level",
            "range_levels",
            "direct"
        ]
    );
    assert_eq!(passes(&all), 2);
    assert_eq!(all[0].read, RAW);
}

#[test]
fn windows_store_the_chain_once_and_crops_read_through_it() {
    let blur: Step = GaussianBlur {
        sigma: 2.0,
        border: Border::Reflect,
    }
    .into();
    assert_eq!(entries(&traffic(vec![blur.clone()])), ["vertical", "horizontal"]);
    let all = traffic(vec![divide(), given(), blur]);
    assert_eq!(entries(&all), ["convert", "vertical", "horizontal"]);
    let tile: Step = Tile {
        height: 64,
        width: 64,
        placement: Placement::Grid,
    }
    .into();
    assert_eq!(entries(&traffic(vec![divide(), given(), tile])), ["tile"]);
    // A filter with many weights is separated.
    let smooth: Step = Resize {
        height: 10,
        width: 10,
        filter: ResizeFilter::Lanczos,
    }
    .into();
    let all = traffic(vec![smooth]);
    assert_eq!(entries(&all), ["vertical", "horizontal"]);
    assert_eq!(all[0].written, 5 * 10 * 216 * 4);
}

/// Every module that the planner writes is valid, and its `Params` have as many words as the dispatch gives.
#[test]
fn shaders_are_valid_and_their_parameters_are_those_of_the_plan() {
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    let shape = InputShape {
        channels: 4,
        height: 18,
        width: 21,
    };
    let values = vec![1.5; 4 * 18 * 21];
    let chain: Vec<Step> = vec![
        FlatField {
            black_level: vec![1.0],
            illumination: Some(Illumination::new(4, 18, 21, values).unwrap()),
            mode: FlatFieldMode::Subtract,
        }
        .into(),
        Background::Percentile { q: 2.0 }.into(),
        per_image(),
    ];
    let mut checked = 0;
    for step in common::examples::examples([1, 4, 18, 21]) {
        for steps in [vec![step.clone()], [chain.clone(), vec![step.clone()]].concat()] {
            for shader in Recipe::new(steps, shape).unwrap().shaders() {
                let label = format!("{} {}", shader.kernel, shader.entry);
                let module = naga::front::wgsl::parse_str(&shader.source)
                    .unwrap_or_else(|e| panic!("{label}: {}", e.emit_to_string(&shader.source)));
                Validator::new(ValidationFlags::all(), Capabilities::empty())
                    .validate(&module)
                    .unwrap_or_else(|e| panic!("{label}: {}", e.emit_to_string(&shader.source)));
                let params = module
                    .types
                    .iter()
                    .find(|(_, t)| t.name.as_deref() == Some("Params"));
                let Some((
                    _,
                    naga::Type {
                        inner: naga::TypeInner::Struct { members, .. },
                        ..
                    },
                )) = params
                else {
                    panic!("{label} has no Params");
                };
                let end = members
                    .last()
                    .map(|m| m.offset + module.types[m.ty].inner.size(module.to_ctx()))
                    .unwrap();
                assert_eq!(end as usize, 4 * shader.params, "{label}");
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked}");
}
