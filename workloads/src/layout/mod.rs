//! Layouts: how names and metadata say what is plate, well, field, channel, plane and time of a listing's files.
//!
//! A listing and the metadata files it asks for enter ([`Reading`]); the fields of every plate leave, what is known of
//! how they were taken, and every problem as data. One file here per format of metadata, behind one trait
//! (`metadata.rs`). By names alone, a path relative to the image store enters ([`Layout`]), and an [`ImageKey`] leaves,
//! or a reason to skip it, or "unrecognised". Choosing a layout fails with a [`LayoutError`]; reading a path never fails.

mod assemble;
mod cellvoyager;
mod describe;
mod facts;
mod gallery;
mod harmony;
mod htd;
mod metadata;
mod names;
mod ome_groups;
mod ome_image;
mod ome_tiff;
mod ome_xml;
mod ome_zarr;
mod patterns;
mod problem;
mod reading;
mod tiff_tags;
mod xml;
mod zarr_array;

pub use assemble::{ChannelFiles, FieldFiles, ListedFile, PlaneFile, PlateFiles};
pub use facts::{ChannelFacts, ImageFacts};
pub use metadata::{MAX_METADATA_BYTES, Part, Wanted};
pub use names::Names;
pub use patterns::PlatePaths;
pub use problem::FileProblem;
pub use reading::{Reading, assemble};
pub use tiff_tags::{Description, DescriptionReader};
pub(crate) use xml::text_of;

use std::fmt;

use regex::Regex;

use self::names::Groups;

use crate::screen::{ImagesSettings, LayoutChoice};
use crate::words::{Barcode, WellPosition};

/// What a path says about the image it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageKey {
    /// The plate's barcode.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// The field of view as numbered in the name; 1 where the name holds none.
    pub field: u32,
    /// The text that stands for the channel (`w1`, `ch2`, `d2`); empty where the name holds none.
    pub channel_text: String,
    /// The z plane, where the name holds one.
    pub plane: Option<u32>,
    /// The time point, where the name holds one.
    pub time: Option<u32>,
}

/// Why a path is passed over without complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// A thumbnail that the microscope's software wrote beside the image.
    Thumbnail,
    /// Metadata, a table, a log: not an image.
    NotAnImage,
    /// A hidden file or folder.
    Hidden,
    /// What the microscope's camera or lamp looks like without a sample.
    Correction,
    /// Its plate is not in the screen's `plates` list.
    OtherPlate,
    /// The projection that the microscope made of planes that lie beside it.
    Projection,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thumbnail => "thumbnail",
            Self::NotAnImage => "not an image",
            Self::Hidden => "hidden",
            Self::Correction => "dark or shading image of the microscope",
            Self::OtherPlate => "plate not in the screen's list",
            Self::Projection => "the microscope's projection of planes that are read",
        })
    }
}

/// What a layout made of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// An image of the plate.
    Image(ImageKey),
    /// Passed over for a known reason.
    Skip(SkipReason),
    /// An image file whose name this layout does not know: reported, never dropped in silence.
    Unrecognised,
}

/// Why a layout cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The regular expression is not one.
    #[error("the pattern '{pattern}' is not a regular expression: {reason}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What the regular expression parser said.
        reason: String,
    },
    /// The regular expression misses a named group.
    #[error(
        "the pattern '{pattern}' has no group that names the {missing}: write (?<well>...), or (?<row>...) and (?<column>...)"
    )]
    MissingGroup {
        /// The pattern as given.
        pattern: String,
        /// `well`, `row` or `column`.
        missing: &'static str,
    },
    /// Layout `pattern` without a pattern.
    #[error("layout = \"pattern\" needs images.pattern, a regular expression with named groups")]
    NoPattern,
    /// `auto` recognised nothing.
    #[error(
        "none of {seen} image names is known to the layouts {} (for example '{example}'): set images.layout = \"pattern\" \
         and images.pattern",
        known()
    )]
    NotRecognised {
        /// Image names looked at.
        seen: usize,
        /// The first of them.
        example: String,
    },
    /// There is no image to recognise a layout from.
    #[error("no image file among {listed} files: check images.store")]
    NoImages {
        /// Files looked at.
        listed: usize,
    },
}

/// The layouts that `auto` looks for, in order of preference.
pub const VENDORS: [LayoutChoice; 6] = [
    LayoutChoice::ImageXpress,
    LayoutChoice::Phenix,
    LayoutChoice::RxRx,
    LayoutChoice::CellVoyager,
    LayoutChoice::ScanR,
    LayoutChoice::Gen5,
];

fn known() -> String {
    VENDORS.map(LayoutChoice::word).join(", ")
}

/// A way of reading image names.
#[derive(Debug, Clone)]
pub struct Layout {
    choice: LayoutChoice,
    regex: Regex,
    groups: Groups,
    plate: Option<Barcode>,
    /// The plate of files that lie in no folder: the store's own.
    home: Option<Barcode>,
    why: String,
}

impl Layout {
    /// The layout the settings name; for `auto`, the one that reads most of `sample`, ties going to the first of
    /// [`VENDORS`]. `sample` is not looked at otherwise.
    ///
    /// # Errors
    /// A pattern that is absent, malformed or without a well; for `auto`, a sample in which nothing is recognised.
    pub fn from_settings<'a>(
        settings: &ImagesSettings,
        sample: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LayoutError> {
        match (settings.layout, &settings.pattern) {
            (LayoutChoice::Pattern, None) => Err(LayoutError::NoPattern),
            (LayoutChoice::Pattern, Some(pattern)) => {
                let layout = Self::from_pattern(pattern, settings.plate.clone())?;
                let home = patterns::home(settings);
                Ok(Self { home, ..layout })
            }
            (LayoutChoice::Auto, _) => Self::recognise(sample, settings),
            (choice, _) => Self::vendor(choice, settings, format!("layout = \"{choice}\" is set")),
        }
    }

    /// A layout from a regular expression with the named groups `well` (or `row` and `column`), and optionally
    /// `plate`, `field`, `channel`, `plane`, `time`.
    ///
    /// # Errors
    /// A pattern that is malformed or names no well.
    pub fn from_pattern(pattern: &str, plate: Option<Barcode>) -> Result<Self, LayoutError> {
        let regex = patterns::compile(pattern)?;
        let has = |group: &str| regex.capture_names().flatten().any(|name| name == group);
        let missing = match (has("well"), has("row"), has("column")) {
            (true, _, _) | (false, true, true) => None,
            (false, true, false) => Some("column"),
            (false, false, true) => Some("row"),
            (false, false, false) => Some("well"),
        };
        if let Some(missing) = missing {
            return Err(LayoutError::MissingGroup {
                pattern: pattern.to_owned(),
                missing,
            });
        }
        Ok(Self {
            choice: LayoutChoice::Pattern,
            groups: Groups::of(&regex),
            regex,
            plate,
            home: None,
            why: "images.pattern is set".to_owned(),
        })
    }

    fn vendor(choice: LayoutChoice, settings: &ImagesSettings, why: String) -> Result<Self, LayoutError> {
        let regex = patterns::compile(patterns::of(choice))?;
        Ok(Self {
            choice,
            groups: Groups::of(&regex),
            regex,
            plate: settings.plate.clone(),
            home: patterns::home(settings),
            why,
        })
    }

    fn recognise<'a>(
        sample: impl IntoIterator<Item = &'a str>,
        settings: &ImagesSettings,
    ) -> Result<Self, LayoutError> {
        let candidates = VENDORS.map(|choice| Self::vendor(choice, settings, String::new()));
        let candidates = candidates.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut readers: Vec<_> = candidates.iter().map(|layout| (layout.names(), 0usize)).collect();
        let (mut listed, mut images, mut example) = (0usize, 0usize, None);
        for path in sample {
            listed += 1;
            if patterns::skip(path).is_some() {
                continue;
            }
            images += 1;
            example.get_or_insert(path);
            for (names, read) in &mut readers {
                *read += usize::from(matches!(names.parse(path), Parsed::Image(_)));
            }
        }
        let Some(example) = example else {
            return Err(LayoutError::NoImages { listed });
        };
        // `max_by_key` keeps the last of equals; the order of preference is the reverse.
        let counts: Vec<usize> = readers.into_iter().map(|(_, read)| read).collect();
        match candidates
            .into_iter()
            .zip(counts)
            .rev()
            .max_by_key(|(_, read)| *read)
        {
            Some((mut layout, read)) if read > 0 => {
                layout.why = format!(
                    "{read} of {images} image names are {} names, for example '{example}'",
                    layout.choice
                );
                Ok(layout)
            }
            _ => Err(LayoutError::NotRecognised {
                seen: images,
                example: example.to_owned(),
            }),
        }
    }

    /// Which layout it is; never `auto`.
    pub fn choice(&self) -> LayoutChoice {
        self.choice
    }

    /// Why this layout was taken, in words for the log.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What a path relative to the store says. Who has many of them asks [`Layout::names`].
    pub fn parse(&self, path: &str) -> Parsed {
        self.names().parse(path)
    }

    /// A reader of many paths, best in path order.
    pub fn names(&self) -> Names<'_> {
        Names::new(self)
    }
}
