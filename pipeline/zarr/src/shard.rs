//! Shards: objects that hold many chunks, and an index of where each lies.
//!
//! The codec `sharding_indexed` of a document enters, and the bytes of an index; the places of chunks leave. What fails:
//! shards that do not consist of whole chunks, damaged indices, and places that cannot be.

use std::num::NonZeroU64;
use std::ops::Range;

use zarrs::array::codec::CodecChain;
use zarrs::array::codec::api::ArrayToBytesCodecTraits;
use zarrs::array::{BytesRepresentation, CodecOptions, FillValue, data_type};
use zarrs::metadata::v3::MetadataV3;
use zarrs::metadata_ext::codec::sharding::{ShardingCodecConfigurationV1, ShardingIndexLocation};

use crate::document::ZarrArray;
use crate::error::ZarrError;
use crate::unpack::Packing;

/// Chunks of a shard at most; their index has 16 MiB.
const MAX_CHUNKS: u64 = 1 << 20;

/// Where in a shard its index lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexPlace {
    /// In its first bytes, as many as this.
    Start(u64),
    /// In its last bytes, as many as this.
    End(u64),
}

/// How objects hold chunks.
pub(crate) struct Shards {
    /// Chunks of a shard along every axis.
    pub(crate) counts: Vec<u64>,
    index: CodecChain,
    index_shape: Vec<NonZeroU64>,
    pub(crate) place: IndexPlace,
}

impl Shards {
    /// Of the codec and the shape of shards; also the shape of their chunks and what encodes these.
    pub(crate) fn parse(
        codec: &MetadataV3,
        shard: &[NonZeroU64],
    ) -> Result<(Self, Vec<NonZeroU64>, Vec<MetadataV3>), ZarrError> {
        let malformed = |reason: String| ZarrError::Malformed { reason };
        let configuration: ShardingCodecConfigurationV1 = codec
            .to_typed_configuration()
            .map_err(|error| malformed(format!("sharding_indexed: {error}")))?;
        let chunk = configuration.chunk_shape.to_vec();
        let lengths = |shape: &[NonZeroU64]| shape.iter().map(|length| length.get()).collect::<Vec<_>>();
        let (of_shard, of_chunk) = (lengths(shard), lengths(&chunk));
        let wrong = |reason| ZarrError::Shards {
            shard: of_shard.clone(),
            chunk: of_chunk.clone(),
            reason,
        };
        let whole = of_shard.len() == of_chunk.len()
            && of_shard
                .iter()
                .zip(&of_chunk)
                .all(|(shard, chunk)| shard % chunk == 0);
        if !whole {
            return Err(wrong("a shard must consist of whole chunks"));
        }
        let counts: Vec<u64> = of_shard
            .iter()
            .zip(&of_chunk)
            .map(|(shard, chunk)| shard / chunk)
            .collect();
        let chunks = counts
            .iter()
            .try_fold(1u64, |product, count| product.checked_mul(*count));
        if chunks.is_none_or(|chunks| chunks > MAX_CHUNKS) {
            return Err(wrong("more than 1048576 chunks in a shard are not read"));
        }
        // What packs an index must leave its size known.
        let packed =
            |codec: &&MetadataV3| codec.name() != "bytes" && Packing::of(codec) != Some(Packing::Crc32c);
        if let Some(codec) = configuration.index_codecs.iter().find(packed) {
            let name = format!("{} (of the index of shards)", codec.name());
            return Err(ZarrError::Codec { name });
        }
        let index = CodecChain::from_metadata(&configuration.index_codecs)
            .map_err(|error| malformed(format!("index_codecs: {error}")))?;
        let index_shape: Vec<NonZeroU64> = counts
            .iter()
            .copied()
            .chain([2])
            .filter_map(NonZeroU64::new)
            .collect();
        let size = index
            .encoded_representation(&index_shape, &data_type::uint64(), &FillValue::from(u64::MAX))
            .map_err(|error| malformed(format!("index_codecs: {error}")))?;
        let BytesRepresentation::FixedSize(size) = size else {
            return Err(malformed(
                "index_codecs: the size of the index is not known".to_owned(),
            ));
        };
        let place = match configuration.index_location {
            ShardingIndexLocation::Start => IndexPlace::Start(size),
            ShardingIndexLocation::End => IndexPlace::End(size),
        };
        let shards = Self {
            counts,
            index,
            index_shape,
            place,
        };
        Ok((shards, chunk, configuration.codecs))
    }
}

/// Where the chunks of one shard lie.
#[derive(Debug, Clone)]
pub struct ShardIndex {
    /// Offset and length of every chunk, one after the other; both the largest number where there is no chunk.
    places: Vec<u64>,
    /// Bytes of the shard.
    length: u64,
    /// Bytes of a stored chunk at most.
    limit: u64,
}

impl ShardIndex {
    /// The bytes of a chunk; `None` where there is none, and its pixels are the fill value.
    ///
    /// # Errors
    /// [`ZarrError::Range`]: a place outside the shard, or longer than a chunk can be.
    pub fn range(&self, chunk: u64) -> Result<Option<Range<u64>>, ZarrError> {
        let at = usize::try_from(chunk).unwrap_or(usize::MAX).saturating_mul(2);
        let Some([start, bytes]) = self.places.get(at..at.saturating_add(2)) else {
            return Ok(None);
        };
        if (*start, *bytes) == (u64::MAX, u64::MAX) {
            return Ok(None);
        }
        let end = start.saturating_add(*bytes);
        if end > self.length || *bytes == 0 || *bytes > self.limit {
            return Err(ZarrError::Range {
                chunk,
                start: *start,
                end,
                length: self.length,
                limit: self.limit,
            });
        }
        Ok(Some(*start..end))
    }
}

impl ZarrArray {
    /// Where the index of every shard lies; `None` where objects are chunks.
    pub fn index_place(&self) -> Option<IndexPlace> {
        self.shards.as_ref().map(|shards| shards.place)
    }

    /// Reads the index of a shard of `length` bytes.
    ///
    /// # Errors
    /// [`ZarrError::Index`]: an index that is damaged, or is not one.
    pub fn shard_index(&self, index: &[u8], length: u64) -> Result<ShardIndex, ZarrError> {
        let damaged = |reason: String| ZarrError::Index { reason };
        let Some(shards) = &self.shards else {
            return Err(damaged("the array has no shards".to_owned()));
        };
        let (IndexPlace::Start(expected) | IndexPlace::End(expected)) = shards.place;
        if index.len() as u64 != expected {
            return Err(damaged(format!(
                "the shard has {length} bytes, and its index alone must have {expected}"
            )));
        }
        let decoded = shards
            .index
            .decode(
                index.into(),
                &shards.index_shape,
                &data_type::uint64(),
                &FillValue::from(u64::MAX),
                &CodecOptions::default(),
            )
            .and_then(|decoded| Ok(decoded.into_fixed()?))
            .map_err(|error| damaged(error.to_string()))?;
        let places = decoded
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_ne_bytes(*bytes))
            .collect();
        Ok(ShardIndex {
            places,
            length,
            limit: self.stored_at_most(),
        })
    }
}
