//! `wellspring compare` with an alignment: where it is kept, what names it, and how it serves later plates.

use std::path::Path;

use serde_json::Value;

use crate::made_up::rescue_plate;
use crate::{stderr, stdout, wellspring};

const WIDTH: usize = 8;
const SCREEN: &str = r#"
[screen]
name = "aligned"
[profiles]
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
[monitor]
enabled = false
[comparison]
align = "tvn"
[comparison.alignment]
components = 4
"#;

fn plate(name: &str, seed: u32) -> String {
    let names: Vec<String> = (0..WIDTH).map(|i| format!("net_{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    rescue_plate(name, seed, &names, |place, noise| {
        let value = |i| place * (f64::from(i) - 2.5) + 0.4 * noise(i) + f64::from(seed);
        (0..WIDTH as u32).map(value).collect()
    })
}

fn compare(folder: &Path, out: &str, tables: &[&str], more: &[&str]) -> std::process::Output {
    let mut arguments = vec!["compare", "--metadata", "--screen", "screen.toml", "--out", out];
    arguments.extend(more);
    arguments.push("--features");
    arguments.extend(tables);
    wellspring(folder, &arguments)
}

#[test]
fn later_plates_are_aligned_by_the_kept_transform_and_every_file_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    std::fs::write(at("screen.toml"), SCREEN).unwrap();
    for (seed, name) in ["P1", "P2", "P3"].into_iter().enumerate() {
        std::fs::write(at(&format!("{name}.csv")), plate(name, seed as u32)).unwrap();
    }
    let run = |out: &str, tables: &[&str], more: &[&str]| {
        let output = compare(folder.path(), out, tables, more);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let bytes = std::fs::read(at(&format!("{out}/run.json"))).unwrap();
        let file: Value = serde_json::from_slice(&bytes).unwrap();
        file["provenance"]["transform_sha256"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let hash = run("all", &["P1.csv", "P2.csv", "P3.csv"], &[]);
    let kept = format!("all/transforms/{hash}.json");
    assert!(at(&kept).exists());
    let table = |out: &str, name: &str| std::fs::read(at(&format!("{out}/{name}.parquet"))).unwrap();
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    for name in ["comparisons", "compounds", "wells", "windows"] {
        assert!(holds(&table("all", name), &hash), "{name}");
    }
    assert!(holds(&std::fs::read(at("all/report.html")).unwrap(), &hash));

    // The order of the tables is nothing to the alignment, and given back it is what it was when it was fitted.
    assert_eq!(run("order", &["P3.csv", "P1.csv", "P2.csv"], &[]), hash);
    let again = run("again", &["P1.csv", "P2.csv", "P3.csv"], &["--transform", &kept]);
    assert_eq!(again, hash);
    for name in ["comparisons", "compounds", "wells", "windows"] {
        assert!(table("all", name) == table("again", name), "{name}");
        assert!(table("all", name) == table("order", name), "{name}");
    }
    // A plate by itself, with the transform of the earlier ones: not fitted again.
    let first = run("first", &["P1.csv", "P2.csv"], &[]);
    assert_ne!(first, hash);
    let of_first = format!("first/transforms/{first}.json");
    assert_eq!(run("later", &["P3.csv"], &["--transform", &of_first]), first);
    // The screen file can name it too; its path is relative to the file.
    std::fs::write(
        at("screen.toml"),
        SCREEN.replace("align = \"tvn\"", &format!("transform = \"{of_first}\"")),
    )
    .unwrap();
    assert_eq!(run("named", &["P3.csv"], &[]), first);

    let refused = |more: &[&str], says: &str| {
        let output = compare(folder.path(), "refused", &["P3.csv"], more);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    };
    let text = std::fs::read_to_string(at(&of_first)).unwrap();
    std::fs::write(at("changed.json"), text.replacen("\"net_0\"", "\"net_9\"", 1)).unwrap();
    refused(&["--transform", "changed.json"], "it was changed");
    std::fs::write(
        at("newer.json"),
        text.replacen("\"version\":1", "\"version\":2", 1),
    )
    .unwrap();
    refused(&["--transform", "newer.json"], "of version 2");
    refused(&["--transform", "nothing.json"], "'nothing.json' cannot be read");
    refused(&["--transform", "P1.csv"], "not a saved alignment");
    std::fs::write(at("P3.csv"), plate("P3", 2).replace("net_7", "net_8")).unwrap();
    refused(&["--transform", &of_first], "column 7 is 'net_8'");
}

#[test]
fn a_word_that_is_no_alignment_is_named_with_the_ones_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let screen = SCREEN.replace("\"tvn\"", "\"tnv\"");
    std::fs::write(folder.path().join("screen.toml"), screen).unwrap();
    let output = wellspring(folder.path(), &["check", "screen.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output) + &stderr(&output);
    assert!(
        said.contains("comparison.align") && said.contains("tvn"),
        "{said}"
    );
    std::fs::write(folder.path().join("screen.toml"), SCREEN.replace("= 4", "= 1")).unwrap();
    let output = wellspring(folder.path(), &["check", "screen.toml"]);
    let said = stdout(&output) + &stderr(&output);
    assert!(said.contains("alignment.components"), "{said}");
}
