//! The nearest perturbations of one, and the most opposite ones.
//!
//! Perturbations and a name enter, two short lists leave, each entry with its cosine and its place among all pairs.
//! Fails on a name that is not there.

use rayon::prelude::*;

use super::ranks::{Pairs, ranks};
use super::{Perturbations, RelateError};
use crate::signature::vectors::dot;

/// One perturbation beside another.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// In [-1, 1].
    pub cosine: f64,
    /// Share of all pairs whose cosine is not above this one, 0 to 1: 0.999 is closer than 99.9 % of pairs.
    pub percentile: f64,
    /// Whether both lie on a common plate, which makes profiles alike.
    pub same_plate: bool,
}

/// Both ends of the order.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Largest cosine first.
    pub nearest: Vec<Neighbour>,
    /// Smallest cosine first.
    pub opposite: Vec<Neighbour>,
}

/// The `k` nearest and the `k` most opposite perturbations of `name`. Equal cosines are in order of their names.
///
/// # Errors
/// There is no perturbation `name`.
pub fn neighbours(
    perturbations: &Perturbations,
    name: &str,
    k: usize,
    pairs: Pairs,
) -> Result<Neighbours, RelateError> {
    let query = perturbations.find(name).ok_or_else(|| RelateError::Unknown {
        name: name.to_owned(),
        nearest: nearest_name(perturbations, name),
    })?;
    let order = order_of(perturbations, query, pairs);
    let chosen = |end: &mut dyn Iterator<Item = &(f64, usize)>| -> Vec<(f64, usize)> {
        end.take(k).copied().collect()
    };
    let nearest = chosen(&mut order.iter());
    let mut from_below = order.clone();
    from_below.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let opposite = chosen(&mut from_below.iter());
    let cosines: Vec<f64> = nearest.iter().chain(&opposite).map(|entry| entry.0).collect();
    let ranks = ranks(perturbations, &cosines, pairs);
    let mut named = nearest
        .iter()
        .chain(&opposite)
        .zip(ranks)
        .map(|(&(cosine, row), rank)| Neighbour {
            name: perturbations.names()[row].clone(),
            cosine,
            percentile: rank.right_share(),
            same_plate: perturbations.share_a_plate(query, row),
        });
    let first = named.by_ref().take(nearest.len()).collect();
    Ok(Neighbours {
        nearest: first,
        opposite: named.collect(),
    })
}

/// The nearest rows of one.
#[derive(Debug, Clone)]
pub(super) struct NearestRows {
    /// Largest cosine first; equal ones in order of their rows.
    pub(super) rows: Vec<usize>,
    /// How many could have been.
    pub(super) others: usize,
}

/// The `k` nearest rows of each query.
pub(super) fn nearest_rows(
    perturbations: &Perturbations,
    queries: &[usize],
    k: usize,
    pairs: Pairs,
) -> Vec<NearestRows> {
    queries
        .par_iter()
        .map(|&query| {
            let order = order_of(perturbations, query, pairs);
            NearestRows {
                others: order.len(),
                rows: order.iter().take(k).map(|entry| entry.1).collect(),
            }
        })
        .collect()
}

/// All that count beside `query`, by falling cosine, then by row.
fn order_of(perturbations: &Perturbations, query: usize, pairs: Pairs) -> Vec<(f64, usize)> {
    let directions = perturbations.directions();
    let own = directions.row(query);
    let mut order: Vec<(f64, usize)> = (0..perturbations.len())
        .filter(|&row| row != query)
        .filter(|&row| pairs == Pairs::All || !perturbations.share_a_plate(query, row))
        .map(|row| (dot(own, directions.row(row)).clamp(-1.0, 1.0), row))
        .collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order
}

/// The name that shares the longest beginning.
fn nearest_name(perturbations: &Perturbations, name: &str) -> String {
    let shared = |other: &str| {
        let pairs = name.chars().zip(other.chars());
        pairs.take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count()
    };
    perturbations
        .names()
        .iter()
        .max_by_key(|other| shared(other))
        .cloned()
        .unwrap_or_default()
}
