//! What the names of each vendor look like, and which files are passed over.
//!
//! Paths enter; patterns, skip reasons and folder numbers leave. Compiling a user's pattern can fail.

use regex::{Regex, RegexBuilder};

use super::{LayoutError, SkipReason};
use crate::screen::{ImagesSettings, LayoutChoice};
use crate::words::Barcode;

/// Memory a compiled pattern may take. A user's pattern cannot exhaust a worker.
const PATTERN_BYTES: usize = 1 << 20;

pub(super) fn compile(pattern: &str) -> Result<Regex, LayoutError> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES)
        .build()
        .map_err(|error| LayoutError::Pattern {
            pattern: pattern.to_owned(),
            reason: last_line(&error.to_string()),
        })
}

/// The parser's message ends with the reason; before it stands the pattern with a caret, which would not survive
/// being one line of a list.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The pattern of a vendor's file names. Layouts that are read from metadata, `Auto` and `Pattern` have none of their own
/// and match nothing.
pub(super) fn of(choice: LayoutChoice) -> &'static str {
    match choice {
        // Name, well, optional site and wavelength, optional GUID straight after.
        LayoutChoice::ImageXpress => {
            r"(?i)(?:^|/)[^/]*?_(?<well>[A-Z]{1,2}\d{2,3})(?:_s(?<field>\d+))?(?:_(?<channel>w\d+?))?(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?\.tiff?$"
        }
        LayoutChoice::Phenix => {
            r"(?i)(?:^|/)r(?<row>\d+)c(?<column>\d+)f(?<field>\d+)p(?<plane>\d+)-(?<channel>ch\d+)(?:sk(?<time>\d+))?(?:fk\d+)?(?:fl\d+)?\.tiff?$"
        }
        LayoutChoice::RxRx => {
            r"(?i)(?:^|/)(?<well>[A-Z]{1,2}\d{1,2})_s(?<field>\d+)_(?<channel>w\d+)\.(?:png|jp2|tiff?)$"
        }
        // Well, time point, field, time line, action, plane, channel.
        LayoutChoice::CellVoyager => {
            r"(?i)(?:^|/)[^/]*_(?<well>[A-Z]{1,2}\d{2})_T(?<time>\d+)F(?<field>\d+)L\d+A\d+Z(?<plane>\d+)(?<channel>C\d+)\.(?:tiff?|png)$"
        }
        // The well, anything, the well's number, the position; planes and time points in either order; the channel.
        LayoutChoice::ScanR => {
            r"(?i)(?:^|/)(?:[^/]*--)?(?<well>[A-Z]{1,2}\d{1,2})--(?:[^/]*?--)?W\d+--P(?<field>\d+)--(?:Z(?<plane>\d+)--T(?<time>\d+)|T(?<time_2>\d+)--Z(?<plane_2>\d+))--(?<channel>[^/]+?)(?:\.ome)?\.tiff?$"
        }
        // Well, number of the read, of the channel, of the field; the channel's name; the time point.
        LayoutChoice::Gen5 => {
            r"(?i)(?:^|/)(?<well>[A-Z]{1,2}\d{1,2})_\d+_\d+_(?<field>\d+)_(?<channel>[^/_]+)_(?<time>\d+)\.tiff?$"
        }
        LayoutChoice::Gallery
        | LayoutChoice::OmeTiff
        | LayoutChoice::OmeZarr
        | LayoutChoice::Auto
        | LayoutChoice::Pattern => r"[^\s\S]",
    }
}

const IMAGE_EXTENSIONS: [&str; 5] = ["tif", "tiff", "png", "jp2", "jpx"];

/// Suffixes of what microscopes, schedulers and people keep beside images: metadata, tables, logs, documents, checksums,
/// previews, illumination functions, archives.
const COMPANIONS: [&str; 54] = [
    "htd", "xml", "mlf", "mrf", "mes", "wpi", "wpp", "icp", "ptl", "ome", "xdce", "acq", "dat", "kw", "flat",
    "dark", "csv", "tsv", "txt", "log", "json", "jsonl", "ndjson", "yaml", "yml", "toml", "ini", "cfg",
    "conf", "md", "rtf", "pdf", "html", "doc", "docx", "xls", "xlsx", "xlsb", "ods", "npy", "npz", "parquet",
    "db", "sqlite", "md5", "sha1", "sha256", "jpg", "jpeg", "bmp", "gif", "ppt", "gz", "zip",
];

/// Whether it is usual for such a file to lie beside images, by its suffix.
pub(super) fn is_companion(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    COMPANIONS.iter().any(|known| suffix.eq_ignore_ascii_case(known))
}

/// Why a file is passed over, whatever the layout.
pub(super) fn skip(path: &str) -> Option<SkipReason> {
    if path.split('/').any(|part| part.starts_with('.')) {
        return Some(SkipReason::Hidden);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name
        .rsplit_once('.')
        .map(|(_, extension)| extension)
        .unwrap_or_default();
    if !IMAGE_EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
    {
        return Some(SkipReason::NotAnImage);
    }
    // `_thumb` ends the name or is followed by a GUID; a plate called `thumbnail_A01...` is not a thumbnail.
    let stem = name.get(..name.len() - extension.len() - 1).unwrap_or(name);
    let before = stem.trim_end_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
    // The last letter of `_thumb` is a digit of a GUID too.
    let from = before.len().checked_sub("_thum".len());
    let end = from.and_then(|from| stem.get(from..=before.len()));
    let thumbnail = end.is_some_and(|end| end.eq_ignore_ascii_case("_thumb"));
    thumbnail.then_some(SkipReason::Thumbnail)
}

/// Whether a CellVoyager wrote the file to correct others with: `DC_...` (dark), `SC_...` (shading).
pub(super) fn is_correction(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    ["DC_", "SC_"].iter().any(|start| name.starts_with(start))
}

/// What the paths of all files of a plate begin with, where a screen's own pattern makes that certain: it begins with `^`, letters,
/// digits, `_`, `-` or `/` as they are, and the group that is the plate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatePaths {
    /// What stands before the plate.
    lead: String,
    /// What stands behind it, as far as that is the same everywhere.
    behind: String,
}

/// The characters of a pattern's beginning that stand for themselves, and the rest.
fn plain(pattern: &str) -> (&str, &str) {
    let special = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '/');
    let at = pattern.find(special).unwrap_or(pattern.len());
    match pattern[at..].starts_with(['?', '*', '{', '+']) {
        // The last of them may be there or not, or several times.
        true => pattern.split_at(at.saturating_sub(1)),
        false => pattern.split_at(at),
    }
}

impl PlatePaths {
    /// Of a screen's settings; `None` where its pattern leaves it open, or the layout is not `pattern`.
    pub fn of(images: &ImagesSettings) -> Option<Self> {
        if images.layout != LayoutChoice::Pattern {
            return None;
        }
        let (lead, rest) = plain(images.pattern.as_deref()?.strip_prefix('^')?);
        let group = rest
            .strip_prefix("(?<plate>")
            .or_else(|| rest.strip_prefix("(?P<plate>"))?;
        // Nothing may stand beside the group, and nothing behind it make it optional.
        let (mut depth, mut in_class, mut behind) = (1u32, false, None);
        let mut characters = group.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => _ = characters.next(),
                '[' => in_class = true,
                ']' => in_class = false,
                _ if in_class => {}
                '(' => depth += 1,
                ')' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 && behind.is_none() {
                        behind = Some(&group[at + 1..]);
                    }
                }
                '|' if depth == 0 => return None,
                _ => {}
            }
        }
        let behind = behind.filter(|behind| !behind.starts_with(['?', '*', '{']))?;
        Some(Self {
            lead: lead.to_owned(),
            behind: plain(behind).0.to_owned(),
        })
    }

    /// What the paths of all plates begin with.
    pub fn lead(&self) -> &str {
        &self.lead
    }

    /// What the paths of a plate begin with.
    pub fn of_plate(&self, plate: &Barcode) -> String {
        format!("{}{plate}{}", self.lead, self.behind)
    }

    /// Whether no other plate's paths begin so too: what stands behind a plate ends its name.
    pub fn tell_plates_apart(&self) -> bool {
        !self.behind.is_empty()
    }
}

/// The plate of a path: as the screen gives it, else by the folders of the path, else by those of the store.
pub(super) fn plate_of(path: &str, images: &ImagesSettings) -> Option<Barcode> {
    let given = images.plate.clone();
    given.or_else(|| plate_by_folder(path)).or_else(|| home(images))
}

/// The plate that the store's own folder names.
pub(super) fn home(images: &ImagesSettings) -> Option<Barcode> {
    let folder = images
        .store
        .split_once("://")
        .map_or(images.store.as_str(), |(_, folder)| folder);
    plate_by_folder(&format!("{folder}/file"))
}

/// The folder that stands for the plate: the nearest one above the file that the software did not make itself. A
/// Harmony measurement's folder begins with the plate (`BR1__2020-11-08T18_18_00-Measurement1`), and MetaXpress puts
/// a date and a number below it (`BR1/2023-02-21/1334`).
pub(super) fn plate_by_folder(path: &str) -> Option<Barcode> {
    let mut above = path.split('/').rev().skip(1).filter(|folder| {
        let own = |name: &str| folder.eq_ignore_ascii_case(name);
        !folder.is_empty()
            && !own("images")
            && numbered(folder, "ZStep_").is_none()
            && numbered(folder, "TimePoint_").is_none()
    });
    let nearest = above.next()?;
    let folder = match (above.next().filter(|folder| is_date(folder)), above.next()) {
        (Some(_), Some(plate)) if nearest.bytes().all(|b| b.is_ascii_digit()) => plate,
        _ => nearest,
    };
    let measured = folder.split_once("__").filter(|(plate, rest)| {
        let date = rest.get(..10).is_some_and(is_date);
        !plate.is_empty() && date && rest.contains("-Measurement")
    });
    measured.map_or(folder, |(plate, _)| plate).parse().ok()
}

/// `2023-02-21`.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| match at {
            4 | 7 => b == b'-',
            _ => b.is_ascii_digit(),
        })
}

/// The number of the innermost folder `<prefix>n`.
pub(super) fn folder_number(path: &str, prefix: &str) -> Option<u32> {
    path.split('/')
        .rev()
        .skip(1)
        .find_map(|folder| numbered(folder, prefix))
}

fn numbered(folder: &str, prefix: &str) -> Option<u32> {
    let (head, digits) = (folder.get(..prefix.len())?, folder.get(prefix.len()..)?);
    if head.eq_ignore_ascii_case(prefix) {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pattern_that_begins_with_the_plate_says_what_its_paths_begin_with() {
        let begins = |pattern: &str| {
            let images = ImagesSettings {
                layout: LayoutChoice::Pattern,
                pattern: Some(pattern.to_owned()),
                ..ImagesSettings::default()
            };
            PlatePaths::of(&images).map(|paths| paths.of_plate(&"BR1".parse().unwrap()))
        };
        for (pattern, start) in [
            (r"^(?<plate>[^_]+)_(?<well>[A-P]\d\d)\.tif$", "BR1_"),
            (r"^(?P<plate>(?:BR|AP)\d+)_?(?<well>[A-P]\d\d)?", "BR1"),
            (
                r"^raw/2026-11/(?<plate>[^/|]+)/x(?<well>...)",
                "raw/2026-11/BR1/x",
            ),
        ] {
            assert_eq!(begins(pattern).as_deref(), Some(start), "{pattern}");
        }
        for pattern in [
            r"(?<plate>[^_]+)_(?<well>...)",
            r"(?i)^(?<plate>[^_]+)_(?<well>...)",
            r"^(?<plate>[^_]+)?_(?<well>...)",
            r"^(?<plate>[^_]+)_(?<well>...)|^old_(?<other>.)",
            r"^x?(?<plate>[^_]+)_(?<well>...)",
            r"^.*/(?<plate>[^_]+)_(?<well>...)",
            r"^(?<well>...)_(?<plate>.*)",
        ] {
            assert_eq!(begins(pattern), None, "{pattern}");
        }
        assert_eq!(PlatePaths::of(&ImagesSettings::default()), None);
    }
}
