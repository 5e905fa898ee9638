//! `signatures.parquet`: every compound at every dose against every disease signature of the screen.
//!
//! The effects of the screen enter once, scores follow block by block; a whole file leaves, disease after disease. Rows
//! are appended column by column and their texts are kept once: a screen of 10,000 compounds at 4 doses and 500 diseases
//! has 20 million of them. Memory is one row group and one block. Fails as [`TableWriter`] does.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use wellspring_workloads::signature::{Effect, Effects, Origin, SignatureColumn, SignatureScreen};

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
    effects: Arc<Effects>,
    /// What rows of the last block of effects say of them: mostly all effects of the screen.
    told: Told,
}

/// What rows say of a block of effects, whatever the disease.
#[derive(Debug, Default)]
struct Told {
    effects: Range<usize>,
    compounds: Texts,
    tested_on: Texts,
    cells: Texts,
    doses: Vec<f64>,
    wells: Vec<i64>,
    plates: Vec<i64>,
}

/// Texts, and which of them each row has.
#[derive(Debug, Default)]
struct Texts {
    texts: Vec<Option<SharedText>>,
    which: Vec<u32>,
}

impl Texts {
    /// Of rows of which many that follow each other have the same text.
    fn push(&mut self, same: bool, text: Option<&str>) {
        if !same || self.texts.is_empty() {
            self.texts.push(text.map(SharedText::from));
        }
        self.which
            .push(u32::try_from(self.texts.len() - 1).unwrap_or(u32::MAX));
    }

    fn cells(&self) -> Cells<'_> {
        Cells::OneOf {
            texts: &self.texts,
            which: &self.which,
        }
    }
}

impl Told {
    fn of(effects: &Effects, range: Range<usize>) -> Self {
        let mut told = Self {
            effects: range.clone(),
            ..Self::default()
        };
        let mut last: Option<Effect<'_>> = None;
        for effect in range.filter_map(|effect| effects.get(effect)) {
            let same_compound = last.is_some_and(|last| last.compound == effect.compound);
            let same_origin = last.is_some_and(|last| last.origin == effect.origin);
            told.compounds.push(same_compound, effect.compound);
            told.tested_on.push(same_origin, disease(effect.origin));
            let cells = match effect.origin {
                Origin::Disease(_) => "phenotype",
                Origin::Healthy => "reference",
            };
            told.cells.push(same_origin, Some(cells));
            told.doses.push(effect.dose.unwrap_or(f64::NAN));
            told.wells.push(whole(effect.wells));
            told.plates.push(whole(effect.plates));
            last = Some(effect);
        }
        told
    }
}

fn disease(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::Disease(disease) => disease.as_deref(),
        Origin::Healthy => None,
    }
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
        let diseases = screen.signatures.iter();
        Ok(Self {
            table: TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs())?,
            dose_unit: SharedText::from(dose_unit),
            diseases: diseases
                .map(|signature| signature.disease.as_deref().map(SharedText::from))
                .collect(),
            effects: Arc::clone(&screen.effects),
            told: Told::default(),
        })
    }

    /// Appends scores against one disease.
    ///
    /// # Errors
    /// Scores of another screen, or the disk refuses.
    pub fn push(&mut self, column: &SignatureColumn) -> Result<(), WriteError> {
        if self.told.effects != column.effects {
            self.told = Told::of(&self.effects, column.effects.clone());
        }
        let (told, disease) = (&self.told, self.diseases.get(column.signature));
        let cells = [
            Cells::Same(disease.and_then(Option::as_ref)),
            told.compounds.cells(),
            Cells::Numbers(&told.doses),
            Cells::Same(Some(&self.dose_unit)),
            told.tested_on.cells(),
            told.cells.cells(),
            Cells::Ints(&told.wells),
            Cells::Ints(&told.plates),
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
        self.table.append(&cells, told.doses.len())
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
