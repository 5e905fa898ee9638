//! Alignments in files: read from where the screen says, kept in the folder of the results under their hash.
//!
//! A path or a fitted alignment enters; the alignment or its hash leaves. Fails where a file cannot be read or written,
//! and on one that is no alignment of this version, or was changed.

use std::path::{Path, PathBuf};

use wellspring_workloads::align::{FittedTransform, SavedError};

use crate::results::{AtomicFile, WriteError};

/// The folder of alignments in an output folder.
pub const FOLDER: &str = "transforms";

/// An alignment cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The file cannot be read.
    #[error("the transform '{}' cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no alignment that can be used.
    #[error("the transform '{}' cannot be used: {source}", .path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SavedError,
    },
    /// The folder cannot be made.
    #[error("the folder '{}' cannot be made: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be put into words.
    #[error("the alignment cannot be kept: {0}")]
    Unsaved(#[from] SavedError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads the alignment that a screen names; `None` where it names none.
///
/// # Errors
/// [`TransformError::Read`] and [`TransformError::Saved`].
pub fn read_transform(path: &str) -> Result<Option<FittedTransform>, TransformError> {
    if path.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(path);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(TransformError::Read { path, source }),
    };
    match FittedTransform::from_json(&bytes) {
        Ok(transform) => Ok(Some(transform)),
        Err(source) => Err(TransformError::Saved { path, source }),
    }
}

/// Writes an alignment into `out` as `transforms/<sha256>.json` and gives its hash.
///
/// # Errors
/// [`TransformError::Folder`], [`TransformError::Unsaved`] and [`TransformError::Write`].
pub fn keep_transform(out: &Path, transform: &FittedTransform) -> Result<String, TransformError> {
    let folder = out.join(FOLDER);
    if let Err(source) = std::fs::create_dir_all(&folder) {
        let path = folder;
        return Err(TransformError::Folder { path, source });
    }
    let hash = transform.sha256()?;
    AtomicFile::write(&folder.join(format!("{hash}.json")), &transform.to_json()?)?;
    Ok(hash)
}
