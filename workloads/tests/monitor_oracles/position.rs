//! `workloads::position` against `bscore_cell_count.json` and `wellpos_mean_subtracted_head64.npy`, and its rules.

use proptest::prelude::*;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::position::{
    FEWEST_PLATES, PositionError, WellPositionFitter, b_scores, edge_effect,
};
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::words::WellPosition;

use crate::files::{close, matrix, number, oracle, table};

fn well(row: u8, column: u8) -> WellPosition {
    WellPosition::new(row, column).unwrap()
}

/// What a row of `wells.csv` was given; states stand in for roles.
fn treatment(row: &std::collections::HashMap<String, String>) -> Treatment {
    Treatment {
        role: Role::Treated,
        disease: Some(row["state"].clone()),
        compound: Some(row["compound"].clone()),
        dose: row["dose_um"].parse().ok(),
    }
}

/// 16 x 24 wells in order of rows.
fn plate_384() -> Vec<WellPosition> {
    (1..=16)
        .flat_map(|row| (1..=24).map(move |column| well(row, column)))
        .collect()
}

#[test]
fn b_scores_agree_with_bscore_cell_count_json() {
    let (Some(path), Some(wells)) = (oracle("bscore_cell_count.json"), table("wells.csv")) else {
        return;
    };
    let expected: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for plate in ["P1", "P2"] {
        let expected = &expected[plate];
        let numbers = |key: &str| -> Vec<f64> {
            let list = expected[key].as_array().unwrap();
            list.iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let mut values: Vec<(WellPosition, f64)> = wells
            .iter()
            .filter(|row| row["plate"] == plate)
            .map(|row| (row["well"].parse().unwrap(), number(row, "cell_count")))
            .collect();
        values.sort_by_key(|&(well, _)| (well.row(), well.column()));
        let ours = b_scores(&values).unwrap();
        close(
            ours.overall,
            expected["overall"].as_f64().unwrap(),
            1e-9,
            "overall",
        );
        close(
            ours.residual_mad,
            expected["mad_res"].as_f64().unwrap(),
            1e-9,
            "mad_res",
        );
        assert_eq!(ours.sweeps as u64, expected["iters"].as_u64().unwrap());
        for ((_, ours), expected) in ours.rows.iter().zip(numbers("row")) {
            close(*ours, expected, 1e-9, "row");
        }
        for ((_, ours), expected) in ours.columns.iter().zip(numbers("col")) {
            close(*ours, expected, 1e-9, "col");
        }
        let head = numbers("bscore_first24");
        assert_eq!(head.len(), 24);
        for (ours, expected) in ours.scores.iter().zip(head) {
            close(*ours, expected, 1e-9, "bscore_first24");
        }
    }
}

#[test]
fn position_means_agree_with_wellpos_mean_subtracted_head64() {
    let (Some(input), Some(expected), Some(wells)) = (
        matrix("norm_mad_controls.npy"),
        matrix("wellpos_mean_subtracted_head64.npy"),
        table("wells.csv"),
    ) else {
        return;
    };
    let values = input.iter().flatten().map(|&v| v as f32).collect();
    let mut rows = FeatureMatrix::from_values(input[0].len(), values).unwrap();
    let positions: Vec<WellPosition> = wells.iter().map(|row| row["well"].parse().unwrap()).collect();
    let mut fitter = WellPositionFitter::default();
    for plate in 1..=6 {
        let plate = format!("P{plate}");
        let on: Vec<usize> = (0..wells.len()).filter(|&i| wells[i]["plate"] == plate).collect();
        let given: Vec<Treatment> = on.iter().map(|&i| treatment(&wells[i])).collect();
        let placed: Vec<(WellPosition, &Treatment)> = on.iter().map(|&i| positions[i]).zip(&given).collect();
        fitter.add(&rows.select(&on), &placed).unwrap();
    }
    // The rule of eight plates refuses the oracle's six; the formula is checked with the limit set to them.
    let refused = fitter.clone().finish(FEWEST_PLATES).unwrap_err();
    assert!(matches!(
        refused,
        PositionError::TooFewPlates {
            plates: 6,
            needed: 8,
            ..
        }
    ));
    let means = fitter.finish(6).unwrap();
    means.subtract(&mut rows, &positions).unwrap();
    for (i, expected) in expected.iter().enumerate() {
        for (ours, expected) in rows.row(i).iter().zip(expected) {
            close(
                f64::from(*ours),
                *expected,
                1e-6,
                "wellpos_mean_subtracted_head64",
            );
        }
    }
}

#[test]
fn a_rim_that_differs_is_found_and_a_plate_without_one_is_not() {
    let plain: Vec<(WellPosition, f64)> = plate_384()
        .into_iter()
        .enumerate()
        .map(|(i, well)| (well, ((i * 7919) % 384) as f64))
        .collect();
    let edge = edge_effect(&plain, (16, 24)).unwrap();
    assert_eq!((edge.edge, edge.interior), (76, 308));
    assert!(edge.p_value > 0.05 && edge.effect.abs() < 0.15, "{edge:?}");
    let raised: Vec<(WellPosition, f64)> = plain
        .iter()
        .map(|&(well, value)| {
            let rim = [1, 16].contains(&well.row()) || [1, 24].contains(&well.column());
            (well, value + if rim { 150.0 } else { 0.0 })
        })
        .collect();
    let edge = edge_effect(&raised, (16, 24)).unwrap();
    assert!(edge.p_value < 1e-6 && edge.effect > 0.4, "{edge:?}");
}

#[test]
fn the_rank_sum_of_few_wells_is_exact() {
    // All three rim wells above all four others: one choice of 35, and its mirror.
    let wells: Vec<(WellPosition, f64)> = [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3)]
        .into_iter()
        .zip([7.0, 6.0, 5.0, 1.0, 2.0, 3.0, 4.0])
        .map(|((row, column), value)| (well(row, column), value))
        .collect();
    let edge = edge_effect(&wells, (4, 6)).unwrap();
    assert_eq!((edge.u, edge.effect), (12.0, 1.0));
    assert!((edge.p_value - 2.0 / 35.0).abs() < 1e-12, "{edge:?}");
    let equal: Vec<(WellPosition, f64)> = wells.iter().map(|&(well, _)| (well, 3.0)).collect();
    let edge = edge_effect(&equal, (4, 6)).unwrap();
    assert_eq!((edge.effect, edge.p_value), (0.0, 1.0));
}

#[test]
fn bad_input_is_named() {
    let nan = [(well(2, 3), 1.0), (well(4, 5), f64::NAN)];
    let text = b_scores(&nan).unwrap_err().to_string();
    assert!(text.contains("D05") && text.contains("NaN"), "{text}");
    assert!(
        edge_effect(&nan, (8, 12))
            .unwrap_err()
            .to_string()
            .contains("D05")
    );
    let twice = [(well(1, 1), 1.0), (well(1, 1), 2.0)];
    assert_eq!(
        b_scores(&twice).unwrap_err(),
        PositionError::DuplicateWell { well: well(1, 1) }
    );
    let constant: Vec<(WellPosition, f64)> = plate_384().into_iter().map(|well| (well, 7.0)).collect();
    assert_eq!(
        b_scores(&constant).unwrap_err(),
        PositionError::NoSpread { wells: 384 }
    );
    assert_eq!(b_scores(&[]).unwrap_err(), PositionError::NoSpread { wells: 0 });
    assert_eq!(
        edge_effect(&[(well(2, 2), 1.0)], (8, 12)).unwrap_err(),
        PositionError::OneSide { edge: 0, interior: 1 }
    );
    assert!(matches!(
        edge_effect(&[(well(9, 2), 1.0)], (8, 12)).unwrap_err(),
        PositionError::Outside {
            rows: 8,
            columns: 12,
            ..
        }
    ));

    let same = Treatment {
        role: Role::Treated,
        disease: None,
        compound: Some("A".to_owned()),
        dose: Some(1.0),
    };
    let mut fitter = WellPositionFitter::default();
    for _ in 0..8 {
        fitter
            .add(&FeatureMatrix::zeros(1, 2), &[(well(3, 3), &same)])
            .unwrap();
    }
    assert_eq!(
        fitter.finish(FEWEST_PLATES).unwrap_err(),
        PositionError::NotRandomised {
            well: well(3, 3),
            plates: 8
        }
    );
    let mut fitter = WellPositionFitter::default();
    assert!(matches!(
        fitter
            .add(&FeatureMatrix::zeros(2, 2), &[(well(3, 3), &same)])
            .unwrap_err(),
        PositionError::Shape {
            rows: 2,
            wells: 1,
            ..
        }
    ));
    for plate in 0..8u8 {
        let other = Treatment {
            dose: Some(f64::from(plate)),
            ..same.clone()
        };
        let rows = FeatureMatrix::zeros(1, 2);
        fitter.add(&rows, &[(well(3, 3), &other)]).unwrap();
    }
    let means = fitter.finish(FEWEST_PLATES).unwrap();
    let mut other = FeatureMatrix::zeros(1, 2);
    assert_eq!(
        means.subtract(&mut other, &[well(1, 1)]).unwrap_err(),
        PositionError::UnknownPosition { well: well(1, 1) }
    );
}

proptest! {
    /// Row, column and plate effects leave the B-scores as they are.
    #[test]
    fn b_scores_do_not_see_rows_and_columns(
        values in prop::collection::vec(-100i32..100, 24),
        rows in prop::collection::vec(-50i32..50, 4),
        columns in prop::collection::vec(-50i32..50, 6),
    ) {
        let wells: Vec<WellPosition> =
            (1..=4).flat_map(|row| (1..=6).map(move |column| well(row, column))).collect();
        let plain: Vec<(WellPosition, f64)> =
            wells.iter().zip(&values).map(|(&well, &v)| (well, f64::from(v))).collect();
        // A first polish settles both at residuals whose row medians are nought, to which effects are then added.
        let Ok(first) = b_scores(&plain) else { return Ok(()) };
        let settled: Vec<(WellPosition, f64)> =
            wells.iter().zip(&first.scores).map(|(&well, &v)| (well, v)).collect();
        let moved: Vec<(WellPosition, f64)> = settled
            .iter()
            .map(|&(well, v)| {
                let row = f64::from(rows[usize::from(well.row()) - 1]);
                (well, v + row)
            })
            .collect();
        let (Ok(settled), Ok(with_rows)) = (b_scores(&settled), b_scores(&moved)) else { return Ok(()) };
        for (a, b) in settled.scores.iter().zip(&with_rows.scores) {
            prop_assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        // Column effects are exact where the plate has no residual but one.
        let additive: Vec<(WellPosition, f64)> = wells
            .iter()
            .map(|&well| {
                let at = |list: &[i32], line: u8| f64::from(list[usize::from(line) - 1]);
                (well, at(&rows, well.row()) + at(&columns, well.column()))
            })
            .collect();
        let no_spread = PositionError::NoSpread { wells: 24 };
        prop_assert_eq!(b_scores(&additive).unwrap_err(), no_spread);
    }

    /// The order of a plate's wells does not change the correction, and corrected positions have mean nought.
    #[test]
    fn corrected_positions_have_mean_nought_whatever_the_order(
        values in prop::collection::vec(-10.0f32..10.0, 3 * 8 * 2),
        start in 0usize..3,
    ) {
        let rows = FeatureMatrix::from_values(2, values).unwrap();
        let given: Vec<Treatment> = (0..24u8)
            .map(|i| Treatment {
                role: Role::Treated,
                disease: None,
                compound: None,
                dose: Some(f64::from(i)),
            })
            .collect();
        let wells: Vec<WellPosition> = (0..24).map(|i| well(1, i % 3 + 1)).collect();
        let fit = |order: [usize; 3]| {
            let mut fitter = WellPositionFitter::default();
            for plate in 0..8 {
                let on = order.map(|i| 3 * plate + i);
                let placed = on.map(|i| (wells[i], &given[i]));
                fitter.add(&rows.select(&on), &placed).unwrap();
            }
            fitter.finish(FEWEST_PLATES).unwrap()
        };
        let means = fit([0, 1, 2]);
        prop_assert_eq!(&means, &fit([start, (start + 1) % 3, (start + 2) % 3]));
        let mut corrected = rows.clone();
        means.subtract(&mut corrected, &wells).unwrap();
        for position in 0..3 {
            for feature in 0..2 {
                let sum: f64 = (0..8).map(|p| f64::from(corrected.row(3 * p + position)[feature])).sum();
                prop_assert!(sum.abs() < 1e-4, "{sum}");
            }
        }
    }
}
