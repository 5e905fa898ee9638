//! Tables made by us or by others, for `wellspring compare`: profiles with their metadata, or metadata alone.
//!
//! Paths of Parquet, CSV, TSV or gzipped CSV files enter; [`Block`]s of rows leave, metadata as text column by column
//! and features as `f32` row after row, in memory of one block whatever the file's length and its row groups. What a
//! file is, is told by its first bytes. Fails with file, row and column where there is no feature column, a feature
//! is not a number, or the file is damaged.

mod columns;
mod delimited;
mod foreign;
mod parquet;
mod pread;
mod roles;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::ReadError;
use columns::Columns;
pub use columns::FeatureColumns;
use foreign::{Foreign, foreign};
pub use roles::{PlaceError, Role, RoleNames, Roles, RowPlace};

/// Rows of a table that follow each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// The first row, counted from 1, without the header.
    pub first_row: u64,
    /// Number of rows.
    pub rows: usize,
    /// For each metadata column asked for, in that order, one text per row; `None` where the cell is empty. Words such
    /// as `NA` are left as they are.
    pub metadata: Vec<Vec<Option<String>>>,
    /// `rows` times the number of features, row after row. A missing cell is NaN: it is the caller's to leave the row
    /// out and say so.
    pub values: Vec<f32>,
}

enum Source {
    Parquet(parquet::Table),
    Delimited(delimited::Table),
}

/// A table that was opened and whose columns are known.
pub struct ProfileFile {
    path: PathBuf,
    columns: Columns,
    source: Source,
}

impl std::fmt::Debug for ProfileFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileFile")
            .field("path", &self.path)
            .field("features", &self.columns.features.len())
            .finish_non_exhaustive()
    }
}

impl ProfileFile {
    /// Opens a table and sorts its columns. Columns named in `reserved` are never features.
    ///
    /// # Errors
    /// The file cannot be read, is neither Parquet nor CSV (of other formats that people have profiles in it is said which), has two columns of one name, or no feature column where
    /// features are wanted.
    pub fn open(path: &Path, features: &FeatureColumns, reserved: &[String]) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let mut magic = Vec::with_capacity(foreign::TELLING);
        File::open(path)
            .map_err(io)?
            .take(foreign::TELLING as u64)
            .read_to_end(&mut magic)
            .map_err(io)?;
        let (columns, source) = if magic.starts_with(b"PAR1") {
            let (columns, table) = parquet::Table::open(path, features, reserved)?;
            (columns, Source::Parquet(table))
        } else if let Some(Foreign { format, advice }) = foreign(&magic) {
            let path = path.to_owned();
            return Err(ReadError::NotATable { path, format, advice });
        } else {
            let gzipped = magic.starts_with(&[0x1f, 0x8b]);
            let (columns, table) = delimited::Table::open(path, gzipped, features, reserved)?;
            (columns, Source::Delimited(table))
        };
        Ok(Self {
            path: path.to_owned(),
            columns,
            source,
        })
    }

    /// The names of the feature columns.
    pub fn features(&self) -> &[String] {
        &self.columns.features
    }

    /// Reads these features only, in this order. Gives a name that the table does not have, where there is one.
    pub fn keep_features<'n>(&mut self, names: &'n [String]) -> Option<&'n str> {
        self.columns.keep(names)
    }

    /// The names of all other columns that hold one cell per row.
    pub fn metadata(&self) -> &[String] {
        &self.columns.metadata
    }

    /// What the file says under `key` about itself; only Parquet files say anything.
    pub fn key_value(&self, key: &str) -> Option<&str> {
        match &self.source {
            Source::Parquet(table) => table.key_value(key),
            Source::Delimited(_) => None,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the rows with these metadata columns, given by their places in [`ProfileFile::metadata`]; others are
    /// not decoded.
    pub fn blocks(self, metadata: &[usize]) -> Blocks {
        let wanted: Vec<usize> = metadata.iter().map(|i| self.columns.metadata_at[*i]).collect();
        let rows = match self.source {
            Source::Parquet(table) => Rows::Parquet(parquet::Rows::new(table, self.columns, wanted)),
            Source::Delimited(table) => {
                Rows::Delimited(Box::new(delimited::Rows::new(table, self.columns, wanted)))
            }
        };
        Blocks { rows, next_row: 1 }
    }
}

enum Rows {
    Parquet(parquet::Rows),
    Delimited(Box<delimited::Rows>),
}

/// The rows of a table, block after block. After an error it ends.
pub struct Blocks {
    rows: Rows,
    next_row: u64,
}

impl Iterator for Blocks {
    type Item = Result<Block, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = match &mut self.rows {
            Rows::Parquet(rows) => rows.next(),
            Rows::Delimited(rows) => rows.next(self.next_row),
        };
        block.map(|block| {
            block.map(|mut block| {
                block.first_row = self.next_row;
                self.next_row += block.rows as u64;
                block
            })
        })
    }
}

/// The text of a cell, or nothing where it is empty. `NA` and its like stay: only the reader of a column knows whether
/// they are a name there.
fn filled(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
