//! Shading: the planes by which a plate's images are corrected.
//!
//! A screen's paths enter, a [`Shading`] per plate leaves, or everything that is wrong with its files; the latest plates'
//! are kept. `.npy` files are read, of little-endian floats, one per channel. What fails: a file that is not there or not such
//! an array, a size other than that of the images, values that no image can be corrected by.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use wellspring_kernels::Illumination;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, Channel};

use crate::error::{Domain, FailureClass, Stage, StageError};
use crate::ids;
use crate::npy::{self, NpyError};
use crate::store;

/// Plates whose planes are kept in memory.
const CACHED_PLATES: usize = 4;

/// What images are divided by: around 1, or grey levels of an evenly lit field.
const LIGHT: std::ops::RangeInclusive<f32> = 1e-3..=1e6;
/// The brightest level of any image.
const BRIGHTEST: f32 = u16::MAX as f32;

/// What a plate's images are corrected by: `(image - dark_field) / illumination`, channel after channel.
#[derive(Debug, Clone, Default)]
pub struct Shading {
    /// What is subtracted, in grey levels.
    pub dark_field: Option<Planes>,
    /// What is divided by.
    pub illumination: Option<Planes>,
    /// Hash of both; none where there is neither.
    pub digest: Option<String>,
}

/// Planes of one kind, one for each channel.
#[derive(Debug, Clone)]
pub struct Planes {
    /// What they are.
    pub kind: Kind,
    /// The file of the first channel.
    pub uri: String,
    /// Their values.
    pub values: Illumination,
}

/// What planes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Subtracted.
    DarkField,
    /// Divided by.
    Illumination,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DarkField => "dark-field",
            Self::Illumination => "illumination function",
        })
    }
}

impl Kind {
    /// Whether an image can be corrected by a value.
    fn takes(self, value: f32) -> bool {
        match self {
            Self::DarkField => value.is_finite() && value <= BRIGHTEST,
            Self::Illumination => LIGHT.contains(&value),
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::DarkField => "finite and at most 65535, since it is in grey levels",
            Self::Illumination => "above 0, from 0.001 to 1000000, since images are divided by it",
        }
    }
}

impl Shading {
    fn of(dark_field: Option<Planes>, illumination: Option<Planes>) -> Self {
        let mut hash = Sha256::new();
        for (what, planes) in [("dark-field", &dark_field), ("illumination", &illumination)] {
            let Some(planes) = planes else { continue };
            let (shape, values) = planes.values.parts();
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

/// A file of a plane that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{kind} '{uri}' (channel {channel}) {problem}")]
pub struct PlaneError {
    /// What it is.
    pub kind: Kind,
    /// The file.
    pub uri: String,
    /// Its channel.
    pub channel: Channel,
    /// What is wrong with it.
    pub problem: PlaneProblem,
}

/// What is wrong with a plane.
#[derive(Debug, thiserror::Error)]
pub enum PlaneProblem {
    /// There is no such file.
    #[error("is not there")]
    Absent,
    /// The store does not give it.
    #[error("cannot be read: {reason}")]
    Unread {
        /// The store's reason.
        reason: String,
    },
    /// It is no array.
    #[error("cannot be used: {0}")]
    Npy(NpyError),
    /// It is no plane.
    #[error("is an array of shape {shape:?}, and a plane has rows and columns")]
    NoPlane {
        /// Its shape.
        shape: Vec<usize>,
    },
    /// It has another size than the images, or than the first plane.
    #[error("has {} x {} pixels (height x width), but {of} {} x {}", found[0], found[1], expected[0], expected[1])]
    Size {
        /// Its height and width.
        found: [usize; 2],
        /// What has the other size.
        of: &'static str,
        /// Height and width of that.
        expected: [usize; 2],
    },
    /// It has values by which nothing can be corrected.
    #[error("has {count} values such as {value} (row {row}, column {column}); each must be {needs}")]
    Values {
        /// How many.
        count: usize,
        /// The first.
        value: f32,
        /// Its row, from 0.
        row: usize,
        /// Its column, from 0.
        column: usize,
        /// What they must be.
        needs: &'static str,
    },
}

/// All that is wrong with a plate's planes.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct PlaneErrors(pub Vec<PlaneError>);

/// The path of one plane.
pub fn path(template: &str, plate: &Barcode, channel: &Channel) -> String {
    template
        .replace("{channel}", channel.as_str())
        .replace("{plate}", plate.as_str())
}

impl Shading {
    /// Whether a screen corrects its images by planes.
    pub fn is_of(screen: &Screen) -> bool {
        screen.preprocess.dark_field.is_some() || screen.preprocess.illumination.is_some()
    }

    /// Reads all planes of a plate, one per channel of the screen, as far as the screen has any. `size` is height and width
    /// of the plate's images, where it is known. What is wrong is all told at once; only a store that may recover is an
    /// error.
    pub async fn read(
        screen: &Screen,
        plate: &Barcode,
        size: Option<[usize; 2]>,
    ) -> Result<Result<Self, PlaneErrors>, StageError> {
        let settings = &screen.preprocess;
        let (dark, illumination) = (settings.dark_field.as_deref(), settings.illumination.as_deref());
        let mut errors = Vec::new();
        let dark_field = planes(Kind::DarkField, dark, screen, plate, size, &mut errors).await?;
        let illumination = planes(Kind::Illumination, illumination, screen, plate, size, &mut errors).await?;
        Ok(if errors.is_empty() {
            Ok(Self::of(dark_field, illumination))
        } else {
            Err(PlaneErrors(errors))
        })
    }

    /// Refuses images of another height and width than the planes'.
    pub fn check_size(&self, image: [usize; 2]) -> Result<(), SizeError> {
        let planes = [&self.dark_field, &self.illumination];
        for planes in planes.into_iter().flatten() {
            let ([_, height, width], _) = planes.values.parts();
            if [height, width] != image {
                return Err(SizeError {
                    kind: planes.kind,
                    uri: planes.uri.clone(),
                    found: [height, width],
                    image,
                });
            }
        }
        Ok(())
    }
}

/// An image of another size than its plate's planes.
#[derive(Debug, thiserror::Error)]
#[error(
    "{kind} '{uri}' has {} x {} pixels (height x width), but the image has {} x {}", found[0], found[1], image[0], image[1]
)]
pub struct SizeError {
    kind: Kind,
    uri: String,
    found: [usize; 2],
    image: [usize; 2],
}

impl ShadingCache {
    /// The plate's planes.
    pub async fn get(&self, screen: &Screen, plate: &Barcode) -> Result<Shading, StageError> {
        if !Shading::is_of(screen) {
            return Ok(Shading::default());
        }
        let settings = &screen.preprocess;
        let templates = settings.dark_field.iter().chain(&settings.illumination);
        let per_plate = templates.into_iter().any(|template| template.contains("{plate}"));
        let of = per_plate.then(|| plate.clone());
        let lock = || self.plates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&of) {
            return Ok(found.clone());
        }
        let shading = Shading::read(screen, plate, None)
            .await?
            .map_err(|errors| StageError::input(Stage::Fetch, FailureClass::Configuration, errors))?;
        let mut plates = lock();
        if plates.len() >= CACHED_PLATES {
            plates.clear();
        }
        plates.insert(of, shading.clone());
        Ok(shading)
    }
}

async fn planes(
    kind: Kind,
    template: Option<&str>,
    screen: &Screen,
    plate: &Barcode,
    size: Option<[usize; 2]>,
    errors: &mut Vec<PlaneError>,
) -> Result<Option<Planes>, StageError> {
    let Some(template) = template else {
        return Ok(None);
    };
    let before = errors.len();
    let mut values = Vec::new();
    let mut expected = size.map(|size| (size, "the images have"));
    let mut first = None;
    for channel in &screen.images.channels {
        let uri = path(template, plate, &channel.name);
        match plane(kind, &uri, expected).await? {
            Ok((found, plane)) => {
                expected.get_or_insert((found, "the first channel's has"));
                first.get_or_insert(uri);
                values.extend(plane);
            }
            Err(problem) => errors.push(PlaneError {
                kind,
                uri,
                channel: channel.name.clone(),
                problem,
            }),
        }
    }
    let (Some(([height, width], _)), Some(uri)) = (expected, first) else {
        return Ok(None);
    };
    if errors.len() > before {
        return Ok(None);
    }
    let values = Illumination::new(screen.images.channels.len(), height, width, values);
    let values =
        values.map_err(|error| StageError::input(Stage::Fetch, FailureClass::Configuration, error))?;
    Ok(Some(Planes { kind, uri, values }))
}

type Plane = ([usize; 2], Vec<f32>);

/// One plane, with its height and width.
async fn plane(
    kind: Kind,
    uri: &str,
    expected: Option<([usize; 2], &'static str)>,
) -> Result<Result<Plane, PlaneProblem>, StageError> {
    let bytes = match store::read_uri(uri).await {
        Ok(bytes) => bytes,
        Err(error) if error.class == FailureClass::MissingImage => return Ok(Err(PlaneProblem::Absent)),
        Err(error) if error.domain == Domain::Input => {
            let reason = error.chain();
            return Ok(Err(PlaneProblem::Unread { reason }));
        }
        Err(error) => return Err(error),
    };
    Ok(checked(kind, &bytes, expected))
}

fn checked(
    kind: Kind,
    bytes: &[u8],
    expected: Option<([usize; 2], &'static str)>,
) -> Result<Plane, PlaneProblem> {
    let npy::Array { shape, values } = npy::read(bytes).map_err(PlaneProblem::Npy)?;
    let found = match shape.as_slice() {
        [height, width] if *height > 0 && *width > 0 => [*height, *width],
        _ => return Err(PlaneProblem::NoPlane { shape }),
    };
    if let Some((expected, of)) = expected.filter(|(expected, _)| *expected != found) {
        return Err(PlaneProblem::Size { found, of, expected });
    }
    let mut bad = values
        .iter()
        .enumerate()
        .filter(|(_, value)| !kind.takes(**value));
    if let Some((at, value)) = bad.next() {
        return Err(PlaneProblem::Values {
            count: 1 + bad.count(),
            value: *value,
            row: at / found[1],
            column: at % found[1],
            needs: kind.needs(),
        });
    }
    Ok((found, values))
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
        let values = |planes: &Option<Planes>| planes.as_ref().map(|p| p.values.parts().1.to_vec());
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

    #[tokio::test]
    async fn everything_that_is_wrong_with_the_files_of_a_plate_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut screen = Screen::parse(SCREEN, "lit.toml").unwrap();
        screen.resolve_paths(folder.path().to_str().unwrap());
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let plate: Barcode = "P1".parse().unwrap();
        write("P1_DNA.npy", &npy::plane([2, 2], &[1.0, 0.0, f32::NAN, 1.0]));
        write("P1_ER.npy", b"not an array");
        write("dark_DNA.npy", &npy::plane([2, 3], &[1.0; 6]));
        let errors = |screen: Screen, plate: Barcode| async move {
            Shading::read(&screen, &plate, Some([2, 2]))
                .await
                .unwrap()
                .unwrap_err()
                .0
        };
        let told = errors(screen.clone(), plate.clone()).await;
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        for (words, at) in [
            (
                ["dark_DNA.npy", "(channel DNA)", "2 x 3", "the images have 2 x 2"],
                0,
            ),
            (["dark-field", "dark_ER.npy", "(channel ER)", "is not there"], 1),
            (
                ["P1_DNA.npy", "2 values such as 0", "row 0, column 1", "above 0"],
                2,
            ),
            (["illumination function", "P1_ER.npy", "(channel ER)", "NUMPY"], 3),
        ] {
            assert!(
                words.iter().all(|word| told[at].contains(word)),
                "{words:?}: {told:?}"
            );
        }
        assert_eq!(told.len(), 4);
        // A dark-field of 0 takes nothing away; one beyond every image is of another scale.
        for (level, wrong) in [(0.0, 0), (70_000.0, 2), (f32::INFINITY, 2)] {
            for channel in ["DNA", "ER"] {
                write(&format!("dark_{channel}.npy"), &npy::plane([2, 2], &[level; 4]));
                write(&format!("P1_{channel}.npy"), &npy::plane([2, 2], &[0.5; 4]));
            }
            let read = Shading::read(&screen, &plate, Some([2, 2])).await.unwrap();
            assert_eq!(read.map_or_else(|errors| errors.0.len(), |_| 0), wrong, "{level}");
        }
    }
}
