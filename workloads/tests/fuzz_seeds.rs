//! The seeds of the fuzz targets are metadata files and plate maps that are read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unreachable_pub,
    reason = "the fuzz targets' crate exports what is included here"
)]

use std::path::Path;

#[path = "../fuzz/src/reading.rs"]
mod reading;

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    inputs("seeds", target)
}

fn inputs(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(kind)
        .join(target);
    let seeds = std::fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.display().to_string(), std::fs::read(path).unwrap())
    });
    seeds.collect()
}

#[test]
fn every_seed_of_a_layout_gives_fields() {
    for target in [
        "htd",
        "harmony",
        "cellvoyager",
        "load_data",
        "ome_xml",
        "ome_zarr",
        "description",
    ] {
        let seeds = seeds(target);
        assert!(!seeds.is_empty());
        for (name, bytes) in seeds {
            let found = reading::layout(target, &bytes).unwrap();
            let fields: usize = found.plates.values().map(Vec::len).sum();
            assert!(fields > 0, "{name}: {:#?}", found.problems);
        }
    }
}

#[test]
fn every_seed_of_a_plate_map_gives_rows() {
    for (name, bytes) in seeds("plate_map") {
        assert!(reading::plate_map(&bytes).is_some(), "{name}");
    }
    for (name, bytes) in seeds("workbook") {
        assert!(reading::workbook(&bytes).is_some(), "{name}");
    }
}

/// Two cells far from each other were a rectangle of billions in memory.
#[test]
fn sheets_whose_cells_lie_far_apart_are_refused() {
    let found = inputs("findings", "workbook");
    // Excel's new format and its old one, and LibreOffice's.
    assert_eq!(found.len(), 5);
    for (name, bytes) in found {
        assert!(reading::workbook(&bytes).is_none(), "{name}");
    }
}
