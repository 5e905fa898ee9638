//! PNG files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wellspring_images::{Limits, decode};

const LIMITS: Limits = Limits {
    pixels: 1 << 20,
    pages: 1,
    free_bytes: 1 << 20,
    ratio: 16,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes, 0, &LIMITS);
});
