//! The rows of one plate, as they wait for its turn.

use serde::{Deserialize, Serialize};
use wellspring_workloads::words::WellPosition;

/// One row of features: a field or a well; the fields of tables of cells are made by averaging their cells.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::cli::compare) struct Row {
    pub(in crate::cli::compare) well: WellPosition,
    /// Hash of the field's name; 0 where the table has no fields.
    pub(super) site: u32,
    /// What says how the well was treated, as a place in [`PlateRows::labels`].
    pub(in crate::cli::compare) label: u32,
    /// Place in the scratch file of features.
    pub(super) record: u64,
    /// Row of its table and the table; only for messages.
    pub(super) row: u64,
    pub(super) file: u16,
    /// Whether quality control passed.
    pub(in crate::cli::compare) passed: bool,
    pub(super) finite: bool,
    /// Fields the row stands for.
    pub(in crate::cli::compare) fields: u16,
    /// Cells averaged here; 0 where the row is no average of ours.
    pub(super) averaged: u32,
    /// Cells it stands for, where they were counted.
    pub(in crate::cli::compare) cells: Option<f32>,
}

/// Cells of the label columns.
pub(in crate::cli::compare) type Label = Vec<Option<String>>;

/// What a cell says its well was given, where the first cell of its field says something else.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Other {
    pub(super) well: WellPosition,
    /// As in [`Row::label`].
    pub(super) label: u32,
    pub(super) row: u64,
    pub(super) file: u16,
}

/// Rows of one plate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::cli::compare) struct PlateRows {
    /// By well, then in the order of reading.
    pub(in crate::cli::compare) rows: Vec<Row>,
    pub(in crate::cli::compare) labels: Vec<Label>,
    pub(super) others: Vec<Other>,
    /// Wells with rows in the tables, those whose rows cannot be used too; in order.
    #[serde(skip)]
    pub(in crate::cli::compare) wells: Vec<WellPosition>,
}
