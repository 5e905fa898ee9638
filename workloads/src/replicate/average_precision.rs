//! How early a profile finds its replicates among controls: average precision (Kalinin et al. 2025; copairs 0.5.5).
//! Rows and their places in the design enter, one [`Retrieval`] per row leaves. It fails where there is not one place
//! per row.
//!
//! A profile's pairs are ranked by descending cosine, in `f32` and as distances `1 − cosine`, as copairs ranks them.
//! Of equals, replicates come first, then pairs in the order of the rows. `AP = (1/P) Σ_{replicate at rank r}
//! (replicates up to r) / r`. It depends on nothing but, for each replicate, how many negatives come before it.

use rayon::prelude::*;

use super::similarity::Directions;
use crate::matrix::FeatureMatrix;

/// Where a profile stands in the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Profiles of one group are replicates of each other: state, compound and dose for activity, mechanism for
    /// consistency. `None` is a control: never asked, and never paired with a control.
    pub group: Option<usize>,
    /// Negatives come from the same stratum: the plate and state for activity; one stratum for all where it does not
    /// matter.
    pub stratum: usize,
}

/// What a profile is told apart from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negatives {
    /// The controls of its stratum: *phenotypic activity*.
    Controls,
    /// The profiles of other groups in its stratum: *consistency* of mechanisms. Controls take no part.
    OtherGroups,
}

/// How well one profile finds its replicates.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Retrieval {
    /// Replicates, P.
    pub positives: u32,
    /// Replicates and negatives, L.
    pub total: u32,
    /// In (0, 1]; `None` without replicates or without negatives.
    pub average_precision: Option<f64>,
    /// 0 where replicates are found no earlier than by chance, 1 where they come first; in [-1, 1].
    pub normalised: Option<f64>,
}

/// Every row's retrieval.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrievals {
    /// Row by row. For a control, `total` counts the profiles it is a negative of.
    pub rows: Vec<Retrieval>,
    /// Rows without a direction (zero, NaN or infinite), ascending: they take part in no pair.
    pub left_out: Vec<usize>,
}

/// There is not one place per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{places} places for {rows} rows: one is needed for each")]
pub struct PlaceError {
    /// Rows.
    pub rows: usize,
    /// Places.
    pub places: usize,
}

/// Average precision of every profile.
///
/// # Errors
/// [`PlaceError`] where there is not one place per row.
pub fn average_precision(
    rows: &FeatureMatrix,
    places: &[Place],
    negatives: Negatives,
) -> Result<Retrievals, PlaceError> {
    if places.len() != rows.len() {
        return Err(PlaceError {
            rows: rows.len(),
            places: places.len(),
        });
    }
    let directions = Directions::of(rows);
    let design = Design::of(places, &directions);
    let harmonics = harmonics(places.len());
    let retrievals = (0..places.len())
        .into_par_iter()
        .map_init(Vec::new, |scratch: &mut Vec<f32>, row| {
            let place = places[row];
            if !directions.exists(row) {
                return Retrieval::default();
            }
            match place.group {
                Some(group) => {
                    let others = design.negatives(place.stratum, group, negatives, places);
                    let members = design.groups[group].iter().copied().filter(|&i| i != row);
                    retrieval(row, members, others, &directions, &harmonics, scratch)
                }
                None if negatives == Negatives::Controls => Retrieval {
                    total: design.treated[place.stratum].len() as u32,
                    ..Retrieval::default()
                },
                None => Retrieval::default(),
            }
        })
        .collect();
    Ok(Retrievals {
        rows: retrievals,
        left_out: directions.missing(),
    })
}

/// Rows with a direction, by the part they play.
struct Design {
    groups: Vec<Vec<usize>>,
    treated: Vec<Vec<usize>>,
    controls: Vec<Vec<usize>>,
}

impl Design {
    fn of(places: &[Place], directions: &Directions<'_>) -> Self {
        let groups = places.iter().filter_map(|p| p.group).max().map_or(0, |g| g + 1);
        let strata = places.iter().map(|p| p.stratum).max().map_or(0, |s| s + 1);
        let mut design = Self {
            groups: vec![Vec::new(); groups],
            treated: vec![Vec::new(); strata],
            controls: vec![Vec::new(); strata],
        };
        for (row, place) in places
            .iter()
            .enumerate()
            .filter(|&(row, _)| directions.exists(row))
        {
            match place.group {
                Some(group) => {
                    design.groups[group].push(row);
                    design.treated[place.stratum].push(row);
                }
                None => design.controls[place.stratum].push(row),
            }
        }
        design
    }

    fn negatives<'a>(
        &'a self,
        stratum: usize,
        group: usize,
        negatives: Negatives,
        places: &'a [Place],
    ) -> impl Iterator<Item = usize> + 'a {
        let candidates = match negatives {
            Negatives::Controls => &self.controls[stratum],
            Negatives::OtherGroups => &self.treated[stratum],
        };
        candidates
            .iter()
            .copied()
            .filter(move |&row| places[row].group != Some(group))
    }
}

/// `scratch` holds distances to replicates and counts of negatives before them.
fn retrieval(
    row: usize,
    replicates: impl Iterator<Item = usize>,
    negatives: impl Iterator<Item = usize>,
    directions: &Directions<'_>,
    harmonics: &[f64],
    scratch: &mut Vec<f32>,
) -> Retrieval {
    let distance = |other: usize| 1.0f32 - directions.cosine(row, other) as f32;
    scratch.clear();
    scratch.extend(replicates.map(distance));
    scratch.sort_unstable_by(f32::total_cmp);
    let positives = scratch.len();
    let mut before = vec![0u32; positives + 1];
    let mut total = positives;
    if positives > 0 {
        for other in negatives {
            let distance = distance(other);
            total += 1;
            // It comes before every replicate that is farther; equals let the replicate pass.
            before[scratch.partition_point(|&replicate| replicate <= distance)] += 1;
        }
    } else {
        total = negatives.count();
    }
    let mut ahead = 0;
    let ahead = before[..positives].iter().map(|before| {
        ahead += before;
        ahead
    });
    of_ranks(ahead, positives, total, || harmonics[total])
}

/// Of a profile whose replicates and negatives lie at these distances, both ascending.
pub(crate) fn of_distances(replicates: &[f32], negatives: &[f32]) -> Retrieval {
    // Equals let the replicate pass.
    let ahead = replicates
        .iter()
        .map(|replicate| negatives.partition_point(|negative| negative < replicate) as u32);
    let total = replicates.len() + negatives.len();
    of_ranks(ahead, replicates.len(), total, || {
        (1..=total).map(|k| 1.0 / k as f64).sum()
    })
}

/// `ahead`: negatives before each replicate, from the nearest replicate on; `harmonic`: H_total.
fn of_ranks(
    ahead: impl Iterator<Item = u32>,
    positives: usize,
    total: usize,
    harmonic: impl Fn() -> f64,
) -> Retrieval {
    let mut retrieval = Retrieval {
        positives: positives as u32,
        total: total as u32,
        ..Retrieval::default()
    };
    if positives == 0 || total == positives {
        return retrieval;
    }
    let mut sum = 0.0;
    for (found, ahead) in ahead.enumerate() {
        let found = (found + 1) as f64;
        sum += found / (found + f64::from(ahead));
    }
    let ap = sum / positives as f64;
    retrieval.average_precision = Some(ap);
    retrieval.normalised = Some(normalise(ap, positives, total, harmonic()));
    retrieval
}

/// `(AP − μ₀) / (1 − μ₀)` within [-1, 1], with the mean AP of random ranks `μ₀ = (1/L)[(P−1)/(L−1)·(L−H_L) + H_L]`.
/// `harmonic` is H_L; there is at least one negative.
fn normalise(ap: f64, positives: usize, total: usize, harmonic: f64) -> f64 {
    let (p, l) = (positives as f64, total as f64);
    let chance = ((p - 1.0) / (l - 1.0) * (l - harmonic) + harmonic) / l;
    ((ap - chance) / (1.0 - chance)).clamp(-1.0, 1.0)
}

/// H_0 to H_n.
fn harmonics(n: usize) -> Vec<f64> {
    let mut harmonics = Vec::with_capacity(n + 1);
    let mut sum = 0.0;
    harmonics.push(sum);
    for k in 1..=n {
        sum += 1.0 / k as f64;
        harmonics.push(sum);
    }
    harmonics
}
