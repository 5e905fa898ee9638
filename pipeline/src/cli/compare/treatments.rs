//! What the wells of the tables were given: from a plate map, or from the tables' own columns.
//!
//! The tables' rows and the screen enter; treatments of one plate at a time leave, because those of a large screen need
//! not lie in memory together. Wells and plates without a usable treatment are left out with the reason.

use std::collections::{BTreeMap, BTreeSet};

use wellspring_workloads::columns::is_missing;
use wellspring_workloads::plate_map::{GivenColumns, PlateMap, same_dose, usual_columns};
use wellspring_workloads::profile::Treatment;
use wellspring_workloads::screen::{PlateMapSettings, Screen};
use wellspring_workloads::words::{Barcode, WellPosition};

use super::left_out::{Kind, LeftOut};
use super::tables::{PlateRows, Row, Tables};

/// Wells of one kind that are named for a plate.
const NAMED: usize = 12;
/// What messages call the map that is made of the tables' columns.
const OWN_COLUMNS: &str = "the tables' own columns";

/// Where treatments come from.
#[derive(Debug)]
pub(super) enum Treatments {
    /// A plate map.
    Map(PlateMap),
    /// Columns of the tables, or of the metadata file joined to them.
    Own(Box<PlateMapSettings>),
}

/// What each well of a plate was given.
type Given = BTreeMap<WellPosition, Treatment>;

impl Treatments {
    /// From the tables' own columns.
    pub(super) fn own(screen: &Screen) -> Self {
        let mut settings = screen.plate_map.clone();
        settings.columns.plate = Some("plate".to_owned());
        settings.columns.well = Some("well".to_owned());
        Self::Own(Box::new(settings))
    }

    /// The columns that [`Treatments::own`] needs of the tables, and whether their absence is an error.
    pub(super) fn columns(screen: &Screen) -> Vec<(String, bool)> {
        let columns = &screen.plate_map.columns;
        let named = [&columns.compound, &columns.dose, &columns.disease]
            .into_iter()
            .flatten();
        let needed = named.map(String::as_str).chain(screen.controls.columns());
        let mut all: Vec<(String, bool)> = Vec::new();
        let usual = usual_columns().map(|name| (name, false));
        for (name, needed) in needed.map(|name| (name.to_owned(), true)).chain(usual) {
            let place = ["plate", "well"]
                .iter()
                .any(|place| name.eq_ignore_ascii_case(place));
            if !place && !all.iter().any(|(other, _)| *other == name) {
                all.push((name, needed));
            }
        }
        all
    }

    /// The columns that say what a well was given, as the tables or the plate map name them.
    pub(super) fn given(&self, tables: &Tables) -> GivenColumns {
        match self {
            Self::Map(map) => map.given().clone(),
            Self::Own(settings) => {
                let given = GivenColumns::of(&tables.label_names, settings);
                let in_tables = |name: Option<String>| {
                    let at = tables
                        .label_names
                        .iter()
                        .position(|other| Some(other) == name.as_ref());
                    at.map(|at| tables.label_columns[at].clone())
                };
                GivenColumns {
                    compound: in_tables(given.compound),
                    dose: in_tables(given.dose),
                    disease: in_tables(given.disease),
                }
            }
        }
    }

    /// The columns among which those are.
    pub(super) fn columns_of<'t>(&'t self, tables: &'t Tables) -> &'t [String] {
        match self {
            Self::Map(map) => map.columns(),
            Self::Own(_) => &tables.metadata,
        }
    }

    /// What each well of a plate was given; what is left out is told to `left_out`.
    pub(super) fn of_plate(
        &self,
        screen: &Screen,
        tables: &Tables,
        plate: &Barcode,
        rows: &PlateRows,
        left_out: &mut LeftOut,
    ) -> Given {
        match self {
            Self::Map(map) => from_map(screen, map, plate, rows, left_out),
            Self::Own(settings) => from_columns(screen, settings, tables, plate, rows, left_out),
        }
    }

    /// Plates of the plate map that the tables do not have.
    pub(super) fn without_rows(&self, tables: &Tables, left_out: &mut LeftOut) {
        let Self::Map(map) = self else { return };
        for plate in map
            .plates()
            .filter(|plate| !tables.plates().any(|other| other == *plate))
        {
            let wells = map.plate(plate).map_or(0, BTreeMap::len);
            left_out.push(Kind::Map, || {
                format!(
                    "plate {plate}: {} has {wells} wells, the tables have none of them",
                    map.file()
                )
            });
        }
    }
}

fn shown(wells: &[WellPosition]) -> String {
    let names: Vec<String> = wells.iter().take(NAMED).map(ToString::to_string).collect();
    let dots = if wells.len() > NAMED { ", ..." } else { "" };
    format!("{}{dots}", names.join(", "))
}

fn has_rows(rows: &[Row], well: WellPosition) -> bool {
    rows.binary_search_by_key(&well, |row| row.well).is_ok()
}

fn from_map(
    screen: &Screen,
    map: &PlateMap,
    plate: &Barcode,
    all: &PlateRows,
    left_out: &mut LeftOut,
) -> Given {
    let rows = all.rows.as_slice();
    let given = known_wells(screen, map, plate, rows, left_out);
    let Some(mapped) = map.plate(plate) else {
        return given;
    };
    let mut unknown: Vec<WellPosition> = rows.iter().map(|row| row.well).collect();
    unknown.retain(|well| !mapped.contains_key(well));
    unknown.dedup();
    if !unknown.is_empty() {
        left_out.push(Kind::Plates, || {
            format!(
                "plate {plate}: {} wells have features but no row in {} and are left out: {}",
                unknown.len(),
                map.file(),
                shown(&unknown)
            )
        });
    }
    let absent: Vec<WellPosition> = mapped
        .keys()
        .copied()
        // A row that could not be used was told by itself.
        .filter(|well| all.wells.binary_search(well).is_err())
        .collect();
    if !absent.is_empty() {
        left_out.push(Kind::Map, || {
            format!(
                "plate {plate}: {} wells of {} have no features: {}",
                absent.len(),
                map.file(),
                shown(&absent)
            )
        });
    }
    given
}

/// The treatments of the wells that the map has.
fn known_wells(
    screen: &Screen,
    map: &PlateMap,
    plate: &Barcode,
    rows: &[Row],
    left_out: &mut LeftOut,
) -> Given {
    let (treatments, mut bare) = match screen.treatments_of_known_wells(map, plate) {
        Ok(found) => found,
        Err(errors) => {
            left_out.push(Kind::Plates, || format!("plate {plate} is left out: {errors}"));
            return Given::new();
        }
    };
    bare.retain(|well| has_rows(rows, *well));
    if !bare.is_empty() {
        let column = match &map.given().compound {
            Some(column) => format!("column {column} of {}", map.file()),
            None => map.file().to_owned(),
        };
        left_out.push(Kind::Plates, || {
            format!(
                "plate {plate}: {} wells are no control and have no compound in {column}, and are left out: {}; another \
                 column may name one: [plate_map] columns = {{ compound = \"...\" }}",
                bare.len(),
                shown(&bare)
            )
        });
    }
    treatments
}

/// Makes a plate map of the label columns. A well whose cells cannot be read is left out, not its plate.
fn from_columns(
    screen: &Screen,
    settings: &PlateMapSettings,
    tables: &Tables,
    plate: &Barcode,
    rows: &PlateRows,
    left_out: &mut LeftOut,
) -> Given {
    let contradicted = contradicted(screen, settings, tables, plate, rows, left_out);
    let wells = rows.rows.chunk_by(|a, b| a.well == b.well);
    let mut wells: Vec<&Row> = wells.filter_map(<[Row]>::first).collect();
    wells.retain(|row| !contradicted.contains(&row.well));
    while !wells.is_empty() {
        let errors = match map_text(tables, plate, rows, &wells) {
            Ok(text) => match PlateMap::parse(&text, OWN_COLUMNS, settings) {
                Ok(map) => return known_wells(screen, &map, plate, &rows.rows, left_out),
                Err(errors) => errors.0,
            },
            Err(error) => {
                left_out.push(Kind::Plates, || format!("plate {plate} is left out: {error}"));
                break;
            }
        };
        // Line 1 is the header; a problem there concerns all wells.
        let place = |line: u64| {
            usize::try_from(line)
                .ok()?
                .checked_sub(2)
                .filter(|at| *at < wells.len())
        };
        let mut bad = Vec::new();
        for error in &errors {
            let Some(at) = place(error.line) else {
                left_out.push(Kind::Plates, || format!("plate {plate} is left out: {error}"));
                return Given::new();
            };
            bad.push(at);
            // Plate and well stand before the labels, and columns are counted from 1.
            let column = error
                .column
                .checked_sub(3)
                .and_then(|column| tables.label_columns.get(column));
            left_out.push(Kind::Wells, || {
                format!(
                    "plate {plate} well {}{}: {}; the well is left out",
                    wells[at].well,
                    column.map_or(String::new(), |column| format!(" column {column}")),
                    error.problem
                )
            });
        }
        let kept = wells.into_iter().enumerate().filter(|(at, _)| !bad.contains(at));
        wells = kept.map(|(_, row)| row).collect();
    }
    Given::new()
}

/// The wells whose rows differ in what the screen reads of them: compound, dose, disease, and the columns of its
/// controls.
fn contradicted(
    screen: &Screen,
    settings: &PlateMapSettings,
    tables: &Tables,
    plate: &Barcode,
    rows: &PlateRows,
    left_out: &mut LeftOut,
) -> BTreeSet<WellPosition> {
    let names = &tables.label_names;
    let given = GivenColumns::of(names, settings);
    let at = |name: &str| names.iter().position(|other| other == name);
    let dose = given.dose.as_deref().and_then(at);
    let read = [&given.compound, &given.dose, &given.disease]
        .into_iter()
        .flatten();
    let read = read.map(String::as_str).chain(screen.controls.columns());
    let read: BTreeSet<usize> = read.filter_map(at).collect();
    let read: Vec<usize> = read.into_iter().collect();
    let same = |column: usize, a: &str, b: &str| {
        let (a, b) = (a.trim(), b.trim());
        a == b
            || (is_missing(a) && is_missing(b))
            || (Some(column) == dose && same_dose(a, b, &names[column], &settings.dose_unit))
            || matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
    };
    tables.contradicted(plate, rows, &read, same, left_out)
}

/// The labels of wells as a plate map, without the columns that no table has.
fn map_text(tables: &Tables, plate: &Barcode, rows: &PlateRows, wells: &[&Row]) -> anyhow::Result<String> {
    let mut text = csv::Writer::from_writer(Vec::new());
    text.write_record(
        ["plate", "well"]
            .into_iter()
            .chain(tables.label_names.iter().map(String::as_str)),
    )?;
    for row in wells {
        let place = [plate.to_string(), row.well.to_string()];
        let label = &rows.labels[row.label as usize];
        let cells = tables
            .label_of(label)
            .map(|cell| cell.unwrap_or_default().to_owned());
        text.write_record(place.into_iter().chain(cells))?;
    }
    Ok(String::from_utf8(text.into_inner()?)?)
}
