//! p-values on wells that all come from one distribution: no more of them are small than chance makes, however few
//! controls there are, however many replicates lie on a plate, and whatever the features were scaled by.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/noise.rs"]
mod noise;

use noise::Noise;
use wellspring_workloads::compare::{
    Call, ComparisonSettings, FitOn, Normalise, Question, Thresholds, compare,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

/// Compounds of a screen share its controls, and so do their p-values: many small screens say more than a large one.
const SCREENS: u64 = 12;
const COMPOUNDS: usize = 10;
/// Most of the p-values that may be at most 0.05, and most of the compounds that may be called something.
const MOST_SMALL: f64 = 0.15;
const MOST_CALLED: usize = 8;

/// How a screen of noise is laid out.
#[derive(Debug, Clone, Copy)]
struct Layout {
    plates: usize,
    controls: usize,
    /// Wells of a compound on each plate.
    replicates: usize,
    width: usize,
}

/// Controls of one or two roles, and compounds that do nothing.
fn noise(layout: Layout, question: Question, seed: u64) -> Vec<WellProfile> {
    let axis = question != Question::Activity;
    // On the side of the null.
    let treated = if question == Question::Rescue { 1.0 } else { 0.0 };
    let mut noise = Noise(seed);
    let mut wells = Vec::new();
    for plate in 0..layout.plates {
        let mut next = 0u16;
        let mut add = |role: Role, compound: Option<usize>, place: f64| {
            let (row, column) = (next / 48, next % 48);
            next += 1;
            let values = (0..layout.width).map(|i| {
                let direction = if i % 2 == 0 { 3.0 } else { -3.0 };
                (5.0 + place * direction + noise.normal()) as f32
            });
            wells.push(WellProfile {
                plate: format!("P{plate}").parse().unwrap(),
                well: WellPosition::new(row as u8 + 1, column as u8 + 1).unwrap(),
                treatment: Treatment {
                    role,
                    disease: (axis && role != Role::Reference).then(|| "D".to_owned()),
                    compound: compound.map(|i| format!("C{i:02}")),
                    dose: compound.map(|_| 1.0),
                },
                fields: 1,
                cell_count: None,
                values: values.collect(),
            });
        };
        for _ in 0..layout.controls {
            add(Role::Reference, None, 0.0);
            if axis {
                add(Role::Phenotype, None, 1.0);
            }
        }
        for compound in 0..COMPOUNDS {
            for _ in 0..layout.replicates {
                add(Role::Treated, Some(compound), treated);
            }
        }
    }
    wells
}

/// Nulls of fewer draws than usual.
fn quick() -> Thresholds {
    Thresholds {
        exact_combinations: 1000,
        draws: 1000,
        ..Thresholds::default()
    }
}

/// Shares of compounds with p of at most 0.05 along and beside the axis, and the calls that are not `inactive`.
fn shares(layout: Layout, settings: &ComparisonSettings) -> (f64, f64, usize) {
    let question = settings.question;
    let (mut along, mut beside, mut rows, mut called) = (0, 0, 0, 0);
    for seed in 1..=SCREENS {
        let result = compare(&noise(layout, question, seed), settings).unwrap();
        for row in result.rows.iter().filter(|row| row.compound.is_some()) {
            rows += 1;
            along += usize::from(row.p_value.unwrap() <= 0.05);
            beside += usize::from(row.p_off.unwrap() <= 0.05);
        }
        let calls = result.compounds.iter().map(|compound| compound.call);
        called += calls.filter(|call| *call != Call::Inactive).count();
    }
    assert_eq!(rows, SCREENS as usize * COMPOUNDS);
    (along as f64 / rows as f64, beside as f64 / rows as f64, called)
}

#[test]
fn replicates_of_nothing_are_not_active() {
    let layout = |plates, controls, replicates, width| Layout {
        plates,
        controls,
        replicates,
        width,
    };
    for layout in [
        layout(4, 12, 2, 36),
        layout(1, 12, 4, 36),
        layout(2, 16, 16, 24),
        layout(4, 24, 2, 200),
        layout(1, 24, 1, 200),
        layout(2, 48, 6, 100),
        // On more plates than are held.
        layout(17, 6, 12, 12),
    ] {
        for (normalise, fit_on) in [
            (Normalise::Standardise, FitOn::Reference),
            (Normalise::Standardise, FitOn::All),
            (Normalise::None, FitOn::Reference),
        ] {
            let settings = ComparisonSettings {
                question: Question::Activity,
                normalise,
                fit_on,
                thresholds: quick(),
                ..ComparisonSettings::default()
            };
            let (along, _, called) = shares(layout, &settings);
            // Once up to all of them were small.
            assert!(
                along <= MOST_SMALL,
                "{layout:?} {normalise:?} {fit_on:?}: {along}"
            );
            assert!(
                called <= MOST_CALLED,
                "{layout:?} {normalise:?} {fit_on:?}: {called} calls"
            );
        }
    }
}

#[test]
fn replicates_on_one_plate_rescue_nothing_by_chance() {
    for (plates, controls, replicates) in [(1, 24, 4), (2, 16, 8), (2, 48, 3), (17, 6, 12)] {
        let layout = Layout {
            plates,
            controls,
            replicates,
            width: 24,
        };
        let settings = ComparisonSettings {
            normalise: Normalise::None,
            thresholds: quick(),
            ..ComparisonSettings::default()
        };
        let (along, beside, called) = shares(layout, &settings);
        assert!(
            along <= MOST_SMALL && beside <= MOST_SMALL,
            "{layout:?}: {along} {beside}"
        );
        assert!(called <= MOST_CALLED, "{layout:?}: {called} calls");
    }
}
