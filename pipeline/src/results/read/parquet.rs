//! Profile tables as Parquet: flat columns of integers, floats, booleans and text, read one row group at a time and
//! one column after the other, because thousands of open columns each hold a decompressor. Fails with the row and
//! column.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::Path;

use parquet::basic::Type as Physical;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::columns::{Columns, FeatureColumns};
use super::{ProfileRow, RowBuilder};
use crate::results::error::ReadError;

/// Cells of a column decoded at a time.
const BATCH_ROWS: usize = 4096;

pub(super) struct Rows {
    file: SerializedFileReader<File>,
    builder: RowBuilder,
    names: Vec<String>,
    /// Columns that are lists or structures: passed over.
    nested: Vec<bool>,
    /// The next row group.
    group: usize,
    /// Rows of the row group that was read last.
    ready: VecDeque<ProfileRow>,
    row: u64,
}

impl Rows {
    pub(super) fn open(path: &Path, wanted: &FeatureColumns) -> Result<(Vec<String>, Self), ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
        let file = SerializedFileReader::new(file).map_err(|source| ReadError::Parquet {
            path: path.to_owned(),
            source,
        })?;
        let schema = file.metadata().file_metadata().schema_descr();
        let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        let nested: Vec<bool> = schema
            .columns()
            .iter()
            .map(|c| c.max_rep_level() > 0 || c.path().parts().len() > 1)
            .collect();
        let columns = Columns::find(path, &names, wanted)?;
        for ((column, feature), nested) in schema.columns().iter().zip(&columns.feature_at).zip(&nested) {
            let found = match column.physical_type() {
                _ if *nested => "lists or structures".to_owned(),
                Physical::FLOAT | Physical::DOUBLE | Physical::INT32 | Physical::INT64 => continue,
                Physical::BYTE_ARRAY => "text".to_owned(),
                other => other.to_string(),
            };
            if feature.is_some() {
                let column = column.path().string();
                return Err(ReadError::FeatureKind {
                    path: path.to_owned(),
                    column,
                    found,
                });
            }
        }
        let features = columns.features.clone();
        let builder = RowBuilder {
            path: path.to_owned(),
            columns,
        };
        let rows = Self {
            file,
            builder,
            names,
            nested,
            group: 0,
            ready: VecDeque::new(),
            row: 0,
        };
        Ok((features, rows))
    }

    pub(super) fn next(&mut self) -> Option<Result<ProfileRow, ReadError>> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Some(Ok(row));
            }
            if self.group >= self.file.num_row_groups() {
                return None;
            }
            let read = self.read_group();
            self.group += 1;
            if let Err(error) = read {
                // After a failure the iterator ends.
                self.group = self.file.num_row_groups();
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }

    fn decode(&self, source: ParquetError) -> ReadError {
        ReadError::Parquet {
            path: self.builder.path.clone(),
            source,
        }
    }

    /// Reads the next row group into `ready`.
    fn read_group(&mut self) -> Result<(), ReadError> {
        let group = self
            .file
            .get_row_group(self.group)
            .map_err(|source| self.decode(source))?;
        let expected = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let width = self.builder.columns.features.len();
        let mut rows: Vec<RawRow> = Vec::new();
        for (i, name) in self.names.iter().enumerate() {
            if self.nested[i] {
                continue;
            }
            let feature = self.builder.columns.feature_at[i].is_some();
            let mut reader = group.get_column_reader(i).map_err(|source| self.decode(source))?;
            let mut at = 0;
            loop {
                let cells = read_cells(&mut reader).map_err(|source| self.decode(source))?;
                let count = cells.len();
                if count == 0 {
                    break;
                }
                if rows.len() < at + count {
                    rows.resize_with(at + count, || (BTreeMap::new(), Vec::with_capacity(width)));
                }
                cells.hand_out(&mut rows[at..at + count], feature, name);
                at += count;
            }
            if at != expected {
                let text = format!(
                    "column {name} has {at} of {expected} rows of row group {}",
                    self.group
                );
                return Err(self.decode(ParquetError::General(text)));
            }
        }
        for (metadata, values) in rows {
            self.row += 1;
            self.ready
                .push_back(self.builder.build(self.row, metadata, values)?);
        }
        Ok(())
    }
}

type RawRow = (BTreeMap<String, String>, Vec<f32>);

/// One batch of one column; `None` where the cell is missing.
enum Cells {
    Numbers(Vec<Option<f64>>),
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl Cells {
    fn len(&self) -> usize {
        match self {
            Self::Numbers(cells) => cells.len(),
            Self::Integers(cells) => cells.len(),
            Self::Texts(cells) => cells.len(),
        }
    }

    /// Gives each of `rows` its cell: to the features, or under `name` to the metadata.
    fn hand_out(self, rows: &mut [RawRow], feature: bool, name: &str) {
        fn as_text<T: ToString>(rows: &mut [RawRow], cells: Vec<Option<T>>, name: &str) {
            for ((metadata, _), cell) in rows.iter_mut().zip(cells) {
                if let Some(cell) = cell {
                    metadata.insert(name.to_owned(), cell.to_string());
                }
            }
        }
        match self {
            Self::Numbers(cells) if feature => {
                for ((_, values), cell) in rows.iter_mut().zip(cells) {
                    values.push(cell.map_or(f32::NAN, |number| number as f32));
                }
            }
            Self::Integers(cells) if feature => {
                for ((_, values), cell) in rows.iter_mut().zip(cells) {
                    values.push(cell.map_or(f32::NAN, |integer| integer as f32));
                }
            }
            Self::Numbers(cells) => as_text(rows, cells, name),
            Self::Integers(cells) => as_text(rows, cells, name),
            Self::Texts(cells) => as_text(rows, cells, name),
        }
    }
}

fn read_cells(reader: &mut ColumnReader) -> Result<Cells, ParquetError> {
    Ok(match reader {
        ColumnReader::FloatColumnReader(r) => Cells::Numbers(batch(r, |v| f64::from(*v))?),
        ColumnReader::DoubleColumnReader(r) => Cells::Numbers(batch(r, |v| *v)?),
        ColumnReader::Int32ColumnReader(r) => Cells::Integers(batch(r, |v| i64::from(*v))?),
        ColumnReader::Int64ColumnReader(r) => Cells::Integers(batch(r, |v| *v)?),
        ColumnReader::BoolColumnReader(r) => Cells::Texts(batch(r, bool::to_string)?),
        ColumnReader::ByteArrayColumnReader(r) => {
            Cells::Texts(batch(r, |v| String::from_utf8_lossy(v.data()).into_owned())?)
        }
        ColumnReader::Int96ColumnReader(r) => Cells::Texts(batch(r, ToString::to_string)?),
        ColumnReader::FixedLenByteArrayColumnReader(r) => Cells::Texts(batch(r, |v| {
            v.data().iter().map(|b| format!("{b:02x}")).collect()
        })?),
    })
}

/// Reads up to [`BATCH_ROWS`] cells of a flat column.
fn batch<T: DataType, U>(
    reader: &mut ColumnReaderImpl<T>,
    convert: impl Fn(&T::T) -> U,
) -> Result<Vec<Option<U>>, ParquetError> {
    let mut values = Vec::new();
    let mut levels = Vec::new();
    let (mut rows, mut filled) = (0, 0);
    while rows < BATCH_ROWS {
        let (records, found, _) =
            reader.read_records(BATCH_ROWS - rows, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        rows += records;
        filled += found;
    }
    if filled == rows {
        return Ok(values.iter().map(|v| Some(convert(v))).collect());
    }
    let mut values = values.iter();
    Ok(levels
        .iter()
        .map(|level| {
            if *level > 0 {
                values.next().map(&convert)
            } else {
                None
            }
        })
        .collect())
}
