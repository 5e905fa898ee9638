//! `bench decode`: decoding of file formats beside the crate `tiff`, and with more threads, in bytes of decoded pixels per
//! second. `scripts/bench/decode` measures beside tifffile and libtiff, on real fields and with ZSTD.

use std::io::Cursor;

use anyhow::{Context, ensure};
use tiff::decoder::{Decoder, DecodingResult};
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tiff::tags::Predictor;
use wellspring::decode::decode;

use super::{Line, Printer, pixels, seconds};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rows and columns of the image.
    #[arg(long, default_value_t = 2160, value_parser = clap::value_parser!(u32).range(1..=16384))]
    size: u32,
    /// Numbers of threads, the first for the comparison with others.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let size = args.size;
    let pixels = pixels(size as usize, size as usize, 1);
    let deflate = Compression::Deflate(DeflateLevel::default());
    let kinds = [
        ("TIFF, not compressed", Compression::Uncompressed, Predictor::None),
        ("TIFF, PackBits", Compression::Packbits, Predictor::None),
        ("TIFF, LZW", Compression::Lzw, Predictor::None),
        (
            "TIFF, LZW with differences",
            Compression::Lzw,
            Predictor::Horizontal,
        ),
        ("TIFF, deflate", deflate, Predictor::None),
        ("TIFF, deflate with differences", deflate, Predictor::Horizontal),
    ];
    for (name, compression, predictor) in kinds {
        let file = tiff(size, &pixels, compression, predictor)?;
        measure(args, printer, name, &file, &pixels)?;
    }
    measure(args, printer, "PNG", &png(size, &pixels)?, &pixels)
}

fn measure(
    args: &Args,
    printer: &mut Printer,
    name: &str,
    file: &[u8],
    pixels: &[u16],
) -> anyhow::Result<()> {
    let decoded = decode(file).with_context(|| name.to_owned())?;
    ensure!(
        decoded.pixels == pixels,
        "{name}: the decoded pixels are not those that were encoded"
    );
    let bytes = pixels.len() as f64 * 2.0;
    let percent = 100.0 * file.len() as f64 / bytes;
    let size = args.size;
    let mut first = None;
    for &threads in &args.threads {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build()?;
        let time = pool.install(|| seconds(|| decode(file).map(drop)))?;
        let speed = bytes / 1e6 / time;
        let plural = if threads == 1 { "" } else { "s" };
        let work = format!(
            "{name}, {size} x {size} 16 bit, file {percent:.0} % of the pixels, {threads} thread{plural}"
        );
        let line = Line::new("decode", work, speed, "MB/s");
        let line = match first {
            Some((fewer, before)) => line.beside(format!("{fewer} thread(s)"), before),
            None if name == "PNG" => line,
            None => {
                let theirs = seconds(|| by_crate_tiff(file))?;
                line.beside("crate tiff 0.11.3, 1 thread", bytes / 1e6 / theirs)
            }
        };
        first.get_or_insert((threads, speed));
        printer.push(line)?;
    }
    Ok(())
}

fn by_crate_tiff(file: &[u8]) -> anyhow::Result<()> {
    match Decoder::new(Cursor::new(file))?.read_image()? {
        DecodingResult::U16(_) => Ok(()),
        _ => anyhow::bail!("the crate tiff read other pixels than 16 bit"),
    }
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
