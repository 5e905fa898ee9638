//! The plate map: what each well was given, from the table a laboratory keeps.
//!
//! CSV text (comma, semicolon or tab; a byte order mark is tolerated) enters, a [`PlateMap`] leaves, or
//! [`PlateMapErrors`]: every problem at once, with line and column.

mod dose;
mod error;

pub use error::{PlateMapError, PlateMapErrors, PlateMapProblem};

use std::collections::BTreeMap;

use serde::Serialize;

use crate::columns::{self, Plain, grid_name, is_missing};
use crate::screen::{PlateMapSettings, nearest};
use crate::words::{Barcode, WellPosition};

/// The largest plate map that is read, in bytes: 1000 plates of 1536 wells fit.
pub const MAX_PLATE_MAP_BYTES: usize = 128 << 20;

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
    /// Reads a plate map. `file_name` is only for messages.
    ///
    /// # Errors
    /// Every problem of the file at once, in file order.
    pub fn parse(text: &str, file_name: &str, settings: &PlateMapSettings) -> Result<Self, PlateMapErrors> {
        let mut reader = Reader {
            file: file_name,
            errors: Vec::new(),
        };
        let map = reader.read(text, settings);
        match map {
            Some(map) if reader.errors.is_empty() => Ok(map),
            _ => Err(PlateMapErrors(reader.errors)),
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

/// Where each role's column is, from 0.
struct Places {
    plate: Option<usize>,
    well: usize,
    /// The well's column, where `well` is its row only.
    grid: Option<usize>,
    compound: Option<usize>,
    dose: Option<usize>,
    /// What the name of the doses' column says of their unit.
    named_unit: Option<&'static str>,
    disease: Option<usize>,
}

struct Reader<'f> {
    file: &'f str,
    errors: Vec<PlateMapError>,
}

impl Reader<'_> {
    /// `column` from 0.
    fn report(&mut self, line: u64, column: usize, problem: PlateMapProblem) {
        self.errors.push(PlateMapError {
            file: self.file.to_owned(),
            line,
            column: column + 1,
            problem,
        });
    }

    fn read(&mut self, text: &str, settings: &PlateMapSettings) -> Option<PlateMap> {
        if text.len() > MAX_PLATE_MAP_BYTES {
            let (bytes, limit) = (text.len(), MAX_PLATE_MAP_BYTES);
            self.report(1, 0, PlateMapProblem::TooLarge { bytes, limit });
            return None;
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut table = csv::ReaderBuilder::new()
            .delimiter(delimiter(text))
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut records = table.records();
        let header = match records.next() {
            Some(Ok(header)) if header.iter().any(|name| !name.is_empty()) => header,
            Some(Err(error)) => {
                let reason = error.to_string();
                self.report(1, 0, PlateMapProblem::Table { reason });
                return None;
            }
            _ => {
                self.report(1, 0, PlateMapProblem::Empty { what: "header" });
                return None;
            }
        };
        let header_line = line_of(text, header.position());
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        let places = self.places(&columns, header_line, settings);

        let mut plates: BTreeMap<Option<Barcode>, BTreeMap<WellPosition, Row>> = BTreeMap::new();
        let mut lines = 0usize;
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = line_of(text, error.position());
                    let reason = error.to_string();
                    self.report(line, 0, PlateMapProblem::Table { reason });
                    break;
                }
            };
            // A line of separators only is what spreadsheets leave behind.
            if record.iter().all(str::is_empty) {
                continue;
            }
            lines += 1;
            let line = line_of(text, record.position());
            if record.len() != columns.len() {
                let (found, expected) = (record.len(), columns.len());
                self.report(line, 0, PlateMapProblem::CellCount { found, expected });
                continue;
            }
            if let Some(places) = &places {
                self.row(&record, line, places, settings, &mut plates);
            }
        }
        if lines == 0 {
            self.report(header_line, 0, PlateMapProblem::Empty { what: "well" });
        }
        places?;
        Some(PlateMap {
            file: self.file.to_owned(),
            given: GivenColumns::of(&columns, settings),
            columns,
            dose_unit: settings.dose_unit.clone(),
            plates,
        })
    }

    fn places(&mut self, columns: &[String], line: u64, settings: &PlateMapSettings) -> Option<Places> {
        for (index, name) in columns.iter().enumerate() {
            if !name.is_empty() && columns[..index].contains(name) {
                self.report(
                    line,
                    index,
                    PlateMapProblem::DuplicateColumn { name: name.clone() },
                );
            }
        }
        let named = &settings.columns;
        let plain = Plain::of(columns);
        let mut find = |role: usize, name: &Option<String>| match name {
            Some(name) => {
                let found = columns.iter().position(|column| column == name);
                if found.is_none() {
                    let problem = PlateMapProblem::NoSuchColumn {
                        role: USUAL[role].0,
                        name: name.clone(),
                        nearest: nearest(name, columns.iter().map(String::as_str)).map(str::to_owned),
                        known: columns.to_vec(),
                    };
                    self.report(line, 0, problem);
                }
                found
            }
            None => usual(&plain, role),
        };
        let plate = find(0, &named.plate);
        let mut well = find(1, &named.well);
        let mut grid = None;
        if well.is_none() && named.well.is_none() {
            let row_and_column = plain.find(columns::ROW).zip(plain.find(columns::COLUMN));
            (well, grid) = row_and_column.map_or((None, None), |(row, column)| (Some(row), Some(column)));
        }
        let compound = find(2, &named.compound);
        let dose = find(3, &named.dose);
        let disease = find(4, &named.disease);
        let named_unit = dose.and_then(|at| {
            let (name, _) = columns::plain(&columns[at]);
            dose::named_unit(&name).map(|(_, unit)| unit)
        });
        if well.is_none() && named.well.is_none() {
            let problem = PlateMapProblem::NoWellColumn {
                usual: USUAL[1].1.to_vec(),
                known: columns.to_vec(),
            };
            self.report(line, 0, problem);
        }
        Some(Places {
            plate,
            well: well?,
            grid,
            compound,
            dose,
            named_unit,
            disease,
        })
    }

    fn row(
        &mut self,
        record: &csv::StringRecord,
        line: u64,
        places: &Places,
        settings: &PlateMapSettings,
        plates: &mut BTreeMap<Option<Barcode>, BTreeMap<WellPosition, Row>>,
    ) {
        let cell = |index: usize| record.get(index).unwrap_or_default();
        let filled = |index: Option<usize>| index.map(cell).filter(|text| !is_missing(text));
        // Every cell of the line is looked at before the line is given up, so that all problems are reported.
        let plate = places
            .plate
            .map(|index| (index, columns::whole(cell(index)).parse::<Barcode>()))
            .map(|(index, plate)| {
                plate.map_err(|reason| self.report(line, index, PlateMapProblem::Plate { reason }))
            });
        let well = match places.grid {
            Some(column) => grid_name(cell(places.well), cell(column)).parse::<WellPosition>(),
            None => cell(places.well).parse::<WellPosition>(),
        };
        let well = well.map_err(|reason| self.report(line, places.well, PlateMapProblem::Well { reason }));
        let dose = places.dose.and_then(|index| Some((index, filled(Some(index))?)));
        let dose = dose
            .map(|(index, text)| self.dose(text, places.named_unit, line, index, settings))
            .transpose();
        let (Ok(plate), Ok(well), Ok(dose)) = (plate.transpose(), well, dose) else {
            return;
        };
        let compound = match places.compound {
            Some(_) => filled(places.compound).map(str::to_owned),
            // A dose of 0 of the screen's one compound is no compound.
            None => settings.compound.clone().filter(|_| dose != Some(0.0)),
        };
        let disease = match places.disease {
            Some(_) => filled(places.disease).map(str::to_owned),
            None => settings.disease.clone(),
        };
        let row = Row {
            line,
            compound,
            dose,
            disease,
            cells: record.iter().map(str::to_owned).collect(),
        };
        let wells = plates.entry(plate.clone()).or_default();
        if let Some(first) = wells.get(&well) {
            let problem = PlateMapProblem::DuplicateWell {
                plate: plate.map(String::from),
                well: well.to_string(),
                first: first.line,
            };
            self.report(line, places.well, problem);
        } else {
            wells.insert(well, row);
        }
    }

    fn dose(
        &mut self,
        text: &str,
        named_unit: Option<&str>,
        line: u64,
        column: usize,
        settings: &PlateMapSettings,
    ) -> Result<f64, ()> {
        let problem = match dose::parse_in(text, named_unit, &settings.dose_unit) {
            // Minus zero would be a second spelling of "no dose".
            Some(dose) if dose.is_finite() && dose >= 0.0 => return Ok(dose + 0.0),
            Some(_) => PlateMapProblem::DoseRange {
                text: text.to_owned(),
            },
            None => PlateMapProblem::Dose {
                text: text.chars().take(80).collect(),
                unit: settings.dose_unit.clone(),
            },
        };
        self.report(line, column, problem);
        Err(())
    }
}

/// The line a record starts on, from 1. The parser's position stands before the line ends that it skips on its way.
fn line_of(text: &str, position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else { return 1 };
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let skipped = text.as_bytes().get(start..).unwrap_or_default();
    let ends = skipped
        .iter()
        .take_while(|b| matches!(b, b'\n' | b'\r'))
        .filter(|b| **b == b'\n');
    position.line() + ends.count() as u64
}

/// The separator the header holds most of; a comma where it holds none.
fn delimiter(text: &str) -> u8 {
    let header = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let count = |separator: u8| header.bytes().filter(|b| *b == separator).count();
    // `max_by_key` keeps the last of equals: the comma.
    [b';', b'\t', b',']
        .into_iter()
        .max_by_key(|separator| count(*separator))
        .unwrap_or(b',')
}
