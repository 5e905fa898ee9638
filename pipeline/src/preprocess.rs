//! Preprocess: pixels become the network's input.
//!
//! A [`Decoded`] image enters; tiles of grey levels 0 to 255 leave, by one recipe of kernels for each size of tile that a network
//! sees: dark-field, illumination, background, resize, scaling, tiles, as the screen says. What fails: an image smaller than a
//! tile, an illumination function or a dark-field of another size. On a graphics device the pixels go up once, for all recipes
//! and for the quality stage, and tiles that only networks on the same device see stay there.

use std::fmt;

use wellspring_kernels::{
    Background, Border, Device, FlatField, FlatFieldMode, Footprint, InputShape, PercentileScale, Placement,
    Recipe, Resize, ResizeFilter, ScaleRange, Step, Tile,
};
use wellspring_workloads::screen::{self, ResizeTo, Scaling, Screen, Tiling};

use crate::embed::EngineSettings;
use crate::error::{FailureClass, Stage, StageError};
use crate::fields::{Decoded, Prepared};
use crate::gpu::Tiles;
use crate::runs::Run;
use crate::shading::Shading;

/// Most pixels that a channel may be resized to: a quarter of a gigabyte of floats.
const MOST_PIXELS: usize = 1 << 26;

/// Images that a network cannot be given.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    /// They are smaller than what it sees.
    #[error(
        "network '{network}' sees {needed} pixels (height x width), but the image has {given}{}",
        match resized { true => " after [preprocess] resize: resize to no less", false => ": enlarge it by [preprocess] resize, or \
        take a network that sees less" }
    )]
    Small {
        network: String,
        needed: Extent,
        given: Extent,
        resized: bool,
    },
    /// Memory would be full of a few of them.
    #[error(
        "[preprocess] resize makes {given} pixels (height x width) of it: at most {MOST_PIXELS} pixels can be worked on"
    )]
    Large { given: Extent },
}

/// Height and width.
#[derive(Debug, Clone, Copy)]
struct Extent(usize, usize);

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.0, self.1)
    }
}

/// Refuses images of a shape that a run's networks cannot be given.
///
/// # Errors
/// They are smaller than a network sees, or would be resized to too much.
pub fn check_fit(run: &Run, shape: InputShape) -> Result<(), StageError> {
    let unfit = |class, unfit: Unfit| StageError::input(Stage::Preprocess, class, unfit);
    let (height, width) = resized(&run.screen, shape);
    let given = Extent(height, width);
    if height.saturating_mul(width) > MOST_PIXELS.max(shape.height * shape.width) {
        return Err(unfit(FailureClass::Configuration, Unfit::Large { given }));
    }
    for network in &run.networks {
        let Some((rows, columns)) = run.tile_sizes.get(network.tiles).copied() else {
            continue;
        };
        if rows > height || columns > width {
            let resized = run.screen.preprocess.resize.is_some();
            let class = match resized {
                true => FailureClass::Configuration,
                false => FailureClass::BadImage,
            };
            let small = Unfit::Small {
                network: network.card.name.clone(),
                needed: Extent(rows, columns),
                given,
                resized,
            };
            return Err(unfit(class, small));
        }
    }
    Ok(())
}

/// Height and width of an image after the screen's resize, if it has one.
fn resized(screen: &Screen, shape: InputShape) -> (usize, usize) {
    let scaled = |size: usize, factor: f64| ((size as f64 * factor).round() as usize).max(1);
    match screen.preprocess.resize.map(|resize| resize.to) {
        None => (shape.height, shape.width),
        Some(ResizeTo::Factor(factor)) => (scaled(shape.height, factor), scaled(shape.width, factor)),
        Some(ResizeTo::Size { width, height }) => (height as usize, width as usize),
    }
}

/// The stage: one field through its recipes. Tiles stay on the device where `engine` runs all networks that see them there.
pub fn preprocess(
    device: &Device,
    engine: &EngineSettings,
    decoded: Decoded,
) -> Result<Prepared, StageError> {
    let Decoded {
        field,
        image,
        stacks,
        shading,
    } = decoded;
    let unfit = |error| StageError::input(Stage::Preprocess, FailureClass::BadImage, error);
    shading
        .check_size([image.height(), image.width()])
        .map_err(|error| StageError::input(Stage::Preprocess, FailureClass::Configuration, error))?;
    check_fit(&field.run, image.shape())?;
    let failed = |error| StageError::of_kernel(Stage::Preprocess, error);
    let loaded = device.load(&image).map_err(failed)?;
    let mut tiles = Vec::with_capacity(field.run.tile_sizes.len());
    for (index, size) in field.run.tile_sizes.iter().enumerate() {
        let steps = steps(
            &field.run.screen,
            *size,
            image.shape(),
            f64::from(image.ceiling()),
            field.task.scaling.as_deref(),
            shading.clone(),
        )?;
        let recipe = Recipe::new(steps, image.shape()).map_err(unfit)?;
        let mut seen_by = field.run.networks.iter().filter(|network| network.tiles == index);
        let kept = if seen_by.all(|network| engine.is_wgpu(network)) {
            device
                .run_kept(&recipe, &image, loaded.as_ref())
                .map_err(failed)?
        } else {
            None
        };
        tiles.push(match kept {
            Some(kept) => Tiles::OnDevice(kept),
            None => Tiles::Here(
                device
                    .run_loaded(&recipe, &image, loaded.as_ref())
                    .map_err(failed)?,
            ),
        });
    }
    Ok(Prepared {
        field,
        image,
        loaded,
        stacks,
        tiles,
    })
}

/// The dark-field is subtracted, then the illumination function divides.
fn correction(shading: Shading) -> Vec<Step> {
    let planes = [
        (shading.dark_field, FlatFieldMode::Subtract),
        (shading.illumination, FlatFieldMode::Divide),
    ];
    planes
        .into_iter()
        .filter_map(|(planes, mode)| {
            let step = FlatField {
                black_level: vec![0.0],
                illumination: Some(planes?.values),
                mode,
            };
            Some(step.into())
        })
        .collect()
}

/// What is done to grey levels before they are scaled.
pub(crate) fn before_scaling(screen: &Screen, shape: InputShape, shading: Shading) -> Vec<Step> {
    let settings = &screen.preprocess;
    let mut steps = correction(shading);
    match &settings.background {
        screen::Background::None => {}
        screen::Background::Percentile { percent } => {
            steps.push(Background::Percentile { q: *percent }.into());
        }
        screen::Background::Constant { levels } => {
            let levels = levels.clone();
            steps.push(Background::Fixed { levels }.into());
        }
        screen::Background::TopHat { radius } => {
            let (footprint, radius) = (Footprint::Disk, *radius as usize);
            steps.push(Background::TopHat { footprint, radius }.into());
        }
        screen::Background::Gaussian { sigma } => {
            let (sigma, border) = (*sigma, Border::Reflect);
            steps.push(Background::Gaussian { sigma, border }.into());
        }
        screen::Background::RollingBall { radius } => {
            let radius = *radius as usize;
            steps.push(Background::RollingBall { radius }.into());
        }
    }
    if let Some(resize) = settings.resize {
        let (rows, columns) = resized(screen, shape);
        let filter = match resize.method {
            screen::ResizeMethod::Area => ResizeFilter::Area,
            screen::ResizeMethod::Bilinear => ResizeFilter::Bilinear { antialias: true },
        };
        steps.push(
            Resize {
                height: rows,
                width: columns,
                filter,
            }
            .into(),
        );
    }
    steps
}

/// The kernels of a screen, in order.
fn steps(
    screen: &Screen,
    (height, width): (usize, usize),
    shape: InputShape,
    ceiling: f64,
    pooled: Option<&[(f32, f32)]>,
    shading: Shading,
) -> Result<Vec<Step>, StageError> {
    let settings = &screen.preprocess;
    let mut steps = before_scaling(screen, shape, shading);
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

#[cfg(test)]
mod tests {
    use wellspring_kernels::{DeviceChoice, Illumination, RawImage};

    use super::*;
    use crate::shading::{Kind, Planes};

    #[test]
    fn the_dark_field_is_subtracted_before_the_light_divides() {
        let planes = |kind, values: &[f32]| {
            let values = Illumination::new(1, 1, 3, values.to_vec()).unwrap();
            let uri = "P1_DNA.npy".to_owned();
            Some(Planes { kind, uri, values })
        };
        let shading = Shading {
            digest: None,
            dark_field: planes(Kind::DarkField, &[10.0, 20.0, 30.0]),
            illumination: planes(Kind::Illumination, &[0.5, 1.0, 2.0]),
        };
        let image = RawImage::new(1, 1, 3, vec![60, 120, 20], 255).unwrap();
        assert!(shading.check_size([1, 3]).is_ok());
        let error = shading.check_size([1, 2]).unwrap_err().to_string();
        assert!(
            ["dark-field", "P1_DNA.npy", "1 x 3", "1 x 2"]
                .iter()
                .all(|word| error.contains(word)),
            "{error}"
        );
        let mut steps = correction(shading);
        assert_eq!(steps.len(), 2);
        let device = Device::open(DeviceChoice::Cpu).unwrap();
        let run = |steps| {
            let recipe = Recipe::new(steps, image.shape()).unwrap();
            device.run(&recipe, &image).unwrap().data().to_vec()
        };
        assert_eq!(run(steps.clone()), [100.0, 100.0, 0.0]);
        steps.remove(0);
        assert_eq!(run(steps), [120.0, 120.0, 10.0]);
        assert!(correction(Shading::default()).is_empty());
    }
}
