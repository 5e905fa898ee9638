//! Percent replicating (Way et al. 2022; copairs `replicating.py`): how many treatments have replicates that correlate
//! better than wells of different treatments do. Rows and groups enter, [`PercentReplicating`] leaves.
//!
//! It fails without two groups of replicates.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::similarity::{Directions, centred};
use crate::matrix::FeatureMatrix;
use crate::random::Random;

/// How the null is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicatingSettings {
    /// Values of the null.
    pub draws: u32,
    /// Seed of the draws.
    pub seed: u64,
    /// Replicates correlate when their median is above this quantile of the null, in [0, 1].
    pub quantile: f64,
    /// Pairs whose median is one value of the null. `None` takes one fewer than the median number of replicates, at
    /// least 1 and at most 50: what copairs counts, and for two replicates the one pair they make.
    pub pairs: Option<u32>,
}

impl Default for ReplicatingSettings {
    /// 1000 draws, 95th percentile.
    fn default() -> Self {
        Self {
            draws: 1000,
            seed: 0,
            quantile: 0.95,
            pairs: None,
        }
    }
}

/// The most pairs taken for a value of the null.
const MOST_PAIRS: u32 = 50;

/// One group's replicates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replication {
    /// The group.
    pub group: usize,
    /// Median Pearson correlation of its pairs, in [-1, 1].
    pub median_correlation: f64,
    /// Pairs.
    pub pairs: u32,
    /// Whether the median is above the threshold.
    pub replicates: bool,
}

/// How many groups replicate.
#[derive(Debug, Clone, PartialEq)]
pub struct PercentReplicating {
    /// Groups with at least two rows, ascending.
    pub groups: Vec<Replication>,
    /// The quantile of the null.
    pub threshold: f64,
    /// Share of groups above it, in [0, 1].
    pub share: f64,
    /// The null, ascending.
    pub null: Vec<f64>,
    /// Rows that are constant or not finite, ascending: they take part in no pair.
    pub left_out: Vec<usize>,
}

/// Why nothing can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplicatingError {
    /// There is not one group per row.
    #[error("{groups} groups for {rows} rows: one is needed for each")]
    Groups {
        /// Rows.
        rows: usize,
        /// Groups.
        groups: usize,
    },
    /// No two rows are replicates, or no two rows are not.
    #[error(
        "{with_replicates} of {groups} treatments have replicates: percent replicating needs a treatment with two \
         wells, and wells of another treatment"
    )]
    NoPairs {
        /// Groups.
        groups: usize,
        /// Groups with at least two rows.
        with_replicates: usize,
    },
}

/// Median correlation of every group's replicates against medians of random pairs of different groups.
///
/// `group[i]` is the group of row `i`; `None` takes no part (controls).
///
/// # Errors
/// [`ReplicatingError`] without one group per row, without replicates, or without a second group.
pub fn percent_replicating(
    rows: &FeatureMatrix,
    group: &[Option<usize>],
    settings: ReplicatingSettings,
) -> Result<PercentReplicating, ReplicatingError> {
    if group.len() != rows.len() {
        return Err(ReplicatingError::Groups {
            rows: rows.len(),
            groups: group.len(),
        });
    }
    let centred = centred(rows);
    let directions = Directions::of(&centred);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); group.iter().flatten().max().map_or(0, |g| g + 1)];
    for (row, group) in group.iter().enumerate() {
        if let Some(group) = group.filter(|_| directions.exists(row)) {
            members[group].push(row);
        }
    }
    let in_use = members.iter().filter(|rows| !rows.is_empty()).count();
    let sizes: Vec<f64> = members
        .iter()
        .map(Vec::len)
        .filter(|&n| n > 1)
        .map(|n| n as f64)
        .collect();
    if sizes.is_empty() || in_use < 2 {
        return Err(ReplicatingError::NoPairs {
            groups: in_use,
            with_replicates: sizes.len(),
        });
    }
    let mut groups: Vec<Replication> = members
        .par_iter()
        .enumerate()
        .filter(|(_, rows)| rows.len() > 1)
        .map(|(group, rows)| {
            let mut pairs: Vec<f64> = (1..rows.len())
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| directions.cosine(rows[i], rows[j]))
                .collect();
            Replication {
                group,
                pairs: pairs.len() as u32,
                median_correlation: median(&mut pairs),
                replicates: false,
            }
        })
        .collect();
    let pairs = settings
        .pairs
        .unwrap_or_else(|| median(&mut sizes.clone()) as u32 - 1)
        .clamp(1, MOST_PAIRS);
    let null = null(&members, &directions, pairs, settings);
    let threshold = quantile(&null, settings.quantile);
    for group in &mut groups {
        group.replicates = group.median_correlation > threshold;
    }
    let replicating = groups.iter().filter(|group| group.replicates).count();
    Ok(PercentReplicating {
        share: replicating as f64 / groups.len() as f64,
        groups,
        threshold,
        null,
        left_out: directions.missing(),
    })
}

/// The correlation from which on replicates of groups of these sizes replicate, from a sample of the screen's rows:
/// `group[i]` is the group of row `i`. `sizes`: groups by their number of rows. `None` without replicates, or without
/// rows of two groups.
pub(crate) fn threshold(
    rows: &FeatureMatrix,
    group: &[usize],
    sizes: &BTreeMap<usize, u64>,
    settings: ReplicatingSettings,
) -> Option<f64> {
    let centred = centred(rows);
    let directions = Directions::of(&centred);
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, &group) in group.iter().enumerate() {
        if directions.exists(row) {
            members.entry(group).or_default().push(row);
        }
    }
    let members: Vec<Vec<usize>> = members.into_values().collect();
    let typical = median_size(sizes)?;
    if members.len() < 2 {
        return None;
    }
    let pairs = settings
        .pairs
        .unwrap_or_else(|| typical as u32 - 1)
        .clamp(1, MOST_PAIRS);
    Some(quantile(
        &null(&members, &directions, pairs, settings),
        settings.quantile,
    ))
}

/// Median size of the groups with at least two rows.
fn median_size(sizes: &BTreeMap<usize, u64>) -> Option<f64> {
    let groups = || sizes.range(2..);
    let n: u64 = groups().map(|(_, n)| n).sum();
    let at = |place: u64| {
        let mut before = 0;
        groups()
            .find(|(_, n)| {
                before += *n;
                before > place
            })
            .map(|(size, _)| *size as f64)
    };
    Some(0.5 * (at(n.checked_sub(1)? / 2)? + at(n / 2)?))
}

/// Medians of random pairs of rows of different groups, ascending. Every value has a random stream of its own.
fn null(
    members: &[Vec<usize>],
    directions: &Directions<'_>,
    pairs: u32,
    settings: ReplicatingSettings,
) -> Vec<f64> {
    let pool: Vec<(usize, usize)> = members
        .iter()
        .enumerate()
        .flat_map(|(group, rows)| rows.iter().map(move |&row| (group, row)))
        .collect();
    let n = pool.len() as u32;
    let mut null: Vec<f64> = (0..settings.draws)
        .into_par_iter()
        .map(|draw| {
            let mut random = Random::keyed(&[settings.seed, u64::from(draw)]);
            let mut correlations: Vec<f64> = (0..pairs)
                .map(|_| {
                    let (group, a) = pool[random.below(n) as usize];
                    loop {
                        let (other, b) = pool[random.below(n) as usize];
                        if other != group {
                            return directions.cosine(a, b);
                        }
                    }
                })
                .collect();
            median(&mut correlations)
        })
        .collect();
    null.sort_unstable_by(f64::total_cmp);
    null
}

/// NaN without values.
fn median(values: &mut [f64]) -> f64 {
    crate::compare::window::median_in_place(values).unwrap_or(f64::NAN)
}

/// Linear interpolation at `(n − 1) q` (numpy's default, type 7) of ascending values; NaN without values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = last as f64 * q.clamp(0.0, 1.0);
    let low = at.floor() as usize;
    let (a, b) = (sorted[low], sorted[(low + 1).min(last)]);
    a + (b - a) * (at - low as f64)
}
