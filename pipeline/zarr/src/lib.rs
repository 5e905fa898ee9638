//! Planes of Zarr arrays, versions 2 and 3, from the bytes of their chunks to grey levels.
//!
//! Enters: the metadata document of an array (`.zarray` or `zarr.json`), which says which objects and which parts of them a
//! plane needs ([`ZarrArray::tiles`]), and then their bytes. Leaves: grey levels as `u16`. Pure and blocking: no files, no
//! network, no clock. What fails: documents of other arrays than grey levels of 8 or 16 bits, chunks that are damaged or
//! become more than the document says, and what exceeds the [`Limits`]; the errors say what, and of which object.
//!
//! The crate `zarrs` reads the documents (grids, names of chunks, byte orders, transposed axes, fill values, indices of
//! shards, checksums) and unpacks blosc. It unpacks gzip and zstd without a bound, so that these are unpacked here, into
//! buffers of the size that the document says; of blosc the size in its header is held to it first.

#![forbid(unsafe_code)]

mod document;
mod error;
mod plane;
mod shard;
mod unpack;

pub use document::{Limits, ZarrArray};
pub use error::{UnpackError, ZarrError};
pub use plane::{Chunk, Plane, Tile};
pub use shard::{IndexPlace, ShardIndex};

/// Whether a path names the metadata document of an array, and not a file with an image.
pub fn is_document(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some(".zarray" | "zarr.json"))
}
