//! Features of objects: against cp_measure in `../shared/oracles`, and by laws that hold for every object.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use wellspring_kernels::RawImage;
use wellspring_kernels::features::{Families, FeatureSettings, FeatureTable, Population, measure};
use wellspring_kernels::nuclei::{LabelImage, NucleiSettings, ObjectError, segment};

mod support;

/// The column that cp_measure calls `name`, with channels A and B; `None` of what is left out: Costes, and places in z.
fn ours(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('_').collect();
    Some(match parts.as_slice() {
        ["Correlation", "Costes", _] | [.., "Z"] => return None,
        ["Correlation", "Pearson"] => "Nuclei_Correlation_Correlation_A_B".to_owned(),
        ["Correlation", "Slope"] => "Nuclei_Correlation_Slope_A_B".to_owned(),
        ["Correlation", measure, "1"] => format!("Nuclei_Correlation_{measure}_A_B"),
        ["Correlation", measure, "2"] => format!("Nuclei_Correlation_{measure}_B_A"),
        ["RadialDistribution", measure, rest @ ..] => {
            format!("Nuclei_RadialDistribution_{measure}_A_{}", rest.join("_"))
        }
        ["Granularity", k] => format!("Nuclei_Granularity_{k}_A"),
        ["Intensity" | "Location", ..] => format!("Nuclei_{name}_A"),
        [measure, scale, direction, levels @ "256"] => {
            format!("Nuclei_Texture_{measure}_A_{scale}_{direction}_{levels}")
        }
        _ => format!("Nuclei_AreaShape_{name}"),
    })
}

/// Largest gap of a column, relative to its value or to a thousandth of the largest value of the column.
fn gap(ours: &[f64], theirs: &[f64]) -> f64 {
    let largest = theirs
        .iter()
        .filter(|v| v.is_finite())
        .fold(0.0f64, |a, v| a.max(v.abs()));
    let floor = (1e-3 * largest).max(1e-300);
    let of = |(a, b): (&f64, &f64)| {
        if a.is_nan() && b.is_nan() {
            0.0
        } else {
            (a - b).abs() / b.abs().max(floor)
        }
    };
    ours.iter()
        .zip(theirs)
        .map(of)
        .fold(0.0, |a, g| if g.is_nan() { f64::INFINITY } else { a.max(g) })
}

/// Promised agreement by family.
fn tolerance(name: &str) -> f64 {
    if name.contains("Granularity") {
        return 1e-3;
    }
    if name.contains("Texture") { 1e-5 } else { 1e-6 }
}

/// The reference features: our table, and the peer's columns by our names.
fn reference() -> Option<(FeatureTable, BTreeMap<String, Vec<f64>>)> {
    let (fields, _) = support::fields()?;
    let (height, width, second) = support::plane("feat_channel2.npy").unwrap();
    let (_, _, labels) = support::plane("seg_focus_labels.npy").unwrap();
    let labels = LabelImage::new(height, width, labels.into_iter().map(u32::from).collect()).unwrap();
    let image = RawImage::from_planes(&[fields.plane(0).to_vec(), second], height, width, 65535).unwrap();
    let settings = FeatureSettings {
        families: Families::ALL,
        ..FeatureSettings::default()
    };
    let table = measure(&image, &labels, &["A", "B"], &settings).unwrap();

    let text = std::fs::read_to_string(support::folder().unwrap().join("features_cp_measure.csv")).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let rows: Vec<Vec<f64>> = lines
        .map(|l| l.split(',').map(|v| v.parse().unwrap_or(f64::NAN)).collect())
        .collect();
    assert_eq!(rows.len(), table.rows());
    let columns = names.iter().enumerate().skip(1);
    let theirs = columns.filter_map(|(at, name)| Some((ours(name)?, rows.iter().map(|r| r[at]).collect())));
    Some((table, theirs.collect()))
}

#[test]
fn features_agree_with_cp_measure() {
    let Some((table, theirs)) = reference() else {
        return;
    };
    // 279 columns, less two of Costes and two of places in z.
    assert_eq!(theirs.len(), 275);
    for (name, theirs) in &theirs {
        let ours = table.get(name).unwrap_or_else(|| panic!("no column {name}"));
        if name.contains("Zernike") {
            continue;
        }
        if name.ends_with("CentralMoment_0_1") || name.ends_with("CentralMoment_1_0") {
            // 0 by definition; both sides have rounding alone.
            assert!(ours.iter().chain(theirs).all(|v| v.abs() < 1e-6), "{name}");
            continue;
        }
        let gap = gap(ours, theirs);
        assert!(gap < tolerance(name), "{name}: gap {gap:e}");
    }
}

/// The peer leaves out pixels on the rim of the enclosing circle where rounding puts them beyond it; order (0, 0) tells
/// for which objects. The others must agree in every order.
#[test]
fn zernike_moments_agree_with_cp_measure_where_it_keeps_the_rim() {
    let Some((table, theirs)) = reference() else {
        return;
    };
    let (ours, other) = (
        table.get("Nuclei_AreaShape_Zernike_0_0").unwrap(),
        &theirs["Nuclei_AreaShape_Zernike_0_0"],
    );
    let kept: Vec<usize> = (0..table.rows())
        .filter(|&i| (ours[i] / other[i] - 1.0).abs() < 1e-8)
        .collect();
    assert!(kept.len() >= 5, "{} of {}", kept.len(), table.rows());
    let mut compared = 0;
    for (name, theirs) in theirs.iter().filter(|(n, _)| n.contains("Zernike")) {
        let ours = table.get(name).unwrap();
        for &i in &kept {
            let (a, b) = (ours[i], theirs[i]);
            if name.contains("Phase") {
                // Angles are compared as such, and not at all where there is nothing to have one.
                let magnitude = table.get(&name.replace("Phase", "Magnitude")).unwrap()[i];
                assert!(
                    magnitude < 1e-9 || ((a - b) / 2.0).sin().abs() < 1e-5,
                    "{name}: {a} against {b}"
                );
            } else {
                assert!(
                    (a - b).abs() < 1e-6 * b.abs().max(1e-3),
                    "{name}: {a} against {b}"
                );
            }
            compared += 1;
        }
        // Those without their rim lack a few pixels.
        for (a, b) in ours.iter().zip(theirs).filter(|_| name.contains("AreaShape")) {
            assert!((a - b).abs() < 0.06, "{name}: {a} against {b}");
        }
    }
    assert_eq!(compared, 90 * kept.len());
}

/// A field with objects of any shape: random labels, some in pieces, and three channels.
fn any_field() -> impl Strategy<Value = (usize, usize, Vec<u32>, Vec<u16>)> {
    (1usize..22, 1usize..22).prop_flat_map(|(h, w)| {
        let blocks = prop::collection::vec(0u32..5, h.div_ceil(4) * w.div_ceil(4));
        let noise = prop::collection::vec(0u8..10, h * w);
        let pixels = prop::collection::vec(0u16..4000, 2 * h * w);
        (Just(h), Just(w), blocks, noise, pixels).prop_map(|(h, w, blocks, noise, pixels)| {
            let label = |i: usize| blocks[i / w / 4 * w.div_ceil(4) + i % w / 4] * u32::from(noise[i] > 0);
            (h, w, (0..h * w).map(label).collect(), pixels)
        })
    })
}

fn table(h: usize, w: usize, labels: Vec<u32>, pixels: Vec<u16>, families: Families) -> FeatureTable {
    let image = RawImage::new(2, h, w, pixels, 65535).unwrap();
    let labels = LabelImage::compact(h, w, labels).unwrap();
    let settings = FeatureSettings {
        families,
        ..FeatureSettings::default()
    };
    measure(&image, &labels, &["A", "B"], &settings).unwrap()
}

fn mirrored<T: Copy>(values: &[T], w: usize) -> Vec<T> {
    values
        .chunks(w)
        .flat_map(|row| row.iter().rev().copied())
        .collect()
}

fn transposed<T: Copy>(values: &[T], h: usize, w: usize) -> Vec<T> {
    values
        .chunks(h * w)
        .flat_map(|plane| (0..h * w).map(move |i| plane[i % h * w + i / h]))
        .collect()
}

fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-7 * a.abs().max(b.abs()).max(1e-3)
}

/// Columns that do not change when the field is mirrored or turned.
fn is_invariant(name: &str) -> bool {
    let places = [
        "Location_",
        "Center_",
        "BoundingBoxM",
        "Orientation",
        "Moment_",
        "Tensor_",
        "Zernike",
    ];
    // Granularity samples every fourth pixel from the first; rings start from the first of equal centres; and a
    // direction of texture becomes another.
    let other = ["Granularity", "Radial", "Texture"];
    !places.iter().chain(&other).any(|p| name.contains(p))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Shape, intensity and colocalisation do not depend on the side an object is seen from.
    #[test]
    fn flips_and_turns_change_places_only((h, w, labels, pixels) in any_field()) {
        let families = Families { granularity: false, zernike: false, ..Families::ALL };
        let plain = table(h, w, labels.clone(), pixels.clone(), families);
        let flipped = table(h, w, mirrored(&labels, w), mirrored(&pixels, w), families);
        let turned = table(w, h, transposed(&labels, h, w), transposed(&pixels, h, w), families);
        for name in plain.names().iter().filter(|n| is_invariant(n)) {
            for other in [&flipped, &turned] {
                for (a, b) in plain.get(name).unwrap().iter().zip(other.get(name).unwrap()) {
                    prop_assert!(close(*a, *b), "{}: {} {}", name, a, b);
                }
            }
        }
        // Along rows becomes along columns, and the diagonals are each their own.
        for (from, to) in [("_00_", "_02_"), ("_02_", "_00_"), ("_01_", "_01_"), ("_03_", "_03_")] {
            for name in plain.names().iter().filter(|n| n.contains("Texture") && n.contains(from)) {
                let turned = turned.get(&name.replace(from, to)).unwrap();
                for (a, b) in plain.get(name).unwrap().iter().zip(turned) {
                    prop_assert!(close(*a, *b), "{}: {} {}", name, a, b);
                }
            }
        }
    }

    /// Whatever the objects: one value per object and name, and what is bounded by definition stays within its bounds.
    #[test]
    fn values_are_sound((h, w, labels, pixels) in any_field()) {
        let table = table(h, w, labels, pixels, Families::ALL);
        prop_assert_eq!(table.names().len(), table.names().iter().collect::<std::collections::BTreeSet<_>>().len());
        let at = |name: &str| table.get(name).unwrap();
        for i in 0..table.rows() {
            let area = at("Nuclei_AreaShape_Area")[i];
            prop_assert!(area >= 1.0 && at("Nuclei_AreaShape_BoundingBoxArea")[i] >= area);
            prop_assert!(at("Nuclei_AreaShape_FilledArea")[i] >= area);
            prop_assert!(at("Nuclei_AreaShape_ConvexArea")[i] >= at("Nuclei_AreaShape_FilledArea")[i]);
            prop_assert!(at("Nuclei_AreaShape_MinFeretDiameter")[i] <= at("Nuclei_AreaShape_MaxFeretDiameter")[i] + 1e-9);
            prop_assert!((0.0..=1.0).contains(&at("Nuclei_AreaShape_Eccentricity")[i]));
            prop_assert!(at("Nuclei_AreaShape_MeanRadius")[i] >= 1.0);
            let [low, median, high] = ["Lower", "Median", "Upper"].map(|q| {
                let name = if q == "Median" { q.to_owned() } else { format!("{q}Quartile") };
                at(&format!("Nuclei_Intensity_{name}Intensity_A"))[i]
            });
            prop_assert!(low <= median && median <= high);
            let rings: f64 = (1..=4).map(|k| at(&format!("Nuclei_RadialDistribution_FracAtD_A_{k}of4"))[i]).sum();
            prop_assert!(rings.is_nan() || (rings - 1.0).abs() < 1e-9);
            let pearson = at("Nuclei_Correlation_Correlation_A_B")[i];
            prop_assert!(pearson.is_nan() || pearson.abs() <= 1.0 + 1e-9);
            let entropy = at("Nuclei_Texture_Entropy_A_3_00_256")[i];
            prop_assert!(entropy.is_nan() || entropy >= -1e-9);
        }
    }

    /// Intensities follow the gain of the camera; what is relative does not.
    #[test]
    fn gain_scales_intensities((h, w, labels, pixels) in any_field(), gain in 2u16..9) {
        let families = Families { shape: false, texture: false, zernike: false, moments: false, ..Families::ALL };
        let a = table(h, w, labels.clone(), pixels.clone(), families);
        let b = table(h, w, labels, pixels.iter().map(|v| v * gain).collect(), families);
        for name in a.names() {
            let factor = if name.contains("_Intensity_") && !name.contains("MassDisplacement") { f64::from(gain) } else { 1.0 };
            for (a, b) in a.get(name).unwrap().iter().zip(b.get(name).unwrap()) {
                // Granularity is a difference of floats.
                let near = name.contains("Granularity") && (a - b).abs() < 1e-3;
                prop_assert!(near || close(a * factor, *b), "{}: {} {}", name, a, b);
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (h, w) = (120, 150);
    let labels: Vec<u32> = (0..h * w)
        .map(|i| ((i / w / 15 * 10 + i % w / 15) % 97) as u32)
        .collect();
    let pixels: Vec<u16> = (0..2 * h * w)
        .map(|i| (i * 7919 % 3001 + i % w * 9) as u16)
        .collect();
    let [one, four] = [1, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| table(h, w, labels.clone(), pixels.clone(), Families::ALL))
    });
    for (at, name) in one.names().iter().enumerate() {
        let bits = |t: &FeatureTable| t.column(at).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&one), bits(&four), "{name}");
    }
    assert!(one.rows() > 50);
}

#[test]
fn objects_without_size_light_or_rest() {
    // One pixel; a black object; an object that is the whole field; a field without objects.
    let single = table(1, 1, vec![1], vec![9, 0], Families::ALL);
    let at = |t: &FeatureTable, name: &str| t.get(name).unwrap()[0];
    assert_eq!(at(&single, "Nuclei_AreaShape_Area"), 1.0);
    assert_eq!(at(&single, "Nuclei_AreaShape_MaxFeretDiameter"), 0.0);
    assert!(at(&single, "Nuclei_Texture_Contrast_A_3_00_256").is_nan());
    assert!(at(&single, "Nuclei_Neighbors_FirstClosestDistance_Adjacent").is_nan());
    assert!(at(&single, "Nuclei_RadialDistribution_FracAtD_B_1of4").is_nan());
    assert!(at(&single, "Nuclei_Correlation_Correlation_A_B").is_nan());
    let whole = table(9, 9, vec![1; 81], vec![500; 162], Families::ALL);
    assert_eq!(at(&whole, "Nuclei_AreaShape_MaximumRadius"), 5.0);
    assert_eq!(at(&whole, "Nuclei_Texture_Entropy_A_3_00_256"), 0.0);
    assert_eq!(at(&whole, "Nuclei_Intensity_IntegratedIntensityEdge_A"), 0.0);
    let none = table(5, 5, vec![0; 25], vec![500; 50], Families::ALL);
    assert_eq!((none.rows(), none.summary().len()), (0, 2 * none.names().len()));
    assert!(none.summary().iter().all(|(_, v)| v.is_nan()));
}

#[test]
fn population_counts_and_covers() {
    let labels = LabelImage::new(2, 4, vec![1, 1, 0, 0, 0, 0, 0, 2]).unwrap();
    let population = Population::of(&labels);
    assert_eq!(
        (population.count, population.covered, population.confluence()),
        (2, 3, 0.375)
    );
    assert_eq!(population.measures("Nuclei")[0], ("Count_Nuclei".to_owned(), 2.0));
}

#[test]
fn fields_of_a_well_are_pooled() {
    let families = Families {
        intensity: true,
        ..Families::NONE
    };
    let one = table(1, 4, vec![1, 0, 2, 2], vec![10, 0, 20, 30, 5, 5, 5, 5], families);
    let two = table(1, 2, vec![1, 1], vec![40, 60, 5, 5], families);
    let well = FeatureTable::pool(&[one.clone(), two.clone()]).unwrap();
    assert_eq!(well.rows(), 3);
    let mean = well.get("Nuclei_Intensity_MeanIntensity_A").unwrap();
    assert_eq!(mean, [10.0, 25.0, 50.0].map(|v| v / 65535.0));
    assert_eq!(well.boxes().len(), 3);
    assert_eq!(FeatureTable::pool(std::slice::from_ref(&one)).unwrap(), one);
    assert_eq!(FeatureTable::pool(&[]).unwrap().rows(), 0);
    let other = table(
        1,
        2,
        vec![1, 1],
        vec![40, 60, 5, 5],
        Families {
            texture: true,
            ..Families::NONE
        },
    );
    let error = FeatureTable::pool(&[one, other]).unwrap_err().to_string();
    assert!(
        error.contains("Nuclei_Intensity_IntegratedIntensity_A") && error.contains("Texture"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let image = RawImage::new(2, 2, 3, vec![1; 12], 65535).unwrap();
    let labels = LabelImage::new(3, 2, vec![0; 6]).unwrap();
    let size = measure(&image, &labels, &["A", "B"], &FeatureSettings::default()).unwrap_err();
    assert!(
        matches!(
            size,
            ObjectError::Size {
                labels: [3, 2],
                image: [2, 3]
            }
        ),
        "{size}"
    );
    let labels = LabelImage::new(2, 3, vec![0; 6]).unwrap();
    let names = measure(&image, &labels, &["A"], &FeatureSettings::default()).unwrap_err();
    assert!(
        matches!(names, ObjectError::ChannelNames { got: 1, channels: 2 }),
        "{names}"
    );
    let base = FeatureSettings::default;
    for (settings, words) in [
        (
            FeatureSettings {
                white: f64::NAN,
                ..base()
            },
            ["white", "NaN"],
        ),
        (FeatureSettings { rings: 0, ..base() }, ["rings", "0"]),
        (
            FeatureSettings {
                colocalisation_percent: 120.0,
                ..base()
            },
            ["colocalisation_percent", "120"],
        ),
        (
            FeatureSettings {
                objects: "My_Cells".into(),
                ..base()
            },
            ["objects", "My_Cells"],
        ),
    ] {
        let message = measure(&image, &labels, &["A", "B"], &settings)
            .unwrap_err()
            .to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
    }
    let mut deep = base();
    deep.granularity.subsample = 0.0;
    assert!(
        measure(&image, &labels, &["A", "B"], &deep)
            .unwrap_err()
            .to_string()
            .contains("granularity.subsample")
    );
    let mut flat = base();
    flat.texture.levels = 1;
    assert!(
        measure(&image, &labels, &["A", "B"], &flat)
            .unwrap_err()
            .to_string()
            .contains("texture.levels")
    );
}

/// From pixels to the profile of a well: nuclei are found and measured.
#[test]
fn nuclei_of_a_reference_field_give_a_profile() {
    let Some((fields, _)) = support::fields() else {
        return;
    };
    let image = RawImage::new(
        1,
        fields.height(),
        fields.width(),
        fields.plane(0).to_vec(),
        65535,
    )
    .unwrap();
    let found = segment(&image, 0, &NucleiSettings::default()).unwrap();
    let table = measure(&image, &found.labels, &["DNA"], &FeatureSettings::default()).unwrap();
    let summary: BTreeMap<String, f64> = table.summary().into_iter().collect();
    assert!((250.0..350.0).contains(&summary["Median_Nuclei_AreaShape_Area"]));
    assert!(summary.values().all(|v| v.is_finite()), "{summary:?}");
}
