//! The native CPU engine.

use crate::batch::{Batch, Embeddings};
use crate::card::ModelCard;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::weights::Weights;

/// The native CPU engine.
pub(crate) struct NativeEngine {
    card: ModelCard,
}

impl NativeEngine {
    /// Builds the network of `card`.
    pub(crate) fn new(card: &ModelCard, weights: &Weights, _threads: usize) -> Result<Self, EngineError> {
        let wrap = |source| EngineError::Weights {
            model: card.name.clone(),
            path: weights.path().into(),
            source,
        };
        let _ = weights
            .tensors()
            .map_err(wrap)?
            .f32("_fc.bias", &[1000])
            .map_err(wrap)?;
        Ok(Self { card: card.clone() })
    }
}

impl Engine for NativeEngine {
    fn card(&self) -> &ModelCard {
        &self.card
    }
    fn device(&self) -> &str {
        "cpu, native"
    }
    fn max_items(&self) -> usize {
        256
    }
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError> {
        Ok(Embeddings {
            items: batch.items(),
            width: self.card.embedding_width,
            data: Vec::new(),
        })
    }
}
