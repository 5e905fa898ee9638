//! Tables as laboratories keep them: text with separators, and sheets of Excel and LibreOffice.
//!
//! Bytes enter, rows of cells with their lines leave, or what is wrong with the file. A cell of a sheet becomes what a
//! person would type; a cell with an error of the sheet stays one.

use std::io::{Cursor, Read};

use calamine::{Data, Reader as _, Sheets, open_workbook_auto_from_rs};

use super::error::{PlateMapError, PlateMapProblem};
use super::extent;
use crate::layout::text_of;

/// The largest plate map that is read, in bytes: 1000 plates of 1536 wells fit.
pub const MAX_PLATE_MAP_BYTES: usize = 128 << 20;
/// What a sheet may unpack to, in bytes.
const MAX_UNPACKED_BYTES: u64 = 512 << 20;

/// A header and the rows below it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    /// The file's name, for messages.
    pub(super) file: String,
    /// Line of the header, from 1.
    pub(super) header_line: u64,
    /// The names of the columns.
    pub(super) columns: Vec<String>,
    /// Line and cells of every row that is not empty.
    pub(super) rows: Vec<(u64, Vec<String>)>,
}

/// The table of a file and what is wrong with single rows; `Err` where there is no table.
pub(super) fn read(
    bytes: &[u8],
    file: &str,
    sheet: Option<&str>,
    errors: &mut Vec<PlateMapError>,
) -> Option<Table> {
    let mut report = |line: u64, problem| {
        errors.push(PlateMapError {
            file: file.to_owned(),
            line,
            column: 1,
            problem,
        });
    };
    if bytes.len() > MAX_PLATE_MAP_BYTES {
        let (bytes, limit) = (bytes.len(), MAX_PLATE_MAP_BYTES);
        report(1, PlateMapProblem::TooLarge { bytes, limit });
        return None;
    }
    // Zip (xlsx, xlsb, ods) and OLE (xls).
    let is_workbook = bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]);
    if is_workbook {
        // calamine adds and multiplies what stands in a damaged file: where such arithmetic is checked, as in development
        // builds, it panics.
        let rows = std::panic::catch_unwind(|| sheet_rows(bytes, sheet)).unwrap_or_else(|_| {
            let reason = "a number in it is out of range".to_owned();
            Err(PlateMapProblem::Workbook { reason })
        });
        return match rows {
            Ok(rows) => of_rows(file, rows, &mut report),
            Err(problem) => {
                report(1, problem);
                None
            }
        };
    }
    if let Some(sheet) = sheet {
        let sheet = sheet.to_owned();
        report(1, PlateMapProblem::NoSheets { sheet });
        return None;
    }
    text_rows(&text_of(bytes), file, &mut report)
}

/// Rows of a sheet by their line, whose first with text is the header.
fn of_rows(
    file: &str,
    rows: impl IntoIterator<Item = (u64, Vec<String>)>,
    report: &mut impl FnMut(u64, PlateMapProblem),
) -> Option<Table> {
    let mut rows = rows
        .into_iter()
        .filter(|(_, cells)| cells.iter().any(|cell| !cell.is_empty()));
    let Some((header_line, mut columns)) = rows.next() else {
        report(1, PlateMapProblem::Empty { what: "header" });
        return None;
    };
    // Sheets are as wide as their widest remark.
    while columns.last().is_some_and(String::is_empty) {
        columns.pop();
    }
    let width = columns.len();
    let mut kept = Vec::new();
    for (line, mut cells) in rows {
        if cells.iter().skip(width).any(|cell| !cell.is_empty()) {
            let (found, expected) = (cells.len(), width);
            report(line, PlateMapProblem::CellCount { found, expected });
            continue;
        }
        cells.resize(width, String::new());
        kept.push((line, cells));
    }
    Some(Table {
        file: file.to_owned(),
        header_line,
        columns,
        rows: kept,
    })
}

fn sheet_rows(bytes: &[u8], sheet: Option<&str>) -> Result<Vec<(u64, Vec<String>)>, PlateMapProblem> {
    let broken = |reason: String| PlateMapProblem::Workbook { reason };
    if bytes.starts_with(b"PK") {
        check_unpacked(bytes).map_err(broken)?;
    }
    extent::before_opening(bytes).map_err(broken)?;
    let mut workbook: Sheets<_> =
        open_workbook_auto_from_rs(Cursor::new(bytes)).map_err(|error| broken(error.to_string()))?;
    let names = workbook.sheet_names();
    let wanted: Vec<String> = match sheet {
        Some(sheet) if names.iter().any(|name| name == sheet) => vec![sheet.to_owned()],
        Some(sheet) => {
            return Err(PlateMapProblem::NoSuchSheet {
                sheet: sheet.to_owned(),
                known: names,
            });
        }
        None => names,
    };
    // Without a choice, the first sheet with anything on it.
    for name in wanted {
        extent::of_sheet(&mut workbook, &name).map_err(broken)?;
        let range = workbook
            .worksheet_range(&name)
            .map_err(|error| broken(error.to_string()))?;
        let first = range.start().map_or(0, |(row, _)| u64::from(row));
        if range.is_empty() {
            continue;
        }
        let rows = range.rows().zip(first + 1..);
        return Ok(rows
            .map(|(cells, line)| (line, cells.iter().map(cell).collect()))
            .collect());
    }
    Ok(Vec::new())
}

/// A zip archive names the size of what it holds; what is larger than it says ends with an error when it is read.
fn check_unpacked(bytes: &[u8]) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut unpacked = 0u64;
    for index in 0..archive.len() {
        let part = archive.by_index(index).map_err(|error| error.to_string())?;
        // Sizes may be forged: what is really there is counted, without keeping it.
        let left = MAX_UNPACKED_BYTES.saturating_sub(unpacked);
        unpacked += std::io::copy(&mut part.take(left + 1), &mut std::io::sink())
            .map_err(|error| error.to_string())?;
        if unpacked > MAX_UNPACKED_BYTES {
            return Err(format!("it unpacks to more than {MAX_UNPACKED_BYTES} bytes"));
        }
    }
    Ok(())
}

fn cell(value: &Data) -> String {
    match value {
        // Whole numbers are kept as such by people, as 1.0 by the format.
        Data::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        Data::Float(number) => number.to_string(),
        value => value.to_string().trim().to_owned(),
    }
}

fn text_rows(text: &str, file: &str, report: &mut impl FnMut(u64, PlateMapProblem)) -> Option<Table> {
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
            report(1, PlateMapProblem::Table { reason });
            return None;
        }
        _ => {
            report(1, PlateMapProblem::Empty { what: "header" });
            return None;
        }
    };
    let columns: Vec<String> = header.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = line_of(text, error.position());
                let reason = error.to_string();
                report(line, PlateMapProblem::Table { reason });
                break;
            }
        };
        // A line of separators only is what spreadsheets leave behind.
        if record.iter().all(str::is_empty) {
            continue;
        }
        let line = line_of(text, record.position());
        if record.len() == columns.len() {
            rows.push((line, record.iter().map(str::to_owned).collect()));
        } else {
            let (found, expected) = (record.len(), columns.len());
            report(line, PlateMapProblem::CellCount { found, expected });
        }
    }
    Some(Table {
        file: file.to_owned(),
        header_line: line_of(text, header.position()),
        columns,
        rows,
    })
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
