//! Published checkpoints to safetensors.
//!
//! Enters: the bytes of a PyTorch checkpoint of a state dictionary, in either format. Legacy: five pickles (magic number,
//! protocol, machine, dictionary, storage keys) followed by the storages, each a 64-bit element count and its data. Zip
//! (since PyTorch 1.6): a stored archive of one pickle and a file per storage. Leaves: the bytes of a safetensors file with
//! the same tensors. Fails with [`ConvertError`], which names the byte where the checkpoint stopped making sense. Nothing
//! of a pickle is ever executed.

mod archive;
mod error;
mod pickle;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{HashMap, HashSet};

use safetensors::Dtype;
use safetensors::tensor::TensorView;

pub use self::error::{ConvertError, TensorFault};
use self::pickle::Reader;
use self::value::{Element, Tensor, Value};
use crate::weights::TRAINING_COUNTER;

/// The magic number of legacy checkpoints, 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether `bytes` begin a checkpoint of PyTorch's older format: a pickle of its magic number, as an integer of ten bytes.
pub fn begins_legacy_checkpoint(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, _, 0x8a, 0x0a, rest @ ..] if rest.starts_with(&MAGIC))
}

/// The version of the format after the magic number.
const PROTOCOL: i64 = 1001;

/// Converted bytes allowed per byte of checkpoint. One is what a plain checkpoint needs; two leaves room for tied
/// weights, and a checkpoint that names one storage a million times cannot fill the memory.
const MAX_GROWTH: u64 = 2;

/// What wrappers of PyTorch put before every name: `DataParallel` and its like, and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Dictionaries within dictionaries: a checkpoint keeps its state dictionary one or two deep.
const MAX_NESTING: usize = 8;

/// Converts a PyTorch checkpoint to safetensors: the same names, shapes and values, each tensor row-major, without the
/// training counters (`num_batches_tracked`). Where all tensors lie in one dictionary within the checkpoint's (`state_dict`,
/// `model`), they have the names they have there; where they lie in several, the names on the way to them are joined by
/// dots. `module.` and `_orig_mod.`, which wrappers put before all names, are taken off. What is no tensor beside such dictionaries (an epoch, a learning rate) is left out.
///
/// # Errors
/// [`ConvertError`] for anything but a whole, well-formed checkpoint of dictionaries of tensors.
pub fn convert_checkpoint(bytes: &[u8]) -> Result<Vec<u8>, ConvertError> {
    if bytes.starts_with(b"PK") {
        return archive::convert(bytes);
    }
    let mut at = preamble(bytes)?;
    let mut reader = Reader::new(bytes, at);
    let described = tensors(&mut reader)?;
    at = reader.position();
    let storages = storages(bytes, at, &described)?;
    write(bytes.len(), &described, &storages)
}

/// The described tensors as the bytes of a safetensors file. `length` is that of the checkpoint.
fn write(
    length: usize,
    described: &[(String, Tensor)],
    storages: &HashMap<&str, &[u8]>,
) -> Result<Vec<u8>, ConvertError> {
    let limit = (length as u64).saturating_mul(MAX_GROWTH);
    let mut total = 0u64;
    let mut converted = Vec::with_capacity(described.len());
    for (name, tensor) in described {
        if name.rsplit('.').next() == Some(TRAINING_COUNTER) {
            continue;
        }
        let size = size_in_bytes(name, tensor)?;
        total = total.saturating_add(size);
        if total > limit {
            return Err(ConvertError::Limit {
                offset: tensor.offset,
                what: "the size of all tensors",
                limit,
            });
        }
        let data = storages.get(&*tensor.storage.key).copied().ok_or_else(|| {
            let key = tensor.storage.key.to_string();
            fault(name, tensor, TensorFault::NoStorage { key })
        })?;
        let shape: Vec<usize> = tensor.shape.iter().map(|&n| n as usize).collect();
        converted.push((
            name,
            dtype(tensor.storage.element),
            shape,
            gather(tensor, data, size),
        ));
    }
    let write = |error: safetensors::SafeTensorError| ConvertError::Write {
        reason: error.to_string(),
    };
    let views = converted
        .iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(write)?;
    safetensors::serialize(views, None).map_err(write)
}

/// Checks the first three pickles and returns where the fourth begins.
fn preamble(bytes: &[u8]) -> Result<usize, ConvertError> {
    let refuse = |offset, what, found: &'static str, expected| {
        Err(ConvertError::NotACheckpoint {
            offset,
            what,
            found: found.to_owned(),
            expected,
        })
    };
    let mut reader = Reader::new(bytes, 0);
    match reader.read()? {
        Value::Long(magic) if *magic == MAGIC => {}
        other => return refuse(0, "the magic number", other.kind(), "0x1950a86a20f9469cfc6c"),
    }
    let at = reader.position();
    let mut reader = Reader::new(bytes, at);
    match reader.read()? {
        Value::Int(PROTOCOL) => {}
        other => return refuse(at, "the version", other.kind(), "1001"),
    }
    let at = reader.position();
    let mut reader = Reader::new(bytes, at);
    let Value::Dict(machine) = reader.read()? else {
        return refuse(at, "the machine", "something else", "a dictionary");
    };
    let little = reader
        .dict(machine)
        .iter()
        .any(|entry| matches!(entry, (Value::Text(key), Value::Bool(true)) if &**key == "little_endian"));
    if !little {
        return refuse(at, "the byte order", "not little-endian", "little-endian");
    }
    Ok(reader.position())
}

/// The tensors of the state dictionary and of the dictionaries in it, in their order.
fn tensors(reader: &mut Reader<'_>) -> Result<Vec<(String, Tensor)>, ConvertError> {
    let offset = reader.position();
    let unexpected = |value: &Value, expected| {
        Err(ConvertError::Unexpected {
            offset,
            found: value.kind(),
            expected,
        })
    };
    let dict = match reader.read()? {
        Value::Dict(number) => number,
        other => return unexpected(&other, "a state dictionary"),
    };
    let mut described = Vec::new();
    let mut names = HashSet::new();
    // Each dictionary is taken up once, so that one that holds itself does not go on for ever.
    let mut seen = HashSet::from([dict]);
    let mut waiting = vec![(String::new(), dict, 0)];
    let mut within = Vec::new();
    while let Some((prefix, dict, depth)) = waiting.pop() {
        if depth > MAX_NESTING {
            return Err(ConvertError::Limit {
                offset,
                what: "the nesting of dictionaries",
                limit: MAX_NESTING as u64,
            });
        }
        let entries = reader.dict(dict);
        let holds_dicts = entries.iter().any(|(_, value)| matches!(value, Value::Dict(_)));
        for entry in entries {
            match entry {
                (Value::Text(name), Value::Tensor(tensor)) => {
                    let name = format!("{prefix}{name}");
                    if !names.insert(name.clone()) {
                        return Err(fault(&name, tensor, TensorFault::Duplicate));
                    }
                    described.push((name, (**tensor).clone()));
                }
                (Value::Text(name), Value::Dict(inner)) => {
                    if seen.insert(*inner) {
                        waiting.push((format!("{prefix}{name}."), *inner, depth + 1));
                        if depth == 0 {
                            within.push(format!("{name}."));
                        }
                    }
                }
                // Beside a state dictionary lies what training kept.
                _ if holds_dicts || depth > 0 => {}
                (Value::Text(_), other) => return unexpected(other, "a tensor"),
                (other, _) => return unexpected(other, "the name of a tensor"),
            }
        }
    }
    // One state dictionary within the checkpoint: its names are the names.
    let only = |prefix: &&String| described.iter().all(|(name, _)| name.starts_with(&***prefix));
    if let Some(prefix) = within.iter().find(only).map(String::len) {
        for (name, _) in &mut described {
            name.drain(..prefix);
        }
    }
    while let Some(wrapper) = wrapper(&described) {
        for (name, _) in &mut described {
            name.drain(..wrapper.len());
        }
    }
    Ok(described)
}

/// The wrapper's word that all names begin with, if there is one.
fn wrapper(described: &[(String, Tensor)]) -> Option<&'static str> {
    let all = |word: &&str| described.iter().all(|(name, _)| name.starts_with(word));
    WRAPPERS.into_iter().find(all).filter(|_| !described.is_empty())
}

/// Checks that a storage that several tensors use is the same for all. Returns the type and size of each.
fn known_storages(described: &[(String, Tensor)]) -> Result<HashMap<&str, (Element, u64)>, ConvertError> {
    let mut known = HashMap::new();
    for (name, tensor) in described {
        let storage = &tensor.storage;
        let kind = (storage.element, storage.elements);
        if *known.entry(&*storage.key).or_insert(kind) != kind {
            return Err(fault(
                name,
                tensor,
                TensorFault::TwoStorages {
                    key: storage.key.to_string(),
                },
            ));
        }
    }
    Ok(known)
}

/// The data of each storage of a legacy checkpoint.
fn storages<'t>(
    bytes: &'t [u8],
    at: usize,
    described: &'t [(String, Tensor)],
) -> Result<HashMap<&'t str, &'t [u8]>, ConvertError> {
    let known = known_storages(described)?;
    let mut reader = Reader::new(bytes, at);
    let Value::List(list) = reader.read()? else {
        return Err(ConvertError::Unexpected {
            offset: at,
            found: "something else",
            expected: "the list of storage keys",
        });
    };
    let mut at = reader.position();
    let mut found = HashMap::new();
    for key in reader.list(list) {
        let Value::Text(key) = key else {
            return Err(ConvertError::Unexpected {
                offset: at,
                found: key.kind(),
                expected: "a storage key",
            });
        };
        let truncated = |needed: usize| ConvertError::Truncated {
            offset: bytes.len(),
            what: "a storage",
            needed: needed - (bytes.len() - at),
        };
        let count = bytes.get(at..at + 8).ok_or_else(|| truncated(8))?;
        let count = u64::from_le_bytes([
            count[0], count[1], count[2], count[3], count[4], count[5], count[6], count[7],
        ]);
        let Some((&own, &(element, elements))) = known.get_key_value(&**key) else {
            return Err(ConvertError::Unexpected {
                offset: at,
                found: "the data of an unknown storage",
                expected: "that of a storage some tensor uses",
            });
        };
        if count != elements {
            return Err(ConvertError::NotACheckpoint {
                offset: at,
                what: "the element count of a storage",
                found: count.to_string(),
                expected: "the count its tensor gives",
            });
        }
        let start = at + 8;
        let left = (bytes.len() - start) as u64;
        let needed = count.saturating_mul(element.bytes() as u64);
        if needed > left {
            return Err(ConvertError::Truncated {
                offset: bytes.len(),
                what: "a storage",
                needed: usize::try_from(needed - left).unwrap_or(usize::MAX),
            });
        }
        at = start + needed as usize;
        found.insert(own, &bytes[start..at]);
    }
    Ok(found)
}

/// Bytes of the converted tensor, once its shape, strides and storage agree.
fn size_in_bytes(name: &str, tensor: &Tensor) -> Result<u64, ConvertError> {
    if tensor.shape.len() != tensor.strides.len() {
        let reason = TensorFault::Rank {
            shape: tensor.shape.len(),
            strides: tensor.strides.len(),
        };
        return Err(fault(name, tensor, reason));
    }
    let elements = tensor.storage.elements;
    if tensor.shape.contains(&0) {
        return Ok(0);
    }
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(tensor.first, |last, (&n, &stride)| {
            last.checked_add((n - 1).checked_mul(stride)?)
        });
    let count = tensor
        .shape
        .iter()
        .try_fold(1u64, |count, &n| count.checked_mul(n));
    match (last, count) {
        (Some(last), Some(count)) if last < elements && count <= elements => {
            Ok(count.saturating_mul(tensor.storage.element.bytes() as u64))
        }
        _ => {
            let last = last.unwrap_or(u64::MAX);
            Err(fault(name, tensor, TensorFault::OutOfStorage { last, elements }))
        }
    }
}

/// Copies a checked tensor out of its storage, row-major.
fn gather(tensor: &Tensor, storage: &[u8], size: u64) -> Vec<u8> {
    let width = tensor.storage.element.bytes();
    let mut data = Vec::with_capacity(size as usize);
    let mut index = vec![0u64; tensor.shape.len()];
    let mut at = tensor.first;
    while (data.len() as u64) < size {
        let byte = at as usize * width;
        data.extend_from_slice(&storage[byte..byte + width]);
        // Count up from the last dimension, as an odometer does.
        for axis in (0..index.len()).rev().filter(|&axis| tensor.shape[axis] > 1) {
            index[axis] += 1;
            at += tensor.strides[axis];
            if index[axis] < tensor.shape[axis] {
                break;
            }
            at -= tensor.strides[axis] * tensor.shape[axis];
            index[axis] = 0;
        }
    }
    data
}

/// An error about one tensor.
fn fault(name: &str, tensor: &Tensor, reason: TensorFault) -> ConvertError {
    ConvertError::Tensor {
        offset: tensor.offset,
        tensor: name.to_owned(),
        reason,
    }
}

/// The safetensors type of an element.
fn dtype(element: Element) -> Dtype {
    match element {
        Element::F64 => Dtype::F64,
        Element::F32 => Dtype::F32,
        Element::F16 => Dtype::F16,
        Element::BF16 => Dtype::BF16,
        Element::I64 => Dtype::I64,
        Element::I32 => Dtype::I32,
        Element::I16 => Dtype::I16,
        Element::I8 => Dtype::I8,
        Element::U8 => Dtype::U8,
        Element::Bool => Dtype::BOOL,
    }
}
