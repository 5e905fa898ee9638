//! PNG of 8 and 16 bit grey; fewer bits are spread over 8.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Reader, Transformations};

use crate::error::{ChunkKind, ImageError};
use crate::limits::Limits;

/// An image whose header has been read.
pub(crate) struct Image<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) ceiling: u16,
}

impl<'a> Image<'a> {
    pub(crate) fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let memory = limits.decoded_bytes(bytes.len() as u64);
        let mut decoder = Decoder::new_with_limits(
            Cursor::new(bytes),
            png::Limits {
                bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            },
        );
        decoder.set_transformations(Transformations::EXPAND);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let reader = decoder.read_info()?;
        let (width, height) = reader.info().size();
        let pixels = u64::from(width) * u64::from(height);
        if !(1..=limits.pixels).contains(&pixels) {
            return Err(ImageError::Size {
                page: 0,
                width,
                height,
                kind: ChunkKind::Strip,
                chunk_width: width,
                chunk_height: height,
                limit: limits.pixels,
            });
        }
        let ceiling = match reader.output_color_type() {
            (ColorType::Grayscale, BitDepth::Eight) => 255,
            (ColorType::Grayscale, BitDepth::Sixteen) => u16::MAX,
            (colour, depth) => {
                return Err(ImageError::Pixels {
                    page: 0,
                    found: format!("{colour:?}, {} bit", depth as u8),
                });
            }
        };
        let decoded = 2 * pixels;
        if decoded > memory {
            return Err(ImageError::Bomb {
                page: 0,
                encoded: bytes.len() as u64,
                decoded,
                limit: memory,
            });
        }
        Ok(Self {
            reader,
            height: height as usize,
            width: width as usize,
            ceiling,
        })
    }

    pub(crate) fn read(mut self, out: &mut [u16]) -> Result<(), ImageError> {
        let expected = self.height * self.width;
        if out.len() != expected {
            return Err(ImageError::Buffer {
                found: out.len(),
                expected,
            });
        }
        if self.ceiling == u16::MAX {
            self.reader.next_frame(bytemuck::cast_slice_mut(out))?;
            for level in out {
                *level = u16::from_be(*level);
            }
            return Ok(());
        }
        let mut bytes = vec![0; expected];
        self.reader.next_frame(&mut bytes)?;
        for (level, byte) in out.iter_mut().zip(bytes) {
            *level = u16::from(byte);
        }
        Ok(())
    }
}
