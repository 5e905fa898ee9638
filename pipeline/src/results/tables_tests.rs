//! The columns that people of this field read, and what they hold.

use std::fs::{self, File};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use wellspring_workloads::compare::Call;

use super::*;
use crate::results::{ComparisonTables, CompoundTable, WellTable, WindowTable};

fn provenance() -> Provenance {
    Provenance {
        screen: "transfluor".to_owned(),
        run: "r1".to_owned(),
        screen_sha256: "5c".to_owned(),
        model: "net".to_owned(),
        model_sha256: "3d".to_owned(),
        seed: 42,
        transform_sha256: None,
    }
}

fn field(well: &str, field: u32) -> FieldId {
    FieldId {
        plate: "P1".parse().unwrap(),
        well: well.parse().unwrap(),
        field,
    }
}

fn treatment(dose: Option<f64>) -> Treatment {
    Treatment {
        role: Role::Treated,
        disease: None,
        compound: Some("drug".to_owned()),
        dose,
    }
}

/// Column names with their types, and every row as text.
fn read(path: &Path) -> (Vec<String>, Vec<String>) {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let columns = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .columns()
        .to_vec();
    let names = columns
        .iter()
        .map(|c| format!("{} {}", c.name(), c.physical_type()))
        .collect();
    let rows = reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| row.unwrap().to_string())
        .collect();
    (names, rows)
}

#[test]
fn features_have_a_row_per_field_with_text_metadata_and_a_numeric_dose() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = FeatureTable::create(dir.path(), &feature_names("net", 2), true, &provenance()).unwrap();
    let bad = FieldQuality {
        passed: false,
        flags: vec!["blur:DNA".to_owned(), "empty:DNA".to_owned()],
    };
    let good = FieldQuality {
        passed: true,
        flags: Vec::new(),
    };
    for (well, site, dose, quality) in [("A01", 1, Some(0.3), &good), ("B12", 2, None, &bad)] {
        table
            .push(&FeatureRow {
                field: &field(well, site),
                treatment: &treatment(dose),
                quality,
                nuclei: Some(7.0),
                values: &[1.5, -2.5],
            })
            .unwrap();
    }
    assert_eq!(table.finish().unwrap(), 2);
    let (names, rows) = read(&dir.path().join("features.parquet"));
    assert_eq!(
        names,
        [
            "Metadata_Plate BYTE_ARRAY",
            "Metadata_Well BYTE_ARRAY",
            "Metadata_Site BYTE_ARRAY",
            "Metadata_compound BYTE_ARRAY",
            "Metadata_dose BYTE_ARRAY",
            "Metadata_disease BYTE_ARRAY",
            "Metadata_role BYTE_ARRAY",
            "dose DOUBLE",
            "Metadata_quality BYTE_ARRAY",
            "Metadata_quality_flags BYTE_ARRAY",
            "Metadata_Count_Nuclei BYTE_ARRAY",
            "net_0 FLOAT",
            "net_1 FLOAT"
        ]
    );
    assert_eq!(
        rows[0],
        r#"{Metadata_Plate: "P1", Metadata_Well: "A01", Metadata_Site: "1", Metadata_compound: "drug", Metadata_dose: "0.3", Metadata_disease: null, Metadata_role: "treated", dose: 0.3, Metadata_quality: "pass", Metadata_quality_flags: "", Metadata_Count_Nuclei: "7", net_0: 1.5, net_1: -2.5E0}"#
    );
    assert!(rows[1].contains(r#"Metadata_dose: null"#) && rows[1].contains(r#""blur:DNA;empty:DNA""#));
}

#[test]
fn quality_has_a_column_per_measure_and_channel() {
    let dir = tempfile::tempdir().unwrap();
    let channels: Vec<Channel> = ["DNA", "ER"].map(|name| name.parse().unwrap()).into();
    let measures = ["PowerLogLogSlope", "PercentSaturated"];
    let mut table = QualityTable::create(dir.path(), &channels, &measures, true, &provenance()).unwrap();
    let quality = FieldQuality {
        passed: true,
        flags: Vec::new(),
    };
    let field = field("A01", 3);
    let values = [Some(-1.5), Some(0.0), None, Some(f64::NAN)];
    table
        .push(&QualityRow {
            field: &field,
            quality: &quality,
            values: &values,
            stacks: &[[Some(5.0), Some(3.0)], [None, None]],
            uris: &[Some("s3://plates/P/a.tif".to_owned()), None],
            nuclei: Some(12.0),
        })
        .unwrap();
    let short = table.push(&QualityRow {
        field: &field,
        quality: &quality,
        values: &values[..3],
        stacks: &[[None; 2]; 2],
        uris: &[None, None],
        nuclei: None,
    });
    assert!(short.unwrap_err().to_string().contains("columns"));
    table.finish().unwrap();
    let (names, rows) = read(&dir.path().join("quality.parquet"));
    assert_eq!(
        names[5..],
        [
            "Count_Nuclei DOUBLE",
            "ImageQuality_PowerLogLogSlope_DNA DOUBLE",
            "ImageQuality_PercentSaturated_DNA DOUBLE",
            "ImageQuality_PowerLogLogSlope_ER DOUBLE",
            "ImageQuality_PercentSaturated_ER DOUBLE",
            "ImageQuality_Planes_DNA DOUBLE",
            "ImageQuality_FocusPlane_DNA DOUBLE",
            "ImageQuality_Planes_ER DOUBLE",
            "ImageQuality_FocusPlane_ER DOUBLE",
            "URL_OrigDNA BYTE_ARRAY",
            "URL_OrigER BYTE_ARRAY"
        ]
    );
    assert!(
        rows[0].contains("Slope_DNA: -1.5")
            && rows[0].contains("PercentSaturated_ER: null")
            && rows[0].contains("FocusPlane_DNA: 3.0")
            && rows[0].contains(r#"URL_OrigDNA: "s3://plates/P/a.tif", URL_OrigER: null"#)
            && rows[0].contains("Planes_ER: null"),
        "{}",
        rows[0]
    );
}

#[test]
fn comparisons_keep_every_component_and_the_contract_columns() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = ComparisonTable::create(dir.path(), &provenance()).unwrap();
    table
        .push(&Comparison {
            disease: None,
            compound: Some("drug".to_owned()),
            dose: Some(30.0),
            dose_unit: "uM".to_owned(),
            n_wells: 3,
            n_plates: 1,
            counter_screen: false,
            on_axis: Some(0.75),
            off_axis: 0.5,
            aligned_on_axis: None,
            excess: None,
            off_z: None,
            off_z_support: None,
            effect_z: None,
            effect_z_support: None,
            rescue: Some(0.25),
            specificity: None,
            distance: 0.9,
            direction_cosine: None,
            cell_ratio: None,
            p_value: Some(0.25),
            q_value: Some(0.5),
            p_off: None,
            q_off: None,
            map_q_value: None,
            call: Call::RescueHit,
        })
        .unwrap();
    assert_eq!(table.finish().unwrap(), 1);
    let (names, rows) = read(&dir.path().join("comparisons.parquet"));
    for wanted in [
        "screen",
        "run",
        "disease",
        "compound",
        "dose",
        "dose_unit",
        "n_wells",
        "on_axis",
        "off_axis",
        "rescue",
        "p_value",
        "q_value",
        "call",
    ] {
        assert!(
            names.iter().any(|name| name.split(' ').next() == Some(wanted)),
            "{wanted}"
        );
    }
    for wanted in [
        "dose: 30.0",
        "on_axis: 0.75",
        "p_value: 0.25",
        r#"call: "rescue_hit""#,
        r#"screen: "transfluor""#,
    ] {
        assert!(rows[0].contains(wanted), "{wanted}: {}", rows[0]);
    }
}

#[test]
fn what_made_a_table_is_in_the_file_and_the_same_rows_give_the_same_bytes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let bytes = folders.each_ref().map(|dir| {
        let mut table = ProfileTable::create(dir.path(), &feature_names("net", 3), &provenance()).unwrap();
        for (well, count) in [("A01", None), ("A02", Some(120.5))] {
            table
                .push(
                    &WellProfile {
                        plate: "P1".parse().unwrap(),
                        well: well.parse().unwrap(),
                        treatment: treatment(Some(1.0)),
                        fields: 2,
                        cell_count: count,
                        values: vec![0.5, 1.0, 2.0],
                    },
                    false,
                )
                .unwrap();
        }
        table.finish().unwrap();
        fs::read(dir.path().join("profiles.parquet")).unwrap()
    });
    assert_eq!(bytes[0], bytes[1]);
    let path = folders[0].path().join("profiles.parquet");
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let pairs = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap()
        .clone();
    let value = |key: &str| {
        pairs
            .iter()
            .find(|pair| pair.key == key)
            .and_then(|pair| pair.value.clone())
    };
    assert_eq!(value("wellspring.seed").as_deref(), Some("42"));
    assert_eq!(value("wellspring.model_sha256").as_deref(), Some("3d"));
    assert_eq!(value("wellspring.screen_sha256").as_deref(), Some("5c"));
    let (_, rows) = read(&path);
    assert!(rows[1].contains(r#"Metadata_Site_Count: "2""#) && rows[1].contains(r#"Object_Count: "120.5""#));
}

#[test]
fn compounds_wells_and_windows_keep_every_component() {
    use wellspring_workloads::compare::{ComparisonSettings, Normalise, compare};
    let dir = tempfile::tempdir().unwrap();
    let mut profiles = Vec::new();
    let mut push = |role, compound: &str, dose: f64, place: f64| {
        let at = profiles.len();
        let noise = |i: usize| ((at * 31 + i * 17) * 7919 % 101) as f64 / 1010.0;
        profiles.push(WellProfile {
            plate: "P1".parse().unwrap(),
            well: WellPosition::new((at / 24 + 1) as u8, (at % 24 + 1) as u8).unwrap(),
            treatment: Treatment {
                role,
                disease: (role != Role::Reference).then(|| "NF1".to_owned()),
                compound: Some(compound.to_owned()),
                dose: Some(dose),
            },
            fields: 1,
            cell_count: Some(100.0),
            values: (0..4)
                .map(|i| (place * (i as f64 - 1.2) + noise(i)) as f32)
                .collect(),
        });
    };
    for _ in 0..16 {
        push(Role::Reference, "DMSO", 0.0, 0.0);
        push(Role::Phenotype, "DMSO", 0.0, 1.0);
    }
    for dose in [0.1, 1.0, 10.0, 100.0] {
        for _ in 0..2 {
            push(Role::Treated, "rescuer", dose, 1.0 / (1.0 + dose));
        }
    }
    let settings = ComparisonSettings {
        normalise: Normalise::None,
        ..ComparisonSettings::default()
    };
    let found = compare(&profiles, &settings).unwrap();
    let mut tables = ComparisonTables::create(dir.path(), &provenance()).unwrap();
    for well in found.wells.clone() {
        tables.well(well).unwrap();
    }
    for window in found.windows.clone() {
        tables.window(window).unwrap();
    }
    for row in &found.rows {
        tables.row(row).unwrap();
    }
    for compound in &found.compounds {
        tables.compound(compound).unwrap();
    }
    assert_eq!(tables.finish().unwrap(), found.rows.len() as u64);

    let rows = |file: &str| {
        let reader = SerializedFileReader::new(File::open(dir.path().join(file)).unwrap()).unwrap();
        let pairs = reader
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .unwrap()
            .clone();
        assert!(pairs.iter().any(|pair| pair.key == "wellspring.seed"), "{file}");
        let rows: Vec<String> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap().to_string())
            .collect();
        rows
    };
    // What a column holds stands in the README.
    let readme = include_str!("../../../README.md");
    for file in [ComparisonTable::FILE, CompoundTable::FILE] {
        let reader = SerializedFileReader::new(File::open(dir.path().join(file)).unwrap()).unwrap();
        for column in reader.metadata().file_metadata().schema_descr().columns() {
            let name = column.name();
            assert!(readme.contains(&format!("`{name}`")), "{file}: {name}");
        }
    }
    let compounds = rows(CompoundTable::FILE);
    assert_eq!(compounds.len(), 1);
    let summary = &found.compounds[0];
    let curve = summary.curve.as_ref().unwrap();
    for part in [
        "disease: \"NF1\"".to_owned(),
        "compound: \"rescuer\"".to_owned(),
        format!("call: \"{}\"", summary.call),
        "curve_measure: \"rescue\"".to_owned(),
        "ec50_censoring: \"none\"".to_owned(),
        "curve_monotone: \"true\"".to_owned(),
        format!("ec50: {}", curve.ec50.unwrap()),
        "lowest_dose: 0.1".to_owned(),
    ] {
        assert!(compounds[0].contains(&part), "{part}: {}", compounds[0]);
    }
    let wells = rows(WellTable::FILE);
    assert_eq!(wells.len(), found.wells.len());
    assert!(wells[0].contains("Metadata_Well: \"A01\""), "{}", wells[0]);
    let windows = rows(WindowTable::FILE);
    assert_eq!(windows.len(), 1);
    assert!(windows[0].contains("n_reference: 16"), "{}", windows[0]);
}
