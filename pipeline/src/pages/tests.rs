use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::error::Retry;
use crate::events::{ChannelImages, ImageRef};
use crate::fetch::{read_channels, read_channels_first};

const SIDE: u32 = 512;
const PAGE_BYTES: u64 = 2 * SIDE as u64 * SIDE as u64;
const PAGES: u32 = 40;

/// A store that counts what it is asked for.
#[derive(Debug, Default)]
struct Counting {
    inner: InMemory,
    /// Whether it answers as a server that knows no ranges.
    whole_only: bool,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Counting {
    /// Requests and bytes since the last time.
    fn taken(&self) -> (u64, u64) {
        (
            self.requests.swap(0, Ordering::Relaxed),
            self.bytes.swap(0, Ordering::Relaxed),
        )
    }

    async fn write(&self, path: &str, bytes: Vec<u8>) {
        self.inner.put(&Path::from(path), bytes.into()).await.unwrap();
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let head = options.head;
        if self.whole_only && options.range.is_some() {
            // In the words of the client of real servers, which a test with one reads (`tests/stores`).
            return Err(object_store::Error::NotSupported {
                source: format!("Range request not supported by {location}").into(),
            });
        }
        let read = self.inner.get_opts(location, options).await?;
        if !head {
            let bytes = read.range.end - read.range.start;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(read)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A TIFF of [`PAGES`] pages whose grey levels are the page's number, with the directories before all pixels, or each behind
/// its own.
fn stack(directories_first: bool) -> Vec<u8> {
    const ENTRIES: u32 = 8;
    const DIRECTORY: u32 = 2 + 12 * ENTRIES + 4;
    let page = PAGE_BYTES as u32;
    let places = |number: u32| match directories_first {
        true => (8 + number * DIRECTORY, 8 + PAGES * DIRECTORY + number * page),
        false => {
            let pixels = 8 + number * (page + DIRECTORY);
            (pixels + page, pixels)
        }
    };
    let mut file = vec![0; (8 + PAGES * (DIRECTORY + page)) as usize];
    let mut put = |at: u32, bytes: &[u8]| {
        let at = at as usize;
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, b"II*\0");
    put(4, &places(0).0.to_le_bytes());
    for number in 0..PAGES {
        let (directory, pixels) = places(number);
        put(directory, &(ENTRIES as u16).to_le_bytes());
        let entries = [
            (256u16, SIDE),
            (257, SIDE),
            (258, 16),
            (259, 1),
            (262, 1),
            (273, pixels),
            (278, SIDE),
            (279, page),
        ];
        for (n, (tag, value)) in (0u32..).zip(entries) {
            let at = directory + 2 + 12 * n;
            put(at, &tag.to_le_bytes());
            put(at + 2, &4u16.to_le_bytes());
            put(at + 4, &1u32.to_le_bytes());
            put(at + 8, &value.to_le_bytes());
        }
        let next = if number + 1 < PAGES {
            places(number + 1).0
        } else {
            0
        };
        put(directory + 2 + 12 * ENTRIES, &next.to_le_bytes());
        let levels: Vec<u8> = (0..page / 2)
            .flat_map(|_| (number as u16).to_le_bytes())
            .collect();
        put(pixels, &levels);
    }
    file
}

fn open(cache: u64) -> (Arc<Counting>, ImageStore) {
    open_as(Counting::default(), cache)
}

fn open_as(counting: Counting, cache: u64) -> (Arc<Counting>, ImageStore) {
    let counting = Arc::new(counting);
    (counting.clone(), ImageStore::of(counting, cache))
}

/// The images of a field: one channel, of these pages.
fn field(path: &str, bytes: usize, pages: &[Option<u32>]) -> Vec<ChannelImages> {
    let plane = |page: &Option<u32>| ImageRef {
        path: path.to_owned(),
        bytes: bytes as u64,
        page: *page,
        z: None,
        version: None,
    };
    vec![ChannelImages {
        channel: "DNA".parse().unwrap(),
        planes: pages.iter().map(plane).collect(),
    }]
}

/// The first grey level of each plane.
async fn levels(store: &ImageStore, images: &[ChannelImages]) -> Result<Vec<u16>, StageError> {
    let read = read_channels(store, images).await?;
    let settings = wellspring_workloads::screen::ImagesSettings::default();
    let mut levels = Vec::new();
    for (encoded, image) in read[0].iter().zip(&images[0].planes) {
        let (encoded, image) = (vec![encoded.clone()], vec![image.clone()]);
        let image = crate::decode::field_image([(&encoded, &image)].into_iter(), &settings)?;
        assert_eq!((image.height(), image.width()), (SIDE as usize, SIDE as usize));
        levels.push(image.plane(0)[0]);
    }
    Ok(levels)
}

#[tokio::test]
async fn of_a_large_stack_only_the_page_that_is_needed_is_read() {
    let (counting, store) = open(0);
    let first = stack(true);
    counting.write("first.tif", first.clone()).await;
    let images = field("first.tif", first.len(), &[Some(17)]);
    assert_eq!(levels(&store, &images).await.unwrap(), [17]);
    // The beginning of the file with all directories, and the page's only strip.
    assert_eq!(counting.taken(), (2, FIRST + PAGE_BYTES));

    // Pages beside each other are one request; others one each.
    let images = field("first.tif", first.len(), &[Some(30), Some(4), Some(5)]);
    assert_eq!(levels(&store, &images).await.unwrap(), [30, 4, 5]);
    assert_eq!(counting.taken(), (3, FIRST + 3 * PAGE_BYTES));

    // Most of it is all of it.
    let all: Vec<Option<u32>> = (0..30).map(Some).collect();
    let images = field("first.tif", first.len(), &all);
    assert_eq!(levels(&store, &images).await.unwrap()[29], 29);
    assert_eq!(counting.taken(), (2, FIRST + first.len() as u64));
}

#[tokio::test]
async fn directories_that_lie_scattered_are_followed_as_long_as_that_is_quicker() {
    let (counting, store) = open(0);
    let scattered = stack(false);
    let size = scattered.len() as u64;
    counting.write("scattered.tif", scattered).await;
    let images = field("scattered.tif", size as usize, &[Some(3)]);
    assert_eq!(levels(&store, &images).await.unwrap(), [3]);
    assert_eq!(counting.taken(), (1 + 4 + 1, FIRST + 4 * FURTHER + PAGE_BYTES));
    // Twenty MiB in one request take less time than 35 requests one after the other.
    let images = field("scattered.tif", size as usize, &[Some(35)]);
    assert_eq!(levels(&store, &images).await.unwrap(), [35]);
    let (requests, bytes) = counting.taken();
    assert_eq!(requests, 1 + size / REQUEST_WORTH + 1);
    assert!(bytes > size && bytes < size + (1 << 20), "{bytes}");
    // Small files are read at once.
    let small = field("scattered.tif", 1 << 20, &[Some(3)]);
    assert_eq!(levels(&store, &small).await.unwrap(), [3]);
    assert_eq!(counting.taken(), (1, size));
}

#[tokio::test]
async fn what_was_read_of_a_file_is_not_asked_for_again() {
    let (counting, store) = open(64 << 20);
    let first = stack(true);
    counting.write("first.tif", first.clone()).await;
    for page in [9, 10, 9] {
        let images = field("first.tif", first.len(), &[Some(page)]);
        assert_eq!(levels(&store, &images).await.unwrap(), [page as u16]);
    }
    // The directories once, and each page once.
    assert_eq!(counting.taken(), (3, FIRST + 2 * PAGE_BYTES));

    // Many fields of one small file, at once: who comes second waits for the first.
    let small = field("first.tif", 1 << 20, &[Some(1)]);
    counting.write("small.tif", first.clone()).await;
    let small: Vec<ChannelImages> = small
        .into_iter()
        .map(|mut channel| {
            channel.planes[0].path = "small.tif".to_owned();
            channel
        })
        .collect();
    let asked = (0..16).map(|_| levels(&store, &small));
    for read in futures::future::join_all(asked).await {
        assert_eq!(read.unwrap(), [1]);
    }
    assert_eq!(counting.taken(), (1, first.len() as u64));

    // Files of one image: those that are said to be needed again are kept, others are not.
    let png = |level: u8| {
        let mut file = std::io::Cursor::new(Vec::new());
        let image = image::GrayImage::from_raw(SIDE, SIDE, vec![level; (SIDE * SIDE) as usize]).unwrap();
        image.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    counting.write("a.png", png(7)).await;
    let images = field("a.png", 1, &[None]);
    for _ in 0..2 {
        levels(&store, &images).await.unwrap();
    }
    assert_eq!(counting.taken().0, 2);
    read_channels_first(&store, &images).await.unwrap();
    assert_eq!(levels(&store, &images).await.unwrap(), [7]);
    assert_eq!(counting.taken().0, 1);
}

#[tokio::test]
async fn no_more_is_kept_than_there_is_room_for() {
    let room = 3 * PAGE_BYTES;
    let (counting, store) = open(room);
    let first = stack(true);
    counting.write("a.tif", first.clone()).await;
    counting.write("b.tif", first.clone()).await;
    for path in ["a.tif", "b.tif"] {
        for page in [1, 20] {
            levels(&store, &field(path, first.len(), &[Some(page)]))
                .await
                .unwrap();
            assert!(store.cache().bytes() <= room);
        }
    }
    counting.taken();
    // The second file put the first one out.
    levels(&store, &field("b.tif", first.len(), &[Some(20)]))
        .await
        .unwrap();
    assert_eq!(counting.taken().0, 0);
    levels(&store, &field("a.tif", first.len(), &[Some(1)]))
        .await
        .unwrap();
    assert_eq!(counting.taken().0, 2);
}

#[tokio::test]
async fn a_file_that_is_written_again_between_two_reads_is_an_error_and_then_read_anew() {
    let (counting, store) = open(64 << 20);
    let first = stack(true);
    counting.write("first.tif", first.clone()).await;
    let images = field("first.tif", first.len(), &[Some(2)]);
    levels(&store, &images).await.unwrap();
    // The same pages with other directories.
    counting.write("first.tif", stack(false)).await;
    let images = field("first.tif", first.len(), &[Some(3)]);
    let error = levels(&store, &images).await.unwrap_err();
    assert_eq!(
        (error.class, error.retry),
        (FailureClass::Network, Retry::Backoff)
    );
    assert!(error.chain().contains("written again"), "{}", error.chain());
    assert_eq!(levels(&store, &images).await.unwrap(), [3]);
    let _ = counting.taken();
}

#[tokio::test]
async fn what_is_wrong_with_a_page_names_file_and_channel() {
    let (counting, store) = open(64 << 20);
    let mut file = stack(true);
    counting.write("a.tif", file.clone()).await;
    let absent = field("a.tif", file.len(), &[Some(PAGES)]);
    let error = levels(&store, &absent).await.unwrap_err();
    assert_eq!(
        (error.stage, error.class),
        (Stage::Decode, FailureClass::BadImage)
    );
    assert!(error.chain().contains("a.tif (channel DNA)"), "{}", error.chain());
    // Cut in mid-upload: the directory speaks of strips that are not there.
    file.truncate(file.len() / 2);
    counting.write("cut.tif", file.clone()).await;
    let cut = field("cut.tif", file.len(), &[Some(PAGES - 1)]);
    let error = levels(&store, &cut).await.unwrap_err();
    assert_eq!(
        (error.stage, error.class),
        (Stage::Decode, FailureClass::BadImage)
    );
    let _ = counting.taken();
}

#[tokio::test]
async fn of_a_server_that_knows_no_ranges_a_file_is_read_whole_and_once() {
    let plain = Counting {
        whole_only: true,
        ..Counting::default()
    };
    let (counting, store) = open_as(plain, 64 << 20);
    let file = stack(true);
    let size = file.len() as u64;
    counting.write("a.tif", file.clone()).await;
    for page in [9, 30, 9] {
        let images = field("a.tif", file.len(), &[Some(page)]);
        assert_eq!(levels(&store, &images).await.unwrap(), [page as u16]);
    }
    // One question for part of it, and the file.
    assert_eq!(counting.taken(), (2, size));
    assert!(!store.reads_pages());
    // Nobody asks for parts of other files.
    counting.write("b.tif", file.clone()).await;
    let part = store.read_range("b.tif", 8..12).await.unwrap();
    assert_eq!(part, file[8..12]);
    let last = store.read_end("b.tif", End::Last(4)).await.unwrap();
    assert_eq!(
        (last.bytes.as_ref(), last.object_bytes),
        (&file[file.len() - 4..], size)
    );
    let version = last.version.as_deref();
    let part = store
        .read_range_of("b.tif", size - 2..size + 9, version)
        .await
        .unwrap();
    assert_eq!(part, file[file.len() - 2..]);
    assert_eq!(counting.taken(), (1, size));
    let error = store
        .read_range_of("b.tif", 0..4, Some("\"another\""))
        .await
        .unwrap_err();
    assert!(error.chain().contains("written again"), "{}", error.chain());
    let _ = counting.taken();
}

#[tokio::test]
async fn what_was_kept_of_a_file_is_not_used_for_a_newer_listing() {
    let (counting, store) = open(64 << 20);
    let file = stack(true);
    let listed = |path: &'static str| {
        let store = store.clone();
        let bytes = file.len();
        async move {
            let version = store.list(None).await.unwrap();
            let version = version.into_iter().find(|object| object.path == path);
            let mut images = field(path, bytes, &[Some(2)]);
            images[0].planes[0].version = version.unwrap().version;
            images
        }
    };
    counting.write("a.tif", file.clone()).await;
    let before = listed("a.tif").await;
    assert_eq!(levels(&store, &before).await.unwrap(), [2]);
    // With the same size, and other directories.
    counting.write("a.tif", stack(false)).await;
    let after = listed("a.tif").await;
    assert_ne!(before, after);
    counting.taken();
    assert_eq!(levels(&store, &after).await.unwrap(), [2]);
    assert!(counting.taken().0 > 1);
    // Once it is known as it is listed now, nobody has to ask.
    assert_eq!(levels(&store, &after).await.unwrap(), [2]);
    assert_eq!(counting.taken().0, 0);
}
