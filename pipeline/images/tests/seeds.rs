//! The seeds of the fuzz targets are files that are read; `examples/fuzz_seeds.rs` writes them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs;
use std::path::Path;

use wellspring_images::{Limits, decode, pages};

#[test]
fn every_page_of_every_seed_is_read() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let (mut files, mut pages_read) = (0, 0);
    for folder in ["tiff", "png"] {
        for entry in fs::read_dir(seeds.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            for page in 0..pages(&bytes, &Limits::default()).unwrap() {
                let plane = decode(&bytes, page, &Limits::default())
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!((plane.width, plane.height), (23, 17), "{}", path.display());
                pages_read += 1;
            }
            files += 1;
        }
    }
    assert_eq!((files, pages_read), (21, 25));
}
