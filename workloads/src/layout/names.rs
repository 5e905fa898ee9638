//! Names: what the path of one image after the other says.
//!
//! Paths enter, an [`ImageKey`] leaves for each, or why it is none. A listing has millions of them, so groups are known by number
//! and the plate of a folder is found once for all of its files. Cannot fail.

use regex::{CaptureLocations, Regex};

use super::{ImageKey, Layout, Parsed, SkipReason, patterns};
use crate::screen::LayoutChoice;
use crate::words::{Barcode, WellPosition};

/// The numbers of a group. A pattern of two orders has two groups of a name; one of them takes part.
type Group = [Option<usize>; 2];

/// The groups of a pattern.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    plate: Group,
    well: Group,
    row: Group,
    column: Group,
    field: Group,
    channel: Group,
    plane: Group,
    time: Group,
}

impl Groups {
    pub(super) fn of(regex: &Regex) -> Self {
        let at = |name: &str| regex.capture_names().position(|group| group == Some(name));
        let group = |name: &str| [at(name), at(&format!("{name}_2"))];
        Self {
            plate: group("plate"),
            well: group("well"),
            row: group("row"),
            column: group("column"),
            field: group("field"),
            channel: group("channel"),
            plane: group("plane"),
            time: group("time"),
        }
    }
}

/// A reader of paths by one layout.
#[derive(Debug)]
pub struct Names<'a> {
    layout: &'a Layout,
    /// Where the groups of the last path are.
    at: CaptureLocations,
    /// The folders of the last path, and the plate that they name.
    folders: (String, Option<Barcode>),
}

impl<'a> Names<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self {
            layout,
            at: layout.regex.capture_locations(),
            folders: (String::new(), None),
        }
    }

    /// What a path relative to the store says.
    pub fn parse(&mut self, path: &str) -> Parsed {
        match patterns::skip(path) {
            Some(reason) => Parsed::Skip(reason),
            None => self.image(path),
        }
    }

    /// The same of a path that is not passed over for what it ends with or where it lies.
    pub(super) fn image(&mut self, path: &str) -> Parsed {
        let is_image = self.layout.regex.captures_read(&mut self.at, path).is_some();
        match is_image.then(|| self.key(path)).flatten() {
            Some(key) => Parsed::Image(key),
            None if self.layout.choice == LayoutChoice::CellVoyager && patterns::is_correction(path) => {
                Parsed::Skip(SkipReason::Correction)
            }
            None => Parsed::Unrecognised,
        }
    }

    fn key(&mut self, path: &str) -> Option<ImageKey> {
        let groups = &self.layout.groups;
        let text = |group: &Group| {
            let mut places = group.iter().flatten().filter_map(|group| self.at.get(*group));
            places.next().and_then(|(from, to)| path.get(from..to))
        };
        // An absent group is `None`; a group that holds no number makes the name unrecognised.
        let number = |group: &Group| text(group).map(|digits| digits.parse::<u32>()).transpose().ok();
        let well = match (text(&groups.well), text(&groups.row), text(&groups.column)) {
            (Some(well), _, _) => well.parse().ok()?,
            (None, Some(row), Some(column)) => match row.parse::<u8>() {
                Ok(row) => WellPosition::new(row, column.parse().ok()?)?,
                Err(_) => format!("{row}{column}").parse().ok()?,
            },
            _ => return None,
        };
        let field = number(&groups.field)?.unwrap_or(1);
        let channel_text = text(&groups.channel).unwrap_or_default().to_owned();
        let plane = number(&groups.plane)?.or_else(|| patterns::folder_number(path, "ZStep_"));
        let time = number(&groups.time)?.or_else(|| patterns::folder_number(path, "TimePoint_"));
        let plate = match (text(&groups.plate), &self.layout.plate) {
            (Some(plate), _) => plate.parse().ok()?,
            (None, Some(plate)) => plate.clone(),
            (None, None) => self.by_folder(path)?,
        };
        Some(ImageKey {
            plate,
            well,
            field,
            channel_text,
            plane,
            time,
        })
    }

    /// The plate of a path by its folders, else by the store's own.
    fn by_folder(&mut self, path: &str) -> Option<Barcode> {
        let folders = path.rfind('/').map_or("", |end| &path[..=end]);
        let (known, plate) = &mut self.folders;
        if known != folders || plate.is_none() {
            folders.clone_into(known);
            *plate = patterns::plate_by_folder(path).or_else(|| self.layout.home.clone());
        }
        plate.clone()
    }
}
