//! What follows from a fitted curve: its values, top, turning point, EC50, AC50 and cutoff dose (SCIENCE 6.6).

use super::{Censoring, CurveModel, DoseCurve};

/// Points of the grid on which a curve's peak is looked for, where the formula does not say it.
const GRID: usize = 256;
/// A curve that ends below this share of its peak has turned back.
const TURNED_BACK: f64 = 0.95;

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

    /// Fills in top, turning point, EC50, AC50 and cutoff dose from the parameters.
    pub(super) fn describe(&mut self, cutoff: Option<f64>) {
        let (lowest, highest) = self.tested;
        let (low, high) = (lowest.log10(), highest.log10());
        let bottom = self.parameters.bottom;
        // Only a gain-loss curve can have its peak inside.
        let steps = if self.model == CurveModel::GainLoss {
            GRID
        } else {
            1
        };
        let grid: Vec<(f64, f64)> = (0..=steps)
            .map(|i| low + (high - low) * i as f64 / steps as f64)
            .map(|x| (x, self.evaluate(10f64.powf(x))))
            .collect();
        let end = self.evaluate(highest);
        let (peak_at, peak) = grid.iter().rev().copied().fold((high, end), |peak, at| {
            if (at.1 - bottom).abs() > (peak.1 - bottom).abs() {
                at
            } else {
                peak
            }
        });
        self.monotone = (end - bottom).abs() >= TURNED_BACK * (peak - bottom).abs();
        self.top = if self.monotone { end } else { peak };
        let Some(log10_ec50) = self.parameters.log10_ec50 else {
            return;
        };
        (self.ec50, self.censoring) = if log10_ec50 < low {
            (None, Censoring::BelowTested)
        } else if log10_ec50 > high {
            (None, Censoring::AboveTested)
        } else {
            (Some(10f64.powf(log10_ec50)), Censoring::None)
        };
        self.ac50 = self.first_dose_at(0.5 * self.top, low, peak_at);
        self.cutoff_dose = cutoff
            .filter(|cutoff| self.top.abs() >= *cutoff)
            .and_then(|cutoff| self.first_dose_at(cutoff.copysign(self.top), low, peak_at));
    }

    /// The dose between two log10 doses at which the curve first reaches `value`, rising from `low` to its peak at
    /// `high`; `None` where it is beyond `value` from the start or never reaches it.
    fn first_dose_at(&self, value: f64, mut low: f64, mut high: f64) -> Option<f64> {
        /// Halvings: twelve decades to 1e-9 of a decade.
        const HALVINGS: usize = 34;
        let reached = |x: f64| {
            let at = self.evaluate(10f64.powf(x));
            if value >= 0.0 { at >= value } else { at <= value }
        };
        if reached(low) || !reached(high) {
            return None;
        }
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if reached(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(10f64.powf(high))
    }
}
