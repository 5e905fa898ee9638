//! How well a Hill curve's EC50 is known (SCIENCE 6.6). A fit and its points enter; the standard error by the derivatives
//! and the 95 % interval by profile likelihood leave. What the points do not determine is `None`.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::fit::{self, Bounds, Fit, Problem};
use super::loss::Loss;
use super::models::{Limits, hill_bounds};

/// Two-sided 95 %.
const UPPER_TAIL: f64 = 0.975;
/// First step outwards from the fit, in log10 doses; each following one is longer by [`GROWTH`].
const STEP: f64 = 0.05;
const GROWTH: f64 = 1.7;
/// Halvings of the step in which the limit is crossed: to 0.1 % of it.
const HALVINGS: usize = 10;
const EC50: usize = 2;

/// On log10 doses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) standard_error: Option<f64>,
    /// `None` where the points allow any lower EC50 within the bounds.
    pub(super) low: Option<f64>,
    /// `None` where the points allow any higher EC50 within the bounds.
    pub(super) high: Option<f64>,
}

fn problem<'a>(points: &'a [(f64, f64)], bounds: &'a Bounds<4>, loss: Loss) -> Problem<'a, 4> {
    Problem {
        form: fit::hill,
        points,
        bounds,
        loss,
    }
}

/// Standard error of log10 EC50 of a least-squares fit.
pub(super) fn hill_standard_error(points: &[(f64, f64)], limits: &Limits, fit: &Fit<4>) -> Option<f64> {
    problem(points, &hill_bounds(limits), Loss::Squares).standard_error(fit, EC50)
}

/// The interval holds every EC50 whose best fit is not worse than `SSE (1 + t²/(n − k))`, `t` the 97.5 % quantile of
/// Student's distribution with `n − k` degrees of freedom (Bates and Watts 1988, 6.1).
pub(super) fn of_hill(points: &[(f64, f64)], limits: &Limits, loss: Loss, fit: &Fit<4>) -> Interval {
    let bounds = hill_bounds(limits);
    let free = bounds.iter().filter(|bound| bound.0 < bound.1).count();
    let spare = points.len().saturating_sub(free) as f64;
    let mut interval = Interval {
        standard_error: problem(points, &bounds, loss).standard_error(fit, EC50),
        low: None,
        high: None,
    };
    let Ok(student) = StudentsT::new(0.0, 1.0, spare) else {
        return interval;
    };
    let t = student.inverse_cdf(UPPER_TAIL);
    let limit = fit.sse * (1.0 + t * t / spare);
    interval.low = crossing(points, &bounds, loss, fit, limit, -1.0);
    interval.high = crossing(points, &bounds, loss, fit, limit, 1.0);
    interval
}

/// The log10 EC50 in a direction at which the best fit of the other parameters exceeds `limit`.
fn crossing(
    points: &[(f64, f64)],
    bounds: &Bounds<4>,
    loss: Loss,
    fit: &Fit<4>,
    limit: f64,
    direction: f64,
) -> Option<f64> {
    let end = if direction < 0.0 {
        bounds[EC50].0
    } else {
        bounds[EC50].1
    };
    // Each fit starts from the last one that was within the limit.
    let fixed_at = |x: f64, near: &[f64; 4]| {
        let mut bounds = *bounds;
        bounds[EC50] = (x, x);
        problem(points, &bounds, loss).follow(*near)
    };
    let mut inside = (fit.parameters[EC50], fit.parameters);
    let mut step = STEP;
    let mut outside = loop {
        let x = inside.0 + direction * step;
        let x = if direction < 0.0 { x.max(end) } else { x.min(end) };
        if x == inside.0 {
            return None;
        }
        let at = fixed_at(x, &inside.1);
        if at.sse > limit {
            break x;
        }
        inside = (x, at.parameters);
        step *= GROWTH;
    };
    for _ in 0..HALVINGS {
        let middle = 0.5 * (inside.0 + outside);
        let at = fixed_at(middle, &inside.1);
        if at.sse > limit {
            outside = middle;
        } else {
            inside = (middle, at.parameters);
        }
    }
    Some(0.5 * (inside.0 + outside))
}
