//! Pages: of a file with several images, what the wanted ones need.
//!
//! A store, a path and the numbers of pages enter; the file's bytes leave, or, where the file is large and a TIFF, the checked
//! directory of each page with its strips or tiles. Directories are read in short ranges, strips in one request where they lie
//! beside each other, and all of it on condition that the object stays what it was. What was read is kept for the next field
//! of the file (`store::cache`). What fails: the store; a file that is damaged; an object that changes between two reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use wellspring_images::tiff::{Page, Tiff};
use wellspring_images::{ImageError, Limits, Source};

use crate::error::{FailureClass, Stage, StageError};
use crate::store::{Data, End, ImageStore, MOST_WHOLE, Object, Parts, State, Whole};

/// A file of so few bytes is read whole: the requests for its parts would take longer.
const SMALL: u64 = 4 << 20;
/// What is read first, and of each directory that is not in it, in bytes.
const FIRST: u64 = 64 << 10;
const FURTHER: u64 = 16 << 10;
/// So many bytes take as long as a request: directories are looked for as long as that is quicker than reading the file.
const REQUEST_WORTH: u64 = 2 << 20;
/// Requests for directories of one file at least and at most.
const DIRECTORY_REQUESTS: std::ops::RangeInclusive<u64> = 8..=1024;
/// Bytes between two ranges that are rather read along than left out.
const MAX_GAP: u64 = 256 << 10;
/// Requests for the strips of the pages at most, and at once.
const MOST_RANGES: usize = 64;
const CONCURRENCY: usize = 8;

/// Pages of a file.
#[derive(Debug)]
pub enum Pages {
    /// The file.
    Whole(Bytes),
    /// What was wanted of it, by number.
    Of(BTreeMap<u32, PageParts>),
}

/// A page and the parts of its file that hold its pixels.
#[derive(Debug, Clone)]
pub struct PageParts {
    page: Arc<Page>,
    parts: Arc<Parts>,
}

impl PageParts {
    /// Height and width in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.page.height() as usize, self.page.width() as usize)
    }

    /// Bytes of the object that the page is part of.
    pub fn object_bytes(&self) -> u64 {
        self.parts.length()
    }

    /// Largest grey level of the pixel type.
    pub fn ceiling(&self) -> u16 {
        self.page.ceiling()
    }

    /// Fills `out` with the grey levels, row by row.
    ///
    /// # Errors
    /// Damaged strips or tiles.
    pub fn read(&self, out: &mut [u16]) -> Result<(), ImageError> {
        self.page.read_levels(&*self.parts, &self.page.whole(), out)
    }
}

/// Why pages cannot be had.
#[derive(Debug)]
pub enum PagesError {
    /// The store.
    Store(StageError),
    /// The file, at this page.
    Image(u32, ImageError),
}

impl From<StageError> for PagesError {
    fn from(error: StageError) -> Self {
        Self::Store(error)
    }
}

/// An answer that is not what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{what}: the store answered with {found} bytes where {expected} were asked for")]
struct Short {
    what: String,
    found: usize,
    expected: u64,
}

/// A server that sent parts of an object before.
#[derive(Debug, thiserror::Error)]
#[error("{what}: the server answered with the whole file where part of it was asked for")]
struct WholeSent {
    what: String,
}

/// Reads what `pages` of the object need; `listed` is its size and version as listed. Also what the store says of the object that
/// was read.
///
/// # Errors
/// See [`PagesError`].
pub(crate) async fn read_pages(
    store: &ImageStore,
    path: &str,
    listed: (u64, Option<&str>),
    pages: &BTreeSet<u32>,
) -> Result<(Pages, State), PagesError> {
    let key = store.key(path);
    let slot = store.cache().slot(&key);
    let mut object = slot.lock().await;
    store.look_again(path, &mut object, listed.1).await;
    let found = find(store, path, listed.0, &mut object, pages).await;
    if found.is_err() {
        *object = None;
    }
    let wanted = match found {
        Ok(Found::Whole(Whole { bytes, state })) => {
            store.cache().settle(&key, &slot, object.as_ref());
            return Ok((Pages::Whole(bytes), state));
        }
        Ok(Found::Pages(wanted)) => wanted,
        Err(error) => {
            store.cache().settle(&key, &slot, None);
            return Err(error);
        }
    };
    store.cache().settle(&key, &slot, object.as_ref());
    drop(object);

    // The strips of several fields of a file are read at once.
    let Wanted { version, missing, .. } = &wanted;
    let read: Result<Vec<(u64, Bytes)>, StageError> = futures::stream::iter(missing.clone())
        .map(|range| part(store, path, range, version))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await;
    let mut object = slot.lock().await;
    let same = object.as_ref().is_some_and(|object| object.version == *version);
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            // Whoever tries again begins with the directories.
            if same {
                *object = None;
            }
            store.cache().settle(&key, &slot, object.as_ref());
            return Err(error.into());
        }
    };
    if same
        && let Some(Object {
            data: Data::Parts(parts),
            ..
        }) = &mut *object
    {
        for (start, bytes) in &read {
            parts.insert(*start, bytes.clone());
        }
    }
    store.cache().settle(&key, &slot, object.as_ref());
    drop(object);

    let mut all = wanted.known;
    for (start, bytes) in read {
        all.insert(start, bytes);
    }
    let all = Arc::new(all);
    let of_page = |(number, page): (u32, Page)| {
        let parts = PageParts {
            page: Arc::new(page),
            parts: all.clone(),
        };
        (number, parts)
    };
    let pages = wanted.pages.into_iter().map(of_page).collect();
    Ok((Pages::Of(pages), wanted.state))
}

enum Found {
    Whole(Whole),
    Pages(Wanted),
}

/// Pages whose directories are read.
struct Wanted {
    version: String,
    state: State,
    pages: Vec<(u32, Page)>,
    /// What is here of their strips.
    known: Parts,
    /// What has to be read yet.
    missing: Vec<Range<u64>>,
}

/// Finds out where the pages lie, or reads the whole object where that is no more work.
async fn find(
    store: &ImageStore,
    path: &str,
    listed: u64,
    object: &mut Option<Object>,
    pages: &BTreeSet<u32>,
) -> Result<Found, PagesError> {
    if object.is_none() && listed > SMALL {
        // What has no version could change between two reads and nobody would know.
        if let Some(first) = store.ranged_end(path, End::First(FIRST)).await?
            && let Some(version) = first.version
            && first.object_bytes > SMALL
            && is_tiff(&first.bytes)
        {
            let mut parts = Parts::new(first.object_bytes);
            parts.insert(0, first.bytes);
            *object = Some(Object {
                version,
                modified_ms: first.state.modified_ms,
                checked: Instant::now(),
                data: Data::Parts(parts),
            });
        }
    }
    let Some(known) = object else {
        return whole(store, path, object).await;
    };
    let state = known.state();
    let Object { version, data, .. } = known;
    let parts = match data {
        Data::Whole(bytes) => {
            let bytes = bytes.clone();
            return Ok(Found::Whole(Whole { bytes, state }));
        }
        Data::Parts(parts) => parts,
    };
    let version = version.clone();
    let length = parts.length();
    let mut left = (length / REQUEST_WORTH).clamp(*DIRECTORY_REQUESTS.start(), *DIRECTORY_REQUESTS.end());
    let mut described = Vec::new();
    for &number in pages {
        let page = loop {
            let page = Tiff::open(&*parts, Limits::default()).and_then(|file| file.page(number as usize));
            match page {
                Ok(page) => break page,
                Err(ImageError::NotFetched { .. }) if left == 0 => return whole(store, path, object).await,
                Err(ImageError::NotFetched { start, end }) => {
                    left -= 1;
                    let range = start..end.max(start.saturating_add(FURTHER)).min(length);
                    let (start, bytes) = part(store, path, range, &version).await?;
                    parts.insert(start, bytes);
                }
                Err(error) => return Err(PagesError::Image(number, error)),
            }
        };
        described.push((number, page));
    }

    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (number, page) in &described {
        let of_page = page.ranges(&page.whole());
        ranges.extend(of_page.map_err(|error| PagesError::Image(*number, error))?);
    }
    let mut known = Parts::new(length);
    ranges.retain(|range| match parts.slice(range) {
        Some(bytes) => {
            known.insert(range.start, bytes);
            false
        }
        None => true,
    });
    let missing = joined(ranges);
    let needed: u64 = missing.iter().map(|range| range.end - range.start).sum();
    if needed > length / 5 * 3 {
        return whole(store, path, object).await;
    }
    Ok(Found::Pages(Wanted {
        version,
        state,
        pages: described,
        known,
        missing,
    }))
}

async fn whole(store: &ImageStore, path: &str, object: &mut Option<Object>) -> Result<Found, PagesError> {
    let limit = if store.sends_parts() { u64::MAX } else { MOST_WHOLE };
    // Another version than that of the parts is as good: nothing of them is used.
    Ok(Found::Whole(store.read_into(path, object, limit).await?))
}

/// Part of the object, as long as it is still the same.
async fn part(
    store: &ImageStore,
    path: &str,
    range: Range<u64>,
    version: &str,
) -> Result<(u64, Bytes), StageError> {
    let (start, expected) = (range.start, range.end - range.start);
    let what = || format!("{}/{path}", store.uri());
    // Who tries again reads it whole.
    let Some(bytes) = store.ranged_of(path, range, Some(version)).await? else {
        let sent = WholeSent { what: what() };
        return Err(StageError::external(Stage::Fetch, FailureClass::Network, sent));
    };
    if bytes.len() as u64 != expected {
        let short = Short {
            what: what(),
            found: bytes.len(),
            expected,
        };
        return Err(StageError::external(Stage::Fetch, FailureClass::Network, short));
    }
    Ok((start, bytes))
}

/// Ranges in order, those that lie near each other as one, and no more than [`MOST_RANGES`].
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut gap = MAX_GAP;
    loop {
        ranges.dedup_by(|range, before| {
            let near = range.start <= before.end.saturating_add(gap);
            if near {
                before.end = before.end.max(range.end);
            }
            near
        });
        if ranges.len() <= MOST_RANGES {
            return ranges;
        }
        gap = gap.saturating_mul(2);
    }
}

fn is_tiff(start: &[u8]) -> bool {
    matches!(start, [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..])
}

#[cfg(test)]
mod tests;
