//! JPEG 2000 files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wellspring_images::{Limits, decode};

const LIMITS: Limits = Limits {
    pixels: 1 << 18,
    pages: 1,
    free_bytes: 1 << 22,
    ratio: 16,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes, 0, &LIMITS);
});
