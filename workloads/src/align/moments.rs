//! Mean and scatter of rows that come plate by plate: all that the fits over a whole screen need of its wells.
//!
//! Rows enter in any portions; memory is one matrix of width x width. Portions are merged in the order in which they
//! are given, so the same plates in the same order give the same bytes.

use faer::Mat;

use crate::linalg::{column_means, scatter};
use crate::matrix::FeatureMatrix;

/// Number, mean and scatter of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: usize,
    mean: Vec<f64>,
    scatter: Mat<f64>,
}

impl Moments {
    /// Of no rows yet.
    pub fn new(width: usize) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; width],
            scatter: Mat::zeros(width, width),
        }
    }

    /// Of these rows: the scatter is taken about their own mean, so a large common offset costs no digits.
    pub fn of(rows: &FeatureMatrix) -> Self {
        let mean = column_means(rows);
        let scatter = scatter(rows, &mean);
        Self {
            count: rows.len(),
            mean,
            scatter,
        }
    }

    /// Adds other rows' moments (Chan, Golub and LeVeque 1983). Both have one width.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let difference: Vec<f64> = other
            .mean
            .iter()
            .zip(&self.mean)
            .map(|(other, own)| other - own)
            .collect();
        let weight = a * b / (a + b);
        for (j, column) in self.scatter.col_iter_mut().enumerate() {
            let between = weight * difference[j];
            for ((own, other), i) in column
                .iter_mut()
                .zip(other.scatter.col(j).iter())
                .zip(&difference)
            {
                *own += other + between * i;
            }
        }
        for (own, difference) in self.mean.iter_mut().zip(&difference) {
            *own += difference * b / (a + b);
        }
        self.count += other.count;
    }

    /// Rows seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Mean of each feature.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// `Σ (x − mean)(x − mean)ᵀ`, width x width.
    pub fn scatter(&self) -> &Mat<f64> {
        &self.scatter
    }

    /// Population SD of each feature; 0 where the feature does not vary.
    ///
    /// A variance below 1e-24 of the squared mean is rounding of a constant, not variation.
    pub fn deviations(&self) -> Vec<f64> {
        let n = self.count.max(1) as f64;
        self.mean
            .iter()
            .enumerate()
            .map(|(j, mean)| {
                let variance = self.scatter[(j, j)] / n;
                if variance <= CONSTANT * mean * mean {
                    0.0
                } else {
                    variance.sqrt()
                }
            })
            .collect()
    }

    /// The scatter of the rows divided by `scale`, feature by feature.
    pub fn scaled_scatter(&self, scale: &[f64]) -> Mat<f64> {
        let d = self.width();
        Mat::from_fn(d, d, |i, j| self.scatter[(i, j)] / (scale[i] * scale[j]))
    }
}

/// Share of the squared mean below which a variance is rounding: values are `f32` (24 bits), their mean `f64`, so a
/// constant column gives about 1e-32 and a column that differs in its last `f32` bit in one of 10^6 rows about 1e-20.
const CONSTANT: f64 = 1e-24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_give_what_all_rows_give() {
        let values = (0..900 * 4)
            .map(|i| 1000.0 + ((i * 31 % 97) as f32).cos())
            .collect();
        let rows = FeatureMatrix::from_values(4, values).unwrap();
        let all = Moments::of(&rows);
        let mut portions = Moments::new(4);
        for range in [0..1, 1..400, 400..400, 400..900] {
            portions.merge(&Moments::of(&rows.select(&range.collect::<Vec<_>>())));
        }
        assert_eq!(portions.count(), 900);
        for i in 0..4 {
            assert!((portions.mean()[i] - all.mean()[i]).abs() < 1e-10);
            for j in 0..4 {
                assert!((portions.scatter()[(i, j)] - all.scatter()[(i, j)]).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn a_constant_feature_has_no_deviation_and_a_last_bit_has() {
        let mut rows = FeatureMatrix::from_values(2, vec![0.1; 2000]).unwrap();
        rows.row_mut(7)[1] = 0.1f32.next_up();
        let deviations = Moments::of(&rows).deviations();
        assert_eq!(deviations[0], 0.0);
        assert!(deviations[1] > 0.0);
    }
}
