//! Why a checkpoint was not converted.

use thiserror::Error;

/// Why a checkpoint was not converted. `offset` is the byte of the checkpoint at which it stopped making sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The checkpoint ends too early.
    #[error(
        "the checkpoint ends at byte {offset}, where {needed} more bytes are needed for {what}: fetch it again"
    )]
    Truncated {
        /// Where it ends.
        offset: usize,
        /// What was being read.
        what: &'static str,
        /// How many bytes are missing.
        needed: usize,
    },
    /// The file is no PyTorch checkpoint.
    #[error("byte {offset}: not a PyTorch checkpoint: {what} is {found}, expected {expected}")]
    NotACheckpoint {
        /// Where.
        offset: usize,
        /// Which part of the preamble.
        what: &'static str,
        /// What is there.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// An opcode that state dictionaries do not need.
    #[error(
        "byte {offset}: pickle opcode 0x{opcode:02x} is not one a state dictionary uses; it is not executed"
    )]
    Opcode {
        /// Where.
        offset: usize,
        /// The opcode.
        opcode: u8,
    },
    /// A name from a module that state dictionaries do not need.
    #[error(
        "byte {offset}: the pickle asks for {name}, which is not part of a state dictionary; it is not loaded. Where a \
         whole module was saved, save its state dictionary: torch.save(model.state_dict(), FILE)"
    )]
    Global {
        /// Where.
        offset: usize,
        /// The module and the name.
        name: String,
    },
    /// The pickle takes what is not on its stack, or something of another kind.
    #[error("byte {offset}: the pickle holds {found} where {expected} is needed")]
    Unexpected {
        /// Where.
        offset: usize,
        /// What is there.
        found: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// The zip archive of a checkpoint cannot be read.
    #[error("the checkpoint's archive cannot be read at {entry}: {reason}; fetch the checkpoint again")]
    Archive {
        /// Which entry, or `the directory`.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bound that protects this program was reached.
    #[error("byte {offset}: {what} exceeds the limit of {limit}")]
    Limit {
        /// Where.
        offset: usize,
        /// What is too large.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A tensor reads outside its storage, or its shape and strides disagree.
    #[error("tensor {tensor} (byte {offset}): {reason}")]
    Tensor {
        /// Where the tensor is described.
        offset: usize,
        /// Its name, empty where it has none yet.
        tensor: String,
        /// What is wrong.
        reason: TensorFault,
    },
    /// The converted tensors could not be written as safetensors.
    #[error("the converted tensors cannot be written as safetensors: {reason}")]
    Write {
        /// What the writer said.
        reason: String,
    },
}

/// What is wrong with a tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TensorFault {
    /// Its name is used twice.
    #[error("its name is used twice")]
    Duplicate,
    /// Shape and strides have different lengths.
    #[error("{shape} dimensions but {strides} strides")]
    Rank {
        /// Number of dimensions.
        shape: usize,
        /// Number of strides.
        strides: usize,
    },
    /// The tensor reads outside its storage.
    #[error("it reads element {last} of a storage of {elements}")]
    OutOfStorage {
        /// Largest element it reads (`u64::MAX` where it overflows).
        last: u64,
        /// Elements in the storage.
        elements: u64,
    },
    /// The checkpoint carries no data for its storage.
    #[error("the checkpoint carries no data for storage {key:?}")]
    NoStorage {
        /// Key of the storage.
        key: String,
    },
    /// Its storage is described twice, differently.
    #[error("storage {key:?} is described twice with different types or sizes")]
    TwoStorages {
        /// Key of the storage.
        key: String,
    },
}
