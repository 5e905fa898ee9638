//! Grit (Chandrasekaran et al. 2021; cytominer-eval 0.1, `util.py`): how much a perturbation resembles the others of
//! its group, in standard deviations of its resemblance to controls. Rows and their places enter, a [`Grit`] per
//! perturbation leaves. It fails with fewer than two controls.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::similarity::{Directions, centred};
use crate::matrix::FeatureMatrix;

/// Where a profile stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GritPlace {
    /// One of the controls.
    Control,
    /// A profile of a perturbation, in a group of perturbations: guides of a gene, doses of a compound.
    Perturbation {
        /// Which one; profiles of one perturbation are never compared with each other.
        perturbation: usize,
        /// Its group.
        group: usize,
    },
    /// Takes no part.
    Unused,
}

/// One perturbation's grit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grit {
    /// The perturbation.
    pub perturbation: usize,
    /// Its group.
    pub group: usize,
    /// Mean z-score of its correlations with the other perturbations of the group; `None` where it is alone, or where
    /// its correlations with controls do not differ.
    pub grit: Option<f64>,
}

/// Why there is no grit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GritError {
    /// There is not one place per row.
    #[error("{places} places for {rows} rows: one is needed for each")]
    Places {
        /// Rows.
        rows: usize,
        /// Places.
        places: usize,
    },
    /// Too few controls.
    #[error("grit needs at least 2 control profiles that are finite and not constant, and there are {found}")]
    TooFewControls {
        /// Controls that can be used.
        found: usize,
    },
}

/// Grit of every perturbation, by perturbation. Similarity is Pearson's correlation; the SD is the population's.
/// Rows that are constant or not finite take no part.
///
/// # Errors
/// [`GritError`] without one place per row, or with fewer than two controls.
pub fn grit(rows: &FeatureMatrix, places: &[GritPlace]) -> Result<Vec<Grit>, GritError> {
    if places.len() != rows.len() {
        return Err(GritError::Places {
            rows: rows.len(),
            places: places.len(),
        });
    }
    let centred = centred(rows);
    let directions = Directions::of(&centred);
    let mut controls = Vec::new();
    let mut perturbations: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    let mut groups: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (row, place) in places
        .iter()
        .enumerate()
        .filter(|&(row, _)| directions.exists(row))
    {
        match *place {
            GritPlace::Control => controls.push(row),
            GritPlace::Perturbation { perturbation, group } => {
                perturbations.entry((perturbation, group)).or_default().push(row);
                groups.entry(group).or_default().push((perturbation, row));
            }
            GritPlace::Unused => {}
        }
    }
    if controls.len() < 2 {
        return Err(GritError::TooFewControls {
            found: controls.len(),
        });
    }
    Ok(perturbations
        .par_iter()
        .map(|(&(perturbation, group), profiles)| {
            let with = |others: &mut dyn Iterator<Item = usize>| -> Vec<f64> {
                others
                    .flat_map(|other| profiles.iter().map(move |&profile| (profile, other)))
                    .map(|(profile, other)| directions.cosine(profile, other))
                    .collect()
            };
            let to_controls = with(&mut controls.iter().copied());
            let members = groups.get(&group).into_iter().flatten();
            let to_group = with(
                &mut members
                    .filter(|(other, _)| *other != perturbation)
                    .map(|&(_, row)| row),
            );
            Grit {
                perturbation,
                group,
                grit: Spread::of(&to_controls).and_then(|spread| spread.z(&to_group)),
            }
        })
        .collect())
}

/// Mean and population SD of a profile's correlations with controls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    mean: f64,
    sd: f64,
}

impl Spread {
    /// `None` where they do not differ.
    pub(crate) fn of(to_controls: &[f64]) -> Option<Self> {
        let mean = mean(to_controls);
        let variance =
            to_controls.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / to_controls.len() as f64;
        (variance > 0.0).then(|| Self {
            mean,
            sd: variance.sqrt(),
        })
    }

    /// Where the mean of correlations with the group lies; `None` without any.
    pub(crate) fn z(&self, to_group: &[f64]) -> Option<f64> {
        (!to_group.is_empty()).then(|| (mean(to_group) - self.mean) / self.sd)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
