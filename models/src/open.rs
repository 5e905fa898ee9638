//! Opening a model, and completing the card of one.
//!
//! Enters: a card, the path of its weights, a choice of engine. Leaves: an engine that has proved itself on the
//! card's canary; or a card with the digest of its weights and its canary's embedding. Fails with [`EngineError`].

use std::borrow::Cow;
use std::path::Path;

use crate::architecture::Architecture;
use crate::canary;
use crate::card::ModelCard;
use crate::choice::{EngineChoice, check_engine, wrong_engine};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::gpu::WgpuEngine;
use crate::head::{Base, HeadEngine, check_base, check_names};
#[cfg(feature = "libtorch")]
use crate::libtorch::LibtorchEngine;
use crate::native::NativeEngine;
#[cfg(feature = "onnx")]
use crate::onnx::OnnxEngine;
use crate::weights::{Weights, WeightsError, content_digest, read_file, sha256};

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
