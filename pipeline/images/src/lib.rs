//! Microscope images from bytes to grey levels: TIFF, BigTIFF and PNG.
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
}

impl<'a> Image<'a> {
    /// Reads what describes page `page` (from 0). The format is told from the bytes, not from a name.
    ///
    /// # Errors
    /// As [`tiff::Tiff::page`]; for a PNG a damaged header, colour, and sizes beyond the limits.
    pub fn open(bytes: &'a [u8], page: usize, limits: &Limits) -> Result<Self, ImageError> {
        if is_tiff(bytes)? {
            let page = tiff::Tiff::open(bytes, *limits)?.page(page)?;
            return Ok(Self(Kind::Tiff(bytes, page)));
        }
        match page {
            0 => png::Image::open(bytes, limits).map(|image| Self(Kind::Png(Box::new(image)))),
            page => Err(ImageError::NoPage { page, pages: 1 }),
        }
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        match &self.0 {
            Kind::Tiff(_, page) => page.height() as usize,
            Kind::Png(image) => image.height,
        }
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        match &self.0 {
            Kind::Tiff(_, page) => page.width() as usize,
            Kind::Png(image) => image.width,
        }
    }

    /// Largest grey level of the pixel type: 255, 4095 or 65535.
    pub fn ceiling(&self) -> u16 {
        match &self.0 {
            Kind::Tiff(_, page) => page.ceiling(),
            Kind::Png(image) => image.ceiling,
        }
    }

    /// Fills `out` with the grey levels, row by row.
    ///
    /// # Errors
    /// As [`tiff::Page::read_levels`]; a damaged PNG.
    pub fn read(self, out: &mut [u16]) -> Result<(), ImageError> {
        match self.0 {
            Kind::Tiff(bytes, page) => page.read_levels(bytes, &page.whole(), out),
            Kind::Png(image) => image.read(out),
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

/// How many pages a file has: 1 for a PNG, for a TIFF as [`tiff::Tiff::pages`] counts.
///
/// # Errors
/// As [`tiff::Tiff::pages`].
pub fn pages(bytes: &[u8], limits: &Limits) -> Result<usize, ImageError> {
    if is_tiff(bytes)? {
        tiff::Tiff::open(bytes, *limits)?.pages()
    } else {
        Ok(1)
    }
}

/// How many of the file's first 64 pages are images like its first page: grey, of its size, and not called a smaller version
/// of another page. Thumbnails and the levels of pyramids do not count.
///
/// # Errors
/// As [`pages`], and as [`tiff::Tiff::page`] for the first page.
pub fn pages_alike(bytes: &[u8], limits: &Limits) -> Result<usize, ImageError> {
    if !is_tiff(bytes)? {
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

/// Whether the bytes are a TIFF's; if not, they are a PNG's.
fn is_tiff(bytes: &[u8]) -> Result<bool, ImageError> {
    match bytes {
        [] => Err(ImageError::Empty),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(true),
        [0x89, b'P', b'N', b'G', ..] => Ok(false),
        _ => Err(ImageError::Format {
            start: bytes.iter().take(8).copied().collect(),
        }),
    }
}
