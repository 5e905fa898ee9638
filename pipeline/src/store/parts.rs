//! Parts of objects: ranges, beginnings and ends, and what is done where a server sends whole objects only.
//!
//! A path and a range enter, bytes leave, with what the store says of the object. A server that answers a range with everything
//! is asked for no more ranges: its objects are read whole, up to a limit, and kept where there is room. What fails: the store,
//! an object that was written again between two reads, one that is too large to be read whole.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectStoreExt};

use super::retry::retrying;
use super::version::{State, is_weak};
use super::{ImageStore, location};
use crate::error::{FailureClass, Stage, StageError};

/// The most bytes of an object that are read because its server does not send less.
pub(crate) const MOST_WHOLE: u64 = 2 << 30;

/// Which end of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// So many bytes from its beginning.
    First(u64),
    /// So many bytes up to its end.
    Last(u64),
}

/// Part of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartOfObject {
    /// The part.
    pub bytes: Bytes,
    /// Size of the whole object in bytes.
    pub object_bytes: u64,
    /// The object's entity tag: another one when it is written again. Not every store has them.
    pub version: Option<String>,
    /// All that the store says of the object's state.
    pub(crate) state: State,
}

/// A range of an object of `size` bytes; less where it has less.
fn within(range: &Range<u64>, size: u64) -> Range<usize> {
    let at = |place: u64| usize::try_from(place.min(size)).unwrap_or(usize::MAX);
    at(range.start)..at(range.end.max(range.start))
}

impl End {
    fn of(self, size: u64) -> Range<u64> {
        match self {
            Self::First(bytes) => 0..bytes.min(size),
            Self::Last(bytes) => size.saturating_sub(bytes)..size,
        }
    }
}

impl ImageStore {
    /// Part of the bytes of one object; less where it ends within the range.
    pub async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StageError> {
        self.read_range_of(path, range, None).await
    }

    /// Part of the bytes of one object, as long as it is still the version that [`ImageStore::read_end`] saw.
    pub async fn read_range_of(
        &self,
        path: &str,
        range: Range<u64>,
        version: Option<&str>,
    ) -> Result<Bytes, StageError> {
        match self.ranged_of(path, range.clone(), version).await? {
            Some(bytes) => Ok(bytes),
            None => {
                let whole = self.read_and_keep(path, None, MOST_WHOLE).await?;
                let found = whole.state.e_tag.as_deref();
                same(&location(path), version, found).map_err(|error| self.fails(path, error))?;
                Ok(whole.bytes.slice(within(&range, whole.bytes.len() as u64)))
            }
        }
    }

    /// As [`ImageStore::read_range_of`]; `None` where the server sends objects as a whole only.
    pub(crate) async fn ranged_of(
        &self,
        path: &str,
        range: Range<u64>,
        version: Option<&str>,
    ) -> Result<Option<Bytes>, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        let options = GetOptions::new()
            .with_range(Some(range))
            .with_if_match(version.map(str::to_owned));
        retrying(Stage::Fetch, &what, &self.away, || async {
            let Some(read) = self.partial(&location, options.clone()).await? else {
                return Ok(None);
            };
            // Not every web server knows conditions, but it may say what it sends.
            same(&location, version, read.meta.e_tag.as_deref())?;
            read.bytes().await.map(Some)
        })
        .await
    }

    /// The first or last bytes of one object, fewer where it has fewer, and what the store says of it.
    pub async fn read_end(&self, path: &str, end: End) -> Result<PartOfObject, StageError> {
        if let Some(part) = self.ranged_end(path, end).await? {
            return Ok(part);
        }
        let whole = self.read_and_keep(path, None, MOST_WHOLE).await?;
        let object_bytes = whole.bytes.len() as u64;
        Ok(PartOfObject {
            bytes: whole.bytes.slice(within(&end.of(object_bytes), object_bytes)),
            object_bytes,
            version: self.strong(&whole.state),
            state: whole.state,
        })
    }

    /// As [`ImageStore::read_end`]; `None` where the server sends objects as a whole only.
    pub(crate) async fn ranged_end(&self, path: &str, end: End) -> Result<Option<PartOfObject>, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        retrying(Stage::Fetch, &what, &self.away, || async {
            let range = match end {
                End::First(bytes) => GetRange::Bounded(0..bytes),
                End::Last(bytes) => GetRange::Suffix(bytes),
            };
            let options = GetOptions::new().with_range(Some(range));
            let read = match self.partial(&location, options).await {
                // Azure has no suffixes: the size has to be asked for first.
                Err(Error::NotSupported { .. }) => {
                    let size = self.store.head(&location).await?.size;
                    let options = GetOptions::new().with_range(Some(GetRange::Bounded(end.of(size))));
                    self.partial(&location, options).await?
                }
                read => read?,
            };
            let Some(read) = read else { return Ok(None) };
            let state = State::of(&read.meta);
            let version = self.strong(&state);
            let object_bytes = read.meta.size;
            let bytes = read.bytes().await?;
            Ok(Some(PartOfObject {
                bytes,
                object_bytes,
                version,
                state,
            }))
        })
        .await
    }

    /// Whether the store sends parts of objects, as far as it is known.
    pub(crate) fn sends_parts(&self) -> bool {
        !self.whole_only.load(Ordering::Relaxed)
    }

    /// The tag on condition of which parts can be read. A weak tag is the same for objects that differ.
    fn strong(&self, state: &State) -> Option<String> {
        let version = state.e_tag.clone().filter(|tag| !is_weak(tag));
        self.unversioned.store(version.is_none(), Ordering::Relaxed);
        version
    }

    /// An answer of part of an object; `None` where the server answers with everything.
    async fn partial(
        &self,
        location: &object_store::path::Path,
        options: GetOptions,
    ) -> object_store::Result<Option<GetResult>> {
        if !self.sends_parts() {
            return Ok(None);
        }
        match self.store.get_opts(location, options).await {
            Err(error) if is_not_partial(&error) => {
                self.whole_only.store(true, Ordering::Relaxed);
                if self.is_news("whole files") {
                    tracing::warn!(
                        store = &*self.uri,
                        "the server answers requests for parts of files with whole files, so that files are read whole; \
                         one that knows ranges (Accept-Ranges: bytes) is quicker"
                    );
                }
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    fn fails(&self, path: &str, error: Error) -> StageError {
        let what = format!("{}/{path}", self.uri);
        super::retry::failure(Stage::Fetch, &what, 1, error)
    }
}

/// How the client calls an answer of everything (200) where a part (206) was asked for: web servers' and clouds' differently.
fn is_not_partial(error: &Error) -> bool {
    let says = |source: &dyn std::error::Error, what: &str| source.to_string().contains(what);
    match error {
        Error::NotSupported { source } => says(source.as_ref(), "Range request not supported"),
        Error::Generic { source, .. } => says(source.as_ref(), "non-partial response"),
        _ => false,
    }
}

/// An error where an object is not the version that was seen before.
fn same(
    location: &object_store::path::Path,
    wanted: Option<&str>,
    found: Option<&str>,
) -> object_store::Result<()> {
    match (wanted, found) {
        (Some(wanted), Some(found)) if wanted != found => Err(Error::Precondition {
            path: location.to_string(),
            source: format!("its entity tag was {wanted} and is {found}").into(),
        }),
        _ => Ok(()),
    }
}

/// An object that is larger than what it should hold.
#[derive(Debug, thiserror::Error)]
#[error("'{what}' has {bytes} bytes; at most {limit} are read of such an object")]
pub(super) struct TooLarge {
    pub(super) what: String,
    pub(super) bytes: u64,
    pub(super) limit: u64,
}

impl From<TooLarge> for StageError {
    fn from(error: TooLarge) -> Self {
        Self::input(Stage::Fetch, FailureClass::BadImage, error)
    }
}
