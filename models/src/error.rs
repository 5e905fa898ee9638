//! What can go wrong when a model opens or embeds.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use thiserror::Error;

use crate::batch::BatchError;
use crate::choice::EngineKind;
use crate::weights::WeightsError;

/// Why a model did not open, or a batch was not embedded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The weights file could not be read.
    #[error("cannot read the weights of {model} at {}: {source}; {}", path.display(), fetch(model, *packaged))]
    Unreadable {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// Whether a public package carries them.
        packaged: bool,
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
         the file is damaged or another model's; {}",
        path.display(),
        fetch(model, *packaged)
    )]
    WrongDigest {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// Whether a public package carries the weights.
        packaged: bool,
        /// Digest on the card.
        expected: String,
        /// Digest of the file's content.
        found: String,
    },
    /// The weights of a model that is to be completed are not the ones its card names.
    #[error(
        "the content of '{}' has digest {found}, but weights.content_sha256 on the card of {model} is {expected}: the file is \
         damaged or another model's; give the one that the card is of, or empty content_sha256 and the canary's embedding on \
         the card to have both filled in",
        path.display()
    )]
    OtherWeights {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// Digest on the card.
        expected: String,
        /// Digest of the file's content.
        found: String,
    },
    /// The version of a head's card carries the digest of other numbers.
    #[error(
        "the card of {model} has version {version}, which ends with the digest of the head's numbers, but those in '{}' have \
         {found:.8}: card and weights are not of one fit; bring both from where it was made, or fit the head again",
        path.display()
    )]
    OtherVersion {
        /// The head.
        model: String,
        /// The file.
        path: PathBuf,
        /// The version on the card.
        version: String,
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
        needs: Cow<'static, str>,
    },
    /// The engine is for models of another kind.
    #[error("{model} is {kind}: {runs}; {}", engine.what_it_runs())]
    WrongEngine {
        /// The model.
        model: String,
        /// What it is.
        kind: &'static str,
        /// Which engine runs such a model.
        runs: &'static str,
        /// The engine that was chosen.
        engine: EngineKind,
    },
    /// A head was opened as if it were a network.
    #[error("{model} is a head on {base}: open it together with that model")]
    NoBase {
        /// The head.
        model: String,
        /// The model it stands on.
        base: String,
    },
    /// The model of the base's name is another one.
    #[error(
        "{model} was fitted on {base} of {field} {expected}, and the model here has {found}: fit the head again with \
         `wellspring models fit-head`, or bring that model back"
    )]
    OtherBase {
        /// The head.
        model: String,
        /// The model it stands on.
        base: String,
        /// What differs.
        field: &'static str,
        /// As the head's card has it.
        expected: String,
        /// As the model's card has it.
        found: String,
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
    /// The card has no canary, or one of another length.
    #[error("{}", canary_length(model, *found, *card))]
    CanaryLength {
        /// The model.
        model: String,
        /// Values of the embedding found.
        found: usize,
        /// Values on the card.
        card: usize,
    },
    /// The weights tell no image from another.
    #[error(
        "with the weights in '{}' {model} gives {value} for every value of the embedding of its canary: they are no trained \
         network's (all zeros, for instance), and tell no image from another",
        path.display()
    )]
    Constant {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// The value.
        value: f32,
    },
    /// The engine is not part of this build.
    #[error("{model} needs an engine that this build leaves out: build with `--features {feature}`")]
    NotBuilt {
        /// The model.
        model: String,
        /// The feature of the build that brings the engine.
        feature: &'static str,
    },
    /// ONNX Runtime could not be loaded.
    #[error(
        "ONNX Runtime cannot be used from {}: {reason}; `scripts/onnxruntime` fetches a library that can",
        library.display()
    )]
    Runtime {
        /// The library.
        library: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// ONNX Runtime did not open the graph or failed while it ran.
    #[error("ONNX Runtime could not {action} {model} on {provider}: {reason}")]
    Onnx {
        /// The model.
        model: String,
        /// The execution provider.
        provider: &'static str,
        /// What was being done.
        action: &'static str,
        /// What the runtime said.
        reason: String,
    },
    /// libtorch lacks the device, did not open the module or failed while it ran.
    #[error("libtorch could not {action} {model} on {device}: {reason}")]
    Libtorch {
        /// The model.
        model: String,
        /// The device, as on the command line.
        device: String,
        /// What was being done.
        action: &'static str,
        /// What libtorch said.
        reason: String,
    },
    /// The graphics device is absent, does not suffice, or failed.
    #[error("the wgpu engine could not {action} {model} on {device}: {reason}")]
    Wgpu {
        /// The model.
        model: String,
        /// The adapter, or the word that was to find it.
        device: String,
        /// What was being done.
        action: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// The images are in a graphics device's memory, and the engine is not on it.
    #[error(
        "{model} on {device} takes no images from the memory of a graphics device: bring them down first"
    )]
    NotThere {
        /// The model.
        model: String,
        /// What it runs on.
        device: String,
    },
    /// The graph gave an output of another shape than the card says.
    #[error("{model} gave an output of shape {found:?}, the card promises {expected:?}")]
    WrongOutput {
        /// The model.
        model: String,
        /// Shape of the output.
        found: Vec<i64>,
        /// Items and values.
        expected: [usize; 2],
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
        "{model} wants images of {} x {wanted_height} x {wanted_width} (channels, rows, columns), \
         the batch has {channels} x {height} x {width}: resize or tile the field first",
        span(wanted_channels)
    )]
    WrongInput {
        /// The model.
        model: String,
        /// Wanted channels.
        wanted_channels: RangeInclusive<usize>,
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

/// How weights come to be there.
fn fetch(model: &str, packaged: bool) -> String {
    if packaged {
        format!("`wellspring models pull {model}` fetches them")
    } else {
        format!("bring their file with `wellspring models pull {model} --from FILE`")
    }
}

/// What is wrong with a canary's length.
fn canary_length(model: &str, found: usize, card: usize) -> String {
    let fix = "bring the card back as it was, or remove the model and add it again";
    match card {
        0 => format!(
            "the card of {model} has an empty canary.embedding, so that nothing tells whether an engine gives the numbers of \
             the card: {fix}"
        ),
        _ => format!(
            "the card of {model} has {card} values in canary.embedding, but the network gives {found}: {fix}"
        ),
    }
}

/// A range in words: one number where it holds no other.
fn span(range: &RangeInclusive<usize>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    }
}
