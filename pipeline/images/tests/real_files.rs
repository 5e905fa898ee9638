//! Every TIFF of microscopes in `../shared/data` decodes to what tifffile 2026.3.3 (and Pillow 11.3.0) make of it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use std::fs;
use std::path::{Path, PathBuf};

use wellspring_images::{ImageError, Limits, Region, decode, pages_alike, tiff::Tiff};

/// Folder, files in it, and the CRC-32 of one line for each file in the order of their paths: path in the folder, width,
/// height, and the CRC-32 of its pixels as little-endian words of 16 bits. From tifffile.
const FOLDERS: [(&str, usize, u32); 10] = [
    ("cell_painting_fields/JUMP_plate_BR00117006", 3, 0x7785_cb46),
    (
        "cell_painting_fields/NF1_cellpainting_data_shrunken",
        30,
        0x3ca4_c531,
    ),
    (
        "cell_painting_fields/pediatric_cancer_atlas_profiling",
        6,
        0x3dfb_0e8e,
    ),
    ("transfluor/images", 72, 0xc396_5831),
    ("vendor_layouts/faim-ipa/CV8000", 102, 0x7ce5_2dfe),
    ("vendor_layouts/faim-ipa/ImageXpress", 229, 0x5ff8_5bcf),
    ("vendor_layouts/faim-ipa/ImageXpress_exported", 53, 0x5c82_4d7c),
    ("vendor_layouts/plateviewer/ALMF", 4, 0x9819_f617),
    ("vendor_layouts/plateviewer/MD-MULTISITE-TIF", 4, 0xb232_a249),
    ("vendor_layouts/plateviewer/SCANR-C2-S1-T1", 4, 0x5832_000c),
];

/// The folder, or `None` (and a line that says so) where it is absent.
fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: ../shared not present");
    None
}

/// Every TIFF below a folder, by path.
fn tiffs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().to_lowercase();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".tif") || name.ends_with(".tiff") {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| path.to_string_lossy().into_owned());
    found
}

#[test]
fn every_file_is_what_tifffile_makes_of_it() {
    let Some(data) = data() else { return };
    for (folder, expected, crc) in FOLDERS {
        let folder = data.join(folder);
        let (mut lines, mut files) = (crc32fast::Hasher::new(), 0);
        for path in tiffs(&folder) {
            let bytes = fs::read(&path).unwrap();
            let plane = match decode(&bytes, 0, &Limits::default()) {
                Ok(plane) => plane,
                Err(error) => {
                    // Outlines, drawn in colour.
                    assert!(
                        matches!(error, ImageError::Pixels { .. }),
                        "{}: {error}",
                        path.display()
                    );
                    assert!(
                        path.to_string_lossy().contains("outlines"),
                        "{}: {error}",
                        path.display()
                    );
                    continue;
                }
            };
            let mut pixels = crc32fast::Hasher::new();
            let words: Vec<u16> = plane.pixels.iter().map(|level| level.to_le()).collect();
            pixels.update(bytemuck::cast_slice(&words));
            let name = path.strip_prefix(&folder).unwrap().to_string_lossy();
            let line = format!(
                "{name} {} {} {:08x}\n",
                plane.width,
                plane.height,
                pixels.finalize()
            );
            lines.update(line.as_bytes());
            files += 1;
            assert_eq!(
                pages_alike(&bytes, &Limits::default()).unwrap(),
                1,
                "{}",
                path.display()
            );
            assert_region(&bytes, &plane.pixels, plane.width, &path);
        }
        assert_eq!(files, expected, "{}", folder.display());
        assert_eq!(lines.finalize(), crc, "{}", folder.display());
    }
}

/// A region out of the middle is that part of the whole.
fn assert_region(bytes: &[u8], pixels: &[u16], width: usize, path: &Path) {
    let page = Tiff::open(bytes, Limits::default()).unwrap().page(0).unwrap();
    let region = Region {
        rows: page.height() / 3..page.height() / 2,
        columns: page.width() / 4..page.width() / 4 + 13,
    };
    let mut part = vec![0; region.pixels()];
    page.read_levels(bytes, &region, &mut part).unwrap();
    let rows = pixels.chunks_exact(width).skip(region.rows.start as usize);
    let columns = region.columns.start as usize..region.columns.end as usize;
    assert!(
        rows.take(region.height())
            .flat_map(|row| &row[columns.clone()])
            .eq(&part),
        "{}",
        path.display()
    );
}
