//! One page's directory: tags and their values, in either byte order, of TIFF and BigTIFF.

use std::ops::Range;

use crate::error::ImageError;
use crate::source::Source;

/// A tag's number and name.
pub(super) type Tag = (u16, &'static str);

pub(super) const SUBFILE: Tag = (254, "NewSubfileType");
pub(super) const WIDTH: Tag = (256, "ImageWidth");
pub(super) const HEIGHT: Tag = (257, "ImageLength");
pub(super) const BITS: Tag = (258, "BitsPerSample");
pub(super) const COMPRESSION: Tag = (259, "Compression");
pub(super) const PHOTOMETRIC: Tag = (262, "PhotometricInterpretation");
pub(super) const FILL_ORDER: Tag = (266, "FillOrder");
pub(super) const DESCRIPTION: Tag = (270, "ImageDescription");
pub(super) const STRIP_OFFSETS: Tag = (273, "StripOffsets");
pub(super) const SAMPLES: Tag = (277, "SamplesPerPixel");
pub(super) const ROWS_PER_STRIP: Tag = (278, "RowsPerStrip");
pub(super) const STRIP_BYTES: Tag = (279, "StripByteCounts");
pub(super) const PREDICTOR: Tag = (317, "Predictor");
pub(super) const TILE_WIDTH: Tag = (322, "TileWidth");
pub(super) const TILE_HEIGHT: Tag = (323, "TileLength");
pub(super) const TILE_OFFSETS: Tag = (324, "TileOffsets");
pub(super) const TILE_BYTES: Tag = (325, "TileByteCounts");
pub(super) const SAMPLE_FORMAT: Tag = (339, "SampleFormat");

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `II`.
    Little,
    /// `MM`.
    Big,
}

impl Order {
    /// Whether words are the other way round than this machine's.
    pub(crate) fn is_foreign(self) -> bool {
        (self == Self::Little) != cfg!(target_endian = "little")
    }

    // Words of slices whose length was asked for; what is not there reads as 0.
    fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(Self::word(bytes, at)),
            Self::Big => u16::from_be_bytes(Self::word(bytes, at)),
        }
    }

    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(Self::word(bytes, at)),
            Self::Big => u32::from_be_bytes(Self::word(bytes, at)),
        }
    }

    pub(super) fn u64(self, bytes: &[u8], at: usize) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(Self::word(bytes, at)),
            Self::Big => u64::from_be_bytes(Self::word(bytes, at)),
        }
    }
}

/// A directory whose entries are here; the values of long tags are read when asked for.
pub(super) struct Directory<'a, S: Source + ?Sized> {
    source: &'a S,
    pub(super) order: Order,
    big: bool,
    /// The page it describes.
    pub(super) page: usize,
    entries: &'a [u8],
    /// Where the next directory's offset is.
    after: u64,
}

/// The whole numbers of one tag.
pub(super) struct Values<'a> {
    order: Order,
    bytes: &'a [u8],
    size: usize,
}

impl Values<'_> {
    pub(super) fn len(&self) -> u64 {
        (self.bytes.len() / self.size) as u64
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.bytes.chunks_exact(self.size).map(|bytes| match self.size {
            1 => u64::from(bytes.first().copied().unwrap_or(0)),
            2 => u64::from(self.order.u16(bytes, 0)),
            4 => u64::from(self.order.u32(bytes, 0)),
            _ => self.order.u64(bytes, 0),
        })
    }
}

impl<'a, S: Source + ?Sized> Directory<'a, S> {
    pub(super) fn read(
        source: &'a S,
        order: Order,
        big: bool,
        offset: u64,
        page: usize,
    ) -> Result<Self, ImageError> {
        let (count_bytes, entry_bytes) = if big { (8, 20) } else { (2, 12) };
        let what = "a page's directory";
        let start = offset.saturating_add(count_bytes);
        let count = source.bytes(offset..start, what)?;
        let count = if big {
            order.u64(count, 0)
        } else {
            u64::from(order.u16(count, 0))
        };
        let after = start.saturating_add(count.saturating_mul(entry_bytes));
        Ok(Self {
            source,
            order,
            big,
            page,
            entries: source.bytes(start..after, what)?,
            after,
        })
    }

    /// Where the next page's directory is; 0 after the last one.
    pub(super) fn next(&self) -> Result<u64, ImageError> {
        let size = if self.big { 8 } else { 4 };
        let range = self.after..self.after.saturating_add(size);
        let bytes = self
            .source
            .bytes(range, "the offset of the next page's directory")?;
        Ok(if self.big {
            self.order.u64(bytes, 0)
        } else {
            u64::from(self.order.u32(bytes, 0))
        })
    }

    /// The type of a tag, how many values it has, and its entry.
    fn entry(&self, tag: Tag) -> Option<(u16, u64, &'a [u8])> {
        let size = if self.big { 20 } else { 12 };
        let entry = self
            .entries
            .chunks_exact(size)
            .find(|entry| self.order.u16(entry, 0) == tag.0)?;
        let count = if self.big {
            self.order.u64(entry, 4)
        } else {
            u64::from(self.order.u32(entry, 4))
        };
        Some((self.order.u16(entry, 2), count, entry))
    }

    /// The bytes of `count` values of `size` bytes: in the entry where they fit.
    fn value_bytes(
        &self,
        entry: &'a [u8],
        count: u64,
        size: u64,
        what: &'static str,
    ) -> Result<&'a [u8], ImageError> {
        let (room, at) = if self.big { (8, 12) } else { (4, 8) };
        let bytes = count.saturating_mul(size);
        if bytes <= room {
            return Ok(entry.get(at..at + bytes as usize).unwrap_or_default());
        }
        let start = if self.big {
            self.order.u64(entry, at)
        } else {
            u64::from(self.order.u32(entry, at))
        };
        self.source.bytes(start..start.saturating_add(bytes), what)
    }

    /// The values of a tag; `None` where it is absent.
    pub(super) fn values(&self, tag: Tag) -> Result<Option<Values<'a>>, ImageError> {
        let Some((kind, count, entry)) = self.entry(tag) else {
            return Ok(None);
        };
        let size = match kind {
            1 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            found => {
                return Err(ImageError::TagType {
                    page: self.page,
                    tag: tag.1,
                    found,
                });
            }
        };
        Ok(Some(Values {
            order: self.order,
            bytes: self.value_bytes(entry, count, size, tag.1)?,
            size: size as usize,
        }))
    }

    /// The only value of a tag, or its first; `None` where it is absent.
    pub(super) fn value(&self, tag: Tag) -> Result<Option<u64>, ImageError> {
        let Some(values) = self.values(tag)? else {
            return Ok(None);
        };
        values.iter().next().map(Some).ok_or(ImageError::TagCount {
            page: self.page,
            tag: tag.1,
            found: 0,
            expected: 1,
        })
    }

    /// The value of a tag that must be there and below 2^32.
    pub(super) fn u32(&self, tag: Tag) -> Result<u32, ImageError> {
        let found = self.value(tag)?.ok_or(ImageError::NoTag {
            page: self.page,
            tag: tag.1,
        })?;
        u32::try_from(found).map_err(|_| self.refused(tag, found, "less than 4294967296"))
    }

    pub(super) fn refused(&self, tag: Tag, found: u64, expected: &'static str) -> ImageError {
        ImageError::TagValue {
            page: self.page,
            tag: tag.1,
            found,
            expected,
        }
    }

    /// Where strips or tiles are: as many ranges as `expected`.
    pub(super) fn ranges(
        &self,
        offsets: Tag,
        lengths: Tag,
        expected: u64,
        uncompressed: Option<&dyn Fn(u64) -> u64>,
    ) -> Result<Vec<Range<u64>>, ImageError> {
        let values = |tag: Tag| match self.values(tag)? {
            Some(values) if values.len() < expected => Err(ImageError::TagCount {
                page: self.page,
                tag: tag.1,
                found: values.len(),
                expected,
            }),
            found => Ok(found),
        };
        let absent = |tag: Tag| ImageError::NoTag {
            page: self.page,
            tag: tag.1,
        };
        let starts = values(offsets)?.ok_or(absent(offsets))?;
        // Old programs left the lengths away where they follow from the size.
        let ends: Vec<u64> = match (values(lengths)?, uncompressed) {
            (Some(lengths), _) => lengths.iter().take(expected as usize).collect(),
            (None, Some(length)) => (0..expected.min(starts.len())).map(length).collect(),
            (None, None) => return Err(absent(lengths)),
        };
        Ok(starts
            .iter()
            .zip(ends)
            .map(|(start, length)| start..start.saturating_add(length))
            .collect())
    }

    /// The text of a tag; `None` where it is absent or no text.
    pub(super) fn text(&self, tag: Tag) -> Result<Option<String>, ImageError> {
        let Some((2, count, entry)) = self.entry(tag) else {
            return Ok(None);
        };
        let bytes = self.value_bytes(entry, count, 1, tag.1)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(text).into_owned()))
    }
}
