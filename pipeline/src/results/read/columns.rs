//! Which columns of a table are features. Column names enter; features and metadata leave. Fails where there is no
//! feature column, or two columns share a name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::roles::is_place;
use crate::results::error::ReadError;

/// Prefixes of object measurements (CellProfiler, pycytominer).
const COMPARTMENTS: [&str; 3] = ["Cells_", "Nuclei_", "Cytoplasm_"];
/// What CellProfiler's modules measure: beginnings of columns in the tables that it writes for each kind of object
/// (`Nuclei.csv`), which do not name the kind.
const MEASUREMENTS: [&str; 7] = [
    "AreaShape_",
    "Correlation_",
    "Granularity_",
    "Intensity_",
    "Neighbors_",
    "RadialDistribution_",
    "Texture_",
];

/// Which columns are features.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FeatureColumns {
    /// Object measurements (`Cells_*`, `Nuclei_*`, `Cytoplasm_*`, without numbers and positions of objects) where there
    /// are any. Else measurements of CellProfiler's modules without a kind of object (`AreaShape_*`, `Intensity_*` and
    /// so on), or the largest family of columns numbered `<name>_<i>`, such as an embedding's: whichever are more.
    #[default]
    Auto,
    /// Columns whose name matches one of these patterns; `*` stands for any text. A text without `*` is a prefix.
    Matching(Vec<String>),
    /// None: all columns are metadata.
    None,
}

impl FeatureColumns {
    /// From the text of a command line: patterns separated by commas; empty means [`FeatureColumns::Auto`].
    pub fn from_text(text: &str) -> Self {
        Self::from_patterns(text.split(',').map(str::to_owned).collect())
    }

    /// From a list of patterns; empty means [`FeatureColumns::Auto`].
    pub fn from_patterns(patterns: Vec<String>) -> Self {
        let patterns: Vec<String> = patterns
            .iter()
            .map(|pattern| pattern.trim())
            .filter(|pattern| !pattern.is_empty())
            .map(str::to_owned)
            .collect();
        if patterns.is_empty() {
            Self::Auto
        } else {
            Self::Matching(patterns)
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Auto => {
                "Cells_*, Nuclei_*, Cytoplasm_*, CellProfiler's AreaShape_*, Intensity_* and the like, or <name>_<number>".to_owned()
            }
            Self::Matching(patterns) => patterns.join(", "),
            Self::None => "nothing".to_owned(),
        }
    }
}

/// A column as the file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    /// Why it cannot be a feature, such as `text`; `None` where it may be one, or nobody knows yet.
    pub(super) not_a_number: Option<String>,
    /// Whether it holds one cell per row.
    pub(super) flat: bool,
}

/// The columns of a table by use, with their places in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Columns {
    pub(super) features: Vec<String>,
    pub(super) features_at: Vec<usize>,
    pub(super) metadata: Vec<String>,
    pub(super) metadata_at: Vec<usize>,
}

/// Whether `name` matches `pattern`, where `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    (0..=rest.len())
        .filter(|at| rest.is_char_boundary(*at))
        .any(|at| matches(tail, &rest[at..]))
}

fn is_metadata(name: &str) -> bool {
    name.starts_with("Metadata_") || name.starts_with("Image_Metadata_") || is_place(name)
}

/// The part before `_<digits>`.
fn family(name: &str) -> Option<&str> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    // "0", "1", ... are a family too: EFAAR_benchmarking writes embeddings so.
    (stem.len() < name.len()).then(|| stem.trim_end_matches('_'))
}

fn automatic<'a>(columns: &'a [Found], reserved: &[String]) -> HashSet<&'a str> {
    let usable = |column: &&Found| column.flat && column.not_a_number.is_none();
    let candidates = || {
        let names = columns.iter().filter(usable).map(|column| column.name.as_str());
        names.filter(|name| !is_metadata(name) && !reserved.iter().any(|other| other == name))
    };
    let measured: HashSet<&str> = candidates()
        .filter(|name| COMPARTMENTS.iter().any(|c| name.starts_with(c)) && !is_identifier(name))
        .collect();
    if !measured.is_empty() {
        return measured;
    }
    let mut families: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for name in candidates() {
        if let Some(stem) = family(name) {
            families.entry(stem).or_default().insert(name);
        }
    }
    let measured = candidates()
        .filter(|name| MEASUREMENTS.iter().any(|m| name.starts_with(m)) && !is_place_of_object(name))
        .collect();
    // Ties go to measurements, then to the first name of the alphabet, so that the choice does not hang on the order of
    // columns.
    families.into_values().fold(
        measured,
        |best, next| if next.len() > best.len() { next } else { best },
    )
}

/// What CellProfiler writes per object that says which object it is and where in the image, not what it looks like.
fn is_identifier(name: &str) -> bool {
    const NAMES: [&str; 4] = [
        "ImageNumber",
        "ObjectNumber",
        "TableNumber",
        "Number_Object_Number",
    ];
    const BEGINNINGS: [&str; 2] = ["Parent_", "Location_"];
    COMPARTMENTS
        .iter()
        .filter_map(|compartment| name.strip_prefix(compartment))
        .any(|rest| {
            NAMES.contains(&rest)
                || is_place_of_object(rest)
                || BEGINNINGS.iter().any(|beginning| rest.starts_with(beginning))
        })
}

/// Whether a measurement says where in the image an object is.
fn is_place_of_object(measurement: &str) -> bool {
    ["AreaShape_Center_", "AreaShape_BoundingBoxM"]
        .iter()
        .any(|beginning| measurement.starts_with(beginning))
}

/// The first columns, for messages.
pub(super) fn beginning<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    if text.is_empty() {
        "with nothing".to_owned()
    } else {
        text
    }
}

impl Columns {
    /// Sorts the columns of the file at `path`.
    pub(super) fn find(
        path: &Path,
        columns: &[Found],
        wanted: &FeatureColumns,
        reserved: &[String],
    ) -> Result<Self, ReadError> {
        let mut seen = HashSet::new();
        if let Some(twice) = columns.iter().find(|column| !seen.insert(column.name.as_str())) {
            return Err(ReadError::DuplicateColumn {
                path: path.to_owned(),
                column: twice.name.clone(),
            });
        }
        let chosen = match wanted {
            FeatureColumns::None => HashSet::new(),
            FeatureColumns::Auto => automatic(columns, reserved),
            FeatureColumns::Matching(patterns) => columns
                .iter()
                .map(|column| column.name.as_str())
                .filter(|name| !is_place(name) && !reserved.iter().any(|other| other == name))
                .filter(|name| {
                    patterns.iter().any(|p| {
                        if p.contains('*') {
                            // A star alone stands for measurements, not for what describes the well.
                            matches(p, name) && (!name.starts_with("Metadata_") || p.starts_with("Metadata_"))
                        } else {
                            name.starts_with(p.as_str())
                        }
                    })
                })
                .collect(),
        };
        if chosen.is_empty() && *wanted != FeatureColumns::None {
            return Err(ReadError::NoFeatures {
                path: path.to_owned(),
                wanted: wanted.describe(),
                found: beginning(columns.iter().map(|column| column.name.as_str())),
            });
        }
        let mut sorted = Self::default();
        for (at, column) in columns.iter().enumerate() {
            if chosen.contains(column.name.as_str()) {
                if let Some(found) = &column.not_a_number {
                    return Err(ReadError::FeatureKind {
                        path: path.to_owned(),
                        column: column.name.clone(),
                        found: found.clone(),
                    });
                }
                sorted.features.push(column.name.clone());
                sorted.features_at.push(at);
            } else if column.flat {
                sorted.metadata.push(column.name.clone());
                sorted.metadata_at.push(at);
            }
        }
        Ok(sorted)
    }

    /// Keeps these features only, in this order; a name that is none of them otherwise.
    pub(super) fn keep<'n>(&mut self, names: &'n [String]) -> Option<&'n str> {
        if self.features == names {
            return None;
        }
        let places: HashMap<&str, usize> = self
            .features
            .iter()
            .map(String::as_str)
            .zip(self.features_at.iter().copied())
            .collect();
        let mut kept = Vec::with_capacity(names.len());
        for name in names {
            match places.get(name.as_str()) {
                Some(at) => kept.push(*at),
                None => return Some(name),
            }
        }
        self.features_at = kept;
        self.features = names.to_vec();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Vec<Found> {
        text.split(' ')
            .map(|name| Found {
                name: name.to_owned(),
                not_a_number: name.ends_with("_text").then(|| "text".to_owned()),
                flat: true,
            })
            .collect()
    }

    fn found(text: &str, wanted: &FeatureColumns, reserved: &[&str]) -> String {
        let reserved: Vec<String> = reserved.iter().map(|name| (*name).to_owned()).collect();
        let sorted = Columns::find(Path::new("t.csv"), &columns(text), wanted, &reserved).unwrap();
        assert_eq!(sorted.features.len(), sorted.features_at.len());
        assert_eq!(
            sorted.metadata.len() + sorted.features.len(),
            text.split(' ').count()
        );
        sorted.features.join(" ")
    }

    #[test]
    fn patterns_match_as_a_shell_does() {
        for (pattern, name, expected) in [
            ("net_*", "net_12", true),
            ("net_*", "other_12", false),
            ("*_mean", "a_mean", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("*", "", true),
            ("é*", "été", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn features_are_found_without_being_named() {
        let auto = FeatureColumns::Auto;
        for (names, expected) in [
            ("Metadata_Well dose net_0 net_1 x_1", "net_0 net_1"),
            (
                "Well Nuclei_Area f_0 f_1 f_2 Cells_X Image_Count_Cells",
                "Nuclei_Area Cells_X",
            ),
            ("well feature1 feature2", "feature1 feature2"),
            ("Unnamed:0 well 0 1 2", "0 1 2"),
            ("Well Cells_text Cells_Area", "Cells_Area"),
            ("Metadata_Well Metadata_1 Metadata_2 e_0", "e_0"),
            (
                "Well Cells_ImageNumber Cells_Parent_Nuclei Nuclei_Location_Center_X Cells_AreaShape_Center_Y \
                 Cells_AreaShape_BoundingBoxMinimum_X Cells_AreaShape_BoundingBoxArea Nuclei_Number_Object_Number",
                "Cells_AreaShape_BoundingBoxArea",
            ),
            (
                "ImageNumber ObjectNumber Metadata_Well AreaShape_Area AreaShape_Center_X AreaShape_Zernike_0_0 \
                 AreaShape_Zernike_1_1 Children_Cells_Count Intensity_MeanIntensity_DNA Location_Center_X \
                 Number_Object_Number Parent_Nuclei Texture_Contrast_DNA_3_00_256",
                "AreaShape_Area AreaShape_Zernike_0_0 AreaShape_Zernike_1_1 Intensity_MeanIntensity_DNA \
                 Texture_Contrast_DNA_3_00_256",
            ),
            ("well AreaShape_Area net_0 net_1", "net_0 net_1"),
            (
                "well_id experiment plate site_1 feature_0 feature_1",
                "feature_0 feature_1",
            ),
        ] {
            assert_eq!(found(names, &auto, &[]), expected);
        }
        assert_eq!(
            found("Well dose_1 dose_2 e_1", &auto, &["dose_1", "dose_2"]),
            "e_1"
        );
    }

    #[test]
    fn a_star_does_not_take_the_plate_for_a_feature() {
        let all = FeatureColumns::from_text("*");
        assert_eq!(found("Metadata_Plate well plate a b_2", &all, &["b_2"]), "a");
        let error = Columns::find(
            Path::new("t"),
            &columns("Well a_text"),
            &FeatureColumns::from_text("a_"),
            &[],
        );
        assert!(matches!(error, Err(ReadError::FeatureKind { column, .. }) if column == "a_text"));
    }
}
