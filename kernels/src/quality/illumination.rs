//! Evenness of illumination. Enters: a raw plane, or an average of many. Leaves: a coefficient of variation, 0 for even
//! light. Cannot fail.

use crate::histogram::Histogram;

/// Tiles along each side of a field.
const TILES: usize = 3;

/// Coefficient of variation (population) of the medians of 3 x 3 tiles of one field; of fewer where it has fewer rows or
/// columns. Medians hardly see cells that cover less than half of a tile. 0 of a black field.
pub(super) fn tiles(plane: &[u16], height: usize, width: usize) -> f64 {
    let edges = |length: usize| -> Vec<usize> {
        let tiles = TILES.min(length);
        (0..=tiles).map(|t| t * length / tiles).collect()
    };
    let (rows, columns) = (edges(height), edges(width));
    let mut medians = Vec::with_capacity(TILES * TILES);
    let mut pixels = Vec::new();
    for rows in rows.windows(2) {
        for columns in columns.windows(2) {
            pixels.clear();
            for row in plane[rows[0] * width..rows[1] * width].chunks_exact(width) {
                pixels.extend_from_slice(&row[columns[0]..columns[1]]);
            }
            medians.push(Histogram::of(&pixels).percentile(50.0).unwrap_or(0.0));
        }
    }
    variation(medians.into_iter())
}

/// Coefficient of variation (population standard deviation over mean) of an average of many fields or of an illumination
/// function: correcting the illumination must bring that of the average down. 0 if the mean is 0 or there is no value.
///
/// ```
/// assert_eq!(wellspring_kernels::illumination_cv(&[1.0, 3.0]), 0.5);
/// ```
pub fn illumination_cv(average: &[f32]) -> f64 {
    variation(average.iter().map(|&v| f64::from(v)))
}

fn variation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    if mean > 0.0 { variance.sqrt() / mean } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shading_shows_and_cells_do_not() {
        let even: Vec<u16> = (0..900).map(|i| if i % 7 == 0 { 4000 } else { 300 }).collect();
        assert_eq!(tiles(&even, 30, 30), 0.0);
        let shaded: Vec<u16> = (0..900u16).map(|i| 300 + i % 30 * 10).collect();
        assert!(tiles(&shaded, 30, 30) > 0.15);
        assert_eq!((tiles(&[0; 4], 2, 2), tiles(&[9], 1, 1)), (0.0, 0.0));
        assert_eq!(illumination_cv(&[]), 0.0);
    }
}
