//! Medians, MADs and the assay window of a plate (SCIENCE 6.3). Positions of controls enter, Z′ and SSMD leave;
//! what is undefined is `None`.

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
