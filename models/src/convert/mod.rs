//! Published checkpoints to safetensors.
//!
//! Enters: the bytes of a legacy (non-zip) PyTorch checkpoint. Leaves: the bytes of a safetensors file with the
//! same tensors. Fails with [`ConvertError`], which names the byte where the checkpoint stopped making sense.

use thiserror::Error;

/// Why a checkpoint was not converted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Placeholder
    #[error("at byte {offset}")]
    Truncated {
        /// Where.
        offset: usize,
    },
}

/// Converts a legacy (non-zip) PyTorch checkpoint to safetensors.
///
/// # Errors
/// [`ConvertError`].
pub fn convert_legacy_checkpoint(bytes: &[u8]) -> Result<Vec<u8>, ConvertError> {
    Err(ConvertError::Truncated { offset: bytes.len() })
}
