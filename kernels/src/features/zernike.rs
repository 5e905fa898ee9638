//! Zernike moments of an object (CellProfiler MeasureObjectSizeShape and MeasureObjectIntensityDistribution). Enters: an
//! object, and for intensities its values in a channel. Leaves: a value per order. Cannot fail.
//!
//! Pixels are placed in the unit disc of the smallest circle around their centres; `V_nm = sum w R_nm(r) (y + i x)^m /
//! r^m`, with `w` 1 for the shape, whose score is `|V| / (pi radius^2)`, and the intensity for the radial distribution,
//! whose magnitude is `|V| / pixels` and whose phase `atan2(Re V, Im V)`, the peer's order of arguments. NaN of objects
//! without a radius. Sources: Boland et al. 1998; centrosome `zernike`; cp_measure 0.3.0.

use std::f64::consts::PI;

use crate::features::hull;
use crate::features::intensity::Scale;
use crate::features::object::Object;

/// Largest order n.
const DEGREE: usize = 9;

/// Number of pairs (n, m).
pub(crate) const COUNT: usize = 30;

/// Pixels on the circle itself belong to it, whatever the rounding of its centre.
const RIM: f64 = 1e-9;

/// Every n up to 9 with every m up to n of the same parity.
pub(crate) fn orders() -> impl Iterator<Item = (usize, usize)> {
    (0..=DEGREE).flat_map(|n| (n % 2..=n).step_by(2).map(move |m| (n, m)))
}

/// Coefficients of the radial polynomials, the highest power of r^2 first.
pub(crate) fn polynomials() -> Vec<Vec<f64>> {
    let factorial = |n: usize| (1..=n).map(|i| i as f64).product::<f64>();
    orders()
        .map(|(n, m)| {
            let (sum, difference) = ((n + m) / 2, (n - m) / 2);
            (0..=difference)
                .map(|k| {
                    let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
                    sign * factorial(n - k) / (factorial(k) * factorial(sum - k) * factorial(difference - k))
                })
                .collect()
        })
        .collect()
}

/// The polynomials at the pixels of an object; the same for every channel.
pub(crate) struct Zernike {
    /// Real and imaginary part per pixel, order after order.
    values: Vec<(f64, f64)>,
    pixels: usize,
    radius: f64,
}

impl Zernike {
    pub(crate) fn of(object: &Object, polynomials: &[Vec<f64>]) -> Self {
        let (row, column, radius) = hull::circle(&hull::centres(object));
        let pixels = object.area();
        let mut values = vec![(0.0, 0.0); COUNT * pixels];
        for (i, (y, x)) in object.pixels().enumerate() {
            let (y, x) = ((y as f64 - row) / radius, (x as f64 - column) / radius);
            let r = y * y + x * x;
            if r > 1.0 + RIM {
                continue;
            }
            // Powers of y + i x.
            let mut powers = [(1.0, 0.0); DEGREE + 1];
            for m in 1..=DEGREE {
                let (re, im) = powers[m - 1];
                powers[m] = (re * y - im * x, re * x + im * y);
            }
            for (order, ((_, m), polynomial)) in orders().zip(polynomials).enumerate() {
                let radial = polynomial.iter().fold(0.0, |sum, c| sum * r + c);
                values[order * pixels + i] = (radial * powers[m].0, radial * powers[m].1);
            }
        }
        Self {
            values,
            pixels,
            radius,
        }
    }

    /// Sums over the pixels, order after order, weighted.
    fn sums(&self, weight: impl Fn(usize) -> f64) -> impl Iterator<Item = (f64, f64)> {
        self.values.chunks_exact(self.pixels.max(1)).map(move |values| {
            values.iter().enumerate().fold((0.0, 0.0), |(re, im), (i, v)| {
                let w = weight(i);
                (re + w * v.0, im + w * v.1)
            })
        })
    }

    /// Scores of the shape.
    pub(crate) fn shape(&self, out: &mut Vec<f64>) {
        let area = PI * self.radius * self.radius;
        out.extend(self.sums(|_| 1.0).map(|(re, im)| re.hypot(im) / area));
    }

    /// Magnitudes and then phases of the intensity.
    pub(crate) fn intensity(&self, values: &[u16], scale: Scale, out: &mut Vec<f64>) {
        let sums: Vec<(f64, f64)> = self.sums(|i| scale.of(f64::from(values[i]))).collect();
        out.extend(sums.iter().map(|(re, im)| re.hypot(*im) / self.pixels as f64));
        out.extend(sums.iter().map(|(re, im)| re.atan2(*im)));
    }
}
