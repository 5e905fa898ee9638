//! Do replicates of a treatment resemble each other more than they resemble controls? (SCIENCE 6.4)
//!
//! Rows of features and the groups they belong to enter; scores and p-values per group leave. The files are the
//! measures of the field: [`average_precision`] and [`map`] (retrieval of replicates among controls, after copairs),
//! [`correlation`] (percent replicating), [`grit`], [`consistency`] and [`energy`] (EFAAR), [`mp_value`]. [`tail`]
//! gives p-values below what a sampled null can resolve.
//!
//! To ask for activity against untreated disease, move every plate's untreated wells to the origin first: see
//! [`centre_on`]. Rows without a direction (zero, NaN, infinite) take part in nothing and are named.

pub mod average_precision;
pub mod consistency;
pub mod correlation;
pub mod energy;
pub mod grit;
pub mod map;
pub mod mp_value;
mod similarity;
pub mod tail;

use crate::matrix::FeatureMatrix;

/// Subtracts, from every row of each stratum (a plate), the mean of its origin rows (its untreated disease wells), in
/// `f64`. Strata without an origin are left as they are, and returned: their rows have no place in the new frame.
///
/// Cosines depend on the origin: see the frame rule of SCIENCE 6.2. `stratum` and `origin` have one entry per row;
/// strata are numbered from 0.
pub fn centre_on(rows: &mut FeatureMatrix, stratum: &[usize], origin: &[bool]) -> Vec<usize> {
    let width = rows.width();
    let strata = stratum.iter().max().map_or(0, |s| s + 1);
    let mut sums = vec![vec![0.0f64; width]; strata];
    let mut counts = vec![0usize; strata];
    for (i, (&s, &is_origin)) in stratum.iter().zip(origin).enumerate() {
        if is_origin {
            counts[s] += 1;
            for (sum, &value) in sums[s].iter_mut().zip(rows.row(i)) {
                *sum += f64::from(value);
            }
        }
    }
    for (i, &s) in stratum.iter().enumerate() {
        if counts[s] > 0 {
            let n = counts[s] as f64;
            for (value, sum) in rows.row_mut(i).iter_mut().zip(&sums[s]) {
                *value = (f64::from(*value) - sum / n) as f32;
            }
        }
    }
    (0..strata).filter(|&s| counts[s] == 0).collect()
}
