//! MODZ consensus (Subramanian et al. 2017; pycytominer `cyto_utils/modz.py`): a mean weighted by how well each
//! replicate correlates with the others. Replicates without NaN enter, weights or one row leave; nothing fails.

/// How replicates are weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModzSettings {
    /// No replicate's mean correlation counts as less than this.
    pub least_weight: f64,
    /// Decimals to which weights are rounded. pycytominer rounds to 4, after which they may not add up to 1; `None`
    /// does not round.
    pub decimals: Option<u8>,
}

impl Default for ModzSettings {
    fn default() -> Self {
        Self {
            least_weight: 0.01,
            decimals: None,
        }
    }
}

impl ModzSettings {
    /// What pycytominer does.
    pub fn parity() -> Self {
        Self {
            decimals: Some(4),
            ..Self::default()
        }
    }
}

/// The weight of each replicate: mean Spearman correlation with the others, negatives counted as 0, at least
/// `least_weight`, divided by their sum. One replicate has weight 1.
///
/// A constant replicate correlates with nothing: its pairs are left out of the means, as pandas leaves out NaN.
pub fn weights(rows: &[&[f32]], settings: ModzSettings) -> Vec<f64> {
    if rows.len() == 1 {
        return vec![1.0];
    }
    let ranks: Vec<Option<Vec<f64>>> = rows.iter().map(|row| unit_ranks(row)).collect();
    let correlation = |i: usize, j: usize| -> Option<f64> {
        let (a, b) = (ranks[i].as_ref()?, ranks[j].as_ref()?);
        Some(a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().max(0.0))
    };
    let raw: Vec<f64> = (0..rows.len())
        .map(|i| {
            let (mut sum, mut n) = (0.0, 0.0);
            for r in (0..rows.len())
                .filter(|&j| j != i)
                .filter_map(|j| correlation(i, j))
            {
                sum += r;
                n += 1.0;
            }
            let mean = if n > 0.0 { sum / n } else { 0.0 };
            f64::max(mean, settings.least_weight)
        })
        .collect();
    let total: f64 = raw.iter().sum();
    let round = |weight: f64| match settings.decimals {
        // numpy rounds halves to even.
        Some(decimals) => {
            let unit = 10f64.powi(i32::from(decimals));
            (weight * unit).round_ties_even() / unit
        }
        None => weight,
    };
    let even = 1.0 / rows.len() as f64;
    raw.iter()
        .map(|weight| round(if total > 0.0 { weight / total } else { even }))
        .collect()
}

/// The weighted sum of the replicates, into `out`.
pub(super) fn consensus(rows: &[&[f32]], settings: ModzSettings, out: &mut [f32]) {
    let weights = weights(rows, settings);
    for (column, out) in out.iter_mut().enumerate() {
        let sum: f64 = rows
            .iter()
            .zip(&weights)
            .map(|(row, weight)| weight * f64::from(row[column]))
            .sum();
        *out = sum as f32;
    }
}

/// Ranks (ties get their mean rank), centred and of length 1, so that their product is Spearman's correlation.
/// `None` where every value is the same.
fn unit_ranks(row: &[f32]) -> Option<Vec<f64>> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_unstable_by(|&a, &b| row[a].total_cmp(&row[b]).then(a.cmp(&b)));
    let mut ranks = vec![0.0; row.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&a, &b| row[a] == row[b]) {
        let rank = first as f64 + (tied.len() - 1) as f64 / 2.0;
        for &i in tied {
            ranks[i] = rank;
        }
        first += tied.len();
    }
    let centre = (row.len().max(1) - 1) as f64 / 2.0;
    ranks.iter_mut().for_each(|rank| *rank -= centre);
    let length = ranks.iter().map(|r| r * r).sum::<f64>().sqrt();
    (length > 0.0).then(|| {
        ranks.iter_mut().for_each(|rank| *rank /= length);
        ranks
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_replicate_is_itself_and_two_weigh_the_same() {
        let (a, b) = ([1.0, 2.0, 5.0, 4.0], [1.0, 3.0, 3.0, 9.0]);
        assert_eq!(weights(&[&a], ModzSettings::default()), [1.0]);
        let two = weights(&[&a, &b], ModzSettings::default());
        assert!((two[0] - 0.5).abs() < 1e-15 && (two[1] - 0.5).abs() < 1e-15);
    }

    #[test]
    fn a_replicate_that_contradicts_the_others_hardly_counts() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 3.5, 4.5]);
        let against = [9.0, 5.0, 3.0, 1.0];
        let weights = weights(&[&a, &b, &against], ModzSettings::default());
        // Mean correlations 0.5, 0.5 and, at the least, 0.01.
        assert!((weights[2] - 0.01 / 1.01).abs() < 1e-12, "{weights:?}");
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn ties_get_their_mean_rank() {
        let ranks = unit_ranks(&[2.0, 2.0, 7.0]).unwrap();
        assert!((ranks[0] - ranks[1]).abs() < 1e-15 && ranks[2] > 0.0);
        assert_eq!(unit_ranks(&[3.0, 3.0]), None);
    }
}
