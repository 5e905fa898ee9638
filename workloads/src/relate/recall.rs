//! Recall of known relations (EFAAR, SCIENCE 7): how many annotated pairs lie in the tails of all pairs, and how many
//! partners are among the nearest.
//!
//! Perturbations and relations enter, one row per source, threshold and kind of pairs leaves. Fails with too few
//! perturbations, without any annotated pair, and on thresholds out of range.

use std::collections::BTreeSet;

use super::ranks::{Pairs, Rank, pair_cosines, ranks};
use super::{Perturbations, RelateError, Relations, nearest_rows};

/// Fewest perturbations of a benchmark: EFAAR's `MIN_REQ_ENT_CNT`.
pub const FEWEST_PERTURBATIONS: usize = 20;
/// EFAAR's tails: `RECALL_PERC_THRS`.
pub const DEFAULT_THRESHOLDS: [(f64, f64); 2] = [(0.05, 0.95), (0.1, 0.9)];

/// How much of what is known was found, of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Recall {
    /// The source; `None`: all together, a pair of two sources once.
    pub source: Option<String>,
    /// Which pairs count, as query and as null.
    pub pairs: Pairs,
    /// Lower tail.
    pub low: f64,
    /// Upper tail.
    pub high: f64,
    /// Annotated pairs that count.
    pub annotated: usize,
    /// Pairs of the null; it includes the annotated ones.
    pub null: u64,
    /// Share of annotated pairs in either tail; `None` without annotated pairs. Anti-correlation is a relation.
    pub recall: Option<f64>,
    /// Share in the lower tail.
    pub recall_low: Option<f64>,
    /// Share in the upper tail.
    pub recall_high: Option<f64>,
    /// What chance gives: `low + 1 − high`.
    pub chance: f64,
}

/// Partners among the nearest, of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct RecallAtK {
    /// The source; `None`: all together.
    pub source: Option<String>,
    /// Which pairs count.
    pub pairs: Pairs,
    /// How many nearest are looked at.
    pub k: usize,
    /// Perturbations that have a partner that counts.
    pub queries: usize,
    /// Mean over these of `partners among the k nearest / min(k, partners)`; `None` without queries.
    pub recall: Option<f64>,
    /// The same for a random order.
    pub chance: Option<f64>,
}

/// Recall of every source, and of all together where there are several, at each pair of thresholds: over all pairs,
/// then over pairs on no common plate.
///
/// A pair is recalled where `rank_right / n ≤ low` or `rank_left / n ≥ high` (`searchsorted` of the pair's cosine in
/// the sorted cosines of all pairs).
///
/// # Errors
/// Fewer than 20 perturbations, no annotated pair among them, or thresholds out of range.
pub fn recall(
    perturbations: &Perturbations,
    relations: &Relations,
    thresholds: &[(f64, f64)],
) -> Result<Vec<Recall>, RelateError> {
    check(perturbations, relations)?;
    if let Some(&(low, high)) = thresholds
        .iter()
        .find(|(low, high)| !(0.0 <= *low && low < high && *high <= 1.0))
    {
        return Err(RelateError::Thresholds { low, high });
    }
    let everything = relations.present(perturbations, None);
    let cosines = pair_cosines(perturbations, &everything);
    let mut rows = Vec::new();
    for pairs in [Pairs::All, Pairs::CrossPlate] {
        let ranks = ranks(perturbations, &cosines, pairs);
        for source in sources(relations) {
            let own: Vec<Rank> = relations
                .present(perturbations, source)
                .into_iter()
                .filter(|&(a, b)| pairs == Pairs::All || !perturbations.share_a_plate(a, b))
                .filter_map(|pair| everything.binary_search(&pair).ok())
                .map(|place| ranks[place])
                .collect();
            for &(low, high) in thresholds {
                let share = |found: &dyn Fn(&Rank) -> bool| {
                    let count = own.iter().filter(|rank| found(rank)).count();
                    (!own.is_empty()).then(|| count as f64 / own.len() as f64)
                };
                let below = |rank: &Rank| rank.right_share() <= low;
                let above = |rank: &Rank| rank.left_share() >= high;
                rows.push(Recall {
                    source: source.map(str::to_owned),
                    pairs,
                    low,
                    high,
                    annotated: own.len(),
                    null: ranks.first().map_or(0, |rank| rank.null),
                    recall: share(&|rank| below(rank) || above(rank)),
                    recall_low: share(&below),
                    recall_high: share(&above),
                    chance: low + 1.0 - high,
                });
            }
        }
    }
    Ok(rows)
}

/// Recall at each `k`: over all pairs, then with perturbations on a common plate left out of the order.
///
/// # Errors
/// Fewer than 20 perturbations, or no annotated pair among them.
pub fn recall_at_k(
    perturbations: &Perturbations,
    relations: &Relations,
    ks: &[usize],
) -> Result<Vec<RecallAtK>, RelateError> {
    check(perturbations, relations)?;
    let most = ks.iter().copied().max().unwrap_or(0);
    let everything = relations.present(perturbations, None);
    let queries: BTreeSet<usize> = everything.iter().flat_map(|&(a, b)| [a, b]).collect();
    let queries: Vec<usize> = queries.into_iter().collect();
    let mut rows = Vec::new();
    for pairs in [Pairs::All, Pairs::CrossPlate] {
        let nearest = nearest_rows(perturbations, &queries, most, pairs);
        for source in sources(relations) {
            let mut partners = vec![Vec::new(); perturbations.len()];
            for (a, b) in relations.present(perturbations, source) {
                if pairs == Pairs::All || !perturbations.share_a_plate(a, b) {
                    partners[a].push(b);
                    partners[b].push(a);
                }
            }
            for &k in ks.iter().filter(|&&k| k > 0) {
                let (mut recall, mut chance, mut count) = (0.0, 0.0, 0usize);
                for (query, nearest) in queries.iter().zip(&nearest) {
                    let partners = &partners[*query];
                    if partners.is_empty() {
                        continue;
                    }
                    let best = k.min(partners.len()) as f64;
                    let found = nearest.rows.iter().take(k).filter(|row| partners.contains(row));
                    recall += found.count() as f64 / best;
                    let drawn = k.min(nearest.others) as f64 / nearest.others.max(1) as f64;
                    chance += drawn * partners.len() as f64 / best;
                    count += 1;
                }
                let mean = |sum: f64| (count > 0).then(|| sum / count as f64);
                rows.push(RecallAtK {
                    source: source.map(str::to_owned),
                    pairs,
                    k,
                    queries: count,
                    recall: mean(recall),
                    chance: mean(chance),
                });
            }
        }
    }
    Ok(rows)
}

/// Every source, and all together where that is another thing.
fn sources(relations: &Relations) -> Vec<Option<&str>> {
    let mut sources: Vec<Option<&str>> = relations.sources().map(Some).collect();
    if sources.len() > 1 {
        sources.push(None);
    }
    sources
}

fn check(perturbations: &Perturbations, relations: &Relations) -> Result<(), RelateError> {
    if perturbations.len() < FEWEST_PERTURBATIONS {
        return Err(RelateError::TooFew {
            found: perturbations.len(),
            needed: FEWEST_PERTURBATIONS,
        });
    }
    relations.check_present(perturbations)
}
