//! `bench decode`: decoding of every file format on one core, in bytes of decoded pixels per second.

use std::io::Cursor;

use anyhow::{Context, ensure};
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tiff::tags::Predictor;
use wellspring::decode::decode;

use super::{Line, Printer, pixels, seconds};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rows and columns of the image.
    #[arg(long, default_value_t = 2160, value_parser = clap::value_parser!(u32).range(1..=16384))]
    size: u32,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let size = args.size;
    let pixels = pixels(size as usize, size as usize, 1);
    let megabytes = pixels.len() as f64 * 2.0 / 1e6;
    let deflate = Compression::Deflate(DeflateLevel::default());
    let files = [
        (
            "TIFF, not compressed",
            tiff(size, &pixels, Compression::Uncompressed, Predictor::None)?,
        ),
        ("TIFF, deflate", tiff(size, &pixels, deflate, Predictor::None)?),
        (
            "TIFF, deflate with differences",
            tiff(size, &pixels, deflate, Predictor::Horizontal)?,
        ),
        (
            "TIFF, LZW",
            tiff(size, &pixels, Compression::Lzw, Predictor::None)?,
        ),
        ("PNG", png(size, &pixels)?),
    ];
    for (name, file) in files {
        let decoded = decode(&file).with_context(|| name.to_owned())?;
        ensure!(
            decoded.pixels == pixels,
            "{name}: the decoded pixels are not those that were encoded"
        );
        let time = seconds(|| decode(&file).map(drop))?;
        let percent = 100.0 * file.len() as f64 / (megabytes * 1e6);
        let work = format!("{name}, {size} x {size} 16 bit, file {percent:.0} % of the pixels");
        printer.push(Line::new("decode", work, megabytes / time, "MB/s"))?;
    }
    Ok(())
}

fn tiff(
    size: u32,
    pixels: &[u16],
    compression: Compression,
    predictor: Predictor,
) -> anyhow::Result<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    TiffEncoder::new(&mut file)?
        .with_compression(compression)
        .with_predictor(predictor)
        .write_image::<colortype::Gray16>(size, size, pixels)?;
    Ok(file.into_inner())
}

fn png(size: u32, pixels: &[u16]) -> anyhow::Result<Vec<u8>> {
    let image = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(size, size, pixels.to_vec())
        .context("the image does not have the size it was made for")?;
    let mut file = Cursor::new(Vec::new());
    image::DynamicImage::ImageLuma16(image).write_to(&mut file, image::ImageFormat::Png)?;
    Ok(file.into_inner())
}
