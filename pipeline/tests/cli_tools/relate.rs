//! `wellspring relate` and `wellspring neighbours` on a table made elsewhere.

use std::fmt::Write;

use serde_json::Value;

use crate::{ok, stderr, wellspring};

/// 24 genes in eight groups of three that share a direction, on three plates each, with a control.
fn profiles() -> String {
    let mut text = "Metadata_Plate,Metadata_Well,Metadata_gene,Metadata_role,".to_owned();
    text.push_str(&(0..8).map(|i| format!("emb_{i}")).collect::<Vec<_>>().join(","));
    text.push('\n');
    for plate in 1..=3 {
        for gene in 0..24 {
            let (row, column) = (gene / 12 + 1, gene % 12 + 1);
            let well = format!("{}{column:02}", ['A', 'B', 'C'][row - 1]);
            let values: Vec<String> = (0..8)
                .map(|i| {
                    let own = f64::from(u8::from(i == gene / 3));
                    let noise = ((gene * 31 + i * 17 + plate * 7) % 13) as f64 / 60.0 - 0.1;
                    format!("{}", own + noise)
                })
                .collect();
            writeln!(text, "P{plate},{well},G{gene:02},treated,{}", values.join(",")).unwrap();
        }
        writeln!(text, "P{plate},H12,,reference,{}", ["9"; 8].join(",")).unwrap();
    }
    text
}

#[test]
fn known_pairs_are_recalled_and_neighbours_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.csv"), profiles()).unwrap();
    let mut pairs = "entity1,entity2,source\n".to_owned();
    for group in 0..8 {
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            writeln!(pairs, "G{:02},G{:02},complex", 3 * group + a, 3 * group + b).unwrap();
        }
    }
    std::fs::write(folder.path().join("known.csv"), pairs).unwrap();
    let common = ["--profiles", "p.csv", "--by", "Metadata_gene"];
    let arguments = [
        &["relate"],
        &common[..],
        &["--annotations", "known.csv", "--out", "o", "--json"],
    ]
    .concat();
    let said: Value = serde_json::from_str(ok(folder.path(), &arguments).trim()).unwrap();
    assert_eq!(said["perturbations"], 24);
    assert_eq!(said["rows"], 72);
    let wide = &said["recall"][1];
    assert_eq!(
        (&wide["source"], &wide["pairs"], &wide["annotated"]),
        (&"complex".into(), &"all".into(), &24.into())
    );
    assert_eq!(wide["recall"], 1.0);
    assert_eq!(wide["null"], 276);
    // Every gene is on every plate.
    assert_eq!(said["recall"][2]["pairs"], "cross_plate");
    assert_eq!(said["recall"][2]["recall"], Value::Null);
    for file in ["recall.parquet", "recall_at_k.parquet"] {
        assert!(folder.path().join("o").join(file).exists(), "{file}");
    }

    let arguments = [
        &["neighbours"],
        &common[..],
        &["--of", "G04", "--k", "2", "--json"],
    ]
    .concat();
    let said: Value = serde_json::from_str(ok(folder.path(), &arguments).trim()).unwrap();
    let mut names =
        [&said["nearest"][0]["name"], &said["nearest"][1]["name"]].map(|name| name.as_str().unwrap());
    names.sort_unstable();
    assert_eq!(names, ["G03", "G05"]);

    let arguments = [&["neighbours"], &common[..], &["--of", "G99"]].concat();
    let output = wellspring(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("there is no perturbation 'G99'"),
        "{}",
        stderr(&output)
    );

    let output = wellspring(
        folder.path(),
        &["neighbours", "--profiles", "p.csv", "--of", "G04"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("name the columns with --by"),
        "{}",
        stderr(&output)
    );
}
