//! What can go wrong when results are written or read back. Every message names the file.

use std::path::PathBuf;

/// A result file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, such as `create` or `rename into place`.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The Parquet encoder refused.
    #[error("cannot encode {}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The encoder's reason.
        source: parquet::errors::ParquetError,
    },
    /// A record could not be turned into JSON.
    #[error("cannot encode a record for {}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The encoder's reason.
        source: serde_json::Error,
    },
    /// Rows cannot wait on disk until they are written.
    #[error(transparent)]
    Aside(#[from] crate::scratch::ScratchError),
    /// A table without columns, or two columns of one name.
    #[error("{} cannot be laid out: {problem}{column}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
        /// The column it concerns, or empty.
        column: String,
    },
    /// A row does not have the table's number of cells.
    #[error(
        "row {row} of {} has {got} {what}, the table has {expected}: every row must come from the same screen and \
         model",
        path.display()
    )]
    Width {
        /// The file.
        path: PathBuf,
        /// Row, counted from 1.
        row: u64,
        /// `columns` or `features`.
        what: &'static str,
        /// What the table was created with.
        expected: usize,
        /// What the row brought.
        got: usize,
    },
    /// A cell is of another kind than its column, or missing where the column must be filled.
    #[error("row {row}, column {column} of {}: expected {expected}, got {got}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Row, counted from 1.
        row: u64,
        /// The column.
        column: String,
        /// The kind of the column.
        expected: &'static str,
        /// The kind of the cell.
        got: &'static str,
    },
}

/// A profile table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not a Parquet file that can be decoded.
    #[error("cannot decode {} as Parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        source: parquet::errors::ParquetError,
    },
    /// Not a CSV file: a row with another number of cells, or text that is not UTF-8.
    #[error("cannot decode {} as CSV: {source}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The decoder's reason; it names the line.
        source: csv::Error,
    },
    /// No column holds features.
    #[error(
        "{} has no feature column matching {wanted}; its columns begin {found}. Name them with a prefix or a \
         pattern such as 'efficientnet-lite0_*'",
        path.display()
    )]
    NoFeatures {
        /// The file.
        path: PathBuf,
        /// The prefix or pattern asked for.
        wanted: String,
        /// The first columns of the file.
        found: String,
    },
    /// A file of another kind.
    #[error("{} is {format}, and tables are Parquet, CSV or TSV, gzipped or not: {advice}", path.display())]
    NotATable {
        /// The file.
        path: PathBuf,
        /// What it is.
        format: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Two columns have one name.
    #[error("{} has two columns named {column}", path.display())]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The name.
        column: String,
    },
    /// A feature column holds lists, text or another kind without a number per row.
    #[error(
        "column {column} of {} holds {found}, not one number per row: write one column per feature",
        path.display()
    )]
    FeatureKind {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What it holds.
        found: String,
    },
    /// A feature cell is not a number.
    #[error("row {row}, column {column} of {}: '{text}' is not a number", path.display())]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// Row, counted from 1, without the header.
        row: u64,
        /// The column.
        column: String,
        /// The cell, cut to 60 characters.
        text: String,
    },
}
