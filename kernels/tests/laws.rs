//! Laws that hold for every image: scaling, translation, tiling, fusion, and independence of the thread count.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use proptest::prelude::*;
use wellspring_kernels::{
    Background, Border, Device, DeviceChoice, Fill, FlatField, FlatFieldMode, Footprint, Form, GaussianBlur,
    Histogram, Illumination, Kernel, Median, Orient, Pad, PercentileScale, Placement, Project, Projection,
    RawImage, Recipe, Resize, ResizeFilter, ScaleRange, Standardise, Step, Tensor, Tile, Translate, Turn,
};

fn cpu() -> Device {
    Device::open(DeviceChoice::Cpu).unwrap()
}

fn run(steps: Vec<Step>, image: &RawImage) -> Tensor {
    cpu()
        .run(&Recipe::new(steps, image.shape()).unwrap(), image)
        .unwrap()
}

fn image(channels: usize, height: usize, width: usize, pixels: Vec<u16>) -> RawImage {
    RawImage::new(channels, height, width, pixels, 65535).unwrap()
}

prop_compose! {
    /// One to three channels of up to 24 by 24 pixels below `top`.
    fn any_image(top: u16)(c in 1usize..4, h in 1usize..24, w in 1usize..24)
        (pixels in prop::collection::vec(0..top, c * h * w), c in Just(c), h in Just(h), w in Just(w)) -> RawImage {
        image(c, h, w, pixels)
    }
}

fn percentiles(lo: f64, hi: f64) -> Step {
    PercentileScale {
        range: ScaleRange::PerImage { lo, hi },
        scale: 1.0,
        round: false,
    }
    .into()
}

fn map(image_in: &RawImage, f: impl Fn(u16) -> u16) -> RawImage {
    image(
        image_in.channels(),
        image_in.height(),
        image_in.width(),
        image_in.pixels().iter().map(|&v| f(v)).collect(),
    )
}

proptest! {
    /// Percentile scaling forgets gain and offset.
    #[test]
    fn percentile_scaling_is_invariant_under_gain_and_offset(
        x in any_image(4000), gain in 1u16..8, offset in 0u16..20000, lo in 0.0f64..40.0, hi in 60.0f64..100.0,
    ) {
        let a = run(vec![percentiles(lo, hi)], &x);
        let b = run(vec![percentiles(lo, hi)], &map(&x, |v| v * gain + offset));
        for (a, b) in a.data().iter().zip(b.data()) {
            prop_assert!((a - b).abs() < 2e-6, "{a} {b}");
        }
    }

    /// Percentiles from the histogram equal those of the sorted values.
    #[test]
    fn histogram_percentiles_equal_sorting(mut v in prop::collection::vec(any::<u16>(), 1..400), q in 0.0f64..=100.0) {
        let ours = Histogram::of(&v).percentile(q).unwrap();
        v.sort_unstable();
        let at = (v.len() - 1) as f64 * (q / 100.0);
        let (low, high) = (v[at.floor() as usize], v[at.ceil() as usize]);
        let expected = f64::from(low) + (f64::from(high) - f64::from(low)) * at.fract();
        prop_assert!((ours - expected).abs() <= 1e-9 * expected.max(1.0), "{ours} {expected}");
    }

    /// A resize of a constant is that constant, and area shrinking by a whole factor keeps the mean.
    #[test]
    fn resize_keeps_constants(value in any::<u16>(), h in 1usize..20, w in 1usize..20, oh in 1usize..40, ow in 1usize..40) {
        let x = image(1, h, w, vec![value; h * w]);
        for filter in [ResizeFilter::Area, ResizeFilter::Bilinear { antialias: true }, ResizeFilter::Bilinear { antialias: false }] {
            for v in run(vec![Resize { height: oh, width: ow, filter }.into()], &x).data() {
                prop_assert!((v - f32::from(value)).abs() <= 4e-6 * f32::from(value));
            }
        }
    }

    /// Shrinking by whole factors is the mean of each block.
    #[test]
    fn area_shrinking_is_the_block_mean(x in any_image(u16::MAX), fy in 1usize..4, fx in 1usize..4) {
        let (h, w) = (x.height(), x.width());
        let big = image(1, h * fy, w * fx, (0..h * fy * w * fx).map(|i| {
            x.plane(0)[(i / (w * fx) / fy) * w + i % (w * fx) / fx]
        }).collect());
        let small = run(vec![Resize { height: h, width: w, filter: ResizeFilter::Area }.into()], &big);
        for (a, &b) in small.data().iter().zip(x.plane(0)) {
            prop_assert!((a - f32::from(b)).abs() <= 1e-6 * f32::from(b).max(1.0), "{a} {b}");
        }
    }

    /// Every pixel of a crop is the pixel at its place, and no crop leaves the field.
    #[test]
    fn tiles_are_pixels_at_their_place(x in any_image(u16::MAX), h in 1usize..24, w in 1usize..24) {
        prop_assume!(h <= x.height() && w <= x.width());
        let tiles = run(vec![Tile { height: h, width: w, placement: Placement::Grid }.into()], &x);
        let (rows, columns) = (x.height() / h, x.width() / w);
        prop_assert_eq!(tiles.shape(), [rows * columns, x.channels(), h, w]);
        let (y0, x0) = ((x.height() - rows * h) / 2, (x.width() - columns * w) / 2);
        for n in 0..rows * columns {
            for c in 0..x.channels() {
                for (i, v) in tiles.plane(n, c).iter().enumerate() {
                    let (y, xx) = (y0 + n / columns * h + i / w, x0 + n % columns * w + i % w);
                    prop_assert_eq!(*v, f32::from(x.plane(c)[y * x.width() + xx]));
                }
            }
        }
    }

    /// Point-wise work on tiles equals tiles of point-wise work.
    #[test]
    fn tiling_commutes_with_fixed_scaling(x in any_image(5000), h in 1usize..24, w in 1usize..24) {
        prop_assume!(h <= x.height() && w <= x.width());
        let scale: Step = PercentileScale {
            range: ScaleRange::Given { lo: vec![100.0], hi: vec![4000.0] }, scale: 255.0, round: true,
        }.into();
        let tile: Step = Tile { height: h, width: w, placement: Placement::Centre }.into();
        prop_assert_eq!(run(vec![scale.clone(), tile.clone()], &x), run(vec![tile, scale], &x));
    }

    /// A top-hat ignores a constant offset, is idempotent, and never exceeds the image.
    #[test]
    fn top_hat_laws(x in any_image(9000), radius in 1usize..6, offset in 0u16..20000, disk in any::<bool>()) {
        let footprint = if disk { Footprint::Disk } else { Footprint::Square };
        let hat: Step = Background::TopHat { footprint, radius }.into();
        let a = run(vec![hat.clone()], &x);
        prop_assert_eq!(&a, &run(vec![hat.clone()], &map(&x, |v| v + offset)));
        prop_assert_eq!(&a, &run(vec![hat.clone(), hat], &x));
        prop_assert!(a.data().iter().zip(x.pixels()).all(|(a, &x)| *a >= 0.0 && *a <= f32::from(x)));
    }

    /// Four quarter turns are none, two transpositions are none, and a half turn is both flips.
    #[test]
    fn turns_compose(x in any_image(u16::MAX)) {
        let turn = |turns: &[Turn]| run(turns.iter().map(|t| Orient { turn: *t }.into()).collect(), &x);
        let same = turn(&[]);
        prop_assert_eq!(&turn(&[Turn::Rotate90; 4]), &same);
        prop_assert_eq!(&turn(&[Turn::Transpose; 2]), &same);
        prop_assert_eq!(&turn(&[Turn::Rotate90, Turn::Rotate270]), &same);
        prop_assert_eq!(turn(&[Turn::FlipHorizontal, Turn::FlipVertical]), turn(&[Turn::Rotate180]));
        prop_assert_eq!(turn(&[Turn::Transpose, Turn::FlipVertical]), turn(&[Turn::Rotate90]));
        prop_assert_eq!(turn(&[Turn::Transpose, Turn::Rotate180]), turn(&[Turn::Transverse]));
    }

    /// Windows do not care for direction: a turn before them is a turn after them.
    #[test]
    fn windows_commute_with_turns(x in any_image(4000), sigma in 0.3f64..4.0, quarter in any::<bool>()) {
        let turn: Step = Orient { turn: if quarter { Turn::Rotate90 } else { Turn::FlipVertical } }.into();
        let exact: [Step; 4] = [
            Median { size: 3 }.into(),
            Median { size: 5 }.into(),
            Background::TopHat { footprint: Footprint::Disk, radius: 3 }.into(),
            Background::RollingBall { radius: 4 }.into(),
        ];
        for step in exact {
            prop_assert_eq!(run(vec![turn.clone(), step.clone()], &x), run(vec![step, turn.clone()], &x));
        }
        let blur: Step = GaussianBlur { sigma, border: Border::Reflect }.into();
        let (a, b) = (run(vec![turn.clone(), blur.clone()], &x), run(vec![blur, turn], &x));
        for (a, b) in a.data().iter().zip(b.data()) {
            prop_assert!((a - b).abs() <= 1e-5 * a.max(1.0), "{a} {b}");
        }
    }

    /// A window on a crop equals the crop of the window, away from the cut: tiled equals untiled.
    #[test]
    fn windows_on_tiles_are_tiles_of_windows(x in any_image(4000), y0 in 0usize..6, x0 in 0usize..6) {
        let margin = 4;
        prop_assume!(x.height() > y0 + 2 * margin + 1 && x.width() > x0 + 2 * margin + 1);
        let (height, width) = (x.height() - y0, x.width() - x0);
        let cut: Step = Tile { height, width, placement: Placement::Offset { y: y0, x: x0 } }.into();
        let inner: Step = Tile {
            height: height - 2 * margin,
            width: width - 2 * margin,
            placement: Placement::Offset { y: margin, x: margin },
        }.into();
        let windows: [Step; 4] = [
            Median { size: 5 }.into(),
            GaussianBlur { sigma: 0.9, border: Border::Reflect }.into(),
            Background::TopHat { footprint: Footprint::Square, radius: 2 }.into(),
            Background::RollingBall { radius: 3 }.into(),
        ];
        for window in windows {
            let tiled = run(vec![cut.clone(), window.clone(), inner.clone()], &x);
            prop_assert_eq!(tiled, run(vec![window, cut.clone(), inner.clone()], &x));
        }
    }

    /// A blur keeps constants and, with mirrored borders, the mean; a padded image cropped again is itself.
    #[test]
    fn blur_and_padding_laws(x in any_image(4000), sigma in 0.3f64..6.0, value in any::<u16>(), by in 0usize..9) {
        for border in [Border::Reflect, Border::Normalised] {
            let flat = map(&x, |_| value);
            for v in run(vec![GaussianBlur { sigma, border }.into()], &flat).data() {
                prop_assert!((v - f32::from(value)).abs() <= 2e-6 * f32::from(value));
            }
        }
        let mean = |t: &Tensor| t.data().iter().map(|v| f64::from(*v)).sum::<f64>() / t.data().len() as f64;
        let (before, after) = (run(vec![], &x), run(vec![GaussianBlur { sigma, border: Border::Reflect }.into()], &x));
        prop_assert!((mean(&before) - mean(&after)).abs() <= 1e-4 * mean(&before).max(1.0));
        for fill in [Fill::Edge, Fill::Reflect, Fill::Constant(7.0)] {
            let pad: Step = Pad { top: by, bottom: 2, left: 1, right: by, fill }.into();
            let back: Step = Tile { height: x.height(), width: x.width(), placement: Placement::Offset { y: by, x: 1 } }.into();
            prop_assert_eq!(&run(vec![pad, back], &x), &before);
        }
    }

    /// Standardised planes have mean 0 and, in the plain form, deviation 1; gain and offset do not show; constants give 0.
    #[test]
    fn standardisation_laws(x in any_image(4000), gain in 1u16..8, offset in 0u16..20000) {
        let standard = |form| vec![Standardise { form }.into()];
        let a = run(standard(Form::ZScore), &x);
        let b = run(standard(Form::ZScore), &map(&x, |v| v * gain + offset));
        for (a, b) in a.data().iter().zip(b.data()) {
            prop_assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        for c in 0..x.channels() {
            let plane = a.plane(0, c);
            let n = plane.len() as f64;
            let mean = plane.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let variance = plane.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
            prop_assert!(mean.abs() < 1e-4);
            prop_assert!(variance == 0.0 || (variance - 1.0).abs() < 1e-3, "{variance}");
        }
        for form in [Form::ZScore, Form::OpenPhenom, Form::CellDino, Form::MorphEm] {
            prop_assert!(run(standard(form), &map(&x, |_| offset)).data().iter().all(|v| *v == 0.0));
        }
    }

    /// A projection of equal slices is the slice; a whole translation and its reverse keep the middle.
    #[test]
    fn projection_and_translation_laws(x in any_image(60000), slices in 1usize..4, dy in -3i32..4, dx in -3i32..4) {
        let planes: Vec<Vec<u16>> = (0..x.channels()).flat_map(|c| vec![x.plane(c).to_vec(); slices]).collect();
        let stack = RawImage::from_planes(&planes, x.height(), x.width(), 65535).unwrap();
        let same = run(vec![], &x);
        for projection in [Projection::Maximum, Projection::BestFocus] {
            prop_assert_eq!(&run(vec![Project { slices, projection }.into()], &stack), &same);
        }
        let (h, w) = (x.height(), x.width());
        prop_assume!(h > 6 && w > 6);
        let by = |sign: f64| -> Step { Translate { offsets: vec![[sign * f64::from(dy), sign * f64::from(dx)]] }.into() };
        let middle: Step = Tile { height: h - 6, width: w - 6, placement: Placement::Offset { y: 3, x: 3 } }.into();
        prop_assert_eq!(run(vec![by(1.0), by(-1.0), middle.clone()], &x), run(vec![middle], &x));
    }

    /// A recipe, whose steps are fused, equals its steps run one after another, bit for bit.
    #[test]
    fn fused_equals_unfused(x in any_image(60000), h in 1usize..24, w in 1usize..24, q in 0.0f64..20.0) {
        prop_assume!(h <= x.height() && w <= x.width());
        let values = (0..x.height() * x.width()).map(|i| 1.0 + (i % 17) as f32 / 20.0).collect();
        let illumination = Illumination::new(1, x.height(), x.width(), values).unwrap();
        let steps: Vec<Step> = vec![
            Background::Percentile { q }.into(),
            percentiles(1.0, 99.0),
            FlatField { black_level: vec![0.1], illumination: Some(illumination), mode: FlatFieldMode::Divide }.into(),
            percentiles(5.0, 95.0),
            Tile { height: h, width: w, placement: Placement::Grid }.into(),
            Resize { height: 7, width: 9, filter: ResizeFilter::Bilinear { antialias: true } }.into(),
            percentiles(0.0, 100.0),
        ];
        let fused = run(steps.clone(), &x);
        let mut tensor = run(vec![], &x);
        for step in &steps {
            tensor = cpu().run_step(step, &tensor).unwrap();
        }
        prop_assert_eq!(fused, tensor);
    }

    /// A flip of the image only flips the quality measures that have a direction: none, up to rounding.
    #[test]
    fn quality_is_invariant_under_flips(x in any_image(3000)) {
        let (h, w) = (x.height(), x.width());
        let flipped = image(x.channels(), h, w, (0..x.pixels().len()).map(|i| {
            x.pixels()[i / w * w + (w - 1 - i % w)]
        }).collect());
        for (a, b) in cpu().quality(&x).unwrap().iter().zip(cpu().quality(&flipped).unwrap()) {
            prop_assert_eq!((a.mean, a.std, a.mad, a.p999, a.laplacian_variance), (b.mean, b.std, b.mad, b.p999, b.laplacian_variance));
            prop_assert!(a.contrast.is_finite());
        }
    }
}

/// Same bytes in, same bytes out, whatever the thread count.
#[test]
fn results_do_not_depend_on_the_thread_count() {
    let (c, h, w) = (3, 301, 257);
    let x = image(
        c,
        h,
        w,
        (0..c * h * w).map(|i| (i * 7919 % 60013) as u16).collect(),
    );
    let steps: Vec<Step> = vec![
        Background::TopHat {
            footprint: Footprint::Disk,
            radius: 4,
        }
        .into(),
        percentiles(0.1, 99.9),
        Resize {
            height: 100,
            width: 90,
            filter: ResizeFilter::Area,
        }
        .into(),
    ];
    let work = || {
        (
            run(steps.clone(), &x),
            format!("{:?}", cpu().quality(&x).unwrap()),
        )
    };
    let with = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(work)
    };
    let one = with(1);
    for threads in [2, 3, 8] {
        assert_eq!(one, with(threads), "{threads} threads");
    }
}

/// A recipe's steps survive being written and read; unknown keys do not.
#[test]
fn steps_serialise() {
    let steps: Vec<Step> = vec![
        FlatField {
            black_level: vec![1.5],
            illumination: Some(Illumination::new(1, 1, 2, vec![1.0, 2.0]).unwrap()),
            mode: FlatFieldMode::Subtract,
        }
        .into(),
        Background::Percentile { q: 1.0 }.into(),
        percentiles(0.1, 99.9),
        Resize {
            height: 3,
            width: 4,
            filter: ResizeFilter::Area,
        }
        .into(),
        Tile {
            height: 1,
            width: 1,
            placement: Placement::Grid,
        }
        .into(),
    ];
    let text = serde_json::to_string(&steps).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Step>>(&text).unwrap(), steps);
    assert!(text.contains(r#""kernel":"percentile_scale""#), "{text}");
    let bad = r#"{"kernel":"resize","height":3,"width":4,"filter":"area","hieght":5}"#;
    assert!(
        serde_json::from_str::<Step>(bad)
            .unwrap_err()
            .to_string()
            .contains("hieght")
    );
    assert_eq!(steps[0].name(), "flat_field");
}
