//! A safetensors file: read whole, checked, and looked up by tensor name.
//!
//! Enters: a path or bytes. Leaves: f32 tensors of an expected shape, and the digest of the content. Fails with
//! [`WeightsError`]. Nothing is allocated on the word of the header: the file is bounded before it is read, and a
//! tensor is copied only once its bytes are known to be there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::error::EngineError;

/// The largest weights file accepted, bytes: far above any network here, far below what exhausts a machine.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// What is wrong with a weights file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file is larger than any model here.
    #[error("the file has {bytes} bytes, more than the {limit} a weights file may have")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The header or the layout is not that of safetensors.
    #[error(
        "not a whole safetensors file ({reason}): it is truncated, damaged or of another format; fetch it again"
    )]
    Malformed {
        /// What the parser said.
        reason: String,
        /// Bytes in the file.
        bytes: usize,
    },
    /// A tensor the network needs is absent.
    #[error("tensor {tensor} is missing")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape than the network needs.
    #[error("tensor {tensor} has shape {found:?}, the network needs {expected:?}")]
    WrongShape {
        /// Its name.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape of the network.
        expected: Vec<usize>,
    },
    /// A tensor is not of 32-bit floats.
    #[error("tensor {tensor} holds {found}, the network needs F32")]
    WrongType {
        /// Its name.
        tensor: String,
        /// Type in the file.
        found: String,
    },
    /// A tensor holds NaN or infinity, or a batch norm's variance is negative.
    #[error("tensor {tensor} holds {value} at position {offset}, which no trained network can")]
    BadValue {
        /// Its name.
        tensor: String,
        /// Index in the tensor.
        offset: usize,
        /// The value, as text.
        value: String,
    },
}

/// The bytes of a safetensors file whose header has been checked.
pub(crate) struct Weights {
    path: std::path::PathBuf,
    bytes: Vec<u8>,
}

impl Weights {
    /// Reads and checks the file.
    pub(crate) fn read(model: &str, path: &Path) -> Result<Self, EngineError> {
        let unreadable = |source| EngineError::Unreadable {
            model: model.to_owned(),
            path: path.to_owned(),
            source,
        };
        let wrap = |source| EngineError::Weights {
            model: model.to_owned(),
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if length > MAX_FILE_BYTES {
            return Err(wrap(WeightsError::TooLarge {
                bytes: length,
                limit: MAX_FILE_BYTES,
            }));
        }
        let mut bytes = Vec::with_capacity(length as usize);
        // The limit holds even for a file that grows while it is read.
        file.take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        parse(&bytes).map_err(wrap)?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
        })
    }

    /// The content digest; see [`content_digest`].
    pub(crate) fn digest(&self) -> String {
        // The header parsed when the file was read, so the error cannot occur; an empty digest matches no card.
        content_digest(&self.bytes).unwrap_or_default()
    }

    /// The tensors by name.
    pub(crate) fn tensors(&self) -> Result<Tensors<'_>, WeightsError> {
        Ok(Tensors {
            file: parse(&self.bytes)?,
        })
    }

    /// Where the bytes came from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Checked access to f32 tensors by name.
pub(crate) struct Tensors<'a> {
    file: SafeTensors<'a>,
}

impl Tensors<'_> {
    /// The values of `tensor`, row-major, all finite, if it is F32 of exactly `shape`.
    pub(crate) fn f32(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let view = self.file.tensor(tensor).map_err(|_| WeightsError::Missing {
            tensor: tensor.to_owned(),
        })?;
        if view.dtype() != Dtype::F32 {
            return Err(WeightsError::WrongType {
                tensor: tensor.to_owned(),
                found: format!("{:?}", view.dtype()),
            });
        }
        if view.shape() != shape {
            return Err(WeightsError::WrongShape {
                tensor: tensor.to_owned(),
                found: view.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        let values: Vec<f32> = view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&four| f32::from_le_bytes(four))
            .collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(offset) => Err(WeightsError::BadValue {
                tensor: tensor.to_owned(),
                offset,
                value: values[offset].to_string(),
            }),
            None => Ok(values),
        }
    }
}

/// Parses the header and checks that it covers the data exactly.
fn parse(bytes: &[u8]) -> Result<SafeTensors<'_>, WeightsError> {
    SafeTensors::deserialize(bytes).map_err(|error| WeightsError::Malformed {
        reason: error.to_string(),
        bytes: bytes.len(),
    })
}

/// SHA-256 of the content of a safetensors file, lower-case hex: over the tensors in the order of their names, for
/// each the name, the type, the shape and the data, every text and every block preceded by its length and every
/// number as 64 bits, little-endian. Comments and order of the header do not enter.
///
/// # Errors
/// [`WeightsError::Malformed`] where `bytes` is no safetensors file.
pub fn content_digest(bytes: &[u8]) -> Result<String, WeightsError> {
    let file = parse(bytes)?;
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, n: usize| hash.update((n as u64).to_le_bytes());
    for (name, view) in tensors {
        let dtype = format!("{:?}", view.dtype());
        for text in [name, &dtype] {
            number(&mut hash, text.len());
            hash.update(text.as_bytes());
        }
        number(&mut hash, view.shape().len());
        for &dimension in view.shape() {
            number(&mut hash, dimension);
        }
        number(&mut hash, view.data().len());
        hash.update(view.data());
    }
    Ok(hex(&hash.finalize()))
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
