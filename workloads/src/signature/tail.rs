//! p-values beyond what a sampled null can count: an exponential tail over its largest values.
//!
//! A sorted null enters, a tail leaves; `None` where the null is too small or flat. Follows Knijnenburg, Wessels,
//! Reinders and Shmulevich (2009), "Fewer permutations, more accurate P-values", 10.1093/bioinformatics/btp211, with
//! the generalised Pareto shape held at 0: the nulls here are means of wells (light tails, shape at or below 0), for
//! which an exponential tail is the heavier one, so that p is rather too large than too small, and never 0.

/// Fewest null values for which a tail is fitted: below, the tail would reach into the body of the null.
const FEWEST_NULL: usize = 1000;
/// Null values above the threshold: Knijnenburg et al. start at 250.
const EXCEEDANCES: usize = 250;
/// At most this share of the null is tail.
const LARGEST_SHARE: usize = 40;
/// A p-value that at least this many null values reach is counted, not extrapolated.
pub const COUNTED: usize = 10;

/// The upper tail of a null of `size` values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    threshold: f64,
    mean_excess: f64,
    exceedances: usize,
    size: usize,
}

impl Tail {
    /// Fits the largest values of `null`, whose order is changed.
    ///
    /// `None` with fewer than 1000 values, or where the tail has no spread.
    pub fn fit(null: &mut [f64]) -> Option<Self> {
        let size = null.len();
        if size < FEWEST_NULL {
            return None;
        }
        let exceedances = EXCEEDANCES.min(size / LARGEST_SHARE);
        let (_, threshold, above) = null.select_nth_unstable_by(size - exceedances - 1, f64::total_cmp);
        let threshold = *threshold;
        // In one order of additions, whatever the selection left.
        above.sort_unstable_by(f64::total_cmp);
        let mean_excess = above.iter().map(|value| value - threshold).sum::<f64>() / exceedances as f64;
        (mean_excess > 0.0 && mean_excess.is_finite()).then_some(Self {
            threshold,
            mean_excess,
            exceedances,
            size,
        })
    }

    /// p of an observation that fewer than [`COUNTED`] null values reach: not above what the counted p is where
    /// counting ends, and not below `1 / size²`, beyond which a sample of this size says nothing.
    pub fn p_at_least(&self, observed: f64) -> f64 {
        let share = self.exceedances as f64 / self.size as f64;
        let p = share * (-(observed - self.threshold) / self.mean_excess).exp();
        let size = self.size as f64;
        p.clamp((size * size).recip(), (1 + COUNTED) as f64 / (1.0 + size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles of the standard normal law, evenly spaced in probability, by bisection of its distribution.
    fn normal_sample(n: usize) -> Vec<f64> {
        (0..n).map(|i| quantile((i as f64 + 0.5) / n as f64)).collect()
    }

    fn quantile(p: f64) -> f64 {
        let (mut low, mut high) = (-9.0, 9.0);
        for _ in 0..60 {
            let mid = 0.5 * (low + high);
            if 1.0 - upper(mid) < p {
                low = mid
            } else {
                high = mid
            }
        }
        low
    }

    /// `P(Z > z)` by Simpson's rule over the density.
    fn upper(z: f64) -> f64 {
        const STEPS: usize = 400;
        let h = (12.0 - z) / STEPS as f64;
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let inner: f64 = (1..STEPS)
            .map(|i| density(z + h * i as f64) * if i % 2 == 1 { 4.0 } else { 2.0 })
            .sum();
        (density(z) + inner + density(12.0)) * h / 3.0
    }

    #[test]
    fn beyond_the_sample_p_is_near_the_law_and_never_too_small() {
        let tail = Tail::fit(&mut normal_sample(10_000)).unwrap();
        for z in [3.2, 3.7, 4.2] {
            let (ours, truth) = (tail.p_at_least(z), upper(z));
            assert!(ours >= truth, "z {z}: {ours} below {truth}");
            assert!(ours <= 8.0 * truth, "z {z}: {ours} far above {truth}");
        }
        assert_eq!(tail.p_at_least(60.0), 1e-8);
        assert_eq!(tail.p_at_least(2.0), 11.0 / 10_001.0);
    }

    #[test]
    fn small_and_flat_nulls_have_no_tail() {
        assert_eq!(Tail::fit(&mut normal_sample(999)), None);
        assert_eq!(Tail::fit(&mut [1.0; 2000]), None);
    }
}
