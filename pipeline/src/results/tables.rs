//! The tables of a run's output folder, with the columns people of this field expect.
//!
//! Fields, wells and comparisons enter in the order the rows should have; `features.parquet`, `profiles.parquet`,
//! `quality.parquet` and `comparisons.parquet` leave. `Metadata_*` columns are text, so that peers do not take them
//! for features; `dose` is numeric. All tables stream: memory is one row group. Fails as
//! [`TableWriter`] does.

use std::path::Path;

use wellspring_workloads::compare::Comparison;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::{Barcode, Channel, FieldId, WellPosition};

use super::cells::{Cell, Column, ColumnKind};
use super::error::WriteError;
use super::parquet::TableWriter;
use crate::quality::{NUCLEI, OF_STACKS};

/// What made a table; written into each file as key-value pairs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Provenance {
    /// The screen's name.
    pub screen: String,
    /// The run.
    pub run: String,
    /// sha256 of the screen definition, hexadecimal.
    pub screen_sha256: String,
    /// The model's name.
    pub model: String,
    /// sha256 of the model's weights, hexadecimal.
    pub model_sha256: String,
    /// Seed of every stochastic step.
    pub seed: u64,
    /// sha256 of the alignment, hexadecimal: `transforms/<sha256>.json`. `None` where nothing was aligned, and in files
    /// of features and profiles, which are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform_sha256: Option<String>,
}

impl Provenance {
    /// As headers of a record, in the way of CloudEvents extensions: names of lower-case letters and digits.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        [
            ("ce_seed", self.seed.to_string()),
            ("ce_screensha256", self.screen_sha256.clone()),
            ("ce_modelsha256", self.model_sha256.clone()),
        ]
    }

    /// As key-value pairs.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let transform = self.transform_sha256.iter();
        let transform = transform.map(|hash| ("wellspring.transform_sha256".to_owned(), hash.clone()));
        [
            ("wellspring.screen", self.screen.clone()),
            ("wellspring.run", self.run.clone()),
            ("wellspring.screen_sha256", self.screen_sha256.clone()),
            ("wellspring.model", self.model.clone()),
            ("wellspring.model_sha256", self.model_sha256.clone()),
            ("wellspring.seed", self.seed.to_string()),
            ("wellspring.version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .chain(transform)
        .collect()
    }
}

/// The name of feature column `i` of `model`: `<model>_<i>`.
pub fn feature_name(model: &str, i: usize) -> String {
    format!("{model}_{i}")
}

/// The names of `width` feature columns of `model`.
pub fn feature_names(model: &str, width: usize) -> Vec<String> {
    (0..width).map(|i| feature_name(model, i)).collect()
}

/// The text of a role in `Metadata_role`.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Reference => "reference",
        Role::Phenotype => "phenotype",
        Role::Treated => "treated",
    }
}

pub(super) fn treatment_columns() -> [Column; 5] {
    [
        Column::optional("Metadata_compound", ColumnKind::Text),
        Column::optional("Metadata_dose", ColumnKind::Text),
        Column::optional("Metadata_disease", ColumnKind::Text),
        Column::required("Metadata_role", ColumnKind::Text),
        Column::optional("dose", ColumnKind::Float64),
    ]
}

/// The texts of a row's place and treatment, kept while its cells borrow them.
pub(super) struct Words<'a> {
    pub(super) plate: &'a str,
    pub(super) well: String,
    dose: Option<String>,
    treatment: &'a Treatment,
}

impl<'a> Words<'a> {
    pub(super) fn new(plate: &'a Barcode, well: WellPosition, treatment: &'a Treatment) -> Self {
        Self {
            plate: plate.as_str(),
            well: well.to_string(),
            dose: treatment.dose.map(|dose| dose.to_string()),
            treatment,
        }
    }

    pub(super) fn treatment_cells(&self) -> [Cell<'_>; 5] {
        [
            Cell::text(self.treatment.compound.as_deref()),
            Cell::text(self.dose.as_deref()),
            Cell::text(self.treatment.disease.as_deref()),
            Cell::Text(role_name(self.treatment.role)),
            Cell::number(self.treatment.dose),
        ]
    }
}

/// The outcome of the quality checks of one field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldQuality {
    /// Whether the field counts.
    pub passed: bool,
    /// What was flagged, such as `blur:DNA`; joined with `;` in the files. Empty where nothing was.
    pub flags: Vec<String>,
}

impl FieldQuality {
    fn verdict(&self) -> &'static str {
        if self.passed { "pass" } else { "fail" }
    }

    fn columns() -> [Column; 2] {
        [
            Column::required("Metadata_quality", ColumnKind::Text),
            Column::required("Metadata_quality_flags", ColumnKind::Text),
        ]
    }
}

/// One field of `features.parquet`.
#[derive(Debug, Clone, Copy)]
pub struct FeatureRow<'a> {
    /// The field.
    pub field: &'a FieldId,
    /// What its well was given.
    pub treatment: &'a Treatment,
    /// The outcome of its quality checks.
    pub quality: &'a FieldQuality,
    /// Nuclei, in a table that has them; `None` where not counted.
    pub nuclei: Option<f64>,
    /// The embedding; as wide as the table.
    pub values: &'a [f32],
}

/// `features.parquet`: one row per field of view.
#[derive(Debug)]
pub struct FeatureTable {
    table: TableWriter,
    nuclei: bool,
}

impl FeatureTable {
    /// The file's name.
    pub const FILE: &'static str = "features.parquet";

    /// Opens the table in folder `dir`: columns `features` after place, treatment and quality, and after
    /// `Metadata_Count_Nuclei` where nuclei are counted.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(
        dir: &Path,
        features: &[String],
        nuclei: bool,
        provenance: &Provenance,
    ) -> Result<Self, WriteError> {
        let mut columns = vec![
            Column::required("Metadata_Plate", ColumnKind::Text),
            Column::required("Metadata_Well", ColumnKind::Text),
            Column::required("Metadata_Site", ColumnKind::Text),
        ];
        columns.extend(treatment_columns());
        columns.extend(FieldQuality::columns());
        // Text, as every column that tools must not take for a feature.
        columns.extend(nuclei.then(|| Column::optional(format!("Metadata_{NUCLEI}"), ColumnKind::Text)));
        let path = dir.join(Self::FILE);
        let table = TableWriter::create(&path, columns, features, &provenance.pairs())?;
        Ok(Self { table, nuclei })
    }

    /// Appends a field. Give fields in the order of [`FieldId`]: equal rows in equal order give equal files.
    ///
    /// # Errors
    /// The embedding has another width, or the disk refuses.
    pub fn push(&mut self, row: &FeatureRow<'_>) -> Result<(), WriteError> {
        let words = Words::new(&row.field.plate, row.field.well, row.treatment);
        let site = row.field.field.to_string();
        let flags = row.quality.flags.join(";");
        let [compound, dose, disease, role, number] = words.treatment_cells();
        let nuclei = row.nuclei.map(|count| count.to_string());
        let mut cells = vec![
            Cell::Text(words.plate),
            Cell::Text(&words.well),
            Cell::Text(&site),
            compound,
            dose,
            disease,
            role,
            number,
            Cell::Text(row.quality.verdict()),
            Cell::Text(&flags),
        ];
        cells.extend(self.nuclei.then(|| Cell::text(nuclei.as_deref())));
        self.table.push(&cells, row.values)
    }

    /// Completes the file; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.table.finish()
    }
}

/// `profiles.parquet`: one row per well.
#[derive(Debug)]
pub struct ProfileTable(TableWriter);

impl ProfileTable {
    /// The file's name.
    pub const FILE: &'static str = "profiles.parquet";

    /// Opens the table in folder `dir`: columns `features` after place and treatment.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(dir: &Path, features: &[String], provenance: &Provenance) -> Result<Self, WriteError> {
        let mut columns = vec![
            Column::required("Metadata_Plate", ColumnKind::Text),
            Column::required("Metadata_Well", ColumnKind::Text),
        ];
        columns.extend(treatment_columns());
        // Text as well: to a peer every numeric column without the prefix may be a feature.
        columns.push(Column::required("Metadata_Site_Count", ColumnKind::Text));
        columns.push(Column::optional("Metadata_Object_Count", ColumnKind::Text));
        columns.push(Column::required("Metadata_held_back", ColumnKind::Text));
        let path = dir.join(Self::FILE);
        TableWriter::create(&path, columns, features, &provenance.pairs()).map(Self)
    }

    /// Appends a well, which the comparison did not use where it was held back. Give wells in order of plate and well:
    /// equal rows in equal order give equal files.
    ///
    /// # Errors
    /// The profile has another width, or the disk refuses.
    pub fn push(&mut self, profile: &WellProfile, held_back: bool) -> Result<(), WriteError> {
        let words = Words::new(&profile.plate, profile.well, &profile.treatment);
        let fields = profile.fields.to_string();
        let cell_count = profile.cell_count.map(|count| count.to_string());
        let [compound, dose, disease, role, number] = words.treatment_cells();
        let cells = [
            Cell::Text(words.plate),
            Cell::Text(&words.well),
            compound,
            dose,
            disease,
            role,
            number,
            Cell::Text(&fields),
            Cell::text(cell_count.as_deref()),
            Cell::Text(if held_back { "true" } else { "false" }),
        ];
        self.0.push(&cells, &profile.values)
    }

    /// Completes the file; gives the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        self.0.finish()
    }
}

/// One field of `quality.parquet`.
#[derive(Debug, Clone, Copy)]
pub struct QualityRow<'a> {
    /// The field.
    pub field: &'a FieldId,
    /// The outcome of its quality checks.
    pub quality: &'a FieldQuality,
    /// Channel after channel, each in the order of the table's measures; `None` where not measured.
    pub values: &'a [Option<f64>],
    /// By channel, each in the order of [`OF_STACKS`]; `None` where there is no z stack.
    pub stacks: &'a [[Option<f64>; 2]],
    /// By channel, the address of its image; `None` where it is not known.
    pub uris: &'a [Option<String>],
    /// Nuclei, in a table that has them; `None` where not counted.
    pub nuclei: Option<f64>,
}

/// `quality.parquet`: one row per field, with `ImageQuality_<measure>_<channel>` columns, those of z stacks
/// (`ImageQuality_Planes_<channel>`, how many there are, `ImageQuality_FocusPlane_<channel>`, the one that was taken) behind them,
/// `URL_Orig<channel>`, the image's address, last, and `Count_Nuclei` where nuclei are counted.
#[derive(Debug)]
pub struct QualityTable {
    table: TableWriter,
    nuclei: bool,
}

impl QualityTable {
    /// The file's name.
    pub const FILE: &'static str = "quality.parquet";

    /// Opens the table in folder `dir`. `measures` are names such as `PowerLogLogSlope`, `PercentMaximal`,
    /// `PercentSaturated`, `MeanIntensity`.
    ///
    /// # Errors
    /// Two columns of one name, or the file cannot be created.
    pub fn create(
        dir: &Path,
        channels: &[Channel],
        measures: &[&str],
        nuclei: bool,
        provenance: &Provenance,
    ) -> Result<Self, WriteError> {
        let mut columns = vec![
            Column::required("Metadata_Plate", ColumnKind::Text),
            Column::required("Metadata_Well", ColumnKind::Text),
            Column::required("Metadata_Site", ColumnKind::Text),
        ];
        columns.extend(FieldQuality::columns());
        columns.extend(nuclei.then(|| Column::optional(NUCLEI, ColumnKind::Float64)));
        columns.extend(channels.iter().flat_map(|channel| {
            measures.iter().map(move |measure| {
                Column::optional(format!("ImageQuality_{measure}_{channel}"), ColumnKind::Float64)
            })
        }));
        columns.extend(channels.iter().flat_map(|channel| {
            OF_STACKS.iter().map(move |measure| {
                Column::optional(format!("ImageQuality_{measure}_{channel}"), ColumnKind::Float64)
            })
        }));
        let address = |channel| Column::optional(format!("URL_Orig{channel}"), ColumnKind::Text);
        columns.extend(channels.iter().map(address));
        let table = TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs())?;
        Ok(Self { table, nuclei })
    }

    /// Appends a field. Give fields in the order of [`FieldId`].
    ///
    /// # Errors
    /// Another number of values than channels times measures, or the disk refuses.
    pub fn push(&mut self, row: &QualityRow<'_>) -> Result<(), WriteError> {
        let well = row.field.well.to_string();
        let site = row.field.field.to_string();
        let flags = row.quality.flags.join(";");
        let mut cells = vec![
            Cell::Text(row.field.plate.as_str()),
            Cell::Text(&well),
            Cell::Text(&site),
            Cell::Text(row.quality.verdict()),
            Cell::Text(&flags),
        ];
        cells.extend(self.nuclei.then(|| Cell::number(row.nuclei)));
        cells.extend(row.values.iter().map(|value| Cell::number(*value)));
        cells.extend(row.stacks.iter().flatten().map(|value| Cell::number(*value)));
        cells.extend(row.uris.iter().map(|uri| Cell::text(uri.as_deref())));
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

/// `comparisons.parquet`: one row per disease x compound x dose, control wells included.
#[derive(Debug)]
pub struct ComparisonTable {
    table: TableWriter,
    screen: String,
    run: String,
}

impl ComparisonTable {
    /// The file's name.
    pub const FILE: &'static str = "comparisons.parquet";

    /// Opens the table in folder `dir`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(dir: &Path, provenance: &Provenance) -> Result<Self, WriteError> {
        use ColumnKind::{Float64, Int64, Text};
        let columns = vec![
            Column::required("screen", Text),
            Column::required("run", Text),
            Column::optional("disease", Text),
            Column::optional("compound", Text),
            Column::optional("dose", Float64),
            Column::required("dose_unit", Text),
            Column::required("n_wells", Int64),
            Column::required("n_plates", Int64),
            Column::required("counter_screen", Int64),
            Column::optional("on_axis", Float64),
            Column::required("off_axis", Float64),
            Column::optional("aligned_on_axis", Float64),
            Column::optional("excess", Float64),
            Column::optional("rescue", Float64),
            Column::optional("specificity", Float64),
            Column::optional("off_z", Float64),
            Column::optional("off_z_support", Float64),
            Column::optional("effect_z", Float64),
            Column::optional("effect_z_support", Float64),
            Column::required("distance", Float64),
            Column::optional("direction_cosine", Float64),
            Column::optional("cell_ratio", Float64),
            Column::optional("p_value", Float64),
            Column::optional("q_value", Float64),
            Column::optional("p_off", Float64),
            Column::optional("q_off", Float64),
            Column::optional("map_q_value", Float64),
            Column::required("call", Text),
        ];
        Ok(Self {
            table: TableWriter::create(&dir.join(Self::FILE), columns, &[], &provenance.pairs())?,
            screen: provenance.screen.clone(),
            run: provenance.run.clone(),
        })
    }

    /// Appends a comparison.
    ///
    /// # Errors
    /// A number that must be known is NaN, or the disk refuses.
    pub fn push(&mut self, row: &Comparison) -> Result<(), WriteError> {
        let count = |n: usize| Cell::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let cells = [
            Cell::Text(&self.screen),
            Cell::Text(&self.run),
            Cell::text(row.disease.as_deref()),
            Cell::text(row.compound.as_deref()),
            Cell::number(row.dose),
            Cell::Text(&row.dose_unit),
            count(row.n_wells),
            count(row.n_plates),
            Cell::Int(i64::from(row.counter_screen)),
            Cell::number(row.on_axis),
            Cell::Number(row.off_axis),
            Cell::number(row.aligned_on_axis),
            Cell::number(row.excess),
            Cell::number(row.rescue),
            Cell::number(row.specificity),
            Cell::number(row.off_z),
            Cell::number(row.off_z_support),
            Cell::number(row.effect_z),
            Cell::number(row.effect_z_support),
            Cell::Number(row.distance),
            Cell::number(row.direction_cosine),
            Cell::number(row.cell_ratio),
            Cell::number(row.p_value),
            Cell::number(row.q_value),
            Cell::number(row.p_off),
            Cell::number(row.q_off),
            Cell::number(row.map_q_value),
            Cell::Text(row.call.as_str()),
        ];
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

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
