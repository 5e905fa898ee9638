//! Percent replicating, grit, consistency, energy distance, mp-value.

use std::collections::BTreeMap;

use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::replicate::consistency::{Counting, consistency};
use wellspring_workloads::replicate::correlation::{
    ReplicatingError, ReplicatingSettings, percent_replicating,
};
use wellspring_workloads::replicate::energy::{EnergyError, EnergySettings, energy_distance, energy_test};
use wellspring_workloads::replicate::grit::{GritError, GritPlace, grit};
use wellspring_workloads::replicate::mp_value::{MpSettings, mp_value};

use crate::files::{close, number, oracle, table};
use crate::screen::{Screen, aligned, group_name};

/// Values written with ten digits, from features rounded to `f32`.
const ROUNDING: f64 = 1e-6;

fn numbered(screen: &Screen) -> (Vec<String>, Vec<Vec<usize>>) {
    screen.groups(group_name).into_iter().unzip()
}

#[test]
fn correlations_equal_percent_replicating_groups() {
    let Some(screen) = aligned() else { return };
    let (names, groups) = numbered(&screen);
    let mut group = vec![None; screen.wells.len()];
    for (g, rows) in groups.iter().enumerate() {
        rows.iter().for_each(|&row| group[row] = Some(g));
    }
    let ours = percent_replicating(&screen.in_disease_frame, &group, ReplicatingSettings::default()).unwrap();
    let expected = table("percent_replicating_groups.csv").unwrap();
    assert_eq!(ours.groups.len(), expected.len());
    let by_name: BTreeMap<&str, _> = ours.groups.iter().map(|g| (names[g.group].as_str(), g)).collect();
    for row in &expected {
        let ours = by_name[row["group"].as_str()];
        close(
            ours.median_correlation,
            number(row, "median_corr"),
            ROUNDING,
            &row["group"],
        );
        assert_eq!(f64::from(ours.pairs), number(row, "n_pairs"));
    }
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(oracle("percent_replicating.json").unwrap()).unwrap()).unwrap();
    let expected = |key: &str| summary[key].as_f64().unwrap();
    assert_eq!(ours.null.len() as f64, expected("n_null"));
    assert!(
        (ours.threshold - expected("threshold_95")).abs() < 0.03,
        "{}",
        ours.threshold
    );
    let above = |threshold: f64| {
        let n = ours
            .groups
            .iter()
            .filter(|g| g.median_correlation > threshold)
            .count();
        n as f64 / ours.groups.len() as f64
    };
    close(
        above(expected("threshold_95")),
        expected("percent_right"),
        1e-12,
        "share at its threshold",
    );
    assert_eq!(ours.share, above(ours.threshold));
}

#[test]
fn grit_equals_grit_p1() {
    let Some(screen) = aligned() else { return };
    let expected = table("grit_P1.csv").unwrap();
    let mut compounds: BTreeMap<&str, usize> = BTreeMap::new();
    let places: Vec<GritPlace> = (0..screen.wells.len())
        .map(|row| {
            let next = compounds.len();
            match screen.plates[row] {
                0 if screen.untreated[row] => GritPlace::Control,
                0 if screen.treated(row) => GritPlace::Perturbation {
                    perturbation: row,
                    group: *compounds
                        .entry(screen.wells[row]["compound"].as_str())
                        .or_insert(next),
                },
                _ => GritPlace::Unused,
            }
        })
        .collect();
    let ours = grit(&screen.in_disease_frame, &places).unwrap();
    assert_eq!(ours.len(), expected.len());
    for row in &expected {
        let id: usize = row["row_id"].parse().unwrap();
        let ours = ours.iter().find(|g| g.perturbation == id).unwrap();
        close(
            ours.grit.unwrap(),
            number(row, "grit"),
            ROUNDING,
            &format!("grit of row {id}"),
        );
    }
}

#[test]
fn consistency_equals_efaar_consistency() {
    let Some(screen) = aligned() else { return };
    let (names, groups) = numbered(&screen);
    let inactive = |name: &str| name.split('_').nth(1).unwrap() >= "C20";
    let null: Vec<usize> = (0..names.len()).filter(|&g| inactive(&names[g])).collect();
    let ours = consistency(&screen.in_disease_frame, &groups, &null, Counting::Efaar);
    let mut means: Vec<f64> = null.iter().map(|&g| ours[g].unwrap().mean_cosine).collect();
    means.sort_unstable_by(f64::total_cmp);
    let expected: Vec<f64> = matrix_column("efaar_consistency_null.npy");
    assert_eq!(means.len(), expected.len());
    for (ours, expected) in means.iter().zip(expected) {
        close(*ours, expected, ROUNDING, "efaar_consistency_null.npy");
    }
    let expected = table("efaar_consistency.csv").unwrap();
    for row in &expected {
        let g = names.iter().position(|name| *name == row["group"]).unwrap();
        let ours = ours[g].unwrap();
        close(
            ours.mean_cosine,
            number(row, "avg_cosine"),
            ROUNDING,
            &row["group"],
        );
        close(
            ours.p_value.unwrap(),
            number(row, "p_value"),
            ROUNDING,
            &row["group"],
        );
    }
    let product = consistency(&screen.in_disease_frame, &groups, &null, Counting::PlusOne);
    assert!(
        product.iter().flatten().all(|c| c.p_value.unwrap() > 0.0),
        "never 0"
    );
}

/// A one-dimensional file.
fn matrix_column(name: &str) -> Vec<f64> {
    let bytes = std::fs::read(oracle(name).unwrap()).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values = bytes[start..].chunks_exact(8);
    values
        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn distances_equal_energy_distance() {
    let Some(screen) = aligned() else { return };
    let groups = screen.groups(|row| format!("{},{}", row["state"], row["compound"]));
    let mut called = Vec::new();
    for row in table("energy_distance.csv").unwrap() {
        let name = format!("{},{}", row["state"], row["compound"]);
        let members = &groups[&name];
        let plates: Vec<usize> = members.iter().map(|&i| screen.plates[i]).collect();
        let controls: Vec<usize> = (0..screen.wells.len())
            .filter(|&i| screen.untreated[i] && plates.contains(&screen.plates[i]))
            .collect();
        let replicates = screen.in_disease_frame.select(members);
        let controls = screen.in_disease_frame.select(&controls);
        let ours = energy_distance(&replicates, &controls).unwrap();
        close(ours, number(&row, "energy_distance"), ROUNDING, &name);
        if row["compound"] == "C07" || row["compound"] == "C30" {
            let settings = EnergySettings {
                permutations: 199,
                ..EnergySettings::default()
            };
            let test = energy_test(&replicates, &controls, settings).unwrap();
            assert!((test.distance, test.exact) == (ours, false));
            called.push((name, test.p_value));
        }
    }
    for (name, p) in called {
        assert_eq!(
            p <= 0.005,
            name.contains("C07"),
            "C07 is toxic, C30 does nothing: {name} {p}"
        );
    }
}

#[test]
fn energy_of_few_rows_lists_every_division_and_says_what_is_wrong() {
    let ladder = |from: f32, n: u16| {
        let values = (0..n).map(|i| from + f32::from(i)).collect();
        FeatureMatrix::from_values(1, values).unwrap()
    };
    let test = energy_test(&ladder(100.0, 5), &ladder(0.0, 5), EnergySettings::default()).unwrap();
    assert!(test.exact);
    // Of the 252 divisions only this one and its mirror image separate the two.
    assert!((test.p_value - 2.0 / 252.0).abs() < 1e-15, "{test:?}");
    let same = energy_test(&ladder(0.0, 5), &ladder(0.0, 5), EnergySettings::default()).unwrap();
    assert!(same.distance.abs() < 1e-12 && same.p_value == 1.0, "{same:?}");
    let few = energy_distance(&ladder(0.0, 4), &ladder(0.0, 5)).unwrap_err();
    assert_eq!(few, EnergyError::TooFewReplicates { found: 4 });
    let mut broken = ladder(0.0, 5);
    broken.row_mut(3)[0] = f32::NAN;
    let error = energy_distance(&ladder(0.0, 5), &broken).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("control row 3 has NaN in feature column 0"),
        "{error}"
    );
}

#[test]
fn mp_values_rest_on_the_distance_that_scikit_learn_gives() {
    // Mahalanobis distances of these rows by scikit-learn, in the steps of cytominer-eval 0.1's `calculate_mp_value`.
    let value = |i: usize, j: usize| ((i * 37 + j * 53 + i * i * j * 11) % 101) as f32 / 10.0;
    let row = |i: usize| {
        (0..5)
            .map(|j| value(i, j) + if i < 3 { 4.0 } else { 0.0 })
            .collect::<Vec<_>>()
    };
    let rows = |range: std::ops::Range<usize>| {
        let rows: Vec<Vec<f32>> = range.map(row).collect();
        FeatureMatrix::from_rows(5, rows.iter().map(Vec::as_slice)).unwrap()
    };
    for (variance, components, expected) in
        [(0.9, 4, 17.681_068_086_315_843), (0.5, 2, 4.373_684_439_183_142)]
    {
        let settings = MpSettings {
            variance,
            ..MpSettings::default()
        };
        let ours = mp_value(&rows(0..3), &rows(3..14), settings).unwrap();
        assert_eq!(ours.components, components);
        close(ours.mahalanobis, expected, ROUNDING, "Mahalanobis distance");
        assert!((0.0..=1.0).contains(&ours.share_reached));
        assert!((ours.p_value - (1.0 + 999.0 * ours.share_reached) / 1000.0).abs() < 1e-12);
    }
    let far = FeatureMatrix::from_values(5, vec![1000.0; 15]).unwrap();
    let ours = mp_value(&far, &rows(3..14), MpSettings::default()).unwrap();
    assert!(ours.p_value < 0.02, "{ours:?}");
}

#[test]
fn what_cannot_be_measured_is_an_error_and_not_a_number() {
    let rows = FeatureMatrix::from_values(2, vec![1.0, 2.0, 3.0, 1.0, 4.0, 0.5]).unwrap();
    let error = percent_replicating(&rows, &[Some(0), Some(1), None], ReplicatingSettings::default());
    assert_eq!(
        error.unwrap_err(),
        ReplicatingError::NoPairs {
            groups: 2,
            with_replicates: 0
        }
    );
    let one = |perturbation| GritPlace::Perturbation {
        perturbation,
        group: 0,
    };
    let error = grit(&rows, &[one(0), one(1), GritPlace::Control]).unwrap_err();
    assert_eq!(error, GritError::TooFewControls { found: 1 });
    let alone = consistency(&rows, &[vec![0], vec![1, 2]], &[], Counting::PlusOne);
    assert!(alone[0].is_none());
    assert!(alone[1].is_some_and(|c| c.p_value.is_none()), "no null, no p");
    let error = mp_value(&rows.select(&[0]), &rows.select(&[1]), MpSettings::default()).unwrap_err();
    assert!(error.to_string().contains("2 controls"), "{error}");
}
