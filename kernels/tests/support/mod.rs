//! Reading the reference outputs in `../shared/oracles`, for tests that skip where they are absent.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "each test uses some of this; a failed unwrap fails the test; skips are printed"
)]

#[path = "../common/npy.rs"]
mod npy;

pub use npy::{folder, json, read as npy, words as u16s};
use wellspring_kernels::RawImage;

/// Height, width and 16-bit values of a two-dimensional NumPy file.
pub fn plane(name: &str) -> Option<(usize, usize, Vec<u16>)> {
    let (shape, descr, bytes) = npy(name)?;
    assert_eq!(descr, "<u2", "{name}");
    Some((shape[0], shape[1], u16s(&bytes)))
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
