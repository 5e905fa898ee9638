//! Zarr: the planes of arrays in object storage, as chunks that wait to be unpacked.
//!
//! A store and the images of one field enter, whose paths name the documents of arrays (`.zarray`, `zarr.json`) and whose
//! pages number planes; the chunks of these planes leave, each fetched once. Of a shard its index is read, and of it the
//! chunks that are needed, as long as the object stays the same. All reads go through [`ImageStore`], with its tries and
//! bounds. `wellspring-zarr` says which chunks a plane needs, and the stage decode unpacks them. What fails: a document that
//! is not read, a plane that was never written, objects larger than the document allows, a store that is away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use wellspring_zarr::{Chunk, IndexPlace, Plane, ShardIndex, Tile, ZarrArray, ZarrError};

pub use wellspring_zarr::is_document;

use crate::error::{FailureClass, Stage, StageError};
use crate::store::{End, ImageStore};

/// Documents, indices or chunks of one field read at once.
const CONCURRENCY: usize = 8;
/// Bytes between two chunks of a shard that are rather read along than left out: another request takes longer.
const MAX_GAP: u64 = 64 << 10;
/// The most bytes of a shard that are read at once because its chunks lie beside each other.
const MAX_PART: u64 = 16 << 20;
/// The largest document of an array, in bytes; they have some kilobytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// An array or plane that cannot be read.
#[derive(Debug, thiserror::Error)]
enum ArrayError {
    #[error("{path} cannot be used")]
    Document { path: String, source: ZarrError },
    #[error("{object} cannot be used")]
    Shard { object: String, source: ZarrError },
    #[error(
        "channel {channel}: no chunk of plane {page} of {path} is there (the first would be {first}); was the upload complete?"
    )]
    NeverWritten {
        path: String,
        channel: String,
        page: u32,
        first: String,
    },
}

fn bad(error: ArrayError) -> StageError {
    StageError::input(Stage::Fetch, FailureClass::BadImage, error)
}

/// One plane that is wanted: the path of its array's document, its number, and its channel for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted<'a> {
    /// Path of the document in the store.
    pub path: &'a str,
    /// Number of the plane, from 0.
    pub page: u32,
    /// The channel.
    pub channel: &'a str,
}

/// Where a chunk lies: an object, and which chunk of it where it is a shard.
type Place = (String, Option<u64>);

/// A plane's array and the chunks it lies in.
type OfPlane = (Arc<ZarrArray>, Vec<(Place, Tile)>);

/// Chunks, each with its array and how many of the wanted planes lie in it.
type Uses = BTreeMap<Place, (Arc<ZarrArray>, usize)>;

/// Reads what the planes need.
///
/// # Errors
/// The first failure, which names the object.
pub async fn read_planes<'a>(
    store: &ImageStore,
    wanted: &[Wanted<'a>],
) -> Result<HashMap<(&'a str, u32), Plane>, StageError> {
    let paths: BTreeSet<String> = wanted.iter().map(|plane| plane.path.to_owned()).collect();
    let arrays: HashMap<String, Arc<ZarrArray>> = futures::stream::iter(paths)
        .map(|path| async move {
            let array = document(store, &path).await?;
            Ok::<_, StageError>((path, array))
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;

    let mut tiles: BTreeMap<Wanted<'a>, OfPlane> = BTreeMap::new();
    let mut uses = Uses::new();
    for plane in wanted.iter().collect::<BTreeSet<_>>() {
        let Some(array) = arrays.get(plane.path) else {
            continue;
        };
        let folder = plane.path.rfind('/').map_or("", |at| &plane.path[..=at]);
        let of_plane = array.tiles(plane.page).map_err(|source| {
            let path = plane.path.to_owned();
            bad(ArrayError::Document { path, source })
        })?;
        let placed = of_plane.into_iter().map(|tile| {
            let place = (format!("{folder}{}", tile.object), tile.inner);
            uses.entry(place.clone()).or_insert_with(|| (array.clone(), 0)).1 += 1;
            (place, tile)
        });
        let placed = placed.collect();
        tiles.insert(*plane, (array.clone(), placed));
    }

    let indices = indices(store, &uses).await?;
    let reads = reads(&uses, &indices)?;
    let read: Vec<Vec<(Place, Option<Bytes>)>> = futures::stream::iter(reads)
        .map(|read| read.perform(store))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    let chunks: HashMap<Place, Option<Arc<Chunk>>> = read
        .into_iter()
        .flatten()
        .map(|(place, bytes)| {
            let shared = uses.get(&place).is_some_and(|(_, planes)| *planes > 1);
            let chunk = bytes.map(|bytes| Arc::new(Chunk::new(bytes, shared)));
            (place, chunk)
        })
        .collect();

    let mut planes = HashMap::new();
    for (of, (array, placed)) in tiles {
        let first = placed.first().map(|((object, _), _)| object.clone());
        let with_chunks: Vec<(Tile, Option<Arc<Chunk>>)> = placed
            .into_iter()
            .map(|(place, tile)| (tile, chunks.get(&place).cloned().flatten()))
            .collect();
        if with_chunks.iter().all(|(_, chunk)| chunk.is_none()) {
            let error = ArrayError::NeverWritten {
                path: of.path.to_owned(),
                channel: of.channel.to_owned(),
                page: of.page,
                first: first.unwrap_or_default(),
            };
            return Err(StageError::input(Stage::Fetch, FailureClass::MissingImage, error));
        }
        planes.insert((of.path, of.page), Plane::new(array, with_chunks));
    }
    Ok(planes)
}

async fn document(store: &ImageStore, path: &str) -> Result<Arc<ZarrArray>, StageError> {
    let document = store.read_at_most(path, MAX_DOCUMENT_BYTES).await?;
    let limits = crate::decode::zarr_limits();
    let array = ZarrArray::parse(&document, limits).map_err(|source| {
        let path = path.to_owned();
        bad(ArrayError::Document { path, source })
    })?;
    Ok(Arc::new(array))
}

/// What is known of a shard.
struct Shard {
    index: ShardIndex,
    /// What the store says of this state of the object.
    version: Option<String>,
}

/// The indices of all shards that are there.
async fn indices(store: &ImageStore, uses: &Uses) -> Result<HashMap<String, Shard>, StageError> {
    let shards = uses.iter().filter_map(|((object, _), (array, _))| {
        let place = array.index_place()?;
        Some((object.clone(), (array.clone(), place)))
    });
    let shards: BTreeMap<String, (Arc<ZarrArray>, IndexPlace)> = shards.collect();
    let read = futures::stream::iter(shards).map(|(object, (array, place))| async move {
        let end = match place {
            IndexPlace::Start(bytes) => End::First(bytes),
            IndexPlace::End(bytes) => End::Last(bytes),
        };
        let Some(part) = absent_is_none(store.read_end(&object, end).await)? else {
            return Ok(None);
        };
        let index = array
            .shard_index(&part.bytes, part.object_bytes)
            .map_err(|source| {
                let object = object.clone();
                bad(ArrayError::Shard { object, source })
            })?;
        let version = part.version;
        Ok::<_, StageError>(Some((object, Shard { index, version })))
    });
    let read: Vec<Option<(String, Shard)>> = read.buffer_unordered(CONCURRENCY).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

/// One request and the chunks that it brings.
enum Read {
    /// An object that is a chunk, of so many bytes at most.
    Object { place: Place, limit: u64 },
    /// Chunks of a shard that lie beside each other.
    Part {
        object: String,
        version: Option<String>,
        range: Range<u64>,
        chunks: Vec<(Place, Range<u64>)>,
    },
}

/// What has to be asked for; chunks of a shard that lie beside each other, or nearly, in one request.
fn reads(uses: &Uses, indices: &HashMap<String, Shard>) -> Result<Vec<Read>, StageError> {
    let mut reads = Vec::new();
    let mut of_shards: BTreeMap<&str, Vec<(Place, Range<u64>)>> = BTreeMap::new();
    for (place, (array, _)) in uses {
        let (object, inner) = place;
        let Some(inner) = inner else {
            let limit = array.stored_at_most();
            let place = place.clone();
            reads.push(Read::Object { place, limit });
            continue;
        };
        // A shard that is not there holds no chunk.
        let Some(shard) = indices.get(object) else {
            continue;
        };
        let range = shard.index.range(*inner).map_err(|source| {
            let object = object.clone();
            bad(ArrayError::Shard { object, source })
        })?;
        if let Some(range) = range {
            of_shards.entry(object).or_default().push((place.clone(), range));
        }
    }
    for (object, mut chunks) in of_shards {
        let Some(shard) = indices.get(object) else {
            continue;
        };
        chunks.sort_by_key(|(_, range)| range.start);
        for (place, range) in chunks {
            match reads.last_mut() {
                Some(Read::Part {
                    object: of,
                    range: known,
                    chunks,
                    ..
                }) if *of == object
                    && range.start <= known.end.saturating_add(MAX_GAP)
                    && range.end.max(known.end) - known.start <= MAX_PART =>
                {
                    known.end = known.end.max(range.end);
                    chunks.push((place, range));
                }
                _ => reads.push(Read::Part {
                    object: object.to_owned(),
                    version: shard.version.clone(),
                    range: range.clone(),
                    chunks: vec![(place, range)],
                }),
            }
        }
    }
    Ok(reads)
}

impl Read {
    /// The stored bytes of its chunks; `None` for one that was never written.
    async fn perform(self, store: &ImageStore) -> Result<Vec<(Place, Option<Bytes>)>, StageError> {
        match self {
            Self::Object { place, limit } => {
                let bytes = absent_is_none(store.read_at_most(&place.0, limit).await)?;
                Ok(vec![(place, bytes)])
            }
            Self::Part {
                object,
                version,
                range,
                chunks,
            } => {
                let start = range.start;
                let part = store.read_range_of(&object, range, version.as_deref()).await?;
                // Ranges lie in the part that was asked for; what a store left out is an empty chunk, which cannot be unpacked.
                let of = |range: Range<u64>| {
                    let from = usize::try_from(range.start - start)
                        .unwrap_or(usize::MAX)
                        .min(part.len());
                    let to = usize::try_from(range.end - start)
                        .unwrap_or(usize::MAX)
                        .min(part.len());
                    part.slice(from..to)
                };
                Ok(chunks
                    .into_iter()
                    .map(|(place, range)| (place, Some(of(range))))
                    .collect())
            }
        }
    }
}

/// A chunk that is not there is the fill value, as the format has it.
fn absent_is_none<T>(read: Result<T, StageError>) -> Result<Option<T>, StageError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.class == FailureClass::MissingImage => Ok(None),
        Err(error) => Err(error),
    }
}
