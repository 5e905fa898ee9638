//! Mean average precision of groups, with p-values (Kalinin et al. 2025). Retrievals and groups enter, one
//! [`GroupPrecision`] per group leaves. Nothing fails: a group in which no profile has an average precision has no row.
//!
//! The null of a group is the mean AP of its profiles when each of them ranks at random. The product draws every
//! profile on its own, or lists all rankings where they are few, and counts ties. copairs gives profiles with equal
//! numbers of pairs *the same* draws, so that nothing is averaged, and counts strictly: [`NullRule::Copairs`]
//! reproduces that, for comparison with published tables. Two profiles, 48 controls, mAP 0.75: p is 0.00125 here and
//! 0.0223 there.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::average_precision::Retrieval;
use super::tail::p_value;
use crate::compare::multiple::{Family, benjamini_hochberg, copairs_hierarchical, hierarchical};
use crate::random::Random;

/// How the null of a group is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullRule {
    /// Every profile ranks on its own; all rankings are listed where they are few; `p` counts ties.
    Independent,
    /// As copairs 0.5.5 does: profiles with equal numbers of pairs share their draws, `p` counts strictly, in `f32`.
    Copairs,
}

/// How groups are corrected for their number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MapCorrection<'a> {
    /// Benjamini-Hochberg over all groups.
    BenjaminiHochberg,
    /// In two stages: families of groups (the doses of a compound), then groups within them. `family[g]` is the family
    /// of group `g`, from 0. [`NullRule::Copairs`] corrects as copairs does, without the number of doses.
    Hierarchical {
        /// Family of each group.
        family: &'a [usize],
    },
}

/// How p-values are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MapSettings<'a> {
    /// Draws of a sampled null; at least 1.
    pub draws: u32,
    /// Up to this many combinations of rankings are all listed.
    pub exact_up_to: u64,
    /// Seed of the draws.
    pub seed: u64,
    /// The null.
    pub rule: NullRule,
    /// The correction.
    pub correction: MapCorrection<'a>,
    /// What counts as significant.
    pub threshold: f64,
}

impl Default for MapSettings<'_> {
    /// 10,000 draws, exact up to a million rankings, Benjamini-Hochberg, 0.05.
    fn default() -> Self {
        Self {
            draws: 10_000,
            exact_up_to: 1_000_000,
            seed: 0,
            rule: NullRule::Independent,
            correction: MapCorrection::BenjaminiHochberg,
            threshold: 0.05,
        }
    }
}

/// One group's precision. The field names are copairs' column names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupPrecision {
    /// The group.
    pub group: usize,
    /// Profiles with an average precision.
    pub profiles: u32,
    /// Mean of their AP, in (0, 1].
    pub mean_average_precision: f64,
    /// Mean of their normalised AP, in [-1, 1].
    pub mean_normalized_average_precision: f64,
    /// One-sided; never 0.
    pub p_value: f64,
    /// After correction.
    pub corrected_p_value: f64,
    /// `p_value` is below the threshold.
    pub below_p: bool,
    /// `corrected_p_value` is below the threshold.
    pub below_corrected_p: bool,
    /// The null lists every combination of rankings.
    pub exact: bool,
}

/// Numbers of pairs of a profile: replicates P, and all pairs L.
pub(crate) type Pairs = (u32, u32);

/// mAP of every group; `group[i]` is the group of `retrievals[i]`, `None` for controls. Rows leave by group.
///
/// Retrievals without an average precision are left out. Keep `nulls` between calls with the same seed and number of
/// draws: what was drawn is not drawn again, and results do not depend on what was.
pub fn mean_average_precision(
    retrievals: &[Retrieval],
    group: &[Option<usize>],
    settings: MapSettings<'_>,
    nulls: &mut Nulls,
) -> Vec<GroupPrecision> {
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for (retrieval, group) in retrievals.iter().zip(group) {
        if let (Some(ap), Some(normalised), Some(group)) =
            (retrieval.average_precision, retrieval.normalised, *group)
        {
            let entry = groups.entry(group).or_default();
            entry.aps.push((ap, normalised));
            entry.pairs.push((retrieval.positives, retrieval.total));
        }
    }
    let mut rows: Vec<GroupPrecision> = groups
        .iter_mut()
        .map(|(&group, members)| members.mean(group))
        .collect();
    let asked: Vec<(&[Pairs], f64)> = groups
        .values()
        .zip(&rows)
        .map(|(members, row)| (members.pairs.as_slice(), row.mean_average_precision))
        .collect();
    for (row, (p, exact)) in rows.iter_mut().zip(p_values(&asked, settings, nulls)) {
        row.p_value = p;
        row.exact = exact;
    }
    correct(&mut rows, settings);
    rows
}

/// Arrays of draws made for groups at a time, and kept between calls: 20 MB of 10,000 draws.
const MOST_DRAWN: usize = 512;

/// p of groups by the numbers of pairs of their profiles, ascending, and their mean AP; and whether the null lists every
/// ranking. Not corrected.
pub(crate) fn p_values(
    groups: &[(&[Pairs], f64)],
    settings: MapSettings<'_>,
    nulls: &mut Nulls,
) -> Vec<(f64, bool)> {
    // Groups with the same numbers of pairs have the same null.
    let mut alike: BTreeMap<&[Pairs], Vec<usize>> = BTreeMap::new();
    for (row, (pairs, _)) in groups.iter().enumerate() {
        alike.entry(pairs).or_default().push(row);
    }
    let alike: Vec<(&[Pairs], Vec<usize>)> = alike.into_iter().collect();
    let mut out = vec![(1.0, false); groups.len()];
    let mut start = 0;
    while start < alike.len() {
        // Of long lists of pairs only as many at a time as memory is meant for.
        let mut arrays = 0;
        let taken = alike[start..].iter().take_while(|(pairs, _)| {
            arrays += pairs.len();
            arrays <= MOST_DRAWN
        });
        let end = start + taken.count().max(1);
        let chunk = &alike[start..end];
        start = end;
        nulls.prepare(chunk.iter().map(|(pairs, _)| *pairs), settings);
        let drawn = &*nulls;
        let found: Vec<(usize, f64, bool)> = chunk
            .par_iter()
            .flat_map_iter(|(pairs, of_null)| {
                let mut null = drawn.of(pairs, settings);
                // Counting once costs less than sorting once.
                if of_null.len() > 1 {
                    null.values.sort_unstable_by(f64::total_cmp);
                    null.sorted = true;
                }
                let p: Vec<(usize, f64, bool)> = of_null
                    .iter()
                    .map(|&row| (row, null.p(groups[row].1, settings.rule), null.exact))
                    .collect();
                p
            })
            .collect();
        for (row, p, exact) in found {
            out[row] = (p, exact);
        }
        nulls.shrink();
    }
    out
}

#[derive(Default)]
struct Group {
    aps: Vec<(f64, f64)>,
    pairs: Vec<Pairs>,
}

impl Group {
    /// The mean, summed in ascending order so that the order of rows does not matter. Sorts the pairs.
    fn mean(&mut self, group: usize) -> GroupPrecision {
        self.pairs.sort_unstable();
        self.aps
            .sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let n = self.aps.len() as f64;
        GroupPrecision {
            group,
            profiles: self.aps.len() as u32,
            mean_average_precision: self.aps.iter().map(|(ap, _)| ap).sum::<f64>() / n,
            mean_normalized_average_precision: self.aps.iter().map(|(_, normal)| normal).sum::<f64>() / n,
            p_value: 1.0,
            corrected_p_value: 1.0,
            below_p: false,
            below_corrected_p: false,
            exact: false,
        }
    }
}

fn correct(rows: &mut [GroupPrecision], settings: MapSettings<'_>) {
    let p: Vec<Option<f64>> = rows.iter().map(|row| Some(row.p_value)).collect();
    let families = match settings.correction {
        MapCorrection::BenjaminiHochberg => None,
        MapCorrection::Hierarchical { family } => {
            Some(rows.iter().map(|row| family[row.group]).collect::<Vec<_>>())
        }
    };
    let q = corrected(&p, families.as_deref(), settings.rule, settings.threshold);
    for (row, q) in rows.iter_mut().zip(q) {
        row.corrected_p_value = q.unwrap_or(1.0);
        row.below_p = row.p_value < settings.threshold;
        row.below_corrected_p = row.corrected_p_value < settings.threshold;
    }
}

/// p-values after correction: by Benjamini-Hochberg, or in two stages where each has a family.
pub(crate) fn corrected(
    p: &[Option<f64>],
    families: Option<&[usize]>,
    rule: NullRule,
    threshold: f64,
) -> Vec<Option<f64>> {
    match (families, rule) {
        (None, _) => benjamini_hochberg(p),
        (Some(family), NullRule::Independent) => hierarchical(p, family),
        (Some(family), NullRule::Copairs) => {
            let families = copairs_hierarchical(p, family, threshold);
            families.into_iter().map(|Family { q, .. }| q).collect()
        }
    }
}

/// APs of random rankings, kept by what they depend on: numbers of pairs and which of a group's profiles they are for.
/// In memory only: nothing an earlier process did can change a result.
#[derive(Debug, Default)]
pub struct Nulls {
    /// The seed and number of draws they were made with.
    of: (u64, u32),
    /// `draws` values each, in the order drawn.
    drawn: BTreeMap<(Pairs, u32), Vec<f32>>,
}

struct GroupNull {
    values: Vec<f64>,
    sorted: bool,
    exact: bool,
}

impl Nulls {
    /// Draws what is missing, in parallel; each array has a random stream of its own.
    fn prepare<'a>(&mut self, groups: impl Iterator<Item = &'a [Pairs]>, settings: MapSettings<'_>) {
        if self.of != (settings.seed, settings.draws) {
            self.of = (settings.seed, settings.draws);
            self.drawn.clear();
        }
        let mut missing = std::collections::BTreeSet::new();
        for pairs in groups.filter(|pairs| !is_exact(pairs, settings)) {
            missing.extend(slots(pairs, settings.rule).filter(|key| !self.drawn.contains_key(key)));
        }
        let missing: Vec<(Pairs, u32)> = missing.into_iter().collect();
        let drawn: Vec<Vec<f32>> = missing
            .par_iter()
            .map(|&key| draw(key, settings.seed, settings.draws))
            .collect();
        self.drawn.extend(missing.into_iter().zip(drawn));
    }

    /// Forgets what was drawn where it has become much.
    fn shrink(&mut self) {
        if self.drawn.len() > MOST_DRAWN {
            self.drawn.clear();
        }
    }

    /// The null of a group whose profiles have these numbers of pairs, ascending.
    fn of(&self, pairs: &[Pairs], settings: MapSettings<'_>) -> GroupNull {
        if is_exact(pairs, settings) {
            return GroupNull {
                values: every_mean(pairs),
                sorted: false,
                exact: true,
            };
        }
        let mut values = vec![0.0; settings.draws as usize];
        for key in slots(pairs, settings.rule) {
            for (value, &drawn) in values.iter_mut().zip(self.drawn.get(&key).into_iter().flatten()) {
                *value += f64::from(drawn);
            }
        }
        values.iter_mut().for_each(|value| *value /= pairs.len() as f64);
        GroupNull {
            values,
            sorted: false,
            exact: false,
        }
    }
}

/// Rankings whose mean APs differ by less than this are ties: sums of the same fractions in another order.
const TIE: f64 = 1e-9;
/// The same for draws kept in `f32`.
const TIE_DRAWN: f64 = 1e-6;

impl GroupNull {
    fn p(&self, observed: f64, rule: NullRule) -> f64 {
        let n = self.values.len();
        let count = |reaches: &dyn Fn(f64) -> bool| {
            if self.sorted {
                n - self.values.partition_point(|&v| !reaches(v))
            } else {
                self.values.iter().filter(|&&v| reaches(v)).count()
            }
        };
        match (rule, self.exact) {
            (NullRule::Independent, true) => count(&|v| v >= observed - TIE) as f64 / n as f64,
            (NullRule::Independent, false) => p_value(count(&|v| v >= observed - TIE_DRAWN), n),
            (NullRule::Copairs, _) => {
                let observed = observed as f32;
                p_value(count(&|v| v as f32 > observed), n)
            }
        }
    }
}

/// The arrays whose mean is a group's null. `pairs` is sorted.
fn slots(pairs: &[Pairs], rule: NullRule) -> impl Iterator<Item = (Pairs, u32)> {
    let mut slot = 0;
    let mut last = None;
    pairs.iter().map(move |&pairs| {
        slot = if rule == NullRule::Independent && last == Some(pairs) {
            slot + 1
        } else {
            0
        };
        last = Some(pairs);
        (pairs, slot)
    })
}

/// Whether all rankings of the group are to be listed.
fn is_exact(pairs: &[Pairs], settings: MapSettings<'_>) -> bool {
    settings.rule == NullRule::Independent
        && pairs
            .iter()
            .try_fold(1u64, |product, &(positives, total)| {
                let rankings = choose(total, positives, settings.exact_up_to)?;
                product
                    .checked_mul(rankings)
                    .filter(|&product| product <= settings.exact_up_to)
            })
            .is_some()
}

/// Binomial coefficient; `None` above `limit`.
fn choose(n: u32, k: u32, limit: u64) -> Option<u64> {
    (0..u64::from(k.min(n - k.min(n)))).try_fold(1u64, |c, i| {
        c.checked_mul(u64::from(n) - i)
            .map(|c| c / (i + 1))
            .filter(|&c| c <= limit)
    })
}

/// Mean AP of every combination of rankings.
fn every_mean(pairs: &[Pairs]) -> Vec<f64> {
    let mut sums = vec![0.0];
    for &(positives, total) in pairs {
        let aps = every_ap(positives, total);
        sums = sums
            .iter()
            .flat_map(|sum| aps.iter().map(move |ap| sum + ap))
            .collect();
    }
    sums.iter().map(|sum| sum / pairs.len() as f64).collect()
}

/// AP of every ranking of `positives` among `total`, by their ranks in lexicographic order.
fn every_ap(positives: u32, total: u32) -> Vec<f64> {
    let mut ranks: Vec<u32> = (1..=positives).collect();
    let mut aps = Vec::new();
    loop {
        aps.push(ap_of(&ranks));
        let last = |i: usize| total - positives + 1 + i as u32;
        let Some(i) = (0..ranks.len()).rev().find(|&i| ranks[i] < last(i)) else {
            return aps;
        };
        let start = ranks[i] + 1;
        for (step, rank) in ranks[i..].iter_mut().enumerate() {
            *rank = start + step as u32;
        }
    }
}

/// `ranks` ascending, from 1.
fn ap_of(ranks: &[u32]) -> f64 {
    let sum: f64 = (ranks.iter().enumerate())
        .map(|(i, &rank)| (i + 1) as f64 / f64::from(rank))
        .sum();
    sum / ranks.len() as f64
}

fn draw(((positives, total), slot): (Pairs, u32), seed: u64, draws: u32) -> Vec<f32> {
    let mut random = Random::keyed(&[seed, u64::from(positives), u64::from(total), u64::from(slot)]);
    // Any order of the ranks is as good a start of a partial shuffle as any other, so it is kept between draws.
    let mut order: Vec<u32> = (1..=total).collect();
    let mut ranks = Vec::with_capacity(positives as usize);
    (0..draws)
        .map(|_| {
            for i in 0..positives {
                let j = i + random.below(total - i);
                order.swap(i as usize, j as usize);
            }
            ranks.clear();
            ranks.extend_from_slice(&order[..positives as usize]);
            ranks.sort_unstable();
            ap_of(&ranks) as f32
        })
        .collect()
}
