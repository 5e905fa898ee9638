//! From feature tables to an index of their plates.
//!
//! Tables enter and are read once, block by block; features and what else is known of a row go to scratch files, and
//! only a place per plate stays in memory. Then the rows of one plate at a time leave. Rows and columns that cannot be
//! used are left out, counted and named: a feature that is missing in more than [`MOST_MISSING`] of the rows is
//! dropped, and then every row that still misses one; a well that occurs twice, and a barcode of two plates. Nothing
//! is imputed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use wellspring::results::{Block, ColumnRole, FeatureColumns, ProfileFile, RoleNames, Roles};
use wellspring_workloads::aggregate::{Aggregate, WellFields};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::join::{Finder, Join};
use super::left_out::{Kind, LeftOut};
use super::scratch::{Place, Scratch, ScratchWriter};

/// Most of its rows in which a feature may be missing before it is dropped (SCIENCE 3.2, 5.5).
const MOST_MISSING: f64 = 0.05;
/// Features that are named where they are dropped.
const NAMED_FEATURES: usize = 12;
/// Rows of a plate that are gathered in memory before they are set aside.
const MOST_GATHERED: usize = 16 << 10;

/// One row of features: a field or a well; the fields of tables of cells are made by averaging their cells.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) well: WellPosition,
    /// Hash of the field's name; 0 where the table has no fields.
    site: u32,
    /// What says how the well was treated, as a place in [`PlateRows::labels`].
    pub(super) label: u32,
    /// Place in the scratch file of features.
    record: u64,
    /// Row of its table and the table; only for messages.
    row: u64,
    file: u16,
    /// Whether quality control passed.
    pub(super) passed: bool,
    finite: bool,
    /// Fields the row stands for.
    pub(super) fields: u16,
    /// Cells averaged here; 0 where the row is no average of ours.
    averaged: u32,
    /// Cells it stands for, where they were counted.
    pub(super) cells: Option<f32>,
}

/// Cells of the label columns.
pub(super) type Label = Vec<Option<String>>;

/// Rows of one plate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct PlateRows {
    /// By well, then in the order of reading.
    pub(super) rows: Vec<Row>,
    pub(super) labels: Vec<Label>,
}

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
    /// Which of the labels that were asked for some table has.
    label_at: Vec<usize>,
    /// Names of these, as the map that is made of them has them.
    pub(super) label_names: Vec<String>,
    /// Names of the same columns in the tables.
    pub(super) label_columns: Vec<String>,
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
    places: Vec<Place>,
    /// The batches it is said to be of.
    batches: BTreeSet<String>,
}

impl Tables {
    /// Reads all tables.
    pub(super) fn read(reading: &Reading<'_>, screen: &Screen) -> anyhow::Result<Self> {
        let names = role_names(screen);
        let reserved = names.all();
        let mut reader: Option<Reader<'_>> = None;
        let mut join: Option<Join> = None;
        for (number, path) in reading.paths.iter().enumerate() {
            let file = ProfileFile::open(path, &reading.features, &reserved)?;
            if let (Some(metadata), None) = (reading.metadata, &join) {
                let key = screen
                    .profiles
                    .as_ref()
                    .and_then(|profiles| profiles.key.as_deref());
                join = Some(Join::read(metadata, file.metadata(), key, &names)?);
            }
            let reader = match &mut reader {
                Some(reader) => {
                    reader.same_features(&file, &reading.paths[0])?;
                    reader
                }
                none => none.insert(Reader::new(reading, screen, file.features())?),
            };
            reader
                .file(number, file, join.as_ref(), &names)
                .with_context(|| format!("table '{}'", path.display()))?;
        }
        reader.context("no table is given")?.finish()
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
        for place in &index.places {
            let part: PlateRows = serde_json::from_slice(&self.aside.read(*place)?)?;
            let before = all.labels.len() as u32;
            all.rows.extend(part.rows.into_iter().map(|row| Row {
                label: row.label + before,
                ..row
            }));
            all.labels.extend(part.labels);
        }
        all.rows.sort_by_key(|row| (row.well, row.record));
        let read = all.rows.len();
        self.drop_missing(plate, &mut all.rows, left_out)?;
        self.drop_duplicates(plate, &mut all.rows, left_out);
        if index.batches.len() > 1 {
            all.rows.clear();
            let names: Vec<&str> = index.batches.iter().map(String::as_str).take(5).collect();
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

/// What the screen says of the tables' columns.
fn role_names(screen: &Screen) -> RoleNames {
    let profiles = screen.profiles.clone().unwrap_or_default();
    let columns = &screen.plate_map.columns;
    let own = screen.plate_map.file.is_empty();
    let map_plate = columns.plate.iter().filter(|_| own).cloned().collect();
    RoleNames {
        plate: if profiles.plate.is_empty() {
            map_plate
        } else {
            profiles.plate
        },
        well: profiles.well.or_else(|| columns.well.clone().filter(|_| own)),
        site: profiles.site,
        cells: profiles.cell_count,
    }
}

/// The screen's only plate, for tables that name none.
fn only_plate(screen: &Screen) -> Option<Barcode> {
    match (&screen.images.plate, screen.images.plates.as_slice()) {
        (Some(plate), _) => Some(plate.clone()),
        (None, [plate]) => Some(plate.clone()),
        (None, _) => None,
    }
}

/// A column under the name a screen may give it: with or without `Metadata_`, in any case.
fn column_named(names: &[String], wanted: &str) -> Option<usize> {
    let plain = |name: &str| name.strip_prefix("Metadata_").unwrap_or(name).to_lowercase();
    names
        .iter()
        .position(|name| name == wanted)
        .or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(wanted)))
        .or_else(|| names.iter().position(|name| plain(name) == plain(wanted)))
}

struct Reader<'a> {
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
    rows_read: u64,
    rows_left_out: u64,
    left_out: LeftOut,
}

/// Rows of one plate that follow each other.
struct Gathered {
    plate: Barcode,
    rows: PlateRows,
    labels: HashMap<Label, u32>,
}

/// A row as its table has it.
struct Found {
    plate: Barcode,
    label: Label,
    row: Row,
}

/// The columns of one table.
struct Layout<'j> {
    own: Vec<String>,
    join: Option<(&'j Join, Finder)>,
    roles: Roles,
    labels: Vec<Option<usize>>,
    /// By column of the table, its place among those that are decoded.
    slots: Vec<Option<usize>>,
    decoded: Vec<usize>,
}

/// Cells of one field, being averaged.
struct Field {
    found: Found,
    sums: Vec<f64>,
    counts: Vec<u32>,
}

impl<'a> Reader<'a> {
    fn new(reading: &'a Reading<'a>, screen: &Screen, features: &[String]) -> anyhow::Result<Self> {
        Ok(Self {
            reading,
            only_plate: only_plate(screen),
            features: features.to_vec(),
            scratch: ScratchWriter::create(reading.scratch)?,
            aside: ScratchWriter::create(reading.scratch)?,
            plates: BTreeMap::new(),
            gathered: None,
            label_columns: vec![None; reading.labels.len()],
            missing: vec![0; features.len()],
            records: 0,
            rows_read: 0,
            rows_left_out: 0,
            left_out: LeftOut::default(),
        })
    }

    fn same_features(&self, file: &ProfileFile, first: &Path) -> anyhow::Result<()> {
        if self.features == file.features() {
            return Ok(());
        }
        let difference = self.features.iter().zip(file.features()).find(|(a, b)| a != b);
        bail!(
            "'{}' has other features than '{}' ({} and {}{}); compare tables of one kind at a time, or choose common \
             columns with --columns",
            file.path().display(),
            first.display(),
            file.features().len(),
            self.features.len(),
            difference.map_or(String::new(), |(a, b)| format!(
                "; '{b}' where the first has '{a}'"
            ))
        )
    }

    fn layout<'j>(
        &mut self,
        file: &ProfileFile,
        join: Option<&'j Join>,
        names: &RoleNames,
    ) -> anyhow::Result<Layout<'j>> {
        let own = file.metadata().to_vec();
        let mut columns = own.clone();
        let join = match join {
            Some(join) => {
                columns.extend(join.columns.iter().cloned());
                Some((join, join.finder(&own, names)?))
            }
            None => None,
        };
        let roles = Roles::find(&columns, names)?;
        let mut labels = Vec::new();
        for ((wanted, needed), found) in self.reading.labels.iter().zip(&mut self.label_columns) {
            let at = column_named(&columns, wanted);
            *found = found.take().or_else(|| at.map(|at| columns[at].clone()));
            if at.is_none() && *needed {
                bail!(
                    "there is no column '{wanted}', which the screen's controls or plate_map.columns name; the columns \
                     that are no features are {}",
                    columns.join(", ")
                );
            }
            labels.push(at);
        }
        let mut slots = vec![None; own.len()];
        let mut decoded: Vec<usize> = roles
            .used()
            .into_iter()
            .chain(labels.iter().flatten().copied())
            .collect();
        if let Some((_, finder)) = &join {
            decoded.extend(finder.columns(&own));
        }
        decoded.retain(|at| *at < own.len());
        decoded.sort_unstable();
        decoded.dedup();
        for (slot, at) in decoded.iter().enumerate() {
            slots[*at] = Some(slot);
        }
        Ok(Layout {
            own,
            join,
            roles,
            labels,
            slots,
            decoded,
        })
    }

    fn file(
        &mut self,
        number: usize,
        file: ProfileFile,
        join: Option<&Join>,
        names: &RoleNames,
    ) -> anyhow::Result<()> {
        let layout = self.layout(&file, join, names)?;
        let number = u16::try_from(number).context("more than 65,535 tables")?;
        let mut field: Option<Field> = None;
        for block in file.blocks(&layout.decoded) {
            let block = block?;
            let width = self.features.len();
            for row in 0..block.rows {
                self.rows_read += 1;
                let values = &block.values[row * width..(row + 1) * width];
                let Some(found) = self.row(&layout, &block, row, number)? else {
                    self.rows_left_out += 1;
                    continue;
                };
                if layout.roles.column(ColumnRole::Object).is_none() {
                    self.keep(found, values)?;
                    continue;
                }
                let same = |field: &Field| {
                    let (a, b) = (&field.found, &found);
                    (&a.plate, a.row.well, a.row.site) == (&b.plate, b.row.well, b.row.site)
                };
                if !field.as_ref().is_some_and(same) {
                    self.end_field(field.take())?;
                }
                let cells = found.row.cells;
                field
                    .get_or_insert_with(|| Field::new(found, width))
                    .push(cells, values);
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
        let of = |role: ColumnRole| layout.roles.column(role).and_then(cell);
        if let Some(batch) = of(ColumnRole::Batch) {
            let known = self
                .plates
                .get(&plate)
                .is_some_and(|index| index.batches.contains(batch));
            if !known {
                let index = self.plates.entry(plate.clone()).or_default();
                index.batches.insert(batch.to_owned());
            }
        }
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
        Ok(Some(Found { plate, label, row }))
    }

    fn end_field(&mut self, field: Option<Field>) -> anyhow::Result<()> {
        let Some(field) = field else { return Ok(()) };
        let (found, values) = field.mean();
        self.keep(found, &values)
    }

    fn keep(&mut self, found: Found, values: &[f32]) -> anyhow::Result<()> {
        self.records += 1;
        let finite = values.iter().all(|value| value.is_finite());
        if !finite {
            for (missing, value) in self.missing.iter_mut().zip(values) {
                *missing += u64::from(!value.is_finite());
            }
        }
        let record = self.scratch.push_row(values)?;
        let fits =
            |gathered: &Gathered| gathered.plate == found.plate && gathered.rows.rows.len() < MOST_GATHERED;
        if !self.gathered.as_ref().is_some_and(fits) {
            self.set_aside()?;
        }
        let gathered = self.gathered.get_or_insert_with(|| Gathered {
            plate: found.plate,
            rows: PlateRows::default(),
            labels: HashMap::new(),
        });
        let label = match gathered.labels.get(&found.label) {
            Some(label) => *label,
            None => {
                let next = gathered.rows.labels.len() as u32;
                gathered.rows.labels.push(found.label.clone());
                gathered.labels.insert(found.label, next);
                next
            }
        };
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
        self.plates.entry(gathered.plate).or_default().places.push(place);
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<Tables> {
        self.set_aside()?;
        let most = MOST_MISSING * self.records as f64;
        let (dropped, kept): (Vec<usize>, Vec<usize>) =
            (0..self.features.len()).partition(|at| self.missing[*at] as f64 > most);
        let mut left_out = self.left_out;
        if !dropped.is_empty() {
            let share = |at: &usize| 100.0 * self.missing[*at] as f64 / self.records.max(1) as f64;
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
            label_at,
            label_names,
            label_columns,
            rows_read: self.rows_read,
            rows_left_out: self.rows_left_out,
            left_out,
            paths: self.reading.paths.to_vec(),
            plates: self.plates,
            all_features: self.features,
            kept,
            scratch: self.scratch.finish()?,
            aside: self.aside.finish()?,
        })
    }
}

impl Tables {
    /// Rows that miss a feature that is compared.
    fn drop_missing(
        &self,
        plate: &Barcode,
        rows: &mut Vec<Row>,
        left_out: &mut LeftOut,
    ) -> anyhow::Result<()> {
        let mut values = Vec::new();
        let mut usable = Vec::with_capacity(rows.len());
        for row in rows.drain(..) {
            if row.finite {
                usable.push(row);
                continue;
            }
            self.scratch
                .read_row(row.record, self.all_features.len(), &mut values)?;
            let Some(at) = self.kept.iter().find(|at| !values[**at].is_finite()) else {
                usable.push(row);
                continue;
            };
            left_out.push(Kind::Missing, || {
                format!(
                    "{} row {} (plate {plate} well {}): column {} is {}, the row is left out",
                    self.paths[usize::from(row.file)].display(),
                    row.row,
                    row.well,
                    self.all_features[*at],
                    if values[*at].is_nan() {
                        "missing"
                    } else {
                        "infinite"
                    }
                )
            });
        }
        *rows = usable;
        Ok(())
    }

    /// Wells that occur more often than once, without fields that tell their rows apart: nobody knows which row is
    /// right.
    fn drop_duplicates(&self, plate: &Barcode, rows: &mut Vec<Row>, left_out: &mut LeftOut) {
        let mut twice: BTreeSet<WellPosition> = BTreeSet::new();
        for well in rows
            .chunk_by(|a, b| a.well == b.well)
            .filter(|rows| rows.len() > 1)
        {
            let mut sites: HashMap<u32, &Row> = HashMap::new();
            // Cells of one field need not lie side by side.
            for row in well.iter().filter(|row| row.averaged == 0) {
                let Some(first) = sites.insert(row.site, row) else {
                    continue;
                };
                twice.insert(row.well);
                let file = |row: &Row| self.paths[usize::from(row.file)].display().to_string();
                left_out.push(Kind::Twice, || {
                    format!(
                        "plate {plate} well {} occurs twice ({} row {} and {} row {}) and is left out: two plates share \
                         a barcode, or the table has fields without a column Metadata_Site",
                        row.well,
                        file(first),
                        first.row,
                        file(row),
                        row.row
                    )
                });
                break;
            }
        }
        rows.retain(|row| !twice.contains(&row.well));
    }
}

impl Field {
    fn new(mut found: Found, width: usize) -> Self {
        found.row.cells = None;
        Self {
            found,
            sums: vec![0.0; width],
            counts: vec![0; width],
        }
    }

    /// Adds a cell; `cells` where the table counts the cells of its fields besides. A feature it lacks does not count
    /// (SCIENCE 3.2).
    fn push(&mut self, cells: Option<f32>, values: &[f32]) {
        let row = &mut self.found.row;
        row.averaged += 1;
        row.cells = cells.or(Some(row.averaged as f32));
        for ((sum, count), value) in self.sums.iter_mut().zip(&mut self.counts).zip(values) {
            if value.is_finite() {
                *sum += f64::from(*value);
                *count += 1;
            }
        }
    }

    fn mean(self) -> (Found, Vec<f32>) {
        let cells = self.sums.iter().zip(&self.counts);
        let values = cells
            .map(|(sum, count)| (sum / f64::from(*count)) as f32)
            .collect();
        (self.found, values)
    }
}

/// Tells the fields of a well apart; 0 where there is none.
fn site_hash(site: Option<&str>) -> u32 {
    site.map_or(0, |site| {
        let mut hasher = DefaultHasher::new();
        site.hash(&mut hasher);
        (hasher.finish() as u32).max(1)
    })
}
