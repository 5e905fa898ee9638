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

/// Levels of the seeds, as `examples/fuzz_seeds.rs` makes them; those of JPEG 2000 were written by OpenJPEG.
fn levels(factor: u32) -> Vec<u16> {
    (0..23u32 * 17)
        .map(|i| ((i * i / 7 + i % 5) % 251 * factor) as u16)
        .collect()
}

#[test]
fn jpeg_2000_comes_back_without_loss() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/jpeg2000");
    for (name, factor, ceiling) in [
        ("8.jp2", 1, 255),
        ("8.j2k", 1, 255),
        ("16.jp2", 261, 65535),
        ("16.j2k", 261, 65535),
    ] {
        let bytes = fs::read(folder.join(name)).unwrap();
        let plane = decode(&bytes, 0, &Limits::default()).unwrap();
        assert_eq!(
            (plane.width, plane.height, plane.ceiling),
            (23, 17, ceiling),
            "{name}"
        );
        assert_eq!(plane.pixels, levels(factor), "{name}");
    }
    // Compressed with loss.
    let bytes = fs::read(folder.join("lossy.jp2")).unwrap();
    let plane = decode(&bytes, 0, &Limits::default()).unwrap();
    let furthest = plane
        .pixels
        .iter()
        .zip(levels(261))
        .map(|(a, b)| a.abs_diff(b))
        .max();
    // OpenJPEG itself is 2513 away, and rounds at other places.
    assert!((2512..=2514).contains(&furthest.unwrap()), "{furthest:?}");
}
