//! Profile tables made by us or by others, for `wellspring compare --features`.
//!
//! Paths of Parquet, CSV, TSV or gzipped CSV files enter; wells with metadata as text and features as `f32` leave,
//! streamed file by file. What a file is, is told by its first bytes. Fails with file, row and column where there is
//! no well column, no feature column, a feature that is not a number, or files whose features differ.

mod columns;
mod delimited;
mod parquet;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use wellspring_workloads::words::WellPosition;

use super::error::ReadError;
use columns::Columns;
pub use columns::FeatureColumns;

/// One row of a profile table.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRow {
    /// Row of its file, counted from 1, without the header.
    pub row: u64,
    /// The plate; `None` where the file has no plate column or the cell is empty.
    pub plate: Option<String>,
    /// The well.
    pub well: WellPosition,
    /// Every column that is no feature, as text under its own name; missing cells are left out.
    pub metadata: BTreeMap<String, String>,
    /// The features, in the order of [`ProfileFile::features`]. A missing cell is NaN: it is the caller's to leave
    /// the row out and say so.
    pub values: Vec<f32>,
}

enum Source {
    Parquet(parquet::Rows),
    Delimited(delimited::Rows),
}

/// A profile table being read; an iterator over its rows. Memory is one row group, or one line of text.
pub struct ProfileFile {
    path: PathBuf,
    features: Vec<String>,
    source: Source,
}

impl std::fmt::Debug for ProfileFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileFile")
            .field("path", &self.path)
            .field("features", &self.features.len())
            .finish_non_exhaustive()
    }
}

impl ProfileFile {
    /// Opens a table and finds its columns.
    ///
    /// # Errors
    /// The file cannot be read, is neither Parquet nor CSV, or has no well or no feature column.
    pub fn open(path: &Path, features: &FeatureColumns) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let mut magic = Vec::with_capacity(4);
        File::open(path)
            .map_err(io)?
            .take(4)
            .read_to_end(&mut magic)
            .map_err(io)?;
        let (names, source) = if magic == b"PAR1" {
            let (names, rows) = parquet::Rows::open(path, features)?;
            (names, Source::Parquet(rows))
        } else {
            let gzipped = magic.starts_with(&[0x1f, 0x8b]);
            let (names, rows) = delimited::Rows::open(path, gzipped, features)?;
            (names, Source::Delimited(rows))
        };
        Ok(Self {
            path: path.to_owned(),
            features: names,
            source,
        })
    }

    /// The names of the feature columns.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Iterator for ProfileFile {
    type Item = Result<ProfileRow, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Parquet(rows) => rows.next(),
            Source::Delimited(rows) => rows.next(),
        }
    }
}

/// The rows of several tables with the same features.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileSet {
    /// The names of the feature columns.
    pub features: Vec<String>,
    /// All rows, file after file.
    pub rows: Vec<ProfileRow>,
}

/// Reads tables that belong together. Without files, an empty set.
///
/// # Errors
/// As [`ProfileFile::open`] and its rows, and files whose feature columns differ in number, name or order.
pub fn read_profiles(paths: &[PathBuf], features: &FeatureColumns) -> Result<ProfileSet, ReadError> {
    let mut set = ProfileSet {
        features: Vec::new(),
        rows: Vec::new(),
    };
    for (i, path) in paths.iter().enumerate() {
        let file = ProfileFile::open(path, features)?;
        if i == 0 {
            set.features = file.features.clone();
        } else if file.features != set.features {
            let difference = set
                .features
                .iter()
                .zip(&file.features)
                .find(|(a, b)| a != b)
                .map(|(a, b)| format!(" ({b} where the first file has {a})"))
                .unwrap_or_default();
            return Err(ReadError::Widths {
                path: path.clone(),
                first: paths[0].clone(),
                expected: set.features.len(),
                got: file.features.len(),
                difference,
            });
        }
        for row in file {
            set.rows.push(row?);
        }
    }
    Ok(set)
}

/// Builds a row from its cells; used by both formats.
struct RowBuilder {
    path: PathBuf,
    columns: Columns,
}

impl RowBuilder {
    fn build(
        &self,
        row: u64,
        metadata: BTreeMap<String, String>,
        values: Vec<f32>,
    ) -> Result<ProfileRow, ReadError> {
        let column = &self.columns.well;
        let text = metadata.get(column).map(String::as_str).unwrap_or_default();
        let well = text.parse().map_err(|source| ReadError::Well {
            path: self.path.clone(),
            row,
            column: column.clone(),
            source,
        })?;
        let plate = self
            .columns
            .plate
            .as_ref()
            .and_then(|plate| metadata.get(plate))
            .cloned();
        Ok(ProfileRow {
            row,
            plate,
            well,
            metadata,
            values,
        })
    }
}

#[cfg(test)]
mod tests;
