//! `wellspring compare` on tables made elsewhere and on our own.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use wellspring::results::{
    ComparisonTable, FeatureRow, FeatureTable, FieldQuality, ProfileTable, Provenance, feature_names,
};
use wellspring_models::find_card;
use wellspring_workloads::compare::compare;
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use crate::{SCREEN, ok, stderr, stdout, wellspring};

const WIDTH: usize = 6;

/// 12 healthy, 12 diseased, and a rescuer and an idle compound at four doses, in two wells each.
fn plate_map() -> String {
    let mut text = "plate,well,role,disease,compound,dose\n".to_owned();
    let mut row = |index: usize, rest: &str| {
        let well = WellPosition::new(1 + (index / 12) as u8, 1 + (index % 12) as u8).unwrap();
        text.push_str(&format!("P1,{well},{rest}\n"));
    };
    for index in 0..12 {
        row(index, "healthy,,DMSO,0");
        row(12 + index, "disease,model,DMSO,0");
    }
    for (i, dose) in ["0.1", "1", "10", "100"].into_iter().enumerate() {
        for copy in 0..2 {
            row(24 + 4 * i + copy, &format!("treated,model,rescuer,{dose}"));
            row(26 + 4 * i + copy, &format!("treated,model,idle,{dose}"));
        }
    }
    text
}

/// The features of one field: a place on the axis with a little of everything else.
fn values(treatment: &Treatment, well: WellPosition, field: u32) -> Vec<f32> {
    let place = match (treatment.role, treatment.compound.as_deref()) {
        (Role::Reference, _) => 0.0,
        (Role::Treated, Some("rescuer")) => 1.0 / (1.0 + treatment.dose.unwrap()),
        _ => 1.0,
    };
    (0..WIDTH)
        .map(|i| {
            let number =
                u32::from(well.row()) * 131 + u32::from(well.column()) * 17 + field * 7 + i as u32 * 29;
            let noise = f64::from(number * number % 97) / 97.0 - 0.5;
            (place * (i as f64 - 1.5) + 0.1 * noise) as f32
        })
        .collect()
}

/// Treatments of the plate map above, as a run would see them.
fn treatments(folder: &Path) -> (Screen, BTreeMap<WellPosition, Treatment>) {
    std::fs::write(folder.join("map.csv"), plate_map()).unwrap();
    std::fs::write(folder.join("screen.toml"), SCREEN).unwrap();
    let mut screen = Screen::parse(SCREEN, "screen.toml").unwrap();
    screen.resolve_paths(&folder.to_string_lossy());
    let map = PlateMap::parse(&plate_map(), "map.csv", &screen.plate_map).unwrap();
    let treatments = screen.treatments(&map, &plate()).unwrap();
    assert_eq!(treatments.len(), 40);
    (screen, treatments)
}

fn plate() -> Barcode {
    "P1".parse().unwrap()
}

#[test]
fn compare_reads_a_csv_made_elsewhere_and_ranks_the_rescuer_first() {
    let folder = tempfile::tempdir().unwrap();
    let (_, treatments) = treatments(folder.path());
    let header: String = (0..WIDTH).map(|i| format!(",Cells_Feature_{i}")).collect();
    let mut csv =
        format!("Metadata_Plate,Metadata_Well,Metadata_Site,Metadata_Role,Metadata_disease{header}\n");
    let with_metadata = |treatment: &Treatment| match treatment.role {
        Role::Reference => "healthy,",
        Role::Phenotype => "disease,model",
        Role::Treated => "treated,model",
    };
    for (well, treatment) in &treatments {
        for cell in 0..3 {
            let numbers: String = values(treatment, *well, cell)
                .iter()
                .map(|value| format!(",{value}"))
                .collect();
            csv.push_str(&format!(
                "P1,{well},{cell},{}{numbers}\n",
                with_metadata(treatment)
            ));
        }
    }
    std::fs::write(folder.path().join("cells.csv"), &csv).unwrap();
    let base = ["compare", "--features", "cells.csv", "--screen", "screen.toml"];
    let run = |more: &[&str]| {
        let arguments: Vec<&str> = base.iter().chain(more).copied().collect();
        wellspring(folder.path(), &arguments)
    };
    let output = run(&["--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    let first = table
        .lines()
        .find(|line| line.trim_start().starts_with("1  "))
        .unwrap();
    assert!(
        first.contains("rescuer") && first.contains("rescue_hit"),
        "{table}"
    );
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("rescuer"));
    let file: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/run.json")).unwrap()).unwrap();
    assert_eq!(
        (file["wells"].as_u64(), file["rows_read"].as_u64()),
        (Some(40), Some(120))
    );

    // The same map given by hand gives the same rows; the screen's own is not looked at.
    std::fs::rename(folder.path().join("map.csv"), folder.path().join("other.csv")).unwrap();
    let unmapped = run(&["--out", "none"]);
    assert_eq!(unmapped.status.code(), Some(2));
    assert!(stderr(&unmapped).contains("--platemap"), "{}", stderr(&unmapped));
    let output = run(&["--out", "again", "--platemap", "other.csv", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told: Value = serde_json::from_str(stdout(&output).trim()).unwrap();
    assert_eq!(told["comparisons"], file["comparisons"]);

    // One bad number is named and left out, and the exit code says that something was.
    let bad = csv.replacen(&format!("P1,{},", WellPosition::new(1, 1).unwrap()), "P1,A01,", 1);
    let mut lines: Vec<String> = bad.lines().map(str::to_owned).collect();
    let cut = lines[1].rfind(',').unwrap();
    lines[1].replace_range(cut.., ",NaN");
    std::fs::write(folder.path().join("cells.csv"), lines.join("\n")).unwrap();
    let output = run(&["--out", "nan", "--platemap", "other.csv"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("row 1"), "{}", stderr(&output));
}

#[test]
fn compare_takes_treatments_from_the_tables_own_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (_, treatments) = treatments(folder.path());
    std::fs::remove_file(folder.path().join("map.csv")).unwrap();
    let header: String = (0..WIDTH).map(|i| format!(",net_{i}")).collect();
    let mut csv = format!(
        "Metadata_Plate,Metadata_Well,Metadata_role,Metadata_disease,Metadata_compound,Metadata_dose{header}\n"
    );
    for (well, treatment) in &treatments {
        let role = match treatment.role {
            Role::Reference => "healthy",
            Role::Phenotype => "disease",
            Role::Treated => "treated",
        };
        let numbers: String = values(treatment, *well, 1)
            .iter()
            .map(|value| format!(",{value}"))
            .collect();
        let (disease, compound) = (
            treatment.disease.clone().unwrap_or_default(),
            treatment.compound.clone().unwrap(),
        );
        csv.push_str(&format!(
            "P1,{well},{role},{disease},{compound},{}{numbers}\n",
            treatment.dose.unwrap()
        ));
    }
    std::fs::write(folder.path().join("profiles.csv"), csv).unwrap();
    let arguments = [
        "compare",
        "--features",
        "profiles.csv",
        "--screen",
        "screen.toml",
        "--out",
        "out",
        "--metadata",
    ];
    let text = ok(folder.path(), &arguments);
    let first = text
        .lines()
        .find(|line| line.trim_start().starts_with("1  "))
        .unwrap();
    assert!(first.contains("rescuer"), "{text}");
}

#[test]
fn compare_writes_the_bytes_that_a_run_writes_from_its_own_tables() {
    let folder = tempfile::tempdir().unwrap();
    let (screen, treatments) = treatments(folder.path());
    let card = find_card("efficientnet-lite0").unwrap();
    let provenance = Provenance {
        screen: screen.name.to_string(),
        run: wellspring::runs::run_id(&screen),
        screen_sha256: screen.hash(),
        model: card.name.clone(),
        model_sha256: card.weights.content_sha256.clone(),
        seed: screen.comparison.seed,
        transform_sha256: None,
    };
    for name in ["fields", "wells", "expected"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let mut features = FeatureTable::create(
        &folder.path().join("fields"),
        &feature_names(&card.name, WIDTH),
        false,
        &provenance,
    )
    .unwrap();
    let mut wells = ProfileTable::create(
        &folder.path().join("wells"),
        &feature_names(&card.name, WIDTH),
        &provenance,
    )
    .unwrap();
    let mut profiles = Vec::new();
    for (well, treatment) in &treatments {
        let mut sums = [0.0; WIDTH];
        let mut passing = 0;
        for number in 1..=3 {
            let field = FieldId {
                plate: plate(),
                well: *well,
                field: number,
            };
            let values = values(treatment, *well, number);
            // A failed field stays in the table and out of the profile.
            let passed = (*well, number) != (WellPosition::new(1, 2).unwrap(), 2);
            let quality = FieldQuality {
                passed,
                flags: Vec::new(),
            };
            features
                .push(&FeatureRow {
                    field: &field,
                    treatment,
                    quality: &quality,
                    nuclei: None,
                    values: &values,
                })
                .unwrap();
            if passed {
                passing += 1;
                sums.iter_mut()
                    .zip(&values)
                    .for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        let profile = WellProfile {
            plate: plate(),
            well: *well,
            treatment: treatment.clone(),
            fields: passing,
            cell_count: None,
            values: sums.iter().map(|sum| (sum / f64::from(passing)) as f32).collect(),
        };
        wells.push(&profile, false).unwrap();
        profiles.push(profile);
    }
    features.finish().unwrap();
    wells.finish().unwrap();
    let expected = compare(&profiles, &screen.comparison).unwrap();
    let mut table = ComparisonTable::create(&folder.path().join("expected"), &provenance).unwrap();
    expected.rows.iter().for_each(|row| table.push(row).unwrap());
    table.finish().unwrap();

    let read = |folder: &Path| std::fs::read(folder.join(ComparisonTable::FILE)).unwrap();
    for (tables, out) in [
        ("fields/features.parquet", "from-fields"),
        ("wells/profiles.parquet", "from-wells"),
    ] {
        ok(
            folder.path(),
            &[
                "compare",
                "--features",
                tables,
                "--screen",
                "screen.toml",
                "--out",
                out,
            ],
        );
        assert!(
            read(&folder.path().join(out)) == read(&folder.path().join("expected")),
            "{tables}"
        );
    }
    let mixed = wellspring(
        folder.path(),
        &[
            "compare",
            "--features",
            "wells/profiles.parquet",
            "--screen",
            "screen.toml",
            "--out",
            "fields",
        ],
    );
    assert_eq!(mixed.status.code(), Some(2));
    assert!(stderr(&mixed).contains("results of a run"), "{}", stderr(&mixed));
}

#[test]
fn files_that_are_no_tables_are_named_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    treatments(folder.path());
    for (beginning, name, format) in [
        (&b"SQLite format 3\0"[..], "BR1.sqlite", "SQLite"),
        (b"\x89HDF\r\n\x1a\n", "cells.h5", "HDF5"),
        (b"ARROW1\0\0", "profiles.feather", "Feather"),
        (b"PK\x03\x04\x14\0\0\0", "A01_1.npz", "DeepProfilerData"),
    ] {
        std::fs::write(folder.path().join(name), beginning).unwrap();
        let arguments = [
            "compare",
            "--features",
            name,
            "--screen",
            "screen.toml",
            "--out",
            "out",
        ];
        let output = wellspring(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains(format) && said.contains(name), "{said}");
        assert!(said.contains("Parquet, CSV or TSV"), "{said}");
    }
}
