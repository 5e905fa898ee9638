//! Whole files: directories, pages, text, and the pixels of every page.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wellspring_images::tiff::Tiff;
use wellspring_images::{Limits, decode, pages};

/// What a file may cost: a few MiB.
const LIMITS: Limits = Limits {
    pixels: 1 << 20,
    pages: 64,
    free_bytes: 1 << 20,
    ratio: 16,
};

fuzz_target!(|bytes: &[u8]| {
    let pages = pages(bytes, &LIMITS).unwrap_or(1);
    for page in 0..pages.min(4) {
        if let Ok(tiff) = Tiff::open(bytes, LIMITS) {
            let _ = tiff.description(page);
        }
        let _ = decode(bytes, page, &LIMITS);
    }
});
