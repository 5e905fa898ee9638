//! On and off scores of single cells or wells (buscar 2026, doi 10.64898/2026.04.15.718737; SCIENCE 6.8): does a
//! perturbation carry the features that tell disease from healthy back to healthy, and does it change the others?
//!
//! Rows of features enter, a [`Signature`] and [`BuscarScore`]s leave. An orthogonal check of a rescue, not the main
//! score: the distance is quadratic, and in many dimensions noise dominates it. Fails on rows of differing width or
//! too few of them.

mod kolmogorov;
mod transport;

pub use kolmogorov::two_sample_p;
pub use transport::squared_wasserstein;

use rayon::prelude::*;

use super::multiple::benjamini_hochberg;
use crate::random::Random;

/// Fewer rows than this have no score.
pub const FEWEST_ROWS: usize = 3;
/// Most rows of a side that are transported; exact transport is cubic in them.
pub const MOST_ROWS: usize = 1000;

/// Why there is no signature or score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuscarError {
    /// A row of another width.
    #[error("a row has {found} features where the others have {expected}: give rows of one feature set")]
    Width {
        /// Features of the first row.
        expected: usize,
        /// What was found.
        found: usize,
    },
    /// Too few rows on a side.
    #[error("{side} has {found} rows: at least {FEWEST_ROWS} are needed")]
    FewRows {
        /// Which side.
        side: &'static str,
        /// What was given.
        found: usize,
    },
}

/// The features that differ between the reference (disease) and the target (healthy), and those that do not.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Features with q below the limit, ascending, 0-based.
    pub on: Vec<usize>,
    /// All others.
    pub off: Vec<usize>,
    /// Two-sided Kolmogorov-Smirnov p of every feature.
    pub p: Vec<f64>,
    /// `p` corrected by Benjamini-Hochberg.
    pub q: Vec<f64>,
}

/// Scores of one perturbation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BuscarScore {
    /// Transport cost to the target over that of the reference, on the on-features: 1 as far as the reference, near 0
    /// healthy. `None` without on-features, with fewer than three rows, or where the reference lies on the target.
    pub on: Option<f64>,
    /// Share of the off-features in which it differs from the target (p corrected over them, below the limit). `None`
    /// without off-features or with fewer than three rows.
    pub off: Option<f64>,
    /// The transport cost itself.
    pub cost: Option<f64>,
}

/// Finds on- and off-features at false discovery rate `q`.
///
/// # Errors
/// [`BuscarError`] where rows differ in width or a side has fewer than three.
pub fn identify_signature(reference: &[&[f32]], target: &[&[f32]], q: f64) -> Result<Signature, BuscarError> {
    for (side, rows) in [("the reference", reference), ("the target", target)] {
        if rows.len() < FEWEST_ROWS {
            return Err(BuscarError::FewRows {
                side,
                found: rows.len(),
            });
        }
    }
    let width = width(reference.iter().chain(target))?;
    let features: Vec<usize> = (0..width).collect();
    let p = p_values(reference, target, &features);
    let corrected = corrected(&p);
    let (on, off) = features.into_iter().partition(|&f| corrected[f] < q);
    Ok(Signature {
        on,
        off,
        p,
        q: corrected,
    })
}

/// Scores perturbations against a target, with one reference. Sides of more than 1000 rows are subsampled by `seed`.
#[derive(Debug)]
pub struct Scorer<'a> {
    signature: &'a Signature,
    target: &'a [&'a [f32]],
    q: f64,
    seed: u64,
    reference_cost: Option<f64>,
}

impl<'a> Scorer<'a> {
    /// Measures the reference's cost.
    ///
    /// # Errors
    /// [`BuscarError::Width`] where rows differ in width from each other or from the signature.
    pub fn new(
        signature: &'a Signature,
        reference: &[&[f32]],
        target: &'a [&'a [f32]],
        q: f64,
        seed: u64,
    ) -> Result<Self, BuscarError> {
        let mut scorer = Self {
            signature,
            target,
            q,
            seed,
            reference_cost: None,
        };
        scorer.check(reference)?;
        scorer.check(target)?;
        scorer.reference_cost = scorer.cost(reference);
        Ok(scorer)
    }

    /// Scores one perturbation.
    ///
    /// # Errors
    /// [`BuscarError::Width`] where a row has another width.
    pub fn score(&self, rows: &[&[f32]]) -> Result<BuscarScore, BuscarError> {
        self.check(rows)?;
        let cost = self.cost(rows);
        let on = cost
            .zip(self.reference_cost.filter(|&reference| reference > 0.0))
            .map(|(cost, reference)| cost / reference);
        let off = &self.signature.off;
        let enough = rows.len() >= FEWEST_ROWS && !off.is_empty();
        let off = enough.then(|| {
            let q = corrected(&p_values(rows, self.target, off));
            q.iter().filter(|&&q| q < self.q).count() as f64 / off.len() as f64
        });
        Ok(BuscarScore { on, off, cost })
    }

    fn check(&self, rows: &[&[f32]]) -> Result<(), BuscarError> {
        let expected = self.signature.p.len();
        match rows.iter().find(|row| row.len() != expected) {
            Some(row) => Err(BuscarError::Width {
                expected,
                found: row.len(),
            }),
            None => Ok(()),
        }
    }

    fn cost(&self, rows: &[&[f32]]) -> Option<f64> {
        if rows.len() < FEWEST_ROWS || self.target.len() < FEWEST_ROWS || self.signature.on.is_empty() {
            return None;
        }
        let of = |rows: &[&[f32]]| -> Vec<Vec<f64>> {
            subsample(rows, self.seed)
                .into_iter()
                .map(|row| self.signature.on.iter().map(|&f| f64::from(row[f])).collect())
                .collect()
        };
        Some(squared_wasserstein(&of(rows), &of(self.target)))
    }
}

/// At most [`MOST_ROWS`] rows, without replacement.
fn subsample<'r>(rows: &[&'r [f32]], seed: u64) -> Vec<&'r [f32]> {
    let mut chosen = rows.to_vec();
    if rows.len() > MOST_ROWS {
        let mut random = Random::seeded(seed);
        for i in 0..MOST_ROWS {
            let j = i + random.index(chosen.len() - i);
            chosen.swap(i, j);
        }
        chosen.truncate(MOST_ROWS);
    }
    chosen
}

fn width<'r>(mut rows: impl Iterator<Item = &'r &'r [f32]>) -> Result<usize, BuscarError> {
    let expected = rows.next().map_or(0, |row| row.len());
    match rows.find(|row| row.len() != expected) {
        Some(row) => Err(BuscarError::Width {
            expected,
            found: row.len(),
        }),
        None => Ok(expected),
    }
}

fn p_values(a: &[&[f32]], b: &[&[f32]], features: &[usize]) -> Vec<f64> {
    features
        .par_iter()
        .map(|&feature| {
            let of =
                |rows: &[&[f32]]| -> Vec<f64> { rows.iter().map(|row| f64::from(row[feature])).collect() };
            two_sample_p(&of(a), &of(b))
        })
        .collect()
}

fn corrected(p: &[f64]) -> Vec<f64> {
    let p: Vec<Option<f64>> = p.iter().copied().map(Some).collect();
    benjamini_hochberg(&p)
        .into_iter()
        .map(|q| q.unwrap_or(1.0))
        .collect()
}
