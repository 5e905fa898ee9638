//! From the blocks of tables to scratch files, row by row.
//!
//! Tables enter one after the other; features and what else is known of a row go to scratch files, and only a place per
//! plate stays in memory. Rows that belong to no plate, and features that too many rows miss, are told.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, bail};
use wellspring::results::{Block, ColumnRole, ProfileFile, RoleNames};
use wellspring_workloads::columns::is_missing;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use super::super::join::Join;
use super::super::left_out::{Kind, LeftOut};
use super::super::scratch::{Place, ScratchWriter};
use super::field::{Field, Found, site_hash};
use super::layout::Layout;
use super::objects;
use super::rows::{Label, Other, PlateRows, Row};
use super::{PlateIndex, Reading, Tables};

/// Most of its rows in which a feature may be missing before it is dropped (SCIENCE 3.2, 5.5).
const MOST_MISSING: f64 = 0.05;
/// Features that are named where they are dropped.
const NAMED_FEATURES: usize = 12;
/// Digits of a plate's number; more are a barcode.
const LONGEST_NUMBER: usize = 3;
/// Rows of a plate that are gathered in memory before they are set aside.
const MOST_GATHERED: usize = 16 << 10;

/// The screen's only plate, for tables that name none.
fn only_plate(screen: &Screen) -> Option<Barcode> {
    match (&screen.images.plate, screen.images.plates.as_slice()) {
        (Some(plate), _) => Some(plate.clone()),
        (None, [plate]) => Some(plate.clone()),
        (None, _) => None,
    }
}

/// Reads tables one after the other.
pub(super) struct Reader<'a> {
    reading: &'a Reading<'a>,
    only_plate: Option<Barcode>,
    features: Vec<String>,
    scratch: ScratchWriter,
    aside: ScratchWriter,
    plates: BTreeMap<Barcode, PlateIndex>,
    gathered: Option<Gathered>,
    /// By label, the column that was found for it.
    label_columns: Vec<Option<String>>,
    /// By feature, rows in which it is missing.
    missing: Vec<u64>,
    records: u64,
    places: Vec<(&'static str, String)>,
    metadata: Vec<String>,
    rows_read: u64,
    rows_left_out: u64,
    left_out: LeftOut,
}

/// Rows of one plate that follow each other.
struct Gathered {
    plate: Barcode,
    batch: Option<String>,
    rows: PlateRows,
    labels: HashMap<Label, u32>,
}

impl Gathered {
    /// The place of a label among those of the plate.
    fn label(&mut self, label: Label) -> u32 {
        if let Some(known) = self.labels.get(&label) {
            return *known;
        }
        let next = self.rows.labels.len() as u32;
        self.rows.labels.push(label.clone());
        self.labels.insert(label, next);
        next
    }
}

impl<'a> Reader<'a> {
    /// Of tables with these features; what is known to be left out so far.
    pub(super) fn new(
        reading: &'a Reading<'a>,
        screen: &Screen,
        features: Vec<String>,
        left_out: LeftOut,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            reading,
            only_plate: only_plate(screen),
            scratch: ScratchWriter::create(reading.scratch)?,
            aside: ScratchWriter::create(reading.scratch)?,
            plates: BTreeMap::new(),
            gathered: None,
            label_columns: vec![None; reading.labels.len()],
            missing: vec![0; features.len()],
            features,
            records: 0,
            places: Vec::new(),
            metadata: Vec::new(),
            rows_read: 0,
            rows_left_out: 0,
            left_out,
        })
    }

    pub(super) fn features(&self) -> &[String] {
        &self.features
    }

    pub(super) fn file(
        &mut self,
        number: usize,
        file: ProfileFile,
        join: Option<&Join>,
        names: &RoleNames,
    ) -> anyhow::Result<()> {
        let mut layout = Layout::find(self.reading, &mut self.label_columns, &file, join, names)?;
        let number = u16::try_from(number).context("more than 65,535 tables")?;
        let mut field: Option<Field> = None;
        let mut first = true;
        for block in file.blocks(&layout.decoded) {
            let block = block?;
            objects::check(&mut layout, &block, first)?;
            if first && self.places.is_empty() {
                self.places = layout.roles.described();
                self.metadata = layout.columns.clone();
            }
            first = false;
            let width = self.features.len();
            for row in 0..block.rows {
                self.rows_read += 1;
                let values = &block.values[row * width..(row + 1) * width];
                let Some(found) = self.row(&layout, &block, row, number)? else {
                    self.rows_left_out += 1;
                    continue;
                };
                if layout.roles.column(ColumnRole::Object).is_none() {
                    self.keep(found, Vec::new(), values)?;
                    continue;
                }
                let same = |field: &Field| {
                    let (a, b) = (&field.found, &found);
                    (&a.plate, a.row.well, a.row.site) == (&b.plate, b.row.well, b.row.site)
                };
                if !field.as_ref().is_some_and(same) {
                    self.end_field(field.take())?;
                }
                let (cells, number) = (found.row.cells, found.row.row);
                match &mut field {
                    Some(field) => field.push(&found.label, number, cells, values),
                    None => {
                        let label = found.label.clone();
                        let field = field.insert(Field::new(found, width));
                        field.push(&label, number, cells, values);
                    }
                }
            }
        }
        self.end_field(field)
    }

    /// What a row says of itself; `None` where it cannot be used.
    fn row(
        &mut self,
        layout: &Layout<'_>,
        block: &Block,
        row: usize,
        file: u16,
    ) -> anyhow::Result<Option<Found>> {
        let own = |at: usize| -> Option<&str> {
            let slot = layout.slots.get(at).copied().flatten()?;
            block.metadata[slot][row].as_deref()
        };
        let number = block.first_row + row as u64;
        let path = &self.reading.paths[usize::from(file)];
        let joined = match &layout.join {
            None => None,
            Some((join, finder)) => match join.row(finder, own) {
                Some(cells) => Some(cells),
                None => {
                    self.left_out.push(Kind::Unmatched, || {
                        format!(
                            "{} row {number} has no row in '{}' and is left out",
                            path.display(),
                            join.file
                        )
                    });
                    return Ok(None);
                }
            },
        };
        let cell = |at: usize| -> Option<&str> {
            match at.checked_sub(layout.own.len()) {
                None => own(at),
                Some(at) => joined?.get(at)?.as_deref(),
            }
        };
        let place = match layout.roles.place(cell) {
            Ok(place) => place,
            Err(error) => {
                self.left_out.push(Kind::Placeless, || {
                    format!("{} row {number} is left out: {error}", path.display())
                });
                return Ok(None);
            }
        };
        let Some(plate) = place.plate.or_else(|| self.only_plate.clone()) else {
            bail!(
                "there is no plate: add a column Metadata_Plate, or name the column with [profiles] plate in the screen \
                 file"
            );
        };
        let known = |at: usize| cell(at).filter(|text| !is_missing(text));
        let of = |role: ColumnRole| layout.roles.column(role).and_then(known);
        let batch = of(ColumnRole::Batch).map(str::to_owned);
        let labels = layout.labels.iter();
        let label: Label = labels.map(|at| at.and_then(cell).map(str::to_owned)).collect();
        let number_of = |role: ColumnRole| of(role).and_then(|text| text.parse::<f32>().ok());
        let mut cells = number_of(ColumnRole::Cells).filter(|cells| !cells.is_nan());
        if let Some(bad) = cells.filter(|cells| *cells < 0.0 || cells.is_infinite()) {
            let well = place.well;
            self.left_out.push(Kind::Counts, || {
                format!(
                    "{} row {number} (plate {plate} well {well}): a count of {bad} cells is not used; name the column of \
                     cell counts with [profiles] cell_count",
                    path.display()
                )
            });
            cells = None;
        }
        let row = Row {
            well: place.well,
            site: site_hash(of(ColumnRole::SiteId).or_else(|| of(ColumnRole::Site))),
            label: 0,
            record: 0,
            row: number,
            file,
            passed: of(ColumnRole::Quality) != Some("fail") && of(ColumnRole::HeldBack) != Some("true"),
            finite: true,
            fields: number_of(ColumnRole::Sites).map_or(1, |fields| fields as u16),
            averaged: 0,
            cells,
        };
        Ok(Some(Found {
            plate,
            batch,
            label,
            row,
        }))
    }

    fn end_field(&mut self, field: Option<Field>) -> anyhow::Result<()> {
        let Some(field) = field else { return Ok(()) };
        let (found, others, values) = field.mean();
        self.keep(found, others, &values)
    }

    fn keep(&mut self, found: Found, others: Vec<(Label, u64)>, values: &[f32]) -> anyhow::Result<()> {
        self.records += 1;
        let finite = values.iter().all(|value| value.is_finite());
        if !finite {
            for (missing, value) in self.missing.iter_mut().zip(values) {
                *missing += u64::from(!value.is_finite());
            }
        }
        let record = self.scratch.push_row(values)?;
        let fits = |gathered: &Gathered| {
            (&gathered.plate, &gathered.batch) == (&found.plate, &found.batch)
                && gathered.rows.rows.len() < MOST_GATHERED
        };
        if !self.gathered.as_ref().is_some_and(fits) {
            self.set_aside()?;
        }
        let gathered = self.gathered.get_or_insert_with(|| Gathered {
            plate: found.plate,
            batch: found.batch,
            rows: PlateRows::default(),
            labels: HashMap::new(),
        });
        let label = gathered.label(found.label);
        for (other, row) in others {
            let label = gathered.label(other);
            gathered.rows.others.push(Other {
                well: found.row.well,
                label,
                row,
                file: found.row.file,
            });
        }
        gathered.rows.rows.push(Row {
            record,
            finite,
            label,
            ..found.row
        });
        Ok(())
    }

    /// Writes the rows gathered so far to where they wait for their plate's turn.
    fn set_aside(&mut self) -> anyhow::Result<()> {
        let Some(gathered) = self.gathered.take() else {
            return Ok(());
        };
        let place = self.aside.push(&serde_json::to_vec(&gathered.rows)?)?;
        let index = self.plates.entry(gathered.plate).or_default();
        index.places.push((gathered.batch, place));
        Ok(())
    }

    pub(super) fn finish(mut self) -> anyhow::Result<Tables> {
        self.set_aside()?;
        if self.rows_read == 0 {
            let names: Vec<String> = self
                .reading
                .paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            bail!("there are no rows below the header of {}", names.join(", "));
        }
        let most = MOST_MISSING * self.records as f64;
        let (dropped, kept): (Vec<usize>, Vec<usize>) =
            (0..self.features.len()).partition(|at| self.missing[*at] as f64 > most);
        let mut left_out = self.left_out;
        let share = |at: &usize| 100.0 * self.missing[*at] as f64 / self.records.max(1) as f64;
        if !dropped.is_empty() {
            let shown: Vec<String> = dropped
                .iter()
                .take(NAMED_FEATURES)
                .map(|at| format!("{} ({:.1} %)", self.features[*at], share(at)))
                .collect();
            let dots = if dropped.len() > shown.len() { ", ..." } else { "" };
            left_out.push(Kind::Columns, || {
                format!(
                    "{} of {} features are missing or infinite in more than {:.0} % of the rows and are dropped: {}{dots}",
                    dropped.len(),
                    self.features.len(),
                    100.0 * MOST_MISSING,
                    shown.join(", ")
                )
            });
        }
        if kept.is_empty() {
            bail!("no feature is left: {}", left_out.notes().join("; "));
        }
        // A usual name that no table has must not look like a column without a cell.
        let names = self.reading.labels.iter().zip(&self.label_columns).enumerate();
        let found = names.filter_map(|(at, ((name, _), column))| Some((at, name.clone(), column.clone()?)));
        let (mut label_at, mut label_names, mut label_columns) = (Vec::new(), Vec::new(), Vec::new());
        for (at, name, column) in found {
            label_at.push(at);
            label_names.push(name);
            label_columns.push(column);
        }
        Ok(Tables {
            features: kept.iter().map(|at| self.features[*at].clone()).collect(),
            dropped: dropped
                .iter()
                .map(|at| (self.features[*at].clone(), share(at)))
                .collect(),
            label_at,
            label_names,
            label_columns,
            places: self.places,
            metadata: self.metadata,
            rows_read: self.rows_read,
            rows_left_out: self.rows_left_out,
            left_out,
            paths: self.reading.paths.to_vec(),
            plates: numbered_within_batches(self.plates),
            all_features: self.features,
            kept,
            scratch: self.scratch.finish()?,
            aside: self.aside.finish()?,
        })
    }
}

/// Plates that are only numbered are numbered within their batch: of plate 1 of two batches two plates are made. Longer
/// barcodes that two batches share stay, and are left out.
fn numbered_within_batches(plates: BTreeMap<Barcode, PlateIndex>) -> BTreeMap<Barcode, PlateIndex> {
    let mut all = BTreeMap::new();
    for (plate, mut index) in plates {
        // Stable: rows of a batch stay in the order of the tables.
        index.places.sort_by(|(a, _), (b, _)| a.cmp(b));
        index.places.shrink_to_fit();
        let number =
            plate.as_str().len() <= LONGEST_NUMBER && plate.as_str().bytes().all(|b| b.is_ascii_digit());
        let batches = || index.places.chunk_by(|(a, _), (b, _)| a == b);
        if !number || batches().count() < 2 {
            all.insert(plate, index);
            continue;
        }
        let part = |places: &[(Option<String>, Place)]| -> Option<(Barcode, PlateIndex)> {
            let batch = places.first()?.0.as_ref()?;
            let name = format!("{batch}_{plate}").parse().ok()?;
            let places = places.to_vec();
            Some((name, PlateIndex { places }))
        };
        match batches().map(part).collect::<Option<Vec<_>>>() {
            Some(parts) => all.extend(parts),
            None => _ = all.insert(plate, index),
        }
    }
    all
}
