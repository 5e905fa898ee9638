//! What packs a chunk's bytes, undone into buffers that cannot grow.
//!
//! The packed bytes of a chunk and the size that the document gives them enter, the unpacked bytes leave. What fails: damaged
//! bytes, and bytes that become more than they may.

use std::borrow::Cow;

use libdeflater::{DecompressionError, Decompressor};
use zarrs::array::codec::{blosc_decompress_bytes, blosc_validate};
use zarrs::metadata::v3::MetadataV3;

use crate::error::UnpackError;

/// What a packed chunk may have above its unpacked bytes: the worst of all codecs, with its header.
const OVERHEAD: usize = 64 << 10;

/// A codec from bytes to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Blosc,
    Gzip,
    Zlib,
    Zstd,
    /// Four bytes behind the others.
    Crc32c,
}

/// The most bytes that `bytes` may have when packed.
pub(crate) fn packed_at_most(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 8).saturating_add(OVERHEAD)
}

impl Packing {
    /// By its name in version 3, or its `id` in version 2.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("numcodecs.").unwrap_or(name) {
            "blosc" => Self::Blosc,
            "gzip" => Self::Gzip,
            "zlib" => Self::Zlib,
            "zstd" => Self::Zstd,
            "crc32c" => Self::Crc32c,
            _ => return None,
        })
    }

    /// The checksum may stand in front in old arrays of version 3, which are not read.
    pub(crate) fn of(codec: &MetadataV3) -> Option<Self> {
        let packing = Self::named(codec.name())?;
        let location = codec
            .configuration()
            .and_then(|configuration| configuration.get("location"));
        let in_front = location.is_some_and(|location| location == "start");
        (packing != Self::Crc32c || !in_front).then_some(packing)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Blosc => "blosc",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Crc32c => "crc32c",
        }
    }

    /// Undoes one packing; at most `limit` bytes come of it.
    fn undo(self, packed: &[u8], limit: usize) -> Result<Vec<u8>, UnpackError> {
        let codec = self.word();
        let damaged = |reason: String| UnpackError::Damaged { codec, reason };
        let too_much = || UnpackError::TooMuch { codec, limit };
        match self {
            Self::Blosc => {
                let size = blosc_validate(packed)
                    .ok_or_else(|| damaged("its header does not fit its length".to_owned()))?;
                if size > limit {
                    return Err(too_much());
                }
                if size == 0 {
                    return Ok(Vec::new());
                }
                blosc_decompress_bytes(packed, size, 1).map_err(|error| damaged(error.to_string()))
            }
            Self::Gzip | Self::Zlib => {
                let mut out = vec![0; limit];
                let mut decompressor = Decompressor::new();
                let undone = match self {
                    Self::Gzip => decompressor.gzip_decompress(packed, &mut out),
                    _ => decompressor.zlib_decompress(packed, &mut out),
                };
                let bytes = undone.map_err(|error| match error {
                    DecompressionError::InsufficientSpace => too_much(),
                    DecompressionError::BadData => damaged(error.to_string()),
                })?;
                out.truncate(bytes);
                Ok(out)
            }
            Self::Zstd => {
                let mut out = vec![0; limit];
                let bytes = zstd::bulk::decompress_to_buffer(packed, &mut out).map_err(|error| {
                    let reason = error.to_string();
                    if reason.contains("too small") {
                        too_much()
                    } else {
                        damaged(reason)
                    }
                })?;
                out.truncate(bytes);
                Ok(out)
            }
            Self::Crc32c => {
                let (data, stored) = packed.split_last_chunk::<4>().ok_or_else(|| {
                    damaged(format!("it has {} bytes, fewer than a checksum", packed.len()))
                })?;
                let expected = u32::from_le_bytes(*stored);
                let found = crc32c::crc32c(data);
                if found != expected {
                    return Err(damaged(format!(
                        "its checksum is {found:08x}, and should be {expected:08x}"
                    )));
                }
                Ok(data.to_vec())
            }
        }
    }
}

/// Undoes `packings`, which are in the order of packing, into exactly `expected` bytes.
pub(crate) fn unpack<'a>(
    packings: &[Packing],
    packed: &'a [u8],
    expected: usize,
) -> Result<Cow<'a, [u8]>, UnpackError> {
    let limit = if packings.is_empty() {
        expected
    } else {
        packed_at_most(expected)
    };
    if packed.len() > limit {
        return Err(UnpackError::TooLong {
            bytes: packed.len() as u64,
            limit: limit as u64,
        });
    }
    let mut bytes = Cow::Borrowed(packed);
    for (index, packing) in packings.iter().enumerate().rev() {
        let limit = if index == 0 {
            expected
        } else {
            packed_at_most(expected)
        };
        bytes = Cow::Owned(packing.undo(&bytes, limit)?);
    }
    if bytes.len() != expected {
        return Err(UnpackError::Size {
            found: bytes.len(),
            expected,
        });
    }
    Ok(bytes)
}
