//! A dose curve's value at a dose (SCIENCE 6.6).

use super::{CurveModel, DoseCurve};

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
