//! Wells whose rows contradict each other in what the well was given.
//!
//! The rows of a plate enter, with the columns that count and when two cells of a column say the same; the wells leave
//! whose rows do not agree, each told with both values. Which of two treatments is right nobody knows, so that neither is
//! scored.

use std::collections::BTreeSet;

use wellspring_workloads::words::{Barcode, WellPosition};

use super::super::left_out::{Kind, LeftOut};
use super::Tables;
use super::rows::{Label, PlateRows};

/// What one row says of its well.
struct Says<'r> {
    label: &'r Label,
    file: u16,
    row: u64,
}

impl Tables {
    /// The wells of a plate whose rows differ in a column of `given`, places in [`Tables::label_names`]. `same` is asked
    /// with such a place and two cells.
    pub(in crate::cli::compare) fn contradicted(
        &self,
        plate: &Barcode,
        all: &PlateRows,
        given: &[usize],
        same: impl Fn(usize, &str, &str) -> bool,
        left_out: &mut LeftOut,
    ) -> BTreeSet<WellPosition> {
        let mut wells = BTreeSet::new();
        for rows in all.rows.chunk_by(|a, b| a.well == b.well) {
            let Some(first) = rows.first() else { continue };
            let others = all.others.iter().filter(|other| other.well == first.well);
            let others = others.map(|other| (other.label, other.file, other.row));
            let rows = rows.iter().map(|row| (row.label, row.file, row.row));
            let mut differing = rows.chain(others).filter(|(label, ..)| *label != first.label);
            let says = |(label, file, row): (u32, u16, u64)| {
                let label = all.labels.get(label as usize)?;
                Some(Says { label, file, row })
            };
            let Some(a) = says((first.label, first.file, first.row)) else {
                continue;
            };
            let found = differing.find_map(|other| {
                let b = says(other)?;
                let columns = self.differences(&a, &b, given, &same);
                (!columns.is_empty()).then_some((b, columns))
            });
            let Some((b, columns)) = found else { continue };
            wells.insert(first.well);
            let row = |says: &Says<'_>| {
                format!(
                    "{} row {}",
                    self.paths[usize::from(says.file)].display(),
                    says.row
                )
            };
            left_out.push(Kind::Contradicted, || {
                format!(
                    "plate {plate} well {}: {} and {} contradict each other: {}; the well is left out",
                    first.well,
                    row(&a),
                    row(&b),
                    columns.join(", ")
                )
            });
        }
        wells
    }

    /// The columns in which two rows differ, with both values.
    fn differences(
        &self,
        a: &Says<'_>,
        b: &Says<'_>,
        given: &[usize],
        same: &impl Fn(usize, &str, &str) -> bool,
    ) -> Vec<String> {
        let cells = |says: &Says<'_>, at: usize| -> String {
            let cell = self.label_at.get(at).and_then(|at| says.label.get(*at)?.clone());
            cell.unwrap_or_default()
        };
        let differing = given.iter().filter_map(|&at| {
            let (a, b) = (cells(a, at), cells(b, at));
            let column = self.label_columns.get(at)?;
            (!same(at, &a, &b)).then(|| format!("column {column} is '{a}' and '{b}'"))
        });
        differing.collect()
    }
}
