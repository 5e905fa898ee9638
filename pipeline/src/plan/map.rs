//! The screen's plate map, with the files that it names.
//!
//! A screen enters, its [`PlateMap`] leaves. What fails: a file that is absent, refused or wrong, with every problem of it; a
//! store that may recover.

use std::collections::BTreeMap;

use wellspring_workloads::plate_map::{GalleryMap, MapFile, PlateMap, PlateMapErrors};
use wellspring_workloads::screen::Screen;

use crate::error::{Domain, FailureClass, Stage, StageError};

/// The screen's plate map.
pub async fn read_plate_map(screen: &Screen) -> Result<PlateMap, StageError> {
    let uri = &screen.plate_map.file;
    let bytes = crate::store::read_uri(uri).await.map_err(|error| StageError {
        stage: Stage::Plan,
        class: if error.class == FailureClass::MissingImage {
            FailureClass::PlateMap
        } else {
            error.class
        },
        ..error
    })?;
    let wrong = |errors| StageError::input(Stage::Plan, FailureClass::PlateMap, errors);
    match PlateMap::read(&bytes, uri, &screen.plate_map).map_err(wrong)? {
        MapFile::Whole(map) => Ok(map),
        MapFile::Gallery(gallery) => join_maps(*gallery).await?.map_err(wrong),
    }
}

/// Reads what a barcode file of the Gallery names. What is absent or refused is for the map to tell; what may pass is an
/// error to be tried again.
async fn join_maps(gallery: GalleryMap) -> Result<Result<PlateMap, PlateMapErrors>, StageError> {
    let mut maps = BTreeMap::new();
    for uri in gallery.maps() {
        let bytes = match crate::store::read_uri(&uri).await {
            Err(error) if error.domain != Domain::Input => return Err(error),
            bytes => bytes.map(|bytes| bytes.to_vec()).map_err(|error| error.chain()),
        };
        maps.insert(uri, bytes);
    }
    let (places, needed) = gallery.external();
    let mut external = None;
    for uri in places {
        match crate::store::read_uri(&uri).await {
            Ok(bytes) => {
                external = Some((uri, bytes));
                break;
            }
            // The usual places may all be empty; that a screen names must not be.
            Err(error) if needed || error.domain != Domain::Input => return Err(error),
            Err(_) => {}
        }
    }
    let external = external
        .as_ref()
        .map(|(uri, bytes)| (uri.as_str(), bytes.as_ref()));
    Ok(gallery.join(&maps, external))
}
