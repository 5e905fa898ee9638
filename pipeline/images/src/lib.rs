//! Microscope images from bytes to grey levels: TIFF, BigTIFF, PNG and JPEG 2000.
//!
//! Enters: the bytes of a file, or those parts of it that were fetched ([`Sparse`]). Leaves: grey levels as `u16`, of a whole
//! page or a [`Region`] of one. Pure and blocking: no files, no network, no clock. What fails: bytes that are no image, are
//! damaged or truncated, hold colour, or exceed the [`Limits`]; the errors say what and where in the file.
//!
//! Read are TIFF and BigTIFF of both byte orders with any number of pages, in strips or tiles, not compressed or with LZW,
//! Deflate, PackBits or ZSTD, with or without differences; pixels of 8, 12 and 16 bit and 32-bit floats; white or black as 0;
//! indices of a palette as levels. Only the strips or tiles of the region are decoded, in parallel on rayon's threads; the
//! result is the same for any number of them.
//!
//! ```
//! use wellspring_images::{Limits, Region, tiff::Tiff};
//!
//! # fn read(bytes: &[u8]) -> Result<(), wellspring_images::ImageError> {
//! let file = Tiff::open(bytes, Limits::default())?;
//! let page = file.page(0)?;
//! let corner = Region { rows: 0..page.height().min(256), columns: 0..page.width().min(256) };
//! let mut pixels = vec![0; corner.pixels()];
//! page.read_levels(bytes, &corner, &mut pixels)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod codec;
mod error;
mod jpeg2000;
mod limits;
mod png;
mod predictor;
mod region;
mod source;
pub mod tiff;

pub use codec::Compression;
pub use error::{ChunkKind, CodecError, ImageError};
pub use limits::Limits;
pub use predictor::Predictor;
pub use region::Region;
pub use source::{Source, Sparse};

/// One decoded plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Largest grey level the file's pixel type can hold: 255, 4095 or 65535.
    pub ceiling: u16,
    /// Grey levels, row by row.
    pub pixels: Vec<u16>,
}

/// A page of a file that is all in memory: its size is known, its pixels are not read yet.
pub struct Image<'a>(Kind<'a>);

enum Kind<'a> {
    Tiff(&'a [u8], tiff::Page),
    Png(Box<png::Image<'a>>),
    Jpeg2000(Box<jpeg2000::Image<'a>>),
}

impl<'a> Image<'a> {
    /// Reads what describes page `page` (from 0). The format is told from the bytes, not from a name.
    ///
    /// # Errors
    /// As [`tiff::Tiff::page`]; for the other formats damaged headers, colour, and sizes beyond
    /// the limits.
    pub fn open(bytes: &'a [u8], page: usize, limits: &Limits) -> Result<Self, ImageError> {
        Ok(Self(match (Format::of(bytes)?, page) {
            (Format::Tiff, page) => Kind::Tiff(bytes, tiff::Tiff::open(bytes, *limits)?.page(page)?),
            (Format::Png, 0) => Kind::Png(Box::new(png::Image::open(bytes, limits)?)),
            (Format::Jpeg2000, 0) => Kind::Jpeg2000(Box::new(jpeg2000::Image::open(bytes, limits)?)),
            (_, page) => return Err(ImageError::NoPage { page, pages: 1 }),
        }))
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        match &self.0 {
            Kind::Tiff(_, page) => page.height() as usize,
            Kind::Png(image) => image.height,
            Kind::Jpeg2000(image) => image.height,
        }
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        match &self.0 {
            Kind::Tiff(_, page) => page.width() as usize,
            Kind::Png(image) => image.width,
            Kind::Jpeg2000(image) => image.width,
        }
    }

    /// Largest grey level of the pixel type: 255, 4095 or 65535.
    pub fn ceiling(&self) -> u16 {
        match &self.0 {
            Kind::Tiff(_, page) => page.ceiling(),
            Kind::Png(image) => image.ceiling,
            Kind::Jpeg2000(image) => image.ceiling,
        }
    }

    /// Fills `out` with the grey levels, row by row.
    ///
    /// # Errors
    /// As [`tiff::Page::read_levels`]; a damaged file of another format.
    pub fn read(self, out: &mut [u16]) -> Result<(), ImageError> {
        match self.0 {
            Kind::Tiff(bytes, page) => page.read_levels(bytes, &page.whole(), out),
            Kind::Png(image) => image.read(out),
            Kind::Jpeg2000(image) => image.read(out),
        }
    }
}

/// Decodes page `page` (from 0) of a file that is all in memory.
///
/// # Errors
/// As [`Image::open`] and [`Image::read`].
pub fn decode(bytes: &[u8], page: usize, limits: &Limits) -> Result<Plane, ImageError> {
    let image = Image::open(bytes, page, limits)?;
    let (height, width, ceiling) = (image.height(), image.width(), image.ceiling());
    let mut pixels = vec![0; height * width];
    image.read(&mut pixels)?;
    Ok(Plane {
        height,
        width,
        ceiling,
        pixels,
    })
}

/// How many pages a file has: 1 for PNG and JPEG 2000, for a TIFF as [`tiff::Tiff::pages`] counts.
///
/// # Errors
/// As [`tiff::Tiff::pages`].
pub fn pages(bytes: &[u8], limits: &Limits) -> Result<usize, ImageError> {
    match Format::of(bytes)? {
        Format::Tiff => tiff::Tiff::open(bytes, *limits)?.pages(),
        Format::Png | Format::Jpeg2000 => Ok(1),
    }
}

/// How many of the file's first 64 pages are images like its first page: grey, of its size, and not called a smaller version
/// of another page. Thumbnails and the levels of pyramids do not count.
///
/// # Errors
/// As [`pages`], and as [`tiff::Tiff::page`] for the first page.
pub fn pages_alike(bytes: &[u8], limits: &Limits) -> Result<usize, ImageError> {
    if Format::of(bytes)? != Format::Tiff {
        return Ok(1);
    }
    let file = tiff::Tiff::open(bytes, *limits)?;
    let pages = file.pages()?;
    if pages == 1 {
        return Ok(1);
    }
    let first = file.page(0)?;
    let alike = (1..pages.min(64))
        .filter_map(|page| file.page(page).ok())
        .filter(|page| !page.is_reduced() && page.whole() == first.whole());
    Ok(1 + alike.count())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Tiff,
    Png,
    Jpeg2000,
}

impl Format {
    fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        match bytes {
            [] => Err(ImageError::Empty),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Self::Tiff),
            [0x89, b'P', b'N', b'G', ..] => Ok(Self::Png),
            _ if bytes.starts_with(jpeg2000::JP2) || bytes.starts_with(jpeg2000::CODESTREAM) => {
                Ok(Self::Jpeg2000)
            }
            _ => Err(ImageError::Format {
                start: bytes.iter().take(8).copied().collect(),
            }),
        }
    }
}
