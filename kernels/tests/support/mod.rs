//! Reading the reference outputs in `../shared/oracles`, for tests that skip where they are absent.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "each test uses some of this; a failed unwrap fails the test; skips are printed"
)]

use std::path::PathBuf;

use wellspring_kernels::RawImage;

/// Where the reference outputs are; prints a line and gives `None` where they are not.
pub fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: ../shared not present");
    None
}

/// Shape, element type and bytes of a NumPy file (version 1, C order).
pub fn npy(name: &str) -> Option<(Vec<usize>, String, Vec<u8>)> {
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

/// Height, width and 16-bit values of a two-dimensional NumPy file.
pub fn plane(name: &str) -> Option<(usize, usize, Vec<u16>)> {
    let (shape, descr, bytes) = npy(name)?;
    assert_eq!(descr, "<u2", "{name}");
    Some((shape[0], shape[1], u16s(&bytes)))
}

/// 16-bit values.
pub fn u16s(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]))
        .collect()
}

/// 64-bit floats.
pub fn f64s(bytes: &[u8]) -> Vec<f64> {
    bytes
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// The eight reference fields as the channels of one image, and their names.
pub fn fields() -> Option<(RawImage, [&'static str; 8])> {
    let (shape, descr, bytes) = npy("qc_images.npy")?;
    assert_eq!(descr, "<u2");
    let image = RawImage::new(shape[0], shape[1], shape[2], u16s(&bytes), 65535).unwrap();
    let names = [
        "focus",
        "blur2",
        "blur6",
        "saturated",
        "empty",
        "debris",
        "dim",
        "constant",
    ];
    Some((image, names))
}

/// A JSON file.
pub fn json(name: &str) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(folder()?.join(name)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}
