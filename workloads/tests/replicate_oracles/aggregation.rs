//! Sites to wells, wells to perturbations.

use std::collections::BTreeMap;

use wellspring_workloads::aggregate::sites::{Audit, EnoughSites, Site, wells};
use wellspring_workloads::aggregate::{Method, ModzSettings, aggregate};
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::words::Barcode;

use crate::files::{close, matrix, number, table};
use crate::screen::{aligned, features, group_name};

/// Values of `f32` files: rounding to `f32`, relative to 1 + |value|.
const ROUNDING: f64 = 1e-6;
/// MODZ weights are rounded to four decimals: one that falls on the other side of a half moves a sum by 1e-4.
const MODZ: f64 = 1e-4;

fn assert_rows(ours: &FeatureMatrix, name: &str, tolerance: f64) {
    let expected = matrix(name).unwrap();
    assert_eq!(ours.len(), expected.len(), "{name}");
    for (i, (ours, expected)) in ours.rows().zip(&expected).enumerate() {
        for (c, (&ours, &expected)) in ours.iter().zip(expected).enumerate() {
            close(
                f64::from(ours),
                expected,
                tolerance,
                &format!("{name} row {i} column {c}"),
            );
        }
    }
}

#[test]
fn wells_equal_agg_mean_and_agg_median() {
    let (Some(rows), Some(features)) = (table("sites.csv"), features("sites_embeddings.npy")) else {
        return;
    };
    let plate: Barcode = "P1".parse().unwrap();
    let sites: Vec<Site<'_>> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| Site {
            plate: &plate,
            well: row["well"].parse().unwrap(),
            site: row["site"].parse().unwrap(),
            failed: (row["qc_pass"] == "0").then_some("qc_pass is 0"),
            cell_count: Some(number(row, "site_cell_count")),
            values: features.row(i),
        })
        .collect();
    let expected = table("agg_wells.csv").unwrap();
    for (method, name) in [(Method::Mean, "agg_mean.npy"), (Method::Median, "agg_median.npy")] {
        let ours = wells(&sites, EnoughSites::ONE, method).unwrap();
        assert_rows(&ours.rows, name, ROUNDING);
        let names: Vec<String> = ours.wells.iter().map(|w| w.well.to_string()).collect();
        let wanted: Vec<String> = expected.iter().map(|row| row["well"].clone()).collect();
        assert_eq!(names, wanted, "agg_wells.csv");
        let missing = |a: &&Audit| {
            matches!(
                a,
                Audit::Well {
                    passed: 0,
                    sites: 4,
                    ..
                }
            )
        };
        assert_eq!(
            ours.audit.iter().filter(missing).count(),
            1,
            "96 wells in, 95 out"
        );
        let failed = rows.iter().filter(|row| row["qc_pass"] == "0").count();
        assert_eq!(ours.audit.len(), failed + 1, "every site left out is on record");
    }
}

#[test]
fn perturbations_equal_consensus_files() {
    let (Some(wells), Some(features)) = (table("wells.csv"), features("norm_mad_controls.npy")) else {
        return;
    };
    let mut of: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (i, row) in wells.iter().enumerate() {
        let chosen = ["C01", "C07", "C20"].contains(&row["compound"].as_str());
        if row["role"] == "treated" && chosen && number(row, "dose_um") == 10.0 {
            of.entry((row["state"].clone(), row["compound"].clone()))
                .or_default()
                .push(i);
        }
    }
    let expected = table("consensus_rows.csv").unwrap();
    let groups: Vec<Vec<usize>> = expected
        .iter()
        .map(|row| of[&(row["Metadata_state"].clone(), row["Metadata_compound"].clone())].clone())
        .collect();
    for (method, name, tolerance) in [
        (Method::Mean, "consensus_mean.npy", ROUNDING),
        (Method::Median, "consensus_median.npy", ROUNDING),
        (Method::Modz(ModzSettings::parity()), "consensus_modz.npy", MODZ),
    ] {
        assert_rows(
            &aggregate(&features, &groups, method).unwrap().rows,
            name,
            tolerance,
        );
    }
}

#[test]
fn perturbation_means_equal_agg_pert_mean() {
    let Some(screen) = aligned() else { return };
    let of = screen.groups(group_name);
    let groups: Vec<Vec<usize>> = table("agg_pert_rows.csv")
        .unwrap()
        .iter()
        .map(|row| of[&row["group"]].clone())
        .collect();
    let ours = aggregate(&screen.in_disease_frame, &groups, Method::Mean)
        .unwrap()
        .rows;
    assert_rows(&ours, "agg_pert_mean.npy", ROUNDING);
}
