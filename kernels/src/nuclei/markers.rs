//! Markers: where nuclei have their centres. Enters: a field with a hill per nucleus (distance to the edge, or smoothed
//! intensity) and the mask of one component. Leaves: its peaks, no two nearer than a least distance. Cannot fail.

/// Peaks of `field` in `mask`: pixels that nothing in the mask exceeds within `distance` pixels. Of equals nearer than
/// that, the first in the order of rows is taken. A mask that is not empty has at least one peak.
pub(crate) fn peaks(field: &[f32], mask: &[u8], height: usize, width: usize, distance: f64) -> Vec<usize> {
    let near = distance * distance;
    let reach = distance.ceil() as usize;
    let mut candidates: Vec<usize> = (0..mask.len())
        .filter(|&at| mask[at] != 0 && is_top_of(field, mask, height, width, at, 1, 3.0))
        .collect();
    candidates.retain(|&at| is_top_of(field, mask, height, width, at, reach, near));
    candidates.sort_by(|&a, &b| field[b].total_cmp(&field[a]).then(a.cmp(&b)));
    let mut peaks: Vec<usize> = Vec::new();
    for at in candidates {
        let far = |&other: &usize| {
            let (dy, dx) = (
                (at / width).abs_diff(other / width),
                (at % width).abs_diff(other % width),
            );
            (dy * dy + dx * dx) as f64 >= near
        };
        if peaks.iter().all(far) {
            peaks.push(at);
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
