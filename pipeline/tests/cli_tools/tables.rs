//! `wellspring compare` on tables as other tools and public data sets write them, and on broken ones.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::made_up::{OWN, Well, best, contains, dose, features, flagged, own_table, run_json, wells, write};
use crate::{ok, stderr, wellspring};

#[test]
fn a_table_that_says_all_itself_needs_no_map() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "screen.toml", OWN);
    write(folder.path(), "wells.csv", &own_table(&["P1", "P2"]));
    let base = [
        "compare",
        "--features",
        "wells.csv",
        "--screen",
        "screen.toml",
        "--out",
        "out",
    ];
    let text = ok(folder.path(), &base);
    contains(&best(&text), &["rescuer", "rescue_hit"]);
    let file = run_json(folder.path(), "out");
    assert_eq!(
        (file["plates"].as_u64(), file["wells"].as_u64()),
        (Some(2), Some(96))
    );
    // A command that needs images says that there are none.
    let output = wellspring(folder.path(), &["run", "screen.toml", "--out", "run"]);
    assert_eq!(output.status.code(), Some(2));
    contains(&stderr(&output), &["[images]", "wellspring compare"]);
    let plan = ok(folder.path(), &["check", "screen.toml"]);
    contains(&plan, &["tables' own columns"]);
}

#[test]
fn the_ready_made_screen_of_profiles_compares() {
    let folder = tempfile::tempdir().unwrap();
    let screen = concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/screens/profiles.toml");
    let table = own_table(&["P1"])
        .replacen("Metadata_state", "Metadata_role", 1)
        .replacen("Metadata_dose", "Metadata_dose,Metadata_disease", 1);
    let rows: Vec<String> = table
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let mut cells: Vec<&str> = line.split(',').collect();
            if i > 0 {
                cells.insert(5, if cells[2] == "healthy" { "" } else { "NF1" });
                if cells[3] != "DMSO" {
                    cells[2] = "treated";
                }
            }
            cells.join(",")
        })
        .collect();
    write(folder.path(), "wells.csv", &rows.join("\n"));
    let base = [
        "compare",
        "--features",
        "wells.csv",
        "--screen",
        screen,
        "--out",
        "out",
    ];
    contains(&best(&ok(folder.path(), &base)), &["rescuer", "rescue_hit"]);
}

/// RxRx: sites in one file, what they are in another, plates numbered within experiments.
#[test]
fn sites_are_joined_to_a_second_table() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "screen.toml",
        r#"
[screen]
name = "rxrx"
[profiles]
[controls]
reference = { disease_condition = "Mock" }
phenotype = { disease_condition = "Active", treatment = "DMSO" }
[comparison]
normalise = "none"
"#,
    );
    let mut embeddings = "site_id,feature_0,feature_1,feature_2,feature_3\n".to_owned();
    let mut metadata =
        "site_id,well_id,cell_type,experiment,plate,well,site,disease_condition,treatment,treatment_conc\n"
            .to_owned();
    for experiment in ["HRCE-1", "HRCE-2"] {
        for well in wells(usize::from(experiment == "HRCE-2")) {
            let id = format!("{experiment}_1_{}", well.name);
            let state = if well.state == "healthy" { "Mock" } else { "Active" };
            for site in 1..=2 {
                let _ = writeln!(embeddings, "{id}_{site}{}", features(&well));
                let _ = writeln!(
                    metadata,
                    "{id}_{site},{id},HRCE,{experiment},1,{},{site},{state},{},{}",
                    well.name,
                    well.compound,
                    dose(&well)
                );
            }
        }
    }
    let _ = writeln!(embeddings, "HRCE-9_1_A01_1,1,2,3,4");
    let mut gz = flate2::write::GzEncoder::new(
        std::fs::File::create(folder.path().join("embeddings.csv.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    gz.write_all(embeddings.as_bytes()).unwrap();
    gz.finish().unwrap();
    write(folder.path(), "metadata.csv", &metadata);
    let said = flagged(
        folder.path(),
        &["--features", "embeddings.csv.gz", "--metadata", "metadata.csv"],
    );
    contains(&said, &["row 193", "metadata.csv", "left out"]);
    let file = run_json(folder.path(), "out");
    assert_eq!(
        (file["plates"].as_u64(), file["wells"].as_u64()),
        (Some(2), Some(96))
    );
    assert_eq!(file["rows_left_out"].as_u64(), Some(1));

    // The identifiers alone say plate and well; the second file may know wells only.
    let by_well: String = metadata
        .lines()
        .enumerate()
        .filter(|(i, _)| i % 2 == 0)
        .map(|(_, line)| line.split_once(',').unwrap().1.to_owned() + "\n")
        .collect();
    let header = metadata.lines().next().unwrap().split_once(',').unwrap().1;
    let by_well = format!("{header}\n{}", by_well.split_once('\n').unwrap().1);
    write(folder.path(), "wells.csv", &by_well);
    let said = flagged(
        folder.path(),
        &["--features", "embeddings.csv.gz", "--metadata", "wells.csv"],
    );
    contains(&said, &["row 193"]);
    assert_eq!(run_json(folder.path(), "out")["wells"].as_u64(), Some(96));
    // Rows that contradict each other are no guess.
    write(
        folder.path(),
        "metadata.csv",
        &format!(
            "{metadata}{}\n",
            metadata.lines().nth(1).unwrap().replace("Mock", "Active")
        ),
    );
    let arguments = [
        "compare",
        "--features",
        "embeddings.csv.gz",
        "--metadata",
        "metadata.csv",
        "--screen",
        "screen.toml",
        "--out",
        "x",
    ];
    let output = wellspring(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(2));
    contains(&stderr(&output), &["contradicts", "HRCE-1_1_A01_1"]);
}

#[test]
fn columns_and_rows_with_missing_values_are_dropped_and_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "screen.toml", OWN);
    let table = own_table(&["P1"]);
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    lines[0].push_str(",Nuclei_sparse,Nuclei_once");
    for (i, line) in lines.iter_mut().enumerate().skip(1) {
        line.push_str(if i % 10 == 0 { ",NaN" } else { ",1.5" });
        line.push_str(if i == 20 { ",inf" } else { ",0.5" });
    }
    write(folder.path(), "wells.csv", &lines.join("\n"));
    let said = flagged(folder.path(), &["--features", "wells.csv"]);
    contains(
        &said,
        &[
            "1 of 6 features",
            "Nuclei_sparse (8.3 %)",
            "row 20 (plate P1 well A20): column Nuclei_once is infinite",
        ],
    );
    let file = run_json(folder.path(), "out");
    assert_eq!(
        (file["features"].as_u64(), file["wells"].as_u64()),
        (Some(5), Some(47))
    );
}

#[test]
fn wells_that_occur_twice_and_shared_barcodes_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "screen.toml", OWN);
    let table = own_table(&["P1", "P2"]);
    let again = table.lines().nth(40).unwrap();
    write(folder.path(), "wells.csv", &format!("{table}{again}\n"));
    let said = flagged(folder.path(), &["--features", "wells.csv"]);
    contains(&said, &["plate P1 well B16 occurs twice", "row 40", "row 97"]);
    assert_eq!(run_json(folder.path(), "out")["wells"].as_u64(), Some(95));

    let batches: String = own_table(&["P1", "P1", "P2"])
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let batch = match i {
                0 => "Metadata_Batch",
                1..=48 => "B1",
                _ => "B2",
            };
            format!("{batch},{line}\n")
        })
        .collect();
    write(folder.path(), "wells.csv", &batches);
    let said = flagged(folder.path(), &["--features", "wells.csv"]);
    contains(
        &said,
        &[
            "occur twice",
            "plate P1 is left out",
            "B1 and of B2",
            "[profiles] plate",
        ],
    );
    assert_eq!(run_json(folder.path(), "out")["wells"].as_u64(), Some(48));
    // Named together, the columns tell the plates apart.
    let named = OWN.replace(
        "[profiles]",
        "[profiles]\nplate = [\"Metadata_Batch\", \"Metadata_Plate\"]",
    );
    write(folder.path(), "screen.toml", &named);
    let base = [
        "compare",
        "--features",
        "wells.csv",
        "--screen",
        "screen.toml",
        "--out",
        "out",
    ];
    ok(folder.path(), &base);
    let file = run_json(folder.path(), "out");
    assert_eq!(
        (file["plates"].as_u64(), file["wells"].as_u64()),
        (Some(3), Some(144))
    );
}

#[test]
fn doses_have_units_and_bad_ones_cost_their_well() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "screen.toml", OWN);
    let table = own_table(&["P1"])
        .replace(",rescuer,0.1,", ",rescuer,100 nM,")
        .replace(",rescuer,10,", ",rescuer,10 µM,")
        .replacen(",idle,100,", ",idle,lots,", 1)
        .replacen("P1,A01,", "P1,a1,", 1);
    write(folder.path(), "wells.csv", &table);
    let said = flagged(folder.path(), &["--features", "wells.csv"]);
    contains(
        &said,
        &[
            "plate P1 well B22 column Metadata_dose: dose 'lots'",
            "the well is left out",
        ],
    );
    assert_eq!(run_json(folder.path(), "out")["wells"].as_u64(), Some(47));
}

#[test]
fn plates_without_a_control_are_named_and_the_rest_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "screen.toml", OWN);
    let mut table = own_table(&["P1"]);
    for line in own_table(&["P2"])
        .lines()
        .skip(1)
        .filter(|line| !line.contains("healthy"))
    {
        table.push_str(line);
        table.push('\n');
    }
    write(folder.path(), "wells.csv", &table);
    let said = flagged(folder.path(), &["--features", "wells.csv"]);
    contains(
        &said,
        &["plate P2 is left out", "controls.reference", "selects no well"],
    );
    assert_eq!(run_json(folder.path(), "out")["wells"].as_u64(), Some(48));

    // Not a single plate with controls: an error, not an empty table.
    let lines: Vec<&str> = table.lines().filter(|line| !line.contains("healthy")).collect();
    write(folder.path(), "wells.csv", &lines.join("\n"));
    let base = [
        "compare",
        "--features",
        "wells.csv",
        "--screen",
        "screen.toml",
        "--out",
        "none",
    ];
    let output = wellspring(folder.path(), &base);
    assert_eq!(output.status.code(), Some(2));
    contains(&stderr(&output), &["plate P1", "plate P2", "controls.reference"]);
}

#[test]
fn wells_and_map_rows_without_each_other_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let screen = OWN.replace("Metadata_", "");
    write(folder.path(), "screen.toml", &screen);
    write(folder.path(), "wells.csv", &own_table(&["P1"]));
    let mut map = "plate,well,state,compound,dose\n".to_owned();
    for well in wells(0).iter().filter(|well| well.name != "B20") {
        let _ = writeln!(
            map,
            "P1,{},{},{},{}",
            well.name,
            well.state,
            well.compound,
            dose(well)
        );
    }
    map.push_str("P1,C05,disease,idle,5\nP1,C06,disease,,\nP7,A01,healthy,DMSO,\n");
    write(folder.path(), "map.csv", &map);
    let said = flagged(
        folder.path(),
        &["--features", "wells.csv", "--platemap", "map.csv"],
    );
    contains(
        &said,
        &[
            "plate P1: 1 wells have features but no row in",
            "B20",
            "plate P1: 2 wells of",
            "C05, C06",
            "plate P7",
        ],
    );
}

/// What a tool measured per cell is averaged per well, whatever the order of its rows.
#[test]
fn cells_are_averaged_per_field_and_well() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "screen.toml", OWN);
    let mut text =
        "Metadata_Plate,Image_Metadata_Well,Metadata_Site,Metadata_ObjectNumber,Metadata_state,Metadata_compound,\
         Metadata_dose,Cells_a,Cells_b,Nuclei_c,Nuclei_d\n"
            .to_owned();
    for well in wells(0) {
        for (site, cell) in [(1, 1), (1, 2), (2, 1)] {
            let Well {
                name,
                state,
                compound,
                ..
            } = &well;
            // A feature that one cell lacks does not cost the well.
            let values = if (site, cell) == (1, 2) {
                features(&well)
                    .replacen(',', ",nan,", 1)
                    .splitn(4, ',')
                    .take(2)
                    .collect::<Vec<_>>()
                    .join(",")
                    + &features(&well)
                        .splitn(3, ',')
                        .nth(2)
                        .map_or(String::new(), |rest| format!(",{rest}"))
            } else {
                features(&well)
            };
            let _ = writeln!(
                text,
                "P1,{name},{site},{cell},{state},{compound},{}{values}",
                dose(&well)
            );
        }
    }
    write(folder.path(), "cells.csv", &text);
    let base = [
        "compare",
        "--features",
        "cells.csv",
        "--screen",
        "screen.toml",
        "--out",
        "cells",
    ];
    contains(&best(&ok(folder.path(), &base)), &["rescuer"]);
    let file = run_json(folder.path(), "cells");
    assert_eq!(
        (file["rows_read"].as_u64(), file["wells"].as_u64()),
        (Some(144), Some(48))
    );
    // Rows in another order: the same bytes.
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].reverse();
    write(folder.path(), "cells.csv", &lines.join("\n"));
    let base = [
        "compare",
        "--features",
        "cells.csv",
        "--screen",
        "screen.toml",
        "--out",
        "again",
    ];
    ok(folder.path(), &base);
    let bytes = |out: &str| std::fs::read(folder.path().join(out).join("comparisons.parquet")).unwrap();
    assert!(bytes("cells") == bytes("again"));
}

#[test]
fn a_column_that_the_screen_names_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "wells.csv", &own_table(&["P1"]));
    for (screen, words) in [
        (
            OWN.replace("Metadata_state =", "condition ="),
            &["'condition'", "Metadata_state"][..],
        ),
        (
            OWN.replace("[profiles]", "[profiles]\nwell = \"Spot\""),
            &["'Spot'", "Metadata_Well"],
        ),
        (
            OWN.replace("[profiles]", "[profiles]\nfeatures = [\"emb_\"]"),
            &["emb_", "wells.csv"],
        ),
        (
            OWN.replace("[profiles]", "[profiles]\nfeature = \"emb_\""),
            &["features", "screen.toml:5"],
        ),
    ] {
        write(folder.path(), "screen.toml", &screen);
        let base = [
            "compare",
            "--features",
            "wells.csv",
            "--screen",
            "screen.toml",
            "--out",
            "out",
        ];
        let output = wellspring(folder.path(), &base);
        assert_eq!(output.status.code(), Some(2), "{screen}");
        contains(&stderr(&output), words);
    }
}
