//! Decode: bytes become pixels. Greyscale TIFF and PNG, 8 or 16 bit; z stacks become their maximum projection.
//!
//! [`Fetched`] bytes enter, a [`Decoded`] image with one plane per channel leaves. What fails: an unknown or damaged format, colour, a
//! pixel type that is neither 8 nor 16 bit unsigned, an image larger than [`MAX_PIXELS`]. Sizes are checked before
//! memory is reserved, so a forged header is an error and not a dead worker.

use std::io::Cursor;

use bytes::Bytes;
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use wellspring_kernels::RawImage;

use crate::error::{FailureClass, Stage, StageError};
use crate::events::ImageRef;
use crate::fields::{Decoded, Fetched};

/// Pixels of one plane at most: 16384 x 16384, far above any camera of the field.
pub const MAX_PIXELS: u64 = 1 << 28;

/// One decoded plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Largest grey level the file's pixel type can hold: 255 or 65535.
    pub ceiling: u16,
    /// Grey levels, row by row.
    pub pixels: Vec<u16>,
}

/// Why bytes are not an image.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing in the object.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// Neither TIFF nor PNG.
    #[error("the file is neither TIFF nor PNG: it starts with {start:02x?}")]
    Format {
        /// The first bytes.
        start: Vec<u8>,
    },
    /// The TIFF is damaged or of a kind not read.
    #[error("the TIFF cannot be decoded; it may be truncated")]
    Tiff(#[from] tiff::TiffError),
    /// The PNG is damaged or of a kind not read.
    #[error("the PNG cannot be decoded; it may be truncated")]
    Png(#[from] image::ImageError),
    /// Colour or float pixels.
    #[error("pixels are {found}, but greyscale of 8 or 16 bit is needed; export the raw channel")]
    Pixels {
        /// What the file holds.
        found: String,
    },
    /// Too large or without extent.
    #[error("the image is {width} x {height} pixels; between 1 and {MAX_PIXELS} pixels are read")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}

/// An image of a field that cannot be used.
#[derive(Debug, thiserror::Error)]
enum FieldImageError {
    #[error("{path}")]
    Undecodable { path: String, source: DecodeError },
    #[error(
        "{path} is {width} x {height} pixels but the field's first image is {first_width} x {first_height}; \
         all images of a field must have one size"
    )]
    Size {
        path: String,
        width: usize,
        height: usize,
        first_width: usize,
        first_height: usize,
    },
    #[error("{path} holds grey level {level}, above the ceiling {ceiling} of images.bit_depth = {bits}")]
    BitDepth {
        path: String,
        level: u16,
        ceiling: u16,
        bits: u8,
    },
}

/// The stage: every image of a field.
pub fn decode_field(fetched: Fetched) -> Result<Decoded, StageError> {
    let Fetched {
        field,
        channels,
        illumination,
    } = fetched;
    let image = field_image(
        channels
            .iter()
            .zip(&field.task.images)
            .map(|(bytes, images)| (bytes, &images.planes)),
        field.run.screen.images.bit_depth,
    )?;
    Ok(Decoded {
        field,
        image,
        illumination,
    })
}

/// One image from the encoded planes of every channel.
pub fn field_image<'a>(
    channels: impl Iterator<Item = (&'a Vec<Bytes>, &'a Vec<ImageRef>)>,
    bit_depth: Option<u8>,
) -> Result<RawImage, StageError> {
    let bad = |error| StageError::input(Stage::Decode, FailureClass::BadImage, error);
    let mut size: Option<(usize, usize)> = None;
    let mut pixels = Vec::new();
    let mut count = 0;
    let mut ceiling = 0;
    for (bytes, images) in channels {
        let start = pixels.len();
        for (bytes, image) in bytes.iter().zip(images) {
            let path = || image.path.clone();
            let plane = decode_page(bytes, image.page)
                .map_err(|source| bad(FieldImageError::Undecodable { path: path(), source }))?;
            let (first_height, first_width) = *size.get_or_insert((plane.height, plane.width));
            if (plane.height, plane.width) != (first_height, first_width) {
                let (width, height) = (plane.width, plane.height);
                return Err(bad(FieldImageError::Size {
                    path: path(),
                    width,
                    height,
                    first_width,
                    first_height,
                }));
            }
            if let Some(bits) = bit_depth {
                let depth_ceiling = u16::MAX >> 16u8.saturating_sub(bits).min(15);
                if let Some(level) = plane.pixels.iter().copied().find(|level| *level > depth_ceiling) {
                    return Err(bad(FieldImageError::BitDepth {
                        path: path(),
                        level,
                        ceiling: depth_ceiling,
                        bits,
                    }));
                }
                ceiling = depth_ceiling;
            } else {
                ceiling = ceiling.max(plane.ceiling);
            }
            if pixels.len() == start {
                pixels.extend_from_slice(&plane.pixels);
            } else {
                for (highest, level) in pixels[start..].iter_mut().zip(plane.pixels) {
                    *highest = level.max(*highest);
                }
            }
        }
        count += 1;
    }
    let (height, width) = size.unwrap_or_default();
    RawImage::new(count, height, width, pixels, ceiling)
        .map_err(|error| StageError::input(Stage::Decode, FailureClass::BadImage, error))
}

/// Decodes the first image of a file. The format is told from the bytes, not from the file's name.
pub fn decode(bytes: &[u8]) -> Result<Plane, DecodeError> {
    decode_page(bytes, None)
}

/// Decodes one image of a file: the directory of a TIFF, from 0; the first where it is not said.
fn decode_page(bytes: &[u8], page: Option<u32>) -> Result<Plane, DecodeError> {
    match bytes {
        [] => Err(DecodeError::Empty),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => decode_tiff(bytes, page.unwrap_or(0)),
        [0x89, b'P', b'N', b'G', ..] => decode_png(bytes),
        _ => Err(DecodeError::Format {
            start: bytes.iter().take(8).copied().collect(),
        }),
    }
}

fn checked_size(width: u32, height: u32) -> Result<usize, DecodeError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(DecodeError::Size { width, height });
    }
    usize::try_from(pixels).map_err(|_| DecodeError::Size { width, height })
}

/// Acquisition software stores raw grey levels as indices into a display palette; the indices are the data. The
/// decoder refuses palettes, so the directory entry that announces one is changed to "black is zero" in a copy.
///
/// `None` when the first directory of a classic TIFF does not announce a palette.
fn without_palette(bytes: &[u8]) -> Option<Vec<u8>> {
    const PHOTOMETRIC: u16 = 262;
    const PALETTE: u16 = 3;
    const BLACK_IS_ZERO: u16 = 1;
    let little = bytes.starts_with(b"II");
    let u16_at = |at: usize| {
        let raw = *bytes.get(at..)?.first_chunk::<2>()?;
        Some(if little {
            u16::from_le_bytes(raw)
        } else {
            u16::from_be_bytes(raw)
        })
    };
    let u32_at = |at: usize| {
        let raw = *bytes.get(at..)?.first_chunk::<4>()?;
        Some(if little {
            u32::from_le_bytes(raw)
        } else {
            u32::from_be_bytes(raw)
        } as usize)
    };
    if u16_at(2)? != 42 {
        return None;
    }
    let directory = u32_at(4)?;
    let entries = usize::from(u16_at(directory)?);
    let value = (0..entries)
        .map(|entry| directory + 2 + 12 * entry)
        .find_map(|at| (u16_at(at)? == PHOTOMETRIC && u16_at(at + 8)? == PALETTE).then_some(at + 8))?;
    let mut grey = bytes.to_vec();
    let raw = if little {
        BLACK_IS_ZERO.to_le_bytes()
    } else {
        BLACK_IS_ZERO.to_be_bytes()
    };
    grey.get_mut(value..value + 2)?.copy_from_slice(&raw);
    Some(grey)
}

fn decode_tiff(bytes: &[u8], page: u32) -> Result<Plane, DecodeError> {
    let grey = without_palette(bytes);
    let bytes = grey.as_deref().unwrap_or(bytes);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 2 * MAX_PIXELS as usize;
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    let mut decoder = Decoder::new(Cursor::new(bytes))?.with_limits(limits);
    if page > 0 {
        decoder.seek_to_image(page as usize)?;
    }
    let (width, height) = decoder.dimensions()?;
    checked_size(width, height)?;
    match decoder.colortype()? {
        ColorType::Gray(8 | 16) => {}
        other => {
            return Err(DecodeError::Pixels {
                found: format!("{other:?}"),
            });
        }
    }
    let (pixels, ceiling) = match decoder.read_image()? {
        DecodingResult::U8(pixels) => (pixels.into_iter().map(u16::from).collect(), 255),
        DecodingResult::U16(pixels) => (pixels, u16::MAX),
        _ => {
            return Err(DecodeError::Pixels {
                found: "not unsigned integers".to_owned(),
            });
        }
    };
    plane(width, height, ceiling, pixels)
}

fn decode_png(bytes: &[u8]) -> Result<Plane, DecodeError> {
    let mut reader = image::ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(4 * MAX_PIXELS);
    reader.limits(limits);
    match reader.decode()? {
        image::DynamicImage::ImageLuma8(image) => {
            let (width, height) = image.dimensions();
            plane(
                width,
                height,
                255,
                image.into_raw().into_iter().map(u16::from).collect(),
            )
        }
        image::DynamicImage::ImageLuma16(image) => {
            let (width, height) = image.dimensions();
            plane(width, height, u16::MAX, image.into_raw())
        }
        other => Err(DecodeError::Pixels {
            found: format!("{:?}", other.color()),
        }),
    }
}

fn plane(width: u32, height: u32, ceiling: u16, pixels: Vec<u16>) -> Result<Plane, DecodeError> {
    if pixels.len() != checked_size(width, height)? {
        return Err(DecodeError::Size { width, height });
    }
    Ok(Plane {
        height: height as usize,
        width: width as usize,
        ceiling,
        pixels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tiff::encoder::{TiffEncoder, colortype};

    fn tiff16(width: u32, height: u32, pixels: &[u16]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        TiffEncoder::new(&mut bytes)
            .unwrap()
            .write_image::<colortype::Gray16>(width, height, pixels)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn sixteen_bit_tiff_and_eight_bit_png_keep_their_grey_levels() {
        let pixels: Vec<u16> = (0..35).map(|i| i * 1000).collect();
        let plane = decode(&tiff16(7, 5, &pixels)).unwrap();
        assert_eq!((plane.height, plane.width, plane.ceiling), (5, 7, 65535));
        assert_eq!(plane.pixels, pixels);

        let mut png = Cursor::new(Vec::new());
        image::GrayImage::from_raw(3, 1, vec![0, 7, 255])
            .unwrap()
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        let plane = decode(&png.into_inner()).unwrap();
        assert_eq!((plane.ceiling, plane.pixels), (255, vec![0, 7, 255]));
    }

    #[test]
    fn a_page_of_a_file_is_read_and_one_it_does_not_have_is_an_error() {
        let mut file = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).unwrap();
        for level in [1, 2, 3] {
            encoder
                .write_image::<colortype::Gray16>(2, 1, &[level, level])
                .unwrap();
        }
        let bytes = file.into_inner();
        for (page, level) in [(None, 1), (Some(0), 1), (Some(2), 3)] {
            assert_eq!(decode_page(&bytes, page).unwrap().pixels, [level, level]);
        }
        assert!(matches!(decode_page(&bytes, Some(3)), Err(DecodeError::Tiff(_))));
    }

    #[test]
    fn what_is_no_greyscale_image_is_an_error_that_says_so() {
        assert!(matches!(decode(b""), Err(DecodeError::Empty)));
        assert!(
            decode(b"GIF89a..")
                .unwrap_err()
                .to_string()
                .contains("47, 49, 46")
        );
        let whole = tiff16(64, 64, &[9; 4096]);
        assert!(matches!(
            decode(&whole[..whole.len() / 2]),
            Err(DecodeError::Tiff(_))
        ));
        let mut colour = Cursor::new(Vec::new());
        image::RgbImage::new(2, 2)
            .write_to(&mut colour, image::ImageFormat::Png)
            .unwrap();
        assert!(
            decode(&colour.into_inner())
                .unwrap_err()
                .to_string()
                .contains("greyscale")
        );
    }

    #[test]
    fn palette_indices_are_the_grey_levels() {
        let mut file = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).unwrap();
        let pixels: Vec<u8> = (0..16).collect();
        encoder.write_image::<colortype::Gray8>(4, 4, &pixels).unwrap();
        let mut bytes = file.into_inner();
        let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let entries = u16::from_le_bytes(bytes[directory..directory + 2].try_into().unwrap()) as usize;
        let at = (0..entries)
            .map(|entry| directory + 2 + 12 * entry)
            .find(|at| bytes[*at..*at + 2] == [6, 1])
            .unwrap();
        bytes[at + 8] = 3;
        assert_eq!(decode(&bytes).unwrap().pixels, (0..16).collect::<Vec<u16>>());
    }

    #[test]
    fn a_forged_size_is_refused_before_memory_is_reserved() {
        // Width and height are the first two entries of a classic little-endian TIFF directory of this writer.
        let mut bytes = tiff16(4, 4, &[1; 16]);
        let at = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize + 2;
        for entry in 0..2 {
            bytes[at + 12 * entry + 2] = 4;
            bytes[at + 12 * entry + 8..at + 12 * entry + 12].copy_from_slice(&0x00ff_ffffu32.to_le_bytes());
        }
        assert!(decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0usize..200, value: u8, cut in 0usize..400) {
            let mut bytes = tiff16(8, 8, &[3; 64]);
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(bytes.len().saturating_sub(cut % bytes.len()));
            let _ = decode(&bytes);
        }
    }
}
