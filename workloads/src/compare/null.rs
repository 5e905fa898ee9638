//! Nulls from control wells and p-values against them (SCIENCE 6.5). Scored controls enter, sorted nulls leave.
//!
//! A group of wells is compared with groups of as many control wells from the same plates: all of them where there
//! are few enough, seeded draws otherwise. No p-value is 0. There is no null (`None`) where a plate has no usable
//! control.
//!
//! The mean of k wells of a plate lies around the mean of its m controls with a variance of `1/k + 1/m`, in units of a
//! well's. One leave-one-out control lies around the others as one well would. Several of them share their own mean, and
//! theirs varies by `(m/(m-1))² (1/k - 1/m)` only: it is widened to the variance of wells that are no controls. Without
//! that, and for k near m altogether, every group of replicates on one plate would look different.

use std::borrow::Cow;

use super::Question;
use super::axis::{self, dot, norm};
use crate::random::Random;

/// The null controls of one plate.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// Effect of each control well (rescue, or position on the axis), leave-one-out.
    pub effects: &'a [f64],
    /// Each control well in axis lengths ([`super::axis::Axis::scaled`]), leave-one-out.
    pub scaled: &'a [&'a [f64]],
    /// The plate's axis, of length 1.
    pub unit: &'a [f64],
    /// How many wells of the compared group lie on this plate; at least 1.
    pub wells: usize,
}

/// How a null is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Up to this many combinations are enumerated.
    pub exact_combinations: u32,
    /// Draws otherwise.
    pub draws: u32,
    /// Seed of the draws.
    pub seed: u64,
}

/// Scores of control groups, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Null {
    /// Mean effects.
    pub effects: Vec<f64>,
    /// Lengths beside the axis of mean vectors.
    pub off_axis: Vec<f64>,
    /// Whether every combination is in it.
    pub exact: bool,
}

impl Null {
    /// The smallest p-value this null can give: `1 / (1 + B)`.
    pub fn smallest_p(&self) -> f64 {
        1.0 / (1.0 + self.effects.len() as f64)
    }

    /// p-values of an effect and of a length beside the axis. In activity screens the effect is a length.
    pub(super) fn p_values(&self, effect: f64, off_axis: f64, question: Question) -> (f64, f64) {
        let effects = match question {
            Question::Activity => &self.off_axis,
            Question::Rescue | Question::Response => &self.effects,
        };
        (p_at_least(effects, effect), p_at_least(&self.off_axis, off_axis))
    }
}

/// `(1 + #{null ≥ observed}) / (1 + B)` for an ascending null (Phipson and Smyth 2010).
pub fn p_at_least(sorted: &[f64], observed: f64) -> f64 {
    let below = sorted.partition_point(|&v| v < observed);
    (1 + sorted.len() - below) as f64 / (1 + sorted.len()) as f64
}

/// The direction a group over several plates is measured against: the normalised mean of its plates' axes, weighted
/// by wells. Zero where none of them has a direction (there is no axis); `None` where they cancel.
pub fn common_unit(units: impl Iterator<Item = (usize, impl AsRef<[f64]>)>) -> Option<Vec<f64>> {
    let mut sum: Vec<f64> = Vec::new();
    let mut directed = false;
    for (wells, unit) in units {
        let unit = unit.as_ref();
        directed |= unit.iter().any(|&u| u != 0.0);
        sum.resize(unit.len(), 0.0);
        for (sum, u) in sum.iter_mut().zip(unit) {
            *sum += wells as f64 * u;
        }
    }
    if !directed {
        return Some(sum);
    }
    let length = norm(&sum);
    (length > 0.0).then(|| sum.iter().map(|v| v / length).collect())
}

/// How many controls stand for the wells of a group: as many, but at most half of the controls, so that their mean is
/// free to vary.
fn used(pool: &Pool<'_>) -> usize {
    pool.wells.min((pool.effects.len() / 2).max(1))
}

/// By how much means of [`used`] controls are spread out, to vary as the mean of wells that are no controls.
fn widening(pool: &Pool<'_>) -> f64 {
    let (wells, controls, used) = (pool.wells as f64, pool.effects.len() as f64, used(pool) as f64);
    if pool.wells < 2 || pool.effects.len() < 2 {
        return 1.0;
    }
    let leave_one_out = controls / (controls - 1.0);
    let theirs = leave_one_out * leave_one_out * (1.0 / used - 1.0 / controls);
    ((1.0 / wells + 1.0 / controls) / theirs).sqrt()
}

/// Builds the null of a group with `pools[p].wells` wells on plate `p`.
///
/// A plate with fewer controls than twice the wells takes half of its controls, with their weights raised to that of
/// the wells. `None` when a plate has no control or the axes cancel.
pub fn build(pools: &[Pool<'_>], plan: Plan) -> Option<Null> {
    if pools.is_empty()
        || pools
            .iter()
            .any(|pool| pool.effects.is_empty() || pool.wells == 0)
    {
        return None;
    }
    let unit = common_unit(pools.iter().map(|pool| (pool.wells, pool.unit)))?;
    let controls = Controls::of(pools, &unit);
    let combinations = pools.iter().try_fold(1u64, |product, pool| {
        product
            .checked_mul(choose(pool.effects.len(), used(pool))?)
            .filter(|&c| c <= u64::from(plan.exact_combinations))
    });
    let mut effects = Vec::new();
    let mut off_axis = Vec::new();
    let mut keep = |chosen: &[Vec<usize>]| {
        let (effect, off) = controls.score(chosen);
        effects.push(effect);
        off_axis.push(off);
    };
    let mut chosen: Vec<Vec<usize>> = pools.iter().map(|pool| (0..used(pool)).collect()).collect();
    if combinations.is_some() {
        loop {
            keep(&chosen);
            if !advance(&mut chosen, pools) {
                break;
            }
        }
    } else {
        let mut random = Random::seeded(plan.seed);
        let mut order: Vec<usize> = Vec::new();
        for _ in 0..plan.draws {
            for (chosen, pool) in chosen.iter_mut().zip(pools) {
                order.clear();
                order.extend(0..pool.effects.len());
                for i in 0..chosen.len() {
                    let j = i + random.index(order.len() - i);
                    order.swap(i, j);
                    chosen[i] = order[i];
                }
            }
            keep(&chosen);
        }
    }
    effects.sort_unstable_by(f64::total_cmp);
    off_axis.sort_unstable_by(f64::total_cmp);
    Some(Null {
        effects,
        off_axis,
        exact: combinations.is_some(),
    })
}

/// The controls of all pools, with the inner products a mean vector's length needs.
struct Controls {
    first: Vec<usize>,
    weight: Vec<f64>,
    effects: Vec<f64>,
    along: Vec<f64>,
    gram: Vec<f64>,
}

impl Controls {
    fn of(pools: &[Pool<'_>], unit: &[f64]) -> Self {
        let total: usize = pools.iter().map(|pool| pool.wells).sum();
        let mut first = Vec::new();
        let mut weight = Vec::new();
        let mut effects = Vec::new();
        let mut rows: Vec<Cow<'_, [f64]>> = Vec::new();
        for pool in pools {
            first.push(effects.len());
            weight.push(pool.wells as f64 / (used(pool) * total) as f64);
            let factor = widening(pool);
            if factor == 1.0 {
                effects.extend_from_slice(pool.effects);
                rows.extend(pool.scaled.iter().map(|row| Cow::Borrowed(*row)));
                continue;
            }
            let wider = |value: f64, mean: f64| mean + factor * (value - mean);
            let mean = pool.effects.iter().sum::<f64>() / pool.effects.len() as f64;
            effects.extend(pool.effects.iter().map(|effect| wider(*effect, mean)));
            let centre = axis::mean(pool.scaled).unwrap_or_default();
            rows.extend(pool.scaled.iter().map(|row| {
                let row = row.iter().zip(&centre).map(|(value, mean)| wider(*value, *mean));
                Cow::Owned(row.collect())
            }));
        }
        let n = rows.len();
        let mut gram = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let product = dot(&rows[i], &rows[j]);
                gram[i * n + j] = product;
                gram[j * n + i] = product;
            }
        }
        Self {
            first,
            weight,
            effects,
            along: rows.iter().map(|row| dot(row, unit)).collect(),
            gram,
        }
    }

    fn score(&self, chosen: &[Vec<usize>]) -> (f64, f64) {
        let n = self.effects.len();
        let members = || {
            chosen
                .iter()
                .enumerate()
                .flat_map(move |(p, chosen)| chosen.iter().map(move |&i| (self.first[p] + i, self.weight[p])))
        };
        let (mut effect, mut along, mut square) = (0.0, 0.0, 0.0);
        for (i, w) in members() {
            effect += w * self.effects[i];
            along += w * self.along[i];
            square += w * members().map(|(j, v)| v * self.gram[i * n + j]).sum::<f64>();
        }
        (effect, (square - along * along).max(0.0).sqrt())
    }
}

/// The next combination of every plate, the last plate turning fastest; false after the last one.
fn advance(chosen: &mut [Vec<usize>], pools: &[Pool<'_>]) -> bool {
    for (combination, pool) in chosen.iter_mut().zip(pools).rev() {
        let (k, m) = (combination.len(), pool.effects.len());
        if let Some(i) = (0..k).rev().find(|&i| combination[i] < m - k + i) {
            let start = combination[i] + 1;
            for (step, slot) in combination[i..].iter_mut().enumerate() {
                *slot = start + step;
            }
            return true;
        }
        for (i, slot) in combination.iter_mut().enumerate() {
            *slot = i;
        }
    }
    false
}

/// Binomial coefficient; `None` on overflow.
fn choose(m: usize, k: usize) -> Option<u64> {
    (0..k.min(m - k)).try_fold(1u64, |c, i| {
        c.checked_mul((m - i) as u64).map(|c| c / (i + 1) as u64)
    })
}

/// A stable seed for a named null: FNV-1a over the parts, each closed by a byte that no text contains.
pub(crate) fn seed_for<'a>(seed: u64, parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    seed.to_le_bytes().into_iter().for_each(&mut eat);
    for part in parts {
        part.iter().copied().for_each(&mut eat);
        eat(0xff);
    }
    hash
}
