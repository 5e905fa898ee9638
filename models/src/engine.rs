//! The engine contract, and opening a model.
//!
//! Enters: a card, the path of its weights, a choice of engine. Leaves: an engine that has proved itself on the
//! card's canary. Fails with [`EngineError`]; there is no fallback from one engine to another.

use std::borrow::Cow;
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

impl EngineChoice {
    /// Which engine it is, whatever it runs on.
    pub fn kind(&self) -> EngineKind {
        match self {
            Self::Auto => EngineKind::Auto,
            Self::Native => EngineKind::Native,
            Self::Wgpu { .. } | Self::Shared { .. } => EngineKind::Wgpu,
            Self::OnnxRuntime { .. } => EngineKind::Onnx,
            Self::Libtorch { .. } => EngineKind::Libtorch,
        }
    }
}

/// An engine, whatever it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// The native one.
    Auto,
    /// The native engine on the CPU.
    Native,
    /// The native engine on a graphics device.
    Wgpu,
    /// ONNX Runtime.
    Onnx,
    /// libtorch.
    Libtorch,
}

impl EngineKind {
    /// For messages.
    pub(crate) fn what_it_runs(self) -> &'static str {
        match self {
            Self::Auto => "auto stands for native, which runs networks of Wellspring's own layers",
            Self::Native => "native runs networks of Wellspring's own layers",
            Self::Wgpu => "wgpu runs networks of Wellspring's own layers",
            Self::Onnx => "onnx runs ONNX files",
            Self::Libtorch => "libtorch runs TorchScript modules",
        }
    }
}

/// Whether an engine of this build runs models of an architecture, which takes no weights to know. A head is run by what
/// runs its base.
///
/// # Errors
/// [`EngineError::WrongEngine`], [`EngineError::NotBuilt`].
pub fn check_engine(model: &str, architecture: &Architecture, engine: EngineKind) -> Result<(), EngineError> {
    let fits = match architecture {
        Architecture::Head(_) => return Ok(()),
        Architecture::Onnx(_) => engine == EngineKind::Onnx,
        Architecture::Torchscript => engine == EngineKind::Libtorch,
        _ => matches!(engine, EngineKind::Auto | EngineKind::Native | EngineKind::Wgpu),
    };
    if !fits {
        return Err(wrong_engine(model, architecture, engine));
    }
    let (built, feature) = match engine {
        EngineKind::Onnx => (cfg!(feature = "onnx"), "onnx"),
        EngineKind::Libtorch => (cfg!(feature = "libtorch"), "libtorch"),
        _ => (true, ""),
    };
    if built {
        Ok(())
    } else {
        let model = model.to_owned();
        Err(EngineError::NotBuilt { model, feature })
    }
}

fn wrong_engine(model: &str, architecture: &Architecture, engine: EngineKind) -> EngineError {
    let (kind, runs) = match architecture {
        Architecture::Onnx(_) => ("an ONNX file", "the engine onnx runs it"),
        Architecture::Torchscript => ("a TorchScript module", "the engine libtorch runs it"),
        _ => (
            "a network of Wellspring's own layers",
            "the engines native and wgpu run it",
        ),
    };
    EngineError::WrongEngine {
        model: model.to_owned(),
        kind,
        runs,
        engine,
    }
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
    let file = ModelFile::read(card, path)?;
    let mut engine = match file.content {
        // The engines of other frameworks get no bytes but the card's.
        Content::Graph(_) => {
            expect_digest(card, file.path, &file.digest())?;
            build(card, &file, choice, threads)?
        }
        // Tensors of whatever origin are checked one by one, so the digest is taken meanwhile: it is a third of the time.
        Content::Tensors(_) => {
            let built = || build(card, &file, choice, threads);
            let (digest, engine) = rayon::join(|| file.digest(), built);
            expect_digest(card, file.path, &digest)?;
            engine?
        }
    };
    canary::check(engine.as_mut())?;
    Ok(engine)
}

/// Completes the card of a model whose weights the user brings: the digest of the file, and the embedding of the canary
/// by `choice`. What the card has of the two already must be what is found. The card that comes back opens with these
/// weights and no others.
///
/// # Errors
/// As [`open`]: a card that contradicts the weights, weights that are no such network's. Besides
/// [`EngineError::OtherWeights`] where the card names another digest, [`EngineError::Constant`] for weights that tell no
/// image from another, and [`WeightsError::Unused`] for tensors that the network of the card has no use for.
pub fn complete(
    card: ModelCard,
    weights: impl AsRef<Path>,
    choice: EngineChoice,
) -> Result<ModelCard, EngineError> {
    let path = weights.as_ref();
    let bytes = read_file(&card, path)?;
    complete_bytes(card, path, &bytes, choice)
}

/// As [`complete`], for the bytes of a model's file that came of the file at `path`.
///
/// # Errors
/// As [`complete`].
pub fn complete_bytes(
    mut card: ModelCard,
    path: &Path,
    bytes: &[u8],
    choice: EngineChoice,
) -> Result<ModelCard, EngineError> {
    check_engine(&card.name, &card.architecture, choice.kind())?;
    let file = ModelFile::of(&card, path, bytes)?;
    fill_digest(&mut card, path, file.digest())?;
    let mut engine = build(&card, &file, choice, 1)?;
    if let Content::Tensors(weights) = &file.content {
        check_used(&card, weights)?;
    }
    fill_canary(&mut card, path, engine.as_mut())?;
    Ok(card)
}

/// Puts the digest on a card that has none; refuses one that has another.
fn fill_digest(card: &mut ModelCard, path: &Path, found: String) -> Result<(), EngineError> {
    let model = card.name.clone();
    let refuse = |field, found: String, needs: &'static str| EngineError::Card {
        model: model.clone(),
        field,
        found,
        needs: needs.into(),
    };
    if card.version.trim().is_empty() {
        return Err(refuse(
            "version",
            "nothing".to_owned(),
            "it tells this model from a later one: 1, for instance",
        ));
    }
    let expected = &mut card.weights.content_sha256;
    if expected.is_empty() {
        *expected = found;
        return Ok(());
    }
    if expected.len() != found.len() || !expected.bytes().all(is_hex) {
        return Err(refuse(
            "weights.content_sha256",
            expected.clone(),
            "it is 64 digits of 0-9 and a-f, or empty to be filled in",
        ));
    }
    if *expected == found {
        return Ok(());
    }
    Err(EngineError::OtherWeights {
        model,
        path: path.to_owned(),
        expected: expected.clone(),
        found,
    })
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Refuses what the network that was built from `weights` left over.
fn check_used(card: &ModelCard, weights: &Weights<'_>) -> Result<(), EngineError> {
    let checked = weights.check_used(&card.weights);
    checked.map_err(|source| EngineError::Weights {
        model: card.name.clone(),
        path: weights.path().to_owned(),
        source,
    })
}

/// Puts the embedding of the canary on a card that has none; refuses one that has another.
fn fill_canary(card: &mut ModelCard, path: &Path, engine: &mut dyn Engine) -> Result<(), EngineError> {
    let found = engine.embed(&canary::batch(card)?)?.data;
    if let Some(&value) = found.first()
        && found.iter().all(|v| *v == value)
        // One value alone is the same as itself.
        && (found.len() > 1 || value == 0.0)
    {
        return Err(EngineError::Constant {
            model: card.name.clone(),
            path: path.to_owned(),
            value,
        });
    }
    if card.canary.embedding.is_empty() {
        card.canary.embedding = found;
        return Ok(());
    }
    canary::check(engine)
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
    let file = Weights::read(card, path)?;
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
    let file = Weights::read(card, path)?;
    expect_digest(card, path, &file.digest())?;
    check_names(card, &file)?;
    check_base(card, base)?;
    expect_canary(card)
}

/// Completes the card of a head as [`complete`] does that of a network.
///
/// # Errors
/// As [`complete`] and [`open_head`], and [`EngineError::OtherVersion`] where the version carries the digest of other numbers.
pub fn complete_head(
    card: ModelCard,
    weights: impl AsRef<Path>,
    base: Base<'_>,
    choice: EngineChoice,
) -> Result<ModelCard, EngineError> {
    let path = weights.as_ref();
    let bytes = read_file(&card, path)?;
    complete_head_bytes(card, path, &bytes, base, choice)
}

/// As [`complete_head`], for the bytes of a head's file that came of the file at `path`.
///
/// # Errors
/// As [`complete_head`].
pub fn complete_head_bytes(
    mut card: ModelCard,
    path: &Path,
    bytes: &[u8],
    base: Base<'_>,
    choice: EngineChoice,
) -> Result<ModelCard, EngineError> {
    let file = Weights::of(&card, path, bytes)?;
    let digest = file.digest();
    let carried = card.version.strip_prefix("1-");
    let carried = carried.filter(|end| end.len() == VERSION_DIGITS && end.bytes().all(is_hex));
    if carried.is_some_and(|end| !digest.starts_with(end)) {
        return Err(EngineError::OtherVersion {
            model: card.name.clone(),
            path: path.to_owned(),
            version: card.version.clone(),
            found: digest,
        });
    }
    fill_digest(&mut card, path, digest)?;
    let mut engine = HeadEngine::new(&card, &file, open(base.card, base.weights, choice, 1)?)?;
    check_used(&card, &file)?;
    fill_canary(&mut card, path, &mut engine)?;
    Ok(card)
}

/// Digits of its digest that the version of a fitted head ends with, after `1-`.
const VERSION_DIGITS: usize = 8;

/// Checks a weights file against its card without building an engine: size, header and content digest.
///
/// # Errors
/// [`EngineError::Unreadable`], [`EngineError::Weights`], [`EngineError::WrongDigest`], and
/// [`EngineError::CanaryLength`] for a card without the embedding of its canary.
pub fn verify(card: &ModelCard, weights: impl AsRef<Path>) -> Result<(), EngineError> {
    let path = weights.as_ref();
    expect_digest(card, path, &ModelFile::read(card, path)?.digest())?;
    expect_canary(card)
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

/// The file of a model.
struct ModelFile<'a> {
    path: &'a Path,
    content: Content<'a>,
}

/// The bytes of a model.
enum Content<'a> {
    Tensors(Weights<'a>),
    /// What an engine of another framework takes as it is.
    Graph(Cow<'a, [u8]>),
}

impl<'a> ModelFile<'a> {
    /// Reads the file of a model.
    fn read(card: &ModelCard, path: &'a Path) -> Result<Self, EngineError> {
        let content = match card.architecture {
            Architecture::Onnx(_) | Architecture::Torchscript => {
                Content::Graph(Cow::Owned(read_file(card, path)?))
            }
            _ => Content::Tensors(Weights::read(card, path)?),
        };
        Ok(Self { path, content })
    }

    /// The same with bytes that are there already.
    fn of(card: &ModelCard, path: &'a Path, bytes: &'a [u8]) -> Result<Self, EngineError> {
        let content = match card.architecture {
            Architecture::Onnx(_) | Architecture::Torchscript => Content::Graph(Cow::Borrowed(bytes)),
            _ => Content::Tensors(Weights::of(card, path, bytes)?),
        };
        Ok(Self { path, content })
    }

    fn digest(&self) -> String {
        match &self.content {
            Content::Tensors(weights) => weights.digest(),
            Content::Graph(bytes) => sha256(bytes),
        }
    }
}

fn expect_digest(card: &ModelCard, path: &Path, found: &str) -> Result<(), EngineError> {
    if found == card.weights.content_sha256 {
        return Ok(());
    }
    Err(EngineError::WrongDigest {
        model: card.name.clone(),
        path: path.to_owned(),
        packaged: card.weights.package.is_some(),
        expected: card.weights.content_sha256.clone(),
        found: found.to_owned(),
    })
}

/// Refuses a card whose canary proves nothing.
fn expect_canary(card: &ModelCard) -> Result<(), EngineError> {
    if !card.canary.embedding.is_empty() {
        return Ok(());
    }
    Err(EngineError::CanaryLength {
        model: card.name.clone(),
        found: card.item_width(card.canary_channels()),
        card: 0,
    })
}

/// Builds the engine, without its canary.
fn build(
    card: &ModelCard,
    file: &ModelFile<'_>,
    choice: EngineChoice,
    threads: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    if let Some(head) = crate::head::shape(card) {
        return Err(EngineError::NoBase {
            model: card.name.clone(),
            base: head.base.name.clone(),
        });
    }
    let kind = choice.kind();
    check_engine(&card.name, &card.architecture, kind)?;
    match (choice, &file.content) {
        (EngineChoice::Auto | EngineChoice::Native, Content::Tensors(weights)) => {
            Ok(Box::new(NativeEngine::new(card, weights, threads.max(1))?))
        }
        (EngineChoice::Wgpu { adapter, half }, Content::Tensors(weights)) => {
            Ok(Box::new(WgpuEngine::new(card, weights, &adapter, half)?))
        }
        (EngineChoice::Shared { gpu, half }, Content::Tensors(weights)) => {
            Ok(Box::new(WgpuEngine::sharing(card, weights, gpu, half)?))
        }
        #[cfg(feature = "onnx")]
        (EngineChoice::OnnxRuntime { library, provider }, Content::Graph(graph)) => {
            let engine = OnnxEngine::new(card, file.path, graph, &library, provider, threads.max(1))?;
            Ok(Box::new(engine))
        }
        #[cfg(feature = "libtorch")]
        (EngineChoice::Libtorch { device, half }, Content::Graph(module)) => {
            let engine = LibtorchEngine::new(card, file.path, module, device, half, threads.max(1))?;
            Ok(Box::new(engine))
        }
        _ => Err(wrong_engine(&card.name, &card.architecture, kind)),
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
