//! `activity.parquet`: how alike the wells of each treatment are, and how unlike its controls.
//!
//! Rows enter in the order the file should have, a whole file leaves; memory is one row group. The columns of replicate
//! retrieval have copairs' names. Fails as [`TableWriter`] does.

use std::path::Path;

use wellspring_workloads::compare::{Activity, Level};

use super::cells::{Cell, Column, ColumnKind};
use super::error::WriteError;
use super::parquet::{TableWriter, WrittenTable};
use super::tables::Provenance;

/// `activity.parquet` being written.
#[derive(Debug)]
pub struct ActivityTable {
    table: TableWriter,
    dose_unit: String,
}

impl ActivityTable {
    /// The file's name.
    pub const FILE: &'static str = "activity.parquet";

    /// Opens the table in folder `dir`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(dir: &Path, dose_unit: &str, provenance: &Provenance) -> Result<Self, WriteError> {
        use ColumnKind::{Float64, Int64, Text};
        let columns = vec![
            Column::required("level", Text),
            Column::optional("disease", Text),
            Column::optional("compound", Text),
            Column::optional("dose", Float64),
            Column::required("dose_unit", Text),
            Column::required("n_wells", Int64),
            Column::required("n_measured", Int64),
            Column::required("n_plates", Int64),
            Column::optional("mean_average_precision", Float64),
            Column::optional("mean_normalized_average_precision", Float64),
            Column::optional("p_value", Float64),
            Column::optional("corrected_p_value", Float64),
            Column::optional("below_p", Text),
            Column::optional("below_corrected_p", Text),
            Column::optional("median_replicate_correlation", Float64),
            Column::optional("replicates", Text),
            Column::optional("grit", Float64),
            Column::optional("consistency", Float64),
            Column::optional("consistency_p_value", Float64),
            Column::optional("magnitude", Float64),
            Column::optional("magnitude_p_value", Float64),
        ];
        Ok(Self {
            table: TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs())?,
            dose_unit: dose_unit.to_owned(),
        })
    }

    /// Appends a treatment.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, row: &Activity) -> Result<(), WriteError> {
        let count = |n: usize| Cell::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let truth = |value: Option<bool>| Cell::text(value.map(|value| if value { "true" } else { "false" }));
        let cells = [
            Cell::Text(match row.level {
                Level::Dose => "dose",
                Level::Compound => "compound",
            }),
            Cell::text(row.disease.as_deref()),
            Cell::text(row.compound.as_deref()),
            Cell::number(row.dose),
            Cell::Text(&self.dose_unit),
            count(row.n_wells),
            count(row.n_measured),
            count(row.n_plates),
            Cell::number(row.mean_average_precision),
            Cell::number(row.mean_normalized_average_precision),
            Cell::number(row.p_value),
            Cell::number(row.corrected_p_value),
            truth(row.below_p),
            truth(row.below_corrected_p),
            Cell::number(row.median_replicate_correlation),
            truth(row.replicates),
            Cell::number(row.grit),
            Cell::number(row.consistency),
            Cell::number(row.consistency_p_value),
            Cell::number(row.magnitude),
            Cell::number(row.magnitude_p_value),
        ];
        self.table.push(&cells, &[])
    }

    /// Completes the file, which gets its name later.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(self) -> Result<WrittenTable, WriteError> {
        self.table.close()
    }
}
