//! What can be wrong with the files of a plate, as data. Nothing here fails.

use serde::{Deserialize, Serialize};

use crate::screen::LayoutChoice;
use crate::words::{Barcode, Channel, FieldId, WellPosition};

/// Something wrong with the files of a plate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FileProblem {
    /// A field lacks channels; it is not processed.
    #[error("{field}: no file for channel {}", channel_names(channels))]
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
    #[error("{}{files} image files whose names are not {layout} names: {}", of_plate(plate), first_of(paths, *files))]
    Unrecognised {
        /// The plate, where one was asked for and its folder has them.
        plate: Option<Barcode>,
        /// The layout in use.
        layout: LayoutChoice,
        /// How many files.
        files: u64,
        /// The first of them, 12 at most.
        paths: Vec<String>,
    },
    /// Files that are no images by their suffix, and that neither microscopes nor people are known to keep beside them: parts of
    /// uploads, images in formats that are not read.
    #[error(
        "{}{files} files whose suffixes are those of no image or metadata that are read: {}",
        of_plate(plate),
        first_of(paths, *files)
    )]
    UnknownFiles {
        /// The plate, where one was asked for and its folder has them.
        plate: Option<Barcode>,
        /// How many files.
        files: u64,
        /// The first of them, 12 at most.
        paths: Vec<String>,
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
    /// Metadata list files of a field that are not there; the field is not processed.
    #[error("{field} channel {}: {metadata} lists files that are not there: {}", channel_names(channels), paths.join(", "))]
    AbsentFile {
        /// The field.
        field: FieldId,
        /// The channels, in the screen's order.
        channels: Vec<Channel>,
        /// The metadata file.
        metadata: String,
        /// The files, as paths in the store, sorted.
        paths: Vec<String>,
    },
    /// A file of a field cannot be used; the field is not processed.
    #[error("{field}: {path} cannot be used: {reason}")]
    UnusableImage {
        /// The field.
        field: FieldId,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Chunks of Zarr arrays that were never written; their pixels are the array's fill value.
    #[error(
        "plate {plate}: {chunks} chunks of Zarr arrays are not there and are read as their fill value (for example {example})"
    )]
    AbsentChunks {
        /// The plate.
        plate: Barcode,
        /// How many.
        chunks: u64,
        /// The first of them.
        example: String,
    },
    /// Images of later acquisitions; only a plate's first acquisition is processed.
    #[error(
        "plate {plate}: {images} images of acquisitions after {first} are not processed (for example {example})"
    )]
    LaterAcquisitions {
        /// The plate.
        plate: Barcode,
        /// The acquisition processed.
        first: u64,
        /// How many images were left.
        images: u64,
        /// The first of them.
        example: String,
    },
    /// Image files that the metadata of their plate do not list; they are not processed.
    #[error(
        "plate {plate}: {files} image files that {metadata} does not list are not processed: {}",
        first_of(paths, *files)
    )]
    NotListed {
        /// The plate.
        plate: Barcode,
        /// The metadata file.
        metadata: String,
        /// How many files.
        files: u64,
        /// The first of them, 12 at most.
        paths: Vec<String>,
    },
    /// A metadata file that cannot be used; what it would have said is taken from file names where these say it.
    #[error("metadata file {path} cannot be used: {reason}")]
    Metadata {
        /// The plate, where it is known.
        plate: Option<Barcode>,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Images in whose metadata or name no well was found; they are not processed.
    #[error("{metadata}: {images} images name no well (for example {example})")]
    NoWell {
        /// The file with the metadata.
        metadata: String,
        /// How many images.
        images: u64,
        /// The name of the first.
        example: String,
    },
    /// Wells that were to be imaged, by the metadata, and have no file.
    #[error(
        "plate {plate}: {metadata} selects wells without any image file: {}",
        words(wells)
    )]
    WellsWithoutFiles {
        /// The plate.
        plate: Barcode,
        /// The metadata file.
        metadata: String,
        /// The wells.
        wells: Vec<WellPosition>,
    },
    /// Wells that have files and were not to be imaged, by the metadata; they are processed.
    #[error(
        "plate {plate}: wells with image files that {metadata} does not select: {}",
        words(wells)
    )]
    WellsNotSelected {
        /// The plate.
        plate: Barcode,
        /// The metadata file.
        metadata: String,
        /// The wells.
        wells: Vec<WellPosition>,
    },
    /// Channels that were taken, by the metadata, and have no file.
    #[error("plate {plate}: {metadata} lists channels without any image file: {}", channels.join(", "))]
    ChannelsWithoutFiles {
        /// The plate.
        plate: Barcode,
        /// The metadata file.
        metadata: String,
        /// The channels as the metadata name them.
        channels: Vec<String>,
    },
}

impl FileProblem {
    /// The field that is not processed because of this problem, if it costs a whole field.
    pub fn lost_field(&self) -> Option<&FieldId> {
        match self {
            Self::MissingChannel { field, .. }
            | Self::DuplicateFile { field, .. }
            | Self::UnusableImage { field, .. }
            | Self::AbsentFile { field, .. } => Some(field),
            _ => None,
        }
    }

    /// The plate, where the problem is one plate's.
    pub fn plate(&self) -> Option<&Barcode> {
        match self {
            Self::MissingChannel { field, .. }
            | Self::DuplicateFile { field, .. }
            | Self::UnusableImage { field, .. }
            | Self::AbsentFile { field, .. } => Some(&field.plate),
            Self::UnknownChannel { plate, .. }
            | Self::FewerFields { plate, .. }
            | Self::LaterTimePoints { plate, .. }
            | Self::LaterAcquisitions { plate, .. }
            | Self::AbsentChunks { plate, .. }
            | Self::PlateWithoutImages { plate }
            | Self::NotListed { plate, .. }
            | Self::WellsWithoutFiles { plate, .. }
            | Self::WellsNotSelected { plate, .. }
            | Self::ChannelsWithoutFiles { plate, .. } => Some(plate),
            Self::Metadata { plate, .. }
            | Self::Unrecognised { plate, .. }
            | Self::UnknownFiles { plate, .. } => plate.as_ref(),
            Self::NoWell { .. } => None,
        }
    }

    /// Whether a person should know it but nothing of the screen is lost by it.
    pub fn is_remark(&self) -> bool {
        match self {
            Self::UnknownChannel { .. }
            | Self::Unrecognised { .. }
            | Self::UnknownFiles { .. }
            | Self::LaterTimePoints { .. }
            | Self::LaterAcquisitions { .. }
            | Self::AbsentChunks { .. }
            | Self::NotListed { .. }
            | Self::NoWell { .. }
            | Self::WellsNotSelected { .. }
            | Self::WellsWithoutFiles { .. }
            | Self::ChannelsWithoutFiles { .. } => true,
            Self::MissingChannel { .. }
            | Self::DuplicateFile { .. }
            | Self::FewerFields { .. }
            | Self::PlateWithoutImages { .. }
            | Self::AbsentFile { .. }
            | Self::UnusableImage { .. }
            | Self::Metadata { .. } => false,
        }
    }
}

/// Files that are named in one message.
pub(super) const MOST_NAMED_FILES: usize = 12;

/// The first files, and how many more there are.
fn first_of(paths: &[String], files: u64) -> String {
    let named = paths.join(", ");
    match files.saturating_sub(paths.len() as u64) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn of_plate(plate: &Option<Barcode>) -> String {
    plate
        .as_ref()
        .map_or_else(String::new, |plate| format!("plate {plate}: "))
}

/// The first wells in words.
fn words(wells: &[WellPosition]) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<String> = wells.iter().take(SHOWN).map(WellPosition::to_string).collect();
    if wells.len() > SHOWN {
        names.push(format!("and {} more", wells.len() - SHOWN));
    }
    names.join(", ")
}

fn channel_names(channels: &[Channel]) -> String {
    let names: Vec<&str> = channels.iter().map(Channel::as_str).collect();
    names.join(", ")
}
