//! Control drift through the built binary: a drifted plate gets no calls, its reference judges later plates.

use std::collections::BTreeSet;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use wellspring::results::DriftTable;

use crate::{SCREEN, ok, stderr, stdout, wellspring};

const WIDTH: usize = 12;

/// A number between -1 and 1 that looks random and is not.
fn noise(parts: [u64; 4]) -> f64 {
    let mut z = parts.into_iter().fold(0x9e37_79b9_7f4a_7c15u64, |hash, part| {
        (hash ^ part.wrapping_add(0x517c_c1b7_2722_0a95)).wrapping_mul(0xff51_afd7_ed55_8ccd)
    });
    z ^= z >> 29;
    z = z.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    z ^= z >> 32;
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Plates of 32 healthy and 32 diseased wells, and a rescuer and an idle compound at four doses in 4 wells each.
/// The controls of a drifted plate, and all else on it, are moved.
fn write_plates(folder: &Path, name: &str, plates: std::ops::Range<u64>, drifted: &[u64]) {
    let mut map = "plate,well,role,disease,compound,dose\n".to_owned();
    let header: String = (0..WIDTH).map(|i| format!(",net_{i}")).collect();
    let mut csv = format!("Metadata_Plate,Metadata_Well{header}\n");
    for plate in plates {
        for index in 0..96u64 {
            let well = format!("{}{:02}", char::from(b'A' + (index / 12) as u8), 1 + index % 12);
            let dose = ["0.1", "1", "10", "100"][(index % 4) as usize];
            let (place, words) = match index {
                0..32 => (0.0, "healthy,,DMSO,0".to_owned()),
                32..64 => (1.0, "disease,model,DMSO,0".to_owned()),
                64..80 => (
                    1.0 / (1.0 + dose.parse::<f64>().unwrap()),
                    format!("treated,model,rescuer,{dose}"),
                ),
                _ => (1.0, format!("treated,model,idle,{dose}")),
            };
            map.push_str(&format!("P{plate:02},{well},{words}\n"));
            csv.push_str(&format!("P{plate:02},{well}"));
            for feature in 0..WIDTH as u64 {
                let moved = if drifted.contains(&plate) && feature % 3 == 0 {
                    8.0
                } else {
                    0.0
                };
                let value = 5.0
                    + place * (feature as f64 - 4.5)
                    + 0.5 * noise([plate, index, feature, 1])
                    + 0.2 * noise([plate, 999, feature, 2])
                    + moved;
                csv.push_str(&format!(",{value:.5}"));
            }
            csv.push('\n');
        }
    }
    std::fs::write(folder.join("map.csv"), map).unwrap();
    std::fs::write(folder.join(name), csv).unwrap();
}

fn compare(folder: &Path, monitor: &str, table: &str, out: &str) -> (Option<i32>, Value, String) {
    std::fs::write(folder.join("screen.toml"), format!("{SCREEN}{monitor}")).unwrap();
    let output = wellspring(
        folder,
        &[
            "compare",
            "--features",
            table,
            "--screen",
            "screen.toml",
            "--out",
            out,
            "--json",
        ],
    );
    let told = serde_json::from_str(stdout(&output).trim()).unwrap_or(Value::Null);
    (output.status.code(), told, stderr(&output))
}

/// Plate, level, quarantined, and reference hash of every row of a drift table.
fn drift_rows(folder: &Path, out: &str) -> Vec<[String; 4]> {
    let file = std::fs::File::open(folder.join(out).join(DriftTable::FILE)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        ["Metadata_Plate", "level", "quarantined", "reference_sha256"].map(|name| {
            let (_, field) = row.get_column_iter().find(|(column, _)| *column == name).unwrap();
            field.to_string().trim_matches('"').to_owned()
        })
    })
    .collect()
}

#[test]
fn a_drifted_plate_is_quarantined_and_gets_no_calls() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_plates(folder, "wells.csv", 1..14, &[12]);
    let quarantine = "[monitor]\naction = \"quarantine\"\ncomponents = 6\n";
    let (code, told, said) = compare(folder, quarantine, "wells.csv", "out");
    // A plate was left out: 1, and not 0.
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(told["wells"].as_u64(), Some(12 * 96), "{said}");
    assert!(
        said.contains("plate P12 is quarantined")
            && said.contains("mean_within")
            && said.contains("P01, P02"),
        "{said}"
    );
    let page = std::fs::read_to_string(folder.join("out/report.html")).unwrap();
    assert!(page.contains("Control drift") && page.contains("plate P12 is quarantined"));

    // Noted and not acted on: all wells are compared, and the note says so.
    let (code, told, said) = compare(folder, "[monitor]\ncomponents = 6\n", "wells.csv", "noted");
    assert_eq!((code, told["wells"].as_u64()), (Some(0), Some(13 * 96)), "{said}");
    assert!(said.contains("plate P12: drift alert"), "{said}");
    let (_, told, said) = compare(folder, "[monitor]\nenabled = false\n", "wells.csv", "off");
    assert_eq!(told["wells"].as_u64(), Some(13 * 96));
    assert!(
        !said.contains("drift") && !folder.join("off/drift.parquet").exists(),
        "{said}"
    );

    let rows = drift_rows(folder, "out");
    let level = |plate: &str| -> BTreeSet<String> {
        let of_plate = rows.iter().filter(|row| row[0] == plate);
        of_plate.map(|row| format!("{} {}", row[1], row[2])).collect()
    };
    assert_eq!(level("P01"), BTreeSet::from(["reference false".to_owned()]));
    assert_eq!(level("P12"), BTreeSet::from(["alert true".to_owned()]));
    for good in ["P11", "P13"] {
        assert!(
            !level(good).iter().any(|level| level.starts_with("alert")),
            "{:?}",
            level(good)
        );
    }

    // The reference of this comparison judges a later one by the same plates.
    write_plates(folder, "later.csv", 20..23, &[21]);
    let later = format!("{quarantine}reference = \"out/drift-reference.json\"\n");
    let (code, told, said) = compare(folder, &later, "later.csv", "later");
    assert_eq!((code, told["wells"].as_u64()), (Some(1), Some(2 * 96)), "{said}");
    assert!(said.contains("plate P21 is quarantined"), "{said}");
    assert_eq!(drift_rows(folder, "later")[0][3], rows[0][3]);
    let twice = compare(folder, &later, "later.csv", "twice");
    assert_eq!(twice.0, Some(1));
    for file in [DriftTable::FILE, "drift-reference.json"] {
        let read = |out: &str| std::fs::read(folder.join(out).join(file)).unwrap();
        assert!(read("later") == read("twice"), "{file}");
    }

    // Accept a judged plate: it becomes the newest, the oldest retires. Reset keeps the old one under its hash.
    let shown = ok(folder, &["drift", "show", "later/drift-reference.json"]);
    assert!(
        shown.contains("P01 P02") && shown.contains("P20 P21 P22"),
        "{shown}"
    );
    let accepted = ok(folder, &["drift", "accept", "later/drift-reference.json", "P22"]);
    assert!(
        accepted.contains("P02 P03") && accepted.contains("P10 P22"),
        "{accepted}"
    );
    let refused = wellspring(folder, &["drift", "accept", "later/drift-reference.json", "P77"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("P77"), "{}", stderr(&refused));
    let kept = ok(folder, &["drift", "reset", "later/drift-reference.json"]);
    let aside = kept.trim().trim_start_matches("kept as ").to_owned();
    assert!(folder.join(&aside).exists() && !folder.join("later/drift-reference.json").exists());

    // A reference that is named must be there, and of the same assay.
    let (code, _, said) = compare(
        folder,
        "[monitor]\nreference = \"none.json\"\n",
        "later.csv",
        "none",
    );
    assert_eq!(code, Some(2));
    assert!(said.contains("none.json"), "{said}");
    let other = format!("{later}assay = \"another\"\n");
    let (code, _, said) = compare(folder, &other, "later.csv", "other");
    assert_eq!(code, Some(2));
    assert!(
        said.contains("assay \"small\"") && said.contains("\"another\""),
        "{said}"
    );
}

#[test]
fn a_screen_that_asks_for_a_watch_and_is_too_small_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write_plates(folder.path(), "wells.csv", 1..4, &[]);
    let asked = "[monitor]\naction = \"quarantine\"\n";
    let (code, _, said) = compare(folder.path(), asked, "wells.csv", "out");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("3 plates can be reference plates and 10 are needed"),
        "{said}"
    );
    let (_, _, said) = compare(folder.path(), "", "wells.csv", "silent");
    assert!(!said.contains("drift"), "{said}");
    let (code, _, said) = compare(
        folder.path(),
        "[monitor]\nreference_plates = 3\n",
        "wells.csv",
        "range",
    );
    assert_eq!(code, Some(2));
    assert!(
        said.contains("monitor.reference_plates") && said.contains("from 10"),
        "{said}"
    );
    let (_, _, said) = compare(
        folder.path(),
        "[monitor]\nactoin = \"note\"\n",
        "wells.csv",
        "word",
    );
    assert!(said.contains("actoin") && said.contains("action"), "{said}");
}

/// Monitoring without a run and without calls, on tables made elsewhere.
#[test]
fn plates_of_tables_are_judged_without_a_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_plates(folder, "wells.csv", 1..14, &[12]);
    let (code, _, said) = compare(folder, "[monitor]\ncomponents = 6\n", "wells.csv", "compared");
    assert_eq!(code, Some(0), "{said}");
    let judge = |table: &str, out: &str, more: &[&str]| {
        let base = [
            "drift",
            "judge",
            "--profiles",
            table,
            "--screen",
            "screen.toml",
            "--out",
            out,
        ];
        let arguments: Vec<&str> = base.iter().chain(more).copied().collect();
        let output = wellspring(folder, &arguments);
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, told, said) = judge("wells.csv", "judged", &[]);
    assert_eq!(code, Some(1), "{said}");
    let of_plate = |plate: &str| {
        told.lines()
            .find(|line| line.starts_with(plate))
            .unwrap()
            .to_owned()
    };
    assert!(
        of_plate("P12").contains("alert") && of_plate("P12").contains("mean_within"),
        "{told}"
    );
    assert!(
        of_plate("P01").contains("reference") && !of_plate("P13").contains("alert"),
        "{told}"
    );
    let read = |out: &str, name: &str| std::fs::read(folder.join(out).join(name)).unwrap();
    let name = "drift-reference.json";
    assert!(read("judged", name) == read("compared", name));
    // A comparison's table also names its alignment.
    assert_eq!(drift_rows(folder, "judged"), drift_rows(folder, "compared"));
    assert!(!folder.join("judged/comparisons.parquet").exists());

    // Later plates by the same reference; none of them is on alert.
    write_plates(folder, "later.csv", 20..22, &[]);
    let screen = format!("{SCREEN}[monitor]\ncomponents = 6\nreference = \"judged/drift-reference.json\"\n");
    std::fs::write(folder.join("screen.toml"), screen).unwrap();
    let (code, told, said) = judge("later.csv", "later", &["--json"]);
    assert_eq!(code, Some(0), "{said}{told}");
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines
            .iter()
            .map(|line| line["plate"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["P20", "P21"]
    );

    // Too few plates to judge by.
    std::fs::write(folder.join("screen.toml"), SCREEN).unwrap();
    let (code, _, said) = judge("later.csv", "few", &[]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("2 plates") && said.contains("[monitor] reference"),
        "{said}"
    );
}
