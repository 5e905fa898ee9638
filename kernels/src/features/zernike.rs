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
    /// Real and imaginary parts, each of all pixels, order after order.
    parts: Vec<[Vec<f64>; 2]>,
    pixels: usize,
    radius: f64,
}

impl Zernike {
    pub(crate) fn of(object: &Object, polynomials: &[Vec<f64>]) -> Self {
        let (row, column, radius) = hull::circle(&hull::centres(object));
        let pixels = object.area();
        let (mut ys, mut xs) = (Vec::with_capacity(pixels), Vec::with_capacity(pixels));
        for (y, x) in object.pixels() {
            ys.push((y as f64 - row) / radius);
            xs.push((x as f64 - column) / radius);
        }
        let squares: Vec<f64> = ys.iter().zip(&xs).map(|(y, x)| y * y + x * x).collect();
        // Powers of y + i x; beyond the circle they are 0, and so is all that is made of them.
        let within: Vec<f64> = squares
            .iter()
            .map(|r| if *r > 1.0 + RIM { 0.0 } else { 1.0 })
            .collect();
        let mut powers = vec![[within, vec![0.0; pixels]]];
        for m in 1..=DEGREE {
            let [re, im] = &powers[m - 1];
            let of = |f: fn(f64, f64, f64, f64) -> f64| -> Vec<f64> {
                let below = re.iter().zip(im);
                below
                    .zip(ys.iter().zip(&xs))
                    .map(|((re, im), (y, x))| f(*re, *im, *y, *x))
                    .collect()
            };
            let next = [
                of(|re, im, y, x| re * y - im * x),
                of(|re, im, y, x| re * x + im * y),
            ];
            powers.push(next);
        }
        let parts = orders()
            .zip(polynomials)
            .map(|((_, m), polynomial)| {
                let radial: Vec<f64> = squares
                    .iter()
                    .map(|r| polynomial.iter().fold(0.0, |sum, c| sum * r + c))
                    .collect();
                let times = |part: &Vec<f64>| part.iter().zip(&radial).map(|(p, r)| p * r).collect();
                [times(&powers[m][0]), times(&powers[m][1])]
            })
            .collect();
        Self {
            parts,
            pixels,
            radius,
        }
    }

    /// Scores of the shape.
    pub(crate) fn shape(&self, out: &mut Vec<f64>) {
        let area = PI * self.radius * self.radius;
        let ones = vec![1.0; self.pixels];
        out.extend(
            self.parts
                .iter()
                .map(|[re, im]| dot(re, &ones).hypot(dot(im, &ones)) / area),
        );
    }

    /// Magnitudes and then phases of the intensity.
    pub(crate) fn intensity(&self, values: &[u16], scale: Scale, out: &mut Vec<f64>) {
        let weights: Vec<f64> = values.iter().map(|&v| scale.of(f64::from(v))).collect();
        let sums: Vec<[f64; 2]> = self
            .parts
            .iter()
            .map(|[re, im]| [dot(re, &weights), dot(im, &weights)])
            .collect();
        out.extend(sums.iter().map(|[re, im]| re.hypot(*im) / self.pixels as f64));
        out.extend(sums.iter().map(|[re, im]| re.atan2(*im)));
    }
}

/// Sum of products, in eight parts that do not wait for one another.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut parts = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in parts.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    parts.iter().sum()
}
