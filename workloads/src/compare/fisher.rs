//! The assay window over all features at once: controls on Fisher's direction, cross-validated (SCIENCE 6.3; Kümmel
//! et al. 2010, doi 10.1177/1087057109351311). Control rows enter, their positions leave.
//!
//! In-sample, fewer wells than features separate any two groups perfectly. So every well is scored by a direction
//! that was fitted without its fold. There is none (`None`) where a fold leaves fewer than two wells on a side.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

/// Parts of the cross-validation; a well's fold is its number within its group modulo this.
const FOLDS: usize = 5;

/// Positions of both groups, 0 at the mean of the training `negative` wells and 1 at that of the `positive` ones.
///
/// The direction is `Σ*⁻¹(μ₊ − μ₋)`, with `Σ*` the Ledoit-Wolf shrunk covariance of the rows about their group's
/// mean. Only inner products of wells are needed, so features may be any number: the covariance is inverted by
/// Woodbury's identity in as many dimensions as there are wells.
pub fn positions(negative: &[&[f64]], positive: &[&[f64]]) -> Option<(Vec<f64>, Vec<f64>)> {
    let rows: Vec<&[f64]> = negative.iter().chain(positive).copied().collect();
    let width = rows.first()?.len();
    let products = inner_products(&rows, width);
    let groups = [0..negative.len(), negative.len()..rows.len()];
    let mut scores = vec![0.0; rows.len()];
    for fold in 0..FOLDS {
        let is_test = |i: usize, start: usize| (i - start) % FOLDS == fold;
        let [first, second] = groups.clone().map(|group| -> Vec<usize> {
            let start = group.start;
            group.filter(|&i| !is_test(i, start)).collect()
        });
        if first.len() < 2 || second.len() < 2 {
            return None;
        }
        let direction = Direction::fit(&products, &first, &second, width)?;
        for group in &groups {
            for i in group.clone().filter(|&i| is_test(i, group.start)) {
                scores[i] = direction.position(&products, i);
            }
        }
    }
    let positive = scores.split_off(negative.len());
    Some((scores, positive))
}

/// Inner products of all rows about their common mean, which keeps the digits that a large common offset would cost.
fn inner_products(rows: &[&[f64]], width: usize) -> Mat<f64> {
    let n = rows.len() as f64;
    let mut mean = vec![0.0; width];
    for row in rows {
        for (mean, value) in mean.iter_mut().zip(*row) {
            *mean += value / n;
        }
    }
    let centred = Mat::from_fn(rows.len(), width, |i, j| rows[i][j] - mean[j]);
    crate::linalg::inner_square(centred.transpose())
}

/// Fisher's direction as a sum of training rows: `w = Σ weight_i x_i`, scaled so that the group means are at 0 and 1.
struct Direction {
    /// Of every row; 0 outside the training rows.
    weights: Vec<f64>,
    /// `w · μ₋`.
    origin: f64,
    /// `w · (μ₊ − μ₋)`.
    length: f64,
}

impl Direction {
    fn fit(products: &Mat<f64>, negative: &[usize], positive: &[usize], width: usize) -> Option<Self> {
        let all = products.nrows();
        let training: Vec<(usize, usize)> = negative
            .iter()
            .map(|&i| (i, 0))
            .chain(positive.iter().map(|&i| (i, 1)))
            .collect();
        // Row i of `centring` writes training row i, less its group's mean, as a sum of all rows.
        let groups = [negative, positive];
        let centring = Mat::from_fn(training.len(), all, |i, j| {
            let (row, group) = training[i];
            let mean = if groups[group].contains(&j) {
                1.0 / groups[group].len() as f64
            } else {
                0.0
            };
            f64::from(u8::from(row == j)) - mean
        });
        let difference = Mat::from_fn(all, 1, |j, _| {
            let share = |group: &[usize]| {
                if group.contains(&j) {
                    1.0 / group.len() as f64
                } else {
                    0.0
                }
            };
            share(positive) - share(negative)
        });
        let against_all = &centring * products;
        let within = &against_all * centring.transpose();
        let (ridge, per_row) = shrunk(&within, width)?;
        // Σ* = ridge·I + per_row·XᵀX, so Σ*⁻¹m = (m − per_row·Xᵀ(ridge·I + per_row·XXᵀ)⁻¹ X m) / ridge.
        let n = training.len();
        let system = Mat::from_fn(n, n, |i, j| {
            per_row * within[(i, j)] + if i == j { ridge } else { 0.0 }
        });
        let seen = &against_all * &difference;
        let solved = system.llt(Side::Lower).ok()?.solve(&seen);
        let correction = centring.transpose() * &solved;
        let weights: Vec<f64> = (0..all)
            .map(|j| (difference[(j, 0)] - per_row * correction[(j, 0)]) / ridge)
            .collect();
        let projected = |row: usize| -> f64 { (0..all).map(|j| weights[j] * products[(j, row)]).sum() };
        let mean = |group: &[usize]| group.iter().map(|&i| projected(i)).sum::<f64>() / group.len() as f64;
        let origin = mean(negative);
        let length = mean(positive) - origin;
        (length > 0.0 && length.is_finite()).then_some(Self {
            weights,
            origin,
            length,
        })
    }

    fn position(&self, products: &Mat<f64>, row: usize) -> f64 {
        let projected: f64 = self
            .weights
            .iter()
            .enumerate()
            .map(|(j, weight)| weight * products[(j, row)])
            .sum();
        (projected - self.origin) / self.length
    }
}

/// Ledoit and Wolf's `δμ` and `(1 − δ)/n` from the inner products of n centred rows ([`crate::align::shrink`] has the
/// formula on the features themselves). `None` without variation, or where nothing is shrunk and `Σ*` is singular.
fn shrunk(within: &Mat<f64>, width: usize) -> Option<(f64, f64)> {
    let (n, d) = (within.nrows() as f64, width as f64);
    let (mut trace, mut fourth, mut square) = (0.0, 0.0, 0.0);
    for j in 0..within.ncols() {
        trace += within[(j, j)];
        fourth += within[(j, j)] * within[(j, j)];
        for i in 0..within.nrows() {
            square += within[(i, j)] * within[(i, j)];
        }
    }
    let (mean_variance, square) = (trace / (n * d), square / (n * n));
    let a = square / d - mean_variance * mean_variance;
    let b = (fourth / n - square) / (n * d);
    let shrinkage = if a > 0.0 { b.min(a).max(0.0) / a } else { 0.0 };
    let ridge = shrinkage * mean_variance;
    (ridge > 0.0).then_some((ridge, (1.0 - shrinkage) / n))
}
