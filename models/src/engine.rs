//! The engine contract, and opening a model.
//!
//! Enters: a card, the path of its weights, a choice of engine. Leaves: an engine that has proved itself on the
//! card's canary. Fails with [`EngineError`]; there is no fallback from one engine to another.

use std::path::Path;

use crate::batch::{Batch, Embeddings};
use crate::canary;
use crate::card::ModelCard;
use crate::error::EngineError;
use crate::native::NativeEngine;
use crate::weights::Weights;

/// Turns batches into embeddings. Blocking; one OS thread owns one engine.
pub trait Engine: Send {
    /// The card of the opened model.
    fn card(&self) -> &ModelCard;

    /// What the engine runs on, for logs and result files, for example `cpu, native, avx2+fma`.
    fn device(&self) -> &str;

    /// The most items one batch may hold.
    fn max_items(&self) -> usize;

    /// Embeds a batch: row i of the result belongs to item i, and does not depend on the other items, on the size
    /// of the batch or on the number of threads. An empty batch gives empty embeddings.
    ///
    /// # Errors
    /// [`EngineError::WrongInput`], [`EngineError::Oversize`], [`EngineError::NotFinite`].
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError>;
}

/// Which engine to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The best engine of this build for this machine; today that is always the native one.
    #[default]
    Auto,
    /// The native engine on the CPU.
    Native,
}

/// Opens a model: reads the weights, checks digest, names, types, shapes and finiteness, builds the engine with
/// `threads` threads of its own (0 means one) and re-embeds the canary.
///
/// # Errors
/// Any of [`EngineError`] but those of a batch. An engine whose canary has a cosine below 0.9999, or a norm off by
/// more than 0.1%, is refused.
pub fn open(
    card: &ModelCard,
    weights: impl AsRef<Path>,
    choice: EngineChoice,
    threads: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    let weights = load(card, weights.as_ref())?;
    let mut engine: Box<dyn Engine> = match choice {
        EngineChoice::Auto | EngineChoice::Native => {
            Box::new(NativeEngine::new(card, &weights, threads.max(1))?)
        }
    };
    canary::check(engine.as_mut())?;
    Ok(engine)
}

/// Checks a weights file against its card without building an engine: size, header and content digest.
///
/// # Errors
/// [`EngineError::Unreadable`], [`EngineError::Weights`], [`EngineError::WrongDigest`].
pub fn verify(card: &ModelCard, weights: impl AsRef<Path>) -> Result<(), EngineError> {
    load(card, weights.as_ref()).map(|_| ())
}

/// Reads weights and checks their digest.
fn load(card: &ModelCard, path: &Path) -> Result<Weights, EngineError> {
    let weights = Weights::read(&card.name, path)?;
    let found = weights.digest();
    if found != card.weights.content_sha256 {
        return Err(EngineError::WrongDigest {
            model: card.name.clone(),
            path: path.to_owned(),
            expected: card.weights.content_sha256.clone(),
            found,
        });
    }
    Ok(weights)
}
