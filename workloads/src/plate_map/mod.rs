//! The plate map: what each well was given, from the table a laboratory keeps.
//!
//! Text (comma, semicolon or tab), an Excel or LibreOffice workbook, or the Cell Painting Gallery's barcode file with the
//! maps it names enter; a [`PlateMap`] leaves, or [`PlateMapErrors`]: every problem at once, with line and column.

mod dose;
mod error;
mod extent;
mod gallery;
mod read;
mod table;

pub use error::{PlateMapError, PlateMapErrors, PlateMapProblem};
pub use gallery::GalleryMap;
pub use table::MAX_PLATE_MAP_BYTES;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::columns::{self, Plain};
use crate::screen::PlateMapSettings;
use crate::words::{Barcode, WellPosition};

/// What the columns of a map are for, and the plain names (see [`columns::plain`]) that are recognised without being
/// named in the screen file, in order of preference.
const USUAL: [(&str, &[&str]); 5] = [
    ("plate", columns::PLATE),
    ("well", columns::WELL),
    (
        "compound",
        &[
            "compound",
            "compound_name",
            "compound_id",
            "broad_sample",
            "pert_iname",
            "jcp2022",
            "perturbation",
            "treatment",
            "pert_name",
            "drug",
            "sirna",
            "gene",
            "gene_name",
            "gene_symbol",
        ],
    ),
    (
        "dose",
        &[
            "dose",
            "concentration",
            "conc",
            "compound_concentration",
            "treatment_concentration",
            "treatment_conc",
            "mmoles_per_liter",
        ],
    ),
    ("disease", &["disease", "disease_model", "disease_condition"]),
];

/// Plain names of the columns that say what a well was given where the screen names none.
pub fn usual_columns() -> impl Iterator<Item = String> {
    let given = USUAL.iter().filter(|(role, _)| !["plate", "well"].contains(role));
    let plain = given.flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned()));
    plain.chain(USUAL[3].1.iter().flat_map(|name| dose::names_with_unit(name)))
}

/// Which columns say what a well was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GivenColumns {
    /// The compound's; `None` where there is none, or the screen has one compound for all.
    pub compound: Option<String>,
    /// The dose's.
    pub dose: Option<String>,
    /// The disease model's.
    pub disease: Option<String>,
}

impl GivenColumns {
    /// Among the columns of a map, as the screen or else their usual names say.
    pub fn of(columns: &[String], settings: &PlateMapSettings) -> Self {
        let named = &settings.columns;
        let plain = Plain::of(columns);
        let find = |role: usize, name: &Option<String>| {
            let at = match name {
                Some(name) => columns.iter().position(|column| column == name),
                None => usual(&plain, role),
            };
            at.map(|at| columns[at].clone())
        };
        Self {
            compound: find(2, &named.compound),
            dose: find(3, &named.dose),
            disease: find(4, &named.disease),
        }
    }
}

/// Whether two cells of a column of doses say the same in the screen's unit: `300 nM` and `0.3 uM`. Cells that cannot be
/// read do not.
pub fn same_dose(a: &str, b: &str, column: &str, unit: &str) -> bool {
    let (name, _) = columns::plain(column);
    let of_column = dose::named_unit(&name).map(|(_, unit)| unit);
    let read = |text: &str| dose::parse_in(text, of_column, unit, None);
    matches!((read(a), read(b)), (Ok(a), Ok(b)) if (a - b).abs() <= 1e-9 * a.max(b))
}

/// Whether doses can be in this unit: of moles or grams per volume, or one of a few others.
pub fn is_dose_unit(unit: &str) -> bool {
    dose::is_unit(unit)
}

/// Units of doses as people write them, for messages.
pub fn usual_dose_units() -> impl Iterator<Item = &'static str> {
    dose::usual_units()
}

/// The column of a role under a usual name; that of doses may end with a unit.
fn usual(plain: &Plain, role: usize) -> Option<usize> {
    let (name, names) = USUAL[role];
    plain.find(names).or_else(|| {
        let names = names.iter().filter(|_| name == "dose");
        names
            .flat_map(|name| dose::names_with_unit(name))
            .find_map(|name| plain.find(&[name.as_str()]))
    })
}

/// One well of the map.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Line of the file, from 1.
    pub line: u64,
    /// The compound; `None` where the cell is empty.
    pub compound: Option<String>,
    /// The dose in the screen's unit; `None` where the cell is empty or there is no such column.
    pub dose: Option<f64>,
    /// The disease model; `None` where the cell is empty.
    pub disease: Option<String>,
    cells: Vec<String>,
}

/// What a file holds.
#[derive(Debug)]
pub enum MapFile {
    /// The whole map.
    Whole(PlateMap),
    /// The names of maps that have to be read too.
    Gallery(Box<GalleryMap>),
}

/// A row and where it stands.
struct Sourced {
    file: String,
    line: u64,
    cells: Vec<String>,
}

/// A checked plate map.
#[derive(Debug, Clone, PartialEq)]
pub struct PlateMap {
    file: String,
    columns: Vec<String>,
    dose_unit: String,
    given: GivenColumns,
    /// Keyed `None` where the map has no plate column and holds for every plate.
    plates: BTreeMap<Option<Barcode>, BTreeMap<WellPosition, Row>>,
}

impl PlateMap {
    /// Reads a plate map from text. `file_name` is only for messages.
    ///
    /// # Errors
    /// Every problem of the file at once, in file order.
    pub fn parse(text: &str, file_name: &str, settings: &PlateMapSettings) -> Result<Self, PlateMapErrors> {
        let mut errors = Vec::new();
        match table::read(text.as_bytes(), file_name, None, &mut errors) {
            Some(table) => read::of_table(table, settings, errors),
            None => Err(PlateMapErrors(errors)),
        }
    }

    /// Reads a plate map from a file of any kind. `file_name` is for messages, and for the Gallery's barcode file where
    /// the others are looked for.
    ///
    /// # Errors
    /// Every problem of the file at once, in file order.
    pub fn read(
        bytes: &[u8],
        file_name: &str,
        settings: &PlateMapSettings,
    ) -> Result<MapFile, PlateMapErrors> {
        let mut errors = Vec::new();
        let Some(table) = table::read(bytes, file_name, settings.sheet.as_deref(), &mut errors) else {
            return Err(PlateMapErrors(errors));
        };
        match GalleryMap::of(table, settings) {
            Ok(gallery) if errors.is_empty() => Ok(MapFile::Gallery(Box::new(gallery))),
            Ok(_) => Err(PlateMapErrors(errors)),
            Err(table) => read::of_table(table, settings, errors).map(MapFile::Whole),
        }
    }

    /// What a well was given; `None` where the map has no such plate or well.
    pub fn treatment(&self, plate: &Barcode, well: WellPosition) -> Option<&Row> {
        self.plate(plate)?.get(&well)
    }

    /// The wells of a plate. A map without a plate column holds for every plate.
    pub fn plate(&self, plate: &Barcode) -> Option<&BTreeMap<WellPosition, Row>> {
        self.plates
            .get(&None)
            .or_else(|| self.plates.get(&Some(plate.clone())))
    }

    /// The plates named in the map, in order; none where it has no plate column.
    pub fn plates(&self) -> impl Iterator<Item = &Barcode> {
        self.plates.keys().flatten()
    }

    /// The file's name as given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The columns, in file order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The unit of doses.
    pub fn dose_unit(&self) -> &str {
        &self.dose_unit
    }

    /// The columns that say what a well was given.
    pub fn given(&self) -> &GivenColumns {
        &self.given
    }

    /// Whether compounds come from a column, not from the screen file.
    pub fn has_compound_column(&self) -> bool {
        self.given.compound.is_some()
    }

    /// Whether disease models come from a column, not from the screen file.
    pub fn has_disease_column(&self) -> bool {
        self.given.disease.is_some()
    }

    /// A row's text in a column; `None` where there is no such column.
    pub fn cell<'row>(&self, row: &'row Row, column: &str) -> Option<&'row str> {
        let index = self.columns.iter().position(|name| name == column)?;
        row.cells.get(index).map(String::as_str)
    }
}
