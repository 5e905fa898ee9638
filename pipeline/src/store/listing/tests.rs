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
