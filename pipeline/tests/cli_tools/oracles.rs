//! The tables of whole profiles, through the binary, on the oracle screen of `../shared/oracles`: replicates, disease
//! signatures and consensus profiles agree with the reference outputs.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, as tests do, and say when they are skipped"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::{json, ok, stderr, wellspring};

#[path = "../../../workloads/tests/common/oracles.rs"]
mod files;

use files::{close, matrix, oracle, own_disease, table};

/// Scores are written with seven digits.
const SINGLE: f64 = 2e-6;
/// Reference values are written with ten.
const ROUNDING: f64 = 1e-6;

/// The oracle screen as a table, and a screen file with these lines under `[comparison]`.
fn write_screen(folder: &Path, comparison: &str) -> Option<()> {
    let rows = matrix("efaar_tvn.npy")?;
    let features: String = (0..rows[0].len()).map(|i| format!(",tvn_{i}")).collect();
    let mut text = format!(
        "Metadata_Plate,Metadata_Well,Metadata_role,Metadata_disease,Metadata_compound,Metadata_dose,Metadata_Object_Count{features}\n"
    );
    for (row, values) in table("wells.csv")?.iter().zip(&rows) {
        let (plate, role, state) = (&row["plate"], row["role"].as_str(), row["state"].as_str());
        if role != "healthy" && state != own_disease(plate) {
            continue;
        }
        let (disease, compound, dose) = match role {
            "healthy" => ("", "", ""),
            "disease" => (state, "", ""),
            _ => (state, row["compound"].as_str(), row["dose_um"].as_str()),
        };
        write!(
            text,
            "{plate},{},{role},{disease},{compound},{dose},{}",
            row["well"], row["cell_count"]
        )
        .unwrap();
        // The shortest text that reads back as the same f32.
        values
            .iter()
            .for_each(|&value| write!(text, ",{}", value as f32).unwrap());
        text.push('\n');
    }
    std::fs::write(folder.join("screen.csv"), text).unwrap();
    let screen = format!(
        "[screen]\nname = \"oracle\"\n[profiles]\n[controls]\nreference = {{ role = \"healthy\" }}\n\
         phenotype = {{ role = \"disease\" }}\n[comparison]\nnormalise = \"none\"\nalign = \"none\"\n{comparison}\n[monitor]\nenabled = false\n"
    );
    std::fs::write(folder.join("screen.toml"), screen).unwrap();
    Some(())
}

pub(crate) type Cells = HashMap<String, Field>;

pub(crate) fn parquet(path: &Path) -> Vec<Cells> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap();
    for key in [
        "wellspring.seed",
        "wellspring.screen_sha256",
        "wellspring.model_sha256",
    ] {
        assert!(
            pairs.iter().any(|pair| pair.key == key),
            "{} has no {key}",
            path.display()
        );
    }
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        row.unwrap()
            .get_column_iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    })
    .collect()
}

pub(crate) fn text_cell(cells: &Cells, column: &str) -> String {
    match &cells[column] {
        Field::Str(text) => text.clone(),
        Field::Null => String::new(),
        other => panic!("{column} is no text: {other}"),
    }
}

pub(crate) fn number(cells: &Cells, column: &str) -> f64 {
    match cells[column] {
        Field::Double(value) => value,
        Field::Float(value) => f64::from(value),
        Field::Long(value) => value as f64,
        _ => f64::NAN,
    }
}

const COMPARE: [&str; 8] = [
    "compare",
    "--features",
    "screen.csv",
    "--screen",
    "screen.toml",
    "--metadata",
    "--out",
    "out",
];

#[test]
fn compare_writes_replicates_signatures_and_consensus_of_the_oracle_screen() {
    let folder = tempfile::tempdir().unwrap();
    if write_screen(folder.path(), "activity = { null = \"copairs\" }").is_none() {
        return;
    }
    ok(folder.path(), &COMPARE);
    let file = |name: &str| folder.path().join("out").join(name);

    let activity = parquet(&file("activity.parquet"));
    let of = |level: &str| -> BTreeMap<String, &Cells> {
        let rows = activity.iter().filter(|row| text_cell(row, "level") == level);
        rows.map(|row| {
            let name = format!("{}_{}", text_cell(row, "disease"), text_cell(row, "compound"));
            let dose = number(row, "dose");
            (
                if dose.is_nan() {
                    name
                } else {
                    format!("{name}_{dose}")
                },
                row,
            )
        })
        .collect()
    };
    let (doses, compounds) = (of("dose"), of("compound"));
    assert_eq!((doses.len(), compounds.len()), (720, 120));
    for row in table("map_dose.csv").unwrap() {
        let ours = doses[&format!("{}_{}_{}", row["state"], row["compound"], row["dose_um"])];
        for column in ["mean_average_precision", "mean_normalized_average_precision"] {
            close(
                number(ours, column),
                row[column].parse().unwrap(),
                ROUNDING,
                column,
            );
        }
        let (p, expected): (f64, f64) = (number(ours, "p_value"), row["p_value"].parse().unwrap());
        let band = 4.0 * (expected * (1.0 - expected) / 10_001.0).sqrt() + 2.0 / 10_001.0;
        assert!((p - expected).abs() <= band, "{p} {expected}");
        assert_eq!(text_cell(ours, "below_p").parse::<bool>().unwrap(), p < 0.05);
    }
    for row in table("energy_distance.csv").unwrap() {
        let ours = compounds[&format!("{}_{}", row["state"], row["compound"])];
        close(
            number(ours, "magnitude"),
            row["energy_distance"].parse().unwrap(),
            ROUNDING,
            "magnitude",
        );
    }

    let signatures = parquet(&file("signatures.parquet"));
    assert_eq!(signatures.len(), 3 * 720);
    let cosines = matrix("cosine_matrix.npy").unwrap();
    let rows = table("cosine_rows.csv").unwrap();
    let mut compared = 0;
    for (i, of) in rows.iter().enumerate().filter(|(_, row)| row["kind"] != "sig") {
        for (j, disease) in ["D1", "D2", "D3"].iter().enumerate() {
            let ours = signatures.iter().find(|row| {
                text_cell(row, "disease") == *disease
                    && text_cell(row, "tested_on") == of["disease"]
                    && text_cell(row, "compound") == of["compound"]
                    && number(row, "dose") == 10.0
            });
            let ours = ours.unwrap();
            assert_eq!((number(ours, "n_wells"), number(ours, "n_plates")), (2.0, 2.0));
            assert_eq!(text_cell(ours, "cells"), "phenotype");
            close(number(ours, "cosine"), cosines[i][j], SINGLE, &of["compound"]);
            compared += 1;
        }
    }
    assert_eq!(compared, 360);

    // Rescuers lead back along their own disease's signature more than along any other.
    let called = parquet(&file("compounds.parquet"));
    let hits: Vec<&Cells> = called
        .iter()
        .filter(|row| text_cell(row, "call") == "rescue_hit")
        .collect();
    assert_eq!(hits.len(), 6);
    for hit in hits {
        assert!(
            number(hit, "best_model_specificity") > 0.0,
            "{}",
            text_cell(hit, "compound")
        );
    }
    let calls = parquet(&file("comparisons.parquet"));
    let tested = calls.iter().filter(|row| !number(row, "map_q_value").is_nan());
    assert_eq!(tested.count(), 720);

    let perturbations = parquet(&file("perturbations.parquet"));
    let expected = matrix("agg_pert_mean.npy").unwrap();
    let by_name: BTreeMap<String, &Cells> = perturbations
        .iter()
        .map(|row| {
            let parts = ["Metadata_disease", "Metadata_compound", "Metadata_dose"]
                .map(|column| text_cell(row, column));
            (parts.join("_"), row)
        })
        .collect();
    for (row, expected) in table("agg_pert_rows.csv").unwrap().iter().zip(&expected) {
        let ours = by_name[&row["group"]];
        assert_eq!(text_cell(ours, "Metadata_n_wells"), "2");
        for (i, expected) in expected.iter().enumerate() {
            close(
                number(ours, &format!("tvn_{i}")),
                *expected,
                ROUNDING,
                &row["group"],
            );
        }
    }
    let page = std::fs::read_to_string(file("report.html")).unwrap();
    assert!(
        page.contains("Of 720 treatments with replicates"),
        "the report counts them"
    );

    // The consensus is what `neighbours` reads: of a toxic compound the nearest are toxic compounds.
    let found: Value = json(
        folder.path(),
        &[
            "neighbours",
            "--profiles",
            "out/perturbations.parquet",
            "--by",
            "Metadata_disease,Metadata_compound,Metadata_dose",
            "--of",
            "D1_C07_10",
            "--k",
            "2",
            "--json",
        ],
    );
    for near in found["nearest"].as_array().unwrap() {
        let name = near["name"].as_str().unwrap();
        assert!(
            name.contains("C07"),
            "the same compound on another dose or disease: {name}"
        );
    }
}

#[test]
fn screens_without_a_phenotype_have_no_signatures_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    if write_screen(folder.path(), "").is_none() {
        return;
    }
    ok(folder.path(), &COMPARE);
    let signatures = folder.path().join("out/signatures.parquet");
    assert!(signatures.exists());
    let screen = std::fs::read_to_string(folder.path().join("screen.toml")).unwrap();
    let screen = screen
        .replace(
            "phenotype = { role = \"disease\" }\n",
            "exclude = { role = \"disease\" }\n",
        )
        .replace(
            "[comparison]\n",
            "[comparison]\nquestion = \"activity\"\nconsensus = \"median\"\n",
        );
    std::fs::write(folder.path().join("screen.toml"), screen).unwrap();
    ok(folder.path(), &COMPARE);
    assert!(!signatures.exists(), "an earlier comparison's file must not stay");
    let run = std::fs::read_to_string(folder.path().join("out/run.json")).unwrap();
    assert!(run.contains("there are no disease signatures"), "{run}");
    assert_eq!(
        parquet(&folder.path().join("out/activity.parquet")).len(),
        720 + 120
    );
    assert_eq!(
        parquet(&folder.path().join("out/perturbations.parquet")).len(),
        720
    );
}

/// Sites of a plate that is a screen of its own: what leaves as the consensus of single wells is the well.
#[test]
fn fields_become_wells_by_mean_or_median_and_a_well_without_a_passing_field_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    if oracle("sites.csv").is_none() {
        return;
    }
    let (sites, values, wells) = (
        table("sites.csv").unwrap(),
        matrix("sites_embeddings.npy").unwrap(),
        table("agg_wells.csv").unwrap(),
    );
    let features: String = (0..values[0].len()).map(|i| format!(",net_{i}")).collect();
    let mut text = format!(
        "Metadata_Plate,Metadata_Well,Metadata_Site,Metadata_quality,Metadata_role,Metadata_compound{features}\n"
    );
    let names: std::collections::BTreeSet<&String> = sites.iter().map(|site| &site["well"]).collect();
    // A few wells are the controls; every other is a treatment of its own, named by itself.
    let controls: Vec<&String> = names.iter().copied().take(8).collect();
    for (site, values) in sites.iter().zip(&values) {
        let well = &site["well"];
        let (role, compound) = if controls.contains(&well) {
            ("healthy", "")
        } else {
            ("treated", well.as_str())
        };
        let quality = if site["qc_pass"] == "1" { "pass" } else { "fail" };
        write!(text, "P1,{well},{},{quality},{role},{compound}", site["site"]).unwrap();
        values
            .iter()
            .for_each(|&value| write!(text, ",{}", value as f32).unwrap());
        text.push('\n');
    }
    std::fs::write(folder.path().join("screen.csv"), text).unwrap();
    for (how, file) in [("mean", "agg_mean.npy"), ("median", "agg_median.npy")] {
        let screen = format!(
            "[screen]\nname = \"sites\"\n[profiles]\n[controls]\nreference = {{ role = \"healthy\" }}\n[quality]\n\
             min_fields = 1\nplate_failed_percent = 100\ncontrol_failed_percent = 100\n[comparison]\nquestion = \"activity\"\nnormalise = \"none\"\naggregate = \"{how}\"\n\
             [monitor]\nenabled = false\n"
        );
        std::fs::write(folder.path().join("screen.toml"), screen).unwrap();
        let output = wellspring(folder.path(), &COMPARE);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("0 of 4 fields passed quality control"),
            "{}",
            stderr(&output)
        );
        let expected: HashMap<&str, Vec<f64>> = wells
            .iter()
            .map(|row| row["well"].as_str())
            .zip(matrix(file).unwrap())
            .collect();
        assert_eq!(expected.len(), names.len() - 1);
        let origin: Vec<f64> = (0..values[0].len())
            .map(|i| {
                let of_wells = controls.iter().filter_map(|well| expected.get(well.as_str()));
                let (sum, n) = of_wells.fold((0.0, 0.0), |(sum, n), row| (sum + row[i], n + 1.0));
                sum / n
            })
            .collect();
        let found = parquet(&folder.path().join("out/perturbations.parquet"));
        assert!(found.len() >= names.len() - 9, "{}", found.len());
        for row in &found {
            let expected = &expected[text_cell(row, "Metadata_compound").as_str()];
            for (i, (expected, origin)) in expected.iter().zip(&origin).enumerate() {
                close(number(row, &format!("net_{i}")), expected - origin, 1e-5, how);
            }
        }
    }
}
