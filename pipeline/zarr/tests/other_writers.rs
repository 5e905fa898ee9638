//! Arrays written by zarr-python and numcodecs (`made/make.py`), in every way of storing that is read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Folder, level};
use wellspring_zarr::{Limits, ZarrArray, ZarrError};

const HEIGHT: usize = 20;
const WIDTH: usize = 30;

fn arrays() -> Folder {
    Folder::unpacked(include_bytes!("made/arrays.zip"))
}

fn names(folder: &Folder) -> Vec<String> {
    let mut names: Vec<String> = folder
        .paths()
        .filter_map(|path| Some(path.split_once('/')?.0.to_owned()))
        .collect();
    names.dedup();
    names
}

#[test]
fn planes_of_every_way_of_storing_are_read() {
    let folder = arrays();
    let names = names(&folder);
    assert_eq!(names.len(), 23, "{names:?}");
    for name in names.iter().filter(|name| *name != "v3-floats") {
        let array = folder.array(name).unwrap();
        assert_eq!((array.height(), array.width()), (HEIGHT, WIDTH));
        let bytes = name.ends_with("bytes");
        assert_eq!(array.ceiling(), if bytes { 255 } else { 65535 });
        for page in 0..6 {
            let pixels = folder.plane(&array, name, page).unwrap();
            let absent = name.starts_with("v3-half") && page >= 3;
            let expected: Vec<u16> = (0..HEIGHT * WIDTH)
                .map(|at| match (absent, level(page, at / WIDTH, at % WIDTH, 0)) {
                    (true, _) => 7,
                    (false, level) if bytes => level % 256,
                    (false, level) => level,
                })
                .collect();
            assert!(
                pixels == expected,
                "{name} plane {page}: {:?} is not {:?}",
                &pixels[..8],
                &expected[..8]
            );
        }
        let error = array.tiles(6).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the array has 6 planes, and plane 6 is asked for"
        );
    }
}

#[test]
fn only_the_chunks_of_the_plane_are_asked_for() {
    let folder = arrays();
    let objects = |name: &str, page| -> Vec<(String, Option<u64>)> {
        let tiles = folder.array(name).unwrap().tiles(page).unwrap();
        tiles.into_iter().map(|tile| (tile.object, tile.inner)).collect()
    };
    let keys = |name: &str, page| {
        objects(name, page)
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("v2-raw", 3), ["1.0.0.0", "1.0.0.1", "1.0.1.0", "1.0.1.1"]);
    assert_eq!(
        keys("v2-raw-slash", 2),
        ["0/1/0/0", "0/1/0/1", "0/1/1/0", "0/1/1/1"]
    );
    assert_eq!(
        keys("v3-raw", 5),
        ["c/1/1/0/0", "c/1/1/0/1", "c/1/1/1/0", "c/1/1/1/1"]
    );
    assert_eq!(keys("v2-zlib", 4), ["0.0.0.0"]);
    // 3 x 4 of the chunks of plane 1 of the shard's 2 x 3 planes of 3 x 4 chunks.
    let sharded = objects("v3-shards", 1);
    let expected: Vec<_> = (12..24)
        .map(|inner| ("c/0/0/0/0".to_owned(), Some(inner)))
        .collect();
    assert_eq!(sharded, expected);
}

#[test]
fn arrays_that_are_no_grey_levels_say_what_they_are() {
    let error = arrays().array("v3-floats").unwrap_err();
    assert!(matches!(error, ZarrError::Pixels { .. }), "{error:?}");
    assert!(error.to_string().contains("\"float32\""), "{error}");
}

#[test]
fn damaged_and_cut_chunks_are_errors_that_name_them() {
    let folder = arrays();
    for name in names(&folder).iter().filter(|name| !name.contains("floats")) {
        let array = folder.array(name).unwrap();
        let objects: Vec<String> = folder
            .paths()
            .filter(|path| {
                path.starts_with(&format!("{name}/")) && !path.ends_with("json") && !path.contains("/.")
            })
            .map(str::to_owned)
            .collect();
        for object in objects {
            let whole = folder.bytes(&object).unwrap().to_vec();
            for length in [0, 1, 3, whole.len() / 2, whole.len() - 1] {
                let mut cut = folder.clone();
                cut.add(&object, whole[..length].to_vec());
                let failed: Vec<ZarrError> = (0..6)
                    .filter_map(|page| cut.plane(&array, name, page).err())
                    .collect();
                assert!(!failed.is_empty(), "{object} cut to {length} bytes is no error");
            }
            // Whatever becomes of damaged bytes, it is no panic; with a checksum it is an error.
            for at in (0..whole.len()).step_by(whole.len().div_ceil(40)) {
                let mut damaged = folder.clone();
                let mut bytes = whole.clone();
                bytes[at] ^= 0x55;
                damaged.add(&object, bytes);
                for page in 0..6 {
                    let _whatever = damaged.plane(&array, name, page);
                }
            }
        }
    }
    let mut damaged = folder.clone();
    let array = folder.array("v3-gzip-crc32c").unwrap();
    let mut bytes = folder.bytes("v3-gzip-crc32c/c/0/0/0/0").unwrap().to_vec();
    bytes[20] ^= 1;
    damaged.add("v3-gzip-crc32c/c/0/0/0/0", bytes);
    let error = damaged.plane(&array, "v3-gzip-crc32c", 0).unwrap_err();
    assert_eq!(error.to_string(), "chunk c/0/0/0/0 cannot be unpacked");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("crc32c finds it damaged: its checksum is"),
        "{source}"
    );
}

#[test]
fn limits_are_kept_before_anything_is_read() {
    let folder = arrays();
    let document = folder.bytes("v2-zlib/.zarray").unwrap();
    let small = Limits {
        pixels: 600,
        ..Limits::default()
    };
    let error = ZarrArray::parse(document, small).unwrap_err();
    assert!(matches!(error, ZarrError::ChunkSize { .. }), "{error:?}");
    let smaller = Limits {
        pixels: 599,
        ..Limits::default()
    };
    let error = ZarrArray::parse(document, smaller).unwrap_err();
    assert!(matches!(error, ZarrError::PlaneSize { .. }), "{error:?}");
}
