//! Object storage: where images come from. Local folders and S3, through `object_store`.
//!
//! A URI enters, listings and bytes leave. Credentials, region and custom endpoints come from the usual AWS
//! environment variables and instance roles, never from a screen file.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig};

use crate::error::{FailureClass, Retry, Stage, StageError};

/// Tries of one read before it counts as failed.
const ATTEMPTS: u32 = 4;
/// Wait before the second try; doubled for each further one, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// A place with images.
#[derive(Debug, Clone)]
pub struct ImageStore {
    uri: Arc<str>,
    store: Arc<dyn ObjectStore>,
    /// Whether the last read that was tried to the end failed for a reason that may pass: then one try has to do, so
    /// that a store that is away holds up nobody else's fields.
    away: Arc<AtomicBool>,
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

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The local folder does not exist or cannot be read.
    #[error("image store '{uri}' cannot be opened; check that the folder exists and can be read")]
    Local {
        /// The URI as given.
        uri: String,
        /// The system's reason.
        source: object_store::Error,
    },
    /// The S3 settings do not fit together.
    #[error(
        "image store '{uri}' cannot be opened; check the bucket's name and AWS_REGION, AWS_ENDPOINT and credentials"
    )]
    S3 {
        /// The URI as given.
        uri: String,
        /// The client's reason.
        source: object_store::Error,
    },
    /// The scheme is not one this build reads.
    #[error("image store '{uri}' has the scheme '{scheme}'; use a folder, file:// or s3://bucket/prefix")]
    Scheme {
        /// The URI as given.
        uri: String,
        /// Its scheme.
        scheme: String,
    },
}

impl ImageStore {
    /// Opens a store by URI: a folder, `file:///folder`, or `s3://bucket/prefix`.
    pub fn open(uri: &str) -> Result<Self, StoreError> {
        let store: Arc<dyn ObjectStore> = match uri.split_once("://") {
            None => Arc::new(local(uri, uri)?),
            Some(("file", folder)) => Arc::new(local(uri, folder)?),
            Some(("s3", rest)) => s3(uri, rest)?,
            Some((scheme, _)) => {
                return Err(StoreError::Scheme {
                    uri: uri.to_owned(),
                    scheme: scheme.to_owned(),
                });
            }
        };
        Ok(Self {
            uri: uri.into(),
            store,
            away: Arc::default(),
        })
    }

    /// The URI the store was opened with.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Every object below `prefix` (the whole store when `None`), in path order.
    pub async fn list(&self, prefix: Option<&str>) -> Result<Vec<Listed>, StageError> {
        let prefix = prefix.map(Path::from);
        let mut listed = retrying(Stage::Plan, &self.uri, &self.away, || async {
            self.store
                .list(prefix.as_ref())
                .map_ok(|meta| Listed {
                    path: meta.location.to_string(),
                    bytes: meta.size,
                    modified_ms: meta.last_modified.timestamp_millis(),
                })
                .try_collect::<Vec<_>>()
                .await
        })
        .await?;
        listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(listed)
    }

    /// The objects that lie in no folder of the store.
    pub async fn list_top(&self) -> Result<Vec<Listed>, StageError> {
        let listed = retrying(Stage::Plan, &self.uri, &self.away, || async {
            self.store.list_with_delimiter(None).await
        })
        .await?;
        let objects = listed.objects.into_iter().map(|meta| Listed {
            path: meta.location.to_string(),
            bytes: meta.size,
            modified_ms: meta.last_modified.timestamp_millis(),
        });
        Ok(objects.collect())
    }

    /// Part of the bytes of one object.
    pub async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StageError> {
        let location = Path::from(path);
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
        let location = Path::from(path);
        let what = format!("{}/{path}", self.uri);
        let options = GetOptions::new()
            .with_range(Some(range.clone()))
            .with_if_match(version.map(str::to_owned));
        retrying(Stage::Fetch, &what, &self.away, || async {
            self.store
                .get_opts(&location, options.clone())
                .await?
                .bytes()
                .await
        })
        .await
    }

    /// The first or last bytes of one object, fewer where it has fewer, and what the store says of it.
    pub async fn read_end(&self, path: &str, end: End) -> Result<PartOfObject, StageError> {
        let location = Path::from(path);
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
            let (object_bytes, version) = (read.meta.size, read.meta.e_tag.clone());
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
        let location = Path::from(path);
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
        let location = Path::from(path);
        let what = format!("{}/{path}", self.uri);
        retrying(Stage::Fetch, &what, &self.away, || async {
            self.store.get(&location).await?.bytes().await
        })
        .await
    }
}

/// The bytes of one file by URI or path, such as a plate map or an illumination function.
pub async fn read_uri(uri: &str) -> Result<Bytes, StageError> {
    let (folder, name) = uri.rsplit_once(['/', '\\']).unwrap_or((".", uri));
    let folder = if folder.is_empty() { "/" } else { folder };
    let store = ImageStore::open(folder)
        .map_err(|error| StageError::input(Stage::Fetch, FailureClass::Configuration, error))?;
    store.read(name).await
}

fn local(uri: &str, folder: &str) -> Result<LocalFileSystem, StoreError> {
    LocalFileSystem::new_with_prefix(folder).map_err(|source| StoreError::Local {
        uri: uri.to_owned(),
        source,
    })
}

fn s3(uri: &str, rest: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        // Repeating is done here, where it is logged and bounded.
        .with_retry(RetryConfig {
            max_retries: 0,
            retry_timeout: Duration::from_secs(20),
            ..RetryConfig::default()
        })
        .build()
        .map_err(|source| StoreError::S3 {
            uri: uri.to_owned(),
            source,
        })?;
    Ok(if prefix.is_empty() {
        Arc::new(store)
    } else {
        Arc::new(PrefixStore::new(store, prefix))
    })
}

/// Repeats what may pass; turns what is left into a stage error that names the object.
async fn retrying<T, F>(
    stage: Stage,
    what: &str,
    away: &AtomicBool,
    attempt: impl Fn() -> F,
) -> Result<T, StageError>
where
    F: Future<Output = object_store::Result<T>>,
{
    let mut backoff = FIRST_BACKOFF;
    let mut tried = 0;
    loop {
        tried += 1;
        let (error, changed) = match attempt().await {
            Ok(value) => {
                away.store(false, Ordering::Relaxed);
                return Ok(value);
            }
            Err(source) => {
                let changed = matches!(source, object_store::Error::Precondition { .. });
                (failure(stage, what, tried, source), changed)
            }
        };
        // An object that was written again has to be read from its beginning: the whole field is tried again.
        if error.retry == Retry::Never || changed {
            return Err(error);
        }
        if tried == ATTEMPTS || away.load(Ordering::Relaxed) {
            away.store(true, Ordering::Relaxed);
            return Err(error);
        }
        tracing::warn!(what, tried, %error, "object storage failed; trying again");
        tokio::time::sleep(jittered(backoff)).await;
        backoff *= 2;
    }
}

/// What a failed read means: an object that is absent or refused stays so, anything else may pass.
fn failure(stage: Stage, what: &str, tried: u32, source: object_store::Error) -> StageError {
    let class = match source {
        object_store::Error::NotFound { .. } => FailureClass::MissingImage,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            FailureClass::Access
        }
        _ if is_throttled(&source) => FailureClass::Throttled,
        _ => FailureClass::Network,
    };
    let source = ReadError {
        what: what.to_owned(),
        tried,
        source,
    };
    match class {
        FailureClass::Network | FailureClass::Throttled => StageError::external(stage, class, source),
        _ => StageError::input(stage, class, source),
    }
}

/// Whether the store asked for fewer requests. The client gives the answer's status only in words.
fn is_throttled(error: &object_store::Error) -> bool {
    let text = crate::error::chain(error);
    ["status code: 429", "status code: 503", "<Code>SlowDown</Code>"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// Between half of `backoff` and all of it, so that workers that failed together do not return together.
fn jittered(backoff: Duration) -> Duration {
    let spread = u64::from(crate::clock::subsecond_nanos() % 1_000);
    backoff / 2 + backoff.mul_f64(0.5 * spread as f64 / 1_000.0)
}

/// An object that is larger than what it should hold.
#[derive(Debug, thiserror::Error)]
#[error("'{what}' has {bytes} bytes; at most {limit} are read of such an object")]
struct TooLarge {
    what: String,
    bytes: u64,
    limit: u64,
}

/// A read that failed for good.
#[derive(Debug, thiserror::Error)]
#[error("'{what}' could not be read after {tried} tries")]
struct ReadError {
    what: String,
    tried: u32,
    source: object_store::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

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
