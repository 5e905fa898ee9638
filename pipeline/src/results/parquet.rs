//! One Parquet table, written in flat memory.
//!
//! Rows enter one by one: a few typed cells and, where the table has them, a block of `f32` features. A whole file
//! leaves: zstd level 3, row groups written column by column, whose features wait on disk so that memory is the same
//! whatever the number of rows, no dictionary and no statistics for float columns, no time and no host in the file, so the same rows
//! give the same bytes. Fails where a row does not fit the columns or the disk refuses.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::FloatType;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type};

use super::atomic::{AtomicFile, PartialPath, folder_of};
use super::cells::{Buffer, Cell, Cells, Column, ColumnKind};
use super::error::WriteError;
use super::features::Features;

/// Bytes of features in a row group. The footer, which stays in memory until the end, takes 400 bytes for each of its
/// columns: a million rows of 400 features make 4 MB of it.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Fewest rows of a row group with features: the footer of 6,400 columns stays small beside the data.
const FEWEST_GROUP_ROWS: usize = 512;
/// Most rows of a row group with features, for tables with few of them.
const ROW_GROUP_ROWS: usize = 64 << 10;
/// Fewest rows of a row group without features: several tables are written at once, and a row of theirs takes up to half
/// a kilobyte.
const PLAIN_GROUP_ROWS: usize = 8 << 10;
/// A row group without features has so many times fewer rows than the table before it: the footer of a table of any
/// length stays small.
const PLAIN_GROUPS: usize = 128;
/// zstd's own default: features are noise in their low bits, a higher level costs time and gains little.
const ZSTD_LEVEL: i32 = 3;
/// Written as the author of every file; no time, no host.
const CREATED_BY: &str = concat!("wellspring version ", env!("CARGO_PKG_VERSION"));

/// A table being written. Dropped before [`finish`](TableWriter::finish) it leaves nothing behind.
pub struct TableWriter {
    writer: SerializedFileWriter<BufWriter<File>>,
    place: PartialPath,
    cells: Vec<Buffer>,
    features: Features,
    waiting: usize,
    group_rows: usize,
    rows: u64,
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("path", &self.place.target())
            .field("columns", &self.cells.len())
            .field("features", &self.features.width())
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
            features: Features::new(features.len(), folder_of(path)),
            waiting: 0,
            group_rows: match features.len() {
                0 => PLAIN_GROUP_ROWS,
                width => (ROW_GROUP_BYTES / (4 * width)).clamp(FEWEST_GROUP_ROWS, ROW_GROUP_ROWS),
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
        if cells.len() != self.cells.len() {
            return self.wrong_width("columns", self.cells.len(), cells.len());
        }
        if features.len() != self.features.width() {
            return self.wrong_width("features", self.features.width(), features.len());
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
        self.features.push(features)?;
        self.rows = row;
        self.waiting += 1;
        if self.waiting >= self.group_rows {
            self.write_group()?;
        }
        Ok(())
    }

    /// Appends `rows` rows at once, column by column, to a table without features. What does not fit changes nothing.
    ///
    /// # Errors
    /// Another number of columns or cells, cells of another kind, a missing cell in a required column, a table that has
    /// features, or the disk refuses.
    pub fn append(&mut self, columns: &[Cells<'_>], rows: usize) -> Result<(), WriteError> {
        if columns.len() != self.cells.len() {
            return self.wrong_width("columns", self.cells.len(), columns.len());
        }
        if self.features.width() != 0 {
            return self.wrong_width("features", self.features.width(), 0);
        }
        if let Some(got) = columns.iter().filter_map(Cells::len).find(|&n| n != rows) {
            return self.wrong_width("cells", rows, got);
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
                self.write_group()?;
            }
        }
        Ok(())
    }

    /// Completes the file and gives it its name; gives the number of rows. A table without rows is a valid file.
    ///
    /// # Errors
    /// The disk refuses; nothing is left behind.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.close()?.commit()
    }

    /// Completes the file, which is not seen under its name yet; nothing of it is held in memory.
    ///
    /// # Errors
    /// The disk refuses; nothing is left behind.
    pub fn close(mut self) -> Result<WrittenTable, WriteError> {
        if self.waiting > 0 {
            self.write_group()?;
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
        Ok(WrittenTable { file, place, rows })
    }

    /// The next row has too many or too few of something.
    fn wrong_width(&self, what: &'static str, expected: usize, got: usize) -> Result<(), WriteError> {
        Err(WriteError::Width {
            path: self.place.target().to_owned(),
            row: self.rows + 1,
            what,
            expected,
            got,
        })
    }

    /// Writes the waiting rows as one row group.
    fn write_group(&mut self) -> Result<(), WriteError> {
        let path = self.place.target();
        let encode = |source| WriteError::Parquet {
            path: path.to_owned(),
            source,
        };
        let mut group = self.writer.next_row_group().map_err(encode)?;
        for buffer in &mut self.cells {
            buffer.write(&mut group).map_err(encode)?;
        }
        let mut column = Vec::with_capacity(self.waiting);
        for feature in 0..self.features.width() {
            self.features.column(feature, &mut column)?;
            write_column(&mut group, &column).map_err(encode)?;
        }
        group.close().map_err(encode)?;
        self.features.clear();
        self.waiting = 0;
        if self.features.width() == 0 {
            let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
            self.group_rows = (rows / PLAIN_GROUPS).clamp(PLAIN_GROUP_ROWS, ROW_GROUP_ROWS);
        }
        Ok(())
    }
}

/// A complete table that waits for its name. Dropped before [`commit`](WrittenTable::commit) it leaves nothing behind.
#[derive(Debug)]
pub struct WrittenTable {
    file: File,
    place: PartialPath,
    rows: u64,
}

impl WrittenTable {
    /// Gives the file its name; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn commit(self) -> Result<u64, WriteError> {
        self.place.commit(&self.file)?;
        Ok(self.rows)
    }
}

fn write_column(
    group: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    values: &[f32],
) -> Result<(), ParquetError> {
    let Some(mut writer) = group.next_column()? else {
        return Err(ParquetError::General("no room for a feature".to_owned()));
    };
    writer.typed::<FloatType>().write_batch(values, None, None)?;
    writer.close()
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
