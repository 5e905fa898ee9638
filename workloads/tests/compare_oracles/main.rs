//! The comparison against reference outputs in `../shared/oracles` (columns and tolerances are in its README).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "../common/oracles.rs"]
mod files;
mod frames;

use std::collections::HashMap;
use std::fs;

use files::{Row, aligned, close, matrix, number, oracle, own_disease, screen, table};
use wellspring_workloads::compare::axis::{self, ControlScores, mean, position, score_controls};
use wellspring_workloads::compare::curve::fit_hill;
use wellspring_workloads::compare::multiple::benjamini_hochberg;
use wellspring_workloads::compare::null::{self, Plan, Pool, p_at_least};
use wellspring_workloads::compare::scale::Scaler;
use wellspring_workloads::compare::window::{
    WindowVerdict, coefficient_of_variation, median_and_mad, robust_separation, separation,
    signal_to_background, signal_to_noise,
};
use wellspring_workloads::compare::{
    Call, Comparison, ComparisonSettings, Normalise, ScreenComparison, compare,
};

fn compared() -> Option<ScreenComparison> {
    Some(compare(&screen("efaar_tvn.npy")?, &aligned()).unwrap())
}

#[test]
fn well_scores_equal_rescue_wells_csv() {
    let (Some(result), Some(wells), Some(expected)) =
        (compared(), table("wells.csv"), table("rescue_wells.csv"))
    else {
        return;
    };
    let ours: HashMap<(String, String), _> = result
        .wells
        .iter()
        .map(|w| ((w.plate.to_string(), w.well.to_string()), w))
        .collect();
    assert_eq!(expected.len(), result.wells.len());
    for row in &expected {
        let id: usize = row["row_id"].parse().unwrap();
        let well = ours[&(row["plate"].clone(), wells[id]["well"].clone())];
        let at = axis::Position {
            on_axis: well.on_axis.unwrap(),
            off_axis: well.off_axis,
        };
        close(
            well.on_axis.unwrap(),
            number(row, "on_disease"),
            1e-6,
            "on_disease",
        );
        close(well.rescue.unwrap(), number(row, "rescue"), 1e-6, "rescue");
        close(well.off_axis, number(row, "off_axis"), 1e-6, "off_axis");
        close(
            at.distance(),
            number(row, "dist_to_healthy"),
            1e-6,
            "dist_to_healthy",
        );
        close(at.effect_length(), number(row, "effect_len"), 1e-6, "effect_len");
        close(
            at.cos_to_rescue().unwrap(),
            number(row, "cos_to_rescue"),
            1e-6,
            "cos_to_rescue",
        );
        close(well.off_z.unwrap(), number(row, "off_axis_z"), 1e-6, "off_axis_z");
        close(
            well.cell_ratio.unwrap(),
            number(row, "cell_ratio"),
            1e-6,
            "cell_ratio",
        );
        assert!(well.leave_one_out);
    }
    // rescue_z: rescue against the plate's disease wells.
    for plate in ["P1", "P2", "P6"] {
        let of = |role: &str| {
            expected
                .iter()
                .filter(|r| r["plate"] == plate && r["role"] == role)
                .collect::<Vec<_>>()
        };
        let disease: Vec<f64> = of("disease").iter().map(|r| number(r, "rescue")).collect();
        let (median, mad) = median_and_mad(&disease).unwrap();
        for row in of("treated") {
            close(
                (number(row, "rescue") - median) / mad,
                number(row, "rescue_z"),
                1e-6,
                "rescue_z",
            );
        }
    }
}

fn same_treatment(ours: &Comparison, row: &Row) -> bool {
    ours.disease.as_deref() == Some(&row["disease"])
        && ours.compound.as_deref() == Some(&row["compound"])
        && ours.dose == Some(number(row, "dose_um"))
}

#[test]
fn group_scores_and_p_values_equal_rescue_groups_csv() {
    let (Some(result), Some(expected)) = (compared(), table("rescue_groups.csv")) else {
        return;
    };
    let mut p = Vec::new();
    for row in &expected {
        let ours = result.rows.iter().find(|ours| same_treatment(ours, row)).unwrap();
        assert_eq!(ours.n_wells as f64, number(row, "n"));
        close(ours.rescue.unwrap(), number(row, "rescue"), 1e-6, "rescue");
        close(ours.off_axis, number(row, "off_axis_vec"), 1e-6, "off_axis_vec");
        close(
            ours.cell_ratio.unwrap(),
            number(row, "cell_ratio"),
            1e-6,
            "cell_ratio",
        );
        // 48 x 48 exact combinations: equal to the digits of the file.
        close(ours.p_value.unwrap(), number(row, "p_rescue"), 1e-9, "p_rescue");
        p.push(ours.p_value);
    }
    // The reference corrects over the whole screen, `compare` within a disease (SCIENCE 6.5).
    for (q, row) in benjamini_hochberg(&p).into_iter().zip(&expected) {
        close(q.unwrap(), number(row, "q_rescue"), 1e-8, "q_rescue");
    }
}

/// Axis, controls and row numbers of a plate of the oracle screen.
fn plate_controls(wells: &[Row], rows: &[Vec<f64>], plate: &str) -> (ControlScores, Vec<usize>) {
    let of = |role: &str, state: &str| -> Vec<usize> {
        (0..wells.len())
            .filter(|&i| wells[i]["plate"] == plate && wells[i]["role"] == role && wells[i]["state"] == state)
            .collect()
    };
    let (reference, phenotype) = (of("healthy", "healthy"), of("disease", own_disease(plate)));
    let slices = |side: &[usize]| side.iter().map(|&i| rows[i].as_slice()).collect::<Vec<_>>();
    (
        score_controls(&slices(&reference), &slices(&phenotype), axis::Centres::default()).unwrap(),
        phenotype,
    )
}

#[test]
fn mean_vectors_equal_the_vector_columns_of_rescue_groups_csv() {
    let (Some(wells), Some(rows), Some(expected)) = (
        table("wells.csv"),
        matrix("efaar_tvn.npy"),
        table("rescue_groups.csv"),
    ) else {
        return;
    };
    let plates: HashMap<&str, ControlScores> = ["P1", "P2", "P3", "P4", "P5", "P6"]
        .map(|p| (p, plate_controls(&wells, &rows, p).0))
        .into();
    for row in expected.iter().step_by(7) {
        let members: Vec<usize> = (0..wells.len())
            .filter(|&i| {
                let w = &wells[i];
                w["role"] == "treated"
                    && w["state"] == row["disease"]
                    && w["compound"] == row["compound"]
                    && number(w, "dose_um") == number(row, "dose_um")
            })
            .collect();
        let axes: Vec<_> = members
            .iter()
            .map(|&i| &plates[wells[i]["plate"].as_str()].axis)
            .collect();
        let scaled: Vec<Vec<f64>> = members
            .iter()
            .zip(&axes)
            .map(|(&i, axis)| axis.scaled(&rows[i]))
            .collect();
        let unit = null::common_unit(axes.iter().map(|axis| (1, axis.unit()))).unwrap();
        let at = position(
            &mean(&scaled.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap(),
            &unit,
        );
        close(at.rescue(), number(row, "rescue_vec"), 1e-6, "rescue_vec");
        close(at.off_axis, number(row, "off_axis_vec"), 1e-6, "off_axis_vec");
    }
}

#[test]
fn off_axis_p_values_against_mean_z_equal_rescue_groups_csv() {
    // The reference's p_off tests the mean of the wells' z; `compare` tests the mean vector. Same null machinery.
    let (Some(wells), Some(expected)) = (table("rescue_wells.csv"), table("rescue_groups.csv")) else {
        return;
    };
    for (disease, plates) in [("D1", ["P1", "P4"]), ("D3", ["P3", "P6"])] {
        let z: Vec<Vec<f64>> = plates
            .map(|p| {
                let controls = wells.iter().filter(|r| r["plate"] == p && r["role"] == "disease");
                controls.map(|r| number(r, "off_axis_z")).collect()
            })
            .into();
        let empty: Vec<&[f64]> = vec![&[0.0]; 48];
        let pool = |z| Pool {
            effects: z,
            scaled: &empty,
            unit: &[1.0],
            wells: 1,
        };
        let plan = Plan {
            exact_combinations: 100_000,
            draws: 1,
            seed: 0,
        };
        let null = null::build(&[pool(&z[0]), pool(&z[1])], plan).unwrap();
        assert!(null.exact);
        assert_eq!(null.effects.len(), 48 * 48);
        for row in expected.iter().filter(|r| r["disease"] == disease) {
            close(
                p_at_least(&null.effects, number(row, "off_axis_z")),
                number(row, "p_off"),
                1e-9,
                "p_off",
            );
        }
    }
}

/// The covariance of a fold is inverted: the oracle's README allows 1e-5.
const MULTIVARIATE: f64 = 1e-5;

#[test]
fn windows_equal_assay_window_csv_and_its_toy() {
    let (Some(result), Some(expected)) = (compared(), table("assay_window.csv")) else {
        return;
    };
    assert_eq!(result.windows.len(), expected.len());
    for (ours, row) in result.windows.iter().zip(&expected) {
        assert_eq!(ours.plate.as_str(), row["plate"]);
        close(
            ours.z_prime.unwrap(),
            number(row, "zprime_loo"),
            1e-6,
            "zprime_loo",
        );
        close(ours.ssmd.unwrap(), number(row, "ssmd_loo"), 1e-6, "ssmd_loo");
        close(
            ours.robust_z_prime.unwrap(),
            number(row, "robust_zprime_loo"),
            1e-6,
            "robust_zprime_loo",
        );
        close(
            ours.robust_ssmd.unwrap(),
            number(row, "robust_ssmd_loo"),
            1e-6,
            "robust_ssmd_loo",
        );
        close(ours.axis_length, number(row, "disease_len"), 1e-6, "disease_len");
        let multivariate = [
            (ours.multivariate_z_prime, "zprime_lda_cv5"),
            (ours.multivariate_ssmd, "ssmd_lda_cv5"),
            (ours.multivariate_robust_z_prime, "robust_zprime_lda_cv5"),
        ];
        for (ours, column) in multivariate {
            close(ours.unwrap(), number(row, column), MULTIVARIATE, column);
        }
        close(ours.auc.unwrap(), number(row, "auc_loo"), 1e-6, "auc_loo");
        let robust = ours.robust_z_prime.unwrap();
        let expected = if robust >= 0.3 {
            WindowVerdict::Pass
        } else {
            WindowVerdict::Warn
        };
        assert_eq!(ours.verdict, expected, "{robust}");
    }
    let toy: serde_json::Value =
        serde_json::from_slice(&fs::read(oracle("assay_window_toy.json").unwrap()).unwrap()).unwrap();
    let list = |key: &str| -> Vec<f64> { serde_json::from_value(toy[key].clone()).unwrap() };
    let plain = separation(&list("pos"), &list("neg"));
    let robust = robust_separation(&list("pos"), &list("neg"));
    let ours = [plain.z_prime, plain.ssmd, robust.z_prime, robust.ssmd];
    for (ours, key) in ours
        .into_iter()
        .zip(["zprime", "ssmd", "robust_zprime", "robust_ssmd"])
    {
        close(ours.unwrap(), toy[key].as_f64().unwrap(), 1e-12, key);
    }
    let others = [
        (signal_to_background(&list("pos"), &list("neg")), "sb"),
        (signal_to_noise(&list("pos"), &list("neg")), "sn"),
        (coefficient_of_variation(&list("pos")), "cv_pos"),
    ];
    for (ours, key) in others {
        close(ours.unwrap(), toy[key].as_f64().unwrap(), 1e-12, key);
    }
}

#[test]
fn q_values_equal_bh_example_json() {
    let Some(path) = oracle("bh_example.json") else {
        return;
    };
    let example: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let list = |key: &str| -> Vec<f64> { serde_json::from_value(example[key].clone()).unwrap() };
    let mut p: Vec<Option<f64>> = list("p").into_iter().map(Some).collect();
    // Undefined values in between neither get a q nor count.
    p.insert(3, None);
    p.insert(10, Some(f64::NAN));
    let mut q = benjamini_hochberg(&p);
    assert_eq!(q.remove(10), None);
    assert_eq!(q.remove(3), None);
    for (q, expected) in q.into_iter().zip(list("q_bh")) {
        close(q.unwrap(), expected, 1e-12, "q_bh");
    }
}

/// SCIENCE 9: parameters are comparable where the fit is inside its bounds and the EC50 is determined.
const PARAMETERS: f64 = 0.01;
/// The standard error moves with the parameters, and most with the slope.
const STANDARD_ERROR: f64 = 0.02;

#[test]
fn hill_fits_are_as_good_as_hill_fits_csv() {
    let (Some(wells), Some(expected)) = (table("rescue_wells.csv"), table("hill_fits.csv")) else {
        return;
    };
    let mut compared_parameters = 0;
    for row in &expected {
        let points: Vec<(f64, f64)> = wells
            .iter()
            .filter(|w| {
                w["role"] == "treated" && w["disease"] == row["disease"] && w["compound"] == row["compound"]
            })
            .map(|w| (number(w, "dose_um"), number(w, "rescue")))
            .collect();
        let what = format!("{} {}", row["disease"], row["compound"]);
        let fit = fit_hill(&points, false).unwrap();
        assert!(
            fit.sse <= number(row, "sse") * (1.0 + 1e-4) + 1e-9,
            "{what}: {} {}",
            fit.sse,
            row["sse"]
        );
        if row["at_bound"] == "0" && number(row, "se_log10_ec50") < 0.5 && number(row, "r2") > 0.5 {
            close(fit.top, number(row, "top"), PARAMETERS, &what);
            close(fit.log10_ec50, number(row, "log10_ec50"), PARAMETERS, &what);
            close(fit.hill, number(row, "hill"), PARAMETERS, &what);
            let error = fit.log10_ec50_se.unwrap();
            close(error, number(row, "se_log10_ec50"), STANDARD_ERROR, &what);
            compared_parameters += 1;
        }
        let free = number(row, "sse4");
        if free.is_finite() {
            let fit = fit_hill(&points, true).unwrap();
            assert!(
                fit.sse <= free * (1.0 + 1e-4) + 1e-9,
                "{what} free bottom: {} {free}",
                fit.sse
            );
        }
    }
    assert!(compared_parameters >= 4, "{compared_parameters}");
}

#[test]
fn hill_fits_are_as_good_as_hill_toy_json() {
    let Some(path) = oracle("hill_toy.json") else {
        return;
    };
    let curves: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for curve in curves {
        let list = |key: &str| -> Vec<f64> { serde_json::from_value(curve[key].clone()).unwrap() };
        let points: Vec<(f64, f64)> = list("dose").into_iter().zip(list("y")).collect();
        let fit = fit_hill(&points, true).unwrap();
        let sse = curve["fit"]["sse"].as_f64().unwrap();
        assert!(
            fit.sse <= sse * (1.0 + 1e-4) + 1e-9,
            "{}: {} {sse}",
            curve["curve"],
            fit.sse
        );
    }
}

fn as_f32(rows: &[Vec<f64>]) -> Vec<Vec<f32>> {
    rows.iter()
        .map(|row| row.iter().map(|&v| v as f32).collect())
        .collect()
}

#[test]
fn scaling_equals_norm_mad_controls_norm_mad_all_and_norm_standardize_controls() {
    let (Some(wells), Some(raw), Some(mad), Some(all), Some(standard), Some(centre), Some(scale)) = (
        table("wells.csv"),
        matrix("embeddings_raw.npy"),
        matrix("norm_mad_controls.npy"),
        matrix("norm_mad_all_head64.npy"),
        matrix("norm_standardize_controls_head64.npy"),
        matrix("norm_mad_center_per_plate.npy"),
        matrix("norm_mad_scale_per_plate.npy"),
    ) else {
        return;
    };
    let raw = as_f32(&raw);
    for (number, plate) in ["P1", "P2", "P3", "P4", "P5", "P6"].into_iter().enumerate() {
        let rows: Vec<usize> = (0..wells.len()).filter(|&i| wells[i]["plate"] == plate).collect();
        let healthy: Vec<&[f32]> = rows
            .iter()
            .filter(|&&i| wells[i]["role"] == "healthy")
            .map(|&i| raw[i].as_slice())
            .collect();
        let robust = Scaler::robust(&healthy);
        assert!(robust.flat_columns.is_empty());
        for column in 0..robust.centre.len() {
            close(
                robust.centre[column],
                centre[number][column],
                1e-12,
                "norm_mad_center_per_plate",
            );
            close(
                robust.scale[column],
                scale[number][column],
                1e-12,
                "norm_mad_scale_per_plate",
            );
        }
        let standardise = Scaler::standardise(&healthy);
        let on_all: Vec<&[f32]> = rows.iter().map(|&i| raw[i].as_slice()).collect();
        let on_all = Scaler::robust(&on_all);
        for &i in &rows {
            if let Some(expected) = all.get(i) {
                for (ours, expected) in on_all.apply(&raw[i]).iter().zip(expected) {
                    close(*ours, *expected, 1e-6, "norm_mad_all_head64");
                }
            }
            for (ours, expected) in robust.apply(&raw[i]).iter().zip(&mad[i]) {
                close(*ours, *expected, 1e-6, "norm_mad_controls");
            }
            if let Some(expected) = standard.get(i) {
                for (ours, expected) in standardise.apply(&raw[i]).iter().zip(expected) {
                    close(*ours, *expected, 1e-6, "norm_standardize_controls_head64");
                }
            }
        }
    }
}

#[test]
fn constant_flat_and_nan_columns_equal_edge_norm_csv() {
    let (Some(input), Some(mad), Some(standard)) = (
        table("edge_norm_input.csv"),
        table("edge_norm_mad.csv"),
        table("edge_norm_standardize.csv"),
    ) else {
        return;
    };
    let columns = ["f_ok", "f_const", "f_mad0", "f_nan"];
    let rows: Vec<Vec<f32>> = input
        .iter()
        .map(|r| columns.map(|c| number(r, c) as f32).to_vec())
        .collect();
    let controls: Vec<&[f32]> = rows
        .iter()
        .zip(&input)
        .filter(|(_, r)| r["Metadata_g"] == "c")
        .map(|(v, _)| v.as_slice())
        .collect();
    let parity = Scaler::robust(&controls).with_epsilon(1e-18);
    let standardise = Scaler::standardise(&controls);
    for (i, row) in rows.iter().enumerate() {
        for (scaler, expected) in [(&parity, &mad[i]), (&standardise, &standard[i])] {
            for (ours, column) in scaler.apply(row).into_iter().zip(columns) {
                let expected = number(expected, column);
                assert_eq!(ours.is_nan(), expected.is_nan(), "{column}");
                if !ours.is_nan() {
                    close(ours, expected, 1e-9, column);
                }
            }
        }
    }
    // The product never lets the flat columns grow: without another plate they are dropped.
    let mut product = Scaler::robust(&controls);
    assert_eq!(product.flat_columns, [1, 2]);
    product.repair(&[]);
    assert!(
        rows.iter()
            .flat_map(|row| product.apply(row))
            .all(|v| v.is_nan() || v.abs() < 1e3)
    );
}

#[test]
fn calls_equal_hit_calls_csv() {
    let (Some(result), Some(expected)) = (compared(), table("hit_calls.csv")) else {
        return;
    };
    for row in &expected {
        let what = format!("{} {}", row["disease"], row["compound"]);
        let ours = result
            .compounds
            .iter()
            .find(|c| {
                c.disease.as_deref() == Some(&row["disease"])
                    && c.compound.as_deref() == Some(&row["compound"])
            })
            .unwrap();
        assert_eq!(
            ours.call == Call::RescueHit,
            row["hit"] == "True",
            "{what} {ours:?}"
        );
        assert_eq!(
            ours.call == Call::Toxic,
            row["toxic"] == "True",
            "{what} {ours:?}"
        );
        if row["hit"] == "True" {
            close(ours.top, number(row, "top_at_max"), 0.01, &what);
            assert!(ours.rank <= 2, "{what} is rank {}", ours.rank);
        }
    }
    let count = |call| result.compounds.iter().filter(|c| c.call == call).count();
    assert_eq!((count(Call::RescueHit), count(Call::Toxic)), (6, 9));
}

#[test]
fn raw_profiles_scaled_per_plate_give_the_same_hits_and_toxic_pairs() {
    let (Some(profiles), Some(expected)) = (screen("embeddings_raw.npy"), table("hit_calls.csv")) else {
        return;
    };
    for normalise in [Normalise::Standardise, Normalise::RobustMad] {
        let settings = ComparisonSettings {
            normalise,
            ..ComparisonSettings::default()
        };
        let result = compare(&profiles, &settings).unwrap();
        let found = |call: Call| -> Vec<(String, String)> {
            let mut pairs: Vec<_> = result
                .compounds
                .iter()
                .filter(|c| c.call == call)
                .map(|c| (c.disease.clone().unwrap(), c.compound.clone().unwrap()))
                .collect();
            pairs.sort();
            pairs
        };
        let truth = |column: &str| -> Vec<(String, String)> {
            expected
                .iter()
                .filter(|r| r[column] == "True")
                .map(|r| (r["disease"].clone(), r["compound"].clone()))
                .collect()
        };
        assert_eq!(found(Call::RescueHit), truth("hit"), "{normalise:?}");
        assert_eq!(found(Call::Toxic), truth("toxic"), "{normalise:?}");
    }
}
