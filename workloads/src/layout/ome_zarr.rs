//! OME-Zarr plates: high-content screening of NGFF, versions 0.4 and 0.5, and what older versions have alike.
//!
//! The attributes of plate, wells and images and the documents of arrays enter: `.zattrs` and `.zarray` of Zarr version 2,
//! `zarr.json` of version 3 with the namespace `ome`. Planes of wells, fields, channels, slices and time points leave, at
//! full resolution; the file of a plane is the document of its array, its page the plane's number. Channels are called
//! `C0`, `C1`, ... as the plate's first image has them, or by their labels. Only the first acquisition is taken.

use std::collections::BTreeMap;

use serde_json::Value;

use super::facts::ImageFacts;
use super::metadata::{
    Absent, Context, Described, FactsOf, Found, Lost, MetadataLayout, Recognition, Wanted, name_of, unusable,
};
use super::ome_groups::{attributes, group, plates};
use super::ome_image::{OmeImage, is_below};
use super::zarr_array::ZarrDocument;
use super::{FileProblem, ImageKey, ListedFile};
use crate::screen::LayoutChoice;
use crate::words::{Barcode, FieldId, WellPosition};

pub(super) struct OmeZarr;

/// The document of an array.
fn array<'a>(context: Context<'a>, folder: &str) -> Option<&'a ListedFile> {
    let of_3 = context.file(&format!("{folder}zarr.json"));
    of_3.or_else(|| context.file(&format!("{folder}.zarray")))
}

/// The barcode of a plate's folder, without what says that it is Zarr.
fn plate_of(context: Context<'_>, folder: &str) -> Option<Barcode> {
    if let Some(plate) = &context.images.plate {
        return Some(plate.clone());
    }
    let whole = format!("{}/{folder}", context.images.store);
    let name = name_of(whole.trim_end_matches('/'));
    let lower = name.to_ascii_lowercase();
    let end = [".ome.zarr", ".zarr"]
        .into_iter()
        .find(|end| lower.ends_with(end));
    name.get(..name.len() - end.map_or(0, str::len))?.parse().ok()
}

impl MetadataLayout for OmeZarr {
    fn choice(&self) -> LayoutChoice {
        LayoutChoice::OmeZarr
    }

    fn recognise(&self, context: Context<'_>) -> Recognition {
        let walk = plates(context);
        if let Some((_, path, attributes)) = walk.plates.first() {
            let version = attributes["plate"]["version"]
                .as_str()
                .or(attributes["version"].as_str());
            let version = version.map(|version| format!(" {version}")).unwrap_or_default();
            return Recognition::Yes(format!("{path} has the attributes of an OME-Zarr{version} plate"));
        }
        if !walk.wanted.is_empty() {
            return Recognition::Ask(walk.wanted);
        }
        match walk.broken.first() {
            Some((path, reason)) => {
                Recognition::Yes(format!("{path} is the document of a Zarr group ({reason})"))
            }
            None => Recognition::No,
        }
    }

    fn wanted(&self, context: Context<'_>) -> Vec<Wanted> {
        let mut reader = PlateReader::new(context);
        reader.read();
        reader.wanted
    }

    fn describe(&self, context: Context<'_>) -> Described {
        let mut reader = PlateReader::new(context);
        reader.read();
        reader.described
    }
}

/// What there is of a document.
enum Known<T> {
    /// It has to be read first.
    Wanted,
    /// It cannot be used: its path, and why.
    Not(String, String),
    /// What it says.
    Read(T),
}

/// Reads plates as far as their documents are known.
struct PlateReader<'a> {
    context: Context<'a>,
    wanted: Vec<Wanted>,
    described: Described,
    /// The channels of each plate's first image.
    labels: BTreeMap<Barcode, Vec<Option<String>>>,
}

/// An image as its well lists it.
struct Listed {
    well: WellPosition,
    folder: String,
    field: u32,
    acquisition: u64,
}

impl<'a> PlateReader<'a> {
    fn new(context: Context<'a>) -> Self {
        Self {
            context,
            wanted: Vec::new(),
            described: Described::default(),
            labels: BTreeMap::new(),
        }
    }

    fn problem(&mut self, plate: Option<&Barcode>, path: &str, reason: impl ToString) {
        let mut problem = unusable(self.context, path, reason);
        if let (FileProblem::Metadata { plate: of, .. }, Some(plate)) = (&mut problem, plate) {
            *of = Some(plate.clone());
        }
        self.described.problems.push(problem);
    }

    fn document<T>(
        &mut self,
        file: Option<&ListedFile>,
        folder: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Known<T> {
        let Some(file) = file else {
            let reason = "the plate lists it, and it has no metadata document";
            return Known::Not(folder.to_owned(), reason.to_owned());
        };
        let answer = match self.context.whole(&file.path) {
            None => {
                self.wanted.extend(self.context.want(file));
                return Known::Wanted;
            }
            Some(answer) => answer.as_ref().map_err(Clone::clone),
        };
        match answer.and_then(|bytes| parse(bytes)) {
            Ok(found) => Known::Read(found),
            Err(reason) => Known::Not(file.path.clone(), reason),
        }
    }

    fn read(&mut self) {
        let walk = plates(self.context);
        self.wanted.extend(walk.wanted);
        for (path, reason) in walk.broken {
            self.problem(None, path, reason);
        }
        for (folder, path, attributes) in walk.plates {
            let Some(plate) = plate_of(self.context, folder) else {
                self.problem(None, path, "its folder's name is no barcode: set images.plate");
                continue;
            };
            if self.context.includes(&plate) {
                self.plate(&plate, folder, path, &attributes["plate"]["wells"]);
            }
        }
    }

    fn plate(&mut self, plate: &Barcode, folder: &str, path: &str, wells: &Value) {
        let wells = wells.as_array().map(Vec::as_slice).unwrap_or_default();
        if wells.is_empty() {
            self.problem(Some(plate), path, "it lists no well");
        }
        let mut images = Vec::new();
        for well in wells {
            match position(well) {
                Some((position, well)) => {
                    images.extend(self.well(plate, &format!("{folder}{well}/"), position));
                }
                None => {
                    let reason = format!("{well} is no well: a path such as B/3 is expected");
                    self.problem(Some(plate), path, reason);
                }
            }
        }
        // Another acquisition may be of other channels at other places: only one is taken.
        let first = images.iter().map(|image| image.acquisition).min().unwrap_or(0);
        let later: Vec<&Listed> = images.iter().filter(|image| image.acquisition > first).collect();
        if let Some(example) = later.first() {
            self.described.problems.push(FileProblem::LaterAcquisitions {
                plate: plate.clone(),
                first,
                images: later.len() as u64,
                example: example.folder.clone(),
            });
        }
        for image in images.iter().filter(|image| image.acquisition == first) {
            self.image(plate, image);
        }
    }

    fn well(&mut self, plate: &Barcode, folder: &str, well: WellPosition) -> Vec<Listed> {
        let file = group(self.context, folder);
        let attributes = match self.document(file, folder, attributes) {
            Known::Read(attributes) => attributes,
            Known::Wanted => return Vec::new(),
            Known::Not(path, reason) => {
                self.problem(Some(plate), &path, format!("well {well}: {reason}"));
                return Vec::new();
            }
        };
        let images = attributes["well"]["images"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if images.is_empty() {
            self.problem(Some(plate), folder, format!("well {well}: it lists no image"));
        }
        let mut listed = Vec::new();
        for (index, image) in images.iter().enumerate() {
            let path = image["path"].as_str().map(|path| path.trim_matches('/'));
            let Some(path) = path.filter(|path| is_below(path)) else {
                self.problem(
                    Some(plate),
                    folder,
                    format!("well {well}: {image} names no image"),
                );
                continue;
            };
            listed.push(Listed {
                well,
                folder: format!("{folder}{path}/"),
                field: path.parse().unwrap_or(u32::try_from(index).unwrap_or(u32::MAX)),
                acquisition: image["acquisition"].as_u64().unwrap_or(0),
            });
        }
        listed
    }

    fn image(&mut self, plate: &Barcode, listed: &Listed) {
        let file = group(self.context, &listed.folder);
        let parse = |bytes: &[u8]| OmeImage::parse(&attributes(bytes)?);
        let image = match self.document(file, &listed.folder, parse) {
            Known::Read(image) => image,
            Known::Wanted => return,
            Known::Not(path, reason) => return self.lost(plate, listed, path, reason),
        };
        let folder = format!("{}{}/", listed.folder, image.array);
        let file = array(self.context, &folder);
        let document = match self.document(file, &folder, ZarrDocument::parse) {
            Known::Read(document) => document,
            Known::Wanted => return,
            Known::Not(path, reason) => return self.lost(plate, listed, path, reason),
        };
        let axes = match image.leading(document.leading().len()) {
            Ok(axes) => axes,
            Err(reason) => return self.lost(plate, listed, listed.folder.clone(), reason),
        };
        let Some(file) = file else { return };
        let channels = axes.iter().position(|axis| *axis == 'c');
        let channels = channels
            .and_then(|at| document.leading().get(at))
            .copied()
            .unwrap_or(1);
        if !self.labels.contains_key(plate) {
            self.labels.insert(plate.clone(), image.labels.clone());
            self.facts(plate, &image, &document, channels);
        }
        self.planes(plate, listed, file, (&folder, &document), &axes, &image.labels);
    }

    fn lost(&mut self, plate: &Barcode, listed: &Listed, path: String, reason: String) {
        let field = FieldId {
            plate: plate.clone(),
            well: listed.well,
            field: listed.field,
        };
        self.described.lost.push(Lost { field, path, reason });
    }

    /// What stands for channel `index` of an image: its place among the channels of the plate's first image. Images may
    /// have them in another order, which their labels tell.
    fn channel_text(&self, plate: &Barcode, labels: &[Option<String>], index: u64) -> String {
        let label = usize::try_from(index)
            .ok()
            .and_then(|index| labels.get(index)?.as_ref());
        let of_plate = self.labels.get(plate).map(Vec::as_slice).unwrap_or_default();
        match label.filter(|_| !of_plate.is_empty()) {
            Some(label) => match of_plate.iter().position(|known| known.as_ref() == Some(label)) {
                Some(index) => format!("C{index}"),
                None => label.clone(),
            },
            None => format!("C{index}"),
        }
    }

    fn planes(
        &mut self,
        plate: &Barcode,
        listed: &Listed,
        file: &ListedFile,
        (folder, document): (&str, &ZarrDocument),
        axes: &[char],
        labels: &[Option<String>],
    ) {
        let mut chunks: Option<(u64, String)> = None;
        for (page, place) in document.planes() {
            let at = |letter: char| {
                let index = axes.iter().position(|axis| *axis == letter)?;
                place.get(index).copied()
            };
            let small = |number: u64| u32::try_from(number).ok();
            let key = ImageKey {
                plate: plate.clone(),
                well: listed.well,
                field: listed.field,
                channel_text: self.channel_text(plate, labels, at('c').unwrap_or(0)),
                plane: at('z').and_then(small),
                time: at('t').and_then(small),
            };
            let objects: Vec<String> = document
                .objects(&place)
                .into_iter()
                .map(|object| format!("{folder}{object}"))
                .collect();
            let absent: Vec<&String> = objects
                .iter()
                .filter(|object| self.context.file(object).is_none())
                .collect();
            if let Some(first) = absent.first().filter(|_| absent.len() == objects.len()) {
                // Nothing of it was ever written.
                self.described.absent.push(Absent {
                    key,
                    path: (*first).clone(),
                    metadata: file.path.clone(),
                });
                continue;
            }
            if let Some(first) = absent.first() {
                let (count, _) = chunks.get_or_insert_with(|| (0, (*first).clone()));
                *count += absent.len() as u64;
            }
            self.described.found.push(Found {
                key,
                file: ListedFile {
                    path: file.path.clone(),
                    size: document.plane_bytes(),
                    version: file.version.clone(),
                },
                page: Some(page),
            });
        }
        if let Some((chunks, example)) = chunks {
            self.described.absent_chunks(plate, chunks, example);
        }
    }

    /// The plate's first image says how all were taken.
    fn facts(&mut self, plate: &Barcode, image: &OmeImage, document: &ZarrDocument, channels: u64) {
        for index in 0..channels {
            let label = usize::try_from(index)
                .ok()
                .and_then(|index| image.labels.get(index).cloned());
            self.described.facts.push(FactsOf {
                plate: plate.clone(),
                channel_text: format!("C{index}"),
                facts: ImageFacts {
                    name: label.flatten(),
                    pixel_size_um: image.pixel_size_um,
                    bit_depth: Some(document.bits),
                    ..ImageFacts::default()
                },
            });
        }
    }
}

/// The position of a well and its path: rows and columns are named in the path, whatever their indices are.
fn position(well: &Value) -> Option<(WellPosition, &str)> {
    let path = well["path"].as_str()?.trim_matches('/');
    let (row, column) = path.split_once('/').filter(|_| is_below(path))?;
    let by_name = format!("{row}{column}").parse().ok();
    // Rows may be numbered instead.
    let index = |name: &str| u8::try_from(well[name].as_u64()?.checked_add(1)?).ok();
    let position = by_name.or_else(|| WellPosition::new(index("rowIndex")?, index("columnIndex")?))?;
    Some((position, path))
}
