//! Signatures and scores against `buscar_signature.json` and `buscar_scores.csv` (plate P1, 128 features).

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/oracles.rs"]
mod files;

use std::fs;

use files::{Row, close, matrix, number, oracle, table};
use wellspring_workloads::compare::buscar::{BuscarError, Scorer, identify_signature};

const Q: f64 = 0.05;

/// Wells of plate P1 that `wanted` takes.
fn rows(wells: &[Row], values: &[Vec<f32>], wanted: impl Fn(&Row) -> bool) -> Vec<Vec<f32>> {
    wells
        .iter()
        .zip(values)
        .filter(|(well, _)| well["plate"] == "P1" && wanted(well))
        .map(|(_, values)| values.clone())
        .collect()
}

fn slices(rows: &[Vec<f32>]) -> Vec<&[f32]> {
    rows.iter().map(Vec::as_slice).collect()
}

#[test]
fn signature_and_scores_equal_buscar_signature_json_and_buscar_scores_csv() {
    let (Some(wells), Some(values), Some(path), Some(expected)) = (
        table("wells.csv"),
        matrix("efaar_tvn.npy"),
        oracle("buscar_signature.json"),
        table("buscar_scores.csv"),
    ) else {
        return;
    };
    let values: Vec<Vec<f32>> = values
        .iter()
        .map(|row| row.iter().map(|&v| v as f32).collect())
        .collect();
    let disease = rows(&wells, &values, |w| w["role"] == "disease" && w["state"] == "D1");
    let healthy = rows(&wells, &values, |w| w["role"] == "healthy");
    let (disease, healthy) = (slices(&disease), slices(&healthy));
    let signature = identify_signature(&disease, &healthy, Q).unwrap();

    let json: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let names = |key: &str| -> Vec<String> { serde_json::from_value(json[key].clone()).unwrap() };
    let numbers = |key: &str| -> Vec<f64> { serde_json::from_value(json[key].clone()).unwrap() };
    let named = |features: &[usize]| features.iter().map(|f| format!("f{f}")).collect::<Vec<_>>();
    assert_eq!(named(&signature.on), names("on"));
    assert_eq!(named(&signature.off), names("off"));
    for (ours, key) in [(&signature.p, "ks_p"), (&signature.q, "ks_q")] {
        for (ours, expected) in ours.iter().zip(numbers(key)) {
            close(*ours, expected, 1e-9, key);
        }
    }

    let scorer = Scorer::new(&signature, &disease, &healthy, Q, 0).unwrap();
    assert_eq!(expected.len(), 41);
    for row in &expected {
        let name = &row["perturbation"];
        let treated = rows(&wells, &values, |w| &w["compound"] == name);
        let rows = if name == "ctrl_D1" {
            disease.clone()
        } else {
            slices(&treated)
        };
        let score = scorer.score(&rows).unwrap();
        close(score.on.unwrap(), number(row, "on_buscar_scores"), 1e-6, name);
        close(score.off.unwrap(), number(row, "off_buscar_scores"), 1e-6, name);
        close(score.cost.unwrap(), number(row, "raw_emd_sqeuclid"), 1e-6, name);
    }
}

#[test]
fn few_rows_and_other_widths_are_named() {
    let (a, b) = (vec![vec![1.0f32, 2.0]; 5], vec![vec![3.0f32, 2.0]; 5]);
    let short = vec![vec![1.0f32]; 4];
    assert_eq!(
        identify_signature(&slices(&a[..2]), &slices(&b), Q),
        Err(BuscarError::FewRows {
            side: "the reference",
            found: 2
        })
    );
    assert_eq!(
        identify_signature(&slices(&a), &slices(&short), Q),
        Err(BuscarError::Width {
            expected: 2,
            found: 1
        })
    );
    let signature = identify_signature(&slices(&a), &slices(&b), Q).unwrap();
    let (reference, target) = (slices(&a), slices(&b));
    let scorer = Scorer::new(&signature, &reference, &target, Q, 0).unwrap();
    let too_few = scorer.score(&slices(&b[..2])).unwrap();
    assert_eq!((too_few.on, too_few.off, too_few.cost), (None, None, None));
    assert_eq!(scorer.score(&slices(&b)).unwrap().on, Some(0.0));
    assert!(scorer.score(&slices(&short)).is_err());
}

#[test]
fn large_sides_are_subsampled_by_the_seed() {
    let rows = |n: usize, shift: f32| -> Vec<Vec<f32>> {
        (0..n).map(|i| vec![(i * 37 % 101) as f32 + shift]).collect()
    };
    let (reference, target) = (rows(30, 60.0), rows(30, 0.0));
    let (reference, target) = (slices(&reference), slices(&target));
    let signature = identify_signature(&reference, &target, Q).unwrap();
    let many = rows(1200, 30.0);
    let of = |seed| {
        let scorer = Scorer::new(&signature, &reference, &target, Q, seed).unwrap();
        scorer.score(&slices(&many)).unwrap().on.unwrap()
    };
    assert_eq!(of(1).to_bits(), of(1).to_bits());
    assert!((of(1) - of(2)).abs() < 0.05, "{} {}", of(1), of(2));
}
