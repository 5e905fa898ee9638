//! `wellspring compare` on tables with several rows to a well: which are averaged, and which contradict each other.

use std::path::Path;

use crate::made_up::{OWN, compare, contains, flagged, own_table, run_json, write};

const FEATURES: [&str; 2] = ["--features", "wells.csv"];

/// The made-up screen of two plates with a column of the fields or cells that `rows` gives for each well; every line is
/// then changed.
fn rows_of_wells(folder: &Path, column: &str, rows: &[&str], change: impl Fn(&str, String) -> String) {
    write(folder, "screen.toml", OWN);
    let table = own_table(&["P1", "P2"]);
    let mut text = String::new();
    for (i, line) in table.lines().enumerate() {
        if i == 0 {
            text.push_str(&format!("{column},{line}\n"));
            continue;
        }
        for row in rows {
            text.push_str(&change(row, format!("{row},{line}")));
            text.push('\n');
        }
    }
    write(folder, "wells.csv", &text);
}

fn wells_of(folder: &Path) -> Option<u64> {
    run_json(folder, "out")["wells"].as_u64()
}

#[test]
fn a_well_whose_rows_contradict_each_other_is_left_out() {
    for (column, cells) in [("Metadata_Site", "1"), ("Metadata_ObjectNumber", "7")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        rows_of_wells(folder, column, &["1", "2", "7"], |row, line| {
            if row != cells {
                return line;
            }
            line.replace(",P1,B09,disease,rescuer,0.1,", ",P1,B9,disease,idle,300 nM,")
                .replace(",P1,A01,healthy,", ",P1,A01,,")
                .replace(",P2,B10,disease,idle,", ",P2,b10,disease,,")
                // The same in other words.
                .replace(",P2,B13,disease,rescuer,1,", ",P2,B13,disease, rescuer,1000 nM,")
        });
        let said = flagged(folder, &FEATURES);
        contains(
            &said,
            &[
                "plate P1 well B09: ",
                "wells.csv row 97 and wells.csv row 9",
                "contradict each other",
                "column Metadata_compound is '",
                "idle",
                "column Metadata_dose is '",
                "300 nM",
                "plate P1 well A01: ",
                "column Metadata_state is '",
                "plate P2 well B10: ",
                "the well is left out",
            ],
        );
        assert!(!said.contains("B13"), "{said}");
        assert_eq!(wells_of(folder), Some(96 - 3), "{said}");
    }
}

/// Aggregated profiles keep CellProfiler's columns of object numbers, as means: they are no rows of cells, in which a
/// well that occurs twice would be averaged.
#[test]
fn averaged_object_numbers_make_no_table_of_cells() {
    for (column, value) in [
        ("Cells_Number_Object_Number", "31.5"),
        ("Nuclei_Number_Object_Number", "-0.47"),
        ("Cytoplasm_Parent_Cells", "12.25"),
        // Even medians that happen to be whole.
        ("Cells_Number_Object_Number", "31"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        rows_of_wells(folder, column, &[value], |_, line| line);
        let table = std::fs::read_to_string(folder.join("wells.csv")).unwrap();
        let line = |at: usize| table.lines().nth(at).unwrap().to_owned();
        // One stands beside its first, one far from it.
        let beside = line(96);
        write(folder, "wells.csv", &format!("{table}{beside}\n{}\n", line(40)));
        let said = flagged(folder, &FEATURES);
        contains(
            &said,
            &["plate P1 well B16 occurs twice", "plate P2 well B24 occurs twice"],
        );
        assert_eq!(wells_of(folder), Some(94), "{column} {value}: {said}");
        assert_eq!(
            said.contains(&format!("cell {column}")),
            !value.contains('.'),
            "{said}"
        );
    }
}

#[test]
fn whole_object_numbers_make_a_table_of_cells() {
    for column in [
        "Cells_Number_Object_Number",
        "Metadata_Nuclei_Number_Object_Number",
        "Cells_ObjectNumber",
        "ObjectNumber",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        rows_of_wells(folder, column, &["1", "2", "3.0"], |_, line| line);
        let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "out"]);
        assert_eq!(code, Some(0), "{said}");
        contains(&said, &[&format!("cell {column}")]);
        assert_eq!(wells_of(folder), Some(96));
    }
}

/// What no cell of a field has is empty, and what is infinite in them is said to be infinite.
#[test]
fn an_infinite_feature_of_cells_is_called_infinite() {
    for (value, word) in [("inf", "is infinite"), ("nan", "is empty or NaN")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        rows_of_wells(folder, "Metadata_ObjectNumber", &["1", "2"], |_, line| {
            if line.contains(",P1,B09,") {
                let rest = line.rsplit_once(',').unwrap().0;
                format!("{rest},{value}")
            } else {
                line
            }
        });
        let said = flagged(folder, &FEATURES);
        contains(&said, &["plate P1 well B09", "column Nuclei_d", word]);
    }
}
