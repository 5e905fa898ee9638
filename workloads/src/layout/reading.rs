//! Reading a listing: which layout it is, which files have to be read to know, and what lies where.
//!
//! A listing enters. [`Reading::wanted`] names files until nothing more is needed; their bytes come back through
//! [`Reading::answer`]; [`Reading::assemble`] gives the fields of every plate. Fails where no layout can be chosen.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::cellvoyager::CellVoyager;
use super::describe::described;
use super::gallery::Gallery;
use super::harmony::Harmony;
use super::htd::Htd;
use super::metadata::{
    Absent, Answers, Context, Described, FactsOf, Found, Lost, MetadataLayout, Part, Recognition, Wanted,
    above,
};
use super::ome_tiff::OmeTiff;
use super::ome_zarr::OmeZarr;
use super::{
    FileProblem, Layout, LayoutError, ListedFile, Parsed, PlateFiles, SkipReason, assemble as fields,
    patterns, problem::MOST_NAMED_FILES,
};
use crate::screen::{ImagesSettings, LayoutChoice};
use crate::words::Barcode;

/// The formats of metadata, in the order in which `auto` looks for them.
const FORMATS: [&dyn MetadataLayout; 6] = [&OmeZarr, &Gallery, &Harmony, &CellVoyager, &OmeTiff, &Htd];

/// A listing on its way to fields of view.
pub struct Reading {
    listing: Vec<ListedFile>,
    images: ImagesSettings,
    only: Option<Barcode>,
    answers: Answers,
    names_alone: bool,
    /// Known when all metadata are read.
    placed: Option<Result<Placed, LayoutError>>,
}

/// Every image and where it belongs.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) layout: LayoutChoice,
    pub(super) why: String,
    pub(super) found: Vec<Found>,
    pub(super) absent: Vec<Absent>,
    pub(super) lost: Vec<Lost>,
    pub(super) facts: Vec<FactsOf>,
    pub(super) fields_per_well: BTreeMap<Barcode, u32>,
    pub(super) to_be_imaged: BTreeMap<Barcode, u32>,
    pub(super) problems: Vec<FileProblem>,
    pub(super) skipped: BTreeMap<SkipReason, u64>,
}

/// A count and the first paths in path order.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) files: u64,
    pub(super) paths: Vec<String>,
}

impl Tally {
    /// The first path.
    pub(super) fn example(self) -> String {
        self.paths.into_iter().next().unwrap_or_default()
    }
}

pub(super) fn tally<K: Ord>(tallies: &mut BTreeMap<K, Tally>, key: K, path: &str) {
    let tally = tallies.entry(key).or_default();
    tally.files += 1;
    if tally.paths.len() < MOST_NAMED_FILES {
        tally.paths.push(path.to_owned());
    }
}

/// Groups listed files into fields of view, by their names alone.
///
/// # Errors
/// A pattern that cannot be used, or a listing in which `auto` recognises no layout.
pub fn assemble(files: &[ListedFile], images: &ImagesSettings) -> Result<PlateFiles, LayoutError> {
    let mut reading = Reading::new(files.to_vec(), images, None);
    reading.names_alone = true;
    reading.assemble()
}

/// How a listing is read.
enum Chosen {
    /// These decide.
    Ask(Vec<Wanted>),
    /// By a format of metadata, and why.
    Format(&'static dyn MetadataLayout, String),
    /// By names alone.
    Names,
}

impl Reading {
    /// Of a listing in any order; `only` is the plate asked for, where it is one: metadata of others are not read.
    pub fn new(mut listing: Vec<ListedFile>, images: &ImagesSettings, only: Option<&Barcode>) -> Self {
        listing.sort_unstable();
        // A server that lists whole trees where it is asked for a folder has files several times.
        listing.dedup_by(|a, b| a.path == b.path);
        Self {
            listing,
            images: images.clone(),
            only: only.cloned(),
            answers: Answers::new(),
            names_alone: false,
            placed: None,
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            listing: &self.listing,
            images: &self.images,
            only: self.only.as_ref(),
            answers: &self.answers,
        }
    }

    /// Files to be read next; none when everything is known. Each is named once and must be answered.
    pub fn wanted(&mut self) -> Vec<Wanted> {
        if self.placed.is_none() {
            let wanted = match self.chosen() {
                Chosen::Ask(wanted) => wanted,
                Chosen::Format(format, _) => format.wanted(self.context()),
                Chosen::Names => Vec::new(),
            };
            if !wanted.is_empty() {
                return wanted;
            }
        }
        let placed = self.placed.take().unwrap_or_else(|| self.place());
        let wanted = match &placed {
            Ok(placed) => self.descriptions(placed),
            Err(_) => Vec::new(),
        };
        self.placed = Some(placed);
        wanted
    }

    /// What a wanted file holds, or why it could not be read.
    pub fn answer(&mut self, wanted: &Wanted, bytes: Result<Vec<u8>, String>) {
        self.answers.insert((wanted.path.clone(), wanted.part), bytes);
    }

    /// The fields of view of every plate.
    ///
    /// # Errors
    /// A pattern that cannot be used, or a listing in which `auto` recognises no layout.
    pub fn assemble(mut self) -> Result<PlateFiles, LayoutError> {
        let mut placed = self.placed.take().unwrap_or_else(|| self.place())?;
        let of_images = described_images(&placed.found);
        for (path, key) in of_images.into_values() {
            if let Some(Ok(bytes)) = self.context().description(path) {
                let facts = described(bytes);
                if !facts.is_empty() {
                    placed.facts.push(FactsOf {
                        plate: key.plate.clone(),
                        channel_text: key.channel_text.clone(),
                        facts,
                    });
                }
            }
        }
        Ok(fields::assemble(placed, &self.images))
    }

    fn chosen(&self) -> Chosen {
        let set = self.images.layout;
        for format in FORMATS.into_iter().filter(|_| !self.names_alone) {
            if set == LayoutChoice::Auto || set == format.choice() {
                match format.recognise(self.context()) {
                    Recognition::Yes(why) => return Chosen::Format(format, why),
                    Recognition::Ask(wanted) if !wanted.is_empty() => return Chosen::Ask(wanted),
                    Recognition::Ask(_) | Recognition::No => {}
                }
            }
        }
        Chosen::Names
    }

    /// One image of every plate and channel whose description may say how it was taken.
    fn descriptions(&self, placed: &Placed) -> Vec<Wanted> {
        let context = self.context();
        let known = |key: &super::ImageKey| {
            placed.facts.iter().any(|of| {
                of.plate == key.plate
                    && of.channel_text.eq_ignore_ascii_case(&key.channel_text)
                    && of.facts.pixel_size_um.is_some()
            })
        };
        described_images(&placed.found)
            .into_values()
            .filter(|(_, key)| context.includes(&key.plate) && !known(key))
            .filter_map(|(path, _)| context.want_part(context.file(path)?, Part::Description))
            .collect()
    }

    fn place(&self) -> Result<Placed, LayoutError> {
        let context = self.context();
        let (format, why) = match self.chosen() {
            Chosen::Format(format, why) => (Some(format), why),
            Chosen::Ask(_) | Chosen::Names => (None, String::new()),
        };
        let Described {
            mut found,
            absent,
            folders,
            facts,
            fields_per_well,
            to_be_imaged,
            lost,
            mut problems,
        } = format.map(|format| format.describe(context)).unwrap_or_default();
        let spoken: HashSet<&str> = found.iter().map(|image| image.file.path.as_str()).collect();
        let folders: HashMap<&str, &super::metadata::Folder> = folders
            .iter()
            .map(|folder| (folder.folder.as_str(), folder))
            .collect();

        let mut skipped = BTreeMap::new();
        let mut skip = |reason| *skipped.entry(reason).or_insert(0) += 1;
        // Files of the plate that is asked for are told from those that belong to none or to others.
        let begins = self.only.as_ref().and_then(|only| {
            let paths = patterns::PlatePaths::of(&self.images)?;
            paths.tell_plates_apart().then(|| paths.of_plate(only))
        });
        let of_only = |path: &str| {
            let only = self.only.as_ref()?;
            let is_of = match &begins {
                Some(begins) => path.starts_with(begins),
                None => patterns::plate_of(path, &self.images).as_ref() == Some(only),
            };
            is_of.then_some(only)
        };
        // The objects of an array have no suffixes.
        let of_arrays = format.is_some_and(|format| format.choice() == LayoutChoice::OmeZarr);
        let (mut not_listed, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        let mut rest = Vec::new();
        for file in &self.listing {
            if spoken.contains(file.path.as_str()) {
                continue;
            }
            if let Some(reason) = patterns::skip(&file.path) {
                skip(reason);
                let is_read = || self.answers.contains_key(&(file.path.clone(), Part::Whole));
                let unusual = !patterns::is_companion(&file.path) && !is_read();
                if reason == SkipReason::NotAnImage && !of_arrays && unusual {
                    tally(&mut unknown, of_only(&file.path), &file.path);
                }
                continue;
            }
            match above(&file.path).find_map(|folder| folders.get(folder)) {
                Some(_) if patterns::is_correction(&file.path) => skip(SkipReason::Correction),
                Some(folder) if context.includes(&folder.plate) => {
                    tally(&mut not_listed, (&folder.plate, &folder.metadata), &file.path);
                }
                Some(_) => skip(SkipReason::OtherPlate),
                None => rest.push(file),
            }
        }
        problems.extend(not_listed.into_iter().map(|((plate, metadata), tally)| {
            let Tally { files, paths } = tally;
            FileProblem::NotListed {
                plate: plate.clone(),
                metadata: metadata.clone(),
                files,
                paths,
            }
        }));

        let by_metadata = !found.is_empty() || !absent.is_empty() || !lost.is_empty();
        let names = Layout::from_settings(&self.images, rest.iter().map(|file| file.path.as_str()));
        let names = match (names, format) {
            // What is wrong with the metadata says more than that no name is known.
            (Err(_), Some(_)) => None,
            (names, _) => Some(names?),
        };
        let mut unrecognised = BTreeMap::new();
        let mut named = Vec::with_capacity(rest.len());
        let mut reader = names.as_ref().map(Layout::names);
        for file in rest {
            let parsed = reader
                .as_mut()
                .map_or(Parsed::Unrecognised, |names| names.image(&file.path));
            match parsed {
                Parsed::Image(key) => named.push(Found {
                    key,
                    file: file.clone(),
                    page: None,
                }),
                Parsed::Skip(reason) => skip(reason),
                Parsed::Unrecognised => tally(&mut unrecognised, of_only(&file.path), &file.path),
            }
        }
        // What most images were read by.
        let layout = match (format, &names) {
            (Some(format), _) if found.len() + absent.len() + lost.len() >= named.len() => format.choice(),
            (_, Some(names)) => names.choice(),
            (Some(format), None) => format.choice(),
            (None, None) => LayoutChoice::Auto,
        };
        let by_name = names.as_ref().filter(|_| !named.is_empty() || !by_metadata);
        let reasons = [
            Some(why).filter(|why| !why.is_empty()),
            by_name.map(|names| names.why().to_owned()),
        ];
        let why: Vec<String> = reasons.into_iter().flatten().collect();
        if let Some(format) = format {
            problems.extend(format.compare(context, &named));
        }
        problems.extend(unrecognised.into_iter().map(|(plate, tally)| {
            let (plate, Tally { files, paths }) = (plate.cloned(), tally);
            FileProblem::Unrecognised {
                plate,
                layout,
                files,
                paths,
            }
        }));
        problems.extend(unknown.into_iter().map(|(plate, tally)| {
            let (plate, Tally { files, paths }) = (plate.cloned(), tally);
            FileProblem::UnknownFiles { plate, files, paths }
        }));
        found.extend(named);
        Ok(Placed {
            layout,
            why: why.join("; "),
            found,
            absent,
            lost,
            facts,
            fields_per_well,
            to_be_imaged,
            problems,
            skipped,
        })
    }
}

/// The first image in path order of every plate and channel that is a TIFF.
fn described_images(found: &[Found]) -> BTreeMap<(&Barcode, &str), (&str, &super::ImageKey)> {
    let mut first: BTreeMap<(&Barcode, &str), (&str, &super::ImageKey)> = BTreeMap::new();
    for image in found {
        let path = image.file.path.as_str();
        let suffix = path.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        if ["tif", "tiff"]
            .iter()
            .any(|known| suffix.eq_ignore_ascii_case(known))
        {
            first
                .entry((&image.key.plate, &image.key.channel_text))
                .and_modify(|known| *known = (*known).min((path, &image.key)))
                .or_insert((path, &image.key));
        }
    }
    first
}
