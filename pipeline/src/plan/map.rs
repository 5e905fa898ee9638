//! The screen's plate map, with the files that it names.
//!
//! A screen enters, its [`PlateMap`] leaves: as it was read last, where its files are what they were. What fails: a file that is
//! absent, refused or wrong, with every problem of it; a store that may recover.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;
use wellspring_workloads::plate_map::{GalleryMap, MapFile, PlateMap, PlateMapErrors};
use wellspring_workloads::screen::Screen;

use crate::error::{Domain, FailureClass, Stage, StageError};
use crate::store::{State, read_uri_unless};

/// The plate map of one screen, kept for the next plate: a map of a whole campaign names hundreds of them.
#[derive(Debug, Default)]
pub struct MapCache(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    map: Arc<PlateMap>,
    files: Files,
}

/// The files that a map was made from, each with its state; `None` where it was not there, or not to be had.
#[derive(Debug, Default)]
struct Files(Vec<(String, Option<State>)>);

impl MapCache {
    /// The plate map of `screen`, the same one at every call. Who asks meanwhile waits.
    ///
    /// # Errors
    /// As [`read_plate_map`].
    pub async fn get(&self, screen: &Screen) -> Result<Arc<PlateMap>, StageError> {
        let mut kept = self.0.lock().await;
        if let Some(Kept { map, files }) = &*kept
            && files.are_the_same().await
        {
            return Ok(map.clone());
        }
        *kept = None;
        let mut files = Files::default();
        let map = Arc::new(read(screen, &mut files).await?);
        *kept = Some(Kept {
            map: map.clone(),
            files,
        });
        Ok(map)
    }
}

impl Files {
    /// The bytes of a file, which is one of these from then on.
    async fn read(&mut self, uri: &str) -> Result<Bytes, StageError> {
        let read = read_uri_unless(uri, None).await;
        let state = read.as_ref().ok().and_then(Option::as_ref);
        self.0
            .push((uri.to_owned(), state.map(|(_, state)| state.clone())));
        Ok(read?.map(|(bytes, _)| bytes).unwrap_or_default())
    }

    /// Whether every file is known to be as it was. What cannot be told is another one.
    async fn are_the_same(&self) -> bool {
        for (uri, state) in &self.0 {
            let same = match (read_uri_unless(uri, state.as_ref()).await, state) {
                (Ok(None), _) => true,
                (Err(error), None) => error.domain == Domain::Input,
                _ => false,
            };
            if !same {
                return false;
            }
        }
        true
    }
}

/// The screen's plate map.
///
/// # Errors
/// A file of it is absent, refused or wrong, with every problem of it, or its store is away.
pub async fn read_plate_map(screen: &Screen) -> Result<PlateMap, StageError> {
    read(screen, &mut Files::default()).await
}

/// As [`read_plate_map`]; the files that it is made from are told.
async fn read(screen: &Screen, files: &mut Files) -> Result<PlateMap, StageError> {
    let uri = &screen.plate_map.file;
    let bytes = files.read(uri).await.map_err(|error| StageError {
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
        MapFile::Gallery(gallery) => join_maps(*gallery, files).await?.map_err(wrong),
    }
}

/// Reads what a barcode file of the Gallery names. What is absent or refused is for the map to tell; what may pass is an
/// error to be tried again.
async fn join_maps(
    gallery: GalleryMap,
    files: &mut Files,
) -> Result<Result<PlateMap, PlateMapErrors>, StageError> {
    let mut maps = BTreeMap::new();
    for uri in gallery.maps() {
        let bytes = match files.read(&uri).await {
            Err(error) if error.domain != Domain::Input => return Err(error),
            bytes => bytes.map(|bytes| bytes.to_vec()).map_err(|error| error.chain()),
        };
        maps.insert(uri, bytes);
    }
    let (places, needed) = gallery.external();
    let mut external = None;
    for uri in places {
        match files.read(&uri).await {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn screen(map: &Path) -> Screen {
        let folder = map.parent().unwrap().display();
        let text = format!(
            "[screen]\nname = \"s\"\n[images]\nstore = \"{folder}\"\nchannels = [{{ name = \"DNA\", match = \"w1\" }}]\n\
             [plate_map]\nfile = \"{}\"\n[controls]\nreference = {{ role = \"healthy\" }}\n\
             phenotype = {{ role = \"disease\" }}\n",
            map.display()
        );
        Screen::parse(&text, "s.toml").unwrap()
    }

    #[tokio::test]
    async fn a_map_is_read_again_when_its_file_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("map.csv");
        let (screen, cache) = (screen(&file), MapCache::default());
        assert!(cache.get(&screen).await.is_err());
        fs::write(&file, "well,compound,role\nA01,,healthy\n").unwrap();
        let first = cache.get(&screen).await.unwrap();
        assert!(Arc::ptr_eq(&first, &cache.get(&screen).await.unwrap()));
        fs::write(&file, "well,compound,role\nA01,,healthy\nA02,c1,\n").unwrap();
        let second = cache.get(&screen).await.unwrap();
        let plate = "P1".parse().unwrap();
        let wells = |map: &PlateMap| map.plate(&plate).unwrap().len();
        assert_eq!((wells(&first), wells(&second)), (1, 2));
        // A map that is wrong now is not the one that it was.
        fs::write(&file, "well,compound,role\nA01,,healthy\nA01,c1,\n").unwrap();
        assert!(cache.get(&screen).await.is_err());
        fs::remove_file(&file).unwrap();
        assert!(cache.get(&screen).await.is_err());
    }

    /// The Gallery keeps what is known of compounds beside the maps: it may come later.
    #[tokio::test]
    async fn a_file_that_was_not_there_is_looked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("metadata/platemaps/batch");
        fs::create_dir_all(root.join("platemap")).unwrap();
        let file = root.join("barcode_platemap.csv");
        fs::write(&file, "Assay_Plate_Barcode,Plate_Map_Name\nP1,map\n").unwrap();
        let text = "well_position\tbroad_sample\tmmoles_per_liter\nA01\tBRD-1\t1\n";
        fs::write(root.join("platemap/map.txt"), text).unwrap();
        let (screen, cache) = (screen(&file), MapCache::default());
        let first = cache.get(&screen).await.unwrap();
        assert!(Arc::ptr_eq(&first, &cache.get(&screen).await.unwrap()));
        let (places, _) = {
            let bytes = fs::read(&file).unwrap();
            let read = PlateMap::read(&bytes, file.to_str().unwrap(), &screen.plate_map);
            let MapFile::Gallery(gallery) = read.unwrap() else {
                panic!("it is a barcode file")
            };
            gallery.external()
        };
        let place = Path::new(places.first().unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, "broad_sample\tpert_iname\nBRD-1\taspirin\n").unwrap();
        let second = cache.get(&screen).await.unwrap();
        assert!(
            first.columns().len() < second.columns().len(),
            "{:?}",
            second.columns()
        );
    }
}
