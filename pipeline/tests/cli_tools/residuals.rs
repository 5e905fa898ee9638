//! `cell_count_residuals = true`: profiles without what follows the number of cells, through the binary.

use std::fmt::Write as _;
use std::path::Path;

use crate::made_up::{OWN, OWN_COLUMNS, contains, dose, wells, write};
use crate::oracles::{Cells, number, parquet, text_cell};
use crate::{stderr, wellspring};

/// Cells of the wells of a plate: 40 to 139, as the index has it.
fn cells(index: usize) -> u32 {
    40 + (index as u32 * 37) % 100
}

/// Plates whose first two features grow with the logarithm of the cell count; `count` writes it.
fn table(plates: &[&str], count: impl Fn(&str, usize) -> String) -> String {
    let mut text = format!(
        "{},Metadata_Object_Count,Cells_a,Cells_b,Nuclei_c,Nuclei_d\n",
        OWN_COLUMNS.join(",")
    );
    for (number, plate) in plates.iter().enumerate() {
        for (index, well) in wells(number).iter().enumerate() {
            let (name, count) = (&well.name, count(plate, index));
            write!(
                text,
                "{plate},{name},{},{},{},{count}",
                well.state,
                well.compound,
                dose(well)
            )
            .unwrap();
            for (i, value) in well.values.iter().enumerate() {
                let follows = [2.0, -0.5, 0.0, 0.0][i] * f64::from(cells(index)).ln();
                write!(text, ",{}", (value + follows) as f32).unwrap();
            }
            text.push('\n');
        }
    }
    text
}

const FEATURES: [&str; 4] = ["Cells_a", "Cells_b", "Nuclei_c", "Nuclei_d"];

/// The least-squares line of `y` on `x`: slope `cov(x, y) / var(x)`, through the means.
fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let product = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum()
    };
    let slope = product(x, mx, y, my) / product(x, mx, x, mx);
    (slope, my - slope * mx)
}

fn compare(folder: &Path, features: &str, out: &str, code: i32) -> String {
    let arguments = [
        "compare",
        "--screen",
        "screen.toml",
        "--features",
        features,
        "--out",
        out,
    ];
    let output = wellspring(folder, &arguments);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn what_follows_the_cell_count_leaves_and_what_does_not_stays() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = format!("{OWN}align = \"none\"\ncell_count_residuals = true\n");
    write(folder, "screen.toml", &screen);
    let counted = |_: &str, index: usize| match index {
        // A treated well that lost all of its cells, and one that nobody counted.
        40 => "0".to_owned(),
        41 => String::new(),
        _ => cells(index).to_string(),
    };
    write(folder, "wells.csv", &table(&["P1", "P2"], counted));
    let said = compare(folder, "wells.csv", "out", 0);
    contains(
        &said,
        &[
            "plate P1: without rows in residuals.parquet: 2 wells have no cells or no cell count, the first is B17",
        ],
    );

    let rows = parquet(&folder.join("out/residuals.parquet"));
    assert_eq!(rows.len(), 2 * (wells(0).len() - 2));
    for (seed, plate) in ["P1", "P2"].into_iter().enumerate() {
        let made = wells(seed);
        let value = |index: usize, i: usize| -> f64 {
            let follows = [2.0, -0.5, 0.0, 0.0][i] * f64::from(cells(index)).ln();
            f64::from((made[index].values[i] + follows) as f32)
        };
        let x: Vec<f64> = (0..16).map(|index| f64::from(cells(index)).ln()).collect();
        let here: Vec<&Cells> = rows
            .iter()
            .filter(|row| text_cell(row, "Metadata_Plate") == plate)
            .collect();
        for (i, feature) in FEATURES.iter().enumerate() {
            let y: Vec<f64> = (0..16).map(|index| value(index, i)).collect();
            let (slope, intercept) = line(&x, &y);
            for row in &here {
                let index = made
                    .iter()
                    .position(|well| well.name == text_cell(row, "Metadata_Well"))
                    .unwrap();
                let expected = value(index, i) - intercept - slope * f64::from(cells(index)).ln();
                let found = number(row, feature);
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{plate} {index} {feature}: {found} {expected}"
                );
                assert_eq!(text_cell(row, "Metadata_Object_Count"), cells(index).to_string());
            }
        }
    }

    // The report says that it is there.
    let page = std::fs::read_to_string(folder.join("out/report.html")).unwrap();
    contains(
        &page,
        &["residuals.parquet has the wells", "role = &quot;reference&quot;"],
    );

    // It is a table to compare again, with the screen of the README, and no score of the comparison itself has changed.
    let readme = include_str!("../../../README.md");
    let begin = readme.find("[screen]\nname = \"residuals\"").unwrap();
    let again = readme[begin..].split("```").next().unwrap();
    write(folder, "screen.toml", again);
    compare(folder, "out/residuals.parquet", "again", 0);
    let best = |out: &str| -> Vec<String> {
        let compounds = parquet(&folder.join(out).join("compounds.parquet"));
        compounds.iter().map(|row| text_cell(row, "call")).collect()
    };
    assert_eq!(best("again"), ["rescue_hit", "inactive"]);
    write(
        folder,
        "screen.toml",
        &screen.replace("cell_count_residuals = true\n", ""),
    );
    compare(folder, "wells.csv", "without", 0);
    assert!(!folder.join("without/residuals.parquet").exists());
    let scores = |out: &str| -> Vec<f64> {
        let wells = parquet(&folder.join(out).join("wells.parquet"));
        wells.iter().map(|row| number(row, "on_axis")).collect()
    };
    assert_eq!(scores("out"), scores("without"));
}

#[test]
fn plates_that_cannot_carry_a_line_are_named_and_without_any_there_is_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(
        folder,
        "screen.toml",
        &format!("{OWN}cell_count_residuals = true\n"),
    );
    // P1 counts its cells, P2 does not, and on P3 all wells have the same.
    let counted = |plate: &str, index: usize| match plate {
        "P1" => cells(index).to_string(),
        "P2" => String::new(),
        _ => "90".to_owned(),
    };
    write(folder, "wells.csv", &table(&["P1", "P2", "P3"], counted));
    let said = compare(folder, "wells.csv", "out", 0);
    contains(
        &said,
        &[
            "plate P2: without rows in residuals.parquet: of its reference wells, 0 control wells have cells",
            "plate P3: without rows in residuals.parquet: of its reference wells, all 16 control wells have 90 cells",
        ],
    );
    assert!(!said.contains("plate P1: without rows"), "{said}");
    let rows = parquet(&folder.join("out/residuals.parquet"));
    assert_eq!(rows.len(), wells(0).len());
    assert!(rows.iter().all(|row| text_cell(row, "Metadata_Plate") == "P1"));

    // What an earlier comparison left there is not taken for the table that could not be made.
    write(folder, "wells.csv", &table(&["P2", "P3"], counted));
    let said = compare(folder, "wells.csv", "out", 0);
    contains(
        &said,
        &[
            "residuals.parquet was asked for and is not there",
            "[profiles] cell_count",
        ],
    );
    assert!(!folder.join("out/residuals.parquet").exists());
}
