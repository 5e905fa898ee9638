//! How far the cells of a workbook lie apart, before they become rectangles in memory.
//!
//! The bytes of a workbook enter; an error leaves where its sheets are too large to be kept: two cells in opposite corners of a
//! sheet are a rectangle of billions. Excel's new formats are looked at sheet by sheet when they are open ([`of_sheet`]); its old
//! one (a compound file of BIFF records) and LibreOffice's (OpenDocument) become rectangles while calamine opens them, and are
//! looked at before ([`before_opening`]). What else is wrong with a workbook is told by who reads it.

use std::io::{BufReader, Cursor, Read};

use calamine::{DataRef, Sheets};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::table::MAX_PLATE_MAP_BYTES;

/// Cells between the first and the last of a sheet, with anything in them or not: so many are kept in memory. 682 plates of 384
/// wells and eight columns fit. Of the formats that are opened with all sheets, of all sheets together.
pub(super) const MAX_CELLS: u64 = 2 << 20;
/// The most rows and columns of a sheet of Excel's old format, which room is made for at once as it says itself.
const MAX_BIFF_CELLS: u64 = 65_536 * 256;
/// Records of a workbook that are looked at: forged ones could be the same for many sheets.
const MAX_RECORDS: u64 = 64 << 20;

/// The rectangle of the cells seen so far.
struct Extent {
    first: (u64, u64),
    last: (u64, u64),
}

impl Extent {
    fn new() -> Self {
        Self {
            first: (u64::MAX, u64::MAX),
            last: (0, 0),
        }
    }

    fn add(&mut self, (row, column): (u64, u64)) {
        self.first = (row.min(self.first.0), column.min(self.first.1));
        self.last = (row.max(self.last.0), column.max(self.last.1));
    }

    /// Rows and columns; none where there is no cell.
    fn sides(&self) -> (u64, u64) {
        let side = |first: u64, last: u64| last.checked_sub(first).map_or(0, |side| side.saturating_add(1));
        (side(self.first.0, self.last.0), side(self.first.1, self.last.1))
    }

    /// Cells of it, or what is wrong where these and those `before` are too many.
    fn check(&self, name: &str, before: u64) -> Result<u64, String> {
        let (rows, columns) = self.sides();
        let cells = rows.saturating_mul(columns).saturating_add(before);
        if cells <= MAX_CELLS {
            return Ok(cells);
        }
        let others = match before {
            0 => String::new(),
            before => format!(", with {before} cells on sheets before it"),
        };
        Err(format!(
            "what is on its sheet '{name}' is spread over {rows} rows and {columns} columns{others}, and at most {MAX_CELLS} \
             cells are read; take away what lies far from the table, or save the table as CSV"
        ))
    }
}

/// Whether a sheet of an open workbook is small enough.
pub(super) fn of_sheet(workbook: &mut Sheets<Cursor<&[u8]>>, name: &str) -> Result<(), String> {
    let mut extent = Extent::new();
    let mut add = |(row, column): (u32, u32), value: &DataRef<'_>| {
        if !matches!(value, DataRef::Empty) {
            extent.add((row.into(), column.into()));
        }
    };
    match workbook {
        Sheets::Xlsx(workbook) => {
            let Ok(mut cells) = workbook.worksheet_cells_reader(name) else {
                return Ok(());
            };
            while let Ok(Some(cell)) = cells.next_cell() {
                add(cell.get_position(), cell.get_value());
            }
        }
        Sheets::Xlsb(workbook) => {
            let Ok(mut cells) = workbook.worksheet_cells_reader(name) else {
                return Ok(());
            };
            while let Ok(Some(cell)) = cells.next_cell() {
                add(cell.get_position(), cell.get_value());
            }
        }
        // Looked at before they were opened.
        Sheets::Xls(_) | Sheets::Ods(_) => {}
    }
    extent.check(name, 0).map(drop)
}

/// Whether the sheets of a workbook are small enough that become rectangles when it is opened.
pub(super) fn before_opening(bytes: &[u8]) -> Result<(), String> {
    if bytes.starts_with(b"PK") {
        open_document(bytes)
    } else {
        old_excel(bytes)
    }
}

/// A compound file's stream of BIFF records: those of the workbook name where each sheet's begin.
fn old_excel(bytes: &[u8]) -> Result<(), String> {
    let reason = |error: std::io::Error| error.to_string();
    let mut file = cfb::CompoundFile::open(Cursor::new(bytes)).map_err(reason)?;
    let named = |name: &str| {
        let mut entries = file.walk();
        let found = entries.find(|entry| entry.is_stream() && entry.name().eq_ignore_ascii_case(name));
        found.map(|entry| entry.path().to_owned())
    };
    let Some(path) = named("Workbook").or_else(|| named("Book")) else {
        return Err("it has no stream named Workbook".to_owned());
    };
    let mut stream = Vec::new();
    let limit = MAX_PLATE_MAP_BYTES as u64;
    let read = file.open_stream(path).map_err(reason)?;
    read.take(limit).read_to_end(&mut stream).map_err(reason)?;

    let sheets: Vec<u32> = Records(&stream)
        .take_while(|(kind, _)| *kind != END)
        .filter(|(kind, _)| *kind == SHEET)
        .filter_map(|(_, data)| number(data, 0))
        .collect();
    let (mut cells, mut left) = (0, MAX_RECORDS);
    for (place, sheet) in (1..).zip(sheets) {
        let records = usize::try_from(sheet).ok().and_then(|at| stream.get(at..));
        let name = format!("{place}");
        cells = sheet_of_records(Records(records.unwrap_or_default()), &mut left)?.check(&name, cells)?;
    }
    Ok(())
}

const END: u16 = 0x000a;
const SHEET: u16 = 0x0085;
const BEGIN: u16 = 0x0809;
const DIMENSIONS: u16 = 0x0200;
/// Several numbers beside each other.
const NUMBERS: u16 = 0x00bd;
/// Formula, number, text, truth or error, number in short, text of the table, text with formats.
const CELLS: [u16; 7] = [0x0006, 0x0203, 0x0204, 0x0205, 0x027e, 0x00fd, 0x00d6];

/// Kinds and contents of records.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, length) = (short(self.0, 0)?, short(self.0, 2)?);
        let end = 4 + usize::from(length);
        let data = self.0.get(4..end)?;
        self.0 = self.0.get(end..)?;
        Some((kind, data))
    }
}

fn short(data: &[u8], at: usize) -> Option<u16> {
    let bytes = data.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn number(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn sheet_of_records(records: Records<'_>, left: &mut u64) -> Result<Extent, String> {
    let mut extent = Extent::new();
    // Charts within a sheet have records of their own.
    let mut depth = 0u32;
    for (kind, data) in records {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| format!("it has more than {MAX_RECORDS} records"))?;
        match kind {
            BEGIN => depth += 1,
            END if depth <= 1 => break,
            END => depth -= 1,
            DIMENSIONS => {
                let (rows, columns) = match data.len() {
                    10 => (short(data, 2).map(u64::from), short(data, 6)),
                    _ => (number(data, 4).map(u64::from), short(data, 10)),
                };
                let cells = rows.unwrap_or(0).saturating_mul(columns.unwrap_or(0).into());
                if cells > MAX_BIFF_CELLS {
                    return Err(format!("a sheet of it says that it has {cells} cells"));
                }
            }
            kind if depth <= 1 && (kind == NUMBERS || CELLS.contains(&kind)) => {
                let (Some(row), Some(column)) = (short(data, 0), short(data, 2)) else {
                    continue;
                };
                extent.add((row.into(), column.into()));
                let last = data.len().checked_sub(2).and_then(|at| short(data, at));
                if let Some(last) = last.filter(|_| kind == NUMBERS) {
                    extent.add((row.into(), last.into()));
                }
            }
            _ => {}
        }
    }
    Ok(extent)
}

/// The sheets of a document's `content.xml`, where it has one: rows and cells that are repeated stand there once.
fn open_document(bytes: &[u8]) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let Ok(content) = archive.by_name("content.xml") else {
        return Ok(());
    };
    let mut reader = Reader::from_reader(BufReader::new(content));
    let mut buffer = Vec::new();
    let mut name = String::new();
    let mut extent = Extent::new();
    let (mut cells, mut kept, mut row, mut column) = (0, 0u64, 0u64, 0u64);
    // How often the row stands there, and its last column with anything.
    let (mut repeated, mut width) = (1u64, 0u64);
    // The columns of a cell of which it is not known yet whether there is anything in it.
    let mut open = None;
    loop {
        // What is no XML is told by who reads it.
        let Ok(event) = reader.read_event_into(&mut buffer) else {
            return Ok(());
        };
        let mut add = |cell: &mut Option<(u64, u64)>| {
            if let Some((begins, ends)) = cell.take() {
                extent.add((row, begins));
                let last_row = row.saturating_add(repeated.saturating_sub(1));
                extent.add((last_row, ends.saturating_sub(1)));
                width = ends;
            }
        };
        match &event {
            Event::Eof => return Ok(()),
            Event::Start(element) if element.name().as_ref() == b"table:table" => {
                name = attribute(element, b"table:name").unwrap_or_default();
                (extent, row) = (Extent::new(), 0);
            }
            Event::End(element) if element.name().as_ref() == b"table:table" => {
                cells = extent.check(&name, cells)?;
            }
            Event::Start(element) | Event::Empty(element)
                if element.name().as_ref() == b"table:table-row" =>
            {
                repeated = repeats(element, b"table:number-rows-repeated");
                (column, width) = (0, 0);
                if matches!(event, Event::Empty(_)) {
                    row = row.saturating_add(repeated);
                }
            }
            Event::End(element) if element.name().as_ref() == b"table:table-row" => {
                row = row.saturating_add(repeated);
                // calamine keeps every row from its first cell to its last one first.
                kept = kept.saturating_add(width);
                if kept > MAX_CELLS {
                    return Err(format!(
                        "its rows have {kept} cells up to the last one of each, and at most {MAX_CELLS} cells are read; save the \
                         table as CSV"
                    ));
                }
            }
            Event::Start(element) | Event::Empty(element) if is_cell(element.name().as_ref()) => {
                let times = repeats(element, b"table:number-columns-repeated");
                let begins = column;
                column = column.saturating_add(times);
                open = Some((begins, column));
                if has_value(element) {
                    add(&mut open);
                }
                if matches!(event, Event::Empty(_)) {
                    open = None;
                }
            }
            Event::End(element) if is_cell(element.name().as_ref()) => open = None,
            Event::Text(text) if !text.iter().all(u8::is_ascii_whitespace) => add(&mut open),
            Event::CData(_) | Event::GeneralRef(_) => add(&mut open),
            _ => {}
        }
        buffer.clear();
    }
}

fn is_cell(name: &[u8]) -> bool {
    matches!(name, b"table:table-cell" | b"table:covered-table-cell")
}

fn has_value(element: &BytesStart<'_>) -> bool {
    let mut attributes = element.attributes();
    attributes.with_checks(false).flatten().any(|attribute| {
        let name = attribute.key.as_ref();
        name == b"table:formula" || name.starts_with(b"office:") && name.ends_with(b"value")
    })
}

fn attribute(element: &BytesStart<'_>, name: &[u8]) -> Option<String> {
    let mut attributes = element.attributes();
    let found = attributes
        .with_checks(false)
        .flatten()
        .find(|attribute| attribute.key.as_ref() == name)?;
    Some(String::from_utf8_lossy(&found.value).into_owned())
}

fn repeats(element: &BytesStart<'_>, name: &[u8]) -> u64 {
    let times = attribute(element, name).and_then(|text| text.parse().ok());
    times.unwrap_or(1).max(1)
}
