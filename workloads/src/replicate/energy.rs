//! Energy distance of a perturbation from its controls (Székely and Rizzo 2013; EFAAR_benchmarking's *magnitude*):
//! `2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖`, means over all pairs with the zero diagonal (V-statistic). It is 0 only where
//! both have one distribution.
//!
//! Two sets of rows enter, a distance and a permutation p leave. It fails with too few rows, or values that are not
//! finite.

use rayon::prelude::*;

use super::tail::p_value;
use crate::matrix::FeatureMatrix;
use crate::random::Random;

/// Replicates the distance needs at the least (EFAAR_benchmarking).
pub const LEAST_REPLICATES: usize = 5;

/// How the null is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnergySettings {
    /// Up to this many divisions of the rows are all listed.
    pub exact_up_to: u64,
    /// Random divisions otherwise.
    pub permutations: u32,
    /// Seed of the divisions.
    pub seed: u64,
}

impl Default for EnergySettings {
    /// Exact up to 10^5 (SCIENCE 0), 999 permutations otherwise.
    fn default() -> Self {
        Self {
            exact_up_to: 100_000,
            permutations: 999,
            seed: 0,
        }
    }
}

/// A distance and how often chance reaches it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnergyTest {
    /// At least 0, in units of the features.
    pub distance: f64,
    /// Share of the divisions of all rows into sets of these sizes with at least this distance; never 0.
    pub p_value: f64,
    /// Every division was listed.
    pub exact: bool,
}

/// Why there is no distance.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum EnergyError {
    /// Too few replicates.
    #[error("energy distance needs {LEAST_REPLICATES} replicates, and there are {found}")]
    TooFewReplicates {
        /// Rows.
        found: usize,
    },
    /// No control.
    #[error("energy distance needs controls, and there are none")]
    NoControls,
    /// The sets have different features.
    #[error("replicates have {replicates} feature columns and controls {controls}")]
    Width {
        /// Columns of the replicates.
        replicates: usize,
        /// Columns of the controls.
        controls: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "{set} row {row} has {value} in feature column {column}: leave the row out, values are never imputed"
    )]
    NotFinite {
        /// `replicate` or `control`.
        set: &'static str,
        /// Row of its set.
        row: usize,
        /// 0-based feature column.
        column: usize,
        /// The value.
        value: f32,
    },
}

/// The distance alone.
///
/// # Errors
/// [`EnergyError`] with fewer than five replicates, no controls, or values that are not finite.
pub fn energy_distance(replicates: &FeatureMatrix, controls: &FeatureMatrix) -> Result<f64, EnergyError> {
    Ok(Distances::of(replicates, controls)?.energy_of_first())
}

/// The distance, with its p over divisions of replicates and controls.
///
/// # Errors
/// As [`energy_distance`].
pub fn energy_test(
    replicates: &FeatureMatrix,
    controls: &FeatureMatrix,
    settings: EnergySettings,
) -> Result<EnergyTest, EnergyError> {
    Ok(test(&Distances::of(replicates, controls)?, settings))
}

/// The test from the distances of `n` rows, row after row, of which the `first` are the replicates: at least
/// [`LEAST_REPLICATES`], and at least one control.
pub(crate) fn test_of_distances(
    all: Vec<f64>,
    n: usize,
    first: usize,
    settings: EnergySettings,
) -> Option<EnergyTest> {
    let usable = first >= LEAST_REPLICATES && n > first && all.len() == n * n;
    usable.then(|| test(&Distances::new(all, n, first), settings))
}

fn test(distances: &Distances, settings: EnergySettings) -> EnergyTest {
    // Divisions that differ by less are ties: sums of the same distances in another order.
    const TIE: f64 = 1e-12;
    let distance = distances.energy_of_first();
    let least = distance - TIE * (1.0 + distance.abs());
    let (n, k) = (distances.n, distances.first);
    let divisions = (0..k.min(n - k) as u64).try_fold(1u64, |c, i| {
        c.checked_mul(n as u64 - i)
            .map(|c| c / (i + 1))
            .filter(|&c| c <= settings.exact_up_to)
    });
    let (p_value, exact) = match divisions {
        Some(divisions) => {
            let mut chosen: Vec<usize> = (0..k).collect();
            let mut reached = 0u64;
            loop {
                reached += u64::from(distances.energy(&chosen) >= least);
                let Some(i) = (0..k).rev().find(|&i| chosen[i] < n - k + i) else {
                    break;
                };
                let start = chosen[i] + 1;
                for (step, place) in chosen[i..].iter_mut().enumerate() {
                    *place = start + step;
                }
            }
            (reached as f64 / divisions as f64, true)
        }
        None => {
            let reached = (0..settings.permutations)
                .into_par_iter()
                .filter(|&i| {
                    let mut random = Random::keyed(&[settings.seed, u64::from(i)]);
                    let mut order: Vec<usize> = (0..n).collect();
                    for i in 0..k {
                        let j = i + random.below((n - i) as u32) as usize;
                        order.swap(i, j);
                    }
                    distances.energy(&order[..k]) >= least
                })
                .count();
            (p_value(reached, settings.permutations as usize), false)
        }
    };
    EnergyTest {
        distance,
        p_value,
        exact,
    }
}

/// All Euclidean distances of replicates and controls together, and their sums by row.
struct Distances {
    n: usize,
    /// Replicates come first.
    first: usize,
    all: Vec<f64>,
    of_row: Vec<f64>,
    total: f64,
}

impl Distances {
    fn of(replicates: &FeatureMatrix, controls: &FeatureMatrix) -> Result<Self, EnergyError> {
        if replicates.len() < LEAST_REPLICATES {
            return Err(EnergyError::TooFewReplicates {
                found: replicates.len(),
            });
        }
        if controls.is_empty() {
            return Err(EnergyError::NoControls);
        }
        if replicates.width() != controls.width() {
            return Err(EnergyError::Width {
                replicates: replicates.width(),
                controls: controls.width(),
            });
        }
        for (set, rows) in [("replicate", replicates), ("control", controls)] {
            for (row, values) in rows.rows().enumerate() {
                if let Some(column) = values.iter().position(|v| !v.is_finite()) {
                    let value = values[column];
                    return Err(EnergyError::NotFinite {
                        set,
                        row,
                        column,
                        value,
                    });
                }
            }
        }
        let rows: Vec<&[f32]> = replicates.rows().chain(controls.rows()).collect();
        let n = rows.len();
        let mut all = vec![0.0; n * n];
        all.par_chunks_mut(n).enumerate().for_each(|(i, out)| {
            for (j, out) in out.iter_mut().enumerate() {
                let square: f64 = (rows[i].iter().zip(rows[j]))
                    .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
                    .sum();
                *out = square.sqrt();
            }
        });
        Ok(Self::new(all, n, replicates.len()))
    }

    fn new(all: Vec<f64>, n: usize, first: usize) -> Self {
        let of_row: Vec<f64> = all.chunks_exact(n).map(|row| row.iter().sum()).collect();
        Self {
            n,
            first,
            total: of_row.iter().sum(),
            all,
            of_row,
        }
    }

    fn energy_of_first(&self) -> f64 {
        self.energy(&(0..self.first).collect::<Vec<_>>())
    }

    /// Of the rows chosen against all others. Only pairs among the chosen are visited; the rest follows from sums.
    fn energy(&self, chosen: &[usize]) -> f64 {
        let within: f64 = chosen
            .iter()
            .flat_map(|&i| chosen.iter().map(move |&j| self.all[i * self.n + j]))
            .sum();
        let touching: f64 = chosen.iter().map(|&i| self.of_row[i]).sum();
        let (between, beyond) = (touching - within, self.total - 2.0 * touching + within);
        let (x, y) = (chosen.len() as f64, (self.n - chosen.len()) as f64);
        2.0 * between / (x * y) - within / (x * x) - beyond / (y * y)
    }
}
