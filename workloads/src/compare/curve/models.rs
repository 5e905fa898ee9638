//! The shaped models of a dose curve: their bounds and starts (SCIENCE 6.6). Points enter, the best fit leaves.

use super::fit::{self, Bounds, Fit, Problem};
use super::loss::Loss;

const BOTTOM: (f64, f64) = (-0.25, 0.25);
const TOP: (f64, f64) = (-0.5, 1.5);
const HILL: (f64, f64) = (0.3, 5.0);
/// Smallest distance of gain and loss EC50, in log10 doses; closer, the top would have no meaning.
const NARROWEST: f64 = 0.25;

/// Bounds that all models share.
pub(super) struct Limits {
    bottom: (f64, f64),
    top: (f64, f64),
    dose: (f64, f64),
}

impl Limits {
    pub(super) fn of(points: &[(f64, f64)], free_bottom: bool) -> Option<Self> {
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

    pub(super) fn ec50(&self) -> (f64, f64) {
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

/// Bounds of `[bottom, top, log10 EC50, hill]`.
pub(super) fn hill_bounds(limits: &Limits) -> Bounds<4> {
    [limits.bottom, limits.top, limits.ec50(), HILL]
}

pub(super) fn hill_fit(points: &[(f64, f64)], limits: &Limits, loss: Loss) -> Option<Fit<4>> {
    let bounds = hill_bounds(limits);
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
    let problem = Problem {
        form: fit::hill,
        points,
        bounds: &bounds,
        loss,
    };
    problem.best(starts)
}

pub(super) fn gain_loss_fit(points: &[(f64, f64)], limits: &Limits, loss: Loss) -> Option<Fit<6>> {
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
    let problem = Problem {
        form: fit::gain_loss,
        points,
        bounds: &bounds,
        loss,
    };
    problem.best(starts)
}

/// The constant that fits best: the mean, or under a robust loss the mean with the weights it gives.
pub(super) fn constant(points: &[(f64, f64)], loss: Loss) -> f64 {
    /// Enough for the weights to settle; each step lowers the loss.
    const STEPS: usize = 50;
    let weighted = |weight: &dyn Fn(f64) -> f64| {
        let (sum, total) = points.iter().fold((0.0, 0.0), |(sum, total), &(_, y)| {
            let w = weight(y);
            (sum + w * y, total + w)
        });
        (total > 0.0).then(|| sum / total)
    };
    let mut at = weighted(&|_| 1.0).unwrap_or(0.0);
    if loss != Loss::Squares {
        for _ in 0..STEPS {
            at = weighted(&|y| loss.weight(y - at)).unwrap_or(at);
        }
    }
    at
}
