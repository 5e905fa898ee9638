//! Object storage: where images come from. Local folders, S3, Google Cloud Storage, Azure and web servers, through
//! `object_store`.
//!
//! A URI enters, listings and bytes leave. Credentials, region and custom endpoints come from the environment variables that
//! each vendor's own tools read and from roles of the machine, never from a screen file.

mod cache;
mod listing;
mod open;
mod parts;
mod retry;
mod version;

pub(crate) use self::cache::{Data, Key, Object};
pub use self::cache::{ImageCache, Parts, USUAL_CACHE_BYTES};
pub use self::open::StoreError;
pub(crate) use self::parts::MOST_WHOLE;
pub use self::parts::{End, PartOfObject};
pub(crate) use self::version::State;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};

use self::listing::Pages;
use self::open::Opened;
use self::parts::TooLarge;
use self::retry::retrying;
use self::version::{is_weak, same_time};
use crate::error::{FailureClass, Stage, StageError};

/// A place with images.
#[derive(Debug, Clone)]
pub struct ImageStore {
    uri: Arc<str>,
    store: Arc<dyn ObjectStore>,
    pages: Option<Pages>,
    /// Whether the last read that was tried to the end failed for a reason that may pass: then one try has to do, so
    /// that a store that is away holds up nobody else's fields.
    away: Arc<AtomicBool>,
    /// Whether it was seen to give objects no version: then they are read whole, since they could change between two reads.
    unversioned: Arc<AtomicBool>,
    /// Whether it was seen to send whole objects where parts were asked for.
    whole_only: Arc<AtomicBool>,
    /// Whether it was seen to give an object one entity tag where it lists it, and another one where it sends it.
    two_tags: Arc<AtomicBool>,
    /// Whether an object was seen to have the version that it was listed with.
    one_tag: Arc<AtomicBool>,
    /// Whether objects are told apart by time alone: see [`State::version`].
    by_time: bool,
    /// What was read of its image files.
    cache: Arc<ImageCache>,
}

/// An object as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path below the store's root.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// When it was last written, as the store tells it, in milliseconds since 1970 UTC.
    pub modified_ms: i64,
    /// What tells this state of the object from others: its entity tag without quotation marks, or `@` and the time of where
    /// there is none. `None` where the store says neither.
    pub version: Option<Box<str>>,
}

/// An object as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Whole {
    /// All of it.
    pub(crate) bytes: Bytes,
    /// What the store says of its state.
    pub(crate) state: State,
}

impl ImageStore {
    /// Opens a store by URI: a folder, `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
    /// `abfss://container@account.dfs.core.windows.net/prefix`, or a web server that lists its files (WebDAV) by `http://` or
    /// `https://`.
    ///
    /// # Errors
    /// [`StoreError`]: a folder that is not there, settings that do not fit together.
    pub fn open(uri: &str) -> Result<Self, StoreError> {
        let Opened {
            store,
            pages,
            by_time,
        } = open::open(uri)?;
        Ok(Self {
            by_time,
            pages,
            cache: ImageCache::of_process(),
            ..Self::new(uri, store)
        })
    }

    /// A store that exists already, with a cache of its own.
    #[cfg(test)]
    pub(crate) fn of(store: Arc<dyn ObjectStore>, cache_bytes: u64) -> Self {
        Self {
            cache: Arc::new(ImageCache::new(cache_bytes)),
            ..Self::new("test://store", store)
        }
    }

    fn new(uri: &str, store: Arc<dyn ObjectStore>) -> Self {
        Self {
            uri: uri.into(),
            store,
            pages: None,
            away: Arc::default(),
            unversioned: Arc::default(),
            whole_only: Arc::default(),
            two_tags: Arc::default(),
            one_tag: Arc::default(),
            by_time: false,
            cache: ImageCache::of_process(),
        }
    }

    pub(crate) fn cache(&self) -> &ImageCache {
        &self.cache
    }

    /// By which the cache knows an object.
    pub(crate) fn key(&self, path: &str) -> Key {
        (self.uri.clone(), path.to_owned())
    }

    /// The URI the store was opened with.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The address of an object.
    pub fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.uri.trim_end_matches('/'))
    }

    /// Every object below the folder `prefix` (the whole store when `None`), in path order.
    pub async fn list(&self, prefix: Option<&str>) -> Result<Vec<Listed>, StageError> {
        if self.pages.is_some() {
            let start = prefix.map_or_else(String::new, |prefix| format!("{}/", location(prefix)));
            return self.list_beginning(&start).await;
        }
        let prefix = prefix.map(location);
        let listed = retrying(Stage::Plan, &self.uri, &self.away, || async {
            self.store.list(prefix.as_ref()).try_collect::<Vec<_>>().await
        })
        .await?;
        Ok(self.in_order(listed, ""))
    }

    /// Every object whose path begins with `start`, in path order. Of a folder or a web server the whole folder is listed
    /// that `start` lies in.
    pub async fn list_beginning(&self, start: &str) -> Result<Vec<Listed>, StageError> {
        let Some(pages) = &self.pages else {
            let folder = start.rsplit_once('/').map(|(folder, _)| folder);
            let mut listed = Box::pin(self.list(folder)).await?;
            listed.retain(|object| object.path.starts_with(start));
            return Ok(listed);
        };
        let listed = pages.list(start, &self.uri, &self.away).await?;
        Ok(self.in_order(listed, &pages.root))
    }

    /// Whether [`ImageStore::next_name`] can be asked for.
    pub fn begins_anywhere(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.ordered)
    }

    /// The first path behind `after`, in the order of bytes, that begins with `start`. `None` where there is none, or the store
    /// cannot begin anywhere.
    pub async fn next_name(&self, start: &str, after: Option<String>) -> Result<Option<String>, StageError> {
        match &self.pages {
            Some(pages) => pages.next(start, after, &self.uri, &self.away).await,
            None => Ok(None),
        }
    }

    /// The objects that lie in no folder of the store.
    pub async fn list_top(&self) -> Result<Vec<Listed>, StageError> {
        let listed = retrying(Stage::Plan, &self.uri, &self.away, || async {
            self.store.list_with_delimiter(None).await
        })
        .await?;
        Ok(self.in_order(listed.objects, ""))
    }

    /// Makes sure that what the cache has of an object is still what the store has; forgets it otherwise. What is not `listed` as
    /// it is known is looked at at once.
    pub(crate) async fn look_again(&self, path: &str, object: &mut Option<Object>, listed: Option<&str>) {
        let suspect = |known: &Object| listed.is_some_and(|version| known.state().differs(version));
        let Some(known) = object.as_mut().filter(|known| known.is_old() || suspect(known)) else {
            return;
        };
        let now = self.store.head(&location(path)).await;
        match now {
            Ok(meta) if meta.e_tag.as_ref() == Some(&known.version) => known.checked = Instant::now(),
            // Whoever reads it says what is wrong with it.
            _ => *object = None,
        }
    }

    /// One object of `limit` bytes at most, which `object` has from then on, if the store tells its versions apart.
    pub(crate) async fn read_into(
        &self,
        path: &str,
        object: &mut Option<Object>,
        limit: u64,
    ) -> Result<Whole, StageError> {
        let whole = self.read_whole(path, limit).await?;
        *object = whole.state.e_tag.clone().map(|version| Object {
            version,
            modified_ms: whole.state.modified_ms,
            checked: Instant::now(),
            data: Data::Whole(whole.bytes.clone()),
        });
        Ok(whole)
    }

    /// One object of `limit` bytes at most, which is kept for whoever asks next; `listed`: the version that it was listed with.
    pub(crate) async fn read_and_keep(
        &self,
        path: &str,
        listed: Option<&str>,
        limit: u64,
    ) -> Result<Whole, StageError> {
        let key = self.key(path);
        let slot = self.cache.slot(&key);
        let mut object = slot.lock().await;
        self.look_again(path, &mut object, listed).await;
        let read = match &*object {
            Some(
                known @ Object {
                    data: Data::Whole(bytes),
                    ..
                },
            ) => Ok(Whole {
                bytes: bytes.clone(),
                state: known.state(),
            }),
            _ => self.read_into(path, &mut object, limit).await,
        };
        if read.is_err() {
            *object = None;
        }
        self.cache.settle(&key, &slot, object.as_ref());
        read
    }

    /// One object, from the cache where somebody kept it; `listed`: the version that it was listed with.
    pub(crate) async fn read_or_recall(&self, path: &str, listed: Option<&str>) -> Result<Whole, StageError> {
        match self.cache.known(&self.key(path)) {
            Some(_) => self.read_and_keep(path, listed, u64::MAX).await,
            None => self.read_whole(path, u64::MAX).await,
        }
    }

    /// Whether single pages of large files are read, as far as it is known.
    pub fn reads_pages(&self) -> bool {
        !self.unversioned.load(Ordering::Relaxed) && self.sends_parts()
    }

    /// Whether an object that was read in this state was written again since it was listed as `version`.
    pub(crate) async fn was_written_again(&self, path: &str, version: &str, read: &State) -> bool {
        if !read.differs(version) {
            self.one_tag.store(true, Ordering::Relaxed);
            return false;
        }
        if self.by_time || version.starts_with('@') {
            return true;
        }
        if self.two_tags.load(Ordering::Relaxed) {
            return false;
        }
        // Where a listing of one object is a listing of its folder, one object that is as it was listed has to do.
        if self.pages.is_none() && self.one_tag.load(Ordering::Relaxed) {
            return true;
        }
        let Ok(now) = self.list_beginning(path).await else {
            return true;
        };
        let same = now.iter().any(|object| {
            object.path == path
                && object.version.as_deref() == Some(version)
                && same_time(object.modified_ms, read.modified_ms)
        });
        self.two_tags.fetch_or(same, Ordering::Relaxed);
        if same && self.is_news("two tags") {
            tracing::warn!(
                store = &*self.uri,
                "the store lists objects with other entity tags than it sends them with, so that it is not noticed when an image \
                 is written again with the same size after its plate was listed"
            );
        }
        !same
    }

    /// The bytes of one object that has at most `limit`; none of a larger one.
    pub async fn read_at_most(&self, path: &str, limit: u64) -> Result<Bytes, StageError> {
        Ok(self.read_whole(path, limit).await?.bytes)
    }

    /// The bytes of one object.
    pub async fn read(&self, path: &str) -> Result<Bytes, StageError> {
        self.read_at_most(path, u64::MAX).await
    }

    async fn read_whole(&self, path: &str, limit: u64) -> Result<Whole, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        let read = retrying(Stage::Fetch, &what, &self.away, || async {
            let read = self.store.get(&location).await?;
            let (size, state) = (read.meta.size, State::of(&read.meta));
            if size > limit {
                return Ok(Err(size));
            }
            let bytes = read.bytes().await?;
            Ok(Ok(Whole { bytes, state }))
        });
        Ok(read.await?.map_err(|bytes| TooLarge { what, bytes, limit })?)
    }

    /// One object, unless the store says that it still is as it was in the state `known`. What has no entity tag, or a weak one,
    /// is read.
    async fn read_unless(&self, path: &str, known: Option<&State>) -> Result<Option<Whole>, StageError> {
        let tag = known.and_then(|known| known.e_tag.clone());
        let Some(tag) = tag.filter(|tag| !is_weak(tag)) else {
            return self.read_whole(path, u64::MAX).await.map(Some);
        };
        let location = location(path);
        let options = GetOptions::new().with_if_none_match(Some(tag));
        let what = format!("{}/{path}", self.uri);
        retrying(Stage::Fetch, &what, &self.away, || async {
            let read = match self.store.get_opts(&location, options.clone()).await {
                Err(object_store::Error::NotModified { .. }) => return Ok(None),
                read => read?,
            };
            let state = State::of(&read.meta);
            let bytes = read.bytes().await?;
            Ok(Some(Whole { bytes, state }))
        })
        .await
    }

    /// Whether nobody of this process has said this of the store yet. It may be open several times.
    fn is_news(&self, what: &'static str) -> bool {
        static SAID: Mutex<BTreeSet<(Arc<str>, &str)>> = Mutex::new(BTreeSet::new());
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert((self.uri.clone(), what))
    }

    /// Objects in path order, by their paths below `root`.
    fn in_order(&self, listed: Vec<ObjectMeta>, root: &str) -> Vec<Listed> {
        let listed = listed.into_iter().map(|meta| {
            let path = String::from(meta.location);
            let state = State {
                e_tag: meta.e_tag,
                modified_ms: meta.last_modified.timestamp_millis(),
            };
            Listed {
                path: path.strip_prefix(root).map(str::to_owned).unwrap_or(path),
                bytes: meta.size,
                modified_ms: state.modified_ms,
                version: state.version(self.by_time),
            }
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        listed
    }
}

/// The name of an object as it was listed. What is no such name is made one.
fn location(path: &str) -> Path {
    Path::parse(path).unwrap_or_else(|_| Path::from(path))
}

/// The bytes of one file by URI or path, such as a plate map or an illumination function.
pub async fn read_uri(uri: &str) -> Result<Bytes, StageError> {
    let (store, name) = store_of(uri)?;
    store.read(name).await
}

/// As [`read_uri`], with the state of what was read; `None` where the file is as it was when it was read in the state `known`.
pub(crate) async fn read_uri_unless(
    uri: &str,
    known: Option<&State>,
) -> Result<Option<(Bytes, State)>, StageError> {
    let (store, name) = store_of(uri)?;
    let read = store.read_unless(name, known).await?;
    Ok(read.map(|Whole { bytes, state }| (bytes, state)))
}

/// The store of a file by URI or path, and the file's name there.
fn store_of(uri: &str) -> Result<(ImageStore, &str), StageError> {
    let (folder, name) = uri.rsplit_once(['/', '\\']).unwrap_or((".", uri));
    let folder = if folder.is_empty() { "/" } else { folder };
    let store = ImageStore::open(folder)
        .map_err(|error| StageError::input(Stage::Fetch, FailureClass::Configuration, error))?;
    Ok((store, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Retry;

    #[tokio::test]
    async fn names_with_signs_are_read_as_they_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["DC_DCAM#1_CAM3.tif", "a b~[1]%20\u{b5}.tif"];
        std::fs::create_dir_all(folder.path().join("P#1")).unwrap();
        for name in names {
            std::fs::write(folder.path().join("P#1").join(name), name).unwrap();
        }
        let store = ImageStore::open(folder.path().to_str().unwrap()).unwrap();
        let listed = store.list(Some("P#1")).await.unwrap();
        assert_eq!(listed.len(), names.len());
        for file in listed {
            let name = file.path.strip_prefix("P#1/").unwrap();
            assert_eq!(store.read(&file.path).await.unwrap(), name);
            assert_eq!(store.read_range(&file.path, 1..3).await.unwrap(), name[1..3]);
        }
    }

    #[tokio::test]
    async fn ends_and_bounded_reads_of_objects() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().to_str().unwrap()).unwrap();
        let file = folder.path().join("shard");
        std::fs::write(&file, b"0123456789").unwrap();
        let first = store.read_end("shard", End::First(3)).await.unwrap();
        assert_eq!((first.bytes.as_ref(), first.object_bytes), (&b"012"[..], 10));
        let last = store.read_end("shard", End::Last(4)).await.unwrap();
        assert_eq!((last.bytes.as_ref(), last.object_bytes), (&b"6789"[..], 10));
        let all = store.read_end("shard", End::Last(40)).await.unwrap();
        assert_eq!(all.bytes.len(), 10);

        let version = last.version.as_deref();
        let part = store.read_range_of("shard", 2..5, version).await.unwrap();
        assert_eq!(part.as_ref(), b"234");
        // Written again in between: what the index said of it no longer holds, and the field is tried again.
        std::fs::write(&file, b"another shard").unwrap();
        let error = store.read_range_of("shard", 2..5, version).await.unwrap_err();
        assert_eq!(
            (error.class, error.retry),
            (FailureClass::Network, Retry::Backoff)
        );
        assert!(error.chain().contains("in one try"), "{}", error.chain());

        assert_eq!(store.read_at_most("shard", 13).await.unwrap().len(), 13);
        let error = store.read_at_most("shard", 12).await.unwrap_err();
        assert_eq!((error.class, error.retry), (FailureClass::BadImage, Retry::Never));
        assert!(
            error.chain().contains("has 13 bytes; at most 12 are read"),
            "{}",
            error.chain()
        );
        let error = store.read_end("absent", End::Last(4)).await.unwrap_err();
        assert_eq!(error.class, FailureClass::MissingImage);
    }
}
