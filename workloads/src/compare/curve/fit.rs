//! Bounded least squares for dose curves: projected Levenberg-Marquardt with analytic derivatives, with a loss that may
//! bound what one point can do. Points and bounds enter, parameters and the sum of losses leave. Nothing fails: a start
//! that cannot improve is returned.

use std::f64::consts::LN_10;

use super::loss::Loss;

/// A curve with `N` parameters: its value at a log10 dose and the derivative by each parameter.
pub(super) type Form<const N: usize> = fn(f64, &[f64; N]) -> (f64, [f64; N]);

/// Lower and upper bound of each parameter; equal bounds fix it.
pub(super) type Bounds<const N: usize> = [(f64, f64); N];

/// Parameters and their sum of losses (of squared residuals, for [`Loss::Squares`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit<const N: usize> {
    pub(super) parameters: [f64; N],
    pub(super) sse: f64,
}

/// When a search ends: after so many accepted steps, or where one gains less than this share of the sum.
#[derive(Debug, Clone, Copy)]
struct Stop {
    iterations: usize,
    gain: f64,
}

/// Enough to see which valley a start lies in.
const ROUGH: Stop = Stop {
    iterations: 40,
    gain: 1e-5,
};
const FINE: Stop = Stop {
    iterations: 200,
    gain: 1e-12,
};
/// Rough ends that are followed to the bottom.
const FOLLOWED: usize = 4;
const DAMPING: (f64, f64) = (1e-12, 1e12);

/// What is fitted: a form to points, within bounds, under a loss.
#[derive(Debug, Clone, Copy)]
pub(super) struct Problem<'a, const N: usize> {
    pub(super) form: Form<N>,
    pub(super) points: &'a [(f64, f64)],
    pub(super) bounds: &'a Bounds<N>,
    pub(super) loss: Loss,
}

impl<const N: usize> Problem<'_, N> {
    /// The best fit over all starts; the first of equals. Starts are moved into the bounds. All are followed a little
    /// way, the most promising ones to the end.
    pub(super) fn best(&self, starts: impl Iterator<Item = [f64; N]>) -> Option<Fit<N>> {
        let mut rough: Vec<Fit<N>> = starts
            .map(|start| self.descend(start, ROUGH))
            .filter(|fit| fit.sse.is_finite())
            .collect();
        rough.sort_by(|a, b| a.sse.total_cmp(&b.sse));
        rough
            .into_iter()
            .take(FOLLOWED)
            .map(|fit| self.descend(fit.parameters, FINE))
            .reduce(|best, fit| if fit.sse < best.sse { fit } else { best })
    }

    /// The fit that a start leads to.
    pub(super) fn follow(&self, start: [f64; N]) -> Fit<N> {
        self.descend(start, FINE)
    }

    /// Standard errors by the derivatives, `sqrt(SSE/(n − k) · diag (JᵀJ)⁻¹)` with `k` free parameters. `None` for a
    /// parameter that is fixed or that the points do not determine, and without points to spare.
    pub(super) fn standard_error(&self, fit: &Fit<N>, parameter: usize) -> Option<f64> {
        let free: [bool; N] = std::array::from_fn(|j| self.bounds[j].0 < self.bounds[j].1);
        let spare = self
            .points
            .len()
            .checked_sub(free.iter().filter(|f| **f).count())?;
        if !free[parameter] || spare == 0 {
            return None;
        }
        let (normal, _) = self.normal_equations(&fit.parameters);
        let unit: [f64; N] = std::array::from_fn(|j| if j == parameter { 1.0 } else { 0.0 });
        let variance = solve(&normal, &unit, &free, 0.0)[parameter] * fit.sse / spare as f64;
        (variance > 0.0 && variance.is_finite()).then(|| variance.sqrt())
    }

    fn descend(&self, start: [f64; N], stop: Stop) -> Fit<N> {
        let Self {
            form,
            points,
            bounds,
            loss,
        } = *self;
        let clamp =
            |p: [f64; N]| -> [f64; N] { std::array::from_fn(|j| p[j].clamp(bounds[j].0, bounds[j].1)) };
        let sse_of = |p: &[f64; N]| {
            points
                .iter()
                .map(|&(x, y)| loss.of(y - form(x, p).0))
                .sum::<f64>()
        };
        let mut parameters = clamp(start);
        let mut sse = sse_of(&parameters);
        let mut damping = 1e-3;
        for _ in 0..stop.iterations {
            let (normal, gradient) = self.normal_equations(&parameters);
            // A parameter at a bound that the data push outwards stays there for this step.
            let free: [bool; N] = std::array::from_fn(|j| {
                let (low, high) = bounds[j];
                low < high
                    && !(parameters[j] <= low && gradient[j] <= 0.0)
                    && !(parameters[j] >= high && gradient[j] >= 0.0)
            });
            let mut gain = 0.0;
            while damping <= DAMPING.1 {
                let step = solve(&normal, &gradient, &free, damping);
                let candidate = clamp(std::array::from_fn(|j| parameters[j] + step[j]));
                let candidate_sse = sse_of(&candidate);
                if candidate_sse < sse {
                    gain = sse - candidate_sse;
                    parameters = candidate;
                    sse = candidate_sse;
                    damping = (damping * 0.1).max(DAMPING.0);
                    break;
                }
                damping *= 10.0;
            }
            if gain <= stop.gain * sse {
                break;
            }
        }
        Fit { parameters, sse }
    }

    /// `JᵀWJ` and `JᵀW(y − f)`, with the weights that the loss gives the residuals.
    fn normal_equations(&self, parameters: &[f64; N]) -> ([[f64; N]; N], [f64; N]) {
        let mut normal = [[0.0; N]; N];
        let mut gradient = [0.0; N];
        for &(x, y) in self.points {
            let (value, derivative) = (self.form)(x, parameters);
            let weight = self.loss.weight(y - value);
            for i in 0..N {
                let weighted = weight * derivative[i];
                gradient[i] += weighted * (y - value);
                for j in 0..=i {
                    normal[i][j] += weighted * derivative[j];
                }
            }
        }
        let lower = normal;
        for (j, row) in normal.iter_mut().enumerate() {
            for (i, entry) in row.iter_mut().enumerate().skip(j + 1) {
                *entry = lower[i][j];
            }
        }
        (normal, gradient)
    }
}

/// Solves `(A + damping · diag A) step = g` over the free parameters by elimination; the damped matrix is positive
/// definite, so no pivoting is needed. Fixed parameters get 0.
fn solve<const N: usize>(
    normal: &[[f64; N]; N],
    gradient: &[f64; N],
    free: &[bool; N],
    damping: f64,
) -> [f64; N] {
    let mut a = *normal;
    let mut b = *gradient;
    for i in 0..N {
        if free[i] {
            // The floor keeps a parameter that moves nothing (a flat curve's EC50) from dividing by zero.
            a[i][i] += damping * a[i][i].max(1e-12);
        } else {
            b[i] = 0.0;
            a[i] = [0.0; N];
            a.iter_mut().for_each(|row| row[i] = 0.0);
            a[i][i] = 1.0;
        }
    }
    for i in 0..N {
        if a[i][i] <= 0.0 {
            // Lost to rounding: leave this parameter where it is.
            a[i][i] = 1.0;
            b[i] = 0.0;
        }
        let pivot = a[i];
        for k in i + 1..N {
            let factor = a[k][i] / pivot[i];
            for j in i..N {
                a[k][j] -= factor * pivot[j];
            }
            b[k] -= factor * b[i];
        }
    }
    let mut step = [0.0; N];
    for i in (0..N).rev() {
        let rest: f64 = (i + 1..N).map(|j| a[i][j] * step[j]).sum();
        step[i] = (b[i] - rest) / a[i][i];
    }
    step.map(|s| if s.is_finite() { s } else { 0.0 })
}

/// `1 / (1 + 10^−z)`.
fn rise(z: f64) -> f64 {
    1.0 / (1.0 + (-LN_10 * z).exp())
}

/// Four-parameter log-logistic, parameters `[bottom, top, log10 EC50, hill]` (SCIENCE 6.6).
pub(super) fn hill(x: f64, p: &[f64; 4]) -> (f64, [f64; 4]) {
    let [bottom, top, ec50, slope] = *p;
    let s = rise(slope * (x - ec50));
    let ds = -LN_10 * s * (1.0 - s) * (top - bottom);
    (
        bottom + (top - bottom) * s,
        [1.0 - s, s, ds * slope, ds * (ec50 - x)],
    )
}

/// A Hill rise times a Hill fall, parameters `[bottom, top, log10 gain EC50, gain hill, log10 loss EC50 − log10 gain
/// EC50, loss hill]` (the `gnls` form of tcplfit2, with a bottom).
pub(super) fn gain_loss(x: f64, p: &[f64; 6]) -> (f64, [f64; 6]) {
    let [bottom, top, ec50, gain_hill, width, loss_hill] = *p;
    let past = x - ec50 - width;
    let gain = rise(gain_hill * (x - ec50));
    let kept = rise(-loss_hill * past);
    let (both, height) = (gain * kept, top - bottom);
    let by_gain = -LN_10 * both * (1.0 - gain) * height;
    let by_loss = -LN_10 * both * (1.0 - kept) * height;
    (
        bottom + height * both,
        [
            1.0 - both,
            both,
            by_gain * gain_hill - by_loss * loss_hill,
            by_gain * (ec50 - x),
            -by_loss * loss_hill,
            by_loss * past,
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derivatives_agree<const N: usize>(form: Form<N>, p: [f64; N]) {
        for x in [-2.0, -0.4, 0.0, 0.7, 2.0] {
            let (_, derivative) = form(x, &p);
            for j in 0..N {
                let (mut up, mut down) = (p, p);
                up[j] += 1e-6;
                down[j] -= 1e-6;
                let numeric = (form(x, &up).0 - form(x, &down).0) / 2e-6;
                assert!(
                    (numeric - derivative[j]).abs() < 1e-8,
                    "{x} {j}: {numeric} {}",
                    derivative[j]
                );
            }
        }
    }

    #[test]
    fn analytic_derivatives_equal_numeric_ones() {
        derivatives_agree(hill, [0.1, 0.9, -0.3, 1.4]);
        derivatives_agree(gain_loss, [0.05, 1.1, -0.3, 1.4, 0.9, 2.2]);
    }
}
