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

/// Pixels at a time: what is made of them stays in the cache, and an object may be as large as a field.
const BLOCK: usize = 512;

/// Sums over the pixels of an object, order after order.
pub(crate) struct Zernike {
    /// With weights of 1.
    shape: Vec<[f64; 2]>,
    /// With the intensities of each channel.
    channels: Vec<Vec<[f64; 2]>>,
    pixels: usize,
    radius: f64,
}

impl Zernike {
    /// `channels` are the values of the object in each channel.
    pub(crate) fn of(object: &Object, polynomials: &[Vec<f64>], channels: &[Vec<u16>], scale: Scale) -> Self {
        let (row, column, radius) = hull::circle(&hull::centres(object));
        let pixels: Vec<(usize, usize)> = object.pixels().collect();
        let mut shape = vec![[0.0; 2]; polynomials.len()];
        let mut sums = vec![shape.clone(); channels.len()];
        for (block, pixels) in pixels.chunks(BLOCK).enumerate() {
            let ys: Vec<f64> = pixels.iter().map(|p| (p.0 as f64 - row) / radius).collect();
            let xs: Vec<f64> = pixels.iter().map(|p| (p.1 as f64 - column) / radius).collect();
            let squares: Vec<f64> = ys.iter().zip(&xs).map(|(y, x)| y * y + x * x).collect();
            let powers = powers(&ys, &xs, &squares);
            let ones = vec![1.0; pixels.len()];
            let weights: Vec<Vec<f64>> = channels
                .iter()
                .map(|values| {
                    let values = &values[block * BLOCK..][..pixels.len()];
                    values.iter().map(|&v| scale.of(f64::from(v))).collect()
                })
                .collect();
            for (order, ((_, m), polynomial)) in orders().zip(polynomials).enumerate() {
                let radial: Vec<f64> = squares
                    .iter()
                    .map(|r| polynomial.iter().fold(0.0, |sum, c| sum * r + c))
                    .collect();
                for (part, power) in powers[m].iter().enumerate() {
                    let values: Vec<f64> = power.iter().zip(&radial).map(|(p, r)| p * r).collect();
                    shape[order][part] += dot(&values, &ones);
                    for (sums, weights) in sums.iter_mut().zip(&weights) {
                        sums[order][part] += dot(&values, weights);
                    }
                }
            }
        }
        Self {
            shape,
            channels: sums,
            pixels: pixels.len(),
            radius,
        }
    }

    /// Scores of the shape.
    pub(crate) fn shape(&self, out: &mut Vec<f64>) {
        let area = PI * self.radius * self.radius;
        out.extend(self.shape.iter().map(|[re, im]| re.hypot(*im) / area));
    }

    /// Magnitudes and then phases of the intensity in a channel.
    pub(crate) fn intensity(&self, channel: usize, out: &mut Vec<f64>) {
        let sums = self.channels.get(channel).map_or(&[][..], Vec::as_slice);
        out.extend(sums.iter().map(|[re, im]| re.hypot(*im) / self.pixels as f64));
        out.extend(sums.iter().map(|[re, im]| re.atan2(*im)));
    }
}

/// Real and imaginary parts of the powers 0 to 9 of y + i x; 0 beyond the circle.
fn powers(ys: &[f64], xs: &[f64], squares: &[f64]) -> Vec<[Vec<f64>; 2]> {
    let within: Vec<f64> = squares
        .iter()
        .map(|r| if *r > 1.0 + RIM { 0.0 } else { 1.0 })
        .collect();
    let zeros = vec![0.0; within.len()];
    let mut powers = vec![[within, zeros]];
    for m in 1..=DEGREE {
        let [re, im] = &powers[m - 1];
        let of = |f: fn(f64, f64, f64, f64) -> f64| -> Vec<f64> {
            let below = re.iter().zip(im);
            below
                .zip(ys.iter().zip(xs))
                .map(|((re, im), (y, x))| f(*re, *im, *y, *x))
                .collect()
        };
        let next = [
            of(|re, im, y, x| re * y - im * x),
            of(|re, im, y, x| re * x + im * y),
        ];
        powers.push(next);
    }
    powers
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
