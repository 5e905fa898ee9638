//! Colocalisation of two channels in an object (CellProfiler MeasureColocalization). Enters: its values in both. Leaves:
//! a value per name of [`NAMES`]; NaN where a channel does not vary or is black.
//!
//! With `a` and `b` the values and a threshold of a given part of the largest value in the object, both inclusive:
//! Correlation is Pearson's, Slope that of `b` on `a` by least squares; Manders `sum(a where both lie above) / sum(a
//! above its own)`; RWC the same with weights `(R - |rank a - rank b|) / R`, ranks dense, R one more than the largest;
//! Overlap `sum(a b) / sqrt(sum(a^2) sum(b^2))` and K `sum(a b) / sum(a^2)` where both lie above. Manders, RWC, Overlap
//! and K are 0 if nothing lies above both. Costes is left out: it takes a hundred times as long as all others together.

/// Names of what [`measure`] gives; `_1` is of the first channel of a pair, `_2` of the second.
pub(crate) const NAMES: [&str; 9] = [
    "Correlation",
    "Slope",
    "Manders_1",
    "Manders_2",
    "RWC_1",
    "RWC_2",
    "Overlap",
    "K_1",
    "K_2",
];

/// Dense ranks from 0 and the largest of them.
pub(crate) fn ranks(values: &[u16]) -> (Vec<u32>, u32) {
    let mut distinct = values.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let ranks = values
        .iter()
        .map(|v| distinct.binary_search(v).map_or(0, |at| at as u32))
        .collect();
    (ranks, distinct.len().saturating_sub(1) as u32)
}

/// One channel of a pair.
pub(crate) struct Channel<'a> {
    pub(crate) values: &'a [u16],
    pub(crate) ranks: &'a (Vec<u32>, u32),
}

/// Values of [`NAMES`] with a threshold of `percent` of the largest value.
pub(crate) fn measure(a: &Channel, b: &Channel, percent: f64, out: &mut Vec<f64>) {
    let n = a.values.len() as i128;
    let limit = |values: &[u16]| percent / 100.0 * f64::from(values.iter().copied().max().unwrap_or(0));
    let (limit_a, limit_b) = (limit(a.values), limit(b.values));
    let span = f64::from(a.ranks.1.max(b.ranks.1) + 1);
    // Sums over all pixels.
    let (mut sa, mut sb, mut saa, mut sbb, mut sab) = (0u64, 0u64, 0u64, 0u64, 0u64);
    // Of each channel above its own threshold; where both are above: sums, weighted sums, products.
    let (mut own_a, mut own_b) = (0u64, 0u64);
    let (mut both, mut both_a, mut both_b) = (0u64, 0u64, 0u64);
    let (mut weighted_a, mut weighted_b) = (0.0, 0.0);
    let (mut aa, mut bb, mut ab) = (0u64, 0u64, 0u64);
    for ((&va, &vb), (&ra, &rb)) in a
        .values
        .iter()
        .zip(b.values)
        .zip(a.ranks.0.iter().zip(&b.ranks.0))
    {
        let (x, y) = (u64::from(va), u64::from(vb));
        sa += x;
        sb += y;
        saa += x * x;
        sbb += y * y;
        sab += x * y;
        let (above_a, above_b) = (f64::from(va) >= limit_a, f64::from(vb) >= limit_b);
        own_a += if above_a { x } else { 0 };
        own_b += if above_b { y } else { 0 };
        if above_a && above_b {
            both += 1;
            both_a += x;
            both_b += y;
            let weight = (span - f64::from(ra.abs_diff(rb))) / span;
            weighted_a += weight * x as f64;
            weighted_b += weight * y as f64;
            aa += x * x;
            bb += y * y;
            ab += x * y;
        }
    }
    // n^2 times variances and covariance, without rounding.
    let [sa, sb, saa, sbb, sab] = [sa, sb, saa, sbb, sab].map(i128::from);
    let (va, vb, cov) = (
        (n * saa - sa * sa) as f64,
        (n * sbb - sb * sb) as f64,
        (n * sab - sa * sb) as f64,
    );
    // 0 / 0 is NaN.
    out.extend([cov / (va.sqrt() * vb.sqrt()), cov / va]);
    if both == 0 {
        out.extend([0.0; 7]);
        return;
    }
    let (own_a, own_b) = (own_a as f64, own_b as f64);
    let (aa, bb, ab) = (aa as f64, bb as f64, ab as f64);
    out.extend([
        both_a as f64 / own_a,
        both_b as f64 / own_b,
        weighted_a / own_a,
        weighted_b / own_b,
        ab / (aa.sqrt() * bb.sqrt()),
        ab / aa,
        ab / bb,
    ]);
}
