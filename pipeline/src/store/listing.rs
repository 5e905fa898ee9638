//! Listing what lies in S3, Google Cloud Storage and Azure: page after page, and several stretches of a large listing at once.
//!
//! A text with which names begin enters, objects leave, in no order. These stores give names in the order of their bytes, 1,000
//! to a page, and begin behind any text. So a listing of more than some pages is cut where its names first differ, and each
//! stretch is listed by itself; stretches share their ends, so that whatever the cuts are, no name is lost or seen twice. What
//! fails: a page that cannot be had after several tries.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use tokio::sync::Semaphore;

use super::retry::retrying;
use crate::error::{Stage, StageError};

/// Requests at once.
const CONCURRENCY: usize = 16;
/// Pages of one stretch before it is cut: most plates have fewer, and cutting costs some dozens of small requests.
const PAGES_BEFORE_CUT: u32 = 3;
/// Characters of a name that are looked at for cuts: names of files are shorter.
const CUT_PLACES: usize = 64;

/// A store that lists page by page, and where in it names begin.
#[derive(Clone)]
pub(super) struct Pages {
    /// The bucket or container.
    pub(super) store: Arc<dyn PaginatedListStore>,
    /// What the names of all objects of the image store begin with: empty, or with its final `/`.
    pub(super) root: String,
    /// Whether it gives names in the order of their bytes, and begins behind any text: S3's directory buckets do not.
    pub(super) ordered: bool,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// A listing on its way.
struct Listing<'a> {
    pages: &'a Pages,
    /// What is told where it fails.
    what: &'a str,
    away: &'a AtomicBool,
    /// What all names begin with, the root included.
    prefix: String,
    requests: Semaphore,
}

/// The names behind `after` up to `to`, which is the last of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stretch {
    after: Option<String>,
    to: Option<String>,
    /// Where its next page begins, in the store's own words.
    token: Option<String>,
    /// Pages since it was last tried to be cut.
    pages: u32,
    /// Tries that found no place to cut.
    tries: u32,
    /// The last name that was seen.
    last: String,
}

enum Done {
    /// The objects of a page, and what is left of its stretch.
    Page(Vec<ObjectMeta>, Option<Stretch>),
    /// A stretch in parts.
    Cut(Vec<Stretch>),
    /// A page whose names are in no order, or lie before those that were asked for.
    OutOfOrder,
}

impl Pages {
    /// Every object whose name below the root begins with `start`, in no order; names are those below the root.
    pub(super) async fn list(
        &self,
        start: &str,
        what: &str,
        away: &AtomicBool,
    ) -> Result<Vec<ObjectMeta>, StageError> {
        let listing = self.listing(start, what, away);
        if self.ordered {
            if let Some(objects) = listing.all(true).await? {
                return Ok(objects);
            }
            tracing::warn!(
                what,
                "the store lists names in no order, so they are listed page after page"
            );
        }
        Ok(listing.all(false).await?.unwrap_or_default())
    }

    /// The first name behind `after` that begins with `start`, both below the root.
    pub(super) async fn next(
        &self,
        start: &str,
        after: Option<String>,
        what: &str,
        away: &AtomicBool,
    ) -> Result<Option<String>, StageError> {
        let listing = self.listing(start, what, away);
        let after = after.map(|after| format!("{}{after}", self.root));
        let after = after.or_else(|| before(&listing.prefix));
        let name = listing.first(after).await?;
        Ok(name.map(|name| name.strip_prefix(&self.root).map(str::to_owned).unwrap_or(name)))
    }

    fn listing<'a>(&'a self, start: &str, what: &'a str, away: &'a AtomicBool) -> Listing<'a> {
        Listing {
            pages: self,
            what,
            away,
            prefix: format!("{}{start}", self.root),
            requests: Semaphore::new(CONCURRENCY),
        }
    }
}

impl Listing<'_> {
    /// All objects; `None` where several stretches at once would not give them all. Without `ordered` they are listed one page
    /// after the other.
    async fn all(&self, ordered: bool) -> Result<Option<Vec<ObjectMeta>>, StageError> {
        let mut objects = Vec::new();
        let mut waiting = vec![Stretch {
            after: ordered.then(|| before(&self.prefix)).flatten(),
            ..Stretch::default()
        }];
        let mut working = FuturesUnordered::new();
        loop {
            while working.len() < CONCURRENCY
                && let Some(stretch) = waiting.pop()
            {
                // Where enough is going on, cutting gains nothing.
                let cut = ordered
                    && stretch.pages >= PAGES_BEFORE_CUT << stretch.tries.min(8)
                    && working.len() + waiting.len() < CONCURRENCY / 2;
                working.push(self.go_on(stretch, ordered, cut));
            }
            match working.next().await {
                None => break,
                Some(Err(error)) => return Err(error),
                Some(Ok(Done::Page(page, rest))) => {
                    objects.extend(page);
                    waiting.extend(rest);
                }
                Some(Ok(Done::Cut(stretches))) => waiting.extend(stretches),
                Some(Ok(Done::OutOfOrder)) => return Ok(None),
            }
        }
        Ok(Some(objects))
    }

    async fn go_on(&self, stretch: Stretch, ordered: bool, cut: bool) -> Result<Done, StageError> {
        if !cut {
            return self.next_page(stretch, ordered).await;
        }
        let places = self.places(&stretch).await?;
        Ok(Done::Cut(stretch.cut(places)))
    }

    async fn next_page(&self, mut stretch: Stretch, ordered: bool) -> Result<Done, StageError> {
        let options = PaginatedListOptions {
            offset: stretch.after.clone(),
            page_token: stretch.token.take(),
            ..PaginatedListOptions::default()
        };
        let PaginatedListResult { result, page_token } = self.request(&self.prefix, options).await?;
        let mut objects = result.objects;
        let listed = objects.len();
        let before = [stretch.after.as_deref(), Some(stretch.last.as_str())]
            .into_iter()
            .flatten()
            .max();
        let names = before
            .into_iter()
            .chain(objects.iter().map(|object| object.location.as_ref()));
        if ordered && !names.is_sorted_by(|a, b| a < b) {
            return Ok(Done::OutOfOrder);
        }
        if let Some(last) = objects.last() {
            last.location.as_ref().clone_into(&mut stretch.last);
        }
        let to = stretch.to.as_deref();
        objects.retain(|object| to.is_none_or(|to| object.location.as_ref() <= to));
        let ended = objects.len() < listed || page_token.is_none();
        stretch.token = page_token;
        stretch.pages += 1;
        Ok(Done::Page(objects, (!ended).then_some(stretch)))
    }

    async fn request(
        &self,
        prefix: &str,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult, StageError> {
        let _one_of_so_many = self
            .requests
            .acquire()
            .await
            .map_err(|error| StageError::internal(Stage::Plan, error))?;
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        retrying(Stage::Plan, self.what, self.away, || {
            self.pages.store.list_paginated(prefix, options.clone())
        })
        .await
    }

    /// The first name behind `after`, where it begins as all do. The store is asked for any name of the root, which small servers
    /// find at once; they would look through all names for the first that begins with a text.
    async fn first(&self, after: Option<String>) -> Result<Option<String>, StageError> {
        let options = PaginatedListOptions {
            offset: after,
            // Azure begins with the name itself, which is then left out.
            max_keys: Some(2),
            ..PaginatedListOptions::default()
        };
        let found = self.request(&self.pages.root, options).await?.result.objects;
        let name = found
            .into_iter()
            .next()
            .map(|object| String::from(object.location));
        Ok(name.filter(|name| name.starts_with(&self.prefix)))
    }

    /// Where a stretch can be cut behind its last name: before each further letter or digit that names have at the first
    /// place at which they still differ from it. In order; none where there is no such place.
    async fn places(&self, stretch: &Stretch) -> Result<Vec<String>, StageError> {
        let last = &stretch.last;
        let begins = self.prefix.len();
        // Names that have something greater at this place, after the same beginning.
        let differ = last
            .char_indices()
            .filter(|(at, letter)| *at >= begins && letter.is_ascii_alphanumeric())
            .take(CUT_PLACES)
            .map(|(at, _)| async move {
                let (before, through) = (&last[..at], &last[..=at]);
                let next = self.first(Some(format!("{through}~"))).await?;
                Ok::<_, StageError>(
                    next.filter(|name| name.starts_with(before))
                        .map(|name| (at, name)),
                )
            });
        let mut found: Vec<(usize, String)> = futures::stream::iter(differ)
            .buffered(CONCURRENCY)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        found.retain(|(_, name)| stretch.to.as_deref().is_none_or(|to| name.as_str() <= to));
        let Some((at, _)) = found.first() else {
            return Ok(Vec::new());
        };
        let (before, letter) = (&last[..*at], last.as_bytes()[*at]);
        let letters = (letter + 1..=b'z').filter(u8::is_ascii_alphanumeric);
        let exist = letters
            .map(|letter| format!("{before}{}", char::from(letter)))
            .filter(|start| stretch.to.as_deref().is_none_or(|to| start.as_str() < to))
            .map(|start| async move {
                let next = self.first(Some(start.clone())).await?;
                let exists = next.is_some_and(|name| name.starts_with(&start));
                Ok::<_, StageError>(exists.then_some(start))
            });
        futures::stream::iter(exist)
            .buffered(CONCURRENCY)
            .try_filter_map(|start| async move { Ok(start) })
            .try_collect()
            .await
    }
}

/// A text before all that begin with `prefix`, and behind most that come before them: small servers look at every name from
/// where they are told to begin.
fn before(prefix: &str) -> Option<String> {
    let last = prefix
        .chars()
        .last()
        .filter(|last| last.is_ascii_alphanumeric())?;
    let all_but_last = &prefix[..prefix.len() - 1];
    Some(format!("{all_but_last}{}~", char::from(last as u8 - 1)))
}

impl Stretch {
    /// The stretch up to the first of `places`, from there to the second, and so on.
    fn cut(self, places: Vec<String>) -> Vec<Stretch> {
        let to = self.to.clone();
        let mut ends = places.iter().cloned().map(Some).chain([to]);
        let first = Stretch {
            to: ends.next().flatten(),
            pages: 0,
            tries: if places.is_empty() { self.tries + 1 } else { 0 },
            ..self
        };
        let others = places.iter().zip(ends).map(|(after, to)| Stretch {
            after: Some(after.clone()),
            to,
            ..Stretch::default()
        });
        std::iter::once(first).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use object_store::ListResult;
    use object_store::path::Path;

    use super::*;

    /// A store as S3 lists it, `page` names at a time.
    struct Names {
        names: BTreeSet<String>,
        page: usize,
        /// Gives them backwards, as a store without order might.
        backwards: bool,
        requests: AtomicUsize,
        now: AtomicUsize,
        at_once: AtomicUsize,
    }

    #[async_trait]
    impl PaginatedListStore for Names {
        async fn list_paginated(
            &self,
            prefix: Option<&str>,
            options: PaginatedListOptions,
        ) -> object_store::Result<PaginatedListResult> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.at_once.fetch_max(now, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            let size = options.max_keys.unwrap_or(self.page);
            let after = options.page_token.clone().or(options.offset).unwrap_or_default();
            let fits = |name: &&String| name.starts_with(prefix.unwrap_or_default());
            let page: Vec<&String> = match self.backwards {
                false => self
                    .names
                    .range::<String, _>((Bound::Excluded(after), Bound::Unbounded))
                    .filter(fits)
                    .take(size + 1)
                    .collect(),
                true => self
                    .names
                    .iter()
                    .rev()
                    .filter(|name| after.is_empty() || **name < after)
                    .filter(fits)
                    .take(size + 1)
                    .collect(),
            };
            let more = page.len() > size;
            let page = &page[..page.len().min(size)];
            let object = |name: &&String| ObjectMeta {
                location: Path::parse(name.as_str()).unwrap(),
                last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                size: 1,
                e_tag: None,
                version: None,
            };
            Ok(PaginatedListResult {
                page_token: page.last().filter(|_| more).map(|name| (*name).clone()),
                result: ListResult {
                    objects: page.iter().map(object).collect(),
                    common_prefixes: Vec::new(),
                    extensions: Default::default(),
                },
            })
        }
    }

    async fn listed(names: &[String], backwards: bool, root: &str, start: &str) -> (Vec<String>, Arc<Names>) {
        let store = Arc::new(Names {
            names: names.iter().cloned().collect(),
            page: 10,
            backwards,
            requests: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
        });
        let pages = Pages {
            store: store.clone(),
            root: root.to_owned(),
            ordered: true,
        };
        let found = pages.list(start, "test", &AtomicBool::new(false)).await.unwrap();
        let mut found: Vec<String> = found.into_iter().map(|object| object.location.into()).collect();
        found.sort_unstable();
        (found, store)
    }

    fn plate(barcode: &str, rows: u8, columns: u8, fields: u8) -> Vec<String> {
        let mut names = Vec::new();
        for row in 0..rows {
            for column in 1..=columns {
                for field in 1..=fields {
                    let row = char::from(b'A' + row);
                    names.push(format!("{barcode}_{row}{column:02}_s{field}_w1.TIF"));
                }
            }
        }
        names
    }

    #[tokio::test]
    async fn a_flat_listing_is_cut_and_no_name_is_lost_or_seen_twice() {
        let mut names = plate("BR1", 16, 24, 9);
        names.extend(plate("BR2", 3, 12, 2));
        names.extend([
            "BR1".to_owned(),
            "BR2_B".to_owned(),
            "zz~\u{b5}.txt".to_owned(),
            "_x".to_owned(),
        ]);
        names.sort_unstable();
        let (found, store) = listed(&names, false, "", "").await;
        assert_eq!(found, names);
        assert!(store.at_once.load(Ordering::Relaxed) > 8, "{:?}", store.at_once);
        assert!(
            store.at_once.load(Ordering::Relaxed) <= CONCURRENCY,
            "{:?}",
            store.at_once
        );
        // Every page once, and some requests to find where to cut.
        let pages = names.len().div_ceil(10);
        let requests = store.requests.load(Ordering::Relaxed);
        assert!(
            requests < 2 * pages + 200,
            "{requests} requests for {pages} pages"
        );
    }

    #[tokio::test]
    async fn names_below_a_root_that_begin_with_a_text() {
        let names: Vec<String> = ["a/BR1", "a/BR10", "a/BR2", "b/BR1"]
            .iter()
            .flat_map(|place| plate(place, 8, 12, 2))
            .collect();
        let (found, _) = listed(&names, false, "a/", "BR1_").await;
        assert_eq!(found, plate("a/BR1", 8, 12, 2));
        assert_eq!(listed(&names, false, "a/", "BR3").await.0, Vec::<String>::new());
        let (found, store) = listed(&plate("BR1", 1, 10, 1), false, "", "").await;
        assert_eq!((found.len(), store.requests.load(Ordering::Relaxed)), (10, 1));
    }

    #[tokio::test]
    async fn the_next_name_is_found_behind_any_text() {
        let store = Arc::new(Names {
            names: ["a/BR1_A", "a/BR1_B", "a/BR2_A", "b/BR1_A"]
                .map(str::to_owned)
                .into(),
            page: 10,
            backwards: false,
            requests: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
        });
        let root = "a/".to_owned();
        let pages = Pages {
            store,
            root,
            ordered: true,
        };
        let away = AtomicBool::new(false);
        for (start, after, next) in [
            ("", None, Some("BR1_A")),
            ("BR", Some("BR1_A"), Some("BR1_B")),
            ("BR", Some("BR1_~"), Some("BR2_A")),
            ("BR", Some("BR2_~"), None),
        ] {
            let found = pages
                .next(start, after.map(str::to_owned), "test", &away)
                .await
                .unwrap();
            assert_eq!(found.as_deref(), next, "{start} {after:?}");
        }
    }

    #[tokio::test]
    async fn names_that_nothing_tells_apart_but_signs_are_listed_all_the_same() {
        let names: Vec<String> = (0..300u32)
            .map(|number| format!("x{}", "-".repeat(number as usize)))
            .collect();
        assert_eq!(listed(&names, false, "", "").await.0, names);
    }

    #[tokio::test]
    async fn a_store_without_order_is_listed_page_after_page() {
        let names = plate("BR1", 8, 12, 2);
        let (found, store) = listed(&names, true, "", "").await;
        assert_eq!(found, names);
        assert_eq!(store.at_once.load(Ordering::Relaxed), 1);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn whatever_the_names_all_are_listed_once(
            names in proptest::collection::btree_set("[ab9~é]{1,5}(/[AZ05]{0,3}[a-c]{1,2})?", 0..400)
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (found, _) = runtime.block_on(listed(&names, false, "", ""));
            proptest::prop_assert_eq!(found, names);
        }
    }
}
