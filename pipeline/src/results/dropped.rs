//! `features-dropped.csv`: the feature columns that a comparison did not use, and why.
//!
//! A selection enters, a file of one line per dropped column leaves. Fails where the disk refuses.

use std::path::Path;

use wellspring_workloads::select::Selection;

use super::atomic::{AtomicFile, remove_earlier};
use super::error::WriteError;

/// The file's name.
pub const DROPPED_FILE: &str = "features-dropped.csv";

/// Writes the columns that were dropped, by operation, into folder `dir`. Without a selection, what an earlier
/// comparison left there is removed: it is not about this one.
///
/// # Errors
/// The disk refuses.
pub fn write_dropped(dir: &Path, selection: Option<&Selection>) -> Result<(), WriteError> {
    let path = dir.join(DROPPED_FILE);
    let Some(selection) = selection else {
        return remove_earlier(&path);
    };
    let mut lines = csv::Writer::from_writer(Vec::new());
    let rows = selection.dropped.iter().map(|dropped| {
        [
            dropped.name.clone(),
            dropped.operation.clone(),
            dropped.why.to_string(),
        ]
    });
    let header = ["feature", "operation", "reason"].map(str::to_owned);
    let refused = |source: std::io::Error| WriteError::Io {
        path: path.clone(),
        action: "encode",
        source,
    };
    for row in std::iter::once(header).chain(rows) {
        lines.write_record(&row).map_err(|error| refused(error.into()))?;
    }
    let bytes = lines.into_inner().map_err(|error| refused(error.into_error()))?;
    AtomicFile::write(&path, &bytes)
}
