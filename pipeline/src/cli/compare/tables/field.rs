//! A field of view, averaged from the rows of its cells as they are read.

use std::hash::{DefaultHasher, Hash, Hasher};

use wellspring_workloads::words::Barcode;

use super::rows::{Label, Row};

/// A row as its table has it.
pub(super) struct Found {
    pub(super) plate: Barcode,
    /// The batch the plate is said to be of.
    pub(super) batch: Option<String>,
    pub(super) label: Label,
    pub(super) row: Row,
}

/// Cells of one field, being averaged.
pub(super) struct Field {
    pub(super) found: Found,
    sums: Vec<f64>,
    counts: Vec<u32>,
}

impl Field {
    pub(super) fn new(mut found: Found, width: usize) -> Self {
        found.row.cells = None;
        Self {
            found,
            sums: vec![0.0; width],
            counts: vec![0; width],
        }
    }

    /// Adds a cell; `cells` where the table counts the cells of its fields besides. A feature it lacks does not count
    /// (SCIENCE 3.2).
    pub(super) fn push(&mut self, cells: Option<f32>, values: &[f32]) {
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

    pub(super) fn mean(self) -> (Found, Vec<f32>) {
        let cells = self.sums.iter().zip(&self.counts);
        let values = cells
            .map(|(sum, count)| (sum / f64::from(*count)) as f32)
            .collect();
        (self.found, values)
    }
}

/// Tells the fields of a well apart; 0 where there is none.
pub(super) fn site_hash(site: Option<&str>) -> u32 {
    site.map_or(0, |site| {
        let mut hasher = DefaultHasher::new();
        site.hash(&mut hasher);
        (hasher.finish() as u32).max(1)
    })
}
