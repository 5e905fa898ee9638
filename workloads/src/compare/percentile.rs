//! Percentile normalisation: values become their ranks among the reference values of their column (Gibbons et al. 2018).
//!
//! Rows of raw features enter, [`Percentiles`] leaves. Ranks remove any monotone plate effect, and all differences beyond
//! the reference range with it: a value above every reference is 1, however far. Nothing fails: a column whose reference
//! values are all equal is named by [`Percentiles::flat_columns`].

use rayon::prelude::*;

/// The reference values of every column, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Percentiles {
    /// Column after column.
    sorted: Vec<f32>,
    /// Reference values of a column.
    rows: usize,
    /// Columns whose reference values are all equal, ascending, 0-based.
    pub flat_columns: Vec<usize>,
}

impl Percentiles {
    /// Of reference rows, all of one width and finite.
    pub fn fit(rows: &[&[f32]]) -> Self {
        let width = rows.iter().map(|row| row.len()).min().unwrap_or(0);
        let mut sorted = vec![0.0f32; width * rows.len()];
        let columns = sorted.par_chunks_exact_mut(rows.len().max(1)).enumerate();
        columns.for_each(|(column, values)| {
            for (value, row) in values.iter_mut().zip(rows) {
                // Plus zero: the two zeros are one value.
                *value = row[column] + 0.0;
            }
            values.sort_unstable_by(f32::total_cmp);
        });
        let flat = |values: &[f32]| values.first() == values.last();
        let columns = sorted.chunks_exact(rows.len().max(1)).enumerate();
        Self {
            flat_columns: columns
                .filter(|(_, values)| flat(values))
                .map(|(column, _)| column)
                .collect(),
            rows: rows.len(),
            sorted,
        }
    }

    /// For each value the share of reference values below it, those equal to it counted half; from 0 to 1.
    pub(super) fn shares<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        let columns = self.sorted.chunks_exact(self.rows.max(1));
        row.iter().zip(columns).map(|(&value, reference)| {
            let below = reference.partition_point(|&r| r < value);
            let up_to = reference.partition_point(|&r| r <= value);
            (below + up_to) as f64 / (2 * reference.len()) as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half_and_columns_are_apart() {
        let rows: [&[f32]; 4] = [&[1.0, -0.0], &[2.0, 0.0], &[2.0, 0.0], &[4.0, 0.0]];
        let fitted = Percentiles::fit(&rows);
        assert_eq!(fitted.flat_columns, [1]);
        let shares = |row: [f32; 2]| fitted.shares(&row).collect::<Vec<_>>();
        assert_eq!(shares([2.0, 0.0]), [0.5, 0.5]);
        assert_eq!(shares([0.0, -0.0]), [0.0, 0.5]);
        assert_eq!(shares([3.0, 1e-9]), [0.75, 1.0]);
        assert_eq!(shares([5.0, -1.0]), [1.0, 0.0]);
    }
}
