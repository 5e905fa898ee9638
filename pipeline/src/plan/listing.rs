//! Listing: a store's files and the metadata files they ask for become plates of fields.
//!
//! A store and a screen enter, [`PlateFiles`] leave. Which metadata files are read is the layout's to say
//! (`workloads/src/layout`); here they are read, a few at a time, and of a TIFF only what its description needs. What
//! fails: a store that cannot be listed or is away, no layout. A metadata file that is gone, refused or too large is the
//! layout's problem, not the plate's end.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use wellspring_workloads::layout::{
    Description, DescriptionReader, Layout, ListedFile, MAX_METADATA_BYTES, Parsed, Part, PlateFiles,
    PlatePaths, Reading, Wanted,
};
use wellspring_workloads::screen::{ImagesSettings, LayoutChoice, Screen};
use wellspring_workloads::words::Barcode;

use crate::error::{Domain, FailureClass, Stage, StageError};
use crate::store::{ImageStore, Listed};

/// Metadata files read at once.
const CONCURRENCY: usize = 8;
/// Names that are no images of a plate and are passed over one by one, before everything is listed instead.
const MOST_OTHERS: u32 = 100;
/// Rounds of questions a layout may need: none of today's needs more than 20.
const MAX_ROUNDS: usize = 64;

/// A layout that goes on asking.
#[derive(Debug, thiserror::Error)]
#[error("the layout asked for metadata in more than {MAX_ROUNDS} rounds; the last files were {last:?}")]
struct AsksWithoutEnd {
    last: Vec<String>,
}

/// The plates found in a screen's store and what is wrong with their files.
pub async fn list_screen(store: &ImageStore, screen: &Screen) -> Result<PlateFiles, StageError> {
    assembled(store, screen, store.list(None).await?, None).await
}

/// As [`list_screen`], of a listing of the whole store.
pub async fn plates_of(
    store: &ImageStore,
    screen: &Screen,
    listed: Vec<Listed>,
) -> Result<PlateFiles, StageError> {
    assembled(store, screen, listed, None).await
}

/// The plate of a screen whose pattern does not name it, so that every image is of the plate that the screen gives.
fn only_plate(images: &ImagesSettings) -> Option<&Barcode> {
    let pattern = images
        .pattern
        .as_deref()
        .filter(|_| images.layout == LayoutChoice::Pattern)?;
    images.plate.as_ref().filter(|_| !pattern.contains("<plate"))
}

/// The plates of a screen's store by one name of each: those that a bucket has whose names begin with the plate, or the only one
/// that the screen gives, without listing what else there is of them. `None` where that cannot be told so.
pub async fn plates_by_name(store: &ImageStore, screen: &Screen) -> Result<Option<Vec<Barcode>>, StageError> {
    if let Some(plate) = only_plate(&screen.images).filter(|_| store.begins_anywhere()) {
        let any = store.next_name("", None).await?;
        return Ok(any.map(|_| vec![plate.clone()]));
    }
    let paths = PlatePaths::of(&screen.images).filter(PlatePaths::tell_plates_apart);
    let (Some(paths), true) = (paths, store.begins_anywhere()) else {
        return Ok(None);
    };
    let layout = Layout::from_settings(&screen.images, [])
        .map_err(|error| StageError::input(Stage::Plan, FailureClass::Configuration, error))?;
    let (mut plates, mut after, mut others) = (BTreeSet::new(), None::<String>, 0);
    while let Some(name) = store.next_name(paths.lead(), after.clone()).await? {
        // A server that does not begin where it is told to would give the same name for ever.
        if after.is_some_and(|after| name <= after) {
            return Ok(None);
        }
        let Parsed::Image(key) = layout.parse(&name) else {
            others += 1;
            if others > MOST_OTHERS {
                return Ok(None);
            }
            after = Some(name);
            continue;
        };
        // Behind all names of the plate, or at least behind this one.
        after = Some(format!("{}~", paths.of_plate(&key.plate)).max(name));
        plates.insert(key.plate);
    }
    Ok(Some(plates.into_iter().collect()))
}

/// What the folder of a plate may have behind the plate's name.
const FOLDER_ENDS: [&str; 3] = ["", ".ome.zarr", ".zarr"];

/// The files of one plate: those that its screen's pattern can find, from the folder with its name where there is one, else from
/// the whole store.
pub async fn list_plate(
    store: &ImageStore,
    screen: &Screen,
    plate: &Barcode,
) -> Result<PlateFiles, StageError> {
    if let Some(paths) = PlatePaths::of(&screen.images) {
        let listed = store.list_beginning(&paths.of_plate(plate)).await?;
        return assembled(store, screen, listed, Some(plate)).await;
    }
    for end in FOLDER_ENDS {
        let folder = format!("{plate}{end}");
        let mut listed = store.list(Some(&folder)).await?;
        if listed.is_empty() {
            continue;
        }
        // What lies beside the plates' folders may speak of all of them.
        listed.extend(store.list_top().await?);
        match assembled(store, screen, listed, Some(plate)).await {
            Ok(found) if found.plates.contains_key(plate) => return Ok(found),
            // What may pass is no reason to list the whole store.
            Err(error) if error.domain != Domain::Input => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    assembled(store, screen, store.list(None).await?, Some(plate)).await
}

pub(super) async fn assembled(
    store: &ImageStore,
    screen: &Screen,
    listed: Vec<Listed>,
    plate: Option<&Barcode>,
) -> Result<PlateFiles, StageError> {
    let files = listed.into_iter().map(|object| ListedFile {
        path: object.path,
        size: object.bytes,
        version: object.version,
    });
    let mut reading = Reading::new(files.collect(), &screen.images, plate);
    for _ in 0..MAX_ROUNDS {
        // Names of a large listing are parsed here: off the async threads.
        let (mut asked, wanted) = blocking(move || {
            let wanted = reading.wanted();
            (reading, wanted)
        })
        .await?;
        if wanted.is_empty() {
            let assembled = blocking(move || asked.assemble()).await?;
            return assembled
                .map_err(|error| StageError::input(Stage::Plan, FailureClass::Configuration, error));
        }
        let answers: Vec<(Wanted, Result<Vec<u8>, String>)> = futures::stream::iter(wanted)
            .map(|file| async move {
                let bytes = read(store, &file).await?;
                Ok::<_, StageError>((file, bytes))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        for (file, bytes) in answers {
            asked.answer(&file, bytes);
        }
        reading = asked;
    }
    let last = reading
        .wanted()
        .into_iter()
        .take(3)
        .map(|file| file.path)
        .collect();
    Err(StageError::internal(Stage::Plan, AsksWithoutEnd { last }))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StageError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StageError::internal(Stage::Plan, error))
}

/// The bytes a layout asked for; what stays unreadable is its answer, what may pass is an error to be tried again.
async fn read(store: &ImageStore, file: &Wanted) -> Result<Result<Vec<u8>, String>, StageError> {
    if file.part == Part::Whole && file.size > MAX_METADATA_BYTES {
        let size = file.size;
        return Ok(Err(format!(
            "it holds {size} bytes; at most {MAX_METADATA_BYTES} are read"
        )));
    }
    let read = match file.part {
        Part::Whole => store.read(&file.path).await.map(|bytes| Ok(bytes.to_vec())),
        Part::Description => description(store, file).await,
    };
    match read {
        Err(error) if error.domain == Domain::Input => Ok(Err(error.chain())),
        read => read,
    }
}

async fn description(store: &ImageStore, file: &Wanted) -> Result<Result<Vec<u8>, String>, StageError> {
    let mut reader = DescriptionReader::new(file.size);
    loop {
        match reader.needs() {
            Description::Read(range) => {
                let bytes = store.read_range(&file.path, range.clone()).await?;
                reader.give(range.start, bytes.to_vec());
            }
            Description::Found(bytes) => return Ok(Ok(bytes)),
            Description::Broken(reason) => return Ok(Err(reason)),
        }
    }
}
