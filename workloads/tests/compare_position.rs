//! Position effects in a comparison: edge effects of control wells, B-scores of treated wells and their controls.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/noise.rs"]
mod noise;

use noise::Noise;
use wellspring_workloads::compare::{
    ComparisonSettings, Normalise, Question, ScreenComparison, WellScore, compare,
};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

const WIDTH: usize = 8;
/// Where the plate's one compound that works lies.
const WORKS: (u8, u8) = (7, 11);

/// A 384-well plate: reference wells in columns 1 and 2, phenotype wells in 23 and 24, a compound in each other well.
/// Phenotype wells of the first and last row lie further out, and every row has more of the phenotype and fewer
/// cells than the one above. One compound works.
fn plate() -> Vec<WellProfile> {
    let mut generator = Noise(7);
    let mut noise = move || generator.uniform() - 0.5;
    let mut wells = Vec::new();
    for row in 1..=16u8 {
        for column in 1..=24u8 {
            let (role, mut place) = match column {
                1 | 2 => (Role::Reference, 0.0),
                23 | 24 => (Role::Phenotype, 1.0),
                _ => (Role::Treated, 1.0),
            };
            if role == Role::Phenotype && [1, 16].contains(&row) {
                place += 0.2;
            }
            if role == Role::Treated {
                place += 0.05 * f64::from(row);
            }
            if (row, column) == WORKS {
                place -= 0.6;
            }
            let values = (0..WIDTH).map(|_| (4.0 * place + 0.2 * noise()) as f32).collect();
            wells.push(WellProfile {
                plate: "P".parse().unwrap(),
                well: WellPosition::new(row, column).unwrap(),
                treatment: Treatment {
                    role,
                    disease: (role != Role::Reference).then(|| "D".to_owned()),
                    compound: (role == Role::Treated).then(|| format!("c{row}-{column}")),
                    dose: (role == Role::Treated).then_some(1.0),
                },
                fields: 1,
                cell_count: (row != 3).then(|| 500.0 - 10.0 * f64::from(row) + 4.0 * noise()),
                values,
            });
        }
    }
    wells
}

fn compared(wells: &[WellProfile], question: Question) -> ScreenComparison {
    let settings = ComparisonSettings {
        question,
        normalise: Normalise::None,
        ..ComparisonSettings::default()
    };
    compare(wells, &settings).unwrap()
}

fn at(found: &ScreenComparison, row: u8, column: u8) -> &WellScore {
    let place = WellPosition::new(row, column).unwrap();
    found.wells.iter().find(|well| well.well == place).unwrap()
}

/// Means of a column of the table over rows 4 to 8 and 9 to 13 of treated wells, but for the one that works.
fn upper_and_lower(found: &ScreenComparison, value: fn(&WellScore) -> Option<f64>) -> (f64, f64) {
    let mean = |rows: std::ops::RangeInclusive<u8>| {
        let values: Vec<f64> = rows
            .flat_map(|row| (3..=22).map(move |column| (row, column)))
            .filter(|&place| place != WORKS)
            .filter_map(|(row, column)| value(at(found, row, column)))
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    (mean(4..=8), mean(9..=13))
}

#[test]
fn controls_that_differ_on_the_rim_are_found_and_others_are_not() {
    let found = compared(&plate(), Question::Rescue);
    let window = &found.windows[0];
    let phenotype = window.phenotype_edge.unwrap();
    // Column 24 is rim as well, and only its first and last wells lie further out.
    assert_eq!((phenotype.edge, phenotype.interior), (18, 14));
    let reference = window.reference_edge.unwrap();
    assert_eq!((reference.edge, reference.interior), (18, 14));
    assert!(reference.p_value > 0.05, "{reference:?}");
    assert!(
        phenotype.effect > reference.effect.abs(),
        "{phenotype:?} {reference:?}"
    );

    let mut stronger = plate();
    for well in &mut stronger {
        if well.treatment.role == Role::Phenotype && well.well.column() == 24 {
            well.values.iter_mut().for_each(|value| *value += 0.8);
        }
    }
    let found = compared(&stronger, Question::Rescue);
    let window = &found.windows[0];
    let phenotype = window.phenotype_edge.unwrap();
    assert!(
        phenotype.effect > 0.9 && phenotype.p_value < 1e-4,
        "{phenotype:?}"
    );
    assert!(window.reference_edge.unwrap().p_value > 0.05);
}

#[test]
fn controls_inside_the_plate_only_have_no_edge_effect() {
    let mut wells = plate();
    wells.retain(|well| {
        well.treatment.role == Role::Treated
            || ([2, 23].contains(&well.well.column()) && (2..16).contains(&well.well.row()))
    });
    let found = compared(&wells, Question::Rescue);
    assert_eq!(found.windows[0].reference_edge, None);
    assert_eq!(found.windows[0].phenotype_edge, None);
}

#[test]
fn b_scores_take_rows_out_and_leave_the_compound_that_works() {
    let found = compared(&plate(), Question::Rescue);
    let (upper, lower) = upper_and_lower(&found, |well| well.rescue);
    assert!(upper - lower > 0.2, "the rows differ: {upper} {lower}");
    let (upper, lower) = upper_and_lower(&found, |well| well.rescue_b_score);
    assert!((upper - lower).abs() < 0.5, "{upper} {lower}");
    let (upper, lower) = upper_and_lower(&found, |well| well.cell_count_b_score);
    assert!((upper - lower).abs() < 0.5, "{upper} {lower}");

    let works = at(&found, WORKS.0, WORKS.1).rescue_b_score.unwrap();
    // Phenotype wells do not follow the rows of this plate.
    let others = found.wells.iter().filter(|well| {
        let place = (well.well.row(), well.well.column());
        place != WORKS && (3..=22).contains(&place.1)
    });
    let best = others.filter_map(|well| well.rescue_b_score).fold(0.0, f64::max);
    assert!(works > 2.0 * best, "{works} {best}");

    // Reference wells are no null of a rescue screen, and row 3 has no counts.
    assert_eq!(at(&found, 5, 1).rescue_b_score, None);
    assert_eq!(at(&found, 5, 1).cell_count_b_score, None);
    assert!(at(&found, 5, 23).rescue_b_score.is_some());
    assert!(at(&found, 3, 12).rescue_b_score.is_some());
    assert_eq!(at(&found, 3, 12).cell_count_b_score, None);
}

#[test]
fn the_null_of_a_response_screen_is_polished_with_the_treated_wells() {
    let found = compared(&plate(), Question::Response);
    assert!(at(&found, 5, 1).rescue_b_score.is_some());
    assert_eq!(at(&found, 5, 23).rescue_b_score, None);
    let activity = compared(&plate(), Question::Activity);
    assert!(activity.wells.iter().all(|well| well.rescue_b_score.is_none()));
    assert!(at(&activity, 5, 12).cell_count_b_score.is_some());
    assert!(activity.windows[0].reference_edge.is_some());
}

#[test]
fn a_sparse_plate_has_scores_without_b_scores() {
    let mut wells = plate();
    wells.retain(|well| well.treatment.role != Role::Treated || well.well.column() == 12);
    wells.retain(|well| well.treatment.role != Role::Phenotype || well.well.row() % 2 == 0);
    let found = compared(&wells, Question::Rescue);
    assert!(found.wells.iter().all(|well| well.rescue.is_some()));
    assert!(found.wells.iter().all(|well| well.rescue_b_score.is_none()));
    assert!(found.wells.iter().all(|well| well.cell_count_b_score.is_none()));
}
