//! `wellspring compare` on tables whose contents are wrong: each thing is named with plate, well and column, in an error
//! or in what is left out, and never becomes a score.

use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row;
use wellspring::results::ComparisonTable;

use crate::made_up::{OWN, compare, contains, flagged, own_table, refused, run_json, write};

/// The made-up screen of two plates with the lines of the table changed.
fn changed(folder: &Path, change: impl Fn(usize, &str) -> Option<String>) {
    write(folder, "screen.toml", OWN);
    let table = own_table(&["P1", "P2"]);
    let lines = table.lines().enumerate();
    let lines: Vec<String> = lines.filter_map(|(i, line)| change(i, line)).collect();
    write(folder, "wells.csv", &lines.join("\n"));
}

const FEATURES: [&str; 2] = ["--features", "wells.csv"];

fn wells_of(folder: &Path) -> Option<u64> {
    run_json(folder, "out")["wells"].as_u64()
}

#[test]
fn a_single_control_makes_no_axis() {
    for (state, words) in [
        ("healthy", &["plate P2", "reference"][..]),
        ("disease,DMSO", &["plate P2", "phenotype"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let first = |line: &str| ["P2,A01,", "P2,A17,"].iter().any(|start| line.starts_with(start));
        changed(folder, |_, line| {
            let kept = !line.starts_with("P2,") || !line.contains(state) || first(line);
            kept.then(|| line.to_owned())
        });
        let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "out"]);
        assert_eq!(code, Some(0), "{said}");
        contains(&said, words);
    }
}

/// Constant features leave a plate without an axis: its wells are not scored, and the exit code says so.
#[test]
fn features_without_any_spread_are_no_scores() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let constant = |line: &str| {
        let start: Vec<&str> = line.split(',').take(5).collect();
        format!("{},1,1,1,1", start.join(","))
    };
    changed(folder, |i, line| {
        let changed = i > 0 && line.starts_with("P2,");
        Some(if changed { constant(line) } else { line.to_owned() })
    });
    let said = flagged(folder, &FEATURES);
    contains(
        &said,
        &["plate P2", "the same mean profile", "wells were not scored"],
    );
    changed(folder, |i, line| {
        Some(if i > 0 { constant(line) } else { line.to_owned() })
    });
    let said = refused(folder, &["--features", "wells.csv", "--out", "none"]);
    contains(&said, &["plate P1", "plate P2", "the same mean profile"]);
}

#[test]
fn doses_are_read_in_every_usual_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let spelled = |compound: &str, dose: &str| -> Option<&str> {
        Some(match (compound, dose) {
            ("rescuer", "0.1") => "100 nM",
            ("rescuer", "1") => "1e-6 M",
            ("rescuer", "10") => "10 µM",
            ("rescuer", "100") => "0.1mM",
            ("idle", "0.1") => "\"0,1 uM\"",
            ("idle", "1") => "1 uM",
            ("idle", "10") => "10 %",
            ("idle", "100") => "100 ug/mL",
            _ => return None,
        })
    };
    let change = |_: usize, line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let Some(dose) = spelled(cells[3], cells[4]) else {
            return Some(line.to_owned());
        };
        let mut cells = cells;
        cells[4] = dose;
        Some(cells.join(","))
    };
    changed(folder, change);
    let said = flagged(folder, &FEATURES);
    for dose in ["100 ug/mL", "10 %"] {
        contains(
            &said,
            &[
                "plate P1 well ",
                "plate P2 well ",
                "column Metadata_dose",
                dose,
                "in uM",
            ],
        );
    }
    // Four doses of two wells each on two plates are left out; the others are those of the plain table.
    assert_eq!(wells_of(folder), Some(96 - 8));
    let spelled = doses_of(folder, "out", "rescuer");
    write(folder, "wells.csv", &own_table(&["P1", "P2"]));
    let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "plain"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(spelled, doses_of(folder, "plain", "rescuer"));
    assert_eq!(doses_of(folder, "out", "idle"), ["0.1", "1.0"]);
}

/// The doses of a compound in a table of comparisons.
fn doses_of(folder: &Path, out: &str, compound: &str) -> Vec<String> {
    let file = std::fs::File::open(folder.join(out).join(ComparisonTable::FILE)).unwrap();
    let rows = SerializedFileReader::new(file).unwrap();
    let rows = rows.get_row_iter(None).unwrap();
    let cell = |row: &Row, name: &str| {
        let found = row.get_column_iter().find(|(column, _)| *column == name);
        found.unwrap().1.to_string().trim_matches('"').to_owned()
    };
    let rows = rows.map(|row| row.unwrap());
    let of_compound = rows.filter(|row| cell(row, "compound") == compound);
    of_compound.map(|row| cell(&row, "dose")).collect()
}

#[test]
fn wells_are_read_in_every_usual_spelling_and_others_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    changed(folder, |_, line| {
        let mut line = line.to_owned();
        for (name, spelled) in [
            ("P1,A01,", "P1,a1,"),
            ("P1,A02,", "P1,A002,"),
            ("P1,A03,", "P1,1,"),
            ("P1,A04,", "P1,A-1,"),
            ("P2,A05,", "P2,,"),
            ("P2,A06,", "P2,Z99,"),
            ("P2,A07,", "/,A07,"),
        ] {
            if line.starts_with(name) {
                line = line.replacen(name, spelled, 1);
            }
        }
        Some(line)
    });
    let said = flagged(folder, &FEATURES);
    contains(
        &said,
        &[
            "row 3 is left out: column Metadata_Well: '1' is not a well",
            "row 4 is left out: column Metadata_Well: 'A-1' is not a well",
            "row 53 is left out: column Metadata_Well is empty",
            "row 54 is left out: column Metadata_Well: well 'Z99' lies outside",
            "row 55 is left out: column Metadata_Plate",
        ],
    );
    assert_eq!(wells_of(folder), Some(96 - 5));
}

#[test]
fn a_screen_of_negative_controls_only_has_nothing_to_compare() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    changed(folder, |i, line| {
        (i == 0 || line.contains("healthy")).then(|| line.to_owned())
    });
    let screen = "[screen]\nname = \"own\"\n[profiles]\n[controls]\nreference = { Metadata_state = \"healthy\" }\n\
                  [comparison]\nquestion = \"activity\"\n";
    write(folder, "screen.toml", screen);
    let said = refused(folder, &["--features", "wells.csv", "--out", "out"]);
    contains(&said, &["no plate can be scored", "treated"]);
}

/// A disease model on a plate without reference wells of its own plate: named, not compared with another plate's.
#[test]
fn a_disease_without_reference_wells_on_its_plate_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    changed(folder, |_, line| {
        (!line.starts_with("P2,") || !line.contains("healthy")).then(|| line.to_owned())
    });
    let said = flagged(folder, &FEATURES);
    contains(
        &said,
        &[
            "plate P2 is left out",
            "controls.reference",
            "Metadata_state",
            "selects no well",
        ],
    );
    assert_eq!(wells_of(folder), Some(48));
}

/// Untreated wells of published maps are called `NA`, `None` or nothing: no compound of that name is scored.
#[test]
fn a_missing_compound_is_no_compound() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    changed(folder, |_, line| Some(line.replace(",idle,", ",NA,")));
    let said = flagged(folder, &FEATURES);
    contains(
        &said,
        &["plate P1: 8 wells", "no compound in column", "compound = \"...\""],
    );
    assert_eq!(wells_of(folder), Some(96 - 16));
    // A selector still finds them under the word that the table has.
    let screen = OWN.replace("\"DMSO\"", "[\"DMSO\", \"NA\"]");
    write(folder, "screen.toml", &screen);
    let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "named"]);
    assert_eq!(code, Some(0), "{said}");
}

/// Plates that are only numbered are numbered within their batch; a barcode of two batches is no plate.
#[test]
fn numbered_plates_of_two_batches_are_two_plates() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let in_batches = |first: &'static str, second: &'static str| {
        move |i: usize, line: &str| {
            let batch = match i {
                0 => "Metadata_Batch".to_owned(),
                1..=48 => "B1".to_owned(),
                _ => "B2".to_owned(),
            };
            Some(format!(
                "{batch},{}",
                line.replacen("P1,", first, 1).replacen("P2,", second, 1)
            ))
        }
    };
    changed(folder, in_batches("1,", "1,"));
    let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "numbered"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run_json(folder, "numbered")["plates"].as_u64(), Some(2));
    changed(folder, in_batches("BR0001,", "BR0001,"));
    let said = refused(folder, &["--features", "wells.csv", "--out", "shared"]);
    contains(&said, &["plate BR0001", "B1 and of B2", "[profiles] plate"]);
}

/// The Connectivity Map's `cell_id` is a cell line: a table of wells does not become one of cells by it, in which a
/// well that occurs twice would be averaged.
#[test]
fn a_column_of_cell_lines_makes_no_table_of_cells() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    changed(folder, |i, line| {
        let line = line.to_owned();
        Some(if i == 0 {
            format!("Metadata_cell_id,{line}")
        } else {
            format!("A549,{line}")
        })
    });
    let table = std::fs::read_to_string(folder.join("wells.csv")).unwrap();
    let again = table.lines().nth(40).unwrap().to_owned();
    write(folder, "wells.csv", &format!("{table}\n{again}\n"));
    let said = flagged(folder, &FEATURES);
    contains(&said, &["plate P1 well B16 occurs twice"]);
}

#[test]
fn what_columns_are_taken_for_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    changed(folder, |i, line| {
        Some(if i == 0 {
            line.replace("Metadata_dose", "Metadata_final_conc_nanomolar_x")
        } else {
            line.to_owned()
        })
    });
    let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "out"]);
    assert_eq!(code, Some(0), "{said}");
    contains(
        &said,
        &[
            "columns read: 4 features Cells_a to Nuclei_d, plate Metadata_Plate, well Metadata_Well, compound \
             Metadata_compound, dose none, disease none",
            "Metadata_final_conc_nanomolar_x may be one",
        ],
    );
    assert_eq!(
        run_json(folder, "out")["columns"]["given"]["compound"],
        "Metadata_compound"
    );
}
