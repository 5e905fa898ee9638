//! Shading: the planes by which a plate's images are corrected.
//!
//! A screen's paths enter, a [`Shading`] per plate leaves; the latest plates' are kept. `.npy` files are read, of little-endian
//! floats, one per channel. What fails: a file that is not there or not such an array, planes of different sizes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use wellspring_kernels::Illumination;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, Channel};

use crate::error::{FailureClass, Stage, StageError};
use crate::store;
use crate::{ids, npy};

/// Plates whose planes are kept in memory.
const CACHED_PLATES: usize = 4;

/// What a plate's images are corrected by: `(image - dark_field) / illumination`, channel after channel.
#[derive(Debug, Clone, Default)]
pub struct Shading {
    /// What is subtracted, in grey levels.
    pub dark_field: Option<Illumination>,
    /// What is divided by.
    pub illumination: Option<Illumination>,
    /// Hash of both; none where there is neither.
    pub digest: Option<String>,
}

impl Shading {
    fn of(dark_field: Option<Illumination>, illumination: Option<Illumination>) -> Self {
        let mut hash = Sha256::new();
        for (what, planes) in [("dark-field", &dark_field), ("illumination", &illumination)] {
            let Some((shape, values)) = planes.as_ref().map(Illumination::parts) else {
                continue;
            };
            hash.update(format!("{what} {shape:?} "));
            for values in values.chunks(4096) {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                hash.update(bytes);
            }
        }
        let any = dark_field.is_some() || illumination.is_some();
        Self {
            dark_field,
            illumination,
            digest: any.then(|| ids::digits(hash)),
        }
    }
}

/// Planes read so far: per plate, or once where they are the same for all.
#[derive(Debug, Default)]
pub struct ShadingCache {
    plates: Mutex<HashMap<Option<Barcode>, Shading>>,
}

/// A plane that cannot be used.
#[derive(Debug, thiserror::Error)]
enum PlaneError {
    #[error("{what} '{uri}' cannot be read")]
    Npy {
        what: &'static str,
        uri: String,
        source: npy::NpyError,
    },
    #[error("{what} '{uri}' is {found:?}, but the first channel's is {first:?}")]
    Shape {
        what: &'static str,
        uri: String,
        found: Vec<usize>,
        first: Vec<usize>,
    },
}

/// The path of one plane.
pub fn path(template: &str, plate: &Barcode, channel: &Channel) -> String {
    template
        .replace("{channel}", channel.as_str())
        .replace("{plate}", plate.as_str())
}

impl ShadingCache {
    /// The plate's planes, one per channel of the screen, as far as the screen has any.
    pub async fn get(&self, screen: &Screen, plate: &Barcode) -> Result<Shading, StageError> {
        let settings = &screen.preprocess;
        if settings.dark_field.is_none() && settings.illumination.is_none() {
            return Ok(Shading::default());
        }
        let templates = settings.dark_field.iter().chain(&settings.illumination);
        let per_plate = templates.into_iter().any(|template| template.contains("{plate}"));
        let of = per_plate.then(|| plate.clone());
        let lock = || self.plates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&of) {
            return Ok(found.clone());
        }
        let dark_field = settings.dark_field.as_deref();
        let illumination = settings.illumination.as_deref();
        let shading = Shading::of(
            planes("dark-field", dark_field, screen, plate).await?,
            planes("illumination function", illumination, screen, plate).await?,
        );
        let mut plates = lock();
        if plates.len() >= CACHED_PLATES {
            plates.clear();
        }
        plates.insert(of, shading.clone());
        Ok(shading)
    }
}

async fn planes(
    what: &'static str,
    template: Option<&str>,
    screen: &Screen,
    plate: &Barcode,
) -> Result<Option<Illumination>, StageError> {
    let Some(template) = template else {
        return Ok(None);
    };
    let unfit = |error| StageError::input(Stage::Fetch, FailureClass::Configuration, error);
    let mut values = Vec::new();
    let mut first: Option<Vec<usize>> = None;
    for channel in &screen.images.channels {
        let uri = path(template, plate, &channel.name);
        let bytes = store::read_uri(&uri).await?;
        let array = npy::read(&bytes).map_err(|source| {
            unfit(PlaneError::Npy {
                what,
                uri: uri.clone(),
                source,
            })
        })?;
        let first = first.get_or_insert_with(|| array.shape.clone());
        if array.shape != *first || array.shape.len() != 2 {
            let (found, first) = (array.shape, first.clone());
            return Err(unfit(PlaneError::Shape {
                what,
                uri,
                found,
                first,
            }));
        }
        values.extend(array.values);
    }
    let shape = first.unwrap_or_default();
    let (height, width) = (
        shape.first().copied().unwrap_or(0),
        shape.get(1).copied().unwrap_or(0),
    );
    Illumination::new(screen.images.channels.len(), height, width, values)
        .map(Some)
        .map_err(|error| StageError::input(Stage::Fetch, FailureClass::Configuration, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: &str = r#"
[screen]
name = "lit"
[images]
store = "images"
channels = [{ name = "DNA", match = "w1" }, { name = "ER", match = "w2" }]
[preprocess]
illumination = "{plate}_{channel}.npy"
dark_field = "dark_{channel}.npy"
[plate_map]
file = "map.csv"
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
"#;

    #[tokio::test]
    async fn planes_are_read_per_plate_and_channel_and_must_be_of_one_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut screen = Screen::parse(SCREEN, "lit.toml").unwrap();
        screen.resolve_paths(folder.path().to_str().unwrap());
        let write = |name: &str, size, values: &[f32]| {
            std::fs::write(folder.path().join(name), npy::plane(size, values)).unwrap();
        };
        write("P1_DNA.npy", [1, 2], &[1.0, 2.0]);
        write("P1_ER.npy", [1, 2], &[3.0, 4.0]);
        write("dark_DNA.npy", [1, 2], &[10.0, 11.0]);
        write("dark_ER.npy", [1, 2], &[12.0, 13.0]);
        let cache = ShadingCache::default();
        let plate: Barcode = "P1".parse().unwrap();
        let shading = cache.get(&screen, &plate).await.unwrap();
        let values = |plane: &Option<Illumination>| plane.as_ref().map(|p| p.parts().1.to_vec());
        assert_eq!(values(&shading.illumination), Some(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(values(&shading.dark_field), Some(vec![10.0, 11.0, 12.0, 13.0]));
        let digest = shading.digest.clone().unwrap();
        // What the planes say, wherever they are read.
        let again = ShadingCache::default().get(&screen, &plate).await.unwrap();
        assert_eq!(again.digest.as_ref(), Some(&digest));
        write("P1_ER.npy", [1, 2], &[3.0, 4.5]);
        let changed = ShadingCache::default().get(&screen, &plate).await.unwrap();
        assert_ne!(changed.digest, Some(digest));
        // Another plate has functions of its own.
        let other: Barcode = "P2".parse().unwrap();
        let missing = cache.get(&screen, &other).await.unwrap_err();
        assert!(crate::error::chain(&missing).contains("P2_DNA.npy"), "{missing}");
        write("P2_DNA.npy", [1, 2], &[1.0, 2.0]);
        write("P2_ER.npy", [2, 1], &[3.0, 4.0]);
        let uneven = cache.get(&screen, &other).await.unwrap_err();
        assert!(crate::error::chain(&uneven).contains("P2_ER.npy"), "{uneven}");
        screen.preprocess.dark_field = None;
        screen.preprocess.illumination = None;
        let none = cache.get(&screen, &other).await.unwrap();
        assert!(none.illumination.is_none() && none.dark_field.is_none() && none.digest.is_none());
    }
}
