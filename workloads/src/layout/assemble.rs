//! From a listing to fields of view: which files make up which field, and what is wrong with the rest.
//!
//! Listed files enter, [`PlateFiles`] leave: complete fields in plate, well, field order, and every problem as data.
//! Fails only where no layout can be chosen. The result does not depend on the order of the listing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Layout, LayoutError, Parsed, SkipReason};
use crate::screen::{ImagesSettings, LayoutChoice};
use crate::words::{Barcode, Channel, FieldId, WellPosition};

/// A file of the image store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListedFile {
    /// Path relative to the store, `/` between folders.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

/// One plane of one channel of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaneFile {
    /// The z plane, where the name holds one.
    pub plane: Option<u32>,
    /// The file.
    pub file: ListedFile,
}

/// One channel of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelFiles {
    /// The channel.
    pub channel: Channel,
    /// Its planes, at least one, in plane order.
    pub planes: Vec<PlaneFile>,
}

/// One complete field of view: every channel of the screen, in the screen's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldFiles {
    /// The well.
    pub well: WellPosition,
    /// The field's number.
    pub field: u32,
    /// One entry per channel of the screen, in its order.
    pub channels: Vec<ChannelFiles>,
}

/// Something wrong with the files of a plate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FileProblem {
    /// A field lacks channels; it is not processed.
    #[error("{field}: no file for channel {channels:?}")]
    MissingChannel {
        /// The field.
        field: FieldId,
        /// The channels without a file, in the screen's order.
        channels: Vec<Channel>,
    },
    /// Several files claim to be one plane of one channel; the field is not processed.
    #[error("{field} channel {channel}: {} files for one plane: {}", paths.len(), paths.join(", "))]
    DuplicateFile {
        /// The field.
        field: FieldId,
        /// The channel.
        channel: Channel,
        /// The files, sorted.
        paths: Vec<String>,
    },
    /// Files of a channel that the screen does not list; they are not read.
    #[error(
        "plate {plate}: {files} files of channel '{channel_text}', which images.channels does not list (for example {example})"
    )]
    UnknownChannel {
        /// The plate.
        plate: Barcode,
        /// The channel's text in file names.
        channel_text: String,
        /// How many files.
        files: u64,
        /// The first of them.
        example: String,
    },
    /// Image files whose names the layout does not know.
    #[error("{files} image files whose names are not {layout} names (for example {example})")]
    Unrecognised {
        /// The layout in use.
        layout: LayoutChoice,
        /// How many files.
        files: u64,
        /// The first of them.
        example: String,
    },
    /// A well has fewer fields than expected; those it has are processed.
    #[error("plate {plate} well {well}: {found} fields of {expected}")]
    FewerFields {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// Fields with at least one file.
        found: u32,
        /// `fields_per_well`, or the most common count of the plate.
        expected: u32,
    },
    /// Files of later time points; only a plate's first time point is processed.
    #[error(
        "plate {plate}: {files} files of time points after {first} are not processed (for example {example})"
    )]
    LaterTimePoints {
        /// The plate.
        plate: Barcode,
        /// The time point processed.
        first: u32,
        /// How many files were left.
        files: u64,
        /// The first of them.
        example: String,
    },
    /// A plate of the screen's list has no file.
    #[error("plate {plate} is in images.plates but has no image")]
    PlateWithoutImages {
        /// The plate.
        plate: Barcode,
    },
}

impl FileProblem {
    /// The field that is not processed because of this problem, if it costs a whole field.
    pub fn lost_field(&self) -> Option<&FieldId> {
        match self {
            Self::MissingChannel { field, .. } | Self::DuplicateFile { field, .. } => Some(field),
            _ => None,
        }
    }
}

/// The fields of every plate, and what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlateFiles {
    /// The layout used.
    pub layout: LayoutChoice,
    /// Why it was used, in words.
    pub why: String,
    /// Complete fields per plate, in well and field order.
    pub plates: BTreeMap<Barcode, Vec<FieldFiles>>,
    /// Every problem, in a fixed order. A field appears at most once with [`FileProblem::lost_field`].
    pub problems: Vec<FileProblem>,
    /// How many files were passed over, by reason.
    pub skipped: BTreeMap<SkipReason, u64>,
}

/// A count and the first path in path order.
struct Tally {
    files: u64,
    example: String,
}

fn tally<K: Ord>(tallies: &mut BTreeMap<K, Tally>, key: K, path: &str) {
    tallies
        .entry(key)
        .and_modify(|tally| tally.files += 1)
        .or_insert_with(|| Tally {
            files: 1,
            example: path.to_owned(),
        });
}

/// Channel index -> plane -> files of a field.
type FieldImages = BTreeMap<usize, BTreeMap<Option<u32>, Vec<ListedFile>>>;

/// Groups listed files into fields of view.
///
/// # Errors
/// A pattern that cannot be used, or a listing in which `auto` recognises no layout.
pub fn assemble(files: &[ListedFile], images: &ImagesSettings) -> Result<PlateFiles, LayoutError> {
    let mut files: Vec<&ListedFile> = files.iter().collect();
    files.sort();
    let layout = Layout::from_settings(images, files.iter().map(|file| file.path.as_str()))?;

    let mut skipped = BTreeMap::new();
    let mut problems = Vec::new();
    let mut unrecognised = BTreeMap::new();
    let mut unknown = BTreeMap::new();
    let mut later = BTreeMap::new();
    let mut keyed = Vec::new();
    for file in files {
        match layout.parse(&file.path) {
            Parsed::Image(key) if !images.plates.is_empty() && !images.plates.contains(&key.plate) => {
                *skipped.entry(SkipReason::OtherPlate).or_insert(0) += 1;
            }
            Parsed::Image(key) => keyed.push((key, file)),
            Parsed::Skip(reason) => *skipped.entry(reason).or_insert(0) += 1,
            Parsed::Unrecognised => tally(&mut unrecognised, (), &file.path),
        }
    }

    let mut first_time: BTreeMap<Barcode, u32> = BTreeMap::new();
    for (key, _) in &keyed {
        if let Some(time) = key.time {
            let first = first_time.entry(key.plate.clone()).or_insert(time);
            *first = time.min(*first);
        }
    }

    let mut fields: BTreeMap<FieldId, FieldImages> = BTreeMap::new();
    for (key, file) in keyed {
        if let (Some(time), Some(first)) = (key.time, first_time.get(&key.plate))
            && time > *first
        {
            tally(&mut later, (key.plate, *first), &file.path);
            continue;
        }
        let Some(channel) = channel_index(images, &key.channel_text) else {
            tally(&mut unknown, (key.plate, key.channel_text), &file.path);
            continue;
        };
        let field = FieldId {
            plate: key.plate,
            well: key.well,
            field: key.field,
        };
        let planes = fields.entry(field).or_default().entry(channel).or_default();
        planes.entry(key.plane).or_default().push(file.clone());
    }

    let found_plates: BTreeSet<&Barcode> = fields.keys().map(|field| &field.plate).collect();
    for plate in images.plates.iter().collect::<BTreeSet<_>>() {
        if !found_plates.contains(plate) {
            problems.push(FileProblem::PlateWithoutImages { plate: plate.clone() });
        }
    }
    problems.extend(fewer_fields(&fields, images.fields_per_well));

    let mut plates: BTreeMap<Barcode, Vec<FieldFiles>> = BTreeMap::new();
    for (field, found) in fields {
        // A plate whose every field is incomplete is still a plate.
        let plate = plates.entry(field.plate.clone()).or_default();
        match complete(field, found, images) {
            Ok(field) => plate.push(field),
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(
        unknown
            .into_iter()
            .map(|((plate, channel_text), tally)| FileProblem::UnknownChannel {
                plate,
                channel_text,
                files: tally.files,
                example: tally.example,
            }),
    );
    problems.extend(
        later
            .into_iter()
            .map(|((plate, first), tally)| FileProblem::LaterTimePoints {
                plate,
                first,
                files: tally.files,
                example: tally.example,
            }),
    );
    problems.extend(unrecognised.into_values().map(|tally| FileProblem::Unrecognised {
        layout: layout.choice(),
        files: tally.files,
        example: tally.example,
    }));
    Ok(PlateFiles {
        layout: layout.choice(),
        why: layout.why().to_owned(),
        plates,
        problems,
        skipped,
    })
}

/// The screen's channel for a text in a file name, in any case. A name without a channel belongs to the only
/// channel of a one-channel screen.
fn channel_index(images: &ImagesSettings, text: &str) -> Option<usize> {
    if text.is_empty() && images.channels.len() == 1 {
        return Some(0);
    }
    images
        .channels
        .iter()
        .position(|channel| channel.matches.eq_ignore_ascii_case(text))
}

fn complete(
    field: FieldId,
    mut found: FieldImages,
    images: &ImagesSettings,
) -> Result<FieldFiles, FileProblem> {
    let missing: Vec<Channel> = (0..images.channels.len())
        .filter(|index| !found.contains_key(index))
        .map(|index| images.channels[index].name.clone())
        .collect();
    if !missing.is_empty() {
        return Err(FileProblem::MissingChannel {
            field,
            channels: missing,
        });
    }
    let mut channels = Vec::with_capacity(images.channels.len());
    for (index, settings) in images.channels.iter().enumerate() {
        let mut planes = Vec::new();
        for (plane, mut files) in found.remove(&index).unwrap_or_default() {
            match (files.pop(), files.is_empty()) {
                (Some(file), true) => planes.push(PlaneFile { plane, file }),
                (last, _) => {
                    return Err(FileProblem::DuplicateFile {
                        field,
                        channel: settings.name.clone(),
                        paths: files.into_iter().chain(last).map(|file| file.path).collect(),
                    });
                }
            }
        }
        channels.push(ChannelFiles {
            channel: settings.name.clone(),
            planes,
        });
    }
    Ok(FieldFiles {
        well: field.well,
        field: field.field,
        channels,
    })
}

/// Wells with fewer fields than `expected`, or than the most common count of their plate (ties: the larger).
fn fewer_fields(fields: &BTreeMap<FieldId, FieldImages>, expected: Option<u32>) -> Vec<FileProblem> {
    let mut wells: BTreeMap<&Barcode, BTreeMap<WellPosition, u32>> = BTreeMap::new();
    for field in fields.keys() {
        *wells
            .entry(&field.plate)
            .or_default()
            .entry(field.well)
            .or_insert(0) += 1;
    }
    let mut problems = Vec::new();
    for (plate, wells) in wells {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for found in wells.values() {
            *counts.entry(*found).or_insert(0) += 1;
        }
        let common = counts.into_iter().max_by_key(|(count, wells)| (*wells, *count));
        let Some(expected) = expected.or(common.map(|(count, _)| count)) else {
            continue;
        };
        let short = wells.into_iter().filter(|(_, found)| *found < expected);
        problems.extend(short.map(|(well, found)| FileProblem::FewerFields {
            plate: plate.clone(),
            well,
            found,
            expected,
        }));
    }
    problems
}
