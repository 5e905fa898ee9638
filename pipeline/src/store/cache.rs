//! What was read of image files, kept for who reads the same file next: other fields of it, or another step.
//!
//! Objects are told apart by store and path, and worth nothing once the store says that they were written again. All that is
//! kept has a bound in bytes; what was used longest ago goes first. Cannot fail.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wellspring_images::{ImageError, Source};

use super::version::State;

/// For so long an object is taken for the one it was without asking the store.
const TRUSTED: Duration = Duration::from_secs(10);

/// Bytes of image files that are kept unless somebody says otherwise.
pub const USUAL_CACHE_BYTES: u64 = 128 << 20;

/// Parts of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    length: u64,
    parts: BTreeMap<u64, Bytes>,
}

impl Parts {
    /// Of an object of so many bytes, none of which is here.
    pub fn new(length: u64) -> Self {
        Self {
            length,
            parts: BTreeMap::new(),
        }
    }

    /// Adds the bytes from `start` on. A part that is shorter than one already known at the same place is not kept.
    pub fn insert(&mut self, start: u64, bytes: Bytes) {
        let known = self.parts.get(&start).map_or(0, Bytes::len);
        if bytes.len() > known {
            self.parts.insert(start, bytes);
        }
    }

    /// The bytes of a range, where one part has all of them.
    pub fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        self.parts.range(..=range.start).rev().find_map(|(start, part)| {
            let from = usize::try_from(range.start - start).ok()?;
            let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
            part.get(from..to).map(|_| part.slice(from..to))
        })
    }

    /// Bytes that are here.
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.len() as u64).sum()
    }
}

impl Source for Parts {
    fn length(&self) -> u64 {
        self.length
    }

    fn bytes(&self, range: Range<u64>, what: &'static str) -> Result<&[u8], ImageError> {
        let Range { start, end } = range;
        if end > self.length || start > end {
            return Err(ImageError::Truncated {
                what,
                start,
                end,
                length: self.length,
            });
        }
        let found = self.parts.range(..=start).rev().find_map(|(at, part)| {
            let from = usize::try_from(start - at).ok()?;
            let to = usize::try_from(end - at).ok()?;
            part.get(from..to)
        });
        found.ok_or(ImageError::NotFetched { start, end })
    }
}

/// What is known of an object.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// All of it.
    Whole(Bytes),
    /// What was needed of it.
    Parts(Parts),
}

/// An object as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// Its entity tag.
    pub(crate) version: String,
    /// When it was last written, in milliseconds since 1970 UTC.
    pub(crate) modified_ms: i64,
    /// When the store last said so.
    pub(crate) checked: Instant,
    pub(crate) data: Data,
}

impl Object {
    /// Whether the store has to be asked whether it is still the same.
    pub(crate) fn is_old(&self) -> bool {
        self.checked.elapsed() >= TRUSTED
    }

    /// What the store said of it.
    pub(crate) fn state(&self) -> State {
        State {
            e_tag: Some(self.version.clone()),
            modified_ms: self.modified_ms,
        }
    }

    fn bytes(&self) -> u64 {
        match &self.data {
            Data::Whole(bytes) => bytes.len() as u64,
            Data::Parts(parts) => parts.bytes(),
        }
    }
}

/// The place of an object. Who holds it locked reads for all who wait.
pub(crate) type Slot = tokio::sync::Mutex<Option<Object>>;

/// Store and path.
pub(crate) type Key = (Arc<str>, String);

/// The cache.
#[derive(Debug)]
pub struct ImageCache {
    limit: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<Key, Entry>,
    bytes: u64,
    /// Counts uses.
    now: u64,
}

#[derive(Debug)]
struct Entry {
    slot: Arc<Slot>,
    bytes: u64,
    used: u64,
}

static OF_PROCESS: LazyLock<Arc<ImageCache>> = LazyLock::new(|| Arc::new(ImageCache::new(USUAL_CACHE_BYTES)));

impl ImageCache {
    /// Keeps so many bytes at most; with 0, nothing.
    pub fn new(limit: u64) -> Self {
        Self {
            limit: AtomicU64::new(limit),
            kept: Mutex::default(),
        }
    }

    /// The one that all stores of this process share.
    pub fn of_process() -> Arc<Self> {
        OF_PROCESS.clone()
    }

    /// Changes how much is kept.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.shrink(&mut self.lock());
    }

    /// Bytes that are kept now.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The place of an object; empty where nothing is known of it.
    pub(crate) fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut kept = self.lock();
        kept.now += 1;
        let used = kept.now;
        let entry = kept.objects.entry(key.clone()).or_insert_with(|| Entry {
            slot: Arc::default(),
            bytes: 0,
            used,
        });
        entry.used = used;
        entry.slot.clone()
    }

    /// The place of an object of which something is known.
    pub(crate) fn known(&self, key: &Key) -> Option<Arc<Slot>> {
        let is_known = self.lock().objects.contains_key(key);
        is_known.then(|| self.slot(key))
    }

    /// Counts what is in a place now, and makes room for it.
    pub(crate) fn settle(&self, key: &Key, slot: &Arc<Slot>, object: Option<&Object>) {
        let bytes = object.map_or(0, Object::bytes);
        let mut kept = self.lock();
        let Kept {
            objects, bytes: all, ..
        } = &mut *kept;
        // One that was put out meanwhile is nobody's any more.
        if let Some(entry) = objects.get_mut(key)
            && Arc::ptr_eq(&entry.slot, slot)
        {
            *all -= entry.bytes;
            entry.bytes = 0;
            // What there is no room for puts nothing else out. Where nothing came to be, somebody may wait to try it himself.
            if bytes > self.limit.load(Ordering::Relaxed) || bytes == 0 && Arc::strong_count(slot) == 2 {
                objects.remove(key);
            } else {
                entry.bytes = bytes;
                *all += bytes;
            }
        }
        self.shrink(&mut kept);
    }

    fn shrink(&self, kept: &mut Kept) {
        let limit = self.limit.load(Ordering::Relaxed);
        while kept.bytes > limit {
            let holding = kept.objects.iter().filter(|(_, entry)| entry.bytes > 0);
            let Some(oldest) = holding
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| key.clone())
            else {
                return;
            };
            if let Some(entry) = kept.objects.remove(&oldest) {
                kept.bytes -= entry.bytes;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        ("store".into(), path.to_owned())
    }

    fn keep(cache: &ImageCache, path: &str, bytes: usize) {
        let slot = cache.slot(&key(path));
        let object = Object {
            version: "1".to_owned(),
            modified_ms: 0,
            checked: Instant::now(),
            data: Data::Whole(vec![0; bytes].into()),
        };
        *slot.try_lock().unwrap() = Some(object.clone());
        cache.settle(&key(path), &slot, Some(&object));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_the_bound_holds() {
        let cache = ImageCache::new(100);
        keep(&cache, "a", 40);
        keep(&cache, "b", 40);
        assert!(cache.known(&key("a")).is_some());
        keep(&cache, "c", 40);
        assert_eq!(cache.bytes(), 80);
        assert!(cache.known(&key("b")).is_none());
        assert!(cache.known(&key("a")).is_some());
        // What there is no room for is not kept, and puts nothing out.
        keep(&cache, "d", 101);
        assert!(cache.known(&key("d")).is_none() && cache.bytes() == 80);
        cache.set_limit(0);
        assert_eq!(cache.bytes(), 0);
        keep(&cache, "e", 1);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_place_in_which_nothing_came_to_be_is_given_up() {
        let cache = ImageCache::new(100);
        let slot = cache.slot(&key("a"));
        cache.settle(&key("a"), &slot, None);
        assert!(cache.known(&key("a")).is_none());
    }

    #[test]
    fn parts_are_found_by_range() {
        let mut parts = Parts::new(100);
        parts.insert(10, Bytes::from_static(b"0123456789"));
        assert_eq!(parts.slice(&(12..15)).unwrap().as_ref(), b"234");
        assert_eq!(parts.slice(&(5..12)), None);
        assert_eq!(parts.slice(&(15..21)), None);
        assert_eq!(Source::bytes(&parts, 10..12, "x").unwrap(), b"01");
        assert!(matches!(
            Source::bytes(&parts, 15..21, "x"),
            Err(ImageError::NotFetched { start: 15, end: 21 })
        ));
        assert!(matches!(
            Source::bytes(&parts, 99..101, "x"),
            Err(ImageError::Truncated { .. })
        ));
    }
}
