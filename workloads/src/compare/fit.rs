//! Bounded least squares for dose curves: projected Levenberg-Marquardt with analytic derivatives. Points and bounds
//! enter, parameters and the residual sum of squares leave. Nothing fails: a start that cannot improve is returned.

/// A curve with `N` parameters: its value at a log10 dose and the derivative by each parameter.
pub(super) type Form<const N: usize> = fn(f64, &[f64; N]) -> (f64, [f64; N]);

/// Lower and upper bound of each parameter; equal bounds fix it.
pub(super) type Bounds<const N: usize> = [(f64, f64); N];

/// Parameters and their residual sum of squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit<const N: usize> {
    pub(super) parameters: [f64; N],
    pub(super) sse: f64,
}

const ITERATIONS: usize = 200;
/// Relative gain in SSE below which an accepted step ends the search.
const GAIN: f64 = 1e-12;
const DAMPING: (f64, f64) = (1e-12, 1e12);

/// The best fit over all starts; the first of equals. Starts are moved into the bounds.
pub(super) fn best<const N: usize>(
    form: Form<N>,
    points: &[(f64, f64)],
    bounds: &Bounds<N>,
    starts: impl Iterator<Item = [f64; N]>,
) -> Option<Fit<N>> {
    starts
        .map(|start| descend(form, points, bounds, start))
        .filter(|fit| fit.sse.is_finite())
        .reduce(|best, fit| if fit.sse < best.sse { fit } else { best })
}

fn descend<const N: usize>(
    form: Form<N>,
    points: &[(f64, f64)],
    bounds: &Bounds<N>,
    start: [f64; N],
) -> Fit<N> {
    let clamp = |p: [f64; N]| -> [f64; N] { std::array::from_fn(|j| p[j].clamp(bounds[j].0, bounds[j].1)) };
    let sse_of = |p: &[f64; N]| {
        points
            .iter()
            .map(|&(x, y)| (y - form(x, p).0).powi(2))
            .sum::<f64>()
    };
    let mut parameters = clamp(start);
    let mut sse = sse_of(&parameters);
    let mut damping = 1e-3;
    for _ in 0..ITERATIONS {
        let (normal, gradient) = normal_equations(form, points, &parameters);
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
        if gain <= GAIN * sse {
            break;
        }
    }
    Fit { parameters, sse }
}

/// `JᵀJ` and `Jᵀ(y − f)`.
fn normal_equations<const N: usize>(
    form: Form<N>,
    points: &[(f64, f64)],
    parameters: &[f64; N],
) -> ([[f64; N]; N], [f64; N]) {
    let mut normal = [[0.0; N]; N];
    let mut gradient = [0.0; N];
    for &(x, y) in points {
        let (value, derivative) = form(x, parameters);
        for i in 0..N {
            gradient[i] += derivative[i] * (y - value);
            for j in 0..N {
                normal[i][j] += derivative[i] * derivative[j];
            }
        }
    }
    (normal, gradient)
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

/// Four-parameter log-logistic, parameters `[bottom, top, log10 EC50, hill]` (SCIENCE 6.6).
pub(super) fn hill(x: f64, p: &[f64; 4]) -> (f64, [f64; 4]) {
    let [bottom, top, ec50, slope] = *p;
    let s = 1.0 / (1.0 + 10f64.powf(slope * (ec50 - x)));
    let ds = -std::f64::consts::LN_10 * s * (1.0 - s) * (top - bottom);
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
    let gain = 1.0 / (1.0 + 10f64.powf(gain_hill * (ec50 - x)));
    let kept = 1.0 / (1.0 + 10f64.powf(loss_hill * past));
    let (both, height) = (gain * kept, top - bottom);
    let by_gain = -std::f64::consts::LN_10 * both * (1.0 - gain) * height;
    let by_loss = -std::f64::consts::LN_10 * both * (1.0 - kept) * height;
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
