//! Flags of the fields of a batch: what is blurred, wrongly exposed or covered with debris beside the others. Enters: the
//! measures of one channel in every field of a batch (a plate, or the plates of a day). Leaves: flags with metric, value
//! and limit. Cannot fail.
//!
//! Blur, exposure and debris have no limits that hold for every assay: they are robust z-scores among the fields of the
//! batch, `(x - median) / (1.4826 MAD)`. Of fewer than [`LEAST_FIELDS`] fields, or where more than half are alike, there
//! is no z and no flag. What is judged by a field alone (saturation, contrast) is up to who reads its measures.

use serde::{Deserialize, Serialize};

use super::{ChannelQuality, MAD_TO_SD};

/// Fewest fields among which a robust z-score says something.
pub const LEAST_FIELDS: usize = 8;

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defect {
    /// Out of focus.
    Blur,
    /// Brighter or darker than the other fields of the batch.
    Exposure,
    /// Bright matter that is not cells.
    Debris,
}

/// A flag: `metric` is `value`, beyond `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QualityFlag {
    /// What is wrong.
    pub defect: Defect,
    /// Whether the field fails, or a person is warned.
    pub fails: bool,
    /// What was measured; `z` of a measure is its robust z-score in the batch.
    pub metric: &'static str,
    /// Its value.
    pub value: f64,
    /// The limit it is beyond.
    pub limit: f64,
}

/// A limit beyond which a person is warned and one beyond which a field fails.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Warns beyond this.
    pub warn: f64,
    /// Fails beyond this.
    pub fail: f64,
}

/// Limits of all flags.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlagLimits {
    /// Least robust z of the power log-log slope.
    pub blur_z: Limit,
    /// Largest robust z of the median intensity, either way.
    pub exposure_z: Limit,
    /// Largest robust z of the mean intensity.
    pub debris_z: Limit,
}

impl Default for FlagLimits {
    fn default() -> Self {
        Self {
            blur_z: Limit {
                warn: -3.0,
                fail: -5.0,
            },
            exposure_z: Limit { warn: 4.0, fail: 8.0 },
            debris_z: Limit { warn: 4.0, fail: 8.0 },
        }
    }
}

/// The measures of one channel of a field that are judged beside those of the other fields of its batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchMeasures {
    /// Power log-log slope.
    pub power_log_log_slope: f64,
    /// Median intensity.
    pub median: f64,
    /// Mean intensity.
    pub mean: f64,
}

impl From<&ChannelQuality> for BatchMeasures {
    fn from(q: &ChannelQuality) -> Self {
        Self {
            power_log_log_slope: q.power_log_log_slope,
            median: q.median,
            mean: q.mean,
        }
    }
}

/// Flags of each field, in the order of `fields`: blur, exposure and debris by their robust z. Debris is told by the mean alone:
/// local focus scores of good fields differ a hundredfold with the density of cells. A measure that is not a number
/// raises none. Where a limit to fail lies on this side of the one to warn, whatever is beyond it fails.
pub fn batch_flags(fields: &[BatchMeasures], limits: &FlagLimits) -> Vec<Vec<QualityFlag>> {
    let z = |of: fn(&BatchMeasures) -> f64| robust_z(fields.iter().map(of).collect());
    let slopes = z(|q| q.power_log_log_slope);
    let (medians, means) = (z(|q| q.median), z(|q| q.mean));
    let mut all = Vec::with_capacity(fields.len());
    for i in 0..fields.len() {
        let mut flags = Vec::new();
        let mut check = |defect, metric, value, limit, below| {
            flags.extend(flag(defect, metric, value, limit, below));
        };
        if let Some(z) = slopes.get(i) {
            check(Defect::Blur, "z of PowerLogLogSlope", *z, limits.blur_z, true);
        }
        if let Some(z) = medians.get(i) {
            check(
                Defect::Exposure,
                "z of MedianIntensity",
                *z,
                limits.exposure_z,
                false,
            );
            let Limit { warn, fail } = limits.exposure_z;
            check(
                Defect::Exposure,
                "z of MedianIntensity",
                *z,
                Limit {
                    warn: -warn,
                    fail: -fail,
                },
                true,
            );
        }
        if let Some(z) = means.get(i) {
            check(Defect::Debris, "z of MeanIntensity", *z, limits.debris_z, false);
        }
        all.push(flags);
    }
    all
}

/// A flag, if the value is beyond a limit: `below` them or above.
fn flag(defect: Defect, metric: &'static str, value: f64, limit: Limit, below: bool) -> Option<QualityFlag> {
    let beyond = |limit: f64| if below { value < limit } else { value > limit };
    let fails = beyond(limit.fail);
    (fails || beyond(limit.warn)).then_some(QualityFlag {
        defect,
        fails,
        metric,
        value,
        limit: if fails { limit.fail } else { limit.warn },
    })
}

/// Robust z-scores; none of too few values, or of values of which more than half are alike.
fn robust_z(values: Vec<f64>) -> Vec<f64> {
    let measured: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if measured.len() < LEAST_FIELDS {
        return Vec::new();
    }
    let middle = |mut v: Vec<f64>| {
        v.sort_by(f64::total_cmp);
        let last = v.len() - 1;
        f64::midpoint(v[last / 2], v[last.div_ceil(2)])
    };
    let median = middle(measured.clone());
    let spread = MAD_TO_SD * middle(measured.iter().map(|v| (v - median).abs()).collect());
    if spread > 0.0 {
        values.iter().map(|v| (v - median) / spread).collect()
    } else {
        Vec::new()
    }
}
