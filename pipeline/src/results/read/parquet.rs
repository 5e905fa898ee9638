//! Tables as Parquet: flat columns of integers, floats, booleans and text.
//!
//! A block is a range of rows of one row group, read column by column: a file written as a single row group takes no
//! more memory than one of many. Of the footer only the places of the columns that are read are kept: it describes every
//! column of every row group, in ten times the bytes. Columns are decoded in parallel. Fails with the column.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{CompressionCodec, ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::{ColumnDescriptor, SchemaDescPtr};
use rayon::prelude::*;

use super::columns::{Columns, Found};
use super::pread::Shared;
use super::{Block, FeatureColumns, filled};
use crate::memory::give_back_free;
use crate::results::error::ReadError;

/// Features of a block, in bytes: large enough that a page is rarely decoded twice, small beside what a comparison
/// holds.
const BLOCK_BYTES: usize = 16 << 20;
/// Most rows of a block, for tables with few features.
const BLOCK_ROWS: usize = 32 << 10;
/// Feature columns decoded before they are put into rows.
const COLUMNS_AT_ONCE: usize = 32;

pub(super) struct Table {
    path: PathBuf,
    bytes: Shared,
    file: SerializedFileReader<Shared>,
}

impl Table {
    pub(super) fn open(
        path: &Path,
        wanted: &FeatureColumns,
        reserved: &[String],
    ) -> Result<(Columns, Self), ReadError> {
        let io = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let shared = Shared::new(File::open(path).map_err(io)?).map_err(io)?;
        let bytes = shared.clone();
        let file = SerializedFileReader::new(shared).map_err(|source| ReadError::Parquet {
            path: path.to_owned(),
            source,
        })?;
        let schema = file.metadata().file_metadata().schema_descr();
        let found: Vec<Found> = schema.columns().iter().map(|column| found(column)).collect();
        let columns = Columns::find(path, &found, wanted, reserved)?;
        let path = path.to_owned();
        Ok((columns, Self { path, bytes, file }))
    }

    pub(super) fn key_value(&self, key: &str) -> Option<&str> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }
}

/// What the integers or bytes of a column stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Itself,
    /// A half-precision number.
    Half,
    /// A number times ten to this power: DuckDB and other databases write decimals so.
    Decimal(i32),
}

impl Meaning {
    fn of(column: &ColumnDescriptor) -> Self {
        match column.logical_type_ref() {
            Some(LogicalType::Float16) => Self::Half,
            Some(LogicalType::Decimal { .. }) => Self::Decimal(column.type_scale()),
            None if column.converted_type() == ConvertedType::DECIMAL => Self::Decimal(column.type_scale()),
            _ => Self::Itself,
        }
    }

    fn of_integer(self, value: i64) -> f64 {
        match self {
            Self::Decimal(scale) => value as f64 / 10f64.powi(scale),
            Self::Itself | Self::Half => value as f64,
        }
    }

    /// `None` where the bytes are no number.
    fn of_bytes(self, bytes: &[u8]) -> Option<f64> {
        match self {
            Self::Half => Some(f64::from(half(bytes))),
            Self::Decimal(scale) => {
                // Two's complement, the highest byte first.
                let first = bytes.first().map_or(0.0, |byte| f64::from(*byte as i8));
                let rest = bytes.iter().skip(1);
                let value = rest.fold(first, |value, byte| 256.0 * value + f64::from(*byte));
                Some(value / 10f64.powi(scale))
            }
            Self::Itself => None,
        }
    }
}

fn found(column: &ColumnDescriptor) -> Found {
    let flat = column.max_rep_level() == 0 && column.path().parts().len() == 1;
    let not_a_number = match column.physical_type() {
        _ if !flat => Some("lists or structures".to_owned()),
        Physical::FLOAT | Physical::DOUBLE | Physical::INT32 | Physical::INT64 => None,
        Physical::FIXED_LEN_BYTE_ARRAY | Physical::BYTE_ARRAY if Meaning::of(column) != Meaning::Itself => {
            None
        }
        Physical::BYTE_ARRAY => Some("text".to_owned()),
        other => Some(other.to_string()),
    };
    Found {
        name: column.path().string(),
        not_a_number,
        flat,
    }
}

pub(super) struct Rows {
    path: PathBuf,
    bytes: Arc<Shared>,
    schema: SchemaDescPtr,
    /// Places in the file of the columns that are read: first so many of metadata, then the features.
    read: Vec<usize>,
    metadata: usize,
    groups: Vec<Group>,
    /// Row group and row in it at which the next block begins.
    group: usize,
    at: usize,
}

/// The columns of one row group that are read.
struct Group {
    rows: usize,
    chunks: Vec<Chunk>,
}

/// Where the cells of a column in a row group are.
struct Chunk {
    start: i64,
    length: i64,
    values: i64,
    codec: CompressionCodec,
    dictionary: bool,
}

impl Chunk {
    fn of(column: &ColumnChunkMetaData) -> Self {
        let dictionary = column.dictionary_page_offset();
        Self {
            start: dictionary.unwrap_or(column.data_page_offset()),
            length: column.compressed_size(),
            values: column.num_values(),
            codec: column.compression_codec(),
            dictionary: dictionary.is_some(),
        }
    }

    /// What the reader of its pages asks for.
    fn described(&self, column: &Arc<ColumnDescriptor>) -> Result<ColumnChunkMetaData, ParquetError> {
        if self.start < 0 || self.length < 0 {
            return Err(ParquetError::General(format!(
                "column {} lies outside the file",
                column.path().string()
            )));
        }
        ColumnChunkMetaData::builder(Arc::clone(column))
            .set_data_page_offset(self.start)
            .set_dictionary_page_offset(self.dictionary.then_some(self.start))
            .set_total_compressed_size(self.length)
            .set_num_values(self.values)
            .set_compression_codec(self.codec)
            .build()
    }
}

impl Rows {
    pub(super) fn new(table: Table, columns: Columns, metadata: Vec<usize>) -> Self {
        let Table { path, bytes, file } = table;
        let footer = file.metadata();
        let (metadata, mut read) = (metadata.len(), metadata);
        read.extend(&columns.features_at);
        let groups = footer.row_groups().iter().map(|group| Group {
            rows: usize::try_from(group.num_rows()).unwrap_or(0),
            chunks: read.iter().map(|at| Chunk::of(group.column(*at))).collect(),
        });
        let groups = groups.collect();
        let schema = footer.file_metadata().schema_descr_ptr();
        // A footer of many row groups is many small blocks, which the allocator would keep.
        drop(file);
        give_back_free();
        Self {
            groups,
            schema,
            bytes: Arc::new(bytes),
            path,
            read,
            metadata,
            group: 0,
            at: 0,
        }
    }

    pub(super) fn next(&mut self) -> Option<Result<Block, ReadError>> {
        while let Some(group) = self.groups.get(self.group) {
            let rows = group.rows;
            if self.at >= rows {
                (self.group, self.at) = (self.group + 1, 0);
                continue;
            }
            let width = (self.read.len() - self.metadata).max(1);
            let most = (BLOCK_BYTES / (size_of::<f32>() * width)).clamp(1, BLOCK_ROWS);
            let count = most.min(rows - self.at);
            let block = self.read(group, count);
            self.at += count;
            if block.is_err() {
                self.group = self.groups.len();
            }
            return Some(block.map_err(|source| ReadError::Parquet {
                path: self.path.clone(),
                source,
            }));
        }
        None
    }

    /// Reads `count` rows from where the block begins.
    fn read(&self, group: &Group, count: usize) -> Result<Block, ParquetError> {
        let column = |(at, chunk): (&usize, &Chunk)| -> Result<ColumnReader, ParquetError> {
            let column = self.schema.column(*at);
            let bytes = Arc::clone(&self.bytes);
            let pages = SerializedPageReader::new(bytes, &chunk.described(&column)?, group.rows, None)?;
            let mut reader = get_column_reader(column, Box::new(pages));
            skip(&mut reader, self.at)?;
            Ok(reader)
        };
        let (metadata, features) = self.read.split_at(self.metadata);
        let (metadata_chunks, feature_chunks) = group.chunks.split_at(self.metadata);
        let metadata = metadata
            .par_iter()
            .zip(metadata_chunks)
            .map(|place| {
                let texts = texts(&mut column(place)?, count, self.meaning(*place.0))?;
                self.complete(*place.0, texts.len(), count)?;
                Ok(texts)
            })
            .collect::<Result<_, ParquetError>>()?;
        let width = features.len();
        let mut values = vec![0.0f32; count * width];
        let parts = features
            .chunks(COLUMNS_AT_ONCE)
            .zip(feature_chunks.chunks(COLUMNS_AT_ONCE));
        for (part, (places, chunks)) in parts.enumerate() {
            let first = part * COLUMNS_AT_ONCE;
            let decoded = places
                .par_iter()
                .zip(chunks)
                .map(|place| {
                    let numbers = numbers(&mut column(place)?, count, self.meaning(*place.0))?;
                    self.complete(*place.0, numbers.len(), count)?;
                    Ok(numbers)
                })
                .collect::<Result<Vec<Vec<f32>>, ParquetError>>()?;
            values
                .par_chunks_mut(width)
                .enumerate()
                .for_each(|(row, values)| {
                    for (value, column) in values[first..].iter_mut().zip(&decoded) {
                        *value = column[row];
                    }
                });
        }
        Ok(Block {
            first_row: 0,
            rows: count,
            metadata,
            values,
        })
    }

    fn meaning(&self, at: usize) -> Meaning {
        Meaning::of(&self.schema.column(at))
    }

    fn complete(&self, at: usize, found: usize, expected: usize) -> Result<(), ParquetError> {
        if found == expected {
            return Ok(());
        }
        Err(ParquetError::General(format!(
            "column {} ends {} rows early in row group {}",
            self.schema.column(at).path().string(),
            expected - found,
            self.group
        )))
    }
}

fn skip(reader: &mut ColumnReader, rows: usize) -> Result<(), ParquetError> {
    if rows == 0 {
        return Ok(());
    }
    match reader {
        ColumnReader::BoolColumnReader(r) => r.skip_records(rows),
        ColumnReader::Int32ColumnReader(r) => r.skip_records(rows),
        ColumnReader::Int64ColumnReader(r) => r.skip_records(rows),
        ColumnReader::Int96ColumnReader(r) => r.skip_records(rows),
        ColumnReader::FloatColumnReader(r) => r.skip_records(rows),
        ColumnReader::DoubleColumnReader(r) => r.skip_records(rows),
        ColumnReader::ByteArrayColumnReader(r) => r.skip_records(rows),
        ColumnReader::FixedLenByteArrayColumnReader(r) => r.skip_records(rows),
    }
    .map(drop)
}

/// The next `count` cells of a column of numbers; NaN where missing.
fn numbers(reader: &mut ColumnReader, count: usize, meaning: Meaning) -> Result<Vec<f32>, ParquetError> {
    let nan = || f32::NAN;
    let bytes = |bytes: &[u8]| meaning.of_bytes(bytes).map_or(f32::NAN, |value| value as f32);
    match reader {
        ColumnReader::FloatColumnReader(r) => cells(r, count, |v| *v, nan),
        ColumnReader::DoubleColumnReader(r) => cells(r, count, |v| *v as f32, nan),
        ColumnReader::Int32ColumnReader(r) => {
            cells(r, count, |v| meaning.of_integer(i64::from(*v)) as f32, nan)
        }
        ColumnReader::Int64ColumnReader(r) => cells(r, count, |v| meaning.of_integer(*v) as f32, nan),
        ColumnReader::ByteArrayColumnReader(r) => cells(r, count, |v| bytes(v.data()), nan),
        ColumnReader::FixedLenByteArrayColumnReader(r) => cells(r, count, |v| bytes(v.data()), nan),
        _ => Err(ParquetError::General(
            "a feature column holds no numbers".to_owned(),
        )),
    }
}

/// The next `count` cells of a column as text.
fn texts(
    reader: &mut ColumnReader,
    count: usize,
    meaning: Meaning,
) -> Result<Vec<Option<String>>, ParquetError> {
    let none = || None;
    let number = |value: f64| (!value.is_nan()).then(|| value.to_string());
    let integer = |value: i64| match meaning {
        Meaning::Decimal(_) => Some(meaning.of_integer(value).to_string()),
        Meaning::Itself | Meaning::Half => Some(value.to_string()),
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match reader {
        // Not by way of f64: 0.3 must stay 0.3.
        ColumnReader::FloatColumnReader(r) => cells(r, count, |v| (!v.is_nan()).then(|| v.to_string()), none),
        ColumnReader::DoubleColumnReader(r) => cells(r, count, |v| number(*v), none),
        ColumnReader::Int32ColumnReader(r) => cells(r, count, |v| integer(i64::from(*v)), none),
        ColumnReader::Int64ColumnReader(r) => cells(r, count, |v| integer(*v), none),
        ColumnReader::BoolColumnReader(r) => cells(r, count, |v| Some(v.to_string()), none),
        ColumnReader::Int96ColumnReader(r) => cells(r, count, |v| Some(v.to_string()), none),
        ColumnReader::ByteArrayColumnReader(r) => {
            let text = |bytes: &[u8]| match meaning.of_bytes(bytes) {
                Some(value) => number(value),
                None => filled(&String::from_utf8_lossy(bytes)),
            };
            cells(r, count, |v| text(v.data()), none)
        }
        ColumnReader::FixedLenByteArrayColumnReader(r) => {
            let text = |bytes: &[u8]| meaning.of_bytes(bytes).map_or_else(|| Some(hex(bytes)), number);
            cells(r, count, |v| text(v.data()), none)
        }
    }
}

/// Up to `count` cells of a flat column; fewer where it ends.
fn cells<T: DataType, U>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    convert: impl Fn(&T::T) -> U,
    missing: impl Fn() -> U,
) -> Result<Vec<U>, ParquetError> {
    let mut values = Vec::with_capacity(count);
    let mut levels = Vec::new();
    let (mut rows, mut filled) = (0, 0);
    while rows < count {
        let (records, found, _) = reader.read_records(count - rows, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        rows += records;
        filled += found;
    }
    if filled == rows {
        return Ok(values.iter().map(convert).collect());
    }
    let mut values = values.iter();
    let cell = |level: &i16| match level {
        0 => missing(),
        _ => values.next().map_or_else(&missing, &convert),
    };
    Ok(levels.iter().map(cell).collect())
}

/// IEEE 754 half precision, little-endian; NaN where there are not two bytes.
fn half(bytes: &[u8]) -> f32 {
    let [low, high] = bytes else { return f32::NAN };
    let bits = u16::from_le_bytes([*low, *high]);
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn half_precision_numbers_of_every_kind() {
        for (bits, value) in [
            (0x0000u16, 0.0f32),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x7bff, 65504.0),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(&bits.to_le_bytes()), value, "{bits:x}");
        }
        assert!(half(&0x7e00u16.to_le_bytes()).is_nan());
        assert!(half(&[1]).is_nan());
    }
}
