//! What a residual costs a fit (SCIENCE 6.6). Least squares, or losses that grow slowly (Cauchy) or not at all (Tukey)
//! once a residual is far beyond the noise, so that one bad well does not bend the curve.

use serde::{Deserialize, Serialize};

use crate::compare::window::{MAD_TO_SD, median_in_place};

/// The loss a screen asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CurveLoss {
    /// Least squares.
    #[default]
    Squares,
    /// `c² ln(1 + (r/c)²)` with `c` = 2.385 SD of the residuals.
    Cauchy,
    /// Tukey's biweight with `c` = 4.685 SD: residuals beyond it cost no more.
    Tukey,
}

/// 95 % efficiency for normal residuals (Holland and Welsch 1977).
const CAUCHY: f64 = 2.385;
const TUKEY: f64 = 4.685;

/// A loss with its scale. Near 0 each is `r²`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Loss {
    Squares,
    Cauchy(f64),
    Tukey(f64),
}

impl Loss {
    /// The loss whose scale is the spread (1.4826 median) of these residuals; least squares where they have none.
    pub(super) fn scaled(wanted: CurveLoss, residuals: &mut [f64]) -> Self {
        for r in residuals.iter_mut() {
            *r = r.abs();
        }
        let sd = MAD_TO_SD * median_in_place(residuals).unwrap_or(0.0);
        match wanted {
            CurveLoss::Cauchy if sd > 0.0 => Self::Cauchy(CAUCHY * sd),
            CurveLoss::Tukey if sd > 0.0 => Self::Tukey(TUKEY * sd),
            _ => Self::Squares,
        }
    }

    pub(super) fn of(self, r: f64) -> f64 {
        match self {
            Self::Squares => r * r,
            Self::Cauchy(c) => c * c * (r / c).powi(2).ln_1p(),
            Self::Tukey(c) => {
                let left = (1.0 - (r / c).powi(2)).max(0.0);
                c * c / 3.0 * (1.0 - left * left * left)
            }
        }
    }

    /// Half the derivative of the loss, divided by the residual.
    pub(super) fn weight(self, r: f64) -> f64 {
        match self {
            Self::Squares => 1.0,
            Self::Cauchy(c) => 1.0 / (1.0 + (r / c).powi(2)),
            Self::Tukey(c) => (1.0 - (r / c).powi(2)).max(0.0).powi(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_derivatives_of_the_losses() {
        for loss in [Loss::Squares, Loss::Cauchy(0.3), Loss::Tukey(0.9)] {
            for r in [-2.0, -0.4, 0.01, 0.2, 0.8, 1.5] {
                let numeric = (loss.of(r + 1e-6) - loss.of(r - 1e-6)) / 2e-6;
                assert!((numeric - 2.0 * r * loss.weight(r)).abs() < 1e-6, "{loss:?} {r}");
            }
        }
    }
}
