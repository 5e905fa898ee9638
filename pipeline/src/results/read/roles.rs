//! Which columns say where a row belongs: plate, well, field of view, cell; how many cells it stands for.
//!
//! Names of columns and what the screen says of them enter, [`Roles`] leave; then a row's cells enter and its
//! [`RowPlace`] leaves. Fails where a column that is named is absent, or none says the well.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use wellspring_workloads::columns::{self, Plain, grid_name, is_missing, plain, whole};
use wellspring_workloads::words::{Barcode, WellPosition, WordError};

/// What a column can be besides a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The well's position.
    Well,
    /// The well's row, where no column has the whole position: letters, or a number from 1.
    Row,
    /// The well's column, with the row.
    Column,
    /// The plate's barcode.
    Plate,
    /// The experiment that numbers its own plates.
    Experiment,
    /// Plate and well in one text, such as `HRCE-1_2_AA05`.
    WellId,
    /// Plate, well and field in one text, such as `HRCE-1_2_AA05_1`.
    SiteId,
    /// The field of view.
    Site,
    /// The cell.
    Object,
    /// How many cells the row stands for.
    Cells,
    /// How many fields the row stands for.
    Sites,
    /// The verdict of quality control: rows with `fail` do not count.
    Quality,
    /// Whether the row was held back from the comparison for which it was made: `true` does not count.
    HeldBack,
    /// The batch or source of the plate.
    Batch,
}

impl Role {
    const ALL: [Self; 14] = [
        Self::Well,
        Self::Row,
        Self::Column,
        Self::Plate,
        Self::Experiment,
        Self::WellId,
        Self::SiteId,
        Self::Site,
        Self::Object,
        Self::Cells,
        Self::Sites,
        Self::Quality,
        Self::HeldBack,
        Self::Batch,
    ];

    /// Plain names that are recognised, in order of preference: in any case, with or without `Metadata_`,
    /// `Image_Metadata_` or `Image_`.
    pub fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Well => columns::WELL,
            Self::Row => columns::ROW,
            Self::Column => columns::COLUMN,
            Self::Plate => columns::PLATE,
            Self::Experiment => &["experiment", "experiment_name"],
            Self::WellId => &["well_id"],
            Self::SiteId => &["site_id"],
            Self::Site => &[
                "site",
                "field",
                "fieldid",
                "field_id",
                "field_of_view",
                "fov",
                "imagenumber",
                "image_number",
            ],
            // No `cell_id`: in tables of the Connectivity Map it is the cell line.
            Self::Object => &[
                "objectnumber",
                "object_number",
                "object_id",
                "cells_objectnumber",
                "nuclei_objectnumber",
                "cells_number_object_number",
                "nuclei_number_object_number",
                "cytoplasm_parent_cells",
                "cytoplasm_parent_nuclei",
                // DeepProfiler numbers no cells and says where they are.
                "location_center_x",
            ],
            Self::Cells => &[
                "object_count",
                "count_cells",
                "cell_count",
                "cellcount",
                "cells_count",
                "n_cells",
                "number_of_singlecells",
                "count_nuclei",
                "nuclei_count",
            ],
            Self::Sites => &["site_count"],
            Self::Quality => &["quality"],
            Self::HeldBack => &["held_back"],
            Self::Batch => &["batch", "source", "batch_number"],
        }
    }

    /// The column of this role among `names`.
    pub fn find(self, names: &[String]) -> Option<usize> {
        Plain::of(names).find(self.usual())
    }
}

/// Whether a name says where a row belongs: never a feature.
pub(super) fn is_place(name: &str) -> bool {
    static PLACES: LazyLock<HashSet<&str>> =
        LazyLock::new(|| Role::ALL.iter().flat_map(|role| role.usual()).copied().collect());
    PLACES.contains(plain(name).0.as_str())
}

/// Columns that the screen names itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleNames {
    /// Columns that name the plate together; empty: recognised.
    pub plate: Vec<String>,
    /// The well.
    pub well: Option<String>,
    /// The field of view.
    pub site: Option<String>,
    /// Cells of a row.
    pub cells: Option<String>,
}

impl RoleNames {
    /// All names: none of them is a feature.
    pub fn all(&self) -> Vec<String> {
        let single = [&self.well, &self.site, &self.cells];
        let single = single.into_iter().flatten();
        self.plate.iter().chain(single).cloned().collect()
    }
}

/// Why the place of a row, or of all rows, is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A column that the screen names is absent.
    #[error("there is no column '{name}', which [profiles] of the screen names; the columns are {}", known.join(", "))]
    NoSuchColumn {
        /// The name.
        name: String,
        /// Columns of the table that are no features, at most 30.
        known: Vec<String>,
    },
    /// No column says which well a row is about.
    #[error(
        "there is no well column: expected one of {expected} (with or without Metadata_), a row and a column, or \
         [profiles] well = \"...\" in the screen file; the columns are {}",
        known.join(", ")
    )]
    NoWell {
        /// The names that are understood.
        expected: String,
        /// Columns of the table that are no features, at most 30.
        known: Vec<String>,
    },
    /// The cell of a row is empty.
    #[error("column {column} is empty")]
    Empty {
        /// The column.
        column: String,
    },
    /// The cell cannot be read.
    #[error("column {column}: {source}")]
    Word {
        /// The column.
        column: String,
        /// Why.
        source: WordError,
    },
}

/// Where a row belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlace {
    /// The plate; `None` where no column says so.
    pub plate: Option<Barcode>,
    /// The well.
    pub well: WellPosition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum WellFrom {
    Own(usize),
    /// From its row and its column.
    Grid(usize, usize),
    /// From a text of plate, well and, if `true`, field.
    Id(usize, bool),
}

/// The columns of a table by role, as places in its list of metadata columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    names: Vec<String>,
    well: WellFrom,
    plate: Vec<usize>,
    found: Vec<(Role, usize)>,
}

/// Most names shown in a message.
const SHOWN: usize = 30;

impl Roles {
    /// Finds the columns among `names`.
    ///
    /// # Errors
    /// [`PlaceError`] where a named column is absent, or there is no well.
    pub fn find(names: &[String], chosen: &RoleNames) -> Result<Self, PlaceError> {
        let known = || names.iter().take(SHOWN).cloned().collect();
        let position = |name: &str| names.iter().position(|other| other == name);
        let named = |name: &String| {
            position(name).ok_or_else(|| PlaceError::NoSuchColumn {
                name: name.clone(),
                known: known(),
            })
        };
        let plain = Plain::of(names);
        let mut found: Vec<(Role, usize)> = Role::ALL
            .iter()
            .filter_map(|role| Some((*role, plain.find(role.usual())?)))
            .collect();
        for (role, name) in [
            (Role::Well, &chosen.well),
            (Role::Site, &chosen.site),
            (Role::Cells, &chosen.cells),
        ] {
            if let Some(name) = name {
                let at = named(name)?;
                found.retain(|(other, _)| *other != role);
                found.push((role, at));
            }
        }
        let of = |role: Role| found.iter().find(|(other, _)| *other == role).map(|(_, at)| *at);
        let ids = [(Role::WellId, false), (Role::SiteId, true)];
        let id = ids
            .into_iter()
            .find_map(|(role, field)| Some(WellFrom::Id(of(role)?, field)));
        let grid = of(Role::Row)
            .zip(of(Role::Column))
            .map(|(row, column)| WellFrom::Grid(row, column));
        // An identifier says the plate too; a row and a column only go with a plate that has a column of its own.
        let (first, second) = match of(Role::Plate) {
            Some(_) => (grid, id),
            None => (id, grid),
        };
        let well = of(Role::Well)
            .map(WellFrom::Own)
            .or(first)
            .or(second)
            .ok_or_else(|| PlaceError::NoWell {
                expected: Role::Well.usual().join(", "),
                known: known(),
            })?;
        let plate = if chosen.plate.is_empty() {
            match (of(Role::Plate), of(Role::Experiment), &well) {
                (_, _, WellFrom::Id(..)) => Vec::new(),
                // Plates that are only numbered are numbered within their experiment.
                (Some(plate), Some(experiment), _) if names[plate].eq_ignore_ascii_case("plate") => {
                    vec![experiment, plate]
                }
                (Some(plate), ..) => vec![plate],
                (None, ..) => Vec::new(),
            }
        } else {
            chosen.plate.iter().map(named).collect::<Result<_, _>>()?
        };
        Ok(Self {
            names: names.to_vec(),
            well,
            plate,
            found,
        })
    }

    /// The column of a role.
    pub fn column(&self, role: Role) -> Option<usize> {
        self.found
            .iter()
            .find(|(other, _)| *other == role)
            .map(|(_, at)| *at)
    }

    /// Takes a role from its column, which turned out not to have it.
    pub fn forget(&mut self, role: Role) {
        self.found.retain(|(other, _)| *other != role);
    }

    /// For people: what the rows' places are read from, as role and columns.
    pub fn described(&self) -> Vec<(&'static str, String)> {
        let name = |at: &usize| self.names[*at].clone();
        let plates: Vec<String> = self.plate.iter().map(name).collect();
        let (well, plate_of_id) = match self.well {
            WellFrom::Own(at) => (name(&at), None),
            WellFrom::Grid(row, column) => (format!("{} and {}", name(&row), name(&column)), None),
            WellFrom::Id(at, _) => (name(&at), Some(name(&at))),
        };
        let plate = plate_of_id.filter(|_| plates.is_empty());
        let plate = plate.unwrap_or_else(|| plates.join(" and "));
        let others = [
            ("field", Role::Site),
            ("cell", Role::Object),
            ("cell count", Role::Cells),
            ("batch", Role::Batch),
        ];
        let others = others
            .into_iter()
            .filter_map(|(word, role)| Some((word, name(&self.column(role)?))));
        [("plate", plate), ("well", well)]
            .into_iter()
            .filter(|(_, name)| !name.is_empty())
            .chain(others)
            .collect()
    }

    /// All columns that have a role.
    pub fn used(&self) -> Vec<usize> {
        let found = self.found.iter().map(|(_, at)| *at);
        found.chain(self.plate.iter().copied()).collect()
    }

    /// The place of a row, given its cells by column.
    ///
    /// # Errors
    /// [`PlaceError`] names the column.
    pub fn place<'r>(&self, cell: impl Fn(usize) -> Option<&'r str>) -> Result<RowPlace, PlaceError> {
        let filled = |at: usize| {
            let known = cell(at).filter(|text| !is_missing(text));
            known.ok_or_else(|| PlaceError::Empty {
                column: self.names[at].clone(),
            })
        };
        let word = |at: usize| {
            move |source| PlaceError::Word {
                column: self.names[at].clone(),
                source,
            }
        };
        let (at, text, plate_of_id) = match self.well {
            WellFrom::Own(at) => (at, Cow::Borrowed(filled(at)?), None),
            WellFrom::Grid(at, column) => {
                let (row, column) = (filled(at)?, filled(column)?);
                (at, Cow::Owned(grid_name(row, column)), None)
            }
            WellFrom::Id(at, with_field) => {
                let text = filled(at)?;
                let text = if with_field {
                    text.rsplit_once('_').map_or(text, |(rest, _)| rest)
                } else {
                    text
                };
                match text.rsplit_once('_') {
                    Some((plate, well)) => (at, Cow::Borrowed(well), Some(plate)),
                    None => (at, Cow::Borrowed(text), None),
                }
            }
        };
        let well: WellPosition = text.parse().map_err(word(at))?;
        let plate = match (self.plate.as_slice(), plate_of_id) {
            ([], None) => None,
            ([], Some(plate)) => Some(plate.parse().map_err(word(at))?),
            ([one], _) => Some(whole(filled(*one)?).parse().map_err(word(*one))?),
            (several, _) => {
                let parts = several.iter().map(|at| filled(*at).map(whole));
                let parts: Vec<&str> = parts.collect::<Result<_, _>>()?;
                Some(parts.join("_").parse().map_err(word(several[0]))?)
            }
        };
        Ok(RowPlace { plate, well })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn place(header: &str, row: &str, chosen: &RoleNames) -> Result<String, PlaceError> {
        let roles = Roles::find(&names(header), chosen)?;
        let cells: Vec<&str> = row.split(' ').collect();
        let place = roles.place(|at| cells.get(at).copied().filter(|cell| *cell != "-"))?;
        let plate = place.plate.map_or_else(String::new, |plate| plate.to_string());
        Ok(format!("{plate} {}", place.well))
    }

    #[test]
    fn places_are_found_under_the_names_of_each_tool() {
        let usual = RoleNames::default();
        for (header, row, expected) in [
            ("Metadata_Plate Metadata_Well", "BR1 b3", "BR1 B03"),
            ("Assay_Plate_Barcode well_position", "BR1 P24", "BR1 P24"),
            ("well", "A1", " A01"),
            ("experiment plate well", "HRCE-1 2 AA05", "HRCE-1_2 AA05"),
            ("well_id feature", "HRCE-1_2_AA05 -", "HRCE-1_2 AA05"),
            ("site_id feature", "HRCE-1_2_AA05_4 -", "HRCE-1_2 AA05"),
            (
                "well_id experiment_name plate address",
                "compound-1_2_B07 compound-1 2 B07",
                "compound-1_2 B07",
            ),
            ("experiment Metadata_Plate well", "e BR7 A01", "BR7 A01"),
            ("Metadata_Plate Metadata_Row Metadata_Col", "7 3 12", "7 C12"),
            ("Metadata_Plate WellRow WellCol", "22123.0 aa 1.0", "22123 AA01"),
            (
                "Plate Metadata_Well Metadata_Row Metadata_Col",
                "7 B02 9 9",
                "7 B02",
            ),
            (
                "Image_Metadata_Plate_DAPI Image_Metadata_Well_DAPI",
                "Week1_22123 B02",
                "Week1_22123 B02",
            ),
            (
                "Metadata_Plate_Map_Name Plate_Barcode WELL",
                "C-1 BR9 B02",
                "BR9 B02",
            ),
        ] {
            assert_eq!(place(header, row, &usual).unwrap(), expected, "{header}");
        }
    }

    #[test]
    fn the_screen_may_name_them() {
        let chosen = RoleNames {
            plate: names("batch dish"),
            well: Some("spot".to_owned()),
            ..RoleNames::default()
        };
        assert_eq!(
            place("dish spot batch well", "7 c4 x A01", &chosen).unwrap(),
            "x_7 C04"
        );
        let error = place("dish well batch", "7 c4 x", &chosen)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("'spot'") && error.contains("dish, well, batch"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_names_the_column() {
        let usual = RoleNames::default();
        for (header, row, words) in [
            ("a b", "1 2", "Metadata_"),
            ("Plate Row Col", "P 0 3", "column Row: '03'"),
            ("Plate Well", "P ZZZ", "column Well: 'ZZZ'"),
            ("Plate Well", "- A01", "column Plate is empty"),
            ("Plate Well", "P -", "column Well is empty"),
        ] {
            let error = place(header, row, &usual).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
