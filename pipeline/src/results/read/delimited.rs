//! Profile tables as comma or tab separated text, gzipped or not. Fails with the row and column of what is not a
//! number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use csv::StringRecord;
use flate2::read::MultiGzDecoder;

use super::columns::{Columns, FeatureColumns};
use super::{ProfileRow, RowBuilder};
use crate::results::error::ReadError;

/// Texts that stand for a missing number in tables written by pandas, R and spreadsheets.
const MISSING: [&str; 6] = ["", "NA", "N/A", "NaN", "nan", "null"];

pub(super) struct Rows {
    reader: csv::Reader<Box<dyn Read + Send>>,
    record: StringRecord,
    names: Vec<String>,
    builder: RowBuilder,
    row: u64,
}

impl Rows {
    pub(super) fn open(
        path: &Path,
        gzipped: bool,
        wanted: &FeatureColumns,
    ) -> Result<(Vec<String>, Self), ReadError> {
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
        let tabs = header.contains(&b'\t') && !header.contains(&b',');
        // A byte order mark is what spreadsheets put before the first name.
        let start = if header.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let whole: Box<dyn Read + Send> = Box::new(Cursor::new(header.split_off(start)).chain(text));
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(if tabs { b'\t' } else { b',' })
            .from_reader(whole);
        let names: Vec<String> = reader
            .headers()
            .map_err(|source| ReadError::Csv {
                path: path.to_owned(),
                source,
            })?
            .iter()
            .map(|name| name.trim().to_owned())
            .collect();
        let columns = Columns::find(path, &names, wanted)?;
        let features = columns.features.clone();
        let builder = RowBuilder {
            path: path.to_owned(),
            columns,
        };
        Ok((
            features,
            Self {
                reader,
                record: StringRecord::new(),
                names,
                builder,
                row: 0,
            },
        ))
    }

    pub(super) fn next(&mut self) -> Option<Result<ProfileRow, ReadError>> {
        match self.reader.read_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                self.row += 1;
                Some(self.row())
            }
            Err(source) => Some(Err(ReadError::Csv {
                path: self.builder.path.clone(),
                source,
            })),
        }
    }

    fn row(&self) -> Result<ProfileRow, ReadError> {
        let mut metadata = BTreeMap::new();
        let mut values = Vec::with_capacity(self.builder.columns.features.len());
        let cells = self
            .record
            .iter()
            .zip(&self.names)
            .zip(&self.builder.columns.feature_at);
        for ((text, name), feature) in cells {
            let text = text.trim();
            if feature.is_none() {
                if !text.is_empty() {
                    metadata.insert(name.clone(), text.to_owned());
                }
            } else if MISSING.contains(&text) {
                values.push(f32::NAN);
            } else {
                values.push(text.parse().map_err(|_| ReadError::NotANumber {
                    path: self.builder.path.clone(),
                    row: self.row,
                    column: name.clone(),
                    text: text.chars().take(60).collect(),
                })?);
            }
        }
        self.builder.build(self.row, metadata, values)
    }
}
