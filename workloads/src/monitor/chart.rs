//! Control charts over the plates of a screen: EWMA and CUSUM (SCIENCE 8; Roberts 1959, Page 1954).
//!
//! A z of each plate enters in the order of the plates; the state after each leaves.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Weight of the newest plate (SCIENCE 8).
const LAMBDA: f64 = 0.2;
/// What a CUSUM forgives each plate, in SDs: half of the shift it is made to find (SCIENCE 8).
const CUSUM_SLACK: f64 = 0.5;
/// From this sum on a single CUSUM signals (SCIENCE 8).
const CUSUM_LIMIT: f64 = 5.0;
/// A z beyond this has no normal score in `f64`.
const LARGEST_Z: f64 = 37.0;
/// One-sided probability beyond three SDs.
const BEYOND_THREE_SD: f64 = 0.001_349_898_031_630_094_6;

/// Both charts of one quantity.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chart {
    plates: u32,
    /// `λ z + (1 − λ) · before`, from 0.
    pub ewma: f64,
    /// Sum of what lies above `+0.5`.
    pub cusum_up: f64,
    /// Sum of what lies below `−0.5`, positive.
    pub cusum_down: f64,
}

impl Chart {
    /// Takes the next plate.
    pub fn push(&mut self, z: f64) {
        self.plates += 1;
        self.ewma = LAMBDA * z + (1.0 - LAMBDA) * self.ewma;
        self.cusum_up = (self.cusum_up + z - CUSUM_SLACK).max(0.0);
        self.cusum_down = (self.cusum_down - z - CUSUM_SLACK).max(0.0);
    }

    /// `±w √(λ/(2−λ) · (1 − (1−λ)^{2t}))`, where `w` is 3 for one chart and wider for many (see [`width`]).
    pub fn ewma_limit(&self, charts: usize) -> f64 {
        let settled = 1.0 - (1.0 - LAMBDA).powi(2 * i32::try_from(self.plates).unwrap_or(i32::MAX / 2));
        width(charts) * (LAMBDA / (2.0 - LAMBDA) * settled).sqrt()
    }

    /// The larger of both sums.
    pub fn cusum(&self) -> f64 {
        self.cusum_up.max(self.cusum_down)
    }
}

/// Half-width in SDs at which `charts` charts together signal as rarely as one does at 3 (Bonferroni).
pub fn width(charts: usize) -> f64 {
    if charts <= 1 {
        return 3.0;
    }
    -Normal::standard().inverse_cdf(BEYOND_THREE_SD / charts as f64)
}

/// From here on one of `charts` CUSUMs signals: 5, and `ln charts` more, because the plates between false signals
/// grow as the exponential of the limit (Siegmund 1985, at a slack of one half).
pub fn cusum_limit(charts: usize) -> f64 {
    CUSUM_LIMIT + (charts.max(1) as f64).ln()
}

/// `(x − mean) / SD` against the values of reference plates (SD with n − 1), and the same as a normal score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// `(x − mean) / SD`.
    pub z: f64,
    /// The standard normal value as rare as this z is when mean and SD come from so few plates: the new value lies at
    /// `z / √(1 + 1/R)` on a t law with R − 1 degrees of freedom. Ten plates exceed `z = 3` in 2 % of cases where a
    /// known mean and SD would in 0.3 %, and charts over many components would signal all the time.
    pub score: f64,
}

/// Below this share of its mean a spread is rounding.
const NO_SPREAD: f64 = 1e-9;

/// Where a value stands among reference plates; `None` with fewer than three or without spread.
pub fn standing(reference: &[f64], value: f64) -> Option<Standing> {
    if reference.len() < 3 {
        return None;
    }
    let n = reference.len() as f64;
    let mean = reference.iter().sum::<f64>() / n;
    let variance = reference.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    let sd = variance.sqrt();
    if sd.is_nan() || sd <= NO_SPREAD * mean.abs() {
        return None;
    }
    let z = (value - mean) / sd;
    let law = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    let beyond = law.sf(z.abs() / (1.0 + 1.0 / n).sqrt());
    let score = if beyond > 0.0 {
        -Normal::standard().inverse_cdf(beyond)
    } else {
        LARGEST_Z
    };
    Some(Standing {
        z,
        score: score.clamp(0.0, LARGEST_Z).copysign(z),
    })
}
