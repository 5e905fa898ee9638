//! Nuclei of real fields in `../shared/data`, against masks and outlines that CellProfiler and others made of them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use tiff::decoder::{Decoder, DecodingResult};
use wellspring_kernels::RawImage;
use wellspring_kernels::nuclei::{LabelImage, NucleiSettings, segment};

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cell_painting_fields");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: ../shared not present");
    None
}

/// Height, width and values; of several samples per pixel, the largest.
fn read(path: &Path) -> (usize, usize, Vec<u16>) {
    if path.extension().is_some_and(|e| e == "png") {
        let image = image::ImageReader::open(path)
            .unwrap()
            .decode()
            .unwrap()
            .into_luma16();
        return (image.height() as usize, image.width() as usize, image.into_raw());
    }
    let mut decoder = Decoder::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    let values: Vec<u16> = match decoder.read_image().unwrap() {
        DecodingResult::U8(v) => v.into_iter().map(u16::from).collect(),
        DecodingResult::U16(v) => v,
        other => panic!("{}: {other:?}", path.display()),
    };
    let samples = values.len() / (width as usize * height as usize);
    let values = values
        .chunks_exact(samples)
        .map(|s| s.iter().copied().max().unwrap())
        .collect();
    (height as usize, width as usize, values)
}

/// Pieces of pixels for which `inside` holds, connected by edges, but for those that reach the border of the image if
/// they may not.
fn pieces(height: usize, width: usize, border: bool, inside: impl Fn(usize) -> bool) -> LabelImage {
    let mut labels = vec![0u32; height * width];
    let mut next = 0;
    for start in 0..labels.len() {
        if labels[start] != 0 || !inside(start) {
            continue;
        }
        next += 1;
        let mut stack = vec![start];
        labels[start] = next;
        while let Some(at) = stack.pop() {
            let (y, x) = (at / width, at % width);
            let around = [
                (y > 0, at.wrapping_sub(width)),
                (y + 1 < height, at + width),
                (x > 0, at.wrapping_sub(1)),
                (x + 1 < width, at + 1),
            ];
            for other in around
                .into_iter()
                .filter(|(within, _)| *within)
                .map(|(_, other)| other)
            {
                if labels[other] == 0 && inside(other) {
                    labels[other] = next;
                    stack.push(other);
                }
            }
        }
    }
    let labels = LabelImage::compact(height, width, labels).unwrap();
    if border { labels } else { labels.without_border() }
}

/// Twice the pairs of objects that overlap by half of their union, over the number of objects.
fn f1(ours: &LabelImage, theirs: &LabelImage) -> f64 {
    let mut common: HashMap<(u32, u32), usize> = HashMap::new();
    for (&a, &b) in ours
        .labels()
        .iter()
        .zip(theirs.labels())
        .filter(|(a, b)| **a > 0 && **b > 0)
    {
        *common.entry((a, b)).or_default() += 1;
    }
    let half = |(&(a, b), &n): (&(u32, u32), &usize)| {
        let areas = ours.boxes()[a as usize - 1].area + theirs.boxes()[b as usize - 1].area;
        2 * n >= areas - n
    };
    2.0 * common.iter().filter(|pair| half(*pair)).count() as f64 / (ours.count() + theirs.count()) as f64
}

/// Nuclei of 15 to `largest` pixels that are not cut off: the others have left those out too.
fn found(path: &Path, largest: f64) -> LabelImage {
    let (height, width, pixels) = read(path);
    let image = RawImage::new(1, height, width, pixels, 65535).unwrap();
    let settings = NucleiSettings {
        min_diameter: 15.0,
        max_diameter: largest,
        exclude_border: true,
        ..NucleiSettings::default()
    };
    segment(&image, 0, &settings).unwrap().labels
}

#[test]
fn nuclei_of_cell_painting_fields_agree_with_published_outlines() {
    let Some(folder) = folder() else { return };
    for (field, outlines, least) in [
        (
            "JUMP_plate_BR00117006/images/orig/r01c01f01p01-ch5sk1fk1fl1.tiff",
            "JUMP_plate_BR00117006/images/outlines/r01c01f01p01-ch5sk1fk1fl1_nuclei_outlines.png",
            0.98,
        ),
        (
            "pediatric_cancer_atlas_profiling/images/orig/r03c03f03p01-ch5sk1fk1fl1.tiff",
            "pediatric_cancer_atlas_profiling/images/outlines/NucleiOutlines_BR00143976_C03_3.tiff",
            0.95,
        ),
    ] {
        let (height, width, outline) = read(&folder.join(outlines));
        // What outlines enclose: all between them that does not reach the border.
        let theirs = pieces(height, width, false, |at| outline[at] == 0);
        let ours = found(&folder.join(field), 90.0);
        let f1 = f1(&ours, &theirs);
        println!("{field}: F1 {f1:.3}, {} against {}", ours.count(), theirs.count());
        assert!(f1 >= least, "{field}: F1 {f1}");
    }
}

#[test]
fn nuclei_of_schwann_cells_agree_with_published_masks() {
    let Some(folder) = folder() else { return };
    let folder = folder.join("NF1_cellpainting_data_shrunken");
    let names = ["B7_01_1_3", "D6_01_1_2", "D7_01_1_1", "F7_01_1_2", "H12_01_1_1"];
    let mut sum = 0.0;
    for name in names {
        let (height, width, mask) =
            read(&folder.join(format!("Plate_2_masks/{name}_DAPI_001_MaskNuclei.tiff")));
        let theirs = if mask.iter().max() > Some(&1) && mask.contains(&2) {
            LabelImage::compact(height, width, mask.iter().map(|&v| u32::from(v)).collect()).unwrap()
        } else {
            pieces(height, width, true, |at| mask[at] != 0)
        };
        let ours = found(&folder.join(format!("Plate_2_images/{name}_DAPI_001.tif")), 100.0);
        let f1 = f1(&ours, &theirs);
        println!("{name}: F1 {f1:.3}, {} against {}", ours.count(), theirs.count());
        assert!(f1 >= 0.9, "{name}: F1 {f1}");
        sum += f1;
    }
    assert!(
        sum / names.len() as f64 >= 0.95,
        "mean F1 {}",
        sum / names.len() as f64
    );
}
