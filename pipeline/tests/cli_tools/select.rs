//! `wellspring compare` with feature selection: what is dropped is named, and what is kept is compared everywhere.

use std::path::Path;

use serde_json::Value;

use crate::made_up::rescue_plate;
use crate::{stderr, wellspring};

const SCREEN: &str = r#"
[screen]
name = "selected"
[profiles]
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
[monitor]
enabled = false
[comparison]
select = "recommended"
align = "tvn"
[comparison.alignment]
components = 3
"#;

/// Four features, twice the first, and a constant.
fn plate(name: &str, seed: u32) -> String {
    let names = [
        "Cells_a",
        "Cells_b",
        "Cells_c",
        "Cells_d",
        "Cells_twice_a",
        "Cells_constant",
    ];
    rescue_plate(name, seed, &names, |place, noise| {
        let value = |i| place * (f64::from(i) - 1.5) + 2.0 * noise(i) + f64::from(seed);
        let [a, b, c, d] = [0, 1, 2, 3].map(value);
        vec![a, b, c, d, 2.0 * a, 7.0]
    })
}

#[test]
fn dropped_features_are_named_and_tables_hold_the_kept_ones_only() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    std::fs::write(at("screen.toml"), SCREEN).unwrap();
    for (seed, name) in ["P1", "P2", "P3"].into_iter().enumerate() {
        std::fs::write(at(&format!("{name}.csv")), plate(name, seed as u32)).unwrap();
    }
    let run = |out: &str, tables: &[&str], more: &[&str]| {
        let mut arguments = vec!["compare", "--metadata", "--screen", "screen.toml", "--out", out];
        arguments.extend(more);
        arguments.push("--features");
        arguments.extend(tables);
        let output = wellspring(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    let dropped = |out: &str| std::fs::read_to_string(at(&format!("{out}/features-dropped.csv")));
    let json = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };

    let said = run("out", &["P1.csv", "P2.csv", "P3.csv"], &[]);
    assert!(
        said.contains("feature selection kept 4 of 6 feature columns"),
        "{said}"
    );
    let text = dropped("out").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "feature,operation,reason");
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[1].starts_with("Cells_constant,variance_threshold,"),
        "{text}"
    );
    assert!(
        lines[2].contains(",correlation_threshold,it has r = 1.0000 with Cells_"),
        "{text}"
    );

    // The alignment has the kept columns, and later plates take theirs from it.
    let file = json(&at("out/run.json"));
    let hash = file["provenance"]["transform_sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    let kept = format!("out/transforms/{hash}.json");
    let names = std::fs::read_to_string(at(&kept)).unwrap();
    let gone = lines[2].split(',').next().unwrap();
    assert!(!names.contains(&format!("\"{gone}\"")) && !names.contains("Cells_constant"));
    run("later", &["P3.csv"], &["--transform", &kept]);
    assert!(dropped("later").unwrap().contains("Cells_constant,transform,"));

    // Neither the order of the tables nor another thread count changes a byte.
    run("order", &["P3.csv", "P1.csv", "P2.csv"], &[]);
    for name in [
        "comparisons.parquet",
        "wells.parquet",
        "signatures.parquet",
        "features-dropped.csv",
    ] {
        let bytes = |out: &str| std::fs::read(at(&format!("{out}/{name}"))).unwrap();
        assert!(bytes("out") == bytes("order"), "{name}");
    }

    // A comparison of all columns leaves no word of those that an earlier one dropped.
    std::fs::write(
        at("screen.toml"),
        SCREEN.replace("select = \"recommended\"\n", ""),
    )
    .unwrap();
    let said = run("out", &["P1.csv", "P2.csv", "P3.csv"], &[]);
    assert!(!said.contains("feature selection"), "{said}");
    assert_eq!(dropped("out").unwrap_err().kind(), std::io::ErrorKind::NotFound);
}
