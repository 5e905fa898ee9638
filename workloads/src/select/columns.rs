//! The operations that judge each column by itself.

use rayon::prelude::*;

use super::{Operation, Why};
use crate::matrix::FeatureMatrix;

/// Per column why the operation drops it, `None` where it stays.
pub(super) fn judge(rows: &FeatureMatrix, columns: &[usize], operation: &Operation) -> Vec<Option<Why>> {
    columns
        .par_iter()
        .map_init(Vec::new, |values: &mut Vec<f32>, &column| {
            values.clear();
            values.extend(rows.rows().map(|row| row[column]).filter(|value| !value.is_nan()));
            judge_column(values, rows.len(), operation)
        })
        .collect()
}

/// `values` without NaN, of a column of `rows` rows.
fn judge_column(values: &mut [f32], rows: usize, operation: &Operation) -> Option<Why> {
    match *operation {
        Operation::DropNaColumns { cutoff } => {
            let share = (rows - values.len()) as f64 / rows as f64;
            (share > cutoff).then_some(Why::Missing { share })
        }
        Operation::VarianceThreshold { minimum } => {
            let variance = variance(values);
            // NaN is no variance.
            let kept = variance > minimum;
            (!kept).then_some(Why::Variance { variance })
        }
        Operation::FrequencyThreshold { ratio, unique } => {
            let (found, different) = frequency(values);
            let share = different as f64 / rows as f64;
            if found < ratio {
                return Some(Why::Frequency { ratio: found });
            }
            (share < unique).then_some(Why::Unique { share })
        }
        Operation::DropOutliers { cutoff } => {
            let largest = values
                .iter()
                .copied()
                .max_by(|a, b| a.abs().total_cmp(&b.abs()))?;
            (f64::from(largest.abs()) > cutoff).then_some(Why::Outlier { value: largest })
        }
        Operation::CorrelationThreshold { .. } | Operation::Blocklist { .. } => None,
    }
}

/// Population variance; NaN without values.
fn variance(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    values
        .iter()
        .map(|&v| (f64::from(v) - mean) * (f64::from(v) - mean))
        .sum::<f64>()
        / n
}

/// Count of the second most common value by that of the most common (0 with fewer than two values), and the number of
/// different values.
fn frequency(values: &mut [f32]) -> (f64, usize) {
    values.sort_unstable_by(f32::total_cmp);
    let (mut most, mut second, mut different) = (0, 0, 0);
    // By value: 0 and -0 are neighbours in this order, and one value.
    for run in values.chunk_by(|a, b| a == b) {
        different += 1;
        let count = run.len();
        if count > most {
            (most, second) = (count, most);
        } else {
            second = second.max(count);
        }
    }
    let ratio = if different < 2 {
        0.0
    } else {
        second as f64 / most as f64
    };
    (ratio, different)
}

/// The columns named, in their order.
pub(super) fn take(rows: &FeatureMatrix, columns: &[usize]) -> FeatureMatrix {
    let mut out = FeatureMatrix::zeros(rows.len(), columns.len());
    for (i, row) in rows.rows().enumerate() {
        for (value, &column) in out.row_mut(i).iter_mut().zip(columns) {
            *value = row[column];
        }
    }
    out
}
