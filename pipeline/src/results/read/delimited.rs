//! Tables as text separated by commas, tabs or semicolons, gzipped or not. Rows are parsed in parallel, a block at a time. Fails with
//! the row and column of what is not a number.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use wellspring_workloads::columns::is_missing;

use super::columns::{Columns, Found};
use super::{Block, FeatureColumns, filled};
use crate::results::error::ReadError;

/// Cells of a block: as text they take about ten times as many bytes.
const BLOCK_CELLS: usize = 2 << 20;
/// Most rows of a block, for tables with few columns.
const BLOCK_ROWS: usize = 8 << 10;

pub(super) struct Table {
    path: PathBuf,
    reader: csv::Reader<Box<dyn Read + Send>>,
    names: Vec<String>,
    /// Whether `1,5` is a number: where cells are separated by semicolons, as in half of Europe.
    decimal_comma: bool,
}

/// What the header holds most of; a comma where it holds none.
fn separator(header: &[u8]) -> u8 {
    let count = |separator: u8| header.iter().filter(|byte| **byte == separator).count();
    // `max_by_key` keeps the last of equals: the comma.
    let most = [b';', b'\t', b',']
        .into_iter()
        .max_by_key(|separator| count(*separator));
    most.unwrap_or(b',')
}

impl Table {
    pub(super) fn open(
        path: &Path,
        gzipped: bool,
        wanted: &FeatureColumns,
        reserved: &[String],
    ) -> Result<(Columns, Self), ReadError> {
        let io = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let file = BufReader::new(File::open(path).map_err(io)?);
        let mut text: Box<dyn BufRead + Send> = if gzipped {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let mut header = Vec::new();
        text.read_until(b'\n', &mut header).map_err(io)?;
        let separator = separator(&header);
        // A byte order mark is what spreadsheets put before the first name.
        let start = if header.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let whole: Box<dyn Read + Send> = Box::new(Cursor::new(header.split_off(start)).chain(text));
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(whole);
        let headers = reader.headers().map_err(|source| ReadError::Csv {
            path: path.to_owned(),
            source,
        })?;
        let mut names: Vec<String> = headers.iter().map(|name| name.trim().to_owned()).collect();
        // What pandas writes above its row numbers.
        if let Some(first) = names.first_mut().filter(|name| name.is_empty()) {
            "Unnamed: 0".clone_into(first);
        }
        let found = |name: &String| Found {
            name: name.clone(),
            not_a_number: None,
            flat: true,
        };
        let found: Vec<Found> = names.iter().map(found).collect();
        let columns = Columns::find(path, &found, wanted, reserved)?;
        let path = path.to_owned();
        let table = Self {
            path,
            reader,
            names,
            decimal_comma: separator == b';',
        };
        Ok((columns, table))
    }
}

pub(super) struct Rows {
    table: Table,
    columns: Columns,
    /// Places in the file of the metadata columns to read.
    metadata: Vec<usize>,
    records: Vec<StringRecord>,
    ended: bool,
}

impl Rows {
    pub(super) fn new(table: Table, columns: Columns, metadata: Vec<usize>) -> Self {
        let rows = (BLOCK_CELLS / table.names.len().max(1)).clamp(1, BLOCK_ROWS);
        Self {
            table,
            columns,
            metadata,
            records: vec![StringRecord::new(); rows],
            ended: false,
        }
    }

    /// `first_row`: number of the next row, counted from 1, for messages.
    pub(super) fn next(&mut self, first_row: u64) -> Option<Result<Block, ReadError>> {
        if self.ended {
            return None;
        }
        let mut rows = 0;
        for record in &mut self.records {
            match self.table.reader.read_record(record) {
                Ok(true) => rows += 1,
                Ok(false) => {
                    self.ended = true;
                    break;
                }
                Err(source) => {
                    self.ended = true;
                    let path = self.table.path.clone();
                    return Some(Err(ReadError::Csv { path, source }));
                }
            }
        }
        if rows == 0 {
            return None;
        }
        let block = self.block(rows, first_row);
        self.ended |= block.is_err();
        Some(block)
    }

    fn block(&self, rows: usize, first_row: u64) -> Result<Block, ReadError> {
        let records = &self.records[..rows];
        let width = self.columns.features.len();
        let mut values = vec![0.0f32; rows * width];
        if width > 0 {
            let features_at = &self.columns.features_at;
            let decimal_comma = self.table.decimal_comma;
            // The first row with an error in file order, whatever thread found its own first.
            let failed = values
                .par_chunks_mut(width)
                .zip(records)
                .enumerate()
                .filter_map(|(i, (values, record))| {
                    parse(record, features_at, decimal_comma, values)
                        .err()
                        .map(|(column, text)| (i, column, text))
                })
                .min_by_key(|(i, ..)| *i);
            if let Some((i, column, text)) = failed {
                return Err(ReadError::NotANumber {
                    path: self.table.path.clone(),
                    row: first_row + i as u64,
                    column: self.table.names[column].clone(),
                    text: text.chars().take(60).collect(),
                });
            }
        }
        let texts = |at: &usize| {
            let cell = |record: &StringRecord| record.get(*at).and_then(filled);
            records.iter().map(cell).collect()
        };
        Ok(Block {
            first_row,
            rows,
            metadata: self.metadata.iter().map(texts).collect(),
            values,
        })
    }
}

/// The features of a row; the first cell that is not a number otherwise.
fn parse<'r>(
    record: &'r StringRecord,
    features_at: &[usize],
    decimal_comma: bool,
    values: &mut [f32],
) -> Result<(), (usize, &'r str)> {
    for (value, at) in values.iter_mut().zip(features_at) {
        let text = record.get(*at).unwrap_or_default().trim();
        *value = match text.parse() {
            Ok(number) => number,
            Err(_) if is_missing(text) => f32::NAN,
            Err(_) => {
                let with_point = decimal_comma.then(|| text.replacen(',', ".", 1).parse().ok());
                with_point.flatten().ok_or((*at, text))?
            }
        };
    }
    Ok(())
}
