//! Yokogawa CellVoyager (CV6000, CV7000, CV8000, CQ1): the list of a measurement, its detail and its setting.
//!
//! `MeasurementData.mlf` lists every image with row, column, field, plane, time point, channel and file.
//! `MeasurementDetail.mrf` has pixel size and bit depth of every channel, and names the setting (`.mes`), which has
//! objective, exposure, filter and light source. The list alone decides which images there are; the other two only add
//! facts. A list that is cut short is not used: file names are.

use std::collections::BTreeMap;

use super::facts::{ImageFacts, positive};
use super::metadata::{
    Context, Described, FactsOf, Folder, MetadataLayout, Recognition, Wanted, folder_of, name_of, unusable,
};
use super::xml::{Attributes, Node, text_of, walk};
use super::{ImageKey, ListedFile};
use crate::screen::LayoutChoice;
use crate::words::WellPosition;

pub(super) struct CellVoyager;

fn has_extension(path: &str, extension: &str) -> bool {
    name_of(path)
        .rsplit_once('.')
        .is_some_and(|(_, found)| found.eq_ignore_ascii_case(extension))
}

/// The lists of a listing, of the plates that are asked for.
fn lists<'a>(context: Context<'a>) -> impl Iterator<Item = &'a ListedFile> {
    context.listing.iter().filter(move |file| {
        let hidden = file.path.split('/').any(|part| part.starts_with('.'));
        let asked = context
            .plate_of(&file.path)
            .is_none_or(|plate| context.includes(&plate));
        has_extension(&file.path, "mlf") && !hidden && asked
    })
}

/// The files beside a list that add to it.
fn beside<'a>(context: Context<'a>, list: &str) -> impl Iterator<Item = &'a ListedFile> {
    let folder = folder_of(list).to_owned();
    context.below(&folder).iter().filter(move |file| {
        folder_of(&file.path) == folder
            && (has_extension(&file.path, "mrf") || has_extension(&file.path, "mes"))
    })
}

impl MetadataLayout for CellVoyager {
    fn choice(&self) -> LayoutChoice {
        LayoutChoice::CellVoyager
    }

    fn recognise(&self, context: Context<'_>) -> Recognition {
        match lists(context).next() {
            Some(file) => Recognition::Yes(format!("{} is the list of a CellVoyager measurement", file.path)),
            None => Recognition::No,
        }
    }

    fn wanted(&self, context: Context<'_>) -> Vec<Wanted> {
        lists(context)
            .flat_map(|list| beside(context, &list.path).chain(std::iter::once(list)))
            .filter_map(|file| context.want(file))
            .collect()
    }

    fn describe(&self, context: Context<'_>) -> Described {
        let mut described = Described::default();
        for list in lists(context) {
            let mut channels: BTreeMap<u32, ImageFacts> = BTreeMap::new();
            for file in beside(context, &list.path) {
                let found = match context.whole(&file.path) {
                    Some(Ok(bytes)) => channel_facts(bytes),
                    Some(Err(reason)) => Err(reason.clone()),
                    None => continue,
                };
                match found {
                    Ok(found) => {
                        for (channel, facts) in found {
                            channels.entry(channel).or_default().fill(&facts);
                        }
                    }
                    Err(reason) => described.problems.push(unusable(context, &file.path, reason)),
                }
            }
            let records = match context.whole(&list.path) {
                Some(Ok(bytes)) => records(bytes),
                Some(Err(reason)) => Err(reason.clone()),
                None => continue,
            };
            match records {
                Ok(records) => add(context, &mut described, &list.path, records, channels),
                Err(reason) => described.problems.push(unusable(context, &list.path, reason)),
            }
        }
        described
    }
}

fn add(
    context: Context<'_>,
    described: &mut Described,
    path: &str,
    records: Records,
    channels: BTreeMap<u32, ImageFacts>,
) {
    let Some(plate) = context.plate_of(path) else {
        let reason = "it lies in no folder that could name the plate: set images.plate";
        described.problems.push(unusable(context, path, reason));
        return;
    };
    let folder = folder_of(path);
    if records.errors > 0 {
        let reason = format!(
            "it records {} errors of the microscope while imaging (the first: {}); images without them are used",
            records.errors, records.first_error
        );
        described.problems.push(unusable(context, path, reason));
    }
    for record in records.images {
        let key = ImageKey {
            plate: plate.clone(),
            well: record.well,
            field: record.field,
            channel_text: format!("C{:02}", record.channel),
            plane: record.plane,
            time: record.time,
        };
        described.add(context, (folder, path), &record.file, key);
    }
    described
        .facts
        .extend(channels.into_iter().map(|(channel, facts)| FactsOf {
            plate: plate.clone(),
            channel_text: format!("C{channel:02}"),
            facts,
        }));
    described.folders.push(Folder {
        folder: folder.to_owned(),
        plate,
        metadata: path.to_owned(),
    });
}

#[derive(Default)]
struct Records {
    images: Vec<Record>,
    errors: u64,
    first_error: String,
}

struct Record {
    well: WellPosition,
    field: u32,
    plane: Option<u32>,
    time: Option<u32>,
    channel: u32,
    file: String,
}

fn records(bytes: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    let mut open: Option<Result<Record, String>> = None;
    let mut is_error = false;
    let mut bad = None;
    let text = text_of(bytes);
    let result = walk(&text, |node| match node {
        Node::Open(path, attributes) if is_record(path) => match attributes.get("Type").as_deref() {
            Some("IMG") => open = Some(record(&attributes)),
            Some("ERR") => is_error = true,
            _ => {}
        },
        Node::Close(path, content) if is_record(path) => match open.take() {
            Some(Ok(record)) => records.images.push(Record {
                file: content.to_owned(),
                ..record
            }),
            Some(Err(reason)) => {
                bad.get_or_insert_with(|| format!("record of '{content}': {reason}"));
            }
            None if std::mem::take(&mut is_error) => {
                records.errors += 1;
                if records.errors == 1 {
                    records.first_error = content.chars().take(200).collect();
                }
            }
            None => {}
        },
        _ => {}
    });
    result.map_err(|error| error.to_string())?;
    match bad {
        Some(bad) => Err(bad),
        None if records.images.is_empty() => Err("it lists no image".to_owned()),
        None => Ok(records),
    }
}

fn is_record(path: &[String]) -> bool {
    path.last().is_some_and(|name| name == "MeasurementRecord")
}

fn record(attributes: &Attributes<'_>) -> Result<Record, String> {
    let need = |name: &str| {
        let value = attributes.get(name).ok_or_else(|| format!("it has no {name}"))?;
        value
            .trim()
            .parse::<u32>()
            .map_err(|_| format!("{name} is '{value}', not a number"))
    };
    let (row, column) = (need("Row")?, need("Column")?);
    let well = u8::try_from(row)
        .ok()
        .zip(u8::try_from(column).ok())
        .and_then(|(row, column)| WellPosition::new(row, column))
        .ok_or_else(|| format!("row {row} and column {column} lie outside a 1536-well plate"))?;
    Ok(Record {
        well,
        field: need("FieldIndex")?,
        plane: attributes.number("ZIndex"),
        time: attributes.number("TimePoint"),
        channel: need("Ch")?,
        file: String::new(),
    })
}

/// What a detail or a setting says of its channels.
fn channel_facts(bytes: &[u8]) -> Result<BTreeMap<u32, ImageFacts>, String> {
    let mut channels: BTreeMap<u32, ImageFacts> = BTreeMap::new();
    let mut wavelengths: BTreeMap<String, f64> = BTreeMap::new();
    let mut open = None;
    let text = text_of(bytes);
    let result = walk(&text, |node| match node {
        Node::Open(path, attributes) => match path.last().map(String::as_str) {
            Some("MeasurementChannel") => {
                if let Some(channel) = attributes.number("Ch") {
                    channels.entry(channel).or_default().fill(&detail(&attributes));
                }
            }
            Some("LightSource") => {
                let wavelength = attributes.get("WaveLength").and_then(|text| positive(&text));
                wavelengths.extend(attributes.get("Name").zip(wavelength));
            }
            Some("Channel") => {
                open = attributes.number("Ch");
                if let Some(channel) = open {
                    channels.entry(channel).or_default().fill(&setting(&attributes));
                }
            }
            _ => {}
        },
        Node::Close(path, content) => match (path.last().map(String::as_str), open) {
            // Light sources are listed before the channels that use them.
            (Some("LightSourceName"), Some(channel)) => {
                let excitation_nm = wavelengths.get(content).copied();
                let lit = ImageFacts {
                    excitation_nm,
                    ..ImageFacts::default()
                };
                channels.entry(channel).or_default().fill(&lit);
            }
            (Some("Channel"), _) => open = None,
            _ => {}
        },
    });
    result.map(|()| channels).map_err(|error| error.to_string())
}

fn detail(attributes: &Attributes<'_>) -> ImageFacts {
    let number = |name: &str| attributes.get(name).and_then(|text| positive(&text));
    ImageFacts {
        pixel_size_um: number("HorizontalPixelDimension").zip(number("VerticalPixelDimension")),
        bit_depth: attributes.number("InputBitDepth"),
        ..ImageFacts::default()
    }
}

fn setting(attributes: &Attributes<'_>) -> ImageFacts {
    let number = |name: &str| attributes.get(name).and_then(|text| positive(&text));
    let text = |name: &str| attributes.get(name).filter(|text| !text.trim().is_empty());
    let filter = text("Acquisition");
    ImageFacts {
        name: text("Fluorophore").or_else(|| filter.clone()),
        exposure_ms: number("ExposureTime"),
        objective: text("Objective"),
        magnification: number("Magnification"),
        // A band pass filter is named after centre and width: BP445/45.
        emission_nm: filter.and_then(|filter| {
            let centre = filter.trim_start_matches(|c: char| !c.is_ascii_digit());
            let digits = centre.find(|c: char| !c.is_ascii_digit()).unwrap_or(centre.len());
            positive(centre.get(..digits)?)
        }),
        ..ImageFacts::default()
    }
}
