//! One Parquet table, written in flat memory.
//!
//! Rows enter one by one: a few typed cells and, where the table has them, a block of `f32` features. A whole file
//! leaves: zstd level 3, row groups written column by column so that memory is one row group whatever the number
//! of rows, no dictionary and no statistics for float columns, no time and no host in the file, so the same rows
//! give the same bytes. Fails where a row does not fit the columns or the disk refuses.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type};

use super::atomic::{AtomicFile, PartialPath};
use super::error::WriteError;

/// Bytes of features held before a row group is written. Large enough that the footer of 6,400 columns stays small
/// beside the data, small enough that a table of any length is written in tens of megabytes.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// Most rows of a row group with features, for tables with few of them.
const ROW_GROUP_ROWS: usize = 64 << 10;
/// Fewest rows of a row group without features: several tables are written at once, and a row of theirs takes up to half
/// a kilobyte.
const PLAIN_GROUP_ROWS: usize = 8 << 10;
/// A row group without features has so many times fewer rows than the table before it: the footer of a table of any
/// length stays small.
const PLAIN_GROUPS: usize = 64;
/// zstd's own default: features are noise in their low bits, a higher level costs time and gains little.
const ZSTD_LEVEL: i32 = 3;
/// Written as the author of every file; no time, no host.
const CREATED_BY: &str = concat!("wellspring version ", env!("CARGO_PKG_VERSION"));

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// 64-bit signed integers.
    Int64,
    /// 64-bit floats.
    Float64,
    /// 32-bit floats.
    Float32,
}

impl ColumnKind {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int64 => "an integer",
            Self::Float64 | Self::Float32 => "a number",
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64)
    }
}

/// One named column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, unique in the table.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether a cell may be missing.
    pub optional: bool,
}

impl Column {
    /// A column every row fills.
    pub fn required(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self {
            name: name.into(),
            kind,
            optional: false,
        }
    }

    /// A column whose cells may be missing.
    pub fn optional(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self {
            name: name.into(),
            kind,
            optional: true,
        }
    }
}

/// One cell of a row. In an optional float column NaN is written as missing: readers agree on what missing means,
/// and do not on NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Text.
    Text(&'a str),
    /// An integer.
    Int(i64),
    /// A number; rounded to 32 bits in a [`ColumnKind::Float32`] column.
    Number(f64),
    /// Missing.
    Missing,
}

impl<'a> Cell<'a> {
    /// Text, or missing.
    pub fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Missing, Self::Text)
    }

    /// A number, or missing.
    pub fn number(number: Option<f64>) -> Self {
        number.map_or(Self::Missing, Self::Number)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Int(_) => "an integer",
            Self::Number(number) if number.is_nan() => "NaN",
            Self::Number(_) => "a number",
            Self::Missing => "nothing",
        }
    }
}

impl From<f64> for Cell<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<f64>> for Cell<'_> {
    fn from(number: Option<f64>) -> Self {
        Self::number(number)
    }
}

/// Text that many rows share: kept once, however often it is written.
#[derive(Debug, Clone)]
pub struct SharedText(ByteArray);

impl From<&str> for SharedText {
    fn from(text: &str) -> Self {
        Self(ByteArray::from(text.as_bytes().to_vec()))
    }
}

/// Cells of one column, one for each of many rows.
#[derive(Debug, Clone, Copy)]
pub enum Cells<'a> {
    /// Text, or missing.
    Texts(&'a [Option<SharedText>]),
    /// The same in every row.
    Same(Option<&'a SharedText>),
    /// Integers.
    Ints(&'a [i64]),
    /// Numbers; NaN is missing.
    Numbers(&'a [f64]),
}

impl Cells<'_> {
    fn len(&self) -> Option<usize> {
        match self {
            Self::Texts(cells) => Some(cells.len()),
            Self::Same(_) => None,
            Self::Ints(cells) => Some(cells.len()),
            Self::Numbers(cells) => Some(cells.len()),
        }
    }
}

/// The cells of one column waiting for their row group. `present` is empty for required columns.
#[derive(Debug)]
enum Waiting {
    Text(Texts),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Float32(Vec<f32>),
}

/// Texts one after the other: a cell of its own would take ten times its letters.
#[derive(Debug, Default)]
struct Texts {
    letters: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    fn push(&mut self, text: &[u8]) {
        self.letters.extend_from_slice(text);
        self.ends.push(self.letters.len());
    }

    /// Gives all of them, and is empty.
    fn take(&mut self) -> Vec<ByteArray> {
        let letters = Bytes::from(std::mem::take(&mut self.letters));
        let mut from = 0;
        let cell = |to: usize| ByteArray::from(letters.slice(std::mem::replace(&mut from, to)..to));
        self.ends.drain(..).map(cell).collect()
    }
}

#[derive(Debug)]
struct Buffer {
    column: Column,
    values: Waiting,
    /// Parquet definition levels: 1 where the cell is filled.
    present: Vec<i16>,
}

impl Buffer {
    fn new(column: Column) -> Self {
        let values = match column.kind {
            ColumnKind::Text => Waiting::Text(Texts::default()),
            ColumnKind::Int64 => Waiting::Int64(Vec::new()),
            ColumnKind::Float64 => Waiting::Float64(Vec::new()),
            ColumnKind::Float32 => Waiting::Float32(Vec::new()),
        };
        Self {
            column,
            values,
            present: Vec::new(),
        }
    }

    /// Whether `cell` may stand in this column.
    fn takes(&self, cell: Cell<'_>) -> bool {
        match (cell, self.column.kind) {
            (Cell::Missing, _) => self.column.optional,
            (Cell::Number(number), kind) if kind.is_float() => self.column.optional || !number.is_nan(),
            (Cell::Text(_), ColumnKind::Text) | (Cell::Int(_), ColumnKind::Int64) => true,
            _ => false,
        }
    }

    /// Appends a cell that [`takes`](Self::takes) accepted.
    fn push(&mut self, cell: Cell<'_>) {
        let filled = match (cell, &mut self.values) {
            (Cell::Text(text), Waiting::Text(values)) => {
                values.push(text.as_bytes());
                true
            }
            (Cell::Int(int), Waiting::Int64(values)) => {
                values.push(int);
                true
            }
            (Cell::Number(number), Waiting::Float64(values)) if !number.is_nan() => {
                values.push(number);
                true
            }
            (Cell::Number(number), Waiting::Float32(values)) if !number.is_nan() => {
                values.push(number as f32);
                true
            }
            _ => false,
        };
        if self.column.optional {
            self.present.push(i16::from(filled));
        }
    }

    /// The first cell of `rows` that may not stand in this column, as its row and what it is.
    fn refuses(&self, cells: Cells<'_>) -> Option<(usize, &'static str)> {
        let column = &self.column;
        let missing = |at: Option<usize>| at.filter(|_| !column.optional).map(|at| (at, "nothing"));
        match (cells, column.kind) {
            (Cells::Texts(cells), ColumnKind::Text) => missing(cells.iter().position(Option::is_none)),
            (Cells::Same(cell), ColumnKind::Text) => missing(cell.is_none().then_some(0)),
            (Cells::Ints(_), ColumnKind::Int64) => None,
            (Cells::Numbers(cells), kind) if kind.is_float() => {
                missing(cells.iter().position(|cell| cell.is_nan())).map(|(at, _)| (at, "NaN"))
            }
            (Cells::Texts(_) | Cells::Same(_), _) => Some((0, "text")),
            (Cells::Ints(_), _) => Some((0, "an integer")),
            (Cells::Numbers(_), _) => Some((0, "a number")),
        }
    }

    /// Appends the cells of rows `rows`, which [`refuses`](Self::refuses) did not refuse.
    fn extend(&mut self, cells: Cells<'_>, rows: Range<usize>) {
        let n = rows.len();
        if self.column.optional {
            match cells {
                Cells::Texts(cells) => self
                    .present
                    .extend(cells[rows.clone()].iter().map(|cell| i16::from(cell.is_some()))),
                Cells::Same(cell) => self
                    .present
                    .extend(std::iter::repeat_n(i16::from(cell.is_some()), n)),
                Cells::Ints(_) => self.present.extend(std::iter::repeat_n(1, n)),
                Cells::Numbers(cells) => self
                    .present
                    .extend(cells[rows.clone()].iter().map(|cell| i16::from(!cell.is_nan()))),
            }
        }
        let there = |cell: &&f64| !cell.is_nan();
        match (cells, &mut self.values) {
            (Cells::Texts(cells), Waiting::Text(values)) => {
                let there = cells[rows].iter().flatten();
                there.for_each(|text| values.push(text.0.data()));
            }
            (Cells::Same(Some(text)), Waiting::Text(values)) => {
                (0..n).for_each(|_| values.push(text.0.data()));
            }
            (Cells::Ints(cells), Waiting::Int64(values)) => values.extend_from_slice(&cells[rows]),
            (Cells::Numbers(cells), Waiting::Float64(values)) => {
                values.extend(cells[rows].iter().filter(there));
            }
            (Cells::Numbers(cells), Waiting::Float32(values)) => {
                values.extend(cells[rows].iter().filter(there).map(|&cell| cell as f32));
            }
            _ => {}
        }
    }

    /// Writes the cells as the next column of `group` and forgets them.
    fn write(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    ) -> Result<(), ParquetError> {
        let Some(mut writer) = group.next_column()? else {
            return Err(ParquetError::General(format!(
                "no room for column {}",
                self.column.name
            )));
        };
        let levels = self.column.optional.then_some(self.present.as_slice());
        match &mut self.values {
            Waiting::Text(values) => {
                writer
                    .typed::<ByteArrayType>()
                    .write_batch(&values.take(), levels, None)?;
            }
            Waiting::Int64(values) => {
                writer.typed::<Int64Type>().write_batch(values, levels, None)?;
                values.clear();
            }
            Waiting::Float64(values) => {
                writer.typed::<DoubleType>().write_batch(values, levels, None)?;
                values.clear();
            }
            Waiting::Float32(values) => {
                writer.typed::<FloatType>().write_batch(values, levels, None)?;
                values.clear();
            }
        }
        self.present.clear();
        writer.close()
    }
}

/// A table being written. Dropped before [`finish`](TableWriter::finish) it leaves nothing behind.
pub struct TableWriter {
    writer: SerializedFileWriter<BufWriter<File>>,
    place: PartialPath,
    cells: Vec<Buffer>,
    width: usize,
    /// Waiting features, row after row.
    features: Vec<f32>,
    waiting: usize,
    group_rows: usize,
    rows: u64,
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("path", &self.place.target())
            .field("columns", &self.cells.len())
            .field("features", &self.width)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl TableWriter {
    /// Opens `<path>.partial`. The table has `columns`, then one required `f32` column per name in `features`;
    /// `metadata` is written as the file's key-value pairs, in the order given.
    ///
    /// # Errors
    /// No columns, two columns of one name, or a file that cannot be created.
    pub fn create(
        path: &Path,
        columns: Vec<Column>,
        features: &[String],
        metadata: &[(String, String)],
    ) -> Result<Self, WriteError> {
        let layout = |problem, column: &str| WriteError::Layout {
            path: path.to_owned(),
            problem,
            column: column.to_owned(),
        };
        if columns.is_empty() && features.is_empty() {
            return Err(layout("it has no columns", ""));
        }
        let mut seen = HashSet::new();
        for name in columns
            .iter()
            .map(|c| c.name.as_str())
            .chain(features.iter().map(String::as_str))
        {
            if !seen.insert(name) {
                return Err(layout("two columns are named ", name));
            }
        }
        let encode = |source| WriteError::Parquet {
            path: path.to_owned(),
            source,
        };
        let schema = schema(&columns, features).map_err(encode)?;
        let properties = properties(&columns, metadata).map_err(encode)?;
        let (file, place) = AtomicFile::create(path)?.into_parts();
        let writer = SerializedFileWriter::new(BufWriter::new(file), Arc::new(schema), Arc::new(properties))
            .map_err(encode)?;
        Ok(Self {
            writer,
            place,
            cells: columns.into_iter().map(Buffer::new).collect(),
            width: features.len(),
            features: Vec::new(),
            waiting: 0,
            group_rows: match features.len() {
                0 => PLAIN_GROUP_ROWS,
                width => (ROW_GROUP_BYTES / (4 * width)).clamp(1, ROW_GROUP_ROWS),
            },
            rows: 0,
        })
    }

    /// The name the file will have.
    pub fn path(&self) -> &Path {
        self.place.target()
    }

    /// Rows given so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends a row: one cell per column, one value per feature. A row that does not fit changes nothing.
    ///
    /// # Errors
    /// Another number of cells or features, a cell of another kind, a missing cell in a required column, or the
    /// disk refuses.
    pub fn push(&mut self, cells: &[Cell<'_>], features: &[f32]) -> Result<(), WriteError> {
        let row = self.rows + 1;
        let width = |what, expected, got| {
            let path = self.place.target().to_owned();
            Err(WriteError::Width {
                path,
                row,
                what,
                expected,
                got,
            })
        };
        if cells.len() != self.cells.len() {
            return width("columns", self.cells.len(), cells.len());
        }
        if features.len() != self.width {
            return width("features", self.width, features.len());
        }
        if let Some((buffer, cell)) = self.cells.iter().zip(cells).find(|(b, c)| !b.takes(**c)) {
            return Err(WriteError::Cell {
                path: self.place.target().to_owned(),
                row,
                column: buffer.column.name.clone(),
                expected: buffer.column.kind.name(),
                got: cell.name(),
            });
        }
        for (buffer, cell) in self.cells.iter_mut().zip(cells) {
            buffer.push(*cell);
        }
        self.features.extend_from_slice(features);
        self.rows = row;
        self.waiting += 1;
        if self.waiting >= self.group_rows {
            self.write_group().map_err(|source| self.encode(source))?;
        }
        Ok(())
    }

    /// Appends `rows` rows at once, column by column, to a table without features. What does not fit changes nothing.
    ///
    /// # Errors
    /// Another number of columns or cells, cells of another kind, a missing cell in a required column, a table that has
    /// features, or the disk refuses.
    pub fn append(&mut self, columns: &[Cells<'_>], rows: usize) -> Result<(), WriteError> {
        let width = |what, expected, got| {
            let path = self.place.target().to_owned();
            let row = self.rows + 1;
            Err(WriteError::Width {
                path,
                row,
                what,
                expected,
                got,
            })
        };
        if columns.len() != self.cells.len() {
            return width("columns", self.cells.len(), columns.len());
        }
        if self.width != 0 {
            return width("features", self.width, 0);
        }
        if let Some(got) = columns.iter().filter_map(Cells::len).find(|&n| n != rows) {
            return width("cells", rows, got);
        }
        for (buffer, cells) in self.cells.iter().zip(columns) {
            if let (Some((at, got)), true) = (buffer.refuses(*cells), rows > 0) {
                return Err(WriteError::Cell {
                    path: self.place.target().to_owned(),
                    row: self.rows + 1 + at as u64,
                    column: buffer.column.name.clone(),
                    expected: buffer.column.kind.name(),
                    got,
                });
            }
        }
        let mut start = 0;
        while start < rows {
            let end = rows.min(start + self.group_rows - self.waiting);
            for (buffer, cells) in self.cells.iter_mut().zip(columns) {
                buffer.extend(*cells, start..end);
            }
            self.waiting += end - start;
            self.rows += (end - start) as u64;
            start = end;
            if self.waiting >= self.group_rows {
                self.write_group().map_err(|source| self.encode(source))?;
            }
        }
        Ok(())
    }

    /// Completes the file and gives it its name; gives the number of rows. A table without rows is a valid file.
    ///
    /// # Errors
    /// The disk refuses; nothing is left behind.
    pub fn finish(mut self) -> Result<u64, WriteError> {
        if self.waiting > 0 {
            self.write_group().map_err(|source| self.encode(source))?;
        }
        let Self {
            writer, place, rows, ..
        } = self;
        let path = place.target().to_owned();
        let buffered = writer.into_inner().map_err(|source| WriteError::Parquet {
            path: path.clone(),
            source,
        })?;
        let file = buffered.into_inner().map_err(|error| WriteError::Io {
            path,
            action: "write",
            source: error.into_error(),
        })?;
        place.commit(&file)?;
        Ok(rows)
    }

    fn encode(&self, source: ParquetError) -> WriteError {
        WriteError::Parquet {
            path: self.place.target().to_owned(),
            source,
        }
    }

    /// Writes the waiting rows as one row group.
    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for buffer in &mut self.cells {
            buffer.write(&mut group)?;
        }
        let mut column = Vec::with_capacity(self.waiting);
        for feature in 0..self.width {
            column.clear();
            column.extend(self.features.iter().skip(feature).step_by(self.width));
            let Some(mut writer) = group.next_column()? else {
                return Err(ParquetError::General(format!("no room for feature {feature}")));
            };
            writer.typed::<FloatType>().write_batch(&column, None, None)?;
            writer.close()?;
        }
        group.close()?;
        self.features.clear();
        self.waiting = 0;
        if self.width == 0 {
            let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
            self.group_rows = (rows / PLAIN_GROUPS).clamp(PLAIN_GROUP_ROWS, ROW_GROUP_ROWS);
        }
        Ok(())
    }
}

fn schema(columns: &[Column], features: &[String]) -> Result<Type, ParquetError> {
    let mut fields = Vec::with_capacity(columns.len() + features.len());
    for column in columns {
        let (physical, logical) = match column.kind {
            ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnKind::Int64 => (Physical::INT64, None),
            ColumnKind::Float64 => (Physical::DOUBLE, None),
            ColumnKind::Float32 => (Physical::FLOAT, None),
        };
        let repetition = if column.optional {
            Repetition::OPTIONAL
        } else {
            Repetition::REQUIRED
        };
        fields.push(Arc::new(
            Type::primitive_type_builder(&column.name, physical)
                .with_repetition(repetition)
                .with_logical_type(logical)
                .build()?,
        ));
    }
    for name in features {
        fields.push(Arc::new(
            Type::primitive_type_builder(name, Physical::FLOAT)
                .with_repetition(Repetition::REQUIRED)
                .build()?,
        ));
    }
    Type::group_type_builder("schema").with_fields(fields).build()
}

fn properties(columns: &[Column], metadata: &[(String, String)]) -> Result<WriterProperties, ParquetError> {
    let pairs = metadata
        .iter()
        .map(|(key, value)| KeyValue {
            key: key.clone(),
            value: Some(value.clone()),
        })
        .collect();
    // The defaults are those of the feature columns: of 6,400 columns no reader asks for page statistics, and
    // the page index alone would outweigh small tables.
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None)
        .set_key_value_metadata(Some(pairs));
    for column in columns.iter().filter(|column| !column.kind.is_float()) {
        let path = ColumnPath::from(column.name.as_str());
        builder = builder
            .set_column_dictionary_enabled(path.clone(), true)
            .set_column_statistics_enabled(path, EnabledStatistics::Chunk);
    }
    Ok(builder.build())
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
