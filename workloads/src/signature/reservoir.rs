//! The control wells that a null is made of, chosen from all of a screen.
//!
//! Wells are offered in any order, a [`ControlPool`] leaves. Memory is that of the wells that are kept. Nothing fails.

use std::collections::BinaryHeap;

use super::gather::ControlPool;
use crate::matrix::FeatureMatrix;
use crate::slots::Slots;
use crate::words::{Barcode, WellPosition};

/// The control wells of smallest hash: a sample that does not depend on the order they came in.
#[derive(Debug, Default)]
pub(super) struct Reservoir {
    kept: BinaryHeap<Control>,
    rows: Slots,
    /// Wells seen, kept or not.
    pub(super) offered: usize,
}

#[derive(Debug)]
struct Control {
    rank: (u64, Barcode, WellPosition),
    /// Its row's slot.
    row: u32,
    share: f64,
}

impl PartialEq for Control {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Control {}

impl PartialOrd for Control {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Control {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Reservoir {
    pub(super) fn offer(
        &mut self,
        most: usize,
        hash: u64,
        plate: &Barcode,
        well: WellPosition,
        row: impl ExactSizeIterator<Item = f32>,
        share: f64,
    ) {
        let rank = (hash, plate.clone(), well);
        if self.kept.len() >= most {
            if self.kept.peek().is_none_or(|largest| largest.rank <= rank) {
                return;
            }
            if let Some(largest) = self.kept.pop() {
                self.rows.forget(largest.row);
            }
        }
        if self.kept.is_empty() {
            self.rows = Slots::new(most);
        }
        let row = self.rows.put(row);
        self.kept.push(Control { rank, row, share });
    }

    pub(super) fn pool(self, width: usize, moves: Vec<f64>) -> ControlPool {
        let mut rows = FeatureMatrix::new(width);
        let mut share = Vec::with_capacity(self.kept.len());
        for control in self.kept.into_sorted_vec() {
            let pushed = rows.push(self.rows.row(control.row));
            debug_assert!(pushed.is_ok(), "rows of one screen have one width");
            share.push(control.share);
        }
        ControlPool { rows, share, moves }
    }
}
