//! Cell Painting Gallery and CellProfiler: `load_data.csv`, one row per field of view.
//!
//! Columns `FileName_Orig<Channel>` with `PathName_Orig<Channel>`, or `URL_Orig<Channel>`, and `Metadata_Plate`,
//! `Metadata_Well`, `Metadata_Site` enter, plain or gzipped; images leave. Paths are those of the machine that wrote the
//! table: a file of the store is the one whose path ends most alike. Columns of illumination functions are passed over.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::metadata::{
    Absent, Context, Described, Folder, Found, MAX_METADATA_BYTES, MetadataLayout, Recognition, Wanted,
    folder_of, name_of, unusable,
};
use super::xml::text_of;
use super::{ImageKey, ListedFile};
use crate::columns::{self, Plain, grid_name, is_missing, whole};
use crate::screen::LayoutChoice;
use crate::words::{Barcode, WellPosition};

pub(super) struct Gallery;

/// The tables of a listing: of several in one folder the first, since they differ in what they say of illumination.
fn tables<'a>(context: Context<'a>) -> Vec<&'a ListedFile> {
    let mut tables: BTreeMap<&str, &ListedFile> = BTreeMap::new();
    for file in context.listing {
        let name = name_of(&file.path).to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let is_table = name
            .strip_suffix(".csv")
            .is_some_and(|stem| stem.starts_with("load_data") || stem.ends_with("_load_data"));
        if is_table && !file.path.split('/').any(|part| part.starts_with('.')) {
            tables.entry(folder_of(&file.path)).or_insert(file);
        }
    }
    let all: Vec<&ListedFile> = tables.into_values().collect();
    // The Gallery keeps a table per plate in a folder of its name.
    let named = |file: &&ListedFile| {
        context
            .plate_of(&file.path)
            .is_some_and(|plate| context.includes(&plate))
    };
    match context.only {
        Some(_) if all.iter().any(&named) => all.into_iter().filter(named).collect(),
        _ => all,
    }
}

impl MetadataLayout for Gallery {
    fn choice(&self) -> LayoutChoice {
        LayoutChoice::Gallery
    }

    fn recognise(&self, context: Context<'_>) -> Recognition {
        let Some(file) = tables(context).into_iter().next() else {
            return Recognition::No;
        };
        let yes = || Recognition::Yes(format!("{} lists images by plate, well and site", file.path));
        match context.whole(&file.path) {
            None => Recognition::Ask(context.want(file).into_iter().collect()),
            _ if context.images.layout == LayoutChoice::Gallery => yes(),
            // A table of images that lie elsewhere is no help in reading those that lie here.
            Some(Ok(bytes)) => match Table::parse(bytes) {
                Ok(table) => {
                    let files = Files::of(context.listing);
                    let here = table
                        .rows
                        .iter()
                        .any(|row| row.images.iter().any(|image| files.find(&image.path).is_ok()));
                    if here { yes() } else { Recognition::No }
                }
                Err(_) => Recognition::No,
            },
            Some(Err(_)) => Recognition::No,
        }
    }

    fn wanted(&self, context: Context<'_>) -> Vec<Wanted> {
        tables(context)
            .into_iter()
            .filter_map(|file| context.want(file))
            .collect()
    }

    fn describe(&self, context: Context<'_>) -> Described {
        let mut described = Described::default();
        let files = Files::of(context.listing);
        let mut folders: BTreeMap<String, (Barcode, String)> = BTreeMap::new();
        for file in tables(context) {
            let table = match context.whole(&file.path) {
                Some(Ok(bytes)) => Table::parse(bytes),
                Some(Err(reason)) => Err(reason.clone()),
                None => continue,
            };
            let table = match table {
                Ok(table) => table,
                Err(reason) => {
                    described.problems.push(unusable(context, &file.path, reason));
                    continue;
                }
            };
            if let Some((rows, first)) = &table.bad {
                let reason = format!("{rows} rows cannot be read (the first: {first}); the others are used");
                described.problems.push(unusable(context, &file.path, reason));
            }
            for row in table.rows {
                let plate = row.plate.or_else(|| context.plate_of(&file.path));
                let Some(plate) = plate else { continue };
                for image in row.images {
                    let key = ImageKey {
                        plate: plate.clone(),
                        well: row.well,
                        field: row.site,
                        channel_text: image.channel,
                        plane: image.plane,
                        time: None,
                    };
                    match files.find(&image.path) {
                        Ok(found) => {
                            folders
                                .entry(folder_of(&found.path).to_owned())
                                .or_insert_with(|| (plate.clone(), file.path.clone()));
                            described.found.push(Found {
                                key,
                                file: found.clone(),
                                page: image.page,
                            });
                        }
                        Err(reason) => described.absent.push(Absent {
                            key,
                            path: reason,
                            metadata: file.path.clone(),
                        }),
                    }
                }
            }
        }
        let folders = folders.into_iter();
        described.folders = folders
            .map(|(folder, (plate, metadata))| Folder {
                folder,
                plate,
                metadata,
            })
            .collect();
        described
    }
}

/// Files by name.
struct Files<'a>(HashMap<&'a str, Vec<&'a ListedFile>>);

impl<'a> Files<'a> {
    fn of(listing: &'a [ListedFile]) -> Self {
        let mut files: HashMap<&str, Vec<&ListedFile>> = HashMap::new();
        for file in listing {
            files.entry(name_of(&file.path)).or_default().push(file);
        }
        Self(files)
    }

    /// The one file whose path ends most alike; the written path, with a word, where there is none or more than one.
    fn find(&self, written: &str) -> Result<&'a ListedFile, String> {
        let alike = |path: &str| {
            let folders = path.rsplit('/').zip(written.rsplit('/'));
            folders.take_while(|(mine, theirs)| mine == theirs).count()
        };
        let named = self
            .0
            .get(name_of(written))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let best = named.iter().map(|file| alike(&file.path)).max().unwrap_or(0);
        let mut best = named.iter().filter(|file| alike(&file.path) == best);
        match (best.next(), best.next()) {
            (Some(file), None) => Ok(file),
            (Some(_), Some(_)) => Err(format!("{written} (several files are called so)")),
            (None, _) => Err(written.to_owned()),
        }
    }
}

struct Table {
    rows: Vec<Row>,
    /// How many rows could not be read, and what is wrong with the first.
    bad: Option<(u64, String)>,
}

struct Row {
    plate: Option<Barcode>,
    well: WellPosition,
    site: u32,
    images: Vec<Image>,
}

struct Image {
    channel: String,
    path: String,
    page: Option<u32>,
    plane: Option<u32>,
}

/// Where a channel's columns are.
#[derive(Default)]
struct Columns {
    file: Option<usize>,
    folder: Option<usize>,
    url: Option<usize>,
    frame: Option<usize>,
}

impl Table {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let plain;
        let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
            plain = gunzip(bytes)?;
            plain.as_slice()
        } else {
            bytes
        };
        let text = text_of(bytes);
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let header: Vec<String> = reader
            .headers()
            .map_err(|error| error.to_string())?
            .iter()
            .map(str::to_owned)
            .collect();
        let mut channels: BTreeMap<String, Columns> = BTreeMap::new();
        for (at, name) in header.iter().enumerate() {
            let of = |prefix: &str| {
                let channel = name.strip_prefix(prefix)?;
                let channel = channel
                    .strip_prefix("Orig")
                    .filter(|rest| !rest.is_empty())
                    .unwrap_or(channel);
                (!channel.starts_with("Illum") && !channel.is_empty()).then(|| channel.to_owned())
            };
            if let Some(channel) = of("FileName_") {
                channels.entry(channel).or_default().file = Some(at);
            } else if let Some(channel) = of("PathName_") {
                channels.entry(channel).or_default().folder = Some(at);
            } else if let Some(channel) = of("URL_") {
                channels.entry(channel).or_default().url = Some(at);
            } else if let Some(channel) = of("Frame_") {
                channels.entry(channel).or_default().frame = Some(at);
            }
        }
        channels.retain(|_, columns| columns.file.is_some() || columns.url.is_some());
        if channels.is_empty() {
            return Err("it has no column FileName_Orig<Channel> or URL_Orig<Channel>".to_owned());
        }
        let places = Plain::of(&header);
        let well = places.find(columns::WELL);
        let grid = places.find(columns::ROW).zip(places.find(columns::COLUMN));
        if well.is_none() && grid.is_none() {
            return Err("it has no column Metadata_Well".to_owned());
        }
        let plate = places.find(columns::PLATE);
        let site = places.find(&["site", "field", "fieldid", "fov"]);
        let plane = places.find(&["planeid", "plane", "zplane"]);
        let mut table = Self {
            rows: Vec::new(),
            bad: None,
        };
        for (record, line) in reader.records().zip(2u64..) {
            let row = record.map_err(|error| error.to_string()).and_then(|record| {
                let cell =
                    |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|text| !is_missing(text));
                let written = match (cell(well), grid) {
                    (Some(well), _) => well.to_owned(),
                    (None, Some((row, column))) => grid_name(
                        cell(Some(row)).unwrap_or_default(),
                        cell(Some(column)).unwrap_or_default(),
                    ),
                    (None, None) => String::new(),
                };
                let number = |at: Option<usize>| {
                    let text = cell(at).map(whole);
                    let parsed = text.map(|text| {
                        text.parse::<u32>()
                            .map_err(|_| format!("'{text}' is not a number"))
                    });
                    parsed.transpose()
                };
                let plane = number(plane)?;
                let images = channels.iter().filter_map(|(channel, columns)| {
                    let path = match (cell(columns.url), cell(columns.folder), cell(columns.file)) {
                        (Some(url), _, _) => decoded(url),
                        (None, Some(folder), Some(file)) => {
                            format!("{}/{file}", folder.trim_end_matches(['/', '\\']))
                        }
                        (None, None, Some(file)) => file.to_owned(),
                        (None, _, None) => return None,
                    };
                    Some(Image {
                        channel: channel.clone(),
                        path: path.replace('\\', "/"),
                        page: number(columns.frame).ok().flatten(),
                        plane,
                    })
                });
                Ok(Row {
                    plate: cell(plate)
                        .map(|text| {
                            whole(text)
                                .parse()
                                .map_err(|error: crate::words::WordError| error.to_string())
                        })
                        .transpose()?,
                    well: written
                        .parse()
                        .map_err(|error: crate::words::WordError| error.to_string())?,
                    site: number(site)?.unwrap_or(1),
                    images: images.collect(),
                })
            });
            match row {
                Ok(row) => table.rows.push(row),
                Err(reason) => {
                    let (rows, _) = table
                        .bad
                        .get_or_insert_with(|| (0, format!("line {line}: {reason}")));
                    *rows += 1;
                }
            }
        }
        if table.rows.is_empty() {
            return Err(match table.bad {
                Some((rows, first)) => format!("none of its {rows} rows can be read: {first}"),
                None => "it has no row".to_owned(),
            });
        }
        Ok(table)
    }
}

/// A URL with `%20` and the like as they are in object names; names with a bare `%` stay.
fn decoded(url: &str) -> String {
    let mut bytes = Vec::with_capacity(url.len());
    let mut rest = url.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let code = code
            .filter(|_| *first == b'%')
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| url.to_owned())
}

/// At most [`MAX_METADATA_BYTES`] of text.
fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let mut reader = MultiGzDecoder::new(bytes).take(MAX_METADATA_BYTES + 1);
    reader
        .read_to_end(&mut text)
        .map_err(|error| format!("it is no whole gzip file: {error}"))?;
    if text.len() as u64 > MAX_METADATA_BYTES {
        return Err(format!(
            "it holds more than {MAX_METADATA_BYTES} bytes when unpacked"
        ));
    }
    Ok(text)
}
