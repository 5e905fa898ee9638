//! The Cell Painting Gallery's plate maps: which map each barcode has, the maps, and what is known of their compounds.
//!
//! `barcode_platemap.csv` (`Assay_Plate_Barcode`, `Plate_Map_Name`) enters; the files `platemap/<name>.txt` and
//! `external_metadata.tsv` that it needs are named and come back as bytes; one table leaves, with a row per well of every
//! barcode. Fails with every problem of every file at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::error::{PlateMapError, PlateMapErrors, PlateMapProblem};
use super::table::{self, Table};
use super::{PlateMap, Sourced};
use crate::columns::{self, Plain, is_missing, whole};
use crate::screen::PlateMapSettings;

/// Plain names of the columns of the barcode file.
const BARCODE: &[&str] = &["assay_plate_barcode"];
const MAP_NAME: &[&str] = &["plate_map_name"];
/// Columns by which compounds are known, in order of preference.
const KEYS: &[&str] = &[
    "broad_sample",
    "jcp2022",
    "pert_id",
    "compound",
    "compound_id",
    "pert_iname",
];

/// A barcode file whose maps have to be read.
#[derive(Debug)]
pub struct GalleryMap {
    settings: PlateMapSettings,
    barcodes: Table,
    /// Line, barcode and map.
    plates: Vec<(u64, String, String)>,
    folder: String,
}

impl GalleryMap {
    /// Of a table with the two columns of the Gallery and no wells; anything else is given back.
    pub(super) fn of(table: Table, settings: &PlateMapSettings) -> Result<Self, Table> {
        let plain = Plain::of(&table.columns);
        let (Some(barcode), Some(name)) = (plain.find(BARCODE), plain.find(MAP_NAME)) else {
            return Err(table);
        };
        if plain.find(columns::WELL).is_some() {
            return Err(table);
        }
        let cell = |cells: &[String], at: usize| cells.get(at).cloned().unwrap_or_default();
        let plates = table.rows.iter();
        let plates = plates
            .map(|(line, cells)| (*line, cell(cells, barcode), cell(cells, name)))
            .collect();
        let folder = table
            .file
            .rfind(['/', '\\'])
            .map_or("", |at| &table.file[..=at])
            .to_owned();
        Ok(Self {
            settings: settings.clone(),
            barcodes: table,
            plates,
            folder,
        })
    }

    /// The map files, by path or URI, in order.
    pub fn maps(&self) -> BTreeSet<String> {
        let named = self.plates.iter().filter(|(_, _, name)| is_name(name));
        named.map(|(_, _, name)| self.path_of(name)).collect()
    }

    fn path_of(&self, name: &str) -> String {
        format!(
            "{}platemap/{}.txt",
            self.folder,
            name.strip_suffix(".txt").unwrap_or(name)
        )
    }

    /// Where the compounds' metadata may lie, the first that exists counts; and whether one of them must.
    pub fn external(&self) -> (Vec<String>, bool) {
        match &self.settings.external {
            Some(file) => (vec![file.clone()], true),
            None => {
                let usual = ["../../external_metadata/", "../external_metadata/", ""];
                let path = |place: &str| format!("{}{place}external_metadata.tsv", self.folder);
                (usual.map(path).to_vec(), false)
            }
        }
    }

    /// One map of all plates. `maps` has the bytes of [`GalleryMap::maps`], or why they could not be read; `external` the
    /// name and bytes of the compounds' metadata.
    ///
    /// # Errors
    /// Every problem of every file at once.
    pub fn join(
        self,
        maps: &BTreeMap<String, Result<Vec<u8>, String>>,
        external: Option<(&str, &[u8])>,
    ) -> Result<PlateMap, PlateMapErrors> {
        let mut errors = Vec::new();
        let mut report = |file: &str, line: u64, problem| {
            errors.push(PlateMapError {
                file: file.to_owned(),
                line,
                column: 1,
                problem,
            });
        };
        let mut first_of: HashMap<&str, u64> = HashMap::new();
        for (line, barcode, name) in &self.plates {
            if !is_name(name) {
                let name = name.clone();
                report(&self.barcodes.file, *line, PlateMapProblem::MapName { name });
            }
            if let Some(first) = first_of.insert(barcode, *line) {
                let barcode = barcode.clone();
                report(
                    &self.barcodes.file,
                    *line,
                    PlateMapProblem::DuplicateBarcode { barcode, first },
                );
            }
        }
        if self.plates.is_empty() {
            report(
                &self.barcodes.file,
                self.barcodes.header_line,
                PlateMapProblem::Empty { what: "plate" },
            );
        }
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        for path in self.maps() {
            match maps.get(&path) {
                Some(Ok(bytes)) => {
                    if let Some(table) = table::read(bytes, &path, None, &mut errors) {
                        tables.insert(path, table);
                    }
                }
                other => {
                    let reason = other.and_then(|answer| answer.clone().err()).unwrap_or_default();
                    let used = self
                        .plates
                        .iter()
                        .find(|(_, _, name)| is_name(name) && self.path_of(name) == path);
                    let line = used.map_or(1, |(line, _, _)| *line);
                    errors.push(PlateMapError {
                        file: self.barcodes.file.clone(),
                        line,
                        column: 1,
                        problem: PlateMapProblem::MapFile { path, reason },
                    });
                }
            }
        }
        let external = external.and_then(|(file, bytes)| {
            let table = table::read(bytes, file, None, &mut errors)?;
            External::of(table, tables.values(), &mut errors)
        });
        let (columns, rows) = self.rows(&tables, external.as_ref());
        super::read::map(
            &self.barcodes.file,
            columns,
            self.barcodes.header_line,
            rows,
            &self.settings,
            errors,
        )
    }

    /// The columns of everything, and a row for every well of every barcode.
    fn rows(
        &self,
        tables: &BTreeMap<String, Table>,
        external: Option<&External>,
    ) -> (Vec<String>, Vec<Sourced>) {
        let mut columns = vec!["Assay_Plate_Barcode".to_owned()];
        let added = external.map(|external| &external.table.columns);
        for name in tables
            .values()
            .flat_map(|table| &table.columns)
            .chain(added.into_iter().flatten())
        {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        let places = |names: &[String]| -> Vec<Option<usize>> {
            names
                .iter()
                .map(|name| columns.iter().position(|column| column == name))
                .collect()
        };
        let external = external.map(|external| (external, places(&external.table.columns)));
        let placed: BTreeMap<&str, (&Table, Vec<Option<usize>>)> = tables
            .iter()
            .map(|(path, table)| (path.as_str(), (table, places(&table.columns))))
            .collect();
        let mut rows = Vec::new();
        for (_, barcode, name) in &self.plates {
            let Some((table, at)) = placed.get(self.path_of(name).as_str()) else {
                continue;
            };
            for (line, cells) in &table.rows {
                let mut row = vec![String::new(); columns.len()];
                barcode.clone_into(&mut row[0]);
                let known = external
                    .as_ref()
                    .and_then(|(external, at)| Some((external.of_row(table, cells)?, at)));
                // What the map says of a well counts before what is known of its compound.
                let known = known.into_iter().flat_map(|(cells, at)| cells.iter().zip(at));
                for (cell, at) in known.chain(cells.iter().zip(at)) {
                    if let Some(place) = at.and_then(|at| row.get_mut(at))
                        && !cell.is_empty()
                    {
                        cell.clone_into(place);
                    }
                }
                rows.push(Sourced {
                    file: table.file.clone(),
                    line: *line,
                    cells: row,
                });
            }
        }
        (columns, rows)
    }
}

/// Whether a map's name can be a file's.
fn is_name(name: &str) -> bool {
    !is_missing(name) && !name.contains(['/', '\\']) && name != ".."
}

/// What is known of compounds, by the column that the maps have too.
struct External {
    table: Table,
    key: String,
    by_key: HashMap<String, usize>,
}

impl External {
    fn of<'a>(
        table: Table,
        maps: impl Iterator<Item = &'a Table>,
        errors: &mut Vec<PlateMapError>,
    ) -> Option<Self> {
        let in_maps: Vec<&String> = maps.flat_map(|map| &map.columns).collect();
        let common = |name: &&String| in_maps.contains(name);
        let plain = Plain::of(&table.columns);
        let usual = KEYS
            .iter()
            .filter_map(|key| table.columns.get(plain.find(&[key])?));
        let key = usual.chain(&table.columns).find(common).cloned();
        let mut report = |line: u64, problem| {
            errors.push(PlateMapError {
                file: table.file.clone(),
                line,
                column: 1,
                problem,
            });
        };
        let Some(key) = key else {
            let known = table.columns.clone();
            report(table.header_line, PlateMapProblem::NoCommonColumn { known });
            return None;
        };
        let at = table.columns.iter().position(|column| *column == key)?;
        let mut by_key: HashMap<String, usize> = HashMap::new();
        for (index, (line, cells)) in table.rows.iter().enumerate() {
            let Some(value) = cells.get(at).filter(|value| !is_missing(value)) else {
                continue;
            };
            let known = by_key.entry(whole(value).to_owned()).or_insert(index);
            // A second row that says the same does no harm.
            if table.rows.get(*known).is_some_and(|(_, first)| first != cells) {
                let first = table.rows.get(*known).map_or(0, |(line, _)| *line);
                let (column, value) = (key.clone(), value.clone());
                report(*line, PlateMapProblem::DuplicateCompound { column, value, first });
            }
        }
        Some(Self { table, key, by_key })
    }

    /// The row of the compound in a map's row.
    fn of_row(&self, map: &Table, cells: &[String]) -> Option<&Vec<String>> {
        let at = map.columns.iter().position(|column| *column == self.key)?;
        let index = self.by_key.get(whole(cells.get(at)?))?;
        self.table.rows.get(*index).map(|(_, cells)| cells)
    }
}
