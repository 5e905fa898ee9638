//! Heads: maps that were fitted on another model's embeddings, served behind that model's engine.
//!
//! The card of a head, its weights and an opened base enter; an engine that embeds with the base and then applies the
//! map leaves, whatever the base runs on. Fails where the base is not the one the head was fitted on, where the weights do
//! not fit the card, and as the base does.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::architecture::{Architecture, HeadMap, HeadShape};
use crate::batch::{Batch, Embeddings};
use crate::card::{ChannelPolicy, ModelCard, Pooling, as_written};
use crate::engine::{Engine, check_batch, embeddings};
use crate::error::EngineError;
use crate::gpu::{DeviceBatch, SharedGpu};
use crate::weights::{Tensors, Weights, WeightsError};

/// The model that a head stands on: its card, and where its weights lie.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Its card.
    pub card: &'a ModelCard,
    /// Its weights.
    pub weights: &'a Path,
}

/// The numbers of a head, for `features` that enter. With `z = (x − mean) · gain`, feature by feature, and
/// `s = directions · z`, what leaves is `s + bias`, or where there is a way back
/// `floor · z + directionsᵀ · (gains · s)`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadWeights {
    /// Of each feature.
    pub mean: Vec<f32>,
    /// Of each feature; 0 where it is left out.
    pub gain: Vec<f32>,
    /// Directions x features, row after row.
    pub directions: Vec<f32>,
    /// What leaves.
    pub out: HeadOut,
    /// The channels that enter, and the classes that are scored, as the card has them; empty where it has none. They are
    /// in the file, so that its digest tells heads apart that differ by names alone.
    pub names: HeadNames,
}

/// Names in a head's file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeadNames {
    /// Of channels, in their order.
    pub channels: Vec<String>,
    /// Of classes, in the order of the scores.
    pub classes: Vec<String>,
}

impl HeadNames {
    /// Those of a card.
    fn of(shape: &HeadShape) -> Self {
        let classes = match &shape.map {
            HeadMap::Classes { names } => names.clone(),
            _ => Vec::new(),
        };
        Self {
            channels: shape.channels.clone(),
            classes,
        }
    }

    /// Refuses a file with other names than these.
    fn check(&self, tensors: &Tensors<'_>) -> Result<(), WeightsError> {
        for (tensor, card) in [(CHANNELS, &self.channels), (CLASSES, &self.classes)] {
            let file = tensors.words(tensor)?;
            if file != *card {
                return Err(WeightsError::OtherNames {
                    tensor,
                    card: card.join(", "),
                    file: file.join(", "),
                });
            }
        }
        Ok(())
    }
}

/// Tensors of names: a JSON list, byte by byte.
const CHANNELS: &str = "channels";
const CLASSES: &str = "classes";

/// How the sums along the directions leave a head.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadOut {
    /// As they are, plus a constant for each.
    Directions {
        /// Of each direction.
        bias: Vec<f32>,
    },
    /// As features again.
    Features {
        /// Of each direction.
        gains: Vec<f32>,
        /// Of everything else.
        floor: f32,
    },
}

impl HeadWeights {
    /// The bytes of its weights file; the same numbers give the same bytes.
    ///
    /// # Errors
    /// [`WeightsError::Malformed`] where the lengths of the vectors do not fit one another.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, WeightsError> {
        let features = self.mean.len();
        let rows = self.directions.len() / features.max(1);
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut tensors = vec![
            ("mean", vec![features], bytes(&self.mean)),
            ("gain", vec![features], bytes(&self.gain)),
            ("directions", vec![rows, features], bytes(&self.directions)),
        ];
        match &self.out {
            HeadOut::Directions { bias } => tensors.push(("bias", vec![rows], bytes(bias))),
            HeadOut::Features { gains, floor } => {
                tensors.push(("back.gains", vec![rows], bytes(gains)));
                tensors.push(("back.floor", vec![1], bytes(&[*floor])));
            }
        }
        let json = |names: &[String]| serde_json::Value::from(names).to_string().into_bytes();
        let words: Vec<_> = [(CHANNELS, &self.names.channels), (CLASSES, &self.names.classes)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(name, names)| (name, json(names)))
            .collect();
        let malformed = |error: safetensors::SafeTensorError| WeightsError::Malformed {
            reason: error.to_string(),
            bytes: 0,
        };
        let mut views = Vec::with_capacity(tensors.len());
        for (name, shape, data) in &tensors {
            let view = TensorView::new(Dtype::F32, shape.clone(), data).map_err(malformed)?;
            views.push((*name, view));
        }
        for (name, text) in &words {
            let view = TensorView::new(Dtype::U8, vec![text.len()], text).map_err(malformed)?;
            views.push((*name, view));
        }
        safetensors::serialize(views, None).map_err(malformed)
    }

    /// Reads the head of a card, on `features` features.
    fn read(tensors: &Tensors<'_>, shape: &HeadShape, features: usize) -> Result<Self, WeightsError> {
        let map = &shape.map;
        let names = HeadNames::of(shape);
        names.check(tensors)?;
        let rows = map.directions();
        let out = match map {
            HeadMap::WhitenedFeatures { .. } => HeadOut::Features {
                gains: tensors.f32("back.gains", &[rows])?,
                floor: tensors
                    .f32("back.floor", &[1])?
                    .first()
                    .copied()
                    .unwrap_or_default(),
            },
            _ => HeadOut::Directions {
                bias: tensors.f32("bias", &[rows])?,
            },
        };
        Ok(Self {
            mean: tensors.f32("mean", &[features])?,
            gain: tensors.f32("gain", &[features])?,
            directions: tensors.f32("directions", &[rows, features])?,
            out,
            names,
        })
    }

    /// Appends what becomes of the features `x`. Sums are `f64`.
    fn apply(&self, x: &[f32], scratch: &mut Vec<f64>, to: &mut Vec<f32>) {
        scratch.clear();
        let centred = x.iter().zip(&self.mean).zip(&self.gain);
        scratch
            .extend(centred.map(|((&x, &mean), &gain)| (f64::from(x) - f64::from(mean)) * f64::from(gain)));
        let directions = self.directions.chunks_exact(self.mean.len().max(1));
        match &self.out {
            HeadOut::Directions { bias } => {
                to.extend(
                    directions
                        .zip(bias)
                        .map(|(direction, &bias)| (dot(direction, scratch) + f64::from(bias)) as f32),
                );
            }
            HeadOut::Features { gains, floor } => {
                let mut sums: Vec<f64> = scratch.iter().map(|z| z * f64::from(*floor)).collect();
                for (direction, &gain) in directions.zip(gains) {
                    let along = dot(direction, scratch) * f64::from(gain);
                    for (sum, &entry) in sums.iter_mut().zip(direction) {
                        *sum += along * f64::from(entry);
                    }
                }
                to.extend(sums.into_iter().map(|sum| sum as f32));
            }
        }
    }
}

/// Partial sums of an inner product: so many that they fill vector registers, in a fixed order.
const LANES: usize = 8;

fn dot(direction: &[f32], z: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (directions, rest) = direction.as_chunks::<LANES>();
    let (values, rest_of_z) = z.as_chunks::<LANES>();
    for (direction, z) in directions.iter().zip(values) {
        for ((sum, &d), z) in sums.iter_mut().zip(direction).zip(z) {
            *sum += f64::from(d) * z;
        }
    }
    let rest: f64 = rest.iter().zip(rest_of_z).map(|(&d, z)| f64::from(d) * z).sum();
    sums.iter().sum::<f64>() + rest
}

impl HeadMap {
    /// Directions in the weights file.
    pub(crate) fn directions(&self) -> usize {
        match self {
            Self::WhitenedComponents { components } | Self::WhitenedFeatures { components } => *components,
            Self::Classes { names } => names.len(),
        }
    }
}

/// The head of a card.
pub(crate) fn shape(card: &ModelCard) -> Option<&HeadShape> {
    match &card.architecture {
        Architecture::Head(shape) => Some(shape),
        _ => None,
    }
}

/// A base's engine with a head on it.
pub(crate) struct HeadEngine {
    card: ModelCard,
    base: Box<dyn Engine>,
    weights: HeadWeights,
    /// Items of the base that one image becomes.
    items_per_image: usize,
    /// Features of an image by the base.
    features: usize,
}

impl HeadEngine {
    /// Puts the head of `card` on an opened base.
    pub(crate) fn new(
        card: &ModelCard,
        weights: &Weights<'_>,
        base: Box<dyn Engine>,
    ) -> Result<Self, EngineError> {
        let Fit {
            shape,
            items_per_image,
            features,
        } = check(card, base.card())?;
        let wrong = |source| EngineError::Weights {
            model: card.name.clone(),
            path: weights.path().to_owned(),
            source,
        };
        let tensors = weights.tensors(&card.weights.keys).map_err(wrong)?;
        let numbers = HeadWeights::read(&tensors, shape, features).map_err(wrong)?;
        if base.max_items() < items_per_image {
            return Err(EngineError::Oversize {
                model: card.name.clone(),
                items: items_per_image,
                limit: base.max_items(),
            });
        }
        Ok(Self {
            card: card.clone(),
            base,
            weights: numbers,
            items_per_image,
            features,
        })
    }
}

impl Engine for HeadEngine {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn device(&self) -> &str {
        self.base.device()
    }

    fn max_items(&self) -> usize {
        self.base.max_items() / self.items_per_image
    }

    fn half_precision(&self) -> bool {
        self.base.half_precision()
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError> {
        check_batch(&self.card, self.max_items(), batch.into())?;
        let found = if self.items_per_image == 1 {
            self.base.embed(batch)?
        } else {
            self.base.embed(&batch.channels_apart())?
        };
        self.apply(batch.items(), &found)
    }

    fn gpu(&self) -> Option<&SharedGpu> {
        self.base.gpu()
    }

    fn embed_there(&mut self, batch: &DeviceBatch<'_>) -> Result<Embeddings, EngineError> {
        check_batch(&self.card, self.max_items(), batch.into())?;
        let found = if self.items_per_image == 1 {
            self.base.embed_there(batch)?
        } else {
            self.base.embed_there(&batch.channels_apart())?
        };
        self.apply(batch.items(), &found)
    }
}

impl HeadEngine {
    /// What becomes of the base's embeddings of `items` images.
    fn apply(&self, items: usize, found: &Embeddings) -> Result<Embeddings, EngineError> {
        // The channels of an image are side by side, as a profile has them.
        let expected = [items, self.features];
        if found.data.len() != items * self.features {
            return Err(EngineError::WrongOutput {
                model: self.card.name.clone(),
                found: vec![found.items as i64, found.width as i64],
                expected,
            });
        }
        let width = self.card.embedding_width;
        let mut data = Vec::with_capacity(items * width);
        let mut scratch = Vec::with_capacity(self.features);
        for image in found.data.chunks_exact(self.features.max(1)) {
            self.weights.apply(image, &mut scratch, &mut data);
        }
        embeddings(&self.card, items, width, data)
    }
}

/// Refuses a base that the head was not fitted on.
pub(crate) fn check_base(card: &ModelCard, base: &ModelCard) -> Result<(), EngineError> {
    check(card, base).map(drop)
}

/// Refuses weights that carry other names of channels or classes than the card.
pub(crate) fn check_names(card: &ModelCard, weights: &Weights<'_>) -> Result<(), EngineError> {
    let Some(shape) = shape(card) else {
        return Ok(());
    };
    let tensors = weights.tensors(&card.weights.keys);
    let checked = tensors.and_then(|tensors| HeadNames::of(shape).check(&tensors));
    checked.map_err(|source| EngineError::Weights {
        model: card.name.clone(),
        path: weights.path().to_owned(),
        source,
    })
}

/// What a head and its base come to together.
struct Fit<'a> {
    shape: &'a HeadShape,
    items_per_image: usize,
    features: usize,
}

/// Refuses a base that the head was not fitted on, and a card that contradicts itself.
fn check<'a>(card: &'a ModelCard, base: &ModelCard) -> Result<Fit<'a>, EngineError> {
    let refuse = |field, found: String, needs: &'static str| EngineError::Card {
        model: card.name.clone(),
        field,
        found,
        needs: needs.into(),
    };
    let Some(head) = shape(card) else {
        return Err(refuse(
            "architecture",
            "a network".to_owned(),
            "only a head stands on another model",
        ));
    };
    let HeadShape {
        base: wanted, map, ..
    } = head;
    if shape(base).is_some() {
        return Err(refuse(
            "architecture.head.base",
            base.name.clone(),
            "a head stands on a network, not on another head",
        ));
    }
    let same = [
        ("name", &wanted.name, &base.name),
        ("version", &wanted.version, &base.version),
        (
            "content_sha256",
            &wanted.content_sha256,
            &base.weights.content_sha256,
        ),
    ];
    if let Some((field, expected, found)) = same.into_iter().find(|(_, expected, found)| expected != found) {
        return Err(EngineError::OtherBase {
            model: card.name.clone(),
            base: wanted.name.clone(),
            field,
            expected: expected.clone(),
            found: found.clone(),
        });
    }
    if card.input != base.input || card.tiling != base.tiling {
        return Err(refuse(
            "input",
            "another than its base's".to_owned(),
            "a head takes the images of its base: copy input and tiling from the base's card",
        ));
    }
    let ChannelPolicy::Fitted { channels } = card.channel_policy else {
        return Err(refuse(
            "channel_policy",
            as_written(&card.channel_policy),
            "a head takes the channels it was fitted on: fitted",
        ));
    };
    let (Some((_, items_per_image)), Some(features)) = (base.items_for(channels), base.image_width(channels))
    else {
        return Err(refuse(
            "channel_policy",
            channels.to_string(),
            "its base does not take images of so many channels",
        ));
    };
    if !head.channels.is_empty() && head.channels.len() != channels {
        return Err(refuse(
            "architecture.head.channels",
            head.channels.join(", "),
            "it names as many channels as channel_policy has",
        ));
    }
    if card.pooling != Pooling::Head {
        return Err(refuse("pooling", as_written(&card.pooling), "a head's is head"));
    }
    let width = match map {
        HeadMap::WhitenedFeatures { .. } => features,
        _ => map.directions(),
    };
    if card.embedding_width != width || width == 0 {
        return Err(EngineError::Card {
            model: card.name.clone(),
            field: "embedding_width",
            found: card.embedding_width.to_string(),
            needs: format!(
                "it is the number of components, of classes, or of the base's features, here {width}"
            )
            .into(),
        });
    }
    Ok(Fit {
        shape: head,
        items_per_image,
        features,
    })
}
