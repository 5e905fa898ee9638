//! Has the mean of a plate's controls moved? Hotelling's T² against the noise of wells, and against the ordinary
//! differences between plates (SCIENCE 8).
//!
//! The first is exact and sensitive, and knows nothing of plate-to-plate jitter; the second has no law for as few
//! plates as a reference has, so its limit is what accepted plates reach when each is left out.

use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use super::MonitorError;
use super::gaussian::{Gaussian, mean};

/// From this many reference plates on, the limit is the 99 % quantile of their values and not the largest (SCIENCE 8).
const PLATES_FOR_QUANTILE: usize = 30;

/// A plate's mean against the noise of single wells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Within {
    /// `n N / (n + N) · (x̄ − μ)ᵀ Σ⁻¹ (x̄ − μ)`.
    pub t2: f64,
    /// `P(F(d, N + n − d − 1) ≥ (N + n − d − 1) / (d (N + n − 2)) · T²)`; `None` where there are too few wells for
    /// the law.
    pub p_value: Option<f64>,
}

/// Tests the mean of `n` control wells against the reference's wells.
pub fn within(reference: &Gaussian, plate_mean: &[f64], n: usize) -> Within {
    let (many, few, d) = (reference.rows() as f64, n as f64, plate_mean.len() as f64);
    let t2 = few * many / (few + many) * reference.distance2(plate_mean);
    let freedom = many + few - d - 1.0;
    let p_value = FisherSnedecor::new(d, freedom)
        .ok()
        .map(|law| law.sf(freedom / (d * (many + few - 2.0)) * t2));
    Within { t2, p_value }
}

/// The ordinary differences between the means of the reference plates.
#[derive(Debug, Clone)]
pub struct Between {
    /// Of the plate means.
    pub gaussian: Gaussian,
    /// Each plate's T² against the others.
    pub leave_one_out: Vec<f64>,
    /// Above this a plate is further off than accepted ones: their largest value, or its 99 % quantile from 30 plates
    /// on.
    pub limit: f64,
}

impl Between {
    /// Fits the means of at least three plates.
    ///
    /// # Errors
    /// As [`Gaussian::fit`].
    pub fn fit(plate_means: &[&[f64]]) -> Result<Self, MonitorError> {
        let gaussian = Gaussian::fit(plate_means)?;
        let leave_one_out = (0..plate_means.len())
            .map(|left_out| {
                let rest: Vec<&[f64]> = without(plate_means, left_out);
                Ok(Gaussian::fit(&rest)?.distance2(plate_means[left_out]))
            })
            .collect::<Result<Vec<f64>, MonitorError>>()?;
        Ok(Self {
            gaussian,
            limit: highest(&leave_one_out),
            leave_one_out,
        })
    }

    /// `(x̄ − m̄)ᵀ Σ_b⁻¹ (x̄ − m̄)`.
    pub fn t2(&self, plate_mean: &[f64]) -> f64 {
        self.gaussian.distance2(plate_mean)
    }
}

/// All but one.
pub(super) fn without<T: Copy>(items: &[T], left_out: usize) -> Vec<T> {
    let (before, after) = items.split_at(left_out);
    before.iter().chain(after.iter().skip(1)).copied().collect()
}

/// What accepted plates reach: the largest value, or the 99 % quantile (type 7) from 30 plates on.
pub(super) fn highest(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::INFINITY;
    };
    if sorted.len() < PLATES_FOR_QUANTILE {
        return sorted[last];
    }
    let position = 0.99 * last as f64;
    let (below, part) = (position.floor() as usize, position.fract());
    sorted[below] + part * (sorted[(below + 1).min(last)] - sorted[below])
}

/// The mean row of a plate's controls.
pub(super) fn plate_mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let views: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    mean(&views, views.first().map_or(0, |row| row.len()))
}
