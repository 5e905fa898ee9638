//! What is done to grey levels before the first layer, as the card's normalisation says, and the checks of a card that
//! hold for every engine.

use std::borrow::Cow;
use std::path::Path;

use crate::card::{EpsilonPlace, ModelCard, Normalisation, as_written};
use crate::error::EngineError;
use crate::weights::WeightsError;

/// Why a network was not built.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// The card asks for what the network does not do.
    Card {
        field: &'static str,
        found: String,
        needs: Cow<'static, str>,
    },
    /// A tensor is missing or wrong.
    Weights(WeightsError),
}

impl From<WeightsError> for BuildError {
    fn from(error: WeightsError) -> Self {
        Self::Weights(error)
    }
}

impl BuildError {
    /// The error of the model of `card`, whose weights lie at `path`.
    pub(crate) fn of(self, card: &ModelCard, path: &Path) -> EngineError {
        match self {
            Self::Card { field, found, needs } => EngineError::Card {
                model: card.name.clone(),
                field,
                found,
                needs,
            },
            Self::Weights(source) => EngineError::Weights {
                model: card.name.clone(),
                path: path.to_owned(),
                source,
            },
        }
    }
}

/// The normalisation of each plane of an image.
#[derive(Debug, Clone)]
pub(crate) enum Preparation {
    /// `(level * scale - mean) / std`; plane i has entry i.
    Fixed {
        scale: f32,
        /// Mean and standard deviation.
        planes: Vec<(f32, f32)>,
    },
    /// By the plane's own mean and deviation.
    Image {
        scale: f32,
        epsilon: f64,
        added_to: EpsilonPlace,
    },
}

/// The normalisation of one plane: `(level * scale - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    scale: f32,
    mean: f32,
    std: f32,
}

impl Level {
    /// Of one grey level.
    #[inline(always)]
    pub(crate) fn of(self, level: f32) -> f32 {
        (level * self.scale - self.mean) / self.std
    }
}

impl Preparation {
    /// That of `planes` planes. Plane i has the mean and deviation of entry i, going round where there are fewer.
    pub(crate) fn new(scale: f32, normalisation: &Normalisation, planes: usize) -> Self {
        match normalisation {
            Normalisation::Fixed { mean, std } => Self::Fixed {
                scale,
                planes: (0..planes)
                    .map(|i| (mean[i % mean.len()], std[i % std.len()]))
                    .collect(),
            },
            Normalisation::Image { epsilon, added_to } => Self::Image {
                scale,
                epsilon: f64::from(*epsilon),
                added_to: *added_to,
            },
        }
    }

    /// Appends the normalised images of `items` of the batch, `channels` planes each; where the batch has fewer, they go
    /// round, as where one grey image stands for all channels of a network.
    #[cfg(any(feature = "onnx", feature = "libtorch"))]
    pub(crate) fn fill(
        &self,
        batch: &crate::batch::Batch,
        items: std::ops::Range<usize>,
        channels: usize,
        to: &mut Vec<f32>,
    ) {
        let plane = batch.height() * batch.width();
        to.reserve(items.len() * channels * plane);
        for image in items.filter_map(|item| batch.item(item)) {
            for channel in 0..channels {
                let start = channel % batch.channels() * plane;
                let levels = &image[start..start + plane];
                let level = self.level(levels, channel);
                to.extend(levels.iter().map(|&v| level.of(v)));
            }
        }
    }

    /// The normalisation of plane `index`, whose levels are `plane`.
    pub(crate) fn level(&self, plane: &[f32], index: usize) -> Level {
        match self {
            Self::Fixed { scale, planes } => {
                let (mean, std) = planes[index % planes.len()];
                Level {
                    scale: *scale,
                    mean,
                    std,
                }
            }
            Self::Image {
                scale,
                epsilon,
                added_to,
            } => {
                let n = plane.len().max(1) as f64;
                let scaled = |&level: &f32| f64::from(level * scale);
                let mean = plane.iter().map(scaled).sum::<f64>() / n;
                let variance = plane.iter().map(|v| (scaled(v) - mean).powi(2)).sum::<f64>() / n;
                let std = match added_to {
                    EpsilonPlace::Variance => (variance + epsilon).sqrt(),
                    EpsilonPlace::Deviation => variance.sqrt() + epsilon,
                };
                Level {
                    scale: *scale,
                    mean: mean as f32,
                    std: std as f32,
                }
            }
        }
    }
}

/// Refuses a number on the card that is not the network's.
pub(crate) fn differs(field: &'static str, card: usize, network: usize) -> Result<(), BuildError> {
    Err(BuildError::Card {
        field,
        found: card.to_string(),
        needs: format!("the network has {network}").into(),
    })
}

/// Refuses sizes and numbers that no network takes.
pub(crate) fn check_input(card: &ModelCard) -> Result<(), BuildError> {
    let refuse = |field, found: String, needs: &'static str| {
        let needs = needs.into();
        Err(BuildError::Card { field, found, needs })
    };
    let input = &card.input;
    if !(8..=4096).contains(&input.height) || !(8..=4096).contains(&input.width) {
        let found = format!("{} x {}", input.height, input.width);
        return refuse("input.height and input.width", found, "each must lie in 8..=4096");
    }
    if !(1..=4096).contains(&input.channels) {
        return refuse(
            "input.channels",
            input.channels.to_string(),
            "it must lie in 1..=4096",
        );
    }
    let positive = |v: f32| v.is_finite() && v > 0.0;
    if !positive(input.scale) {
        let found = input.scale.to_string();
        return refuse("input.scale", found, "it must be finite and above 0");
    }
    match &input.normalisation {
        Normalisation::Fixed { mean, std } => {
            for (field, values) in [
                ("input.normalisation.fixed.mean", mean),
                ("input.normalisation.fixed.std", std),
            ] {
                if values.len() != 1 && values.len() != input.channels {
                    let needs = format!(
                        "it has one value for all channels, or {}, as many as input.channels",
                        input.channels
                    );
                    let found = as_written(values);
                    let needs = needs.into();
                    return Err(BuildError::Card { field, found, needs });
                }
            }
            if !mean.iter().all(|v| v.is_finite()) {
                let found = as_written(mean);
                return refuse("input.normalisation.fixed.mean", found, "it must be finite");
            }
            if !std.iter().all(|&v| positive(v)) {
                let found = as_written(std);
                let needs = "each must be finite and above 0";
                return refuse("input.normalisation.fixed.std", found, needs);
            }
        }
        Normalisation::Image { epsilon, .. } if !positive(*epsilon) => {
            let found = epsilon.to_string();
            let needs = "it must be finite and above 0";
            return refuse("input.normalisation.image.epsilon", found, needs);
        }
        Normalisation::Image { .. } => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(epsilon: f32, added_to: EpsilonPlace, scale: f32, plane: &[f32]) -> Vec<f32> {
        let preparation = Preparation::new(scale, &Normalisation::Image { epsilon, added_to }, 1);
        let level = preparation.level(plane, 0);
        plane.iter().map(|&v| level.of(v)).collect()
    }

    #[test]
    fn a_constant_image_becomes_zeros_in_each_form() {
        for (epsilon, place, scale) in [
            (1e-5, EpsilonPlace::Variance, 1.0 / 255.0),
            (1e-7, EpsilonPlace::Deviation, 1.0 / 255.0),
            (1e-7, EpsilonPlace::Variance, 1.0),
        ] {
            for level in [0.0, 0.1, 37.0, 255.0] {
                let found = all(epsilon, place, scale, &[level; 1000]);
                assert!(found.iter().all(|&v| v == 0.0), "{place:?} {level}: {}", found[0]);
            }
        }
    }

    #[test]
    fn epsilon_damps_dim_images_where_it_is_added_to_the_variance() {
        // Deviation 0.8 grey levels: its square after / 255 is about 1e-5.
        let plane: Vec<f32> = (0..1000)
            .map(|i| 10.0 + if i % 2 == 0 { 0.8 } else { -0.8 })
            .collect();
        let damped = all(1e-5, EpsilonPlace::Variance, 1.0 / 255.0, &plane);
        assert!((damped[0] - 0.704_6).abs() < 1e-3, "{}", damped[0]);
        let whole = all(1e-7, EpsilonPlace::Deviation, 1.0 / 255.0, &plane);
        assert!((whole[0] - 1.0).abs() < 1e-4, "{}", whole[0]);
    }
}
