//! OME-Zarr plates through the binary: the same pixels as TIFF files and as arrays give the same features, and what is
//! damaged costs its field.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{dead_letters, few_wells, models, rows_of, run_json, wellspring};
use serde_json::{Value, json};
use wellspring::decode::decode;

/// Fields of [`few_wells`].
const FIELDS: u64 = 24;
/// Pixels of a field along either side.
const SIDE: usize = 240;

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The grey levels of a plane of one chunk, packed; what lies outside the plane is 0.
fn chunk(pixels: &[u16], rows: usize, columns: usize, side: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for y in rows..rows + side {
        for x in columns..columns + side {
            let inside = y < SIDE && x < SIDE;
            let level = if inside { pixels[y * SIDE + x] } else { 0 };
            bytes.extend(level.to_le_bytes());
        }
    }
    zstd::bulk::compress(&bytes, 1).unwrap()
}

/// Writes the plate of TIFF files at `tiffs` as an OME-Zarr plate: version 0.4 in chunks of 100 x 100, version 0.5 in shards
/// of 256 x 256 with chunks of 64 x 64.
fn convert(tiffs: &Path, plate: &Path, version: &str) {
    let mut fields: BTreeMap<(String, String), Vec<Vec<u16>>> = BTreeMap::new();
    let mut names: Vec<_> = std::fs::read_dir(tiffs)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let parts: Vec<&str> = name.split('_').collect();
        let image = decode(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((image.height, image.width), (SIDE, SIDE));
        let field = (parts[1].to_owned(), parts[2][1..].to_owned());
        fields.entry(field).or_default().push(image.pixels);
    }
    let sharded = version == "0.5";
    let group = |folder: &Path, attributes: Value| match sharded {
        true => {
            let document = json!({"zarr_format": 3, "node_type": "group", "attributes": {"ome": attributes}});
            write(&folder.join("zarr.json"), document.to_string());
        }
        false => {
            write(&folder.join(".zgroup"), "{\"zarr_format\":2}");
            write(&folder.join(".zattrs"), attributes.to_string());
        }
    };
    let path = |well: &str| format!("{}/{}", &well[..1], well[1..].trim_start_matches('0'));
    let wells: Vec<Value> = fields
        .keys()
        .map(|(well, _)| json!({"path": path(well)}))
        .collect();
    group(
        plate,
        json!({"version": version, "plate": {"wells": wells, "version": version}}),
    );
    for ((well, field), channels) in &fields {
        let well = plate.join(path(well));
        group(
            &well,
            json!({"version": version, "well": {"images": [{"path": field}]}}),
        );
        let space = |name: &str| json!({"name": name, "type": "space", "unit": "micrometer"});
        let image = well.join(field);
        group(
            &image,
            json!({"version": version, "omero": {"channels": [{"label": "Hoechst"}, {"label": "Phalloidin"}]},
                "multiscales": [{"axes": [{"name": "c", "type": "channel"}, space("y"), space("x")],
                    "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5]}]}]}]}),
        );
        let array = image.join("0");
        if sharded {
            write(&array.join("zarr.json"), document_of_shards().to_string());
        } else {
            let document = json!({"zarr_format": 2, "shape": [channels.len(), SIDE, SIDE], "chunks": [1, 100, 100],
                "dtype": "<u2", "order": "C", "fill_value": 0, "filters": null, "dimension_separator": "/",
                "compressor": {"id": "zstd", "level": 1}});
            write(&array.join(".zarray"), document.to_string());
        }
        for (channel, pixels) in channels.iter().enumerate() {
            if sharded {
                write(&array.join(format!("c/{channel}/0/0")), shard(pixels));
                continue;
            }
            for (row, column) in (0..3).flat_map(|row| (0..3).map(move |column| (row, column))) {
                let name = format!("{channel}/{row}/{column}");
                write(&array.join(name), chunk(pixels, row * 100, column * 100, 100));
            }
        }
    }
}

fn document_of_shards() -> Value {
    let little = json!({"name": "bytes", "configuration": {"endian": "little"}});
    let zstd = json!({"name": "zstd", "configuration": {"level": 1, "checksum": false}});
    json!({"zarr_format": 3, "node_type": "array", "shape": [2, SIDE, SIDE], "data_type": "uint16", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 256, 256]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "attributes": {},
        "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 64, 64], "codecs": [little, zstd],
            "index_codecs": [little], "index_location": "end"}}]})
}

/// Chunks of 64 x 64 pixels, and behind them where each lies.
fn shard(pixels: &[u16]) -> Vec<u8> {
    let (mut bytes, mut index) = (Vec::new(), Vec::new());
    for (row, column) in (0..4).flat_map(|row| (0..4).map(move |column| (row, column))) {
        let packed = chunk(pixels, row * 64, column * 64, 64);
        index.extend(
            [bytes.len() as u64, packed.len() as u64]
                .into_iter()
                .flat_map(u64::to_le_bytes),
        );
        bytes.extend(packed);
    }
    bytes.extend(index);
    bytes
}

/// The screen of the plate with its images in `store`, and channels by the labels of [`convert`].
fn screen(plates: &Path, store: &str) -> PathBuf {
    let text = std::fs::read_to_string(plates.join("screen.toml")).unwrap();
    let text = text
        .replace("store = \"images\"", &format!("store = \"{store}\""))
        .replace("layout = \"imagexpress\"", "layout = \"auto\"")
        .replace("\"w1\"", "\"Hoechst\"")
        .replace("\"w2\"", "\"phalloidin\"");
    assert!(text.contains(store) && text.contains("phalloidin"), "{text}");
    let path = plates.join(format!("{store}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

fn run(models: &Path, screen: &Path, out: &Path) -> (i32, Value) {
    run_json(
        wellspring(models)
            .arg("run")
            .arg(screen)
            .arg("--json")
            .arg("--out")
            .arg(out),
    )
}

/// The columns of every field that come from its pixels.
fn features(out: &Path) -> BTreeMap<String, Value> {
    let rows = rows_of(&out.join("features.parquet")).into_iter();
    let of_row = |row: Value| {
        let row = row.as_object().unwrap().clone();
        let name = format!("{} {}", row["Metadata_Well"], row["Metadata_Site"]);
        let of_pixels = row
            .into_iter()
            .filter(|(column, _)| !column.starts_with("Metadata_"));
        (name, Value::Object(of_pixels.collect()))
    };
    rows.map(of_row).collect()
}

#[test]
fn plates_of_files_chunks_and_shards_give_the_same_features() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\", \"AGP\"");
    let tiffs = plates.join("images/SMALL0001");
    let out = folder.path().join("tiff");
    let (_, summary) = run(&models, &plates.join("screen.toml"), &out);
    assert_eq!(
        (&summary["dead_letters"], &summary["fields_done"]),
        (&Value::from(0), &Value::from(FIELDS)),
        "{summary}"
    );
    let expected = features(&out);
    assert_eq!(expected.len() as u64, FIELDS);
    for (version, store) in [("0.4", "chunks"), ("0.5", "shards")] {
        convert(&tiffs, &plates.join(store).join("SMALL0001.ome.zarr"), version);
        let screen = screen(&plates, store);
        let checked = wellspring(&models)
            .arg("check")
            .arg(&screen)
            .arg("--images")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{said}");
        for line in [
            format!("has the attributes of an OME-Zarr {version} plate"),
            "plate SMALL0001: 24 fields".to_owned(),
            "channel DNA: Hoechst, 0.5 um/pixel, 16 bits".to_owned(),
            "channel AGP: Phalloidin, 0.5 um/pixel, 16 bits".to_owned(),
        ] {
            assert!(said.contains(&line), "no '{line}' in {said}");
        }
        let out = folder.path().join(version);
        let (_, summary) = run(&models, &screen, &out);
        assert_eq!(
            (&summary["dead_letters"], &summary["fields_done"]),
            (&Value::from(0), &Value::from(FIELDS)),
            "{summary}"
        );
        assert!(
            features(&out) == expected,
            "{version} has other features than the TIFF files"
        );
    }
}

#[test]
fn what_is_damaged_costs_its_field_and_says_where() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\", \"AGP\"");
    let plate = plates.join("damaged/SMALL0001.zarr");
    convert(&plates.join("images/SMALL0001"), &plate, "0.4");
    // A chunk that is none, one that becomes more than it may, a document of another array, a plane that is not there.
    std::fs::write(plate.join("A/1/1/0/1/2/2"), b"not zstd").unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    std::fs::write(plate.join("A/2/1/0/0/0/0"), bomb).unwrap();
    let document = std::fs::read_to_string(plate.join("B/1/1/0/.zarray")).unwrap();
    std::fs::write(plate.join("B/1/1/0/.zarray"), document.replace("<u2", "<f4")).unwrap();
    std::fs::remove_dir_all(plate.join("C/1/1/0/1")).unwrap();
    // Behind the plan's back: codecs are read when pixels are.
    let document = std::fs::read_to_string(plate.join("D/1/1/0/.zarray")).unwrap();
    std::fs::write(
        plate.join("D/1/1/0/.zarray"),
        document.replace("\"zstd\"", "\"lzma\""),
    )
    .unwrap();
    // An object that is far larger than the document allows.
    std::fs::write(plate.join("E/1/1/0/0/0/0"), vec![0; 1 << 20]).unwrap();

    let out = folder.path().join("out");
    let (code, summary) = run(&models, &screen(&plates, "damaged"), &out);
    assert_eq!(
        (code, &summary["fields_done"]),
        (1, &Value::from(FIELDS - 6)),
        "{summary}"
    );
    let letters = dead_letters(&out);
    assert_eq!(letters.len(), 6, "{letters:#?}");
    for (well, parts) in [
        (
            "A01",
            [
                "plane 1 of SMALL0001.zarr/A/1/1/0/.zarray (channel AGP)",
                "chunk 1/2/2 cannot be unpacked: zstd",
            ],
        ),
        (
            "A02",
            [
                "plane 0 of SMALL0001.zarr/A/2/1/0/.zarray (channel DNA)",
                "more than the 20000 bytes",
            ],
        ),
        (
            "B01",
            [
                "SMALL0001.zarr/B/1/1/0/.zarray cannot be used",
                "its pixels are \"<f4\"",
            ],
        ),
        (
            "C01",
            [
                "channel AGP",
                "lists files that are not there: SMALL0001.zarr/C/1/1/0/1/0/0",
            ],
        ),
        ("D01", ["SMALL0001.zarr/D/1/1/0/.zarray cannot be used", "'lzma'"]),
        (
            "E01",
            ["SMALL0001.zarr/E/1/1/0/0/0/0' has 1048576 bytes", "at most 88036"],
        ),
    ] {
        let letter = letters.iter().find(|letter| letter["well"] == well);
        let letter = letter.unwrap_or_else(|| panic!("no letter of {well} in {letters:#?}"));
        assert_eq!(
            (&letter["plate"], &letter["field"]),
            (&json!("SMALL0001"), &json!(1))
        );
        let message = letter["message"].as_str().unwrap();
        for part in parts {
            assert!(message.contains(part), "{well}: no '{part}' in: {message}");
        }
    }
}
