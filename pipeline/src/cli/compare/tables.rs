//! From feature tables to an index of their plates.
//!
//! Tables enter and are read once, block by block; features and what else is known of a row go to scratch files, and
//! only a place per plate stays in memory. Then the rows of one plate at a time leave. Rows and columns that cannot be
//! used are left out, counted and named: a feature that is missing in more than 5 % of the rows is dropped, and then
//! every row that still misses one; a well that occurs twice, and a barcode of two plates. Nothing is imputed.

mod common;
mod contradictions;
mod field;
mod layout;
mod objects;
mod reader;
mod rows;
mod unusable;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use wellspring::results::{FeatureColumns, ProfileFile};
use wellspring_workloads::aggregate::{Aggregate, WellFields};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use super::join::Join;
use super::left_out::{Kind, LeftOut};
use super::scratch::{Place, Scratch};
use common::common_features;
use layout::role_names;
use reader::Reader;
use rows::Other;
pub(super) use rows::{Label, PlateRows, Row};

/// How tables are read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) paths: &'a [PathBuf],
    /// Which columns are features.
    pub(super) features: FeatureColumns,
    /// A table with more metadata.
    pub(super) metadata: Option<&'a Path>,
    /// Columns that say how a well was treated: as they are named in the map that is made of them, and whether their
    /// absence is an error. Empty where a plate map says it.
    pub(super) labels: Vec<(String, bool)>,
    /// Folder of the scratch file.
    pub(super) scratch: &'a Path,
}

/// All tables.
#[derive(Debug)]
pub(super) struct Tables {
    /// The features that are compared.
    pub(super) features: Vec<String>,
    /// Those that too many rows miss, and the percent that do.
    pub(super) dropped: Vec<(String, f64)>,
    /// Which of the labels that were asked for some table has.
    label_at: Vec<usize>,
    /// Names of these, as the map that is made of them has them.
    pub(super) label_names: Vec<String>,
    /// Names of the same columns in the tables.
    pub(super) label_columns: Vec<String>,
    /// What the places of rows are read from in the first table, as role and columns.
    pub(super) places: Vec<(&'static str, String)>,
    /// All columns of the first table that are no features, and those of the metadata file.
    pub(super) metadata: Vec<String>,
    /// Rows read.
    pub(super) rows_read: u64,
    /// Rows that belong to no plate.
    pub(super) rows_left_out: u64,
    /// What was left out and why, besides what a plate leaves out.
    pub(super) left_out: LeftOut,
    paths: Vec<PathBuf>,
    plates: BTreeMap<Barcode, PlateIndex>,
    all_features: Vec<String>,
    kept: Vec<usize>,
    scratch: Scratch,
    aside: Scratch,
}

/// Where a plate's rows are.
#[derive(Debug, Default)]
struct PlateIndex {
    /// With the batch that they say the plate is of; those of a batch together, batches in order, once all are read.
    places: Vec<(Option<String>, Place)>,
}

impl Tables {
    /// Reads all tables.
    pub(super) fn read(reading: &Reading<'_>, screen: &Screen) -> anyhow::Result<Self> {
        let names = role_names(screen);
        let reserved = names.all();
        let mut left_out = LeftOut::default();
        let features = common_features(reading, &reserved, &mut left_out)?;
        let mut reader = Reader::new(reading, screen, features, left_out)?;
        let mut join: Option<Join> = None;
        for (number, path) in reading.paths.iter().enumerate() {
            let mut file = ProfileFile::open(path, &reading.features, &reserved)?;
            if let Some(name) = file.keep_features(reader.features()) {
                bail!(
                    "'{}' has no column '{name}' any more: it was changed while it was read",
                    path.display()
                );
            }
            if let (Some(metadata), None) = (reading.metadata, &join) {
                let key = screen
                    .profiles
                    .as_ref()
                    .and_then(|profiles| profiles.key.as_deref());
                join = Some(Join::read(metadata, file.metadata(), key, &names)?);
            }
            reader
                .file(number, file, join.as_ref(), &names)
                .with_context(|| format!("table '{}'", path.display()))?;
        }
        reader.finish()
    }

    /// The plates.
    pub(super) fn plates(&self) -> impl Iterator<Item = &Barcode> {
        self.plates.keys()
    }

    /// The rows of a plate that can be used; what cannot is told to `left_out`. Gives also how many rows that were.
    pub(super) fn plate(&self, plate: &Barcode, left_out: &mut LeftOut) -> anyhow::Result<(PlateRows, u64)> {
        let mut all = PlateRows::default();
        let Some(index) = self.plates.get(plate) else {
            return Ok((all, 0));
        };
        for (_, place) in &index.places {
            let part: PlateRows = serde_json::from_slice(&self.aside.read(*place)?)?;
            let before = all.labels.len() as u32;
            all.rows.extend(part.rows.into_iter().map(|row| Row {
                label: row.label + before,
                ..row
            }));
            all.others.extend(part.others.into_iter().map(|other| Other {
                label: other.label + before,
                ..other
            }));
            all.labels.extend(part.labels);
        }
        all.rows.sort_by_key(|row| (row.well, row.record));
        let read = all.rows.len();
        let mut wells: Vec<_> = all.rows.iter().map(|row| row.well).collect();
        wells.dedup();
        all.wells = wells;
        self.drop_missing(plate, &mut all.rows, left_out)?;
        self.drop_duplicates(plate, &mut all.rows, left_out);
        let mut batches: Vec<&str> = index
            .places
            .iter()
            .filter_map(|(batch, _)| batch.as_deref())
            .collect();
        batches.dedup();
        if batches.len() > 1 {
            all.rows.clear();
            let names = &batches[..batches.len().min(5)];
            left_out.push(Kind::Plates, || {
                format!(
                    "plate {plate} is left out: rows of {} carry this barcode; name the columns that tell the plates \
                     apart with [profiles] plate = [\"...\", \"...\"]",
                    names.join(" and of ")
                )
            });
        }
        let lost = read - all.rows.len();
        Ok((all, lost as u64))
    }

    /// The cells of a label that [`Tables::label_names`] names.
    pub(super) fn label_of<'l>(&self, label: &'l Label) -> impl Iterator<Item = Option<&'l str>> {
        self.label_at.iter().map(|at| label.get(*at)?.as_deref())
    }

    /// Rows that passed quality control as one, over the features that are compared; `None` where none did.
    pub(super) fn profile(&self, rows: &[Row], how: Aggregate) -> anyhow::Result<Option<Vec<f32>>> {
        let mut fields = WellFields::new(how, self.kept.len());
        let mut values = Vec::new();
        for row in rows.iter().filter(|row| row.passed) {
            self.scratch
                .read_row(row.record, self.all_features.len(), &mut values)?;
            fields.add(
                self.kept.iter().map(|at| values[*at]),
                f64::from(row.averaged.max(1)),
            );
        }
        Ok(fields.profile())
    }
}
