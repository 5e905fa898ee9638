//! Does the effect rise with the dose? Values by dose enter, a rank correlation and a trend test leave (SCIENCE 6.6).
//! What is undefined is `None`.

use statrs::distribution::{ContinuousCDF, Normal};

/// Spearman's rank correlation of pairs, tied values sharing their mean rank; `None` with fewer than three pairs or
/// where one side is constant.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let ranks = |side: fn(&(f64, f64)) -> f64| {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by(|&a, &b| side(&pairs[a]).total_cmp(&side(&pairs[b])));
        let mut ranks = vec![0.0; pairs.len()];
        let mut first = 0;
        for tied in order.chunk_by(|&a, &b| side(&pairs[a]) == side(&pairs[b])) {
            let rank = first as f64 + 0.5 * (tied.len() - 1) as f64;
            tied.iter().for_each(|&i| ranks[i] = rank);
            first += tied.len();
        }
        ranks
    };
    let (a, b) = (ranks(|p| p.0), ranks(|p| p.1));
    let middle = 0.5 * (pairs.len() - 1) as f64;
    let (mut together, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        together += (a - middle) * (b - middle);
        square_a += (a - middle).powi(2);
        square_b += (b - middle).powi(2);
    }
    let both = (square_a * square_b).sqrt();
    (both > 0.0).then(|| (together / both).clamp(-1.0, 1.0))
}

/// One-sided p-value of the Jonckheere-Terpstra test that values rise with the dose, by the normal approximation with
/// the variance for ties (Lehmann 1975, A.3). `None` with fewer than two distinct doses or where all values are equal.
pub fn jonckheere(points: &[(f64, f64)]) -> Option<f64> {
    let n = points.len() as f64;
    let mut statistic = 0.0;
    for a in points {
        for b in points.iter().filter(|b| b.0 > a.0) {
            statistic += match b.1.total_cmp(&a.1) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    let sizes = |side: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let mut values: Vec<f64> = points.iter().map(side).collect();
        values.sort_by(f64::total_cmp);
        values
            .chunk_by(|a, b| a == b)
            .map(|same| same.len() as f64)
            .collect()
    };
    let (doses, ties) = (sizes(|p| p.0), sizes(|p| p.1));
    let over = |sizes: &[f64], term: fn(f64) -> f64| sizes.iter().map(|&s| term(s)).sum::<f64>();
    let pairs = |s: f64| s * (s - 1.0);
    let triples = |s: f64| s * (s - 1.0) * (s - 2.0);
    let spread = |s: f64| s * (s - 1.0) * (2.0 * s + 5.0);
    let mean = 0.25 * (n * n - over(&doses, |s| s * s));
    let mut variance = (spread(n) - over(&doses, spread) - over(&ties, spread)) / 72.0;
    if n > 2.0 {
        variance += over(&doses, triples) * over(&ties, triples) / (36.0 * triples(n));
        variance += over(&doses, pairs) * over(&ties, pairs) / (8.0 * pairs(n));
    }
    if variance <= 0.0 {
        return None;
    }
    let normal = Normal::new(0.0, 1.0).ok()?;
    Some(normal.sf((statistic - mean) / variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks 0, 1, 2.5, 2.5 against 0, 2, 1, 3.
    #[test]
    fn spearman_shares_ranks_of_ties() {
        let rho = spearman(&[(1.0, 5.0), (2.0, 8.0), (3.0, 6.0), (3.0, 9.0)]).unwrap();
        assert!((rho - 3.0 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12);
        assert_eq!(spearman(&[(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]), None);
        assert_eq!(spearman(&[(1.0, 2.0), (2.0, 4.0), (3.0, 9.0)]), Some(1.0));
    }

    #[test]
    fn jonckheere_sees_a_rise_and_no_fall() {
        let rise: Vec<(f64, f64)> = (0..12).map(|i| (f64::from(i / 2), f64::from(i))).collect();
        let fall: Vec<(f64, f64)> = rise.iter().map(|&(dose, value)| (dose, -value)).collect();
        assert!(jonckheere(&rise).unwrap() < 1e-4);
        assert!(jonckheere(&fall).unwrap() > 0.999);
        assert_eq!(jonckheere(&[(1.0, 3.0), (2.0, 3.0)]), None);
        assert_eq!(jonckheere(&[(1.0, 3.0), (1.0, 4.0)]), None);
    }

    /// Mean and variance of the statistic over all orders of the values, counted.
    #[test]
    fn jonckheere_has_the_mean_and_variance_of_all_orders() {
        let doses = [1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0];
        for values in [
            [3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0],
            [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 5.0],
        ] {
            let statistic = |order: &[f64]| -> f64 {
                let pairs = (0..7).flat_map(|i| (0..7).map(move |j| (i, j)));
                let rising = pairs.filter(|&(i, j)| doses[i] < doses[j]);
                rising
                    .map(|(i, j)| match order[i].total_cmp(&order[j]) {
                        std::cmp::Ordering::Less => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Greater => 0.0,
                    })
                    .sum()
            };
            let mut all = Vec::new();
            orders(&mut values.to_vec(), 7, &mut |order| all.push(statistic(order)));
            assert_eq!(all.len(), 5040);
            let n = all.len() as f64;
            let mean = all.iter().sum::<f64>() / n;
            let variance = all.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / n;
            let z = (statistic(&values) - mean) / variance.sqrt();
            let expected = Normal::new(0.0, 1.0).unwrap().sf(z);
            let points: Vec<(f64, f64)> = doses.into_iter().zip(values).collect();
            let found = jonckheere(&points).unwrap();
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    /// Heap's algorithm.
    fn orders(values: &mut [f64], k: usize, see: &mut impl FnMut(&[f64])) {
        if k <= 1 {
            return see(values);
        }
        for i in 0..k {
            orders(values, k - 1, see);
            values.swap(if k.is_multiple_of(2) { i } else { 0 }, k - 1);
        }
    }
}
