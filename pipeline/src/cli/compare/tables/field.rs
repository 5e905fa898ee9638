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
    /// What further cells say the well was given, each once, with the row of the first that does.
    pub(super) others: Vec<(Label, u64)>,
    sums: Vec<f64>,
    counts: Vec<u32>,
}

impl Field {
    pub(super) fn new(mut found: Found, width: usize) -> Self {
        found.row.cells = None;
        Self {
            found,
            others: Vec::new(),
            sums: vec![0.0; width],
            counts: vec![0; width],
        }
    }

    /// Adds a cell; `cells` where the table counts the cells of its fields besides. A feature it lacks does not count
    /// (SCIENCE 3.2); of one that no cell has, an infinite value is remembered as the reason.
    pub(super) fn push(&mut self, label: &Label, row: u64, cells: Option<f32>, values: &[f32]) {
        if *label != self.found.label && !self.others.iter().any(|(other, _)| other == label) {
            self.others.push((label.clone(), row));
        }
        let row = &mut self.found.row;
        row.averaged += 1;
        row.cells = cells.or(Some(row.averaged as f32));
        for ((sum, count), value) in self.sums.iter_mut().zip(&mut self.counts).zip(values) {
            if value.is_finite() {
                let before = if *count == 0 { 0.0 } else { *sum };
                *sum = before + f64::from(*value);
                *count += 1;
            } else if *count == 0 && value.is_infinite() {
                *sum = f64::from(*value);
            }
        }
    }

    /// The field as one row. A feature that no cell has is NaN, or infinite where a cell has it so.
    pub(super) fn mean(self) -> (Found, Vec<(Label, u64)>, Vec<f32>) {
        let cells = self.sums.iter().zip(&self.counts);
        let values = cells
            .map(|(sum, count)| (sum / f64::from(*count)) as f32)
            .collect();
        (self.found, self.others, values)
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
