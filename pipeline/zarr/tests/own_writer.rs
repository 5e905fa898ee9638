//! Arrays written by the crate `zarrs` itself, in the ways that it writes without unbounded codecs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{Folder, level};
use wellspring_zarr::{Chunk, Plane};
use zarrs::array::{Array, ArrayMetadata, ArraySubset};
use zarrs::storage::store::MemoryStore;
use zarrs::storage::{ListableStorageTraits, ReadableStorageTraits};

/// The files of an array `a` of 2 x 3 planes of 20 x 30 pixels with this document.
fn written(document: &serde_json::Value) -> Folder {
    let metadata: ArrayMetadata = serde_json::from_value(document.clone()).unwrap();
    let store = Arc::new(MemoryStore::new());
    let array = Array::new_with_metadata(store.clone(), "/a", metadata).unwrap();
    array.store_metadata().unwrap();
    let pixels: Vec<u16> = (0..6 * 20 * 30)
        .map(|at| level(at / 600, at as usize % 600 / 30, at as usize % 30, 0))
        .collect();
    array
        .store_array_subset(&ArraySubset::new_with_shape(vec![2, 3, 20, 30]), pixels)
        .unwrap();
    let mut folder = Folder::default();
    for key in store.list().unwrap() {
        let bytes = store.get(&key).unwrap().unwrap();
        folder.add(key.as_str(), bytes.to_vec());
    }
    folder
}

fn expected(page: u32) -> Vec<u16> {
    (0..600).map(|at| level(page, at / 30, at % 30, 0)).collect()
}

#[test]
fn arrays_of_both_versions_are_read() {
    let v2 = |change: serde_json::Value| {
        let mut document = serde_json::json!({
            "zarr_format": 2, "shape": [2, 3, 20, 30], "chunks": [1, 2, 16, 16], "dtype": "<u2", "fill_value": 0,
            "order": "C", "filters": null, "dimension_separator": "/", "compressor": null,
        });
        document
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        document
    };
    let v3 = |codecs: serde_json::Value| {
        serde_json::json!({
            "zarr_format": 3, "node_type": "array", "shape": [2, 3, 20, 30], "data_type": "uint16", "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3, 16, 16]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "codecs": codecs,
        })
    };
    let bytes = serde_json::json!({"name": "bytes", "configuration": {"endian": "big"}});
    let blosc = serde_json::json!({"name": "blosc", "configuration":
        {"cname": "snappy", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}});
    for document in [
        v2(serde_json::json!({})),
        v2(serde_json::json!({"order": "F", "dtype": ">u2", "fill_value": null})),
        v2(serde_json::json!({"compressor":
            {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2, "blocksize": 0}})),
        v3(serde_json::json!([bytes])),
        v3(
            serde_json::json!([{"name": "transpose", "configuration": {"order": [1, 0, 3, 2]}}, bytes, blosc]),
        ),
        v3(serde_json::json!([bytes, {"name": "crc32c"}])),
    ] {
        let folder = written(&document);
        let array = folder.array("a").unwrap();
        for page in 0..6 {
            assert_eq!(
                folder.plane(&array, "a", page).unwrap(),
                expected(page),
                "{document}"
            );
        }
    }
}

#[test]
fn a_chunk_of_many_planes_is_unpacked_once() {
    let folder = written(&serde_json::json!({
        "zarr_format": 2, "shape": [2, 3, 20, 30], "chunks": [2, 3, 20, 30], "dtype": "<u2", "fill_value": 0,
        "order": "C", "filters": null, "compressor": null,
    }));
    let array = folder.array("a").unwrap();
    let chunk = Arc::new(Chunk::new(
        folder.bytes("a/0.0.0.0").unwrap().to_vec().into(),
        true,
    ));
    for page in 0..6 {
        let tiles = array.tiles(page).unwrap().into_iter();
        let plane = Plane::new(
            array.clone(),
            tiles.map(|tile| (tile, Some(chunk.clone()))).collect(),
        );
        let mut pixels = vec![0; 600];
        plane.read(&mut pixels).unwrap();
        assert_eq!(pixels, expected(page));
    }
    let error = Plane::new(array, Vec::new()).read(&mut [0; 599]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a buffer of 599 pixels was given for a plane of 600"
    );
}
