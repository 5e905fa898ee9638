//! The columns of one table: which say where a row belongs, which what its well was given, and which are read at all.
//!
//! Names of columns and the screen enter, a [`Layout`] leaves. Fails where a column that the screen names is absent.

use anyhow::bail;
use wellspring::results::{ProfileFile, RoleNames, Roles};
use wellspring_workloads::columns::{Plain, plain};
use wellspring_workloads::screen::Screen;

use super::super::join::{Finder, Join};
use super::Reading;

/// Most columns that a message names: CellProfiler writes thousands.
const SHOWN: usize = 40;

/// The columns of one table.
pub(super) struct Layout<'j> {
    pub(super) own: Vec<String>,
    /// These and those of the metadata file.
    pub(super) columns: Vec<String>,
    pub(super) join: Option<(&'j Join, Finder)>,
    pub(super) roles: Roles,
    pub(super) labels: Vec<Option<usize>>,
    /// By column of the table, its place among those that are decoded.
    pub(super) slots: Vec<Option<usize>>,
    pub(super) decoded: Vec<usize>,
}

/// What the screen says of the tables' columns.
pub(super) fn role_names(screen: &Screen) -> RoleNames {
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

/// A column under the name a screen may give it: with or without `Metadata_`, in any case.
fn column_named(names: &[String], plain_names: &Plain, wanted: &str) -> Option<usize> {
    names
        .iter()
        .position(|name| name == wanted)
        .or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(wanted)))
        .or_else(|| plain_names.find(&[plain(wanted).0.as_str()]))
}

impl<'j> Layout<'j> {
    /// Finds the columns of a table. `label_columns` takes the names under which the labels were found.
    pub(super) fn find(
        reading: &Reading<'_>,
        label_columns: &mut [Option<String>],
        file: &ProfileFile,
        join: Option<&'j Join>,
        names: &RoleNames,
    ) -> anyhow::Result<Self> {
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
        let plain_names = Plain::of(&columns);
        let mut labels = Vec::new();
        for ((wanted, needed), found) in reading.labels.iter().zip(label_columns) {
            let at = column_named(&columns, &plain_names, wanted);
            *found = found.take().or_else(|| at.map(|at| columns[at].clone()));
            if at.is_none() && *needed {
                let dots = if columns.len() > SHOWN { ", ..." } else { "" };
                bail!(
                    "there is no column '{wanted}', which the screen's controls or plate_map.columns name; the columns \
                     that are no features are {}{dots}",
                    columns[..columns.len().min(SHOWN)].join(", ")
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
        Ok(Self {
            own,
            columns,
            join,
            roles,
            labels,
            slots,
            decoded,
        })
    }
}
