//! A treatment whose wells are complete: wells and what control wells give enter, its rows and consensus profiles leave.
//!
//! All similarities of a treatment come from one table of inner products. Fails where profiles cannot be averaged, which
//! they can: they are finite, and of one width.

use std::collections::BTreeMap;

use super::super::design::{Design, Series};
use super::super::{CompareError, ComparisonSettings};
use super::chance::{Chance, ControlSet};
use super::open::{OpenDose, OpenTreatment};
use super::plate::{Well, correlation, cosine, inner};
use super::{Activity, Consensus, Level, MOST_WELLS, Perturbation};
use crate::aggregate::{Method, aggregate};
use crate::compare::window::median_in_place;
use crate::matrix::FeatureMatrix;
use crate::replicate::average_precision::{Retrieval, of_distances};
use crate::replicate::energy::{EnergySettings, LEAST_REPLICATES, test_of_distances};
use crate::replicate::tail::p_value;

/// Divisions of wells and controls of a magnitude's p at most: enough for a limit of 0.01, few enough for every compound.
const DIVISIONS: u32 = 999;

/// A measured treatment.
pub(super) struct Measured {
    pub(super) series: usize,
    /// By dose; the row of the compound comes last.
    pub(super) rows: Vec<Activity>,
    /// Numbers of pairs of each row's wells, ascending: what the null of its mean average precision depends on.
    pub(super) pairs: Vec<Vec<(u32, u32)>>,
    pub(super) profiles: Vec<Perturbation>,
}

/// The wells that a compound is measured by over its doses: all of them, or those of smallest priority.
pub(super) fn of_compound(doses: &BTreeMap<Option<u64>, OpenDose>) -> Vec<&Well> {
    let mut wells: Vec<&Well> = doses.values().flat_map(|dose| &dose.wells).collect();
    wells.sort_by_key(|well| well.priority);
    wells.truncate(MOST_WELLS);
    wells.sort_by_key(|well| (well.place, well.position));
    wells
}

/// The wells of a row, with their places in the table of products.
struct Members<'w> {
    wells: Vec<&'w Well>,
    at: Vec<usize>,
}

/// Inner products of all wells of a treatment.
struct Products<'w> {
    wells: Vec<&'w Well>,
    values: Vec<f64>,
}

impl<'w> Products<'w> {
    fn of(wells: Vec<&'w Well>) -> Self {
        let rows: Vec<_> = wells.iter().map(|well| &well.row).collect();
        Self {
            values: inner(&rows, &rows),
            wells,
        }
    }

    fn product(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.wells.len() + j]
    }

    fn cosine(&self, i: usize, j: usize) -> Option<f64> {
        cosine(self.product(i, j), &self.wells[i].row, &self.wells[j].row)
    }

    fn correlation(&self, i: usize, j: usize) -> Option<f64> {
        correlation(self.product(i, j), &self.wells[i].row, &self.wells[j].row)
    }
}

/// Measures a treatment; p of its mean average precisions comes later.
pub(super) fn measure(
    id: usize,
    treatment: &OpenTreatment,
    chances: &BTreeMap<ControlSet, Chance>,
    design: &Design,
    settings: &ComparisonSettings,
) -> Result<Measured, CompareError> {
    let series = &design.series()[id];
    let doses = &treatment.doses;
    let set = ControlSet::of(series, doses);
    let chance = chances.get(&set);
    let products = Products::of(doses.values().flat_map(|dose| &dose.wells).collect());
    let mut measured = Measured {
        series: id,
        rows: Vec::with_capacity(doses.len() + 1),
        pairs: Vec::with_capacity(doses.len() + 1),
        profiles: Vec::with_capacity(doses.len()),
    };
    let mut start = 0;
    for (&dose, open) in doses {
        let members = Members {
            wells: open.wells.iter().collect(),
            at: (start..start + open.wells.len()).collect(),
        };
        start += open.wells.len();
        let row = named(series, dose, Level::Dose, open.n_wells, open.n_plates, design);
        let (row, pairs) = of_members(row, &members, &products, chance, &set, settings);
        measured.profiles.push(Perturbation {
            disease: row.disease.clone(),
            compound: row.compound.clone(),
            dose: row.dose,
            n_wells: row.n_wells,
            n_plates: row.n_plates,
            values: consensus(open, settings.consensus)?,
        });
        measured.rows.push(row);
        measured.pairs.push(pairs);
    }
    let wells = of_compound(doses);
    let at_of: BTreeMap<(usize, crate::words::WellPosition), usize> = products
        .wells
        .iter()
        .enumerate()
        .map(|(at, well)| ((well.place, well.position), at))
        .collect();
    let members = Members {
        at: wells
            .iter()
            .filter_map(|well| at_of.get(&(well.place, well.position)).copied())
            .collect(),
        wells,
    };
    let n_wells = doses.values().map(|dose| dose.n_wells).sum();
    let row = named(series, None, Level::Compound, n_wells, treatment.n_plates, design);
    let (row, pairs) = of_members(row, &members, &products, chance, &set, settings);
    measured.rows.push(row);
    measured.pairs.push(pairs);
    Ok(measured)
}

fn named(
    series: &Series,
    dose: Option<u64>,
    level: Level,
    n_wells: usize,
    n_plates: usize,
    design: &Design,
) -> Activity {
    Activity {
        disease: design.disease(series.key().disease).map(str::to_owned),
        compound: design.compound(series.key().compound).map(str::to_owned),
        dose: dose.map(f64::from_bits),
        level,
        n_wells,
        n_measured: 0,
        n_plates,
        mean_average_precision: None,
        mean_normalized_average_precision: None,
        p_value: None,
        corrected_p_value: None,
        below_p: None,
        below_corrected_p: None,
        median_replicate_correlation: None,
        replicates: None,
        grit: None,
        consistency: None,
        consistency_p_value: None,
        magnitude: None,
        magnitude_p_value: None,
    }
}

fn of_members(
    mut row: Activity,
    members: &Members<'_>,
    products: &Products<'_>,
    chance: Option<&Chance>,
    set: &ControlSet,
    settings: &ComparisonSettings,
) -> (Activity, Vec<(u32, u32)>) {
    row.n_measured = members.wells.len();
    let pairs = precision(&mut row, members, products);
    let pairs_of = || (1..members.at.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let mut correlations: Vec<f64> = pairs_of()
        .filter_map(|(i, j)| products.correlation(members.at[i], members.at[j]))
        .collect();
    row.median_replicate_correlation = median_in_place(&mut correlations);
    row.grit = grit(members, products);
    let cosines: Vec<f64> = pairs_of()
        .filter_map(|(i, j)| products.cosine(members.at[i], members.at[j]))
        .collect();
    if !cosines.is_empty() {
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        row.consistency = Some(mean);
        let null = chance.and_then(|chance| chance.mean_cosines(&set.shape(&members.wells)));
        row.consistency_p_value = null.map(|null| {
            let below = null.partition_point(|&value| value < mean);
            p_value(null.len() - below, null.len())
        });
    }
    if let Some(chance) = chance {
        magnitude(&mut row, members, products, chance, settings);
    }
    (row, pairs)
}

/// Mean average precision of finding the other wells among the controls of each well's plate.
fn precision(row: &mut Activity, members: &Members<'_>, products: &Products<'_>) -> Vec<(u32, u32)> {
    let mut found: Vec<(f64, f64, (u32, u32))> = members
        .at
        .iter()
        .filter_map(|&i| {
            let others = members.at.iter().filter(|&&j| j != i);
            let mut replicates: Vec<f32> = others
                .filter_map(|&j| products.cosine(i, j))
                .map(|cosine| 1.0f32 - cosine as f32)
                .collect();
            replicates.sort_unstable_by(f32::total_cmp);
            let Retrieval {
                positives,
                total,
                average_precision,
                normalised,
            } = of_distances(&replicates, &products.wells[i].negatives);
            Some((average_precision?, normalised?, (positives, total)))
        })
        .collect();
    // In one order of additions, whatever the order of wells.
    found.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let n = found.len() as f64;
    if !found.is_empty() {
        row.mean_average_precision = Some(found.iter().map(|(ap, ..)| ap).sum::<f64>() / n);
        row.mean_normalized_average_precision =
            Some(found.iter().map(|(_, normal, _)| normal).sum::<f64>() / n);
    }
    let mut pairs: Vec<(u32, u32)> = found.into_iter().map(|(_, _, pairs)| pairs).collect();
    pairs.sort_unstable();
    pairs
}

/// Mean over the wells of their correlations with the compound's other wells, in SDs of those with their controls.
fn grit(members: &Members<'_>, products: &Products<'_>) -> Option<f64> {
    let of_wells: Vec<f64> = members
        .at
        .iter()
        .filter_map(|&i| {
            let others = (0..products.wells.len()).filter(|&j| j != i);
            let to_group: Vec<f64> = others.filter_map(|j| products.correlation(i, j)).collect();
            products.wells[i].spread?.z(&to_group)
        })
        .collect();
    (!of_wells.is_empty()).then(|| of_wells.iter().sum::<f64>() / of_wells.len() as f64)
}

/// Energy distance from the controls of the plates.
fn magnitude(
    row: &mut Activity,
    members: &Members<'_>,
    products: &Products<'_>,
    chance: &Chance,
    settings: &ComparisonSettings,
) {
    let (k, m) = (members.wells.len(), chance.controls.len());
    if k < LEAST_REPLICATES || m == 0 {
        return;
    }
    let n = k + m;
    let wells: Vec<_> = members.wells.iter().map(|well| &well.row).collect();
    let controls: Vec<_> = chance.controls.iter().collect();
    let between = inner(&controls, &wells);
    let rows: Vec<f64> = wells
        .iter()
        .chain(&controls)
        .map(|row| row.length * row.length)
        .collect();
    let distance = |i: usize, j: usize| {
        let product = match (i < k, j < k) {
            (true, true) => products.product(members.at[i], members.at[j]),
            (true, false) => between[i * m + j - k],
            (false, true) => between[j * m + i - k],
            (false, false) => chance.products[(i - k) * m + j - k],
        };
        // Rounding must not make a row distant from itself.
        if i == j {
            0.0
        } else {
            (rows[i] + rows[j] - 2.0 * product).max(0.0).sqrt()
        }
    };
    let all = (0..n * n).map(|at| distance(at / n, at % n)).collect();
    let test = test_of_distances(
        all,
        n,
        k,
        EnergySettings {
            exact_up_to: u64::from(DIVISIONS),
            permutations: DIVISIONS,
            seed: settings.seed,
        },
    );
    row.magnitude = test.map(|test| test.distance);
    row.magnitude_p_value = test.map(|test| test.p_value);
}

fn consensus(open: &OpenDose, how: Consensus) -> Result<Vec<f32>, CompareError> {
    // The mean is of all wells; medians and weights need the wells themselves, and are of those that are held.
    if let (Consensus::Mean, Some(sum)) = (how, &open.sum) {
        return Ok(sum.iter().map(|sum| (sum / open.n_wells as f64) as f32).collect());
    }
    let width = open.wells.first().map_or(0, |well| well.row.values.len());
    let rows = FeatureMatrix::from_rows(width, open.wells.iter().map(|well| &*well.row.values));
    let method: Method = how.method();
    let all = vec![(0..open.wells.len()).collect()];
    let rows = rows.map_err(|_| CompareError::NoProfiles)?;
    let consensus = aggregate(&rows, &all, method).map_err(|_| CompareError::NoProfiles)?;
    Ok(consensus.rows.row(0).to_vec())
}
