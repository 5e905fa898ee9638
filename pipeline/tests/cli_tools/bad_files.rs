//! `wellspring compare` on files that are cut, ragged, empty or spelled otherwise, on a disk that is full, and killed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use wellspring::results::{Cell, Column, ColumnKind, ComparisonTable, TableWriter};

use crate::made_up::{OWN, OWN_COLUMNS, compare, contains, dose, own_table, refused, run_json, wells, write};
use crate::stderr;

/// The results that exist under their own names.
fn results(folder: &Path, out: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join(out)).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".partial")).collect();
    names.sort();
    names
}

fn comparisons(folder: &Path, out: &str) -> Vec<u8> {
    std::fs::read(folder.join(out).join(ComparisonTable::FILE)).unwrap()
}

/// A Parquet table with the metadata of the made-up screen.
fn own_writer(path: &Path, features: &[String]) -> TableWriter {
    let columns = OWN_COLUMNS.map(|name| Column::optional(name, ColumnKind::Text));
    TableWriter::create(path, columns.to_vec(), features, &[]).unwrap()
}

/// The made-up screen as Parquet.
fn parquet_table(path: &Path) {
    let features = ["Cells_a", "Cells_b", "Nuclei_c", "Nuclei_d"].map(str::to_owned);
    let mut table = own_writer(path, &features);
    for well in wells(0) {
        let dose = dose(&well);
        let cells = ["P1", &well.name, well.state, well.compound, &dose].map(Cell::Text);
        let values: Vec<f32> = well.values.iter().map(|value| *value as f32).collect();
        table.push(&cells, &values).unwrap();
    }
    table.finish().unwrap();
}

#[test]
fn the_same_table_in_every_spelling_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "screen.toml", OWN);
    let plain = own_table(&["P1"]);
    write(folder, "wells.csv", &plain);
    let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "plain"]);
    assert_eq!(code, Some(0), "{said}");
    let spellings = [
        ("bom.csv", format!("\u{feff}{plain}")),
        ("crlf.csv", plain.replace('\n', "\r\n")),
        ("tabs.tsv", plain.replace(',', "\t")),
        ("semicolons.csv", plain.replace(',', ";")),
        // As a spreadsheet in half of Europe writes it: the comma is the decimal point.
        (
            "decimal-comma.csv",
            plain.replace(',', ";").replace('.', ",").replace('\n', "\r\n"),
        ),
        ("quoted.csv", quoted(&plain)),
        ("no-last-newline.csv", plain.trim_end().to_owned()),
    ];
    for (name, text) in &spellings {
        write(folder, name, text);
        let (code, _, said) = compare(
            folder,
            &["--features", name, "--out", name.trim_end_matches("sv")],
        );
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(
            comparisons(folder, name.trim_end_matches("sv")) == comparisons(folder, "plain"),
            "{name}"
        );
    }
}

fn quoted(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let cells: Vec<String> = line.split(',').map(|cell| format!("\"{cell}\"")).collect();
        let _ = writeln!(all, "{}", cells.join(","));
        all
    })
}

#[test]
fn damaged_tables_are_named_and_leave_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "screen.toml", OWN);
    let text = own_table(&["P1"]);
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    parquet_table(&folder.join("whole.parquet"));
    let (code, _, said) = compare(folder, &["--features", "whole.parquet", "--out", "whole"]);
    assert_eq!(code, Some(0), "{said}");
    let parquet = std::fs::read(folder.join("whole.parquet")).unwrap();

    let mut files: Vec<(String, Vec<u8>, &[&str])> = Vec::new();
    for percent in [10, 50, 90, 99] {
        let cut = |bytes: &[u8]| bytes[..bytes.len() * percent / 100].to_vec();
        files.push((format!("cut{percent}.csv.gz"), cut(&gz), &[]));
        files.push((format!("cut{percent}.parquet"), cut(&parquet), &[]));
    }
    let ragged = text.replacen("P1,A05,", "P1,A05,more,", 1);
    let short = text.replacen("P1,A05,healthy,", "P1,A05,", 1);
    let words = text.replacen("P1,A07,healthy,DMSO,,", "P1,A07,healthy,DMSO,,low", 1);
    let header = text.lines().next().unwrap().to_owned() + "\n";
    files.push(("ragged.csv".to_owned(), ragged.into_bytes(), &["line: 6"]));
    files.push(("short.csv".to_owned(), short.into_bytes(), &["line: 6"]));
    files.push((
        "words.csv".to_owned(),
        words.into_bytes(),
        &["row 7", "Cells_a", "'low", "not a number"],
    ));
    files.push(("empty.csv".to_owned(), Vec::new(), &["no feature column"]));
    files.push((
        "header.csv".to_owned(),
        header.into_bytes(),
        &["no rows below the header"],
    ));
    files.push(("noise.csv".to_owned(), vec![0xff; 4096], &[]));
    files.push((
        "image.csv".to_owned(),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(),
        &[],
    ));
    for (name, bytes, words) in files {
        std::fs::write(folder.join(&name), bytes).unwrap();
        let out = format!("out-{name}");
        let said = refused(folder, &["--features", &name, "--out", &out]);
        contains(&said, &[name.as_str()]);
        contains(&said, words);
        assert_eq!(results(folder, &out), Vec::<String>::new(), "{name}");
    }
    let said = refused(folder, &["--features", "absent.csv", "--out", "absent"]);
    contains(&said, &["absent.csv"]);
    std::fs::create_dir(folder.join("a-folder")).unwrap();
    let said = refused(folder, &["--features", "a-folder", "--out", "folder"]);
    contains(&said, &["a-folder"]);
}

#[test]
fn a_table_of_thirty_thousand_features_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "screen.toml", OWN);
    let width = 30_000;
    let features: Vec<String> = (0..width).map(|i| format!("Cells_{i}")).collect();
    let path = folder.join("wide.parquet");
    let mut table = own_writer(&path, &features);
    let mut csv = format!("{},{}\n", OWN_COLUMNS.join(","), features.join(","));
    for well in wells(0) {
        let dose = dose(&well);
        let cells = ["P1", &well.name, well.state, well.compound, &dose];
        let values: Vec<f32> = (0..width)
            .map(|i| (well.values[i % 4] * (1 + i % 7) as f64) as f32)
            .collect();
        table.push(&cells.map(Cell::Text), &values).unwrap();
        csv.push_str(&cells.join(","));
        for value in &values {
            let _ = write!(csv, ",{value}");
        }
        csv.push('\n');
    }
    table.finish().unwrap();
    write(folder, "wide.csv", &csv);
    for name in ["wide.parquet", "wide.csv"] {
        let out = name.replace('.', "-");
        let (code, _, said) = compare(folder, &["--features", name, "--out", &out]);
        assert_eq!(code, Some(0), "{name}: {said}");
        assert_eq!(run_json(folder, &out)["features"].as_u64(), Some(width as u64));
    }
    assert!(comparisons(folder, "wide-parquet") == comparisons(folder, "wide-csv"));
}

/// The features of per-plate tables differ after feature selection, and their order between tools.
#[test]
fn tables_share_the_features_that_all_have() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "screen.toml", OWN);
    write(folder, "one.csv", &own_table(&["P1"]));
    let columns = |order: &[usize]| -> String {
        let table = own_table(&["P1", "P2"]);
        let lines = table.lines().filter(|line| !line.starts_with("P1,")).map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            order.iter().map(|at| cells[*at]).collect::<Vec<_>>().join(",")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    write(folder, "same.csv", &columns(&[0, 1, 2, 3, 4, 5, 6, 7, 8]));
    write(folder, "turned.csv", &columns(&[8, 6, 4, 2, 0, 7, 5, 3, 1]));
    write(folder, "fewer.csv", &columns(&[0, 1, 2, 3, 4, 5, 6, 8]));
    write(
        folder,
        "other.csv",
        &columns(&[0, 1, 2, 3, 4, 5]).replace("Cells_a", "Cells_z"),
    );
    for name in ["same.csv", "turned.csv"] {
        let out = name.trim_end_matches(".csv");
        let (code, _, said) = compare(folder, &["--features", "one.csv", name, "--out", out]);
        assert_eq!(code, Some(0), "{name}: {said}");
    }
    assert!(comparisons(folder, "same") == comparisons(folder, "turned"));
    let (code, _, said) = compare(folder, &["--features", "one.csv", "fewer.csv", "--out", "fewer"]);
    assert_eq!(code, Some(1), "{said}");
    contains(
        &said,
        &[
            "1 features are not in every table",
            "3 are left",
            "Nuclei_c (not in 'fewer.csv')",
        ],
    );
    assert_eq!(run_json(folder, "fewer")["features"].as_u64(), Some(3));
    let said = refused(folder, &["--features", "one.csv", "other.csv", "--out", "other"]);
    contains(
        &said,
        &["other.csv", "one.csv", "Cells_z", "Cells_a", "--columns"],
    );
}

/// Runs in a shell that allows files of so many blocks of 512 bytes only: as on a full disk, a write then fails.
#[cfg(unix)]
fn with_little_room(folder: &Path, blocks: u32, out: &str) -> Output {
    let script = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" compare --features wells.csv --screen screen.toml --out {out}"
    );
    Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_wellspring")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_written_result() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "screen.toml", OWN);
    write(folder, "wells.csv", &own_table(&["P1", "P2", "P3", "P4"]));
    let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "whole"]);
    assert_eq!(code, Some(0), "{said}");
    let whole = results(folder, "whole");
    let mut failed = 0;
    for blocks in [0, 1, 4, 8, 16, 32, 64] {
        let out = format!("little-{blocks}");
        let output = with_little_room(folder, blocks, &out);
        if output.status.code() == Some(0) {
            continue;
        }
        failed += 1;
        assert_eq!(output.status.code(), Some(2), "{blocks}: {}", stderr(&output));
        contains(&stderr(&output), &[&out]);
        // What has its own name is what a run with room writes.
        for name in results(folder, &out)
            .iter()
            .filter(|name| name.ends_with(".parquet"))
        {
            let read = |out: &str| std::fs::read(folder.join(out).join(name)).unwrap();
            assert!(
                whole.contains(name) && read(&out) == read("whole"),
                "{blocks}: {name}"
            );
        }
        assert!(
            !results(folder, &out).contains(&"run.json".to_owned()),
            "{blocks}"
        );
    }
    assert!(failed >= 4, "{failed}");
}

/// Killed at any moment: what has its own name is whole, and the next run gives what an undisturbed one gives.
#[cfg(unix)]
#[test]
fn killed_in_the_middle_it_leaves_no_half_written_result() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "screen.toml", OWN);
    let plates: Vec<String> = (0..24).map(|i| format!("P{i}")).collect();
    write(
        folder,
        "wells.csv",
        &own_table(&plates.iter().map(String::as_str).collect::<Vec<_>>()),
    );
    let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", "whole"]);
    assert_eq!(code, Some(0), "{said}");
    let mut killed = 0;
    // From when on it is killed: its folder is there, a table is being written, a table is complete.
    for (number, moment) in ["", "wells.parquet.partial", "windows.parquet"]
        .into_iter()
        .enumerate()
    {
        let out = format!("killed-{number}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_wellspring"))
            .args([
                "compare",
                "--features",
                "wells.csv",
                "--screen",
                "screen.toml",
                "--out",
                &out,
            ])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            if folder.join(&out).join(moment).exists() {
                break None;
            }
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            std::thread::yield_now();
        };
        killed += u32::from(ended.is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        for name in results(folder, &out)
            .iter()
            .filter(|name| name.ends_with(".parquet"))
        {
            let read = |out: &str| std::fs::read(folder.join(out).join(name)).unwrap();
            assert!(read(&out) == read("whole"), "{moment}: {name}");
        }
        let (code, _, said) = compare(folder, &["--features", "wells.csv", "--out", &out]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(results(folder, &out), results(folder, "whole"));
        let left = std::fs::read_dir(folder.join(&out)).unwrap();
        assert!(
            left.map(|entry| entry.unwrap().file_name())
                .all(|name| !name.to_string_lossy().ends_with(".partial"))
        );
        assert!(comparisons(folder, &out) == comparisons(folder, "whole"));
    }
    assert!(killed > 0, "a folder is made before anything is read");
}

#[test]
fn results_cannot_be_written_where_a_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "screen.toml", OWN);
    write(folder, "wells.csv", &own_table(&["P1"]));
    write(folder, "taken", "mine");
    let (code, out, said) = compare(folder, &["--features", "wells.csv", "--out", "taken"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    contains(&said, &["taken"]);
    assert_eq!(std::fs::read_to_string(folder.join("taken")).unwrap(), "mine");
}
