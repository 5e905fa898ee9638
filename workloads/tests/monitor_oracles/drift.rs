//! The detectors of `workloads::monitor` against `drift_metrics.csv`, `drift_reference.json` and `drift_cov_lw.npy`.

use wellspring_workloads::compare::buscar::two_sample_p;
use wellspring_workloads::linalg::{fix_signs, symmetric_eigen};
use wellspring_workloads::monitor::{
    Between, Chart, Gaussian, TwoSamples, chi_squared_limit, cusum_limit, gamma_of, median_distance,
    stability_index, standing, width, within,
};
use wellspring_workloads::signature::vectors::{Vectors, cosines};

use crate::files::{Row, close, matrix, number, oracle, table};

/// Statistics agree to this, relative to 1 + their size (SCIENCE 9); the table holds ten digits.
const STATISTIC: f64 = 1e-8;
/// Permutations of the table's p-values, and of ours.
const PERMUTATIONS: u32 = 199;

struct Oracle {
    reference: Vec<Vec<f64>>,
    /// 10 plates of 32 wells.
    reference_plates: Vec<Vec<Vec<f64>>>,
    /// 20 plates of 32 wells.
    plates: Vec<Vec<Vec<f64>>>,
    metrics: Vec<Row>,
    facts: serde_json::Value,
}

fn load() -> Option<Oracle> {
    let (rows, wells) = (matrix("drift_controls.npy")?, table("drift_controls.csv")?);
    let metrics = table("drift_metrics.csv")?;
    let facts =
        serde_json::from_str(&std::fs::read_to_string(oracle("drift_reference.json")?).unwrap()).unwrap();
    let plates = |set: &str| -> Vec<Vec<Vec<f64>>> {
        let mut plates: std::collections::BTreeMap<usize, Vec<Vec<f64>>> = Default::default();
        for (row, well) in rows.iter().zip(&wells).filter(|(_, well)| well["set"] == set) {
            plates
                .entry(well["plate"].parse().unwrap())
                .or_default()
                .push(row.clone());
        }
        plates.into_values().collect()
    };
    let reference_plates = plates("ref");
    Some(Oracle {
        reference: reference_plates.iter().flatten().cloned().collect(),
        reference_plates,
        plates: plates("mon"),
        metrics,
        facts,
    })
}

fn views(rows: &[Vec<f64>]) -> Vec<&[f64]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let n = rows.len() as f64;
    (0..rows[0].len())
        .map(|j| rows.iter().map(|row| row[j]).sum::<f64>() / n)
        .collect()
}

fn fact(oracle: &Oracle, name: &str) -> f64 {
    oracle.facts[name].as_f64().unwrap()
}

#[test]
fn the_reference_agrees_with_drift_cov_lw_and_drift_reference_json() {
    let (Some(oracle), Some(covariance)) = (load(), matrix("drift_cov_lw.npy")) else {
        return;
    };
    let wells = Gaussian::fit(&views(&oracle.reference)).unwrap();
    close(
        wells.shrinkage(),
        fact(&oracle, "lw_shrinkage_within"),
        STATISTIC,
        "lw_shrinkage_within",
    );
    for (i, row) in covariance.iter().enumerate() {
        for (j, expected) in row.iter().enumerate() {
            close(wells.covariance()[(i, j)], *expected, STATISTIC, "drift_cov_lw");
        }
    }
    let means: Vec<Vec<f64>> = oracle.reference_plates.iter().map(|p| mean(p)).collect();
    let between = Between::fit(&views(&means)).unwrap();
    close(
        between.gaussian.shrinkage(),
        fact(&oracle, "lw_shrinkage_between"),
        STATISTIC,
        "lw_shrinkage_between",
    );
    let expected = oracle.facts["loo_T2_between"].as_array().unwrap();
    assert_eq!(expected.len(), between.leave_one_out.len());
    for (ours, expected) in between.leave_one_out.iter().zip(expected) {
        close(*ours, expected.as_f64().unwrap(), STATISTIC, "loo_T2_between");
    }
    close(
        between.limit,
        fact(&oracle, "loo_T2_max"),
        STATISTIC,
        "loo_T2_max",
    );
    close(
        chi_squared_limit(16, 0.001),
        fact(&oracle, "chi2_999"),
        1e-12,
        "chi2_999",
    );
    for (ours, expected) in wells
        .mean()
        .iter()
        .zip(oracle.facts["ref_mean"].as_array().unwrap())
    {
        close(*ours, expected.as_f64().unwrap(), STATISTIC, "ref_mean");
    }
}

#[test]
fn distances_and_means_agree_with_drift_metrics_csv() {
    let Some(oracle) = load() else { return };
    let wells = Gaussian::fit(&views(&oracle.reference)).unwrap();
    let means: Vec<Vec<f64>> = oracle.reference_plates.iter().map(|p| mean(p)).collect();
    let between = Between::fit(&views(&means)).unwrap();
    let limit = chi_squared_limit(16, 0.001);
    assert_eq!(oracle.plates.len(), 20);
    for (plate, expected) in oracle.plates.iter().zip(&oracle.metrics) {
        let distances: Vec<f64> = plate.iter().map(|row| wells.distance2(row)).collect();
        let n = distances.len() as f64;
        let largest = distances.iter().copied().fold(0.0, f64::max);
        let outliers = distances.iter().filter(|d| **d > limit).count() as f64 / n;
        let shift = within(&wells, &mean(plate), plate.len());
        for (ours, column) in [
            (distances.iter().sum::<f64>() / n, "mahal2_mean"),
            (largest, "mahal2_max"),
            (outliers, "frac_wells_over_chi2_999"),
            (shift.t2, "T2_within"),
            (between.t2(&mean(plate)), "T2_between_shrunk"),
        ] {
            close(ours, number(expected, column), STATISTIC, column);
        }
        let (p, wanted) = (shift.p_value.unwrap(), number(expected, "p_within"));
        // Small p-values are compared by their own size.
        assert!((p - wanted).abs() <= 1e-7 * wanted, "p_within: {p} {wanted}");
    }
}

#[test]
fn kernel_and_energy_statistics_agree_with_drift_metrics_csv() {
    let Some(oracle) = load() else { return };
    // The oracle compares with every fifth reference well.
    let sample: Vec<&[f64]> = oracle.reference.iter().step_by(5).map(Vec::as_slice).collect();
    let median = median_distance(&sample).unwrap();
    close(
        median,
        fact(&oracle, "median_distance"),
        STATISTIC,
        "median_distance",
    );
    let gamma = gamma_of(median).unwrap();
    close(gamma, fact(&oracle, "gamma"), STATISTIC, "gamma");
    for (plate, expected) in oracle.plates.iter().zip(&oracle.metrics) {
        let two = TwoSamples::new(&sample, &views(plate), gamma).unwrap();
        let ours = two.test(19_999, 7);
        close(ours.mmd2, number(expected, "mmd2u"), STATISTIC, "mmd2u");
        close(ours.energy, number(expected, "energy"), STATISTIC, "energy");
        // Theirs is a draw of 199 permutations, ours of a hundred times as many: only theirs has an error to speak of.
        let (p, peer) = (ours.p_mmd, number(expected, "mmd_p"));
        let draws = f64::from(PERMUTATIONS) + 1.0;
        let error = 4.0 * (p * (1.0 - p) / draws).sqrt() + 2.0 / draws;
        assert!((p - peer).abs() <= error, "mmd_p: ours {p}, reference {peer}");
    }
}

#[test]
fn components_and_charts_agree_with_drift_metrics_csv() {
    let Some(oracle) = load() else { return };
    let wells = Gaussian::fit(&views(&oracle.reference)).unwrap();
    let mut eigen = symmetric_eigen(wells.covariance().as_ref()).unwrap();
    fix_signs(&mut eigen.vectors);
    let component = |rows: &[Vec<f64>], j: usize| -> Vec<f64> {
        rows.iter()
            .map(|row| {
                row.iter()
                    .enumerate()
                    .map(|(i, x)| x * eigen.vectors[(i, j)])
                    .sum()
            })
            .collect()
    };
    for (plate, expected) in oracle.plates.iter().zip(&oracle.metrics) {
        for j in 0..4 {
            let psi = stability_index(&component(&oracle.reference, j), &component(plate, j)).unwrap();
            let column = format!("psi_pc{}", j + 1);
            close(psi, number(expected, &column), STATISTIC, &column);
        }
    }
    let mean_of = |rows: &[Vec<f64>]| component(rows, 0).iter().sum::<f64>() / rows.len() as f64;
    let reference: Vec<f64> = oracle.reference_plates.iter().map(|p| mean_of(p)).collect();
    let mut chart = Chart::default();
    for (plate, expected) in oracle.plates.iter().zip(&oracle.metrics) {
        let z = standing(&reference, mean_of(plate)).unwrap().z;
        chart.push(z);
        for (ours, column) in [
            (z, "z_pc1"),
            (chart.ewma, "ewma"),
            (chart.ewma_limit(1), "ewma_limit"),
            (chart.cusum_up, "cusum_pos"),
            (chart.cusum_down, "cusum_neg"),
        ] {
            close(ours, number(expected, column), STATISTIC, column);
        }
    }
}

/// Columns of the table that are no detector of ours: the samples that we compare are those of the table.
#[test]
fn distributions_spread_and_direction_agree_with_drift_metrics_csv() {
    let Some(oracle) = load() else { return };
    let wells = Gaussian::fit(&views(&oracle.reference)).unwrap();
    let mut eigen = symmetric_eigen(wells.covariance().as_ref()).unwrap();
    fix_signs(&mut eigen.vectors);
    let component = |rows: &[Vec<f64>], j: usize| -> Vec<f64> {
        let along = |row: &Vec<f64>| {
            row.iter()
                .enumerate()
                .map(|(i, x)| x * eigen.vectors[(i, j)])
                .sum()
        };
        rows.iter().map(along).collect()
    };
    // The trace of the covariance does not change with shrinkage; theirs divides by n - 1.
    let spread = |rows: &[Vec<f64>]| {
        let fitted = Gaussian::fit(&views(rows)).unwrap();
        let n = rows.len() as f64;
        (0..16).map(|i| fitted.covariance()[(i, i)]).sum::<f64>() * n / (n - 1.0)
    };
    let reference_mean = mean(&oracle.reference);
    for (plate, expected) in oracle.plates.iter().zip(&oracle.metrics) {
        for j in 0..4 {
            let p = two_sample_p(&component(&oracle.reference, j), &component(plate, j));
            let column = format!("ks_p_pc{}", j + 1);
            close(p, number(expected, &column), STATISTIC, &column);
        }
        close(
            spread(plate) / spread(&oracle.reference),
            number(expected, "var_ratio"),
            STATISTIC,
            "var_ratio",
        );
        let one = |row: &[f64]| {
            let mut one = Vectors::new(row.len());
            one.push(row).unwrap();
            one
        };
        let cosine = cosines(&one(&mean(plate)), &one(&reference_mean))[0];
        close(
            cosine,
            number(expected, "cos_to_ref_mean"),
            STATISTIC,
            "cos_to_ref_mean",
        );
    }
}

#[test]
fn many_charts_have_wider_limits_and_few_plates_lower_scores() {
    assert_eq!(width(1), 3.0);
    assert!((width(16) - 3.762).abs() < 1e-3, "{}", width(16));
    assert_eq!(cusum_limit(1), 5.0);
    assert!(cusum_limit(16) > 7.7 && cusum_limit(16) < 7.8);
    // Ten plates: a z of 3 is worth about 2.2; a thousand: about 3.
    let few: Vec<f64> = (0..10).map(f64::from).collect();
    let many: Vec<f64> = (0..1000).map(f64::from).collect();
    let three = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let sd = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)).sqrt();
        standing(values, mean + 3.0 * sd).unwrap()
    };
    let (few, many) = (three(&few), three(&many));
    assert!((few.z - 3.0).abs() < 1e-9 && (many.z - 3.0).abs() < 1e-9);
    assert!((few.score - 2.27).abs() < 0.1, "{few:?}");
    assert!((many.score - 3.0).abs() < 0.02, "{many:?}");
    assert_eq!(standing(&[1.0; 10], 2.0), None);
    assert_eq!(standing(&[1.0, 2.0], 2.0), None);
    let far = standing(&[1.0, 2.0, 3.0], -1e300).unwrap();
    assert!(far.score.is_finite() && far.score < -3.0, "{far:?}");
}
