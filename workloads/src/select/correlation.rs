//! Correlation of every two columns, and which of a pair goes.

use std::ops::Range;

use faer::Mat;
use rayon::prelude::*;

use super::Why;
use super::columns::take;
use crate::align::moments::Moments;
use crate::linalg::add_product;
use crate::matrix::FeatureMatrix;

/// Rows worked on together where values are missing.
const BLOCK_ROWS: usize = 256;
/// Columns worked on together where values are missing.
const PANEL_COLUMNS: usize = 256;

/// Per column the first pair that drops it, `None` where it stays.
pub(super) fn correlated(
    rows: &FeatureMatrix,
    columns: &[usize],
    names: &[String],
    threshold: f64,
) -> Vec<Option<Why>> {
    let rows = take(rows, columns);
    let missing = rows.as_slice().iter().any(|value| value.is_nan());
    let r = if missing { pairwise(&rows) } else { complete(&rows) };
    let d = columns.len();
    let sums: Vec<f64> = (0..d)
        .map(|j| {
            let column = r.col(j);
            column.iter().map(|r| r.abs()).filter(|r| !r.is_nan()).sum()
        })
        .collect();
    // A column's place in the order of sums; equal sums keep the columns' order.
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| sums[a].total_cmp(&sums[b]));
    let mut place = vec![0; d];
    for (position, &column) in order.iter().enumerate() {
        place[column] = position;
    }
    let mut why = vec![None; d];
    for a in 0..d {
        for b in 0..a {
            let pair = r[(a, b)];
            if pair > threshold {
                let (gone, other) = if place[a] > place[b] { (a, b) } else { (b, a) };
                why[gone].get_or_insert_with(|| Why::Correlated {
                    with: names[columns[other]].clone(),
                    r: pair,
                });
            }
        }
    }
    why
}

/// Pearson's r of every two columns without missing values; NaN with a constant column.
fn complete(rows: &FeatureMatrix) -> Mat<f64> {
    let moments = Moments::of(rows);
    let scatter = moments.scatter();
    let flat: Vec<bool> = moments.deviations().iter().map(|&sd| sd == 0.0).collect();
    Mat::from_fn(rows.width(), rows.width(), |i, j| {
        if flat[i] || flat[j] {
            return f64::NAN;
        }
        let r = scatter[(i, j)] / (scatter[(i, i)] * scatter[(j, j)]).sqrt();
        r.clamp(-1.0, 1.0)
    })
}

/// Pearson's r of every two columns over the rows that have both; NaN where one does not vary there.
///
/// Of centred values with 0 for a missing one (X), their squares (Q) and the rows that have one (M), `XᵀX`, `XᵀM`,
/// `QᵀM` and `MᵀM` are the sums of all pairs. They are taken for some columns at a time, which bounds the memory.
fn pairwise(rows: &FeatureMatrix) -> Mat<f64> {
    let d = rows.width();
    let means: Vec<f64> = (0..d)
        .map(|j| {
            let values = rows.rows().map(|row| f64::from(row[j])).filter(|v| !v.is_nan());
            let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
            if n > 0.0 { sum / n } else { 0.0 }
        })
        .collect();
    let panels: Vec<Mat<f64>> = (0..d.div_ceil(PANEL_COLUMNS))
        .into_par_iter()
        .map(|panel| {
            let from = panel * PANEL_COLUMNS;
            panel_correlations(rows, &means, from..d.min(from + PANEL_COLUMNS))
        })
        .collect();
    Mat::from_fn(d, d, |i, j| panels[j / PANEL_COLUMNS][(i, j % PANEL_COLUMNS)])
}

/// r of every column (rows of the result) with the columns of the panel.
fn panel_correlations(rows: &FeatureMatrix, means: &[f64], panel: Range<usize>) -> Mat<f64> {
    let (d, w) = (rows.width(), panel.len());
    let zeros = || Mat::<f64>::zeros(d, w);
    // Named by what stands for the column of all (row of the result) and for the one of the panel.
    let (mut x_x, mut x_m, mut m_x) = (zeros(), zeros(), zeros());
    let (mut q_m, mut m_q, mut m_m) = (zeros(), zeros(), zeros());
    for block in rows.as_slice().chunks(BLOCK_ROWS * d) {
        let n = block.len() / d;
        let of = |f: fn(f64) -> f64| {
            Mat::from_fn(n, d, |i, j| {
                let value = f64::from(block[i * d + j]);
                if value.is_nan() { 0.0 } else { f(value - means[j]) }
            })
        };
        let (x, q, m) = (of(|x| x), of(|x| x * x), of(|_| 1.0));
        let some = |all: &Mat<f64>| all.subcols(panel.start, w).to_owned();
        let (x_some, q_some, m_some) = (some(&x), some(&q), some(&m));
        add_product(&mut x_x, x.transpose(), x_some.as_ref());
        add_product(&mut x_m, x.transpose(), m_some.as_ref());
        add_product(&mut m_x, m.transpose(), x_some.as_ref());
        add_product(&mut q_m, q.transpose(), m_some.as_ref());
        add_product(&mut m_q, m.transpose(), q_some.as_ref());
        add_product(&mut m_m, m.transpose(), m_some.as_ref());
    }
    Mat::from_fn(d, w, |i, j| {
        let n = m_m[(i, j)];
        let (sum_i, sum_j) = (x_m[(i, j)], m_x[(i, j)]);
        let (square_i, square_j) = (q_m[(i, j)], m_q[(i, j)]);
        let (a, b) = (square_i - sum_i * sum_i / n, square_j - sum_j * sum_j / n);
        // Without a common row n is 0 and a NaN.
        let varies = a > ROUNDING * square_i && b > ROUNDING * square_j;
        if !varies {
            return f64::NAN;
        }
        let r = (x_x[(i, j)] - sum_i * sum_j / n) / (a * b).sqrt();
        r.clamp(-1.0, 1.0)
    })
}

/// Share of a sum of squares below which a difference of such sums is rounding (f64 has 1e-16, sums of up to 10^6 rows
/// lose some digits).
const ROUNDING: f64 = 1e-12;
