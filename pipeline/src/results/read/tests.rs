//! Our own files and those of others are read back; what is wrong is named.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};

use super::*;
use crate::results::parquet::{Cell, Column, ColumnKind, TableWriter};
use crate::results::tables::{ProfileTable, Provenance};

fn provenance() -> Provenance {
    Provenance {
        screen: "s".to_owned(),
        run: "r".to_owned(),
        screen_sha256: "00".to_owned(),
        model: "net".to_owned(),
        model_sha256: "11".to_owned(),
        seed: 1,
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
    let mut table = ProfileTable::create(dir.path(), "net", 2, &provenance()).unwrap();
    table.push(&profile("A01", Some(0.3), vec![1.5, -2.0])).unwrap();
    table.push(&profile("AF48", None, vec![0.1, 0.0])).unwrap();
    assert_eq!(table.finish().unwrap(), 2);
    let set = read_profiles(&[dir.path().join(ProfileTable::FILE)], &FeatureColumns::Auto).unwrap();
    assert_eq!(set.features, ["net_0", "net_1"]);
    assert_eq!(set.rows[0].values, [1.5, -2.0]);
    assert_eq!(set.rows[0].metadata["Metadata_compound"], "drug \"x\", 1");
    assert_eq!(set.rows[0].metadata["Metadata_dose"], "0.3");
    assert_eq!(set.rows[0].metadata["dose"], "0.3");
    assert_eq!(set.rows[1].well.to_string(), "AF48");
    assert_eq!(set.rows[1].plate.as_deref(), Some("P1"));
    assert!(!set.rows[1].metadata.contains_key("dose"));
}

#[test]
fn numbers_of_every_kind_and_many_batches_are_features() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("others.parquet");
    let columns = vec![
        Column::required("well_position", ColumnKind::Text),
        Column::optional("e_0", ColumnKind::Float64),
        Column::required("e_1", ColumnKind::Int64),
    ];
    let mut table = TableWriter::create(&path, columns, &["e_2".to_owned()], &[]).unwrap();
    for i in 0..2500i64 {
        let number = (i % 2 == 0).then_some(i as f64);
        table
            .push(
                &[Cell::Text("b3"), Cell::number(number), Cell::Int(i)],
                &[i as f32],
            )
            .unwrap();
    }
    table.finish().unwrap();
    let rows: Vec<ProfileRow> = ProfileFile::open(&path, &FeatureColumns::Auto)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 2500);
    assert_eq!(rows[2048].values, [2048.0, 2048.0, 2048.0]);
    assert!(rows[2049].values[0].is_nan());
    assert_eq!((rows[2499].row, rows[2499].plate.clone()), (2500, None));
    assert_eq!(rows[0].well.to_string(), "B03");
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
        let set = read_profiles(std::slice::from_ref(&path), &FeatureColumns::Auto).unwrap();
        assert_eq!(
            (set.rows.len(), set.rows[49].values[0]),
            (50, 0.5),
            "{compression}"
        );
    }
}

#[test]
fn csv_tsv_and_gzip_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let csv = "\u{feff}Metadata_Plate,Metadata_Well,Metadata_site,Cells_a,Cells_b\nP,a1,7,1.5,NaN\nP,A02,8,-2e3,0\n";
    let tsv = csv.replace(',', "\t");
    let paths = ["a.csv", "a.tsv", "a.csv.gz"].map(|name| dir.path().join(name));
    fs::write(&paths[0], csv).unwrap();
    fs::write(&paths[1], tsv).unwrap();
    let mut gz = GzEncoder::new(fs::File::create(&paths[2]).unwrap(), Compression::default());
    gz.write_all(csv.as_bytes()).unwrap();
    gz.finish().unwrap();
    let set = read_profiles(&paths, &FeatureColumns::Auto).unwrap();
    assert_eq!(set.rows.len(), 6);
    for pair in set.rows.chunks(2) {
        assert_eq!(pair[0].well.to_string(), "A01");
        assert_eq!(pair[0].metadata["Metadata_site"], "7");
        assert_eq!(pair[0].values[0], 1.5);
        assert!(pair[0].values[1].is_nan());
        assert_eq!(pair[1].values, [-2000.0, 0.0]);
    }
}

fn error_of(name: &str, text: &str, features: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    read_profiles(&[path], &FeatureColumns::from_text(features))
        .unwrap_err()
        .to_string()
}

#[test]
fn what_is_wrong_is_named_with_file_row_and_column() {
    for (text, features, words) in [
        (
            "a,e_0\nA01,1\n",
            "",
            &["well column", "Metadata_Well", "a, e_0"][..],
        ),
        ("Well,e_0\nA01,1\n", "net_*", &["net_*", "Well, e_0"]),
        ("Well,e_0\nA01,1\nA02,high\n", "e_", &["row 2", "e_0", "'high'"]),
        ("Well,e_0\nA01,1\nZZZ,2\n", "e_", &["row 2", "Well", "'ZZZ'"]),
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
    let error = read_profiles(&[path], &FeatureColumns::from_text("e_*"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("e_0") && error.contains("text"), "{error}");
}

#[test]
fn files_of_two_models_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("a.csv"), dir.path().join("b.csv")];
    fs::write(&paths[0], "Well,e_0,e_1\nA01,1,2\n").unwrap();
    fs::write(&paths[1], "Well,e_0,e_9\nA01,1,2\n").unwrap();
    let error = read_profiles(&paths, &FeatureColumns::Auto)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("e_9") && error.contains("a.csv") && error.contains("b.csv"),
        "{error}"
    );
}
