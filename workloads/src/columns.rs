//! Columns as tables of different tools name them, and cells that say that nothing is known. A name enters, its plain
//! form leaves; cannot fail.

use std::collections::HashMap;

use crate::words::WellPosition;

/// What stands before a name and says only that it is metadata, in order of preference; the last is nothing.
const PREFIXES: [&str; 4] = ["metadata_", "image_metadata_", "image_", ""];
/// What CellProfiler and joins add to the metadata that they read from image files: a channel, or a side.
const SUFFIXES: [&str; 12] = [
    "_x", "_y", "_dapi", "_dna", "_hoechst", "_er", "_rna", "_agp", "_mito", "_actin", "_tubulin", "_ch1",
];

/// Plain names of the column of plates, in order of preference.
pub const PLATE: &[&str] = &[
    "plate",
    "assay_plate_barcode",
    "plate_barcode",
    "barcode",
    "plate_id",
    "plateid",
    "plate_name",
    "platename",
];
/// Plain names of the column of wells, in order of preference.
pub const WELL: &[&str] = &[
    "well",
    "well_position",
    "well_name",
    "wellname",
    "wellid",
    "well_label",
    "assay_well",
    "address",
    "pert_well",
];
/// Plain names of the column of a well's row, where none has the whole position.
pub const ROW: &[&str] = &["row", "well_row", "wellrow", "plate_row"];
/// Plain names of the column of a well's column.
pub const COLUMN: &[&str] = &[
    "col",
    "column",
    "well_col",
    "wellcol",
    "well_column",
    "wellcolumn",
    "plate_col",
    "plate_column",
];

/// Texts that stand for a missing cell in tables written by pandas, R and spreadsheets.
const MISSING: [&str; 10] = [
    "", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>",
];

/// Whether a cell says that nothing is known.
pub fn is_missing(cell: &str) -> bool {
    MISSING.contains(&cell.trim())
}

/// Small letters, with `_` for spaces, dots and hyphens.
fn flat(name: &str) -> String {
    name.trim()
        .chars()
        .map(|c| if matches!(c, ' ' | '.' | '-') { '_' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}

/// The name without its prefix and its suffix, and how far it is from the name that is preferred among those of one
/// plain form: `Metadata_Well`, `Image_Metadata_Well`, `Image_Metadata_Well_DAPI`, `Well`.
pub fn plain(name: &str) -> (String, usize) {
    let flat = flat(name);
    let (rank, rest) = PREFIXES
        .iter()
        .enumerate()
        .find_map(|(rank, prefix)| Some((rank, flat.strip_prefix(prefix)?)))
        .unwrap_or((PREFIXES.len(), &flat));
    let suffix = (rank == 1).then(|| SUFFIXES.iter().find_map(|suffix| rest.strip_suffix(suffix)));
    match suffix.flatten() {
        Some(rest) => (rest.to_owned(), 2 * rank + 1),
        None => (rest.to_owned(), 2 * rank),
    }
}

/// The columns of a table by plain name.
#[derive(Debug, Clone)]
pub struct Plain(HashMap<String, (usize, usize)>);

impl Plain {
    /// From the names in file order.
    pub fn of(names: &[String]) -> Self {
        let mut best: HashMap<String, (usize, usize)> = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            let (name, rank) = plain(name);
            let known = best.entry(name).or_insert((rank, at));
            *known = (*known).min((rank, at));
        }
        Self(best)
    }

    /// The column whose plain name is the first of `words` that any column has.
    pub fn find(&self, words: &[&str]) -> Option<usize> {
        words.iter().find_map(|word| Some(self.0.get(*word)?.1))
    }
}

/// A whole number without the `.0` that tables with missing cells give it.
pub fn whole(text: &str) -> &str {
    match text.strip_suffix(".0") {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => digits,
        _ => text,
    }
}

/// The name of the well in a row, given as letters or as a number from 1, and a column.
pub fn grid_name(row: &str, column: &str) -> String {
    let (row, column) = (whole(row), whole(column));
    let letters = row
        .parse::<u8>()
        .ok()
        .and_then(|row| WellPosition::new(row, 1))
        .map(WellPosition::row_letters);
    format!("{}{column}", letters.as_deref().unwrap_or(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_meaning_have_one_plain_form() {
        for name in [
            "Metadata_Well",
            "well",
            "Image_Metadata_Well",
            "Image_Metadata_Well_DAPI",
            "Image_Metadata_Well_x",
            "WELL ",
        ] {
            assert_eq!(plain(name).0, "well", "{name}");
        }
        for (name, expected) in [
            ("Metadata_Plate_Map_Name", "plate_map_name"),
            ("Plate Barcode", "plate_barcode"),
            ("Image_Count_Cells", "count_cells"),
            ("Cells_ObjectNumber", "cells_objectnumber"),
            ("Metadata_Well_x", "well_x"),
        ] {
            assert_eq!(plain(name).0, expected);
        }
    }

    #[test]
    fn the_preferred_name_wins() {
        let names = [
            "Well",
            "Image_Metadata_Well_DAPI",
            "Image_Metadata_Well",
            "Metadata_Well",
        ]
        .map(str::to_owned);
        assert_eq!(Plain::of(&names).find(&["well"]), Some(3));
        assert_eq!(Plain::of(&names[..3]).find(&["well"]), Some(2));
        assert_eq!(Plain::of(&names[..2]).find(&["well"]), Some(1));
        assert_eq!(Plain::of(&names[..1]).find(&["nothing", "well"]), Some(0));
        assert_eq!(Plain::of(&names).find(&["plate"]), None);
    }
}
