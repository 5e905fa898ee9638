//! A continuous hit call in [0, 1] (SCIENCE 6.6; tcplfit2, Sheffield et al. 2022). A fitted curve, its points and the
//! cutoff enter; the product of three probabilities leaves:
//!
//! 1. the curve beats the constant: its Akaike weight against it;
//! 2. at least one dose's median lies beyond the cutoff, by Student's t with four degrees of freedom;
//! 3. the curve's top lies beyond the cutoff, by the likelihood ratio against the same curve scaled to it.
//!
//! Where tcplfit2 fits a t-distribution's scale, ours is the residual SD of the fit, and the likelihood is normal.

use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};

use super::{CurveModel, DoseCurve};

/// Degrees of freedom of the noise in tcpl.
const NOISE_FREEDOM: f64 = 4.0;

/// 0 for a flat curve. `None` without points to spare for the residual SD.
pub(super) fn of(curve: &DoseCurve, points: &[(f64, f64)], medians: &[f64], cutoff: f64) -> Option<f64> {
    let parameters = match curve.model {
        CurveModel::Zero | CurveModel::Constant => return Some(0.0),
        CurveModel::Hill => 3.0,
        CurveModel::GainLoss => 5.0,
    };
    let n = points.len() as f64;
    let sd = (curve.sse / (n - parameters)).sqrt();
    if n <= parameters || sd.is_nan() || sd <= 0.0 {
        return None;
    }
    let best = match curve.model {
        CurveModel::GainLoss => curve.aic.gain_loss?,
        _ => curve.aic.hill?,
    };
    let beats_constant = 1.0 / (1.0 + (0.5 * (best - curve.aic.constant?)).exp());

    let sign = 1f64.copysign(curve.top);
    let noise = StudentsT::new(0.0, 1.0, NOISE_FREEDOM).ok()?;
    let all_below: f64 = medians
        .iter()
        .map(|median| noise.cdf((cutoff - sign * median) / sd))
        .product();

    // The curve scaled so that its top is the cutoff.
    let (bottom, top) = (curve.parameters.bottom, curve.top);
    let height = if top == bottom {
        1.0
    } else {
        (sign * cutoff - bottom) / (top - bottom)
    };
    let scaled_sse: f64 = points
        .iter()
        .map(|&(x, y)| {
            let at = curve.evaluate(10f64.powf(x));
            (y - bottom - height * (at - bottom)).powi(2)
        })
        .sum();
    let ratio = n * (scaled_sse / curve.sse).ln();
    let within = ChiSquared::new(1.0).ok()?.cdf(ratio.max(0.0));
    let beyond = if top.abs() >= cutoff {
        0.5 * (1.0 + within)
    } else {
        0.5 * (1.0 - within)
    };
    Some((beats_constant * (1.0 - all_below) * beyond).clamp(0.0, 1.0))
}
