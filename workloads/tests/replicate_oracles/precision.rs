//! Average precision, mean average precision and its p-values.

use std::collections::BTreeMap;

use wellspring_workloads::compare::multiple::copairs_hierarchical;
use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::replicate::average_precision::{
    Negatives, Place, Retrieval, Retrievals, average_precision,
};
use wellspring_workloads::replicate::map::{
    GroupPrecision, MapCorrection, MapSettings, NullRule, Nulls, mean_average_precision,
};

use crate::files::{Row, close, number, table};
use crate::screen::{Screen, aligned};

/// Values written with ten digits.
const ROUNDING: f64 = 1e-6;
/// Draws of the reference.
const DRAWS: f64 = 10_000.0;

/// The reference counts rankings whose mean APs differ by less than 1e-6 as ties, such as ranks 29 and 41 (0.0294365) and
/// ranks 33 and 35 (0.0294372). Where that happens, two such pairs in both orders of 49 x 49 are the most.
const NEAR_TIES: f64 = 4.0 / 2401.0;

/// The stated band of a p-value from 10,000 draws: 4 standard errors and two draws.
fn band(p: f64) -> f64 {
    4.0 * (p * (1.0 - p) / (DRAWS + 1.0)).sqrt() + 2.0 / (DRAWS + 1.0)
}

/// Treated wells against the untreated wells of their plate, which have the plate's disease.
struct Activity {
    names: Vec<String>,
    group: Vec<Option<usize>>,
    retrievals: Retrievals,
}

fn activity(screen: &Screen, rows: &FeatureMatrix, name: impl Fn(&Row) -> String) -> Activity {
    let keep: Vec<usize> = (0..screen.wells.len())
        .filter(|&i| screen.untreated[i] || screen.treated(i))
        .collect();
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for &i in keep.iter().filter(|&&i| screen.treated(i)) {
        ids.insert(name(&screen.wells[i]), 0);
    }
    ids.values_mut().enumerate().for_each(|(i, id)| *id = i);
    let places: Vec<Place> = keep
        .iter()
        .map(|&i| Place {
            group: screen.treated(i).then(|| ids[&name(&screen.wells[i])]),
            stratum: screen.plates[i],
        })
        .collect();
    let retrievals = average_precision(&rows.select(&keep), &places, Negatives::Controls).unwrap();
    assert!(retrievals.left_out.is_empty());
    // Back to the rows of the screen.
    let mut of_screen = vec![Retrieval::default(); screen.wells.len()];
    let mut group = vec![None; screen.wells.len()];
    for (&i, (retrieval, place)) in keep.iter().zip(retrievals.rows.iter().zip(&places)) {
        of_screen[i] = *retrieval;
        group[i] = place.group;
    }
    Activity {
        names: ids.into_keys().collect(),
        group,
        retrievals: Retrievals {
            rows: of_screen,
            left_out: Vec::new(),
        },
    }
}

fn by_dose(row: &Row) -> String {
    format!("{},{},{}", row["state"], row["compound"], row["dose_um"])
}

fn by_compound(row: &Row) -> String {
    format!("{},{}", row["state"], row["compound"])
}

fn assert_wells(activity: &Activity, file: &str) {
    let expected = table(file).unwrap();
    for row in &expected {
        let ours = activity.retrievals.rows[row["row_id"].parse::<usize>().unwrap()];
        assert_eq!(f64::from(ours.positives), number(row, "n_pos_pairs"), "{file}");
        assert_eq!(f64::from(ours.total), number(row, "n_total_pairs"), "{file}");
        for (ours, column) in [
            (ours.average_precision, "average_precision"),
            (ours.normalised, "normalized_average_precision"),
        ] {
            close(
                ours.unwrap(),
                number(row, column),
                ROUNDING,
                &format!("{file} {column}"),
            );
        }
    }
    let found = activity
        .retrievals
        .rows
        .iter()
        .filter(|r| r.average_precision.is_some());
    assert_eq!(found.count(), expected.len(), "{file}");
}

#[test]
fn average_precision_equals_map_dose_ap_and_map_compound_ap() {
    let Some(screen) = aligned() else { return };
    assert_wells(
        &activity(&screen, &screen.in_disease_frame, by_dose),
        "map_dose_ap.csv",
    );
    assert_wells(
        &activity(&screen, &screen.in_disease_frame, by_compound),
        "map_compound_ap.csv",
    );
}

#[test]
fn ties_controls_and_singletons_equal_map_tie_example() {
    let Some(rows) = table("map_tie_example.csv") else {
        return;
    };
    let values = rows
        .iter()
        .flat_map(|row| [number(row, "x0") as f32, number(row, "x1") as f32])
        .collect();
    let matrix = FeatureMatrix::from_values(2, values).unwrap();
    let places: Vec<Place> = rows
        .iter()
        .map(|row| Place {
            group: match row["Metadata_pert"].as_str() {
                "a" => Some(0),
                "b" => Some(1),
                _ => None,
            },
            stratum: 0,
        })
        .collect();
    let ours = average_precision(&matrix, &places, Negatives::Controls).unwrap();
    for (ours, row) in ours.rows.iter().zip(&rows) {
        assert_eq!(f64::from(ours.positives), number(row, "n_pos_pairs"));
        assert_eq!(f64::from(ours.total), number(row, "n_total_pairs"));
        match ours.average_precision.zip(ours.normalised) {
            Some((ap, normalised)) => {
                close(ap, number(row, "average_precision"), ROUNDING, "ap");
                close(
                    normalised,
                    number(row, "normalized_average_precision"),
                    ROUNDING,
                    "normalised",
                );
            }
            None => assert_eq!(row["average_precision"], "", "undefined in both"),
        }
    }
}

fn precision<'a>(activity: &Activity, settings: MapSettings<'a>) -> Vec<GroupPrecision> {
    mean_average_precision(
        &activity.retrievals.rows,
        &activity.group,
        settings,
        &mut Nulls::default(),
    )
}

fn of<'a>(ours: &'a [GroupPrecision], activity: &Activity, name: &str) -> &'a GroupPrecision {
    ours.iter().find(|row| activity.names[row.group] == name).unwrap()
}

fn assert_parity(activity: &Activity, file: &str, name: impl Fn(&Row) -> String) -> Vec<GroupPrecision> {
    let parity = MapSettings {
        rule: NullRule::Copairs,
        ..MapSettings::default()
    };
    let ours = precision(activity, parity);
    let expected = table(file).unwrap();
    assert_eq!(ours.len(), expected.len(), "{file}");
    let mut flips = 0;
    for row in &expected {
        let ours = of(&ours, activity, &name(row));
        close(
            ours.mean_average_precision,
            number(row, "mean_average_precision"),
            ROUNDING,
            file,
        );
        close(
            ours.mean_normalized_average_precision,
            number(row, "mean_normalized_average_precision"),
            ROUNDING,
            file,
        );
        let (p, expected) = (ours.p_value, number(row, "p_value"));
        assert!(
            (p - expected).abs() <= band(expected),
            "{file} {}: {p}, {expected}",
            name(row)
        );
        assert!(!ours.exact);
        let flag = |column: &str| row[column] == "True";
        if ours.below_corrected_p != flag("below_corrected_p") {
            let q = number(row, "corrected_p_value");
            // A step-up q is m/j times some p of the group: its band is the p band times m/j.
            assert!(
                (ours.corrected_p_value - q).abs() <= band(expected) * q / expected,
                "{file}: {q}"
            );
            flips += 1;
        }
    }
    assert!(flips <= 2, "{file}: {flips} flags differ, all within the band");
    ours
}

#[test]
fn parity_p_values_equal_copairs_in_map_dose_and_map_compound_within_four_errors() {
    let Some(screen) = aligned() else { return };
    let dose = activity(&screen, &screen.in_disease_frame, by_dose);
    assert_parity(&dose, "map_dose.csv", by_dose);
    let compound = activity(&screen, &screen.in_disease_frame, by_compound);
    assert_parity(&compound, "map_compound.csv", by_compound);
}

#[test]
fn the_healthy_frame_shows_no_activity_as_in_map_compound_healthyframe() {
    let Some(screen) = aligned() else { return };
    let healthy = activity(&screen, &screen.in_healthy_frame, by_compound);
    let ours = assert_parity(&healthy, "map_compound_healthyframe.csv", by_compound);
    assert!(ours.iter().all(|row| !row.below_corrected_p));
}

#[test]
fn product_p_values_equal_the_enumeration_in_map_dose() {
    let Some(screen) = aligned() else { return };
    let dose = activity(&screen, &screen.in_disease_frame, by_dose);
    let ours = precision(&dose, MapSettings::default());
    let mut different = 0;
    for row in table("map_dose.csv").unwrap() {
        let ours = of(&ours, &dose, &by_dose(&row));
        assert!(ours.exact, "49 x 49 rankings");
        let expected = number(&row, "p_exact_ge");
        let more = expected - ours.p_value;
        assert!(more > -1e-9 && more < NEAR_TIES + 1e-9, "{expected} {ours:?}");
        different += usize::from(more > 1e-9);
    }
    assert!(different <= 11, "{different} rows of 720 have a near tie");
    // Drawn instead, the same p-values within their errors.
    let drawn = precision(
        &dose,
        MapSettings {
            exact_up_to: 0,
            ..MapSettings::default()
        },
    );
    for (drawn, exact) in drawn.iter().zip(&ours) {
        assert!(!drawn.exact);
        assert!(
            (drawn.p_value - exact.p_value).abs() <= band(exact.p_value),
            "{drawn:?} {exact:?}"
        );
    }
}

#[test]
fn hierarchical_correction_equals_the_columns_of_map_dose() {
    let Some(rows) = table("map_dose.csv") else { return };
    let p: Vec<Option<f64>> = rows.iter().map(|row| Some(number(row, "p_value"))).collect();
    let mut ids = BTreeMap::new();
    let family: Vec<usize> = rows
        .iter()
        .map(|row| {
            let next = ids.len();
            *ids.entry(by_compound(row)).or_insert(next)
        })
        .collect();
    for (ours, row) in copairs_hierarchical(&p, &family, 0.05).iter().zip(&rows) {
        close(
            ours.stage1_p.unwrap(),
            number(row, "stage1_p_value"),
            1e-9,
            "stage 1 p",
        );
        close(
            ours.stage1_q.unwrap(),
            number(row, "stage1_corrected_p_value"),
            1e-9,
            "stage 1 q",
        );
        assert_eq!(ours.passes, row["stage1_significant"] == "True");
        close(ours.q.unwrap(), number(row, "hier_corrected_p_value"), 1e-9, "q");
    }
}

#[test]
fn compounds_called_active_are_true_ones() {
    let Some(screen) = aligned() else { return };
    let dose = activity(&screen, &screen.in_disease_frame, by_dose);
    let mut ids = BTreeMap::new();
    let family: Vec<usize> = dose
        .names
        .iter()
        .map(|name| {
            let next = ids.len();
            *ids.entry(name.rsplit_once(',').unwrap().0).or_insert(next)
        })
        .collect();
    let ours = precision(
        &dose,
        MapSettings {
            correction: MapCorrection::Hierarchical { family: &family },
            ..MapSettings::default()
        },
    );
    let truth = table("compounds_truth.csv").unwrap();
    let inactive: Vec<&str> = truth
        .iter()
        .filter(|row| row["truth_class"] == "inactive")
        .map(|row| row["compound"].as_str())
        .collect();
    let called: Vec<&String> = ours
        .iter()
        .filter(|row| row.below_corrected_p)
        .map(|row| &dose.names[row.group])
        .collect();
    assert!(
        called.iter().any(|name| name.contains("C07")),
        "a toxic compound is active: {called:?}"
    );
    let wrong = called
        .iter()
        .filter(|name| inactive.iter().any(|c| name.contains(c)));
    assert_eq!(wrong.count(), 0, "{called:?}");
}

#[test]
fn random_rankings_have_the_mean_of_map_null_summary() {
    let Some(path) = crate::files::oracle("map_null_summary.json") else {
        return;
    };
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (positives, total) in [(1u32, 49u32), (11, 59)] {
        let expected = summary[format!("n{total}_k{positives}")]["expected_ap_exact"]
            .as_f64()
            .unwrap();
        // A retrieval whose AP is the exact mean has a normalised AP of 0: the formula is tested by its fixed point.
        let harmonic: f64 = (1..=total).map(|k| 1.0 / f64::from(k)).sum();
        let (p, l) = (f64::from(positives), f64::from(total));
        close(
            ((p - 1.0) / (l - 1.0) * (l - harmonic) + harmonic) / l,
            expected,
            1e-9,
            "mean AP",
        );
        // Our own draws: the share at or above the reference's 95th percentile is 5 % within errors.
        let q95 = summary[format!("n{total}_k{positives}")]["q95"].as_f64().unwrap();
        let retrieval = Retrieval {
            positives,
            total,
            average_precision: Some(q95),
            normalised: Some(0.0),
        };
        let settings = MapSettings {
            exact_up_to: 0,
            rule: NullRule::Copairs,
            ..MapSettings::default()
        };
        let p = mean_average_precision(&[retrieval], &[Some(0)], settings, &mut Nulls::default())[0].p_value;
        let at = if positives == 1 { 2.0 / 49.0 } else { 0.05 };
        assert!((p - at).abs() <= band(at), "n{total}_k{positives}: {p}");
    }
}
