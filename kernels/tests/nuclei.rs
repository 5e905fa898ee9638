//! Nuclei: against the reference segmentation in `../shared/oracles`, and by laws that hold for every field.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::HashMap;

use proptest::prelude::*;
use wellspring_kernels::RawImage;
use wellspring_kernels::nuclei::{
    Declump, LabelImage, NucleiSettings, ObjectError, Segmentation, ThresholdMethod, segment,
};

mod support;

/// The reference: nuclei of 19 pixels width, looked for in empty fields too.
fn reference(threshold: ThresholdMethod) -> NucleiSettings {
    NucleiSettings {
        min_diameter: 8.0,
        max_diameter: 60.0,
        threshold,
        min_contrast: 0.0,
        ..NucleiSettings::default()
    }
}

/// Twice the pairs of objects whose intersection over union is at least 0.5, over the number of objects; a pair of that
/// overlap is unique. And the mean of these overlaps.
fn f1(ours: &LabelImage, theirs: &LabelImage) -> (f64, f64) {
    let mut common: HashMap<(u32, u32), usize> = HashMap::new();
    for (&a, &b) in ours.labels().iter().zip(theirs.labels()) {
        if a > 0 && b > 0 {
            *common.entry((a, b)).or_default() += 1;
        }
    }
    let overlaps: Vec<f64> = common
        .iter()
        .map(|(&(a, b), &n)| {
            let areas = ours.boxes()[a as usize - 1].area + theirs.boxes()[b as usize - 1].area;
            n as f64 / (areas - n) as f64
        })
        .filter(|iou| *iou >= 0.5)
        .collect();
    let n = overlaps.len() as f64;
    (
        2.0 * n / (ours.count() + theirs.count()) as f64,
        overlaps.iter().sum::<f64>() / n,
    )
}

fn labels(name: &str) -> Option<LabelImage> {
    let (height, width, values) = support::plane(name)?;
    Some(LabelImage::compact(height, width, values.into_iter().map(u32::from).collect()).unwrap())
}

#[test]
fn nuclei_agree_with_the_reference_and_the_truth() {
    let Some((image, names)) = support::fields() else {
        return;
    };
    let (reference_labels, truth) = (
        labels("seg_focus_labels.npy").unwrap(),
        labels("seg_focus_truth.npy").unwrap(),
    );
    let focus = names.iter().position(|n| *n == "focus").unwrap();
    let found = segment(&image, focus, &reference(ThresholdMethod::Li)).unwrap();
    for (name, other) in [("reference", &reference_labels), ("truth", &truth)] {
        let (f1, iou) = f1(&found.labels, other);
        println!("F1 {f1:.3}, mean IoU {iou:.3} against the {name}");
        assert!(f1 >= 0.95, "F1 {f1} against the {name}");
    }
    let automatic = segment(&image, focus, &NucleiSettings::default()).unwrap();
    assert_eq!(automatic.method, ThresholdMethod::Li);
    assert!(f1(&automatic.labels, &truth).0 >= 0.95);
}

#[test]
fn counts_agree_with_the_reference_for_each_threshold() {
    let Some((image, names)) = support::fields() else {
        return;
    };
    let expected = support::json("segmentation.json").unwrap();
    let mut compared = 0;
    for (key, method) in METHODS {
        for (channel, name) in names.iter().enumerate() {
            // Debris and noise have no nuclei; what is counted there depends on the background that is subtracted.
            let Some(theirs) = expected.get(format!("{name}_{key}")) else {
                continue;
            };
            if *name == "debris" || (*name == "empty" && key != "robust") {
                continue;
            }
            let ours = segment(&image, channel, &reference(method))
                .unwrap()
                .labels
                .count() as f64;
            let theirs = theirs["count"].as_f64().unwrap();
            assert!(
                (ours - theirs).abs() <= (0.02 * theirs).ceil(),
                "{name} {key}: {ours} against {theirs}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 13);
}

const METHODS: [(&str, ThresholdMethod); 3] = [
    ("li", ThresholdMethod::Li),
    ("otsu", ThresholdMethod::Otsu),
    ("robust", ThresholdMethod::RobustBackground),
];

/// Thresholds of the fields as they are, without smoothing: scikit-image and CellProfiler.
#[test]
fn thresholds_of_raw_fields_agree_with_the_reference() {
    let Some((image, names)) = support::fields() else {
        return;
    };
    let table = std::fs::read_to_string(support::folder().unwrap().join("qc_metrics.csv")).unwrap();
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| columns.iter().position(|c| *c == name).unwrap();
    let at = [
        column("li_min_cross_entropy_x"),
        column("otsu_x"),
        column("robust_background_x"),
    ];
    for (channel, line) in lines.enumerate() {
        let values: Vec<&str> = line.split(',').collect();
        assert_eq!(values[0], names[channel]);
        for ((key, method), at) in METHODS.into_iter().zip(at) {
            let settings = NucleiSettings {
                smoothing: 0.0,
                subtract_background: false,
                ..reference(method)
            };
            let ours = segment(&image, channel, &settings).unwrap().threshold;
            if values[0] == "constant" {
                // The peer's robust background is the value itself; nothing lies above it either way.
                assert_eq!(ours, None);
                continue;
            }
            let (ours, theirs) = (ours.unwrap(), values[at].parse::<f64>().unwrap());
            assert!(
                (ours - theirs).abs() < 1e-6 * theirs,
                "{} {key}: {ours} against {theirs}",
                values[0]
            );
        }
    }
}

#[test]
fn an_empty_field_has_no_nuclei_and_a_dim_one_uses_the_robust_background() {
    let Some((image, names)) = support::fields() else {
        return;
    };
    for (channel, name) in names.iter().enumerate() {
        let found = segment(&image, channel, &NucleiSettings::default()).unwrap();
        match *name {
            "empty" | "constant" => assert_eq!((found.labels.count(), found.threshold), (0, None), "{name}"),
            "dim" | "blur6" => assert_eq!(found.method, ThresholdMethod::RobustBackground),
            _ => assert_eq!(found.method, ThresholdMethod::Li, "{name}"),
        }
    }
}

/// Discs of different brightness and size, some touching, on a noisy background.
fn scene(height: usize, width: usize, discs: &[(f64, f64, f64, f64)], seed: u64) -> Vec<u16> {
    let mut state = seed;
    (0..height * width)
        .map(|i| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (y, x) = ((i / width) as f64, (i % width) as f64);
            let light: f64 = discs
                .iter()
                .map(|&(cy, cx, r, light)| if (y - cy).hypot(x - cx) <= r { light } else { 0.0 })
                .fold(0.0, f64::max);
            (300.0 + light) as u16 + (state >> 59) as u16
        })
        .collect()
}

fn image(height: usize, width: usize, pixels: Vec<u16>) -> RawImage {
    RawImage::new(1, height, width, pixels, 65535).unwrap()
}

fn find(height: usize, width: usize, pixels: Vec<u16>) -> Segmentation {
    segment(&image(height, width, pixels), 0, &NucleiSettings::default()).unwrap()
}

prop_compose! {
    fn discs()(discs in prop::collection::vec((8.0f64..88.0, 8.0f64..112.0, 5.0f64..12.0, 800.0f64..4000.0), 1..12))
        -> Vec<(f64, f64, f64, f64)> { discs }
}

/// Areas in ascending order: what does not depend on the order of objects.
fn areas(labels: &LabelImage) -> Vec<usize> {
    let mut areas: Vec<usize> = labels.boxes().iter().map(|b| b.area).collect();
    areas.sort_unstable();
    areas
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The pixels that are nuclei do not depend on the side the field is seen from. Where two basins meet may: their
    /// order is that of rows.
    #[test]
    fn flips_find_the_same_foreground(discs in discs(), seed in any::<u64>()) {
        let (h, w) = (96, 120);
        let pixels = scene(h, w, &discs, seed);
        let flipped: Vec<u16> = pixels.chunks(w).flat_map(|row| row.iter().rev().copied()).collect();
        let settings = NucleiSettings { declump: Declump::None, max_diameter: 500.0, ..NucleiSettings::default() };
        let [a, b] = [pixels, flipped].map(|p| segment(&image(h, w, p), 0, &settings).unwrap());
        prop_assert_eq!(areas(&a.labels), areas(&b.labels));
        for (a, b) in a.labels.labels().chunks(w).zip(b.labels.labels().chunks(w)) {
            prop_assert!(a.iter().map(|l| *l > 0).eq(b.iter().rev().map(|l| *l > 0)));
        }
    }

    /// A field moved within a larger one of the same background has the same nuclei, moved.
    #[test]
    fn translation_moves_nuclei(discs in discs(), dy in 0usize..20, dx in 0usize..20) {
        let (h, w) = (136, 160);
        let at = |dy: usize, dx: usize| {
            let mut pixels = vec![300u16; h * w];
            // A pattern that is the same for both, so that thresholds are.
            for (i, v) in scene(96, 120, &discs, 7).into_iter().enumerate() {
                pixels[(i / 120 + 10 + dy) * w + i % 120 + 10 + dx] = v;
            }
            find(h, w, pixels).labels
        };
        let (a, b) = (at(0, 0), at(dy, dx));
        prop_assert_eq!(a.count(), b.count());
        for (a, b) in a.boxes().iter().zip(b.boxes()) {
            prop_assert_eq!((a.top + dy, a.left + dx, a.area), (b.top, b.left, b.area));
        }
    }

    /// Labels run from 1 without gaps in the order of first pixels, each within the limits of size, whatever the field.
    #[test]
    fn labels_are_sound(h in 1usize..40, w in 1usize..40, seed in any::<u64>(), levels in 1u16..2000,
        declump in prop::sample::select(vec![Declump::Shape, Declump::Intensity, Declump::None]),
        threshold in prop::sample::select(vec![ThresholdMethod::Li, ThresholdMethod::Otsu, ThresholdMethod::RobustBackground]),
    ) {
        let mut state = seed;
        let pixels = (0..h * w).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % u64::from(levels)) as u16
        }).collect();
        let settings = NucleiSettings {
            min_diameter: 2.0, max_diameter: 20.0, declump, threshold, min_contrast: 0.0, ..NucleiSettings::default()
        };
        let found = segment(&image(h, w, pixels), 0, &settings).unwrap();
        let (least, most) = settings.areas();
        let mut seen = 0;
        for &label in found.labels.labels() {
            prop_assert!(label <= seen + 1);
            seen = seen.max(label);
        }
        prop_assert_eq!(seen as usize, found.labels.count());
        for b in found.labels.boxes() {
            prop_assert!(b.area as f64 >= least && b.area as f64 <= most);
        }
        prop_assert_eq!(found.labels.without_border().boxes().iter().filter(|b| b.top == 0).count(), 0);
    }
}

#[test]
fn touching_nuclei_are_parted_by_shape_and_by_intensity() {
    let pixels = scene(
        64,
        80,
        &[(32.0, 28.0, 11.0, 2000.0), (32.0, 46.0, 11.0, 2000.0)],
        3,
    );
    for (declump, count) in [(Declump::None, 1), (Declump::Shape, 2)] {
        let settings = NucleiSettings {
            declump,
            max_diameter: 80.0,
            ..NucleiSettings::default()
        };
        let found = segment(&image(64, 80, pixels.clone()), 0, &settings).unwrap();
        assert_eq!(found.labels.count(), count, "{declump:?}");
    }
    // Two lights in one flat-sided bar, which its shape does not part in the middle of either.
    let bar: Vec<u16> = (0..40 * 80)
        .map(|i| {
            let (y, x) = ((i / 80) as f64, (i % 80) as f64);
            let hill = |c: f64| 3000.0 * (-(x - c).powi(2) / 60.0).exp();
            if (12.0..28.0).contains(&y) && (14.0..66.0).contains(&x) {
                (1500.0 + hill(27.0) + hill(53.0)) as u16
            } else {
                300 + (i % 5) as u16
            }
        })
        .collect();
    let settings = NucleiSettings {
        declump: Declump::Intensity,
        max_diameter: 80.0,
        ..NucleiSettings::default()
    };
    let found = segment(&image(40, 80, bar), 0, &settings).unwrap();
    assert_eq!(found.labels.count(), 2);
    let [a, b] = found.labels.boxes() else { panic!() };
    assert!(
        a.right.abs_diff(40) <= 2 && b.left.abs_diff(40) <= 2,
        "{a:?} {b:?}"
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let discs: Vec<_> = (0..60u32)
        .map(|i| {
            (
                f64::from(i * 37 % 250),
                f64::from(i * 61 % 300),
                6.0 + f64::from(i % 7),
                900.0 + f64::from(i * 50),
            )
        })
        .collect();
    let pixels = scene(257, 311, &discs, 11);
    let [one, four] = [1, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| find(257, 311, pixels.clone()))
    });
    assert!(one.labels.count() > 20);
    assert_eq!(one, four);
}

#[test]
fn fields_without_nuclei() {
    for (h, w, pixels) in [
        (1, 1, vec![7]),
        (1, 1, vec![65535]),
        (1, 9, vec![0, 65535, 0, 65535, 0, 65535, 0, 65535, 0]),
        (40, 40, vec![0; 1600]),
        (40, 40, vec![65535; 1600]),
    ] {
        let found = find(h, w, pixels);
        assert_eq!(found.labels.count(), 0, "{h} x {w}");
    }
    // A field that is saturated but for a frame is one object, too large for a nucleus.
    let frame = (0..1600)
        .map(|i| if i % 40 < 2 || i / 40 < 2 { 0 } else { 65535 })
        .collect();
    let settings = NucleiSettings {
        subtract_background: false,
        min_contrast: 0.0,
        ..NucleiSettings::default()
    };
    let clump = NucleiSettings {
        declump: Declump::None,
        max_diameter: 30.0,
        ..settings.clone()
    };
    assert_eq!(
        segment(&image(40, 40, frame), 0, &clump).unwrap().labels.count(),
        0
    );
}

#[test]
fn bounds_and_correction_move_the_threshold() {
    let pixels = scene(96, 120, &[(40.0, 40.0, 9.0, 3000.0), (60.0, 90.0, 9.0, 700.0)], 5);
    let at = |settings: NucleiSettings| segment(&image(96, 120, pixels.clone()), 0, &settings).unwrap();
    let plain = at(NucleiSettings::default());
    let doubled = at(NucleiSettings {
        correction: 2.0,
        ..NucleiSettings::default()
    });
    assert!((doubled.threshold.unwrap() / plain.threshold.unwrap() - 2.0).abs() < 1e-9);
    let bounded = at(NucleiSettings {
        lower_bound: 0.02,
        ..NucleiSettings::default()
    });
    assert_eq!((bounded.threshold, bounded.labels.count()), (Some(0.02), 1));
    let border = at(NucleiSettings {
        exclude_border: true,
        ..NucleiSettings::default()
    });
    assert_eq!(border.labels, plain.labels.without_border());
}

#[test]
fn bad_settings_and_channels_are_named() {
    let pixels = image(2, 2, vec![0; 4]);
    let of = |settings: NucleiSettings| segment(&pixels, 0, &settings).unwrap_err().to_string();
    let base = NucleiSettings::default;
    for (settings, words) in [
        (
            NucleiSettings {
                min_diameter: f64::NAN,
                ..base()
            },
            ["min_diameter", "NaN"],
        ),
        (
            NucleiSettings {
                min_diameter: 70.0,
                ..base()
            },
            ["max_diameter", "60"],
        ),
        (
            NucleiSettings {
                correction: 0.0,
                ..base()
            },
            ["correction", "0"],
        ),
        (
            NucleiSettings {
                lower_bound: 0.5,
                upper_bound: 0.1,
                ..base()
            },
            ["upper_bound", "0.1"],
        ),
        (
            NucleiSettings {
                smoothing: f64::INFINITY,
                ..base()
            },
            ["smoothing", "inf"],
        ),
        (
            NucleiSettings {
                min_distance: Some(-3.0),
                ..base()
            },
            ["min_distance", "-3"],
        ),
        (
            NucleiSettings {
                min_contrast: f64::NAN,
                ..base()
            },
            ["min_contrast", "NaN"],
        ),
    ] {
        let message = of(settings);
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
    }
    let channel = segment(&pixels, 3, &base()).unwrap_err();
    assert!(matches!(
        channel,
        ObjectError::Channel {
            channel: 3,
            channels: 1,
            ..
        }
    ));
    assert!(NucleiSettings::for_micrometres(6.0, 30.0, 0.0).is_err());
    assert!(
        (NucleiSettings::for_micrometres(6.0, 30.0, 0.6)
            .unwrap()
            .min_diameter
            - 10.0)
            .abs()
            < 1e-9
    );
    let unknown = serde_json::from_str::<NucleiSettings>(r#"{"min_diametre": 3}"#).unwrap_err();
    assert!(unknown.to_string().contains("min_diametre"));
}
