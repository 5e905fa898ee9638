//! Writes the seeds of the fuzz targets: one small file of every kind that is read, but for JPEG 2000, which OpenJPEG wrote.
//!
//! ```text
//! cargo run -p wellspring-images --example fuzz_seeds -- pipeline/images/fuzz/seeds
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "a tool of the tests, which shares their writer"
)]

#[path = "../tests/common/writer.rs"]
mod writer;

use std::path::Path;

use writer::{Writer, compress};

fn levels(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * i / 7 + i % 5) % 251).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("the folder to write into is needed")?;
    let folder = Path::new(&folder);
    for name in ["tiff", "strips", "png"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let (width, height) = (23, 17);
    let mut number = 0;
    for compression in [1u16, 5, 8, 32773, 50000] {
        for (bits, predictor, float) in [
            (8, 1, false),
            (8, 2, false),
            (12, 1, false),
            (16, 2, false),
            (32, 3, true),
        ] {
            if predictor > 1 && matches!(compression, 1 | 32773) {
                continue;
            }
            let pixels: Vec<u32> = match float {
                true => levels(width * height)
                    .iter()
                    .map(|v| (*v as f32).to_bits())
                    .collect(),
                false => levels(width * height),
            };
            let kind = Writer {
                big_endian: number % 2 == 1,
                big_tiff: number % 3 == 1,
                tile: (number % 4 == 3).then_some((16, 16)),
                compression,
                predictor,
                bits,
                float,
                rows_per_strip: 8,
                ..Writer::default()
            };
            let page = (width, height, pixels);
            let pages = if number % 5 == 0 {
                vec![page.clone(), page]
            } else {
                vec![page]
            };
            let name = format!("{compression}-{bits}-{predictor}");
            std::fs::write(folder.join("tiff").join(&name), kind.file(&pages))?;

            let format = [8, 12, 16, 32].iter().position(|b| *b == bits).unwrap_or(0) as u8;
            let which = [1u16, 5, 8, 32773, 50000]
                .iter()
                .position(|c| *c == compression)
                .unwrap_or(0) as u8;
            let mut strip = vec![which, format + 4 * (predictor as u8 - 1), 5, 16];
            let bytes: Vec<u8> = levels(21 * 17 * bits.div_ceil(8))
                .iter()
                .map(|v| *v as u8)
                .collect();
            strip.extend(compress(compression, &bytes));
            std::fs::write(folder.join("strips").join(&name), strip)?;
            number += 1;
        }
    }
    for (name, depth, bytes) in [("8", png::BitDepth::Eight, 1), ("16", png::BitDepth::Sixteen, 2)] {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header()?;
        let data: Vec<u8> = levels(width * height * bytes).iter().map(|v| *v as u8).collect();
        writer.write_image_data(&data)?;
        writer.finish()?;
        std::fs::write(folder.join("png").join(name), file)?;
    }
    Ok(())
}
