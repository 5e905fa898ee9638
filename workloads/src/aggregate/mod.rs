//! From sites to wells to perturbations (SCIENCE 4): several rows of features become one.
//!
//! Rows and the groups they belong to enter, one row per group leaves, with how many missing values were skipped.
//! [`WellFields`] takes the fields of a well one after the other.
//! [`sites`] applies the quality verdicts first and keeps a record of everything it leaves out; [`cell_count`] takes a
//! well's cell count out of its profile.
//!
//! It fails on a group without rows, on a row that does not exist, and on sites that contradict each other.

pub mod cell_count;
mod fields;
mod modz;
pub mod sites;

use rayon::prelude::*;

use crate::matrix::FeatureMatrix;
pub use fields::{Aggregate, WellFields};
pub use modz::{ModzSettings, weights as modz_weights};

/// How the rows of a group become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Mean of each column; NaN is skipped. For wells to perturbations: it commutes with rotations.
    Mean,
    /// Median of each column, the mean of the two central values for an even count; NaN is skipped. pycytominer's
    /// default.
    Median,
    /// Mean weighted by how much the rows resemble each other (MODZ); NaN is refused, since ranks need every value.
    Modz(ModzSettings),
}

/// One row per group.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregated {
    /// Row `g` is group `g`; NaN where every value of a column was NaN.
    pub rows: FeatureMatrix,
    /// Missing (NaN) values skipped in each group, over all columns.
    pub skipped: Vec<u64>,
}

/// Why rows could not be aggregated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// A group has no rows.
    #[error("group {group} has no rows: leave it out, a missing profile is not a zero one")]
    Empty {
        /// The group.
        group: usize,
    },
    /// A group names a row that does not exist.
    #[error("group {group} names row {row}, but there are {rows} rows")]
    NoSuchRow {
        /// The group.
        group: usize,
        /// The row named.
        row: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A value is NaN where the method needs every value.
    #[error(
        "group {group}: row {row} has no value in feature column {column}, and MODZ ranks every value: leave the row \
         out or drop the column"
    )]
    Missing {
        /// The group.
        group: usize,
        /// The row.
        row: usize,
        /// 0-based feature column.
        column: usize,
    },
}

/// Makes one row of the rows of each group; a row may be in several groups. Sums are in `f64`, in the order of
/// `groups[g]`.
///
/// # Errors
/// [`AggregateError`] for a group without rows, a row that does not exist, and NaN under MODZ.
pub fn aggregate(
    rows: &FeatureMatrix,
    groups: &[Vec<usize>],
    method: Method,
) -> Result<Aggregated, AggregateError> {
    let width = rows.width();
    check(rows, groups)?;
    let mut out = FeatureMatrix::zeros(groups.len(), width);
    let mut skipped = vec![0; groups.len()];
    out.as_mut_slice()
        .par_chunks_mut(width.max(1))
        .zip(&mut skipped)
        .enumerate()
        .try_for_each(|(group, (out, skipped))| {
            let members = &groups[group];
            let rows_of = || members.iter().map(|&row| rows.row(row));
            match method {
                Method::Mean => *skipped = mean(rows_of(), out),
                Method::Median => *skipped = median(rows_of(), out),
                Method::Modz(settings) => {
                    let rows: Vec<&[f32]> = rows_of().collect();
                    if let Some((i, column)) = first_nan(&rows) {
                        let row = members[i];
                        return Err(AggregateError::Missing { group, row, column });
                    }
                    modz::consensus(&rows, settings, out);
                }
            }
            Ok(())
        })?;
    Ok(Aggregated { rows: out, skipped })
}

fn check(rows: &FeatureMatrix, groups: &[Vec<usize>]) -> Result<(), AggregateError> {
    for (group, members) in groups.iter().enumerate() {
        if members.is_empty() {
            return Err(AggregateError::Empty { group });
        }
        if let Some(&row) = members.iter().find(|&&row| row >= rows.len()) {
            let rows = rows.len();
            return Err(AggregateError::NoSuchRow { group, row, rows });
        }
    }
    Ok(())
}

fn first_nan(rows: &[&[f32]]) -> Option<(usize, usize)> {
    rows.iter()
        .enumerate()
        .find_map(|(i, row)| Some((i, row.iter().position(|v| v.is_nan())?)))
}

/// Returns how many values were skipped.
fn mean<'a>(rows: impl Iterator<Item = &'a [f32]>, out: &mut [f32]) -> u64 {
    let mut sums = vec![0.0f64; out.len()];
    let mut counts = vec![0u32; out.len()];
    let mut skipped = 0;
    for row in rows {
        for ((sum, count), &value) in sums.iter_mut().zip(&mut counts).zip(row) {
            let there = !value.is_nan();
            *sum += if there { f64::from(value) } else { 0.0 };
            *count += u32::from(there);
            skipped += u64::from(!there);
        }
    }
    for (out, (sum, count)) in out.iter_mut().zip(sums.iter().zip(counts)) {
        *out = (sum / f64::from(count)) as f32;
    }
    skipped
}

/// Returns how many values were skipped.
fn median<'a>(rows: impl Iterator<Item = &'a [f32]>, out: &mut [f32]) -> u64 {
    let rows: Vec<&[f32]> = rows.collect();
    let mut skipped = 0;
    let mut values: Vec<f32> = Vec::with_capacity(rows.len());
    for (column, out) in out.iter_mut().enumerate() {
        values.clear();
        values.extend(rows.iter().map(|row| row[column]).filter(|v| !v.is_nan()));
        skipped += (rows.len() - values.len()) as u64;
        *out = middle(&mut values);
    }
    skipped
}

/// The median, the mean of the two central values being taken in `f64`; NaN without values.
fn middle(values: &mut [f32]) -> f32 {
    let n = values.len();
    if n == 0 {
        return f32::NAN;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f32::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().max_by(f32::total_cmp).unwrap_or(upper);
    (0.5 * (f64::from(lower) + f64::from(upper))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> FeatureMatrix {
        FeatureMatrix::from_values(
            3,
            vec![
                1.0,
                10.0,
                f32::NAN,
                2.0,
                20.0,
                5.0,
                4.0,
                60.0,
                7.0,
                8.0,
                70.0,
                9.0,
            ],
        )
        .unwrap()
    }

    #[test]
    fn means_and_medians_skip_and_count_what_is_missing() {
        let groups = [vec![0, 1], vec![3, 0, 2], vec![0]];
        let mean = aggregate(&rows(), &groups, Method::Mean).unwrap();
        assert_eq!(mean.rows.row(0), [1.5, 15.0, 5.0]);
        assert_eq!(mean.skipped, [1, 1, 1]);
        assert!(mean.rows.row(2)[2].is_nan(), "no value is not zero");
        let median = aggregate(&rows(), &groups, Method::Median).unwrap();
        assert_eq!(median.rows.row(1), [4.0, 60.0, 8.0]);
        assert_eq!(median.skipped, [1, 1, 1]);
        assert!(median.rows.row(2)[2].is_nan());
    }

    #[test]
    fn a_group_without_rows_is_refused() {
        let error = aggregate(&rows(), &[vec![1], vec![]], Method::Mean).unwrap_err();
        assert_eq!(error, AggregateError::Empty { group: 1 });
        let error = aggregate(&rows(), &[vec![9]], Method::Median).unwrap_err();
        assert_eq!(error.to_string(), "group 0 names row 9, but there are 4 rows");
    }

    #[test]
    fn modz_names_the_row_and_column_without_a_value() {
        let error = aggregate(&rows(), &[vec![1, 0]], Method::Modz(ModzSettings::default())).unwrap_err();
        assert_eq!(
            error,
            AggregateError::Missing {
                group: 0,
                row: 0,
                column: 2
            }
        );
    }
}
