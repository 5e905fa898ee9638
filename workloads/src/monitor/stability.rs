//! Population stability index of one principal component (SCIENCE 8).

/// Bins, at the deciles of the reference.
const BINS: usize = 10;
/// A bin holds at least this share, so that an empty one has a logarithm.
const FLOOR: f64 = 1e-4;

/// `Σ (b − a) ln(b / a)` over the deciles of `reference`; `a` and `b` are the shares of reference and plate. `None`
/// where a side is empty.
///
/// With the few controls of a plate it is far above the usual limits of 0.1 and 0.25 without any drift: those hold from
/// about 500 values on, and for fewer its limit must come from plates that did not drift.
pub fn stability_index(reference: &[f64], plate: &[f64]) -> Option<f64> {
    let mut sorted = reference.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    if plate.is_empty() {
        return None;
    }
    let deciles: Vec<f64> = (1..BINS)
        .map(|i| {
            let position = i as f64 / BINS as f64 * last as f64;
            let (below, part) = (position.floor() as usize, position.fract());
            sorted[below] + part * (sorted[(below + 1).min(last)] - sorted[below])
        })
        .collect();
    let shares = |values: &[f64]| {
        let mut counts = [0usize; BINS];
        for value in values {
            counts[deciles.partition_point(|decile| decile <= value)] += 1;
        }
        counts.map(|count| (count as f64 / values.len() as f64).max(FLOOR))
    };
    let (a, b) = (shares(reference), shares(plate));
    Some(a.iter().zip(b).map(|(a, b)| (b - a) * (b / a).ln()).sum())
}
