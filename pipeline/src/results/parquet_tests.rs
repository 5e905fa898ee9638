//! Rows come back, unfinished files are never taken for results, the same rows give the same bytes.

use super::*;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs;

fn columns() -> Vec<Column> {
    vec![
        Column::required("Metadata_Well", ColumnKind::Text),
        Column::required("fields", ColumnKind::Int64),
        Column::optional("dose", ColumnKind::Float64),
        Column::optional("score", ColumnKind::Float32),
    ]
}

fn names(width: usize) -> Vec<String> {
    (0..width).map(|i| format!("m_{i}")).collect()
}

fn write(path: &Path, rows: usize, width: usize) {
    let metadata = [("wellspring.seed".to_owned(), "7".to_owned())];
    let mut table = TableWriter::create(path, columns(), &names(width), &metadata).unwrap();
    for row in 0..rows {
        let well = format!("A{row:02}");
        let features: Vec<f32> = (0..width).map(|i| (row * width + i + 1) as f32).collect();
        let dose = (row % 3 != 0).then_some(row as f64 / 3.0);
        table
            .push(
                &[
                    Cell::Text(&well),
                    Cell::Int(row as i64),
                    Cell::number(dose),
                    Cell::Missing,
                ],
                &features,
            )
            .unwrap();
    }
    assert_eq!(table.finish().unwrap(), rows as u64);
}

#[test]
fn rows_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write(&path, 5, 3);
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let file = reader.metadata().file_metadata();
    assert_eq!(file.num_rows(), 5);
    assert_eq!(file.created_by(), Some(CREATED_BY));
    assert_eq!(file.key_value_metadata().unwrap()[0].value.as_deref(), Some("7"));
    let names: Vec<_> = file
        .schema_descr()
        .columns()
        .iter()
        .map(|c| c.name().to_owned())
        .collect();
    assert_eq!(
        names,
        ["Metadata_Well", "fields", "dose", "score", "m_0", "m_1", "m_2"]
    );
    let rows: Vec<String> = reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| row.unwrap().to_string())
        .collect();
    assert_eq!(
        rows[0],
        r#"{Metadata_Well: "A00", fields: 0, dose: null, score: null, m_0: 1.0, m_1: 2.0, m_2: 3.0}"#
    );
    assert!(
        rows[4].contains("dose: 1.3333333333333333") && rows[4].contains("m_2: 15.0"),
        "{}",
        rows[4]
    );
}

#[test]
fn many_row_groups_keep_every_row_and_the_same_rows_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"));
    for path in [&a, &b] {
        let mut table = TableWriter::create(path, columns(), &names(2), &[]).unwrap();
        table.group_rows = 2;
        for row in 0..3 {
            let cells = [
                Cell::Text("A01"),
                Cell::Int(row),
                Cell::Number(1.5),
                Cell::Missing,
            ];
            table.push(&cells, &[row as f32, -1.0]).unwrap();
        }
        table.finish().unwrap();
    }
    let reader = SerializedFileReader::new(File::open(&a).unwrap()).unwrap();
    assert_eq!(reader.num_row_groups(), 2);
    assert_eq!(reader.get_row_iter(None).unwrap().count(), 3);
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
}

#[test]
fn a_table_without_rows_is_a_valid_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.parquet");
    write(&path, 0, 2);
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    assert_eq!(reader.metadata().file_metadata().schema_descr().num_columns(), 6);
}

#[test]
fn an_unfinished_table_is_never_taken_as_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write(&path, 2, 1);
    let before = fs::read(&path).unwrap();
    let mut table = TableWriter::create(&path, columns(), &names(1), &[]).unwrap();
    table
        .push(
            &[Cell::Text("B01"), Cell::Int(1), Cell::Missing, Cell::Missing],
            &[1.0],
        )
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(table);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn rows_that_do_not_fit_are_refused_by_column_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let mut table = TableWriter::create(&path, columns(), &names(2), &[]).unwrap();
    let good = [
        Cell::Text("A01"),
        Cell::Int(1),
        Cell::Number(f64::NAN),
        Cell::Missing,
    ];
    table.push(&good, &[0.0, 1.0]).unwrap();
    for (cells, features, word) in [
        (&good[..3], &[0.0f32, 1.0][..], "4"),
        (&good[..], &[0.0][..], "features"),
        (
            &[Cell::Missing, Cell::Int(1), Cell::Missing, Cell::Missing][..],
            &[0.0, 1.0],
            "Metadata_Well",
        ),
        (
            &[Cell::Text("A"), Cell::Number(1.0), Cell::Missing, Cell::Missing][..],
            &[0.0, 1.0],
            "fields",
        ),
    ] {
        let error = table.push(cells, features).unwrap_err().to_string();
        assert!(
            error.contains(word) && error.contains("t.parquet") && error.contains("row 2"),
            "{error}"
        );
    }
    assert_eq!(table.finish().unwrap(), 1);
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let row = reader
        .get_row_iter(None)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .to_string();
    assert!(row.contains("dose: null"), "{row}");
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let error = TableWriter::create(&path, columns(), &["dose".to_owned()], &[]).unwrap_err();
    assert!(error.to_string().contains("dose"), "{error}");
    assert!(TableWriter::create(&path, vec![], &[], &[]).is_err());
}
