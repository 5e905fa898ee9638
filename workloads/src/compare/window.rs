//! Medians, MADs and the assay window of a plate (SCIENCE 6.3). Positions of controls enter; Z′, SSMD and their like
//! and what to make of them leave. What is undefined is `None`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Turns a median absolute deviation into a standard deviation of normal data (SCIENCE 0).
pub const MAD_TO_SD: f64 = 1.4826;

/// How well two groups of values are apart; `None` where undefined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Separation {
    /// `1 − 3(σ₊+σ₋)/|μ₊−μ₋|`.
    pub z_prime: Option<f64>,
    /// `(μ₊−μ₋)/√(σ₊²+σ₋²)`.
    pub ssmd: Option<f64>,
}

/// Separation by means and sample SDs (n − 1); `None` with fewer than two values on a side.
pub fn separation(positive: &[f64], negative: &[f64]) -> Separation {
    of(mean_and_sd(positive), mean_and_sd(negative))
}

/// Separation by medians and 1.4826 MAD; `None` with fewer than two values on a side.
pub fn robust_separation(positive: &[f64], negative: &[f64]) -> Separation {
    of(median_and_mad(positive), median_and_mad(negative))
}

fn of(positive: Option<(f64, f64)>, negative: Option<(f64, f64)>) -> Separation {
    let (Some((mean_p, sd_p)), Some((mean_n, sd_n))) = (positive, negative) else {
        return Separation {
            z_prime: None,
            ssmd: None,
        };
    };
    let finite = |v: f64| v.is_finite().then_some(v);
    let difference = mean_p - mean_n;
    Separation {
        z_prime: finite(1.0 - 3.0 * (sd_p + sd_n) / difference.abs()),
        ssmd: finite(difference / sd_p.hypot(sd_n)),
    }
}

/// Share of pairs in which the positive value is larger, ties counted half: `U / (n₊ n₋)`. `None` without a pair.
pub fn area_under_curve(positive: &[f64], negative: &[f64]) -> Option<f64> {
    let mut sorted = negative.to_vec();
    sorted.sort_by(f64::total_cmp);
    let pairs = (positive.len() * negative.len()) as f64;
    let doubled: usize = positive
        .iter()
        .map(|p| sorted.partition_point(|n| n < p) + sorted.partition_point(|n| n <= p))
        .sum();
    (pairs > 0.0).then(|| doubled as f64 / (2.0 * pairs))
}

/// `(μ₊−μ₋)/σ₋`, sample SD.
pub fn signal_to_noise(positive: &[f64], negative: &[f64]) -> Option<f64> {
    let ((mean_p, _), (mean_n, sd_n)) = (mean_and_sd(positive)?, mean_and_sd(negative)?);
    Some((mean_p - mean_n) / sd_n).filter(|v| v.is_finite())
}

/// `μ₊/μ₋`, for readings whose zero means nothing measured. On an axis the reference lies at 0 by construction, so
/// an assay window does not carry it.
pub fn signal_to_background(positive: &[f64], negative: &[f64]) -> Option<f64> {
    let ((mean_p, _), (mean_n, _)) = (mean_and_sd(positive)?, mean_and_sd(negative)?);
    Some(mean_p / mean_n).filter(|v| v.is_finite())
}

/// Coefficient of variation in percent: `100 σ/μ`, sample SD.
pub fn coefficient_of_variation(values: &[f64]) -> Option<f64> {
    let (mean, sd) = mean_and_sd(values)?;
    Some(100.0 * sd / mean).filter(|v| v.is_finite())
}

/// Whether a plate's controls are far enough apart to judge treatments by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowVerdict {
    /// Robust Z′ and SSMD reach their limits, with enough controls on both sides.
    Pass,
    /// There is a window, but it is narrow or rests on few controls.
    Warn,
    /// Robust Z′ below 0: the controls overlap.
    Fail,
    /// Without two controls on a side that differ, nothing can be said.
    Undefined,
}

/// Least robust Z′ of a window that passes.
const PASS_Z_PRIME: f64 = 0.3;
/// Least SSMD of a window that passes.
const PASS_SSMD: f64 = 3.0;
/// Least controls on each side of a window that passes.
const PASS_CONTROLS: usize = 16;

impl WindowVerdict {
    /// From robust Z′, SSMD and the controls on the smaller side.
    pub fn of(robust_z_prime: Option<f64>, ssmd: Option<f64>, controls: usize) -> Self {
        match (robust_z_prime, ssmd) {
            (Some(z), _) if z < 0.0 => Self::Fail,
            (Some(z), Some(ssmd))
                if z >= PASS_Z_PRIME && ssmd.abs() >= PASS_SSMD && controls >= PASS_CONTROLS =>
            {
                Self::Pass
            }
            (Some(_), _) => Self::Warn,
            (None, _) => Self::Undefined,
        }
    }

    /// The snake_case text of tables and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Undefined => "undefined",
        }
    }
}

impl fmt::Display for WindowVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn mean_and_sd(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    Some((mean, variance.sqrt()))
}

/// Median and `1.4826 · median|x − median|`; `None` with fewer than two values.
pub fn median_and_mad(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let mut scratch = values.to_vec();
    let median = median_in_place(&mut scratch)?;
    for v in &mut scratch {
        *v = (*v - median).abs();
    }
    Some((median, MAD_TO_SD * median_in_place(&mut scratch)?))
}

/// Median, reordering the values; the mean of the two central ones for an even count; `None` without values.
pub fn median_in_place(values: &mut [f64]) -> Option<f64> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(0.5 * (lower + upper))
}
