//! What control wells give by chance: the controls of a set of plates enter, distributions leave. Nothing fails.
//!
//! Controls stand for a treatment without effect. Those that do are measured from the mean of the plate's other
//! controls, as a treated well is measured from controls it is none of; that follows from inner products alone.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::super::ComparisonSettings;
use super::super::design::Series;
use super::open::OpenDose;
use super::plate::{Direction, Well, inner};
use crate::random::Random;

/// Draws of a null at most: it places a value among control wells, and is made for every set of plates.
const MOST_DRAWS: u32 = 2_000;
/// Combinations of control wells that are all listed at most.
const MOST_LISTED: u64 = 10_000;

/// Wells on each plate, by place in the order of reading: what a null depends on.
pub(super) type Shape = Vec<(usize, usize)>;

/// Place of the sample of all plates.
const EVERY_PLATE: usize = usize::MAX;

/// Which controls a treatment is compared with: those of its plates; `None`: a sample of all plates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ControlSet {
    pub(super) disease: u32,
    pub(super) plates: Option<Vec<usize>>,
}

impl ControlSet {
    pub(super) fn of(series: &Series, doses: &BTreeMap<Option<u64>, OpenDose>) -> Self {
        let mut plates: Vec<usize> = doses
            .values()
            .flat_map(|dose| dose.wells.iter().map(|well| well.place))
            .collect();
        plates.sort_unstable();
        plates.dedup();
        Self {
            disease: series.key().disease,
            plates: (!series.wide()).then_some(plates),
        }
    }
}

impl ControlSet {
    /// The shape of wells among the controls of this set.
    pub(super) fn shape(&self, wells: &[&Well]) -> Shape {
        if self.plates.is_none() {
            return vec![(EVERY_PLATE, wells.len())];
        }
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for well in wells {
            *counts.entry(well.place).or_default() += 1;
        }
        counts.into_iter().collect()
    }
}

/// The controls of a set of plates, plate after plate, and what they give.
#[derive(Debug)]
pub(super) struct Chance {
    pub(super) controls: Vec<Direction>,
    /// Plate, its first control and the one after its last.
    plates: Vec<(usize, usize, usize)>,
    /// Inner products of every two controls, row after row.
    pub(super) products: Vec<f64>,
    mean_cosines: BTreeMap<Shape, Vec<f64>>,
}

impl Chance {
    /// `plates`: place and controls, one entry for a sample of all plates; `shapes`: those that are asked for.
    pub(super) fn of(
        plates: Option<Vec<(usize, &[Direction])>>,
        sample: Vec<&Direction>,
        shapes: &BTreeSet<Shape>,
        disease: u32,
        settings: &ComparisonSettings,
    ) -> Self {
        let mut controls: Vec<Direction> = Vec::new();
        let mut spans = Vec::new();
        match plates {
            Some(plates) => {
                for (place, of_plate) in plates {
                    let start = controls.len();
                    controls.extend_from_slice(of_plate);
                    spans.push((place, start, controls.len()));
                }
            }
            None => {
                controls.extend(sample.into_iter().cloned());
                spans.push((EVERY_PLATE, 0, controls.len()));
            }
        }
        let rows: Vec<&Direction> = controls.iter().collect();
        let mut chance = Self {
            products: inner(&rows, &rows),
            plates: spans,
            controls,
            mean_cosines: BTreeMap::new(),
        };
        let nulls = shapes.par_iter().filter_map(|shape| {
            let mut keys = vec![settings.seed, u64::from(disease)];
            keys.extend(
                shape
                    .iter()
                    .flat_map(|&(place, count)| [place as u64, count as u64]),
            );
            Some((shape.clone(), chance.null(shape, settings, Random::keyed(&keys))?))
        });
        chance.mean_cosines = nulls.collect();
        chance
    }

    /// Mean cosines of control wells of a shape that was asked for, ascending. `None` where a plate has too few.
    pub(super) fn mean_cosines(&self, shape: &Shape) -> Option<&[f64]> {
        self.mean_cosines.get(shape).map(Vec::as_slice)
    }

    fn null(&self, shape: &Shape, settings: &ComparisonSettings, random: Random) -> Option<Vec<f64>> {
        let spans: Option<Vec<(usize, usize, usize)>> = shape
            .iter()
            .map(|&(place, count)| {
                let (_, start, end) = self.plates.iter().find(|(at, ..)| *at == place)?;
                // At least one must be left to measure the others from.
                (end - start > count).then_some((*start, *end, count))
            })
            .collect();
        let spans = spans?;
        if spans.iter().map(|(_, _, count)| count).sum::<usize>() < 2 {
            return None;
        }
        let most = MOST_LISTED.min(u64::from(settings.thresholds.exact_combinations));
        let mut means = match self.every(&spans, most) {
            Some(means) => means,
            None => self.drawn(&spans, settings.thresholds.draws.min(MOST_DRAWS), random),
        };
        means.sort_unstable_by(f64::total_cmp);
        (!means.is_empty()).then_some(means)
    }

    fn every(&self, shape: &[(usize, usize, usize)], most: u64) -> Option<Vec<f64>> {
        let combinations = shape.iter().try_fold(1u64, |product, &(start, end, count)| {
            let n = (end - start) as u64;
            let of_plate = (0..count as u64).try_fold(1u64, |c, i| {
                c.checked_mul(n - i).map(|c| c / (i + 1)).filter(|&c| c <= most)
            })?;
            product.checked_mul(of_plate).filter(|&all| all <= most)
        })?;
        let mut means = Vec::with_capacity(usize::try_from(combinations).unwrap_or(0));
        let mut chosen: Vec<Vec<usize>> = shape
            .iter()
            .map(|&(start, _, count)| (start..start + count).collect())
            .collect();
        loop {
            means.extend(self.mean_cosine(&chosen, shape));
            // The next combination: of the last plate that has one, the plates after it from their first.
            let mut plate = shape.len();
            loop {
                let Some(at) = plate.checked_sub(1) else {
                    return Some(means);
                };
                plate = at;
                let (start, end, count) = shape[plate];
                let turn = (0..count).rev().find(|&i| chosen[plate][i] < end - count + i);
                match turn {
                    Some(i) => {
                        let next = chosen[plate][i] + 1;
                        for (step, slot) in chosen[plate][i..].iter_mut().enumerate() {
                            *slot = next + step;
                        }
                        break;
                    }
                    None => chosen[plate] = (start..start + count).collect(),
                }
            }
        }
    }

    fn drawn(&self, shape: &[(usize, usize, usize)], draws: u32, mut random: Random) -> Vec<f64> {
        let mut orders: Vec<Vec<usize>> = shape
            .iter()
            .map(|&(start, end, _)| (start..end).collect())
            .collect();
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); shape.len()];
        (0..draws)
            .filter_map(|_| {
                for ((order, chosen), (_, _, count)) in orders.iter_mut().zip(&mut chosen).zip(shape) {
                    for i in 0..*count {
                        let j = i + random.index(order.len() - i);
                        order.swap(i, j);
                    }
                    chosen.clear();
                    chosen.extend_from_slice(&order[..*count]);
                }
                self.mean_cosine(&chosen, shape)
            })
            .collect()
    }

    /// Of controls chosen on each plate, each measured from the mean of its plate's controls that are not chosen: with
    /// rows `c` that have mean zero over the `n` controls of a plate, `r_i = c_i + Σ_S c / (n − k)`.
    fn mean_cosine(&self, chosen: &[Vec<usize>], shape: &[(usize, usize, usize)]) -> Option<f64> {
        let n = self.controls.len();
        let product = |a: usize, b: usize| self.products[a * n + b];
        let all: Vec<(usize, f64, usize)> = chosen
            .iter()
            .zip(shape)
            .enumerate()
            .flat_map(|(plate, (of_plate, &(start, end, count)))| {
                // Wells of a sample of all plates hardly share a plate.
                let rest = if self.plates.iter().any(|(place, ..)| *place == EVERY_PLATE) {
                    0.0
                } else {
                    1.0 / (end - start - count) as f64
                };
                of_plate.iter().map(move |&i| (i, rest, plate))
            })
            .collect();
        // Sums of products of each row with the chosen ones of each plate.
        let plates = chosen.len();
        let mut with = vec![0.0; all.len() * plates];
        for (a, &(i, _, _)) in all.iter().enumerate() {
            for &(j, _, plate) in &all {
                with[a * plates + plate] += product(i, j);
            }
        }
        let mut between = vec![0.0; plates * plates];
        for (a, &(_, _, plate)) in all.iter().enumerate() {
            for other in 0..plates {
                between[plate * plates + other] += with[a * plates + other];
            }
        }
        let moved = |a: usize, b: usize| {
            let ((i, s, p), (j, t, q)) = (all[a], all[b]);
            product(i, j)
                + t * with[a * plates + q]
                + s * with[b * plates + p]
                + s * t * between[p * plates + q]
        };
        let lengths: Vec<f64> = (0..all.len()).map(|a| moved(a, a).max(0.0).sqrt()).collect();
        let (mut sum, mut pairs) = (0.0, 0);
        for a in 1..all.len() {
            for b in 0..a {
                let length = lengths[a] * lengths[b];
                if length > 0.0 {
                    sum += (moved(a, b) / length).clamp(-1.0, 1.0);
                    pairs += 1;
                }
            }
        }
        (pairs > 0).then(|| sum / f64::from(pairs))
    }
}
