//! Whether members of a known group (a complex, a mechanism) are closer to one another than to the rest.
//!
//! Perturbations and clusters enter, one row per cluster leaves: the two-sample Kolmogorov-Smirnov statistic of cosines
//! within the cluster against cosines between it and the rest (EFAAR's `cluster_benchmark`). Nothing fails; clusters
//! with too few members present are left out.

use rayon::prelude::*;

use super::{Clusters, Perturbations};
use crate::signature::vectors::dot;

/// Fewest members present, as in EFAAR.
pub const FEWEST_MEMBERS: usize = 10;

/// One cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterRow {
    /// Its name.
    pub cluster: String,
    /// Members among the perturbations.
    pub members: usize,
    /// Perturbations outside.
    pub others: usize,
    /// Mean cosine of members with one another.
    pub within: f64,
    /// Mean cosine of members with others.
    pub between: f64,
    /// Largest distance of the two distributions, 0 to 1.
    pub statistic: f64,
    /// Two-sided, by Kolmogorov's limit law. Pairs share members, so it is a guide and not a probability.
    pub p_value: f64,
}

/// The clusters with at least `fewest` members and an outsider, by name.
pub fn clusters(perturbations: &Perturbations, clusters: &Clusters, fewest: usize) -> Vec<ClusterRow> {
    let found: Vec<(&String, Vec<usize>)> = clusters
        .members
        .iter()
        .map(|(name, members)| {
            let rows = members
                .iter()
                .filter_map(|member| perturbations.find(member))
                .collect();
            (name, rows)
        })
        .filter(|(_, rows): &(_, Vec<usize>)| rows.len() >= fewest.max(2) && rows.len() < perturbations.len())
        .collect();
    found
        .par_iter()
        .map(|(name, members)| row(perturbations, name, members))
        .collect()
}

/// `members`: ascending rows, as members are in order of their names.
fn row(perturbations: &Perturbations, name: &str, members: &[usize]) -> ClusterRow {
    let directions = perturbations.directions();
    let cosine = |a: usize, b: usize| dot(directions.row(a), directions.row(b)).clamp(-1.0, 1.0);
    let mut within = Vec::with_capacity(members.len() * (members.len() - 1) / 2);
    let mut between = Vec::with_capacity(members.len() * (perturbations.len() - members.len()));
    for (i, &a) in members.iter().enumerate() {
        within.extend(members[..i].iter().map(|&b| cosine(b, a)));
        let outside = (0..perturbations.len()).filter(|b| members.binary_search(b).is_err());
        between.extend(outside.map(|b| cosine(a, b)));
    }
    within.sort_unstable_by(f64::total_cmp);
    between.sort_unstable_by(f64::total_cmp);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let statistic = kolmogorov_smirnov(&within, &between);
    let (m, n) = (within.len() as f64, between.len() as f64);
    ClusterRow {
        cluster: name.to_owned(),
        members: members.len(),
        others: perturbations.len() - members.len(),
        within: mean(&within),
        between: mean(&between),
        statistic,
        p_value: limit_p(statistic * (m * n / (m + n)).sqrt()),
    }
}

/// Largest distance of the empirical distributions of two ascending samples.
pub fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> f64 {
    let (mut i, mut j, mut largest) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].iter().take_while(|&&x| x <= value).count();
        j += b[j..].iter().take_while(|&&x| x <= value).count();
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

/// `2 Σ (−1)^(i−1) exp(−2 i² x²)` (Kolmogorov 1933), within [0, 1].
fn limit_p(x: f64) -> f64 {
    // Below, the alternating sum has not begun to fall, and p is 1 to six digits.
    const SMALL: f64 = 0.3;
    const TERMS: i32 = 100;
    if x < SMALL {
        return 1.0;
    }
    let term = |i: i32| {
        let sign = if i % 2 == 1 { 1.0 } else { -1.0 };
        sign * (-2.0 * f64::from(i * i) * x * x).exp()
    };
    (2.0 * (1..=TERMS).map(term).sum::<f64>()).clamp(0.0, 1.0)
}
