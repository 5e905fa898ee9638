//! Quality measures of a field of view, per channel.
//!
//! Enters: a raw image. Leaves: intensity, saturation, focus and emptiness measures; CellProfiler's names and formulas
//! (MeasureImageQuality) where it has them. Cannot fail: every measure is defined for every image.
//!
//! Counting is exact, so intensity measures come from the histogram. Measures marked "scaled" are on `x = I / 65535`,
//! CellProfiler's scale for 16-bit files.

mod correlation;
mod flags;
mod illumination;

pub use flags::{BatchMeasures, Defect, FlagLimits, LEAST_FIELDS, Limit, QualityFlag, batch_flags};
pub use illumination::illumination_cv;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::focus;
use crate::histogram::Histogram;
use crate::image::RawImage;
use crate::kernel::Measure;
use crate::moments::{self, MomentsKernel};
use crate::power;

/// CellProfiler's scale of 16-bit pixels.
pub(crate) const SCALE: f64 = 65535.0;

/// A field below this contrast is empty: noise alone gives about 3.1.
pub const EMPTY_CONTRAST: f64 = 6.0;

/// Standard deviation of rounding to whole grey levels, `1 / sqrt(12)`: the least spread a digital image can have.
/// It stands in for a MAD of 0, so that contrast is always finite.
const QUANTISATION: f64 = 0.288_675_134_594_812_9;

/// Columns between the pixels of `correlation_20`.
const CORRELATION_DISTANCE: usize = 20;

/// From `median |x - median|` to a standard deviation under normal noise.
const MAD_TO_SD: f64 = 1.4826;

/// Quality measures of one channel. Grey levels unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChannelQuality {
    /// Mean.
    pub mean: f64,
    /// Median (type 7).
    pub median: f64,
    /// Population standard deviation.
    pub std: f64,
    /// `median |x - median|`, without 1.4826.
    pub mad: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Sum.
    pub total: f64,
    /// Percentile 0.1.
    pub p001: f64,
    /// Percentile 1.
    pub p01: f64,
    /// Percentile 99.
    pub p99: f64,
    /// Percentile 99.9.
    pub p999: f64,
    /// Percent of pixels at the image's own maximum (not saturation).
    pub percent_maximal: f64,
    /// Percent of pixels at the image's own minimum.
    pub percent_minimal: f64,
    /// Percent of pixels at or above the detector ceiling.
    pub percent_saturated: f64,
    /// Slope of log power on log radius: about -1 to -2 in focus, -3 and lower if blurred, positive for noise alone.
    pub power_log_log_slope: f64,
    /// Variance over mean (scaled).
    pub focus_score: f64,
    /// Local focus score with blocks of 20 pixels (scaled).
    pub local_focus_20: f64,
    /// Local focus score with blocks of 50 pixels (scaled).
    pub local_focus_50: f64,
    /// Population variance of the 4-neighbour Laplacian.
    pub laplacian_variance: f64,
    /// The same over the squared mean; 0 for a black image.
    pub laplacian_variance_normalised: f64,
    /// Haralick correlation of eight levels at 20 columns: near 1 for debris and shading, near 0 for cells in focus.
    pub correlation_20: f64,
    /// Coefficient of variation of the medians of 3 x 3 tiles: 0 for even light.
    pub illumination_cv: f64,
    /// `(p99.9 - median) / (1.4826 MAD)`.
    pub contrast: f64,
    /// Contrast below 6, or a positive slope: nothing but noise. The slope is meant for the nuclei channel; use
    /// `contrast` alone elsewhere.
    pub empty: bool,
}

/// All channels on the CPU.
pub(crate) fn cpu(image: &RawImage) -> Vec<ChannelQuality> {
    let tallies = MomentsKernel.cpu(image);
    (0..image.channels())
        .into_par_iter()
        .map(|c| {
            channel(
                image,
                c,
                &Histogram::of(image.plane(c)),
                tallies.get(2 * c..2 * c + 2),
            )
        })
        .collect()
}

/// One channel from its exact tallies.
pub(crate) fn channel(
    image: &RawImage,
    c: usize,
    histogram: &Histogram,
    laplacian: Option<&[u64]>,
) -> ChannelQuality {
    let (plane, height, width) = (image.plane(c), image.height(), image.width());
    let n = histogram.total() as f64;
    let (mut sum, mut squares) = (0u128, 0u128);
    for (v, count) in histogram.entries() {
        sum += u128::from(v) * u128::from(count);
        squares += u128::from(v) * u128::from(v) * u128::from(count);
    }
    let total = sum as f64;
    let mean = total / n;
    let variance = (u128::from(histogram.total()) * squares - sum * sum) as f64 / (n * n);
    let percentile = |q| histogram.percentile(q).unwrap_or(f64::NAN);
    let ends = (histogram.entries().next(), histogram.entries().next_back());
    let (minimum, maximum) = (ends.0.unwrap_or_default(), ends.1.unwrap_or_default());
    let (median, p999) = (percentile(50.0), percentile(99.9));
    let mad = median_deviation(histogram, median);
    let saturated: u64 = histogram
        .entries()
        .rev()
        .take_while(|(v, _)| *v >= image.ceiling())
        .map(|(_, n)| n)
        .sum();
    let slope = power::log_log_slope(plane, height, width);
    let laplacian_variance = laplacian.map_or(0.0, |t| moments::variance(t, plane.len()));
    let contrast = over_background(p999, median, mad);
    let [local_focus_20, local_focus_50] = [20, 50].map(|s| focus::local_score(plane, height, width, s));
    ChannelQuality {
        mean,
        median,
        std: variance.sqrt(),
        mad,
        min: f64::from(minimum.0),
        max: f64::from(maximum.0),
        total,
        p001: percentile(0.1),
        p01: percentile(1.0),
        p99: percentile(99.0),
        p999,
        percent_maximal: 100.0 * maximum.1 as f64 / n,
        percent_minimal: 100.0 * minimum.1 as f64 / n,
        percent_saturated: 100.0 * saturated as f64 / n,
        power_log_log_slope: slope,
        focus_score: if mean > 0.0 { variance / mean / SCALE } else { 0.0 },
        local_focus_20,
        local_focus_50,
        laplacian_variance,
        laplacian_variance_normalised: if mean > 0.0 {
            laplacian_variance / (mean * mean)
        } else {
            0.0
        },
        correlation_20: correlation::correlation(plane, width, CORRELATION_DISTANCE, minimum.0, maximum.0),
        illumination_cv: illumination::tiles(plane, height, width),
        contrast,
        empty: contrast < EMPTY_CONTRAST || slope > 0.0,
    }
}

/// `(p99.9 - median) / (1.4826 MAD)` of the pixels counted; NaN of none.
pub(crate) fn contrast(histogram: &Histogram) -> f64 {
    let percentile = |q| histogram.percentile(q).unwrap_or(f64::NAN);
    let median = percentile(50.0);
    over_background(percentile(99.9), median, median_deviation(histogram, median))
}

fn over_background(p999: f64, median: f64, mad: f64) -> f64 {
    (p999 - median) / (MAD_TO_SD * mad).max(QUANTISATION)
}

/// `median |x - median|`, by walking outwards from the median; the median may lie between two grey levels.
fn median_deviation(histogram: &Histogram, median: f64) -> f64 {
    let mut deviations: Vec<(f64, u64)> = histogram
        .entries()
        .map(|(v, n)| ((f64::from(v) - median).abs(), n))
        .collect();
    deviations.sort_by(|a, b| a.0.total_cmp(&b.0));
    let nth = |rank: u64| {
        let mut below = 0;
        deviations
            .iter()
            .find(|(_, n)| {
                below += n;
                below > rank
            })
            .map_or(0.0, |(d, _)| *d)
    };
    let last = histogram.total().saturating_sub(1);
    (nth(last / 2) + nth(last.div_ceil(2))) / 2.0
}
