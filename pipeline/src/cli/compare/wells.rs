//! From rows of feature tables to well profiles.
//!
//! Tables enter row by row; sums per well are kept, so memory grows with wells and not with cells or fields. Profiles
//! leave, with what was left out and why. The rules are those of a run: fields that failed quality control do not
//! count, a well needs enough that passed, and a plate with too many failures is held back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail};
use wellspring::report::PlateFacts;
use wellspring::results::{FeatureColumns, ProfileFile, ProfileRow};
use wellspring::wells::{FieldCount, held_back, plate_facts};
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::{Treatment, WellProfile};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, WellPosition};

/// Rows with missing values that are named one by one; more are only counted.
const NAMED_ROWS: usize = 5;

/// The rows of one well so far.
#[derive(Debug, Default)]
struct WellSum {
    rows: u32,
    passed: u32,
    /// Fields that the passing rows stand for.
    fields: u32,
    cells: Option<f64>,
    sum: Vec<f64>,
    /// Of the first row, kept only where treatments are read from it.
    metadata: BTreeMap<String, String>,
}

/// One plate of the tables.
#[derive(Debug, Default)]
pub(super) struct PlateWells {
    wells: BTreeMap<WellPosition, WellSum>,
    treatments: BTreeMap<WellPosition, Treatment>,
}

/// All wells of the tables.
#[derive(Debug, Default)]
pub(super) struct Wells {
    /// Names of the feature columns.
    pub(super) features: Vec<String>,
    /// The plates.
    pub(super) plates: BTreeMap<Barcode, PlateWells>,
    /// Rows read.
    pub(super) rows: u64,
    /// Rows that could not be used.
    pub(super) rows_left_out: u64,
    /// What was left out and why.
    pub(super) left_out: Vec<String>,
}

impl Wells {
    /// Reads all tables.
    pub(super) fn read(
        paths: &[PathBuf],
        columns: &FeatureColumns,
        screen: &Screen,
        keep_metadata: bool,
    ) -> anyhow::Result<Self> {
        let mut wells = Self::default();
        for path in paths {
            let file = ProfileFile::open(path, columns)?;
            if wells.features.is_empty() {
                wells.features = file.features().to_vec();
            } else if wells.features != file.features() {
                bail!(
                    "'{}' has other features than '{}' ({} and {}); compare tables of one kind at a time, or choose \
                     common columns with --columns",
                    path.display(),
                    paths[0].display(),
                    file.features().len(),
                    wells.features.len()
                );
            }
            for row in file {
                let row = row?;
                let place = || format!("'{}' row {}", path.display(), row.row);
                let plate = plate_of(&row, screen).with_context(place)?;
                wells.push(plate, row, keep_metadata, &path.display().to_string());
            }
        }
        let unnamed = wells.rows_left_out.saturating_sub(NAMED_ROWS as u64);
        if unnamed > 0 {
            wells.left_out.push(format!(
                "{unnamed} more rows with a missing or infinite feature are left out"
            ));
        }
        Ok(wells)
    }

    fn push(&mut self, plate: Barcode, row: ProfileRow, keep_metadata: bool, file: &str) {
        self.rows += 1;
        let passed = row
            .metadata
            .get("Metadata_quality")
            .is_none_or(|verdict| verdict != "fail");
        let finite = row.values.iter().all(|value| value.is_finite());
        if !finite {
            self.rows_left_out += 1;
            if self.rows_left_out <= NAMED_ROWS as u64 {
                let (row, well) = (row.row, row.well);
                self.left_out.push(format!(
                    "{file} row {row} (plate {plate} well {well}) has a missing or infinite feature and is left out"
                ));
            }
            return;
        }
        let number = |name: &str| row.metadata.get(name).and_then(|text| text.parse::<f64>().ok());
        let sum = self
            .plates
            .entry(plate)
            .or_default()
            .wells
            .entry(row.well)
            .or_default();
        sum.rows += 1;
        if passed {
            sum.passed += 1;
            sum.fields += number("Metadata_Site_Count").map_or(1, |count| count as u32);
            if let Some(cells) = number("Metadata_Object_Count") {
                *sum.cells.get_or_insert(0.0) += cells;
            }
            sum.sum.resize(row.values.len(), 0.0);
            for (sum, value) in sum.sum.iter_mut().zip(&row.values) {
                *sum += f64::from(*value);
            }
        }
        if keep_metadata && sum.metadata.is_empty() {
            sum.metadata = row.metadata;
        }
    }

    /// The tables' own columns as a plate map; each column with and without `Metadata_`.
    pub(super) fn metadata_csv(&self) -> anyhow::Result<String> {
        let rows = || self.plates.values().flat_map(|plate| plate.wells.values());
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for row in rows() {
            names.extend(row.metadata.keys().map(String::as_str));
        }
        let plain: Vec<(&str, &str)> = names
            .iter()
            .filter_map(|name| Some((name.strip_prefix("Metadata_")?, *name)))
            .filter(|(plain, _)| !names.contains(plain))
            .collect();
        // Place first, under the names that a plate map uses; what the tables call it would be there twice.
        let place = |name: &str| {
            ["plate", "well"]
                .iter()
                .any(|place| name.eq_ignore_ascii_case(place))
        };
        let columns: Vec<(&str, &str)> = names
            .iter()
            .map(|name| (*name, *name))
            .chain(plain)
            .filter(|(shown, _)| !place(shown))
            .collect();
        let mut text = csv::Writer::from_writer(Vec::new());
        text.write_record(
            ["plate", "well"]
                .into_iter()
                .chain(columns.iter().map(|(shown, _)| *shown)),
        )?;
        for (barcode, plate) in &self.plates {
            for (well, sum) in &plate.wells {
                let place = [barcode.to_string(), well.to_string()];
                let cells = columns
                    .iter()
                    .map(|(_, name)| sum.metadata.get(*name).cloned().unwrap_or_default());
                text.write_record(place.into_iter().chain(cells))?;
            }
        }
        Ok(String::from_utf8(text.into_inner()?)?)
    }

    /// What each well was given. A plate that the map does not explain is left out with the reason.
    pub(super) fn give_treatments(&mut self, screen: &Screen, map: &PlateMap) {
        for (barcode, plate) in &mut self.plates {
            match screen.treatments(map, barcode) {
                Ok(treatments) => plate.treatments = treatments,
                Err(errors) => {
                    self.left_out
                        .push(format!("plate {barcode} is left out: {errors}"));
                    continue;
                }
            }
            let unknown: Vec<String> = plate
                .wells
                .keys()
                .filter(|well| map.treatment(barcode, **well).is_none())
                .map(ToString::to_string)
                .collect();
            if !unknown.is_empty() {
                let (count, shown) = (unknown.len(), unknown[..unknown.len().min(12)].join(", "));
                self.left_out.push(format!(
                    "plate {barcode}: {count} wells have features but no row in {} and are left out: {shown}",
                    map.file()
                ));
            }
        }
    }

    /// The means of the wells that count, by plate and well.
    pub(super) fn profiles(&mut self, screen: &Screen) -> Vec<WellProfile> {
        let mut profiles = Vec::new();
        for (barcode, plate) in &self.plates {
            if let Some(reason) = held_back(&screen.quality, &plate.treatments, &plate.counts()) {
                self.left_out.push(format!(
                    "plate {barcode} is held back from the comparison: {reason}"
                ));
                continue;
            }
            for (well, sum) in &plate.wells {
                let Some(treatment) = plate.treatments.get(well) else {
                    continue;
                };
                if !screen.quality.well_counts(sum.passed, sum.rows) {
                    let (passed, rows) = (sum.passed, sum.rows);
                    self.left_out.push(format!(
                        "plate {barcode} well {well}: {passed} of {rows} fields passed quality control, too few for \
                         a profile"
                    ));
                    continue;
                }
                let passed = f64::from(sum.passed);
                profiles.push(WellProfile {
                    plate: barcode.clone(),
                    well: *well,
                    treatment: treatment.clone(),
                    fields: sum.fields.max(1),
                    cell_count: sum.cells,
                    values: sum.sum.iter().map(|sum| (sum / passed) as f32).collect(),
                });
            }
        }
        profiles
    }

    /// The plates for the report.
    pub(super) fn plate_facts(&self) -> Vec<PlateFacts> {
        let facts = |(barcode, plate): (&Barcode, &PlateWells)| {
            plate_facts(barcode, &plate.treatments, &plate.counts())
        };
        self.plates.iter().map(facts).collect()
    }
}

impl PlateWells {
    fn counts(&self) -> BTreeMap<WellPosition, FieldCount> {
        let count = |sum: &WellSum| FieldCount {
            fields: sum.rows,
            passed: sum.passed,
        };
        self.wells.iter().map(|(well, sum)| (*well, count(sum))).collect()
    }
}

/// The row's plate: its own, else the screen's only one.
fn plate_of(row: &ProfileRow, screen: &Screen) -> anyhow::Result<Barcode> {
    if let Some(plate) = &row.plate {
        return Ok(plate.parse()?);
    }
    match (&screen.images.plate, screen.images.plates.as_slice()) {
        (Some(plate), _) => Ok(plate.clone()),
        (None, [plate]) => Ok(plate.clone()),
        (None, _) => bail!(
            "there is no plate: add a column Metadata_Plate, or name the one plate in the screen file (images.plate)"
        ),
    }
}
