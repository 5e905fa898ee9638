//! Markers: where nuclei have their centres. Enters: a field with a hill per nucleus (distance to the edge, or smoothed
//! intensity) and the mask of one component. Leaves: its peaks, no two nearer than a least distance. Cannot fail.

use std::collections::HashMap;

/// Peaks of `field` in `mask`: pixels that nothing in the mask exceeds within `distance` pixels. Of equals nearer than
/// that, the first in the order of rows is taken. A mask that is not empty has at least one peak.
pub(crate) fn peaks(field: &[f32], mask: &[u8], height: usize, width: usize, distance: f64) -> Vec<usize> {
    let near = distance * distance;
    let reach = distance.ceil() as usize;
    let mut candidates: Vec<usize> = (0..mask.len())
        .filter(|&at| mask[at] != 0 && is_top_of(field, mask, height, width, at, 1, 3.0))
        .collect();
    candidates.sort_by(|&a, &b| field[b].total_cmp(&field[a]).then(a.cmp(&b)));
    let mut peaks: Vec<usize> = Vec::new();
    // Peaks by squares of `reach` pixels: those that are near lie in the same square or one beside it.
    let mut squares: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    for at in candidates {
        let (y, x) = (at / width, at % width);
        let (row, column) = (y / reach, x / reach);
        let is_near = |&other: &usize| {
            let (dy, dx) = (y.abs_diff(other / width), x.abs_diff(other % width));
            ((dy * dy + dx * dx) as f64) < near
        };
        let taken = (row.saturating_sub(1)..row + 2).any(|r| {
            (column.saturating_sub(1)..column + 2).any(|c| {
                squares
                    .get(&(r, c))
                    .is_some_and(|square| square.iter().any(is_near))
            })
        });
        // Most candidates are near a peak, which is quicker to see than all that is near them.
        if !taken && is_top_of(field, mask, height, width, at, reach, near) {
            peaks.push(at);
            squares.entry((row, column)).or_default().push(at);
        }
    }
    peaks
}

/// Whether no pixel of the mask at a squared distance below `near` is higher than that at `at`.
fn is_top_of(
    field: &[f32],
    mask: &[u8],
    height: usize,
    width: usize,
    at: usize,
    reach: usize,
    near: f64,
) -> bool {
    let (y, x) = (at / width, at % width);
    let (left, right) = (x.saturating_sub(reach), (x + reach + 1).min(width));
    (y.saturating_sub(reach)..(y + reach + 1).min(height)).all(|row| {
        let dy = row.abs_diff(y);
        (left..right).all(|column| {
            let dx = column.abs_diff(x);
            let other = row * width + column;
            mask[other] == 0 || field[other] <= field[at] || (dy * dy + dx * dx) as f64 >= near
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_keep_their_distance() {
        let field = [1.0, 5.0, 1.0, 4.0, 1.5, 1.2, 1.1, 3.0];
        let mask = [1; 8];
        assert_eq!(peaks(&field, &mask, 1, 8, 1.0), [1, 3, 7]);
        assert_eq!(peaks(&field, &mask, 1, 8, 3.0), [1, 7]);
        assert_eq!(peaks(&field, &mask, 1, 8, 100.0), [1]);
    }

    #[test]
    fn a_plateau_has_one_peak_and_masks_hide_hills() {
        assert_eq!(peaks(&[2.0; 6], &[1; 6], 2, 3, 5.0), [0]);
        assert_eq!(peaks(&[9.0, 1.0, 2.0], &[0, 1, 1], 1, 3, 5.0), [2]);
    }
}
