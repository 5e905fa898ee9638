//! Decompression of one strip or tile into a buffer of exactly its size.

use crate::error::CodecError;

pub(crate) mod lzw;
pub(crate) mod packbits;

/// How strips and tiles are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all (1).
    None,
    /// LZW (5).
    Lzw,
    /// Deflate with zlib's frame (8, and 32946 of older programs).
    Deflate,
    /// Runs of bytes (32773).
    PackBits,
    /// ZSTD (50000, and 34926 of older programs).
    Zstd,
}

impl Compression {
    pub(crate) const READ: &'static str =
        "1 (none), 5 (LZW), 8 and 32946 (Deflate), 32773 (PackBits), 50000 and 34926 (ZSTD)";

    pub(crate) fn from_tag(value: u64) -> Option<Self> {
        Some(match value {
            1 => Self::None,
            5 => Self::Lzw,
            8 | 32946 => Self::Deflate,
            32773 => Self::PackBits,
            50000 | 34926 => Self::Zstd,
            _ => return None,
        })
    }
}

/// The decoders' working memory, which one thread uses again for every strip.
#[derive(Default)]
pub(crate) struct Decoders {
    lzw: Option<lzw::Lzw>,
    deflate: Option<libdeflater::Decompressor>,
    zstd: Option<zstd::zstd_safe::DCtx<'static>>,
    padded: Vec<u8>,
}

impl Decoders {
    /// Fills `out` from `input`. Strips at the lower edge may hold rows below the image: up to `padded` bytes, of which the
    /// first are kept.
    pub(crate) fn decode(
        &mut self,
        compression: Compression,
        input: &[u8],
        out: &mut [u8],
        padded: usize,
    ) -> Result<(), CodecError> {
        let expected = out.len();
        let short = |written| CodecError::Short { written, expected };
        match compression {
            Compression::None => {
                let input = input.get(..expected).ok_or(short(input.len()))?;
                out.copy_from_slice(input);
                return Ok(());
            }
            Compression::Lzw => return self.lzw.get_or_insert_default().decode(input, out),
            Compression::PackBits => return packbits::decode(input, out),
            Compression::Deflate | Compression::Zstd => {}
        }
        // These two want room for all that is in the stream.
        match self.whole(compression, input, out) {
            Err(CodecError::Long { .. }) if padded > expected => {}
            other => {
                return other.and_then(|written| {
                    if written < expected {
                        Err(short(written))
                    } else {
                        Ok(())
                    }
                });
            }
        }
        let mut room = std::mem::take(&mut self.padded);
        room.resize(padded, 0);
        let written = self.whole(compression, input, &mut room)?;
        if let Some(kept) = room.get(..expected.min(written)) {
            out.get_mut(..kept.len())
                .ok_or(short(written))?
                .copy_from_slice(kept);
        }
        self.padded = room;
        if written < expected {
            Err(short(written))
        } else {
            Ok(())
        }
    }

    /// Decodes a whole stream; returns how many bytes it held.
    fn whole(&mut self, compression: Compression, input: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
        let expected = out.len();
        if compression == Compression::Deflate {
            let decoder = self.deflate.get_or_insert_with(libdeflater::Decompressor::new);
            return decoder.zlib_decompress(input, out).map_err(|error| match error {
                libdeflater::DecompressionError::InsufficientSpace => CodecError::Long { expected },
                libdeflater::DecompressionError::BadData => CodecError::Deflate,
            });
        }
        let decoder = self.zstd.get_or_insert_default();
        decoder.decompress(out, input).map_err(|code| {
            let reason = zstd::zstd_safe::get_error_name(code);
            if reason.contains("too small") {
                CodecError::Long { expected }
            } else {
                CodecError::Zstd { reason }
            }
        })
    }
}
