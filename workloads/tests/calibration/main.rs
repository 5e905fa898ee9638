//! Screens with known answers: the settings that a screen gets unasked must call every compound right, on seeds and
//! effect sizes other than those of the oracle. `examples/calibration.rs` measures the same over many more.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "../common/oracles.rs"]
mod files;
mod generator;

use generator::{Design, Screen, Truth, screen};
use wellspring_workloads::compare::{Call, ComparisonSettings, compare};
use wellspring_workloads::profile::{Role, WellProfile};

#[track_caller]
fn every_call_is_right(design: Design) {
    let Screen { profiles, truth, .. } = screen(&design);
    let result = compare(&profiles, &ComparisonSettings::default()).unwrap();
    assert_eq!(result.compounds.len(), 120, "40 compounds on 3 diseases");
    let mut wrong = Vec::new();
    for compound in &result.compounds {
        let pair = (
            compound.disease.clone().unwrap(),
            compound.compound.clone().unwrap(),
        );
        let is_right = match truth[&pair] {
            Truth::Rescue { .. } => compound.call == Call::RescueHit,
            Truth::Toxic => compound.call == Call::Toxic,
            Truth::Inactive => !matches!(compound.call, Call::RescueHit | Call::Toxic),
        };
        if !is_right {
            wrong.push((pair, compound.call, compound.top));
        }
    }
    assert!(wrong.is_empty(), "{design:?}: {wrong:?}");
}

#[test]
fn screens_like_the_oracle_are_called_right() {
    for seed in [1, 2, 3] {
        every_call_is_right(Design::like_the_oracle(seed));
    }
}

#[test]
fn screens_of_weaker_and_stronger_diseases_are_called_right() {
    for disease in [0.75, 1.5] {
        every_call_is_right(Design {
            disease,
            ..Design::like_the_oracle(4)
        });
    }
}

#[test]
fn screens_with_debris_in_treated_wells_are_called_right() {
    every_call_is_right(Design {
        treated_outliers: 12,
        ..Design::like_the_oracle(5)
    });
}

/// Norm of the spread of healthy wells, distances of the diseases from healthy, and norm of the difference of two
/// plates' healthy means, on plates P1 and P2.
fn sizes(profiles: &[WellProfile]) -> [f64; 4] {
    let wells = |plate: &str, role: Role| -> Vec<&[f32]> {
        profiles
            .iter()
            .filter(|p| p.plate.as_str() == plate && p.treatment.role == role)
            .map(|p| p.values.as_slice())
            .collect()
    };
    // Medians: the screens hold gross outliers.
    let centre = |rows: &[&[f32]]| -> Vec<f64> {
        (0..rows[0].len())
            .map(|column| {
                let mut values: Vec<f32> = rows.iter().map(|row| row[column]).collect();
                values.sort_by(f32::total_cmp);
                f64::from(values[values.len() / 2])
            })
            .collect()
    };
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let own = |plate: &str, disease: &str| {
        let of_disease: Vec<WellProfile> = profiles
            .iter()
            .filter(|p| p.treatment.disease.as_deref() == Some(disease))
            .cloned()
            .collect();
        let rows: Vec<&[f32]> = of_disease
            .iter()
            .filter(|p| p.plate.as_str() == plate && p.treatment.role == Role::Phenotype)
            .map(|p| p.values.as_slice())
            .collect();
        centre(&rows)
    };
    let healthy = [
        centre(&wells("P1", Role::Reference)),
        centre(&wells("P2", Role::Reference)),
    ];
    let mut noise: Vec<f64> = wells("P1", Role::Reference)
        .iter()
        .map(|row| {
            let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
            distance(&row, &healthy[0])
        })
        .collect();
    noise.sort_by(f64::total_cmp);
    [
        noise[noise.len() / 2],
        distance(&own("P1", "D1"), &healthy[0]),
        distance(&own("P2", "D2"), &healthy[1]),
        distance(&healthy[0], &healthy[1]),
    ]
}

/// Between one screen and another of the same kind these differ by a few percent.
const ALIKE: f64 = 0.2;

#[test]
fn sizes_are_those_of_embeddings_raw_npy() {
    let Some(oracle) = files::screen("embeddings_raw.npy") else {
        return;
    };
    let ours = sizes(&screen(&Design::like_the_oracle(1)).profiles);
    for (ours, oracle) in ours.iter().zip(sizes(&oracle)) {
        assert!((ours / oracle - 1.0).abs() < ALIKE, "{ours} {oracle}");
    }
}
