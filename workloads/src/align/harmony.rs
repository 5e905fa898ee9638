//! Harmony (SCIENCE 5.6; Korsunsky et al. 2019, doi 10.1038/s41592-019-0619-0): moves the wells of each batch towards
//! the wells of other batches that look alike.
//!
//! Aligned components enter, with the batch and the disease state of every well; moved components leave. An optional
//! step after the others. It draws its first centroids from a seed: the same rows, batches, settings and seed give the
//! same bytes on any number of threads. Numbers differ from those of other implementations; mixing of batches and
//! separation of states are what to compare.
//!
//! **It moves whatever differs between batches.** Where a disease state lies in one batch only, its phenotype is such a
//! difference and would be taken away, so this is refused. What was learnt cannot be applied to a later plate: fit
//! again with all of them, or use TVN.

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::clusters::{Clusters, unit_rows};
use crate::linalg::{project, weighted_sums};
use crate::matrix::FeatureMatrix;

/// How to run Harmony. The defaults are those of the method's authors (harmonypy 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HarmonySettings {
    /// Clusters; 0 is one per 30 wells, at most 100.
    pub clusters: usize,
    /// θ: how strongly clusters are made to hold every batch.
    pub diversity: f64,
    /// σ: how soft clusters are, in squared distances of unit vectors.
    pub softness: f64,
    /// α: the ridge on a batch's shift in a cluster, as a share of the wells that are expected there.
    pub ridge: f64,
    /// Rounds of clustering and moving at most.
    pub rounds: usize,
    /// Rounds of clustering in each of them at most.
    pub cluster_rounds: usize,
    /// Share of the wells that are assigned together.
    pub block: f64,
    /// Relative change of the objective below which it stops.
    pub tolerance: f64,
    /// Of the first centroids and the order of wells.
    pub seed: u64,
}

impl Default for HarmonySettings {
    fn default() -> Self {
        Self {
            clusters: 0,
            diversity: 2.0,
            softness: 0.1,
            ridge: 0.2,
            rounds: 10,
            cluster_rounds: 4,
            block: 0.05,
            tolerance: 0.01,
            seed: 0,
        }
    }
}

/// Moved wells.
#[derive(Debug, Clone, PartialEq)]
pub struct Harmonised {
    /// The rows, in their order.
    pub rows: FeatureMatrix,
    /// The objective after every round: it ends below the tolerance or after the last round.
    pub objective: Vec<f64>,
    /// Whether it ended below the tolerance.
    pub converged: bool,
}

/// Why Harmony was not run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HarmonyError {
    /// Labels and rows do not match.
    #[error(
        "{rows} rows have {batches} batch labels and {states} disease states: expected one of each per row"
    )]
    Labels {
        /// Rows.
        rows: usize,
        /// Batch labels.
        batches: usize,
        /// States.
        states: usize,
    },
    /// There is nothing to align.
    #[error("all wells are of one batch, '{batch}': Harmony aligns two or more")]
    OneBatch {
        /// The batch; empty without wells.
        batch: String,
    },
    /// A state lies in one batch only.
    #[error(
        "disease state '{state}' lies in batch '{batch}' only: Harmony would take its phenotype for a difference of \
         batches; use TVN, or batches that hold every state"
    )]
    Confounded {
        /// The state.
        state: String,
        /// Its only batch.
        batch: String,
    },
    /// Batches fall into groups without a common state.
    #[error(
        "batches '{batch}' and '{other}' are not connected by any disease state: what differs between them cannot be \
         told from disease"
    )]
    Disconnected {
        /// A batch.
        batch: String,
        /// One that it cannot be compared with.
        other: String,
    },
    /// A value is NaN or infinite.
    #[error("row {row} column {column} is {value}: values are never imputed, drop the well")]
    NotFinite {
        /// 0-based row.
        row: usize,
        /// 0-based column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A setting is out of range.
    #[error("harmony setting {setting} is {value}: expected {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// What is expected.
        expected: &'static str,
    },
}

/// Moves the wells. `batches` and `states` have one label per row; a treated well has the state of its disease model.
///
/// # Errors
/// [`HarmonyError`].
pub fn harmony<L: AsRef<str>>(
    rows: &FeatureMatrix,
    batches: &[L],
    states: &[L],
    settings: &HarmonySettings,
) -> Result<Harmonised, HarmonyError> {
    settings.check()?;
    if batches.len() != rows.len() || states.len() != rows.len() {
        return Err(HarmonyError::Labels {
            rows: rows.len(),
            batches: batches.len(),
            states: states.len(),
        });
    }
    if let Some(at) = rows.as_slice().iter().position(|value| !value.is_finite()) {
        return Err(HarmonyError::NotFinite {
            row: at / rows.width(),
            column: at % rows.width(),
            value: rows.as_slice()[at],
        });
    }
    let (batch_names, batch) = numbered(batches);
    let (state_names, state) = numbered(states);
    check_design(&batch_names, &batch, &state_names, &state)?;
    let count = match settings.clusters {
        0 => (rows.len() as f64 / 30.0).round().clamp(1.0, 100.0) as usize,
        count => count.min(rows.len()),
    };
    let mut moved = rows.clone();
    let mut clusters = Clusters::new(unit_rows(&moved), &batch, batch_names.len(), count, settings);
    let mut objective: Vec<f64> = Vec::new();
    for _ in 0..settings.rounds {
        let value = clusters.settle(settings);
        move_wells(rows, &mut moved, &batch, &clusters, settings.ridge);
        clusters.replace_rows(unit_rows(&moved));
        let last = objective.last().copied();
        objective.push(value);
        if last.is_some_and(|last| (last - value).abs() < settings.tolerance * last.abs()) {
            return Ok(Harmonised {
                rows: moved,
                objective,
                converged: true,
            });
        }
    }
    Ok(Harmonised {
        rows: moved,
        objective,
        converged: false,
    })
}

/// Takes from every original row the shifts of its batch in its clusters.
///
/// In each cluster k a ridge regression of the rows on an intercept and the batches, weighted by R, has its solution in
/// closed form: with N and S the weight and weighted sum of a batch, and ridge λ = α E on batches only,
/// `β₀ = Σ_b λS/(N+λ) / Σ_b λN/(N+λ)` and `β_b = (S − N β₀)/(N+λ)`.
fn move_wells(
    original: &FeatureMatrix,
    moved: &mut FeatureMatrix,
    batch: &[usize],
    clusters: &Clusters,
    ridge: f64,
) {
    let members: Vec<Vec<usize>> = (0..clusters.batches())
        .map(|b| (0..batch.len()).filter(|&i| batch[i] == b).collect())
        .collect();
    // Per batch: the weight of each cluster, and its weighted sum of rows.
    let sums: Vec<(Vec<f64>, Mat<f64>)> = members
        .iter()
        .map(|members| {
            let shares = clusters.shares().select(members);
            let mut weight = vec![0.0; clusters.count()];
            for row in shares.rows() {
                for (weight, &share) in weight.iter_mut().zip(row) {
                    *weight += f64::from(share);
                }
            }
            (weight, weighted_sums(&shares, &original.select(members)))
        })
        .collect();
    let lambda = |k: usize, b: usize| {
        let total: f64 = sums.iter().map(|(weight, _)| weight[k]).sum();
        ridge * total * clusters.batch_share(b)
    };
    let shares: Vec<Vec<f64>> = (0..clusters.count())
        .map(|k| {
            let share = |b: usize| lambda(k, b) / (sums[b].0[k] + lambda(k, b));
            (0..sums.len()).map(share).collect()
        })
        .collect();
    let intercept = Mat::from_fn(clusters.count(), original.width(), |k, j| {
        let of_rows: f64 = (0..sums.len()).map(|b| shares[k][b] * sums[b].1[(k, j)]).sum();
        let of_weights: f64 = (0..sums.len()).map(|b| shares[k][b] * sums[b].0[k]).sum();
        of_rows / of_weights
    });
    for (b, members) in members.iter().enumerate() {
        let (weight, sum) = &sums[b];
        let shift = Mat::from_fn(clusters.count(), original.width(), |k, j| {
            let shift = (sum[(k, j)] - weight[k] * intercept[(k, j)]) / (weight[k] + lambda(k, b));
            // A cluster without any weight has no shift.
            if shift.is_finite() { shift } else { 0.0 }
        });
        let none = vec![0.0; clusters.count()];
        let shifts = project(&clusters.shares().select(members), &none, shift.as_ref());
        for (&i, shift) in members.iter().zip(shifts.rows()) {
            for ((out, &value), &shift) in moved.row_mut(i).iter_mut().zip(original.row(i)).zip(shift) {
                *out = value - shift;
            }
        }
    }
}

/// Sorted labels, and the number of each row's.
fn numbered<L: AsRef<str>>(labels: &[L]) -> (Vec<&str>, Vec<usize>) {
    let mut names: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    names.dedup();
    let number = |label: &L| names.partition_point(|&name| name < label.as_ref());
    let numbers = labels.iter().map(number).collect();
    (names, numbers)
}

fn check_design(
    batch_names: &[&str],
    batch: &[usize],
    state_names: &[&str],
    state: &[usize],
) -> Result<(), HarmonyError> {
    if batch_names.len() < 2 {
        return Err(HarmonyError::OneBatch {
            batch: batch_names
                .first()
                .map_or_else(String::new, |&name| name.to_owned()),
        });
    }
    let mut together = vec![vec![false; batch_names.len()]; state_names.len()];
    for (&batch, &state) in batch.iter().zip(state) {
        together[state][batch] = true;
    }
    for (state, batches) in together.iter().enumerate() {
        let mut held = (0..batches.len()).filter(|&b| batches[b]);
        if let (Some(only), None) = (held.next(), held.next()) {
            return Err(HarmonyError::Confounded {
                state: state_names[state].to_owned(),
                batch: batch_names[only].to_owned(),
            });
        }
    }
    // Batches that are reached from the first one by common states.
    let mut reached = vec![false; batch_names.len()];
    reached[0] = true;
    let mut grown = true;
    while grown {
        grown = false;
        for batches in &together {
            if (0..batches.len()).any(|b| batches[b] && reached[b]) {
                for b in 0..batches.len() {
                    grown |= batches[b] && !reached[b];
                    reached[b] |= batches[b];
                }
            }
        }
    }
    match reached.iter().position(|&reached| !reached) {
        None => Ok(()),
        Some(other) => Err(HarmonyError::Disconnected {
            batch: batch_names[0].to_owned(),
            other: batch_names[other].to_owned(),
        }),
    }
}

impl HarmonySettings {
    fn check(&self) -> Result<(), HarmonyError> {
        let above_0 = "a finite number above 0";
        let checks = [
            (
                "diversity",
                self.diversity,
                self.diversity >= 0.0,
                "a finite number of at least 0",
            ),
            ("softness", self.softness, self.softness > 0.0, above_0),
            ("ridge", self.ridge, self.ridge > 0.0, above_0),
            ("rounds", self.rounds as f64, self.rounds > 0, "at least 1"),
            (
                "cluster_rounds",
                self.cluster_rounds as f64,
                self.cluster_rounds > 0,
                "at least 1",
            ),
            (
                "block",
                self.block,
                self.block > 0.0 && self.block <= 1.0,
                "a share above 0, at most 1",
            ),
            (
                "tolerance",
                self.tolerance,
                self.tolerance >= 0.0,
                "a finite number of at least 0",
            ),
        ];
        for (setting, value, right, expected) in checks {
            if !right || !value.is_finite() {
                return Err(HarmonyError::Setting {
                    setting,
                    value,
                    expected,
                });
            }
        }
        Ok(())
    }
}
