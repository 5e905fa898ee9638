//! The native engine on a graphics device, through wgpu: the layers of the native CPU engine, with all that is folded into
//! them, as WGSL kernels.
//!
//! Enters: batches of grey images, or of such as lie on the device already. Leaves: embeddings. Pixels go up once, only embeddings come down; weights, parameters and
//! positions are on the device before. A row never depends on its neighbours or on the size of the batch. Fails with
//! [`EngineError`]; there is no fallback to another adapter or to the processor.

mod convolutional;
mod device;
mod layers;
mod plan;
mod shaders;
mod shared;
#[cfg(test)]
mod tests;
mod transformer;

use std::collections::HashMap;

use self::convolutional::Convolutional;
use self::device::{Failed, Gpu};
use self::plan::Plan;
pub use self::shared::{DeviceBatch, SharedGpu};
use self::transformer::Transformer;
use crate::architecture::Architecture;
use crate::batch::{Batch, BatchError, Embeddings};
use crate::card::ModelCard;
use crate::engine::{Engine, check_batch, embeddings};
use crate::error::EngineError;
use crate::native::network::Network;
use crate::prepare::BuildError;
use crate::weights::Weights;

/// Most images per batch.
const MAX_ITEMS: usize = 256;

/// Images of one submission at most; a batch is cut into powers of two up to this, so that few plans serve all batches.
const AT_ONCE: usize = 8;

/// The network on the device.
enum OnDevice {
    Convolutional(Convolutional),
    Transformer(Box<Transformer>),
}

impl OnDevice {
    fn largest(&self, channels: usize) -> usize {
        match self {
            Self::Convolutional(network) => network.largest(),
            Self::Transformer(network) => network.largest(channels),
        }
    }

    fn plan(&self, gpu: &mut Gpu, items: usize, channels: usize) -> Result<(Plan, wgpu::Buffer), Failed> {
        match self {
            Self::Convolutional(network) => network.plan(gpu, items),
            Self::Transformer(network) => network.plan(gpu, items, channels),
        }
    }
}

/// The native engine on a graphics device.
pub(crate) struct WgpuEngine {
    card: ModelCard,
    device: String,
    gpu: Gpu,
    network: OnDevice,
    /// Plans by images and channels, each with the buffer of its pixels.
    plans: HashMap<(usize, usize), (Plan, wgpu::Buffer)>,
}

impl WgpuEngine {
    /// Builds the network of `card` and brings it to the adapter that `word` means.
    pub(crate) fn new(
        card: &ModelCard,
        weights: &Weights<'_>,
        word: &str,
        half: bool,
    ) -> Result<Self, EngineError> {
        let gpu = Gpu::open(word, half).map_err(|error| failed(card, word, error))?;
        Self::on(gpu, card, weights)
    }

    /// The same on a device that is somebody else's too.
    pub(crate) fn sharing(
        card: &ModelCard,
        weights: &Weights<'_>,
        shared: SharedGpu,
        half: bool,
    ) -> Result<Self, EngineError> {
        let name = shared.name.clone();
        let gpu = Gpu::on(shared, half).map_err(|error| failed(card, &name, error))?;
        Self::on(gpu, card, weights)
    }

    /// The same on an open device.
    fn on(mut gpu: Gpu, card: &ModelCard, weights: &Weights<'_>) -> Result<Self, EngineError> {
        let wrap = |error: BuildError| error.of(card, weights.path());
        check(card).map_err(wrap)?;
        let tensors = weights
            .tensors(&card.weights.keys)
            .map_err(|error| wrap(error.into()))?;
        let network = Network::build(card, &tensors).map_err(wrap)?;
        let network = gpu
            .guarded("bring the weights of", |gpu| {
                Ok(match &network {
                    Network::Convolutional(graph, preparation) => {
                        OnDevice::Convolutional(Convolutional::upload(gpu, graph, preparation)?)
                    }
                    Network::Transformer(vit) => {
                        OnDevice::Transformer(Box::new(Transformer::upload(gpu, vit)?))
                    }
                })
            })
            .map_err(|error| failed(card, gpu.name(), error))?;
        let with = if gpu.subgroups() { ", subgroups" } else { "" };
        let half = if gpu.half() { ", f16" } else { "" };
        Ok(Self {
            card: card.clone(),
            device: format!("{}, wgpu{with}{half}", gpu.name()),
            gpu,
            network,
            plans: HashMap::new(),
        })
    }

    /// Images of the next submission, if `left` are left: a power of two.
    fn at_once(&self, left: usize, channels: usize) -> usize {
        let bytes = self.network.largest(channels) as u64 * 4;
        let fit = usize::try_from(self.gpu.limit() / bytes.max(1)).unwrap_or(usize::MAX);
        let most = left.min(AT_ONCE).min(fit.max(1));
        // The largest power of two that is not above.
        1 << most.max(1).ilog2()
    }

    /// Does `work` with the plan for `items` images, and the buffer of their pixels.
    fn run<T>(
        &mut self,
        (items, channels): (usize, usize),
        work: impl FnOnce(&mut Gpu, &mut Plan, &wgpu::Buffer) -> Result<T, Failed>,
    ) -> Result<T, EngineError> {
        let Self {
            gpu, network, plans, ..
        } = self;
        let done = gpu.guarded("run", |gpu| {
            let (plan, buffer) = match plans.entry((items, channels)) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(network.plan(gpu, items, channels)?)
                }
            };
            work(gpu, plan, buffer)
        });
        done.map_err(|error| failed(&self.card, self.gpu.name(), error))
    }
}

/// Refuses widths that are not whole vectors of four channels.
fn check(card: &ModelCard) -> Result<(), BuildError> {
    if let Architecture::Vit(shape) = &card.architecture {
        let head = shape.width / shape.heads.max(1);
        if [head, shape.mlp_width].iter().any(|n| !n.is_multiple_of(4)) || head > 256 {
            return Err(BuildError::Card {
                field: "architecture",
                found: format!("heads of {head} channels, mlp_width {}", shape.mlp_width),
                needs:
                    "the wgpu engine takes multiples of 4, and heads of up to 256; choose the native engine"
                        .into(),
            });
        }
    }
    Ok(())
}

fn failed(card: &ModelCard, device: &str, Failed { action, reason }: Failed) -> EngineError {
    EngineError::Wgpu {
        model: card.name.clone(),
        device: device.to_owned(),
        action,
        reason,
    }
}

impl Engine for WgpuEngine {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn max_items(&self) -> usize {
        MAX_ITEMS
    }

    fn half_precision(&self) -> bool {
        self.gpu.half()
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError> {
        check_batch(&self.card, MAX_ITEMS, batch.into())?;
        let channels = batch.channels();
        let width = self.card.item_width(channels);
        let per_item = channels * batch.height() * batch.width();
        let mut data = Vec::with_capacity(batch.items() * width);
        let mut rest = batch.data();
        while !rest.is_empty() {
            let items = self.at_once(rest.len() / per_item.max(1), channels);
            let (pixels, others) = rest.split_at((items * per_item).min(rest.len()));
            data.extend(self.run((items, channels), |gpu, plan, buffer| {
                gpu.upload(buffer, pixels);
                plan.run(gpu)
            })?);
            rest = others;
        }
        embeddings(&self.card, batch.items(), width, data)
    }

    fn gpu(&self) -> Option<&SharedGpu> {
        Some(self.gpu.shared())
    }

    fn embed_there(&mut self, batch: &DeviceBatch<'_>) -> Result<Embeddings, EngineError> {
        check_batch(&self.card, MAX_ITEMS, batch.into())?;
        let channels = batch.channels();
        let width = self.card.item_width(channels);
        let per_item = channels * batch.height() * batch.width();
        let mut data = Vec::with_capacity(batch.items() * width);
        let mut first = 0;
        while first < batch.items() {
            let items = self.at_once(batch.items() - first, channels);
            let pieces = batch.part(first, items).pieces();
            let found = self.run((items, channels), |gpu, plan, buffer| {
                plan.run_on(gpu, buffer, &pieces)
            })?;
            if let Some((at, value)) = found.refused {
                let (item, offset) = (first + at / per_item, at % per_item);
                return Err(BatchError::of_value(item, offset, value).into());
            }
            data.extend(found.values);
            first += items;
        }
        embeddings(&self.card, batch.items(), width, data)
    }
}
