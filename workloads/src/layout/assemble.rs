//! From images to fields of view: which of them make up which field, and what is wrong with the rest.
//!
//! Images that names or metadata place enter, [`PlateFiles`] leave: complete fields in plate, well, field order, and
//! every problem as data. Nothing here fails, and the result does not depend on the order of the listing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::facts::{ChannelFacts, ImageFacts};
use super::metadata::{FactsOf, Found, Lost};
use super::reading::{Placed, tally};
use super::{FileProblem, ImageKey, SkipReason};
use crate::screen::{ImagesSettings, LayoutChoice};
use crate::words::{Barcode, Channel, FieldId, WellPosition};

/// A file of the image store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListedFile {
    /// Path relative to the store, `/` between folders.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// What tells this state of the file from others, where the store says: another text when it is written again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Box<str>>,
}

/// One plane of one channel of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaneFile {
    /// The z plane, where name or metadata hold one.
    pub plane: Option<u32>,
    /// The file.
    pub file: ListedFile,
    /// Which image of the file, from 0: the directory of a TIFF, or the plane of an array of more than two axes, counted
    /// with the last of the others fastest. `None` where the file holds one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
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

/// The fields of every plate, and what was wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct PlateFiles {
    /// The layout used.
    pub layout: LayoutChoice,
    /// Why it was used, in words.
    pub why: String,
    /// Complete fields per plate, in well and field order.
    pub plates: BTreeMap<Barcode, Vec<FieldFiles>>,
    /// What is known of how the images were taken, per plate and channel in the screen's order; a channel of which
    /// nothing is known is absent.
    pub facts: BTreeMap<Barcode, Vec<ChannelFacts>>,
    /// Fields per plate that were to be imaged, where the format says so before it begins: the `.HTD` of an ImageXpress.
    pub to_be_imaged: BTreeMap<Barcode, u32>,
    /// Every problem, in a fixed order. A field appears at most once with [`FileProblem::lost_field`].
    pub problems: Vec<FileProblem>,
    /// How many files were passed over, by reason.
    pub skipped: BTreeMap<SkipReason, u64>,
}

/// An image of a field.
struct FieldImage {
    /// The index of its channel in the screen.
    channel: usize,
    plane: Option<u32>,
    file: ListedFile,
    page: Option<u32>,
}

/// Groups placed images into fields of view.
pub(super) fn assemble(placed: Placed, images: &ImagesSettings) -> PlateFiles {
    let Placed {
        layout,
        why,
        mut found,
        absent,
        lost,
        facts,
        fields_per_well,
        to_be_imaged,
        mut problems,
        mut skipped,
    } = placed;
    let asked = |plate: &Barcode| images.plates.is_empty() || images.plates.contains(plate);
    let all = found.len();
    found.retain(|image| asked(&image.key.plate));
    if found.len() < all {
        *skipped.entry(SkipReason::OtherPlate).or_insert(0) += (all - found.len()) as u64;
    }
    found.sort_by(|a, b| (&a.file, a.page, &a.key).cmp(&(&b.file, b.page, &b.key)));
    found.dedup_by(|a, b| a.file == b.file && a.page == b.page && a.key == b.key);
    let channels = Channels::of(images, &facts);

    let mut first_time: BTreeMap<Barcode, u32> = BTreeMap::new();
    let keys = found
        .iter()
        .map(|image| &image.key)
        .chain(absent.iter().map(|image| &image.key));
    for key in keys {
        if let Some(time) = key.time {
            let first = first_time.entry(key.plate.clone()).or_insert(time);
            *first = time.min(*first);
        }
    }
    let later_than = |key: &ImageKey| {
        let first = first_time.get(&key.plate).copied();
        first.filter(|first| key.time.is_some_and(|time| time > *first))
    };

    let mut unknown = BTreeMap::new();
    let mut later = BTreeMap::new();
    let mut fields: BTreeMap<FieldId, Vec<FieldImage>> = BTreeMap::new();
    for Found { key, file, page } in found {
        if let Some(first) = later_than(&key) {
            tally(&mut later, (key.plate, first), &file.path);
            continue;
        }
        let Some(channel) = channels.index(&key.plate, &key.channel_text) else {
            let text = channels.words(&key);
            tally(&mut unknown, (key.plate, text), &file.path);
            continue;
        };
        let (field, plane) = field_of(key);
        fields.entry(field).or_default().push(FieldImage {
            channel,
            plane,
            file,
            page,
        });
    }
    // By channel and plane, and those of one in path order.
    for found in fields.values_mut() {
        found.sort_by_key(|image| (image.channel, image.plane));
    }
    if layout == LayoutChoice::ImageXpress {
        let left_out = leave_out_projections(&mut fields);
        if left_out > 0 {
            skipped.insert(SkipReason::Projection, left_out);
        }
    }
    let mut lacking: BTreeMap<FieldId, (BTreeSet<usize>, String, BTreeSet<String>)> = BTreeMap::new();
    for image in absent {
        let wanted = asked(&image.key.plate) && later_than(&image.key).is_none();
        if let Some(channel) = channels
            .index(&image.key.plate, &image.key.channel_text)
            .filter(|_| wanted)
        {
            let (field, _) = field_of(image.key);
            fields.entry(field.clone()).or_default();
            let (channels, _, paths) = lacking
                .entry(field)
                .or_insert_with(|| (BTreeSet::new(), image.metadata, BTreeSet::new()));
            channels.insert(channel);
            paths.insert(image.path);
        }
    }

    let mut unusable: BTreeMap<FieldId, FileProblem> = lost
        .into_iter()
        .filter(|of| asked(&of.field.plate))
        .map(|Lost { field, path, reason }| {
            fields.entry(field.clone()).or_default();
            let problem = FileProblem::UnusableImage {
                field: field.clone(),
                path,
                reason,
            };
            (field, problem)
        })
        .collect();

    let found_plates: BTreeSet<&Barcode> = fields.keys().map(|field| &field.plate).collect();
    for plate in images.plates.iter().collect::<BTreeSet<_>>() {
        if !found_plates.contains(plate) {
            problems.push(FileProblem::PlateWithoutImages { plate: plate.clone() });
        }
    }
    problems.extend(fewer_fields(&fields, |plate| {
        images
            .fields_per_well
            .or_else(|| fields_per_well.get(plate).copied())
    }));

    let mut plates: BTreeMap<Barcode, Vec<FieldFiles>> = BTreeMap::new();
    for (field, found) in fields {
        // A plate whose every field is incomplete is still a plate.
        let plate = plates.entry(field.plate.clone()).or_default();
        if let Some(problem) = unusable.remove(&field) {
            problems.push(problem);
            continue;
        }
        if let Some((channels, metadata, paths)) = lacking.remove(&field) {
            problems.push(FileProblem::AbsentFile {
                field,
                channels: channels
                    .into_iter()
                    .filter_map(|index| images.channels.get(index).map(|channel| channel.name.clone()))
                    .collect(),
                metadata,
                paths: paths.into_iter().collect(),
            });
            continue;
        }
        match complete(field, found, images) {
            Ok(field) => plate.push(field),
            Err(problem) => problems.push(problem),
        }
    }
    let unknown = unknown.into_iter();
    problems.extend(
        unknown.map(|((plate, channel_text), tally)| FileProblem::UnknownChannel {
            plate,
            channel_text,
            files: tally.files,
            example: tally.example(),
        }),
    );
    let later = later.into_iter();
    problems.extend(later.map(|((plate, first), tally)| FileProblem::LaterTimePoints {
        plate,
        first,
        files: tally.files,
        example: tally.example(),
    }));
    let facts = plates.keys().filter_map(|plate| {
        let facts = channels.facts(plate, &facts);
        (!facts.is_empty()).then(|| (plate.clone(), facts))
    });
    PlateFiles {
        layout,
        why,
        facts: facts.collect(),
        plates,
        to_be_imaged,
        problems,
        skipped,
    }
}

fn field_of(key: ImageKey) -> (FieldId, Option<u32>) {
    let field = FieldId {
        plate: key.plate,
        well: key.well,
        field: key.field,
    };
    (field, key.plane)
}

/// MetaXpress keeps the projection of a stack above the folders of its planes, or, exported, in a folder `ZStep_0`. Beside
/// planes it says nothing new; how many were left out.
fn leave_out_projections(fields: &mut BTreeMap<FieldId, Vec<FieldImage>>) -> u64 {
    let is_projection = |image: &FieldImage| image.plane.is_none_or(|plane| plane == 0);
    let mut left_out = 0;
    for images in fields.values_mut() {
        let of_planes: BTreeSet<usize> = images
            .iter()
            .filter(|image| !is_projection(image))
            .map(|image| image.channel)
            .collect();
        let before = images.len();
        images.retain(|image| !(is_projection(image) && of_planes.contains(&image.channel)));
        left_out += (before - images.len()) as u64;
    }
    left_out
}

/// Which channel of the screen an image shows.
struct Channels<'a> {
    images: &'a ImagesSettings,
    /// The microscope's names, by plate and the text in file names in lower case.
    names: HashMap<(Barcode, String), String>,
}

impl<'a> Channels<'a> {
    fn of(images: &'a ImagesSettings, facts: &[FactsOf]) -> Self {
        let mut names = HashMap::new();
        for of in facts {
            if let Some(name) = &of.facts.name {
                let key = (of.plate.clone(), of.channel_text.to_ascii_lowercase());
                names.entry(key).or_insert_with(|| name.clone());
            }
        }
        Self { images, names }
    }

    fn name(&self, plate: &Barcode, text: &str) -> Option<&String> {
        self.names.get(&(plate.clone(), text.to_ascii_lowercase()))
    }

    /// The screen's channel for a text in a file name or the name the microscope gives it, in any case. A name without a
    /// channel belongs to the only channel of a one-channel screen.
    fn index(&self, plate: &Barcode, text: &str) -> Option<usize> {
        let channels = &self.images.channels;
        if text.is_empty() && channels.len() == 1 {
            return Some(0);
        }
        let find = |text: &str| {
            let named = |channel: &crate::screen::ChannelSettings| channel.matches.eq_ignore_ascii_case(text);
            channels.iter().position(named)
        };
        find(text).or_else(|| find(self.name(plate, text)?))
    }

    /// The channel of a file as a person may look for it.
    fn words(&self, key: &ImageKey) -> String {
        let name = self.name(&key.plate, &key.channel_text);
        match name.filter(|name| **name != key.channel_text) {
            Some(name) => format!("{} ({name})", key.channel_text),
            None => key.channel_text.clone(),
        }
    }

    /// What is known of the screen's channels on a plate, in their order.
    fn facts(&self, plate: &Barcode, facts: &[FactsOf]) -> Vec<ChannelFacts> {
        let mut known: BTreeMap<usize, ImageFacts> = BTreeMap::new();
        for of in facts.iter().filter(|of| of.plate == *plate) {
            if let Some(index) = self.index(plate, &of.channel_text) {
                known.entry(index).or_default().fill(&of.facts);
            }
        }
        let named = known.into_iter().filter(|(_, facts)| !facts.is_empty());
        named
            .filter_map(|(index, facts)| {
                let channel = self.images.channels.get(index)?.name.clone();
                Some(ChannelFacts { channel, facts })
            })
            .collect()
    }
}

fn complete(
    field: FieldId,
    found: Vec<FieldImage>,
    images: &ImagesSettings,
) -> Result<FieldFiles, FileProblem> {
    let is_there = |index: usize| found.iter().any(|image| image.channel == index);
    let channels = images.channels.iter().enumerate();
    let missing: Vec<Channel> = channels
        .filter(|(index, _)| !is_there(*index))
        .map(|(_, channel)| channel.name.clone())
        .collect();
    if !missing.is_empty() {
        return Err(FileProblem::MissingChannel {
            field,
            channels: missing,
        });
    }
    let same = |one: &FieldImage, next: &FieldImage| (one.channel, one.plane) == (next.channel, next.plane);
    if let Some(several) = found.chunk_by(same).find(|images| images.len() > 1) {
        let of = several
            .first()
            .and_then(|image| images.channels.get(image.channel));
        if let Some(settings) = of {
            return Err(FileProblem::DuplicateFile {
                field,
                channel: settings.name.clone(),
                paths: several.iter().map(|image| image.file.path.clone()).collect(),
            });
        }
    }
    let mut channels: Vec<ChannelFiles> = images
        .channels
        .iter()
        .map(|settings| ChannelFiles {
            channel: settings.name.clone(),
            planes: Vec::new(),
        })
        .collect();
    for image in found {
        let FieldImage {
            channel,
            plane,
            file,
            page,
        } = image;
        if let Some(of) = channels.get_mut(channel) {
            of.planes.push(PlaneFile { plane, file, page });
        }
    }
    Ok(FieldFiles {
        well: field.well,
        field: field.field,
        channels,
    })
}

/// Wells with fewer fields than `expected` says for their plate, or than the most common count of it (ties: the larger).
fn fewer_fields(
    fields: &BTreeMap<FieldId, Vec<FieldImage>>,
    expected: impl Fn(&Barcode) -> Option<u32>,
) -> Vec<FileProblem> {
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
        let Some(expected) = expected(plate).or(common.map(|(count, _)| count)) else {
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
