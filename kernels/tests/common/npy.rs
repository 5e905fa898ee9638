//! Reference outputs of the field's own tools, in `../shared/oracles`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "each test uses some of this; a failed unwrap fails the test; skips are printed"
)]

use std::path::PathBuf;

/// The folder, or `None` (and a line that says so) where it is absent.
pub fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: ../shared not present");
    None
}

/// Shape, element type and bytes of a NumPy file (version 1, C order).
pub fn read(name: &str) -> Option<(Vec<usize>, String, Vec<u8>)> {
    let bytes = std::fs::read(folder()?.join(name)).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY", "{name}");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.contains("'fortran_order': False"), "{name}: {header}");
    let after = |key: &str| header.split_once(key).unwrap().1;
    let descr = after("'descr': '").split('\'').next().unwrap().to_owned();
    let dims = after("'shape': (").split(')').next().unwrap();
    let shape = dims
        .split(',')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .map(|d| d.parse().unwrap())
        .collect();
    Some((shape, descr, bytes[10 + length..].to_vec()))
}

/// An array of 16-bit unsigned integers.
pub fn u16s(name: &str) -> Option<(Vec<usize>, Vec<u16>)> {
    let (shape, descr, bytes) = read(name)?;
    assert_eq!(descr, "<u2", "{name}");
    Some((shape, words(&bytes)))
}

/// 16-bit values.
pub fn words(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]))
        .collect()
}

/// An array of floats of either size.
pub fn floats(name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
    let (shape, descr, bytes) = read(name)?;
    let values = match descr.as_str() {
        "<f4" => bytes
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
        "<f8" => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        other => panic!("{name} holds {other}"),
    };
    Some((shape, values))
}

/// A JSON file.
pub fn json(name: &str) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(folder()?.join(name)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}
