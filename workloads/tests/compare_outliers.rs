//! Plates with spoilt control wells: what is said of them, and that scores stay those of the clean plate.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/noise.rs"]
mod noise;

use noise::Noise;
use wellspring_workloads::compare::{
    Align, AssayWindow, ComparisonSettings, NoteKind, Question, ScreenComparison, compare,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

const WIDTH: usize = 32;

/// Plates with `controls` wells of each kind and treated wells at `SHARES` of the way back, four each.
fn screen(plates: usize, controls: usize, seed: u64) -> Vec<WellProfile> {
    let mut noise = Noise(seed);
    let disease: Vec<f64> = (0..WIDTH).map(|_| 1.5 * noise.normal()).collect();
    let mut wells = Vec::new();
    for plate in 0..plates {
        let shift: Vec<f64> = (0..WIDTH).map(|_| noise.normal()).collect();
        let mut next = 0u8;
        let mut add = |role: Role, compound: Option<usize>, on: f64, noise: &mut Noise| {
            let well = WellPosition::new(next / 24 + 1, next % 24 + 1).unwrap();
            next += 1;
            let values = disease.iter().zip(&shift);
            wells.push(WellProfile {
                plate: format!("P{plate:02}").parse().unwrap(),
                well,
                treatment: Treatment {
                    role,
                    disease: (role != Role::Reference).then(|| "D1".to_owned()),
                    compound: compound.map(|number| format!("C{number}")),
                    dose: compound.map(|_| 1.0),
                },
                fields: 1,
                cell_count: None,
                values: values
                    .map(|(d, s)| (s + on * d + noise.normal()) as f32)
                    .collect(),
            });
        };
        for _ in 0..controls {
            add(Role::Reference, None, 0.0, &mut noise);
            add(Role::Phenotype, None, 1.0, &mut noise);
        }
        for (number, share) in SHARES.into_iter().enumerate() {
            for _ in 0..4 {
                add(Role::Treated, Some(number), 1.0 - share, &mut noise);
            }
        }
    }
    wells
}

const SHARES: [f64; 4] = [0.0, 0.3, 0.6, 1.0];

/// Spoils the first `wells` wells of a role on a plate, all in the same way, along no axis of the screen.
fn spoil(profiles: &mut [WellProfile], plate: &str, role: Role, wells: usize, size: f32) {
    let mut noise = Noise(99);
    let debris: Vec<f32> = (0..WIDTH).map(|_| size * noise.normal() as f32).collect();
    let of_role = |well: &&mut WellProfile| well.plate.as_str() == plate && well.treatment.role == role;
    for well in profiles.iter_mut().filter(of_role).take(wells) {
        well.values
            .iter_mut()
            .zip(&debris)
            .for_each(|(value, debris)| *value += debris);
    }
}

fn plain() -> ComparisonSettings {
    ComparisonSettings {
        align: Align::None,
        ..ComparisonSettings::default()
    }
}

fn window<'a>(found: &'a ScreenComparison, plate: &str) -> &'a AssayWindow {
    found
        .windows
        .iter()
        .find(|window| window.plate.as_str() == plate)
        .unwrap()
}

/// Largest difference of the treatments' mean positions.
fn furthest(a: &ScreenComparison, b: &ScreenComparison) -> f64 {
    let positions = |found: &ScreenComparison| -> Vec<f64> {
        let treated = found.rows.iter().filter(|row| row.compound.is_some());
        treated.map(|row| row.on_axis.unwrap()).collect()
    };
    let (a, b) = (positions(a), positions(b));
    assert_eq!(a.len(), SHARES.len());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Where the treatments would lie with plain means, by hand: on one plate, unscaled.
fn with_plain_means(wells: &[WellProfile]) -> Vec<f64> {
    let mean = |wanted: &dyn Fn(&WellProfile) -> bool| -> Vec<f64> {
        let rows: Vec<&WellProfile> = wells.iter().filter(|well| wanted(well)).collect();
        (0..WIDTH)
            .map(|c| rows.iter().map(|well| f64::from(well.values[c])).sum::<f64>() / rows.len() as f64)
            .collect()
    };
    let reference = mean(&|well| well.treatment.role == Role::Reference);
    let phenotype = mean(&|well| well.treatment.role == Role::Phenotype);
    let axis: Vec<f64> = phenotype.iter().zip(&reference).map(|(d, h)| d - h).collect();
    let square: f64 = axis.iter().map(|v| v * v).sum();
    (0..SHARES.len())
        .map(|number| {
            let name = format!("C{number}");
            let treated = mean(&|well| well.treatment.compound.as_deref() == Some(&name));
            let along = treated.iter().zip(&reference).zip(&axis);
            along.map(|((x, h), v)| (x - h) * v).sum::<f64>() / square
        })
        .collect()
}

#[test]
fn a_tenth_of_spoilt_controls_leaves_scores_where_they_were() {
    for (controls, spoilt) in [(10, 1), (20, 2), (32, 3)] {
        for role in [Role::Reference, Role::Phenotype] {
            let clean = screen(1, controls, 7);
            let mut dirty = clean.clone();
            spoil(&mut dirty, "P00", role, spoilt, 30.0);
            // Unscaled, so that only the means differ.
            let settings = ComparisonSettings {
                normalise: wellspring_workloads::compare::Normalise::None,
                ..plain()
            };
            let (before, after) = (
                compare(&clean, &settings).unwrap(),
                compare(&dirty, &settings).unwrap(),
            );
            let of = window(&after, "P00");
            let (reference, phenotype) = if role == Role::Reference {
                (spoilt, 0)
            } else {
                (0, spoilt)
            };
            assert_eq!(of.reference_outliers, Some(reference), "{controls} {role:?}");
            assert_eq!(of.phenotype_outliers, Some(phenotype), "{controls} {role:?}");
            assert_eq!(of.reference_trimmed, reference > 0);
            assert_eq!(of.phenotype_trimmed, phenotype > 0);
            assert!(
                furthest(&before, &after) < 0.1,
                "{controls} {role:?}: {}",
                furthest(&before, &after)
            );
            let by_hand = with_plain_means(&dirty);
            let lost = SHARES
                .iter()
                .zip(&by_hand)
                .map(|(share, on)| (1.0 - share - on).abs());
            assert!(
                lost.fold(0.0, f64::max) > 0.4,
                "plain means go wrong here: {by_hand:?}"
            );
            let notes: Vec<_> = after
                .notes
                .iter()
                .filter(|n| n.kind == NoteKind::ControlOutliers)
                .collect();
            assert_eq!(notes.len(), 1);
            let told = format!("{spoilt} of {controls}");
            assert!(notes[0].text.contains(&told), "{}", notes[0].text);
            assert!(
                notes[0].text.contains("plate P00 disease D1"),
                "{}",
                notes[0].text
            );
            let first = if role == Role::Reference { "A01" } else { "A02" };
            assert!(notes[0].text.contains(first), "{}", notes[0].text);
        }
    }
}

#[test]
fn also_where_features_are_scaled_by_the_spoilt_wells_and_in_the_aligned_space() {
    let clean = screen(4, 24, 3);
    let mut dirty = clean.clone();
    spoil(&mut dirty, "P01", Role::Reference, 3, 40.0);
    spoil(&mut dirty, "P01", Role::Phenotype, 3, 40.0);
    for align in [Align::None, Align::Tvn] {
        let settings = ComparisonSettings { align, ..plain() };
        let (before, after) = (
            compare(&clean, &settings).unwrap(),
            compare(&dirty, &settings).unwrap(),
        );
        for plate in ["P00", "P01", "P02", "P03"] {
            let of = window(&after, plate);
            let expected = if plate == "P01" { Some(3) } else { Some(0) };
            assert_eq!(of.reference_outliers, expected, "{plate}");
            assert_eq!(of.phenotype_outliers, expected, "{plate}");
            assert_eq!(of.reference_trimmed, plate == "P01");
        }
        // Of the plate's own treated wells, four of each compound, which follow the controls.
        let positions: Vec<f64> = after
            .wells
            .iter()
            .filter(|well| well.plate.as_str() == "P01")
            .skip(48)
            .map(|well| well.on_axis.unwrap())
            .collect();
        for (wells, share) in positions.chunks(4).zip(SHARES) {
            let mean = wells.iter().sum::<f64>() / 4.0;
            assert!((mean - (1.0 - share)).abs() < 0.2, "{align:?} {share}: {mean}");
        }
        assert!(furthest(&before, &after) < 0.1, "{align:?}");
    }
}

#[test]
fn a_spoilt_well_in_twenty_trims_nothing_and_clean_plates_are_scored_by_plain_means() {
    let clean = screen(2, 20, 11);
    let settings = ComparisonSettings {
        normalise: wellspring_workloads::compare::Normalise::None,
        ..plain()
    };
    let found = compare(&clean, &settings).unwrap();
    assert!(
        found
            .windows
            .iter()
            .all(|window| !window.reference_trimmed && !window.phenotype_trimmed)
    );
    let mut dirty = clean.clone();
    spoil(&mut dirty, "P00", Role::Reference, 1, 30.0);
    let spoilt = compare(&dirty, &settings).unwrap();
    let of = window(&spoilt, "P00");
    assert_eq!((of.reference_outliers, of.reference_trimmed), (Some(1), false));
    assert!(
        spoilt
            .notes
            .iter()
            .all(|note| note.kind != NoteKind::ControlOutliers)
    );
    // What was spoilt on one plate changes nothing on the other.
    let wells = |found: &ScreenComparison| -> Vec<_> {
        let wells = found.wells.iter().filter(|well| well.plate.as_str() == "P01");
        wells.cloned().collect()
    };
    assert_eq!(wells(&found), wells(&spoilt));
    let one_plate: Vec<WellProfile> = clean
        .into_iter()
        .filter(|well| well.plate.as_str() == "P00")
        .collect();
    let found = compare(&one_plate, &settings).unwrap();
    for (row, on) in found
        .rows
        .iter()
        .filter(|row| row.compound.is_some())
        .zip(with_plain_means(&one_plate))
    {
        assert!((row.on_axis.unwrap() - on).abs() < 1e-9);
    }
}

#[test]
fn of_one_or_two_controls_none_is_judged() {
    for controls in [1, 2] {
        let mut wells = screen(8, controls, 5);
        spoil(&mut wells, "P03", Role::Reference, 1, 50.0);
        let found = compare(&wells, &plain()).unwrap();
        for window in &found.windows {
            assert_eq!(
                window.reference_outliers, None,
                "no well of the screen can be judged"
            );
            assert!(!window.reference_trimmed && !window.phenotype_trimmed);
        }
    }
    // Beside plates with more, the screen knows what is usual, but of two wells nobody knows which is wrong.
    let mut wells = screen(8, 12, 5);
    let mut seen = 0;
    wells.retain(|well| {
        let of_few = well.plate.as_str() == "P03" && well.treatment.role == Role::Reference;
        seen += usize::from(of_few);
        !of_few || seen <= 2
    });
    spoil(&mut wells, "P03", Role::Reference, 1, 50.0);
    let found = compare(&wells, &plain()).unwrap();
    let of = window(&found, "P03");
    assert_eq!(
        (of.n_reference, of.reference_outliers, of.reference_trimmed),
        (2, Some(0), false)
    );
    // Of three the odd one out is.
    let mut wells = screen(8, 3, 5);
    spoil(&mut wells, "P03", Role::Reference, 1, 50.0);
    let of = compare(&wells, &plain()).unwrap();
    let of = window(&of, "P03");
    assert_eq!((of.reference_outliers, of.reference_trimmed), (Some(1), true));
}

#[test]
fn nearly_half_of_all_controls_spoilt_do_not_hide_each_other() {
    let mut wells = screen(3, 20, 13);
    for plate in ["P00", "P01", "P02"] {
        spoil(&mut wells, plate, Role::Phenotype, 8, 20.0);
    }
    let found = compare(&wells, &plain()).unwrap();
    for window in &found.windows {
        assert_eq!(window.phenotype_outliers, Some(8));
        assert_eq!(window.reference_outliers, Some(0));
    }
}

#[test]
fn screens_without_a_phenotype_are_centred_on_the_trimmed_mean_too() {
    let clean = screen(2, 20, 17);
    let settings = ComparisonSettings {
        question: Question::Activity,
        ..plain()
    };
    let mut dirty = clean.clone();
    spoil(&mut dirty, "P00", Role::Reference, 2, 30.0);
    let found = compare(&dirty, &settings).unwrap();
    let of = window(&found, "P00");
    assert_eq!((of.reference_outliers, of.reference_trimmed), (Some(2), true));
    assert!(!of.phenotype_trimmed, "phenotype wells are treatments there");
}

#[test]
fn a_plate_that_is_shifted_as_a_whole_has_no_outliers() {
    let mut wells = screen(6, 16, 19);
    for well in wells.iter_mut().filter(|well| well.plate.as_str() == "P02") {
        well.values.iter_mut().for_each(|value| *value += 25.0);
    }
    let found = compare(&wells, &plain()).unwrap();
    let of = window(&found, "P02");
    assert_eq!((of.reference_outliers, of.phenotype_outliers), (Some(0), Some(0)));
}
