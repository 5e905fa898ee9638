//! Curves whose form the points leave open: a flat model was kept because it has fewer parameters, not because the effect
//! is flat.
//!
//! A fitted curve with its points enters; whether it says anything of the dose, and the effect at the highest doses, leave.

use super::{CurveModel, DoseCurve, FREE_BOTTOM_DOSES, aic, distinct_doses, of_dose};

/// A Hill curve that explains this share of the variance is one to anybody who looks at the points.
const PLAIN_TO_SEE: f64 = 0.95;
/// Doses among the highest ones, as a share of those tested and at least.
const HIGHEST_SHARE: usize = 3;
const HIGHEST_LEAST: usize = 2;

impl DoseCurve {
    /// Whether the curve is flat and has so few points that the criterion prefers a constant even to a Hill curve that
    /// leaves 5 % of the variance: the small-sample correction of AICc grows without bound. So it is with up to seven
    /// wells of fewer than eight doses, and with up to eight of eight. False without points.
    pub fn is_open(&self) -> bool {
        let flat = matches!(self.model, CurveModel::Zero | CurveModel::Constant);
        // Wells that are left out for harm count: a compound that was tested often enough is judged as before.
        let points: Vec<(f64, f64)> = (self.points.iter())
            .map(|point| (point.dose, point.value))
            .collect();
        if !flat || points.is_empty() {
            return false;
        }
        let doses = distinct_doses(&points).len();
        let hill = 3 + usize::from(doses >= FREE_BOTTOM_DOSES);
        // Of residuals of mean square 1 the criterion is what the parameters cost.
        let n = points.len() as f64;
        let cost = |parameters| aic(n, points.len(), parameters);
        match (cost(hill), cost(1)) {
            (Some(hill), Some(constant)) => n * (1.0 / (1.0 - PLAIN_TO_SEE)).ln() < hill - constant,
            _ => true,
        }
    }

    /// Mean over the fitted wells at the highest third of the doses, two doses at least; `None` without points.
    pub fn at_highest_doses(&self) -> Option<f64> {
        let points = self.fitted();
        let doses = distinct_doses(&points);
        let many = doses.len().div_ceil(HIGHEST_SHARE).max(HIGHEST_LEAST);
        let highest = doses.iter().rev().take(many);
        let values = highest.flat_map(|&dose| of_dose(&points, dose));
        let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
        (n > 0.0).then(|| sum / n)
    }

    fn fitted(&self) -> Vec<(f64, f64)> {
        let fitted = self.points.iter().filter(|point| !point.masked);
        fitted.map(|point| (point.dose, point.value)).collect()
    }
}
