//! From a table to a plate map: columns get their roles, cells their meaning.
//!
//! Rows with their places enter, a [`PlateMap`] leaves, or every problem of all of them.

use std::collections::BTreeMap;

use super::table::Table;
use super::{
    GivenColumns, PlateMap, PlateMapError, PlateMapErrors, PlateMapProblem, Row, Sourced, USUAL, dose, usual,
};
use crate::columns::{self, Plain, grid_name, is_missing};
use crate::screen::{PlateMapSettings, nearest};
use crate::words::{Barcode, WellPosition};

/// Plain names of the column of molecular masses, in order of preference.
const MASS: &[&str] = &[
    "molecular_weight",
    "molecular_mass",
    "molar_mass",
    "mol_weight",
    "molweight",
    "mw",
    "mol_wt",
    "formula_weight",
    "fw",
    "exact_mass",
    "average_mass",
];

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
    /// The compounds' molecular mass in g/mol.
    mass: Option<usize>,
    disease: Option<usize>,
}

struct Reader {
    errors: Vec<PlateMapError>,
}

/// The map of one table.
pub(super) fn of_table(
    table: Table,
    settings: &PlateMapSettings,
    errors: Vec<PlateMapError>,
) -> Result<PlateMap, PlateMapErrors> {
    let Table {
        file,
        header_line,
        columns,
        rows,
    } = table;
    let rows = rows.into_iter().map(|(line, cells)| Sourced {
        file: file.clone(),
        line,
        cells,
    });
    let rows = rows.collect();
    map(&file, columns, header_line, rows, settings, errors)
}

/// The map of rows of one or more files. `errors` is what was wrong with these so far.
pub(super) fn map(
    file: &str,
    columns: Vec<String>,
    header_line: u64,
    rows: Vec<Sourced>,
    settings: &PlateMapSettings,
    errors: Vec<PlateMapError>,
) -> Result<PlateMap, PlateMapErrors> {
    let mut reader = Reader { errors };
    let places = reader.places(file, &columns, header_line, settings);
    if rows.is_empty() && reader.errors.is_empty() {
        reader.report(file, header_line, 0, PlateMapProblem::Empty { what: "well" });
    }
    let mut plates: BTreeMap<Option<Barcode>, BTreeMap<WellPosition, Row>> = BTreeMap::new();
    if let Some(places) = &places {
        for row in rows {
            reader.row(row, places, settings, &mut plates);
        }
    }
    if !reader.errors.is_empty() {
        // In the order of a file, whatever was looked at first.
        reader
            .errors
            .sort_by_key(|error| (error.file != file, error.line));
        return Err(PlateMapErrors(reader.errors));
    }
    Ok(PlateMap {
        file: file.to_owned(),
        given: GivenColumns::of(&columns, settings),
        columns,
        dose_unit: settings.dose_unit.clone(),
        plates,
    })
}

impl Reader {
    /// `column` from 0.
    fn report(&mut self, file: &str, line: u64, column: usize, problem: PlateMapProblem) {
        self.errors.push(PlateMapError {
            file: file.to_owned(),
            line,
            column: column + 1,
            problem,
        });
    }

    fn places(
        &mut self,
        file: &str,
        columns: &[String],
        line: u64,
        settings: &PlateMapSettings,
    ) -> Option<Places> {
        for (index, name) in columns.iter().enumerate() {
            if !name.is_empty() && columns[..index].contains(name) {
                self.report(
                    file,
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
                    self.report(file, line, 0, problem);
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
            self.report(file, line, 0, problem);
        }
        Some(Places {
            plate,
            well: well?,
            grid,
            compound,
            dose,
            named_unit,
            mass: plain.find(MASS),
            disease,
        })
    }

    fn row(
        &mut self,
        row: Sourced,
        places: &Places,
        settings: &PlateMapSettings,
        plates: &mut BTreeMap<Option<Barcode>, BTreeMap<WellPosition, Row>>,
    ) {
        let Sourced { file, line, cells } = row;
        let cell = |index: usize| cells.get(index).map(String::as_str).unwrap_or_default();
        let filled = |index: Option<usize>| index.map(cell).filter(|text| !is_missing(text));
        // Every cell of the line is looked at before the line is given up, so that all problems are reported.
        let plate = places
            .plate
            .map(|index| (index, columns::whole(cell(index)).parse::<Barcode>()))
            .map(|(index, plate)| {
                plate.map_err(|reason| self.report(&file, line, index, PlateMapProblem::Plate { reason }))
            });
        let well = match places.grid {
            Some(column) => grid_name(cell(places.well), cell(column)).parse::<WellPosition>(),
            None => cell(places.well).parse::<WellPosition>(),
        };
        let well =
            well.map_err(|reason| self.report(&file, line, places.well, PlateMapProblem::Well { reason }));
        let dose = places.dose.and_then(|index| Some((index, filled(Some(index))?)));
        let dose = dose
            .map(|(index, text)| {
                let found = dose::parse_in(text, places.named_unit, &settings.dose_unit, filled(places.mass));
                found.map_err(|problem| self.report(&file, line, index, problem))
            })
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
            cells,
        };
        let wells = plates.entry(plate.clone()).or_default();
        if let Some(first) = wells.get(&well) {
            let problem = PlateMapProblem::DuplicateWell {
                plate: plate.map(String::from),
                well: well.to_string(),
                first: first.line,
            };
            self.report(&file, line, places.well, problem);
        } else {
            wells.insert(well, row);
        }
    }
}
