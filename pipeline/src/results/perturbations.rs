//! `perturbations.parquet`: the consensus profile of each treatment, for `wellspring relate` and `neighbours`, and for
//! pycytominer, copairs and EFAAR_benchmarking: `Metadata_*` columns are text, all others are features.
//!
//! Profiles enter in the order the file should have and wait on disk while plates pass, when memory is scarcest; a whole
//! file leaves in the end. Memory is one profile, then one row group and the footer. Fails as [`TableWriter`] does.

use std::path::Path;

use wellspring_workloads::compare::{Consensus, Perturbation};

use super::cells::{Cell, Column, ColumnKind};
use super::error::WriteError;
use super::parquet::{TableWriter, WrittenTable};
use super::tables::Provenance;
use crate::aside::AsideWriter;

/// `perturbations.parquet` being written.
#[derive(Debug)]
pub struct PerturbationTable {
    table: TableWriter,
    waiting: AsideWriter,
}

impl PerturbationTable {
    /// The file's name.
    pub const FILE: &'static str = "perturbations.parquet";

    /// Opens the table in folder `dir`. `features`: names of the columns; `consensus`: how wells were made one.
    ///
    /// # Errors
    /// The file cannot be created, or two features have one name.
    pub fn create(
        dir: &Path,
        features: &[String],
        consensus: Consensus,
        provenance: &Provenance,
    ) -> Result<Self, WriteError> {
        let required = |name: &str| Column::required(name, ColumnKind::Text);
        let optional = |name: &str| Column::optional(name, ColumnKind::Text);
        let columns = vec![
            optional("Metadata_disease"),
            optional("Metadata_compound"),
            optional("Metadata_dose"),
            required("Metadata_role"),
            required("Metadata_n_wells"),
            required("Metadata_n_plates"),
        ];
        let mut pairs = provenance.pairs();
        let word = match consensus {
            Consensus::Mean => "mean",
            Consensus::Median => "median",
            Consensus::Modz => "modz",
        };
        pairs.push(("wellspring.consensus".to_owned(), word.to_owned()));
        Ok(Self {
            table: TableWriter::create(&dir.join(Self::FILE), columns, features, &pairs)?,
            waiting: AsideWriter::create(dir)?,
        })
    }

    /// Appends a treatment.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, profile: &Perturbation) -> Result<(), WriteError> {
        Ok(self.waiting.push(profile)?)
    }

    fn write(table: &mut TableWriter, profile: &Perturbation) -> Result<(), WriteError> {
        let dose = profile.dose.map(|dose| dose.to_string());
        let (wells, plates) = (profile.n_wells.to_string(), profile.n_plates.to_string());
        let cells = [
            Cell::text(profile.disease.as_deref()),
            Cell::text(profile.compound.as_deref()),
            Cell::text(dose.as_deref()),
            Cell::Text("treated"),
            Cell::Text(&wells),
            Cell::Text(&plates),
        ];
        table.push(&cells, &profile.values)
    }

    /// Completes the file, which gets its name later.
    ///
    /// # Errors
    /// A profile has another number of features, or the disk refuses.
    pub fn close(self) -> Result<WrittenTable, WriteError> {
        let Self { mut table, waiting } = self;
        let mut profiles = waiting.finish()?;
        while let Some(profile) = profiles.take()? {
            Self::write(&mut table, &profile)?;
        }
        table.close()
    }
}
