//! Files of which only the parts asked for are here: reading ends, and gives what reading the whole file gives.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wellspring_images::tiff::Tiff;
use wellspring_images::{ImageError, Limits, Sparse};

const LIMITS: Limits = Limits {
    pixels: 1 << 18,
    pages: 16,
    free_bytes: 1 << 19,
    ratio: 16,
};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = Sparse::new(bytes.len() as u64);
    let mut answers = 0;
    let page = loop {
        match Tiff::open(&parts, LIMITS).and_then(|tiff| tiff.page(0)) {
            Ok(page) => break page,
            Err(ImageError::NotFetched { start, end }) => {
                answers += 1;
                assert!(answers < 100, "the same is asked for again and again");
                parts.insert(start, &bytes[start as usize..end as usize]);
            }
            Err(_) => return,
        }
    };
    for range in page.ranges(&page.whole()).expect("the whole page is a region") {
        parts.insert(range.start, &bytes[range.start as usize..range.end as usize]);
    }
    let region = page.whole();
    let (mut from_parts, mut from_all) = (vec![0; region.pixels()], vec![0; region.pixels()]);
    let parts = page.read_levels(&parts, &region, &mut from_parts);
    assert!(!matches!(parts, Err(ImageError::NotFetched { .. })));
    assert_eq!(
        parts.is_ok(),
        page.read_levels(bytes, &region, &mut from_all).is_ok()
    );
    assert_eq!(from_parts, from_all);
});
