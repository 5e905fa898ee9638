//! Metadata files beside images: which of a listing are wanted, and what they say.
//!
//! A [`MetadataLayout`] is one format. It sees a listing and what was read so far, and answers with the files it wants
//! next; when it wants nothing more, it turns all of it into images of wells, fields, channels, planes and time points,
//! with the facts of each channel. Bytes are read elsewhere; what cannot be read or used becomes a
//! [`FileProblem::Metadata`], and the names of files are used instead.

use std::collections::BTreeMap;

use super::facts::ImageFacts;
use super::{FileProblem, ImageKey, ListedFile, patterns};
use crate::screen::{ImagesSettings, LayoutChoice};
use crate::words::{Barcode, FieldId};

/// The largest metadata file that is read whole, in bytes: a 1536-well plate of 9 fields, 5 channels and 10 planes has
/// 250 MB of records in a CellVoyager's list.
pub const MAX_METADATA_BYTES: u64 = 512 << 20;

/// Which part of a file a format needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All of it.
    Whole,
    /// The description of a TIFF's first image, tag 270; empty where there is none.
    Description,
}

/// A file to be read before the images are known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// The file's path in the store.
    pub path: String,
    /// Its size in bytes as listed.
    pub size: u64,
    /// What of it.
    pub part: Part,
}

/// Bytes of wanted files, or why there are none.
pub(super) type Answers = BTreeMap<(String, Part), Result<Vec<u8>, String>>;

/// All a format may look at.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Every file, in path order.
    pub(super) listing: &'a [ListedFile],
    /// The screen's settings.
    pub(super) images: &'a ImagesSettings,
    /// The one plate that is asked for, where it is one.
    pub(super) only: Option<&'a Barcode>,
    /// What was read.
    pub(super) answers: &'a Answers,
}

impl<'a> Context<'a> {
    /// The file at a path.
    pub(super) fn file(&self, path: &str) -> Option<&'a ListedFile> {
        let at = self
            .listing
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()?;
        self.listing.get(at)
    }

    /// The files below a folder, given with its final `/`; all for the empty text.
    pub(super) fn below(&self, folder: &str) -> &'a [ListedFile] {
        let from = self.listing.partition_point(|file| file.path.as_str() < folder);
        let rest = self.listing.get(from..).unwrap_or_default();
        let to = rest.partition_point(|file| file.path.starts_with(folder));
        rest.get(..to).unwrap_or_default()
    }

    /// The plate of a path by its folders.
    pub(super) fn plate_of(&self, path: &str) -> Option<Barcode> {
        patterns::plate_of(path, self.images)
    }

    /// Whether a plate is asked for.
    pub(super) fn includes(&self, plate: &Barcode) -> bool {
        self.only.is_none_or(|only| only == plate)
            && (self.images.plates.is_empty() || self.images.plates.contains(plate))
    }

    /// The answer to a wish for a whole file.
    pub(super) fn whole(&self, path: &str) -> Option<&'a Result<Vec<u8>, String>> {
        self.answers.get(&(path.to_owned(), Part::Whole))
    }

    /// The answer to a wish for a description.
    pub(super) fn description(&self, path: &str) -> Option<&'a Result<Vec<u8>, String>> {
        self.answers.get(&(path.to_owned(), Part::Description))
    }

    /// A wish for a whole file that has no answer yet.
    pub(super) fn want(&self, file: &ListedFile) -> Option<Wanted> {
        self.want_part(file, Part::Whole)
    }

    /// A wish that has no answer yet.
    pub(super) fn want_part(&self, file: &ListedFile, part: Part) -> Option<Wanted> {
        let asked = self.answers.contains_key(&(file.path.clone(), part));
        (!asked).then(|| Wanted {
            path: file.path.clone(),
            size: file.size,
            part,
        })
    }
}

/// An image and where it lies.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// What it shows.
    pub(super) key: ImageKey,
    /// The file.
    pub(super) file: ListedFile,
    /// Which image of the file; `None` where it holds one.
    pub(super) page: Option<u32>,
}

/// An image that metadata list and the store does not have.
#[derive(Debug, Clone)]
pub(super) struct Absent {
    /// What it would show.
    pub(super) key: ImageKey,
    /// Where it should be.
    pub(super) path: String,
    /// What lists it.
    pub(super) metadata: String,
}

/// A field that metadata list and of which a file cannot be used.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    /// The field.
    pub(super) field: FieldId,
    /// The file.
    pub(super) path: String,
    /// Why.
    pub(super) reason: String,
}

/// The facts of one channel as its text in names has it.
#[derive(Debug, Clone)]
pub(super) struct FactsOf {
    /// The plate.
    pub(super) plate: Barcode,
    /// As [`ImageKey::channel_text`].
    pub(super) channel_text: String,
    /// The facts.
    pub(super) facts: ImageFacts,
}

/// A folder whose images are all listed.
#[derive(Debug)]
pub(super) struct Folder {
    /// With its final `/`; the empty text is the whole store.
    pub(super) folder: String,
    /// The plate.
    pub(super) plate: Barcode,
    /// What lists them.
    pub(super) metadata: String,
}

/// What the metadata of a listing say.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// Images with files.
    pub(super) found: Vec<Found>,
    /// Images without.
    pub(super) absent: Vec<Absent>,
    /// Folders whose images are all spoken for: files there that are not in `found` are not listed.
    pub(super) folders: Vec<Folder>,
    /// What is known of channels.
    pub(super) facts: Vec<FactsOf>,
    /// Fields per well by plate, where the metadata say how many there should be.
    pub(super) fields_per_well: BTreeMap<Barcode, u32>,
    /// Fields by plate that were to be imaged, where the metadata were written before imaging began.
    pub(super) to_be_imaged: BTreeMap<Barcode, u32>,
    /// Fields that cannot be read because of a file.
    pub(super) lost: Vec<Lost>,
    /// What is wrong with the metadata.
    pub(super) problems: Vec<FileProblem>,
}

/// Whether a listing is of a format.
#[derive(Debug)]
pub(super) enum Recognition {
    /// It is not.
    No,
    /// It may be: these have to be read first.
    Ask(Vec<Wanted>),
    /// It is, for this reason.
    Yes(String),
}

/// One format of metadata.
pub(super) trait MetadataLayout: Sync {
    /// The screen's word for it.
    fn choice(&self) -> LayoutChoice;

    /// Whether the listing has such metadata.
    fn recognise(&self, context: Context<'_>) -> Recognition;

    /// What it needs next; nothing when all is read.
    fn wanted(&self, context: Context<'_>) -> Vec<Wanted>;

    /// What it says.
    fn describe(&self, context: Context<'_>) -> Described;

    /// Whether what it says agrees with images that are known by their names.
    fn compare(&self, _context: Context<'_>, _named: &[Found]) -> Vec<FileProblem> {
        Vec::new()
    }
}

/// A metadata file that cannot be used.
pub(super) fn unusable(context: Context<'_>, path: &str, reason: impl ToString) -> FileProblem {
    FileProblem::Metadata {
        plate: context.plate_of(path),
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// The folder of a path, with its final `/`; empty at the top of the store.
pub(super) fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..=at])
}

/// The last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Described {
    /// Counts chunks of arrays that were never written.
    pub(super) fn absent_chunks(&mut self, plate: &Barcode, more: u64, first: String) {
        let known = self.problems.iter_mut().find_map(|problem| match problem {
            FileProblem::AbsentChunks {
                plate: of, chunks, ..
            } if of == plate => Some(chunks),
            _ => None,
        });
        match known {
            Some(chunks) => *chunks += more,
            None => self.problems.push(FileProblem::AbsentChunks {
                plate: plate.clone(),
                chunks: more,
                example: first,
            }),
        }
    }

    /// Adds an image whose file the metadata file at `metadata`, in `folder`, calls `written`.
    pub(super) fn add(
        &mut self,
        context: Context<'_>,
        (folder, metadata): (&str, &str),
        written: &str,
        key: ImageKey,
    ) {
        match resolve(context, folder, written) {
            Ok(file) => self.found.push(Found {
                key,
                file: file.clone(),
                page: None,
            }),
            Err(path) => self.absent.push(Absent {
                key,
                path,
                metadata: metadata.to_owned(),
            }),
        }
    }
}

/// The file that `written` means in metadata at `folder`: below the folder, in its `Images`, or by its name alone, since
/// software writes paths of the machine it ran on.
pub(super) fn resolve<'a>(
    context: Context<'a>,
    folder: &str,
    written: &str,
) -> Result<&'a ListedFile, String> {
    let written = written.replace('\\', "/");
    let written = written.trim_start_matches("./");
    let name = name_of(written);
    let first = format!("{folder}{written}");
    let candidates = [
        first.clone(),
        format!("{folder}Images/{name}"),
        format!("{folder}{name}"),
    ];
    candidates
        .iter()
        .find_map(|path| context.file(path))
        .ok_or_else(|| {
            if written.contains(":/") {
                candidates[2].clone()
            } else {
                first
            }
        })
}

/// The folders above a file, from the innermost, each with its final `/`; at last the store itself.
pub(super) fn above(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.rmatch_indices('/').map(|(at, _)| at + 1);
    ends.chain(std::iter::once(0)).map(|end| &path[..end])
}
