//! Which column of a table is what. Column names enter; the well, plate and feature columns leave. Fails where there
//! is no well or no feature column, or two columns share a name.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::results::error::ReadError;

/// Names of a well column, in order of preference.
const WELL: [&str; 7] = [
    "Metadata_Well",
    "Metadata_well",
    "Metadata_well_position",
    "well_position",
    "Well",
    "well",
    "WellId",
];
/// Names of a plate column, in order of preference.
const PLATE: [&str; 8] = [
    "Metadata_Plate",
    "Metadata_plate",
    "Metadata_Assay_Plate_Barcode",
    "Assay_Plate_Barcode",
    "Plate",
    "plate",
    "barcode",
    "Barcode",
];
/// Prefixes of object measurements (CellProfiler, pycytominer).
const COMPARTMENTS: [&str; 3] = ["Cells_", "Nuclei_", "Cytoplasm_"];

/// Which columns are features.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FeatureColumns {
    /// Object measurements (`Cells_*`, `Nuclei_*`, `Cytoplasm_*`) where there are any, else the largest family of
    /// columns numbered `<name>_<i>`, such as an embedding's.
    #[default]
    Auto,
    /// Columns whose name matches one of these patterns; `*` stands for any text. A text without `*` is a prefix.
    Matching(Vec<String>),
}

impl FeatureColumns {
    /// From the text of a command line: patterns separated by commas; empty means [`FeatureColumns::Auto`].
    pub fn from_text(text: &str) -> Self {
        let patterns: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|p| !p.is_empty())
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
            Self::Auto => "Cells_*, Nuclei_*, Cytoplasm_* or <name>_<number>".to_owned(),
            Self::Matching(patterns) => patterns.join(", "),
        }
    }
}

/// The columns of a table by use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) well: String,
    pub(super) plate: Option<String>,
    /// For each column of the file, its place among the features; `None` for metadata.
    pub(super) feature_at: Vec<Option<usize>>,
    pub(super) features: Vec<String>,
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
    name.starts_with("Metadata_") || WELL.contains(&name) || PLATE.contains(&name)
}

/// The part before `_<digits>`.
fn family(name: &str) -> Option<&str> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.len() < name.len())
        .then(|| stem.trim_end_matches('_'))
        .filter(|stem| !stem.is_empty())
}

fn automatic(names: &[String]) -> HashSet<&str> {
    let candidates = || names.iter().map(String::as_str).filter(|name| !is_metadata(name));
    let measured: HashSet<&str> = candidates()
        .filter(|name| COMPARTMENTS.iter().any(|c| name.starts_with(c)))
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
    // Ties go to the first name of the alphabet, so that the choice does not hang on the order of columns.
    families.into_values().fold(
        HashSet::new(),
        |best, next| if next.len() > best.len() { next } else { best },
    )
}

/// The first columns, for messages.
fn beginning(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    if text.is_empty() {
        "with nothing".to_owned()
    } else {
        text
    }
}

impl Columns {
    /// Sorts the columns `names` of the file at `path`.
    pub(super) fn find(path: &Path, names: &[String], wanted: &FeatureColumns) -> Result<Self, ReadError> {
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(ReadError::DuplicateColumn {
                path: path.to_owned(),
                column: twice.clone(),
            });
        }
        let first_of = |known: &[&str]| {
            known
                .iter()
                .find(|name| seen.contains(**name))
                .map(|n| (*n).to_owned())
        };
        let well = first_of(&WELL).ok_or_else(|| ReadError::NoWellColumn {
            path: path.to_owned(),
            expected: WELL.join(", "),
            found: beginning(names),
        })?;
        let plate = first_of(&PLATE);
        let chosen = match wanted {
            FeatureColumns::Auto => automatic(names),
            FeatureColumns::Matching(patterns) => names
                .iter()
                .map(String::as_str)
                .filter(|name| *name != well && plate.as_deref() != Some(*name))
                .filter(|name| {
                    patterns.iter().any(|p| {
                        if p.contains('*') {
                            matches(p, name)
                        } else {
                            name.starts_with(p.as_str())
                        }
                    })
                })
                .collect(),
        };
        if chosen.is_empty() {
            return Err(ReadError::NoFeatures {
                path: path.to_owned(),
                wanted: wanted.describe(),
                found: beginning(names),
            });
        }
        let mut features = Vec::with_capacity(chosen.len());
        let feature_at = names
            .iter()
            .map(|name| {
                chosen.contains(name.as_str()).then(|| {
                    features.push(name.clone());
                    features.len() - 1
                })
            })
            .collect();
        Ok(Self {
            well,
            plate,
            feature_at,
            features,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
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
        let path = Path::new("t.csv");
        let auto = FeatureColumns::Auto;
        let found = |text: &str| {
            Columns::find(path, &names(text), &auto)
                .unwrap()
                .features
                .join(" ")
        };
        assert_eq!(found("Metadata_Well dose net_0 net_1 x_1"), "net_0 net_1");
        assert_eq!(
            found("Well Nuclei_Area f_0 f_1 f_2 Cells_X"),
            "Nuclei_Area Cells_X"
        );
        assert_eq!(found("well feature1 feature2"), "feature1 feature2");
    }

    #[test]
    fn metadata_that_looks_numbered_is_no_feature() {
        let columns = Columns::find(
            Path::new("t"),
            &names("Metadata_Well Metadata_1 Metadata_2 e_0"),
            &FeatureColumns::Auto,
        )
        .unwrap();
        assert_eq!(columns.features, ["e_0"]);
        assert_eq!(columns.feature_at, [None, None, None, Some(0)]);
    }
}
