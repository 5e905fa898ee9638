//! What accepted plates reach in each detector: the limits of new ones.
//!
//! A [`DriftReference`] enters, a [`Baseline`] leaves. Each accepted plate is judged by the others, as if it were new:
//! tests against the noise of wells know nothing of the ordinary differences between plates, and a plate that is no
//! further off than accepted ones has not drifted.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::gaussian::Gaussian;
use super::hotelling::{Between, highest, plate_mean, within, without};
use super::reference::DriftReference;
use super::samples::{TwoSamples, gamma_of, median_distance};
use super::stability::stability_index;
use super::{MonitorError, chi_squared_limit};
use crate::random::Random;

/// Wells of the reference sample of MMD and energy distance at most: enough for their noise to be that of the plate's
/// own wells, few enough for ten thousand permutations in milliseconds.
const SAMPLE_ROWS: usize = 256;
/// A control well beyond this probability is an outlier (SCIENCE 8).
const OUTLIER_P: f64 = 0.001;

/// Limits from accepted plates.
pub(super) struct Baseline {
    /// Of all reference wells.
    pub(super) wells: Gaussian,
    /// Beyond this squared distance a well is an outlier.
    pub(super) outlier_limit: f64,
    pub(super) between: Between,
    /// Values per component of every reference well.
    pub(super) columns: Vec<Vec<f64>>,
    /// Mean of each reference plate.
    pub(super) means: Vec<Vec<f64>>,
    pub(super) sample: Vec<Vec<f64>>,
    pub(super) gamma: f64,
    pub(super) within_limit: f64,
    pub(super) mmd_limit: f64,
    pub(super) energy_limit: f64,
    pub(super) stability_limit: f64,
    /// Per disease: the mean vector over reference plates, and the lowest cosine of one with the mean of the others.
    pub(super) diseases: BTreeMap<String, (Vec<f64>, f64)>,
    /// Values of every scalar over the reference plates that have it.
    pub(super) scalars: BTreeMap<String, Vec<f64>>,
}

impl Baseline {
    pub(super) fn of(reference: &DriftReference, seed: u64) -> Result<Self, MonitorError> {
        let plates: Vec<Vec<Vec<f64>>> = reference
            .plates()
            .iter()
            .map(|plate| plate.scores.iter().map(|row| wide(row)).collect())
            .collect();
        let means: Vec<Vec<f64>> = plates.iter().map(|plate| plate_mean(plate)).collect();
        let mean_views: Vec<&[f64]> = means.iter().map(Vec::as_slice).collect();
        let rows = |plates: &[&Vec<Vec<f64>>]| -> Vec<Vec<f64>> {
            plates.iter().flat_map(|plate| plate.iter().cloned()).collect()
        };
        let all: Vec<&Vec<Vec<f64>>> = plates.iter().collect();
        let pooled = rows(&all);
        let wells = Gaussian::fit(&views(&pooled))?;
        let k = wells.mean().len();
        let samples = sample(&plates, seed);
        let sampled: Vec<Vec<f64>> = samples.iter().flatten().cloned().collect();
        let gamma = median_distance(&views(&sampled))
            .and_then(gamma_of)
            .ok_or(MonitorError::NoSpread { rows: sampled.len() })?;
        let columns = columns(&pooled, k);
        let left_out: Vec<LeftOut> = (0..plates.len())
            .into_par_iter()
            .map(|left| {
                let rest = rows(&without(&all, left));
                let plate = &plates[left];
                let rest_sample: Vec<&[f64]> = samples
                    .iter()
                    .enumerate()
                    .filter(|&(i, _)| i != left)
                    .flat_map(|(_, rows)| rows.iter().map(Vec::as_slice))
                    .collect();
                let two = TwoSamples::new(&rest_sample, &views(plate), gamma);
                let (mmd2, energy) = two.map_or((0.0, 0.0), |two| two.statistics());
                Ok(LeftOut {
                    within: within(&Gaussian::fit(&views(&rest))?, &means[left], plate.len()).t2,
                    mmd2,
                    energy,
                    stability: largest_stability(&self::columns(&rest, k), plate),
                })
            })
            .collect::<Result<_, MonitorError>>()?;
        let reached = |value: fn(&LeftOut) -> f64| highest(&left_out.iter().map(value).collect::<Vec<_>>());
        Ok(Self {
            outlier_limit: chi_squared_limit(k, OUTLIER_P),
            between: Between::fit(&mean_views)?,
            within_limit: reached(|plate| plate.within),
            mmd_limit: reached(|plate| plate.mmd2),
            energy_limit: reached(|plate| plate.energy),
            stability_limit: reached(|plate| plate.stability),
            diseases: diseases(reference),
            scalars: scalars(reference),
            wells,
            columns,
            sample: sampled,
            gamma,
            means,
        })
    }
}

struct LeftOut {
    within: f64,
    mmd2: f64,
    energy: f64,
    stability: f64,
}

pub(super) fn views(rows: &[Vec<f64>]) -> Vec<&[f64]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&v| f64::from(v)).collect()
}

fn columns(rows: &[Vec<f64>], k: usize) -> Vec<Vec<f64>> {
    (0..k).map(|j| rows.iter().map(|row| row[j]).collect()).collect()
}

/// The largest stability index over the components.
pub(super) fn largest_stability(reference: &[Vec<f64>], plate: &[Vec<f64>]) -> f64 {
    let plate = columns(plate, reference.len());
    reference
        .iter()
        .zip(&plate)
        .filter_map(|(reference, plate)| stability_index(reference, plate))
        .fold(0.0, f64::max)
}

/// The same number of wells of every plate, drawn at random: a fixed stride would pick the same positions on each.
fn sample(plates: &[Vec<Vec<f64>>], seed: u64) -> Vec<Vec<Vec<f64>>> {
    let each = SAMPLE_ROWS.div_ceil(plates.len().max(1));
    let mut random = Random::keyed(&[seed]);
    plates
        .iter()
        .map(|plate| {
            let mut order: Vec<usize> = (0..plate.len()).collect();
            let taken = each.min(plate.len());
            for i in 0..taken {
                let other = i + random.below((order.len() - i) as u32) as usize;
                order.swap(i, other);
            }
            order[..taken].iter().map(|&i| plate[i].clone()).collect()
        })
        .collect()
}

/// Diseases that at least two reference plates carry.
fn diseases(reference: &DriftReference) -> BTreeMap<String, (Vec<f64>, f64)> {
    let names: BTreeSet<&String> = reference
        .plates()
        .iter()
        .flat_map(|p| p.diseases.keys())
        .collect();
    names
        .into_iter()
        .filter_map(|name| {
            let vectors: Vec<Vec<f64>> = reference
                .plates()
                .iter()
                .filter_map(|plate| Some(wide(plate.diseases.get(name)?)))
                .collect();
            let all: Vec<&Vec<f64>> = vectors.iter().collect();
            let mean_of = |vectors: &[&Vec<f64>]| {
                let views: Vec<&[f64]> = vectors.iter().map(|v| v.as_slice()).collect();
                super::gaussian::mean(&views, views.first().map_or(0, |v| v.len()))
            };
            if vectors.len() < 2 {
                return None;
            }
            let lowest = (0..vectors.len())
                .filter_map(|left| cosine(&vectors[left], &mean_of(&without(&all, left))))
                .fold(1.0, f64::min);
            Some((name.clone(), (mean_of(&all), lowest)))
        })
        .collect()
}

fn scalars(reference: &DriftReference) -> BTreeMap<String, Vec<f64>> {
    let mut scalars: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for plate in reference.plates() {
        for (name, &value) in &plate.scalars {
            scalars.entry(name.clone()).or_default().push(f64::from(value));
        }
    }
    scalars
}

/// Cosine of two vectors; `None` where one is zero.
pub(super) fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0))
}
