//! One page: its size, its pixel type, and where its strips or tiles are.

use std::ops::Range;

use crate::codec::Compression;
use crate::error::{ChunkKind, ImageError};
use crate::limits::Limits;
use crate::predictor::Predictor;
use crate::region::Region;
use crate::source::Source;

use super::directory::{self as tag, Directory, Order};

/// What a pixel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// 8 bits, unsigned.
    U8,
    /// 12 bits, unsigned, two in three bytes, the first in the high bits; rows begin at a byte.
    U12,
    /// 16 bits, unsigned.
    U16,
    /// 32-bit float.
    F32,
}

impl Sample {
    /// Its bits.
    pub fn bits(self) -> usize {
        match self {
            Self::U8 => 8,
            Self::U12 => 12,
            Self::U16 => 16,
            Self::F32 => 32,
        }
    }

    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::U8 => "8-bit pixels",
            Self::U12 => "12-bit pixels",
            Self::U16 => "16-bit pixels",
            Self::F32 => "32-bit float pixels",
        }
    }
}

/// A checked page of grey pixels.
///
/// `Orientation` is not looked at, as in other programs of the field: rows are in the order of the file.
#[derive(Debug, Clone)]
pub struct Page {
    pub(super) index: usize,
    pub(super) order: Order,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) sample: Sample,
    pub(super) compression: Compression,
    pub(super) predictor: Predictor,
    pub(super) white_is_zero: bool,
    pub(super) kind: ChunkKind,
    pub(super) chunk_width: u32,
    pub(super) chunk_height: u32,
    pub(super) chunks: Vec<Range<u64>>,
    reduced: bool,
}

/// One strip or tile that a region needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    /// Its number.
    pub(super) index: usize,
    /// Its first row in the page.
    pub(super) top: u32,
    /// Its first column in the page.
    pub(super) left: u32,
}

impl Page {
    pub(super) fn describe<S: Source + ?Sized>(
        directory: &Directory<'_, S>,
        length: u64,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let index = directory.page;
        let width = directory.u32(tag::WIDTH)?;
        let height = directory.u32(tag::HEIGHT)?;
        let (sample, white_is_zero) = sample(directory)?;
        let compression = directory.value(tag::COMPRESSION)?.unwrap_or(1);
        let compression = Compression::from_tag(compression)
            .ok_or_else(|| directory.refused(tag::COMPRESSION, compression, Compression::READ))?;
        let predictor = predictor(directory, sample, compression)?;
        let kind = match directory.value(tag::TILE_WIDTH)? {
            Some(_) => ChunkKind::Tile,
            None => ChunkKind::Strip,
        };
        let (chunk_width, chunk_height) = match kind {
            ChunkKind::Tile => (directory.u32(tag::TILE_WIDTH)?, directory.u32(tag::TILE_HEIGHT)?),
            // Its default is "all rows", which some programs write as 2^32 - 1 and some as 0.
            ChunkKind::Strip => match directory.value(tag::ROWS_PER_STRIP)? {
                None | Some(0) => (width, height),
                Some(rows) => (width, u32::try_from(rows).unwrap_or(height).min(height)),
            },
        };
        let usable =
            |width: u32, height: u32| (1..=limits.pixels).contains(&(u64::from(width) * u64::from(height)));
        let mut page = Self {
            index,
            order: directory.order,
            width,
            height,
            sample,
            compression,
            predictor,
            white_is_zero,
            kind,
            chunk_width,
            chunk_height,
            chunks: Vec::new(),
            reduced: directory.value(tag::SUBFILE)?.unwrap_or(0) & 1 == 1,
        };
        if !usable(width, height)
            || !usable(chunk_width, chunk_height)
            || page.chunk_bytes(chunk_height) > u64::from(u32::MAX)
        {
            return Err(ImageError::Size {
                page: index,
                width,
                height,
                kind,
                chunk_width,
                chunk_height,
                limit: limits.pixels,
            });
        }
        let (offsets, lengths) = match kind {
            ChunkKind::Strip => (tag::STRIP_OFFSETS, tag::STRIP_BYTES),
            ChunkKind::Tile => (tag::TILE_OFFSETS, tag::TILE_BYTES),
        };
        let count = u64::from(page.across()) * u64::from(page.down());
        let whole = |chunk| page.chunk_bytes(page.chunk_rows((chunk / u64::from(page.across())) as u32));
        let uncompressed: Option<&dyn Fn(u64) -> u64> = (compression == Compression::None).then_some(&whole);
        let chunks = directory.ranges(offsets, lengths, count, uncompressed)?;
        page.chunks = chunks;
        page.check_places(length)?;
        page.check_size(count, limits)?;
        Ok(page)
    }

    /// What the page becomes stands in proportion to its bytes in the file. They are counted once each: none are shared.
    fn check_size(&self, chunks: u64, limits: &Limits) -> Result<(), ImageError> {
        let encoded = self.chunks.iter().map(|range| range.end - range.start).sum();
        let decoded = chunks.saturating_mul(self.chunk_bytes(self.chunk_height));
        let limit = limits.decoded_bytes(encoded);
        if decoded <= limit {
            return Ok(());
        }
        Err(ImageError::Bomb {
            page: self.index,
            encoded,
            decoded,
            limit,
        })
    }

    /// Every strip or tile is in the file, and no two share bytes.
    fn check_places(&self, length: u64) -> Result<(), ImageError> {
        let (page, kind) = (self.index, self.kind);
        for (index, range) in self.chunks.iter().enumerate() {
            if range.is_empty() {
                return Err(ImageError::Blank { page, kind, index });
            }
            if range.end > length {
                return Err(ImageError::Outside {
                    page,
                    kind,
                    index,
                    start: range.start,
                    end: range.end,
                    length,
                });
            }
        }
        let mut places: Vec<(u64, u64, usize)> = self
            .chunks
            .iter()
            .enumerate()
            .map(|(index, range)| (range.start, range.end, index))
            .collect();
        places.sort_unstable();
        for (first, second) in places.iter().zip(places.iter().skip(1)) {
            if second.0 < first.1 {
                return Err(ImageError::Overlap {
                    page,
                    kind,
                    first: first.2,
                    second: second.2,
                    offset: second.0,
                });
            }
        }
        Ok(())
    }

    /// Which page of the file it is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// What a pixel is.
    pub fn sample(&self) -> Sample {
        self.sample
    }

    /// How it is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// How pixels were made easier to compress.
    pub fn predictor(&self) -> Predictor {
        self.predictor
    }

    /// What it is cut into.
    pub fn chunk_kind(&self) -> ChunkKind {
        self.kind
    }

    /// Strips or tiles.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Whether the file calls it a smaller version of another page: a thumbnail, or a level of a pyramid.
    pub fn is_reduced(&self) -> bool {
        self.reduced
    }

    /// Largest grey level of the pixel type: 255, 4095 or 65535. Floats are read as grey levels only where they are whole
    /// numbers up to 65535.
    pub fn ceiling(&self) -> u16 {
        match self.sample {
            Sample::U8 => 255,
            Sample::U12 => 4095,
            Sample::U16 | Sample::F32 => u16::MAX,
        }
    }

    /// All of the page.
    pub fn whole(&self) -> Region {
        Region {
            rows: 0..self.height,
            columns: 0..self.width,
        }
    }

    /// The parts of the file that hold a region, in order and joined where they touch: what a reader has to fetch.
    ///
    /// # Errors
    /// [`ImageError::Region`].
    pub fn ranges(&self, region: &Region) -> Result<Vec<Range<u64>>, ImageError> {
        let mut ranges: Vec<Range<u64>> = self
            .needed(region)?
            .iter()
            .filter_map(|chunk| self.chunks.get(chunk.index).cloned())
            .collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|range, before| {
            let touches = range.start == before.end;
            if touches {
                before.end = range.end;
            }
            touches
        });
        Ok(ranges)
    }

    /// The strips or tiles of a region, row by row.
    pub(super) fn needed(&self, region: &Region) -> Result<Vec<Needed>, ImageError> {
        let Region { rows, columns } = region;
        if rows.is_empty() || columns.is_empty() || rows.end > self.height || columns.end > self.width {
            return Err(ImageError::Region {
                page: self.index,
                rows: rows.clone(),
                columns: columns.clone(),
                height: self.height,
                width: self.width,
            });
        }
        let (height, width, across) = (self.chunk_height, self.chunk_width, self.across());
        let down = rows.start / height..=(rows.end - 1) / height;
        let right = columns.start / width..=(columns.end - 1) / width;
        Ok(down
            .flat_map(|y| right.clone().map(move |x| (y, x)))
            .map(|(y, x)| Needed {
                index: y as usize * across as usize + x as usize,
                top: y * height,
                left: x * width,
            })
            .collect())
    }

    fn across(&self) -> u32 {
        self.width.div_ceil(self.chunk_width)
    }

    fn down(&self) -> u32 {
        self.height.div_ceil(self.chunk_height)
    }

    /// Rows that are stored in a strip or tile of row `y` of the grid: tiles are whole, the last strip is not.
    pub(super) fn chunk_rows(&self, y: u32) -> u32 {
        match self.kind {
            ChunkKind::Tile => self.chunk_height,
            ChunkKind::Strip => (self.height - y * self.chunk_height).min(self.chunk_height),
        }
    }

    /// Bytes of one row of a strip or tile.
    pub(super) fn row_bytes(&self) -> u64 {
        (u64::from(self.chunk_width) * self.sample.bits() as u64).div_ceil(8)
    }

    /// Bytes of `rows` rows of a strip or tile.
    pub(super) fn chunk_bytes(&self, rows: u32) -> u64 {
        self.row_bytes() * u64::from(rows)
    }
}

/// The pixel type, and whether white is 0.
fn sample<S: Source + ?Sized>(directory: &Directory<'_, S>) -> Result<(Sample, bool), ImageError> {
    let samples = directory.value(tag::SAMPLES)?.unwrap_or(1);
    let bits = directory.value(tag::BITS)?.unwrap_or(1);
    let format = directory.value(tag::SAMPLE_FORMAT)?.unwrap_or(1);
    let photometric = directory.value(tag::PHOTOMETRIC)?.unwrap_or(1);
    let format_word = match format {
        // 4 is "undefined", which readers take for unsigned.
        1 | 4 => "unsigned",
        2 => "signed",
        3 => "float",
        _ => "of an unknown format",
    };
    let sample = match (bits, format_word) {
        (8, "unsigned") => Some(Sample::U8),
        (12, "unsigned") => Some(Sample::U12),
        (16, "unsigned") => Some(Sample::U16),
        (32, "float") => Some(Sample::F32),
        _ => None,
    };
    // The indices of a palette are the grey levels: acquisition software stores raw levels under a display palette.
    match (sample, samples, photometric) {
        (Some(sample), 1, 1 | 3) => Ok((sample, false)),
        (Some(sample), 1, 0) if sample != Sample::F32 => Ok((sample, true)),
        _ => {
            let colour = match photometric {
                0 => "white is zero",
                1 => "grey",
                2 => "RGB",
                3 => "palette",
                5 => "CMYK",
                6 => "YCbCr",
                _ => "of an unknown colour space",
            };
            Err(ImageError::Pixels {
                page: directory.page,
                found: format!("{colour}, {samples} x {bits} bit {format_word}"),
            })
        }
    }
}

fn predictor<S: Source + ?Sized>(
    directory: &Directory<'_, S>,
    sample: Sample,
    compression: Compression,
) -> Result<Predictor, ImageError> {
    // Whoever reverses the bits of bytes reverses more than greyscale of 8 bits and more has ever needed.
    let fill_order = directory.value(tag::FILL_ORDER)?.unwrap_or(1);
    if fill_order != 1 {
        return Err(directory.refused(tag::FILL_ORDER, fill_order, "1 (bits from the highest down)"));
    }
    let found = directory.value(tag::PREDICTOR)?.unwrap_or(1);
    let predictor = Predictor::from_tag(found);
    let compressed = matches!(
        compression,
        Compression::Lzw | Compression::Deflate | Compression::Zstd
    );
    match (predictor, sample) {
        (Some(Predictor::None), _) => Ok(Predictor::None),
        (Some(Predictor::Horizontal), Sample::U8 | Sample::U16 | Sample::F32) if compressed => {
            Ok(Predictor::Horizontal)
        }
        (Some(Predictor::Float), Sample::F32) if compressed => Ok(Predictor::Float),
        // libtiff and others do not look at the tag where there is no such compression.
        (Some(Predictor::Horizontal), _) if !compressed => Ok(Predictor::None),
        _ => Err(directory.refused(tag::PREDICTOR, found, Predictor::READ)),
    }
}
