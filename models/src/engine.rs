//! The engine contract.
//!
//! Enters: batches of grey images. Leaves: embeddings, checked. Fails with [`EngineError`].

use crate::batch::{Batch, Embeddings};
use crate::card::{ChannelPolicy, ModelCard};
use crate::error::EngineError;
use crate::gpu::{DeviceBatch, SharedGpu};

/// Turns batches into embeddings. Blocking; one OS thread owns one engine.
pub trait Engine: Send {
    /// The card of the opened model.
    fn card(&self) -> &ModelCard;

    /// What the engine runs on, for logs and result files, for example `cpu, native, avx2+fma`.
    fn device(&self) -> &str;

    /// The most items one batch may hold.
    fn max_items(&self) -> usize;

    /// Whether it computes in 16-bit floats: the canary is then compared less strictly.
    fn half_precision(&self) -> bool {
        false
    }

    /// Embeds a batch: row i of the result belongs to item i, and does not depend on the other items, on the size
    /// of the batch or on the number of threads (in the native engine to the last bit; a library that takes a batch
    /// whole may round otherwise for another size). An empty batch gives empty embeddings.
    ///
    /// # Errors
    /// [`EngineError::WrongInput`], [`EngineError::Oversize`], [`EngineError::NotFinite`].
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError>;

    /// The graphics device it computes on, if it takes images from that device's memory.
    fn gpu(&self) -> Option<&SharedGpu> {
        None
    }

    /// As [`Engine::embed`], for images in the memory of [`Engine::gpu`].
    ///
    /// # Errors
    /// As [`Engine::embed`], [`EngineError::Batch`] where an image holds values that are no grey levels, and
    /// [`EngineError::NotThere`] from an engine without such a device.
    fn embed_there(&mut self, _batch: &DeviceBatch<'_>) -> Result<Embeddings, EngineError> {
        Err(EngineError::NotThere {
            model: self.card().name.clone(),
            device: self.device().to_owned(),
        })
    }
}

/// Items, channels, rows and columns of a batch, wherever it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchShape {
    items: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl From<&Batch> for BatchShape {
    fn from(batch: &Batch) -> Self {
        Self {
            items: batch.items(),
            channels: batch.channels(),
            height: batch.height(),
            width: batch.width(),
        }
    }
}

impl From<&DeviceBatch<'_>> for BatchShape {
    fn from(batch: &DeviceBatch<'_>) -> Self {
        Self {
            items: batch.items(),
            channels: batch.channels(),
            height: batch.height(),
            width: batch.width(),
        }
    }
}

/// Refuses a batch that the model of `card` does not take.
pub(crate) fn check_batch(card: &ModelCard, most: usize, batch: BatchShape) -> Result<(), EngineError> {
    let input = &card.input;
    let channels = match card.channel_policy {
        ChannelPolicy::ReplicateAndConcatenate => 1..=1,
        ChannelPolicy::ChannelAgnostic { most } => 1..=most,
        ChannelPolicy::FirstConvolution { channels } | ChannelPolicy::Fitted { channels } => {
            channels..=channels
        }
    };
    let size = (batch.height, batch.width);
    if size != (input.height, input.width) || !channels.contains(&batch.channels) {
        return Err(EngineError::WrongInput {
            model: card.name.clone(),
            wanted_channels: channels,
            wanted_height: input.height,
            wanted_width: input.width,
            channels: batch.channels,
            height: batch.height,
            width: batch.width,
        });
    }
    if batch.items > most {
        return Err(EngineError::Oversize {
            model: card.name.clone(),
            items: batch.items,
            limit: most,
        });
    }
    Ok(())
}

/// The embeddings of `items` items of `width` values each; refuses those that are not finite.
pub(crate) fn embeddings(
    card: &ModelCard,
    items: usize,
    width: usize,
    data: Vec<f32>,
) -> Result<Embeddings, EngineError> {
    match data.iter().position(|v| !v.is_finite()) {
        None => Ok(Embeddings { items, width, data }),
        Some(at) => Err(EngineError::NotFinite {
            model: card.name.clone(),
            item: at / width.max(1),
            offset: at % width.max(1),
            value: data[at],
        }),
    }
}
