//! Rows of a plate that cannot be used: they miss a feature, or nobody knows which row of a well is right.

use std::collections::{BTreeSet, HashMap};

use wellspring_workloads::words::{Barcode, WellPosition};

use super::super::left_out::{Kind, LeftOut};
use super::Tables;
use super::rows::Row;

impl Tables {
    /// Rows that miss a feature that is compared.
    pub(super) fn drop_missing(
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
                        "empty or NaN"
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
    pub(super) fn drop_duplicates(&self, plate: &Barcode, rows: &mut Vec<Row>, left_out: &mut LeftOut) {
        let mut twice: BTreeSet<WellPosition> = BTreeSet::new();
        // Rows of cells are many to a well: where hardly a well has two, an object number was what a profile was made of.
        let wells = rows.chunk_by(|a, b| a.well == b.well).count() as u64;
        let cells: u64 = rows.iter().map(|row| u64::from(row.averaged)).sum();
        let of_cells = 2 * cells >= 3 * wells;
        for well in rows
            .chunk_by(|a, b| a.well == b.well)
            .filter(|rows| rows.len() > 1 || rows.iter().any(|row| row.averaged > 1))
        {
            let mut sites: HashMap<u32, &Row> = HashMap::new();
            // Cells of one field need not lie side by side.
            for row in well.iter().filter(|row| row.averaged == 0 || !of_cells) {
                let first = match sites.insert(row.site, row) {
                    Some(first) => first,
                    // Of rows that follow each other only the first is known.
                    None if row.averaged > 1 => row,
                    None => continue,
                };
                twice.insert(row.well);
                let file = |row: &Row| self.paths[usize::from(row.file)].display().to_string();
                let second = if first.record == row.record {
                    "the next row".to_owned()
                } else {
                    format!("{} row {}", file(row), row.row)
                };
                left_out.push(Kind::Twice, || {
                    format!(
                        "plate {plate} well {} occurs twice ({} row {} and {second}) and is left out: two plates share \
                         a barcode, or the table has fields without a column Metadata_Site, or cells without a column \
                         Metadata_ObjectNumber",
                        row.well,
                        file(first),
                        first.row
                    )
                });
                break;
            }
        }
        rows.retain(|row| !twice.contains(&row.well));
    }
}
