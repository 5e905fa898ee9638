//! What can go wrong when a model opens or embeds.

use std::path::PathBuf;

use thiserror::Error;

use crate::batch::BatchError;
use crate::weights::WeightsError;

/// Why a model did not open, or a batch was not embedded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The weights file could not be read.
    #[error("cannot read the weights of {model} at {}: {source}; fetch them with `wellspring models pull {model}`", path.display())]
    Unreadable {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The weights file is not a safetensors file the model can use.
    #[error("the weights of {model} at {} cannot be used: {source}", path.display())]
    Weights {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: WeightsError,
    },
    /// The weights are not the ones the card names.
    #[error(
        "the weights of {model} at {} have content digest {found}, the card says {expected}: \
         the file is damaged or another model's; remove it and run `wellspring models pull {model}`",
        path.display()
    )]
    WrongDigest {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// Digest on the card.
        expected: String,
        /// Digest of the file's content.
        found: String,
    },
    /// The card contradicts itself or asks for what no engine offers.
    #[error("the card of {model} has {field} = {found}, but {needs}")]
    Card {
        /// The model.
        model: String,
        /// The key on the card.
        field: &'static str,
        /// Its value.
        found: String,
        /// What the engine needs there.
        needs: &'static str,
    },
    /// The opened model does not reproduce the canary of its card.
    #[error(
        "{model} on {device} embeds its canary with cosine {cosine:.6} (at least {cosine_bar} is needed) and norm \
         {norm:.5} (the card has {reference_norm:.5}): this engine gives other numbers than the card promises and \
         must not serve"
    )]
    Canary {
        /// The model.
        model: String,
        /// What it ran on.
        device: String,
        /// Cosine with the card's embedding.
        cosine: f64,
        /// The least cosine accepted.
        cosine_bar: f64,
        /// Euclidean norm of the embedding found.
        norm: f64,
        /// Euclidean norm of the card's embedding.
        reference_norm: f64,
    },
    /// The worker threads could not be started.
    #[error("cannot start {threads} threads for {model}: {source}")]
    Threads {
        /// The model.
        model: String,
        /// How many were asked for.
        threads: usize,
        /// What the pool said.
        source: rayon::ThreadPoolBuildError,
    },
    /// The batch is no batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The images have another size or channel count than the model wants.
    #[error(
        "{model} wants images of {wanted_channels} x {wanted_height} x {wanted_width} (channels, rows, columns), \
         the batch has {channels} x {height} x {width}: resize or tile the field first"
    )]
    WrongInput {
        /// The model.
        model: String,
        /// Wanted channels.
        wanted_channels: usize,
        /// Wanted rows.
        wanted_height: usize,
        /// Wanted columns.
        wanted_width: usize,
        /// Channels of the batch.
        channels: usize,
        /// Rows of the batch.
        height: usize,
        /// Columns of the batch.
        width: usize,
    },
    /// The batch holds more items than the engine takes at once.
    #[error("{model} takes at most {limit} images at once, the batch has {items}: split it")]
    Oversize {
        /// The model.
        model: String,
        /// Items in the batch.
        items: usize,
        /// Most items per batch.
        limit: usize,
    },
    /// The network gave NaN or infinity.
    #[error(
        "{model} gave {value} at position {offset} of the embedding of item {item}: nothing of this batch is used"
    )]
    NotFinite {
        /// The model.
        model: String,
        /// Index of the item in the batch.
        item: usize,
        /// Index in its embedding.
        offset: usize,
        /// The value.
        value: f32,
    },
}
