//! Fetch: the encoded images of a field, from object storage.
//!
//! Tasks enter, [`Fetched`] bytes leave. Many fields are fetched at once, bounded by the limit on image bytes in
//! memory. What fails: an object that is gone, refused access, a store that stays unreachable.

mod changed;
mod limit;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::task::JoinSet;

use self::changed::{Changed, changed_since};
pub use self::limit::{MemoryLimit, Share};
use crate::dead_letters::Place;
use crate::decode::unreadable;
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{ChannelImages, FieldTask, ImageRef, RunId};
use crate::failpoint;
use crate::failures::{place_of_task, settle, settle_deadly, settle_field, stay_or_go};
use crate::fields::{Encoded, Fetched, Field};
use crate::identity::same_planes;
use crate::kafka::lane::Work;
use crate::kafka::topics::Urgency;
use crate::pages::{Pages, PagesError, read_pages};
use crate::runs::{Run, Runs};
use crate::shading::Shading;
use crate::store::{ImageStore, State, Whole};
use crate::track::Tracked;
use crate::zarr;

/// Fields of one lane fetched at once at most.
pub const CONCURRENCY: usize = 16;
/// Memory a field takes on its way, per byte of its encoded images: the bytes and `u16` pixels, for uncompressed 8-bit
/// images as the worst common case.
const BYTES_PER_ENCODED_BYTE: u64 = 3;
/// What `f32` tiles of one size add to it.
const TILE_BYTES_PER_ENCODED_BYTE: u64 = 4;

/// About how many bytes a field takes in memory on its way.
fn bytes_on_the_way(task: &FieldTask, run: &Run) -> u64 {
    let images = task.images.iter().flat_map(|channel| &channel.planes);
    let encoded = encoded_bytes(images, run.store.reads_pages());
    let tiles = TILE_BYTES_PER_ENCODED_BYTE * run.tile_sizes.len() as u64;
    encoded.saturating_mul(BYTES_PER_ENCODED_BYTE + tiles)
}

/// About how many bytes the images of a field have. Several may lie in one object, of which they are read alone, where the store
/// `reads_pages`, or as a whole, once; of an array every plane counts.
fn encoded_bytes<'a>(images: impl Iterator<Item = &'a ImageRef>, reads_pages: bool) -> u64 {
    /// Bytes of an object, and the pages that are wanted of it.
    type Object = (u64, BTreeSet<u32>);
    let mut objects: BTreeMap<(&str, Option<u32>), Object> = BTreeMap::new();
    for image in images {
        let plane = image.page.filter(|_| zarr::is_document(&image.path));
        let (bytes, pages) = objects.entry((&image.path, plane)).or_default();
        *bytes = image.bytes;
        pages.extend(image.page.filter(|_| plane.is_none()));
    }
    let object = |(bytes, pages): Object| match pages.last() {
        // A file has at least as many pages as the last one counts, and they are of one size but for thumbnails.
        Some(last) if reads_pages => {
            let share = u128::from(bytes) * pages.len() as u128 / (u128::from(*last) + 1);
            u64::try_from(share).unwrap_or(bytes)
        }
        _ => bytes,
    };
    objects.into_values().map(object).sum()
}

/// Runs the stage for one lane until its input ends.
pub async fn run(
    (urgency, input): (Urgency, Work),
    output: async_channel::Sender<Tracked<Fetched>>,
    runs: Arc<Runs>,
    memory: MemoryLimit,
) {
    let mut fetching = JoinSet::new();
    while let Ok(task) = input.recv().await {
        while fetching.len() >= CONCURRENCY {
            fetching.join_next().await;
        }
        let Some(Tracked { value, ticket }) = task.unless_stale() else {
            continue;
        };
        if value.deadly {
            let place = place_of_task(&ticket);
            settle_deadly(ticket, place);
            continue;
        }
        let task: Arc<FieldTask> = match ticket.read(Stage::Source) {
            Ok(task) => Arc::new(task),
            Err(error) => {
                settle(ticket, Place::default(), error);
                continue;
            }
        };
        drop(value);
        let run = match known_run(&runs, &task.run).await {
            Ok(run) => run,
            Err(error) => {
                settle_field(ticket, &task, error);
                continue;
            }
        };
        let Some(ticket) = stay_or_go(ticket, runs.course_of_plate(&run.id, &task.field.plate)) else {
            continue;
        };
        // Memory is reserved here and not in the spawned task, so that fields get it in the order of the topic.
        let bytes = bytes_on_the_way(&task, &run);
        let memory = match memory.reserve(urgency, bytes).await {
            Ok(memory) => memory,
            Err(error) => {
                settle_field(ticket, &task, error);
                continue;
            }
        };
        let output = output.clone();
        tracing::debug!(field = %task.field, "in flight");
        fetching.spawn(async move {
            let fetched = fetch(&run, &task).await;
            match fetched.and_then(|fetched| failpoint::after(Stage::Fetch, &task.field).map(|()| fetched)) {
                Ok((FieldImages { channels, changed }, shading)) => {
                    let field = Field {
                        task,
                        run,
                        memory,
                        changed,
                    };
                    let fetched = Fetched {
                        field,
                        channels,
                        shading,
                    };
                    // Closed: the worker stops, and the ticket, dropped here, keeps the record uncommitted.
                    let _closed = output
                        .send(Tracked {
                            value: fetched,
                            ticket,
                        })
                        .await;
                }
                Err(error) => settle_field(ticket, &task, error),
            }
        });
    }
    while fetching.join_next().await.is_some() {}
}

/// A run is usually known at once; waiting for one that is not happens off the async threads.
async fn known_run(runs: &Arc<Runs>, id: &RunId) -> Result<Arc<Run>, StageError> {
    let (runs, id) = (runs.clone(), id.clone());
    tokio::task::spawn_blocking(move || runs.get(&id))
        .await
        .map_err(|error| StageError::internal(Stage::Fetch, error))?
}

/// The images of a field as they are now.
#[derive(Debug)]
struct FieldImages {
    channels: Vec<Vec<Encoded>>,
    changed: Changed,
}

async fn fetch(run: &Run, task: &FieldTask) -> Result<(FieldImages, Shading), StageError> {
    let images = read(&run.store, &task.images, false).await?;
    let plate = &task.field.plate;
    let shading = run.shading.get(&run.screen, plate).await?;
    same_planes(&run.id, plate, task.shading.as_deref(), shading.digest.as_deref())
        .map_err(|error| StageError::input(Stage::Fetch, FailureClass::Configuration, error))?;
    Ok((images, shading))
}

/// The encoded planes of every channel of one field; planes of one object share its bytes.
pub async fn read_channels(
    store: &ImageStore,
    images: &[ChannelImages],
) -> Result<Vec<Vec<Encoded>>, StageError> {
    Ok(read(store, images, false).await?.channels)
}

/// As [`read_channels`], of images that will be asked for again: they are kept where there is room.
pub async fn read_channels_first(
    store: &ImageStore,
    images: &[ChannelImages],
) -> Result<Vec<Vec<Encoded>>, StageError> {
    Ok(read(store, images, true).await?.channels)
}

async fn read(store: &ImageStore, images: &[ChannelImages], keep: bool) -> Result<FieldImages, StageError> {
    let of_arrays = images.iter().flat_map(|channel| {
        let planes = channel
            .planes
            .iter()
            .filter(|plane| zarr::is_document(&plane.path));
        planes.map(|plane| zarr::Wanted {
            path: &plane.path,
            page: plane.page.unwrap_or(0),
            channel: channel.channel.as_str(),
        })
    });
    let of_arrays: Vec<zarr::Wanted<'_>> = of_arrays.collect();
    let arrays = match of_arrays.is_empty() {
        true => HashMap::new(),
        false => zarr::read_planes(store, &of_arrays).await?,
    };
    let of_files = read_files(store, images).await?;
    let mut channels = Vec::with_capacity(images.len());
    let mut changed = Changed::new();
    for channel in images {
        let mut planes = Vec::with_capacity(channel.planes.len());
        for plane in &channel.planes {
            if let Some(of_array) = arrays.get(&(plane.path.as_str(), plane.page.unwrap_or(0))) {
                planes.push(Encoded::Plane(of_array.clone()));
                continue;
            }
            let page = match (of_files.get(plane.path.as_str()), plane.page) {
                (Some((Pages::Of(pages), state)), Some(page)) => pages
                    .get(&page)
                    .map(|page| (Encoded::Page(page.clone()), state.clone())),
                (Some((Pages::Whole(bytes), state)), Some(_)) => {
                    Some((Encoded::File(bytes.clone()), state.clone()))
                }
                _ => None,
            };
            let (encoded, state) = match page {
                Some(page) => page,
                None => {
                    let version = plane.version.as_deref();
                    let read = match keep {
                        true => store.read_and_keep(&plane.path, version, u64::MAX).await,
                        false => store.read_or_recall(&plane.path, version).await,
                    };
                    let Whole { bytes, state } = read.map_err(|error| of_channel(channel, error))?;
                    (Encoded::File(bytes), state)
                }
            };
            let text = changed_since(store, plane, &encoded, &state).await;
            changed.extend(text.map(|text| (channel.channel.clone(), text)));
            planes.push(encoded);
        }
        channels.push(planes);
    }
    Ok(FieldImages { channels, changed })
}

fn of_channel(channel: &ChannelImages, error: StageError) -> StageError {
    error.of(format!("channel {}", channel.channel))
}

/// Files of which a field has one or several images, each read once.
async fn read_files<'a>(
    store: &ImageStore,
    images: &'a [ChannelImages],
) -> Result<HashMap<&'a str, (Pages, State)>, StageError> {
    let planes = images
        .iter()
        .flat_map(|channel| channel.planes.iter().map(move |plane| (channel, plane)))
        .filter(|(_, plane)| !zarr::is_document(&plane.path));
    /// An object as it was listed, and its pages that are wanted.
    type Wanted<'a, P> = ((u64, Option<&'a str>), BTreeMap<u32, P>);
    let mut wanted: BTreeMap<&str, Wanted<'_, _>> = BTreeMap::new();
    for (channel, plane) in planes {
        if let Some(page) = plane.page {
            let (listed, pages) = wanted.entry(&plane.path).or_default();
            *listed = (plane.bytes, plane.version.as_deref());
            pages.entry(page).or_insert((channel, plane));
        }
    }
    let mut files = HashMap::new();
    for (path, (listed, pages)) in wanted {
        let numbers: BTreeSet<u32> = pages.keys().copied().collect();
        let read = read_pages(store, path, listed, &numbers).await;
        let read = read.map_err(|error| match error {
            PagesError::Store(error) => match pages.values().next() {
                Some((channel, _)) => of_channel(channel, error),
                None => error,
            },
            PagesError::Image(page, error) => match pages.get(&page) {
                Some((channel, plane)) => unreadable(plane, channel.channel.as_str(), error),
                None => StageError::input(Stage::Decode, FailureClass::BadImage, error),
            },
        })?;
        files.insert(path, read);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy;
    use wellspring_workloads::screen::Screen;
    use wellspring_workloads::words::FieldId;

    const SCREEN: &str = r#"
[screen]
name = "lit"
[images]
store = "."
channels = ["DNA"]
[preprocess]
illumination = "{plate}.npy"
[plate_map]
file = "map.csv"
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
"#;

    #[test]
    fn pages_of_a_file_count_by_their_share_of_it() {
        let image = |path: &str, bytes, page| ImageRef {
            path: path.to_owned(),
            bytes,
            page,
            z: None,
            version: None,
        };
        let bytes = |images: &[ImageRef]| encoded_bytes(images.iter(), true);
        // Files of one image each, and one that holds both.
        assert_eq!(bytes(&[image("a", 10, None), image("b", 20, None)]), 30);
        assert_eq!(bytes(&[image("a", 10, Some(0)), image("a", 10, Some(1))]), 10);
        // The file has ten pages at least.
        assert_eq!(
            bytes(&[image("a", 1000, Some(8)), image("a", 1000, Some(9))]),
            200
        );
        assert_eq!(encoded_bytes([image("a", 1000, Some(9))].iter(), false), 1000);
        // Of the first page nothing tells how many there are.
        assert_eq!(bytes(&[image("a", 1000, Some(0))]), 1000);
        let of_array = |page| image("a/.zarray", 7, Some(page));
        assert_eq!(bytes(&[of_array(8), of_array(9)]), 14);
    }

    #[tokio::test]
    async fn a_field_is_not_divided_by_another_plane_than_its_plate_was_planned_with() {
        let folder = tempfile::tempdir().unwrap();
        let mut screen = Screen::parse(SCREEN, "lit.toml").unwrap();
        screen.resolve_paths(folder.path().to_str().unwrap());
        let open = || Run::open(screen.clone()).unwrap();
        let write =
            |value| std::fs::write(folder.path().join("P1.npy"), npy::plane([1, 1], &[value])).unwrap();
        write(1.0);
        let plate = "P1".parse().unwrap();
        let run = open();
        let mut task = FieldTask {
            run: run.id.clone(),
            field: FieldId {
                plate,
                well: "A01".parse().unwrap(),
                field: 1,
            },
            images: Vec::new(),
            scaling: None,
            shading: run
                .shading
                .get(&run.screen, &"P1".parse().unwrap())
                .await
                .unwrap()
                .digest,
        };
        assert!(task.shading.is_some());
        fetch(&run, &task).await.unwrap();
        write(2.0);
        // What was read stays what it was; who reads it now sees another.
        fetch(&run, &task).await.unwrap();
        let error = fetch(&open(), &task).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Configuration);
        assert!(error.chain().contains("plate P1"), "{}", error.chain());
        // Planned by a version that did not say.
        task.shading = None;
        fetch(&open(), &task).await.unwrap();
    }
}
