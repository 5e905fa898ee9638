//! Preprocess: pixels become the network's input.
//!
//! A [`Decoded`] image enters; tiles of grey levels 0 to 255 leave, by one recipe of kernels: illumination, background,
//! resize, scaling, tiles, as the screen says. What fails: an image smaller than a tile, an illumination function of
//! another size.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use wellspring_kernels::{
    Background, Device, FlatField, FlatFieldMode, Illumination, InputShape, PercentileScale, Placement,
    Recipe, Resize, ResizeFilter, ScaleRange, Step, Tile,
};
use wellspring_models::ModelCard;
use wellspring_workloads::screen::{self, ResizeTo, Scaling, Screen, Tiling};
use wellspring_workloads::words::Barcode;

use crate::error::{FailureClass, Stage, StageError};
use crate::fields::{Decoded, Prepared};
use crate::npy;
use crate::store;

/// The stage: one field through its recipe.
pub fn preprocess(device: &Device, decoded: Decoded) -> Result<Prepared, StageError> {
    let Decoded {
        field,
        image,
        illumination,
    } = decoded;
    let unfit = |error| StageError::input(Stage::Preprocess, FailureClass::BadImage, error);
    let steps = steps(
        &field.run.screen,
        &field.run.card,
        image.shape(),
        f64::from(image.ceiling()),
        field.task.scaling.as_deref(),
        illumination,
    )?;
    let recipe = Recipe::new(steps, image.shape()).map_err(unfit)?;
    let tiles = device
        .run(&recipe, &image)
        .map_err(|error| StageError::of_kernel(Stage::Preprocess, error))?;
    Ok(Prepared { field, image, tiles })
}

/// The kernels of a screen, in order.
fn steps(
    screen: &Screen,
    card: &ModelCard,
    shape: InputShape,
    ceiling: f64,
    pooled: Option<&[(f32, f32)]>,
    illumination: Option<Illumination>,
) -> Result<Vec<Step>, StageError> {
    let mut steps: Vec<Step> = Vec::new();
    let settings = &screen.preprocess;
    if let Some(illumination) = illumination {
        steps.push(
            FlatField {
                black_level: vec![0.0],
                illumination: Some(illumination),
                mode: FlatFieldMode::Divide,
            }
            .into(),
        );
    }
    match &settings.background {
        screen::Background::None => {}
        screen::Background::Percentile { percent } => {
            steps.push(Background::Percentile { q: *percent }.into());
        }
        screen::Background::Constant { levels } => {
            steps.push(
                Background::Fixed {
                    levels: levels.clone(),
                }
                .into(),
            );
        }
    }
    if let Some(resize) = settings.resize {
        let scaled = |size: usize, factor: f64| ((size as f64 * factor).round() as usize).max(1);
        let (height, width) = match resize.to {
            ResizeTo::Factor(factor) => (scaled(shape.height, factor), scaled(shape.width, factor)),
            ResizeTo::Size { width, height } => (height as usize, width as usize),
        };
        let filter = match resize.method {
            screen::ResizeMethod::Area => ResizeFilter::Area,
            screen::ResizeMethod::Bilinear => ResizeFilter::Bilinear { antialias: true },
        };
        steps.push(
            Resize {
                height,
                width,
                filter,
            }
            .into(),
        );
    }
    let range = match (&settings.scaling, pooled) {
        (Scaling::None, _) => ScaleRange::Given {
            lo: vec![0.0],
            hi: vec![ceiling],
        },
        (Scaling::Image { low, high }, _) => ScaleRange::PerImage { lo: *low, hi: *high },
        (Scaling::Fixed { low, high }, _) => ScaleRange::Given {
            lo: low.clone(),
            hi: high.clone(),
        },
        (Scaling::Controls { .. }, Some(pooled)) => ScaleRange::Given {
            lo: pooled.iter().map(|(low, _)| f64::from(*low)).collect(),
            hi: pooled.iter().map(|(_, high)| f64::from(*high)).collect(),
        },
        (Scaling::Controls { .. }, None) => {
            return Err(StageError::input(
                Stage::Preprocess,
                FailureClass::BadEvent,
                "the task has no 'scaling', but the screen scales by the plate's controls; announce the plate again",
            ));
        }
    };
    steps.push(
        PercentileScale {
            range,
            scale: 255.0,
            round: false,
        }
        .into(),
    );
    let (height, width) = (card.input.height, card.input.width);
    let placement = match settings.tiling {
        Tiling::Grid => Placement::Grid,
        Tiling::Centre => Placement::Centre,
    };
    steps.push(
        Tile {
            height,
            width,
            placement,
        }
        .into(),
    );
    Ok(steps)
}

/// Plates whose illumination functions are kept in memory.
const CACHED_PLATES: usize = 4;

/// Illumination functions read so far, per plate.
#[derive(Debug, Default)]
pub struct IlluminationCache {
    plates: Mutex<HashMap<Barcode, Illumination>>,
}

/// An illumination function that cannot be used.
#[derive(Debug, thiserror::Error)]
enum IlluminationError {
    #[error("illumination function '{uri}' cannot be read")]
    Npy { uri: String, source: npy::NpyError },
    #[error("illumination function '{uri}' is {found:?}, but the first channel's is {first:?}")]
    Shape {
        uri: String,
        found: Vec<usize>,
        first: Vec<usize>,
    },
}

impl IlluminationCache {
    /// The plate's functions, one per channel of the screen; `None` where the screen has none.
    pub async fn get(&self, screen: &Screen, plate: &Barcode) -> Result<Option<Illumination>, StageError> {
        let Some(template) = &screen.preprocess.illumination else {
            return Ok(None);
        };
        let lock = || self.plates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(plate) {
            return Ok(Some(found.clone()));
        }
        let unfit = |error| StageError::input(Stage::Fetch, FailureClass::Configuration, error);
        let mut values = Vec::new();
        let mut first: Option<Vec<usize>> = None;
        for channel in &screen.images.channels {
            let uri = template
                .replace("{channel}", channel.name.as_str())
                .replace("{plate}", plate.as_str());
            let bytes = store::read_uri(&uri).await?;
            let array = npy::read(&bytes).map_err(|source| {
                unfit(IlluminationError::Npy {
                    uri: uri.clone(),
                    source,
                })
            })?;
            let first = first.get_or_insert_with(|| array.shape.clone());
            if array.shape != *first || array.shape.len() != 2 {
                let (found, first) = (array.shape, first.clone());
                return Err(unfit(IlluminationError::Shape { uri, found, first }));
            }
            values.extend(array.values);
        }
        let shape = first.unwrap_or_default();
        let (height, width) = (
            shape.first().copied().unwrap_or(0),
            shape.get(1).copied().unwrap_or(0),
        );
        let illumination = Illumination::new(screen.images.channels.len(), height, width, values)
            .map_err(|error| StageError::input(Stage::Fetch, FailureClass::Configuration, error))?;
        let mut plates = lock();
        if plates.len() >= CACHED_PLATES {
            plates.clear();
        }
        plates.insert(plate.clone(), illumination.clone());
        Ok(Some(illumination))
    }
}
