//! JPEG 2000, as JP2 files and bare codestreams, of up to 16 bit grey. The crate `hayro-jpeg2000` decodes.

use hayro_jpeg2000::{ColorSpace, DecodeSettings, DecoderContext};

use crate::error::{ChunkKind, CodecError, ImageError};
use crate::limits::Limits;

/// How JP2 files begin.
pub(crate) const JP2: &[u8] = b"\0\0\0\x0cjP  \r\n\x87\n";
/// How codestreams begin.
pub(crate) const CODESTREAM: &[u8] = b"\xff\x4f\xff\x51";

/// Bytes of memory that decoding takes for each pixel: wavelet coefficients, and floats of the tile and of the image.
const BYTES_PER_PIXEL: u64 = 12;

/// An image whose header has been read.
pub(crate) struct Image<'a> {
    image: hayro_jpeg2000::Image<'a>,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) ceiling: u16,
}

impl<'a> Image<'a> {
    pub(crate) fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let settings = DecodeSettings {
            // The indices of a palette are the grey levels, as in TIFF.
            resolve_palette_indices: false,
            // A codestream that ends early would be an image with less detail.
            strict: true,
            target_resolution: None,
        };
        // The decoder takes memory for every component, whatever the colour space says.
        let components = components(bytes);
        if components != Some(1) {
            return Err(ImageError::Pixels {
                page: 0,
                found: format!("of {} components", components.unwrap_or(0)),
            });
        }
        let image = hayro_jpeg2000::Image::new(bytes, &settings)?;
        let (width, height) = (image.width(), image.height());
        let pixels = u64::from(width) * u64::from(height);
        if !(1..=limits.pixels).contains(&pixels) {
            return Err(ImageError::Size {
                page: 0,
                width,
                height,
                kind: ChunkKind::Tile,
                chunk_width: width,
                chunk_height: height,
                limit: limits.pixels,
            });
        }
        let bits = image.original_bit_depth();
        if !matches!(image.color_space(), ColorSpace::Gray) || image.has_alpha() || !(1..=16).contains(&bits)
        {
            return Err(ImageError::Pixels {
                page: 0,
                found: format!("{bits} bit, not called grey"),
            });
        }
        let decoded = BYTES_PER_PIXEL * pixels;
        let limit = limits.decoded_bytes(bytes.len() as u64);
        if decoded > limit {
            return Err(ImageError::Bomb {
                page: 0,
                encoded: bytes.len() as u64,
                decoded,
                limit,
            });
        }
        Ok(Self {
            image,
            height: height as usize,
            width: width as usize,
            ceiling: u16::MAX >> (16 - bits),
        })
    }

    pub(crate) fn read(self, out: &mut [u16]) -> Result<(), ImageError> {
        let expected = self.height * self.width;
        if out.len() != expected {
            return Err(ImageError::Buffer {
                found: out.len(),
                expected,
            });
        }
        let mut context = DecoderContext::default();
        let decoded = self.image.decode(&mut context)?;
        let samples = decoded
            .components()
            .first()
            .map_or(&[][..], |component| component.samples());
        if samples.len() != expected {
            return Err(ImageError::Chunk {
                page: 0,
                kind: ChunkKind::Tile,
                index: 0,
                offset: 0,
                source: CodecError::Short {
                    written: 2 * samples.len(),
                    expected: 2 * expected,
                },
            });
        }
        // Whole numbers where the compression is without loss; else they are rounded and held to the pixel type, as the
        // standard says.
        let ceiling = f32::from(self.ceiling);
        for (level, sample) in out.iter_mut().zip(samples) {
            *level = sample.round().clamp(0.0, ceiling) as u16;
        }
        Ok(())
    }
}

/// Components that the codestream announces; `None` where there is none to be found.
fn components(bytes: &[u8]) -> Option<u16> {
    let mut rest = bytes;
    // The boxes of a JP2 file, up to the one with the codestream.
    while !rest.starts_with(CODESTREAM) {
        let length = u64::from(u32::from_be_bytes(*rest.first_chunk()?));
        let kind = rest.get(4..8)?;
        let (header, length) = match length {
            0 => (8, rest.len() as u64),
            1 => (16, u64::from_be_bytes(*rest.get(8..)?.first_chunk()?)),
            length => (8, length),
        };
        let length = usize::try_from(length).ok()?.max(header);
        rest = rest.get(if kind == b"jp2c" { header } else { length }..)?;
    }
    // Both markers, the length of the second and its capabilities, and eight sizes of four bytes come before.
    Some(u16::from_be_bytes(*rest.get(40..)?.first_chunk()?))
}
