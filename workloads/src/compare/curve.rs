//! Dose curves (SCIENCE 6.6). Wells with doses enter; the zero, constant, Hill and gain-loss models are fitted, and
//! the one the information criterion prefers leaves. No curve (`None`) with fewer than four distinct doses above 0.

use super::fit::{self, Bounds};
use super::{AicTable, Censoring, CurveModel, CurveParameters, DoseCurve, DosePoint, Measure};

/// Fewer distinct doses than this give no curve, only the largest effect.
pub const FEWEST_DOSES: usize = 4;
/// From this many distinct doses the bottom is fitted; below, the controls define it as 0.
pub const FREE_BOTTOM_DOSES: usize = 8;
/// Fewer distinct doses than this cannot show a rise and a fall.
const FEWEST_GAIN_LOSS_DOSES: usize = 5;

const BOTTOM: (f64, f64) = (-0.25, 0.25);
const TOP: (f64, f64) = (-0.5, 1.5);
const HILL: (f64, f64) = (0.3, 5.0);
/// Smallest distance of gain and loss EC50, in log10 doses; closer, the top would have no meaning.
const NARROWEST: f64 = 0.25;
/// Points of the grid on which a curve's peak and half-effect are looked for.
const GRID: usize = 512;
/// A curve that ends below this share of its peak has turned back.
const TURNED_BACK: f64 = 0.95;

/// A least-squares Hill fit.
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
}

/// Fits `(dose, value)` points by a Hill curve from several starts (four EC50 times slopes 0.8 and 2, a flat one, and
/// slope 4.5 where the bottom is free).
///
/// Bounds: bottom within ±0.25 (or 0 unless `free_bottom`), top −0.5 to 1.5 (widened to the data), EC50 within a
/// decade of the tested doses, slope 0.3 to 5. Doses must be above 0. `None` without points.
pub fn fit_hill(points: &[(f64, f64)], free_bottom: bool) -> Option<HillFit> {
    let points = on_log_doses(points);
    let limits = Limits::of(&points, free_bottom)?;
    let fit = hill_fit(&points, &limits)?;
    let [bottom, top, log10_ec50, hill] = fit.parameters;
    Some(HillFit {
        bottom,
        top,
        log10_ec50,
        hill,
        sse: fit.sse,
    })
}

/// Fits every model to the points that are not masked, and keeps the one the criterion prefers; see [`fit_values`].
///
/// Where masking leaves fewer than four doses, no point is masked. Points must be in their final order; doses that are
/// not above 0 are left out.
pub fn fit_curve(measure: Measure, mut points: Vec<DosePoint>, margin: f64) -> Option<DoseCurve> {
    points.retain(|point| point.dose > 0.0);
    let values = |points: &[DosePoint]| -> Vec<(f64, f64)> {
        let fitted = points.iter().filter(|point| !point.masked);
        fitted.map(|point| (point.dose, point.value)).collect()
    };
    let curve = fit_values(measure, &values(&points), margin).or_else(|| {
        for point in &mut points {
            point.masked = false;
        }
        fit_values(measure, &values(&points), margin)
    })?;
    Some(DoseCurve { points, ..curve })
}

/// Fits every model to `(dose, value)` pairs and keeps the one the criterion prefers. The curve carries no points.
///
/// Hill or gain-loss (whichever is lower) must beat both the zero and the constant model by `margin`. `None` with fewer
/// than four distinct doses above 0; other doses are left out.
pub fn fit_values(measure: Measure, values: &[(f64, f64)], margin: f64) -> Option<DoseCurve> {
    let points: Vec<(f64, f64)> = values.iter().copied().filter(|&(dose, _)| dose > 0.0).collect();
    let doses = distinct_doses(&points);
    let (&lowest, &highest) = (doses.first()?, doses.last()?);
    if doses.len() < FEWEST_DOSES {
        return None;
    }
    let data = on_log_doses(&points);
    let is_effect = matches!(measure, Measure::OnAxis | Measure::Rescue);
    let free_bottom = is_effect && doses.len() >= FREE_BOTTOM_DOSES;
    let limits = Limits::of(&data, free_bottom)?;
    let n = data.len() as f64;
    let mean = data.iter().map(|p| p.1).sum::<f64>() / n;
    let zero_sse = data.iter().map(|p| p.1 * p.1).sum::<f64>();
    let constant_sse = data.iter().map(|p| (p.1 - mean) * (p.1 - mean)).sum::<f64>();
    let hill = hill_fit(&data, &limits);
    let gain_loss = if doses.len() >= FEWEST_GAIN_LOSS_DOSES && peaks_inside(&points, &doses) {
        gain_loss_fit(&data, &limits)
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
    let is_shaped = shaped < flat - margin;
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
        top: 0.0,
        monotone: true,
        aic,
        sse,
        tested: (lowest, highest),
        points: Vec::new(),
    };
    describe(&mut curve);
    Some(curve)
}

/// Fills in what follows from the parameters: top, turning point, EC50 and AC50.
fn describe(curve: &mut DoseCurve) {
    let (lowest, highest) = curve.tested;
    let (low, high) = (lowest.log10(), highest.log10());
    let grid: Vec<(f64, f64)> = (0..=GRID)
        .map(|i| low + (high - low) * i as f64 / GRID as f64)
        .map(|x| (x, curve.evaluate(10f64.powf(x))))
        .collect();
    let end = curve.evaluate(highest);
    let bottom = curve.parameters.bottom;
    let peak = grid.iter().map(|p| p.1).fold(end, |peak, v| {
        if (v - bottom).abs() > (peak - bottom).abs() {
            v
        } else {
            peak
        }
    });
    curve.monotone = (end - bottom).abs() >= TURNED_BACK * (peak - bottom).abs();
    curve.top = if curve.monotone { end } else { peak };
    if let Some(log10_ec50) = curve.parameters.log10_ec50 {
        (curve.ec50, curve.censoring) = if log10_ec50 < low {
            (None, Censoring::BelowTested)
        } else if log10_ec50 > high {
            (None, Censoring::AboveTested)
        } else {
            (Some(10f64.powf(log10_ec50)), Censoring::None)
        };
        let half = 0.5 * curve.top;
        let reached = |v: f64| if half >= 0.0 { v >= half } else { v <= half };
        curve.ac50 = grid.windows(2).find_map(|pair| match pair {
            [(x0, v0), (x1, v1)] if !reached(*v0) && reached(*v1) => {
                let share = if v1 == v0 { 1.0 } else { (half - v0) / (v1 - v0) };
                Some(10f64.powf(x0 + share * (x1 - x0)))
            }
            _ => None,
        });
    }
}

impl DoseCurve {
    /// The fitted value at `dose`, in axis lengths. A dose of 0 (or below) gives the bottom of the curve, or the
    /// constant of a constant model. Values outside the tested doses are what the formula says, not a finding.
    pub fn evaluate(&self, dose: f64) -> f64 {
        let p = &self.parameters;
        let rise = |log10_ec50: Option<f64>, hill: Option<f64>| match (log10_ec50, hill) {
            (Some(log10_ec50), Some(hill)) if dose > 0.0 => {
                1.0 / (1.0 + 10f64.powf(hill * (log10_ec50 - dose.log10())))
            }
            _ => 0.0,
        };
        match self.model {
            CurveModel::Zero => 0.0,
            CurveModel::Constant => p.top,
            CurveModel::Hill => p.bottom + (p.top - p.bottom) * rise(p.log10_ec50, p.hill),
            CurveModel::GainLoss => {
                let kept = 1.0 - rise(p.log10_loss_ec50, p.loss_hill);
                p.bottom + (p.top - p.bottom) * rise(p.log10_ec50, p.hill) * kept
            }
        }
    }
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

/// Whether the largest mean effect lies below the highest dose: only then can there be a fall.
fn peaks_inside(points: &[(f64, f64)], doses: &[f64]) -> bool {
    let mean_at = |dose: f64| {
        let (sum, n) = points
            .iter()
            .filter(|p| p.0 == dose)
            .fold((0.0, 0.0), |(sum, n), p| (sum + p.1, n + 1.0));
        f64::abs(sum / n)
    };
    let last = doses.last().map_or(0.0, |&dose| mean_at(dose));
    doses.iter().any(|&dose| mean_at(dose) > last)
}

/// Bounds that all models share.
struct Limits {
    bottom: (f64, f64),
    top: (f64, f64),
    dose: (f64, f64),
}

impl Limits {
    fn of(points: &[(f64, f64)], free_bottom: bool) -> Option<Self> {
        let span = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(None, |span: Option<(f64, f64)>, v| {
                Some(span.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
            })
        };
        let dose = span(&mut points.iter().map(|p| p.0))?;
        let value = span(&mut points.iter().map(|p| p.1))?;
        Some(Self {
            bottom: if free_bottom { BOTTOM } else { (0.0, 0.0) },
            top: (TOP.0.min(value.0), TOP.1.max(value.1)),
            dose,
        })
    }

    fn ec50(&self) -> (f64, f64) {
        (self.dose.0 - 1.0, self.dose.1 + 1.0)
    }

    /// Four EC50 starts in the middle of each quarter of the tested doses.
    fn starts(&self) -> impl Iterator<Item = f64> + use<> {
        let (low, high) = self.dose;
        [0.125, 0.375, 0.625, 0.875]
            .into_iter()
            .map(move |share| low + share * (high - low))
    }
}

/// The top that fits best when everything else is given and the bottom is 0.
fn best_top(points: &[(f64, f64)], shape: impl Fn(f64) -> f64) -> f64 {
    let (sum, square) = points.iter().fold((0.0, 0.0), |(sum, square), &(x, y)| {
        let s = shape(x);
        (sum + s * y, square + s * s)
    });
    if square > 0.0 { sum / square } else { 0.0 }
}

/// The bottom and top that fit best when everything else is given.
fn best_line(points: &[(f64, f64)], shape: impl Fn(f64) -> f64) -> (f64, f64) {
    let n = points.len() as f64;
    let mean_shape = points.iter().map(|p| shape(p.0)).sum::<f64>() / n;
    let mean = points.iter().map(|p| p.1).sum::<f64>() / n;
    let (together, square) = points.iter().fold((0.0, 0.0), |(together, square), &(x, y)| {
        let s = shape(x) - mean_shape;
        (together + s * (y - mean), square + s * s)
    });
    let height = if square > 0.0 { together / square } else { 0.0 };
    let bottom = mean - height * mean_shape;
    (bottom, bottom + height)
}

fn hill_fit(points: &[(f64, f64)], limits: &Limits) -> Option<fit::Fit<4>> {
    let bounds: Bounds<4> = [limits.bottom, limits.top, limits.ec50(), HILL];
    // The last start is the constant in disguise, so that a Hill fit is never worse than the constant it contains.
    // A free bottom makes more local minima (a late, steep rise from a raised bottom), hence more starts.
    let free_bottom = limits.bottom.0 < limits.bottom.1;
    let slopes: &[f64] = if free_bottom {
        &[0.8, 2.0, 4.5]
    } else {
        &[0.8, 2.0]
    };
    let shapes = limits
        .starts()
        .flat_map(|ec50| slopes.iter().map(move |&h| (ec50, h)))
        .chain([(limits.ec50().0, HILL.1)]);
    let starts = shapes.map(|(ec50, slope)| {
        let shape = |x: f64| fit::hill(x, &[0.0, 1.0, ec50, slope]).0;
        let (bottom, top) = if free_bottom {
            best_line(points, shape)
        } else {
            (0.0, best_top(points, shape))
        };
        [bottom, top, ec50, slope]
    });
    fit::best(fit::hill, points, &bounds, starts)
}

fn gain_loss_fit(points: &[(f64, f64)], limits: &Limits) -> Option<fit::Fit<6>> {
    let widest = (limits.dose.1 - limits.dose.0 + 2.0).max(1.0);
    // A narrow peak does not reach its asymptote, so the asymptote may lie above the data.
    let top = (2.0 * limits.top.0, 2.0 * limits.top.1);
    let bounds: Bounds<6> = [limits.bottom, top, limits.ec50(), HILL, (NARROWEST, widest), HILL];
    let starts = limits.starts().flat_map(|ec50| {
        [0.5, 1.0, 2.0].into_iter().flat_map(move |width| {
            [0.8, 2.0].map(|slope| {
                let top = best_top(points, |x| {
                    fit::gain_loss(x, &[0.0, 1.0, ec50, slope, width, 2.0]).0
                });
                [0.0, top, ec50, slope, width, 2.0]
            })
        })
    });
    fit::best(fit::gain_loss, points, &bounds, starts)
}
