//! Checkpoints in the zip format: `NAME/data.pkl` and `NAME/data/KEY` for each storage, all stored as they are, so that
//! the data is used where it lies in the file.

use std::collections::HashMap;
use std::io::Cursor;

use zip::{CompressionMethod, ZipArchive};

use super::error::{ConvertError, TensorFault};
use super::pickle::Reader;
use super::{fault, known_storages, tensors, write};

/// See [`super::convert_checkpoint`].
pub(super) fn convert(bytes: &[u8]) -> Result<Vec<u8>, ConvertError> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken("the directory", error.to_string()))?;
    let pickle = archive
        .file_names()
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .map(str::to_owned)
        .ok_or_else(|| {
            broken(
                "the directory",
                "it has no data.pkl, so it is no checkpoint".to_owned(),
            )
        })?;
    let folder = pickle.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let order = format!("{folder}byteorder");
    if archive.index_for_name(&order).is_some() && stored(&mut archive, bytes, &order)? != b"little" {
        return Err(broken(
            &order,
            "only little-endian checkpoints are read".to_owned(),
        ));
    }
    let described = tensors(&mut Reader::new(stored(&mut archive, bytes, &pickle)?, 0))?;
    let known = known_storages(&described)?;
    let mut storages = HashMap::with_capacity(known.len());
    for (name, tensor) in &described {
        let key = &*tensor.storage.key;
        if storages.contains_key(key) {
            continue;
        }
        let entry = format!("{folder}data/{key}");
        if archive.index_for_name(&entry).is_none() {
            let key = key.to_owned();
            return Err(fault(name, tensor, TensorFault::NoStorage { key }));
        }
        let data = stored(&mut archive, bytes, &entry)?;
        let needed = tensor
            .storage
            .elements
            .saturating_mul(tensor.storage.element.bytes() as u64);
        if (data.len() as u64) < needed {
            return Err(broken(
                &entry,
                format!("it has {} bytes, {needed} are needed", data.len()),
            ));
        }
        storages.insert(key, data);
    }
    write(bytes.len(), &described, &storages)
}

/// The bytes of an entry, which must be stored without compression.
fn stored<'a>(
    archive: &mut ZipArchive<Cursor<&'a [u8]>>,
    bytes: &'a [u8],
    entry: &str,
) -> Result<&'a [u8], ConvertError> {
    let file = archive
        .by_name(entry)
        .map_err(|error| broken(entry, error.to_string()))?;
    if file.compression() != CompressionMethod::Stored {
        return Err(broken(
            entry,
            "it is compressed, which PyTorch's never are".to_owned(),
        ));
    }
    let range = file.data_start().and_then(|start| {
        let start = usize::try_from(start).ok()?;
        let size = usize::try_from(file.size()).ok()?;
        bytes.get(start..start.checked_add(size)?)
    });
    range.ok_or_else(|| broken(entry, "its data lies outside the file".to_owned()))
}

fn broken(entry: &str, reason: String) -> ConvertError {
    ConvertError::Archive {
        entry: entry.to_owned(),
        reason,
    }
}
