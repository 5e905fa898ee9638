//! What is wrong with a plate map: every problem, with its place.

use std::fmt;

/// One problem of a plate map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct PlateMapError {
    /// The file's name as given.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column of the table, from 1; 1 where a whole line or the file is meant.
    pub column: usize,
    /// What is wrong.
    pub problem: PlateMapProblem,
}

/// What can be wrong with a plate map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlateMapProblem {
    /// More text than a plate map can sensibly be.
    #[error("the file holds {bytes} bytes: a plate map holds at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// No header, or nothing below it.
    #[error("the file holds no {what}: the first line names the columns, then follows one line per well")]
    Empty {
        /// `header` or `well`.
        what: &'static str,
    },
    /// The table cannot be read at all.
    #[error("not a table: {reason}")]
    Table {
        /// What the CSV parser said.
        reason: String,
    },
    /// A workbook that cannot be read.
    #[error("not a workbook that can be read: {reason}; save it as .xlsx, .xls, .ods or .csv again")]
    Workbook {
        /// What the reader said.
        reason: String,
    },
    /// A sheet that the workbook does not have.
    #[error("there is no sheet '{sheet}', which plate_map.sheet names: the sheets are {}", known.join(", "))]
    NoSuchSheet {
        /// The sheet.
        sheet: String,
        /// The sheets of the file.
        known: Vec<String>,
    },
    /// A sheet of a file that has none.
    #[error("plate_map.sheet names '{sheet}', but this is text, which has no sheets: leave it out")]
    NoSheets {
        /// The sheet.
        sheet: String,
    },
    /// A map's name that names no file.
    #[error("'{name}' cannot name a file of platemap/: expected the name of one without folders")]
    MapName {
        /// The name.
        name: String,
    },
    /// A map that cannot be read.
    #[error("the map {path} cannot be read{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    MapFile {
        /// The map's file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A barcode with two maps.
    #[error("plate {barcode} is listed twice: first on line {first}")]
    DuplicateBarcode {
        /// The barcode.
        barcode: String,
        /// The line that has it already.
        first: u64,
    },
    /// Compounds' metadata that share no column with the maps.
    #[error("no column is in the plate maps too, so that no compound is found: the columns are {}", known.join(", "))]
    NoCommonColumn {
        /// The columns of the file.
        known: Vec<String>,
    },
    /// A compound with two different rows.
    #[error("{column} '{value}' has two rows that differ: the first is on line {first}")]
    DuplicateCompound {
        /// The column.
        column: String,
        /// The compound.
        value: String,
        /// The line that has it already.
        first: u64,
    },
    /// Two columns with one name.
    #[error("two columns are named '{name}': rename one")]
    DuplicateColumn {
        /// The name.
        name: String,
    },
    /// A column that the screen file names is absent.
    #[error("there is no column '{name}', which plate_map.columns.{role} names{}: the columns are {}", match nearest { Some(name) => format!(" (did you mean '{name}'?)"), None => String::new() }, known.join(", "))]
    NoSuchColumn {
        /// `plate`, `well`, `compound`, `dose` or `disease`.
        role: &'static str,
        /// The name.
        name: String,
        /// The nearest column, where one is near.
        nearest: Option<String>,
        /// The columns of the file.
        known: Vec<String>,
    },
    /// No column holds wells.
    #[error("no column is named {}: set plate_map.columns.well to one of {}", usual.join(" or "), known.join(", "))]
    NoWellColumn {
        /// The usual names.
        usual: Vec<&'static str>,
        /// The columns of the file.
        known: Vec<String>,
    },
    /// A line with more or fewer cells than the header.
    #[error("{found} cells where the header has {expected}")]
    CellCount {
        /// Cells of the line.
        found: usize,
        /// Cells of the header.
        expected: usize,
    },
    /// Not a well.
    #[error("{reason}")]
    Well {
        /// Why.
        reason: crate::words::WordError,
    },
    /// Not a barcode.
    #[error("{reason}")]
    Plate {
        /// Why.
        reason: crate::words::WordError,
    },
    /// A dose that is not a number, or has a unit that cannot be turned into the screen's.
    #[error(
        "dose '{text}' is not a number in {unit} or a unit of its kind: write the number alone; the unit is \
         plate_map.dose_unit of the screen file"
    )]
    Dose {
        /// The cell.
        text: String,
        /// The screen's unit.
        unit: String,
    },
    /// Grams that should be moles, or the other way round, without a molecular mass.
    #[error(
        "dose '{text}' becomes {unit} only with the compound's molecular mass: add a column molecular_weight in g/mol"
    )]
    NoMass {
        /// The cell.
        text: String,
        /// The screen's unit.
        unit: String,
    },
    /// A molecular mass that is none.
    #[error("molecular mass '{text}' is not a number above 0, in g/mol, and the dose beside it needs one")]
    Mass {
        /// The cell.
        text: String,
    },
    /// A dose that is negative or not finite.
    #[error("dose {text} is not possible: expected a finite number of at least 0")]
    DoseRange {
        /// The cell.
        text: String,
    },
    /// A well that has a line already.
    #[error("well {well}{} is listed twice: first on line {first}", match plate { Some(plate) => format!(" of plate {plate}"), None => String::new() })]
    DuplicateWell {
        /// The plate, where the map has a plate column.
        plate: Option<String>,
        /// The well.
        well: String,
        /// The line that has it already.
        first: u64,
    },
}

/// Every problem of a plate map, in file order; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlateMapErrors(pub Vec<PlateMapError>);

impl fmt::Display for PlateMapErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PlateMapErrors {}
