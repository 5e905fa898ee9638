//! Does the rim of a plate differ from its inside? Control wells of one plate enter, a rank-sum test with its effect
//! size leaves (SCIENCE 5.1).
//!
//! Only control wells may be given: treated wells differ for a reason. Fails on values that are not finite, on wells
//! outside the plate and where one side has no well.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::PositionError;
use crate::words::WellPosition;

/// Up to this many wells the distribution of the rank sum is counted, beyond it is taken as normal. Counting costs
/// `wells² · rank sum`, a few million steps at this limit; the normal law is then within about 3e-3.
const COUNTED_WELLS: usize = 64;

/// The rim of a plate against its inside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EdgeEffect {
    /// Control wells in the first or last row or column.
    pub edge: usize,
    /// The other control wells.
    pub interior: usize,
    /// Pairs (rim, inside) in which the rim is larger, ties counted half: Mann and Whitney's U.
    pub u: f64,
    /// `2 U / (edge · interior) − 1`, from −1 (rim always lower) to 1 (rim always higher); 0 without an effect.
    pub effect: f64,
    /// Two-sided p-value; exact (ties included) up to 64 wells.
    pub p_value: f64,
}

/// Compares control wells on the rim of a plate of `shape` (rows, columns) with those inside.
///
/// # Errors
/// [`PositionError::NotFinite`], [`PositionError::Outside`] or [`PositionError::OneSide`].
pub fn edge_effect(controls: &[(WellPosition, f64)], shape: (u8, u8)) -> Result<EdgeEffect, PositionError> {
    let (rows, columns) = shape;
    let mut sorted = Vec::with_capacity(controls.len());
    for &(well, value) in controls {
        if !value.is_finite() {
            return Err(PositionError::NotFinite { well, value });
        }
        if well.row() > rows || well.column() > columns {
            return Err(PositionError::Outside { well, rows, columns });
        }
        let on_rim = [1, rows].contains(&well.row()) || [1, columns].contains(&well.column());
        sorted.push((value, on_rim));
    }
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let edge = sorted.iter().filter(|(_, on_rim)| *on_rim).count();
    let interior = sorted.len() - edge;
    if edge == 0 || interior == 0 {
        return Err(PositionError::OneSide { edge, interior });
    }
    // Twice the mid-rank is a whole number, also where values tie.
    let mut double_ranks = Vec::with_capacity(sorted.len());
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let below = double_ranks.len();
        double_ranks.extend(ties.iter().map(|_| 2 * below + ties.len() + 1));
    }
    let double_sum: usize = double_ranks
        .iter()
        .zip(&sorted)
        .filter(|(_, (_, on_rim))| *on_rim)
        .map(|(rank, _)| rank)
        .sum();
    let p_value = if sorted.len() <= COUNTED_WELLS {
        counted_p(&double_ranks, edge, double_sum)
    } else {
        normal_p(&sorted, edge, double_sum)
    };
    let u = double_sum as f64 / 2.0 - (edge * (edge + 1)) as f64 / 2.0;
    Ok(EdgeEffect {
        edge,
        interior,
        u,
        effect: 2.0 * u / (edge * interior) as f64 - 1.0,
        p_value,
    })
}

/// Share of all choices of `chosen` ranks whose sum is at least as far from the expected one.
fn counted_p(double_ranks: &[usize], chosen: usize, double_sum: usize) -> f64 {
    let total: usize = double_ranks.iter().sum();
    // The ranks that are not chosen have a sum just as far from theirs: the fewer are counted.
    let (chosen, double_sum) = if 2 * chosen > double_ranks.len() {
        (double_ranks.len() - chosen, total - double_sum)
    } else {
        (chosen, double_sum)
    };
    // ways[k][s]: choices of k ranks with sum s.
    let mut ways = vec![vec![0.0f64; total + 1]; chosen + 1];
    ways[0][0] = 1.0;
    for &rank in double_ranks {
        for k in (1..=chosen).rev() {
            let (fewer, more) = ways.split_at_mut(k);
            if let (Some(fewer), Some(more)) = (fewer.last(), more.first_mut()) {
                for (sum, way) in more.iter_mut().enumerate().skip(rank) {
                    *way += fewer[sum - rank];
                }
            }
        }
    }
    // The expected sum is chosen · total / n; comparing n times the sums keeps the arithmetic whole.
    let n = double_ranks.len();
    let distance = |sum: usize| (sum * n).abs_diff(chosen * total);
    let far = ways[chosen]
        .iter()
        .enumerate()
        .filter(|(sum, _)| distance(*sum) >= distance(double_sum));
    let all: f64 = ways[chosen].iter().sum();
    (far.map(|(_, way)| way).sum::<f64>() / all).min(1.0)
}

/// The normal law with its variance corrected for ties.
fn normal_p(sorted: &[(f64, bool)], edge: usize, double_sum: usize) -> f64 {
    let n = sorted.len() as f64;
    let (a, b) = (edge as f64, n - edge as f64);
    let ties: f64 = sorted
        .chunk_by(|a, b| a.0 == b.0)
        .map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64)
        .sum();
    let variance = a * b / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    // Half a step towards the middle, as the sum is discrete.
    let distance = ((double_sum as f64 / 2.0 - a * (n + 1.0) / 2.0).abs() - 0.5).max(0.0);
    (2.0 * Normal::standard().sf(distance / variance.sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.mannwhitneyu` (1.17.1) of the same values, `method="exact"` and `method="asymptotic"`.
    const SCIPY: (f64, f64) = (0.469_390_910_718_360_75, 0.466_560_683_467_626_47);

    #[test]
    fn the_counted_and_the_normal_law_are_those_of_scipy() {
        let sorted: Vec<(f64, bool)> = (0..60).map(|i| (f64::from(i), i % 5 < 2 || i > 55)).collect();
        let ranks: Vec<usize> = (0..60).map(|i| 2 * i + 2).collect();
        let edge = sorted.iter().filter(|(_, on_rim)| *on_rim).count();
        let sum = ranks
            .iter()
            .zip(&sorted)
            .filter(|(_, (_, on_rim))| *on_rim)
            .map(|(rank, _)| rank)
            .sum();
        let (counted, normal) = (counted_p(&ranks, edge, sum), normal_p(&sorted, edge, sum));
        assert!((counted - SCIPY.0).abs() < 1e-12, "{counted}");
        assert!((normal - SCIPY.1).abs() < 1e-9, "{normal}");
    }
}
