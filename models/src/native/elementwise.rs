//! What a transformer does between its matrix products: GELU and SiLU, softmax and layer norm, value by value or row by row.
//!
//! The loops are plain arithmetic without calls or branches, so that the compiler turns them into the vectors of the
//! instruction set that `Isa::run` compiles them for. Sums over a row are kept in 16 lanes whatever the set, so that all
//! of them add in the same order.

use super::simd::{Kernel, Simd, multiply_add};

/// Partial sums of a row.
const LANES: usize = 16;

/// `e^x`, to 2 units in the last place; 0 below -87.3, the largest finite value above 88.7.
///
/// Cody and Waite's reduction to `2^n e^r` with |r| <= ln 2 / 2, and the polynomial of Moshier's Cephes library
/// (`expf`). Adding and subtracting 1.5 * 2^23 rounds to a whole number.
#[inline(always)]
fn exp<S: Simd>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 88.3 { 88.3 } else { x };
    let clamped = if clamped > -87.3 { clamped } else { -87.3 };
    let shifted = multiply_add::<S>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<S>(n, -0.693_359_4, clamped);
    let r = multiply_add::<S>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = multiply_add::<S>(p, r, c);
    }
    let e = multiply_add::<S>(p * r, r, r) + 1.0;
    // The low bits of `shifted` are n; 2^n has the exponent n + 127.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let result = e * power;
    let result = if x > -87.3 { result } else { 0.0 };
    // NaN compares false everywhere above, and must not turn into a number.
    if x.is_nan() { x } else { result }
}

/// The error function, to 2 units in the last place: `x + x P(x^2)` near 0 and `1 - e^Q(|x|)` beyond, with the minimax
/// polynomials of N. Juffa (public, 2016).
#[inline(always)]
fn erf<S: Simd>(x: f32) -> f32 {
    let (a, s) = (x.abs(), x * x);
    let mut near = -5.967_617e-4;
    for c in [
        4.991_194_2e-3,
        -2.676_813_5e-2,
        1.128_199_25e-1,
        -3.761_253_4e-1,
        1.283_791_7e-1,
    ] {
        near = multiply_add::<S>(near, s, c);
    }
    near = multiply_add::<S>(near, x, x);
    let mut far = multiply_add::<S>(-1.728_534_7e-5, a, 3.831_972_6e-4);
    let u = multiply_add::<S>(-3.883_964_4e-3, a, 2.425_462_2e-2);
    far = multiply_add::<S>(far, s, u);
    for c in [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
        far = multiply_add::<S>(far, a, c);
    }
    far = multiply_add::<S>(far, a, -a);
    let far = (1.0 - exp::<S>(far)).copysign(x);
    if a > 0.927_734_4 { far } else { near }
}

/// `x/2 (1 + erf(x / sqrt 2))`.
#[inline(always)]
fn gelu<S: Simd>(x: f32) -> f32 {
    let half = 0.5 * x;
    multiply_add::<S>(half, erf::<S>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
fn silu<S: Simd>(x: f32) -> f32 {
    x / (1.0 + exp::<S>(-x))
}

/// A smooth function of single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Smooth {
    Gelu,
    Silu,
}

/// A smooth function in place, on some columns of some rows.
pub(crate) struct Smoothing<'a> {
    /// Which.
    pub(crate) function: Smooth,
    /// Where each row begins.
    pub(crate) rows: &'a [usize],
    /// The first column.
    pub(crate) column: usize,
    /// How many columns.
    pub(crate) columns: usize,
    /// The values.
    pub(crate) values: &'a mut [f32],
}

impl Kernel for Smoothing<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        match self.function {
            Smooth::Gelu => self.each(gelu::<S>),
            Smooth::Silu => self.each(silu::<S>),
        }
    }
}

impl Smoothing<'_> {
    #[inline(always)]
    fn each(self, function: impl Fn(f32) -> f32) {
        for &row in self.rows {
            let start = row + self.column;
            let (whole, rest) = self.values[start..start + self.columns].as_chunks_mut::<LANES>();
            for chunk in whole {
                for value in chunk {
                    *value = function(*value);
                }
            }
            for value in rest {
                *value = function(*value);
            }
        }
    }
}

/// Softmax of each row before its sum is divided out: `e^(x - max)` in place, and the inverse of the sum.
pub(crate) struct Softmax<'a> {
    /// Rows of `width` values, `width` a multiple of 16.
    pub(crate) values: &'a mut [f32],
    /// Values per row in memory.
    pub(crate) width: usize,
    /// Values per row that take part; the others become 0.
    pub(crate) used: usize,
    /// One per row: one over the sum.
    pub(crate) inverse: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (row, inverse) in self
            .values
            .chunks_exact_mut(self.width)
            .zip(self.inverse.iter_mut())
        {
            row[self.used..].fill(f32::NEG_INFINITY);
            let chunks = row.as_chunks_mut::<LANES>().0;
            let mut largest = [f32::NEG_INFINITY; LANES];
            for chunk in chunks.iter() {
                for (most, &x) in largest.iter_mut().zip(chunk) {
                    *most = if x > *most { x } else { *most };
                }
            }
            let largest = largest.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            let mut sums = [0.0; LANES];
            for chunk in chunks.iter_mut() {
                for (sum, x) in sums.iter_mut().zip(chunk) {
                    *x = exp::<S>(*x - largest);
                    *sum += *x;
                }
            }
            *inverse = 1.0 / sums.iter().sum::<f32>();
        }
    }
}

/// Layer norm of each row without gain and shift: `(x - mean) / sqrt(variance + epsilon)` (Ba, Kiros and Hinton 2016,
/// arXiv:1607.06450; population variance). Gain and shift are folded into the layer that reads it.
pub(crate) struct LayerNorm<'a> {
    /// Rows of `width` values.
    pub(crate) input: &'a [f32],
    /// As many.
    pub(crate) output: &'a mut [f32],
    /// Values per row.
    pub(crate) width: usize,
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

impl Kernel for LayerNorm<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = self.input.chunks_exact(self.width);
        for (from, to) in rows.zip(self.output.chunks_exact_mut(self.width)) {
            let (mean, scale) = moments::<S>(from, self.epsilon);
            for (target, &x) in to.iter_mut().zip(from) {
                *target = (x - mean) * scale;
            }
        }
    }
}

/// Layer norm in place of the queries and keys of each head, with gain and shift (Henry et al. 2020, arXiv:2010.04245,
/// as timm writes it).
pub(crate) struct HeadNorm<'a> {
    /// The first value of the first head of the first row.
    pub(crate) values: &'a mut [f32],
    /// Values from one row to the next.
    pub(crate) stride: usize,
    /// Heads side by side.
    pub(crate) heads: usize,
    /// Multiplied in; one value per channel of a head.
    pub(crate) gain: &'a [f32],
    /// Added; one value per channel of a head.
    pub(crate) shift: &'a [f32],
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

impl Kernel for HeadNorm<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.gain.len().max(1);
        for row in self.values.chunks_mut(self.stride) {
            for head in row.chunks_exact_mut(width).take(self.heads) {
                let (mean, scale) = moments::<S>(head, self.epsilon);
                for (x, (&gain, &shift)) in head.iter_mut().zip(self.gain.iter().zip(self.shift)) {
                    *x = multiply_add::<S>((*x - mean) * scale, gain, shift);
                }
            }
        }
    }
}

/// The mean of a row, and one over the root of its variance plus `epsilon`.
#[inline(always)]
fn moments<S: Simd>(row: &[f32], epsilon: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    let mean = (sums.iter().sum::<f32>() + rest.iter().sum::<f32>()) / n;
    let mut squares = [0.0; LANES];
    for chunk in chunks {
        for (sum, &x) in squares.iter_mut().zip(chunk) {
            *sum = multiply_add::<S>(x - mean, x - mean, *sum);
        }
    }
    let rest: f32 = rest.iter().map(|&x| (x - mean) * (x - mean)).sum();
    let variance = (squares.iter().sum::<f32>() + rest) / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;

    /// The error function in f64: its series near 0, the continued fraction of its complement beyond (Abramowitz and
    /// Stegun 7.1.5 and 7.1.14).
    fn erf_f64(x: f64) -> f64 {
        let a = x.abs();
        let value = if a < 3.0 {
            let (mut term, mut sum) = (a, a);
            for n in 1..200 {
                term *= -a * a / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let tail = (1..200).rev().fold(a, |below, n| a + f64::from(n) / 2.0 / below);
            1.0 - (-a * a).exp() / tail / std::f64::consts::PI.sqrt()
        };
        value.copysign(x)
    }

    #[test]
    fn gelu_is_exact_to_rounding() {
        exact_to_rounding(Smooth::Gelu, |x| 0.5 * x * (1.0 + erf_f64(x / 2f64.sqrt())));
    }

    #[test]
    fn silu_is_exact_to_rounding() {
        exact_to_rounding(Smooth::Silu, |x| x / (1.0 + (-x).exp()));
    }

    fn exact_to_rounding(function: Smooth, exact: impl Fn(f64) -> f64) {
        let inputs: Vec<f32> = (-1600..=1600).map(|i| i as f32 / 160.0).collect();
        for isa in Isa::available() {
            let mut found = inputs.clone();
            let columns = found.len();
            let kernel = Smoothing {
                function,
                rows: &[0],
                column: 0,
                columns,
                values: &mut found,
            };
            // SAFETY: the set is available.
            unsafe { isa.run(kernel) };
            for (&x, &y) in inputs.iter().zip(&found) {
                let x = f64::from(x);
                let expected = exact(x);
                let error = (f64::from(y) - expected).abs();
                assert!(
                    error <= 3e-7 * x.abs().max(0.1),
                    "{isa:?}: {function:?}({x}) = {y}, {expected}"
                );
            }
            let mut odd = [f32::NAN, f32::INFINITY, -200.0];
            let kernel = Smoothing {
                function,
                rows: &[0],
                column: 0,
                columns: 3,
                values: &mut odd,
            };
            // SAFETY: the set is available.
            unsafe { isa.run(kernel) };
            assert!(
                odd[0].is_nan() && odd[1] == f32::INFINITY && odd[2].abs() < 1e-30,
                "{function:?} {odd:?}"
            );
        }
    }

    #[test]
    fn softmax_is_that_of_f64() {
        let used = 37;
        let scores: Vec<f32> = (0..2 * 48)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) * 1.75)
            .collect();
        for isa in Isa::available() {
            let (mut values, mut inverse) = (scores.clone(), [0.0; 2]);
            let kernel = Softmax {
                values: &mut values,
                width: 48,
                used,
                inverse: &mut inverse,
            };
            // SAFETY: the set is available.
            unsafe { isa.run(kernel) };
            for ((row, found), inverse) in scores.chunks(48).zip(values.chunks(48)).zip(inverse) {
                let largest = row[..used].iter().copied().fold(f32::MIN, f32::max);
                let exact: Vec<f64> = row[..used]
                    .iter()
                    .map(|&x| (f64::from(x) - f64::from(largest)).exp())
                    .collect();
                let sum: f64 = exact.iter().sum();
                for (e, &x) in exact.iter().zip(found) {
                    let (found, expected) = (f64::from(x) * f64::from(inverse), e / sum);
                    assert!(
                        (found - expected).abs() < 1e-6 * expected + 1e-30,
                        "{isa:?}: {found}, {expected}"
                    );
                }
                assert!(found[used..].iter().all(|&x| x == 0.0));
            }
        }
    }

    #[test]
    fn layer_norm_has_mean_0_and_variance_1() {
        let input: Vec<f32> = (0..3 * 37).map(|i| 1000.0 + (i * 29 % 83) as f32).collect();
        for isa in Isa::available() {
            let mut output = vec![0.0; input.len()];
            let kernel = LayerNorm {
                input: &input,
                output: &mut output,
                width: 37,
                epsilon: 1e-6,
            };
            // SAFETY: the set is available.
            unsafe { isa.run(kernel) };
            for (row, found) in input.chunks(37).zip(output.chunks(37)) {
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / 37.0;
                let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 37.0;
                for (&x, &y) in row.iter().zip(found) {
                    let expected = (f64::from(x) - mean) / (variance + 1e-6).sqrt();
                    assert!((f64::from(y) - expected).abs() < 2e-5, "{isa:?}: {y} {expected}");
                }
            }
        }
    }
}
