//! Dose curves (SCIENCE 6.6). Wells with doses enter; the zero, constant, Hill and gain-loss models are fitted, and
//! the one the information criterion prefers leaves, with its EC50, interval, cutoff dose, trend and hit call. No curve
//! (`None`) with fewer than four distinct doses above 0.

mod describe;
mod fit;
mod hit_call;
mod interval;
mod loss;
mod models;
mod open;

pub use loss::CurveLoss;

use super::trend::{jonckheere, spearman};
use super::window::median_in_place;
use super::{AicTable, Censoring, CurveModel, CurveParameters, DoseCurve, DosePoint, Measure};
use loss::Loss;
use models::{Limits, gain_loss_fit, hill_fit};

/// Fewer distinct doses than this give no curve, only the largest effect.
pub const FEWEST_DOSES: usize = 4;
/// From this many distinct doses the bottom is fitted; below, the controls define it as 0.
pub const FREE_BOTTOM_DOSES: usize = 8;
/// Fewer distinct doses than this cannot show a rise and a fall.
const FEWEST_GAIN_LOSS_DOSES: usize = 5;

/// How a curve is fitted and judged.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CurveSettings {
    /// By how much AIC a shaped model must beat the flat ones.
    pub margin: f64,
    /// What a residual costs.
    pub loss: CurveLoss,
    /// The value that noise rarely reaches, 3 MAD of the controls, above 0; `None` where it is not known.
    pub cutoff: Option<f64>,
}

/// A Hill fit by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HillFit {
    /// Effect at dose 0.
    pub bottom: f64,
    /// Effect at infinite dose.
    pub top: f64,
    /// log10 EC50.
    pub log10_ec50: f64,
    /// Slope.
    pub hill: f64,
    /// Residual sum of squares.
    pub sse: f64,
    /// Standard error of `log10_ec50` by the derivatives; `None` where the points do not determine it.
    pub log10_ec50_se: Option<f64>,
}

/// Fits `(dose, value)` points by a Hill curve from several starts (four EC50 times slopes 0.8 and 2, a flat one, and
/// slope 4.5 where the bottom is free).
///
/// Bounds: bottom within ±0.25 (or 0 unless `free_bottom`), top −0.5 to 1.5 (widened to the data), EC50 within a
/// decade of the tested doses, slope 0.3 to 5. Doses must be above 0. `None` without points.
pub fn fit_hill(points: &[(f64, f64)], free_bottom: bool) -> Option<HillFit> {
    let points = on_log_doses(points);
    let limits = Limits::of(&points, free_bottom)?;
    let fit = hill_fit(&points, &limits, Loss::Squares)?;
    let [bottom, top, log10_ec50, hill] = fit.parameters;
    Some(HillFit {
        bottom,
        top,
        log10_ec50,
        hill,
        sse: fit.sse,
        log10_ec50_se: interval::hill_standard_error(&points, &limits, &fit),
    })
}

/// Fits every model to the points that are not masked, and keeps the one the criterion prefers; see [`fit_values`].
///
/// Where masking leaves fewer than four doses, no point is masked. Points must be in their final order; doses that are
/// not above 0 are left out.
pub fn fit_curve(
    measure: Measure,
    mut points: Vec<DosePoint>,
    settings: &CurveSettings,
) -> Option<DoseCurve> {
    points.retain(|point| point.dose > 0.0);
    let values = |points: &[DosePoint]| -> Vec<(f64, f64)> {
        let fitted = points.iter().filter(|point| !point.masked);
        fitted.map(|point| (point.dose, point.value)).collect()
    };
    let curve = fit_values(measure, &values(&points), settings).or_else(|| {
        for point in &mut points {
            point.masked = false;
        }
        fit_values(measure, &values(&points), settings)
    })?;
    Some(DoseCurve { points, ..curve })
}

/// Fits every model to `(dose, value)` pairs and keeps the one the criterion prefers. The curve carries no points.
///
/// Hill or gain-loss (whichever is lower) must beat both the zero and the constant model by the margin. Under a robust
/// loss every model is judged by the same loss, with the spread of the residuals of the least-squares Hill fit. `None`
/// with fewer than four distinct doses above 0; other doses are left out.
pub fn fit_values(measure: Measure, values: &[(f64, f64)], settings: &CurveSettings) -> Option<DoseCurve> {
    let points: Vec<(f64, f64)> = values.iter().copied().filter(|&(dose, _)| dose > 0.0).collect();
    let doses = distinct_doses(&points);
    let (&lowest, &highest) = (doses.first()?, doses.last()?);
    if doses.len() < FEWEST_DOSES {
        return None;
    }
    let data = on_log_doses(&points);
    let is_effect = matches!(measure, Measure::OnAxis | Measure::Rescue | Measure::Activity);
    let free_bottom = is_effect && doses.len() >= FREE_BOTTOM_DOSES;
    let limits = Limits::of(&data, free_bottom)?;
    let mut hill = hill_fit(&data, &limits, Loss::Squares);
    let mut loss = Loss::Squares;
    if let (Some(fit), CurveLoss::Cauchy | CurveLoss::Tukey) = (hill, settings.loss) {
        let mut residuals: Vec<f64> = data
            .iter()
            .map(|&(x, y)| y - fit::hill(x, &fit.parameters).0)
            .collect();
        loss = Loss::scaled(settings.loss, &mut residuals);
        hill = hill_fit(&data, &limits, loss);
    }
    let loss_of = |at: f64| data.iter().map(|p| loss.of(p.1 - at)).sum::<f64>();
    let mean = models::constant(&data, loss);
    let (zero_sse, constant_sse) = (loss_of(0.0), loss_of(mean));
    let gain_loss = if doses.len() >= FEWEST_GAIN_LOSS_DOSES && peaks_inside(&points, &doses) {
        gain_loss_fit(&data, &limits, loss)
    } else {
        None
    };
    let extra = usize::from(free_bottom);
    let aic = AicTable {
        zero: aic(zero_sse, data.len(), 0),
        constant: aic(constant_sse, data.len(), 1),
        hill: hill.and_then(|fit| aic(fit.sse, data.len(), 3 + extra)),
        gain_loss: gain_loss.and_then(|fit| aic(fit.sse, data.len(), 5 + extra)),
    };
    let flat = lower(aic.zero, aic.constant);
    let shaped = lower(aic.hill, aic.gain_loss);
    let is_shaped = shaped < flat - settings.margin;
    let none = CurveParameters {
        bottom: 0.0,
        top: 0.0,
        log10_ec50: None,
        hill: None,
        log10_loss_ec50: None,
        loss_hill: None,
    };
    let is_gain_loss = is_shaped && aic.gain_loss.is_some_and(|g| aic.hill.is_none_or(|h| g < h));
    let (model, parameters, sse) = match (is_shaped, gain_loss.filter(|_| is_gain_loss), hill) {
        (true, Some(fit), _) => {
            let [bottom, top, gain, slope, width, loss_hill] = fit.parameters;
            let parameters = CurveParameters {
                bottom,
                top,
                log10_ec50: Some(gain),
                hill: Some(slope),
                log10_loss_ec50: Some(gain + width),
                loss_hill: Some(loss_hill),
            };
            (CurveModel::GainLoss, parameters, fit.sse)
        }
        (true, None, Some(fit)) => {
            let [bottom, top, ec50, slope] = fit.parameters;
            let parameters = CurveParameters {
                bottom,
                top,
                log10_ec50: Some(ec50),
                hill: Some(slope),
                ..none
            };
            (CurveModel::Hill, parameters, fit.sse)
        }
        _ if aic.constant.is_some_and(|c| aic.zero.is_none_or(|z| c < z)) => (
            CurveModel::Constant,
            CurveParameters {
                bottom: mean,
                top: mean,
                ..none
            },
            constant_sse,
        ),
        _ => (CurveModel::Zero, none, zero_sse),
    };
    let mut curve = DoseCurve {
        measure,
        model,
        parameters,
        ec50: None,
        censoring: Censoring::Undefined,
        ac50: None,
        log10_ec50_se: None,
        ec50_low: None,
        ec50_high: None,
        cutoff_dose: None,
        hit_call: None,
        spearman: spearman(&means(&points, &doses)),
        trend_p: jonckheere(&points),
        top: 0.0,
        monotone: true,
        aic,
        sse,
        tested: (lowest, highest),
        points: Vec::new(),
    };
    curve.describe(settings.cutoff);
    if let (CurveModel::Hill, Some(fit)) = (model, hill) {
        let interval = interval::of_hill(&data, &limits, loss, &fit);
        curve.log10_ec50_se = interval.standard_error;
        curve.ec50_low = interval.low.map(|low| 10f64.powf(low));
        curve.ec50_high = interval.high.map(|high| 10f64.powf(high));
    }
    curve.hit_call = settings
        .cutoff
        .and_then(|cutoff| hit_call::of(&curve, &data, &medians(&points, &doses), cutoff));
    Some(curve)
}

/// `n ln(SSE/n) + 2K` with `K = k + 1`, plus `2K(K+1)/(n−K−1)` where `n/k < 40`; `None` without points to spare.
pub fn aic(sse: f64, n: usize, k: usize) -> Option<f64> {
    let (points, parameters) = (n as f64, (k + 1) as f64);
    // An exact fit would be infinitely good; residuals below rounding of f32 profiles are no evidence.
    let spread = (sse / points).max(1e-18);
    let plain = points * spread.ln() + 2.0 * parameters;
    if n >= 40 * k.max(1) {
        return Some(plain);
    }
    let spare = points - parameters - 1.0;
    (spare > 0.0).then(|| plain + 2.0 * parameters * (parameters + 1.0) / spare)
}

fn lower(a: Option<f64>, b: Option<f64>) -> f64 {
    a.unwrap_or(f64::INFINITY).min(b.unwrap_or(f64::INFINITY))
}

fn on_log_doses(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    points
        .iter()
        .map(|&(dose, value)| (dose.log10(), value))
        .collect()
}

fn distinct_doses(points: &[(f64, f64)]) -> Vec<f64> {
    let mut doses: Vec<f64> = points.iter().map(|p| p.0).collect();
    doses.sort_by(f64::total_cmp);
    doses.dedup();
    doses
}

fn of_dose(points: &[(f64, f64)], dose: f64) -> impl Iterator<Item = f64> {
    points.iter().filter(move |p| p.0 == dose).map(|p| p.1)
}

/// `(dose, mean)` of every dose.
fn means(points: &[(f64, f64)], doses: &[f64]) -> Vec<(f64, f64)> {
    let mean = |dose| {
        let (sum, n) = of_dose(points, dose).fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
        (dose, sum / n)
    };
    doses.iter().map(|&dose| mean(dose)).collect()
}

fn medians(points: &[(f64, f64)], doses: &[f64]) -> Vec<f64> {
    doses
        .iter()
        .filter_map(|&dose| median_in_place(&mut of_dose(points, dose).collect::<Vec<_>>()))
        .collect()
}

/// Whether the largest mean effect lies below the highest dose: only then can there be a fall.
fn peaks_inside(points: &[(f64, f64)], doses: &[f64]) -> bool {
    let means = means(points, doses);
    let last = means.last().map_or(0.0, |mean| mean.1.abs());
    means.iter().any(|mean| mean.1.abs() > last)
}
