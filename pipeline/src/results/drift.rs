//! `drift.parquet`: one row per plate and statistic of the watch over control wells.
//!
//! Plates enter in the order they were judged in. A plate without statistics (one of the reference, or with too few
//! controls) has one row that says its level. Fails as [`TableWriter`] does.

use std::path::Path;

use wellspring_workloads::monitor::{DriftReport, PlateDrift};

use super::cells::{Cell, Column, ColumnKind};
use super::error::WriteError;
use super::parquet::TableWriter;
use super::tables::Provenance;

/// `drift.parquet`.
#[derive(Debug)]
pub struct DriftTable {
    table: TableWriter,
    reference_plates: String,
    reference_sha256: String,
    model_sha256: String,
}

impl DriftTable {
    /// The file's name.
    pub const FILE: &'static str = "drift.parquet";

    /// Opens the table in folder `dir`. Every row names what it was judged by: the report's reference plates, their
    /// hash and the model's.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(dir: &Path, provenance: &Provenance, report: &DriftReport) -> Result<Self, WriteError> {
        use ColumnKind::{Float64, Int64, Text};
        let columns = vec![
            Column::required("Metadata_Plate", Text),
            Column::optional("Metadata_Well", Text),
            Column::required("level", Text),
            Column::required("quarantined", Text),
            Column::required("n_controls", Int64),
            Column::optional("detector", Text),
            Column::optional("quantity", Text),
            Column::optional("statistic", Float64),
            Column::optional("limit", Float64),
            Column::optional("p_value", Float64),
            Column::optional("q_value", Float64),
            Column::optional("severity", Text),
            Column::required("reference_plates", Text),
            Column::required("reference_sha256", Text),
            Column::required("model_sha256", Text),
        ];
        let names: Vec<&str> = report
            .reference_plates
            .iter()
            .map(|plate| plate.as_str())
            .collect();
        Ok(Self {
            table: TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs())?,
            reference_plates: names.join(";"),
            reference_sha256: report.reference_sha256.clone(),
            model_sha256: report.model_sha256.clone(),
        })
    }

    /// Appends a plate.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, plate: &PlateDrift, quarantined: bool) -> Result<(), WriteError> {
        let controls = i64::try_from(plate.controls).unwrap_or(i64::MAX);
        let (before, after) = (
            [
                Cell::Text(plate.level.as_str()),
                Cell::Text(if quarantined { "true" } else { "false" }),
                Cell::Int(controls),
            ],
            [
                Cell::Text(&self.reference_plates),
                Cell::Text(&self.reference_sha256),
                Cell::Text(&self.model_sha256),
            ],
        );
        let name = Cell::Text(plate.plate.as_str());
        if plate.rows.is_empty() {
            let cells: Vec<Cell<'_>> = [name, Cell::Missing]
                .into_iter()
                .chain(before)
                .chain([Cell::Missing; 7])
                .chain(after)
                .collect();
            return self.table.push(&cells, &[]);
        }
        for row in &plate.rows {
            let well = row.well.map(|well| well.to_string());
            let cells: Vec<Cell<'_>> = [name, Cell::text(well.as_deref())]
                .into_iter()
                .chain(before)
                .chain([
                    Cell::Text(row.detector.as_str()),
                    Cell::text(row.quantity.as_deref()),
                    Cell::Number(row.statistic),
                    Cell::Number(row.limit),
                    Cell::number(row.p_value),
                    Cell::number(row.q_value),
                    Cell::Text(row.severity.as_str()),
                ])
                .chain(after)
                .collect();
            self.table.push(&cells, &[])?;
        }
        Ok(())
    }

    /// Completes the file; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.table.finish()
    }
}
