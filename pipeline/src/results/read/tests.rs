use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};

use super::*;
use crate::results::{Cell, Column, ColumnKind, ProfileTable, Provenance, TableWriter, feature_names};

type RowText = (BTreeMap<String, String>, Vec<f32>);

/// All rows of a table with all their cells.
fn rows(path: &Path, features: &FeatureColumns) -> Result<Vec<RowText>, ReadError> {
    let file = ProfileFile::open(path, features, &[])?;
    let (names, width) = (file.metadata().to_vec(), file.features().len());
    let all: Vec<usize> = (0..names.len()).collect();
    let mut rows = Vec::new();
    for block in file.blocks(&all) {
        let block = block?;
        assert_eq!(block.first_row, rows.len() as u64 + 1);
        for row in 0..block.rows {
            let cells = names.iter().zip(&block.metadata);
            let cells = cells.filter_map(|(name, cells)| Some((name.clone(), cells[row].clone()?)));
            rows.push((
                cells.collect(),
                block.values[row * width..(row + 1) * width].to_vec(),
            ));
        }
    }
    Ok(rows)
}

fn provenance() -> Provenance {
    Provenance {
        screen: "s".to_owned(),
        run: "r".to_owned(),
        screen_sha256: "00".to_owned(),
        model: "net".to_owned(),
        model_sha256: "11".to_owned(),
        seed: 1,
        transform_sha256: None,
    }
}

fn profile(well: &str, dose: Option<f64>, values: Vec<f32>) -> WellProfile {
    WellProfile {
        plate: "P1".parse().unwrap(),
        well: well.parse().unwrap(),
        treatment: Treatment {
            role: Role::Treated,
            disease: None,
            compound: Some("drug \"x\", 1".to_owned()),
            dose,
        },
        fields: 3,
        cell_count: None,
        values,
    }
}

#[test]
fn our_own_profiles_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = ProfileTable::create(dir.path(), &feature_names("net", 2), &provenance()).unwrap();
    table
        .push(&profile("A01", Some(0.3), vec![1.5, -2.0]), false)
        .unwrap();
    table.push(&profile("AF48", None, vec![0.1, 0.0]), true).unwrap();
    assert_eq!(table.finish().unwrap(), 2);
    let path = dir.path().join(ProfileTable::FILE);
    let file = ProfileFile::open(&path, &FeatureColumns::Auto, &[]).unwrap();
    assert_eq!(file.features(), ["net_0", "net_1"]);
    let rows = rows(&path, &FeatureColumns::Auto).unwrap();
    assert_eq!(rows[0].1, [1.5, -2.0]);
    assert_eq!(rows[0].0["Metadata_compound"], "drug \"x\", 1");
    assert_eq!(rows[0].0["Metadata_dose"], "0.3");
    assert_eq!(rows[0].0["dose"], "0.3");
    assert_eq!(rows[1].0["Metadata_Well"], "AF48");
    assert_eq!(
        [&rows[0], &rows[1]].map(|row| row.0["Metadata_held_back"].as_str()),
        ["false", "true"]
    );
    assert!(!rows[1].0.contains_key("dose"));
}

/// One row group of any length is read in blocks, and what is not asked for is not read.
#[test]
fn long_row_groups_are_read_in_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("others.parquet");
    let columns = vec![
        Column::required("well_position", ColumnKind::Text),
        Column::optional("e_0", ColumnKind::Float64),
        Column::required("e_1", ColumnKind::Int64),
        Column::optional("note", ColumnKind::Text),
    ];
    let count = 40_000;
    let mut table = TableWriter::create(&path, columns, &["e_2".to_owned()], &[]).unwrap();
    for i in 0..count {
        let number = (i % 2 == 0).then_some(i as f64);
        let note = (i % 3 == 0).then(|| i.to_string());
        table
            .push(
                &[
                    Cell::Text("b3"),
                    Cell::number(number),
                    Cell::Int(i),
                    Cell::text(note.as_deref()),
                ],
                &[i as f32],
            )
            .unwrap();
    }
    table.finish().unwrap();
    let file = ProfileFile::open(&path, &FeatureColumns::Auto, &[]).unwrap();
    assert_eq!(file.metadata(), ["well_position", "note"]);
    let (mut at, mut blocks) = (0i64, 0);
    for block in file.blocks(&[1]) {
        let block = block.unwrap();
        blocks += 1;
        assert_eq!((block.first_row, block.metadata.len()), (at as u64 + 1, 1));
        for row in 0..block.rows {
            let values = &block.values[row * 3..row * 3 + 3];
            assert_eq!(values[0].is_nan(), at % 2 == 1);
            assert_eq!(values[1..], [at as f32, at as f32]);
            assert_eq!(block.metadata[0][row], (at % 3 == 0).then(|| at.to_string()));
            at += 1;
        }
    }
    assert_eq!(at, count);
    assert!(blocks > 1);
}

/// pandas and Arrow write Snappy unless told otherwise; others write gzip or LZ4.
#[test]
fn every_usual_compression_is_read() {
    use ::parquet::basic::{Compression, GzipLevel, Repetition, Type as Physical};
    use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::types::Type;
    use std::sync::Arc;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let column = |name, physical| {
        let column = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
        Arc::new(column.build().unwrap())
    };
    let fields = vec![
        column("Metadata_Well", Physical::BYTE_ARRAY),
        column("e_0", Physical::DOUBLE),
    ];
    let schema = Arc::new(
        Type::group_type_builder("schema")
            .with_fields(fields)
            .build()
            .unwrap(),
    );
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4_RAW,
    ] {
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let file = fs::File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema.clone(), properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let wells = vec![ByteArray::from("A01"); 50];
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&wells, None, None)
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<DoubleType>()
            .write_batch(&[0.5; 50], None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let rows = rows(&path, &FeatureColumns::Auto).unwrap();
        assert_eq!((rows.len(), rows[49].1[0]), (50, 0.5), "{compression}");
    }
}

#[test]
fn csv_tsv_and_gzip_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let csv =
        "\u{feff}Metadata_Plate,Metadata_Well,Metadata_site,Cells_a,Cells_b\nP,a1,7,1.5,NaN\nP,A02,,-2e3,0\n";
    let tsv = csv.replace(',', "\t");
    let paths = ["a.csv", "a.tsv", "a.csv.gz"].map(|name| dir.path().join(name));
    fs::write(&paths[0], csv).unwrap();
    fs::write(&paths[1], tsv).unwrap();
    let mut gz = GzEncoder::new(fs::File::create(&paths[2]).unwrap(), Compression::default());
    gz.write_all(csv.as_bytes()).unwrap();
    gz.finish().unwrap();
    for path in &paths {
        let rows = rows(path, &FeatureColumns::Auto).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].0["Metadata_Well"], "a1");
        assert_eq!(rows[0].0["Metadata_site"], "7");
        assert!(!rows[1].0.contains_key("Metadata_site"));
        assert_eq!(rows[0].1[0], 1.5);
        assert!(rows[0].1[1].is_nan());
        assert_eq!(rows[1].1, [-2000.0, 0.0]);
    }
}

/// pandas writes its row numbers under an empty name.
#[test]
fn a_column_without_a_name_is_no_feature() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pandas.csv");
    fs::write(&path, ",well,0,1\n0,A01,0.5,1.5\n1,A02,2.5,inf\n").unwrap();
    let file = ProfileFile::open(&path, &FeatureColumns::Auto, &[]).unwrap();
    assert_eq!(file.features(), ["0", "1"]);
    assert_eq!(file.metadata(), ["Unnamed: 0", "well"]);
    assert!(rows(&path, &FeatureColumns::Auto).unwrap()[1].1[1].is_infinite());
}

fn error_of(name: &str, text: &str, features: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    rows(&path, &FeatureColumns::from_text(features))
        .unwrap_err()
        .to_string()
}

#[test]
fn what_is_wrong_is_named_with_file_row_and_column() {
    for (text, features, words) in [
        ("Well,e_0\nA01,1\n", "net_*", &["net_*", "Well, e_0"][..]),
        ("Well,e_0\nA01,1\nA02,high\n", "e_", &["row 2", "e_0", "'high'"]),
        ("Well,e_0\nA01,1\nA02,1,2\n", "e_", &["CSV", "line"]),
        ("Well,e_0,e_0\nA01,1,2\n", "e_", &["two columns", "e_0"]),
        ("", "", &["with nothing"]),
    ] {
        let error = error_of("bad.csv", text, features);
        for word in words.iter().chain(&["bad.csv"]) {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    assert!(error_of("cut.parquet", "PAR1 and then nothing", "").contains("cut.parquet"));
}

#[test]
fn text_columns_are_no_features() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let columns = vec![
        Column::required("Well", ColumnKind::Text),
        Column::required("e_0", ColumnKind::Text),
    ];
    TableWriter::create(&path, columns, &[], &[])
        .unwrap()
        .finish()
        .unwrap();
    let error = rows(&path, &FeatureColumns::from_text("e_*"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("e_0") && error.contains("text"), "{error}");
}
