//! The metadata document of an array: what its planes are, and in which chunks they lie.
//!
//! The bytes of a `.zarray` or `zarr.json` enter, a [`ZarrArray`] leaves. What fails: documents of other arrays than grey
//! levels, codecs that are not read, and sizes beyond the [`Limits`], before anything of such a size is asked for.

use std::num::NonZeroU64;

use serde_json::Value;
use zarrs::array::{Array, ArrayMetadata, ArrayMetadataV2, ArrayMetadataV3, data_type};

use crate::error::ZarrError;
use crate::shard::Shards;
use crate::unpack::{Packing, packed_at_most};

/// More axes than any image of the field has.
const MAX_AXES: usize = 8;
/// Chunks of one plane at most: those of 64 x 64 pixels of a plane of 16384 x 16384.
const MAX_TILES: u64 = 1 << 16;

/// What is read at most, so that a forged document is an error and not a dead worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of a plane, and of a chunk (which may hold several planes).
    pub pixels: u64,
    /// Bytes that a chunk may become however few are stored.
    pub free_bytes: u64,
    /// Above `free_bytes`, the most bytes that each stored byte may become.
    pub ratio: u64,
}

impl Default for Limits {
    /// 2^28 pixels (16384 x 16384), 64 MiB, 64 times.
    fn default() -> Self {
        Self {
            pixels: 1 << 28,
            free_bytes: 64 << 20,
            ratio: 64,
        }
    }
}

/// An array of planes of grey levels: the last two axes are height and width.
pub struct ZarrArray {
    /// What `zarrs` knows of it: names of chunks, fill value, and codecs up to bytes. No store is behind it.
    pub(crate) array: Array<()>,
    /// Lengths of all axes.
    pub(crate) shape: Vec<u64>,
    /// Lengths of what is unpacked at once: a chunk, or the chunk of a shard.
    pub(crate) unit: Vec<NonZeroU64>,
    /// What packs the bytes of a unit, in the order of packing.
    pub(crate) packings: Vec<Packing>,
    /// Where objects are shards of units.
    pub(crate) shards: Option<Shards>,
    /// Bytes of a pixel: 1 or 2.
    pub(crate) pixel_bytes: usize,
    pub(crate) limits: Limits,
}

impl std::fmt::Debug for ZarrArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZarrArray")
            .field("shape", &self.shape)
            .field("unit", &self.unit)
            .field("packings", &self.packings)
            .finish_non_exhaustive()
    }
}

fn malformed(error: impl ToString) -> ZarrError {
    ZarrError::Malformed {
        reason: error.to_string(),
    }
}

fn codec(name: &str) -> ZarrError {
    ZarrError::Codec {
        name: name.to_owned(),
    }
}

impl ZarrArray {
    /// Reads a document of either version.
    ///
    /// # Errors
    /// As [`ZarrError`] has them: no array of grey levels, something that is not read, or beyond the limits.
    pub fn parse(document: &[u8], limits: Limits) -> Result<Self, ZarrError> {
        let document: Value =
            serde_json::from_slice(document).map_err(|source| ZarrError::Json { source })?;
        let node = &document["node_type"];
        match (document["zarr_format"].as_u64(), node.as_str()) {
            (Some(2), None | Some("array")) if document.get("shape").is_some() => {
                Self::of_version_2(serde_json::from_value(document).map_err(malformed)?, limits)
            }
            (Some(3), Some("array")) => {
                Self::of_version_3(serde_json::from_value(document).map_err(malformed)?, limits)
            }
            _ => Err(ZarrError::NotAnArray {
                version: document["zarr_format"].to_string(),
                node: node.to_string(),
            }),
        }
    }

    fn of_version_2(mut metadata: ArrayMetadataV2, limits: Limits) -> Result<Self, ZarrError> {
        let filters = metadata.filters.as_deref().unwrap_or_default();
        if let Some(filter) = filters.first() {
            return Err(codec(filter.id()));
        }
        let compressor = metadata.compressor.take();
        let packing = compressor.map(|compressor| {
            let known = Packing::named(compressor.id()).filter(|packing| *packing != Packing::Crc32c);
            known.ok_or_else(|| codec(compressor.id()))
        });
        let packings = packing.transpose()?.into_iter().collect();
        let chunk = metadata.chunks.to_vec();
        let pixels = serde_json::to_value(&metadata.dtype).map_err(malformed)?;
        checked_shape(&metadata.shape, &chunk, limits)?;
        Self::new(
            ArrayMetadata::V2(metadata),
            &pixels,
            chunk,
            packings,
            None,
            limits,
        )
    }

    fn of_version_3(mut metadata: ArrayMetadataV3, limits: Limits) -> Result<Self, ZarrError> {
        if let Some(transformer) = metadata.storage_transformers.first() {
            let name = transformer.name().to_owned();
            return Err(ZarrError::Transformer { name });
        }
        if metadata.chunk_grid.name() != "regular" {
            let name = metadata.chunk_grid.name().to_owned();
            return Err(ZarrError::Grid { name });
        }
        let grid = metadata.chunk_grid.configuration();
        let chunk = grid.and_then(|grid| grid.get("chunk_shape")).cloned();
        let chunk: Vec<NonZeroU64> = serde_json::from_value(chunk.unwrap_or_default()).map_err(malformed)?;
        let (shards, unit) = match metadata.codecs.as_slice() {
            [only] if only.name() == "sharding_indexed" => {
                let (shards, unit, codecs) = Shards::parse(only, &chunk)?;
                metadata.codecs = codecs;
                (Some(shards), unit)
            }
            _ => (None, chunk),
        };
        let mut packings = Vec::new();
        let mut codecs = Vec::new();
        for of in std::mem::take(&mut metadata.codecs) {
            match (Packing::of(&of), of.name()) {
                (Some(packing), _) => packings.push(packing),
                (None, "bytes" | "endian" | "transpose") if packings.is_empty() => codecs.push(of),
                (None, name) => return Err(codec(name)),
            }
        }
        metadata.codecs = codecs;
        let pixels = serde_json::to_value(&metadata.data_type).map_err(malformed)?;
        checked_shape(&metadata.shape, &unit, limits)?;
        Self::new(
            ArrayMetadata::V3(metadata),
            &pixels,
            unit,
            packings,
            shards,
            limits,
        )
    }

    fn new(
        metadata: ArrayMetadata,
        pixels: &Value,
        unit: Vec<NonZeroU64>,
        packings: Vec<Packing>,
        shards: Option<Shards>,
        limits: Limits,
    ) -> Result<Self, ZarrError> {
        let array = Array::new_with_metadata(().into(), "/", metadata).map_err(malformed)?;
        let pixel_bytes = match array.data_type() {
            kind if *kind == data_type::uint8() => 1,
            kind if *kind == data_type::uint16() => 2,
            _ => {
                let found = pixels.to_string();
                return Err(ZarrError::Pixels { found });
            }
        };
        Ok(Self {
            shape: array.shape().to_vec(),
            array,
            unit,
            packings,
            shards,
            pixel_bytes,
            limits,
        })
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.plane_size().0
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.plane_size().1
    }

    /// Height and width; both were found small enough.
    fn plane_size(&self) -> (usize, usize) {
        self.shape
            .last_chunk::<2>()
            .map_or((0, 0), |[height, width]| (*height as usize, *width as usize))
    }

    /// Largest grey level of the pixel type: 255 or 65535.
    pub fn ceiling(&self) -> u16 {
        if self.pixel_bytes == 1 { 255 } else { u16::MAX }
    }

    /// The lengths of the axes before height and width.
    pub(crate) fn leading(&self) -> &[u64] {
        let axes = self.shape.len().saturating_sub(2);
        self.shape.get(..axes).unwrap_or_default()
    }

    /// Bytes of an unpacked unit.
    pub(crate) fn unit_bytes(&self) -> usize {
        let pixels: u64 = self.unit.iter().map(|length| length.get()).product();
        pixels as usize * self.pixel_bytes
    }

    /// The most bytes that a stored chunk, or the chunk of a shard, can have.
    pub fn stored_at_most(&self) -> u64 {
        let bytes = self.unit_bytes();
        match self.packings.is_empty() {
            true => bytes as u64,
            false => packed_at_most(bytes) as u64,
        }
    }
}

/// Whether planes and units can be read: known axes, some pixels, and not too many.
fn checked_shape(shape: &[u64], unit: &[NonZeroU64], limits: Limits) -> Result<(), ZarrError> {
    let axes = shape.len();
    let [leading @ .., height, width] = shape else {
        return Err(ZarrError::Axes {
            axes,
            limit: MAX_AXES,
        });
    };
    if axes > MAX_AXES {
        return Err(ZarrError::Axes {
            axes,
            limit: MAX_AXES,
        });
    }
    if unit.len() != axes {
        return Err(malformed(format!(
            "its chunks have {} axes, and it has {axes}",
            unit.len()
        )));
    }
    let (height, width) = (*height, *width);
    if !(1..=limits.pixels).contains(&height.saturating_mul(width)) {
        let limit = limits.pixels;
        return Err(ZarrError::PlaneSize { width, height, limit });
    }
    let planes = leading
        .iter()
        .try_fold(1u64, |product, length| product.checked_mul(*length));
    if planes.is_none_or(|planes| planes == 0 || u32::try_from(planes).is_err()) {
        let shape = shape.to_vec();
        return Err(ZarrError::Planes { shape });
    }
    let lengths = unit.iter().map(|length| length.get());
    let pixels = lengths.clone().try_fold(1u64, u64::checked_mul);
    if pixels.is_none_or(|pixels| pixels > limits.pixels) {
        return Err(ZarrError::ChunkSize {
            shape: lengths.collect(),
            limit: limits.pixels,
        });
    }
    if let [.., unit_height, unit_width] = unit {
        let tiles = height.div_ceil(unit_height.get()) * width.div_ceil(unit_width.get());
        if tiles > MAX_TILES {
            return Err(ZarrError::Tiles {
                tiles,
                limit: MAX_TILES,
            });
        }
    }
    Ok(())
}
