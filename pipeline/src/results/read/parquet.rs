//! Profile tables as Parquet: flat columns of integers, floats, booleans and text, read in batches of rows so that
//! neither a large file nor a large row group is held. Fails with the row and column.

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

/// Rows decoded at a time: 6,400 features of a batch are 26 MB.
const BATCH_ROWS: usize = 1024;

pub(super) struct Rows {
    file: SerializedFileReader<File>,
    builder: RowBuilder,
    names: Vec<String>,
    /// Columns that are lists or structures: passed over.
    nested: Vec<bool>,
    group: usize,
    /// Readers of the open row group; empty before the first and after the last.
    readers: Vec<Option<ColumnReader>>,
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
            readers: Vec::new(),
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
            if self.readers.is_empty() {
                match self.open_group() {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(source) => return Some(Err(self.stop(source))),
                }
            }
            if let Err(error) = self.read_batch() {
                return Some(Err(error));
            }
        }
    }

    /// After a failure the iterator ends.
    fn stop(&mut self, source: ParquetError) -> ReadError {
        self.group = self.file.num_row_groups();
        self.readers.clear();
        ReadError::Parquet {
            path: self.builder.path.clone(),
            source,
        }
    }

    /// Opens the next row group's columns; false after the last one.
    fn open_group(&mut self) -> Result<bool, ParquetError> {
        if self.group >= self.file.num_row_groups() {
            return Ok(false);
        }
        let group = self.file.get_row_group(self.group)?;
        self.readers = self
            .nested
            .iter()
            .enumerate()
            .map(|(i, nested)| (!nested).then(|| group.get_column_reader(i)).transpose())
            .collect::<Result<_, _>>()?;
        self.group += 1;
        Ok(true)
    }

    /// Decodes the next batch of the open row group; closes the group when it has no more rows.
    fn read_batch(&mut self) -> Result<(), ReadError> {
        let width = self.builder.columns.features.len();
        let mut rows: Vec<(BTreeMap<String, String>, Vec<f32>)> = Vec::new();
        let mut first = true;
        for i in 0..self.readers.len() {
            let Some(reader) = &mut self.readers[i] else {
                continue;
            };
            let cells = match read_cells(reader) {
                Ok(cells) => cells,
                Err(source) => return Err(self.stop(source)),
            };
            if first {
                rows.resize_with(cells.len(), || (BTreeMap::new(), Vec::with_capacity(width)));
                first = false;
            } else if cells.len() != rows.len() {
                let text = format!(
                    "column {} has {} rows of {}",
                    self.names[i],
                    cells.len(),
                    rows.len()
                );
                return Err(self.stop(ParquetError::General(text)));
            }
            let feature = self.builder.columns.feature_at[i].is_some();
            match cells {
                Cells::Numbers(numbers) if feature => {
                    for ((_, values), number) in rows.iter_mut().zip(numbers) {
                        values.push(number.map_or(f32::NAN, |number| number as f32));
                    }
                }
                Cells::Integers(integers) if feature => {
                    for ((_, values), integer) in rows.iter_mut().zip(integers) {
                        values.push(integer.map_or(f32::NAN, |integer| integer as f32));
                    }
                }
                cells => {
                    for ((metadata, _), text) in rows.iter_mut().zip(cells.into_texts()) {
                        if let Some(text) = text {
                            metadata.insert(self.names[i].clone(), text);
                        }
                    }
                }
            }
        }
        if rows.is_empty() {
            self.readers.clear();
        }
        for (metadata, values) in rows {
            self.row += 1;
            match self.builder.build(self.row, metadata, values) {
                Ok(row) => self.ready.push_back(row),
                Err(error) => {
                    self.group = self.file.num_row_groups();
                    self.readers.clear();
                    self.ready.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

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

    fn into_texts(self) -> Vec<Option<String>> {
        fn each<T: ToString>(cells: Vec<Option<T>>) -> Vec<Option<String>> {
            cells
                .into_iter()
                .map(|cell| cell.map(|value| value.to_string()))
                .collect()
        }
        match self {
            Self::Numbers(cells) => each(cells),
            Self::Integers(cells) => each(cells),
            Self::Texts(cells) => cells,
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
