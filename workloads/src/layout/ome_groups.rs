//! Groups of Zarr stores, and which of them are OME-Zarr plates.
//!
//! A listing and the documents read so far enter; the plates leave, and the groups whose documents have to be read to know.
//! What cannot be read is told beside them.

use std::collections::HashSet;

use serde_json::Value;

use super::ListedFile;
use super::metadata::{Context, Wanted, above, folder_of, name_of};

/// How deep below the store a plate may lie under groups that say nothing.
const MAX_GROUPS_ABOVE: usize = 3;

/// The document with a group's attributes.
pub(super) fn group<'a>(context: Context<'a>, folder: &str) -> Option<&'a ListedFile> {
    let of_3 = context.file(&format!("{folder}zarr.json"));
    of_3.or_else(|| context.file(&format!("{folder}.zattrs")))
}

/// The attributes in a group's document: those of OME stand at its top, or below `attributes.ome`.
pub(super) fn attributes(bytes: &[u8]) -> Result<Value, String> {
    let mut document: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
    let Some(mut inner) = document.get_mut("attributes").map(Value::take) else {
        return Ok(document);
    };
    Ok(inner.get_mut("ome").map(Value::take).unwrap_or(inner))
}

/// Where the walk from the store to the plates stands.
#[derive(Default)]
pub(super) struct Walk<'a> {
    /// Folder of every plate, with the path of its document and its attributes.
    pub(super) plates: Vec<(&'a str, &'a str, Value)>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) broken: Vec<(&'a str, String)>,
}

/// The outermost groups, and, where these are no plates, the groups in them.
pub(super) fn plates<'a>(context: Context<'a>) -> Walk<'a> {
    let documents = context.listing.iter().filter_map(|file| {
        if !matches!(name_of(&file.path), "zarr.json" | ".zattrs") {
            return None;
        }
        let folder = folder_of(&file.path);
        let depth = folder.matches('/').count();
        let is_group = depth <= MAX_GROUPS_ABOVE + 1 && group(context, folder)?.path == file.path;
        is_group.then_some((depth, folder, file))
    });
    let mut documents: Vec<(usize, &str, &ListedFile)> = documents.collect();
    documents.sort_by_key(|(depth, folder, _)| (*depth, *folder));

    let mut walk = Walk::default();
    // Plates, and groups that are not read yet: what lies below them is not looked at.
    let mut closed: HashSet<&str> = HashSet::new();
    for (_, folder, file) in documents {
        if above(&file.path).any(|outer| closed.contains(outer)) {
            continue;
        }
        match context.whole(&file.path) {
            None => {
                walk.wanted.extend(context.want(file));
                closed.insert(folder);
            }
            Some(Err(reason)) => walk.broken.push((&file.path, reason.clone())),
            Some(Ok(bytes)) => match attributes(bytes) {
                Ok(attributes) if attributes.get("plate").is_some() => {
                    walk.plates.push((folder, &file.path, attributes));
                    closed.insert(folder);
                }
                Ok(_) => {}
                Err(reason) => walk.broken.push((&file.path, reason)),
            },
        }
    }
    walk
}
