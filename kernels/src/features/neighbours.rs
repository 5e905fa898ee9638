//! Neighbours and numbers of objects. Enters: centres, or labels. Leaves: how far the nearest other centre is, how many
//! objects there are and how much of the field they cover. Cannot fail.

use crate::nuclei::LabelImage;

/// Distance from each centre (row, column) to the nearest other, in pixels; NaN of the only one. Source: CellProfiler
/// MeasureObjectNeighbors, FirstClosestDistance.
pub(crate) fn nearest(centres: &[(f64, f64)]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..centres.len()).collect();
    order.sort_by(|&a, &b| centres[a].0.total_cmp(&centres[b].0));
    let mut out = vec![f64::NAN; centres.len()];
    for (rank, &at) in order.iter().enumerate() {
        let (y, x) = centres[at];
        let mut best = f64::INFINITY;
        // Outwards in both directions, until the rows alone are farther apart than the nearest centre.
        let mut look = |other: &usize| {
            let (oy, ox) = centres[*other];
            let rows = oy - y;
            if rows.abs() >= best {
                return false;
            }
            best = best.min(rows.hypot(ox - x));
            true
        };
        let _ = order[rank + 1..].iter().all(&mut look);
        let _ = order[..rank].iter().rev().all(&mut look);
        if best.is_finite() {
            out[at] = best;
        }
    }
    out
}

/// Numbers of the objects of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Population {
    /// Objects, those on the border included.
    pub count: usize,
    /// Pixels that objects cover.
    pub covered: usize,
    /// Pixels of the field.
    pub pixels: usize,
}

impl Population {
    /// Counts the objects of `labels`.
    pub fn of(labels: &LabelImage) -> Self {
        Self {
            count: labels.count(),
            covered: labels.boxes().iter().map(|b| b.area).sum(),
            pixels: labels.height() * labels.width(),
        }
    }

    /// Part of the field that objects cover, 0 to 1.
    pub fn confluence(&self) -> f64 {
        self.covered as f64 / self.pixels as f64
    }

    /// CellProfiler's names and values for objects of the given name: `Count_<objects>`, and the pixels that they
    /// cover and that there are, `AreaOccupied_AreaOccupied_<objects>` and `AreaOccupied_TotalArea_<objects>`.
    pub fn measures(&self, objects: &str) -> [(String, f64); 3] {
        [
            (format!("Count_{objects}"), self.count as f64),
            (
                format!("AreaOccupied_AreaOccupied_{objects}"),
                self.covered as f64,
            ),
            (format!("AreaOccupied_TotalArea_{objects}"), self.pixels as f64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The definition: the least of all distances.
        #[test]
        fn nearest_equals_the_definition(centres in prop::collection::vec((0.0f64..50.0, 0.0f64..50.0), 0..40)) {
            for (i, got) in nearest(&centres).into_iter().enumerate() {
                let least = centres.iter().enumerate().filter(|(j, _)| *j != i)
                    .map(|(_, c)| (c.0 - centres[i].0).hypot(c.1 - centres[i].1))
                    .fold(f64::INFINITY, f64::min);
                prop_assert!(got == least || (got.is_nan() && centres.len() == 1));
            }
        }
    }
}
