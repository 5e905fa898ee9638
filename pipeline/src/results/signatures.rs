//! `signatures.parquet`: every compound at every dose against every disease signature of the screen.
//!
//! The effects of the screen enter once, one column of scores per disease follows; a whole file leaves, disease after
//! disease. Rows are appended column by column and their texts are kept once: a screen of 10,000 compounds at 4 doses and
//! 500 diseases has 20 million of them. Memory is one row group. Fails as [`TableWriter`] does.

use std::path::Path;

use wellspring_workloads::signature::{Origin, SignatureColumn, SignatureScreen};

use super::cells::{Cells, Column, ColumnKind, SharedText};
use super::error::WriteError;
use super::parquet::TableWriter;
use super::tables::Provenance;

/// `signatures.parquet` being written.
#[derive(Debug)]
pub struct SignatureTable {
    table: TableWriter,
    dose_unit: SharedText,
    diseases: Vec<Option<SharedText>>,
    compounds: Vec<Option<SharedText>>,
    tested_on: Vec<Option<SharedText>>,
    cells: Vec<Option<SharedText>>,
    doses: Vec<f64>,
    wells: Vec<i64>,
    plates: Vec<i64>,
}

impl SignatureTable {
    /// The file's name.
    pub const FILE: &'static str = "signatures.parquet";

    /// Opens the table of `screen` in folder `dir`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create<S>(
        dir: &Path,
        screen: &SignatureScreen<S>,
        dose_unit: &str,
        provenance: &Provenance,
    ) -> Result<Self, WriteError> {
        use ColumnKind::{Float32, Float64, Int64, Text};
        let mut columns = vec![
            Column::optional("disease", Text),
            Column::optional("compound", Text),
            Column::optional("dose", Float64),
            Column::required("dose_unit", Text),
            Column::optional("tested_on", Text),
            Column::required("cells", Text),
            Column::required("n_wells", Int64),
            Column::required("n_plates", Int64),
        ];
        // Seven digits: a score of 20 million is looked up, not computed with.
        columns.extend(SCORES.map(|name| Column::optional(name, Float32)));
        let text = |text: Option<&str>| text.map(SharedText::from);
        let effects = || screen.effects.iter();
        // One text for all effects of a disease, or of a compound: they mostly follow each other, or are few.
        let (diseased, healthy) = (SharedText::from("phenotype"), SharedText::from("reference"));
        let mut compounds: Vec<Option<SharedText>> = Vec::with_capacity(screen.effects.len());
        for (g, effect) in screen.effects.iter().enumerate() {
            let same = g > 0 && screen.effects[g - 1].compound == effect.compound;
            let known = compounds.last().filter(|_| same).cloned();
            compounds.push(known.unwrap_or_else(|| text(effect.compound.as_deref())));
        }
        Ok(Self {
            table: TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs())?,
            dose_unit: SharedText::from(dose_unit),
            diseases: screen
                .signatures
                .iter()
                .map(|signature| text(signature.disease.as_deref()))
                .collect(),
            compounds,
            tested_on: effects()
                .map(|effect| match &effect.origin {
                    Origin::Disease(disease) => text(disease.as_deref()),
                    Origin::Healthy => None,
                })
                .collect(),
            cells: effects()
                .map(|effect| match &effect.origin {
                    Origin::Disease(_) => Some(diseased.clone()),
                    Origin::Healthy => Some(healthy.clone()),
                })
                .collect(),
            doses: effects().map(|effect| effect.dose.unwrap_or(f64::NAN)).collect(),
            wells: effects().map(|effect| whole(effect.wells)).collect(),
            plates: effects().map(|effect| whole(effect.plates)).collect(),
        })
    }

    /// Appends all effects against one disease.
    ///
    /// # Errors
    /// A column of another screen, or the disk refuses.
    pub fn push(&mut self, column: &SignatureColumn) -> Result<(), WriteError> {
        let disease = self.diseases.get(column.signature).and_then(Option::as_ref);
        let cells = [
            Cells::Same(disease),
            Cells::Texts(&self.compounds),
            Cells::Numbers(&self.doses),
            Cells::Same(Some(&self.dose_unit)),
            Cells::Texts(&self.tested_on),
            Cells::Texts(&self.cells),
            Cells::Ints(&self.wells),
            Cells::Ints(&self.plates),
            Cells::Numbers(&column.cosine),
            Cells::Numbers(&column.rescue),
            Cells::Numbers(&column.off_axis),
            Cells::Numbers(&column.p_reversal),
            Cells::Numbers(&column.q_reversal),
            Cells::Numbers(&column.p_mimic),
            Cells::Numbers(&column.q_mimic),
            Cells::Numbers(&column.p_rescue),
            Cells::Numbers(&column.q_rescue),
        ];
        self.table.append(&cells, self.doses.len())
    }

    /// Completes the file; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.table.finish()
    }
}

/// Columns of scores, in the order of [`SignatureTable::push`].
const SCORES: [&str; 9] = [
    "cosine",
    "rescue",
    "off_axis",
    "p_reversal",
    "q_reversal",
    "p_mimic",
    "q_mimic",
    "p_rescue",
    "q_rescue",
];

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
