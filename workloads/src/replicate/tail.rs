//! P-values from a null: by counting, and, where asked for, from a generalised Pareto tail fitted to the largest draws
//! (SCIENCE 6.5; Knijnenburg et al. 2009, 10.1093/bioinformatics/btp211).
//!
//! Draws enter, p-values leave. Counting cannot give less than `1 / (1 + B)`. A [`ParetoTail`] can, by assuming the
//! shape of what was not drawn; it is therefore an explicit choice, and fitting fails where there are too few draws or
//! where a test of fit speaks against it.

use rayon::prelude::*;

use crate::random::Random;

/// `(1 + reached) / (1 + draws)` (Phipson and Smyth 2010): `reached` of `draws` null values are at least the observed.
pub fn p_value(reached: usize, draws: usize) -> f64 {
    (1 + reached) as f64 / (1 + draws) as f64
}

/// How a tail is fitted and tested.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TailSettings {
    /// The largest this many draws are fitted at first, at most a quarter of all.
    pub exceedances: usize,
    /// Fewer than this many are no tail.
    pub least_exceedances: usize,
    /// Values that at least this many draws reach are counted, not extrapolated.
    pub count_from: usize,
    /// A fit is refused where its test gives a p below this.
    pub fit_level: f64,
    /// Simulated samples of the test of fit.
    pub simulations: u32,
    /// Seed of the test.
    pub seed: u64,
}

impl Default for TailSettings {
    /// Knijnenburg et al.: 250 exceedances, 10 fewer at a time until the fit is not refused at 0.05; values that 10
    /// draws reach are counted.
    fn default() -> Self {
        Self {
            exceedances: 250,
            least_exceedances: 50,
            count_from: 10,
            fit_level: 0.05,
            simulations: 199,
            seed: 0,
        }
    }
}

/// Exceedances given up at a time while the fit is refused.
const STEP: usize = 10;

/// Why a null has no Pareto tail.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum TailError {
    /// There are too few draws.
    #[error(
        "a null of {draws} draws has no tail to fit: a quarter of it must hold {least} values; draw more, or count"
    )]
    TooFew {
        /// Draws.
        draws: usize,
        /// Least number of exceedances.
        least: usize,
    },
    /// The largest draws are all the same, or not finite.
    #[error("the {exceedances} largest null values do not differ, or are not finite: count instead")]
    Degenerate {
        /// Values tried.
        exceedances: usize,
    },
    /// No number of exceedances is fitted well.
    #[error(
        "no generalised Pareto tail fits the null (best p of the test of fit: {best:.3}, {level} is needed): count \
         instead"
    )]
    PoorFit {
        /// The largest p of the tests.
        best: f64,
        /// What was asked for.
        level: f64,
    },
}

/// `P(X > t + y | X > t) = (1 + ξ y / σ)^(−1/ξ)`, with `e^(−y/σ)` at ξ = 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParetoTail {
    /// Where the tail begins, t.
    pub threshold: f64,
    /// Shape, ξ; below 0 the tail ends at `t − σ/ξ`.
    pub shape: f64,
    /// Scale, σ.
    pub scale: f64,
    /// Draws above the threshold.
    pub exceedances: usize,
    /// Draws in all.
    pub draws: usize,
    /// p of the Anderson-Darling test of fit, by simulation from the fitted tail with refitting.
    pub fit_p: f64,
}

impl ParetoTail {
    /// Fits the largest values of an ascending null.
    ///
    /// # Errors
    /// [`TailError`] with too few draws, without spread among the largest, or where no number of them is fitted well.
    pub fn fit(sorted: &[f64], settings: TailSettings) -> Result<Self, TailError> {
        let draws = sorted.len();
        let least = settings.least_exceedances.max(STEP);
        let mut exceedances = settings.exceedances.min(draws / 4);
        if exceedances < least {
            return Err(TailError::TooFew { draws, least });
        }
        let mut best = 0.0f64;
        while exceedances >= least {
            let (below, above) = sorted.split_at(draws - exceedances);
            let threshold = 0.5 * (below[below.len() - 1] + above[0]);
            let over: Vec<f64> = above.iter().map(|v| v - threshold).collect();
            let (shape, scale) = fit(&over).ok_or(TailError::Degenerate { exceedances })?;
            let fit_p = fit_p(&over, shape, scale, settings);
            if fit_p >= settings.fit_level {
                return Ok(Self {
                    threshold,
                    shape,
                    scale,
                    exceedances,
                    draws,
                    fit_p,
                });
            }
            best = best.max(fit_p);
            exceedances -= STEP;
        }
        Err(TailError::PoorFit {
            best,
            level: settings.fit_level,
        })
    }

    /// p of an observed value against the ascending null the tail was fitted to: counted where `count_from` draws reach
    /// it, extrapolated beyond. Above the end of a bounded tail it is the smallest positive number, never 0.
    pub fn p(&self, sorted: &[f64], observed: f64, settings: TailSettings) -> f64 {
        let reached = sorted.len() - sorted.partition_point(|&v| v < observed);
        if reached >= settings.count_from || observed <= self.threshold {
            return p_value(reached, sorted.len());
        }
        let share = self.exceedances as f64 / self.draws as f64;
        let tail = survival(observed - self.threshold, self.shape, self.scale);
        // Never above what counting gives.
        (share * tail).clamp(f64::MIN_POSITIVE, p_value(reached, sorted.len()))
    }
}

/// Shapes this close to 0 are the exponential.
const EXPONENTIAL: f64 = 1e-9;

fn survival(y: f64, shape: f64, scale: f64) -> f64 {
    if shape.abs() < EXPONENTIAL {
        return (-y / scale).exp();
    }
    (1.0 + shape * y / scale).max(0.0).powf(-1.0 / shape)
}

fn quantile(survival: f64, shape: f64, scale: f64) -> f64 {
    if shape.abs() < EXPONENTIAL {
        return -scale * survival.ln();
    }
    scale * (survival.powf(-shape) - 1.0) / shape
}

/// Zhang and Stephens (2009), 10.1198/tech.2009.08017: the posterior mean of θ = −ξ/σ over a grid, then ξ and σ. Close
/// to maximum likelihood, and always there. `over` is ascending and positive. Returns (ξ, σ); `None` without spread.
fn fit(over: &[f64]) -> Option<(f64, f64)> {
    let n = over.len();
    let (first, last) = (*over.first()?, *over.last()?);
    if !(last.is_finite() && last > first) {
        return None;
    }
    let quartile = over[((n as f64 / 4.0 + 0.5).floor() as usize).clamp(1, n) - 1].max(f64::MIN_POSITIVE);
    let points = 20 + (n as f64).sqrt().floor() as usize;
    let shape_at = |theta: f64| over.iter().map(|y| (-theta * y).ln_1p()).sum::<f64>() / n as f64;
    let grid: Vec<f64> = (1..=points)
        .map(|j| {
            let step = 1.0 - (points as f64 / (j as f64 - 0.5)).sqrt();
            1.0 / last + step / (3.0 * quartile)
        })
        .collect();
    let profile: Vec<f64> = grid
        .iter()
        .map(|&theta| {
            let shape = shape_at(theta);
            n as f64 * ((-theta / shape).ln() - shape - 1.0)
        })
        .collect();
    let (mut weighted, mut total) = (0.0, 0.0);
    let most = profile
        .iter()
        .copied()
        .filter(|v| v.is_finite())
        .fold(f64::NEG_INFINITY, f64::max);
    for (theta, likelihood) in grid.iter().zip(&profile).filter(|(_, l)| l.is_finite()) {
        let weight = (likelihood - most).exp();
        weighted += weight * theta;
        total += weight;
    }
    let theta = weighted / total;
    let shape = shape_at(theta);
    let scale = -shape / theta;
    (shape.is_finite() && scale.is_finite() && scale > 0.0).then_some((shape, scale))
}

/// `A² = −n − (1/n) Σ (2i − 1) [ln F(x_i) + ln(1 − F(x_{n+1−i}))]`, `over` ascending.
fn anderson_darling(over: &[f64], shape: f64, scale: f64) -> f64 {
    // Values at the very ends of the fitted range must not make the statistic infinite.
    const EDGE: f64 = 1e-12;
    let n = over.len();
    let beyond: Vec<f64> = over
        .iter()
        .map(|&y| survival(y, shape, scale).clamp(EDGE, 1.0 - EDGE))
        .collect();
    let sum: f64 = (0..n)
        .map(|i| (2 * i + 1) as f64 * ((1.0 - beyond[i]).ln() + beyond[n - 1 - i].ln()))
        .sum();
    -(n as f64) - sum / n as f64
}

/// p of the test of fit: how often a sample of the fitted tail, fitted again, fits no better.
fn fit_p(over: &[f64], shape: f64, scale: f64, settings: TailSettings) -> f64 {
    let observed = anderson_darling(over, shape, scale);
    let n = over.len();
    let worse = (0..settings.simulations)
        .into_par_iter()
        .filter(|&i| {
            let mut random = Random::keyed(&[settings.seed, n as u64, u64::from(i)]);
            let mut sample: Vec<f64> = (0..n)
                .map(|_| quantile(1.0 - random.uniform(), shape, scale))
                .collect();
            sample.sort_unstable_by(f64::total_cmp);
            fit(&sample).is_some_and(|(shape, scale)| anderson_darling(&sample, shape, scale) >= observed)
        })
        .count();
    p_value(worse, settings.simulations as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(n: usize, value: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut random = Random::keyed(&[5]);
        let mut values: Vec<f64> = (0..n).map(|_| value(1.0 - random.uniform())).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    #[test]
    fn known_tails_are_found_and_extrapolated() {
        let settings = TailSettings::default();
        for (shape, scale) in [(0.2, 1.0), (0.0, 2.0), (-0.3, 1.0)] {
            let null = sorted(10_000, |u| quantile(u, shape, scale));
            let tail = ParetoTail::fit(&null, settings).unwrap();
            assert!((tail.shape - shape).abs() < 0.2, "{shape}: {tail:?}");
            let observed = quantile(1e-6, shape, scale);
            let p = tail.p(&null, observed, settings);
            // Two orders below the smallest count: within a factor of 30 of the truth, and below what counting says.
            assert!(p < 1e-4 && p > 3e-8, "{shape}: {p}");
        }
    }

    #[test]
    fn values_within_the_draws_are_counted() {
        let settings = TailSettings::default();
        let null = sorted(10_000, |u| quantile(u, 0.1, 1.0));
        let tail = ParetoTail::fit(&null, settings).unwrap();
        assert_eq!(tail.p(&null, null[9_000], settings), p_value(1_000, 10_000));
        assert_eq!(tail.p(&null, -5.0, settings), 1.0);
        let mut last = 1.0;
        for step in 0..60 {
            let p = tail.p(&null, f64::from(step) * 0.5, settings);
            assert!(p <= last && p > 0.0, "p falls as the observed value grows");
            last = p;
        }
    }

    #[test]
    fn a_tail_that_is_not_there_is_an_error() {
        let settings = TailSettings::default();
        assert_eq!(
            ParetoTail::fit(&[1.0; 100], settings).unwrap_err(),
            TailError::TooFew {
                draws: 100,
                least: 50
            }
        );
        assert_eq!(
            ParetoTail::fit(&[1.0; 4_000], settings).unwrap_err(),
            TailError::Degenerate { exceedances: 250 }
        );
        // Two lumps far from each other are no tail.
        let mut lumps = sorted(10_000, |u| u);
        for (i, value) in lumps[9_750..].iter_mut().enumerate() {
            *value = if i < 245 {
                2.0 + 1e-3 * i as f64
            } else {
                1e6 + i as f64
            };
        }
        assert!(matches!(
            ParetoTail::fit(&lumps, settings),
            Err(TailError::PoorFit { .. }) | Err(TailError::Degenerate { .. })
        ));
    }
}
