//! Percentile normalisation: values become their ranks among the plate's reference values (Gibbons et al. 2018).
//!
//! Ranks remove any monotone plate effect, and all differences beyond the reference range with it: a value above every
//! reference is 1, however far. Use it for scalars, not where effect sizes matter. Fails on values that are not finite
//! and without reference values.

use super::PositionError;
use crate::words::WellPosition;

/// For each well the share of reference values below its value, those equal to it counted half; from 0 to 1.
///
/// # Errors
/// [`PositionError::NotFinite`], [`PositionError::ReferenceNotFinite`] or [`PositionError::NoReference`].
pub fn percentiles(wells: &[(WellPosition, f64)], reference: &[f64]) -> Result<Vec<f64>, PositionError> {
    if let Some((index, &value)) = reference.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(PositionError::ReferenceNotFinite { index, value });
    }
    if reference.is_empty() {
        return Err(PositionError::NoReference);
    }
    let mut sorted = reference.to_vec();
    // By value and not by bits: the two zeros are one value.
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    wells
        .iter()
        .map(|&(well, value)| {
            if !value.is_finite() {
                return Err(PositionError::NotFinite { well, value });
            }
            let below = sorted.partition_point(|&r| r < value);
            let up_to = sorted.partition_point(|&r| r <= value);
            Ok((below + up_to) as f64 / (2 * sorted.len()) as f64)
        })
        .collect()
}
