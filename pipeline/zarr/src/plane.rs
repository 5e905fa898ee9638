//! One plane of an array: which chunks it lies in, and its grey levels.
//!
//! An array and the number of a plane enter, [`Tile`]s leave, which say what to read; with the bytes that were read, a
//! [`Plane`] gives grey levels. What fails: a plane that the array does not have, and damaged chunks.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rayon::prelude::*;
use zarrs::array::CodecOptions;
use zarrs::array::codec::api::ArrayToBytesCodecTraits;

use crate::document::ZarrArray;
use crate::error::{UnpackError, ZarrError};
use crate::unpack::unpack;

/// A part of a plane that lies in one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// The object, as a path below the array's folder.
    pub object: String,
    /// Which chunk of it, where it is a shard.
    pub inner: Option<u64>,
    /// Rows of the plane.
    rows: Range<usize>,
    /// Columns of the plane.
    columns: Range<usize>,
    /// Where in the unpacked chunk the plane begins, in pixels.
    start: usize,
}

impl Tile {
    /// What messages call the chunk.
    fn name(&self) -> String {
        match self.inner {
            Some(inner) => format!("{inner} of shard {}", self.object),
            None => self.object.clone(),
        }
    }
}

/// The stored bytes of a chunk.
#[derive(Debug)]
pub struct Chunk {
    bytes: Bytes,
    /// Whether several planes will be read from it: then it is unpacked once and held.
    shared: bool,
    unpacked: OnceLock<Vec<u8>>,
}

impl Chunk {
    /// Of the bytes that were read; `shared` where several planes are wanted from them.
    pub fn new(bytes: Bytes, shared: bool) -> Self {
        Self {
            bytes,
            shared,
            unpacked: OnceLock::new(),
        }
    }
}

impl ZarrArray {
    /// The chunks that plane `page` lies in, row by row. Planes count from 0, the last of the axes before height and width
    /// fastest.
    ///
    /// # Errors
    /// [`ZarrError::NoPlane`].
    pub fn tiles(&self, page: u32) -> Result<Vec<Tile>, ZarrError> {
        let planes = self.leading().iter().product();
        let no_plane = || ZarrError::NoPlane { page, planes };
        let mut rest = u64::from(page);
        let mut place = vec![0; self.leading().len()];
        for (at, length) in place.iter_mut().zip(self.leading()).rev() {
            *at = rest.checked_rem(*length).ok_or_else(no_plane)?;
            rest /= length;
        }
        let lengths: Vec<u64> = self.unit.iter().map(|length| length.get()).collect();
        let ([before @ .., unit_height, unit_width], 0) = (lengths.as_slice(), rest) else {
            return Err(no_plane());
        };
        let within = place
            .iter()
            .zip(before)
            .fold(0, |sum, (at, length)| sum * length + at % length);
        let start = (within * unit_height * unit_width) as usize;
        let leading: Vec<u64> = place.iter().zip(before).map(|(at, length)| at / length).collect();
        let (height, width) = (self.height(), self.width());
        let spans = |length: usize, unit: u64| {
            let unit = unit as usize;
            (0..length.div_ceil(unit))
                .map(move |index| (index as u64, index * unit..length.min((index + 1) * unit)))
        };
        let mut tiles = Vec::new();
        for (row, rows) in spans(height, *unit_height) {
            for (column, columns) in spans(width, *unit_width) {
                let unit = leading.iter().copied().chain([row, column]);
                let (object, inner) = self.object_of(unit);
                tiles.push(Tile {
                    object,
                    inner,
                    rows: rows.clone(),
                    columns,
                    start,
                });
            }
        }
        Ok(tiles)
    }

    /// The object that holds a unit, and which of its chunks that is.
    fn object_of(&self, unit: impl Iterator<Item = u64>) -> (String, Option<u64>) {
        let key = |indices: &[u64]| self.array.chunk_key(indices).as_str().to_owned();
        let Some(shards) = &self.shards else {
            return (key(&unit.collect::<Vec<_>>()), None);
        };
        let (mut object, mut inner) = (Vec::new(), 0);
        for (at, count) in unit.zip(&shards.counts) {
            object.push(at / count);
            inner = inner * count + at % count;
        }
        (key(&object), Some(inner))
    }

    /// The bytes of an unpacked unit, in the byte order of this machine.
    fn unpacked<'a>(&self, stored: &'a [u8]) -> Result<std::borrow::Cow<'a, [u8]>, UnpackError> {
        let expected = self.unit_bytes();
        let limit = self
            .limits
            .free_bytes
            .max(self.limits.ratio.saturating_mul(stored.len() as u64));
        if expected as u64 > limit {
            return Err(UnpackError::Bomb {
                encoded: stored.len(),
                decoded: expected as u64,
                limit,
            });
        }
        let bytes = unpack(&self.packings, stored, expected)?;
        let decoded = self
            .array
            .codecs()
            .decode(
                bytes,
                &self.unit,
                self.array.data_type(),
                self.array.fill_value(),
                &CodecOptions::default().with_concurrent_target(1),
            )
            .and_then(|decoded| Ok(decoded.into_fixed()?))
            .map_err(|error| UnpackError::Damaged {
                codec: "bytes",
                reason: error.to_string(),
            })?;
        if decoded.len() != expected {
            return Err(UnpackError::Size {
                found: decoded.len(),
                expected,
            });
        }
        Ok(decoded)
    }
}

/// A plane and the chunks that were read for it.
#[derive(Debug, Clone)]
pub struct Plane {
    array: Arc<ZarrArray>,
    /// In the order of [`ZarrArray::tiles`]; a chunk that is not there is the fill value.
    tiles: Vec<(Tile, Option<Arc<Chunk>>)>,
}

impl Plane {
    /// Of the tiles of a plane of `array`, each with its chunk; `None` where there is none.
    pub fn new(array: Arc<ZarrArray>, tiles: Vec<(Tile, Option<Arc<Chunk>>)>) -> Self {
        Self { array, tiles }
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.array.height()
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.array.width()
    }

    /// Largest grey level of the pixel type: 255 or 65535.
    pub fn ceiling(&self) -> u16 {
        self.array.ceiling()
    }

    /// Fills `out` with the grey levels, row by row. Chunks are unpacked in parallel, a row of them at a time.
    ///
    /// # Errors
    /// [`ZarrError::Chunk`], of the first row of chunks that has one; [`ZarrError::Buffer`] where `out` has another size.
    pub fn read(&self, out: &mut [u16]) -> Result<(), ZarrError> {
        let (height, width) = (self.height(), self.width());
        if out.len() != height * width {
            return Err(ZarrError::Buffer {
                found: out.len(),
                expected: height * width,
            });
        }
        let band = self
            .tiles
            .first()
            .map_or(height, |(tile, _)| tile.rows.len())
            .max(1);
        let errors: Vec<ZarrError> = out
            .par_chunks_mut(band * width)
            .enumerate()
            .filter_map(|(index, rows)| self.read_band(index * band, rows).err())
            .collect();
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// Fills the rows of the plane from `first` on, which are those of one row of chunks.
    fn read_band(&self, first: usize, out: &mut [u16]) -> Result<(), ZarrError> {
        let width = self.width();
        for (tile, chunk) in self.tiles.iter().filter(|(tile, _)| tile.rows.start == first) {
            let failed = |source| ZarrError::Chunk {
                object: tile.name(),
                source,
            };
            let rows = out
                .chunks_exact_mut(width)
                .filter_map(|row| row.get_mut(tile.columns.clone()));
            let Some(chunk) = chunk else {
                let fill = self.fill();
                rows.for_each(|row| row.fill(fill));
                continue;
            };
            match chunk.unpacked.get() {
                Some(unpacked) => self.copy(tile, unpacked, rows),
                None => {
                    let unpacked = self.array.unpacked(&chunk.bytes).map_err(failed)?;
                    self.copy(tile, &unpacked, rows);
                    if chunk.shared {
                        // Two threads may come here at once: what they unpacked is the same.
                        chunk.unpacked.get_or_init(|| unpacked.into_owned());
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies the tile's rows out of an unpacked unit.
    fn copy<'a>(&self, tile: &Tile, unit: &[u8], rows: impl Iterator<Item = &'a mut [u16]>) {
        let pixel = self.array.pixel_bytes;
        let stride = self.array.unit.last().map_or(1, |width| width.get() as usize);
        let plane = unit.get(tile.start * pixel..).unwrap_or_default();
        for (row, source) in rows.zip(plane.chunks(stride * pixel)) {
            if pixel == 1 {
                for (level, byte) in row.iter_mut().zip(source) {
                    *level = u16::from(*byte);
                }
            } else {
                for (level, bytes) in row.iter_mut().zip(source.as_chunks::<2>().0) {
                    *level = u16::from_ne_bytes(*bytes);
                }
            }
        }
    }

    /// The grey level of chunks that are not there.
    fn fill(&self) -> u16 {
        match self.array.array.fill_value().as_ne_bytes() {
            [level] => u16::from(*level),
            [first, second] => u16::from_ne_bytes([*first, *second]),
            _ => 0,
        }
    }
}
