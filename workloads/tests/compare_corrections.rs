//! Corrections that a screen file may ask for before wells are compared: ranks, well positions, Harmony. What each must
//! take out is planted, and what must be left is looked for.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/noise.rs"]
mod noise;

use std::collections::BTreeSet;

use noise::Noise;
use wellspring_workloads::align::harmony::HarmonyError;
use wellspring_workloads::compare::{
    Align, AlignmentSettings, Call, CompareError, ComparisonSettings, FitOn, Normalise, NoteKind,
    ScreenComparison, Select, compare, compare_framed,
};
use wellspring_workloads::position::PositionError;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

const WIDTH: usize = 16;
/// Wells of a plate: 24 reference, 24 phenotype, 16 treated.
const WELLS: usize = 64;

/// Plates whose wells lie elsewhere on each. Compound 0 of eight brings the phenotype back, the others do nothing.
fn screen(seed: u64, plates: usize) -> Vec<WellProfile> {
    let mut noise = Noise(seed);
    let mut wells = Vec::new();
    for plate in 0..plates {
        for index in 0..WELLS {
            let (role, compound) = match index {
                0..24 => (Role::Reference, None),
                24..48 => (Role::Phenotype, None),
                _ => (Role::Treated, Some((index - 48) / 2)),
            };
            let diseased = role == Role::Phenotype || compound.is_some_and(|compound| compound > 0);
            let values = (0..WIDTH).map(|column| {
                let along = if column % 2 == 0 { 3.0 } else { -1.0 };
                let disease = if diseased { along } else { 0.0 };
                (10.0 + disease + 0.8 * noise.normal()) as f32
            });
            // 13 has no factor in common with 64: every plate turns the layout.
            let at = (index + 13 * plate) % WELLS;
            wells.push(WellProfile {
                plate: format!("P{plate:02}").parse().unwrap(),
                well: WellPosition::new((at / 8 + 1) as u8, (at % 8 + 1) as u8).unwrap(),
                treatment: Treatment {
                    role,
                    disease: (role != Role::Reference).then(|| "D".to_owned()),
                    compound: compound.map(|compound| format!("C{compound}")),
                    dose: compound.map(|_| 1.0),
                },
                fields: 1,
                cell_count: None,
                values: values.collect(),
            });
        }
    }
    wells
}

fn settings() -> ComparisonSettings {
    ComparisonSettings {
        align: Align::None,
        ..ComparisonSettings::default()
    }
}

fn call(found: &ScreenComparison, name: &str) -> Call {
    let mut of = found.compounds.iter();
    of.find(|c| c.compound.as_deref() == Some(name)).unwrap().call
}

fn only_the_rescuer_is_called(found: &ScreenComparison) {
    assert_eq!(call(found, "C0"), Call::RescueHit);
    let idle = (1..8).filter(|i| call(found, &format!("C{i}")) != Call::Inactive);
    assert!(idle.count() <= 1);
}

#[test]
fn ranks_do_not_see_how_a_plate_bends_its_values() {
    for fit_on in [FitOn::Reference, FitOn::All] {
        let settings = ComparisonSettings {
            normalise: Normalise::Percentile,
            fit_on,
            ..settings()
        };
        let wells = screen(1, 3);
        let plain = compare(&wells, &settings).unwrap();
        only_the_rescuer_is_called(&plain);
        let mut bent = wells;
        for well in &mut bent {
            let plate = f32::from(well.plate.as_str().as_bytes()[2] - b'0');
            for value in &mut well.values {
                *value = plate * 100.0 + *value * *value * *value;
            }
        }
        assert_eq!(compare(&bent, &settings).unwrap(), plain, "{fit_on:?}");
    }
}

#[test]
fn ranks_can_be_aligned_and_a_constant_column_is_named() {
    let mut wells = screen(2, 4);
    for well in &mut wells {
        well.values[3] = 5.0;
    }
    let settings = ComparisonSettings {
        normalise: Normalise::Percentile,
        align: Align::Tvn,
        alignment: AlignmentSettings {
            components: 8,
            ..AlignmentSettings::default()
        },
        ..settings()
    };
    let found = compare(&wells, &settings).unwrap();
    assert_eq!(call(&found, "C0"), Call::RescueHit);
    let note = found
        .notes
        .iter()
        .find(|note| note.kind == NoteKind::ConstantFeatures);
    assert_eq!(note.unwrap().column, Some(3));
}

/// What a position adds to every well there: the lower its row, the more of the disease.
fn add_position_effects(wells: &mut [WellProfile]) {
    for well in wells {
        let low = f32::from(well.well.row()) - 4.5;
        for (column, value) in well.values.iter_mut().enumerate() {
            *value += low * if column % 2 == 0 { 0.3 } else { -0.1 };
        }
    }
}

/// Correlation of the row with the position on the axis, of phenotype wells.
fn slope(wells: &[WellProfile], found: &ScreenComparison) -> f64 {
    let phenotype: BTreeSet<_> = wells
        .iter()
        .filter(|well| well.treatment.role == Role::Phenotype)
        .map(|well| (&well.plate, well.well))
        .collect();
    let of = found
        .wells
        .iter()
        .filter(|well| phenotype.contains(&(&well.plate, well.well)));
    let (rows, positions): (Vec<f64>, Vec<f64>) = of
        .map(|well| (f64::from(well.well.row()), well.on_axis.unwrap()))
        .unzip();
    let centred = |values: &[f64]| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect()
    };
    let (rows, positions) = (centred(&rows), centred(&positions));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&rows, &positions) / (dot(&rows, &rows) * dot(&positions, &positions)).sqrt()
}

#[test]
fn what_positions_have_in_common_is_taken_out() {
    let mut wells = screen(3, 16);
    add_position_effects(&mut wells);
    for (normalise, select) in [
        (Normalise::None, Select::None),
        (Normalise::Standardise, Select::None),
        (Normalise::RobustMad, Select::None),
        (Normalise::Percentile, Select::None),
        (Normalise::Standardise, Select::Recommended),
    ] {
        let corrected = ComparisonSettings {
            normalise,
            select,
            well_position: true,
            ..settings()
        };
        let spoilt = ComparisonSettings {
            well_position: false,
            ..corrected.clone()
        };
        let found = compare(&wells, &corrected).unwrap();
        // Ranks that saturate vary less than those of a rescued well, which then looks far off the axis.
        if normalise != Normalise::Percentile {
            only_the_rescuer_is_called(&found);
        }
        // What is left: scales of columns that the effect widens, differently on every plate.
        let (left, planted) = (
            slope(&wells, &found),
            slope(&wells, &compare(&wells, &spoilt).unwrap()),
        );
        assert!(
            left.abs() < 0.25 && planted > 0.4,
            "{normalise:?} {select:?}: {left} {planted}"
        );
    }
}

#[test]
fn without_scaling_a_planted_position_effect_changes_nothing() {
    let corrected = ComparisonSettings {
        normalise: Normalise::None,
        well_position: true,
        ..settings()
    };
    let mut wells = screen(4, 8);
    let clean = compare(&wells, &corrected).unwrap();
    add_position_effects(&mut wells);
    let found = compare(&wells, &corrected).unwrap();
    for (clean, found) in clean.wells.iter().zip(&found.wells) {
        let gap = clean.on_axis.unwrap() - found.on_axis.unwrap();
        assert!(gap.abs() < 1e-5, "{} {}: {gap}", clean.plate, clean.well);
    }
}

#[test]
fn positions_that_would_take_biology_away_are_refused() {
    let corrected = ComparisonSettings {
        well_position: true,
        ..settings()
    };
    let few = compare(&screen(5, 7), &corrected).unwrap_err();
    assert!(matches!(
        few,
        CompareError::Position(PositionError::TooFewPlates { plates: 7, .. })
    ));
    assert!(few.to_string().contains("well_position = false"), "{few}");
    let mut wells = screen(5, 8);
    let first: Vec<WellPosition> = wells[..WELLS].iter().map(|well| well.well).collect();
    for plate in wells.chunks_mut(WELLS) {
        for (well, &position) in plate.iter_mut().zip(&first) {
            well.well = position;
        }
    }
    let fixed = compare(&wells, &corrected).unwrap_err();
    assert!(matches!(
        fixed,
        CompareError::Position(PositionError::NotRandomised { plates: 8, .. })
    ));
}

fn harmonise() -> ComparisonSettings {
    ComparisonSettings {
        normalise: Normalise::None,
        align: Align::Harmony,
        alignment: AlignmentSettings {
            components: 8,
            ..AlignmentSettings::default()
        },
        ..ComparisonSettings::default()
    }
}

/// Moves every plate by as much as the disease does, another way each.
fn shift_plates(wells: &mut [WellProfile]) {
    let mut noise = Noise(99);
    for plate in wells.chunks_mut(WELLS) {
        let shift: Vec<f32> = (0..WIDTH).map(|_| 2.0 * noise.normal() as f32).collect();
        for well in plate {
            well.values
                .iter_mut()
                .zip(&shift)
                .for_each(|(value, shift)| *value += shift);
        }
    }
}

#[test]
fn harmony_lets_plates_meet_and_keeps_the_disease_apart() {
    let names: Vec<String> = (0..WIDTH).map(|i| format!("f{i}")).collect();
    let mut wells = screen(6, 6);
    shift_plates(&mut wells);
    let (found, frame) = compare_framed(&wells, &harmonise(), &names, None).unwrap();
    assert!(frame.transform().is_none());
    only_the_rescuer_is_called(&found);
    assert!(found.wells.iter().all(|well| well.unaligned_off_axis.is_some()));
    let note = found.notes.iter().find(|note| note.kind == NoteKind::Alignment);
    assert!(note.unwrap().text.contains("Harmony"));
    // Rows may come in any order.
    wells.reverse();
    let (again, _) = compare_framed(&wells, &harmonise(), &names, None).unwrap();
    assert_eq!(again, found);
}

#[test]
fn harmony_refuses_a_disease_of_one_plate() {
    let mut wells = screen(7, 3);
    for well in wells.iter_mut().take(WELLS) {
        if let Some(disease) = &mut well.treatment.disease {
            *disease = "alone".to_owned();
        }
    }
    let error = compare(&wells, &harmonise()).unwrap_err();
    assert!(
        matches!(&error, CompareError::Harmony(HarmonyError::Confounded { state, .. }) if state.contains("alone")),
        "{error}"
    );
    let error = compare(&screen(7, 1), &harmonise()).unwrap_err();
    assert!(matches!(
        error,
        CompareError::Harmony(HarmonyError::OneBatch { .. })
    ));
}
