//! Haralick correlation of a field at a distance: near 1 for debris and shading, whose light spans many pixels, near 0
//! for cells in focus. Enters: a plane and its range. Leaves: -1 to 1. Cannot fail.
//!
//! Values from the least to the largest are cut into eight equal levels; of all pairs of pixels `distance` columns apart,
//! left and right are correlated over the levels. 0 where one side has a single level, or no pair exists. Source:
//! CellProfiler MeasureImageQuality, Correlation; centrosome `Haralick`, H3.

use super::SCALE;

/// Levels of grey.
const LEVELS: usize = 8;

/// Rows per count: so few pairs that 32 bits hold any row, added up in 64.
type Counts = [[u32; LEVELS]; LEVELS];

/// The correlation over `distance` columns of a plane whose values lie in `least..=most`.
pub(super) fn correlation(plane: &[u16], width: usize, distance: usize, least: u16, most: u16) -> f64 {
    if width <= distance || least >= most {
        return 0.0;
    }
    // By the peer's steps on its scale, so that values on the border of two levels are rounded to the same side.
    let scaled = |v: u16| f64::from(v) / SCALE;
    let (low, range) = (scaled(least), scaled(most) - scaled(least));
    let table: Vec<u8> = (least..=most)
        .map(|v| {
            let at = (scaled(v) - low) / range * LEVELS as f64;
            (at as usize).min(LEVELS - 1) as u8
        })
        .collect();
    let level = |v: u16| table.get(usize::from(v - least)).map_or(0, |l| usize::from(*l));
    let mut levels = vec![0u8; width];
    let mut total = [[0u64; LEVELS]; LEVELS];
    for row in plane.chunks_exact(width) {
        for (l, &v) in levels.iter_mut().zip(row) {
            *l = level(v) as u8;
        }
        // Two counts, so that a pair need not wait for the one before it.
        let (mut even, mut odd): (Counts, Counts) = Default::default();
        let (left, right) = (&levels[..width - distance], &levels[distance..]);
        for (a, b) in left.chunks(2).zip(right.chunks(2)) {
            even[usize::from(a[0]) % LEVELS][usize::from(b[0]) % LEVELS] += 1;
            if let ([_, a], [_, b]) = (a, b) {
                odd[usize::from(*a) % LEVELS][usize::from(*b) % LEVELS] += 1;
            }
        }
        for (to, from) in total
            .iter_mut()
            .flatten()
            .zip(even.iter().flatten().zip(odd.iter().flatten()))
        {
            *to += u64::from(from.0 + from.1);
        }
    }
    let sum = |of: fn(i128, i128) -> i128| -> i128 {
        let pairs = total.iter().enumerate().flat_map(|(a, row)| {
            row.iter()
                .enumerate()
                .map(move |(b, &n)| (a as i128, b as i128, i128::from(n)))
        });
        pairs.map(|(a, b, n)| n * of(a, b)).sum()
    };
    let (n, a, b) = (sum(|_, _| 1), sum(|a, _| a), sum(|_, b| b));
    // n^2 times variances and covariance, without rounding.
    let (va, vb) = (n * sum(|a, _| a * a) - a * a, n * sum(|_, b| b * b) - b * b);
    let covariance = n * sum(|a, b| a * b) - a * b;
    if va == 0 || vb == 0 {
        return 0.0;
    }
    covariance as f64 / ((va as f64).sqrt() * (vb as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::correlation;

    #[test]
    fn what_repeats_is_correlated_and_what_alternates_is_opposed() {
        let row: Vec<u16> = (0..40).map(|x| (x % 4) * 100).collect();
        assert!((correlation(&row, 40, 4, 0, 300) - 1.0).abs() < 1e-12);
        let alternating: Vec<u16> = (0..41).map(|x| (x % 2) * 100).collect();
        assert!((correlation(&alternating, 41, 3, 0, 100) + 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[5; 40], 40, 4, 5, 5), 0.0);
        assert_eq!(correlation(&[1, 2, 3], 3, 3, 1, 3), 0.0);
    }
}
