//! The centre of control wells: what the axis runs between. Feature rows enter, a mean leaves; nothing fails.
//!
//! It is the mean. Where more than 5 % of the wells are outliers ([`super::outliers`]) it is the mean of each feature
//! without the lowest and the highest tenth of its values (SCIENCE 6).

/// Fewest rows that can be trimmed: of two nobody can say which one is wrong.
pub(super) const FEWEST_TRIMMED: usize = 3;
/// A mean is trimmed where more than one well in so many is an outlier.
const ONE_IN: usize = 20;
/// One value in so many is left out at each end.
const CUT_ONE_IN: usize = 10;

/// How the rows of one side become its centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Centre {
    /// The mean.
    #[default]
    Mean,
    /// The mean of each feature without a tenth of its values at each end, rounded up: rounded down, nothing would be
    /// left out of fewer than ten, where one outlier is more than 5 % already.
    Trimmed,
}

/// The centres of a plate's sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Centres {
    /// Of the reference wells.
    pub reference: Centre,
    /// Of the phenotype wells.
    pub phenotype: Centre,
}

impl Centre {
    /// What is right for so many outliers among so many wells.
    pub fn with(outliers: usize, wells: usize) -> Self {
        if wells >= FEWEST_TRIMMED && outliers * ONE_IN > wells {
            Self::Trimmed
        } else {
            Self::Mean
        }
    }

    /// Whether it is the trimmed mean.
    pub fn is_trimmed(self) -> bool {
        self == Self::Trimmed
    }

    /// The centre of rows of one width; `None` without rows.
    pub fn of(self, rows: &[&[f64]]) -> Option<Vec<f64>> {
        match self {
            Self::Mean => mean(rows),
            Self::Trimmed => {
                let width = rows.first()?.len();
                let cut = cut(rows.len());
                let kept = (rows.len() - 2 * cut) as f64;
                let mut column = Vec::with_capacity(rows.len());
                let centre = (0..width).map(|c| {
                    sort_column(rows, c, &mut column);
                    column[cut..column.len() - cut].iter().sum::<f64>() / kept
                });
                Some(centre.collect())
            }
        }
    }

    /// For each row the centre of the others. `centre` is that of all of them. With fewer than two rows there are no
    /// others.
    pub fn of_others(self, rows: &[&[f64]], centre: &[f64]) -> Vec<Vec<f64>> {
        let n = rows.len();
        if n < 2 {
            return Vec::new();
        }
        match self {
            Self::Mean => rows.iter().map(|row| without(centre, n, row)).collect(),
            Self::Trimmed => {
                let mut others: Vec<Vec<f64>> = vec![Vec::with_capacity(centre.len()); n];
                let cut = cut(n - 1);
                let kept = (n - 1 - 2 * cut) as f64;
                let mut column = Vec::with_capacity(n);
                for c in 0..centre.len() {
                    sort_column(rows, c, &mut column);
                    // One value more than is kept: without a row the one that it leaves, or that moves out for it.
                    let within = &column[cut..n - cut];
                    let (Some(&low), Some(&high)) = (within.first(), within.last()) else {
                        continue;
                    };
                    let sum: f64 = within.iter().sum();
                    for (others, row) in others.iter_mut().zip(rows) {
                        others.push((sum - row[c].max(low).min(high)) / kept);
                    }
                }
                others
            }
        }
    }
}

/// How many values are left out at each end of `n`.
fn cut(n: usize) -> usize {
    if n < FEWEST_TRIMMED {
        return 0;
    }
    n.div_ceil(CUT_ONE_IN)
}

fn sort_column(rows: &[&[f64]], c: usize, into: &mut Vec<f64>) {
    into.clear();
    into.extend(rows.iter().map(|row| row[c]));
    into.sort_unstable_by(f64::total_cmp);
}

/// The mean of `n` rows without one of them.
fn without(mean: &[f64], n: usize, x: &[f64]) -> Vec<f64> {
    let n = n as f64;
    mean.iter().zip(x).map(|(m, x)| (n * m - x) / (n - 1.0)).collect()
}

/// Column means; `None` without rows.
pub fn mean(rows: &[&[f64]]) -> Option<Vec<f64>> {
    let mut sum = rows.first()?.to_vec();
    for row in &rows[1..] {
        for (sum, x) in sum.iter_mut().zip(*row) {
            *sum += x;
        }
    }
    let n = rows.len() as f64;
    for sum in &mut sum {
        *sum /= n;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(rows: &[Vec<f64>]) -> Vec<&[f64]> {
        rows.iter().map(Vec::as_slice).collect()
    }

    /// Rows of two features, the second falling where the first rises.
    fn rows(n: usize) -> Vec<Vec<f64>> {
        let value = |i: usize| (i as f64 * 0.618_033_988).fract();
        (0..n)
            .map(|i| vec![value(i), -value(i) * value(i) + if i == 1 { 1e3 } else { 0.0 }])
            .collect()
    }

    #[test]
    fn a_tenth_is_left_out_at_each_end_of_each_feature() {
        let made: Vec<Vec<f64>> = (0..20).map(|i| vec![f64::from(i), f64::from(i * i)]).collect();
        let centre = Centre::Trimmed.of(&slices(&made)).unwrap();
        let expected: f64 = (2..18).map(|i| f64::from(i * i)).sum::<f64>() / 16.0;
        assert_eq!(centre, [9.5, expected]);
        // Rounded up: one of 3 at each end, which leaves the median.
        let made = [vec![5.0], vec![-1e9], vec![6.0]];
        assert_eq!(Centre::Trimmed.of(&slices(&made)).unwrap(), [5.0]);
        // Nothing is left to trim of two.
        assert_eq!(
            Centre::Trimmed.of(&slices(&made[..2])),
            Centre::Mean.of(&slices(&made[..2]))
        );
        assert_eq!(Centre::Trimmed.of(&[]), None);
    }

    #[test]
    fn the_centre_of_the_others_is_the_centre_of_the_rows_without_one() {
        for centre in [Centre::Mean, Centre::Trimmed] {
            for n in [2, 3, 4, 9, 10, 11, 12, 20, 21, 48] {
                let made = rows(n);
                let made = slices(&made);
                let all = centre.of(&made).unwrap();
                let others = centre.of_others(&made, &all);
                assert_eq!(others.len(), n);
                for (i, others) in others.iter().enumerate() {
                    let mut rest = made.clone();
                    rest.remove(i);
                    for (a, b) in others.iter().zip(centre.of(&rest).unwrap()) {
                        assert!((a - b).abs() < 1e-9, "{centre:?} {n} {i}: {a} {b}");
                    }
                }
            }
        }
        assert!(Centre::Trimmed.of_others(&[&[1.0]], &[1.0]).is_empty());
    }

    #[test]
    fn more_than_one_outlier_in_twenty_trims() {
        assert_eq!(Centre::with(0, 48), Centre::Mean);
        assert_eq!(Centre::with(1, 20), Centre::Mean);
        assert_eq!(Centre::with(1, 19), Centre::Trimmed);
        assert_eq!(Centre::with(3, 48), Centre::Trimmed);
        assert_eq!(Centre::with(2, 2), Centre::Mean);
    }
}
