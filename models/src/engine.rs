//! The engine contract, and opening a model.
//!
//! Enters: a card, the path of its weights, a choice of engine. Leaves: an engine that has proved itself on the
//! card's canary. Fails with [`EngineError`]; there is no fallback from one engine to another.

use std::path::{Path, PathBuf};

use crate::architecture::Architecture;
use crate::batch::{Batch, Embeddings};
use crate::canary;
use crate::card::{ChannelPolicy, ModelCard};
use crate::error::EngineError;
use crate::gpu::{DeviceBatch, SharedGpu, WgpuEngine};
use crate::head::{Base, HeadEngine, check_base, check_names};
#[cfg(feature = "libtorch")]
use crate::libtorch::LibtorchEngine;
use crate::native::NativeEngine;
#[cfg(feature = "onnx")]
use crate::onnx::OnnxEngine;
use crate::weights::{Weights, WeightsError, content_digest, read_file, sha256};

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

/// Which engine to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The best engine of this build for this machine; today that is always the native one.
    #[default]
    Auto,
    /// The native engine on the CPU.
    Native,
    /// The native engine on a graphics device, through wgpu: Vulkan, Metal or Direct3D 12.
    Wgpu {
        /// The adapter: `gpu` (the best one, software included), a kind (`discrete`, `integrated`, `virtual`, `software`),
        /// its number (`#1`, as `wellspring devices` counts), or part of its name.
        adapter: String,
        /// Whether matrices are multiplied in 16-bit floats, on adapters that can.
        half: bool,
    },
    /// The same on a device that is open already, for instance because it prepares the images.
    Shared {
        /// The device.
        gpu: SharedGpu,
        /// As in [`EngineChoice::Wgpu`].
        half: bool,
    },
    /// ONNX Runtime, for models that are ONNX files. Needs a build with the feature `onnx`.
    OnnxRuntime {
        /// The library, for example `libonnxruntime.so`. A process loads one only.
        library: PathBuf,
        /// What the graph runs on. There is no fallback to another.
        provider: OnnxProvider,
    },
    /// libtorch, for models that are TorchScript modules. Needs a build with the feature `libtorch`.
    Libtorch {
        /// What the module runs on. There is no fallback to another.
        device: TorchDevice,
        /// Whether to compute in 16-bit floats, on a GPU only.
        half: bool,
    },
}

/// What libtorch runs a module on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TorchDevice {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, counted from 0.
    Cuda(usize),
}

impl std::fmt::Display for TorchDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl std::str::FromStr for TorchDevice {
    type Err = ();

    /// `cpu`, `cuda` (the first GPU) or `cuda:N`.
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = word.strip_prefix("cuda:").and_then(|index| index.parse().ok());
                index.map(Self::Cuda).ok_or(())
            }
        }
    }
}

/// What ONNX Runtime runs a graph on: its execution providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnnxProvider {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// NVIDIA GPUs, by TensorRT.
    TensorRt,
    /// Direct3D 12 GPUs.
    DirectMl,
    /// Apple's accelerators.
    CoreMl,
    /// Intel's processors and GPUs.
    OpenVino,
}

impl OnnxProvider {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cpu,
        Self::Cuda,
        Self::TensorRt,
        Self::DirectMl,
        Self::CoreMl,
        Self::OpenVino,
    ];

    /// The name on the command line and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::DirectMl => "directml",
            Self::CoreMl => "coreml",
            Self::OpenVino => "openvino",
        }
    }
}

/// Opens a model: reads the weights, checks digest, names, types, shapes and finiteness, builds the engine with
/// `threads` threads of its own (0 means one) and re-embeds the canary.
///
/// # Errors
/// Any of [`EngineError`] but those of a batch. An engine whose canary has a cosine below 0.9999, or a norm off by
/// more than 0.1%, is refused (0.999 and 1% where it computes in 16-bit floats).
pub fn open(
    card: &ModelCard,
    weights: impl AsRef<Path>,
    choice: EngineChoice,
    threads: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    let path = weights.as_ref();
    let file = load(card, path)?;
    let mut engine = match &file {
        // The engines of other frameworks get no bytes but the card's.
        ModelFile::Onnx(_) | ModelFile::Torchscript(_) => {
            expect_digest(card, path, &file.digest())?;
            build(card, path, &file, choice, threads)?
        }
        // Tensors of whatever origin are checked one by one, so the digest is taken meanwhile: it is a third of the time.
        ModelFile::Tensors(_) => {
            let built = || build(card, path, &file, choice, threads);
            let (digest, engine) = rayon::join(|| file.digest(), built);
            expect_digest(card, path, &digest)?;
            engine?
        }
    };
    canary::check(engine.as_mut())?;
    Ok(engine)
}

/// Completes the card of a model whose weights the user brings: the digest of the file, and the embedding of the canary
/// by `choice`. The card that comes back opens with these weights and no others.
///
/// # Errors
/// As [`open`], apart from the digest and the canary: a card that contradicts the weights, weights that are no such
/// network's.
pub fn complete(
    mut card: ModelCard,
    weights: impl AsRef<Path>,
    choice: EngineChoice,
) -> Result<ModelCard, EngineError> {
    let path = weights.as_ref();
    let file = load(&card, path)?;
    card.weights.content_sha256 = file.digest();
    let mut engine = build(&card, path, &file, choice, 1)?;
    card.canary.embedding = engine.embed(&canary::batch(&card)?)?.data;
    Ok(card)
}

/// Opens a head on its base: the base by `choice`, with everything [`open`] checks, then the head's weights and its own
/// canary.
///
/// # Errors
/// Those of [`open`] for the base and for the head, and [`EngineError::OtherBase`] where the base is not the model that
/// the head was fitted on.
pub fn open_head(
    card: &ModelCard,
    weights: impl AsRef<Path>,
    base: Base<'_>,
    choice: EngineChoice,
    threads: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    let path = weights.as_ref();
    let file = Weights::read(&card.name, path)?;
    expect_digest(card, path, &file.digest())?;
    check_base(card, base.card)?;
    let base = open(base.card, base.weights, choice, threads)?;
    let mut engine = HeadEngine::new(card, &file, base)?;
    canary::check(&mut engine)?;
    Ok(Box::new(engine))
}

/// Checks a head's own file against its card, and that `base` is the model it was fitted on, without building an engine.
/// The base's weights are for [`verify`].
///
/// # Errors
/// As [`verify`], [`EngineError::OtherBase`], and [`EngineError::Weights`] where the file names other channels or classes.
pub fn verify_head(card: &ModelCard, weights: impl AsRef<Path>, base: &ModelCard) -> Result<(), EngineError> {
    let path = weights.as_ref();
    let file = Weights::read(&card.name, path)?;
    expect_digest(card, path, &file.digest())?;
    check_names(card, &file)?;
    check_base(card, base)
}

/// Completes the card of a head as [`complete`] does that of a network.
///
/// # Errors
/// As [`open_head`], apart from the head's digest and canary.
pub fn complete_head(
    mut card: ModelCard,
    weights: impl AsRef<Path>,
    base: Base<'_>,
    choice: EngineChoice,
) -> Result<ModelCard, EngineError> {
    let file = Weights::read(&card.name, weights.as_ref())?;
    card.weights.content_sha256 = file.digest();
    let mut engine = HeadEngine::new(&card, &file, open(base.card, base.weights, choice, 1)?)?;
    card.canary.embedding = engine.embed(&canary::batch(&card)?)?.data;
    Ok(card)
}

/// Checks a weights file against its card without building an engine: size, header and content digest.
///
/// # Errors
/// [`EngineError::Unreadable`], [`EngineError::Weights`], [`EngineError::WrongDigest`].
pub fn verify(card: &ModelCard, weights: impl AsRef<Path>) -> Result<(), EngineError> {
    let path = weights.as_ref();
    expect_digest(card, path, &load(card, path)?.digest())
}

/// The digest that the card of a model with these bytes has as [`crate::WeightsSource::content_sha256`].
///
/// # Errors
/// [`WeightsError::Malformed`] where the card is of a network and the bytes are no safetensors file.
pub fn file_digest(card: &ModelCard, bytes: &[u8]) -> Result<String, WeightsError> {
    match card.architecture {
        Architecture::Onnx(_) | Architecture::Torchscript => Ok(sha256(bytes)),
        _ => content_digest(bytes),
    }
}

/// The bytes of a model.
enum ModelFile {
    Tensors(Weights),
    Onnx(Vec<u8>),
    Torchscript(Vec<u8>),
}

impl ModelFile {
    fn digest(&self) -> String {
        match self {
            Self::Tensors(weights) => weights.digest(),
            Self::Onnx(bytes) | Self::Torchscript(bytes) => sha256(bytes),
        }
    }
}

/// Reads the file of a model.
fn load(card: &ModelCard, path: &Path) -> Result<ModelFile, EngineError> {
    Ok(match card.architecture {
        Architecture::Onnx(_) => ModelFile::Onnx(read_file(&card.name, path)?),
        Architecture::Torchscript => ModelFile::Torchscript(read_file(&card.name, path)?),
        _ => ModelFile::Tensors(Weights::read(&card.name, path)?),
    })
}

fn expect_digest(card: &ModelCard, path: &Path, found: &str) -> Result<(), EngineError> {
    if found == card.weights.content_sha256 {
        return Ok(());
    }
    Err(EngineError::WrongDigest {
        model: card.name.clone(),
        path: path.to_owned(),
        expected: card.weights.content_sha256.clone(),
        found: found.to_owned(),
    })
}

/// Builds the engine, without its canary.
fn build(
    card: &ModelCard,
    path: &Path,
    file: &ModelFile,
    choice: EngineChoice,
    threads: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    if let Some(head) = crate::head::shape(card) {
        return Err(EngineError::NoBase {
            model: card.name.clone(),
            base: head.base.name.clone(),
        });
    }
    match (choice, file) {
        (EngineChoice::Auto | EngineChoice::Native, ModelFile::Tensors(weights)) => {
            Ok(Box::new(NativeEngine::new(card, weights, threads.max(1))?))
        }
        (EngineChoice::Wgpu { adapter, half }, ModelFile::Tensors(weights)) => {
            Ok(Box::new(WgpuEngine::new(card, weights, &adapter, half)?))
        }
        (EngineChoice::Shared { gpu, half }, ModelFile::Tensors(weights)) => {
            Ok(Box::new(WgpuEngine::sharing(card, weights, gpu, half)?))
        }
        #[cfg(feature = "onnx")]
        (EngineChoice::OnnxRuntime { library, provider }, ModelFile::Onnx(graph)) => {
            let engine = OnnxEngine::new(card, path, graph, &library, provider, threads.max(1))?;
            Ok(Box::new(engine))
        }
        #[cfg(not(feature = "onnx"))]
        (EngineChoice::OnnxRuntime { .. }, ModelFile::Onnx(_)) => Err(not_built(card, path, "onnx")),
        #[cfg(feature = "libtorch")]
        (EngineChoice::Libtorch { device, half }, ModelFile::Torchscript(module)) => {
            let engine = LibtorchEngine::new(card, path, module, device, half, threads.max(1))?;
            Ok(Box::new(engine))
        }
        #[cfg(not(feature = "libtorch"))]
        (EngineChoice::Libtorch { .. }, ModelFile::Torchscript(_)) => Err(not_built(card, path, "libtorch")),
        (_, file) => {
            let (found, needs) = match file {
                ModelFile::Tensors(_) => (
                    "a network",
                    "choose the native engine or wgpu, which run networks",
                ),
                ModelFile::Onnx(_) => ("onnx", "choose ONNX Runtime, which runs ONNX files: engine onnx"),
                ModelFile::Torchscript(_) => (
                    "torchscript",
                    "choose libtorch, which runs TorchScript modules: engine libtorch",
                ),
            };
            Err(EngineError::Card {
                model: card.name.clone(),
                field: "architecture",
                found: found.to_owned(),
                needs,
            })
        }
    }
}

/// The engine is known, but not part of this build.
#[cfg(not(all(feature = "onnx", feature = "libtorch")))]
fn not_built(card: &ModelCard, path: &Path, feature: &'static str) -> EngineError {
    EngineError::NotBuilt {
        model: card.name.clone(),
        path: path.to_owned(),
        feature,
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
