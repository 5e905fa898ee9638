//! Where tokens are: fixed sines, or learned positions brought to another grid.
//!
//! Enters: a grid of patches and, where positions are learned, those of the trained grid. Leaves: one row of channels
//! per patch, row by row.

use crate::architecture::Interpolation;

/// `[sin h, cos h, sin w, cos w]` for rows h and columns w, `width / 4` channels each, with frequencies
/// `10000^(-i / (width / 4))` (as masked autoencoders are trained, He et al. 2021, arXiv:2111.06377, in the order that
/// OpenPhenom has).
pub(super) fn sin_cos(grid: (usize, usize), width: usize) -> Vec<f32> {
    let quarter = width / 4;
    let frequency = |i: usize| 1.0 / 10000f64.powf(i as f64 / quarter as f64);
    let mut positions = Vec::with_capacity(grid.0 * grid.1 * width);
    for y in 0..grid.0 {
        for x in 0..grid.1 {
            for place in [y, x] {
                let angle = |i| place as f64 * frequency(i);
                positions.extend((0..quarter).map(|i| angle(i).sin() as f32));
                positions.extend((0..quarter).map(|i| angle(i).cos() as f32));
            }
        }
    }
    positions
}

/// Brings positions learned on a grid of `side` x `side` patches to `grid`.
pub(super) fn resample(
    learned: &[f32],
    side: usize,
    width: usize,
    grid: (usize, usize),
    interpolation: Interpolation,
) -> Vec<f32> {
    if grid == (side, side) {
        return learned.to_vec();
    }
    let (rows, columns) = (
        taps(side, grid.0, interpolation),
        taps(side, grid.1, interpolation),
    );
    let mut positions = Vec::with_capacity(grid.0 * grid.1 * width);
    let mut sums = vec![0f64; width];
    for row in &rows {
        for column in &columns {
            sums.fill(0.0);
            for &(y, wy) in row {
                for &(x, wx) in column {
                    let from = &learned[(y * side + x) * width..][..width];
                    for (sum, &value) in sums.iter_mut().zip(from) {
                        *sum += wy * wx * f64::from(value);
                    }
                }
            }
            positions.extend(sums.iter().map(|&v| v as f32));
        }
    }
    positions
}

/// For each of `to` places, which of `from` places count and with what weight.
fn taps(from: usize, to: usize, interpolation: Interpolation) -> Vec<Vec<(usize, f64)>> {
    let last = from as i64 - 1;
    let step = match interpolation {
        Interpolation::PlainOffset => from as f64 / (to as f64 + 0.1),
        Interpolation::Plain | Interpolation::Antialiased => from as f64 / to as f64,
    };
    let place = |i: usize| (i as f64 + 0.5) * step;
    match interpolation {
        // As PyTorch's `upsample_bicubic2d`: four taps, those outside clamped to the border.
        Interpolation::Plain | Interpolation::PlainOffset => (0..to)
            .map(|i| {
                let centre = place(i) - 0.5;
                let first = centre.floor() as i64 - 1;
                (first..first + 4)
                    .map(|at| (at.clamp(0, last) as usize, cubic(at as f64 - centre, -0.75)))
                    .collect()
            })
            .collect(),
        // As PyTorch's `_upsample_bicubic2d_aa`: the kernel grows with the step, taps outside are dropped and the
        // others made to sum to 1.
        Interpolation::Antialiased => (0..to)
            .map(|i| {
                let (centre, wide) = (place(i), step.max(1.0));
                let first = ((centre - 2.0 * wide + 0.5) as i64).max(0);
                let end = ((centre + 2.0 * wide + 0.5) as i64).min(from as i64);
                let weight = |at: i64| cubic((at as f64 - centre + 0.5) / wide, -0.5);
                let sum: f64 = (first..end).map(weight).sum();
                (first..end).map(|at| (at as usize, weight(at) / sum)).collect()
            })
            .collect(),
    }
}

/// The cubic convolution kernel (Keys 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_stay_and_the_same_grid_is_untouched() {
        for interpolation in [
            Interpolation::Plain,
            Interpolation::PlainOffset,
            Interpolation::Antialiased,
        ] {
            let constant = vec![3.0; 5 * 5 * 2];
            for grid in [(7, 3), (2, 9), (1, 1)] {
                let found = resample(&constant, 5, 2, grid, interpolation);
                assert_eq!(found.len(), grid.0 * grid.1 * 2);
                assert!(found.iter().all(|v| (v - 3.0).abs() < 1e-6), "{interpolation:?}");
            }
            let ramp: Vec<f32> = (0..50).map(|i| i as f32).collect();
            assert_eq!(resample(&ramp, 5, 2, (5, 5), interpolation), ramp);
        }
    }

    #[test]
    fn sines_are_those_of_the_formula() {
        let found = sin_cos((2, 3), 8);
        let row = &found[5 * 8..];
        let expected = [
            1f64.sin(),
            0.01f64.sin(),
            1f64.cos(),
            0.01f64.cos(),
            2f64.sin(),
            0.02f64.sin(),
            2f64.cos(),
            0.02f64.cos(),
        ];
        for (f, e) in row.iter().zip(expected) {
            assert!((f64::from(*f) - e).abs() < 1e-7);
        }
    }
}
