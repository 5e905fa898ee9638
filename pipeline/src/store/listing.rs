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
mod tests;
