//! Consistency of a perturbation's replicates (Celik et al. 2024; EFAAR_benchmarking `pert_signal_consistency`): their
//! mean cosine, and where it lies among the means of perturbations known to do nothing.
//!
//! Rows and groups enter, one [`Consistency`] per group leaves; nothing fails. A group with fewer than two rows that
//! have a direction has none.

use rayon::prelude::*;

use super::similarity::Directions;
use super::tail::p_value;
use crate::matrix::FeatureMatrix;

/// How p is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// `(1 + #{null ≥ observed}) / (1 + n)`: never 0.
    PlusOne,
    /// `#{null ≥ observed} / n`, as EFAAR_benchmarking counts it: can be 0.
    Efaar,
}

/// A group's consistency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consistency {
    /// Rows with a direction.
    pub replicates: u32,
    /// Mean cosine of their pairs, in [-1, 1].
    pub mean_cosine: f64,
    /// Against the null groups; `None` where none of these has a mean.
    pub p_value: Option<f64>,
}

/// Mean cosine of the pairs of each group, with p against the means of the groups in `null` (indices into `groups`):
/// unexpressed genes, or compounds known to be inactive.
pub fn consistency(
    rows: &FeatureMatrix,
    groups: &[Vec<usize>],
    null: &[usize],
    counting: Counting,
) -> Vec<Option<Consistency>> {
    let directions = Directions::of(rows);
    let mut found: Vec<Option<Consistency>> = groups
        .par_iter()
        .map(|members| mean_cosine(members, &directions))
        .collect();
    let mut means: Vec<f64> = null
        .iter()
        .filter_map(|&group| Some(found.get(group)?.as_ref()?.mean_cosine))
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    for consistency in found.iter_mut().flatten() {
        let reached = means.len() - means.partition_point(|&mean| mean < consistency.mean_cosine);
        consistency.p_value = match counting {
            _ if means.is_empty() => None,
            Counting::PlusOne => Some(p_value(reached, means.len())),
            Counting::Efaar => Some(reached as f64 / means.len() as f64),
        };
    }
    found
}

fn mean_cosine(members: &[usize], directions: &Directions<'_>) -> Option<Consistency> {
    let members: Vec<usize> = members
        .iter()
        .copied()
        .filter(|&row| directions.exists(row))
        .collect();
    let n = members.len();
    if n < 2 {
        return None;
    }
    let sum: f64 = (1..n)
        .flat_map(|i| (0..i).map(move |j| (i, j)))
        .map(|(i, j)| directions.cosine(members[i], members[j]))
        .sum();
    Some(Consistency {
        replicates: n as u32,
        mean_cosine: sum / (n * (n - 1) / 2) as f64,
        p_value: None,
    })
}
