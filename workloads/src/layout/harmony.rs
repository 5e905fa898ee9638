//! Opera Phenix and Operetta: the index that Harmony writes beside the images of a measurement.
//!
//! `Index.idx.xml` or `Index.xml` enters, in any version of its namespace (V3 to V7); every image with row, column,
//! field, plane, time point, channel and file leaves, and the facts of every channel. Older versions have these in every
//! image, newer ones once per channel in a map. An index that is cut short is not used: file names are.

use std::collections::{BTreeMap, HashMap};

use super::facts::{ImageFacts, bits_of_level, micrometres, milliseconds, positive};
use super::metadata::{
    Context, Described, FactsOf, Folder, MetadataLayout, Recognition, Wanted, folder_of, name_of, unusable,
};
use super::xml::{Node, text_of, walk};
use super::{ImageKey, ListedFile};
use crate::screen::LayoutChoice;
use crate::words::{Barcode, WellPosition};

pub(super) struct Harmony;

/// The indices of a listing, one per folder; `Index.idx.xml` and `Index.xml` side by side say the same.
fn indices<'a>(context: Context<'a>) -> BTreeMap<&'a str, &'a ListedFile> {
    let mut indices = BTreeMap::new();
    for file in context.listing {
        let name = name_of(&file.path);
        let is_index = ["Index.idx.xml", "Index.xml"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        let hidden = file.path.split('/').any(|part| part.starts_with('.'));
        // A measurement of another plate is not read where one plate is asked for and folders tell.
        let other = context
            .plate_of(&file.path)
            .is_some_and(|plate| !context.includes(&plate) && file.path.contains("-Measurement"));
        if is_index && !hidden && !other {
            indices.entry(folder_of(&file.path)).or_insert(file);
        }
    }
    indices
}

impl MetadataLayout for Harmony {
    fn choice(&self) -> LayoutChoice {
        LayoutChoice::Phenix
    }

    fn recognise(&self, context: Context<'_>) -> Recognition {
        match indices(context).values().next() {
            Some(file) => Recognition::Yes(format!("{} is the index of a Harmony measurement", file.path)),
            None => Recognition::No,
        }
    }

    fn wanted(&self, context: Context<'_>) -> Vec<Wanted> {
        indices(context)
            .values()
            .filter_map(|file| context.want(file))
            .collect()
    }

    fn describe(&self, context: Context<'_>) -> Described {
        let mut described = Described::default();
        for (folder, file) in indices(context) {
            let index = match context.whole(&file.path) {
                Some(Ok(bytes)) => Index::parse(bytes),
                Some(Err(reason)) => Err(reason.clone()),
                None => continue,
            };
            match index {
                Ok(index) => add(context, &mut described, folder, &file.path, index),
                Err(reason) => described.problems.push(unusable(context, &file.path, reason)),
            }
        }
        described
    }
}

fn add(context: Context<'_>, described: &mut Described, folder: &str, path: &str, index: Index) {
    let named = index.plate.and_then(|name| name.parse::<Barcode>().ok());
    let plate = context
        .images
        .plate
        .clone()
        .or(named)
        .or_else(|| context.plate_of(path));
    let Some(plate) = plate else {
        let reason = "it names no plate, and no folder does: set images.plate";
        described.problems.push(unusable(context, path, reason));
        return;
    };
    for entry in index.images {
        let channel_text = format!("ch{}", entry.channel);
        let key = ImageKey {
            plate: plate.clone(),
            well: entry.well,
            field: entry.field,
            channel_text,
            plane: entry.plane,
            time: entry.time,
        };
        described.add(context, (folder, path), &entry.url, key);
    }
    let facts = index.channels.into_iter().map(|(channel, facts)| FactsOf {
        plate: plate.clone(),
        channel_text: format!("ch{channel}"),
        facts,
    });
    described.facts.extend(facts);
    described.folders.push(Folder {
        folder: folder.to_owned(),
        plate,
        metadata: path.to_owned(),
    });
}

/// What an index says.
struct Index {
    plate: Option<String>,
    images: Vec<Entry>,
    channels: BTreeMap<u32, ImageFacts>,
}

struct Entry {
    well: WellPosition,
    field: u32,
    plane: Option<u32>,
    time: Option<u32>,
    channel: u32,
    url: String,
}

impl Index {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut index = Self {
            plate: None,
            images: Vec::new(),
            channels: BTreeMap::new(),
        };
        // What stands in the image or map entry that is open.
        let mut texts: HashMap<String, (String, Option<String>)> = HashMap::new();
        let mut unit = None;
        let mut in_entry = None;
        let mut root = String::new();
        let mut bad = None;
        let text = text_of(bytes);
        let result = walk(&text, |node| match node {
            Node::Open(path, attributes) => {
                let name = path.last().map_or("", String::as_str);
                if path.len() == 1 {
                    name.clone_into(&mut root);
                }
                match (parent(path), name) {
                    ("Images", "Image") => texts.clear(),
                    ("Map", "Entry") => {
                        texts.clear();
                        in_entry = attributes.number::<u32>("ChannelID");
                    }
                    _ => unit = attributes.get("Unit"),
                }
            }
            Node::Close(path, content) => {
                let name = path.last().map_or("", String::as_str);
                match (parent(path), name) {
                    ("Plate", "Name") if !content.is_empty() => index.plate = Some(content.to_owned()),
                    ("Plate", "PlateID") if !content.is_empty() => {
                        index.plate.get_or_insert_with(|| content.to_owned());
                    }
                    ("Images", "Image") => match entry(&texts) {
                        Ok(image) => {
                            let known = index.channels.entry(image.channel).or_default();
                            known.fill(&facts(&texts));
                            index.images.push(image);
                        }
                        Err(reason) => {
                            let id = texts.get("id").map_or("without id", |(id, _)| id.as_str());
                            bad.get_or_insert_with(|| format!("image {id}: {reason}"));
                        }
                    },
                    ("Map", "Entry") => {
                        if let Some(channel) = in_entry.take() {
                            index.channels.entry(channel).or_default().fill(&facts(&texts));
                        }
                    }
                    ("Image" | "Entry", name) => {
                        texts.insert(name.to_owned(), (content.to_owned(), unit.take()));
                    }
                    _ => {}
                }
            }
        });
        result.map_err(|error| error.to_string())?;
        match bad {
            Some(bad) => Err(bad),
            None if index.images.is_empty() => Err(format!(
                "it lists no image: its root is <{root}>, and Harmony's has Images with Image in it"
            )),
            None => Ok(index),
        }
    }
}

fn parent(path: &[String]) -> &str {
    path.len().checked_sub(2).map_or("", |at| path[at].as_str())
}

type Texts = HashMap<String, (String, Option<String>)>;

fn entry(texts: &Texts) -> Result<Entry, String> {
    let text = |name: &str| texts.get(name).map(|(text, _)| text.as_str());
    let number = |name: &str| {
        let text = text(name).filter(|text| !text.is_empty());
        text.map(|text| {
            text.parse::<u32>()
                .map_err(|_| format!("{name} is '{text}', not a number"))
        })
        .transpose()
    };
    let need = |name: &str| number(name)?.ok_or_else(|| format!("it has no {name}"));
    let (row, column) = (need("Row")?, need("Col")?);
    let well = u8::try_from(row)
        .ok()
        .zip(u8::try_from(column).ok())
        .and_then(|(row, column)| WellPosition::new(row, column))
        .ok_or_else(|| format!("row {row} and column {column} lie outside a 1536-well plate"))?;
    Ok(Entry {
        well,
        field: need("FieldID")?,
        plane: number("PlaneID")?,
        time: number("TimepointID")?,
        channel: need("ChannelID")?,
        url: text("URL")
            .filter(|url| !url.is_empty())
            .ok_or("it has no URL")?
            .to_owned(),
    })
}

fn facts(texts: &Texts) -> ImageFacts {
    let text = |name: &str| {
        texts
            .get(name)
            .map(|(text, unit)| (text.as_str(), unit.as_deref()))
    };
    let number = |name: &str| text(name).and_then(|(text, _)| positive(text));
    let length = |name: &str| text(name).and_then(|(text, unit)| micrometres(text, unit.or(Some("m"))));
    ImageFacts {
        name: text("ChannelName")
            .map(|(name, _)| name.to_owned())
            .filter(|name| !name.is_empty()),
        pixel_size_um: length("ImageResolutionX").zip(length("ImageResolutionY")),
        exposure_ms: text("ExposureTime").and_then(|(text, unit)| milliseconds(text, unit)),
        objective: None,
        magnification: number("ObjectiveMagnification"),
        numerical_aperture: number("ObjectiveNA"),
        excitation_nm: number("MainExcitationWavelength"),
        emission_nm: number("MainEmissionWavelength"),
        bit_depth: number("MaxIntensity").and_then(bits_of_level),
    }
}
