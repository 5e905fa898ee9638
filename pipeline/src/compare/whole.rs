//! The tables of whole profiles: disease signatures, replicates, consensus, residuals on cell count.
//!
//! Plates in the space of the comparison, consensus profiles and measured treatments enter as they are found;
//! `signatures.parquet`, `perturbations.parquet`, `activity.parquet` and `residuals.parquet` leave, each where it has a row. Memory: what the
//! signatures need, and a row group of each table. Fails where the disk refuses or plates contradict each other.

use std::path::{Path, PathBuf};

use wellspring_workloads::compare::{
    Activity, ComparisonSettings, CompoundSummary, Design, Level, Note, Perturbation, PlateRows,
};
use wellspring_workloads::signature::Specificity;

use super::residuals::Residuals;
use super::signatures::{Matrix, MatrixError, ShownMatrix, Signatures};
use crate::memory;
use crate::results::{
    ActivityTable, PerturbationTable, Provenance, ResidualTable, SignatureTable, WriteError, WrittenTable,
    remove_earlier,
};

/// Columns of an aligned space.
const ALIGNED: &str = "aligned";

/// How many compounds at a dose replicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicateCounts {
    /// Compounds at a dose.
    pub treatments: u64,
    /// Those whose wells were looked for among the controls.
    pub retrieved: u64,
    /// Of these, those that are found (corrected p of the mean average precision).
    pub active: u64,
    /// Those whose wells were correlated.
    pub correlated: u64,
    /// Of these, those that replicate.
    pub replicating: u64,
}

/// The tables of whole profiles, being written.
#[derive(Debug)]
pub(super) struct WholeProfiles {
    out: PathBuf,
    provenance: Provenance,
    settings: ComparisonSettings,
    features: Vec<String>,
    aligned: bool,
    /// Until all plates are there.
    signatures: Option<Signatures>,
    /// Where the screen asks for them, until all plates are there.
    residuals: Option<Residuals>,
    specificity: Option<Specificity>,
    /// What the report shows of the matrix.
    matrix: Option<ShownMatrix>,
    activity: Option<ActivityTable>,
    perturbations: Option<PerturbationTable>,
    /// Tables that are complete.
    written: Vec<WrittenTable>,
    counts: ReplicateCounts,
}

impl WholeProfiles {
    /// Nothing found yet. What an earlier comparison left in `out` is removed: it need not come again.
    pub(super) fn new(
        design: &Design,
        settings: &ComparisonSettings,
        features: &[String],
        provenance: &Provenance,
        out: &Path,
    ) -> Result<Self, MatrixError> {
        for file in [
            SignatureTable::FILE,
            ActivityTable::FILE,
            PerturbationTable::FILE,
            ResidualTable::FILE,
        ] {
            remove_earlier(&out.join(file))?;
        }
        Ok(Self {
            signatures: Some(Signatures::new(design, settings, out)?),
            residuals: settings.cell_count_residuals.then(Residuals::default),
            out: out.to_owned(),
            provenance: provenance.clone(),
            settings: settings.clone(),
            features: features.to_vec(),
            aligned: false,
            specificity: None,
            matrix: None,
            activity: None,
            perturbations: None,
            written: Vec::new(),
            counts: ReplicateCounts::default(),
        })
    }

    /// Takes a plate.
    pub(super) fn plate(&mut self, plate: &PlateRows<'_>) -> Result<(), MatrixError> {
        self.aligned |= plate.aligned;
        if let Some(residuals) = &mut self.residuals {
            let columns = |width| columns(&self.features, self.aligned, width);
            residuals.plate(plate, columns, &self.provenance, &self.out)?;
        }
        match &mut self.signatures {
            Some(signatures) => signatures.plate(plate),
            None => Ok(()),
        }
    }

    /// Takes the consensus profile of a treatment, whose wells are then complete.
    pub(super) fn perturbation(&mut self, profile: &Perturbation) -> Result<(), MatrixError> {
        if let Some(signatures) = &mut self.signatures {
            signatures.settle(profile.compound.as_deref(), profile.dose)?;
        }
        let table = match &mut self.perturbations {
            Some(table) => table,
            None => {
                let names = columns(&self.features, self.aligned, profile.values.len());
                let table =
                    PerturbationTable::create(&self.out, &names, self.settings.consensus, &self.provenance)?;
                self.perturbations.insert(table)
            }
        };
        Ok(table.push(profile)?)
    }

    /// Takes a measured treatment.
    pub(super) fn activity(&mut self, row: &Activity) -> Result<(), WriteError> {
        if row.level == Level::Dose {
            let counts = &mut self.counts;
            counts.treatments += 1;
            counts.retrieved += u64::from(row.corrected_p_value.is_some());
            counts.active += u64::from(row.below_corrected_p == Some(true));
            counts.correlated += u64::from(row.replicates.is_some());
            counts.replicating += u64::from(row.replicates == Some(true));
        }
        let table = match &mut self.activity {
            Some(table) => table,
            None => {
                let table = ActivityTable::create(&self.out, &self.settings.dose_unit, &self.provenance)?;
                self.activity.insert(table)
            }
        };
        table.push(row)
    }

    /// Compares with the disease signatures, once: call it when all plates are there. Gives what a reader must know.
    pub(super) fn complete_matrix(&mut self) -> Result<Vec<Note>, MatrixError> {
        let Some(signatures) = self.signatures.take() else {
            return Ok(Vec::new());
        };
        // What they hold is not held beside what the matrix does.
        self.close()?;
        let mut told = Vec::new();
        if let Some(residuals) = self.residuals.take() {
            let (table, notes) = residuals.close()?;
            self.written.extend(table);
            told.extend(notes);
        }
        memory::give_back_free();
        let Matrix {
            specificity,
            shown,
            notes,
        } = signatures.write(&self.out, &self.provenance)?;
        (self.specificity, self.matrix) = (specificity, shown);
        memory::give_back_free();
        told.extend(notes);
        Ok(told)
    }

    /// How specific a compound is at its best dose, over all signatures.
    pub(super) fn specificity(&self, summary: &CompoundSummary) -> Option<f64> {
        let (disease, compound) = (summary.disease.as_deref(), summary.compound.as_deref());
        self.specificity
            .as_ref()?
            .of(disease, compound, summary.best_dose)
    }

    /// Completes the tables of which no more rows come.
    fn close(&mut self) -> Result<(), WriteError> {
        let activity = self.activity.take().map(ActivityTable::close);
        let perturbations = self.perturbations.take().map(PerturbationTable::close);
        for table in [activity, perturbations].into_iter().flatten() {
            self.written.push(table?);
        }
        Ok(())
    }

    /// Completes the tables and gives them their names; gives what the report shows of them.
    pub(super) fn finish(mut self) -> Result<(ReplicateCounts, Option<ShownMatrix>), WriteError> {
        self.close()?;
        for table in self.written {
            table.commit()?;
        }
        Ok((self.counts, self.matrix))
    }
}

/// Names of the columns of the space that wells are compared in.
fn columns(features: &[String], aligned: bool, width: usize) -> Vec<String> {
    if aligned || width != features.len() {
        crate::results::feature_names(ALIGNED, width)
    } else {
        features.to_vec()
    }
}
