//! The checked form of a screen file: what every table means, with its defaults.
//!
//! Plain data: it is serialised into a Kafka record and hashed. Nothing here fails; reading is in `read.rs`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::screen::selector::Selector;
use crate::words::{Barcode, Channel};

/// A screen's name: 1 to 64 lower-case letters, digits, `-` and `_`. Safe in paths, topics and column values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScreenName(String);

/// The text cannot name a screen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' cannot name a screen: use 1 to 64 lower-case letters, digits, '-' and '_', a letter or \
    digit first"
)]
pub struct ScreenNameError {
    /// The text, cut to 80 characters.
    pub text: String,
}

impl ScreenName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ScreenName {
    type Err = ScreenNameError;
    fn from_str(text: &str) -> Result<Self, ScreenNameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        // A word that begins with '-' is an option to every command.
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['-', '_']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ScreenNameError {
                text: text.chars().take(80).collect(),
            })
        }
    }
}

impl TryFrom<String> for ScreenName {
    type Error = ScreenNameError;
    fn try_from(text: String) -> Result<Self, ScreenNameError> {
        text.parse()
    }
}

impl From<ScreenName> for String {
    fn from(name: ScreenName) -> String {
        name.0
    }
}

impl fmt::Display for ScreenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A choice that the file writes as one of a few words.
macro_rules! words_of {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The words the file may use.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word the file uses.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// From the file's word; `None` where it is not one of [`Self::WORDS`].
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}
pub(super) use words_of;

words_of!(
    /// How file names are read.
    LayoutChoice {
        /// Recognised from the names found; says why.
        #[default]
        Auto = "auto",
        /// Molecular Devices ImageXpress: `..._A01_s1_w1.TIF`.
        ImageXpress = "imagexpress",
        /// PerkinElmer Opera Phenix and Operetta: `r01c01f01p01-ch1sk1fk1fl1.tiff`.
        Phenix = "phenix",
        /// RxRx sets: `<plate>/AA15_s1_w1.png`.
        RxRx = "rxrx",
        /// Yokogawa CellVoyager (CV7000, CV8000): `..._D08_T0001F001L01A01Z01C01.tif`.
        CellVoyager = "cellvoyager",
        /// Olympus ScanR and what is named after it: `A1--W00001--P00001--Z00000--T00000--GFP.tif`,
        /// `...--B9--...--W0021--P000--T0000--Z000--C00.ome.tif`.
        ScanR = "scanr",
        /// Agilent BioTek Gen5 (Cytation, Lionheart): `B7_01_1_3_DAPI_001.tif`.
        Gen5 = "gen5",
        /// Cell Painting Gallery and CellProfiler: what `load_data.csv` lists.
        Gallery = "gallery",
        /// OME-TIFF: what the OME-XML in files or a companion says.
        OmeTiff = "ome-tiff",
        /// OME-Zarr plates: `B/3/0`.
        OmeZarr = "ome-zarr",
        /// The regular expression in `pattern`.
        Pattern = "pattern",
    }
);

words_of!(
    /// How a z stack becomes one plane.
    ZStack {
        /// The maximum projection: the brightest value of each pixel.
        #[default]
        Max = "max",
        /// The sharpest slice: the one with the largest variance of the Laplacian, the first of equals.
        BestFocus = "best_focus",
    }
);

words_of!(
    /// How a field larger than the network's input is cut.
    Tiling {
        /// Non-overlapping tiles, the grid centred; their embeddings are averaged.
        #[default]
        Grid = "grid",
        /// The one tile in the middle.
        Centre = "centre",
    }
);

words_of!(
    /// How pixels are interpolated.
    ResizeMethod {
        /// Mean over the covered area: for shrinking.
        #[default]
        Area = "area",
        /// Bilinear: for small changes and enlarging.
        Bilinear = "bilinear",
    }
);

words_of!(
    /// Which engine runs the network.
    EngineChoice {
        /// The best one found; the log says which and why.
        #[default]
        Auto = "auto",
        /// The built-in CPU engine.
        Native = "native",
        /// The built-in networks on a graphics device, through wgpu.
        Wgpu = "wgpu",
        /// ONNX Runtime, for models that are ONNX files.
        Onnx = "onnx",
        /// libtorch, for models that are TorchScript modules.
        Libtorch = "libtorch",
    }
);

words_of!(
    /// Where kernels and networks run.
    DeviceChoice {
        /// A GPU where there is one, else the CPU; the log says which and why.
        #[default]
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// A GPU; its absence is an error.
        Gpu = "gpu",
        /// A graphics card with its own memory.
        Discrete = "discrete",
        /// A GPU that shares memory with the processor.
        Integrated = "integrated",
        /// A GPU of a virtual machine.
        Virtual = "virtual",
        /// A driver that computes on the processor.
        Software = "software",
    }
);

/// One channel of the screen, in the order in which embeddings are concatenated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSettings {
    /// The channel's name in results, such as `DNA`.
    pub name: Channel,
    /// The text that stands for the channel in file names, such as `w1`, `ch1` or `d2`.
    pub matches: String,
}

/// `[images]`: where the images are and how their names are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesSettings {
    /// Folder or URI. Relative to the screen file until [`crate::screen::Screen::resolve_paths`].
    pub store: String,
    /// How file names are read.
    pub layout: LayoutChoice,
    /// The regular expression of layout `pattern`, searched in the path relative to the store.
    pub pattern: Option<String>,
    /// The plate's barcode where file names do not hold it; else the name of the parent folder is taken.
    pub plate: Option<Barcode>,
    /// The channels, at least one, in the order of the embedding.
    pub channels: Vec<ChannelSettings>,
    /// Fields of view a well should have; `None`: the most common count of the plate.
    pub fields_per_well: Option<u32>,
    /// How long a plate that is still being imaged is waited for after the last that was heard of it, in minutes;
    /// `None`: [`ImagesSettings::DEADLINE_MINUTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_minutes: Option<u32>,
    /// True bit depth of the detector (8, 12, 14, 16); `None`: that of the file.
    pub bit_depth: Option<u8>,
    /// How z stacks become planes.
    #[serde(default)]
    pub z: ZStack,
    /// The plates to include; empty: all.
    pub plates: Vec<Barcode>,
}

impl ImagesSettings {
    /// How long a plate that is still being imaged is waited for where the screen does not say: a day.
    pub const DEADLINE_MINUTES: u32 = 24 * 60;
}

impl Default for ImagesSettings {
    /// No images: for screens of profiles made elsewhere.
    fn default() -> Self {
        Self {
            store: String::new(),
            layout: LayoutChoice::Auto,
            pattern: None,
            plate: None,
            channels: Vec::new(),
            fields_per_well: None,
            deadline_minutes: None,
            bit_depth: None,
            z: ZStack::default(),
            plates: Vec::new(),
        }
    }
}

/// `[profiles]`: how `wellspring compare` reads tables made elsewhere. What is not said is recognised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilesSettings {
    /// Feature columns: prefixes, or patterns where `*` stands for any text.
    pub features: Vec<String>,
    /// Columns that name the plate together, joined by `_`.
    pub plate: Vec<String>,
    /// The well.
    pub well: Option<String>,
    /// The field of view.
    pub site: Option<String>,
    /// Cells per row.
    pub cell_count: Option<String>,
    /// The column by which rows of a metadata file are found.
    pub key: Option<String>,
}

/// The plate map's columns; `None`: recognised from the usual names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlateMapColumns {
    /// Plate barcode.
    pub plate: Option<String>,
    /// Well name.
    pub well: Option<String>,
    /// Compound or perturbation.
    pub compound: Option<String>,
    /// Dose.
    pub dose: Option<String>,
    /// Disease model.
    pub disease: Option<String>,
}

/// `[plate_map]`: what each well was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlateMapSettings {
    /// File or URI: CSV, TSV, a workbook, or the Gallery's `barcode_platemap.csv`. Relative to the screen file until [`crate::screen::Screen::resolve_paths`]. Empty only in
    /// screens of profiles: what each well was given then stands in their tables.
    pub file: String,
    /// The sheet of a workbook; `None`: the first with anything on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sheet: Option<String>,
    /// What is known of compounds, joined to the Gallery's maps; `None`: `external_metadata.tsv` where it usually lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// Column names.
    pub columns: PlateMapColumns,
    /// The compound of every well with a dose above 0, where the map has no such column.
    pub compound: Option<String>,
    /// The disease model of every well except reference wells, where the map has no such column.
    pub disease: Option<String>,
    /// The unit of doses as results write it. Default `uM`.
    pub dose_unit: String,
}

/// `[controls]`: which wells define 0 and 1 of the axis, and which are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Controls {
    /// Wells that define 0: healthy, or untreated.
    pub reference: Selector,
    /// Wells that define 1: the disease model with vehicle, or the treatment with the full response. Only a screen that
    /// is asked for activity needs none.
    pub phenotype: Option<Selector>,
    /// Wells left out: those any of these selects.
    pub exclude: Vec<Selector>,
}

impl Controls {
    /// The columns of the plate map that the selectors look at.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let selectors = std::iter::once(&self.reference)
            .chain(&self.phenotype)
            .chain(&self.exclude);
        selectors.flat_map(|selector| selector.0.keys().map(String::as_str))
    }
}

/// What is subtracted from every pixel, after illumination correction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Background {
    /// Nothing.
    None,
    /// The image's own percentile, 0 to 100. Not where intensity itself is the phenotype (SCIENCE 2.3).
    Percentile {
        /// Percent.
        percent: f64,
    },
    /// A constant in grey levels.
    Constant {
        /// One value per channel, in channel order.
        levels: Vec<f64>,
    },
    /// What is wider than a disk: a white top-hat keeps the rest.
    TopHat {
        /// In pixels, 1 to 512: at least 1.5 times that of the largest object.
        radius: u32,
    },
    /// A blurred image.
    Gaussian {
        /// Standard deviation in pixels, up to 1000.
        sigma: f64,
    },
    /// What a ball that rolls below the grey levels touches.
    RollingBall {
        /// In pixels and grey levels, 1 to 512.
        radius: u32,
    },
}

/// How grey levels become 0 to 1 for the network (SCIENCE 2.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scaling {
    /// Only the division by the detector's ceiling.
    None,
    /// Percentiles of each image and channel. Erases absolute intensity.
    Image {
        /// Lower percentile, 0 to 100.
        low: f64,
        /// Upper percentile, above `low`.
        high: f64,
    },
    /// Percentiles pooled over the plate's control wells per channel. Keeps absolute intensity.
    Controls {
        /// Lower percentile, 0 to 100.
        low: f64,
        /// Upper percentile, above `low`.
        high: f64,
    },
    /// Fixed grey levels.
    Fixed {
        /// Grey level that becomes 0, one per channel.
        low: Vec<f64>,
        /// Grey level that becomes 1, one per channel.
        high: Vec<f64>,
    },
}

/// The size a field is resized to before tiling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeTo {
    /// Width and height times this factor, above 0 up to 8.
    Factor(f64),
    /// Width and height in pixels.
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
}

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// To what size.
    pub to: ResizeTo,
    /// How.
    pub method: ResizeMethod,
}

/// `[preprocess]`: the steps between decoding and the network, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreprocessSettings {
    /// Path template of `.npy` illumination functions with `{channel}` and, where plates differ, `{plate}`.
    pub illumination: Option<String>,
    /// Path template, as that of `illumination`, of `.npy` dark-fields in grey levels, which are subtracted first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dark_field: Option<String>,
    /// Background subtraction. Default none.
    pub background: Background,
    /// Resize. Default none.
    pub resize: Option<Resize>,
    /// Intensity scaling. Default percentiles 0.1 and 99.9 of each image.
    pub scaling: Scaling,
    /// Cutting. Default grid.
    pub tiling: Tiling,
}

impl Default for PreprocessSettings {
    fn default() -> Self {
        Self {
            illumination: None,
            dark_field: None,
            background: Background::None,
            resize: None,
            scaling: Scaling::Image { low: 0.1, high: 99.9 },
            tiling: Tiling::Grid,
        }
    }
}

/// `[quality]`: absolute gates of SCIENCE 1.3 and 1.4, per field and channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualitySettings {
    /// Whether gates fail fields; measures are taken and written anyway.
    pub enabled: bool,
    /// Percent of pixels at the detector ceiling above which a field is flagged. Default 0.25.
    pub saturated_percent_warn: f64,
    /// Percent of pixels at the detector ceiling above which a field fails. Default 1.
    pub saturated_percent_fail: f64,
    /// `(p99.9 - median) / MAD` below which a field is flagged as near empty. Default 8.
    pub contrast_warn: f64,
    /// `(p99.9 - median) / MAD` below which a field is empty and fails. Default 6.
    pub contrast_fail: f64,
    /// Power log-log slope above which a field of the nuclei channel is empty and fails. Default 0.
    pub slope_empty: f64,
    /// Power log-log slope below which a field of the nuclei channel is blurred and fails. Default -3.
    pub slope_blur: f64,
    /// The channel the slope gates apply to; `None`: no slope gate. Default: the channel named DNA, if any.
    pub nuclei_channel: Option<Channel>,
    /// A well counts when at least this many fields pass. Default 2.
    pub min_fields: u32,
    /// A well also counts when at least this percent of its fields pass. Default 50.
    pub min_fields_percent: f64,
    /// Percent of a plate's fields that may fail before the plate is held back. Default 10.
    pub plate_failed_percent: f64,
    /// Percent of a plate's control fields that may fail before the plate is held back. Default 25.
    pub control_failed_percent: f64,
}

impl Default for QualitySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            saturated_percent_warn: 0.25,
            saturated_percent_fail: 1.0,
            contrast_warn: 8.0,
            contrast_fail: 6.0,
            slope_empty: 0.0,
            slope_blur: -3.0,
            nuclei_channel: None,
            min_fields: 2,
            min_fields_percent: 50.0,
            plate_failed_percent: 10.0,
            control_failed_percent: 25.0,
        }
    }
}

impl QualitySettings {
    /// Whether a well counts, given how many of its fields passed: at least `min_fields`, or at least
    /// `min_fields_percent` percent of them; never without a passing field (SCIENCE 1.4).
    pub fn well_counts(&self, passing: u32, all: u32) -> bool {
        passing > 0
            && (passing >= self.min_fields
                || f64::from(passing) * 100.0 >= self.min_fields_percent * f64::from(all))
    }
}

/// `[model]`: the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// A model card's name. Default `efficientnet-lite0`.
    pub name: String,
    /// Which engine runs it.
    pub engine: EngineChoice,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            name: "efficientnet-lite0".to_owned(),
            engine: EngineChoice::Auto,
        }
    }
}

/// `[resources]`: what a worker may use. `None` means: decided from the machine and logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceSettings {
    /// Threads that decode and preprocess images.
    pub decode_threads: Option<u32>,
    /// Threads of the engine.
    pub engine_threads: Option<u32>,
    /// Images per engine batch. Default 16.
    pub batch_size: u32,
    /// Bytes of images that may be in memory at once, over all stages.
    pub in_flight_bytes: Option<u64>,
    /// Where kernels and networks run.
    pub device: DeviceChoice,
    /// Its part of the batch lane beside other screens: one of weight 2 gets twice as many tasks as one of weight 1.
    /// Default 1.
    #[serde(default = "usual_weight", skip_serializing_if = "is_usual_weight")]
    pub weight: u32,
}

fn usual_weight() -> u32 {
    1
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_usual_weight(weight: &u32) -> bool {
    *weight == usual_weight()
}

impl Default for ResourceSettings {
    fn default() -> Self {
        Self {
            decode_threads: None,
            engine_threads: None,
            batch_size: 16,
            in_flight_bytes: None,
            device: DeviceChoice::Auto,
            weight: usual_weight(),
        }
    }
}

/// `[output]`: what is written besides the Parquet files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSettings {
    /// Folder of the results; `None`: chosen by the command. Relative to the screen file.
    pub folder: Option<String>,
    /// Whether the HTML report is written. Default true.
    pub report: bool,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self {
            folder: None,
            report: true,
        }
    }
}
