//! `residuals.parquet`: the profiles of wells without what follows the number of their cells, for a comparison beside the
//! one that was made.
//!
//! Wells enter in the order the file should have, a whole file leaves; memory is that of a row group. Fails as
//! [`TableWriter`] does.

use std::path::Path;

use wellspring_workloads::profile::WellProfile;

use super::cells::{Cell, Column, ColumnKind};
use super::error::WriteError;
use super::parquet::{TableWriter, WrittenTable};
use super::tables::{Provenance, Words, treatment_columns};

/// `residuals.parquet` being written.
#[derive(Debug)]
pub struct ResidualTable(TableWriter);

impl ResidualTable {
    /// The file's name.
    pub const FILE: &'static str = "residuals.parquet";

    /// Opens the table in folder `dir`: columns `features` after place, treatment and cells.
    ///
    /// # Errors
    /// The file cannot be created, or two features have one name.
    pub fn create(dir: &Path, features: &[String], provenance: &Provenance) -> Result<Self, WriteError> {
        let required = |name: &str| Column::required(name, ColumnKind::Text);
        let mut columns = vec![required("Metadata_Plate"), required("Metadata_Well")];
        columns.extend(treatment_columns());
        // Text, as every column that tools must not take for a feature.
        columns.push(required("Metadata_Object_Count"));
        TableWriter::create(&dir.join(Self::FILE), columns, features, &provenance.pairs()).map(Self)
    }

    /// Appends a well: what it was given, its cells, and the residuals of its features.
    ///
    /// # Errors
    /// Another number of values than features, or the disk refuses.
    pub fn push(&mut self, well: &WellProfile, cells: f64, values: &[f32]) -> Result<(), WriteError> {
        let words = Words::new(&well.plate, well.well, &well.treatment);
        let [compound, dose, disease, role, number] = words.treatment_cells();
        let count = cells.to_string();
        let cells = [
            Cell::Text(words.plate),
            Cell::Text(&words.well),
            compound,
            dose,
            disease,
            role,
            number,
            Cell::Text(&count),
        ];
        self.0.push(&cells, values)
    }

    /// Completes the file, which gets its name later.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(self) -> Result<WrittenTable, WriteError> {
        self.0.close()
    }
}
