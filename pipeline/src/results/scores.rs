//! The tables of a comparison beside its rows: compounds with their curves, wells with their scores, assay windows.
//!
//! What a comparison finds enters as it is found, whole files leave. All tables stream: memory is one row group each.
//! Fails as [`TableWriter`] does, and where a temporary file does.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wellspring_workloads::compare::{AssayWindow, Comparison, CompoundSummary, DoseCurve, WellScore};
use wellspring_workloads::words::Barcode;

use super::cells::{Cell, Column, ColumnKind};
use super::error::WriteError;
use super::parquet::TableWriter;
use super::tables::{ComparisonTable, Provenance};
use crate::memory;
use crate::scratch::{Place, ScratchWriter};

/// Plates after which free memory goes back to the system.
const GIVE_BACK: usize = 64;

fn count(n: usize) -> Cell<'static> {
    Cell::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn truth(value: bool) -> Cell<'static> {
    Cell::Text(if value { "true" } else { "false" })
}

/// `compounds.parquet`: one row per disease x compound, with its dose curve.
#[derive(Debug)]
pub struct CompoundTable {
    table: TableWriter,
    screen: String,
    run: String,
}

impl CompoundTable {
    /// The file's name.
    pub const FILE: &'static str = "compounds.parquet";

    /// Opens the table in folder `dir`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(dir: &Path, provenance: &Provenance) -> Result<Self, WriteError> {
        use ColumnKind::{Float64, Int64, Text};
        let mut columns = vec![
            Column::required("screen", Text),
            Column::required("run", Text),
            Column::optional("disease", Text),
            Column::optional("compound", Text),
            Column::required("call", Text),
            Column::required("rank", Int64),
            Column::required("n_doses", Int64),
        ];
        let numbers = [
            "score",
            "best_dose",
            "best_rescue",
            "best_specificity",
            "best_model_specificity",
            "best_off_z",
            "best_cell_ratio",
            "top",
            "min_q",
            "max_off_z",
            "min_cell_ratio",
            "toxic_dose",
            "therapeutic_window",
            "best_effect_z_support",
            "best_map_q_value",
        ];
        columns.extend(numbers.map(|name| Column::optional(name, Float64)));
        columns.extend(
            ["curve_measure", "curve_model", "ec50_censoring", "curve_monotone"]
                .map(|name| Column::optional(name, Text)),
        );
        columns.extend(CURVE_NUMBERS.map(|name| Column::optional(name, Float64)));
        columns.extend(["off_axis_ec50", "cell_loss_ec50"].map(|name| Column::optional(name, Float64)));
        Ok(Self {
            table: TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs())?,
            screen: provenance.screen.clone(),
            run: provenance.run.clone(),
        })
    }

    /// Appends a compound.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, row: &CompoundSummary) -> Result<(), WriteError> {
        let mut cells = vec![
            Cell::Text(&self.screen),
            Cell::Text(&self.run),
            Cell::text(row.disease.as_deref()),
            Cell::text(row.compound.as_deref()),
            Cell::Text(row.call.as_str()),
            count(row.rank),
            count(row.n_doses),
            row.score.into(),
            row.best_dose.into(),
            row.best_rescue.into(),
            row.best_specificity.into(),
            row.best_model_specificity.into(),
            row.best_off_z.into(),
            row.best_cell_ratio.into(),
            row.top.into(),
            row.min_q.into(),
            row.max_off_z.into(),
            row.min_cell_ratio.into(),
            row.toxic_dose.into(),
            row.therapeutic_window.into(),
            row.best_effect_z_support.into(),
            row.best_map_q_value.into(),
        ];
        let words = row
            .curve
            .as_ref()
            .map(|curve| [word(curve.measure), word(curve.model), word(curve.censoring)]);
        match (&row.curve, &words) {
            (Some(curve), Some(words)) => {
                cells.extend(words.iter().map(|word| Cell::Text(word)));
                cells.push(truth(curve.monotone));
                cells.extend(curve_numbers(curve).map(Cell::number));
            }
            _ => cells.extend([Cell::Missing; 4 + CURVE_NUMBERS.len()]),
        }
        let ec50 = |curve: &Option<DoseCurve>| curve.as_ref().and_then(|curve| curve.ec50);
        cells.extend([&row.off_curve, &row.cell_curve].map(|curve| Cell::number(ec50(curve))));
        self.table.push(&cells, &[])
    }

    /// Completes the file; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.table.finish()
    }
}

/// Numbers of a curve, in the order of [`curve_numbers`].
const CURVE_NUMBERS: [&str; 23] = [
    "ec50",
    "ec50_low",
    "ec50_high",
    "log10_ec50_se",
    "cutoff_dose",
    "hit_call",
    "spearman",
    "trend_p",
    "ac50",
    "fitted_top",
    "curve_bottom",
    "curve_top",
    "log10_ec50",
    "hill",
    "log10_loss_ec50",
    "loss_hill",
    "sse",
    "aic_zero",
    "aic_constant",
    "aic_hill",
    "aic_gain_loss",
    "lowest_dose",
    "highest_dose",
];

fn curve_numbers(curve: &DoseCurve) -> [Option<f64>; CURVE_NUMBERS.len()] {
    let parameters = &curve.parameters;
    [
        curve.ec50,
        curve.ec50_low,
        curve.ec50_high,
        curve.log10_ec50_se,
        curve.cutoff_dose,
        curve.hit_call,
        curve.spearman,
        curve.trend_p,
        curve.ac50,
        Some(curve.top),
        Some(parameters.bottom),
        Some(parameters.top),
        parameters.log10_ec50,
        parameters.hill,
        parameters.log10_loss_ec50,
        parameters.loss_hill,
        Some(curve.sse),
        curve.aic.zero,
        curve.aic.constant,
        curve.aic.hill,
        curve.aic.gain_loss,
        Some(curve.tested.0),
        Some(curve.tested.1),
    ]
}

/// A choice as files and topics spell it.
fn word(choice: impl Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(serde_json::Value::String(word)) => word,
        // Choices without content serialise to their name.
        _ => String::new(),
    }
}

/// `wells.parquet`: one row per well x disease.
#[derive(Debug)]
pub struct WellTable(TableWriter);

impl WellTable {
    /// The file's name.
    pub const FILE: &'static str = "wells.parquet";

    /// Opens the table in folder `dir`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(dir: &Path, provenance: &Provenance) -> Result<Self, WriteError> {
        let text = |name: &str| Column::required(name, ColumnKind::Text);
        let number = |name: &str| Column::optional(name, ColumnKind::Float64);
        let columns = vec![
            text("Metadata_Plate"),
            text("Metadata_Well"),
            Column::optional("Metadata_disease", ColumnKind::Text),
            text("Metadata_leave_one_out"),
            number("on_axis"),
            number("off_axis"),
            number("aligned_on_axis"),
            number("unaligned_off_axis"),
            number("off_z"),
            number("rescue"),
            number("cell_ratio"),
            number("cell_count_b_score"),
            number("rescue_b_score"),
        ];
        TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs()).map(Self)
    }

    /// Appends a well.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, row: &WellScore) -> Result<(), WriteError> {
        let well = row.well.to_string();
        let cells = [
            Cell::Text(row.plate.as_str()),
            Cell::Text(&well),
            Cell::text(row.disease.as_deref()),
            truth(row.leave_one_out),
            row.on_axis.into(),
            row.off_axis.into(),
            row.aligned_on_axis.into(),
            row.unaligned_off_axis.into(),
            row.off_z.into(),
            row.rescue.into(),
            row.cell_ratio.into(),
            row.cell_count_b_score.into(),
            row.rescue_b_score.into(),
        ];
        self.0.push(&cells, &[])
    }

    /// Completes the file; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.0.finish()
    }
}

/// `windows.parquet`: how well each plate separates a disease from its reference.
#[derive(Debug)]
pub struct WindowTable(TableWriter);

impl WindowTable {
    /// The file's name.
    pub const FILE: &'static str = "windows.parquet";

    /// Opens the table in folder `dir`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(dir: &Path, provenance: &Provenance) -> Result<Self, WriteError> {
        let number = |name: &str| Column::optional(name, ColumnKind::Float64);
        let columns = vec![
            Column::required("Metadata_Plate", ColumnKind::Text),
            Column::optional("Metadata_disease", ColumnKind::Text),
            Column::required("n_reference", ColumnKind::Int64),
            Column::required("n_phenotype", ColumnKind::Int64),
            number("z_prime"),
            number("robust_z_prime"),
            number("ssmd"),
            number("robust_ssmd"),
            number("multivariate_z_prime"),
            number("multivariate_robust_z_prime"),
            number("multivariate_ssmd"),
            number("auc"),
            number("signal_to_noise"),
            number("phenotype_cv"),
            Column::required("verdict", ColumnKind::Text),
            number("axis_length"),
            number("reference_edge_effect"),
            number("reference_edge_p"),
            number("phenotype_edge_effect"),
            number("phenotype_edge_p"),
            Column::optional("reference_outliers", ColumnKind::Int64),
            Column::optional("phenotype_outliers", ColumnKind::Int64),
            Column::required("reference_trimmed", ColumnKind::Text),
            Column::required("phenotype_trimmed", ColumnKind::Text),
        ];
        TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs()).map(Self)
    }

    /// Appends a plate's window.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, row: &AssayWindow) -> Result<(), WriteError> {
        let (reference, phenotype) = (row.reference_edge, row.phenotype_edge);
        let cells = [
            Cell::Text(row.plate.as_str()),
            Cell::text(row.disease.as_deref()),
            count(row.n_reference),
            count(row.n_phenotype),
            row.z_prime.into(),
            row.robust_z_prime.into(),
            row.ssmd.into(),
            row.robust_ssmd.into(),
            row.multivariate_z_prime.into(),
            row.multivariate_robust_z_prime.into(),
            row.multivariate_ssmd.into(),
            row.auc.into(),
            row.signal_to_noise.into(),
            row.phenotype_cv.into(),
            Cell::Text(row.verdict.as_str()),
            row.axis_length.into(),
            reference.map(|edge| edge.effect).into(),
            reference.map(|edge| edge.p_value).into(),
            phenotype.map(|edge| edge.effect).into(),
            phenotype.map(|edge| edge.p_value).into(),
            row.reference_outliers.map_or(Cell::Missing, count),
            row.phenotype_outliers.map_or(Cell::Missing, count),
            truth(row.reference_trimmed),
            truth(row.phenotype_trimmed),
        ];
        self.0.push(&cells, &[])
    }

    /// Completes the file; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.0.finish()
    }
}

/// All tables of a comparison. `wells.parquet` is ordered by plate barcode (as text, byte by byte), well and disease,
/// `windows.parquet` by plate and disease, whatever the order in which plates are compared: a plate's rows must come
/// together, and wait on disk until the last plate.
#[derive(Debug)]
pub struct ComparisonTables {
    comparisons: ComparisonTable,
    compounds: CompoundTable,
    wells: WellTable,
    windows: WindowTable,
    at_hand: Option<(Barcode, PlateScores)>,
    aside: ScratchWriter,
    places: BTreeMap<Barcode, Place>,
}

/// What is known of one plate.
#[derive(Debug, Default, Serialize, Deserialize)]
struct PlateScores {
    wells: Vec<WellScore>,
    windows: Vec<AssayWindow>,
}

impl ComparisonTables {
    /// Opens all tables in folder `dir`.
    ///
    /// # Errors
    /// A file cannot be created.
    pub fn create(dir: &Path, provenance: &Provenance) -> Result<Self, WriteError> {
        Ok(Self {
            comparisons: ComparisonTable::create(dir, provenance)?,
            compounds: CompoundTable::create(dir, provenance)?,
            wells: WellTable::create(dir, provenance)?,
            windows: WindowTable::create(dir, provenance)?,
            at_hand: None,
            aside: ScratchWriter::create(dir)?,
            places: BTreeMap::new(),
        })
    }

    /// A row of `comparisons.parquet`.
    ///
    /// # Errors
    /// As [`ComparisonTable::push`].
    pub fn row(&mut self, row: &Comparison) -> Result<(), WriteError> {
        self.comparisons.push(row)
    }

    /// A row of `compounds.parquet`.
    ///
    /// # Errors
    /// As [`CompoundTable::push`].
    pub fn compound(&mut self, row: &CompoundSummary) -> Result<(), WriteError> {
        self.compounds.push(row)
    }

    /// A row of `wells.parquet`.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn well(&mut self, row: WellScore) -> Result<(), WriteError> {
        self.plate(&row.plate)?.wells.push(row);
        Ok(())
    }

    /// A row of `windows.parquet`.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn window(&mut self, row: AssayWindow) -> Result<(), WriteError> {
        self.plate(&row.plate)?.windows.push(row);
        Ok(())
    }

    fn plate(&mut self, plate: &Barcode) -> Result<&mut PlateScores, WriteError> {
        if self.at_hand.as_ref().is_some_and(|(at_hand, _)| at_hand != plate) {
            self.set_aside()?;
        }
        let (_, scores) = self
            .at_hand
            .get_or_insert_with(|| (plate.clone(), PlateScores::default()));
        Ok(scores)
    }

    fn set_aside(&mut self) -> Result<(), WriteError> {
        if let Some((plate, scores)) = self.at_hand.take() {
            self.places.insert(plate, self.aside.put(&scores)?);
        }
        Ok(())
    }

    /// Completes all files; gives the number of comparisons.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(mut self) -> Result<u64, WriteError> {
        self.set_aside()?;
        // What they gathered is not held beside what the wells do.
        self.compounds.finish()?;
        let comparisons = self.comparisons.finish()?;
        let aside = self.aside.finish()?;
        for (plate, place) in self.places.into_values().enumerate() {
            memory::give_back_every(GIVE_BACK, plate);
            let PlateScores {
                mut wells,
                mut windows,
            } = aside.get(place)?;
            wells.sort_by(|a, b| (a.well, &a.disease).cmp(&(b.well, &b.disease)));
            windows.sort_by(|a, b| a.disease.cmp(&b.disease));
            wells.iter().try_for_each(|row| self.wells.push(row))?;
            windows.iter().try_for_each(|row| self.windows.push(row))?;
        }
        self.wells.finish()?;
        self.windows.finish()?;
        Ok(comparisons)
    }
}
