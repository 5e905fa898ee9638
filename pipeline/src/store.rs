//! Object storage: where images come from. Local folders, S3, Google Cloud Storage, Azure and web servers, through
//! `object_store`.
//!
//! A URI enters, listings and bytes leave. Credentials, region and custom endpoints come from the environment variables that
//! each vendor's own tools read and from roles of the machine, never from a screen file.

mod cache;
mod listing;
mod open;
mod retry;

pub(crate) use self::cache::{Data, Key, Object};
pub use self::cache::{ImageCache, Parts, USUAL_CACHE_BYTES};
pub use self::open::StoreError;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use self::listing::Pages;
use self::open::Opened;
use self::retry::retrying;
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
}

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
}

impl ImageStore {
    /// Opens a store by URI: a folder, `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
    /// `abfss://container@account.dfs.core.windows.net/prefix`, or a web server that lists its files (WebDAV) by `http://` or
    /// `https://`.
    ///
    /// # Errors
    /// [`StoreError`]: a folder that is not there, settings that do not fit together.
    pub fn open(uri: &str) -> Result<Self, StoreError> {
        let Opened { store, pages } = open::open(uri)?;
        Ok(Self {
            uri: uri.into(),
            store,
            pages,
            away: Arc::default(),
            unversioned: Arc::default(),
            cache: ImageCache::of_process(),
        })
    }

    /// A store that exists already, with a cache of its own.
    #[cfg(test)]
    pub(crate) fn of(store: Arc<dyn ObjectStore>, cache_bytes: u64) -> Self {
        Self {
            uri: "test://store".into(),
            store,
            pages: None,
            away: Arc::default(),
            unversioned: Arc::default(),
            cache: Arc::new(ImageCache::new(cache_bytes)),
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
        Ok(in_order(listed, ""))
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
        Ok(in_order(listed, &pages.root))
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
        Ok(in_order(listed.objects, ""))
    }

    /// Part of the bytes of one object.
    pub async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        retrying(Stage::Fetch, &what, &self.away, || async {
            self.store.get_range(&location, range.clone()).await
        })
        .await
    }

    /// Part of the bytes of one object, as long as it is still the version that [`ImageStore::read_end`] saw.
    pub async fn read_range_of(
        &self,
        path: &str,
        range: Range<u64>,
        version: Option<&str>,
    ) -> Result<Bytes, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        let options = GetOptions::new()
            .with_range(Some(range.clone()))
            .with_if_match(version.map(str::to_owned));
        retrying(Stage::Fetch, &what, &self.away, || async {
            let read = self.store.get_opts(&location, options.clone()).await?;
            // Not every web server knows conditions, but it may say what it sends.
            if let (Some(wanted), Some(found)) = (version, &read.meta.e_tag)
                && wanted != found
            {
                return Err(object_store::Error::Precondition {
                    path: location.to_string(),
                    source: format!("its entity tag was {wanted} and is {found}").into(),
                });
            }
            read.bytes().await
        })
        .await
    }

    /// Makes sure that what the cache has of an object is still what the store has; forgets it otherwise.
    pub(crate) async fn look_again(&self, path: &str, object: &mut Option<Object>) {
        let Some(known) = object.as_mut().filter(|known| known.is_old()) else {
            return;
        };
        let now = self.store.head(&location(path)).await;
        match now {
            Ok(meta) if meta.e_tag.as_ref() == Some(&known.version) => known.checked = Instant::now(),
            // Whoever reads it says what is wrong with it.
            _ => *object = None,
        }
    }

    /// The bytes of one object, which `object` has from then on, if the store tells its versions apart.
    pub(crate) async fn read_into(
        &self,
        path: &str,
        object: &mut Option<Object>,
    ) -> Result<Bytes, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        let (bytes, version) = retrying(Stage::Fetch, &what, &self.away, || async {
            let read = self.store.get(&location).await?;
            let version = read.meta.e_tag.clone();
            Ok((read.bytes().await?, version))
        })
        .await?;
        *object = version.map(|version| Object {
            version,
            checked: Instant::now(),
            data: Data::Whole(bytes.clone()),
        });
        Ok(bytes)
    }

    /// The bytes of one object, which are kept for whoever asks next.
    pub async fn read_and_keep(&self, path: &str) -> Result<Bytes, StageError> {
        let key = self.key(path);
        let slot = self.cache.slot(&key);
        let mut object = slot.lock().await;
        self.look_again(path, &mut object).await;
        let read = match &*object {
            Some(Object {
                data: Data::Whole(bytes),
                ..
            }) => Ok(bytes.clone()),
            _ => self.read_into(path, &mut object).await,
        };
        if read.is_err() {
            *object = None;
        }
        self.cache.settle(&key, &slot, object.as_ref());
        read
    }

    /// The bytes of one object, from the cache where somebody kept them.
    pub async fn read_or_recall(&self, path: &str) -> Result<Bytes, StageError> {
        match self.cache.known(&self.key(path)) {
            Some(_) => self.read_and_keep(path).await,
            None => self.read(path).await,
        }
    }

    /// Whether single pages of large files are read, as far as it is known.
    pub fn reads_pages(&self) -> bool {
        !self.unversioned.load(Ordering::Relaxed)
    }

    /// The first or last bytes of one object, fewer where it has fewer, and what the store says of it.
    pub async fn read_end(&self, path: &str, end: End) -> Result<PartOfObject, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        retrying(Stage::Fetch, &what, &self.away, || async {
            let range = match end {
                End::First(bytes) => GetRange::Bounded(0..bytes),
                End::Last(bytes) => GetRange::Suffix(bytes),
            };
            let options = GetOptions::new().with_range(Some(range));
            let read = match self.store.get_opts(&location, options).await {
                // Azure has no suffixes: the size has to be asked for first.
                Err(object_store::Error::NotSupported { .. }) => {
                    let size = self.store.head(&location).await?.size;
                    let range = match end {
                        End::First(bytes) => 0..bytes.min(size),
                        End::Last(bytes) => size.saturating_sub(bytes)..size,
                    };
                    let options = GetOptions::new().with_range(Some(range));
                    self.store.get_opts(&location, options).await?
                }
                read => read?,
            };
            // A weak tag is the same for objects that differ, and no read can be made on condition of it.
            let version = read.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
            let object_bytes = read.meta.size;
            self.unversioned.store(version.is_none(), Ordering::Relaxed);
            let bytes = read.bytes().await?;
            Ok(PartOfObject {
                bytes,
                object_bytes,
                version,
            })
        })
        .await
    }

    /// The bytes of one object that has at most `limit`; none of a larger one.
    pub async fn read_at_most(&self, path: &str, limit: u64) -> Result<Bytes, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        let read = retrying(Stage::Fetch, &what, &self.away, || async {
            let read = self.store.get(&location).await?;
            let size = read.meta.size;
            if size > limit {
                return Ok(Err(size));
            }
            read.bytes().await.map(Ok)
        });
        read.await?.map_err(|bytes| {
            let error = TooLarge { what, bytes, limit };
            StageError::input(Stage::Fetch, FailureClass::BadImage, error)
        })
    }

    /// The bytes of one object.
    pub async fn read(&self, path: &str) -> Result<Bytes, StageError> {
        let location = location(path);
        let what = format!("{}/{path}", self.uri);
        retrying(Stage::Fetch, &what, &self.away, || async {
            self.store.get(&location).await?.bytes().await
        })
        .await
    }
}

/// Objects in path order, by their paths below `root`.
fn in_order(listed: Vec<ObjectMeta>, root: &str) -> Vec<Listed> {
    let listed = listed.into_iter().map(|meta| {
        let path = String::from(meta.location);
        Listed {
            path: path.strip_prefix(root).map(str::to_owned).unwrap_or(path),
            bytes: meta.size,
            modified_ms: meta.last_modified.timestamp_millis(),
        }
    });
    let mut listed: Vec<Listed> = listed.collect();
    listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    listed
}

/// The name of an object as it was listed. What is no such name is made one.
fn location(path: &str) -> Path {
    Path::parse(path).unwrap_or_else(|_| Path::from(path))
}

/// The bytes of one file by URI or path, such as a plate map or an illumination function.
pub async fn read_uri(uri: &str) -> Result<Bytes, StageError> {
    let (folder, name) = uri.rsplit_once(['/', '\\']).unwrap_or((".", uri));
    let folder = if folder.is_empty() { "/" } else { folder };
    let store = ImageStore::open(folder)
        .map_err(|error| StageError::input(Stage::Fetch, FailureClass::Configuration, error))?;
    store.read(name).await
}

/// An object that is larger than what it should hold.
#[derive(Debug, thiserror::Error)]
#[error("'{what}' has {bytes} bytes; at most {limit} are read of such an object")]
struct TooLarge {
    what: String,
    bytes: u64,
    limit: u64,
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
        assert!(error.chain().contains("after 1 tries"), "{}", error.chain());

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
